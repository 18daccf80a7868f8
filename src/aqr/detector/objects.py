"""The objects of a batch in a table of fixed width, which is what everything that learns from them reads."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Objects:
    """Every sample's objects in a row of N places, of which the last ones may be empty.

    Attributes:
        boxes: [B, N, 9]; ones where there is no object.
        labels: [B, N] int64; 0 where there is no object.
        present: [B, N] bool.
    """

    boxes: Tensor
    labels: Tensor
    present: Tensor

    @classmethod
    def of(cls, boxes: Tensor, labels: Tensor, rows: Tensor) -> Objects:
        """Objects that lie behind one another, each in its place.

        Args:
            boxes: [M, 9].
            labels: [M] int64.
            rows: of `padding`, on the device of the others.
        """
        return cls(placed(boxes, rows, 1.0), placed(labels, rows, 0), rows >= 0)

    @property
    def sample(self) -> Tensor:
        """[B · N] int64: the sample of each place."""
        batch, size = self.present.shape
        return torch.arange(batch, device=self.present.device)[:, None].expand(-1, size).flatten()


def padding(counts: list[int], multiple: int = 1) -> Tensor:
    """Where the items of each sample lie among all items: [B, N] int64, -1 where there is none.

    N is the largest count, at least 1, rounded up to a multiple of `multiple`.
    """
    count = torch.tensor(counts, dtype=torch.int64)
    column = torch.arange(-(-max([1, *counts]) // multiple) * multiple)
    return torch.where(column < count[:, None], (count.cumsum(0) - count)[:, None] + column, -1)


def placed(values: Tensor, rows: Tensor, empty: float) -> Tensor:
    """Items [M, ...] in their places [B, N, ...], `empty` where there is none."""
    if not len(values):
        return values.new_full((*rows.shape, *values.shape[1:]), empty)
    present = (rows >= 0)[(..., *(None,) * (values.dim() - 1))]
    return torch.where(present, values[rows.clamp(min=0)], empty)
