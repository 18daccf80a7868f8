"""Attention to windows of cells: scores, softmax and mean in one kernel per query, nothing gathered in memory.

The backward pass has no atomics either. One kernel per query turns the gradient of its mean into gradients of its
scores; then a kernel per tile of cells collects, in a fixed order, from the queries whose windows reach the tile. For
that, queries are ordered by the tile of their centre, so that those of a row of tiles stand behind one another.
"""

from __future__ import annotations

from typing import Any, Final

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from aqr.modulation.kernels import INDEXABLE, launching, power_of_two

READING: Final = ((32, 3), (32, 2), (16, 2))
"""Cells of a window that are read at a time, and stages of the pipeline that reads them: the first that fits."""

WARPS: Final = {"attend": 2, "score_gradients": 2, "token_gradients": 4}
"""Launch settings by kernel, the fastest of those tried on an H200, as are the first of `READING`."""

COLLECTING_STAGES = 3
"""Stages of the pipeline that collects the gradients of cells."""

LEAST: Final = 16
"""Side of the smallest block that Triton multiplies."""

COLLECTED = 32
"""Heads of queries that a tile collects at a time."""

TILE = 4
"""Side, in cells, of the tiles in which cell gradients are collected."""

RANKED, COMPARED = 32, 256
"""Queries that a program orders, and the others that it compares them with at a time."""


@triton.jit
def _corner(cells, at, WINDOW: tl.constexpr):
    left = tl.floor(tl.load(cells + at * 2)).to(tl.int32) - WINDOW // 2
    top = tl.floor(tl.load(cells + at * 2 + 1)).to(tl.int32) - WINDOW // 2
    return left, top


@triton.jit
def _window(tokens, plane, left, top, first, rows, columns, channels, c, WINDOW: tl.constexpr, SIZE: tl.constexpr):
    """Cells first … first + SIZE of a window: which of them lie in the map, and their tokens [SIZE, C]."""
    j = first + tl.arange(0, SIZE)
    row = top + j // WINDOW
    column = left + j % WINDOW
    inside = (j < WINDOW * WINDOW) & (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
    at = ((plane * rows + row) * columns + column) * channels
    return inside, tl.load(tokens + at[:, None] + c[None, :], mask=inside[:, None] & (c < channels)[None, :], other=0.0)


@triton.jit
def _attend(
    on_cells, tokens, cells, visible, mean, lse, chosen, queries, views, rows, columns, heads, channels,
    WINDOW: tl.constexpr, SLOTS: tl.constexpr, H: tl.constexpr, C: tl.constexpr, V: tl.constexpr, SIZE: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    query = tl.program_id(0)
    sample = query // queries
    v = tl.arange(0, V)
    at = (sample * views + v) * queries + query % queries
    x = tl.load(cells + at * 2, mask=v < views, other=0.0) / columns - 0.5
    y = tl.load(cells + at * 2 + 1, mask=v < views, other=0.0) / rows - 0.5
    seen = tl.load(visible + at, mask=v < views, other=False)
    off_centre = tl.where(seen, x * x + y * y, float("inf"))

    h = tl.arange(0, H)
    c = tl.arange(0, C)
    at_head = (query * heads + h[:, None]) * channels + c[None, :]
    known = (h < heads)[:, None] & (c < channels)[None, :]
    asked = tl.load(on_cells + at_head, mask=known, other=0.0)
    top_score = tl.full([H], float("-inf"), tl.float32)
    total = tl.zeros([H], tl.float32)
    sum_ = tl.zeros([H, C], tl.float32)
    for slot in range(SLOTS):
        nearest = tl.min(off_centre, 0)
        view = tl.min(tl.where(off_centre == nearest, v, V), 0)
        off_centre = tl.where(v == view, float("inf"), off_centre)
        found = nearest < float("inf")
        tl.store(chosen + query * SLOTS + slot, tl.where(found, view, -1))
        if found:
            plane = sample * views + view
            left, top = _corner(cells, plane * queries + query % queries, WINDOW)
            for first in range(0, WINDOW * WINDOW, SIZE):
                inside, token = _window(tokens, plane, left, top, first, rows, columns, channels, c, WINDOW, SIZE)
                scores = tl.dot(asked, tl.trans(token), input_precision=PRECISION)
                scores = tl.where(inside[None, :], scores, float("-inf"))
                higher = tl.maximum(top_score, tl.max(scores, 1))
                # All cells so far may lie outside the map; −inf − (−inf) would be NaN.
                finite = tl.where(higher == float("-inf"), 0.0, higher)
                shrink = tl.exp(top_score - finite)
                share = tl.exp(scores - finite[:, None])
                total = total * shrink + tl.sum(share, 1)
                sum_ = sum_ * shrink[:, None] + tl.dot(share.to(token.dtype), token, input_precision=PRECISION)
                top_score = higher
    any_ = total > 0
    safe = tl.where(any_, total, 1.0)
    tl.store(mean + at_head, (sum_ / safe[:, None]).to(mean.dtype.element_ty), mask=known)
    tl.store(lse + query * heads + h, tl.where(any_, top_score + tl.log(safe), 0.0), mask=h < heads)


@triton.jit
def _score_gradients(
    on_cells, tokens, cells, mean, lse, chosen, d_mean, d_on_cells, shares, d_scores,
    queries, views, rows, columns, heads, channels,
    WINDOW: tl.constexpr, SLOTS: tl.constexpr, H: tl.constexpr, C: tl.constexpr, SIZE: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    query = tl.program_id(0)
    sample = query // queries
    h = tl.arange(0, H)
    c = tl.arange(0, C)
    at_head = (query * heads + h[:, None]) * channels + c[None, :]
    known = (h < heads)[:, None] & (c < channels)[None, :]
    asked = tl.load(on_cells + at_head, mask=known, other=0.0)
    slope = tl.load(d_mean + at_head, mask=known, other=0.0)
    centre = tl.sum(slope.to(tl.float32) * tl.load(mean + at_head, mask=known, other=0.0).to(tl.float32), 1)
    norm = tl.load(lse + query * heads + h, mask=h < heads, other=0.0)
    sum_ = tl.zeros([H, C], tl.float32)
    for slot in range(SLOTS):
        view = tl.load(chosen + query * SLOTS + slot)
        if view >= 0:
            plane = sample * views + view
            left, top = _corner(cells, plane * queries + query % queries, WINDOW)
            for first in range(0, WINDOW * WINDOW, SIZE):
                inside, token = _window(tokens, plane, left, top, first, rows, columns, channels, c, WINDOW, SIZE)
                across = tl.trans(token)
                scores = tl.dot(asked, across, input_precision=PRECISION)
                share = tl.where(inside[None, :], tl.exp(scores - norm[:, None]), 0.0)
                d_share = tl.dot(slope, across, input_precision=PRECISION)
                d_score = share * (d_share - centre[:, None])
                sum_ += tl.dot(d_score.to(token.dtype), token, input_precision=PRECISION)
                j = first + tl.arange(0, SIZE)
                at = ((query * SLOTS + slot) * WINDOW * WINDOW + j[None, :]) * heads + h[:, None]
                stored = (h < heads)[:, None] & (j < WINDOW * WINDOW)[None, :]
                tl.store(shares + at, share.to(shares.dtype.element_ty), mask=stored)
                tl.store(d_scores + at, d_score.to(d_scores.dtype.element_ty), mask=stored)
    tl.store(d_on_cells + at_head, sum_.to(d_on_cells.dtype.element_ty), mask=known)


@triton.jit
def _tile_of(cells, chosen, plane, q, live, queries, views, tiles_x, nowhere, SLOTS: tl.constexpr, SIDE: tl.constexpr):
    """The tile of each query's centre in a map, `nowhere` where it does not attend to it, and the slot of the map."""
    sample = plane // views
    slot = tl.full(q.shape, -1, tl.int32)
    for s in range(SLOTS):
        view = tl.load(chosen + (sample * queries + q) * SLOTS + s, mask=live, other=-1)
        slot = tl.where(view == plane % views, s, slot)
    attends = live & (slot >= 0)
    at = (plane * queries + q) * 2
    column = tl.load(cells + at, mask=attends, other=0.0).to(tl.int32) // SIDE
    row = tl.load(cells + at + 1, mask=attends, other=0.0).to(tl.int32) // SIDE
    return tl.where(attends, row * tiles_x + column, nowhere), slot


@triton.jit
def _order(
    cells, chosen, order, starts, queries, views, tiles_x, tiles,
    SLOTS: tl.constexpr, SIDE: tl.constexpr, SIZE: tl.constexpr, OTHERS: tl.constexpr,
):  # fmt: skip
    """A stable sort by counting: a query's place is the number of queries that come before it."""
    plane = tl.program_id(0)
    block = tl.program_id(1)
    blocks = tl.cdiv(queries, SIZE)
    i = tl.arange(0, SIZE)
    if block < blocks:
        q = block * SIZE + i
        mine, slot = _tile_of(cells, chosen, plane, q, q < queries, queries, views, tiles_x, tiles, SLOTS, SIDE)
        rank = tl.zeros([SIZE], tl.int32)
        for first in range(0, queries, OTHERS):
            other = first + tl.arange(0, OTHERS)
            live = other < queries
            theirs, _ = _tile_of(cells, chosen, plane, other, live, queries, views, tiles_x, tiles, SLOTS, SIDE)
            before = (theirs[None, :] < mine[:, None]) | (
                (theirs[None, :] == mine[:, None]) & (other[None, :] < q[:, None])
            )
            rank += tl.sum((before & live[None, :]).to(tl.int32), 1)
        tl.store(order + plane * queries + rank, q * SLOTS + slot, mask=q < queries)
    else:
        tile = (block - blocks) * SIZE + i
        count = tl.zeros([SIZE], tl.int32)
        for first in range(0, queries, OTHERS):
            other = first + tl.arange(0, OTHERS)
            live = other < queries
            theirs, _ = _tile_of(cells, chosen, plane, other, live, queries, views, tiles_x, tiles, SLOTS, SIDE)
            count += tl.sum(((theirs[None, :] < tile[:, None]) & live[None, :]).to(tl.int32), 1)
        tl.store(starts + plane * (tiles + 1) + tile, count, mask=tile <= tiles)


@triton.jit
def _token_gradients(
    on_cells, d_mean, shares, d_scores, cells, order, starts, d_tokens,
    queries, views, rows, columns, heads, channels, tiles_x, tiles_y,
    WINDOW: tl.constexpr, SLOTS: tl.constexpr, SIDE: tl.constexpr, NEAR: tl.constexpr, H: tl.constexpr,
    QUERIES: tl.constexpr, C: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    tiles = tiles_x * tiles_y
    plane = tl.program_id(0) // tiles
    tile = tl.program_id(0) % tiles
    tile_y = tile // tiles_x
    tile_x = tile % tiles_x
    sample = plane // views
    cell = tl.arange(0, SIDE * SIDE)
    row = tile_y * SIDE + cell // SIDE
    column = tile_x * SIDE + cell % SIDE
    c = tl.program_id(1) * C + tl.arange(0, C)
    k = tl.arange(0, QUERIES * H)
    h = k % H
    sum_ = tl.zeros([SIDE * SIDE, C], tl.float32)
    for near in range(-NEAR, NEAR + 1):
        beside = tile_y + near
        if (beside >= 0) & (beside < tiles_y):
            base = plane * (tiles + 1) + beside * tiles_x
            begin = tl.load(starts + base + tl.maximum(tile_x - NEAR, 0))
            end = tl.load(starts + base + tl.minimum(tile_x + NEAR, tiles_x - 1) + 1)
            for first in range(begin, end, QUERIES):
                at = first + k // H
                live = (at < end) & (h < heads)
                slotted = tl.load(order + plane * queries + at, mask=live, other=0)
                q = slotted // SLOTS
                where = (plane * queries + q) * 2
                left = tl.floor(tl.load(cells + where, mask=live, other=0.0)).to(tl.int32) - WINDOW // 2
                top = tl.floor(tl.load(cells + where + 1, mask=live, other=0.0)).to(tl.int32) - WINDOW // 2
                right = column[:, None] - left[None, :]
                down = row[:, None] - top[None, :]
                hit = live[None, :] & (right >= 0) & (right < WINDOW) & (down >= 0) & (down < WINDOW)
                at_cell = (
                    (sample * queries * SLOTS + slotted)[None, :] * WINDOW * WINDOW + down * WINDOW + right
                ) * heads + h[None, :]
                share = tl.load(shares + at_cell, mask=hit, other=0.0)
                d_score = tl.load(d_scores + at_cell, mask=hit, other=0.0)
                at_head = ((sample * queries + q) * heads + h)[:, None] * channels + c[None, :]
                known = live[:, None] & (c < channels)[None, :]
                slope = tl.load(d_mean + at_head, mask=known, other=0.0)
                asked = tl.load(on_cells + at_head, mask=known, other=0.0)
                sum_ += tl.dot(share, slope, input_precision=PRECISION)
                sum_ += tl.dot(d_score, asked, input_precision=PRECISION)
    at = ((plane * rows + row) * columns + column)[:, None] * channels + c[None, :]
    inside = ((row < rows) & (column < columns))[:, None] & (c < channels)[None, :]
    tl.store(d_tokens + at, sum_.to(d_tokens.dtype.element_ty), mask=inside)


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        on_cells: Tensor,
        tokens: Tensor,
        cells: Tensor,
        visible: Tensor,
        window: int,
        slots: int,
        size: int,
        stages: int,
    ) -> Tensor:
        batch, queries, heads, channels = on_cells.shape
        _, views, rows, columns, _ = tokens.shape
        on_cells, tokens, cells = on_cells.contiguous(), tokens.contiguous(), cells.contiguous()
        mean = torch.empty_like(on_cells)
        lse = torch.empty(batch, queries, heads, dtype=torch.float32, device=tokens.device)
        chosen = torch.empty(batch, queries, slots, dtype=torch.int32, device=tokens.device)
        ctx.sizes = queries, views, rows, columns, heads, channels
        ctx.stages = stages
        ctx.shape = {
            "WINDOW": window,
            "SLOTS": slots,
            "H": max(LEAST, power_of_two(heads)),
            "C": max(LEAST, power_of_two(channels)),
            "SIZE": min(size, max(LEAST, power_of_two(window * window))),
            "PRECISION": "ieee" if tokens.dtype == torch.float32 else "tf32",
        }
        with launching(tokens):
            _attend[(batch * queries,)](
                on_cells, tokens, cells, visible.contiguous(), mean, lse, chosen, *ctx.sizes,
                V=power_of_two(views), **ctx.shape, num_warps=WARPS["attend"], num_stages=ctx.stages,
            )  # fmt: skip
        ctx.save_for_backward(on_cells, tokens, cells, mean, lse, chosen)
        return mean

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_mean: Tensor) -> tuple[Tensor | None, ...]:
        on_cells, tokens, cells, mean, lse, chosen = ctx.saved_tensors
        queries, views, rows, columns, heads, channels = ctx.sizes
        batch = tokens.shape[0]
        shape = ctx.shape
        window, slots = shape["WINDOW"], shape["SLOTS"]
        d_mean = d_mean.contiguous()
        d_on_cells = torch.empty_like(on_cells)
        shares = tokens.new_empty(batch, queries, slots, window * window, heads)
        d_scores = torch.empty_like(shares)
        with launching(tokens):
            _score_gradients[(batch * queries,)](
                on_cells,
                tokens,
                cells,
                mean,
                lse,
                chosen,
                d_mean,
                d_on_cells,
                shares,
                d_scores,
                *ctx.sizes,
                **shape,
                num_warps=WARPS["score_gradients"],
                num_stages=ctx.stages,
            )
        if not ctx.needs_input_grad[1]:
            return d_on_cells, None, None, None, None, None, None, None
        tiles_y, tiles_x = triton.cdiv(rows, TILE), triton.cdiv(columns, TILE)
        tiles = tiles_x * tiles_y
        order = torch.empty(batch * views, queries, dtype=torch.int32, device=tokens.device)
        starts = torch.empty(batch * views, tiles + 1, dtype=torch.int32, device=tokens.device)
        blocks = triton.cdiv(queries, RANKED) + triton.cdiv(tiles + 1, RANKED)
        with launching(tokens):
            _order[(batch * views, blocks)](
                cells,
                chosen,
                order,
                starts,
                queries,
                views,
                tiles_x,
                tiles,
                SLOTS=slots,
                SIDE=TILE,
                SIZE=RANKED,
                OTHERS=COMPARED,
            )
        d_tokens = torch.empty_like(tokens)
        width = min(128, shape["C"])
        per_head = power_of_two(heads)
        with launching(tokens):
            _token_gradients[(batch * views * tiles, triton.cdiv(channels, width))](
                on_cells, d_mean, shares, d_scores, cells, order, starts, d_tokens, *ctx.sizes,
                tiles_x, tiles_y,
                WINDOW=window, SLOTS=slots, SIDE=TILE, NEAR=triton.cdiv(window // 2, TILE), H=per_head,
                QUERIES=max(1, COLLECTED // per_head), C=width, PRECISION=shape["PRECISION"],
                num_warps=WARPS["token_gradients"], num_stages=COLLECTING_STAGES,
            )  # fmt: skip
        return d_on_cells, d_tokens, None, None, None, None, None, None


@torch.compiler.assume_constant_result
def shared_memory(device: int | None) -> int:
    """Bytes of shared memory that a program may have on the CUDA device of this index; no bound for None, a CPU."""
    if device is None:
        return INDEXABLE
    return int(torch.cuda.get_device_properties(device).shared_memory_per_block_optin)  # type: ignore[attr-defined]


def reading(channels: int, heads: int, dtype: torch.dtype, limit: int) -> tuple[int, int] | None:
    """The first of `READING` with which programs need at most `limit` bytes of shared memory; None where none fits.

    A program holds what its heads ask, the gradients of what they found, the cells of all stages but one, and a row or
    two of Triton's own.
    """
    row = max(LEAST, power_of_two(channels)) * dtype.itemsize
    held = 2 * max(LEAST, power_of_two(heads)) + 2
    return next(((size, stages) for size, stages in READING if row * (held + (stages - 1) * size) <= limit), None)


def attend(
    on_cells: Tensor,
    tokens: Tensor,
    cells: Tensor,
    visible: Tensor,
    window: int,
    slots: int,
    reading: tuple[int, int] = READING[0],
) -> Tensor:
    """Attended mean of the cells around each query, one per head.

    mean_h = Σ_j softmax_j(a_h · x_j) x_j over the cells x_j of the query's windows that lie in the map, in the
    `slots` maps in which it lies nearest the centre (at equal distance the first).

    Args:
        on_cells: a [B, Q, heads, C], what a head asks of a cell; of the dtype of tokens.
        tokens: [B, V, H, W, C].
        cells: [B, V, Q, 2] float32 column and row.
        visible: [B, V, Q] bool.
        window: side of the windows, odd.
        slots: maps per query.
        reading: cells read at a time and stages, of `reading`.

    Returns:
        [B, Q, heads, C]; 0 for a query that no map sees.
    """
    mean: Tensor = _Attend.apply(on_cells, tokens, cells, visible, window, slots, *reading)
    return mean
