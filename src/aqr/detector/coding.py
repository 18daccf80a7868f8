"""Boxes as the network predicts them, and back.

A box code is [x, y, z, log l, log w, log h, sin yaw, cos yaw, vx, vy]: the ten numbers that the task heads give and
the losses compare. Metres and m/s, LiDAR frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aqr import geometry
from aqr.taxonomy import CLASSES

CODE_DIM: Final = 10
LOG_SIZE: Final = slice(3, 6)
SIN: Final = 6
COS: Final = 7
CODE_VELOCITY: Final = slice(8, 10)

LARGEST_LOG_SIZE: Final = 5.0
"""A size is at most exp of this (148 m), so that no prediction overflows."""

CENTER_MARGIN: Final = (7.2, 7.2, 5.0)
"""Metres by which a decoded centre may leave pc_range (CMT: 61.2 m, 61.2 m and 10 m around 54, 54 and -5)."""

MOVING_SPEED: Final = 0.2
"""m/s above which an object counts as moving."""


def encode(boxes: Tensor) -> Tensor:
    """Boxes [..., 9] to codes [..., 10]; a NaN velocity stays NaN."""
    yaw = boxes[..., geometry.YAW, None]
    sizes = boxes[..., geometry.SIZE].log()
    return torch.cat([boxes[..., geometry.CENTER], sizes, yaw.sin(), yaw.cos(), boxes[..., geometry.VELOCITY]], -1)


def decode_boxes(codes: Tensor) -> Tensor:
    """Codes [..., 10] to boxes [..., 9]."""
    sizes = codes[..., LOG_SIZE].clamp(-LARGEST_LOG_SIZE, LARGEST_LOG_SIZE).exp()
    yaw = torch.atan2(codes[..., SIN], codes[..., COS])[..., None]
    return torch.cat([codes[..., geometry.CENTER], sizes, yaw, codes[..., CODE_VELOCITY]], -1)


@dataclass(frozen=True)
class Detections:
    """What a detector found in one sample, best first, in host memory.

    Attributes:
        boxes: [n, 9] float32, augmented LiDAR frame.
        scores: [n] float32 in [0, 1].
        labels: [n] int64, index into `aqr.taxonomy.CLASSES`.
        query_index: [n] int64, the query that each box comes from; a query may give several classes.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    query_index: Tensor

    def __len__(self) -> int:
        return len(self.scores)


def decode(
    logits: Tensor, codes: Tensor, pc_range: Tensor, max_detections: int, center_range: Tensor | None = None
) -> list[Detections]:
    """The best (query, class) pairs as boxes: no suppression of neighbours, no score threshold.

    Args:
        logits: [B, Q, 10].
        codes: [B, Q, 10].
        pc_range: [6]; a box whose centre lies outside it by more than CENTER_MARGIN is left out, as is one that is
            not finite.
        max_detections: pairs considered per sample.
        center_range: [6], in place of pc_range and its margin.

    Returns:
        B detections.
    """
    packed = select(logits, codes, pc_range, max_detections, center_range).cpu()
    return unpack(packed)


def select(
    logits: Tensor, codes: Tensor, pc_range: Tensor, max_detections: int, center_range: Tensor | None = None
) -> Tensor:
    """The part of `decode` that runs on the device, without waiting for it.

    Args:
        logits: [B, Q, 10].
        codes: [B, Q, 10].
        pc_range: [6].
        max_detections: pairs considered per sample.
        center_range: [6], in place of pc_range and its margin.

    Returns:
        [B, n, 13] float64, best first: box, score, label, query, and whether the box counts.
    """
    classes = logits.shape[-1]
    scores = logits.float().sigmoid().nan_to_num(0.0).flatten(1)
    best, pair = scores.topk(min(max_detections, scores.shape[1]), dim=1)
    query = pair // classes
    boxes = decode_boxes(codes.float().gather(1, query[..., None].expand(-1, -1, CODE_DIM)))
    center = boxes[..., geometry.CENTER]
    if center_range is None:
        keep = torch.stack(
            [
                (center[..., axis] >= pc_range[axis] - margin) & (center[..., axis] <= pc_range[axis + 3] + margin)
                for axis, margin in enumerate(CENTER_MARGIN)
            ],
            -1,
        )
    else:
        keep = (center >= center_range[:3]) & (center <= center_range[3:])
    keep = keep.all(-1) & boxes.isfinite().all(-1)
    return torch.cat([boxes.double(), torch.stack([best, pair % classes, query, keep], -1).double()], -1)


def unpack(packed: Tensor) -> list[Detections]:
    """Detections of each sample.

    Args:
        packed: of `select`, in host memory.

    Returns:
        B detections.
    """
    found = []
    for sample in packed:
        kept = sample[sample[:, -1] > 0]
        box, (score, label, source) = kept[:, : geometry.BOX_DIM].float(), kept[:, geometry.BOX_DIM : -1].unbind(1)
        found.append(Detections(box, score.float(), label.long(), source.long()))
    return found


def attribute_names(labels: npt.ArrayLike, velocities: npt.ArrayLike) -> list[str]:
    """A nuScenes attribute for each detection, chosen from its class and speed as the field commonly does.

    Moving vehicles and ridden cycles are told from the speed; at rest a vehicle is most often parked, a bus stopped,
    a pedestrian standing and a cycle without rider.

    Args:
        labels: [n] index into `aqr.taxonomy.CLASSES`.
        velocities: [n, 2] m/s.

    Returns:
        n names, "" for classes without attributes.
    """
    moving = np.linalg.norm(np.asarray(velocities, dtype=np.float64).reshape(-1, 2), axis=1) > MOVING_SPEED
    return [
        _ATTRIBUTES[CLASSES[label]][fast]
        for label, fast in zip(np.asarray(labels).tolist(), moving.tolist(), strict=True)
    ]


_ATTRIBUTES: Final = {
    "car": ("vehicle.parked", "vehicle.moving"),
    "truck": ("vehicle.parked", "vehicle.moving"),
    "construction_vehicle": ("vehicle.parked", "vehicle.moving"),
    "bus": ("vehicle.stopped", "vehicle.moving"),
    "trailer": ("vehicle.parked", "vehicle.moving"),
    "barrier": ("", ""),
    "motorcycle": ("cycle.without_rider", "cycle.with_rider"),
    "bicycle": ("cycle.without_rider", "cycle.with_rider"),
    "pedestrian": ("pedestrian.standing", "pedestrian.moving"),
    "traffic_cone": ("", ""),
}
