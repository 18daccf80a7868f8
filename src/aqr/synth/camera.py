"""A camera in the synthetic world: depth buffer first, then one shading pass over the pixels.

Shading is Lambert's under a sun (with shadows on the ground) and a sky; fog follows Beer and Lambert; at night the
ego vehicle's headlamps, street lamps and lit windows are the light. Stored values are square roots of linear light.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from aqr.geometry import Pose
from aqr.synth.cast import camera_windows, cast, draw_order, hit_normals, local_planes
from aqr.synth.solids import Texture
from aqr.synth.stage import Moment, Stage
from aqr.synth.street import GROUND_CELL

Floats = npt.NDArray[np.floating]
Float32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_SHADE_CELL: Final = 0.2
_SHADE_REACH: Final = 80.0
_HASH: Final = np.random.default_rng(20190326).random(8192, dtype=np.float32)
_GRAIN: Final = np.random.default_rng(20190327).standard_normal(1 << 18, dtype=np.float32)


@dataclass(frozen=True)
class View:
    """One picture and what it shows.

    Attributes:
        image: [H, W, 3] uint8 RGB.
        visible: [N] pixels that show each actor.
        silhouette: [N] pixels that each actor would cover if nothing hid it.
    """

    image: npt.NDArray[np.uint8]
    visible: Ints
    silhouette: Ints


@dataclass(frozen=True)
class Shade:
    """Light that reaches the ground around the ego vehicle.

    Attributes:
        origin: street coordinates (x, y) of the corner of the first cell, metres.
        sun: [Y, X] share of direct light, 0 … 1.
        sky: [Y, X] share of light from the sky, 0 … 1.
    """

    origin: tuple[float, float]
    sun: Float32
    sky: Float32


def shade(stage: Stage, moment: Moment, ego: Pose) -> Shade:
    """Shadows of everything around the ego vehicle, drawn on the ground once for all cameras."""
    x0, y0 = (float(v) - _SHADE_REACH for v in ego.translation[:2])
    cells = int(2 * _SHADE_REACH / _SHADE_CELL)
    sun, sky = Image.new("L", (cells, cells), 255), Image.new("L", (cells, cells), 255)
    solids = moment.solids
    base, height = solids.corners[:, :4, :2], solids.corners[..., 2].max(1)
    near = (np.abs(base.mean(1) - ego.translation[:2]) < _SHADE_REACH + 15).all(1)
    drawn = near & (solids.texture != Texture.GROUND) & (height > 0.2)
    direction = stage.weather.sun_direction
    if stage.weather.sun.max() > 0.5:
        pen = ImageDraw.Draw(sun)
        bottom = solids.corners[..., 2].min(1)
        for k in np.flatnonzero(drawn):
            low = (base[k] - direction[:2] / direction[2] * bottom[k] - (x0, y0)) / _SHADE_CELL
            high = low - direction[:2] / direction[2] * (height[k] - bottom[k]) / _SHADE_CELL
            for i in range(4):
                j = (i + 1) % 4
                pen.polygon([tuple(low[i]), tuple(low[j]), tuple(high[j]), tuple(high[i])], fill=0)
            pen.polygon([tuple(p) for p in high], fill=0)
        sun = sun.filter(ImageFilter.BoxBlur(1))
    pen = ImageDraw.Draw(sky)
    for k in np.flatnonzero(drawn & (solids.corners[..., 2].min(1) < 0.7) & (moment.owners >= 0)):
        pen.polygon([tuple(p) for p in (base[k] - (x0, y0)) / _SHADE_CELL], fill=70)
    sky = sky.filter(ImageFilter.GaussianBlur(1.6))
    full = np.float32(255)
    return Shade((x0, y0), np.asarray(sun, dtype=np.float32) / full, np.asarray(sky, dtype=np.float32) / full)


def render(
    stage: Stage,
    moment: Moment,
    shadows: Shade,
    camera: Pose,
    ego: Pose,
    intrinsic: Floats,
    size: tuple[int, int],
    rng: np.random.Generator,
) -> View:
    """Take a picture.

    Args:
        stage: the scene.
        moment: its solids.
        shadows: of this moment (see `shade`).
        camera: pose of the camera frame in the street frame.
        ego: pose of the ego vehicle in the street frame, where its headlamps are.
        intrinsic: [3, 3].
        size: image (height, width).
        rng: sensor noise and rain drops.
    """
    height, width = size
    solids = moment.solids
    planes, offsets, facing = local_planes(solids, camera)
    corners = (solids.corners - camera.translation) @ camera.rotation
    windows, nearest = camera_windows(corners, intrinsic, size)
    usable = (windows[:, 1] > windows[:, 0]) & (windows[:, 3] > windows[:, 2]) & (facing > 0)
    column_rays = np.zeros((width, 3))
    column_rays[:, 0] = (np.arange(width) + 0.5 - intrinsic[0, 2]) / intrinsic[0, 0]
    row_rays = np.zeros((height, 3))
    row_rays[:, 1] = (np.arange(height) + 0.5 - intrinsic[1, 2]) / intrinsic[1, 1]
    row_rays[:, 2] = 1.0
    down = -(row_rays @ camera.rotation[2])[:, None] - (column_rays @ camera.rotation[2])[None, :]
    background = np.maximum(down / camera.translation[2], 0.0).astype(np.float32)
    depth = cast(
        planes,
        facing,
        solids.planes,
        windows,
        draw_order(usable, nearest, moment.owners),
        moment.owners,
        len(moment.poses),
        column_rays,
        row_rays,
        background,
    )
    rays = (column_rays[None] + row_rays[:, None]).reshape(-1, 3).astype(np.float32)
    light = _Light(stage, shadows, ego, camera)
    linear = light.paint(moment, planes, offsets, facing, depth.inverse.ravel(), depth.solid.ravel(), rays)
    picture = np.sqrt(np.clip(linear * np.float32(stage.weather.exposure), 0, 1)).reshape(height, width, 3)
    return View(_develop(picture, stage, rng), depth.visible, depth.silhouette)


class _Light:
    """Light and colour of what the pixels of one camera show."""

    def __init__(self, stage: Stage, shadows: Shade, ego: Pose, camera: Pose) -> None:
        self.stage, self.weather, self.shadows, self.ego, self.camera = stage, stage.weather, shadows, ego, camera
        self.rotation = camera.rotation.astype(np.float32)
        self.sun = stage.weather.sun.astype(np.float32)
        self.ambient = stage.weather.ambient.astype(np.float32)
        self.horizon = stage.weather.horizon.astype(np.float32)
        self.zenith = stage.weather.zenith.astype(np.float32)

    def paint(
        self,
        moment: Moment,
        planes: Floats,
        offsets: Floats,
        facing: Ints,
        inverse: Float32,
        solid: npt.NDArray[np.int32],
        rays: Float32,
    ) -> Float32:
        """Linear RGB [P, 3] of all pixels."""
        directions = rays @ self.rotation.T
        linear = self._sky(directions)
        texture = moment.solids.texture
        on_solid = solid >= 0
        flat = (~on_solid & (inverse > 1e-3)) | (on_solid & (texture[solid] == Texture.GROUND))
        origin = self.camera.translation.astype(np.float32)

        pixels = np.flatnonzero(flat)
        points = origin + directions[pixels] / inverse[pixels, None]
        reach = np.linalg.norm(rays[pixels], axis=1) / inverse[pixels]
        linear[pixels] = self._fog(self._ground(points, reach, directions[pixels]), reach, linear[pixels])

        pixels = np.flatnonzero(on_solid & ~flat)
        points = origin + directions[pixels] / inverse[pixels, None]
        reach = np.linalg.norm(rays[pixels], axis=1) / inverse[pixels]
        normals = hit_normals(planes, offsets, facing, solid[pixels], rays[pixels]).astype(np.float32)
        normals = normals @ self.rotation.T
        colour = self._surface(moment, solid[pixels], points, normals, reach, directions[pixels])
        linear[pixels] = self._fog(colour, reach, linear[pixels])
        return linear

    def _sky(self, directions: Float32) -> Float32:
        up = directions[:, 2] / np.linalg.norm(directions, axis=1)
        share = np.clip(up * 2.2, 0, 1)[:, None] ** np.float32(0.6)
        return np.asarray((1 - share) * self.horizon + share * self.zenith, dtype=np.float32)

    def _fog(self, colour: Float32, reach: Float32, behind: Float32) -> Float32:
        clear = np.exp(-reach * np.float32(self.weather.extinction))[:, None]
        return np.asarray(clear * colour + (1 - clear) * self.horizon, dtype=np.float32)

    def _ground(self, points: Float32, reach: Float32, directions: Float32) -> Float32:
        ground = self.stage.street.ground
        albedo = np.empty((len(points), 3), dtype=np.float32)
        fine = np.digitize(reach, (14.0, 28.0, 56.0))
        for index, level in enumerate(ground.levels):
            chosen = np.flatnonzero(fine == index)
            cell = GROUND_CELL * 2**index
            column = ((points[chosen, 0] - ground.origin[0]) / cell).astype(np.int64).clip(0, level.shape[1] - 1)
            row = ((points[chosen, 1] - ground.origin[1]) / cell).astype(np.int64).clip(0, level.shape[0] - 1)
            value = level[row, column].astype(np.float32) / 255
            albedo[chosen] = value * value
        cells = self.shadows.sun.shape[0] - 1
        column = ((points[:, 0] - self.shadows.origin[0]) / _SHADE_CELL).astype(np.int64).clip(0, cells)
        row = ((points[:, 1] - self.shadows.origin[1]) / _SHADE_CELL).astype(np.int64).clip(0, cells)
        sunny, open_sky = self.shadows.sun[row, column], self.shadows.sky[row, column]
        slope = np.float32(self.weather.sun_direction[2])
        light = self.ambient * open_sky[:, None] + (self.sun * slope) * sunny[:, None]
        if self.weather.night:
            light = light + self._lamps(points, np.array([0.0, 0.0, 1.0], dtype=np.float32)) * open_sky[:, None]
        wet = np.float32(self.weather.wet)
        colour = albedo * (1 - 0.45 * wet) * light
        if wet > 0:
            glance = np.clip(1 + 1.6 * directions[:, 2] / np.linalg.norm(directions, axis=1), 0, 1) ** 3
            colour = colour + (0.35 * wet * glance * open_sky)[:, None] * self.horizon
        return np.asarray(colour, dtype=np.float32)

    def _lamps(self, points: Float32, normals: Float32) -> Float32:
        """Light from headlamps and from street lamps on both sides every 24 m, [P, 3]."""
        ahead = self.ego.apply(np.array([3.6, 0.0, 0.0])).astype(np.float32)
        axis = self.ego.rotation[:, 0].astype(np.float32)
        offset = points - ahead
        along = offset @ axis
        aside = offset[:, 0] * axis[1] - offset[:, 1] * axis[0]
        distance = np.maximum(along, 1.0)
        beam = np.exp(-((aside / (0.38 * distance + 0.8)) ** 2)) * (along > 0) * 55 / (distance * distance + 60)
        tail = np.exp(-((aside / 2.5) ** 2)) * np.exp(-np.abs(along + 6.5) / 3.0) * (along < -4.6) * 0.10
        span = np.float32(24.0)
        nearest = (points[:, 0] % span) - span / 2
        half = self.stage.street.layout.half
        across = np.abs(points[:, 1]) - np.float32(half - 1.2)
        height = np.maximum(7.0 - points[:, 2], 0.5)
        lamp = 5.5 * height / (nearest**2 + across**2 + height**2) ** 1.5
        out = (beam * 0.9)[:, None] * np.array([1.0, 0.95, 0.85], dtype=np.float32)
        out += tail[:, None] * np.array([1.0, 0.1, 0.05], dtype=np.float32)
        out += lamp[:, None] * np.array([1.0, 0.78, 0.5], dtype=np.float32)
        return np.asarray(out, dtype=np.float32)

    def _surface(
        self,
        moment: Moment,
        solid: npt.NDArray[np.int32],
        points: Float32,
        normals: Float32,
        reach: Float32,
        directions: Float32,
    ) -> Float32:
        solids = moment.solids
        texture = solids.texture[solid]
        colour = solids.colour.astype(np.float32)[solid]
        frames = moment.frames.astype(np.float32)[solid]
        offset = points - frames[:, :3]
        cos, sin = np.cos(frames[:, 3]), np.sin(frames[:, 3])
        local = np.stack(
            [cos * offset[:, 0] + sin * offset[:, 1], -sin * offset[:, 0] + cos * offset[:, 1], offset[:, 2]], axis=1
        )
        facing_x = np.abs(cos * normals[:, 0] + sin * normals[:, 1]) > np.abs(cos * normals[:, 1] - sin * normals[:, 0])
        across = np.where(facing_x, local[:, 1], local[:, 0])
        upright = np.abs(normals[:, 2]) < 0.7
        glow = np.zeros_like(colour)
        mirror = np.zeros(len(solid), dtype=np.float32)

        def of(kind: Texture) -> Ints:
            return np.flatnonzero(texture == kind)

        k = of(Texture.FACADE)
        self._windows(k, across[k] + 100 * facing_x[k], local[k, 2], solid[k], upright[k], colour, glow, mirror)
        k = of(Texture.GLASSHOUSE)
        k = k[normals[k, 2] < 0.75]
        colour[k] = colour[k] * 0.06 + 0.02
        mirror[k] = 0.3
        k = of(Texture.FOLIAGE)
        colour[k] *= (0.45 + 1.1 * _noise(local[k] * 4.0))[:, None]
        k = of(Texture.ROUGH)
        colour[k] *= (0.8 + 0.4 * _noise(local[k] * 9.0))[:, None]
        k = of(Texture.STRIPES)
        band = np.floor((across[k] + local[k, 2]) * 3.2) % 2 > 0
        colour[k[band]] = (0.62, 0.05, 0.03)
        k = of(Texture.BANDS)
        share = local[k, 2] % 0.42
        colour[k[(share > 0.2) & (local[k, 2] > 0.2)]] = (0.85, 0.85, 0.82)
        k = of(Texture.PANELS)
        colour[k] *= np.where((across[k] * 1.6 % 1 < 0.14) & upright[k], 0.62, 1.0)[:, None].astype(np.float32)
        if self.weather.night:
            k = of(Texture.LAMP)
            glow[k] = colour[k] * 1.6

        sunny = np.maximum(normals @ self.weather.sun_direction.astype(np.float32), 0)
        open_sky = (0.62 + 0.38 * normals[:, 2]) * (0.55 + 0.45 * np.clip(points[:, 2] / 0.7, 0, 1))
        light = self.ambient * open_sky[:, None] + self.sun * (sunny * 0.95)[:, None]
        if self.weather.night:
            toward = directions / np.linalg.norm(directions, axis=1)[:, None]
            slope = np.clip(-np.einsum("pi,pi->p", normals, toward), 0.15, 1)
            light = light + self._lamps(points, normals) * slope[:, None]
        out = colour * light + glow
        shine = mirror > 0
        if shine.any():
            d, n = directions[shine], normals[shine]
            bounced = d - 2 * np.einsum("pi,pi->p", d, n)[:, None] * n
            out[shine] += mirror[shine, None] * self._sky(bounced) * (bounced[:, 2:] > 0)
        return np.asarray(out, dtype=np.float32)

    def _windows(
        self,
        k: Ints,
        across: Float32,
        z: Float32,
        solid: npt.NDArray[np.int32],
        upright: npt.NDArray[np.bool_],
        colour: Float32,
        glow: Float32,
        mirror: Float32,
    ) -> None:
        """Draw rows of windows on the façades of pixels k."""
        column, row = across / np.float32(2.9), (z - 0.4) / np.float32(3.1)
        u, v = column % 1, row % 1
        pane = upright & (z > 0.5) & (u > 0.22) & (u < 0.78) & (v > 0.28) & (v < 0.82)
        shop = (row < 1) & upright & (z > 0.5) & (u > 0.08) & (u < 0.92) & (v > 0.12) & (v < 0.8)
        token = _mix(np.floor(column).astype(np.int64), np.floor(row).astype(np.int64), solid.astype(np.int64))
        colour[k] *= (0.88 + 0.24 * _HASH[_mix((across * 5).astype(np.int64), (z * 9).astype(np.int64), 0)])[:, None]
        glass = np.flatnonzero(pane | shop)
        colour[k[glass]] = np.array([0.04, 0.05, 0.06], dtype=np.float32) + 0.05 * _HASH[token[glass], None]
        mirror[k[glass]] = 0.22
        if self.weather.night:
            lit = glass[_HASH[token[glass]] < np.where(shop[glass], 0.5, 0.25)]
            glow[k[lit]] = np.array([0.28, 0.20, 0.10], dtype=np.float32) * (0.4 + _HASH[token[lit], None])


def _mix(a: Ints, b: Ints, c: Ints | int) -> Ints:
    return np.asarray((a * 73856093 ^ b * 19349663 ^ c * 83492791) & 8191)


def _noise(points: Floats) -> Float32:
    """Random brightness per unit cube, 0 … 1."""
    cell = np.floor(points).astype(np.int64)
    return np.asarray(_HASH[_mix(cell[:, 0], cell[:, 1], cell[:, 2])])


def _develop(picture: Floats, stage: Stage, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Rain drops on the lens and sensor noise."""
    weather = stage.weather
    height, width = picture.shape[:2]
    if weather.words == "Day, rain":
        sharp = Image.fromarray((picture * 255).astype(np.uint8))
        soft = sharp.filter(ImageFilter.GaussianBlur(width / 60))
        drops = Image.new("L", sharp.size, 0)
        pen = ImageDraw.Draw(drops)
        for _ in range(int(rng.integers(2, 14))):
            u, v = float(rng.uniform(0, width)), float(rng.uniform(0, height))
            r = width * float(rng.uniform(0.008, 0.028))
            pen.ellipse([u - r, v - r * 1.15, u + r, v + r * 1.15], fill=215)
        drops = drops.filter(ImageFilter.GaussianBlur(width / 350))
        sharp.paste(soft, mask=drops)
        picture = np.asarray(sharp, dtype=np.float32) / 255
    start = int(rng.integers(len(_GRAIN)))
    count = picture.size
    grain = np.resize(np.roll(_GRAIN, -start), count).reshape(picture.shape)
    return np.asarray(np.clip(picture * 255 + grain * np.float32(weather.noise * 255), 0, 255).astype(np.uint8))
