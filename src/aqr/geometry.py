"""Frames, boxes and projection: the one place that knows the coordinate conventions.

LiDAR frame: nuScenes', x right, y forward, z up, metres. Boxes are rows [x, y, z, l, w, h, yaw, vx, vy] with z at
the box centre, yaw in radians counter-clockwise from +x, velocity in m/s. Length runs along the heading.
Quaternions are [w, x, y, z].

Functions marked *array or tensor* use operators that NumPy arrays and torch tensors share, so that the data
pipeline and the network project points with the same code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

Floats = npt.NDArray[np.floating]
ArrayT = TypeVar("ArrayT", Floats, "torch.Tensor")

X: Final = 0
Y: Final = 1
Z: Final = 2
L: Final = 3
W: Final = 4
H: Final = 5
YAW: Final = 6
VX: Final = 7
VY: Final = 8
CENTER: Final = slice(0, 3)
SIZE: Final = slice(3, 6)
VELOCITY: Final = slice(7, 9)
BOX_DIM: Final = 9

MIN_DEPTH: Final = 0.1
"""Metres in front of the camera below which a point counts as not seen (DESIGN, "Project")."""


@dataclass(frozen=True)
class Pose:
    """A rigid transform: `apply(p) = rotation · p + translation`, from the inner frame to the outer one.

    Attributes:
        rotation: [3, 3] float64.
        translation: [3] float64, metres.
    """

    rotation: npt.NDArray[np.float64]
    translation: npt.NDArray[np.float64]

    @classmethod
    def identity(cls) -> Pose:
        return cls(np.eye(3), np.zeros(3))

    @classmethod
    def from_quaternion(cls, quaternion: Sequence[float], translation: Sequence[float]) -> Pose:
        """From a [w, x, y, z] quaternion (normalised here) and a translation in metres."""
        return cls(rotation_from_quaternion(quaternion), np.asarray(translation, dtype=np.float64))

    @classmethod
    def from_matrix(cls, matrix: npt.ArrayLike) -> Pose:
        """From a [4, 4] homogeneous matrix."""
        m = np.asarray(matrix, dtype=np.float64)
        return cls(m[:3, :3].copy(), m[:3, 3].copy())

    @property
    def matrix(self) -> npt.NDArray[np.float64]:
        """[4, 4] homogeneous matrix."""
        m = np.eye(4)
        m[:3, :3] = self.rotation
        m[:3, 3] = self.translation
        return m

    def inverse(self) -> Pose:
        return Pose(self.rotation.T, -self.rotation.T @ self.translation)

    def __matmul__(self, inner: Pose) -> Pose:
        """`(a @ b).apply(p) == a.apply(b.apply(p))`."""
        return Pose(self.rotation @ inner.rotation, self.rotation @ inner.translation + self.translation)

    def apply(self, points: Floats) -> npt.NDArray[np.float64]:
        """Points [..., 3] of the inner frame, in the outer frame."""
        return np.asarray(points @ self.rotation.T + self.translation)

    @property
    def yaw(self) -> float:
        """Heading of the inner x axis seen from above in the outer frame, radians."""
        return float(np.arctan2(self.rotation[1, 0], self.rotation[0, 0]))


def rotation_from_quaternion(quaternion: Sequence[float]) -> npt.NDArray[np.float64]:
    """[3, 3] rotation of a [w, x, y, z] quaternion, normalised first.

    Raises:
        ValueError: if the quaternion is not four finite numbers of positive norm.
    """
    q = np.asarray(quaternion, dtype=np.float64)
    norm = np.linalg.norm(q)
    if q.shape != (4,) or not np.isfinite(norm) or norm == 0.0:
        raise ValueError(f"not a rotation quaternion: {list(quaternion)}")
    w, x, y, z = q / norm
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def quaternion_from_yaw(yaw: float) -> list[float]:
    """[w, x, y, z] of a rotation by yaw (radians) around z."""
    return [float(np.cos(yaw / 2)), 0.0, 0.0, float(np.sin(yaw / 2))]


def quaternion_from_rotation(rotation: Floats) -> list[float]:
    """[w, x, y, z] with w >= 0 of a [3, 3] rotation (Shepperd's method: the largest component is divided by)."""
    m = np.asarray(rotation, dtype=np.float64)
    squares = np.array(
        [
            1 + m[0, 0] + m[1, 1] + m[2, 2],
            1 + m[0, 0] - m[1, 1] - m[2, 2],
            1 - m[0, 0] + m[1, 1] - m[2, 2],
            1 - m[0, 0] - m[1, 1] + m[2, 2],
        ]
    )
    rows = np.array(
        [
            [squares[0], m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]],
            [m[2, 1] - m[1, 2], squares[1], m[0, 1] + m[1, 0], m[0, 2] + m[2, 0]],
            [m[0, 2] - m[2, 0], m[0, 1] + m[1, 0], squares[2], m[1, 2] + m[2, 1]],
            [m[1, 0] - m[0, 1], m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], squares[3]],
        ]
    )
    q = rows[int(np.argmax(squares))]
    q = q / np.linalg.norm(q)
    return [float(v) for v in (q if q[0] >= 0 else -q)]


def wrap_angle(angle: ArrayT) -> ArrayT:
    """Angle in [-pi, pi). *Array or tensor.*"""
    return (angle + np.pi) % (2 * np.pi) - np.pi


def box_corners(boxes: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """The eight corners of each box.

    Args:
        boxes: [N, 7 or 9].

    Returns:
        [N, 8, 3]. Corners 0-3 are the bottom, 4-7 the top, each front left, front right, rear right, rear left,
        "front" along the heading.
    """
    b = np.asarray(boxes, dtype=np.float64)
    signs = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]], dtype=np.float64)
    along = signs[:, 0] * b[:, L, None] / 2
    across = signs[:, 1] * b[:, W, None] / 2
    cos, sin = np.cos(b[:, YAW, None]), np.sin(b[:, YAW, None])
    x = b[:, X, None] + cos * along - sin * across
    y = b[:, Y, None] + sin * along + cos * across
    bottom = np.broadcast_to(b[:, Z, None] - b[:, H, None] / 2, x.shape)
    top = np.broadcast_to(b[:, Z, None] + b[:, H, None] / 2, x.shape)
    return np.concatenate([np.stack([x, y, bottom], -1), np.stack([x, y, top], -1)], axis=1)


BOX_EDGES: Final = ((0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7))
"""Corner index pairs of the twelve edges of `box_corners`."""


def points_in_boxes(points: Floats, boxes: Floats) -> npt.NDArray[np.bool_]:
    """Which points lie inside which boxes, faces included.

    Args:
        points: [P, >= 3].
        boxes: [N, 7 or 9].

    Returns:
        [N, P] bool.
    """
    inside = np.zeros((len(boxes), len(points)), dtype=bool)
    xyz = np.asarray(points[:, :3], dtype=np.float64)
    for n, box in enumerate(np.asarray(boxes, dtype=np.float64)):
        reach = np.linalg.norm(box[[L, W]]) / 2
        near = np.flatnonzero((abs(xyz[:, 0] - box[X]) <= reach) & (abs(xyz[:, 1] - box[Y]) <= reach))
        offset = xyz[near] - box[CENTER]
        cos, sin = np.cos(box[YAW]), np.sin(box[YAW])
        along = cos * offset[:, 0] + sin * offset[:, 1]
        across = -sin * offset[:, 0] + cos * offset[:, 1]
        inside[n, near] = (abs(along) <= box[L] / 2) & (abs(across) <= box[W] / 2) & (abs(offset[:, 2]) <= box[H] / 2)
    return inside


def normalise(points: ArrayT, pc_range: ArrayT) -> ArrayT:
    """Metres [..., 3] to [0, 1]³ of pc_range [6]: x_min, y_min, z_min, x_max, y_max, z_max. *Array or tensor.*"""
    return (points - pc_range[:3]) / (pc_range[3:] - pc_range[:3])


def denormalise(points: ArrayT, pc_range: ArrayT) -> ArrayT:
    """Inverse of `normalise`. *Array or tensor.*"""
    return points * (pc_range[3:] - pc_range[:3]) + pc_range[:3]


def project(points: ArrayT, lidar2img: ArrayT) -> tuple[ArrayT, ArrayT]:
    """Perspective projection. *Array or tensor.*

    Args:
        points: [..., N, 3] metres, LiDAR frame.
        lidar2img: [..., 4, 4], leading dimensions broadcast against those of points.

    Returns:
        pixels [..., N, 2] (u right, v down) and depth [..., N] in metres. Where depth <= MIN_DEPTH the pixel is
        divided by MIN_DEPTH instead: finite, and never to be read as a position (see `in_image`).
    """
    rotation, offset = lidar2img[..., :3, :3], lidar2img[..., None, :3, 3]
    homogeneous = points @ rotation.swapaxes(-1, -2) + offset
    depth = homogeneous[..., 2]
    return homogeneous[..., :2] / depth.clip(min=MIN_DEPTH)[..., None], depth


@overload
def in_image(pixels: Floats, depth: Floats, size: tuple[int, int]) -> npt.NDArray[np.bool_]: ...
@overload
def in_image(pixels: torch.Tensor, depth: torch.Tensor, size: tuple[int, int]) -> torch.Tensor: ...
def in_image(pixels: Any, depth: Any, size: tuple[int, int]) -> Any:
    """Visibility: depth > MIN_DEPTH and 0 <= u < width and 0 <= v < height. *Array or tensor.*

    Args:
        pixels: [..., 2].
        depth: [...] metres.
        size: image (height, width).

    Returns:
        [...] bool.
    """
    height, width = size
    u, v = pixels[..., 0], pixels[..., 1]
    return (depth > MIN_DEPTH) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
