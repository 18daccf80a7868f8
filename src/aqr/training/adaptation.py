"""Moves max_weight_clamp and residual_weight while a detector trains: by a schedule, or by a controller."""

from __future__ import annotations

from typing import Any, Final

from aqr.config import Config, ControllerConfig, Ramp
from aqr.modulation import AQRModulation, Statistics
from aqr.modulation.controller import Controller, ControllerSettings, Decision
from aqr.modulation.schedules import Schedule

SETTINGS: Final = ("max_weight_clamp", "residual_weight")
"""Attributes of AQRModulation that move. They are plain numbers: setting them costs nothing on the GPU."""


class Adaptation:
    """What moves the settings of a run, and what a checkpoint must hold of it.

    A schedule depends on the number of the step alone, a controller on statistics pooled over all ranks: every rank
    comes to the same settings.

    Attributes:
        moves: whether anything moves in this run.
    """

    def __init__(self, config: Config) -> None:
        aqr = config.aqr
        self._steps = config.train.steps
        self._controller_config = aqr.controller
        self._controller = Controller(controller_settings(aqr.controller)) if aqr.controller.enabled else None
        self._schedules = {
            "max_weight_clamp": _schedule(aqr.schedule.max_weight_clamp, aqr.renderer.max_weight_clamp),
            "residual_weight": _schedule(aqr.schedule.residual_weight, aqr.modulator.default_residual),
        }
        self._scheduled = aqr.schedule.moves
        self.moves = aqr.enabled and (self._scheduled or self._controller is not None)

    def before_step(self, aqr: AQRModulation | None, step: int) -> dict[str, float]:
        """Set what the schedule says for a step; returns the settings in force, empty where nothing moves.

        Args:
            aqr: of the detector.
            step: steps done before this one. The last step of a run has the configured values.
        """
        if aqr is None or not self.moves:
            return {}
        if self._scheduled:
            progress = min(step / max(self._steps - 1, 1), 1.0)
            for name, schedule in self._schedules.items():
                setattr(aqr, name, schedule.value(progress))
        return settings_of(aqr)

    def measures(self, iteration: int) -> bool:
        """Whether the controller wants to see the statistics of a step, counted from 1."""
        config = self._controller_config
        return self._controller is not None and iteration > config.start and iteration % config.every == 0

    def after_step(self, aqr: AQRModulation | None, iteration: int, statistics: Statistics) -> Decision | None:
        """Let the controller decide on the settings of the next step.

        Args:
            aqr: of the detector.
            iteration: number of the step, from 1.
            statistics: of that step, pooled over all ranks.

        Returns:
            The decision; None where the controller did not ask for these statistics, or there were no images.
        """
        if aqr is None or self._controller is None or not self.measures(iteration):
            return None
        images = statistics.summary().get("modulation_pers")
        if not isinstance(images, dict):
            return None
        change = images["relative_change"]
        assert isinstance(change, float)
        decision = self._controller.update(change, aqr.residual_weight, aqr.max_weight_clamp)
        aqr.residual_weight, aqr.max_weight_clamp = decision.residual_weight, decision.max_weight_clamp
        return decision

    def state(self, aqr: AQRModulation | None) -> dict[str, Any]:
        """For a checkpoint: the settings now, and the controller's memory."""
        if aqr is None or not self.moves:
            return {}
        controller = {} if self._controller is None else {"controller": self._controller.state_dict()}
        return {**settings_of(aqr), **controller}

    def restore(self, aqr: AQRModulation | None, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        if self._controller is not None and "controller" in state:
            self._controller = Controller(self._controller.settings, state["controller"])
        apply_settings(aqr, state)


def settings_of(aqr: AQRModulation) -> dict[str, float]:
    """The settings in force."""
    return {name: float(getattr(aqr, name)) for name in SETTINGS}


def apply_settings(aqr: AQRModulation | None, state: dict[str, Any]) -> None:
    """Set what a checkpoint of an adaptive run says; nothing where it says nothing."""
    if aqr is not None:
        for name in SETTINGS:
            if name in state:
                setattr(aqr, name, float(state[name]))


def controller_settings(config: ControllerConfig) -> ControllerSettings:
    """The part of the config that the controller itself needs."""
    return ControllerSettings(
        band=config.band,
        residual_range=config.residual_range,
        clamp_range=config.clamp_range,
        residual_rate=config.residual_rate,
        clamp_rate=config.clamp_rate,
        smoothing=config.smoothing,
        patience=config.patience,
    )


def _schedule(ramp: Ramp, end: float) -> Schedule:
    return Schedule(ramp.kind, ramp.start, end, ramp.until)
