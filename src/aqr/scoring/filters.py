"""Which boxes are scored at all.

Source: nuScenes detection task (arXiv 1903.11027, section 3.1) and `filter_eval_boxes` of nuscenes-devkit 1.2.0. A
box, predicted or true, is dropped where

- its centre is as far as its class's range or farther from the ego vehicle, seen from above: car, truck, bus,
  trailer and construction vehicle 50 m, pedestrian, motorcycle and bicycle 40 m, cone and barrier 30 m;
- it holds neither a LiDAR nor a radar point (predictions have no such count and stay);
- it is a bicycle or motorcycle whose centre lies in a bicycle rack of the same sample, faces included.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from aqr.scoring.boxes import Bools, Boxes, Floats, GroundTruth, Ints, Predictions, Racks, Samples
from aqr.taxonomy import CLASS_RANGE, CLASSES, LABEL_OF

_RANGES: Final = np.array([CLASS_RANGE[name] for name in CLASSES])
_IN_RACKS: Final = (LABEL_OF["bicycle"], LABEL_OF["motorcycle"])


def scored(boxes: GroundTruth | Predictions, samples: Samples) -> Bools:
    """[N] bool: which boxes the metrics count."""
    keep: Bools = ego_distance(boxes, samples) < _RANGES[boxes.label]
    if boxes.num_points is not None:
        keep &= boxes.num_points != 0
    if len(samples.racks.sample):
        two_wheeled = np.flatnonzero(keep & ((boxes.label == _IN_RACKS[0]) | (boxes.label == _IN_RACKS[1])))
        keep[two_wheeled[_in_rack(boxes.take(two_wheeled), samples.racks)]] = False
    return keep


def ego_distance(boxes: Boxes, samples: Samples) -> Floats:
    """[N] distance in metres from the ego vehicle to the box centre, seen from above."""
    dx = boxes.translation[:, 0] - samples.ego[boxes.sample, 0]
    dy = boxes.translation[:, 1] - samples.ego[boxes.sample, 1]
    return np.asarray(np.sqrt(dx * dx + dy * dy))


def _in_rack(boxes: Boxes, racks: Racks) -> Bools:
    """[N] bool: whether a box's centre lies in a rack of its sample."""
    order = np.argsort(racks.sample, kind="stable")
    of_sample = racks.sample[order]
    first = np.searchsorted(of_sample, boxes.sample, side="left")
    last = np.searchsorted(of_sample, boxes.sample, side="right")
    box, place = expand(first, last - first)
    rack = order[place]

    w, x, y, z = (racks.rotation / np.linalg.norm(racks.rotation, axis=1, keepdims=True)).T
    axes = np.stack(
        [
            np.stack([1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)], -1),
            np.stack([2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)], -1),
            np.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], -1),
        ],
        axis=1,
    )
    edges = axes * racks.size[:, :, None]
    # From the corner at the low end of the three edges; both comparisons in squared metres, as the devkit has them.
    corner = racks.translation - edges.sum(axis=1) / 2
    along = np.einsum("nij,nj->ni", edges[rack], boxes.translation[box] - corner[rack])
    inside = ((along >= 0) & (along <= (edges[rack] ** 2).sum(axis=2))).all(axis=1)
    found = np.zeros(len(boxes), dtype=bool)
    found[box[inside]] = True
    return found


def expand(first: Ints, count: Ints) -> tuple[Ints, Ints]:
    """Runs of consecutive numbers, laid behind one another.

    Args:
        first: [N] first number of each run.
        count: [N] length of each run, >= 0.

    Returns:
        run [M] (which of the N runs) and number [M], M the sum of count.
    """
    run = np.repeat(np.arange(len(count)), count)
    ends = np.cumsum(count)
    total = int(ends[-1]) if len(ends) else 0
    return run, np.arange(total) + np.repeat(first - (ends - count), count)
