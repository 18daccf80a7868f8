"""The renderer's public door: solids of moments, sweeps and pictures of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aqr.synth.device.cast import Hits, Views, cast
from aqr.synth.device.film import Reel, Sight
from aqr.synth.device.lidar import sweeps
from aqr.synth.device.pool import Moments, Pool, Shot, turns
from aqr.synth.device.shading import Light, shade
from aqr.synth.device.shadows import Shadows, paint
from aqr.synth.device.views import Eyes, camera_views, eyes_at

PIXELS = {"cpu": 1 << 22, "cuda": 1 << 25}
"""Pixels drawn at a time: many on a GPU, where every launch costs, few enough to fit into memory."""

SHARP = 0.75
"""Pictures scaled further down than this are drawn larger and averaged."""


@dataclass(frozen=True)
class Look:
    """How much of every actor each of V cameras sees.

    Attributes:
        visible: [V, N] pixels that show each actor.
        silhouette: [V, N] pixels that each would cover if nothing hid it.
    """

    visible: npt.NDArray[np.int64]
    silhouette: npt.NDArray[np.int64]


class Renderer:
    """Renders moments of the scenes of a pool.

    What is drawn depends on moments and generators alone: not on what else is in a call.
    """

    def __init__(self, pool: Pool, threads: int = 4) -> None:
        """A renderer on the pool's device; `threads` draw random numbers."""
        self.pool = pool
        self._executor = ThreadPoolExecutor(threads)

    def moments(self, shots: Sequence[Shot]) -> Moments:
        """The solids of B shots."""
        return self.pool.moments(shots)

    def sweeps(self, moments: Moments, randoms: Sequence[np.random.Generator]) -> Tensor:
        """[B, P, 5] one LiDAR revolution at each moment; see `aqr.synth.lidar.sweep`."""
        return sweeps(self.pool, moments, randoms, self._executor)

    def shadows(self, moments: Moments) -> Shadows:
        """Shadows on the ground, for `pictures`."""
        return paint(self.pool, moments)

    def look(self, moments: Moments, sights: Sequence[Sight], size: tuple[int, int]) -> Look:
        """Count what pictures of one size would show, without colouring them."""
        eyes, views, _ = self._open(moments, sights, size)
        hits = cast(views, silhouettes=True)
        return self._count(moments, eyes, hits)

    def pictures(
        self,
        moments: Moments,
        shadows: Shadows,
        sights: Sequence[Sight],
        size: tuple[int, int],
        count: bool = False,
        plainly: bool | None = None,
    ) -> tuple[Tensor, Look | None]:
        """Take pictures of one size.

        Args:
            moments: what is to be seen.
            shadows: on its ground.
            sights: V of them; pictures far smaller than their source are drawn larger and averaged.
            size: height and width.
            count: count the pixels of every actor as well, as drawn.
            plainly: draw and shade without kernels; by default where the pool is not on a GPU.

        Returns:
            [V, 3, H, W] uint8 RGB, black beyond the source picture, and the counts if wanted.
        """
        if plainly is None:
            plainly = self.pool.device.type != "cuda"
        finer = [_finer(sight) for sight in sights]
        images = torch.empty(len(sights), 3, *size, dtype=torch.uint8, device=self.pool.device)
        seen = Look(*np.zeros((2, len(sights), self.pool.most_actors), dtype=np.int64))
        for factor in sorted(set(finer)):
            chosen = [v for v, own in enumerate(finer) if own == factor]
            wide = (size[0] * factor, size[1] * factor)
            scale = np.diag([factor, factor, 1.0])
            step = max(1, PIXELS[self.pool.device.type] // (wide[0] * wide[1]))
            for first in range(0, len(chosen), step):
                part = chosen[first : first + step]
                own = [replace(sights[v], matrix=scale @ sights[v].matrix) for v in part]
                taken, look = self._take(moments, shadows, own, wide, count, plainly)
                if look is not None:
                    seen.visible[part], seen.silhouette[part] = look.visible, look.silhouette
                if factor > 1:
                    cells = taken.view(len(part), 3, size[0], factor, size[1], factor)
                    taken = cells.float().mean(dim=(3, 5)).add_(0.5).to(torch.uint8)
                if len(part) == len(sights):
                    images = taken
                else:
                    images[torch.tensor(part, device=images.device)] = taken
        return images, seen if count else None

    def _take(
        self,
        moments: Moments,
        shadows: Shadows,
        sights: Sequence[Sight],
        size: tuple[int, int],
        count: bool,
        plainly: bool,
    ) -> tuple[Tensor, Look | None]:
        scenes = [moments.shots[sight.moment].scene for sight in sights]
        reel = Reel(sights, [self.pool.casts[scene].weather for scene in scenes], size, self._executor)
        eyes, views, ego = self._open(moments, sights, size)
        hits = cast(views, silhouettes=count, plainly=plainly)
        light = Light.of(self.pool, scenes, ego)
        film = reel.film(self.pool.device)
        if plainly:
            picture = shade(self.pool, moments, shadows, eyes, views, hits, light)
            if len(film.wet):
                picture[film.wet] = film.softened(torch.floor(picture[film.wet] * 255))
            images = film.exposed(picture)
        else:
            from aqr.synth.device.shade_kernel import launch  # only now: Triton is there where a GPU is

            images, sharp = launch(self.pool, moments, shadows, eyes, views, hits, light, film)
            if len(film.wet):
                images[film.wet] = film.exposed(film.softened(sharp), film.wet)
        return images, self._count(moments, eyes, hits) if count else None

    def _open(
        self, moments: Moments, sights: Sequence[Sight], size: tuple[int, int]
    ) -> tuple[Eyes, Views, npt.NDArray[np.float64]]:
        cameras = [self.pool.casts[moments.shots[s.moment].scene].rig[s.camera] for s in sights]
        shots = [moments.shots[s.moment] for s in sights]
        times = [shot.time_us + camera.delay_us for shot, camera in zip(shots, cameras, strict=True)]
        ego = self.pool.egos([shot.scene for shot in shots], np.array(times) * 1e-6)
        turn = turns(ego[:, 3])
        rotation = turn @ np.stack([camera.to_ego.rotation for camera in cameras])
        spot = np.stack([camera.to_ego.translation for camera in cameras])
        eyes = eyes_at(self.pool, [s.moment for s in sights], rotation, (turn @ spot[..., None])[..., 0] + ego[:, :3])
        intrinsic = np.stack([s.matrix @ camera.intrinsic(s.source) for s, camera in zip(sights, cameras, strict=True)])
        return eyes, camera_views(self.pool, moments, eyes, intrinsic, size), ego

    def _count(self, moments: Moments, eyes: Eyes, hits: Hits) -> Look:
        owners = self.pool.owners[moments.scene[eyes.shot]]
        solid = hits.solid.flatten(1)
        owner = torch.where(solid >= 0, owners.gather(1, solid.clamp(min=0)), -1)
        room = self.pool.most_actors + 1
        place = torch.arange(len(owner), device=owner.device)[:, None] * room + owner + 1
        visible = torch.bincount(place.flatten(), minlength=len(owner) * room).view(-1, room)[:, 1:]
        assert hits.silhouette is not None
        return Look(visible.cpu().numpy(), hits.silhouette.cpu().numpy().astype(np.int64))


def _finer(sight: Sight) -> int:
    """How many times larger a picture is drawn to keep edges from fraying."""
    scale = min(abs(float(sight.matrix[0, 0])), abs(float(sight.matrix[1, 1])))
    return max(1, math.ceil(SHARP / scale - 1e-6))
