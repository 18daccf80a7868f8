"""Weight maps of separable kernels in one kernel launch: the fused form of `sigmoid_map` and `centered_map`.

The value of a tile is Gyᵀ · diag(w) · Gx with both factors made where they are used, never stored. Gradients are
gathered by each query from the cells within its reach, 6σ: beyond it a Gaussian is under 2e-8 of its peak.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from aqr.modulation.kernels import launching, power_of_two

ROWS, COLUMNS, QUERIES = 16, 32, 256
"""A tile of the map, and the queries added to it at a time."""

GATHERED = 16
"""Queries per program that gather the map's gradient around them."""


@triton.jit
def _normaliser(position, NORMALISED: tl.constexpr, sigma, REACH: tl.constexpr):
    """Sum of a Gaussian over an unbounded axis, and its slope in the position; 1 and 0 where nothing is normalised."""
    total = position * 0.0
    lean = position * 0.0
    if NORMALISED:
        inverse = 1.0 / (sigma * sigma)
        fraction = position - tl.floor(position)
        for step in range(-REACH, REACH + 1):
            away = step + 0.5 - fraction
            part = tl.exp(away * away * (-0.5 * inverse))
            total += part
            lean += part * away * inverse
    else:
        total += 1.0
    return total, lean


@triton.jit
def _kernel(offset, GAUSSIAN: tl.constexpr, sigma):
    """The kernel along one axis, peak 1, at an offset of the cell's centre from the query's position."""
    if GAUSSIAN:
        return tl.exp(offset * offset * (-0.5 / (sigma * sigma)))
    return tl.maximum(1.0 - tl.abs(offset), 0.0)


@triton.jit
def _slope(offset, value, GAUSSIAN: tl.constexpr, sigma):
    """Slope of the kernel in the query's position."""
    if GAUSSIAN:
        return value * offset / (sigma * sigma)
    # At the kinks what autograd makes of abs and clamp: 0 at the peak, the slope within at the ends.
    return tl.where(tl.abs(offset) <= 1, tl.where(offset > 0, 1.0, tl.where(offset < 0, -1.0, 0.0)), 0.0)


@triton.jit
def _forward(
    signal, cells, visible, out, total, mass, sample_stride, view_stride, query_stride,
    queries, views, rows, columns, sigma, lowest, highest,
    GAUSSIAN: tl.constexpr, CENTERED: tl.constexpr, REACH: tl.constexpr,
    TY: tl.constexpr, TX: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    # torch.compile hands numbers over in float64.
    sigma = tl.cast(sigma, tl.float32)
    lowest = tl.cast(lowest, tl.float32)
    highest = tl.cast(highest, tl.float32)
    plane = tl.program_id(0)
    signal += plane // views * sample_stride + plane % views * view_stride
    row = tl.program_id(1) * TY + tl.arange(0, TY)
    column = tl.program_id(2) * TX + tl.arange(0, TX)
    sum_ = tl.zeros([TY, TX], tl.float32)
    weight = tl.zeros([TY, TX], tl.float32)
    for first in range(0, queries, SIZE):
        q = first + tl.arange(0, SIZE)
        at = plane * queries + q
        seen = tl.load(visible + at, mask=q < queries, other=False)
        x = tl.load(cells + at * 2, mask=seen, other=0.0)
        y = tl.load(cells + at * 2 + 1, mask=seen, other=0.0)
        g = tl.load(signal + q * query_stride, mask=seen, other=0.0)
        if GAUSSIAN and not CENTERED:
            total_x, _ = _normaliser(x, True, sigma, REACH)
            total_y, _ = _normaliser(y, True, sigma, REACH)
            g = g / (total_x * total_y)
        on_x = _kernel(column[None, :] + 0.5 - x[:, None], GAUSSIAN, sigma)
        on_y = _kernel(row[:, None] + 0.5 - y[None, :], GAUSSIAN, sigma)
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
        # A minimum would turn NaN into a number.
        bounded = tl.where(sum_ > highest, highest, tl.where(sum_ < lowest, 0.0, sum_))
        tl.store(out + at_cell, bounded, mask=inside)


@triton.jit
def _backward(
    signal, cells, visible, total, mass, d_out, d_signal, d_cells, sample_stride, view_stride, query_stride,
    queries, views, rows, columns, sigma, highest,
    GAUSSIAN: tl.constexpr, CENTERED: tl.constexpr, POINTS: tl.constexpr, REACH: tl.constexpr,
    WIDTH: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    # torch.compile hands numbers over in float64.
    sigma = tl.cast(sigma, tl.float32)
    highest = tl.cast(highest, tl.float32)
    plane = tl.program_id(0)
    signal += plane // views * sample_stride + plane % views * view_stride
    q = tl.program_id(1) * SIZE + tl.arange(0, SIZE)
    at = plane * queries + q
    seen = tl.load(visible + at, mask=q < queries, other=False)
    x = tl.load(cells + at * 2, mask=seen, other=0.0)
    y = tl.load(cells + at * 2 + 1, mask=seen, other=0.0)
    g = tl.load(signal + q * query_stride, mask=seen, other=0.0)
    total_x, drift_x = _normaliser(x, GAUSSIAN and not CENTERED, sigma, REACH)
    total_y, drift_y = _normaliser(y, GAUSSIAN and not CENTERED, sigma, REACH)
    step_x = tl.arange(0, WIDTH) - REACH
    column = tl.floor(x).to(tl.int32)[:, None] + step_x[None, :]
    away_x = column + 0.5 - x[:, None]
    on_x = _kernel(away_x, GAUSSIAN, sigma)
    lean_x = (_slope(away_x, on_x, GAUSSIAN, sigma) - on_x * (drift_x / total_x)[:, None]) / total_x[:, None]
    on_x = on_x / total_x[:, None]
    within = seen[:, None] & (step_x <= REACH)[None, :] & (column >= 0) & (column < columns)
    d_g = tl.zeros([SIZE], tl.float32)
    d_x = tl.zeros([SIZE], tl.float32)
    d_y = tl.zeros([SIZE], tl.float32)
    for step in range(-REACH, REACH + 1):
        row = tl.floor(y).to(tl.int32) + step
        away_y = row + 0.5 - y
        on_y = _kernel(away_y, GAUSSIAN, sigma)
        lean_y = (_slope(away_y, on_y, GAUSSIAN, sigma) - on_y * (drift_y / total_y)) / total_y
        on_y = on_y / total_y
        at_cell = (plane * rows + row[:, None]) * columns + column
        inside = within & (row >= 0)[:, None] & (row < rows)[:, None]
        slope = tl.load(d_out + at_cell, mask=inside, other=0.0)
        sum_ = tl.load(total + at_cell, mask=inside, other=0.0)
        if CENTERED:
            weight = tl.load(mass + at_cell, mask=inside, other=0.0)
            per = 1.0 / tl.maximum(weight, 1.0)
            d_sum = slope * tl.exp(sum_ * per) * per
            on_map = d_sum * g[:, None] + tl.where(weight >= 1.0, -d_sum * sum_ * per, 0.0)
        else:
            d_sum = tl.where(sum_ <= highest, slope, 0.0)
            on_map = d_sum * g[:, None]
        d_g += tl.sum(d_sum * on_x, 1) * on_y
        if POINTS:
            d_x += tl.sum(on_map * lean_x, 1) * on_y
            d_y += tl.sum(on_map * on_x, 1) * lean_y
    live = q < queries
    tl.store(d_signal + at, d_g, mask=live)
    if POINTS:
        tl.store(d_cells + at * 2, d_x, mask=live)
        tl.store(d_cells + at * 2 + 1, d_y, mask=live)


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
        cells, visible = cells.contiguous(), visible.contiguous()
        out = signal.new_empty(batch, views, rows, columns)
        total = torch.empty_like(out)
        mass = torch.empty_like(out) if centered else total
        ctx.shape = {
            "GAUSSIAN": gaussian,
            "CENTERED": centered,
            # Beyond 6σ a Gaussian is under 2e-8 of its peak: the sum over these cells is the sum over all.
            "REACH": math.ceil(6 * sigma) + 1 if gaussian else 1,
        }
        ctx.numbers = float(sigma), float(lowest), float(highest)
        with launching(signal):
            _forward[(batch * views, triton.cdiv(rows, ROWS), triton.cdiv(columns, COLUMNS))](
                signal, cells, visible, out, total, mass, *signal.stride(),
                queries, views, rows, columns, *ctx.numbers,
                TY=ROWS, TX=COLUMNS, SIZE=QUERIES, **ctx.shape, num_warps=8,
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
        sigma, _, highest = ctx.numbers
        with launching(signal):
            _backward[(batch * views, triton.cdiv(queries, GATHERED))](
                signal, cells, visible, total, mass, d_out.contiguous(), d_signal,
                d_signal if d_cells is None else d_cells, *signal.stride(),
                queries, views, rows, columns, sigma, highest,
                POINTS=d_cells is not None, WIDTH=power_of_two(2 * ctx.shape["REACH"] + 1), SIZE=GATHERED,
                **ctx.shape,
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
        signal: [B, V, Q] or broadcastable to it, float32: g of the queries where `centered`, else w; expanded views
            are read as they are.
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
    if signal.shape != visible.shape:
        signal = signal.expand_as(visible)
    out: Tensor = _Splat.apply(
        signal, cells, visible, *size, gaussian, centered, sigma, min_weight_threshold, max_weight_clamp
    )
    return out
