"""`aqr.synth.device.cast` as a Triton kernel."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Final

import torch
import triton
import triton.language as tl

from aqr.synth.device.cast import FACES, Hits, Views

TILE: Final = (16, 16)
"""Rows and columns that one program draws."""

WARPS: Final = 2


@triton.jit  # type: ignore[untyped-decorator]
def _draw(  # type: ignore[no-untyped-def]
    planes,
    counts,
    windows,
    order,
    limits,
    owners,
    number,
    columns,
    rows,
    ground,
    inverse,
    code,
    silhouette,
    height,
    width,
    solids,
    owner_count,
    tiles_across,
    tiles,
    FACES: tl.constexpr,
    PLANES: tl.constexpr,
    DOWN: tl.constexpr,
    ACROSS: tl.constexpr,
    SILHOUETTES: tl.constexpr,
):
    program = tl.program_id(0)
    view = (program // tiles).to(tl.int64)
    tile = program % tiles
    top, left = (tile // tiles_across) * DOWN, (tile % tiles_across) * ACROSS
    r, c = top + tl.arange(0, DOWN), left + tl.arange(0, ACROSS)
    in_rows, in_columns = r < height, c < width
    inside = in_rows[:, None] & in_columns[None, :]

    across = columns + (view * width + c) * 3
    ax = tl.load(across, mask=in_columns, other=0.0)
    ay = tl.load(across + 1, mask=in_columns, other=0.0)
    az = tl.load(across + 2, mask=in_columns, other=0.0)
    down = rows + (view * height + r) * 3
    dx = tl.load(down, mask=in_rows, other=0.0)
    dy = tl.load(down + 1, mask=in_rows, other=0.0)
    dz = tl.load(down + 2, mask=in_rows, other=0.0)

    gx, gy, gz = tl.load(ground + view * 3), tl.load(ground + view * 3 + 1), tl.load(ground + view * 3 + 2)
    nearest = (gx * dx + gy * dy + gz * dz)[:, None] + (gx * ax + gy * ay + gz * az)[None, :]
    nearest = tl.where(inside, tl.maximum(nearest, 0.0), float("inf"))
    hits = tl.full((DOWN, ACROSS), -1, tl.int32)
    farthest = tl.min(tl.min(nearest, axis=1), axis=0)
    alone = tl.full((DOWN, ACROSS), 0, tl.int32)
    before = -1

    count = tl.load(number + view)
    place = 0
    while place < count:
        at = view * solids + place
        limit = tl.load(limits + at)
        owner = tl.load(owners + at)
        ahead = farthest <= limit
        if SILHOUETTES:
            ahead = ahead | (owner >= 0)
            if owner != before:
                if before >= 0:
                    shown = tl.sum(tl.sum(alone, axis=1), axis=0)
                    if shown > 0:
                        tl.atomic_add(silhouette + view * owner_count + before, shown)
                    alone = tl.full((DOWN, ACROSS), 0, tl.int32)
                before = owner
        r0, r1 = tl.load(windows + at * 4), tl.load(windows + at * 4 + 1)
        c0, c1 = tl.load(windows + at * 4 + 2), tl.load(windows + at * 4 + 3)
        rows_meet = (r0 < top + DOWN) & (r1 > top)
        columns_meet = ((c0 < left + ACROSS) & (c1 > left)) | ((c0 - width < left + ACROSS) & (c1 - width > left))
        if rows_meet & columns_meet & ahead:
            solid = tl.load(order + at)
            entry = tl.full((DOWN, ACROSS), float("inf"), tl.float32)
            leave = tl.full((DOWN, ACROSS), 0.0, tl.float32)
            face = tl.full((DOWN, ACROSS), 0, tl.int32)
            base = planes + (view * solids + solid) * (PLANES * 4)
            for f in range(tl.load(counts + at)):
                x, y, z = tl.load(base + f * 4), tl.load(base + f * 4 + 1), tl.load(base + f * 4 + 2)
                front = tl.load(base + f * 4 + 3) > 0.5
                bound = (x * dx + y * dy + z * dz)[:, None] + (x * ax + y * ay + z * az)[None, :]
                if front:
                    face = tl.where(bound < entry, f, face)
                    entry = tl.minimum(entry, bound)
                else:
                    leave = tl.maximum(leave, bound)
            in_window = ((c >= c0) & (c < c1)) | ((c >= c0 - width) & (c < c1 - width))
            hit = (entry > leave) & inside & in_window[None, :] & ((r >= r0) & (r < r1))[:, None]
            if SILHOUETTES:  # noqa: SIM102
                if owner >= 0:
                    alone = alone | hit.to(tl.int32)
            hit = hit & (entry > nearest)
            nearest = tl.where(hit, entry, nearest)
            hits = tl.where(hit, solid * FACES + face, hits)
            farthest = tl.min(tl.min(nearest, axis=1), axis=0)
        if SILHOUETTES:
            place += 1
        else:
            place = tl.where(ahead, place + 1, count)
    if SILHOUETTES:  # noqa: SIM102
        if before >= 0:
            shown = tl.sum(tl.sum(alone, axis=1), axis=0)
            if shown > 0:
                tl.atomic_add(silhouette + view * owner_count + before, shown)
    out = (view * height + r[:, None]) * width + c[None, :]
    tl.store(inverse + out, nearest, mask=inside)
    tl.store(code + out, hits, mask=inside)


def launch(views: Views, silhouettes: bool, tile: tuple[int, int] = TILE, warps: int = WARPS) -> Hits:
    """Draw all views, one program per tile."""
    count, height, width = len(views.planes), views.rows.shape[1], views.columns.shape[1]
    device = views.planes.device
    inverse = torch.empty(count, height, width, device=device)
    code = torch.empty(count, height, width, dtype=torch.int32, device=device)
    silhouette = torch.zeros(count, max(views.owner_count, 1), dtype=torch.int32, device=device)
    across, down = triton.cdiv(width, tile[1]), triton.cdiv(height, tile[0])
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        _draw[(count * across * down,)](
            views.planes,
            views.counts,
            views.windows,
            views.order,
            views.limits,
            views.owners,
            views.number,
            views.columns,
            views.rows,
            views.ground,
            inverse,
            code,
            silhouette,
            height,
            width,
            views.planes.shape[1],
            views.owner_count,
            across,
            across * down,
            FACES=FACES,
            PLANES=views.planes.shape[2],
            DOWN=tile[0],
            ACROSS=tile[1],
            SILHOUETTES=silhouettes,
            num_warps=warps,
        )
    return Hits(inverse, code, silhouette[:, : views.owner_count] if silhouettes else None)
