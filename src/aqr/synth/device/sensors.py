"""The sensors of one scene's vehicle, rendered on a GPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

from aqr.synth.device.film import Sight
from aqr.synth.device.pool import Pool, Shot
from aqr.synth.device.renderer import Renderer
from aqr.synth.rig import Camera
from aqr.synth.sensors import Pictures, SceneJob
from aqr.synth.stage import Stage


class DeviceSensors:
    """Sensors on a device; see `aqr.synth.sensors.Sensors`."""

    def __init__(
        self,
        job: SceneJob,
        stage: Stage,
        rig: tuple[Camera, ...],
        device: torch.device | str,
        coloured: bool = True,
    ) -> None:
        """Sensors of a scene; pictures hold no images unless they are to be `coloured`."""
        self.job, self.rig, self._coloured = job, rig, coloured
        self._actors = len(stage.traffic.actors)
        self._renderer = Renderer(Pool([stage], [rig], device), threads=1)

    def sweeps(self, times_us: Sequence[int]) -> Iterator[npt.NDArray[np.float32]]:
        moments = self._renderer.moments([Shot(0, time_us) for time_us in times_us])
        yield from self._renderer.sweeps(moments, [self.job.sweep_random(t) for t in times_us]).cpu().numpy()

    def pictures(self, time_us: int) -> Pictures:
        size = self.job.preset.image_size
        moments = self._renderer.moments([Shot(0, time_us)])
        sights = [
            Sight(0, camera, size, np.eye(3), self.job.picture_random(time_us, camera))
            for camera in range(len(self.rig))
        ]
        images: list[npt.NDArray[np.uint8]] = []
        if self._coloured:
            taken, look = self._renderer.pictures(moments, self._renderer.shadows(moments), sights, size, count=True)
            images = list(taken.permute(0, 2, 3, 1).contiguous().cpu().numpy())
        else:
            look = self._renderer.look(moments, sights, size)
        assert look is not None
        return Pictures(
            images,
            look.visible.sum(axis=0)[: self._actors],
            look.silhouette.sum(axis=0)[: self._actors],
        )
