"""What another clamp or residual would do to the features.

**From statistics** (closed form). relative_change is the mean of |m − 1| over features that are not zero, m the factor
of `aqr.analysis.formula`. On most cells of a `sigmoid` map W is near 0, where |m − 1| = 1 − r in either form, so

    expected   R' = R · (1 − r') / (1 − r)

The interval adds what is not known: the mean of R over ranks (Student's t), and the cells that another clamp moves,
whose share is bounded by the map's mean, standard deviation and maximum (two-point bound). It is cut to what these
moments allow at all, |1 − mean W| ≤ E|W − 1| ≤ sqrt(var W + (1 − mean W)²) (Jensen, Cauchy-Schwarz), for image
features, of which next to none is zero. For the additive form, E|W − t| with t = 1 − r is convex in t with slope in
[−1, 1] and equals mean W at 0; these lines bound it. `centered` maps are clamp^G: another clamp is another exponent.

**From maps** saved by our own runs: |m − 1| summed cell by cell, exact for every clamp up to theirs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np

from aqr.analysis.formula import Form, form_of, is_gated, largest_factor
from aqr.analysis.language import Message, text
from aqr.analysis.readers import read_run
from aqr.analysis.run import Floats, Run, Setting, Snapshot
from aqr.analysis.statistics import half_width
from aqr.errors import InputError

Sensor = Literal["camera", "bev"]
_CONVEX: Final = Setting("convex", "measured")
ROUGH: Final = 2.0
"""A range narrower than this, in points, is not shown where the spread between ranks is not known."""
_GROUP: Final = {"camera": "pers", "bev": "bev"}


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
        mean, spread, top: of the weight map (mean, standard deviation, maximum); None where not stated.
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

    def forecast(self, clamp: float, residual: float) -> Forecast:
        """In the convex form (`r + (1 − r)·W`)."""
        if self.residual == 1:
            raise ValueError("nothing follows from a run that keeps everything")
        scale = (1 - residual) / (1 - self.residual)
        doubt, rough = self.uncertainty or 0.0, self.uncertainty is None
        low, expected, high = ((self.change + sign * doubt) * scale for sign in (-1, 0, 1))
        if self.parameterisation == "centered":
            ratio = math.log(clamp) / math.log(self.clamp) if self.clamp > 1 else 1.0
            shrink = [ratio]
            if self.clamp > 1:
                shrink += [(self.clamp**-ratio - 1) / (1 / self.clamp - 1), (self.clamp**ratio - 1) / (self.clamp - 1)]
            return Forecast(max(low, 0.0) * min(shrink), expected * ratio, high * max(shrink), rough)
        low -= (1 - residual) * self.lost(clamp)
        high += (1 - residual) * self.gained(clamp)
        if self.sensor == "camera" and not self.gated and self.mean is not None and self.spread is not None:
            moment = math.hypot(self.spread, 1 - self.mean) + self.gained(clamp)
            high = min(high, (1 - residual) * moment + doubt * scale)
            low = max(low, (1 - residual) * (abs(1 - self.mean) - self.lost(clamp)) - doubt * scale)
        low = max(low, 0.0)
        high = max(high, low)
        return Forecast(low, min(max(expected, low), high), high, rough)

    def additive(self, clamp: float, residual: float, observed: Form) -> Forecast | None:
        """In the additive form (`r + W`): what the logged moments allow. None where the map's are not stated."""
        if self.mean is None or self.spread is None or self.gated:
            return None
        if self.parameterisation == "centered" and clamp != self.clamp:
            return None
        t, doubt = 1 - residual, self.uncertainty or 0.0
        low, high = abs(self.mean - t), math.hypot(self.spread, self.mean - t)
        if observed == "additive" and self.residual < 1:
            start = 1 - self.residual
            chord = (self.change - self.mean) / start
            if t <= start:
                low = max(low, self.change - (start - t) - doubt)
                high = min(high, self.mean + chord * t + doubt)
            else:
                low = max(low, self.change + (t - start) * chord - doubt)
                high = min(high, self.change + (t - start) + doubt)
        low, high = max(low - self.lost(clamp), 0.0), high + self.gained(clamp)
        high = max(high, low)
        middle = self.change * t / (1 - self.residual) if self.residual < 1 else (low + high) / 2
        return Forecast(low, min(max(middle, low), high), high, self.uncertainty is None)

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


@dataclass(frozen=True)
class Cell:
    """One setting of the grid."""

    max_weight_clamp: float
    residual_weight: float
    largest_factor: float
    camera: Forecast | None
    bev: Forecast | None
    camera_additive: Forecast | None


@dataclass(frozen=True)
class WhatIf:
    """A grid of settings.

    Attributes:
        source: `statistics` (closed form) or `maps` (exact).
        forward: the snapshot that the forecasts start from.
        assumptions: what they take for granted.
    """

    run: str
    source: Literal["statistics", "maps"]
    forward: int | None
    form: Form
    cells: tuple[Cell, ...]
    assumptions: tuple[Message, ...]


def whatif(run: Run | str | Path, clamps: Sequence[float], residuals: Sequence[float]) -> WhatIf:
    """The largest factor and the modulation to expect for every clamp × residual.

    Args:
        run: a run, or the path of one.
        clamps: values of max_weight_clamp, >= 1.
        residuals: values of residual_weight, in [0, 1].

    Raises:
        InputError: where a setting is out of its range, or the run has no AQR statistics or states no settings.
    """
    run = run if isinstance(run, Run) else read_run(run)
    for clamp in clamps:
        if not (math.isfinite(clamp) and clamp >= 1):
            raise InputError(f"clamp {clamp:g} is out of range; give values of at least 1")
    for residual in residuals:
        if not 0 <= residual <= 1:
            raise InputError(f"residual {residual:g} is out of range; give values between 0 and 1")
    if not clamps or not residuals:
        raise InputError("no setting is given; name at least one clamp and one residual")
    if run.in_attention:
        raise InputError(
            f"{run.source}: its weights act in attention (aqr.target: attention), so clamp and residual change no "
            "features and there is nothing to forecast; use a run with aqr.target: features"
        )
    anchors = anchors_of(run)
    if not anchors:
        raise InputError(
            f"{run.source}: no AQR statistics with a known clamp and residual, from which to forecast; "
            "use a run with AQR on, whose log or name states both"
        )
    maps = _saved_maps(run)
    observed = form_of(run) or "convex"
    form = observed if maps or run.settings.get("form", _CONVEX).origin == "config" else "convex"
    gate = is_gated(run)
    cells = []
    for clamp in clamps:
        for residual in residuals:
            forecasts: dict[Sensor, Forecast] = {}
            for sensor, anchor in anchors.items():
                exact = _from_maps(maps.get(sensor), anchor, clamp, residual, observed)
                found = anchor.forecast(clamp, residual) if form == "convex" else anchor.additive(clamp, residual, form)
                if exact is not None:
                    forecasts[sensor] = Forecast(exact, exact, exact)
                elif found is not None:
                    forecasts[sensor] = found
            camera = anchors.get("camera")
            differs = camera is not None and observed == "additive" and form == "convex"
            cells.append(
                Cell(
                    clamp,
                    residual,
                    largest_factor(clamp, residual, form, gate),
                    forecasts.get("camera"),
                    forecasts.get("bev"),
                    camera.additive(clamp, residual, observed) if camera is not None and differs else None,
                )
            )
    return WhatIf(
        run=run.name,
        source="maps" if maps else "statistics",
        forward=run.snapshots[-1].forward,
        form=form,
        cells=tuple(cells),
        assumptions=_assumptions(run, anchors, bool(maps), differs=observed != form, gate=gate),
    )


def anchors_of(run: Run) -> dict[Sensor, Anchor]:
    """Starting points of forecasts, from the last snapshot; none where clamp or residual is not known."""
    clamp, residual = run.number("max_weight_clamp"), run.number("residual_weight")
    if clamp is None or residual is None or residual >= 1 or not run.snapshots:
        return {}
    out: dict[Sensor, Anchor] = {}
    snapshot: Snapshot = run.snapshots[-1]
    for sensor, short in (("camera", "pers"), ("bev", "bev")):
        change = snapshot.mean(f"modulation_{short}", "relative_change")
        if change is None or not math.isfinite(change):
            continue
        group = f"weight_map_{short}"
        values = snapshot.values(f"modulation_{short}", "relative_change")
        out[sensor] = Anchor(  # type: ignore[index]
            sensor=sensor,  # type: ignore[arg-type]
            change=change,
            uncertainty=None if snapshot.pooled else half_width(values),
            mean=snapshot.mean(group, "mean"),
            spread=snapshot.spread(group),
            top=snapshot.high(group),
            clamp=clamp,
            residual=residual,
            parameterisation=run.text("parameterisation") or "sigmoid",
            gated=is_gated(run),
        )
    return out


def _saved_maps(run: Run) -> dict[Sensor, Floats]:
    """The last saved maps by sensor, flattened."""
    if not run.maps:
        return {}
    try:
        with np.load(run.maps[-1], allow_pickle=False) as saved:
            return {
                sensor: saved[f"weight_map_{short}"].astype(np.float64).ravel()  # type: ignore[misc]
                for sensor, short in _GROUP.items()
                if f"weight_map_{short}" in saved
            }
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{run.maps[-1]}: is no readable .npz of weight maps ({error}); delete it") from None


def _from_maps(saved: Floats | None, anchor: Anchor, clamp: float, residual: float, form: Form) -> float | None:
    """Mean |m − 1| over the cells, times the share of features that are not zero; None where the clamp is too high."""
    if saved is None or not len(saved) or (anchor.parameterisation == "centered" and clamp != anchor.clamp):
        return None
    if clamp > anchor.clamp and saved.max() >= anchor.clamp * (1 - 1e-4):
        return None

    def change(limit: float, kept: float) -> float:
        weights = np.minimum(saved, limit)
        return float(np.abs(kept + (weights if form == "additive" else (1 - kept) * weights) - 1).mean())

    at_run = change(anchor.clamp, anchor.residual)
    return change(clamp, residual) * anchor.change / at_run if at_run > 0 else None


def _assumptions(
    run: Run, anchors: dict[Sensor, Anchor], from_maps: bool, differs: bool, gate: bool
) -> tuple[Message, ...]:
    out = []
    if from_maps:
        out.append(text("Exact sums over the weight maps saved with the run; the maps themselves stay as they are."))
    else:
        out.append(
            text(
                "The weight maps keep their shape: another setting changes the formula, not where the weights are. "
                "The change then scales with 1 − residual_weight."
            )
        )
        if anchors and any(one.uncertainty is None for one in anchors.values()):
            out.append(
                text(
                    "The spread between ranks is not known, so forecasts are rounded; where a range is given, it "
                    "covers the cells that another clamp can move."
                )
            )
        else:
            out.append(text("The interval covers the spread between ranks and the cells that another clamp can move."))
        tops = [one.top for one in anchors.values() if one.top is not None and one.parameterisation != "centered"]
        if tops and max(tops) < 1:
            out.append(
                text(
                    "No weight in the maps exceeds {top:.2f}, so no clamp changes anything.",
                    top=max(tops),
                )
            )
    if differs:
        out.append(
            text(
                "The run multiplies by residual + W, as its own figures show; the forecasts are for the formula "
                "residual + (1 − residual)·W, and the range for the run's own formula is given beside them."
            )
        )
    if gate:
        out.append(text("The learned gate stays where it is."))
    return tuple(out)
