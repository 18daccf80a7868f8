"""One ray caster for LiDAR and cameras: solids into an inverse-depth buffer.

Both sensors look along rays that split into a column and a row term: a camera's ray through pixel (u, v) is
((u - cx)/fx, 0, 0) + (0, (v - cy)/fy, 1), a spinning LiDAR's is (cos a, sin a, 0) + (0, 0, tan e). A half-space
n · x <= c, in the sensor's frame, cuts the ray s·r where w = 1/s satisfies w <= n·r/c if the sensor is outside of it
(c < 0) and w >= n·r/c if inside. A convex solid is hit iff the least upper bound exceeds the greatest lower one, and
w, linear along rows and columns, then costs an outer sum per half-space over the solid's rectangle only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from aqr.geometry import BOX_EDGES, Pose
from aqr.synth.solids import Solids

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]

NEAR: Final = 0.3
"""Metres in front of a camera where solids are cut off."""

_EDGES: Final = np.array(BOX_EDGES)


@dataclass(frozen=True)
class Depth:
    """What each ray meets first.

    Attributes:
        inverse: [H, W] float32, 1 / s of the hit along the unnormalised ray; 0 where nothing is hit.
        solid: [H, W] int32, index of the solid hit, -1 for the background.
        visible: [N] rays that end on each owner.
        silhouette: [N] rays that would end on each owner if it stood alone.
    """

    inverse: npt.NDArray[np.float32]
    solid: npt.NDArray[np.int32]
    visible: Ints
    silhouette: Ints


def local_planes(solids: Solids, sensor: Pose) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], Ints]:
    """Half-spaces of world solids in a sensor's frame, those that the sensor is outside of first.

    Returns:
        normals / offset [K, F, 3], offsets [K, F], and how many of them face the sensor [K].
    """
    offsets = solids.offsets - solids.normals @ sensor.translation
    normals = solids.normals @ sensor.rotation
    offsets = np.where(np.abs(offsets) < 1e-6, 1e-6, offsets)
    order = np.argsort(offsets >= 0, axis=1, kind="stable")
    offsets = np.take_along_axis(offsets, order, axis=1)
    normals = np.take_along_axis(normals, order[..., None], axis=1)
    planes = (normals / offsets[..., None]).astype(np.float32)
    return planes, offsets.astype(np.float32), (offsets < 0).sum(axis=1)


def camera_windows(corners: Floats, intrinsic: Floats, size: tuple[int, int]) -> tuple[Ints, Floats]:
    """Image rectangles that contain each solid.

    Args:
        corners: [K, 8, 3] in the camera frame.
        intrinsic: [3, 3].
        size: image (height, width).

    Returns:
        [K, 4] (row start, row end, column start, column end), empty where invisible, and [K] least depth in metres.
    """
    a, b = corners[:, _EDGES[:, 0]], corners[:, _EDGES[:, 1]]
    za, zb = a[..., 2], b[..., 2]
    crossing = (za < NEAR) != (zb < NEAR)
    share = np.where(crossing, (NEAR - za) / np.where(crossing, zb - za, 1.0), 0.0)
    points = np.concatenate([corners, a + share[..., None] * (b - a)], axis=1)
    valid = np.concatenate([corners[..., 2] >= NEAR, crossing], axis=1)
    depth = np.where(valid, np.maximum(points[..., 2], NEAR), 1.0)
    u = points[..., 0] / depth * intrinsic[0, 0] + intrinsic[0, 2]
    v = points[..., 1] / depth * intrinsic[1, 1] + intrinsic[1, 2]
    height, width = size
    low_u, high_u = np.where(valid, u, np.inf).min(1), np.where(valid, u, -np.inf).max(1)
    low_v, high_v = np.where(valid, v, np.inf).min(1), np.where(valid, v, -np.inf).max(1)
    windows = np.stack(
        [
            np.clip(np.floor(low_v - 0.5), 0, height),
            np.clip(np.ceil(high_v + 0.5), 0, height),
            np.clip(np.floor(low_u - 0.5), 0, width),
            np.clip(np.ceil(high_u + 0.5), 0, width),
        ],
        axis=1,
    )
    nearest = np.where(valid, points[..., 2], np.inf).min(1)
    return windows.astype(np.int64), nearest


def lidar_windows(corners: Floats, columns: int, first_azimuth: float, tangents: Floats) -> tuple[Ints, Floats]:
    """Range-image rectangles that contain each solid.

    Args:
        corners: [K, 8, 3] in the LiDAR frame.
        columns: number of azimuth steps, clockwise.
        first_azimuth: of column 0, radians.
        tangents: [32] tangent of the elevation of each row, ascending.

    Returns:
        [K, 4] as in `camera_windows`, where column ends may exceed `columns` (wrapped), and [K] least distance.
    """
    footprint = corners[:, :4, :2]
    upper = corners[:, 4:, :2]
    azimuth = np.arctan2(corners[..., 1], corners[..., 0])
    middle = corners[..., :2].mean(axis=1)
    centre = np.arctan2(middle[:, 1], middle[:, 0])
    spread = (azimuth - centre[:, None] + np.pi) % (2 * np.pi) - np.pi
    step = 2 * np.pi / columns
    first = (first_azimuth - (centre + spread.max(1))) / step
    last = (first_azimuth - (centre + spread.min(1))) / step
    turns = np.floor(first / columns) * columns
    first, last = np.floor(first - turns), np.ceil(last - turns) + 1
    nearest = np.minimum(_distance(footprint), _distance(upper))
    farthest = np.linalg.norm(corners[..., :2], axis=2).max(1)
    bottom, top = corners[..., 2].min(1), corners[..., 2].max(1)
    near = np.maximum(nearest, 1e-3)
    low = np.where(bottom < 0, bottom / near, bottom / farthest)
    high = np.where(top > 0, top / near, top / farthest)
    rows = np.searchsorted(tangents, np.stack([low, high]))
    around = nearest < 1e-3
    first, last = np.where(around, 0, first), np.where(around, columns, np.minimum(last, first + columns))
    return np.stack([rows[0], rows[1], first, last], axis=1).astype(np.int64), nearest


def _distance(quad: Floats) -> Floats:
    """Horizontal distance [K] from the origin to quadrilaterals [K, 4, 2]; 0 inside."""
    a, b = quad, np.roll(quad, -1, axis=1)
    edge = b - a
    share = np.clip(-(a * edge).sum(-1) / np.maximum((edge * edge).sum(-1), 1e-12), 0, 1)
    gap = np.linalg.norm(a + share[..., None] * edge, axis=-1).min(1)
    side = edge[..., 0] * -a[..., 1] + edge[..., 1] * a[..., 0]
    inside = (side > 0).all(1) | (side < 0).all(1)
    return np.where(inside, 0.0, gap)


def cast(
    planes: npt.NDArray[np.float32],
    facing: Ints,
    counts: Ints,
    windows: Ints,
    order: Ints,
    owners: Ints,
    owner_count: int,
    column_rays: Floats,
    row_rays: Floats,
    background: npt.NDArray[np.float32],
    nearest: Floats,
    silhouettes: bool,
) -> Depth:
    """Draw solids into an inverse-depth buffer.

    Args:
        planes: [K, F, 3] normals / offset in the sensor's frame, facing ones first (see `local_planes`).
        facing: [K] number of half-spaces that the sensor is outside of.
        counts: [K] number of half-spaces in use.
        windows: [K, 4] rectangles; columns beyond W wrap around.
        order: indices of the solids to draw, owner by owner (solids of one owner adjacent), near ones first.
        owners: [K] index of the annotated object that a solid belongs to, -1 for the scenery.
        owner_count: number of annotated objects.
        column_rays: [W, 3].
        row_rays: [H, 3].
        background: [H, W] inverse depth of what lies behind everything.
        nearest: [K] least s of each solid; one that lies behind all of its rectangle is skipped.
        silhouettes: count what each owner would cover if it stood alone.
    """
    inverse = background.copy()
    solid = np.full(inverse.shape, -1, dtype=np.int32)
    silhouette = np.zeros(owner_count, dtype=np.int64)
    columns, rows = column_rays.T.astype(np.float32), row_rays.T.astype(np.float32)
    closest = 1 / np.maximum(nearest, 1e-6)
    width = columns.shape[1]
    for group in _groups(order, owners):
        owner = int(owners[group[0]])
        alone: npt.NDArray[np.bool_] | None = None
        if owner >= 0 and silhouettes:
            j0, i0 = windows[group, 0].min(), windows[group, 2].min()
            alone = np.zeros((windows[group, 1].max() - j0, windows[group, 3].max() - i0), dtype=bool)
        for k in group:
            r0, r1, c0, c1 = windows[k]
            for start, end, shift in ((c0, min(c1, width), 0), (max(c0, width), c1, width)):
                if end <= start:
                    continue
                piece = np.s_[r0:r1, start - shift : end - shift]
                buffer = inverse[piece]
                if alone is None and buffer.min() > closest[k]:
                    continue
                n, front = planes[k, : counts[k]], int(facing[k])
                across, down = n @ columns[:, piece[1]], n @ rows[:, piece[0]]
                entry = (across[:front, None, :] + down[:front, :, None]).min(axis=0)
                leave = (across[front:, None, :] + down[front:, :, None]).max(axis=0, initial=0.0)
                hit = entry > leave
                if alone is not None:
                    alone[r0 - j0 : r1 - j0, start - i0 : end - i0] |= hit
                hit &= entry > buffer
                np.copyto(buffer, entry, where=hit)
                np.copyto(solid[piece], np.int32(k), where=hit)
        if alone is not None:
            silhouette[owner] = np.count_nonzero(alone)
    seen = owners[solid[solid >= 0]]
    visible = np.bincount(seen[seen >= 0], minlength=owner_count)
    return Depth(inverse, solid, visible, silhouette)


def _groups(order: Ints, owners: Ints) -> list[Ints]:
    """Runs of solids that share an owner; the scenery goes one by one."""
    if len(order) == 0:
        return []
    owner = owners[order]
    cut = np.flatnonzero((np.diff(owner) != 0) | (owner[1:] < 0)) + 1
    return np.split(order, cut)


def draw_order(usable: npt.NDArray[np.bool_], nearest: Floats, owners: Ints) -> Ints:
    """Usable solids from near to far, those of one owner side by side at the distance of its nearest one."""
    index = np.flatnonzero(usable)
    owner = owners[index]
    distance = nearest[index].copy()
    owned = owner >= 0
    closest = np.full(int(owners.max(initial=0)) + 1, np.inf)
    np.minimum.at(closest, owner[owned], distance[owned])
    distance[owned] = closest[owner[owned]]
    return np.asarray(index[np.lexsort((owner, distance))])


def hit_normals(
    planes: npt.NDArray[np.float32],
    offsets: npt.NDArray[np.float32],
    facing: Ints,
    solid: npt.NDArray[np.int32],
    rays: Floats,
) -> npt.NDArray[np.float32]:
    """Outward unit normals, in the sensor's frame, of the faces that rays hit.

    Args:
        planes: [K, F, 3] normals / offset, facing ones first.
        offsets: [K, F].
        facing: [K].
        solid: [P] solid that each ray hits.
        rays: [P, 3].

    Returns:
        [P, 3].
    """
    visible = facing[solid]
    x, y, z = (np.ascontiguousarray(rays[:, i]) for i in range(3))
    tables = [np.ascontiguousarray(planes[..., i]) for i in range(3)]
    best = np.full(len(solid), np.inf, dtype=np.float32)
    face = np.zeros(len(solid), dtype=np.int64)
    rows = np.arange(len(solid))
    for f in range(int(visible.max(initial=0))):
        if f >= 3:
            rows = rows[visible[rows] > f]
        subset = slice(None) if f < 3 else rows
        chosen = solid[subset]
        a, b, c = (table[:, f][chosen] for table in tables)
        bound = a * x[subset] + b * y[subset] + c * z[subset]
        nearer = (bound < best[subset]) & (visible[subset] > f)
        index = rows[nearer]
        best[index] = bound[nearer]
        face[index] = f
    scale = offsets[solid, face]
    normals: npt.NDArray[np.float32] = np.stack([table[solid, face] * scale for table in tables], axis=1)
    return normals
