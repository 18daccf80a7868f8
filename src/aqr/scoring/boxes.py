"""Boxes of many samples as arrays: what the metrics read.

All boxes stand in nuScenes' global frame, metres, sizes are length, width, height (nuScenes' files have the width
first). Box rows of all samples lie behind one another; `sample` says which sample a row belongs to.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from aqr import geometry
from aqr.errors import InputError
from aqr.geometry import Pose
from aqr.taxonomy import ATTRIBUTES, CLASSES

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

NO_ATTRIBUTE: Final = -1
_DECIMALS: Final = 6
MAX_BOXES_PER_SAMPLE: Final = 500
"""nuScenes' limit on the predictions of one sample, before any filter."""


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """N boxes in the global frame.

    Attributes:
        sample: [N] int, index into `Samples.tokens`.
        translation: [N, 3] float64, centre, metres.
        size: [N, 3] float64, length, width, height, metres, > 0.
        rotation: [N, 4] float64, quaternion w, x, y, z; need not be normalised.
        velocity: [N, 2] float64, m/s; NaN where unknown.
        label: [N] int, index into `aqr.taxonomy.CLASSES`.
        attribute: [N] int, index into `aqr.taxonomy.ATTRIBUTES`, -1 for none.
    """

    sample: npt.NDArray[np.integer]
    translation: Floats
    size: Floats
    rotation: Floats
    velocity: Floats
    label: npt.NDArray[np.integer]
    attribute: npt.NDArray[np.integer]

    def __len__(self) -> int:
        return len(self.sample)

    def take(self, rows: npt.NDArray[np.integer] | Bools) -> Self:
        """The boxes of the given row numbers or of a boolean mask, in that order."""
        rows_of_fields = {
            field.name: value[rows]
            for field in dataclasses.fields(self)
            if isinstance(value := getattr(self, field.name), np.ndarray)
        }
        return dataclasses.replace(self, **rows_of_fields)


@dataclass(frozen=True, kw_only=True)
class Predictions(Boxes):
    """Detections. The order of rows matters where scores are equal: see `aqr.scoring.matching`.

    Attributes:
        score: [N] float64, finite and >= 0.
        num_points: [N] int or None. Rows with 0 are dropped, as the devkit does with a submission that states
            `num_pts`; None, as usual, keeps every row.
    """

    score: Floats
    num_points: Ints | None = None

    @classmethod
    def empty(cls) -> Predictions:
        """No detections at all."""
        none = np.zeros(0, dtype=np.int64)
        return cls(
            sample=none,
            translation=np.zeros((0, 3)),
            size=np.zeros((0, 3)),
            rotation=np.zeros((0, 4)),
            velocity=np.zeros((0, 2)),
            label=none,
            attribute=none,
            score=np.zeros(0),
        )

    @classmethod
    def from_lidar(
        cls,
        sample: npt.ArrayLike,
        boxes: npt.ArrayLike,
        label: npt.ArrayLike,
        score: npt.ArrayLike,
        attribute: npt.ArrayLike,
        lidar_to_global: Sequence[Pose],
    ) -> Predictions:
        """Detections in LiDAR frames, carried to the global frame.

        Lengths, velocities and quaternions are rounded to six decimals, micrometres and microradians: far finer than
        a network's 32-bit numbers, and a submission of them is a third smaller and quicker to write.

        Args:
            sample: [N] int, index into `Samples.tokens` and into `lidar_to_global`.
            boxes: [N, 9], x, y, z, l, w, h, yaw, vx, vy in each sample's own, unaugmented LiDAR frame.
            label: [N] int.
            score: [N].
            attribute: [N] int, -1 for none.
            lidar_to_global: a pose for every sample.
        """
        rows = np.asarray(sample, dtype=np.int64)
        b = np.asarray(boxes, dtype=np.float64).reshape(len(rows), geometry.BOX_DIM)
        turn = np.array([pose.rotation for pose in lidar_to_global]).reshape(-1, 3, 3)
        shift = np.array([pose.translation for pose in lidar_to_global]).reshape(-1, 3)
        turn_quaternion = np.array([geometry.quaternion_from_rotation(r) for r in turn]).reshape(-1, 4)
        along_z = np.zeros(len(rows))
        velocity = np.column_stack([b[:, geometry.VELOCITY], along_z])
        size = b[:, geometry.SIZE]
        half = b[:, geometry.YAW] / 2
        tw, tx, ty, tz = turn_quaternion[rows].T
        cos, sin = np.cos(half), np.sin(half)
        rotation = np.column_stack([tw * cos - tz * sin, tx * cos + ty * sin, ty * cos - tx * sin, tz * cos + tw * sin])
        return cls(
            sample=rows,
            translation=np.round(_turn(turn[rows], b[:, geometry.CENTER]) + shift[rows], _DECIMALS),
            size=np.where(size > 0, np.maximum(np.round(size, _DECIMALS), 10.0**-_DECIMALS), size),
            rotation=np.round(rotation, _DECIMALS),
            velocity=np.round(_turn(turn[rows], velocity)[:, :2], _DECIMALS),
            label=np.asarray(label, dtype=np.int64),
            attribute=np.asarray(attribute, dtype=np.int64),
            score=np.asarray(score, dtype=np.float64),
        )


@dataclass(frozen=True, kw_only=True)
class Racks:
    """Bicycle racks (`static_object.bicycle_rack`); bicycles and motorcycles inside them are not scored.

    Attributes:
        sample: [K] int.
        translation: [K, 3] metres, global frame.
        size: [K, 3] metres: length, width, height.
        rotation: [K, 4] quaternion.
    """

    sample: npt.NDArray[np.integer]
    translation: Floats
    size: Floats
    rotation: Floats

    @classmethod
    def none(cls) -> Racks:
        """No racks anywhere."""
        return cls(
            sample=np.zeros(0, dtype=np.int64),
            translation=np.zeros((0, 3)),
            size=np.zeros((0, 3)),
            rotation=np.zeros((0, 4)),
        )


@dataclass(frozen=True, kw_only=True)
class Samples:
    """The samples of a split.

    Attributes:
        tokens: S sample tokens.
        ego: [S, >= 2] float64, position of the ego vehicle in the map when the LiDAR fired, metres.
        scene: [S] int, scene number, from 0 without gaps.
        racks: bicycle racks of all samples.
        night: [S] bool.
        rain: [S] bool.
    """

    tokens: tuple[str, ...]
    ego: Floats
    scene: npt.NDArray[np.integer]
    racks: Racks
    night: Bools
    rain: Bools

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True, kw_only=True)
class GroundTruth(Boxes):
    """Annotated boxes of a split. The order of rows within a sample is the annotation table's.

    Attributes:
        samples: the samples that `sample` points into.
        num_points: [N] int, LiDAR and radar points in the box; a box with none is not scored.
        num_lidar_points: [N] int.
        visibility: [N] int, nuScenes' level 1 (0-40 %) to 4 (80-100 %), 0 where unknown.
    """

    samples: Samples
    num_points: npt.NDArray[np.integer]
    num_lidar_points: npt.NDArray[np.integer]
    visibility: npt.NDArray[np.integer]


def yaw_of(rotation: Floats) -> Floats:
    """[N] heading of boxes seen from above, radians counter-clockwise from +x, in [-pi, pi].

    The angle of the rotated x axis in the xy plane, as the devkit takes it, so that boxes that are also pitched or
    rolled get the same angle. A zero quaternion has yaw 0.

    Args:
        rotation: [N, 4] quaternions w, x, y, z; need not be normalised.
    """
    w, x, y, z = rotation.T
    return np.asarray(np.arctan2(2 * (x * y + w * z), w * w + x * x - y * y - z * z))


def check(boxes: Boxes, tokens: Sequence[str], source: str) -> None:
    """Refuse boxes that the metrics cannot be computed from.

    Args:
        boxes: predictions or ground truth.
        tokens: sample tokens.
        source: file or thing to name in the error.

    Raises:
        InputError: naming the sample: a size that is not positive, a number that is not finite (velocities may be
            NaN), a score below 0, a label, attribute or sample out of range, more than 500 predictions in a sample.
        ValueError: where an array has a wrong shape, which is a caller's mistake.
    """
    count = len(boxes)
    shapes = {"translation": 3, "size": 3, "rotation": 4, "velocity": 2, "label": 0, "attribute": 0}
    for name, columns in shapes.items():
        expected = (count, columns) if columns else (count,)
        if getattr(boxes, name).shape != expected:
            raise ValueError(f"{name} must be {list(expected)}, is {list(getattr(boxes, name).shape)}")
    if count == 0:
        return
    if boxes.sample.min() < 0 or boxes.sample.max() >= len(tokens):
        raise InputError(f"{source}: a box belongs to sample {boxes.sample.max()} of {len(tokens)}; mend its index")

    def require(fine: Bools, what: str) -> None:
        if not fine.all():
            row = int(np.argmin(fine.reshape(count, -1).all(axis=1)))
            token = tokens[int(boxes.sample[row])]
            place = int(np.count_nonzero(boxes.sample[:row] == boxes.sample[row]))
            raise InputError(f"{source}: box {place} of sample {token} has {what}; mend or drop that box")

    require(np.isfinite(boxes.translation), "a translation that is not finite")
    require(np.isfinite(boxes.rotation), "a rotation that is not finite")
    require((boxes.size > 0) & (boxes.size < np.inf), "a size that is not finite and positive")
    require((boxes.label >= 0) & (boxes.label < len(CLASSES)), "an unknown class")
    require((boxes.attribute >= NO_ATTRIBUTE) & (boxes.attribute < len(ATTRIBUTES)), "an unknown attribute")
    if isinstance(boxes, Predictions):
        if boxes.score.shape != (count,):
            raise ValueError(f"score must be {[count]}, is {list(boxes.score.shape)}")
        require((boxes.score >= 0) & (boxes.score < np.inf), "a score that is not a finite number >= 0")
        per_sample = np.bincount(boxes.sample, minlength=len(tokens))
        if per_sample.max() > MAX_BOXES_PER_SAMPLE:
            worst = int(per_sample.argmax())
            raise InputError(
                f"{source}: sample {tokens[worst]} has {per_sample[worst]} boxes, nuScenes allows "
                f"{MAX_BOXES_PER_SAMPLE}; keep the best ones"
            )


def _turn(rotation: Floats, vectors: Floats) -> Floats:
    return np.asarray(np.einsum("nij,nj->ni", rotation, vectors))
