"""What rain drops on the lens and sensor noise make of many pictures, as `aqr.synth.camera` develops one."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aqr.synth.camera import draw_drops, draw_grain
from aqr.synth.device.pool import constant
from aqr.synth.weather import Weather

Rows = npt.NDArray[np.int64]


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
class Film:
    """What happens to each pixel of V pictures, R of which are taken through rain drops.

    Attributes:
        starts: [V, H] int32 place in the table of noise where a row begins, -1 beyond the source picture.
        columns: [V, W] int32 column of the source picture, -1 beyond it.
        noise: [V] float32 standard deviation.
        wet: [R] int64 which pictures are wet.
        slots: [V] int32 place of a picture in `wet`, -1 for dry ones.
        drops: [R, H, W] float32, 0 … 1, how far drops blur.
        radii: R, pixels of blur.
    """

    starts: Tensor
    columns: Tensor
    noise: Tensor
    wet: Tensor
    slots: Tensor
    drops: Tensor
    radii: tuple[float, ...]

    def softened(self, sharp: Tensor) -> Tensor:
        """Wet pictures [R, 3, H, W] of whole numbers 0 … 255, seen through their drops, 0 … 1."""
        soft = blurred(sharp, self.radii)
        return torch.floor(sharp + self.drops[:, None] * (soft - sharp) + 0.5) / 255

    def exposed(self, picture: Tensor, chosen: Tensor | None = None) -> Tensor:
        """[V, 3, H, W] uint8 of pictures [V, 3, H, W] 0 … 1: sensor noise, black beyond the source.

        Args:
            picture: square roots of linear light.
            chosen: [V] which pictures these are; all by default.
        """
        starts, columns, noise = (
            part if chosen is None else part[chosen] for part in (self.starts, self.columns, self.noise)
        )
        place = starts.clamp(min=0)[:, :, None] + 3 * columns.clamp(min=0)[:, None, :]
        inside = (starts >= 0)[:, :, None] & (columns >= 0)[:, None, :]
        grain = constant("grain", picture.device)
        out = torch.empty(picture.shape, dtype=torch.uint8, device=picture.device)
        for channel in range(3):
            light = (picture[:, channel] + grain[place + channel] * noise[:, None, None]) * 255
            out[:, channel] = torch.where(inside, light.clamp_(0, 255), 0.0).to(torch.uint8)
        return out


class Reel:
    """Films of V sights, whose random numbers are being drawn."""

    def __init__(
        self, sights: Sequence[Sight], weathers: Sequence[Weather], size: tuple[int, int], executor: Executor
    ) -> None:
        """Begin to draw for pictures of `size`; threads draw what takes long."""
        self._noise = [weather.noise for weather in weathers]
        self._rows, self._columns = _source_pixels(np.stack([s.matrix for s in sights]), sights, size)
        self._wet = [v for v, weather in enumerate(weathers) if weather.drops]
        self._sights = sights
        self._drops: list[Future[tuple[npt.NDArray[np.uint8], Rows]]] = [
            executor.submit(_drawn_wet, sights[v], self._rows[v], self._columns[v]) for v in self._wet
        ]

    def film(self, device: torch.device) -> Film:
        """The film on a device."""
        slots = np.full(len(self._sights), -1, dtype=np.int32)
        slots[self._wet] = np.arange(len(self._wet))
        drawn = [future.result() for future in self._drops]
        starts = np.empty_like(self._rows)
        for v, sight in enumerate(self._sights):
            own = draw_grain(sight.source, sight.random) if slots[v] < 0 else drawn[slots[v]][1]
            starts[v] = np.where(self._rows[v] >= 0, own[self._rows[v]], -1)
        height, width = self._rows.shape[1], self._columns.shape[1]
        noise = np.array(self._noise, dtype=np.float32).view(np.int32)
        sent = np.concatenate(
            [starts, self._columns, slots[:, None], noise[:, None]],
            axis=1,
            dtype=np.int32,
        )
        table = torch.from_numpy(sent).to(device, non_blocking=True)
        drops = np.stack([own for own, _ in drawn]) if drawn else np.empty((0, height, width), dtype=np.uint8)
        return Film(
            starts=table[:, :height].contiguous(),
            columns=table[:, height : height + width].contiguous(),
            noise=table[:, -1].contiguous().view(torch.float32),
            wet=torch.tensor(self._wet, dtype=torch.int64).to(device, non_blocking=True),
            slots=table[:, -2].contiguous(),
            drops=torch.from_numpy(drops).to(device, non_blocking=True).float() / 255,
            radii=tuple(s.source[1] / 60 * abs(float(s.matrix[0, 0])) for s in (self._sights[v] for v in self._wet)),
        )


def _drawn_wet(
    sight: Sight, rows: npt.NDArray[np.int32], columns: npt.NDArray[np.int32]
) -> tuple[npt.NDArray[np.uint8], Rows]:
    """Rain drops [H, W] where rows and columns of the source picture are shown, and the noise of its rows."""
    drops = np.asarray(draw_drops(sight.source, sight.random))
    across = drops[:, columns.clip(min=0)]
    return across[rows.clip(min=0)], draw_grain(sight.source, sight.random)


def _source_pixels(
    matrix: npt.NDArray[np.float64], sights: Sequence[Sight], size: tuple[int, int]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Row [V, H] and column [V, W] of the source picture that each pixel shows, -1 beyond it."""
    source = np.array([s.source for s in sights])
    down, across = np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5
    rows = np.floor((down - matrix[:, 1, 2, None]) / matrix[:, 1, 1, None])
    columns = np.floor((across - matrix[:, 0, 2, None]) / matrix[:, 0, 0, None])
    rows[(rows < 0) | (rows >= source[:, :1])] = -1
    columns[(columns < 0) | (columns >= source[:, 1:])] = -1
    return rows.astype(np.int32), columns.astype(np.int32)


def blurred(image: Tensor, radii: Sequence[float]) -> Tensor:
    """Pillow's GaussianBlur of whole numbers [R, C, H, W], bit by bit: three box blurs along each axis (Gwosdek et al.,
    "Theoretical Foundations of Gaussian Convolution by Extended Box Filtering", 2011)."""
    variance = np.array(radii) ** 2 / 3
    whole = np.floor((np.sqrt(12 * variance + 1) - 1) / 2).astype(np.int64)
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
    inner = ((1 << 24) / (2 * (whole + part) + 1)).astype(np.int64)
    outer = ((1 << 24) - (2 * whole + 1) * inner) // 2
    sent = torch.from_numpy(np.stack([whole, inner, outer])).to(image.device, non_blocking=True)
    reach, inside, beside = sent[:, :, None, None, None]
    margin = int(whole.max(initial=0)) + 1
    image = image.int()
    for axis in (3, 2):
        shape = [len(radii), *image.shape[1:]]
        length = shape[axis]
        place = torch.arange(-margin, length + margin, device=image.device).clamp(0, length - 1)
        at = (torch.arange(length, device=image.device) + margin).view([-1 if d == axis else 1 for d in range(4)])
        near, far, beyond = (i.expand(shape) for i in (at - reach - 1, at + reach, at + reach + 1))
        for _ in range(3):
            wide = image.index_select(axis, place)
            total = wide.cumsum(axis, dtype=torch.int32)
            middle = total.gather(axis, far) - total.gather(axis, near)
            edges = wide.gather(axis, near) + wide.gather(axis, beyond)
            image = ((middle * inside + edges * beside + (1 << 23)) >> 24).int()
    return image.float()
