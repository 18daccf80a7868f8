"""From matches to average precision and true-positive errors, for one class at one match distance.

Source: nuScenes detection task (arXiv 1903.11027, section 3.1; `accumulate`, `calc_ap` and `calc_tp` of
nuscenes-devkit 1.2.0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from aqr.scoring.boxes import NO_ATTRIBUTE, Boxes, Floats, Ints, yaw_of

MIN_RECALL: Final = 0.1
MIN_PRECISION: Final = 0.1
RECALLS: Final = np.linspace(0, 1, 101)
"""Recall values at which curves are sampled."""
FIRST_RECALL: Final = round(100 * MIN_RECALL) + 1
"""Index of the first recall that counts: above, not at, the minimum."""
ERRORS: Final = ("trans_err", "scale_err", "orient_err", "vel_err", "attr_err")


@dataclass(frozen=True)
class Curve:
    """Precision, confidence and errors over recall.

    Attributes:
        precision: [101] at `RECALLS`, 0 beyond the recall that is reached.
        confidence: [101] score at which that recall is reached, 0 beyond.
        errors: [5, 101] mean of each error (`ERRORS`) over the true positives up to that confidence.
    """

    precision: Floats
    confidence: Floats
    errors: Floats

    @classmethod
    def nothing_found(cls) -> Curve:
        """The curve of a class without objects, without detections or without a match."""
        return cls(np.zeros(len(RECALLS)), np.zeros(len(RECALLS)), np.ones((len(ERRORS), len(RECALLS))))

    @property
    def last_recall(self) -> int:
        """Index of the largest recall that is reached: the last one whose confidence is not 0."""
        reached = np.flatnonzero(self.confidence)
        return int(reached[-1]) if len(reached) else 0


def pair_errors(
    detections: Boxes, rows: Ints, objects: Boxes, object_rows: Ints, distance: Floats, yaw_period: float
) -> Floats:
    """The five errors of matched pairs.

    - translation: distance of the centres in the ground plane, metres;
    - scale: 1 - IoU of the two boxes, laid onto one another in position and heading;
    - orientation: smallest difference of the yaw angles, radians, modulo `yaw_period`;
    - velocity: length of the difference of the velocities, m/s; NaN where one is unknown;
    - attribute: 0 where the attributes are the same and 1 where not; NaN where the object has none.

    Args:
        detections: all detections.
        rows: [N] which of them.
        objects: all objects.
        object_rows: [N] which of them.
        distance: [N] of their centres in the ground plane.
        yaw_period: 2π; π for barriers, which look the same from both sides.

    Returns:
        [5, N] in the order of `ERRORS`.
    """
    size, true_size = detections.size[rows].T, objects.size[object_rows].T
    overlap = _volume(np.minimum(size, true_size))
    iou = overlap / (_volume(size) + _volume(true_size) - overlap)
    turn = yaw_of(objects.rotation[object_rows]) - yaw_of(detections.rotation[rows])
    turn = np.abs((turn + yaw_period / 2) % yaw_period - yaw_period / 2)
    vx, vy = (detections.velocity[rows] - objects.velocity[object_rows]).T
    attribute = objects.attribute[object_rows]
    wrong = np.where(attribute == NO_ATTRIBUTE, np.nan, detections.attribute[rows] != attribute)
    return np.stack([distance, 1 - iou, turn, np.sqrt(vx * vx + vy * vy), wrong])


def sample_curve(score: Floats, at: Ints, errors: Floats, num_objects: int, hit_weight: float = 1.0) -> Curve:
    """Sample precision, confidence and errors at the 101 recalls.

    After the k-th of the detections, in descending order of score, precision is TP/k and recall TP/(number of
    objects). Precision and score are read off at each recall by linear interpolation; where detections share one
    recall the last of them counts. An error at a recall is the mean over the true positives so far, NaN left out,
    interpolated by score; it is 1 everywhere where all of them are NaN, and 0 as long as all of them so far are.

    Args:
        score: [D] descending.
        at: [T] which of the detections are true positives, ascending.
        errors: [5, T] of the true positives.
        num_objects: objects of the class, detected or not.
        hit_weight: how often a true positive counts in precision, 1 but for parts of a split.
    """
    if num_objects == 0 or len(at) == 0:
        return Curve.nothing_found()
    # Recall moves at true positives only: of the detections that share a recall, the first and the last suffice.
    count = np.arange(1, len(at) + 1)
    knots = np.append(np.stack([at - 1, at], axis=1), len(score) - 1)
    found = np.append(np.stack([count - 1, count], axis=1), len(at)).astype(np.float64)
    if at[0] == 0:
        knots, found = knots[1:], found[1:]
    recall = found / num_objects
    true = found * hit_weight
    precision = np.interp(RECALLS, recall, true / (true + (knots + 1 - found)), right=0)
    confidence = np.interp(RECALLS, recall, score[knots], right=0)
    falling, scores = confidence[::-1], score[at][::-1]
    means = [np.interp(falling, scores, _running_mean(values)[::-1])[::-1] for values in errors]
    return Curve(precision, confidence, np.array(means))


def average_precision(curve: Curve) -> float:
    """Mean of max(0, precision - 0.1) over the recalls above 0.1, divided by 0.9 so that 1 is the best."""
    above = np.maximum(curve.precision[FIRST_RECALL:] - MIN_PRECISION, 0)
    return float(np.mean(above)) / (1 - MIN_PRECISION)


def mean_errors(curve: Curve) -> Floats:
    """[5] mean of each error over the recalls from above 0.1 to the largest reached; 1 where 0.1 is not exceeded."""
    last = curve.last_recall
    if last < FIRST_RECALL:
        return np.ones(len(ERRORS))
    return np.asarray(curve.errors[:, FIRST_RECALL : last + 1].mean(axis=1))


def _running_mean(values: Floats) -> Floats:
    known = ~np.isnan(values)
    if not known.any():
        return np.ones(len(values))
    count: Ints = np.cumsum(known)
    total = np.nancumsum(values)
    return np.divide(total, count, out=np.zeros_like(total), where=count != 0)


def _volume(size: Floats) -> Floats:
    return np.asarray(size[0] * size[1] * size[2])
