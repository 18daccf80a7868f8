"""Where the learned reference points start."""

from __future__ import annotations

import math
from typing import Final, Literal

import torch
from torch import Tensor

START_HEIGHT: Final = -1.0
"""Metres in the LiDAR frame: mid-height of a car on the road, which lies 1.8 m below nuScenes' LiDAR."""


def initial_points(how: Literal["uniform", "grid"], count: int, pc_range: tuple[float, ...]) -> Tensor:
    """Reference points before training.

    Args:
        how: `uniform` at random in the range; `grid` in rows over the BEV plane, as square as the count allows, at
            one height.
        count: Q.
        pc_range: x_min, y_min, z_min, x_max, y_max, z_max, metres.

    Returns:
        [Q, 3] in [0, 1]³ of pc_range.
    """
    if how == "uniform":
        return torch.rand(count, 3)
    width, depth, low, high = pc_range[3] - pc_range[0], pc_range[4] - pc_range[1], pc_range[2], pc_range[5]
    rows = min(max(round(math.sqrt(count * depth / width)), 1), count)
    row = torch.arange(count) * rows // count
    in_row = torch.bincount(row, minlength=rows)
    column = torch.arange(count) - (in_row.cumsum(0) - in_row)[row]
    height = min(max((START_HEIGHT - low) / (high - low), 0.1), 0.9)
    x, y = (column + 0.5) / in_row[row], (row + 0.5) / rows
    return torch.stack([x, y, torch.full((count,), height)], 1)
