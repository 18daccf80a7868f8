"""What cameras and LiDARs see of moments: solids in each view's frame, in the order in which they are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aqr.synth.cast import NEAR
from aqr.synth.device.cast import Views
from aqr.synth.device.pool import Moments, Pool, constant, dot, turned
from aqr.synth.lidar import BEAMS, COLUMNS, FIRST_AZIMUTH, REACH


@dataclass(frozen=True)
class Eyes:
    """Where V sensors are, street frame.

    Attributes:
        shot: [V] int64 which moment each looks at.
        rotation: [V, 3, 3] float64 of the sensor frame.
        translation: [V, 3] float64, metres.
    """

    shot: Tensor
    rotation: Tensor
    translation: Tensor


def local_planes(moments: Moments, eyes: Eyes) -> tuple[Tensor, Tensor]:
    """Half-spaces as `Views.planes` [V, K, F, 4], and whether the sensor is outside of a solid [V, K]."""
    normals = moments.normals[eyes.shot]
    offsets = moments.offsets[eyes.shot] - dot(normals, eyes.translation[:, None, None])
    offsets = torch.where(offsets.abs() < 1e-6, 1e-6, offsets)
    planes = torch.empty(*offsets.shape, 4, device=offsets.device)
    planes[..., :3] = turned(normals, eyes.rotation.mT[:, None, None]) / offsets[..., None]
    front = offsets < 0
    planes[..., 3] = front
    return planes, front.any(-1)


def _local_corners(moments: Moments, eyes: Eyes) -> Tensor:
    """[V, K, 8, 3] in the sensors' frames."""
    return turned(moments.corners[eyes.shot] - eyes.translation[:, None, None], eyes.rotation.mT[:, None, None])


def camera_views(
    pool: Pool, moments: Moments, eyes: Eyes, intrinsic: npt.NDArray[np.float64], size: tuple[int, int]
) -> Views:
    """Cameras.

    Args:
        pool: of the scenes.
        moments: that are seen.
        eyes: camera frames, x right, y down, z forward.
        intrinsic: [V, 3, 3]; a negative focal length mirrors.
        size: image (height, width) of all of them.
    """
    height, width = size
    planes, outside = local_planes(moments, eyes)
    corners = _local_corners(moments, eyes)
    matrix = torch.from_numpy(intrinsic).to(pool.device, non_blocking=True)
    windows, nearest = _camera_windows(corners, matrix, size)
    columns = torch.zeros(len(matrix), width, 3, dtype=torch.float64, device=pool.device)
    rows = torch.zeros(len(matrix), height, 3, dtype=torch.float64, device=pool.device)
    u = torch.arange(width, device=pool.device) + 0.5
    v = torch.arange(height, device=pool.device) + 0.5
    columns[..., 0] = (u - matrix[:, 0, 2, None]) / matrix[:, 0, 0, None]
    rows[..., 1] = (v - matrix[:, 1, 2, None]) / matrix[:, 1, 1, None]
    rows[..., 2] = 1.0
    usable = (windows[..., 1] > windows[..., 0]) & (windows[..., 3] > windows[..., 2]) & outside
    ground = -eyes.rotation[:, 2] / eyes.translation[:, 2, None]
    return _views(pool, moments, eyes, planes, windows, nearest, usable, columns, rows, ground, roof=False)


def lidar_views(pool: Pool, moments: Moments, eyes: Eyes) -> Views:
    """Revolutions of LiDARs, [V, BEAMS, COLUMNS] rays."""
    planes, outside = local_planes(moments, eyes)
    corners = _local_corners(moments, eyes)
    windows, nearest = _lidar_windows(corners)
    usable = (windows[..., 1] > windows[..., 0]) & (nearest < REACH) & outside
    columns = constant("column_rays", pool.device).expand(len(planes), COLUMNS, 3)
    rows = constant("row_rays", pool.device).expand(len(planes), BEAMS, 3)
    ground = -eyes.rotation[:, 2] / eyes.translation[:, 2, None]
    return _views(pool, moments, eyes, planes, windows, nearest, usable, columns, rows, ground, roof=True)


def _views(
    pool: Pool,
    moments: Moments,
    eyes: Eyes,
    planes: Tensor,
    windows: Tensor,
    nearest: Tensor,
    usable: Tensor,
    columns: Tensor,
    rows: Tensor,
    ground: Tensor,
    roof: bool,
) -> Views:
    scene = moments.scene[eyes.shot]
    owners, counts = pool.owners[scene], pool.planes[scene]
    usable = usable & (counts > 0)
    if not roof:
        usable[:, -1] = False
    order, distance = draw_order(usable, nearest, owners, pool.most_actors)
    return Views(
        planes=planes,
        counts=counts.gather(1, order),
        windows=windows.gather(1, order[..., None].expand(-1, -1, 4)).int(),
        order=order.int(),
        limits=(1 / distance.clamp(min=1e-6)).float(),
        owners=owners.gather(1, order).int(),
        number=usable.sum(1).int(),
        columns=columns.float().contiguous(),
        rows=rows.float().contiguous(),
        ground=ground.float().contiguous(),
        owner_count=pool.most_actors,
    )


def draw_order(usable: Tensor, nearest: Tensor, owners: Tensor, owner_count: int) -> tuple[Tensor, Tensor]:
    """[V, K] solids from near to far, those of one owner side by side at the distance of its nearest one, unusable
    ones last; and [V, K] that distance, in the order."""
    distance = torch.where(usable, nearest, torch.inf)
    place = torch.where(owners >= 0, owners, owner_count)
    closest = torch.full((len(owners), owner_count + 1), torch.inf, dtype=distance.dtype, device=distance.device)
    closest.scatter_reduce_(1, place, distance, "amin")
    distance = torch.where((owners >= 0) & usable, closest.gather(1, place), distance)
    by_owner = torch.sort(owners, dim=1, stable=True).indices
    ordered, again = torch.sort(distance.gather(1, by_owner), dim=1, stable=True)
    return by_owner.gather(1, again), ordered


def _camera_windows(corners: Tensor, intrinsic: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """As `aqr.synth.cast.camera_windows`, for corners [V, K, 8, 3] and matrices [V, 3, 3]."""
    edges = constant("edges", corners.device)
    a, b = corners[:, :, edges[:, 0]], corners[:, :, edges[:, 1]]
    za, zb = a[..., 2], b[..., 2]
    crossing = (za < NEAR) != (zb < NEAR)
    share = torch.where(crossing, (NEAR - za) / torch.where(crossing, zb - za, 1.0), 0.0)
    points = torch.cat([corners, a + share[..., None] * (b - a)], dim=2)
    valid = torch.cat([corners[..., 2] >= NEAR, crossing], dim=2)
    depth = torch.where(valid, points[..., 2].clamp(min=NEAR), 1.0)
    matrix = intrinsic[:, None, None]
    u = points[..., 0] / depth * matrix[..., 0, 0] + matrix[..., 0, 2]
    v = points[..., 1] / depth * matrix[..., 1, 1] + matrix[..., 1, 2]
    height, width = size
    low_u, high_u = _span(u, valid)
    low_v, high_v = _span(v, valid)
    windows = torch.stack(
        [
            (low_v - 0.5).floor().clamp(0, height),
            (high_v + 0.5).ceil().clamp(0, height),
            (low_u - 0.5).floor().clamp(0, width),
            (high_u + 0.5).ceil().clamp(0, width),
        ],
        dim=-1,
    )
    return windows.long(), torch.where(valid, points[..., 2], torch.inf).amin(2)


def _span(values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    return torch.where(valid, values, torch.inf).amin(2), torch.where(valid, values, -torch.inf).amax(2)


def _lidar_windows(corners: Tensor) -> tuple[Tensor, Tensor]:
    """As `aqr.synth.cast.lidar_windows`, for corners [V, K, 8, 3]."""
    turn, step = 2 * np.pi, 2 * np.pi / COLUMNS
    azimuth = torch.atan2(corners[..., 1], corners[..., 0])
    middle = corners[..., :2].mean(dim=2)
    centre = torch.atan2(middle[..., 1], middle[..., 0])
    spread = torch.remainder(azimuth - centre[..., None] + np.pi, turn) - np.pi
    first = (FIRST_AZIMUTH - (centre + spread.amax(2))) / step
    last = (FIRST_AZIMUTH - (centre + spread.amin(2))) / step
    turns = (first / COLUMNS).floor() * COLUMNS
    first, last = (first - turns).floor(), (last - turns).ceil() + 1
    nearest = torch.minimum(_distance(corners[:, :, :4, :2]), _distance(corners[:, :, 4:, :2]))
    farthest = torch.linalg.vector_norm(corners[..., :2], dim=-1).amax(2)
    bottom, top = corners[..., 2].amin(2), corners[..., 2].amax(2)
    near = nearest.clamp(min=1e-3)
    low = torch.where(bottom < 0, bottom / near, bottom / farthest)
    high = torch.where(top > 0, top / near, top / farthest)
    tangents = constant("tangents", corners.device)
    start, end = torch.searchsorted(tangents, low.contiguous()), torch.searchsorted(tangents, high.contiguous())
    around = nearest < 1e-3
    first = torch.where(around, 0.0, first)
    last = torch.where(around, float(COLUMNS), torch.minimum(last, first + COLUMNS))
    return torch.stack([start, end, first.long(), last.long()], dim=-1), nearest


def _distance(quad: Tensor) -> Tensor:
    """Horizontal distance [V, K] from the origin to quadrilaterals [V, K, 4, 2]; 0 inside."""
    a, b = quad, quad.roll(-1, dims=2)
    edge = b - a
    share = (-(a * edge).sum(-1) / (edge * edge).sum(-1).clamp(min=1e-12)).clamp(0, 1)
    gap = torch.linalg.vector_norm(a + share[..., None] * edge, dim=-1).amin(2)
    side = edge[..., 0] * -a[..., 1] + edge[..., 1] * a[..., 0]
    inside = (side > 0).all(2) | (side < 0).all(2)
    return torch.where(inside, 0.0, gap)


def eyes_at(
    pool: Pool, shots: Sequence[int], rotation: npt.NDArray[np.float64], translation: npt.NDArray[np.float64]
) -> Eyes:
    """Sensors of moments number `shots` at rotations [V, 3, 3] and translations [V, 3]."""
    return Eyes(
        torch.tensor(list(shots)).to(pool.device, non_blocking=True),
        torch.from_numpy(np.ascontiguousarray(rotation)).to(pool.device, non_blocking=True),
        torch.from_numpy(np.ascontiguousarray(translation)).to(pool.device, non_blocking=True),
    )
