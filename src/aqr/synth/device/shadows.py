"""Shadows and occlusion on the ground around many ego vehicles at once, as `aqr.synth.shadows` paints them one by one.

Seen along the sun's rays the ground is a view like any other: where a ray meets a box on its way to the sun, there is
shadow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from aqr.synth.device.cast import Views, cast
from aqr.synth.device.pool import Moments, Pool
from aqr.synth.shadows import CELL, REACH, SHADE
from aqr.synth.solids import Texture

CELLS = int(2 * REACH / CELL)

_MARGIN = CELL / 2
"""The painter fills every cell that a shadow touches; a ray goes through its middle only."""


@dataclass(frozen=True)
class Shadows:
    """Light that reaches the ground.

    Attributes:
        origin: [B, 2] street coordinates of the corner of the first cell, metres.
        sun: [B, CELLS, CELLS] share of direct light, 0 … 1.
        sky: [B, CELLS, CELLS] share of light from the sky, 0 … 1.
    """

    origin: Tensor
    sun: Tensor
    sky: Tensor


def paint(pool: Pool, moments: Moments) -> Shadows:
    """Shadows around the ego vehicle at each moment."""
    casts = [pool.casts[scene] for scene, _ in moments.shots]
    origins = np.array([cast.origin for cast in casts])
    corner = ((moments.ego[:, :2] - REACH - origins) / CELL).astype(np.int64)
    first = torch.from_numpy(corner).to(pool.device, non_blocking=True)
    origin = torch.from_numpy(origins + corner * CELL).to(pool.device, non_blocking=True)
    middle = torch.from_numpy(moments.ego[:, :2].copy()).to(pool.device, non_blocking=True)
    owners = pool.owners[moments.scene]
    gap = (moments.corners[:, :, :4, :2].mean(2) - middle[:, None]).abs().amax(-1)
    moving = (owners >= 0) & (gap < REACH)

    light = _painted(pool, pool.shadows, moments, first)
    sunny = [b for b, own in enumerate(casts) if own.weather.sun.max() > 0.5]
    if sunny:
        some = torch.tensor(sunny).to(pool.device, non_blocking=True)
        direction = torch.from_numpy(np.stack([casts[b].weather.sun_direction for b in sunny])).to(pool.device)
        tall = (pool.texture[moments.scene] != Texture.GROUND) & (moments.corners[:, :, 4, 2] > 0.25)
        shade = _along_sun(moments.corners[some], (moving & tall)[some], origin[some], direction)
        light[some] = _box_blur(torch.where(shade, 0.0, light[some]), 1)
    light = light / 255
    light[:, [0, -1]], light[:, :, [0, -1]] = 1.0, 1.0
    under = _beneath(moments.corners[:, :, :4, :2], moving & (moments.corners[:, :, 0, 2] < 0.7), origin)
    under |= _painted(pool, pool.feet, moments, first) > 0
    sky = _box_blur(torch.where(under, float(SHADE), 255.0), 2) / 255
    return Shadows(origin, light, sky)


def _painted(pool: Pool, images: Tensor, moments: Moments, first: Tensor) -> Tensor:
    """[B, CELLS, CELLS] 0 … 255 of the scenery's `pool.shadows` or `pool.feet`; 0 beyond what is painted."""
    cells = torch.arange(CELLS, device=pool.device)
    column, row = first[:, 0, None] + cells, first[:, 1, None] + cells
    rows, columns = pool.shadow_size[moments.scene].unbind(-1)
    in_columns, in_rows = (column >= 0) & (column < columns[:, None]), (row >= 0) & (row < rows[:, None])
    place = (
        torch.where(in_rows, row, 0)[:, :, None] * columns[:, None, None] + torch.where(in_columns, column, 0)[:, None]
    )
    light = images[pool.shadow_start[moments.scene][:, None, None] + place]
    return torch.where(in_rows[:, :, None] & in_columns[:, None], light, 0).float()


def _along_sun(corners: Tensor, chosen: Tensor, origin: Tensor, sun: Tensor) -> Tensor:
    """[B, CELLS, CELLS] whether the box around any chosen solid lies between the ground and the sun."""
    local = corners.clone()
    local[..., :2] -= origin[:, None, None]
    normals, offsets = _boxes(local)
    slope = (normals * sun[:, None, None]).sum(-1)
    slope = torch.where(slope.abs() < 1e-6, 1e-6, slope)
    planes = torch.stack([-normals[..., 0] / slope, -normals[..., 1] / slope, offsets / slope], -1)
    flat = local[..., :2] - (sun[:, :2] / sun[:, 2:])[:, None, None] * local[..., 2:]
    return _covered(planes, slope > 0, flat, chosen)


def _beneath(quads: Tensor, chosen: Tensor, origin: Tensor) -> Tensor:
    """[B, CELLS, CELLS] whether any chosen quadrilateral [B, K, 4, 2] lies above."""
    local = quads - origin[:, None, None]
    edge = local.roll(-1, dims=2) - local
    area = (local[..., 0] * edge[..., 1] - local[..., 1] * edge[..., 0]).sum(-1)
    side = torch.where(area < 0, -1.0, 1.0)[..., None, None]
    normals = torch.stack([edge[..., 1], -edge[..., 0]], -1) * side
    normals = normals / torch.linalg.vector_norm(normals, dim=-1, keepdim=True).clamp(min=1e-9)
    offsets = (normals * local).sum(-1) + _MARGIN
    planes = torch.cat([-normals, offsets[..., None]], -1)
    return _covered(planes, torch.ones_like(offsets, dtype=torch.bool), local, chosen)


def _boxes(corners: Tensor) -> tuple[Tensor, Tensor]:
    """Outward normals [B, K, 6, 3] and offsets [B, K, 6] of boxes given by their corners, a margin wider."""
    ring = corners[:, :, :4]
    edges = torch.stack(
        [ring[:, :, 0] - ring[:, :, 1], ring[:, :, 1] - ring[:, :, 2], corners[:, :, 4] - ring[:, :, 0]], 2
    )
    length = torch.linalg.vector_norm(edges, dim=-1, keepdim=True)
    normals = edges / length.clamp(min=1e-9)
    middle = (normals * corners.mean(2)[:, :, None]).sum(-1)
    half = length[..., 0] / 2 + _MARGIN * torch.linalg.vector_norm(normals[..., :2], dim=-1)
    return torch.cat([normals, -normals], 2), torch.cat([middle + half, half - middle], 2)


def _covered(planes: Tensor, front: Tensor, flat: Tensor, chosen: Tensor) -> Tensor:
    """Where rays (x, y, 1) of the ground meet solids.

    Args:
        planes: [B, K, F, 3].
        front: [B, K, F] whether a plane bounds the way to the light from above.
        flat: [B, K, C, 2] corners of the area that each solid may cover, metres from the first cell's corner.
        chosen: [B, K] solids that count.
    """
    count = len(chosen)
    low = ((flat.amin(2) - _MARGIN) / CELL).floor().clamp(0, CELLS)
    high = ((flat.amax(2) + _MARGIN) / CELL).ceil().clamp(0, CELLS)
    windows = torch.stack([low[..., 1], high[..., 1], low[..., 0], high[..., 0]], -1).int()
    usable = chosen & (windows[..., 1] > windows[..., 0]) & (windows[..., 3] > windows[..., 2])
    order = torch.sort((~usable).int(), dim=1, stable=True).indices
    middles = (torch.arange(CELLS, device=flat.device) + 0.5) * CELL
    zero, one = torch.zeros_like(middles), torch.ones_like(middles)
    columns = torch.stack([middles, zero, one], -1).expand(count, -1, -1)
    rows = torch.stack([zero, middles, zero], -1).expand(count, -1, -1)
    hits = cast(
        Views(
            planes=torch.cat([planes, front[..., None]], -1).float().contiguous(),
            counts=torch.full_like(order, planes.shape[2], dtype=torch.int32),
            windows=windows.gather(1, order[..., None].expand(-1, -1, 4)),
            order=order.int(),
            limits=torch.full_like(order, torch.inf, dtype=torch.float32),
            owners=torch.full_like(order, -1, dtype=torch.int32),
            number=usable.sum(1).int(),
            columns=columns.float().contiguous(),
            rows=rows.float().contiguous(),
            ground=torch.zeros(count, 3, device=flat.device),
            owner_count=0,
        )
    )
    return hits.code >= 0


def _box_blur(image: Tensor, radius: int) -> Tensor:
    """Mean over (2 · radius + 1)² cells of [B, Y, X], rounded after each axis, edges repeated."""
    across = 2 * radius + 1
    for window, sides in (((1, across), (radius, radius, 0, 0)), ((across, 1), (0, 0, radius, radius))):
        image = torch.floor(avg_pool2d(pad(image[:, None], sides, mode="replicate"), window, stride=1)[:, 0] + 0.5)
    return image
