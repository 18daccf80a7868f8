"""A spinning 32-beam LiDAR (nuScenes' HDL-32E) in the synthetic world.

A sweep has 1084 columns of 32 beams, stored column by column and ring by ring as nuScenes does: rows of
[x, y, z, intensity, ring] in the LiDAR frame, rays without an echo as points close to the sensor. Ego motion within
the sweep counts as compensated and objects stand still for its 50 ms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from aqr.geometry import Pose
from aqr.synth.cast import cast, draw_order, hit_normals, lidar_windows, local_planes
from aqr.synth.ground import GROUND_CELL
from aqr.synth.solids import Solids, Texture, block
from aqr.synth.stage import Moment, Stage
from aqr.synth.weather import Weather

Floats = npt.NDArray[np.floating]

BEAMS: Final = 32
COLUMNS: Final = 1084
ELEVATIONS: Final = np.radians(np.linspace(-30.67, 10.67, BEAMS))
RANGE_NOISE: Final = 0.018
"""Standard deviation of a range, metres."""

BACKSCATTER: Final = 8.0
"""Share of otherwise lost rays that rain or fog sends back, over the extinction in 1/m."""

FIRST_AZIMUTH: Final = np.radians(-172.0)
REACH: Final = 105.0
_AZIMUTHS: Final = FIRST_AZIMUTH - 2 * np.pi / COLUMNS * np.arange(COLUMNS)
COLUMN_RAYS: Final = np.stack([np.cos(_AZIMUTHS), np.sin(_AZIMUTHS), np.zeros(COLUMNS)], axis=1)
TANGENTS: Final = np.tan(ELEVATIONS)
ROW_RAYS: Final = np.stack([np.zeros(BEAMS), np.zeros(BEAMS), TANGENTS], axis=1)
RAYS: Final = (COLUMN_RAYS[:, None, :] + ROW_RAYS[None, :, :]).reshape(-1, 3).astype(np.float32)
LENGTHS: Final = np.linalg.norm(RAYS, axis=1)
RAY_COUNT: Final = len(RAYS)
ROOF: Final = block((-0.58, 0.58), (-0.80, 0.80), (-0.70, -0.36), (0.5, 0.5, 0.5), reflectivity=0.2)
"""The vehicle's own roof in the LiDAR frame."""


def sweep(stage: Stage, moment: Moment, lidar: Pose, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """One revolution.

    Args:
        stage: the scene.
        moment: its solids at the time of the sweep.
        lidar: pose of the LiDAR frame in the street frame.
        rng: range noise, intensity and lost echoes.

    Returns:
        [COLUMNS · BEAMS, 5] x, y, z (m), intensity (0 … 255), ring index.
    """
    roof = Solids.stack([moment.solids, _moved(ROOF, lidar)])
    owners = np.append(moment.owners, -1)
    planes, offsets, facing = local_planes(roof, lidar)
    corners = (roof.corners - lidar.translation) @ lidar.rotation
    windows, nearest = lidar_windows(corners, COLUMNS, FIRST_AZIMUTH, TANGENTS)
    usable = (windows[:, 1] > windows[:, 0]) & (nearest < REACH) & (facing > 0)
    background = np.maximum(-TANGENTS / lidar.translation[2], 0.0)
    depth = cast(
        planes,
        facing,
        roof.planes,
        windows,
        draw_order(usable, nearest, owners),
        owners,
        len(moment.poses),
        COLUMN_RAYS,
        ROW_RAYS,
        np.repeat(background.astype(np.float32)[:, None], COLUMNS, axis=1),
        nearest,
        silhouettes=False,
    )
    inverse, solid = depth.inverse.T.ravel(), depth.solid.T.ravel()
    rays, length = RAYS, LENGTHS
    hit = inverse > 1 / REACH
    distance = np.where(hit, length / np.where(hit, inverse, 1), np.float32(np.inf))

    normals = np.zeros_like(rays)
    normals[:, 2] = 1.0
    on_solid = np.flatnonzero(solid >= 0)
    normals[on_solid] = hit_normals(planes, offsets, facing, solid[on_solid], rays[on_solid])
    slope = np.abs((normals * rays).sum(axis=1)) / length

    ground = (solid < 0) | (roof.texture[solid] == Texture.GROUND)
    reflectivity = np.where(solid >= 0, roof.reflectivity.astype(np.float32)[solid], np.float32(0))
    spots = np.flatnonzero(ground & hit)
    reflectivity[spots] = _ground_reflectivity(stage, lidar.apply(rays[spots] / inverse[spots, None]))
    panes = (roof.texture == Texture.GLASSHOUSE) | (roof.texture == Texture.PAINTED_GLASS)
    glass = ~ground & panes[solid] & (normals[:, 2] < 0.7)
    strength = reflectivity * np.sqrt(np.maximum(slope, 0.02)) * np.exp(-2 * stage.weather.lidar_extinction * distance)
    strength = np.where(ground, strength * (1 - 0.6 * stage.weather.wet), strength)
    chance = np.clip(1.4 - (distance / 60.0) ** 2 * 0.09 / np.maximum(strength, 1e-4), 0.0, 0.985)
    chance[glass] *= 0.45
    noise = draw_noise(stage.weather, rng)
    lost = ~hit | (noise.chance > chance)
    metres = np.where(lost, noise.stray, distance + noise.metres)
    drops = noise.drops[metres[noise.drops] < 1.0]
    metres[drops] = draw_drops(len(drops), rng)
    intensity = strength * (60 + 110 * strength) * np.where(reflectivity > 0.72, 2.5, 1.0)
    intensity += draw_intensity(rng)
    points = np.empty((len(rays), 5), dtype=np.float32)
    points[:, :3] = rays * (metres / length)[:, None]
    points[:, 3] = np.clip(np.floor(np.where(lost, intensity * 0.3, intensity)), 0, 255)
    points[:, 4] = np.tile(np.arange(BEAMS, dtype=np.float32), COLUMNS)
    return points


@dataclass(frozen=True)
class Noise:
    """What is random about the echoes of one sweep of P rays, ray by ray.

    Attributes:
        chance: [P] float32 0 … 1, the echo is lost where this exceeds its chance.
        metres: [P] error of the range.
        stray: [P] metres at which a ray without an echo is stored.
        drops: indices of the rays that rain or fog may send back.
    """

    chance: npt.NDArray[np.float32]
    metres: npt.NDArray[np.float32]
    stray: npt.NDArray[np.float32]
    drops: npt.NDArray[np.int64]


def draw_noise(weather: Weather, rng: np.random.Generator) -> Noise:
    """The first of a sweep's random draws; those of `draw_drops` and `draw_intensity` follow."""
    chance = rng.random(RAY_COUNT, dtype=np.float32)
    metres = RANGE_NOISE * rng.standard_normal(RAY_COUNT, dtype=np.float32)
    stray = 0.9 * rng.random(RAY_COUNT, dtype=np.float32) ** 2
    drops = np.flatnonzero(rng.random(RAY_COUNT, dtype=np.float32) < BACKSCATTER * weather.lidar_extinction)
    return Noise(chance, metres, stray, drops)


def draw_drops(count: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Metres at which `count` drops send a ray back."""
    return 1.2 + rng.exponential(3.0, count)


def draw_intensity(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """[P] what is random about intensities."""
    return 3 * rng.random(RAY_COUNT, dtype=np.float32)


def _moved(solids: Solids, pose: Pose) -> Solids:
    x, y, z = (float(v) for v in pose.translation)
    return solids.placed(x, y, z, pose.yaw)


def _ground_reflectivity(stage: Stage, points: Floats) -> Floats:
    ground = stage.street.ground
    level = ground.levels[1]
    cell = 2 * GROUND_CELL
    column = np.clip(((points[:, 0] - ground.origin[0]) / cell).astype(np.int64), 0, level.shape[1] - 1)
    row = np.clip(((points[:, 1] - ground.origin[1]) / cell).astype(np.int64), 0, level.shape[0] - 1)
    return np.asarray((level[row, column].mean(axis=1) / 255.0) ** 2 * 1.3 + 0.04)
