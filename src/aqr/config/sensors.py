"""Settings of the sensors."""

from __future__ import annotations

from pydantic import model_validator

from aqr.config.section import Section
from aqr.taxonomy import CAMERAS


class Sensors(Section):
    """What the detector sees, in training and in inference."""

    lidar: bool = True
    cameras: tuple[str, ...] = CAMERAS

    @model_validator(mode="after")
    def _something(self) -> Sensors:
        if not self.lidar and not self.cameras:
            raise ValueError("a detector needs LiDAR or at least one camera")
        if len(set(self.cameras)) != len(self.cameras):
            raise ValueError("a camera is named twice")
        return self
