"""Which setting to try next, and whether to use AQR at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from aqr.analysis.comparison import Comparison
from aqr.analysis.findings.bands import CAMERA_CHANGE
from aqr.analysis.formula import form_of, is_gated, largest_factor
from aqr.analysis.language import Message, text
from aqr.analysis.run import Run
from aqr.analysis.whatif import Forecast, anchors_of
from aqr.config import PRESETS

NAMED: Final = ("A", "B", "C")
OFF: Final = "off"
_CLEARLY_LOWER: Final = 0.01
"""mAP lost that settles it even where the classes disagree."""


@dataclass(frozen=True)
class Recommendation:
    """A setting to try.

    Attributes:
        name: A, B, C, `fitted`, or `off` for the detector without AQR.
        theoretical_max: largest factor of the formula r + (1 − r)·W.
        camera: image relative_change to expect in that formula.
        camera_additive: what the logged moments allow where the code computes r + W instead; None where not known.
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
        out.append(_off(run, comparison))
    return out


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
    for name, (clamp, residual) in candidates.items():
        if (clamp, residual) == (anchor.clamp, anchor.residual):
            continue
        camera = forecasts[name]
        other = anchor.additive(clamp, residual, "additive") if additive else None
        yield Recommendation(
            name,
            clamp,
            residual,
            round(largest_factor(clamp, residual), 6),
            camera,
            other,
            _reason(anchor.change, camera, other),
            run.name,
        )


def _reason(now: float, camera: Forecast, additive: Forecast | None) -> Message:
    low, high = CAMERA_CHANGE
    if low <= camera.low and camera.high <= high:
        place = text("inside the band of 25–30 %")
    elif camera.low > high:
        place = text("nearer to the band of 25–30 %, not in it")
    elif camera.high < low:
        place = text("below the band of 25–30 %")
    else:
        place = text("at the edge of the band of 25–30 %")
    return text(
        "Image features change by {now:.1f} % now; {expected:.1f} % is to be expected, {place}{other}.",
        now=100 * now,
        expected=100 * camera.expected,
        place=place,
        other=text(
            " (with residual + W, as this log's code computes: between {low:.1f} and {high:.1f} %)",
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
