"""The metrics of parts of a split: by distance, visibility, number of LiDAR points, light and weather.

Matching is done once, on everything; a part then counts

- the objects that belong to it;
- the detections that found one of them (those that found an object of another part are left out);
- the false positives that belong to it. Distance, light and weather divide false positives as they divide objects.
  Visibility and LiDAR points say nothing about a box where no object is: there every part takes all false positives,
  and precision is that of a detector that finds all objects as well as it finds those of the part, w·TP / (w·TP + FP)
  with w the number of all objects over those of the part (normalised precision, Hoiem et al., "Diagnosing error in
  object detectors", ECCV 2012, equation 2), so that parts of different sizes compare.

mAP, the errors and NDS of a part are means over the classes that have an object in it; a cone is never 40 m away.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np

from aqr.scoring.boxes import Bools, GroundTruth, Predictions
from aqr.scoring.curves import ERRORS, Curve, average_precision, sample_curve
from aqr.scoring.filters import ego_distance
from aqr.scoring.matching import THRESHOLDS
from aqr.scoring.metrics import DEVKIT_ORDER, ERROR_THRESHOLD, ClassMatches, Metrics, class_errors, detection_score
from aqr.taxonomy import LABEL_OF

DISTANCES: Final = (0.0, 20.0, 30.0, 40.0, 50.0)
"""Bounds of the parts by distance from the ego vehicle, metres."""
VISIBILITIES: Final = {1: "0-40 %", 2: "40-60 %", 3: "60-80 %", 4: "80-100 %"}
LIDAR_POINTS: Final = (0, 5, 15, 50, 200)
"""Smallest number of LiDAR points of each part."""


@dataclass(frozen=True)
class Part:
    """A part of a split.

    Attributes:
        kind: what divides the split: distance, visibility, lidar_points, light or weather.
        name: such as `20-30 m`.
        objects: [N] bool, rows of the ground truth.
        detections: [M] bool, rows of the predictions that count in it where they are false positives; None where
            what divides the split is known of objects only.
    """

    kind: str
    name: str
    objects: Bools
    detections: Bools | None


def parts_of(truth: GroundTruth, predictions: Predictions) -> list[Part]:
    """All parts that hold an object."""
    far, far_detections = ego_distance(truth, truth.samples), ego_distance(predictions, truth.samples)
    parts = [
        Part(
            "distance",
            f"{low:.0f}-{high:.0f} m",
            (low <= far) & (far < high),
            (low <= far_detections) & (far_detections < high),
        )
        for low, high in pairwise(DISTANCES)
    ]
    parts += [Part("visibility", name, truth.visibility == level, None) for level, name in VISIBILITIES.items()]
    for low, high in zip(LIDAR_POINTS, (*LIDAR_POINTS[1:], None), strict=True):
        inside = truth.num_lidar_points >= low
        if high is not None:
            inside &= truth.num_lidar_points < high
        parts.append(Part("lidar_points", f"{low}+" if high is None else f"{low}-{high - 1}", inside, None))
    for kind, names, of_sample in (
        ("light", ("night", "day"), truth.samples.night),
        ("weather", ("rain", "dry"), truth.samples.rain),
    ):
        for name, chosen in zip(names, (of_sample, ~of_sample), strict=True):
            parts.append(Part(kind, name, chosen[truth.sample], chosen[predictions.sample]))
    return [part for part in parts if part.objects.any()]


def break_down(metrics: Metrics, parts: list[Part] | None = None) -> list[dict[str, Any]]:
    """Score parts of a split.

    Args:
        metrics: of the whole split.
        parts: default: all of `parts_of`.

    Returns:
        per part, ready for JSON: `kind`, `name`, `objects` (how many are scored), `mean_ap`, `nd_score`, `tp_errors`
        by error and `mean_dist_aps` by class, None where the part has no object of the class or none at all.
    """
    if parts is None:
        parts = parts_of(metrics.ground_truth, metrics.predictions)
    return [_score(metrics, part) for part in parts]


def _score(metrics: Metrics, part: Part) -> dict[str, Any]:
    curves = [[_curve(matches, t, part) for t in range(len(THRESHOLDS))] for matches in metrics.matches]
    objects = np.array([np.count_nonzero(part.objects[matches.objects]) for matches in metrics.matches])
    ap = np.array([np.mean([average_precision(curve) for curve in of_class]) for of_class in curves])
    errors = class_errors([of_class[ERROR_THRESHOLD] for of_class in curves])
    errors[objects == 0] = np.nan
    known = ~np.isnan(errors)
    sums, counts = np.where(known, errors, 0).sum(axis=0), known.sum(axis=0)
    mean_errors = np.divide(sums, counts, out=np.ones(len(ERRORS)), where=counts > 0)
    some = bool(objects.any())
    mean_ap = ap[objects > 0].mean() if some else 0.0
    return {
        "kind": part.kind,
        "name": part.name,
        "objects": int(objects.sum()),
        "mean_ap": float(mean_ap) if some else None,
        "nd_score": float(detection_score(np.array(mean_ap), mean_errors)) if some else None,
        "tp_errors": {
            name: float(value) if count else None
            for name, value, count in zip(ERRORS, mean_errors, counts, strict=True)
        },
        "mean_dist_aps": {
            name: float(ap[LABEL_OF[name]]) if objects[LABEL_OF[name]] else None for name in DEVKIT_ORDER
        },
    }


def _curve(matches: ClassMatches, threshold: int, part: Part) -> Curve:
    hits = matches.hits[threshold]
    inside = part.objects[hits.object]
    kept = np.ones(len(matches.detection), dtype=bool)
    if part.detections is not None:
        kept = part.detections[matches.detection]
    kept[hits.at] = inside
    place = np.cumsum(kept) - 1
    number = int(np.count_nonzero(part.objects[matches.objects]))
    weight = len(matches.objects) / number if part.detections is None and number else 1.0
    return sample_curve(matches.score[kept], place[hits.at[inside]], hits.errors[:, inside], number, weight)
