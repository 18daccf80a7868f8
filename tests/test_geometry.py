import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from aqr import geometry
from aqr.geometry import Pose

seeds = st.integers(0, 2**32)


def random_rotation(random: np.random.Generator) -> tuple[list[float], np.ndarray]:
    """[w, x, y, z] and its matrix, by scipy."""
    rotation = Rotation.random(random_state=random)
    x, y, z, w = rotation.as_quat().tolist()
    return [w, x, y, z], rotation.as_matrix()


def random_boxes(random: np.random.Generator, count: int = 5) -> np.ndarray:
    centre, size = random.uniform(-9, 9, (count, 3)), random.uniform(0.5, 8, (count, 3))
    return np.concatenate([centre, size, random.uniform(-7, 7, (count, 1)), random.normal(size=(count, 2))], axis=1)


@settings(deadline=None)
@given(seed=seeds, length=st.floats(0.01, 100), sign=st.sampled_from([-1, 1]))
def test_rotation_of_a_quaternion_of_any_length(seed: int, length: float, sign: int) -> None:
    quaternion, matrix = random_rotation(np.random.default_rng(seed))
    ours = geometry.rotation_from_quaternion([sign * length * q for q in quaternion])
    np.testing.assert_allclose(ours, matrix, atol=1e-12)


@settings(deadline=None)
@given(seed=seeds)
def test_quaternion_of_a_rotation(seed: int) -> None:
    quaternion, matrix = random_rotation(np.random.default_rng(seed))
    ours = np.array(geometry.quaternion_from_rotation(matrix))
    assert ours[0] >= 0
    assert abs(ours @ quaternion) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("axis", [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, -1, 1]])
@pytest.mark.parametrize("angle", [np.pi, np.pi - 1e-9, 1e-9, 0.0])
def test_quaternion_of_half_turns_and_of_none(axis: list[int], angle: float) -> None:
    matrix = Rotation.from_rotvec(angle * np.array(axis) / np.linalg.norm(axis)).as_matrix()
    ours = geometry.rotation_from_quaternion(geometry.quaternion_from_rotation(matrix))
    np.testing.assert_allclose(ours, matrix, atol=1e-12)


@settings(deadline=None)
@given(yaw=st.floats(-10, 10))
def test_quaternion_from_yaw(yaw: float) -> None:
    pose = Pose.from_quaternion(geometry.quaternion_from_yaw(yaw), [0, 0, 0])
    np.testing.assert_allclose(pose.rotation, Rotation.from_euler("z", yaw).as_matrix(), atol=1e-12)
    assert np.cos(pose.yaw - yaw) == pytest.approx(1)


@pytest.mark.parametrize("quaternion", [[0, 0, 0, 0], [1, 0, 0], [np.nan, 0, 0, 1], [np.inf, 0, 0, 1]])
def test_what_is_no_rotation_is_refused(quaternion: list[float]) -> None:
    with pytest.raises(ValueError, match="not a rotation quaternion"):
        geometry.rotation_from_quaternion(quaternion)


@settings(deadline=None)
@given(seed=seeds)
def test_poses_are_homogeneous_matrices(seed: int) -> None:
    random = np.random.default_rng(seed)
    a, b = (Pose.from_quaternion(random_rotation(random)[0], random.normal(0, 50, 3).tolist()) for _ in range(2))
    points = random.normal(0, 30, (4, 7, 3))
    homogeneous = np.concatenate([points, np.ones((4, 7, 1))], axis=-1)
    np.testing.assert_allclose(a.apply(points), (homogeneous @ a.matrix.T)[..., :3], atol=1e-9)
    np.testing.assert_allclose((a @ b).matrix, a.matrix @ b.matrix, atol=1e-9)
    np.testing.assert_allclose((a @ b).apply(points), a.apply(b.apply(points)), atol=1e-9)
    np.testing.assert_allclose(a.inverse().matrix, np.linalg.inv(a.matrix), atol=1e-9)
    np.testing.assert_array_equal(Pose.from_matrix(a.matrix).matrix, a.matrix)
    np.testing.assert_array_equal(Pose.identity().matrix, np.eye(4))


@settings(deadline=None)
@given(seed=seeds)
def test_corners_are_the_devkits(seed: int) -> None:
    data_classes = pytest.importorskip("nuscenes.utils.data_classes")
    quaternions = pytest.importorskip("pyquaternion")
    boxes = random_boxes(np.random.default_rng(seed))
    corners = geometry.box_corners(boxes)
    assert corners.shape == (5, 8, 3)
    for box, ours in zip(boxes, corners, strict=True):
        turned = quaternions.Quaternion(axis=[0, 0, 1], angle=box[geometry.YAW])
        official = data_classes.Box(box[:3], box[[geometry.W, geometry.L, geometry.H]], turned).corners()
        # The devkit starts at the front left top, then front right top, below it, and so on.
        front_left, front_right, low_right, low_left, rear_left, rear_right, low_rear_right, low_rear_left = official.T
        expected = [
            low_left, low_right, low_rear_right, low_rear_left, front_left, front_right, rear_right, rear_left
        ]  # fmt: skip
        np.testing.assert_allclose(ours, expected, atol=1e-9)


def test_edges_join_corners_that_differ_along_one_side() -> None:
    box = np.array([[0.0, 0, 0, 4, 2, 1, 0, 0, 0]])
    corners = geometry.box_corners(box)[0]
    lengths = sorted(np.linalg.norm(corners[a] - corners[b]) for a, b in geometry.BOX_EDGES)
    assert lengths == [1.0] * 4 + [2.0] * 4 + [4.0] * 4
    assert len({frozenset(edge) for edge in geometry.BOX_EDGES}) == 12


@settings(deadline=None)
@given(seed=seeds)
def test_points_in_boxes_by_undoing_each_box(seed: int) -> None:
    random = np.random.default_rng(seed)
    boxes, points = random_boxes(random), random.uniform(-12, 12, (400, 5))
    inside = geometry.points_in_boxes(points, boxes)
    for box, row in zip(boxes, inside, strict=True):
        pose = Pose.from_quaternion(geometry.quaternion_from_yaw(box[6]), box[:3].tolist())
        expected = (abs(pose.inverse().apply(points[:, :3])) <= box[3:6] / 2).all(axis=1)
        np.testing.assert_array_equal(row, expected)


def test_points_on_faces_count_as_inside() -> None:
    box = np.array([[1.0, 2, 3, 4, 2, 6, 0]])
    points = np.array([[3.0, 2, 3], [1, 1, 3], [1, 2, 6], [3.001, 2, 3], [1, 0.999, 3], [1, 2, 6.001]])
    assert geometry.points_in_boxes(points, box)[0].tolist() == [True, True, True, False, False, False]
    assert geometry.points_in_boxes(points, box[:0]).shape == (0, 6)
    assert geometry.points_in_boxes(points[:0], box).shape == (1, 0)


@settings(deadline=None)
@given(angle=st.floats(-1e3, 1e3))
def test_wrapped_angles(angle: float) -> None:
    wrapped = geometry.wrap_angle(np.array([angle]))[0]
    assert -np.pi <= wrapped < np.pi
    assert np.exp(1j * wrapped) == pytest.approx(np.exp(1j * angle), abs=1e-9)
    assert geometry.wrap_angle(torch.tensor([angle], dtype=torch.float64)).item() == pytest.approx(wrapped, abs=1e-12)


@settings(deadline=None)
@given(seed=seeds)
def test_normalise_maps_the_range_to_the_unit_cube_and_back(seed: int) -> None:
    random = np.random.default_rng(seed)
    pc_range = np.sort(random.uniform(-60, 60, (2, 3)), axis=0).reshape(6)
    pc_range[3:] += 1.0
    corners = np.stack([pc_range[:3], pc_range[3:]])
    np.testing.assert_allclose(geometry.normalise(corners, pc_range), [[0, 0, 0], [1, 1, 1]], atol=1e-12)
    points = random.uniform(-80, 80, (6, 3))
    there = geometry.normalise(points, pc_range)
    np.testing.assert_allclose(geometry.denormalise(there, pc_range), points, atol=1e-9)
    tensor = geometry.normalise(torch.from_numpy(points), torch.from_numpy(pc_range))
    np.testing.assert_allclose(tensor.numpy(), there, atol=1e-12)


@settings(deadline=None)
@given(seed=seeds)
def test_projection_is_the_devkits_in_front_and_finite_behind(seed: int) -> None:
    geometry_utils = pytest.importorskip("nuscenes.utils.geometry_utils")
    random = np.random.default_rng(seed)
    camera = Pose.from_quaternion(random_rotation(random)[0], random.normal(0, 2, 3).tolist())
    intrinsic = np.array([[1200.0, 0, 800], [0, 1100, 450], [0, 0, 1]])
    lidar2img = np.eye(4)
    lidar2img[:3] = intrinsic @ camera.inverse().matrix[:3]
    points = random.normal(0, 20, (2, 50, 3))
    pixels, depth = geometry.project(points, np.stack([lidar2img, lidar2img]))
    assert pixels.shape == (2, 50, 2)
    assert np.isfinite(pixels).all()
    seen = camera.inverse().apply(points)
    np.testing.assert_allclose(depth, seen[..., 2], atol=1e-9)
    front = depth > geometry.MIN_DEPTH
    official = geometry_utils.view_points(seen[front].T, intrinsic, normalize=True)[:2].T
    np.testing.assert_allclose(pixels[front], official, rtol=1e-9, atol=1e-6)
    tensor_pixels, tensor_depth = geometry.project(torch.from_numpy(points), torch.from_numpy(lidar2img))
    np.testing.assert_allclose(tensor_pixels.numpy(), pixels, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(tensor_depth.numpy(), depth, atol=1e-9)


def test_visibility_at_the_edges() -> None:
    pixels = np.array([[0, 0], [799.9, 319.9], [800, 5], [5, 320], [-0.1, 5], [5, -0.1], [5, 5], [5, 5.0]])
    depth = np.array([1.0, 1, 1, 1, 1, 1, 0.1, 0.2])
    expected = [True, True, False, False, False, False, False, True]
    assert geometry.in_image(pixels, depth, (320, 800)).tolist() == expected
    assert geometry.in_image(torch.from_numpy(pixels), torch.from_numpy(depth), (320, 800)).tolist() == expected
