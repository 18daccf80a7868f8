"""Which setting to try next, and whether to use AQR at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from aqr.analysis.comparison import Comparison
from aqr.analysis.findings.bands import CAMERA_CHANGE
from aqr.analysis.forecast import ROUGH, Forecast, anchors_of
from aqr.analysis.formula import form_of, is_gated, largest_factor
from aqr.analysis.language import Message, text
from aqr.analysis.run import Run
from aqr.config import PRESETS

NAMED: Final = ("A", "B", "C")
OFF: Final = "off"
_FAR_LOWER: Final = 0.03
"""mAP lost that another strength of the modulation is not likely to bring back: `off` comes first."""
_CLEARLY_LOWER: Final = 0.01
"""mAP lost that settles it even where the classes disagree."""


@dataclass(frozen=True)
class Recommendation:
    """A setting to try.

    Attributes:
        name: A, B, C, `fitted`, or `off` for the detector without AQR.
        theoretical_max: largest factor of the formula.
        camera: image relative_change to expect, in the run's form where its config states one.
        camera_additive: what the logged moments allow where the figures show r + W instead; None where not known.
        run: the run that it follows from.
    """

    name: str
    max_weight_clamp: float | None
    residual_weight: float | None
    theoretical_max: float | None
    camera: Forecast | None
    camera_additive: Forecast | None
    reason: Message
    run: str


def recommend(run: Run, comparison: Comparison | None) -> list[Recommendation]:
    """Settings for one run that uses AQR, the most promising first."""
    out = list(_settings(run))
    if comparison is not None and _worse(comparison):
        first = comparison.metrics["mAP"] <= -_FAR_LOWER
        out.insert(0 if first else len(out), _off(run, comparison))
    return out


def expectation(forecast: Forecast) -> Message:
    """A forecast in words, as precise as what is known."""
    low, high = 100 * forecast.low, 100 * forecast.high
    if not forecast.rough:
        return text("{low:.1f}–{high:.1f} %", low=low, high=high)
    if high - low < ROUGH:
        return text("about {expected:.0f} %", expected=100 * forecast.expected)
    return text(
        "about {expected:.0f} % ({low:.0f} to {high:.0f} %)",
        expected=100 * forecast.expected,
        low=low,
        high=high,
    )


def _settings(run: Run) -> Iterator[Recommendation]:
    anchor = anchors_of(run).get("camera")
    gated = is_gated(run)
    if anchor is None or gated or anchor.parameterisation == "centered" or anchor.change <= 0:
        return
    low, high = CAMERA_CHANGE
    if low <= anchor.change <= high:
        return
    candidates = {name: PRESETS[name] for name in NAMED}
    forecasts = {name: anchor.forecast(*setting) for name, setting in candidates.items()}
    if not any(low <= one.expected <= high for one in forecasts.values()):
        residual = round(1 - (low + high) / 2 * (1 - anchor.residual) / anchor.change, 2)
        if 0 <= residual < 1:
            candidates = {"fitted": (anchor.clamp, residual)}
            forecasts = {"fitted": anchor.forecast(anchor.clamp, residual)}
        else:
            return
    additive = form_of(run) == "additive"
    own = additive and run.settings["form"].origin == "config"
    for name, (clamp, residual) in candidates.items():
        if (clamp, residual) == (anchor.clamp, anchor.residual):
            continue
        camera, other = forecasts[name], anchor.additive(clamp, residual, "additive") if additive else None
        if own and other is not None:
            camera, other = other, None
        yield Recommendation(
            name,
            clamp,
            residual,
            round(largest_factor(clamp, residual, "additive" if own else "convex"), 6),
            camera,
            other,
            _reason(anchor.change, camera, other),
            run.name,
        )


def _reason(now: float, camera: Forecast, additive: Forecast | None) -> Message:
    low, high = CAMERA_CHANGE
    doubt = ROUGH / 200 if camera.rough else 0.0
    if low <= camera.low - doubt and camera.high + doubt <= high:
        place = text("inside the band of 25–30 %")
    elif camera.low - doubt > high:
        place = text("nearer to the band of 25–30 %, not in it")
    elif camera.high + doubt < low:
        place = text("below the band of 25–30 %")
    else:
        place = text("at the edge of the band of 25–30 %")
    return text(
        "Image features change by {now:.1f} % now; {expected} is to be expected, {place}{other}.",
        now=100 * now,
        expected=expectation(camera) if camera.rough else text("{expected:.1f} %", expected=100 * camera.expected),
        place=place,
        other=text(
            " (with residual + W, as the run computes: between {low:.1f} and {high:.1f} %)",
            low=100 * additive.low,
            high=100 * additive.high,
        )
        if additive is not None
        else "",
    )


def _worse(comparison: Comparison) -> bool:
    """Clearly below a baseline that was not trained differently."""
    change = comparison.metrics.get("mAP")
    if change is None or change >= 0 or comparison.like_for_like is False:
        return False
    if comparison.intervals is not None:
        return comparison.intervals.metrics["mAP"][1] < 0
    classes = list(comparison.per_class_ap.values())
    return change <= -_CLEARLY_LOWER or (len(classes) >= 6 and all(one < 0 for one in classes))


def _off(run: Run, comparison: Comparison) -> Recommendation:
    ratio = comparison.step_time_ratio
    return Recommendation(
        OFF,
        None,
        None,
        1.0,
        Forecast(0.0, 0.0, 0.0),
        None,
        text(
            "Do not use AQR here until a setting gains: the same training without it scores {gain:.2f} points of mAP "
            "more{cost} (one run each).",
            gain=-100 * comparison.metrics["mAP"],
            cost=text(" and takes {share:.0f} % of the time per step", share=100 / ratio) if ratio else "",
        ),
        run.name,
    )
