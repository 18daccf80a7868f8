"""Points to voxels: the mean of the first points of each (hard voxelisation and HardSimpleVFE of mmdetection3d)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Voxels:
    """N voxels that hold points.

    Attributes:
        features: [N, C].
        coordinates: [N, 4] int64: sample, z, y, x; no two alike.
        shape: number of voxels along z, y and x.
        batch_size: B.
    """

    features: Tensor
    coordinates: Tensor
    shape: tuple[int, int, int]
    batch_size: int


def voxelise(
    points: Tensor,
    sample: Tensor,
    batch_size: int,
    pc_range: Tensor,
    voxel_size: Tensor,
    shape: tuple[int, int, int],
    max_points: int,
    max_voxels: int,
) -> Voxels:
    """Mean of the first `max_points` points of every voxel, voxels in the order of their first point.

    Points outside pc_range, points beyond the last voxel of `shape` and points that are not finite belong to no voxel.

    Args:
        points: [P, C >= 3] x, y, z (m) and more.
        sample: [P] int64, the sample of each point, rising.
        batch_size: B.
        pc_range: [6].
        voxel_size: [3] metres along x, y, z.
        shape: number of voxels along z, y and x.
        max_points: points that count per voxel.
        max_voxels: voxels that count per sample; later ones are left out.

    Returns:
        Voxels of `shape`.
    """
    cell = ((points[:, :3].float() - pc_range[:3]) / voxel_size).floor()
    grid = ((pc_range[3:] - pc_range[:3]) / voxel_size).round()
    limit = torch.minimum(grid, grid.new_tensor([shape[2], shape[1], shape[0]]))
    inside = ((cell >= 0) & (cell < limit)).all(1) & points.isfinite().all(1)
    points, sample, x, y, z = points[inside], sample[inside], *cell[inside].long().unbind(1)
    key = ((sample * shape[0] + z) * shape[1] + y) * shape[2] + x
    order = key.argsort(stable=True)
    keys, voxel, counts = key[order].unique_consecutive(return_inverse=True, return_counts=True)  # type: ignore[no-untyped-call]
    starts = counts.cumsum(0) - counts
    rank = torch.arange(len(order), device=points.device) - starts[voxel]
    counted = rank < max_points
    slots = points.new_zeros(len(keys), max_points, points.shape[1])
    slots[voxel[counted], rank[counted]] = points[order[counted]]
    means = slots.sum(1) / counts.clamp(max=max_points)[:, None]

    seen = order[starts].argsort()
    means, keys = means[seen], keys[seen]
    of_sample = keys // (shape[0] * shape[1] * shape[2])
    in_sample = torch.bincount(of_sample, minlength=batch_size)
    number = torch.arange(len(keys), device=points.device) - (in_sample.cumsum(0) - in_sample)[of_sample]
    kept = number < max_voxels
    keys = keys[kept]
    rest, x = keys // shape[2], keys % shape[2]
    rest, y = rest // shape[1], rest % shape[1]
    coordinates = torch.stack([rest // shape[0], rest % shape[0], y, x], 1)
    return Voxels(means[kept], coordinates, shape, batch_size)
