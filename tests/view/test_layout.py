"""Cameras stand on the page as the car sees them."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from aqr.view.adapt import scene_from_dataset
from aqr.view.layout import camera_rows


def looking(*bearings: float) -> npt.NDArray[np.float64]:
    """Cameras that look this many degrees to the left of straight ahead."""
    cameras = []
    for bearing in np.radians(bearings):
        forward = np.array([-np.sin(bearing), np.cos(bearing), 0.0])
        right = np.array([np.cos(bearing), np.sin(bearing), 0.0])
        down = np.array([0.0, 0.0, -1.0])
        matrix = np.eye(4)
        matrix[:3, :3] = np.array([[500, 0, 400], [0, 500, 160], [0, 0, 1]]) @ np.stack([right, down, forward])
        cameras.append(matrix)
    return np.array(cameras).reshape(-1, 4, 4)


@pytest.mark.parametrize(
    ("bearings", "rows"),
    [
        ((), []),
        ((180,), [[0]]),
        ((-40, 40), [[1, 0]]),
        ((0, -90, 90, 180), [[2, 0, 1], [3]]),
        ((0, -55, 55, 180, 110, -110), [[2, 0, 1], [4, 3, 5]]),
    ],
)
def test_rows(bearings: tuple[float, ...], rows: list[list[int]]) -> None:
    assert camera_rows(looking(*bearings)) == rows


def test_twelve_cameras_run_from_ahead_to_behind_and_from_left_to_right() -> None:
    bearings = np.array([15, -15, 45, -45, 75, -75, 105, -105, 135, -135, 165, -165])
    rows = camera_rows(looking(*bearings))
    assert [[int(bearings[view]) for view in row] for row in rows] == [
        [45, 15, -15, -45],
        [105, 75, -75, -105],
        [135, 165, -165, -135],
    ]


@pytest.mark.parametrize("count", range(1, 25))
def test_every_camera_stands_once(count: int) -> None:
    rows = camera_rows(looking(*np.linspace(-180, 175, count)))
    assert sorted(view for row in rows for view in row) == list(range(count))
    lengths = [len(row) for row in rows]
    assert max(lengths) <= 4
    assert len(set(lengths[:-1])) <= 1
    assert lengths[-1] <= lengths[0]


def test_real_cameras(real_frame: Path) -> None:
    scene = scene_from_dataset(real_frame, "v1.0-mini")
    assert [[scene.camera_names[view] for view in row] for row in camera_rows(scene.lidar2img)] == [
        ["CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT"],
        ["CAM_BACK_LEFT", "CAM_BACK", "CAM_BACK_RIGHT"],
    ]
