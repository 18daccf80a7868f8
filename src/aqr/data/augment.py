"""Random changes of training samples, and the transforms that keep points, boxes and images together.

A BEV augmentation is one 4 x 4 matrix A from the unaugmented to the augmented LiDAR frame: flip, then rotation about
z, uniform scale, translation. Points and boxes go through A, `lidar2img` becomes lidar2img · A⁻¹, so a point keeps
its pixel. Undoing is applying A⁻¹.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from aqr.config import BevAugmentation, ImageAugmentation
from aqr.data.images import ImageTransform, place
from aqr.data.points import multiplied
from aqr.geometry import CENTER, SIZE, VELOCITY, YAW

Matrix = npt.NDArray[np.float64]


def randomness(seed: int, epoch: int, sample: int, repeat: int = 0) -> np.random.Generator:
    """The generator of one presentation of a sample: the same whichever worker, rank or resumed run asks."""
    return np.random.default_rng([seed, epoch, sample, repeat])


def draw_bev(config: BevAugmentation, random: np.random.Generator) -> Matrix:
    """[4, 4] random BEV augmentation. `flip_x` mirrors x to -x, `flip_y` y to -y, each half of the time."""
    mirror_x, mirror_y = random.random(2) < 0.5
    angle = random.uniform(-config.rotation, config.rotation)
    scale = random.uniform(*config.scale)
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.eye(4)
    matrix[:3, :3] = scale * np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
    matrix[:, 0] *= -1.0 if config.flip_x and mirror_x else 1.0
    matrix[:, 1] *= -1.0 if config.flip_y and mirror_y else 1.0
    matrix[:3, 3] = random.normal(0.0, config.translation, 3)
    return matrix


def draw_image(config: ImageAugmentation, source: tuple[int, int], random: np.random.Generator) -> ImageTransform:
    """Random scale, horizontal window and flip of one image of height and width `source`."""
    zoom, across, coin = random.uniform(*config.resize), random.random(), random.random()
    return place(source, config.size, zoom, across, flip=config.flip and coin < 0.5)


def move_points(points: npt.NDArray[np.float32], matrix: Matrix) -> npt.NDArray[np.float32]:
    """Points [P, >= 3] through a [4, 4] matrix; further channels stay."""
    channels = points.shape[1]
    linear, shift = np.eye(channels, dtype=np.float32), np.zeros(channels, dtype=np.float32)
    linear[:3, :3], shift[:3] = matrix[:3, :3].T, matrix[:3, 3]
    moved = multiplied(points, linear)
    moved += shift
    return moved


def move_boxes(boxes: npt.NDArray[np.float32], matrix: Matrix) -> npt.NDArray[np.float32]:
    """Boxes [N, 9] through a [4, 4] matrix of mirrorings, rotation about z, uniform scale and translation."""
    linear = matrix[:3, :3]
    wide = boxes.astype(np.float64)
    moved = wide.copy()
    moved[:, CENTER] = wide[:, CENTER] @ linear.T + matrix[:3, 3]
    moved[:, SIZE] = wide[:, SIZE] * np.cbrt(abs(np.linalg.det(linear)))
    heading = np.stack([np.cos(wide[:, YAW]), np.sin(wide[:, YAW])], -1) @ linear[:2, :2].T
    moved[:, YAW] = np.arctan2(heading[:, 1], heading[:, 0])
    moved[:, VELOCITY] = wide[:, VELOCITY] @ linear[:2, :2].T
    return moved.astype(np.float32)


def move_projections(lidar2img: Matrix, matrix: Matrix) -> Matrix:
    """Projections [V, 4, 4] from the frame that a [4, 4] matrix leads to."""
    return np.asarray(lidar2img @ np.linalg.inv(matrix))
