"""Sensors that disagree on where, or when, they are."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from aqr.data.index import Index

Matrices = npt.NDArray[np.float64]

SHIFT_PER_DEGREE: Final = 0.04
"""Metres; nuScenes-C moves cameras by 0.04 m at its first severity."""


def misalign(lidar2img: Matrices, degrees: float, random: np.random.Generator) -> Matrices:
    """Every camera turned about its own centre and moved, each in a random direction of its own.

    The picture stays; only what the calibration says changes, as after a knock.

    Args:
        lidar2img: [V, 4, 4].
        degrees: angle of the turn; the shift is 0.04 m per degree.
        random: source of axes and directions.

    Returns:
        [V, 4, 4].
    """
    directions = random.standard_normal((2, len(lidar2img), 3))
    axis, shift = directions / np.linalg.norm(directions, axis=-1, keepdims=True)
    centre = -np.linalg.solve(lidar2img[:, :3, :3], lidar2img[:, :3, 3:])[..., 0]
    turn = Rotation.from_rotvec(np.radians(degrees) * axis).as_matrix().reshape(-1, 3, 3)
    moved = np.tile(np.eye(4), (len(lidar2img), 1, 1))
    moved[:, :3, :3] = turn
    moved[:, :3, 3] = centre + SHIFT_PER_DEGREE * degrees * shift - (turn @ centre[..., None])[..., 0]
    return np.asarray(lidar2img @ moved)


class Keyframes:
    """The order in time of an index's samples within their scenes."""

    def __init__(self, index: Index) -> None:
        samples = index.samples
        self._order = np.lexsort((samples.timestamp, samples.scene))
        self._place = np.empty_like(self._order)
        self._place[self._order] = np.arange(len(self._order))
        scene = np.asarray(samples.scene)[self._order]
        starts = np.flatnonzero(np.r_[True, scene[1:] != scene[:-1]][: len(scene)])
        self._start = np.repeat(starts, np.diff(np.r_[starts, len(scene)]))

    def earlier(self, sample: int, count: int) -> int:
        """The row of the keyframe `count` keyframes before in the same scene; the scene's first where it is younger."""
        place = int(self._place[sample])
        return int(self._order[max(place - count, int(self._start[place]))])

    def lacking(self, rows: npt.NDArray[np.integer], count: int) -> int:
        """How many of some samples have fewer than `count` keyframes before them in their scene."""
        place = self._place[np.asarray(rows)]
        return int((place - self._start[place] < count).sum())
