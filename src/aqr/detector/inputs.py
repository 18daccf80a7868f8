"""What the network computes with: tensors alone, so that shapes say everything about one step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from aqr.batch import Batch
from aqr.detector.denoising import drawn_noise
from aqr.detector.objects import padding

NOWHERE: Final = 1e6
"""Metres; a point there belongs to no pillar."""


@dataclass(frozen=True)
class Truth:
    """The ground truth of a batch, M objects behind one another, and their places in a table.

    Attributes:
        boxes: [M, 9].
        labels: [M] int64.
        rows: [B, N] int64, of `aqr.detector.objects.padding`.
        noise: [M, G, 3], of `aqr.detector.denoising.drawn_noise`; None without denoising.
    """

    boxes: Tensor
    labels: Tensor
    rows: Tensor
    noise: Tensor | None


@dataclass(frozen=True)
class Inputs:
    """Attributes:
    points: [P, 5] as in `Batch`; those at `NOWHERE` count as none.
    sample: [P] int64, the sample of each point.
    images: [B, V, 3, H, W] uint8.
    lidar2img: [B, V, 4, 4].
    truth: what is learned from; None at inference.
    """

    points: Tensor
    sample: Tensor
    images: Tensor
    lidar2img: Tensor
    truth: Truth | None

    def __len__(self) -> int:
        return len(self.lidar2img)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.images.shape[-2], self.images.shape[-1]

    def hold(self, points: Tensor, filled: int) -> int:
        """Put points in front; those of the `filled` before that they do not cover count as none. Returns how many."""
        count = len(points)
        self.points[:count].copy_(points)
        if count < filled:
            self.points[count:filled].fill_(NOWHERE)
        return count

    @classmethod
    def of(cls, batch: Batch, groups: int | None, generator: torch.Generator | None, multiple: int) -> Inputs:
        """A batch as it is.

        Args:
            batch: on its device.
            groups: of denoising queries; None at inference.
            generator: source of the noise.
            multiple: the table of objects is as wide as a multiple of this.
        """
        truth = None
        if groups is not None:
            rows = padding(batch.box_counts, multiple).to(batch.device, non_blocking=True)
            noise = drawn_noise(len(batch.boxes), groups, generator, batch.device) if groups else None
            truth = Truth(batch.boxes, batch.labels, rows, noise)
        return cls(batch.points, batch.point_sample, batch.images, batch.lidar2img, truth)
