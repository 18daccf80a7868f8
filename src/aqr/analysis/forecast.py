"""What another clamp or residual would do to the features, from logged statistics (closed form).

relative_change is the mean of |m − 1| over all features, those that are 0 counting 0, m the factor of
`aqr.analysis.formula`. On most cells of a `sigmoid` map W is near 0, where |m − 1| = 1 − r in either form, so

    expected   R' = R · (1 − r') / (1 − r)

The interval adds what is not known: the mean of R over ranks (Student's t), and the cells that another clamp moves,
whose share is bounded by the map's mean, standard deviation and maximum (two-point bound). It is cut to what these
moments allow at all, |1 − mean W| ≤ E|W − 1| ≤ sqrt(var W + (1 − mean W)²) (Jensen, Cauchy-Schwarz), for image
features, of which next to none is zero. For the additive form, E|W − t| with t = 1 − r is convex in t with slope in
[−1, 1] and equals mean W at 0; these lines bound it. `centered` maps are clamp^G: another clamp is another exponent.

A map that is pooled before it is applied (modulation_type `channel_wise`, `adaptive`) has the same mean, no larger
variance, and no negative cell, so that all of this holds for it too, but for one thing: where a clamp moves single
cells away from or towards 1, the mean of the map may do the opposite. What a clamp moves then counts in both
directions; of `centered` maps only |W − 1| ≤ clamp − 1 is left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

from aqr.analysis.formula import Form, is_gated
from aqr.analysis.run import Run, Snapshot
from aqr.analysis.statistics import half_width

Sensor = Literal["camera", "bev"]
SHORT: Final[dict[Sensor, str]] = {"camera": "pers", "bev": "bev"}
"""How groups of statistics and saved maps name the sensors."""
_GATES: Final[dict[Sensor, str]] = {"camera": "camera_gate", "bev": "lidar_gate"}
ROUGH: Final = 2.0
"""A range narrower than this, in points, is not shown where the spread between ranks is not known."""


@dataclass(frozen=True)
class Forecast:
    """A relative_change to expect.

    Attributes:
        low, expected, high: fractions.
        rough: whether the spread between ranks is not known, so that low and high hold only what a clamp can move.
    """

    low: float
    expected: float
    high: float
    rough: bool = False


@dataclass(frozen=True)
class Anchor:
    """Where a forecast starts: one sensor's figures of one run.

    Attributes:
        change: observed relative_change R.
        uncertainty: half of its 95 % interval over ranks; None where only one figure is known.
        mean, spread, top: of the weight map as rendered (mean, standard deviation, maximum); None where not stated.
        pooling: modulation_type, how the map is averaged before it is applied.
        gate: of this sensor, as logged; None where there is none or it is not known.
        ranks: GPUs that the figures come from.
    """

    sensor: Sensor
    change: float
    uncertainty: float | None
    mean: float | None
    spread: float | None
    top: float | None
    clamp: float
    residual: float
    parameterisation: str
    gated: bool
    pooling: str = "element_wise"
    gate: float | None = None
    ranks: int = 1

    def forecast(self, clamp: float, residual: float) -> Forecast:
        """What to expect in the convex form (`r + (1 − r)·W`).

        Args:
            clamp: max_weight_clamp; of `centered` maps, at least 1.
            residual: residual_weight, a fraction.

        Returns:
            relative_change, as fractions.

        Raises:
            ValueError: for an anchor whose own residual is 1.
        """
        if self.residual == 1:
            raise ValueError("nothing follows from a run that keeps everything")
        scale = (1 - residual) / (1 - self.residual)
        doubt, rough = self.uncertainty or 0.0, self.uncertainty is None
        low, expected, high = ((self.change + sign * doubt) * scale for sign in (-1, 0, 1))
        if self.parameterisation == "centered":
            ratio = math.log(clamp) / math.log(self.clamp) if self.clamp > 1 else 1.0
            if self.pooling != "element_wise" and clamp != self.clamp:
                high = (1 - residual) * (clamp - 1)
                return Forecast(0.0, min(max(expected * ratio, 0.0), high), high, rough)
            shrink = [ratio]
            if self.clamp > 1:
                shrink += [(self.clamp**-ratio - 1) / (1 / self.clamp - 1), (self.clamp**ratio - 1) / (self.clamp - 1)]
            return Forecast(max(low, 0.0) * min(shrink), expected * ratio, high * max(shrink), rough)
        down, up = self._moved(clamp)
        low -= (1 - residual) * down
        high += (1 - residual) * up
        if self.sensor == "camera" and not self.gated and self.mean is not None and self.spread is not None:
            moment = math.hypot(self.spread, 1 - self.mean) + up
            high = min(high, (1 - residual) * moment + doubt * scale)
            low = max(low, (1 - residual) * (abs(1 - self.mean) - down) - doubt * scale)
        low = max(low, 0.0)
        high = max(high, low)
        return Forecast(low, min(max(expected, low), high), high, rough)

    def additive(self, clamp: float, residual: float, observed: Form) -> Forecast | None:
        """What the logged moments allow in the additive form (`r + W`).

        Args:
            clamp: max_weight_clamp.
            residual: residual_weight, a fraction.
            observed: form in which the anchor's own change came about.

        Returns:
            relative_change, as fractions; None where the map's moments are not stated, with a gate, and of `centered`
            maps at another clamp.
        """
        if self.mean is None or self.spread is None or self.gated:
            return None
        if self.parameterisation == "centered" and clamp != self.clamp:
            return None
        t, doubt = 1 - residual, self.uncertainty or 0.0
        low, high = abs(self.mean - t) if self.sensor == "camera" else 0.0, math.hypot(self.spread, self.mean - t)
        if observed == "additive" and self.residual < 1:
            start = 1 - self.residual
            chord = (self.change - self.mean) / start
            if t <= start:
                low = max(low, self.change - (start - t) - doubt)
                high = min(high, self.mean + chord * t + doubt)
            else:
                low = max(low, self.change + (t - start) * chord - doubt)
                high = min(high, self.change + (t - start) + doubt)
        down, up = self._moved(clamp)
        low, high = max(low - down, 0.0), high + up
        high = max(high, low)
        middle = self.change * t / (1 - self.residual) if self.residual < 1 else (low + high) / 2
        return Forecast(low, min(max(middle, low), high), high, self.uncertainty is None)

    def _moved(self, clamp: float) -> tuple[float, float]:
        """Upper bounds of what a clamp takes from and adds to the mean of |m − 1|, per 1 − r in the convex form."""
        lost, gained = self.lost(clamp), self.gained(clamp)
        return (lost, gained) if self.pooling == "element_wise" else (lost + gained, lost + gained)

    def _share_above(self, level: float) -> float:
        """Upper bound of the share of cells at or above a level (Cantelli)."""
        if self.mean is None or self.spread is None or level <= self.mean:
            return 1.0
        return self.spread**2 / (self.spread**2 + (level - self.mean) ** 2)

    def lost(self, clamp: float) -> float:
        """Upper bound of what a lower clamp takes from the mean of the map."""
        top = self.top if self.top is not None else self.clamp
        if clamp >= top:
            return 0.0
        if self.mean is None or self.spread is None:
            return top - clamp
        reach = math.hypot(self.spread, clamp - self.mean)
        if clamp + reach <= top:
            return (reach - (clamp - self.mean)) / 2
        return (top - clamp) * self._share_above(top)

    def gained(self, clamp: float) -> float:
        """Upper bound of what a higher clamp adds to the mean of the map: only cells at the old clamp can rise."""
        top = self.top if self.top is not None else self.clamp
        if clamp <= self.clamp or top < self.clamp * (1 - 1e-4):
            return 0.0
        return (clamp - self.clamp) * self._share_above(self.clamp)


def anchors_of(run: Run, snapshot: Snapshot | None = None) -> dict[Sensor, Anchor]:
    """Starting points of forecasts; none where clamp or residual is not known.

    Args:
        run: where the settings come from, unless they moved in training.
        snapshot: of this run, the last one where not given.
    """
    clamp, residual = run.number("max_weight_clamp"), run.number("residual_weight")
    if clamp is None or residual is None or not run.snapshots:
        return {}
    snapshot = snapshot or run.snapshots[-1]
    clamp = snapshot.settings.get("max_weight_clamp", clamp)
    residual = snapshot.settings.get("residual_weight", residual)
    if residual >= 1:
        return {}
    out: dict[Sensor, Anchor] = {}
    for sensor, short in SHORT.items():
        change = snapshot.mean(f"modulation_{short}", "relative_change")
        if change is None or not math.isfinite(change):
            continue
        group = f"weight_map_{short}"
        values = snapshot.values(f"modulation_{short}", "relative_change")
        out[sensor] = Anchor(
            sensor=sensor,
            change=change,
            uncertainty=None if snapshot.pooled else half_width(values),
            mean=snapshot.mean(group, "mean"),
            spread=snapshot.spread(group),
            top=snapshot.high(group),
            clamp=clamp,
            residual=residual,
            parameterisation=run.text("parameterisation") or "sigmoid",
            gated=is_gated(run),
            pooling=run.text("modulation_type") or "element_wise",
            gate=snapshot.gates.get(_GATES[sensor]) if is_gated(run) else None,
            ranks=snapshot.ranks,
        )
    return out
