"""The nuScenes detection metrics.

Definition (nuScenes detection task, arXiv 1903.11027, section 3.1; nuscenes-devkit 1.2.0):

- AP of a class is the mean of the average precision at match distances of 0.5, 1, 2 and 4 m, mAP the mean over the
  ten classes; a class without objects has AP 0.
- The five true-positive errors of a class are taken at a match distance of 2 m. A cone has no heading, velocity or
  attribute, a barrier no velocity or attribute: these are NaN and left out of the means. A class that is not found has
  errors of 1. mATE, mASE, mAOE, mAVE and mAAE are the means over the classes.
- NDS = (5 mAP + Σ max(0, 1 - error)) / 10 over the five mean errors.

`aqr.scoring.filters` says which boxes count, `matching` what a match is, `curves` what precision and errors are.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from aqr.scoring import boxes as boxes_
from aqr.scoring.boxes import MAX_BOXES_PER_SAMPLE, Bools, Floats, GroundTruth, Ints, Predictions
from aqr.scoring.curves import (
    ERRORS,
    MIN_PRECISION,
    MIN_RECALL,
    RECALLS,
    Curve,
    average_precision,
    mean_errors,
    pair_errors,
    sample_curve,
)
from aqr.scoring.filters import scored
from aqr.scoring.matching import THRESHOLDS, Points, match, order_of_choice
from aqr.taxonomy import CLASS_RANGE, CLASSES, LABEL_OF

ERROR_THRESHOLD: Final = THRESHOLDS.index(2.0)
"""Which of the thresholds the true-positive errors are taken at."""
MEAN_AP_WEIGHT: Final = 5
DEVKIT_ORDER: Final = (
    "car",
    "truck",
    "bus",
    "trailer",
    "construction_vehicle",
    "pedestrian",
    "motorcycle",
    "bicycle",
    "traffic_cone",
    "barrier",
)
"""Order of the classes in the devkit's files."""
UNDEFINED: Final = {
    "traffic_cone": ("orient_err", "vel_err", "attr_err"),
    "barrier": ("vel_err", "attr_err"),
}
"""Errors that a class does not have."""


@dataclass(frozen=True)
class Hits:
    """True positives of one class at one threshold, best first.

    Attributes:
        at: [T] which of the class's detections they are, ascending.
        object: [T] rows of the ground truth that they found.
        errors: [5, T] in the order of `aqr.scoring.curves.ERRORS`.
    """

    at: Ints
    object: Ints
    errors: Floats


@dataclass(frozen=True)
class ClassMatches:
    """Detections of one class, best first, and what they found.

    Attributes:
        detection: [D] rows of the predictions, after the filters.
        score: [D] descending.
        objects: [G] rows of the ground truth, after the filters.
        hits: per threshold.
    """

    detection: Ints
    score: Floats
    objects: Ints
    hits: tuple[Hits, ...]

    def curve(self, threshold: int) -> Curve:
        """The curve at a threshold, given by its number."""
        hits = self.hits[threshold]
        return sample_curve(self.score, hits.at, hits.errors, len(self.objects))


@dataclass(frozen=True)
class Metrics:
    """Everything the metrics say; classes in the order of `aqr.taxonomy.CLASSES`.

    Attributes:
        ground_truth: what was scored against.
        predictions: what was scored.
        matches: per class.
        curves: per class, per threshold.
        ap: [10, 4].
        errors: [10, 5] in the order of `aqr.scoring.curves.ERRORS`, NaN where a class has no such error.
        eval_time: seconds.
    """

    ground_truth: GroundTruth
    predictions: Predictions
    matches: tuple[ClassMatches, ...]
    curves: tuple[tuple[Curve, ...], ...]
    ap: Floats
    errors: Floats
    eval_time: float

    @property
    def mean_ap(self) -> float:
        """mAP."""
        return float(np.mean(self.ap.mean(axis=1)[_DEVKIT_LABELS]))

    @property
    def mean_errors(self) -> dict[str, float]:
        """mATE, mASE, mAOE, mAVE and mAAE under the devkit's names (`trans_err`, …)."""
        means = np.nanmean(self.errors[_DEVKIT_LABELS], axis=0)
        return {name: float(value) for name, value in zip(ERRORS, means, strict=True)}

    @property
    def nds(self) -> float:
        """nuScenes detection score."""
        return float(detection_score(np.array(self.mean_ap), np.array(list(self.mean_errors.values()))))

    def summary(self, meta: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The devkit's metrics_summary.json, key for key; `meta` is the submission's."""
        means = self.mean_errors
        return {
            "label_aps": {
                name: {
                    str(threshold): float(ap) for threshold, ap in zip(THRESHOLDS, self.ap[LABEL_OF[name]], strict=True)
                }
                for name in DEVKIT_ORDER
            },
            "mean_dist_aps": {name: float(np.mean(self.ap[LABEL_OF[name]])) for name in DEVKIT_ORDER},
            "mean_ap": self.mean_ap,
            "label_tp_errors": {
                name: {error: float(value) for error, value in zip(ERRORS, self.errors[LABEL_OF[name]], strict=True)}
                for name in DEVKIT_ORDER
            },
            "tp_errors": means,
            "tp_scores": {name: max(0.0, 1.0 - error) for name, error in means.items()},
            "nd_score": self.nds,
            "eval_time": self.eval_time,
            "cfg": {
                "class_range": {name: int(CLASS_RANGE[name]) for name in DEVKIT_ORDER},
                "dist_fcn": "center_distance",
                "dist_ths": list(THRESHOLDS),
                "dist_th_tp": THRESHOLDS[ERROR_THRESHOLD],
                "min_recall": MIN_RECALL,
                "min_precision": MIN_PRECISION,
                "max_boxes_per_sample": MAX_BOXES_PER_SAMPLE,
                "mean_ap_weight": MEAN_AP_WEIGHT,
            },
            "meta": dict(meta or {}),
        }

    def details(self) -> dict[str, Any]:
        """The devkit's metrics_details.json: per class and threshold the curves over 101 recalls."""
        return {
            f"{name}:{threshold}": {
                "recall": RECALLS.tolist(),
                "precision": curve.precision.tolist(),
                "confidence": curve.confidence.tolist(),
                **{error: curve.errors[ERRORS.index(error)].tolist() for error in _ERRORS_IN_DETAILS},
            }
            for name in DEVKIT_ORDER
            for threshold, curve in zip(THRESHOLDS, self.curves[LABEL_OF[name]], strict=True)
        }


def evaluate(ground_truth: GroundTruth, predictions: Predictions, source: str = "predictions") -> Metrics:
    """Score detections.

    Args:
        ground_truth: annotated boxes of a split, unfiltered.
        predictions: detections, unfiltered, `sample` pointing into `ground_truth.samples`. A sample may have none.
        source: file or thing to name in an error.

    Raises:
        InputError: naming the sample of a box that cannot be scored (see `aqr.scoring.boxes.check`).
    """
    begin = time.perf_counter()
    samples = ground_truth.samples
    boxes_.check(ground_truth, samples.tokens, "ground truth")
    boxes_.check(predictions, samples.tokens, source)
    detections_of = _rows_by_label(predictions.label, scored(predictions, samples))
    objects_of = _rows_by_label(ground_truth.label, scored(ground_truth, samples))
    matches = tuple(
        _match_class(ground_truth, predictions, detections_of[label], objects_of[label], name)
        for label, name in enumerate(CLASSES)
    )
    curves = tuple(tuple(m.curve(t) for t in range(len(THRESHOLDS))) for m in matches)
    return Metrics(
        ground_truth=ground_truth,
        predictions=predictions,
        matches=matches,
        curves=curves,
        ap=np.array([[average_precision(curve) for curve in of_class] for of_class in curves]),
        errors=class_errors([of_class[ERROR_THRESHOLD] for of_class in curves]),
        eval_time=time.perf_counter() - begin,
    )


def class_errors(curves: Sequence[Curve]) -> Floats:
    """[10, 5] true-positive errors of the classes, NaN where a class has no such error.

    Args:
        curves: of the ten classes at the threshold of the errors.
    """
    errors = np.array([mean_errors(curve) for curve in curves])
    errors[UNDEFINED_MASK] = np.nan
    return errors


def detection_score(mean_ap: Floats, errors: Floats) -> Floats:
    """NDS.

    Args:
        mean_ap: [...] mAP.
        errors: [..., 5] mean errors.
    """
    scores = np.maximum(0.0, 1.0 - errors)
    return np.asarray((MEAN_AP_WEIGHT * mean_ap + scores.sum(axis=-1)) / (MEAN_AP_WEIGHT + len(ERRORS)))


def _match_class(
    truth: GroundTruth, predictions: Predictions, detections: Ints, objects: Ints, name: str
) -> ClassMatches:
    score = predictions.score[detections]
    order = order_of_choice(score)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    pairs, matched = match(
        _points(predictions, detections, truth), _points(truth, objects, truth), rank, len(truth.samples)
    )

    # Most pairs match at several thresholds; their errors are computed once.
    used = np.zeros(len(pairs.detection), dtype=bool)
    for places in matched:
        used[places] = True
    number, used_places = np.cumsum(used) - 1, np.flatnonzero(used)
    found = objects[pairs.object[used_places]]
    errors = pair_errors(
        predictions,
        detections[pairs.detection[used_places]],
        truth,
        found,
        pairs.distance[used_places],
        np.pi if name == "barrier" else 2 * np.pi,
    )
    hits = []
    for places in matched:
        pair_at = np.full(len(order), -1)
        pair_at[rank[pairs.detection[places]]] = number[places]
        at = np.flatnonzero(pair_at >= 0)
        pair = pair_at[at]
        hits.append(Hits(at, found[pair], errors[:, pair]))
    return ClassMatches(detections[order], score[order], objects, tuple(hits))


def _points(boxes: GroundTruth | Predictions, rows: Ints, truth: GroundTruth) -> Points:
    sample = boxes.sample[rows]
    x, y = boxes.translation[rows, 0], boxes.translation[rows, 1]
    return Points(sample, x, y, x - truth.samples.ego[sample, 0])


def _rows_by_label(label: npt.NDArray[np.integer], keep: Bools) -> list[Ints]:
    return [np.flatnonzero((label == number) & keep) for number in range(len(CLASSES))]


_DEVKIT_LABELS: Final = np.array([LABEL_OF[name] for name in DEVKIT_ORDER])
_ERRORS_IN_DETAILS: Final = ("trans_err", "vel_err", "scale_err", "orient_err", "attr_err")
UNDEFINED_MASK: Final = np.array([[error in UNDEFINED.get(name, ()) for error in ERRORS] for name in CLASSES])
"""[10, 5] bool: errors that a class does not have."""
