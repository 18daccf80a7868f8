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
    """Box centres of one class, from above.

    Attributes:
        sample: [N] int.
        x: [N] metres, global frame.
        y: [N] metres.
        offset: [N] metres, x from the ego vehicle.
    """

    sample: npt.NDArray[np.integer]
    x: Floats
    y: Floats
    offset: Floats


@dataclass(frozen=True)
class Pairs:
    """Detections and objects that are nearer than the largest threshold.

    Attributes:
        detection: [P] ascending; of each detection the nearest object first.
        object: [P].
        distance: [P] metres.
    """

    detection: Ints
    object: Ints
    distance: Floats


def order_of_choice(score: Floats) -> Ints:
    """[D] detections in the order in which they choose: descending score, of equal ones the later first."""
    order = np.argsort(score)
    ascending = score[order]
    same = ascending[1:] == ascending[:-1]
    if same.any():
        tied = np.zeros(len(score), dtype=bool)
        tied[1:] |= same
        tied[:-1] |= same
        at = np.flatnonzero(tied)
        order[at] = order[at[np.lexsort((order[at], ascending[at]))]]
    return order[::-1]


def match(detections: Points, objects: Points, rank: Ints, num_samples: int) -> tuple[Pairs, tuple[Ints, ...]]:
    """Match the detections of one class.

    Args:
        detections: D detections.
        objects: G objects; within a sample in annotation order.
        rank: [D] the place of each detection in the order in which they choose, 0 first.
        num_samples: S.

    Returns:
        all pairs that are near, and per threshold which of them match, in no particular order.
    """
    pairs = _near_pairs(detections, objects, num_samples)
    if len(pairs.detection) == 0:
        return pairs, (np.zeros(0, dtype=np.int64),) * len(THRESHOLDS)
    starts = np.ones(len(pairs.detection), dtype=bool)
    np.not_equal(pairs.detection[1:], pairs.detection[:-1], out=starts[1:])
    first = np.flatnonzero(starts)
    rank_of_first = rank[pairs.detection[first]]
    matched = []
    for threshold in THRESHOLDS:
        near = np.add.reduceat(pairs.distance < threshold, first, dtype=np.int64)
        some = np.flatnonzero(near)
        matched.append(
            _defer(pairs.object, first[some], first[some] + near[some], rank_of_first[some], len(objects.sample))
        )
    return pairs, tuple(matched)


def _near_pairs(detections: Points, objects: Points, num_samples: int) -> Pairs:
    if len(objects.sample) == 0 or len(detections.sample) == 0:
        return _join([])
    low = float(objects.offset.min())
    columns = int((float(objects.offset.max()) - low) // _CELL) + 1
    # Two empty cells on either side of each sample keep neighbours of different samples apart.
    stride = columns + 4
    cell = objects.sample * stride + ((objects.offset - low) // _CELL).astype(np.int64) + 2
    order = np.argsort(cell, kind="stable")
    start = np.zeros(num_samples * stride + 1, dtype=np.int64)
    np.cumsum(np.bincount(cell, minlength=num_samples * stride), out=start[1:])

    column = np.floor((detections.offset - low) * (1 / _CELL))
    cell = detections.sample * stride + np.clip(column, -1, columns, out=column).astype(np.int64) + 2
    first = start[cell - 1]
    count = start[cell + 2] - first
    near = np.flatnonzero(count)
    return _join(
        [
            _measure(detections, objects, rows, order, first[rows], count[rows])
            for rows in _slices(near, np.cumsum(count[near]))
        ]
    )


def _measure(detections: Points, objects: Points, rows: Ints, order: Ints, first: Ints, count: Ints) -> Pairs:
    """The near pairs of some detections, whose possible objects are `order[first : first + count]`."""
    run, place = expand(first, count)
    detection, obj = rows[run], order[place]
    dy = detections.y[detection] - objects.y[obj]
    near = np.flatnonzero(np.abs(dy) < _CELL)
    detection, obj = detection[near], obj[near]
    offset = np.stack([detections.x[detection] - objects.x[obj], dy[near]], axis=1)
    # A stack of 1 x 2 by 2 x 1 products rounds as the dot product inside numpy.linalg.norm does, which dx² + dy² does
    # not where that uses fused multiply-add: it decides matches at exactly a threshold and ties of distance.
    distance = np.sqrt((offset[:, None, :] @ offset[:, :, None])[:, 0, 0])
    near = np.flatnonzero(distance < THRESHOLDS[-1])
    detection, obj, distance = detection[near], obj[near], distance[near]
    same = detection[1:] == detection[:-1]
    if same.any():
        several = np.zeros(len(detection), dtype=bool)
        several[1:] |= same
        several[:-1] |= same
        at = np.flatnonzero(several)
        by = at[np.lexsort((obj[at], distance[at], detection[at]))]
        obj[at], distance[at] = obj[by], distance[by]
    return Pairs(detection, obj, distance)


def _join(parts: list[Pairs]) -> Pairs:
    none = np.zeros(0, dtype=np.int64)
    return Pairs(
        np.concatenate([none, *(part.detection for part in parts)]),
        np.concatenate([none, *(part.object for part in parts)]),
        np.concatenate([np.zeros(0), *(part.distance for part in parts)]),
    )


def _slices(rows: Ints, ends: Ints) -> Iterator[Ints]:
    """Rows in slices of a bounded number of pairs, so that memory follows the near pairs and not the pairs tried.

    Args:
        rows: [N].
        ends: [N] cumulated number of pairs.
    """
    begin = 0
    while begin < len(rows):
        done = int(ends[begin - 1]) if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, done + _PAIRS_AT_ONCE, side="right")))
        yield rows[begin:end]
        begin = end


def _defer(obj: Ints, first: Ints, end: Ints, rank: Ints, num_objects: int) -> Ints:
    """Deferred acceptance.

    Args:
        obj: [P] candidates, each detection's behind one another, best first.
        first: [A] where each detection's candidates begin in `obj`.
        end: [A] where they end, > first.
        rank: [A] all different, the smaller the earlier to choose.
        num_objects: G.

    Returns:
        [M] int64: the places in `obj` that become matches.
    """
    holder = np.full(num_objects, _NOBODY)
    place_of_holder = np.zeros(num_objects, dtype=np.int64)
    row_of_holder = np.zeros(num_objects, dtype=np.int64)
    row, place = np.arange(len(first)), first
    while len(row):
        wanted, own = obj[place], rank[row]
        before = holder[wanted]
        np.minimum.at(holder, wanted, own)
        wins = holder[wanted] == own
        won, displaced = wanted[wins], before[wins] != _NOBODY
        freed = won[displaced]
        next_row = np.concatenate([row[~wins], row_of_holder[freed]])
        next_place = np.concatenate([place[~wins], place_of_holder[freed]]) + 1
        row_of_holder[won], place_of_holder[won] = row[wins], place[wins]
        more = next_place < end[next_row]
        row, place = next_row[more], next_place[more]
    return np.asarray(place_of_holder[holder != _NOBODY])
