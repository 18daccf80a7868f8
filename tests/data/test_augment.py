import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aqr.config import BevAugmentation, ImageAugmentation
from aqr.data.augment import draw_bev, draw_image, move_boxes, move_points, move_projections, randomness
from aqr.geometry import box_corners, points_in_boxes, project, wrap_angle

seeds = st.integers(0, 2**32)
everything = BevAugmentation(rotation=3.1, scale=(0.5, 2.0), translation=3.0)


def scene(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    points = random.uniform(-20, 20, (300, 5)).astype(np.float32)
    boxes = np.concatenate(
        [random.uniform(-15, 15, (6, 3)), random.uniform(2, 12, (6, 3)), random.uniform(-3.1, 3.1, (6, 1))], axis=1
    )
    boxes = np.concatenate([boxes, random.normal(0, 5, (6, 2))], axis=1).astype(np.float32)
    lidar2img = random.normal(0, 1, (3, 4, 4))
    lidar2img[:, 3] = [0, 0, 0, 1]
    return points, boxes, lidar2img


@settings(deadline=None)
@given(seed=seeds)
def test_undoing_restores(seed: int) -> None:
    points, boxes, lidar2img = scene(seed)
    matrix = draw_bev(everything, np.random.default_rng(seed))
    back = np.linalg.inv(matrix)
    np.testing.assert_allclose(move_points(move_points(points, matrix), back), points, atol=1e-4)
    restored = move_boxes(move_boxes(boxes, matrix), back)
    restored[:, 6] = boxes[:, 6] + wrap_angle(restored[:, 6] - boxes[:, 6])
    np.testing.assert_allclose(restored, boxes, atol=1e-4)
    np.testing.assert_allclose(move_projections(move_projections(lidar2img, matrix), back), lidar2img, atol=1e-9)


@settings(deadline=None)
@given(seed=seeds)
def test_points_keep_pixel_depth_and_box(seed: int) -> None:
    points, boxes, lidar2img = scene(seed)
    matrix = draw_bev(everything, np.random.default_rng(seed))
    moved = move_points(points, matrix)
    np.testing.assert_array_equal(moved[:, 3:], points[:, 3:])
    before, depth_before = project(points[:, :3].astype(np.float64), lidar2img)
    after, depth_after = project(
        np.c_[points[:, :3].astype(np.float64), np.ones(len(points))] @ matrix.T[:, :3],
        move_projections(lidar2img, matrix),
    )
    clear = abs(depth_before - 0.1) > 1e-6
    np.testing.assert_allclose(depth_after, depth_before, atol=1e-9)
    np.testing.assert_allclose(after[clear], before[clear], rtol=1e-6, atol=1e-6)
    grown, shrunk = boxes.copy(), boxes.copy()
    grown[:, 3:6] += 1e-3
    shrunk[:, 3:6] -= 1e-3
    sure = points_in_boxes(points, grown) == points_in_boxes(points, shrunk)
    inside = points_in_boxes(moved, move_boxes(boxes, matrix))
    np.testing.assert_array_equal(inside[sure], points_in_boxes(points, boxes)[sure])


@settings(deadline=None)
@given(seed=seeds)
def test_corners_and_velocity_move_with_the_matrix(seed: int) -> None:
    _, boxes, _ = scene(seed)
    matrix = draw_bev(everything, np.random.default_rng(seed))
    moved = move_boxes(boxes, matrix)
    expected = box_corners(boxes) @ matrix[:3, :3].T + matrix[:3, 3]
    corners = box_corners(moved)
    front, rear = [0, 1, 4, 5], [2, 3, 6, 7]
    for side in (front, rear):
        np.testing.assert_allclose(np.sort(corners[:, side], 1), np.sort(expected[:, side], 1), atol=1e-3)
    ahead = boxes.copy()
    ahead[:, :2] += boxes[:, 7:9]
    np.testing.assert_allclose(move_boxes(ahead, matrix)[:, :2] - moved[:, :2], moved[:, 7:9], atol=1e-3)


def test_unknown_velocity_stays_unknown() -> None:
    _, boxes, _ = scene(0)
    boxes[2, 7:] = np.nan
    moved = move_boxes(boxes, draw_bev(everything, np.random.default_rng(1)))
    assert np.isnan(moved).sum() == 2
    assert np.isnan(moved[2, 7:]).all()


@settings(deadline=None)
@given(seed=seeds)
def test_draws_stay_in_their_ranges(seed: int) -> None:
    config = BevAugmentation(rotation=0.3, scale=(0.9, 1.1), translation=0.0, flip_x=False, flip_y=False)
    matrix = draw_bev(config, np.random.default_rng(seed))
    scale = np.cbrt(np.linalg.det(matrix[:3, :3]))
    assert 0.9 <= scale <= 1.1
    assert abs(np.arctan2(matrix[1, 0], matrix[0, 0])) <= 0.3
    np.testing.assert_allclose(matrix[:3, :3] @ matrix[:3, :3].T, scale**2 * np.eye(3), atol=1e-12)
    np.testing.assert_array_equal(matrix[:3, 3], 0)
    transform = draw_image(ImageAugmentation(flip=False), (900, 1600), np.random.default_rng(seed))
    assert 0.94 * 800 - 1 <= transform.resized[1] <= 1.25 * 800 + 1
    assert transform.top + 320 == transform.resized[0]
    assert not transform.flip
    slack = transform.resized[1] - 800
    assert min(0, slack) <= transform.left <= max(0, slack)


def test_mirrors_are_named_after_the_axis_that_changes_sign_and_come_half_of_the_time() -> None:
    still = {"rotation": 0.0, "scale": (1.0, 1.0), "translation": 0.0}
    for name, axis in (("flip_x", 0), ("flip_y", 1)):
        config = BevAugmentation(**{"flip_x": False, "flip_y": False, **still, name: True})
        diagonals = np.array([np.diag(draw_bev(config, np.random.default_rng(seed))) for seed in range(200)])
        assert 60 < (diagonals[:, axis] == -1).sum() < 140
        np.testing.assert_array_equal(np.delete(diagonals, axis, axis=1), 1)
    images = [draw_image(ImageAugmentation(), (90, 160), np.random.default_rng(seed)).flip for seed in range(200)]
    assert 60 < sum(images) < 140


def test_translation_is_normal_with_the_given_deviation() -> None:
    config = BevAugmentation(translation=0.5)
    offsets = np.array([draw_bev(config, np.random.default_rng(seed))[:3, 3] for seed in range(600)])
    np.testing.assert_allclose(offsets.std(axis=0), 0.5, atol=0.06)
    np.testing.assert_allclose(offsets.mean(axis=0), 0.0, atol=0.08)


@settings(max_examples=30, deadline=None)
@given(key=st.tuples(*[st.integers(0, 10**6)] * 4), other=st.tuples(*[st.integers(0, 10**6)] * 4))
def test_randomness_depends_on_all_of_its_key_and_nothing_else(
    key: tuple[int, int, int, int], other: tuple[int, int, int, int]
) -> None:
    assert randomness(*key).random() == randomness(*key).random()
    if key != other:
        assert randomness(*key).random() != randomness(*other).random()


@pytest.mark.parametrize("place", range(4))
def test_randomness_differs_in_each_part_of_the_key(place: int) -> None:
    key = [3, 1, 4, 1]
    first = randomness(*key).random()
    key[place] += 1
    assert randomness(*key).random() != first
