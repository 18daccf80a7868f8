"""Scores against the baseline and against figures that are none."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from aqr.analysis.findings import bands
from aqr.analysis.findings.finding import Check, Context, Finding
from aqr.analysis.language import Message, text
from aqr.analysis.run import METRICS, Run
from aqr.analysis.statistics import LEVEL, permutation_test

SMALL: Final = ("barrier", "motorcycle", "bicycle", "pedestrian", "traffic_cone")
"""Classes whose longest side is under 3 m on average in nuScenes: half of the ten."""

_NOTABLE: Final = 0.005
"""mAP lost that is worth a warning where no interval is known."""

_LIKE: Final[Message] = text("a like-for-like comparison changes one thing")


def against_reference(context: Context) -> Iterator[Finding]:
    """A reference figure is no baseline; where there is one, it shows what the reference hides."""
    evaluation = context.run.evaluation
    if not context.reference or evaluation is None:
        return
    shown = [name for name in METRICS if name in context.reference and name in evaluation.figures]
    if not shown:
        return
    to_reference = {name: round(evaluation.figures[name] - context.reference[name], 6) for name in shown}
    evidence: dict[str, Any] = {"reference": dict(context.reference), "delta_to_reference": to_reference}
    points = {name: 100 * to_reference[name] for name in shown}
    first, second = shown[0], shown[1] if len(shown) > 1 else None
    difference = (
        text("{a} {da:+.2f} and {b} {db:+.2f} points", a=first, da=points[first], b=second, db=points[second])
        if second
        else text("{a} {da:+.2f} points", a=first, da=points[first])
    )
    comparison = context.comparison
    both = [name for name in shown if comparison is not None and name in comparison.metrics]
    if comparison is None or context.baseline is None or not both:
        detail = text(
            "{difference} against the reference is not what AQR did: the reference is a score without a log, and the "
            "training between it and this run is in the difference too. Train the same way without AQR and pass that "
            "run as --baseline.",
            difference=difference,
        )
        title = text("The reference is not a like-for-like baseline")
        yield Finding("baseline.not-like-for-like", "warning", title, detail, evidence, _LIKE, context.run.name)
        return
    evidence["delta_to_baseline"] = {name: comparison.metrics[name] for name in both}
    evidence["explained_by_the_training"] = {
        name: round(to_reference[name] - comparison.metrics[name], 6) for name in both
    }
    name = both[0]
    whole, ours = points[name], 100 * comparison.metrics[name]
    yield Finding(
        "baseline.not-like-for-like",
        "warning",
        text("The reference is not a like-for-like baseline"),
        text(
            "{difference} against the reference. The same training without AQR ({baseline}) also ends "
            "{training:+.2f} points of {name} from the reference; what is left for AQR is {ours:+.2f}{rest}.",
            difference=difference,
            baseline=context.baseline.name,
            training=whole - ours,
            name=name,
            ours=ours,
            rest=text(" ({name} {ours:+.2f})", name=both[1], ours=100 * comparison.metrics[both[1]])
            if len(both) > 1
            else "",
        ),
        evidence,
        _LIKE,
        context.run.name,
    )


def baseline_trained_alike(context: Context) -> Iterator[Finding]:
    """Whether the baseline differs from the run in AQR alone."""
    comparison = context.comparison
    if comparison is None or comparison.like_for_like is True:
        return
    listed = comparison.differences or comparison.unknown
    if comparison.like_for_like is False:
        yield Finding(
            "baseline.trained-differently",
            "warning",
            text("The baseline was not trained the same way"),
            text(
                "{first}{more}. The differences below are those of the two trainings, not of AQR alone.",
                first=listed[0],
                more=text(", and {count} differences more", count=len(listed) - 1) if len(listed) > 1 else "",
            ),
            {"baseline": comparison.baseline, "differences": [str(one) for one in listed]},
            _LIKE,
            comparison.run,
        )
        return
    yield Finding(
        "baseline.training-unknown",
        "info",
        text("Whether the baseline was trained the same way is not known"),
        text("The logs do not state {first} for both runs.", first=listed[0] if listed else "lr"),
        {"baseline": comparison.baseline, "unknown": [str(one) for one in listed]},
        _LIKE,
        comparison.run,
    )


def against_baseline(context: Context) -> Iterator[Finding]:
    """Score differences, without a spread that one run each cannot give."""
    comparison = context.comparison
    if comparison is None or "mAP" not in comparison.metrics:
        return
    change, nds = comparison.metrics["mAP"], comparison.metrics.get("NDS")
    classes = list(comparison.per_class_ap.values())
    lower, higher = sum(one < 0 for one in classes), sum(one > 0 for one in classes)
    ends = comparison.intervals.metrics["mAP"] if comparison.intervals is not None else None
    clear = change <= -_NOTABLE if ends is None else ends[1] < 0
    ours, theirs = _map(context.run), _map(context.baseline)
    yield Finding(
        "scores.above-baseline" if change >= 0 else "scores.below-baseline",
        "warning" if clear else "info",
        text("mAP is {change:+.2f} points against the run without AQR", change=100 * change)
        if context.run.uses_aqr
        else text("mAP is {change:+.2f} points against the baseline", change=100 * change),
        text(
            "mAP {ours:.4f} against {theirs:.4f}{nds}; {lower} classes are lower, {higher} higher. {spread}",
            ours=ours,
            theirs=theirs,
            nds=text(", NDS {change:+.2f} points", change=100 * nds) if nds is not None else "",
            lower=lower,
            higher=higher,
            spread=text("One run each: no spread known, so a difference like this may also come from another seed.")
            if ends is None or comparison.intervals is None
            else text(
                "With other scenes like the {scenes} of the split it would lie between {low:+.2f} and {high:+.2f} "
                "points (95 %); what another seed would do is not known, there is one run each.",
                scenes=comparison.intervals.scenes,
                low=100 * ends[0],
                high=100 * ends[1],
            ),
        ),
        {
            "metrics_delta": dict(comparison.metrics),
            "mAP_interval": None if ends is None else list(ends),
            "classes_lower": lower,
            "classes_higher": higher,
            "runs_each": 1,
        },
        text("difference of the two runs") if ends is None else text("bootstrap over scenes, 95 %"),
        comparison.run,
    )


def _map(run: Run | None) -> float:
    return run.evaluation.figures["mAP"] if run is not None and run.evaluation is not None else math.nan


def small_classes(context: Context) -> Iterator[Finding]:
    """Whether small objects lose more than large ones."""
    comparison = context.comparison
    if comparison is None:
        return
    small = [value for name, value in comparison.per_class_ap.items() if name in SMALL]
    large = [value for name, value in comparison.per_class_ap.items() if name not in SMALL]
    if len(small) < 4 or len(large) < 4:
        return
    p = permutation_test(small, large)
    gap = float(np.mean(small) - np.mean(large))
    if p > LEVEL or gap >= 0:
        return
    yield Finding(
        "classes.small-hurt-more",
        "warning",
        text("Small classes lose more than large ones"),
        text(
            "AP changes by {small:+.1f} points on average over {names}, by {large:+.1f} over the other classes "
            "(permutation test over classes, p = {p:.3f}; one run each).",
            small=100 * float(np.mean(small)),
            large=100 * float(np.mean(large)),
            names=", ".join(name for name in comparison.per_class_ap if name in SMALL),
            p=p,
        ),
        {
            "small_mean": round(float(np.mean(small)), 6),
            "large_mean": round(float(np.mean(large)), 6),
            "p": round(p, 6),
        },
        bands.PERMUTATION,
        comparison.run,
    )


CHECKS: Final[tuple[Check, ...]] = (against_reference, baseline_trained_alike, against_baseline, small_classes)
