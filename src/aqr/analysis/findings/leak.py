"""A training loss that is better than the baseline's beside a score that is worse."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from aqr.analysis.findings import bands
from aqr.analysis.findings.finding import Check, Context, Finding
from aqr.analysis.language import Listing, text
from aqr.analysis.run import Run
from aqr.analysis.statistics import half_width

_LOSS: Final = "loss_cls"
_OTHERS: Final = ("dn_loss_cls", "loss_bbox", "dn_loss_bbox")
_LOWER: Final = 0.01
"""Share of the baseline's loss, and mAP, by which a run must be lower."""
_MUCH: Final = 0.03
"""Both lower by this much: critical."""
_FEWEST: Final = 5


def leak(context: Context) -> Iterator[Finding]:
    """loss_cls over the second half of the log lines that both runs have, pair by pair, against mAP."""
    run, baseline, comparison = context.run, context.baseline, context.comparison
    if baseline is None or comparison is None or run.uses_aqr is not True or comparison.like_for_like is False:
        return
    change = comparison.metrics.get("mAP")
    if change is None or change > -_LOWER:
        return
    if comparison.intervals is not None and comparison.intervals.metrics["mAP"][1] >= 0:
        return
    found = _second_half(run, baseline, _LOSS)
    if found is None:
        return
    ours, theirs = found
    half = half_width(ours - theirs)
    lower = float((theirs - ours).mean())
    share = lower / float(theirs.mean())
    if half is None or lower <= half or share < _LOWER:
        return
    others = {
        name: float(pair[0].mean() / pair[1].mean() - 1)
        for name in _OTHERS
        if (pair := _second_half(run, baseline, name)) is not None
    }
    yield Finding(
        "training.leak",
        "critical" if change <= -_MUCH and share >= _MUCH else "warning",
        text("Training looks easier than without AQR, but the detector is worse: a leak?"),
        text(
            "Over the second half of the training loss_cls is {share:.1f} % below the baseline's ({ours:.4f} against "
            "{theirs:.4f}; a difference of {lower:.4f} ± {half:.4f} over {lines} log lines), while mAP is "
            "{points:.2f} points below it. This can mean that training sees something of the ground truth that is "
            "missing at inference, as where denoising queries are drawn into the weight maps. Overfitting can look "
            "alike.{others}",
            share=100 * share,
            ours=float(ours.mean()),
            theirs=float(theirs.mean()),
            lower=lower,
            half=half,
            lines=len(ours),
            points=-100 * change,
            others=text(
                " Beside it: {listed}.",
                listed=Listing(
                    tuple(text("{name} {change:+.1f} %", name=name, change=100 * one) for name, one in others.items())
                ),
            )
            if others
            else "",
        ),
        {
            "loss_cls": round(float(ours.mean()), 6),
            "baseline_loss_cls": round(float(theirs.mean()), 6),
            "share_lower": round(share, 6),
            "half_width_95": round(half, 6),
            "log_lines": len(ours),
            "mAP_delta": change,
            "other_losses": {name: round(one, 6) for name, one in others.items()},
        },
        bands.PAIRED,
        run.name,
    )


def _second_half(run: Run, baseline: Run, name: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Values of both runs at the iterations that both logged, the second half of them; None where too few."""
    here, there = run.training.series.get(name), baseline.training.series.get(name)
    if here is None or there is None:
        return None
    here, there = here.finite(), there.finite()
    shared, ours, theirs = np.intersect1d(here.iteration, there.iteration, return_indices=True)
    start = len(shared) // 2
    if len(shared) - start < _FEWEST or there.value[theirs[start:]].mean() <= 0:
        return None
    return here.value[ours[start:]], there.value[theirs[start:]]


CHECKS: Final[tuple[Check, ...]] = (leak,)
