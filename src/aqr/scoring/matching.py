"""Which detection found which object.

Definition (nuScenes detection task, arXiv 1903.11027, section 3.1; `accumulate` of nuscenes-devkit 1.2.0). For one
class and one threshold t, detections of all samples are taken in descending order of score. Each looks at the
objects of its class in its sample that no earlier detection has taken, and at the nearest of these by distance of
the centres in the ground plane (the first in annotation order where two are equally near). Nearer than t, strictly,
it takes the object: a true positive. Otherwise it is a false positive. The thresholds are 0.5, 1, 2 and 4 m.

Equal scores: the detection that stands *later* in the submission comes first, as in the devkit.

How it is computed. Only pairs nearer than 4 m can ever match, and those of a smaller threshold are a prefix of a
detection's candidates sorted by distance; so one candidate list serves all four. Objects choose among detections by
one common order, the score, and under a common order the greedy result above is the one and only stable matching.
Deferred acceptance finds it with every detection proposing at once: each free detection proposes to its nearest
candidate that has not refused it yet, each object keeps the best proposer so far and sends the others on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from aqr.scoring.boxes import Floats, Ints
from aqr.scoring.filters import expand

THRESHOLDS: Final = (0.5, 1.0, 2.0, 4.0)
"""Match distances, metres."""

_CELL: Final = THRESHOLDS[-1] + 1e-3
"""Width of the strips that objects are sorted into, a little over the largest threshold so that rounding is safe."""
_PAIRS_AT_ONCE: Final = 4_000_000
_NOBODY: Final = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Points:
    """Box centres of one class.

    Attributes:
        sample: [N] int.
        xy: [N, 2] metres, global frame.
        offset: [N] metres, x from the ego vehicle.
    """

    sample: npt.NDArray[np.integer]
    xy: Floats
    offset: Floats


def match(detections: Points, objects: Points, num_samples: int) -> Ints:
    """Match the detections of one class.

    Args:
        detections: D detections in the order in which they choose.
        objects: G objects; within a sample in annotation order.
        num_samples: S.

    Returns:
        [D, 4] int64: per threshold the object's row, -1 for a false positive.
    """
    detection, obj, distance = _candidates(detections, objects, num_samples)
    found = np.full((len(detections.sample), len(THRESHOLDS)), -1, dtype=np.int64)
    if len(detection) == 0:
        return found
    first = np.flatnonzero(np.r_[True, detection[1:] != detection[:-1]])
    who = detection[first]
    for t, threshold in enumerate(THRESHOLDS):
        near = np.add.reduceat(distance < threshold, first, dtype=np.int64)
        some = near > 0
        holder = _defer(obj, first[some], (first + near)[some], who[some], len(objects.sample))
        taken = np.flatnonzero(holder != _NOBODY)
        found[holder[taken], t] = taken
    return found


def _candidates(detections: Points, objects: Points, num_samples: int) -> tuple[Ints, Ints, Floats]:
    """Every pair nearer than the largest threshold, by detection, then distance, then object.

    Returns:
        detection [P], object [P], distance [P].
    """
    if len(objects.sample) == 0 or len(detections.sample) == 0:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0)
    low = float(objects.offset.min())
    columns = int((float(objects.offset.max()) - low) // _CELL) + 1
    column = ((objects.offset - low) // _CELL).astype(np.int64)
    # Two empty columns on either side of each sample keep neighbours of different samples apart.
    stride = columns + 4
    cell = objects.sample * stride + column + 2
    order = np.argsort(cell, kind="stable")
    start = np.zeros(num_samples * stride + 1, dtype=np.int64)
    np.cumsum(np.bincount(cell, minlength=num_samples * stride), out=start[1:])

    column = np.clip((detections.offset - low) // _CELL, -1, columns).astype(np.int64)
    cell = detections.sample * stride + column + 2
    first = start[cell - 1]
    count = start[cell + 2] - first
    near = np.flatnonzero(count)
    parts = [
        _near_pairs(detections, objects, rows, first[rows], count[rows], order) for rows in _slices(near, count[near])
    ]
    if not parts:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0)
    detection, obj, distance = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return detection, obj, distance


def _near_pairs(
    detections: Points, objects: Points, rows: Ints, first: Ints, count: Ints, order: Ints
) -> tuple[Ints, Ints, Floats]:
    run, place = expand(first, count)
    detection, obj = rows[run], order[place]
    difference = detections.xy[detection] - objects.xy[obj]
    # A stack of 1 x 2 by 2 x 1 products rounds as the dot product inside numpy.linalg.norm does, which dx² + dy² does
    # not where that uses fused multiply-add: it decides matches at exactly a threshold and ties of distance.
    distance = np.sqrt((difference[:, None, :] @ difference[:, :, None])[:, 0, 0])
    near = np.flatnonzero(distance < THRESHOLDS[-1])
    detection, obj, distance = detection[near], obj[near], distance[near]
    same = np.flatnonzero(detection[1:] == detection[:-1])
    if len(same):
        several = np.zeros(len(detection), dtype=bool)
        several[same] = several[same + 1] = True
        at = np.flatnonzero(several)
        by = at[np.lexsort((obj[at], distance[at], detection[at]))]
        obj[at], distance[at] = obj[by], distance[by]
    return detection, obj, distance


def _slices(rows: Ints, count: Ints) -> Iterator[Ints]:
    """Rows in slices of a bounded number of pairs, so that memory follows the candidates and not the pairs tried."""
    begin = 0
    ends = np.cumsum(count)
    while begin < len(rows):
        done = ends[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, done + _PAIRS_AT_ONCE, side="right")))
        yield rows[begin:end]
        begin = end


def _defer(obj: Ints, first: Ints, end: Ints, who: Ints, num_objects: int) -> Ints:
    """Deferred acceptance.

    Args:
        obj: [P] candidates of all detections, each detection's behind one another, best first.
        first: [A] where each detection's candidates begin in `obj`.
        end: [A] where they end, > first.
        who: [A] the detections' ranks, 0 the best, ascending.
        num_objects: G.

    Returns:
        [G] int64: the rank of the detection that holds each object, `_NOBODY` where none does.
    """
    holder = np.full(num_objects, _NOBODY)
    place_of_holder = np.zeros(num_objects, dtype=np.int64)
    row_of_holder = np.zeros(num_objects, dtype=np.int64)
    row, place = np.arange(len(first)), first
    while len(row):
        wanted, rank = obj[place], who[row]
        before = holder[wanted]
        np.minimum.at(holder, wanted, rank)
        wins = holder[wanted] == rank
        won, displaced = wanted[wins], before[wins] != _NOBODY
        freed = won[displaced]
        next_row = np.concatenate([row[~wins], row_of_holder[freed]])
        next_place = np.concatenate([place[~wins], place_of_holder[freed]]) + 1
        row_of_holder[won], place_of_holder[won] = row[wins], place[wins]
        more = next_place < end[next_row]
        row, place = next_row[more], next_place[more]
    return holder
