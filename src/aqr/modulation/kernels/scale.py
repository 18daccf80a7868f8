"""Scale feature maps by a weight map in one pass: the fused form of `modulation_factor` and `modulate`."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from aqr.modulation.kernels import launching, power_of_two

TILE = 8192
"""Numbers that a program holds at a time."""


@triton.jit
def _cells(
    weights, gate, residual, at, live, constant,
    ADDITIVE: tl.constexpr, GATED: tl.constexpr, MAPPED: tl.constexpr,
):  # fmt: skip
    """Weight, residual and change of each cell, and how far the gate is open."""
    weight = tl.load(weights + at, mask=live, other=0.0)
    # torch.compile hands numbers over in float64.
    keep = tl.cast(constant, tl.float32)
    if MAPPED:
        keep = tl.load(residual + at, mask=live, other=0.0)
    change = weight + (keep - 1.0) if ADDITIVE else (1.0 - keep) * (weight - 1.0)
    openness = 1.0
    if GATED:
        openness = tl.load(gate)
    return weight, keep, change, openness


@triton.jit
def _forward(
    features, weights, gate, residual, out, cells, channels, constant, plane_stride, cell_stride, channel_stride,
    ADDITIVE: tl.constexpr, GATED: tl.constexpr, MAPPED: tl.constexpr,
    SIZE: tl.constexpr, C: tl.constexpr, CELLS_FIRST: tl.constexpr,
):  # fmt: skip
    plane = tl.program_id(0)
    cell = tl.program_id(1) * SIZE + tl.arange(0, SIZE)
    live = cell < cells
    _, _, change, openness = _cells(
        weights, gate, residual, plane * cells + cell, live, constant, ADDITIVE, GATED, MAPPED
    )
    factor = 1.0 + change * openness
    c = tl.program_id(2) * C + tl.arange(0, C)
    known = c < channels
    if CELLS_FIRST:
        at = plane * plane_stride + c[:, None] * channel_stride + cell[None, :] * cell_stride
        inside = known[:, None] & live[None, :]
        scaled = tl.load(features + at, mask=inside, other=0.0).to(tl.float32) * factor[None, :]
    else:
        at = plane * plane_stride + cell[:, None] * cell_stride + c[None, :] * channel_stride
        inside = live[:, None] & known[None, :]
        scaled = tl.load(features + at, mask=inside, other=0.0).to(tl.float32) * factor[:, None]
    tl.store(out + at, scaled.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _backward(
    features, weights, gate, residual, d_out, d_features, d_weights, d_gate, d_residual,
    cells, channels, constant, plane_stride, cell_stride, channel_stride,
    ADDITIVE: tl.constexpr, GATED: tl.constexpr, MAPPED: tl.constexpr,
    SIZE: tl.constexpr, C: tl.constexpr, CELLS_FIRST: tl.constexpr,
):  # fmt: skip
    plane = tl.program_id(0)
    cell = tl.program_id(1) * SIZE + tl.arange(0, SIZE)
    live = cell < cells
    at_cell = plane * cells + cell
    weight, keep, change, openness = _cells(weights, gate, residual, at_cell, live, constant, ADDITIVE, GATED, MAPPED)
    factor = 1.0 + change * openness
    d_factor = tl.zeros([SIZE], tl.float32)
    for first in range(0, channels, C):
        c = first + tl.arange(0, C)
        known = c < channels
        if CELLS_FIRST:
            at = plane * plane_stride + c[:, None] * channel_stride + cell[None, :] * cell_stride
            inside = known[:, None] & live[None, :]
            slope = tl.load(d_out + at, mask=inside, other=0.0).to(tl.float32)
            value = tl.load(features + at, mask=inside, other=0.0).to(tl.float32)
            d_factor += tl.sum(slope * value, 0)
            tl.store(d_features + at, (slope * factor[None, :]).to(d_features.dtype.element_ty), mask=inside)
        else:
            at = plane * plane_stride + cell[:, None] * cell_stride + c[None, :] * channel_stride
            inside = live[:, None] & known[None, :]
            slope = tl.load(d_out + at, mask=inside, other=0.0).to(tl.float32)
            value = tl.load(features + at, mask=inside, other=0.0).to(tl.float32)
            d_factor += tl.sum(slope * value, 1)
            tl.store(d_features + at, (slope * factor[:, None]).to(d_features.dtype.element_ty), mask=inside)
    d_factor = tl.where(live, d_factor, 0.0)
    d_change = d_factor * openness
    if ADDITIVE:
        tl.store(d_weights + at_cell, d_change, mask=live)
        if MAPPED:
            tl.store(d_residual + at_cell, d_change, mask=live)
    else:
        tl.store(d_weights + at_cell, d_change * (1.0 - keep), mask=live)
        if MAPPED:
            tl.store(d_residual + at_cell, d_change * (1.0 - weight), mask=live)
    if GATED:
        tl.store(d_gate + plane * tl.num_programs(1) + tl.program_id(1), tl.sum(d_factor * change, 0))


class _Scale(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weights: Tensor, gate: Tensor | None, residual: Tensor | float, additive: bool
    ) -> Tensor:
        batch, views, channels, rows, columns = features.shape
        flat = features.flatten(0, 1)
        cells_first = not flat.is_contiguous(memory_format=torch.channels_last) or flat.is_contiguous()
        order = torch.contiguous_format if cells_first else torch.channels_last
        flat = flat.contiguous(memory_format=order)
        cells = rows * columns
        strides = (cells, columns, 1) if cells_first else (1, columns * channels, channels)
        # Not a view, which autograd would not let be changed in place.
        out = flat.new_empty_strided(features.shape, (views * channels * cells, channels * cells, *strides))
        weights = weights.contiguous()
        mapped = isinstance(residual, Tensor)
        kept = residual.expand(weights.shape).contiguous() if isinstance(residual, Tensor) else weights
        width = max(16, power_of_two(channels))
        block = 64 if cells_first else min(width, 256)
        ctx.shape = {
            "ADDITIVE": additive,
            "GATED": gate is not None,
            "MAPPED": mapped,
            "CELLS_FIRST": cells_first,
            "C": block,
            "SIZE": TILE // block,
        }
        ctx.numbers = (
            cells, channels, 0.0 if isinstance(residual, Tensor) else float(residual),
            channels * cells, *((1, cells) if cells_first else (channels, 1)),
        )  # fmt: skip
        ctx.order = order
        with launching(flat):
            _forward[(batch * views, triton.cdiv(cells, TILE // block), triton.cdiv(channels, block))](
                flat, weights, weights if gate is None else gate, kept, out, *ctx.numbers, **ctx.shape
            )
        ctx.save_for_backward(flat, weights, gate, kept)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        flat, weights, gate, kept = ctx.saved_tensors
        cells = ctx.numbers[0]
        slope = d_out.flatten(0, 1).contiguous(memory_format=ctx.order)
        # Not empty_like, which compiled code fills where it is given a memory format.
        d_features = flat.new_empty_strided(flat.shape, flat.stride())
        d_weights = torch.empty_like(weights)
        blocks = triton.cdiv(cells, ctx.shape["SIZE"])
        d_gate = weights.new_empty(flat.shape[0] * blocks) if gate is not None else None
        d_residual = torch.empty_like(weights) if ctx.shape["MAPPED"] else None
        with launching(flat):
            _backward[(flat.shape[0], blocks)](
                flat, weights, weights if gate is None else gate, kept, slope, d_features, d_weights,
                d_weights if d_gate is None else d_gate, d_weights if d_residual is None else d_residual,
                *ctx.numbers, **ctx.shape,
            )  # fmt: skip
        return (
            d_features.unflatten(0, d_out.shape[:2]),
            d_weights,
            None if d_gate is None else d_gate.sum().view(gate.shape),
            d_residual,
            None,
        )


def scale(
    features: Tensor, weights: Tensor, gate: Tensor | None, residual_weight: float | Tensor, additive: bool
) -> Tensor:
    """F · (1 + a·change), with the change of `aqr.modulation.modulate.modulation_factor`.

    Args:
        features: F [B, V, C, H, W], contiguous or channels-last within each map; otherwise it is copied.
        weights: W [B, V, H, W] or broadcastable to it, float32.
        gate: a, a scalar; None for 1.
        residual_weight: r, a number or a map [B, V, H, W] float32.
        additive: m = r + W in place of r + (1 − r)·W.

    Returns:
        Like features, in its dtype and order in memory.
    """
    planes = (*features.shape[:2], *features.shape[3:])
    if weights.shape != planes:
        weights = weights.expand(planes)
    if isinstance(residual_weight, Tensor):
        residual_weight = residual_weight.expand(weights.shape)
    out: Tensor = _Scale.apply(features, weights, gate, residual_weight, additive)
    return out
