"""LiDAR failures against counting beams, angles and points one by one."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aqr.data.failures import lidar
from aqr.data.failures.catalogue import KIND_OF
from aqr.data.index import open_index
from aqr.data.points import read_scan
from aqr.geometry import points_in_boxes


def sweep_of(beams: int, columns: int, metres: float = 20.0, intensity: float = 30.0) -> lidar.Points:
    """A full turn of an HDL-32E at one range; beams from the bottom."""
    elevation = np.radians(-30.67 + 4 / 3 * np.arange(beams))
    azimuth = np.linspace(-np.pi, np.pi, columns, endpoint=False) + 1e-3
    points = np.empty((beams, columns, 5), dtype=np.float32)
    points[..., 0] = metres * np.cos(elevation)[:, None] * np.sin(azimuth)
    points[..., 1] = metres * np.cos(elevation)[:, None] * np.cos(azimuth)
    points[..., 2] = metres * np.sin(elevation)[:, None]
    points[..., 3] = intensity
    points[..., 4] = np.arange(beams)[:, None]
    return points.reshape(-1, 5)


def rows(points: lidar.Points) -> set[bytes]:
    return {row.tobytes() for row in points}


@pytest.mark.parametrize(
    ("count", "rings"), [(16, range(1, 32, 2)), (8, range(1, 32, 4)), (4, (1, 9, 17, 25)), (32, range(32))]
)
def test_beams_left_are_those_of_the_benchmark(count: int, rings: range) -> None:
    points = sweep_of(32, 50)
    left = lidar.keep_beams(points, count)
    assert sorted(set(left[:, 4].tolist())) == list(rings)
    assert len(left) == 50 * count


@given(absent=st.sets(st.integers(0, 31), max_size=29), count=st.sampled_from([16, 8, 4]))
@example(absent={31}, count=4)
def test_beams_without_a_return_do_not_change_which_of_the_others_are_left(absent: set[int], count: int) -> None:
    points = sweep_of(32, 3)
    seen = points[~np.isin(points[:, 4], list(absent))]
    left = lidar.keep_beams(points, count)
    np.testing.assert_array_equal(lidar.keep_beams(seen, count), left[~np.isin(left[:, 4], list(absent))])


@pytest.mark.parametrize("ring", [0.0, 0.5])
def test_beams_without_a_ring_index_come_from_elevation(ring: float) -> None:
    points = sweep_of(32, 50)
    unnamed = points.copy()
    unnamed[:, 4] = ring
    np.testing.assert_array_equal(lidar.keep_beams(unnamed, 4)[:, :3], lidar.keep_beams(points, 4)[:, :3])


@given(beams=st.integers(32, 128), count=st.sampled_from([16, 8, 4]))
def test_any_lidar_keeps_the_beams_asked_for(beams: int, count: int) -> None:
    points = np.zeros((beams, 5), dtype=np.float32)
    points[:, 4] = np.arange(beams)
    assert len(lidar.keep_beams(points, count)) == min(count, beams)


def test_beams_of_the_real_sweep(real_frame: Path) -> None:
    index = open_index(real_frame, "v1.0-mini")
    points = read_scan(real_frame / index.scans.path[index.samples.scan[0]].decode())
    per_ring = np.bincount(points[:, 4].astype(int), minlength=32)
    assert (per_ring > 500).all()
    for count, rings in ((16, [*range(1, 32, 2)]), (8, [*range(1, 32, 4)]), (4, [1, 9, 17, 25])):
        assert len(lidar.keep_beams(points, count)) == per_ring[rings].sum()
    unnamed = points.copy()
    unnamed[:, 4] = 0
    derived, _ = lidar.beams_of(unnamed)
    far = np.linalg.norm(points[:, :3], axis=1) > 3
    assert (abs(derived - points[:, 4]) <= 1)[far].mean() > 0.95


def test_what_lies_outside_the_field_of_view_is_gone() -> None:
    points = sweep_of(4, 720)
    for degrees, count in ((90.0, 360), (60.0, 240), (35.0, 140)):
        left = lidar.limit_view(points, degrees)
        forward = left[:, 1] / np.hypot(left[:, 0], left[:, 1])
        assert (forward >= np.cos(np.radians(degrees)) - 1e-6).all()
        assert abs(len(left) - 4 * count) <= 4


def test_a_share_of_the_points_is_lost_and_graver_loses_more() -> None:
    points = sweep_of(32, 100)
    before = points.copy()
    left = [lidar.thin_out(points, share, np.random.default_rng(1)) for share in (0.7, 0.8, 0.9)]
    assert [len(cloud) for cloud in left] == [960, 640, 320]
    assert rows(left[2]) < rows(left[1]) < rows(left[0]) < rows(points)
    azimuth = np.arctan2(left[2][:, 0], left[2][:, 1])
    assert np.histogram(azimuth, 4, (-np.pi, np.pi))[0].min() > 50
    np.testing.assert_array_equal(points, before)


@pytest.mark.parametrize("extinction", KIND_OF["lidar_fog"].strengths)
def test_faint_returns_survive_fog_as_light_does(extinction: float) -> None:
    """Beer and Lambert, there and back: a target at the threshold survives with the chance exp(-2αr)."""
    points = sweep_of(32, 2000, metres=40.0, intensity=1.0)
    foggy = lidar.add_fog(points, extinction, np.random.default_rng(0))
    distance = np.linalg.norm(foggy[:, :3], axis=1)
    share = (distance > 39.9).sum() / len(points)
    chance = np.exp(-2 * extinction * 40)
    assert share == pytest.approx(chance, abs=4 * np.sqrt(chance / len(points)))
    near = distance[distance < 39.9]
    assert len(near)
    assert near.min() > 0.999
    assert near.max() < 10.0


def test_fog_spares_what_is_bright_and_near() -> None:
    points = sweep_of(32, 500, metres=10.0, intensity=80.0)
    foggy = lidar.add_fog(points, 0.06, np.random.default_rng(0))
    np.testing.assert_array_equal(foggy[:, [0, 1, 2, 4]], points[:, [0, 1, 2, 4]])
    np.testing.assert_array_equal(foggy[:, 3], np.round(np.float32(80 * np.exp(-1.2))))


def test_echoes_of_fog_lie_on_the_rays_of_lost_points_and_none_behind_its_target() -> None:
    points = sweep_of(32, 500, metres=30.0, intensity=1.0)
    foggy = lidar.add_fog(points, 0.06, np.random.default_rng(0))
    echoes = foggy[np.linalg.norm(foggy[:, :3], axis=1) < 29]
    rays = points[:, :3] / np.linalg.norm(points[:, :3], axis=1, keepdims=True)
    own = echoes[:, :3] / np.linalg.norm(echoes[:, :3], axis=1, keepdims=True)
    assert len(echoes) > 1000
    assert (own[:200] @ rays.T).max(axis=1).min() > 1 - 1e-6
    close = sweep_of(32, 500, metres=1.2, intensity=1.0)
    assert np.linalg.norm(lidar.add_fog(close, 3.0, np.random.default_rng(0))[:, :3], axis=1).max() < 1.2001


def test_denser_fog_leaves_fewer_of_the_same_points() -> None:
    random = np.random.default_rng(2)
    points = sweep_of(32, 500)
    points[:, :3] *= random.uniform(0.2, 4, (len(points), 1)).astype(np.float32)
    places = []
    for extinction in KIND_OF["lidar_fog"].strengths:
        foggy = lidar.add_fog(points, extinction, np.random.default_rng(1))
        places.append(rows(foggy[:, :3]) & rows(points[:, :3]))
    assert places[2] < places[1] < places[0] < rows(points[:, :3])


def scene_of_boxes() -> tuple[lidar.Points, np.ndarray]:
    """Forty boxes on a grid, each with 30 points and half of those also seen 0.4 s earlier, and a ground."""
    random = np.random.default_rng(5)
    boxes = np.zeros((40, 9), dtype=np.float32)
    boxes[:, 0], boxes[:, 1] = np.arange(40) % 8 * 14 - 49, np.arange(40) // 8 * 14 - 28
    boxes[:, 3:6] = (4, 2, 1.5)
    boxes[:, 6] = random.uniform(-3, 3, 40)
    boxes[:, 7:9] = random.uniform(-9, 9, (40, 2))
    boxes[::7, 7:9] = np.nan
    clouds = []
    for lag in (0.0, 0.4):
        inside = random.uniform(-0.45, 0.45, (40, 30, 3)) * boxes[:, None, 3:6]
        cos, sin = np.cos(boxes[:, 6, None]), np.sin(boxes[:, 6, None])
        moved = boxes[:, :3] - np.c_[np.nan_to_num(boxes[:, 7:9]), np.zeros(40)] * lag
        cloud = np.zeros((40, 30, 5))
        cloud[..., 0] = cos * inside[..., 0] - sin * inside[..., 1] + moved[:, 0, None]
        cloud[..., 1] = sin * inside[..., 0] + cos * inside[..., 1] + moved[:, 1, None]
        cloud[..., 2] = inside[..., 2]
        cloud[..., 3] = np.arange(40)[:, None]
        cloud[..., 4] = lag
        clouds.append(cloud.reshape(-1, 5))
    ground = np.c_[random.uniform(-60, 60, (500, 2)), np.full(500, -3.0), np.full(500, 200.0), np.zeros(500)]
    return np.concatenate([*clouds, ground]).astype(np.float32), boxes


def test_hidden_objects_lose_all_points_now_and_then_and_nothing_else_does() -> None:
    points, boxes = scene_of_boxes()
    hidden_before: set[int] = set()
    for chance in (0.25, 0.5, 0.75):
        left = lidar.hide_objects(points, boxes, chance, np.random.default_rng(3))
        counts = np.array([(left[:, 3] == n).sum() for n in range(40)])
        hidden = {int(n) for n in np.flatnonzero(counts == 0)}
        assert set(counts.tolist()) <= {0, 60}
        assert abs(len(hidden) - 40 * chance) <= 9
        assert (left[:, 3] == 200).sum() == 500
        assert hidden_before < hidden
        hidden_before = hidden
    assert len(lidar.hide_objects(points, boxes, 1.0, np.random.default_rng(3))) == 500
    assert len(lidar.hide_objects(points, boxes[:0], 1.0, np.random.default_rng(3))) == len(points)


def test_points_of_hidden_objects_are_those_the_devkit_counts(real_frame: Path) -> None:
    """With every object hidden, the annotated numbers of points are lost, up to the 29 that do not agree."""
    from aqr.data.points import load_points
    from aqr.data.samples import frame_of, lidar_boxes

    index = open_index(real_frame, "v1.0-mini")
    truth = index.ground_truth(np.array([0]))
    boxes = lidar_boxes(truth, frame_of(index, 0).lidar_to_global)
    points = load_points(index, 0, 0)
    left = lidar.hide_objects(points, boxes, 1.0, np.random.default_rng(0))
    assert abs(len(points) - len(left) - index.annotations.num_lidar_pts[truth.annotation].sum()) <= 29
    assert not points_in_boxes(left, boxes).any()
