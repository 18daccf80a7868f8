"""What the weights mean: a router's mean weights by failure, distance, class and light."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from benchmarks.proof.plan import name_of
from benchmarks.proof.supervision import log_weights

from aqr.batch import Batch
from aqr.data.failures.catalogue import Failure
from aqr.detector.detector import DetectorOutput
from aqr.geometry import X, Y, denormalise
from aqr.scoring import GroundTruth
from aqr.taxonomy import CLASSES

DISTANCES: Final = (0.0, 15.0, 30.0, 60.0)
NEAR: Final = 4.0
"""Metres from its reference point to an object for a query to count for the object's class."""
BACKGROUND: Final = "background"


class WeightLog:
    """Collects the weights of all queries while a detector is scored.

    Args:
        truth: of the split; says which samples were taken at night.
    """

    def __init__(self, truth: GroundTruth) -> None:
        self._night = truth.samples.night
        self._found: dict[str, list[npt.NDArray[np.float32]]] = {}
        self._labels: list[npt.NDArray[np.int64]] = []
        self._distance: npt.NDArray[np.float64] | None = None

    def __call__(self, condition: Failure | None, batch: Batch, output: DetectorOutput, samples: range) -> None:
        """Take the weights of one batch."""
        if output.aqr is None:
            return
        self._found.setdefault(name_of(condition), []).append(log_weights(output).mean(0).float().cpu().numpy())
        if condition is None:
            pc_range = output.reference_points.new_tensor((-54.0, -54.0, -5.0, 54.0, 54.0, 3.0))
            points = denormalise(output.reference_points[0].float(), pc_range).cpu().numpy().astype(np.float64)
            self._distance = np.hypot(points[:, X], points[:, Y])
            boxes, labels = batch.boxes.cpu().numpy(), batch.labels.cpu().numpy()
            ends = np.cumsum(batch.box_counts)
            for begin, end in zip(ends - batch.box_counts, ends, strict=True):
                self._labels.append(_nearest(points, boxes[begin:end], labels[begin:end]))

    def summary(self) -> dict[str, Any] | None:
        """Geometric mean of LiDAR and camera weight by condition and group; None without AQR."""
        if not self._found or self._distance is None:
            return None
        labels = np.stack(self._labels)
        night = np.broadcast_to(self._night[:, None], labels.shape)
        distance = np.broadcast_to(self._distance, labels.shape)
        groups = {"all": {"all": np.ones(labels.shape, dtype=bool)}}
        groups["distance"] = {
            f"{low:.0f}-{high:.0f} m": (distance >= low) & (distance < high) for low, high in pairwise(DISTANCES)
        }
        groups["class"] = {name: labels == number for number, name in enumerate(CLASSES)}
        groups["class"][BACKGROUND] = labels < 0
        groups["light"] = {"day": ~night, "night": night}
        return {
            condition: {
                kind: {
                    name: np.exp(found[chosen].mean(0, dtype=np.float64)).round(4).tolist()
                    for name, chosen in parts.items()
                    if chosen.any()
                }
                for kind, parts in groups.items()
            }
            for condition, found in ((name, np.concatenate(parts)) for name, parts in self._found.items())
        }


def _nearest(
    points: npt.NDArray[np.float64], boxes: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """[Q] class of the nearest object of each query, −1 where none is near."""
    if not len(boxes):
        return np.full(len(points), -1)
    offset = points[:, None, [X, Y]] - boxes[None, :, [X, Y]]
    distance = np.linalg.norm(offset, axis=-1)
    nearest = distance.argmin(1)
    return np.where(distance.min(1) < NEAR, labels[nearest], -1)
