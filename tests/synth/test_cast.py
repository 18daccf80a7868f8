"""The ray caster against every ray tried on every solid, in double precision."""

import numpy as np
import pytest

from aqr.geometry import Pose, quaternion_from_yaw
from aqr.synth.cast import Depth, camera_windows, cast, draw_order, hit_normals, lidar_windows, local_planes
from aqr.synth.lidar import COLUMNS, ELEVATIONS
from aqr.synth.solids import Solids, ball, bar, block, prism

GREY = (0.3, 0.3, 0.3)


def clutter(rng: np.random.Generator, count: int) -> tuple[Solids, np.ndarray]:
    """Solids of every kind around the origin, none of which contains it, and owners for some of them."""
    parts, owners = [], []
    for index in range(count):
        size = rng.uniform(0.2, 4.0, 3)
        kind = index % 4
        if kind == 0:
            x, y, z = ((-s / 2, s / 2) for s in size)
            part = block(x, y, z, GREY, top_x=(x[0] * 0.5, x[1] * 0.9))
        elif kind == 1:
            part = prism(index % 3, (0.0, 0.0), (-size[0], size[0]), size[1], GREY, sides=6 + index % 7, top_scale=0.6)
        elif kind == 2:
            part = ball((0.0, 0.0, 0.0), tuple(size), GREY)
        else:
            part = bar((0.0, 0.0, 0.0), tuple(rng.normal(0, 2, 3)), 0.3, 0.5, GREY)
        angle, gap = rng.uniform(-np.pi, np.pi), rng.uniform(8.0, 40.0)
        parts.append(part.placed(gap * np.cos(angle), gap * np.sin(angle), rng.uniform(-2, 2), rng.uniform(-3, 3)))
        owners.append(index // 2 if index % 5 else -1)
    return Solids.stack(parts), np.array(owners)


def every_ray(solids: Solids, sensor: Pose, rays: np.ndarray) -> np.ndarray:
    """[K, P] ray parameter at which each solid is entered, inf where missed."""
    directions = rays @ sensor.rotation.T
    entry = np.full((len(solids), len(rays)), np.inf)
    for k in range(len(solids)):
        low, high = np.zeros(len(rays)), np.full(len(rays), np.inf)
        for n, c in zip(solids.normals[k, : solids.planes[k]], solids.offsets[k, : solids.planes[k]], strict=True):
            slope, room = directions @ n, c - sensor.translation @ n
            with np.errstate(divide="ignore", invalid="ignore"):
                s = room / slope
            low = np.where(slope < 0, np.maximum(low, s), low)
            high = np.where(slope > 0, np.minimum(high, s), high)
            high = np.where((slope == 0) & (room < 0), -1.0, high)
        entry[k] = np.where(low < high, low, np.inf)
    return entry


def check(depth: Depth, solids: Solids, owners: np.ndarray, sensor: Pose, rays: np.ndarray) -> None:
    entry = every_ray(solids, sensor, rays)
    first = entry.min(axis=0)
    found = np.where(depth.inverse.ravel() > 0, 1 / np.maximum(depth.inverse.ravel(), 1e-9), np.inf)
    edge = np.isfinite(first) != np.isfinite(found)
    assert edge.mean() < 2e-3, "only grazing rays may differ"
    both = np.isfinite(first) & np.isfinite(found)
    assert both.sum() > 500
    off = np.abs(found[both] - first[both]) > 1e-3 * first[both]
    assert off.mean() < 2e-3
    exact = np.isclose(entry.argmin(axis=0)[both], depth.solid.ravel()[both])
    assert exact.mean() > 0.995
    for owner in range(int(owners.max()) + 1):
        alone = np.isfinite(entry[owners == owner]).any(axis=0).sum() if (owners == owner).any() else 0
        assert abs(depth.silhouette[owner] - alone) <= 3 + 0.01 * alone
        seen = (owners[depth.solid.ravel()] == owner)[depth.solid.ravel() >= 0].sum()
        assert depth.visible[owner] == seen <= max(depth.silhouette[owner], seen)


def run(solids: Solids, owners: np.ndarray, sensor: Pose, windows, nearest, columns, rows) -> Depth:  # type: ignore[no-untyped-def]
    planes, _, facing = local_planes(solids, sensor)
    usable = (windows[:, 1] > windows[:, 0]) & (windows[:, 3] > windows[:, 2]) & (facing > 0)
    return cast(
        planes, facing, solids.planes, windows, draw_order(usable, nearest, owners), owners, int(owners.max()) + 1,
        columns, rows, np.zeros((len(rows), len(columns)), np.float32), nearest, silhouettes=True,
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_camera(seed: int) -> None:
    rng = np.random.default_rng(seed)
    solids, owners = clutter(rng, 40)
    camera = Pose(np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]), rng.normal(0, 0.3, 3))
    size, intrinsic = (60, 110), np.array([[40.0, 0, 55], [0, 40, 30], [0, 0, 1]])
    columns, rows = np.zeros((110, 3)), np.zeros((60, 3))
    columns[:, 0] = (np.arange(110) + 0.5 - 55) / 40
    rows[:, 1], rows[:, 2] = (np.arange(60) + 0.5 - 30) / 40, 1.0
    corners = (solids.corners - camera.translation) @ camera.rotation
    windows, nearest = camera_windows(corners, intrinsic, size)
    depth = run(solids, owners, camera, windows, nearest, columns, rows)
    check(depth, solids, owners, camera, (columns[None] + rows[:, None]).reshape(-1, 3))


@pytest.mark.parametrize("seed", range(4))
def test_lidar(seed: int) -> None:
    rng = np.random.default_rng(seed)
    solids, owners = clutter(rng, 40)
    lidar = Pose.from_quaternion(quaternion_from_yaw(float(rng.uniform(-3, 3))), [0.2, -0.3, 0.1])
    first = float(rng.uniform(-3, 3))
    azimuth = first - 2 * np.pi / COLUMNS * np.arange(COLUMNS)
    columns = np.stack([np.cos(azimuth), np.sin(azimuth), np.zeros(COLUMNS)], axis=1)
    rows = np.stack([np.zeros(32), np.zeros(32), np.tan(ELEVATIONS)], axis=1)
    corners = (solids.corners - lidar.translation) @ lidar.rotation
    windows, nearest = lidar_windows(corners, COLUMNS, first, np.tan(ELEVATIONS))
    depth = run(solids, owners, lidar, windows, nearest, columns, rows)
    check(depth, solids, owners, lidar, (columns[None] + rows[:, None]).reshape(-1, 3))


def test_normals_are_those_of_the_face_that_is_hit() -> None:
    box = block((4.0, 6.0), (-1.0, 1.0), (-1.0, 1.0), GREY)
    planes, offsets, facing = local_planes(box, Pose.identity())
    rays = np.array([[1.0, 0.0, 0.0], [1.0, 0.2, 0.1]], np.float32)
    normals = hit_normals(planes, offsets, facing, np.zeros(2, np.int32), rays)
    assert np.allclose(normals, [-1.0, 0.0, 0.0], atol=1e-6)
    ramp = block((4.0, 6.0), (-1.0, 1.0), (-1.0, 1.0), GREY, top_x=(6.0, 6.0))
    planes, offsets, facing = local_planes(ramp, Pose.identity())
    normal = hit_normals(planes, offsets, facing, np.zeros(1, np.int32), rays[:1])[0]
    assert np.allclose(normal, [-np.sqrt(0.5), 0.0, np.sqrt(0.5)], atol=1e-6)
