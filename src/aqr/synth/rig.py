"""The vehicle's sensors: a nuScenes-like rig of one 32-beam LiDAR and six cameras.

Frames are nuScenes': ego x forward, y left, z up, origin on the ground under the rear axle; LiDAR x right,
y forward, z up; camera x right, y down, z forward. The figures are round
ones close to those of the real vehicles, and vary a little from vehicle to vehicle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from aqr.geometry import Pose
from aqr.taxonomy import CAMERAS

SOURCE_SIZE: Final = (900, 1600)
"""Image height and width that focal lengths refer to."""


@dataclass(frozen=True)
class Camera:
    """One camera of the rig.

    Attributes:
        channel: nuScenes sensor name.
        to_ego: pose of the camera frame in the ego frame.
        focal: focal length in pixels of a 1600 x 900 image.
        centre: principal point (u, v) in pixels of a 1600 x 900 image.
        delay_us: shutter time minus keyframe time, microseconds: each camera fires when the beam sweeps past it.
    """

    channel: str
    to_ego: Pose
    focal: float
    centre: tuple[float, float]
    delay_us: int

    def intrinsic(self, size: tuple[int, int]) -> npt.NDArray[np.float64]:
        """[3, 3] camera matrix for an image of (height, width)."""
        scale = size[1] / SOURCE_SIZE[1]
        drop = (SOURCE_SIZE[0] * scale - size[0]) / 2
        u, v = self.centre
        return np.array([[self.focal * scale, 0, u * scale], [0, self.focal * scale, v * scale - drop], [0, 0, 1.0]])


_YAW = (0.0, -55.0, 55.0, 180.0, 109.0, -109.0)
_PLACE = (
    (1.70, 0.00, 1.51),
    (1.55, -0.49, 1.50),
    (1.52, 0.49, 1.51),
    (0.03, 0.00, 1.58),
    (1.03, 0.48, 1.59),
    (1.01, -0.48, 1.56),
)
_FOCAL = (1266.0, 1261.0, 1272.0, 809.0, 1257.0, 1260.0)
_DELAY = (-35_500, -27_600, -43_100, -10_400, -500, -20_000)

LIDAR_TO_EGO: Final = Pose.from_quaternion(
    [float(np.cos(np.pi / 4)), 0.0, 0.0, -float(np.sin(np.pi / 4))], [0.94, 0.0, 1.84]
)


def draw_rig(rng: np.random.Generator) -> tuple[Camera, ...]:
    """The six cameras of one vehicle: no two vehicles are built, or calibrated, exactly alike."""
    cameras = []
    for channel, yaw, place, focal, delay in zip(CAMERAS, _YAW, _PLACE, _FOCAL, _DELAY, strict=True):
        lean = _small_turn(np.radians(rng.normal(0.0, 0.3, 3)))
        spot = np.asarray(place) + rng.normal(0.0, 0.012, 3)
        to_ego = Pose(_looking(yaw) @ lean, spot)
        u, v = rng.normal((810.0, 490.0), 6.0)
        cameras.append(Camera(channel, to_ego, focal * float(rng.normal(1.0, 0.003)), (float(u), float(v)), delay))
    return tuple(cameras)


def _looking(yaw_degrees: float) -> npt.NDArray[np.float64]:
    """[3, 3] from a level camera whose optical axis points along yaw to the ego frame."""
    yaw = np.radians(yaw_degrees)
    forward = np.array([np.cos(yaw), np.sin(yaw), 0.0])
    down = np.array([0.0, 0.0, -1.0])
    return np.stack([np.cross(down, forward), down, forward], axis=1)


def _small_turn(angles: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """[3, 3] rotation by a rotation vector (radians)."""
    return np.asarray(Rotation.from_rotvec(angles).as_matrix())
