"""Weight maps of separable kernels in one kernel launch: the fused form of `sigmoid_map` and `centered_map`.

The value of a tile is Gyᵀ · diag(w) · Gx with both factors made where they are used, never stored.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

ROWS, COLUMNS, QUERIES = 16, 32, 32
"""A tile of the map, and the queries added to it at a time."""


@triton.jit
def _kernel(centre, position, GAUSSIAN: tl.constexpr, SUM: tl.constexpr, sigma, REACH: tl.constexpr):
    """The kernel along one axis at cell centres, given the queries' positions, and its slope in the position."""
    offset = centre - position
    if GAUSSIAN:
        inverse = 1.0 / (sigma * sigma)
        value = tl.exp(offset * offset * (-0.5 * inverse))
        slope = value * offset * inverse
        if SUM:
            fraction = position - tl.floor(position)
            total = fraction * 0.0
            lean = fraction * 0.0
            for step in range(-REACH, REACH + 1):
                away = step + 0.5 - fraction
                part = tl.exp(away * away * (-0.5 * inverse))
                total += part
                lean += part * away * inverse
            value = value / total
            slope = (slope - value * lean) / total
    else:
        value = tl.maximum(1.0 - tl.abs(offset), 0.0)
        slope = tl.where(value > 0, tl.where(offset > 0, 1.0, -1.0), 0.0)
    return value, slope


@triton.jit
def _forward(
    signal, cells, visible, out, total, mass, sample_stride, view_stride, query_stride,
    queries, views, rows, columns, sigma, lowest, highest,
    GAUSSIAN: tl.constexpr, CENTERED: tl.constexpr, REACH: tl.constexpr,
    TY: tl.constexpr, TX: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    plane = tl.program_id(0)
    signal += plane // views * sample_stride + plane % views * view_stride
    row = tl.program_id(1) * TY + tl.arange(0, TY)
    column = tl.program_id(2) * TX + tl.arange(0, TX)
    sum_ = tl.zeros([TY, TX], tl.float32)
    weight = tl.zeros([TY, TX], tl.float32)
    for first in range(0, queries, SIZE):
        q = first + tl.arange(0, SIZE)
        at = plane * queries + q
        seen = tl.load(visible + at, mask=q < queries, other=0) != 0
        x = tl.load(cells + at * 2, mask=seen, other=0.0)
        y = tl.load(cells + at * 2 + 1, mask=seen, other=0.0)
        g = tl.load(signal + q * query_stride, mask=seen, other=0.0)
        on_x, _ = _kernel(column[None, :] + 0.5, x[:, None], GAUSSIAN, not CENTERED, sigma, REACH)
        on_y, _ = _kernel(row[:, None] + 0.5, y[None, :], GAUSSIAN, not CENTERED, sigma, REACH)
        sum_ += tl.dot(on_y * g[None, :], on_x, input_precision="ieee")
        if CENTERED:
            weight += tl.dot(on_y * seen.to(tl.float32)[None, :], on_x, input_precision="ieee")
    at_cell = (plane * rows + row[:, None]) * columns + column[None, :]
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    tl.store(total + at_cell, sum_, mask=inside)
    if CENTERED:
        tl.store(mass + at_cell, weight, mask=inside)
        tl.store(out + at_cell, tl.exp(sum_ / tl.maximum(weight, 1.0)), mask=inside)
    else:
        tl.store(out + at_cell, tl.where(sum_ < lowest, 0.0, tl.minimum(sum_, highest)), mask=inside)


@triton.jit
def _backward(
    signal, cells, visible, total, mass, d_out, d_signal, d_cells, sample_stride, view_stride, query_stride,
    queries, views, rows, columns, sigma, lowest, highest,
    GAUSSIAN: tl.constexpr, CENTERED: tl.constexpr, POINTS: tl.constexpr, REACH: tl.constexpr,
    TY: tl.constexpr, TX: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    plane = tl.program_id(0)
    signal += plane // views * sample_stride + plane % views * view_stride
    q = tl.program_id(1) * SIZE + tl.arange(0, SIZE)
    at = plane * queries + q
    seen = tl.load(visible + at, mask=q < queries, other=0) != 0
    x = tl.load(cells + at * 2, mask=seen, other=0.0)
    y = tl.load(cells + at * 2 + 1, mask=seen, other=0.0)
    g = tl.load(signal + q * query_stride, mask=seen, other=0.0)
    d_g = tl.zeros([SIZE], tl.float32)
    d_x = tl.zeros([SIZE], tl.float32)
    d_y = tl.zeros([SIZE], tl.float32)
    for first_column in range(0, columns, TX):
        column = first_column + tl.arange(0, TX)
        on_x, lean_x = _kernel(column[None, :] + 0.5, x[:, None], GAUSSIAN, not CENTERED, sigma, REACH)
        for first_row in range(0, rows, TY):
            row = first_row + tl.arange(0, TY)
            on_y, lean_y = _kernel(row[None, :] + 0.5, y[:, None], GAUSSIAN, not CENTERED, sigma, REACH)
            at_cell = (plane * rows + row[None, :]) * columns + column[:, None]
            inside = (column < columns)[:, None] & (row < rows)[None, :]
            slope = tl.load(d_out + at_cell, mask=inside, other=0.0)
            sum_ = tl.load(total + at_cell, mask=inside, other=0.0)
            if CENTERED:
                weight = tl.load(mass + at_cell, mask=inside, other=0.0)
                per = 1.0 / tl.maximum(weight, 1.0)
                d_sum = slope * tl.exp(sum_ * per) * per
                d_mass = tl.where(weight >= 1.0, -d_sum * sum_ * per, 0.0)
            else:
                d_sum = tl.where((sum_ >= lowest) & (sum_ <= highest), slope, 0.0)
                d_mass = d_sum * 0.0
            along = tl.dot(on_x, d_sum, input_precision="ieee")
            d_g += tl.sum(along * on_y, 1)
            if POINTS:
                on_mass = along * g[:, None]
                lean = tl.dot(lean_x, d_sum, input_precision="ieee") * g[:, None]
                if CENTERED:
                    on_mass += tl.dot(on_x, d_mass, input_precision="ieee")
                    lean += tl.dot(lean_x, d_mass, input_precision="ieee")
                d_x += tl.sum(lean * on_y, 1)
                d_y += tl.sum(on_mass * lean_y, 1)
    live = q < queries
    tl.store(d_signal + at, tl.where(seen, d_g, 0.0), mask=live)
    if POINTS:
        tl.store(d_cells + at * 2, tl.where(seen, d_x, 0.0), mask=live)
        tl.store(d_cells + at * 2 + 1, tl.where(seen, d_y, 0.0), mask=live)


class _Splat(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        signal: Tensor,
        cells: Tensor,
        visible: Tensor,
        rows: int,
        columns: int,
        gaussian: bool,
        centered: bool,
        sigma: float,
        lowest: float,
        highest: float,
    ) -> Tensor:
        batch, views, queries = visible.shape
        cells, visible = cells.contiguous(), visible.contiguous().view(torch.uint8)
        out = signal.new_empty(batch, views, rows, columns)
        total = torch.empty_like(out)
        mass = torch.empty_like(out) if centered else total
        ctx.shape = {
            "GAUSSIAN": gaussian,
            "CENTERED": centered,
            # Beyond 6σ a Gaussian is under 2e-8 of its peak: the sum over these cells is the sum over all.
            "REACH": math.ceil(6 * sigma) + 1,
        }
        ctx.numbers = float(sigma), float(lowest), float(highest)
        _forward[(batch * views, triton.cdiv(rows, ROWS), triton.cdiv(columns, COLUMNS))](
            signal, cells, visible, out, total, mass, *signal.stride(),
            queries, views, rows, columns, *ctx.numbers,
            TY=ROWS, TX=COLUMNS, SIZE=QUERIES, **ctx.shape,
        )  # fmt: skip
        ctx.save_for_backward(signal, cells, visible, total, mass)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        signal, cells, visible, total, mass = ctx.saved_tensors
        batch, views, queries = visible.shape
        rows, columns = total.shape[2:]
        d_signal = signal.new_empty(batch, views, queries)
        d_cells = torch.empty_like(cells) if ctx.needs_input_grad[1] else None
        _backward[(batch * views, triton.cdiv(queries, 16))](
            signal, cells, visible, total, mass, d_out.contiguous(), d_signal,
            d_signal if d_cells is None else d_cells, *signal.stride(),
            queries, views, rows, columns, *ctx.numbers,
            POINTS=d_cells is not None, TY=ROWS, TX=COLUMNS, SIZE=16, **ctx.shape,
        )  # fmt: skip
        return d_signal, d_cells, None, None, None, None, None, None, None, None


def splat_map(
    signal: Tensor,
    cells: Tensor,
    visible: Tensor,
    size: tuple[int, int],
    *,
    gaussian: bool,
    centered: bool,
    sigma: float,
    min_weight_threshold: float = 0.0,
    max_weight_clamp: float = 0.0,
) -> Tensor:
    """Weight map of `aqr.modulation.render.centered_map` or `sigmoid_map`; differentiable in signal and cells.

    Args:
        signal: [B, V, Q] float32: g of the queries where `centered`, else w; expanded views are read as they are.
        cells: [B, V, Q, 2] float32.
        visible: [B, V, Q] bool.
        size: rows and columns.
        gaussian: Gaussian kernel; else bilinear.
        centered: which of the two maps.
        sigma: cells.
        min_weight_threshold: of the `sigmoid` map.
        max_weight_clamp: of the `sigmoid` map.

    Returns:
        [B, V, H, W] float32.
    """
    out: Tensor = _Splat.apply(
        signal, cells, visible, *size, gaussian, centered, sigma, min_weight_threshold, max_weight_clamp
    )
    return out
