"""What a picture shows: one sample, in plain arrays."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from aqr.geometry import BOX_DIM, Floats
from aqr.taxonomy import CLASSES

Labels = npt.NDArray[np.integer]
Pixels = npt.NDArray[np.uint8]

DEFAULT_RANGE: Final = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0)


@dataclass(frozen=True)
class WeightScale:
    """How values of a weight map are read.

    Attributes:
        neutral: the value of cells where no query is: 1 for the centred parameterisation, whose maps lie in
            [1/clamp, clamp] and are coloured on either side of 1 on a logarithmic scale; 0 for the sigmoid one, whose
            maps lie in [0, clamp].
        clamp: the largest value (max_weight_clamp), at least 1.
    """

    neutral: float = 0.0
    clamp: float = 2.0

    def __post_init__(self) -> None:
        if self.neutral not in (0.0, 1.0):
            raise ValueError(f"the neutral weight is 0 (sigmoid) or 1 (centered), not {self.neutral}")
        if not (np.isfinite(self.clamp) and self.clamp >= 1.0):
            raise ValueError(f"the weight clamp is a finite number of at least 1, not {self.clamp}")

    @property
    def centered(self) -> bool:
        return self.neutral == 1.0

    def level(self, weights: Floats) -> npt.NDArray[np.float64]:
        """Position of weights [...] on the scale: -1 … 1 around neutral where centred, else 0 … 1; NaN is neutral."""
        values = np.nan_to_num(np.asarray(weights, dtype=np.float64), nan=self.neutral)
        clamp = max(self.clamp, 1.0 + 1e-6)
        if self.centered:
            return np.asarray(np.clip(np.log(np.maximum(values, 1e-6)) / np.log(clamp), -1.0, 1.0))
        return np.asarray(np.clip(values / clamp, 0.0, 1.0))


@dataclass(frozen=True)
class Detections:
    """Predicted boxes of one sample.

    Attributes:
        boxes: [M, 7 or 9], in the scene's LiDAR frame.
        labels: [M] index into `aqr.taxonomy.CLASSES`.
        scores: [M] in [0, 1].
    """

    boxes: Floats
    labels: Labels
    scores: Floats

    def __post_init__(self) -> None:
        _check_boxes("detections", self.boxes, self.labels)
        if self.scores.shape != (len(self.boxes),):
            raise ValueError(f"detections: {len(self.boxes)} boxes need as many scores, not {list(self.scores.shape)}")

    def __len__(self) -> int:
        return len(self.boxes)

    def above(self, score: float) -> Detections:
        """Those that score at least this much, best last, so that they are drawn on top."""
        order = np.argsort(self.scores, kind="stable")
        order = order[self.scores[order] >= score]
        return Detections(self.boxes[order], self.labels[order], self.scores[order])


def _no_points() -> Floats:
    return np.zeros((0, 5), dtype=np.float32)


def _no_boxes() -> Floats:
    return np.zeros((0, BOX_DIM), dtype=np.float32)


def _no_labels() -> Labels:
    return np.zeros(0, dtype=np.int64)


def _no_projection() -> Floats:
    return np.zeros((0, 4, 4), dtype=np.float32)


@dataclass(frozen=True)
class Scene:
    """One sample with what is known and found in it; all positions in one LiDAR frame, metres.

    Attributes:
        points: [P, >= 3] x, y, z first; points that are not finite are left out of pictures.
        images: V images [H, W, 3] uint8 RGB, which may differ in size.
        camera_names: V names, or none.
        lidar2img: [V, 4, 4] to pixels of `images`, homogeneous (u·d, v·d, d, 1).
        true_boxes: [N, 7 or 9].
        true_labels: [N] index into `aqr.taxonomy.CLASSES`.
        detections: None where there is no detector, which is not the same as one that found nothing.
        bev_weights: [Hb, Wb], rows along y, columns along x, over pc_range.
        image_weights: [V, Hi, Wi], each over the whole of its image.
        weight_scale: how the weights are read.
        queries: [Q, 3] positions of the object queries.
        pc_range: x_min, y_min, z_min, x_max, y_max, z_max: what the BEV picture shows.
        title: a line above each picture.
        augmentation: [4, 4] from the vehicle's LiDAR frame to that of the scene.

    Raises:
        ValueError: where shapes do not fit together.
    """

    points: Floats = field(default_factory=_no_points)
    images: tuple[Pixels, ...] = ()
    camera_names: tuple[str, ...] = ()
    lidar2img: Floats = field(default_factory=_no_projection)
    true_boxes: Floats = field(default_factory=_no_boxes)
    true_labels: Labels = field(default_factory=_no_labels)
    detections: Detections | None = None
    bev_weights: Floats | None = None
    image_weights: Floats | None = None
    weight_scale: WeightScale = field(default_factory=WeightScale)
    queries: Floats | None = None
    pc_range: tuple[float, float, float, float, float, float] = DEFAULT_RANGE
    title: str = ""
    augmentation: Floats = field(default_factory=lambda: np.eye(4))

    def __post_init__(self) -> None:
        views = len(self.images)
        if self.points.ndim != 2 or self.points.shape[1] < 3:
            raise ValueError(f"points must be [P, 3 or more], not {list(self.points.shape)}")
        for view, image in enumerate(self.images):
            if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
                raise ValueError(f"image {view} must be [H, W, 3] uint8, not {list(image.shape)} {image.dtype}")
        if self.camera_names and len(self.camera_names) != views:
            raise ValueError(f"{views} images need as many camera names, not {len(self.camera_names)}")
        if self.lidar2img.shape != (views, 4, 4):
            raise ValueError(f"{views} images need lidar2img [{views}, 4, 4], not {list(self.lidar2img.shape)}")
        _check_boxes("true boxes", self.true_boxes, self.true_labels)
        if self.bev_weights is not None and (self.bev_weights.ndim != 2 or self.bev_weights.size == 0):
            raise ValueError(f"bev_weights must be [Hb, Wb], not {list(self.bev_weights.shape)}")
        if self.image_weights is not None:
            shape = self.image_weights.shape
            if len(shape) != 3 or shape[0] != views or 0 in shape[1:]:
                raise ValueError(f"{views} images need image_weights [{views}, Hi, Wi], not {list(shape)}")
        if self.queries is not None and (self.queries.ndim != 2 or self.queries.shape[1] != 3):
            raise ValueError(f"queries must be [Q, 3], not {list(self.queries.shape)}")
        low, high = self.pc_range[:2], self.pc_range[3:5]
        if any(a >= b for a, b in zip(low, high, strict=True)):
            raise ValueError(f"pc_range {list(self.pc_range)} is empty along x or y")
        if self.augmentation.shape != (4, 4):
            raise ValueError(f"augmentation must be [4, 4], not {list(self.augmentation.shape)}")


def _check_boxes(what: str, boxes: Floats, labels: Labels) -> None:
    if boxes.ndim != 2 or boxes.shape[1] not in (7, BOX_DIM):
        raise ValueError(f"{what} must be [N, 7 or {BOX_DIM}], not {list(boxes.shape)}")
    if labels.shape != (len(boxes),):
        raise ValueError(f"{what}: {len(boxes)} boxes need as many labels, not {list(labels.shape)}")
    if len(labels) and not (labels.min() >= 0 and labels.max() < len(CLASSES)):
        raise ValueError(f"{what}: labels must be 0 … {len(CLASSES) - 1}, found {labels.min()} … {labels.max()}")
