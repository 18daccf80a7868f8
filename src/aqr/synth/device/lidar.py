"""Sweeps of many moments at once: what `aqr.synth.lidar.sweep` makes of one."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aqr.synth.device.cast import FACES, Views, cast
from aqr.synth.device.pool import Moments, Pool, constant, dot, lidar_poses, turned, turns
from aqr.synth.device.views import eyes_at, lidar_views
from aqr.synth.ground import GROUND_CELL
from aqr.synth.lidar import (
    RAY_COUNT,
    REACH,
    Noise,
    draw_drops,
    draw_intensity,
    draw_noise,
)
from aqr.synth.solids import Texture


def sweeps(
    pool: Pool,
    moments: Moments,
    randoms: Sequence[np.random.Generator],
    executor: Executor,
) -> Tensor:
    """One revolution at each moment.

    Args:
        pool: of the scenes.
        moments: B of them.
        randoms: B generators: range noise, intensity and lost echoes.
        executor: threads that draw random numbers.

    Returns:
        [B, RAY_COUNT, 5] x, y, z (m, LiDAR frame), intensity (0 … 255), ring index.
    """
    weathers = [pool.casts[scene].weather for scene, _ in moments.shots]
    drawing = [executor.submit(draw_noise, w, random) for w, random in zip(weathers, randoms, strict=True)]
    poses = lidar_poses(moments.ego)
    rotation = turns(poses[:, 3])
    views = lidar_views(pool, moments, eyes_at(pool, range(len(moments)), rotation, poses[:, :3]))
    distance, chance, strength, shiny = _echoes(pool, moments, views, rotation, poses[:, :3])
    noises = [future.result() for future in drawing]

    def upload(arrays: list[npt.NDArray[np.float32]]) -> Tensor:
        return torch.from_numpy(np.stack(arrays)).to(pool.device, non_blocking=True)

    lost = ~torch.isfinite(distance) | (upload([noise.chance for noise in noises]) > chance)
    metres = torch.where(lost, upload([n.stray for n in noises]), distance + upload([n.metres for n in noises]))
    rest = _draw_rest(metres, noises, randoms, executor)
    back = upload([late[0] for late in rest])
    metres = torch.where(back > 0, back, metres)
    intensity = strength * (60 + 110 * strength) * torch.where(shiny, 2.5, 1.0) + upload([late[1] for late in rest])
    rays = constant("rays", pool.device)
    points = torch.empty(len(moments), RAY_COUNT, 5, device=pool.device)
    points[..., :3] = rays * (metres / constant("lengths", pool.device))[..., None]
    points[..., 3] = torch.where(lost, intensity * 0.3, intensity).floor().clamp(0, 255)
    points[..., 4] = constant("beams", pool.device)
    return points


def _draw_rest(
    metres: Tensor, noises: Sequence[Noise], randoms: Sequence[np.random.Generator], executor: Executor
) -> list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
    """Metres of the rays that drops send back, 0 for others, and noise of intensities.

    How many drops send a ray back decides which random numbers come next, so the few candidates are looked at.
    """
    counts = [len(noise.drops) for noise in noises]
    which = np.concatenate([b * RAY_COUNT + noise.drops for b, noise in enumerate(noises)])
    close = (metres.flatten()[torch.from_numpy(which).to(metres.device)] < 1.0).cpu().numpy()

    def draw(
        noise: Noise, near: npt.NDArray[np.bool_], random: np.random.Generator
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        back = np.zeros(RAY_COUNT, dtype=np.float32)
        drops = noise.drops[near]
        back[drops] = draw_drops(len(drops), random)
        return back, draw_intensity(random)

    return list(executor.map(draw, noises, np.split(close, np.cumsum(counts)[:-1]), randoms))


def _echoes(
    pool: Pool,
    moments: Moments,
    views: Views,
    rotation: npt.NDArray[np.float64],
    translation: npt.NDArray[np.float64],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Distance (inf for none), chance of an echo, its strength, and whether the surface is retroreflective."""
    hits = cast(views)
    inverse, code = hits.inverse.mT.flatten(1), hits.code.mT.flatten(1).long()
    rays, length = constant("rays", pool.device), constant("lengths", pool.device)
    hit = inverse > 1 / REACH
    distance = torch.where(hit, length / torch.where(hit, inverse, 1.0), torch.inf)

    b = torch.arange(len(moments), device=pool.device)[:, None]
    solid, face = code.clamp(min=0) // FACES, code.clamp(min=0) % FACES
    on_solid = code >= 0
    turn = torch.from_numpy(rotation).to(pool.device)
    normals = turned(moments.normals[b, solid, face], turn.mT[:, None]).float()
    upward = torch.where(on_solid, normals[..., 2], 1.0)
    slope = torch.where(on_solid, dot(normals, rays), rays[:, 2]).abs() / length

    scene = moments.scene[:, None]
    texture = pool.texture[scene, solid]
    ground = ~on_solid | (texture == Texture.GROUND)
    reflectivity = torch.where(on_solid, pool.reflectivity[scene, solid], 0.0)
    spots = turned((rays / inverse.clamp(min=1 / REACH)[..., None]).double(), turn[:, None])
    spots = spots + torch.from_numpy(translation).to(pool.device)[:, None]
    reflectivity = torch.where(ground & hit, _ground_reflectivity(pool, moments, spots), reflectivity)
    panes = (texture == Texture.GLASSHOUSE) | (texture == Texture.PAINTED_GLASS)
    glass = ~ground & panes & (upward < 0.7)
    weathers = [pool.casts[place].weather for place, _ in moments.shots]
    extinction, wet = (
        torch.tensor(values, dtype=torch.float32).to(pool.device, non_blocking=True)[:, None]
        for values in ([-2 * w.lidar_extinction for w in weathers], [1 - 0.6 * w.wet for w in weathers])
    )
    strength = reflectivity * slope.clamp(min=0.02).sqrt() * torch.exp(extinction * distance)
    strength = torch.where(ground, strength * wet, strength)
    chance = (1.4 - (distance / 60.0) ** 2 * 0.09 / strength.clamp(min=1e-4)).clamp(0.0, 0.985)
    chance = torch.where(glass, chance * 0.45, chance)
    return distance, chance, strength, reflectivity > 0.72


def _ground_reflectivity(pool: Pool, moments: Moments, points: Tensor) -> Tensor:
    level = 1
    cell = GROUND_CELL * 2**level
    scene = moments.scene
    rows, columns = pool.ground_size[scene, level].unbind(-1)
    place = ((points[..., :2] - pool.ground_origin[scene][:, None]) / cell).long()
    column = torch.minimum(place[..., 0].clamp(min=0), columns[:, None] - 1)
    row = torch.minimum(place[..., 1].clamp(min=0), rows[:, None] - 1)
    packed = pool.ground[pool.ground_start[scene, level][:, None] + row * columns[:, None] + column]
    mean = ((packed & 255) + ((packed >> 8) & 255) + ((packed >> 16) & 255)).double() / 3
    return ((mean / 255.0) ** 2 * 1.3 + 0.04).float()
