"""Light and colour of the points that a camera sees.

Shading is Lambert's under a sun (with shadows on the ground) and a sky; fog follows Beer and Lambert; at night the
ego vehicle's headlamps, street lamps and lit windows are the light. Vectors are kept as one array per component:
NumPy sums over an axis of three much more slowly than it adds three arrays.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from aqr.geometry import Pose
from aqr.synth.ground import GROUND_CELL
from aqr.synth.shadows import Shadows
from aqr.synth.solids import Texture
from aqr.synth.stage import Moment, Stage

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]
Vector = tuple[Floats, Floats, Floats]

GRAINS: Final = ((30.0, 0.5), (14.0, 0.35), (6.0, 0.25))
"""Grains per metre and their contrast on the painted ground, from near to far."""

HASH: Final = np.random.default_rng(20190326).random(8192, dtype=np.float32)


class Light:
    """Light in a scene at one moment, as one camera sees it.

    Args:
        stage: the scene.
        shadows: on the ground.
        ego: pose of the ego vehicle, where the headlamps are.
    """

    def __init__(self, stage: Stage, shadows: Shadows, ego: Pose) -> None:
        self.stage, self.weather, self.shadows, self.ego = stage, stage.weather, shadows, ego
        self.sun = stage.weather.sun.astype(np.float32)
        self.ambient = stage.weather.ambient.astype(np.float32)
        self.horizon = stage.weather.horizon.astype(np.float32)
        self.zenith = stage.weather.zenith.astype(np.float32)

    def sky(self, up: Floats) -> Floats:
        """Linear RGB [P, 3] of the sky; `up` is the z component of unit directions."""
        share = np.clip(up * np.float32(2.2), 0, 1) ** np.float32(0.6)
        return np.asarray(self.horizon + share[:, None] * (self.zenith - self.horizon))

    def fog(self, colour: Floats, reach: Floats) -> Floats:
        """What is left of a colour [P, 3] after `reach` metres of air."""
        clear = np.exp(reach * np.float32(-self.weather.extinction))[:, None]
        return np.asarray(self.horizon + clear * (colour - self.horizon))

    def ground(self, points: Vector, toward: Vector, reach: Floats) -> Floats:
        """Linear RGB [P, 3] of the ground at points seen along unit directions from `reach` metres."""
        x, y, z = points
        albedo = self._albedo(x, y, reach)
        sunny, open_sky = self.shadows.at(x, y)
        slope = np.float32(self.weather.sun_direction[2])
        light = self.ambient * open_sky[:, None]
        if self.sun.any():
            light += (self.sun * slope) * sunny[:, None]
        if self.weather.night:
            light += self._lamps(x, y, z) * open_sky[:, None]
        wet = np.float32(self.weather.wet)
        albedo *= light
        if wet > 0:
            glance = np.clip(1 + np.float32(1.6) * toward[2], 0, 1) ** 3
            albedo *= 1 - np.float32(0.45) * wet
            albedo += (np.float32(0.35) * wet * glance * open_sky)[:, None] * self.horizon
        return albedo

    def _albedo(self, x: Floats, y: Floats, reach: Floats) -> Floats:
        """The painted ground, coarser with distance, with a grain of its own where it is close."""
        ground = self.stage.street.ground
        albedo = np.empty((len(x), 3), dtype=np.float32)
        fine = np.searchsorted(np.array([14.0, 28.0, 56.0], dtype=np.float32), reach)
        for index, level in enumerate(ground.levels):
            chosen = np.flatnonzero(fine == index)
            per_metre = np.float32(1 / (GROUND_CELL * 2**index))
            column = ((x[chosen] - np.float32(ground.origin[0])) * per_metre).astype(np.int32)
            row = ((y[chosen] - np.float32(ground.origin[1])) * per_metre).astype(np.int32)
            rows, columns = level.shape[:2]
            place = row.clip(0, rows - 1) * columns + column.clip(0, columns - 1)
            albedo[chosen] = _SQUARES[level.reshape(-1, 3)[place]]
            if index < len(GRAINS):
                per_metre, depth = np.float32(GRAINS[index][0]), np.float32(GRAINS[index][1])
                grain = HASH[
                    _mix((x[chosen] * per_metre).astype(np.int32), (y[chosen] * per_metre).astype(np.int32), 0)
                ]
                albedo[chosen] *= (1 + depth * (grain - np.float32(0.5)))[:, None]
        return albedo

    def _lamps(self, x: Floats, y: Floats, z: Floats) -> Floats:
        """Light from headlamps, tail lamps and street lamps, [P, 3]."""
        start = self.ego.apply(np.array([3.6, 0.0, 0.0])).astype(np.float32)
        ax, ay, _ = self.ego.rotation[:, 0].astype(np.float32)
        dx, dy = x - start[0], y - start[1]
        along = dx * ax + dy * ay
        aside = dx * ay - dy * ax
        distance = np.maximum(along, 1)
        beam = np.exp(-((aside / (np.float32(0.38) * distance + np.float32(0.8))) ** 2)) * (along > 0)
        beam *= 50 / (distance * distance + 60)
        tail = np.exp(-((aside / np.float32(2.5)) ** 2)) * np.exp(-np.abs(along + np.float32(6.5)) / 3) * (along < -4.6)
        span = np.float32(24.0)
        nearest = x % span - span / 2
        across = np.abs(y) - np.float32(self.stage.street.layout.half - 1.2)
        height = 7 - z
        gap = nearest * nearest + across * across + height * height + 4
        lamp = np.float32(5.5) * np.maximum(height, 0) / (gap * np.sqrt(gap))
        out = beam[:, None] * np.array([1.0, 0.95, 0.85], dtype=np.float32)
        out += tail[:, None] * np.array([0.10, 0.01, 0.005], dtype=np.float32)
        out += lamp[:, None] * np.array([1.0, 0.78, 0.5], dtype=np.float32)
        return np.asarray(out)

    def surface(
        self, moment: Moment, solid: npt.NDArray[np.int32], points: Vector, normals: Vector, toward: Vector
    ) -> Floats:
        """Linear RGB [P, 3] of points on solids."""
        solids = moment.solids
        texture = solids.texture.astype(np.int8)[solid]
        colour = solids.colour.astype(np.float32)[solid]
        frames = moment.frames.astype(np.float32)
        cos, sin = np.cos(frames[:, 3])[solid], np.sin(frames[:, 3])[solid]
        px, py, pz = (p - frames[:, i][solid] for i, p in enumerate(points))
        local = (cos * px + sin * py, cos * py - sin * px, pz)
        nx, ny, nz = normals
        facing_x = np.abs(cos * nx + sin * ny) > np.abs(cos * ny - sin * nx)
        across = np.where(facing_x, local[1], local[0])
        upright = np.abs(nz) < 0.7
        glow = np.zeros_like(colour) if self.weather.night else None
        mirror = np.zeros(len(solid), dtype=np.float32)

        def of(kind: Texture) -> Ints:
            return np.flatnonzero(texture == kind)

        k = of(Texture.FACADE)
        self._windows(k, across[k] + 100 * facing_x[k], pz[k], solid[k], upright[k], colour, glow, mirror)
        k = of(Texture.GLASSHOUSE)
        k = k[nz[k] < 0.75]
        colour[k] = colour[k] * np.float32(0.05) + np.float32(0.012)
        mirror[k] = 0.16
        k = of(Texture.FOLIAGE)
        colour[k] *= (np.float32(0.45) + np.float32(0.55) * (_noise(local, k, 3.5) + _noise(local, k, 11.0)))[:, None]
        k = of(Texture.ROUGH)
        colour[k] *= (np.float32(0.8) + np.float32(0.4) * _noise(local, k, 9.0))[:, None]
        k = of(Texture.STRIPES)
        band = np.floor((across[k] + pz[k]) * np.float32(3.2)) % 2 > 0
        colour[k[band]] = (0.62, 0.05, 0.03)
        k = of(Texture.BANDS)
        colour[k[(pz[k] % np.float32(0.42) > 0.2) & (pz[k] > 0.2)]] = (0.85, 0.85, 0.82)
        k = of(Texture.PANELS)
        colour[k[(across[k] * np.float32(1.6) % 1 < 0.14) & upright[k]]] *= np.float32(0.62)
        if glow is not None:
            k = of(Texture.LAMP)
            glow[k] = colour[k] * np.float32(1.6)

        open_sky = (np.float32(0.62) + np.float32(0.38) * nz) * (
            np.float32(0.55) + np.float32(0.45) * np.clip(points[2] * np.float32(1 / 0.7), 0, 1)
        )
        light = self.ambient * open_sky[:, None]
        if self.sun.any():
            sx, sy, sz = self.weather.sun_direction.astype(np.float32)
            light += (self.sun * np.float32(0.95)) * np.maximum(nx * sx + ny * sy + nz * sz, 0)[:, None]
        if glow is not None:
            slope = np.clip(-(nx * toward[0] + ny * toward[1] + nz * toward[2]), np.float32(0.15), 1)
            light += self._lamps(*points) * slope[:, None]
        colour *= light
        if glow is not None:
            colour += glow
        k = np.flatnonzero(mirror)
        up = toward[2][k] - 2 * (toward[0][k] * nx[k] + toward[1][k] * ny[k] + toward[2][k] * nz[k]) * nz[k]
        colour[k] += (mirror[k] * np.where(up > 0, np.float32(1), np.float32(0.3)))[:, None] * self.sky(up)
        return colour

    def _windows(
        self,
        k: Ints,
        across: Floats,
        z: Floats,
        solid: npt.NDArray[np.int32],
        upright: npt.NDArray[np.bool_],
        colour: Floats,
        glow: Floats | None,
        mirror: Floats,
    ) -> None:
        """Draw rows of windows on the façades of pixels k."""
        column, row = across * np.float32(1 / 2.9), (z - np.float32(0.4)) * np.float32(1 / 3.1)
        whole_column, whole_row = np.floor(column), np.floor(row)
        u, v = column - whole_column, row - whole_row
        wall = upright & (z > 0.5)
        shop = wall & (row < 1) & (u > 0.08) & (u < 0.92) & (v > 0.12) & (v < 0.8)
        pane = wall & (row >= 1) & (u > 0.22) & (u < 0.78) & (v > 0.28) & (v < 0.82)
        stone = _mix((across * 5).astype(np.int32), (z * 9).astype(np.int32), 0)
        colour[k] *= (np.float32(0.90) + np.float32(0.20) * HASH[stone])[:, None]
        glass = np.flatnonzero(pane | shop)
        token = _mix(whole_column[glass].astype(np.int32), whole_row[glass].astype(np.int32), solid[glass])
        shade = np.float32(0.05) * HASH[token, None]
        colour[k[glass]] = np.array([0.03, 0.04, 0.05], dtype=np.float32) + shade
        mirror[k[glass]] = 0.14
        if glow is not None:
            lit = HASH[token] < np.where(shop[glass], np.float32(0.5), np.float32(0.25))
            warmth = np.float32(0.4) + HASH[token[lit], None]
            glow[k[glass[lit]]] = np.array([0.28, 0.20, 0.10], dtype=np.float32) * warmth


_SQUARES: Final = (np.arange(256, dtype=np.float32) / 255) ** 2
"""Linear light of stored 8-bit square roots."""


def _mix(a: npt.NDArray[np.int32], b: npt.NDArray[np.int32], c: npt.NDArray[np.int32] | int) -> npt.NDArray[np.int32]:
    return np.asarray((a * 15731 ^ b * 7919 ^ c * 2939) & 8191)


def _noise(points: Vector, chosen: Ints, per_metre: float) -> Floats:
    """Random brightness per cube, 0 … 1, of the chosen points."""
    a, b, c = (np.floor(p[chosen] * np.float32(per_metre)).astype(np.int32) for p in points)
    return np.asarray(HASH[_mix(a, b, c)])
