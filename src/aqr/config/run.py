"""All settings of a run."""

from __future__ import annotations

from typing import Annotated

import yaml
from pydantic import Field, model_validator

from aqr.config.aqr import Aqr
from aqr.config.data import Data
from aqr.config.detector import DetectorConfig
from aqr.config.section import Section
from aqr.config.sensors import Sensors
from aqr.config.train import Train


class Config(Section):
    """One training run."""

    seed: Annotated[int, Field(ge=0)] = 0
    sensors: Sensors = Sensors()
    data: Data = Data()
    detector: DetectorConfig = DetectorConfig()
    aqr: Aqr = Aqr()
    train: Train = Train()

    @model_validator(mode="after")
    def _router(self) -> Config:
        if self.aqr.enabled and self.detector.hidden_dim % self.aqr.router.num_heads:
            raise ValueError(
                f"detector.hidden_dim {self.detector.hidden_dim} is not a multiple of aqr.router.num_heads "
                f"{self.aqr.router.num_heads}"
            )
        return self

    def to_yaml(self) -> str:
        """Every setting, defaults included."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)
