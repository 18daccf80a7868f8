"""The renderer's public door: solids of moments, sweeps and pictures of them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aqr.synth.camera import draw_drops, draw_grain
from aqr.synth.device.cast import Hits, Views, cast
from aqr.synth.device.lidar import sweeps
from aqr.synth.device.pool import Moments, Pool, Shot, constant, turns
from aqr.synth.device.shading import Light, shade
from aqr.synth.device.shadows import Shadows, paint
from aqr.synth.device.views import Eyes, camera_views, eyes_at

PIXELS = 1 << 22
"""Pixels shaded at a time: few enough for the caches of a large GPU, enough to keep it busy."""


@dataclass(frozen=True)
class Sight:
    """A picture to take.

    Attributes:
        moment: which of the moments it shows.
        camera: number of the camera on the rig of the moment's scene.
        source: height and width of the picture as it would be written.
        matrix: [3, 3] homogeneous pixels of that picture to those wanted: scale, shift, mirror.
        random: sensor noise and rain drops.
    """

    moment: int
    camera: int
    source: tuple[int, int]
    matrix: npt.NDArray[np.float64]
    random: np.random.Generator


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
    ) -> tuple[Tensor, Look | None]:
        """Take pictures of one size.

        Args:
            moments: what is to be seen.
            shadows: on its ground.
            sights: V of them.
            size: height and width.
            count: count the pixels of every actor as well.

        Returns:
            [V, 3, H, W] uint8 RGB, black beyond the source picture, and the counts if wanted.
        """
        images, looks = [], []
        step = max(1, PIXELS // (size[0] * size[1]))
        for first in range(0, len(sights), step):
            own = sights[first : first + step]
            eyes, views, ego = self._open(moments, own, size)
            hits = cast(views, silhouettes=count)
            if count:
                looks.append(self._count(moments, eyes, hits))
            light = Light.of(self.pool, [self._scene(moments, s) for s in own], ego)
            images.append(self._develop(shade(self.pool, moments, shadows, eyes, views, hits, light), moments, own))
        look = (
            Look(np.concatenate([k.visible for k in looks]), np.concatenate([k.silhouette for k in looks]))
            if count
            else None
        )
        return torch.cat(images), look

    def _scene(self, moments: Moments, sight: Sight) -> int:
        return moments.shots[sight.moment].scene

    def _open(
        self, moments: Moments, sights: Sequence[Sight], size: tuple[int, int]
    ) -> tuple[Eyes, Views, npt.NDArray[np.float64]]:
        cameras = [self.pool.casts[self._scene(moments, s)].rig[s.camera] for s in sights]
        ego = np.empty((len(sights), 4))
        for v, (sight, camera) in enumerate(zip(sights, cameras, strict=True)):
            shot = moments.shots[sight.moment]
            seconds = (shot.time_us + camera.delay_us) * 1e-6
            ego[v] = self.pool.casts[shot.scene].ego.at(np.array([seconds]))[0, 0]
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

    def _develop(self, picture: Tensor, moments: Moments, sights: Sequence[Sight]) -> Tensor:
        """Rain drops on the lens and sensor noise: [3, V, H, W] 0 … 1 to [V, 3, H, W] uint8."""
        device = self.pool.device
        rows, columns, inside = _source_pixels(sights, (picture.shape[2], picture.shape[3]), device)
        weathers = [self.pool.casts[self._scene(moments, s)].weather for s in sights]
        for v, (sight, weather) in enumerate(zip(sights, weathers, strict=True)):
            if weather.drops:
                drops = np.array(draw_drops(sight.source, sight.random), dtype=np.float32) / 255
                mask = torch.from_numpy(drops).to(device, non_blocking=True)
                share = mask[rows[v][:, None], columns[v][None, :]]
                sharp = torch.floor(picture[:, v] * 255)
                soft = _blur(sharp, sight.source[1] / 60 * abs(float(sight.matrix[0, 0])))
                picture[:, v] = torch.floor(sharp + share * (soft - sharp) + 0.5) / 255
        most = max(sight.source[0] for sight in sights)
        drawn = np.zeros((len(sights), most), dtype=np.int64)
        for v, sight in enumerate(sights):
            drawn[v, : sight.source[0]] = draw_grain(sight.source, sight.random)
        starts = torch.from_numpy(drawn).to(device, non_blocking=True).gather(1, rows)
        noise = torch.tensor([w.noise for w in weathers], dtype=torch.float32).to(device, non_blocking=True)
        place = starts[:, :, None] + 3 * columns[:, None, :]
        grain = constant("grain", device)
        out = torch.empty(len(sights), 3, *picture.shape[2:], dtype=torch.uint8, device=device)
        for channel in range(3):
            exposed = (picture[channel] + grain[place + channel] * noise[:, None, None]) * 255
            out[:, channel] = torch.where(inside, exposed.clamp_(0, 255), 0.0).to(torch.uint8)
        return out


def _source_pixels(
    sights: Sequence[Sight], size: tuple[int, int], device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Row [V, H] and column [V, W] of the source picture that each pixel shows, whether it lies within [V, H, W]."""
    matrix = torch.from_numpy(np.stack([s.matrix for s in sights])).to(device, non_blocking=True)
    source = torch.tensor([s.source for s in sights]).to(device, non_blocking=True)
    down = torch.arange(size[0], device=device, dtype=torch.float64) + 0.5
    across = torch.arange(size[1], device=device, dtype=torch.float64) + 0.5
    v = torch.floor((down - matrix[:, 1, 2, None]) / matrix[:, 1, 1, None]).long()
    u = torch.floor((across - matrix[:, 0, 2, None]) / matrix[:, 0, 0, None]).long()
    height, width = source[:, :1], source[:, 1:]
    inside = ((v >= 0) & (v < height))[:, :, None] & ((u >= 0) & (u < width))[:, None, :]
    return torch.minimum(v.clamp(min=0), height - 1), torch.minimum(u.clamp(min=0), width - 1), inside


def _blur(image: Tensor, radius: float) -> Tensor:
    """Pillow's GaussianBlur of whole numbers [3, H, W], bit by bit: three box blurs along each axis (Gwosdek et al.,
    "Theoretical Foundations of Gaussian Convolution by Extended Box Filtering", 2011)."""
    variance = radius * radius / 3
    whole = int(np.floor((np.sqrt(12 * variance + 1) - 1) / 2))
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
    inner = int((1 << 24) / (2 * (whole + part) + 1))
    outer = ((1 << 24) - (2 * whole + 1) * inner) // 2
    image = image.long()
    for dim in (2, 2, 2, 1, 1, 1):
        length = image.shape[dim]
        place = torch.arange(-whole - 1, length + whole + 1, device=image.device).clamp(0, length - 1)
        wide = image.index_select(dim, place)
        total = wide.cumsum(dim)
        middle = total.narrow(dim, 2 * whole + 1, length) - total.narrow(dim, 0, length)
        edges = wide.narrow(dim, 0, length) + wide.narrow(dim, 2 * whole + 2, length)
        image = (middle * inner + edges * outer + (1 << 23)) >> 24
    return image.float()
