"""Keep the measured relative_change inside a band by moving residual_weight and max_weight_clamp.

In the convex form a feature is multiplied by r + (1 − r)·W, so that relative_change = (1 − r)·m with m the mean of
|W − 1| over all features, those that are 0 counting 0. For given maps this is exact, whatever the features, and m does
not fall when the clamp rises. The controller therefore smooths m rather than the change itself: what it did a moment
ago does not blur what it sees, and it does not chase its own movements.
"""

from __future__ import annotations

import logging
import math
from dataclasses import asdict, dataclass
from typing import Any, Final

NEGLIGIBLE: Final = 1e-9
"""A distance of residual_weight that is not worth a move."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ControllerSettings:
    """What a controller aims at and how far and fast it may go.

    Attributes:
        band: lowest and highest wanted relative_change.
        residual_range: lowest and highest residual_weight, below 1.
        clamp_range: lowest and highest max_weight_clamp, at least 1.
        residual_rate: largest move of residual_weight per measurement.
        clamp_rate: largest relative move of max_weight_clamp per measurement.
        smoothing: share of a new measurement in the running mean of m, in (0, 1].
        patience: measurements in a row, outside the band with both settings at their ends, before it gives up.
    """

    band: tuple[float, float] = (0.25, 0.30)
    residual_range: tuple[float, float] = (0.4, 0.95)
    clamp_range: tuple[float, float] = (1.2, 3.0)
    residual_rate: float = 0.01
    clamp_rate: float = 0.02
    smoothing: float = 0.3
    patience: int = 5


@dataclass
class ControllerState:
    """Everything a controller remembers; plain values.

    Attributes:
        response: running mean of m; None before the first measurement.
        moving: whether it is on its way to the middle of the band.
        at_end: measurements in a row at which nothing was left to move.
        stopped: it gave up, and moves nothing any more.
    """

    response: float | None = None
    moving: bool = False
    at_end: int = 0
    stopped: bool = False


@dataclass(frozen=True)
class Decision:
    """What one measurement led to.

    Attributes:
        measured: relative_change as measured.
        smoothed: (1 − r)·m with the running mean of m, which is what is compared with the band.
        residual_weight: to use from the next step on.
        max_weight_clamp: likewise.
        stopped: whether the controller has given up.
    """

    measured: float
    smoothed: float
    residual_weight: float
    max_weight_clamp: float
    stopped: bool


class Controller:
    """Slow, bounded and with hysteresis.

    It starts to move when the smoothed change leaves the band, then heads for the middle of the band, and rests once
    it has come within a quarter of the half-width of it: noise smaller than the band moves nothing. residual_weight
    moves first, by at most `residual_rate` per measurement. Only where it stands at the end of its range does
    max_weight_clamp move, up for more change and down for less. Where both stand at their ends for `patience`
    measurements, the band cannot be reached: the controller says so once and stops.

    Every rank that feeds it the same pooled measurements holds the same state.
    """

    def __init__(self, settings: ControllerSettings, state: dict[str, Any] | None = None) -> None:
        """Args:
        settings: band and limits.
        state: what `state_dict` of an earlier controller returned, to go on from there.
        """
        self.settings = settings
        self.state = ControllerState(**state) if state else ControllerState()

    def state_dict(self) -> dict[str, Any]:
        """Plain values from which a controller goes on exactly."""
        return asdict(self.state)

    def update(self, measured: float, residual_weight: float, max_weight_clamp: float) -> Decision:
        """Take one measurement and decide on the settings of the next step.

        Args:
            measured: relative_change of the camera maps, pooled over all ranks, under the settings that follow.
            residual_weight: r in [0, 1).
            max_weight_clamp: >= 1.

        Returns:
            Decision; its settings are those given where nothing is to move.

        Raises:
            ValueError: if nothing was modulated (residual_weight 1) or the measurement is not finite.
        """
        if not math.isfinite(measured) or measured < 0:
            raise ValueError(f"a relative_change must be finite and not negative, not {measured}")
        if residual_weight >= 1:
            raise ValueError("residual_weight 1 modulates nothing: there is nothing to measure")
        state, settings = self.state, self.settings
        response = measured / (1 - residual_weight)
        if state.response is not None:
            response = state.response + settings.smoothing * (response - state.response)
        state.response = response
        smoothed = (1 - residual_weight) * response
        residual, clamp = residual_weight, max_weight_clamp
        if not state.stopped:
            residual, clamp = self._move(smoothed, response, residual_weight, max_weight_clamp)
        return Decision(measured, smoothed, residual, clamp, state.stopped)

    def _move(self, smoothed: float, response: float, residual: float, clamp: float) -> tuple[float, float]:
        state, settings = self.state, self.settings
        low, high = settings.band
        middle, half = (low + high) / 2, (high - low) / 2
        inside = low <= smoothed <= high
        if not inside:
            state.moving = True
        elif abs(smoothed - middle) <= half / 4:
            state.moving = False
        if not state.moving:
            state.at_end = 0
            return residual, clamp
        wanted = 1 - middle / response if response > 0 else -math.inf
        wanted = min(max(wanted, settings.residual_range[0]), settings.residual_range[1])
        if abs(wanted - residual) > NEGLIGIBLE:
            state.at_end = 0
            return residual + min(max(wanted - residual, -settings.residual_rate), settings.residual_rate), clamp
        lowest, highest = settings.clamp_range
        if smoothed < middle and clamp < highest:
            state.at_end = 0
            return residual, min(clamp * (1 + settings.clamp_rate), highest)
        if smoothed > middle and clamp > lowest:
            state.at_end = 0
            return residual, max(clamp / (1 + settings.clamp_rate), lowest)
        state.at_end = 0 if inside else state.at_end + 1
        if state.at_end >= settings.patience:
            state.stopped = True
            logger.warning(
                "the controller cannot bring relative_change into %.0f-%.0f %%: it stands at %.1f %% with "
                "residual_weight %.3f and max_weight_clamp %.3f at the ends of their ranges; both stay there",
                100 * low,
                100 * high,
                100 * smoothed,
                residual,
                clamp,
            )
        return residual, clamp
