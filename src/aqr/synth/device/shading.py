"""Light and colour of what many cameras see, as `aqr.synth.shading` computes them for one.

Colours are [3, V, H, W]; everything else is [V, H, W]. Every pixel is shaded as sky, ground and solid, and keeps
what it shows: nothing waits to hear how many pixels show what.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aqr.synth.device.cast import FACES, Hits, Views
from aqr.synth.device.pool import LEVELS, Moments, Pool, constant, dot, turned
from aqr.synth.device.shadows import CELLS, Shadows
from aqr.synth.device.views import Eyes
from aqr.synth.shadows import CELL
from aqr.synth.solids import Texture

Vector = tuple[Tensor, Tensor, Tensor]

_PAINTS: Final = (
    (1.0, 0.95, 0.85),
    (0.10, 0.01, 0.005),
    (1.0, 0.78, 0.5),
    (0.03, 0.04, 0.05),
    (0.62, 0.05, 0.03),
    (0.85, 0.85, 0.82),
    (0.28, 0.20, 0.10),
)
_BEAM, _TAIL, _LAMP, _WINDOW, _STRIPE, _BAND, _GLOW = range(len(_PAINTS))


@lru_cache(maxsize=64)
def paints(device: torch.device) -> Tensor:
    """[7, 3] linear RGB: light of headlamps, tail lamps and street lamps, window panes, stripes, bands, lit windows."""
    return torch.tensor(_PAINTS, device=device)


@dataclass(frozen=True)
class Light:
    """Light in the scenes of V views; [V, 1, 1] each, colours [3, V, 1, 1].

    Attributes:
        night: whether lamps are lit in any of the views; `lit` says in which.
        table: [V, WIDTH] the same numbers in rows, and the standard deviation of the sensors' noise.
    """

    WIDTH: ClassVar[int] = 27

    sun: Tensor
    ambient: Tensor
    zenith: Tensor
    horizon: Tensor
    direction: Vector
    extinction: Tensor
    wet: Tensor
    exposure: Tensor
    lamp_y: Tensor
    lit: Tensor
    night: bool
    beam_start: Vector
    beam_along: Vector
    table: Tensor

    @classmethod
    def of(cls, pool: Pool, scenes: Sequence[int], ego: npt.NDArray[np.float64]) -> Light:
        """Light of views of scenes, whose ego vehicles are at [V, 4] x, y, z, yaw."""
        casts = [pool.casts[scene] for scene in scenes]
        weathers = [cast.weather for cast in casts]
        cos, sin = np.cos(ego[:, 3]), np.sin(ego[:, 3])
        fields = {
            "sun": [w.sun for w in weathers],
            "ambient": [w.ambient for w in weathers],
            "zenith": [w.zenith for w in weathers],
            "horizon": [w.horizon for w in weathers],
            "direction": [w.sun_direction for w in weathers],
            "start": np.stack([ego[:, 0] + 3.6 * cos, ego[:, 1] + 3.6 * sin, ego[:, 2]], -1),
            "along": np.stack([cos, sin, np.zeros_like(cos)], -1),
            "one": [[w.extinction, w.wet, w.exposure] for w in weathers],
            "two": [[cast.lamp_y, float(cast.weather.night), cast.weather.noise] for cast in casts],
        }
        table = np.stack([np.asarray(values, dtype=np.float32) for values in fields.values()], axis=1)
        sent = torch.from_numpy(table).to(pool.device, non_blocking=True)
        by_name = {name: sent[:, place].T[..., None, None] for place, name in enumerate(fields)}

        def vector(name: str) -> Vector:
            x, y, z = by_name[name]
            return x, y, z

        extinction, wet, exposure = by_name["one"]
        lamp_y, lit, _ = by_name["two"]
        return cls(
            sun=by_name["sun"],
            ambient=by_name["ambient"],
            zenith=by_name["zenith"],
            horizon=by_name["horizon"],
            direction=vector("direction"),
            extinction=extinction,
            wet=wet,
            exposure=exposure,
            lamp_y=lamp_y,
            lit=lit,
            night=any(w.night for w in weathers),
            beam_start=vector("start"),
            beam_along=vector("along"),
            table=sent,
        )

    def sky(self, up: Tensor) -> Tensor:
        """Linear RGB of the sky; `up` is the z component of unit directions."""
        share = (up * 2.2).clamp(0, 1) ** 0.6
        return self.horizon + share * (self.zenith - self.horizon)

    def fog(self, colour: Tensor, reach: Tensor) -> Tensor:
        """What is left of a colour after `reach` metres of air."""
        return self.horizon + torch.exp(-reach * self.extinction) * (colour - self.horizon)

    def lamps(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """Light from headlamps, tail lamps and street lamps."""
        ax, ay, _ = self.beam_along
        dx, dy = x - self.beam_start[0], y - self.beam_start[1]
        along, aside = dx * ax + dy * ay, dx * ay - dy * ax
        distance = along.clamp(min=1)
        beam = torch.exp(-((aside / (0.38 * distance + 0.8)) ** 2)) * (along > 0) * (50 / (distance * distance + 60))
        tail = torch.exp(-((aside / 2.5) ** 2)) * torch.exp(-(along + 6.5).abs() / 3) * (along < -4.6)
        nearest = torch.remainder(x, 24.0) - 12.0
        across = y.abs() - self.lamp_y
        height = 7 - z
        gap = nearest * nearest + across * across + height * height + 4
        lamp = 5.5 * height.clamp(min=0) / (gap * gap.sqrt())
        return _rgb(beam, _BEAM) + _rgb(tail, _TAIL) + _rgb(lamp, _LAMP)


def shade(
    pool: Pool,
    moments: Moments,
    shadows: Shadows,
    eyes: Eyes,
    views: Views,
    hits: Hits,
    light: Light,
) -> Tensor:
    """Square roots of linear RGB [V, 3, H, W], 0 … 1, of what cameras see."""
    toward, reach, points = _seen(views, hits, eyes)
    on_solid = hits.code >= 0
    code = hits.code.clamp(min=0)
    solid, face = (code // FACES).long(), code % FACES
    scene = moments.scene[eyes.shot][:, None, None]
    texture = torch.where(on_solid, pool.texture.flatten()[scene * pool.solids + solid], int(Texture.GROUND))
    flat = texture == Texture.GROUND
    colour = torch.where(
        flat,
        _ground(pool, shadows, eyes, scene, light, points, toward, reach),
        _surface(pool, moments, eyes, scene, light, texture, solid, face, points, toward),
    )
    colour = light.fog(colour, reach)
    colour = torch.where(on_solid | (reach < 1000), colour, light.sky(toward[2]))
    return (colour * light.exposure).clamp_(0, 1).sqrt_().transpose(0, 1)


def _seen(views: Views, hits: Hits, eyes: Eyes) -> tuple[Vector, Tensor, Vector]:
    """Unit directions to the points that pixels show, their distance, and the points."""
    rotation, origin = eyes.rotation.float(), eyes.translation.float()
    across, down = turned(views.columns, rotation[:, None]), turned(views.rows, rotation[:, None])
    rays = across[:, None] + down[:, :, None]
    length = dot(rays, rays).sqrt()
    reach = length / hits.inverse.clamp(min=1e-6)
    x, y, z = (rays[..., i] / length for i in range(3))
    px, py, pz = (t * reach + origin[:, i, None, None] for i, t in enumerate((x, y, z)))
    return (x, y, z), reach, (px, py, pz)


def _ground(
    pool: Pool,
    shadows: Shadows,
    eyes: Eyes,
    scene: Tensor,
    light: Light,
    points: Vector,
    toward: Vector,
    reach: Tensor,
) -> Tensor:
    x, y, z = points
    shot = eyes.shot[:, None, None]
    place = [
        ((p - shadows.origin[eyes.shot, i].float()[:, None, None]) * (1 / CELL))
        .clamp(-1, CELLS)
        .int()
        .clamp(0, CELLS - 1)
        for i, p in enumerate((x, y))
    ]
    cell = (shot * CELLS + place[1]) * CELLS + place[0]
    sunny, open_sky = shadows.sun.flatten()[cell], shadows.sky.flatten()[cell]
    total = light.ambient * open_sky + (light.sun * light.direction[2]) * sunny
    if light.night:
        total = total + light.lamps(x, y, z) * (open_sky * light.lit)
    glance = (1 + 1.6 * toward[2]).clamp(0, 1) ** 3
    colour = _albedo(pool, scene, x, y, reach) * total * (1 - 0.45 * light.wet)
    return colour + (0.35 * light.wet * glance * open_sky) * light.horizon


def _albedo(pool: Pool, scene: Tensor, x: Tensor, y: Tensor, reach: Tensor) -> Tensor:
    """The painted ground, coarser with distance, with a grain of its own where it is close."""
    level = (reach > 14.0).long() + (reach > 28.0) + (reach > 56.0)
    scale, per_metre, depth = constant("ground_levels", x.device)[:, level].unbind(0)
    origin = pool.ground_origin.float()[scene]
    far = 1e6
    column = ((x - origin[..., 0]) * scale).clamp(-far, far).int()
    row = ((y - origin[..., 1]) * scale).clamp(-far, far).int()
    which = scene * LEVELS + level
    rows, columns = pool.ground_size.flatten(0, 1)[:, 0][which], pool.ground_size.flatten(0, 1)[:, 1][which]
    column = torch.minimum(column.clamp(min=0), columns - 1)
    row = torch.minimum(row.clamp(min=0), rows - 1)
    packed = pool.ground[pool.ground_start.flatten()[which] + row * columns + column]
    colour = (torch.stack([packed & 255, (packed >> 8) & 255, (packed >> 16) & 255]).float() / 255) ** 2
    grain = _random((x * per_metre).clamp(-far, far).int(), (y * per_metre).clamp(-far, far).int(), 0)
    return colour * (1 + depth * (grain - 0.5))


def _surface(
    pool: Pool,
    moments: Moments,
    eyes: Eyes,
    scene: Tensor,
    light: Light,
    texture: Tensor,
    solid: Tensor,
    face: Tensor,
    points: Vector,
    toward: Vector,
) -> Tensor:
    place = eyes.shot[:, None, None] * pool.solids + solid
    colour = pool.colour[:, scene * pool.solids + solid]
    frames = moments.frames.float().flatten(0, 1)
    cos, sin = torch.cos(frames[:, 3])[place], torch.sin(frames[:, 3])[place]
    px, py, pz = (p - frames[:, i][place] for i, p in enumerate(points))
    local = (cos * px + sin * py, cos * py - sin * px, pz)
    planes = moments.normals.shape[2]
    normals = moments.normals.float().flatten(0, 2)
    which = place * planes + face
    nx, ny, nz = (normals[:, i][which] for i in range(3))
    facing_x = (cos * nx + sin * ny).abs() > (cos * ny - sin * nx).abs()
    across = torch.where(facing_x, local[1], local[0])
    upright = nz.abs() < 0.7

    facade = texture == Texture.FACADE
    colour, glow, mirror = _windows(
        facade, torch.where(facing_x, across + 100, across), pz, solid, upright, colour, light
    )
    glass = (texture == Texture.GLASSHOUSE) & (nz < 0.75)
    colour = torch.where(glass, colour * 0.05 + 0.012, colour)
    mirror = torch.where(glass, 0.16, mirror)
    foliage, rough = texture == Texture.FOLIAGE, texture == Texture.ROUGH
    coarse = _noise(local, torch.where(foliage, 3.5, 9.0))
    leaves = 0.45 + 0.55 * (coarse + _noise(local, torch.full_like(pz, 11.0)))
    colour = colour * torch.where(foliage, leaves, torch.where(rough, 0.8 + 0.4 * coarse, 1.0))
    striped = (texture == Texture.STRIPES) & (torch.remainder(torch.floor((across + pz) * 3.2), 2) > 0)
    colour = torch.where(striped, _paint(_STRIPE, colour.device), colour)
    banded = (texture == Texture.BANDS) & (torch.remainder(pz, 0.42) > 0.2) & (pz > 0.2)
    colour = torch.where(banded, _paint(_BAND, colour.device), colour)
    rib = (texture == Texture.PANELS) & (torch.remainder(across * 1.6, 1) < 0.14) & upright
    colour = torch.where(rib, colour * 0.62, colour)
    if light.night:
        glow = torch.where(texture == Texture.LAMP, colour * 1.6, glow)

    open_sky = (0.62 + 0.38 * nz) * (0.55 + 0.45 * (points[2] * (1 / 0.7)).clamp(0, 1))
    sx, sy, sz = light.direction
    total = light.ambient * open_sky + (light.sun * 0.95) * (nx * sx + ny * sy + nz * sz).clamp(min=0)
    if light.night:
        slope = (-(nx * toward[0] + ny * toward[1] + nz * toward[2])).clamp(0.15, 1)
        total = total + light.lamps(*points) * (slope * light.lit)
    colour = colour * total
    if light.night:
        colour = colour + glow * light.lit
    up = toward[2] - 2 * (toward[0] * nx + toward[1] * ny + toward[2] * nz) * nz
    return colour + (mirror * torch.where(up > 0, 1.0, 0.3)) * light.sky(up)


def _windows(
    facade: Tensor, across: Tensor, z: Tensor, solid: Tensor, upright: Tensor, colour: Tensor, light: Light
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw rows of windows on façades: colour, glow (linear RGB) and mirror."""
    column, row = across * (1 / 2.9), (z - 0.4) * (1 / 3.1)
    whole_column, whole_row = torch.floor(column), torch.floor(row)
    u, v = column - whole_column, row - whole_row
    wall = facade & upright & (z > 0.5)
    shop = wall & (row < 1) & (u > 0.08) & (u < 0.92) & (v > 0.12) & (v < 0.8)
    pane = wall & (row >= 1) & (u > 0.22) & (u < 0.78) & (v > 0.28) & (v < 0.82)
    stone = 0.90 + 0.20 * _random((across * 5).int(), (z * 9).int(), 0)
    colour = torch.where(facade, colour * stone, colour)
    glass = pane | shop
    token = _random(whole_column.int(), whole_row.int(), solid.int())
    colour = torch.where(glass, _paint(_WINDOW, colour.device) + 0.05 * token, colour)
    mirror = torch.where(glass, 0.14, 0.0)
    if not light.night:
        return colour, mirror, mirror
    shining = glass & (token < torch.where(shop, 0.5, 0.25))
    return colour, _rgb(torch.where(shining, 0.4 + token, 0.0), _GLOW), mirror


def _rgb(value: Tensor, paint: int) -> Tensor:
    return value * _paint(paint, value.device)


def _paint(paint: int, device: torch.device) -> Tensor:
    return paints(device)[paint][:, None, None, None]


def _random(a: Tensor, b: Tensor, c: Tensor | int) -> Tensor:
    """0 … 1, from three int32."""
    return constant("hash", a.device)[((a * 15731 ^ b * 7919 ^ c * 2939) & 8191).long()]


def _noise(points: Vector, per_metre: Tensor) -> Tensor:
    """Random brightness per cube, 0 … 1."""
    a, b, c = (torch.floor(p * per_metre).clamp(-1e6, 1e6).int() for p in points)
    return _random(a, b, c)
