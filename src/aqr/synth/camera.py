"""A camera in the synthetic world: depth buffer first, then one shading pass over the pixels.

Stored values are square roots of linear light.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image, ImageDraw, ImageFilter

from aqr.geometry import Pose
from aqr.synth.cast import camera_windows, cast, draw_order, hit_normals, local_planes
from aqr.synth.shading import Light, Vector
from aqr.synth.shadows import Shadows
from aqr.synth.solids import Texture
from aqr.synth.stage import Moment, Stage

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]

GRAIN: Final = np.random.default_rng(20190327).standard_normal(1 << 17, dtype=np.float32)
"""Sensor noise of standard deviation 1; each row of an image takes a run of it."""


@dataclass(frozen=True)
class View:
    """One picture and what it shows.

    Attributes:
        image: [H, W, 3] uint8 RGB.
        actors: [H, W] index of the actor that each pixel shows, -1 for the scenery.
        visible: [N] pixels that show each actor.
        silhouette: [N] pixels that each actor would cover if nothing hid it.
    """

    image: npt.NDArray[np.uint8]
    actors: Ints
    visible: Ints
    silhouette: Ints


@dataclass(frozen=True)
class _Optics:
    """Rays of a camera in its own frame.

    Attributes:
        columns: [W, 3], and rows: [H, 3], the terms that a pixel's ray is the sum of.
        unit: [H · W, 3] unit vectors along the rays.
        lengths: [H · W] lengths of the rays.
    """

    columns: Floats
    rows: Floats
    unit: Floats
    lengths: Floats


@lru_cache(maxsize=16)
def _optics(fx: float, fy: float, cx: float, cy: float, height: int, width: int) -> _Optics:
    columns, rows = np.zeros((width, 3)), np.zeros((height, 3))
    columns[:, 0] = (np.arange(width) + 0.5 - cx) / fx
    rows[:, 1] = (np.arange(height) + 0.5 - cy) / fy
    rows[:, 2] = 1.0
    rays = (columns[None] + rows[:, None]).reshape(-1, 3)
    lengths = np.linalg.norm(rays, axis=1)
    return _Optics(columns, rows, (rays / lengths[:, None]).astype(np.float32), lengths.astype(np.float32))


def render(
    stage: Stage,
    moment: Moment,
    shadows: Shadows,
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
        shadows: of this moment.
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
    optics = _optics(*(float(intrinsic[i, j]) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2))), height, width)
    down = -(optics.rows @ camera.rotation[2])[:, None] - (optics.columns @ camera.rotation[2])[None, :]
    depth = cast(
        planes,
        facing,
        solids.planes,
        windows,
        draw_order(usable, nearest, moment.owners),
        moment.owners,
        len(moment.poses),
        optics.columns,
        optics.rows,
        np.maximum(down / camera.translation[2], 0.0).astype(np.float32),
        nearest,
        silhouettes=True,
    )
    solid, reach = depth.solid.ravel(), optics.lengths / np.maximum(depth.inverse.ravel(), np.float32(1e-6))
    light = Light(stage, shadows, ego)
    linear = np.empty((height * width, 3), dtype=np.float32)
    on_solid = solid >= 0
    flat = np.where(on_solid, (solids.texture == Texture.GROUND)[solid], reach < 1000)

    def seen(pixels: Ints) -> tuple[Vector, Vector]:
        """Unit directions to the points that pixels show, and the points."""
        toward = _components(optics.unit[pixels], camera.rotation)
        x, y, z = (t * reach[pixels] + np.float32(o) for t, o in zip(toward, camera.translation, strict=True))
        return toward, (x, y, z)

    pixels = np.flatnonzero(~(on_solid | flat))
    linear[pixels] = light.sky(_components(optics.unit[pixels], camera.rotation)[2])
    pixels = np.flatnonzero(flat)
    toward, points = seen(pixels)
    linear[pixels] = light.fog(light.ground(points, toward, reach[pixels]), reach[pixels])
    pixels = np.flatnonzero(on_solid & ~flat)
    toward, points = seen(pixels)
    hits = solid[pixels]
    normals = _components(hit_normals(planes, offsets, facing, hits, optics.unit[pixels]), camera.rotation)
    linear[pixels] = light.fog(light.surface(moment, hits, points, normals, toward), reach[pixels])
    linear *= np.float32(stage.weather.exposure)
    picture = np.sqrt(np.clip(linear, 0, 1, out=linear), out=linear).reshape(height, width, 3)
    actors = np.where(depth.solid >= 0, moment.owners[depth.solid], -1)
    return View(_develop(picture, stage, rng), actors, depth.visible, depth.silhouette)


def _components(vectors: Floats, rotation: Floats) -> Vector:
    """Rotated vectors [P, 3], as one contiguous array per component."""
    x, y, z = rotation.astype(np.float32) @ vectors.T
    return x, y, z


def _develop(picture: Floats, stage: Stage, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Rain drops on the lens and sensor noise."""
    weather = stage.weather
    height, width = picture.shape[:2]
    if weather.drops:
        sharp = Image.fromarray((picture * 255).astype(np.uint8))
        soft = sharp.filter(ImageFilter.GaussianBlur(width / 60))
        sharp.paste(soft, mask=draw_drops((height, width), rng))
        picture = np.asarray(sharp, dtype=np.float32) / np.float32(255)
    grain = sliding_window_view(GRAIN, 3 * width)[draw_grain((height, width), rng)].reshape(picture.shape)
    return np.asarray(np.clip((picture + grain * np.float32(weather.noise)) * 255, 0, 255).astype(np.uint8))


def draw_drops(size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """How far rain drops on the lens blur each pixel of an image of (height, width), 0 … 255."""
    height, width = size
    sharp = Image.new("L", (width, height), 0)
    pen, spots = ImageDraw.Draw(sharp), []
    for _ in range(int(rng.integers(2, 14))):
        u, v = float(rng.uniform(0, width)), float(rng.uniform(0, height))
        r = width * float(rng.uniform(0.008, 0.028))
        spots.append((u - r, v - r * 1.15, u + r, v + r * 1.15))
        pen.ellipse(spots[-1], fill=215)
    # The blur reaches less than the margin: three boxes of about two radii in all. Beyond it nothing is drawn.
    drops, margin = Image.new("L", (width, height), 0), int(4 * width / 350) + 4
    for spot in spots:
        own, wide = _box_around(spot, margin, size), _box_around(spot, 2 * margin, size)
        soft = sharp.crop(wide).filter(ImageFilter.GaussianBlur(width / 350))
        left, top = wide[:2]
        drops.paste(soft.crop((own[0] - left, own[1] - top, own[2] - left, own[3] - top)), own[:2])
    return drops


def _box_around(
    spot: tuple[float, float, float, float], margin: int, size: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a spot with a margin, within an image of (height, width)."""
    left, top, right, bottom = (int(v) for v in spot)
    height, width = size
    return max(left - margin, 0), max(top - margin, 0), min(right + margin, width), min(bottom + margin, height)


def draw_grain(size: tuple[int, int], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """[height] place in `GRAIN` where the noise of each row starts."""
    return rng.integers(len(GRAIN) - 3 * size[1], size=size[0])
