"""Failure by failure: the chosen arm, and what hiding the failing sensor could gain."""

from __future__ import annotations

from benchmarks.proof.arms import BASELINE
from benchmarks.proof.collect import NO_CAMERA, NO_LIDAR
from benchmarks.proof.compare import Comparison
from benchmarks.proof.figures import CLEAN, FAILURES, figures_of
from benchmarks.proof.plan import FAILURE_TARGET, conditions, name_of
from benchmarks.proof.sections.wording import interval, points, table

from aqr.data.failures.catalogue import KINDS, LIDAR


def failures(comparison: Comparison, chosen: str | None) -> str:
    text = "## By failure\n\n![every arm under every failure](proof-failures.png)\n"
    if chosen is None:
        return text
    rows = [
        (
            name,
            f"{comparison.mean(BASELINE, name, beside=chosen):.3f}",
            f"{comparison.mean(chosen, name, beside=BASELINE):.3f}",
            interval(comparison.difference(chosen, name)),
        )
        for name in (CLEAN, *(kind.name for kind in KINDS))
    ]
    return f"{text}\n{table(('failure', 'no AQR, same seeds, mAP', chosen, 'difference'), rows)}\n"


def headroom(comparison: Comparison) -> str:
    both = comparison.scores(BASELINE)
    intact = {kind.name: both[NO_LIDAR if kind.needs == (LIDAR,) else NO_CAMERA] for kind in KINDS}
    best = {name_of(one): max(both[name_of(one)], intact[one.name] if one else 0.0) for one in conditions()}
    reached, possible = figures_of(both), figures_of(best)
    gains = {kind.name: possible[kind.name] - reached[kind.name] for kind in KINDS}
    gain = possible[FAILURES] - reached[FAILURES]
    listed = ", ".join(f"{points(one)} under {name}" for name, one in gains.items() if one > 0) or "none anywhere"
    vain = "So switching a sensor off by kind and severity of failure cannot bring this detector the"
    vain = f"{vain}\n{points(FAILURE_TARGET)} asked for. " if gain < FAILURE_TARGET else ""
    return f"""## How much choosing a sensor could gain

Without AQR, intact LiDAR alone reaches {both[NO_CAMERA]:.3f} mAP (cameras gone), intact cameras alone
{both[NO_LIDAR]:.3f} (LiDAR gone). Suppose that somebody who knows which failure, at which severity, is at hand hides
the failing sensor (the cameras, where the two are misaligned) from this detector wherever the other one alone does
better than both. The mean over failures would gain {points(gain)} points: {listed}.

Everywhere else the detector that was trained with failures scores at least as well with the failing sensor as without
it. {vain}Choosing by sample or by object, weights between all and nothing, or a decoder trained for such choices could
gain more; nothing here measures how much.
"""
