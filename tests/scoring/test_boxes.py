"""Boxes carried from LiDAR frames to the map, against the devkit's own Box."""

import numpy as np
from nuscenes.eval.common.utils import quaternion_yaw
from nuscenes.utils.data_classes import Box
from pyquaternion import Quaternion

from aqr.geometry import Pose
from aqr.scoring import Predictions
from aqr.scoring.boxes import yaw_of


def test_boxes_in_the_lidar_frame_land_where_the_devkit_puts_them() -> None:
    rng = np.random.default_rng(30)
    quaternions, places = rng.normal(size=(3, 4)), rng.normal(size=(3, 3)) * 100
    poses = [Pose.from_quaternion(q.tolist(), t.tolist()) for q, t in zip(quaternions, places, strict=True)]
    sample = rng.integers(0, 3, 40)
    boxes = rng.uniform(0.5, 4, (40, 9))
    predictions = Predictions.from_lidar(
        sample, boxes, np.zeros(40), np.full(40, 0.5), np.full(40, -1), lidar_to_global=poses
    )
    for row, (x, y, z, length, width, height, yaw, vx, vy) in enumerate(boxes.tolist()):
        theirs = Box([x, y, z], [width, length, height], Quaternion(axis=[0, 0, 1], radians=yaw), velocity=(vx, vy, 0))
        theirs.rotate(Quaternion(quaternions[sample[row]]).unit)
        theirs.translate(places[sample[row]])
        np.testing.assert_allclose(predictions.translation[row], theirs.center, atol=5e-7)
        np.testing.assert_allclose(predictions.size[row, [1, 0, 2]], theirs.wlh, atol=5e-7)
        np.testing.assert_allclose(predictions.velocity[row], theirs.velocity[:2], atol=5e-7)
        matrix = Quaternion(predictions.rotation[row]).rotation_matrix
        np.testing.assert_allclose(matrix, theirs.orientation.rotation_matrix, atol=3e-6)

    numbers = np.concatenate([predictions.translation.ravel(), predictions.rotation.ravel()]).tolist()
    assert max(len(repr(abs(number)).partition(".")[2]) for number in numbers if abs(number) > 1e-3) <= 6


def test_yaw_is_the_devkits_for_tilted_and_unnormalised_rotations() -> None:
    rotation = np.vstack([np.random.default_rng(31).normal(size=(200, 4)) * 3, np.zeros((1, 4)), np.eye(4)])
    expected = [quaternion_yaw(Quaternion(q)) for q in rotation]
    np.testing.assert_allclose(yaw_of(rotation), expected, atol=1e-12)


def test_a_tiny_size_stays_positive_and_a_wrong_one_wrong() -> None:
    boxes = np.zeros((3, 9))
    boxes[:, 3:6] = [[1e-9, 1, 1], [-1e-9, 1, 1], [np.nan, 1, 1]]
    zero = np.zeros(3, dtype=np.int64)
    size = Predictions.from_lidar(zero, boxes, zero, zero, zero, lidar_to_global=[Pose.identity()]).size
    assert size[0, 0] == 1e-6
    assert size[1, 0] == -1e-9
    assert np.isnan(size[2, 0])


def test_no_detections_anywhere() -> None:
    nothing = Predictions.from_lidar([], np.zeros((0, 9)), [], [], [], lidar_to_global=[])
    assert len(nothing) == 0
    assert nothing.rotation.shape == (0, 4)
