"""What a failure does to one sample."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aqr.data.failures import alignment, camera, lidar
from aqr.data.failures.catalogue import Failure

PointsChange = Callable[[int, lidar.Points], lidar.Points]
PictureChange = Callable[[int, camera.Picture], camera.Picture]


@dataclass(frozen=True)
class Corruption:
    """A failure of a whole split, the same whichever detector, worker or process reads it.

    Attributes:
        failure: what fails.
        seed: another seed, other draws.
    """

    failure: Failure
    seed: int = 0

    def of(self, sample_token: str) -> Harm:
        """The harm of one sample. Draws depend on seed, sample and name of the failure, not on its severity."""
        digest = hashlib.blake2b(f"{self.failure.name} {sample_token}".encode(), digest_size=16).digest()
        return Harm(self.failure, (self.seed, *np.frombuffer(digest, dtype="<u4").tolist()))


@dataclass(frozen=True)
class Harm:
    """A failure of one sample: which, and the numbers that its random draws start from."""

    failure: Failure
    entropy: tuple[int, ...]

    def random(self, place: int = 0) -> np.random.Generator:
        """The generator of one sweep or camera, so that none depends on how much another draws."""
        return np.random.default_rng([*self.entropy, place])

    @property
    def lidar_delay(self) -> int:
        """Keyframes by which the LiDAR is late."""
        return int(self.failure.strength) if self.failure.name == "lidar_stuck" else 0

    @property
    def camera_delay(self) -> int:
        """Keyframes by which the cameras are late."""
        return int(self.failure.strength) if self.failure.name == "camera_stuck" else 0

    def sweep_change(self) -> PointsChange | None:
        """Makes a failing sweep of its number, from the keyframe back, and its points as stored; None for no change."""
        strength = self.failure.strength
        match self.failure.name:
            case "lidar_drop":
                return lambda sweep, points: points[:0]
            case "beams_reducing":
                return lambda sweep, points: lidar.keep_beams(points, int(strength))
            case "limited_fov":
                return lambda sweep, points: lidar.limit_view(points, strength)
            case "points_reducing":
                return lambda sweep, points: lidar.thin_out(points, strength, self.random(sweep))
            case "lidar_fog":
                return lambda sweep, points: lidar.add_fog(points, strength, self.random(sweep))
        return None

    def picture_change(self, cameras: int) -> PictureChange | None:
        """Makes a failing picture of its camera's number, of `cameras`, and its pixels; None for no change."""
        strength = self.failure.strength
        match self.failure.name:
            case "missing_camera":
                gone = self.random().permutation(cameras)[: math.ceil(strength * cameras)].tolist()
                return lambda number, picture: camera.black(picture) if number in gone else picture
            case "occlusion":
                return lambda number, picture: camera.occlude(picture, strength, self.random(number))
            case "dark":
                return lambda number, picture: camera.darken(picture, strength, self.random(number))
            case "brightness":
                return lambda number, picture: camera.overexpose(picture, strength)
            case "motion_blur":
                return lambda number, picture: camera.motion_blur(picture, strength, self.random(number))
            case "jpeg":
                return lambda number, picture: camera.compress(picture, int(strength))
        return None

    def points(self, points: lidar.Points, boxes: npt.NDArray[np.float32]) -> lidar.Points:
        """Points [P, 5] of all sweeps, given every object [N, 9], both in the keyframe's LiDAR frame."""
        if self.failure.name == "object_failure":
            return lidar.hide_objects(points, boxes, self.failure.strength, self.random())
        return points

    def projections(self, lidar2img: alignment.Matrices) -> alignment.Matrices:
        """What the calibration [V, 4, 4] says."""
        if self.failure.name == "spatial_misalignment":
            return alignment.misalign(lidar2img, self.failure.strength, self.random())
        return lidar2img
