"""Where queries lie in the image maps, as one kernel: the fused form of `aqr.modulation.sites.image_sites`."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from aqr.geometry import MIN_DEPTH
from aqr.modulation.kernels import launching

BLOCK = 64
"""Queries per program."""


@triton.jit
def _pixel(matrix, x, y, z, MIN: tl.constexpr):
    u = tl.load(matrix) * x + tl.load(matrix + 1) * y + tl.load(matrix + 2) * z + tl.load(matrix + 3)
    v = tl.load(matrix + 4) * x + tl.load(matrix + 5) * y + tl.load(matrix + 6) * z + tl.load(matrix + 7)
    depth = tl.load(matrix + 8) * x + tl.load(matrix + 9) * y + tl.load(matrix + 10) * z + tl.load(matrix + 11)
    safe = tl.maximum(depth, MIN)
    return u / safe, v / safe, depth


@triton.jit
def _metres(points, pc_range, at, live):
    x = tl.load(points + at, mask=live, other=0.0) * (tl.load(pc_range + 3) - tl.load(pc_range)) + tl.load(pc_range)
    y = tl.load(points + at + 1, mask=live, other=0.0) * (tl.load(pc_range + 4) - tl.load(pc_range + 1)) + tl.load(
        pc_range + 1
    )
    z = tl.load(points + at + 2, mask=live, other=0.0) * (tl.load(pc_range + 5) - tl.load(pc_range + 2)) + tl.load(
        pc_range + 2
    )
    return x, y, z


@triton.jit
def _forward(
    points, lidar2img, pc_range, cells, visible, queries, views, height, width, rows, columns,
    MIN: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    scale_x = columns / width
    scale_y = rows / height
    sample = tl.program_id(0)
    q = tl.program_id(1) * SIZE + tl.arange(0, SIZE)
    live = q < queries
    x, y, z = _metres(points, pc_range, (sample * queries + q) * 3, live)
    for view in range(views):
        u, v, depth = _pixel(lidar2img + (sample * views + view) * 16, x, y, z, MIN)
        column = u * scale_x
        row = v * scale_y
        seen = (depth > MIN) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
        # Just short of the image's end, rounding may put a point on the map's.
        seen = seen & (column < columns) & (row < rows)
        at = (sample * views + view) * queries + q
        tl.store(cells + at * 2, tl.where(seen, column, 0.0), mask=live)
        tl.store(cells + at * 2 + 1, tl.where(seen, row, 0.0), mask=live)
        tl.store(visible + at, seen, mask=live)


@triton.jit
def _backward(
    points, lidar2img, pc_range, visible, d_cells, d_points, queries, views, height, width, rows, columns,
    MIN: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    scale_x = columns / width
    scale_y = rows / height
    sample = tl.program_id(0)
    q = tl.program_id(1) * SIZE + tl.arange(0, SIZE)
    live = q < queries
    here = (sample * queries + q) * 3
    x, y, z = _metres(points, pc_range, here, live)
    dx = tl.zeros([SIZE], tl.float32)
    dy = tl.zeros([SIZE], tl.float32)
    dz = tl.zeros([SIZE], tl.float32)
    for view in range(views):
        m = lidar2img + (sample * views + view) * 16
        u, v, depth = _pixel(m, x, y, z, MIN)
        at = (sample * views + view) * queries + q
        seen = tl.load(visible + at, mask=live, other=False)
        du = tl.where(seen, tl.load(d_cells + at * 2, mask=live, other=0.0) * scale_x, 0.0)
        dv = tl.where(seen, tl.load(d_cells + at * 2 + 1, mask=live, other=0.0) * scale_y, 0.0)
        # A visible point lies deeper than MIN, so that its depth is what was divided by.
        per_depth = 1.0 / tl.maximum(depth, MIN)
        du = du * per_depth
        dv = dv * per_depth
        along = du * u + dv * v
        dx += du * tl.load(m) + dv * tl.load(m + 4) - along * tl.load(m + 8)
        dy += du * tl.load(m + 1) + dv * tl.load(m + 5) - along * tl.load(m + 9)
        dz += du * tl.load(m + 2) + dv * tl.load(m + 6) - along * tl.load(m + 10)
    tl.store(d_points + here, dx * (tl.load(pc_range + 3) - tl.load(pc_range)), mask=live)
    tl.store(d_points + here + 1, dy * (tl.load(pc_range + 4) - tl.load(pc_range + 1)), mask=live)
    tl.store(d_points + here + 2, dz * (tl.load(pc_range + 5) - tl.load(pc_range + 2)), mask=live)


class _Locate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, points: Tensor, lidar2img: Tensor, pc_range: Tensor, height: int, width: int, rows: int, columns: int
    ) -> tuple[Tensor, Tensor]:
        batch, queries, _ = points.shape
        views = lidar2img.shape[1]
        points, lidar2img = points.contiguous(), lidar2img.contiguous()
        cells = points.new_empty(batch, views, queries, 2)
        visible = torch.empty(batch, views, queries, dtype=torch.bool, device=points.device)
        with launching(points):
            _forward[(batch, triton.cdiv(queries, BLOCK))](
                points, lidar2img, pc_range, cells, visible, queries, views, height, width, rows, columns,
                MIN=MIN_DEPTH, SIZE=BLOCK,
            )  # fmt: skip
        ctx.save_for_backward(points, lidar2img, pc_range, visible)
        ctx.sizes = height, width, rows, columns
        ctx.mark_non_differentiable(visible)
        return cells, visible

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_cells: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        points, lidar2img, pc_range, visible = ctx.saved_tensors
        batch, queries, _three = points.shape
        d_points = torch.empty_like(points)
        with launching(points):
            _backward[(batch, triton.cdiv(queries, BLOCK))](
                points, lidar2img, pc_range, visible, d_cells.contiguous(), d_points, queries, lidar2img.shape[1],
                *ctx.sizes, MIN=MIN_DEPTH, SIZE=BLOCK,
            )  # fmt: skip
        return d_points, None, None, None, None, None, None


def locate(
    points: Tensor, lidar2img: Tensor, pc_range: Tensor, image_size: tuple[int, int], size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Cells and visibility of `aqr.modulation.sites.image_sites`; differentiable in the points.

    Args:
        points: [B, Q, 3] float32 in [0, 1]³ of pc_range.
        lidar2img: [B, V, 4, 4] float32.
        pc_range: [6] float32, metres.
        image_size: height and width in pixels.
        size: rows and columns of the image maps.

    Returns:
        cells [B, V, Q, 2] and visible [B, V, Q].
    """
    cells, visible = _Locate.apply(points, lidar2img, pc_range, *image_size, *size)
    return cells, visible
