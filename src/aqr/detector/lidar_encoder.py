"""LiDAR points to a BEV feature map: dynamic pillars, a convolutional backbone, an FPN."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aqr.config import LidarEncoder as LidarEncoderConfig

POINT_FEATURES: Final = 11
PADDED_FEATURES: Final = 16
SPARE: Final = 1024
"""Rows that take the points of no pillar; a GPU would have to write them into a single one in turn."""


class PillarEncoder(nn.Module):
    """Summarises the points of each cell of a BEV grid in one vector (PointPillars, arXiv 1812.05784).

    Any number of points may share a pillar and any number of pillars may be filled (dynamic voxelisation, arXiv
    1910.06528): points are neither sorted nor dropped. All sums are over integers and everything else is a maximum,
    so the result does not depend on the order in which a GPU visits the points, and no shape depends on their values.

    Args:
        channels: C, length of a pillar's vector.
        pillars: rows and columns of the grid over pc_range.
        pc_range: x_min, y_min, z_min, x_max, y_max, z_max, metres.
    """

    low: Tensor
    extent: Tensor
    shape: Tensor

    def __init__(self, channels: int, pillars: tuple[int, int], pc_range: tuple[float, ...]) -> None:
        super().__init__()
        self.pillars = pillars
        low = torch.tensor(pc_range[:3])
        self.register_buffer("low", low, persistent=False)
        self.register_buffer("extent", torch.tensor(pc_range[3:]) - low, persistent=False)
        self.register_buffer("shape", torch.tensor([pillars[1], pillars[0]], dtype=torch.float32), persistent=False)
        self.embed = nn.Linear(POINT_FEATURES, channels)
        self.norm = nn.LayerNorm(channels)
        self.refine = nn.Linear(channels, channels)

    def forward(self, points: Tensor, sample: Tensor, batch_size: int) -> Tensor:
        """Points outside pc_range, and points that are not finite, belong to no pillar.

        Args:
            points: [P, 5] x, y, z (m), intensity (0 … 255), time lag (s).
            sample: [P] int64, the sample of each point.
            batch_size: B.

        Returns:
            [B, C, rows, columns], channels last in memory, zero where no point fell.
        """
        rows, columns = self.pillars
        spill = batch_size * rows * columns
        with torch.autocast(points.device.type, enabled=False):
            points = points.float()
            unit = (points[:, :3] - self.low) / self.extent
            inside = ((unit >= 0) & (unit < 1)).all(1) & points.isfinite().all(1)
            points, unit = (torch.where(inside[:, None], t, 0.0) for t in (points, unit))
            cell = unit[:, :2] * self.shape
            corner = torch.minimum(cell.floor(), self.shape - 1)
            index = (sample * rows + corner[:, 1].long()) * columns + corner[:, 0].long()
            nowhere = spill + torch.arange(len(points), device=points.device) % SPARE
            index = torch.where(inside, index, nowhere)
            features = self._features(points, unit, cell - corner, index, spill + SPARE)
            # Fast matrix products want lengths of a multiple of 16; the columns added are zero.
            weight = F.pad(self.embed.weight, (0, features.shape[1] - POINT_FEATURES))
            hidden = self.norm(F.linear(features, weight, self.embed.bias)).relu()
        hidden = self.refine(hidden).relu()
        grid: Tensor = _PillarMax.apply(hidden, index, spill)  # type: ignore[no-untyped-call]
        return grid.view(batch_size, rows, columns, -1).permute(0, 3, 1, 2)

    def _features(self, points: Tensor, unit: Tensor, offset: Tensor, index: Tensor, cells: int) -> Tensor:
        """[P, PADDED_FEATURES]: POINT_FEATURES of about -1 … 1, which are the point, its place in its pillar and the
        pillar's spread, then zeros."""
        height = unit[:, 2]
        count = torch.zeros(cells, device=points.device).scatter_add(0, index, torch.ones_like(height))
        bounds = torch.full((2 * cells,), -1.0, device=points.device)
        signed = torch.cat([height, -height])
        bounds = bounds.scatter_reduce(0, torch.cat([index, index + cells]), signed, "amax")
        above, below = bounds[index] - height, bounds[index + cells] + height
        xy = 2 * unit[:, :2] - 1
        return torch.stack(
            [
                xy[:, 0],
                xy[:, 1],
                xy.norm(dim=1),
                2 * height - 1,
                2 * offset[:, 0] - 1,
                2 * offset[:, 1] - 1,
                points[:, 3] / 255,
                2 * points[:, 4],
                4 * above,
                4 * below,
                count[index].log1p() / 4,
                *[torch.zeros_like(height)] * (PADDED_FEATURES - POINT_FEATURES),
            ],
            dim=1,
        )


class _PillarMax(torch.autograd.Function):
    """Largest value per pillar and channel, 0 in empty pillars; points that tie share the gradient.

    What `scatter_reduce` does, without its passes over the empty part of the grid in the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, index: Tensor, cells: int) -> Tensor:
        """Non-negative values [P, C] of the pillars index [P] to [cells, C]; SPARE pillars after these are dropped."""
        rows = index[:, None].expand_as(values)
        grid = values.new_zeros(cells + SPARE, values.shape[1]).scatter_reduce_(0, rows, values, "amax")
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(index, values == grid[index])
        return grid[:cells]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        index, wins = ctx.saved_tensors
        cells = len(grad)
        rows = index[:, None].expand_as(wins)
        winners = grad.new_zeros(cells + SPARE, grad.shape[1]).scatter_add_(0, rows, wins.to(grad.dtype))
        share = grad[index.clamp(max=cells - 1)] / winners[index].clamp(min=1)
        return torch.where(wins & (index < cells)[:, None], share, 0.0), None, None


class LidarEncoder(nn.Module):
    """Pillars, a SECOND-style BEV backbone (Sensors 18(10):3337) and an FPN that ends in one map.

    Every stage starts with a strided convolution; every stage's output is brought to `out_stride` and a shared 3 x 3
    convolution mixes them into the map that the decoder reads.

    Args:
        config: sizes of the encoder.
        hidden_dim: C of the map.
        pc_range: x_min, y_min, z_min, x_max, y_max, z_max, metres.
    """

    def __init__(self, config: LidarEncoderConfig, hidden_dim: int, pc_range: tuple[float, ...]) -> None:
        super().__init__()
        self.pillar_encoder = PillarEncoder(config.pillar_channels, config.pillars, pc_range)
        self.stages = nn.ModuleList()
        self.laterals = nn.ModuleList()
        channels, stride, level = config.pillar_channels, 1, max(hidden_dim // 2, 1)
        for width, blocks, step in zip(config.channels, config.blocks, config.strides, strict=True):
            layers = [conv_norm_relu(channels, width, stride=step)]
            layers += [conv_norm_relu(width, width) for _ in range(blocks)]
            self.stages.append(nn.Sequential(*layers))
            channels, stride = width, stride * step
            self.laterals.append(_resample(width, level, stride, config.out_stride))
        self.shared_conv = conv_norm_relu(level * len(config.channels), hidden_dim)

    def forward(self, points: Tensor, sample: Tensor, batch_size: int) -> Tensor:
        """Encode a batch of point clouds, which may be empty.

        Args:
            points: [P, 5] x, y, z (m), intensity (0 … 255), time lag (s).
            sample: [P] int64, the sample of each point.
            batch_size: B.

        Returns:
            [B, C, Hb, Wb], row y, column x over pc_range.
        """
        return self.pyramid(self.pillar_encoder(points, sample, batch_size))

    def pyramid(self, features: Tensor) -> Tensor:
        """Pillars [B, C0, rows, columns] to the map [B, C, Hb, Wb]."""
        levels = []
        for stage, lateral in zip(self.stages, self.laterals, strict=True):
            features = stage(features)
            levels.append(lateral(features))
        out: Tensor = self.shared_conv(torch.cat(levels, 1))
        return out


def conv_norm_relu(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution without bias, batch norm, ReLU; keeps the size but for the stride."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def _resample(inputs: int, outputs: int, stride: int, target: int) -> nn.Sequential:
    """From one stride to another, one of which is a multiple of the other."""
    if stride <= target:
        ratio = target // stride
        conv: nn.Module = nn.Conv2d(inputs, outputs, ratio, ratio, bias=False)
    else:
        ratio = stride // target
        conv = nn.ConvTranspose2d(inputs, outputs, ratio, ratio, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))
