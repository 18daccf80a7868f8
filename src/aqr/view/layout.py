"""Where each camera's picture stands, so that the page reads as the car sees it."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from aqr.geometry import Floats


def camera_rows(lidar2img: Floats) -> list[list[int]]:
    """Rows of camera indices: those that look ahead above those that look back, each from left to right.

    The direction of a camera is read from its matrix, so that any number of cameras under any names falls into
    place: nuScenes' six become front left, front, front right over back left, back, back right.

    Args:
        lidar2img: [V, 4, 4].

    Returns:
        At most four indices a row, rows as even as possible, upper rows longer; [] for no camera.
    """
    views = len(lidar2img)
    if views == 0:
        return []
    ahead = np.asarray(lidar2img, dtype=np.float64)[:, 2, :2]
    bearing = np.degrees(np.arctan2(-ahead[:, 0], ahead[:, 1]))
    order = sorted(range(views), key=lambda v: (round(abs(float(bearing[v])), 3), -float(bearing[v])))
    columns = min(views, 4, math.ceil(math.sqrt(1.5 * views)))
    rows = np.array_split(np.array(order), math.ceil(views / columns))
    return [_left_to_right([int(v) for v in row], bearing) for row in rows]


def _left_to_right(row: list[int], bearing: npt.NDArray[np.float64]) -> list[int]:
    """A row in the order in which the driver sees it, ahead or over the shoulder; bearing in degrees, + to the left."""
    if abs(bearing[row]).mean() <= 90.0:
        return sorted(row, key=lambda v: -float(bearing[v]))
    return sorted(row, key=lambda v: float(bearing[v]) % 360.0)
