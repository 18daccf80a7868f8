"""The ray caster of `aqr.synth.cast` for many views at once, on a GPU or a CPU.

A view is any sensor whose rays split into a column and a row term: a camera, a spinning LiDAR, and the ground seen
along the sun's rays, whose hits are shadows. On a GPU one Triton program draws one tile of one view, nearest solids
first, and stops where all that remains lies behind what it has drawn. On a CPU solids are drawn one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

FACES: Final = 16
"""`Hits.code` holds solid · FACES + face."""


@dataclass(frozen=True)
class Views:
    """V views of up to K solids each, in the order in which they are drawn: near ones first, those of one owner
    adjacent.

    Attributes:
        planes: [V, K, F, 4] float32: normal / offset of each half-space in the view's frame, and 1 where the sensor
            is outside of it, else 0. Indexed by solid, not by place in the order.
        counts: [V, K] int32, half-spaces of each solid in the order.
        windows: [V, K, 4] int32, rectangles (row start, row end, column start, column end) in the order; columns
            beyond W wrap around.
        order: [V, K] int32, which solid is drawn at which place.
        limits: [V, K] float32, in the order: largest inverse depth that this solid or any later one can have.
        owners: [V, K] int32, in the order: whose solid it is, -1 for nobody's.
        number: [V] int32, places in use.
        columns: [V, W, 3] float32, and rows: [V, H, 3], the terms that a ray is the sum of.
        ground: [V, 3] float32: the ground is where ground · ray, if positive, is the inverse depth.
        owner_count: number of owners.
    """

    planes: Tensor
    counts: Tensor
    windows: Tensor
    order: Tensor
    limits: Tensor
    owners: Tensor
    number: Tensor
    columns: Tensor
    rows: Tensor
    ground: Tensor
    owner_count: int


@dataclass(frozen=True)
class Hits:
    """What each ray meets first.

    Attributes:
        inverse: [V, H, W] float32, 1 / s of the hit along the unnormalised ray; 0 where nothing is hit.
        code: [V, H, W] int32, solid · FACES + face, or -1 where no solid is hit.
        silhouette: [V, owners] int32, rays that would end on each owner if it stood alone; None if not asked for.
    """

    inverse: Tensor
    code: Tensor
    silhouette: Tensor | None

    @property
    def solid(self) -> Tensor:
        """[V, H, W] int64, -1 where no solid is hit."""
        return torch.where(self.code >= 0, self.code // FACES, -1).long()


def cast(views: Views, silhouettes: bool = False, plainly: bool | None = None) -> Hits:
    """Draw all views.

    Args:
        views: what to draw.
        silhouettes: count what each owner would cover if it stood alone.
        plainly: one solid after the other in place of the kernel; by default where the views are not on a GPU.
    """
    if views.planes.device.type != "cuda" if plainly is None else plainly:
        return _cast_plainly(views, silhouettes)
    from aqr.synth.device.cast_kernel import launch  # only now: Triton is there where a GPU is

    return launch(views, silhouettes)


def _cast_plainly(views: Views, silhouettes: bool) -> Hits:
    count, height, width = len(views.planes), views.rows.shape[1], views.columns.shape[1]
    ground_across = torch.einsum("vwi,vi->vw", views.columns, views.ground)
    ground_down = torch.einsum("vhi,vi->vh", views.rows, views.ground)
    inverse = (ground_down[:, :, None] + ground_across[:, None, :]).clamp(min=0.0)
    code = torch.full((count, height, width), -1, dtype=torch.int32, device=inverse.device)
    silhouette = torch.zeros(count, views.owner_count, dtype=torch.int32, device=inverse.device)
    for v in range(count):
        number = int(views.number[v])
        order, owners = views.order[v, :number].tolist(), views.owners[v, :number].tolist()
        limits, windows = views.limits[v, :number].tolist(), views.windows[v, :number].tolist()
        counts = views.counts[v, :number].tolist()
        alone, before = torch.zeros_like(code[v], dtype=torch.bool), -1
        for k, owner, limit, (r0, r1, c0, c1), planes in zip(order, owners, limits, windows, counts, strict=True):
            if silhouettes and owner != before:
                if before >= 0:
                    silhouette[v, before] = alone.sum()
                    alone.zero_()
                before = owner
            for start, end, shift in ((c0, min(c1, width), 0), (max(c0, width), c1, width)):
                if end <= start:
                    continue
                piece = (v, slice(r0, r1), slice(start - shift, end - shift))
                buffer = inverse[piece]
                if (not silhouettes or owner < 0) and float(buffer.min()) > limit:
                    continue
                n, front = views.planes[v, k, :planes, :3], views.planes[v, k, :planes, 3] > 0
                across, down = n @ views.columns[v, piece[2]].T, n @ views.rows[v, piece[1]].T
                bounds = across[:, None, :] + down[:, :, None]
                entry, face = torch.where(front[:, None, None], bounds, torch.inf).min(dim=0)
                leave = torch.where(front[:, None, None], 0.0, bounds).amax(dim=0).clamp(min=0.0)
                hit = entry > leave
                if silhouettes and owner >= 0:
                    alone[piece[1:]] |= hit
                hit &= entry > buffer
                buffer[hit] = entry[hit]
                code[piece][hit] = (k * FACES + face[hit]).int()
        if silhouettes and before >= 0:
            silhouette[v, before] = alone.sum()
    return Hits(inverse, code, silhouette if silhouettes else None)
