"""The sensors of one scene's vehicle, rendered by NumPy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from aqr.synth.camera import render
from aqr.synth.lidar import sweep
from aqr.synth.presets import Preset
from aqr.synth.rig import LIDAR_TO_EGO, Camera
from aqr.synth.shadows import ShadowPainter
from aqr.synth.stage import Stage

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SceneJob:
    """What to record.

    Attributes:
        name: official scene name.
        seed: of the world; scene seeds derive from it and the scene's number, which no other scene has.
        preset: sizes.
        weather: kinds of weather that it may have; all if empty.
    """

    name: str
    seed: int
    preset: Preset
    weather: tuple[str, ...] = ()

    @property
    def number(self) -> int:
        return int(self.name.removeprefix("scene-"))

    def random(self, *parts: int) -> np.random.Generator:
        """A generator that no other scene, and no other parts, have."""
        return np.random.default_rng(np.random.SeedSequence((self.seed, self.number, *parts)))

    def sweep_random(self, time_us: int) -> np.random.Generator:
        """What is random about the sweep at a time, microseconds from the scene's start."""
        return self.random(1, time_us)

    def picture_random(self, time_us: int, camera: int) -> np.random.Generator:
        """What is random about the pictures of a keyframe."""
        return self.random(2, time_us, camera)


@dataclass(frozen=True)
class Pictures:
    """The pictures of one keyframe and what all of them together show.

    Attributes:
        images: six of [H, W, 3] uint8 RGB; none if they were not asked for.
        visible: [N] pixels that show each actor.
        silhouette: [N] pixels that each actor would cover if nothing hid it.
    """

    images: Sequence[npt.NDArray[np.uint8]]
    visible: Ints
    silhouette: Ints


class Sensors(Protocol):
    """What a scene looks like at any time."""

    def sweeps(self, times_us: Sequence[int]) -> Iterator[npt.NDArray[np.float32]]:
        """LiDAR revolutions [P, 5] at some times, microseconds from the scene's start; see `aqr.synth.lidar.sweep`."""

    def pictures(self, time_us: int) -> Pictures:
        """The six pictures of a keyframe."""


class HostSensors:
    """Sensors on the CPU."""

    def __init__(self, job: SceneJob, stage: Stage, rig: tuple[Camera, ...]) -> None:
        self.job, self.stage, self.rig = job, stage, rig
        self._shadows = ShadowPainter(stage)

    def sweeps(self, times_us: Sequence[int]) -> Iterator[npt.NDArray[np.float32]]:
        for time_us in times_us:
            seconds = time_us * 1e-6
            lidar = self.stage.ego(seconds) @ LIDAR_TO_EGO
            yield sweep(self.stage, self.stage.at(seconds), lidar, self.job.sweep_random(time_us))

    def pictures(self, time_us: int) -> Pictures:
        moment = self.stage.at(time_us * 1e-6)
        shadows = self._shadows.paint(moment, self.stage.ego(time_us * 1e-6))
        images = []
        visible: Ints = np.zeros(len(moment.poses), dtype=np.int64)
        silhouette: Ints = np.zeros(len(moment.poses), dtype=np.int64)
        size = self.job.preset.image_size
        for index, camera in enumerate(self.rig):
            ego = self.stage.ego((time_us + camera.delay_us) * 1e-6)
            view = render(
                self.stage,
                moment,
                shadows,
                ego @ camera.to_ego,
                ego,
                camera.intrinsic(size),
                size,
                self.job.picture_random(time_us, index),
            )
            visible, silhouette = visible + view.visible, silhouette + view.silhouette
            images.append(view.image)
        return Pictures(images, visible, silhouette)
