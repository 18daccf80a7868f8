"""Box edges in a picture: cut at the camera's near plane, then at the border of the image."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from aqr.geometry import BOX_EDGES, MIN_DEPTH, Floats, box_corners

LINES_PER_BOX: Final = len(BOX_EDGES) + 1


def box_lines(boxes: Floats) -> npt.NDArray[np.float64]:
    """What is drawn of each box: its twelve edges and a heading mark, from the middle of the floor to the front.

    Args:
        boxes: [N, 7 or 9].

    Returns:
        [N, 13, 2, 3] end points of the lines, the heading mark last.
    """
    corners = box_corners(boxes)
    edges = corners[:, np.array(BOX_EDGES)]
    floor, front = corners[:, :4].mean(axis=1), corners[:, :2].mean(axis=1)
    return np.concatenate([edges, np.stack([floor, front], axis=1)[:, None]], axis=1)


def project_lines(
    lines: Floats, lidar2img: Floats, size: tuple[int, int]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """The visible parts of 3D lines.

    A line that crosses the plane MIN_DEPTH in front of the camera is cut there, in 3D, before the division by depth:
    the part in front is exactly where it belongs and the part behind is gone.

    Args:
        lines: [S, 2, 3] end points, metres, LiDAR frame.
        lidar2img: [4, 4].
        size: image (height, width).

    Returns:
        pixels [K, 2, 2] (u, v) of the end points of the K visible parts, inside the image, and [K] the line each
        belongs to, ascending.
    """
    matrix = np.asarray(lidar2img, dtype=np.float64)
    ends = np.asarray(lines, dtype=np.float64) @ matrix[:3, :3].T + matrix[:3, 3]
    ends, kept = _cut_near(ends)
    pixels, inside = clip_to_rectangle(ends[..., :2] / ends[..., 2:], size)
    return pixels, kept[inside]


def _cut_near(ends: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """The parts of lines [S, 2, 3] (u·d, v·d, d) that lie MIN_DEPTH or more in front, and which lines they are of."""
    kept = np.flatnonzero(np.isfinite(ends).all(axis=(1, 2)) & (ends[..., 2].max(axis=1, initial=0.0) > MIN_DEPTH))
    ends = ends[kept]
    depth = ends[..., 2]
    behind = depth < MIN_DEPTH
    other = ends[:, ::-1]
    gap = np.where(behind, other[..., 2] - depth, 1.0)
    share = np.where(behind, (MIN_DEPTH - depth) / gap, 0.0)
    cut = ends + share[..., None] * (other - ends)
    cut[..., 2] = np.where(behind, MIN_DEPTH, depth)
    return cut, kept


def clip_to_rectangle(
    lines: npt.NDArray[np.float64], size: tuple[int, int]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """The parts of 2D lines inside [0, width] x [0, height] (Liang and Barsky, 1984).

    Args:
        lines: [S, 2, 2] end points (u, v).
        size: (height, width).

    Returns:
        [K, 2, 2] end points of the visible parts and [K] the line each belongs to, ascending.
    """
    start, delta = lines[:, 0], lines[:, 1] - lines[:, 0]
    far = np.array([size[1], size[0]], dtype=np.float64)
    towards = np.concatenate([-delta, delta], axis=1)
    room = np.concatenate([start, far - start], axis=1)
    still = towards == 0.0
    ratio = room / np.where(still, 1.0, towards)
    enter = np.where(towards < 0.0, ratio, 0.0).max(axis=1, initial=0.0)
    leave = np.where(towards > 0.0, ratio, 1.0).min(axis=1, initial=1.0)
    kept = np.flatnonzero((enter < leave) & ~(still & (room < 0.0)).any(axis=1))
    share = np.stack([enter[kept], leave[kept]], axis=1)[..., None]
    return start[kept, None] + share * delta[kept, None], kept
