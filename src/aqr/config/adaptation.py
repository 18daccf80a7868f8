"""Settings of what moves AQR's own settings during training: schedules and the controller."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from aqr.config.section import Count, Fraction, NonNegative, Positive, Section


class Ramp(Section):
    """How a setting gets to its configured value, see `aqr.modulation.schedules`."""

    kind: Literal["constant", "linear", "cosine", "warmup"] = "constant"
    start: NonNegative = 1.0
    """Value before the first step; at 1 a clamp lets no weight amplify, and a residual modulates nothing."""
    until: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1
    """Share of the steps that `warmup` takes."""


class Schedules(Section):
    """Settings that move with training progress, off by default."""

    max_weight_clamp: Ramp = Ramp()
    residual_weight: Ramp = Ramp()

    @model_validator(mode="after")
    def _starts(self) -> Schedules:
        if self.max_weight_clamp.start < 1:
            raise ValueError("max_weight_clamp.start must be at least 1")
        if self.residual_weight.start > 1:
            raise ValueError("residual_weight.start must lie in [0, 1]")
        return self

    @property
    def moves(self) -> bool:
        """Whether anything is scheduled."""
        return any(ramp.kind != "constant" for ramp in (self.max_weight_clamp, self.residual_weight))


class ControllerConfig(Section):
    """Keep the cameras' relative_change inside a band, see `aqr.modulation.controller`; off by default."""

    enabled: bool = False
    band: tuple[Positive, Positive] = (0.25, 0.30)
    every: Count = 50
    """Steps between measurements."""
    start: Annotated[int, Field(ge=0)] = 0
    """Steps before the first one."""
    residual_range: tuple[Fraction, Annotated[float, Field(ge=0.0, lt=1.0)]] = (0.4, 0.95)
    clamp_range: tuple[Annotated[float, Field(ge=1.0)], Annotated[float, Field(ge=1.0)]] = (1.2, 3.0)
    residual_rate: Positive = 0.01
    """Largest move of residual_weight per measurement."""
    clamp_rate: Positive = 0.02
    """Largest relative move of max_weight_clamp per measurement."""
    smoothing: Annotated[float, Field(gt=0.0, le=1.0)] = 0.3
    """Share of a new measurement in the running mean."""
    patience: Count = 5
    """Measurements at the ends of both ranges after which the band counts as out of reach."""

    @model_validator(mode="after")
    def _ranges(self) -> ControllerConfig:
        for name in ("band", "residual_range", "clamp_range"):
            low, high = getattr(self, name)
            if low >= high:
                raise ValueError(f"{name} {[low, high]} runs backwards or is empty")
        return self
