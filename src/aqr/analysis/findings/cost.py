"""Step time and memory against the baseline."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from aqr.analysis.findings import bands
from aqr.analysis.findings.finding import Check, Context, Finding
from aqr.analysis.language import text

_SLOWER: Final = 1.15
_LARGER: Final = 1.15


def step_time(context: Context) -> Iterator[Finding]:
    comparison = context.comparison
    if comparison is None or comparison.step_time_ratio is None or context.baseline is None:
        return
    ratio = comparison.step_time_ratio
    if ratio < _SLOWER:
        return
    ours, theirs = context.run.training.median("step_time_s"), context.baseline.training.median("step_time_s")
    yield Finding(
        "cost.step-time",
        "warning",
        text("A step takes {ratio:.2f} times as long as without AQR", ratio=ratio)
        if context.run.uses_aqr
        else text("A step takes {ratio:.2f} times as long as in the baseline", ratio=ratio),
        text("Median {ours:.4f} s against {theirs:.4f} s per step.", ours=ours or 0.0, theirs=theirs or 0.0),
        {"ratio": ratio, "step_time_s": ours, "baseline_step_time_s": theirs},
        bands.HABIT,
        comparison.run,
    )


def memory(context: Context) -> Iterator[Finding]:
    comparison = context.comparison
    if comparison is None or comparison.memory_ratio is None or context.baseline is None:
        return
    ours, theirs = context.run.training.largest("memory_mb"), context.baseline.training.largest("memory_mb")
    ratio = comparison.memory_ratio
    if ratio < 1.02:
        return
    yield Finding(
        "cost.memory",
        "warning" if ratio >= _LARGER else "info",
        text("Memory is {ratio:.2f} times the baseline's", ratio=ratio),
        text("At most {ours:,.0f} MB against {theirs:,.0f} MB.", ours=ours or 0.0, theirs=theirs or 0.0),
        {"ratio": ratio, "memory_mb": ours, "baseline_memory_mb": theirs},
        bands.HABIT,
        comparison.run,
    )


CHECKS: Final[tuple[Check, ...]] = (step_time, memory)
