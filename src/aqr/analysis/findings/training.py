"""Curves: the start, non-finite gradients, divergence, the learning rate, overfitting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from aqr.analysis.findings import bands
from aqr.analysis.findings.finding import Check, Context, Finding
from aqr.analysis.language import text

_LISTED: Final = 8
_SHOCK: Final = 0.10
"""Share by which a first loss above the baseline's counts as a shock."""


def shock(context: Context) -> Iterator[Finding]:
    comparison, run, baseline = context.comparison, context.run, context.baseline
    if (
        comparison is None
        or baseline is None
        or comparison.loss_first is None
        or comparison.loss_first_iteration is None
    ):
        return
    if comparison.like_for_like is False:
        return
    at = comparison.loss_first_iteration
    ours, theirs = run.training.series["loss"].at(at), baseline.training.series["loss"].at(at)
    if ours is None or theirs is None or theirs <= 0 or ours < theirs * (1 + _SHOCK):
        return
    last_at = comparison.loss_last_iteration or at
    yield Finding(
        "training.start-shock",
        "warning",
        text("A shock at the start: loss {ours:.2f} against {theirs:.2f}", ours=ours, theirs=theirs),
        text(
            "At iteration {at} the loss is {gap:+.4f} against the baseline, at {last_at} {last:+.4f}. A detector with "
            "AQR that starts as the detector without it has no such gap.",
            at=at,
            gap=comparison.loss_first,
            last_at=last_at,
            last=comparison.loss_last or 0.0,
        ),
        {
            "iteration": at,
            "loss": ours,
            "baseline_loss": theirs,
            "delta": comparison.loss_first,
            "delta_last": comparison.loss_last,
        },
        bands.HABIT,
        run.name,
    )


def nonfinite(context: Context) -> Iterator[Finding]:
    """Gradients and losses that are no numbers, and steps skipped because of them."""
    run = context.run
    where = run.training.nonfinite_grad_iterations
    if where:
        norms = run.training.series["grad_norm"]
        nan = [int(at) for at, value in zip(norms.iteration, norms.value, strict=True) if np.isnan(value)]
        infinite = [at for at in where if at not in nan]
        few = len(where) <= 0.05 * len(norms)
        yield Finding(
            "gradients.nonfinite",
            "info" if few else "critical",
            text("Gradients are not finite on {count} of {lines} log lines", count=len(where), lines=len(norms)),
            text(
                "At iterations {listed} ({nan} NaN, {infinite} infinite). Under fp16 the loss scaling skips such "
                "steps now and then; still, the run is not free of NaN.",
                listed=_listed(where),
                nan=len(nan),
                infinite=len(infinite),
            ),
            {"iterations": list(where), "nan": nan, "infinite": infinite, "log_lines": len(norms)},
            bands.ARITHMETIC,
            run.name,
        )
    skipped = run.training.series.get("skipped")
    if skipped is not None and len(skipped.finite()) and (count := int(skipped.finite().value[-1])):
        rises = np.flatnonzero(np.diff(skipped.finite().value, prepend=0) > 0)
        at = [int(place) for place in skipped.finite().iteration[rises]]
        share = count / (run.training.iterations or count)
        yield Finding(
            "gradients.steps-skipped",
            "critical" if share > 0.05 else "info",
            text("Steps skipped because loss or gradient was not finite: {count}", count=count),
            text(
                "In the log steps that end at {listed}.",
                listed=_listed(at),
            ),
            {"skipped": count, "iterations": at},
            bands.ARITHMETIC,
            run.name,
        )
    losses = run.training.series.get("loss")
    if losses is not None and not np.isfinite(losses.value).all():
        at = losses.iteration[~np.isfinite(losses.value)].tolist()
        yield Finding(
            "training.loss-nonfinite",
            "critical",
            text("The loss is not finite on {count} log lines", count=len(at)),
            text("First at iteration {first}.", first=at[0]),
            {"iterations": at},
            bands.ARITHMETIC,
            run.name,
        )


def divergence(context: Context) -> Iterator[Finding]:
    """A loss that ends well above its lowest level."""
    losses = context.run.training.series.get("loss")
    if losses is None or len(losses.finite()) < 10:
        return
    values = losses.finite().value
    window = max(3, len(values) // 20)
    smooth = np.convolve(values, np.ones(window) / window, mode="valid")
    lowest, end = float(smooth.min()), float(smooth[-1])
    noise = float(np.median(np.abs(np.diff(values)))) / 0.954
    if end <= lowest + 4 * noise or end < 1.2 * lowest:
        return
    at = int(losses.finite().iteration[int(smooth.argmin()) + window // 2])
    yield Finding(
        "training.diverged",
        "critical" if end > 2 * lowest or end > float(smooth[0]) else "warning",
        text(
            "The loss rises again: {lowest:.2f} near iteration {at}, {end:.2f} at the end",
            lowest=lowest,
            at=at,
            end=end,
        ),
        text(
            "Means over {window} log lines; lines jump by about {noise:.2f} from one to the next.",
            window=window,
            noise=noise,
        ),
        {"lowest": round(lowest, 6), "iteration": at, "end": round(end, 6)},
        bands.HABIT,
        context.run.name,
    )


def schedule(context: Context) -> Iterator[Finding]:
    """A learning rate that never came down."""
    training = context.run.training
    rates = training.series.get("lr")
    if rates is None or len(rates.finite()) < 5:
        return
    values = rates.finite().value
    peak, end = float(values.max()), float(values[-1])
    if peak <= 0 or end < 0.5 * peak:
        return
    early = (
        training.planned is not None
        and training.iterations is not None
        and training.iterations < 0.95 * training.planned
    )
    yield Finding(
        "training.lr-never-decayed",
        "info" if early else "warning",
        text("The learning rate never decayed"),
        text(
            "It ends at {end:.3g}, {share:.0f} % of its peak{early}.",
            end=end,
            share=100 * end / peak,
            early=text("; the run broke off before its end") if early else "",
        ),
        {"last": end, "peak": peak, "broke_off": early},
        bands.HABIT,
        context.run.name,
    )


def unfinished(context: Context) -> Iterator[Finding]:
    training = context.run.training
    if training.planned is None or training.iterations is None:
        return
    interval = 0
    losses = training.series.get("loss")
    if losses is not None and len(losses) > 1:
        interval = int(np.median(np.diff(losses.iteration)))
    if training.iterations + interval >= training.planned:
        return
    yield Finding(
        "training.broke-off",
        "warning",
        text("The log ends at iteration {done} of {planned}", done=training.iterations, planned=training.planned),
        text("Either the run broke off or the log is cut. Figures are those up to there."),
        {"iterations": training.iterations, "planned": training.planned},
        bands.ARITHMETIC,
        context.run.name,
    )


def overfitting(context: Context) -> Iterator[Finding]:
    """Scores that fall while the loss goes on falling."""
    run = context.run
    scored = [
        (one.iteration, one.figures["mAP"])
        for one in run.evaluations
        if one.iteration is not None and "mAP" in one.figures and (one.split is None or "-" not in one.split)
    ]
    losses = run.training.series.get("loss")
    if len(scored) < 3 or losses is None:
        return
    best = max(range(len(scored)), key=lambda i: scored[i][1])
    start, end = scored[best][0], scored[-1][0]
    if best == len(scored) - 1 or start is None or end is None:
        return
    drop = scored[best][1] - scored[-1][1]
    finite = losses.finite()
    before = finite.value[finite.iteration <= start]
    after = finite.value[finite.iteration > start]
    if drop < 0.005 or not len(before) or not len(after) or after[-1] >= before[-1]:
        return
    yield Finding(
        "training.overfitting",
        "warning",
        text("The scores fall while the loss goes on falling"),
        text(
            "mAP {best:.4f} at iteration {start}, {last:.4f} at {end}; the loss went from {before:.2f} to {after:.2f}.",
            best=scored[best][1],
            start=start,
            last=scored[-1][1],
            end=end,
            before=float(before[-1]),
            after=float(after[-1]),
        ),
        {"best_mAP": scored[best][1], "best_iteration": start, "last_mAP": scored[-1][1], "last_iteration": end},
        bands.HABIT,
        run.name,
    )


def _listed(iterations: Sequence[int]) -> str:
    return ", ".join(map(str, iterations[:_LISTED])) + (", …" if len(iterations) > _LISTED else "")


CHECKS: Final[tuple[Check, ...]] = (shock, nonfinite, divergence, schedule, unfinished, overfitting)
