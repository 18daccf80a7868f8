"""Where each camera's picture stands, so that the page reads as the car sees it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from aqr.geometry import Floats


def camera_rows(lidar2img: Floats) -> list[list[int]]:
    """Rows of camera indices: those that look ahead above those that look back, each from left to right.

    The direction of a camera is read from its matrix, so that any number of cameras under any names falls into
    place: nuScenes' six become front left, front, front right over back left, back, back right.

    Args:
        lidar2img: [V, 4, 4], from the vehicle's own LiDAR frame, without augmentation.

    Returns:
        Rows of three or four, the last one of what remains; [] for no camera.
    """
    views = len(lidar2img)
    ahead = np.asarray(lidar2img, dtype=np.float64)[:, 2, :2]
    bearing = np.degrees(np.arctan2(-ahead[:, 0], ahead[:, 1]))
    order = sorted(range(views), key=lambda v: (round(abs(float(bearing[v])), 3), -float(bearing[v])))
    columns = 3 if views <= 6 or views == 9 else 4
    return [_left_to_right(order[first : first + columns], bearing) for first in range(0, views, columns)]


def _left_to_right(row: list[int], bearing: npt.NDArray[np.float64]) -> list[int]:
    """A row in the order in which the driver sees it, ahead or over the shoulder; bearing in degrees, + to the left."""
    if abs(bearing[row]).mean() <= 90.0:
        return sorted(row, key=lambda v: -float(bearing[v]))
    return sorted(row, key=lambda v: float(bearing[v]) % 360.0)
