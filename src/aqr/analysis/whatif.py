"""A grid of clamps and residuals: the largest factor and what happens to the features, from maps or from statistics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from aqr.analysis.cellwise import forecasts, saved_maps
from aqr.analysis.forecast import Anchor, Forecast, Sensor, anchors_of
from aqr.analysis.formula import Form, form_of, is_gated, largest_factor
from aqr.analysis.language import Message, text
from aqr.analysis.readers import read_run
from aqr.analysis.run import Floats, Run, Setting, Snapshot
from aqr.errors import InputError

_CONVEX: Final = Setting("convex", "measured")


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
        source: `statistics` (closed form) or `maps` (summed over them; exact where low and high are one).
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
    saved = saved_maps(run)
    snapshot, maps = saved if saved is not None else (None, {})
    anchors = anchors_of(run, snapshot)
    if not anchors:
        raise InputError(
            f"{run.source}: no AQR statistics with a known clamp and residual, from which to forecast; "
            "use a run with AQR on, whose log or name states both"
        )
    observed = form_of(run) or "convex"
    form = observed if maps or run.settings.get("form", _CONVEX).origin == "config" else "convex"
    gate = is_gated(run)
    cells = []
    camera = anchors.get("camera")
    for clamp in clamps:
        expected = {
            sensor: _forecasts(anchor, maps.get(sensor), clamp, residuals, form) for sensor, anchor in anchors.items()
        }
        for place, residual in enumerate(residuals):
            differs = camera is not None and observed == "additive" and form == "convex"
            cells.append(
                Cell(
                    clamp,
                    residual,
                    largest_factor(clamp, residual, form, gate),
                    expected["camera"][place] if "camera" in expected else None,
                    expected["bev"][place] if "bev" in expected else None,
                    camera.additive(clamp, residual, observed) if camera is not None and differs else None,
                )
            )
    return WhatIf(
        run=run.name,
        source="maps" if maps else "statistics",
        forward=(snapshot or run.snapshots[-1]).forward,
        form=form,
        cells=tuple(cells),
        assumptions=_assumptions(run, anchors, snapshot if maps else None, form, differs=observed != form, gate=gate),
    )


def _forecasts(
    anchor: Anchor, weights: Floats | None, clamp: float, residuals: Sequence[float], form: Form
) -> list[Forecast | None]:
    """For each residual: from the map where there is one and it tells, else from the statistics."""
    closed = [
        anchor.forecast(clamp, residual) if form == "convex" else anchor.additive(clamp, residual, form)
        for residual in residuals
    ]
    summed = None if weights is None else forecasts(weights, anchor, clamp, residuals, form)
    if summed is None:
        return closed
    if anchor.ranks == 1:
        return list(summed)
    return [
        None if known is None else replace(known, expected=min(max(one.expected, known.low), known.high))
        for one, known in zip(summed, closed, strict=True)
    ]


def _assumptions(
    run: Run, anchors: dict[Sensor, Anchor], start: Snapshot | None, form: Form, differs: bool, gate: bool
) -> tuple[Message, ...]:
    out = []
    if start is not None:
        out.append(
            text(
                "Summed cell by cell over the weight maps saved at forward {forward}, which are taken to stay as they "
                "are.",
                forward=start.forward,
            )
        )
        if start.ranks > 1:
            out.append(
                text("They are one rank's of {ranks}; ranges follow from the figures of all.", ranks=start.ranks)
            )
        else:
            out.append(
                text(
                    "A range is given where the outcome depends on which features are 0, or on weights that the run's "
                    "own clamp cut off."
                )
            )
        if start is not run.snapshots[-1] and start.settings:
            out.append(
                text(
                    "The settings then in force were a clamp of {clamp:.4g} and a residual of {residual:.4g}.",
                    clamp=start.settings["max_weight_clamp"],
                    residual=start.settings["residual_weight"],
                )
            )
    else:
        out.append(
            text("The weight maps keep their shape: another setting changes the formula, not where the weights are.")
        )
        out.append(
            text("The change then scales with 1 − residual_weight.")
            if form == "convex"
            else text(
                "With residual + W the change is not proportional to 1 − residual_weight, only close to it where most "
                "weights are near 0; the range is what the mean and the standard deviation of the map allow."
            )
        )
        if anchors and any(one.uncertainty is None for one in anchors.values()):
            out.append(
                text(
                    "The spread between ranks is not known, so forecasts are rounded; where a range is given, it "
                    "covers the cells that another clamp can move, not that spread."
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
