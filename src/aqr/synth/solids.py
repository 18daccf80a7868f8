"""Convex solids, the only primitive of the world: each is the intersection of a few half-spaces.

A box, a wheel, a traffic cone and a tree crown are all convex polytopes `normal · x <= offset`, so one ray caster
(`aqr.synth.cast`) serves every shape and both sensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Colour = tuple[float, float, float]

MAX_PLANES: Final = 14
"""Every solid is padded to this number of half-spaces."""


class Texture(IntEnum):
    """How the surface colour varies; the shading itself lives in `aqr.synth.shading`."""

    PLAIN = 0
    FACADE = 1
    """Rows of windows, some lit at night."""
    FOLIAGE = 2
    STRIPES = 3
    """Slanting red and white."""
    GLASSHOUSE = 4
    """Dark glass on the sides, body colour on top."""
    GROUND = 5
    """Colour read from the painted ground."""
    BANDS = 6
    """Reflective white bands around a traffic cone."""
    LAMP = 7
    """Shines at night."""
    ROUGH = 8
    """Mottled: bark, concrete, cloth."""
    PANELS = 9
    """Vertical ribs, as on cargo boxes and shutters."""
    PAINTED_GLASS = 10
    """Body colour all over; a LiDAR loses as many echoes as on a `GLASSHOUSE`."""


@dataclass(frozen=True)
class Solids:
    """K convex solids in one frame.

    Attributes:
        normals: [K, MAX_PLANES, 3] outward unit normals; zero rows are padding.
        offsets: [K, MAX_PLANES] metres, `normal · x <= offset` inside; 1 in padding.
        planes: [K] number of half-spaces in use.
        corners: [K, 8, 3] corners of a box around each solid, bottom four first, each quad in cyclic order.
        colour: [K, 3] linear RGB albedo, 0 … 1.
        texture: [K] `Texture`.
        reflectivity: [K] LiDAR reflectivity, 0 … 1.
    """

    normals: Floats
    offsets: Floats
    planes: npt.NDArray[np.int64]
    corners: Floats
    colour: Floats
    texture: npt.NDArray[np.int64]
    reflectivity: Floats

    def __len__(self) -> int:
        return len(self.planes)

    @classmethod
    def stack(cls, parts: Sequence[Solids]) -> Solids:
        """All solids of several sets, in order; they must be in the same frame."""
        if not parts:
            return EMPTY
        return cls(
            np.concatenate([p.normals for p in parts]),
            np.concatenate([p.offsets for p in parts]),
            np.concatenate([p.planes for p in parts]),
            np.concatenate([p.corners for p in parts]),
            np.concatenate([p.colour for p in parts]),
            np.concatenate([p.texture for p in parts]),
            np.concatenate([p.reflectivity for p in parts]),
        )

    def placed(self, x: float, y: float, z: float, yaw: float) -> Solids:
        """Turned by yaw (radians) around z, then moved."""
        cos, sin = np.cos(yaw), np.sin(yaw)
        turn = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
        shift = np.array([x, y, z], dtype=np.float64)
        normals = self.normals @ turn.T
        return Solids(
            normals,
            self.offsets + normals @ shift,
            self.planes,
            self.corners @ turn.T + shift,
            self.colour,
            self.texture,
            self.reflectivity,
        )


EMPTY: Final = Solids(
    np.zeros((0, MAX_PLANES, 3)),
    np.zeros((0, MAX_PLANES)),
    np.zeros(0, dtype=np.int64),
    np.zeros((0, 8, 3)),
    np.zeros((0, 3)),
    np.zeros(0, dtype=np.int64),
    np.zeros(0),
)


def _solid(
    normals: Floats, offsets: Floats, corners: Floats, colour: Colour, texture: Texture, reflectivity: float
) -> Solids:
    padded_normals = np.zeros((1, MAX_PLANES, 3))
    padded_offsets = np.ones((1, MAX_PLANES))
    padded_normals[0, : len(normals)] = normals
    padded_offsets[0, : len(offsets)] = offsets
    return Solids(
        padded_normals,
        padded_offsets,
        np.array([len(normals)]),
        np.asarray(corners, dtype=np.float64)[None],
        np.array([colour], dtype=np.float64),
        np.array([int(texture)]),
        np.array([reflectivity], dtype=np.float64),
    )


def _box_corners(low: Floats, high: Floats) -> Floats:
    x0, y0, z0 = low
    x1, y1, z1 = high
    ring = [(x1, y1), (x1, y0), (x0, y0), (x0, y1)]
    return np.array([(*xy, z) for z in (z0, z1) for xy in ring])


def between(a: float, b: float) -> tuple[float, float]:
    """The interval between two values in any order."""
    return (a, b) if a <= b else (b, a)


def block(
    x: tuple[float, float],
    y: tuple[float, float],
    z: tuple[float, float],
    colour: Colour,
    *,
    top_x: tuple[float, float] | None = None,
    top_y: tuple[float, float] | None = None,
    texture: Texture = Texture.PLAIN,
    reflectivity: float = 0.3,
) -> Solids:
    """A box, or a frustum where the top rectangle (`top_x`, `top_y`) differs from the bottom one."""
    tx, ty = top_x or x, top_y or y
    rise = z[1] - z[0]
    sides = [
        ((rise, 0.0, x[1] - tx[1]), (x[1], 0.0, z[0])),
        ((-rise, 0.0, tx[0] - x[0]), (x[0], 0.0, z[0])),
        ((0.0, rise, y[1] - ty[1]), (0.0, y[1], z[0])),
        ((0.0, -rise, ty[0] - y[0]), (0.0, y[0], z[0])),
        ((0.0, 0.0, 1.0), (0.0, 0.0, z[1])),
        ((0.0, 0.0, -1.0), (0.0, 0.0, z[0])),
    ]
    normals = np.array([n for n, _ in sides])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    offsets = np.einsum("fi,fi->f", normals, np.array([p for _, p in sides]))
    low = np.array([min(x[0], tx[0]), min(y[0], ty[0]), z[0]])
    high = np.array([max(x[1], tx[1]), max(y[1], ty[1]), z[1]])
    return _solid(normals, offsets, _box_corners(low, high), colour, texture, reflectivity)


def prism(
    axis: int,
    centre: tuple[float, float],
    span: tuple[float, float],
    radius: float | tuple[float, float],
    colour: Colour,
    *,
    sides: int = 8,
    top_scale: float = 1.0,
    texture: Texture = Texture.PLAIN,
    reflectivity: float = 0.3,
) -> Solids:
    """A regular prism that stands for a cylinder, or a truncated cone where `top_scale` is not 1.

    Args:
        axis: 0, 1 or 2, the direction of the axis.
        centre: position of the axis in the other two coordinates, in ascending order.
        span: start and end along the axis.
        radius: of the inscribed circle, or the two half-axes of an ellipse, at the start.
        colour: linear RGB.
        sides: number of side faces, at most 12.
        top_scale: radius at the end over radius at the start.
        texture: see `Texture`.
        reflectivity: 0 … 1.
    """
    a, b = (radius, radius) if isinstance(radius, int | float) else radius
    angles = (np.arange(sides) + 0.5) * 2 * np.pi / sides
    unit = np.stack([np.cos(angles) / a, np.sin(angles) / b], axis=1)
    slope = (1.0 - top_scale) / (span[1] - span[0])
    others = [i for i in range(3) if i != axis]
    normals = np.zeros((sides + 2, 3))
    normals[:sides, others] = unit
    normals[:sides, axis] = slope
    offsets = np.empty(sides + 2)
    offsets[:sides] = 1.0 + slope * span[0] + unit @ np.asarray(centre)
    length = np.linalg.norm(normals[:sides], axis=1)
    normals[:sides] /= length[:, None]
    offsets[:sides] /= length
    normals[sides, axis], offsets[sides] = 1.0, span[1]
    normals[sides + 1, axis], offsets[sides + 1] = -1.0, -span[0]
    reach = max(1.0, top_scale) / np.cos(np.pi / sides)
    low, high = np.empty(3), np.empty(3)
    low[axis], high[axis] = span
    for i, middle, half in zip(others, centre, (a, b), strict=True):
        low[i], high[i] = middle - half * reach, middle + half * reach
    return _solid(normals, offsets, _box_corners(low, high), colour, texture, reflectivity)


def ball(
    centre: tuple[float, float, float],
    radii: tuple[float, float, float],
    colour: Colour,
    *,
    texture: Texture = Texture.PLAIN,
    reflectivity: float = 0.3,
) -> Solids:
    """An ellipsoid as a polytope of 14 faces (cube and octahedron) that stays inside the box of its radii."""
    axes = np.concatenate([np.eye(3), -np.eye(3)])
    diagonals = np.array([[i, j, k] for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)]) / np.sqrt(3)
    scale = np.asarray(radii)
    directions = np.concatenate([axes, diagonals]) / scale
    reach = np.array([1.0] * 6 + [0.92] * 8)
    length = np.linalg.norm(directions, axis=1)
    normals = directions / length[:, None]
    offsets = reach / length + normals @ np.asarray(centre)
    middle = np.asarray(centre)
    return _solid(normals, offsets, _box_corners(middle - scale, middle + scale), colour, texture, reflectivity)


def bar(
    start: tuple[float, float, float],
    end: tuple[float, float, float],
    width: float,
    height: float,
    colour: Colour,
    *,
    texture: Texture = Texture.PLAIN,
    reflectivity: float = 0.3,
) -> Solids:
    """A beam from start to end in the plane of its `height`; `width` is horizontal."""
    a, b = np.asarray(start, dtype=np.float64), np.asarray(end, dtype=np.float64)
    along = (b - a) / np.linalg.norm(b - a)
    side = np.cross([0.0, 0.0, 1.0], along) if abs(along[2]) < 0.999 else np.array([0.0, 1.0, 0.0])
    side /= np.linalg.norm(side)
    up = np.cross(along, side)
    normals = np.stack([along, -along, side, -side, up, -up])
    half = np.array([0.0, 0.0, width / 2, width / 2, height / 2, height / 2])
    anchors = np.stack([b, a, a, a, a, a])
    offsets = np.einsum("fi,fi->f", normals, anchors) + half
    ring = [(width / 2, b), (-width / 2, b), (-width / 2, a), (width / 2, a)]
    corners = np.array([p + side * s + up * h for h in (-height / 2, height / 2) for s, p in ring])
    return _solid(normals, offsets, corners, colour, texture, reflectivity)
