"""The verdict: three sentences on the score, the mechanism, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from aqr.analysis.comparison import Comparison
from aqr.analysis.findings import Finding
from aqr.analysis.language import Listing, Message, Value, text
from aqr.analysis.recommend import OFF, Recommendation, expectation
from aqr.analysis.run import Run

_CLAUSES: Final[tuple[tuple[str, Message], ...]] = (
    ("training.loss-nonfinite", text("the loss is not finite")),
    ("training.diverged", text("the training diverged")),
    ("router.no-gradient", text("the router gets no gradient")),
    ("maps.clamp-not-applied", text("the clamp is not applied")),
    ("maps.invisible-queries-pile-up", text("invisible queries pile up in the image map")),
    ("queries.denoising-in-maps", text("denoising queries are drawn into the weight maps")),
    ("maps.empty", text("AQR is all but a constant factor where weight maps are empty")),
    ("modulation.formula-differs", text("features are scaled up further than the formula allows")),
    ("router.not-learning", text("nothing shows that the router learns")),
    ("training.leak", text("training looks easier than without AQR while the detector is worse (a leak?)")),
    ("modulation.gate-negative", text("a gate is negative, which turns the meaning of weights round")),
    ("training.start-shock", text("the training starts with a shock")),
    ("modulation.camera-above-band", text("image features are changed more than is wanted")),
    ("maps.background-damped", text("everything away from the queries is scaled down")),
    ("training.overfitting", text("the scores fall while the loss goes on falling")),
    ("training.broke-off", text("the training broke off")),
)
"""What the second sentence may say, the gravest first."""


def verdict(
    run: Run,
    comparison: Comparison | None,
    findings: Sequence[Finding],
    recommendations: Sequence[Recommendation],
) -> tuple[Message, Message, Message]:
    """Three sentences about the run that the report is mainly about."""
    return (
        _score(run, comparison, findings),
        _mechanism(run, findings),
        _next(run, comparison, findings, recommendations),
    )


def _score(run: Run, comparison: Comparison | None, findings: Sequence[Finding]) -> Message:
    evaluation = run.evaluation
    score = evaluation.figures.get("mAP") if evaluation is not None else None
    if score is None:
        return text("{run} holds no evaluation, so nothing is known of its scores.", run=run.name)
    if comparison is None or "mAP" not in comparison.metrics:
        if any(finding.id == "baseline.not-like-for-like" for finding in findings):
            return text(
                "mAP is {score:.4f}; the reference is not a like-for-like baseline, so what AQR did to the score is "
                "not known.",
                score=score,
            )
        return text(
            "mAP is {score:.4f}; without a baseline that was trained the same way, what AQR did to the score is not "
            "known.",
            score=score,
        )
    change = comparison.metrics["mAP"]
    ratio = comparison.step_time_ratio
    nds = comparison.metrics.get("NDS")
    alike = comparison.like_for_like is not False
    values: dict[str, Value | Message | Listing] = {
        "score": score,
        "other": score - change,
        "change": 100 * change,
        "nds": text(" (NDS {change:+.2f})", change=100 * nds) if nds is not None else "",
        "cost": text(", at {ratio:.2f} times the step time", ratio=ratio) if ratio is not None else "",
        "alike": "" if alike else text(", but the baseline was not trained the same way"),
        "spread": _spread(comparison),
    }
    if run.uses_aqr:
        return text(
            "With AQR mAP is {score:.4f}, without it {other:.4f}: {change:+.2f} points{nds}{cost}{alike}; {spread}.",
            **values,
        )
    return text(
        "mAP is {score:.4f}, in the baseline {other:.4f}: {change:+.2f} points{nds}{cost}{alike}; {spread}.", **values
    )


def _spread(comparison: Comparison) -> Message:
    if comparison.intervals is None:
        return text("one run each, so no spread is known")
    low, high = comparison.intervals.metrics["mAP"]
    return text(
        "with other scenes it would lie between {low:+.2f} and {high:+.2f} (95 %), one run each",
        low=100 * low,
        high=100 * high,
    )


def _mechanism(run: Run, findings: Sequence[Finding]) -> Message:
    if run.uses_aqr is False:
        return text("The run does not use AQR.")
    if not run.snapshots:
        return text("It holds no AQR statistics, so nothing is known of what AQR did to the features.")
    told = {finding.id: finding for finding in findings if finding.severity != "info"}
    clauses = [clause for name, clause in _CLAUSES if name in told][:3]
    if not clauses:
        return text("Nothing in the AQR statistics is out of order.")
    if len(clauses) == 1:
        return text("What stands out: {first}.", first=clauses[0])
    if len(clauses) == 2:
        return text("What stands out: {first}, and {second}.", first=clauses[0], second=clauses[1])
    return text(
        "What stands out: {first}, {second}, and {third}.", first=clauses[0], second=clauses[1], third=clauses[2]
    )


def _next(
    run: Run,
    comparison: Comparison | None,
    findings: Sequence[Finding],
    recommendations: Sequence[Recommendation],
) -> Message:
    if comparison is not None and recommendations and recommendations[0].name == OFF:
        return text(
            "Next, go on without AQR, and find what costs {lost:.2f} points before trying another strength.",
            lost=-100 * comparison.metrics["mAP"],
        )
    if any(finding.id == "maps.empty" and finding.severity == "critical" for finding in findings):
        if run.kind == "run folder":
            return text(
                "Next, train with aqr.parameterisation: centered, whose maps do not end at 0; as it is, other "
                "strengths only change the constant."
            )
        return text(
            "Next, find out why next to nothing is left on the weight maps; as it is, other strengths only change the "
            "constant."
        )
    settings = [one for one in recommendations if one.name != OFF]
    off = any(one.name == OFF for one in recommendations)
    if settings:
        first = settings[0]
        assert first.camera is not None
        return text(
            "Next, try {name} (clamp {clamp}, residual {residual}), with which image features should change by "
            "{change}{off}.",
            name=first.name,
            clamp=str(first.max_weight_clamp),
            residual=str(first.residual_weight),
            change=expectation(first.camera),
            off=text("; until a setting gains, train without AQR") if off else "",
        )
    if off:
        return text("Train without AQR until a setting gains.")
    if comparison is not None and comparison.metrics.get("mAP", 0.0) > 0:
        return text("Next, repeat both trainings with other seeds to learn whether the gain is real.")
    if comparison is None and run.uses_aqr:
        only, start = run.text("only"), run.text("init_from")
        if only is not None and start is not None:
            return text(
                "Only {only} was trained. Next, score what the run started from (aqr eval {start} --out DIR) and pass "
                "that folder as the baseline.",
                only=only,
                start=start,
            )
        return text("Next, train the same way without AQR and pass that run as the baseline.")
    return text("Next, repeat both trainings with other seeds to learn their spread.")
