"""The modulation formulas, and which of them a log's own figures follow.

With W the weight map, r residual_weight and c max_weight_clamp, a feature is multiplied by
    convex     m = r + (1 − r)·W,  at most r + (1 − r)·c
    additive   m = r + W,          at most r + c
and with a gate a in (−1, 1) by 1 + a·(m − 1), at most the greater of that bound and 2 − r.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, cast

import numpy as np

from aqr.analysis.language import text
from aqr.analysis.run import MAPS, Run, Setting, Snapshot

Form = Literal["convex", "additive"]

_AGREE = 2e-4
"""Relative difference within which figures printed with six decimals count as equal."""
_FEWEST = 3
"""Snapshots of single ranks from which a setting is inferred."""


def largest_factor(clamp: float, residual: float, form: Form = "convex", gate: bool = False) -> float:
    """The most that any feature can be multiplied by.

    >>> round(largest_factor(2.5, 0.6), 3), round(largest_factor(2.5, 0.6, "additive"), 3)
    (1.6, 3.1)
    """
    bound = residual + clamp if form == "additive" else residual + (1 - residual) * clamp
    return max(bound, 2 - residual) if gate else bound


def form_of(run: Run) -> Form | None:
    form = run.text("form")
    return cast(Form, form) if form in ("convex", "additive") else None


def is_gated(run: Run) -> bool:
    """Whether the run is known to have a learned gate."""
    return "gate" in run.settings and bool(run.settings["gate"].value)


def applied_factor(snapshots: tuple[Snapshot, ...]) -> tuple[float, int, int] | None:
    """The largest factor that was really applied, from debug blocks alone.

    Where one feature is both the largest after modulation and the one that changed most, max|F'| / max|F' − F| is
    m / (m − 1) with m its factor, whatever the feature was. That this holds shows in the ratio being the same in block
    after block.

    Returns:
        m, the number of blocks that give it, and the number of blocks; None where fewer than half of them agree.
    """
    pairs = np.array([pair for snapshot in snapshots for pair in snapshot.changes])
    if len(pairs) < _FEWEST:
        return None
    pairs = pairs[(pairs[:, 1] > 0) & (pairs[:, 0] > pairs[:, 1])]
    if len(pairs) < _FEWEST:
        return None
    factors = np.sort(pairs[:, 0] / (pairs[:, 0] - pairs[:, 1]))
    ends = np.searchsorted(factors, factors * (1 + _AGREE), side="right")
    best = int((ends - np.arange(len(factors))).argmax())
    agreeing = factors[best : ends[best]]
    count = len(agreeing)
    total = sum(len(snapshot.changes) for snapshot in snapshots)
    if count < max(_FEWEST, total / 2):
        return None
    return float(np.median(agreeing)), count, total


def standing_maximum(snapshots: tuple[Snapshot, ...]) -> float | None:
    """The maximum above 1 that weight maps share in every block: a clamp. None where they have no common one."""
    for group in reversed(MAPS):
        highs = np.concatenate([one.values(group, "max") for one in snapshots]) if snapshots else np.empty(0)
        if len(highs) >= _FEWEST and highs.min() == highs.max() and highs[0] > 1:
            return float(highs[0])
    return None


def measured_settings(run: Run) -> dict[str, Setting]:
    """Settings that follow from the logged figures: max_weight_clamp, form and residual_weight."""
    out: dict[str, Setting] = {}
    if run.snapshots:
        out["enable_aqr"] = Setting(True, "measured")
    clamp = standing_maximum(run.snapshots)
    if clamp is None:
        return out
    out["max_weight_clamp"] = Setting(clamp, "measured")
    applied = applied_factor(run.snapshots)
    # The largest factor of a pooled map is not that of its largest weight.
    if applied is None or (run.text("modulation_type") or "element_wise") != "element_wise":
        return out
    factor = applied[0]
    # Convex factors stay at or below c, additive ones at or above it.
    form: Form = "additive" if factor > clamp else "convex"
    residual = factor - clamp if form == "additive" else (clamp - factor) / (clamp - 1)
    if 0 <= residual <= 1:
        out["form"] = Setting(form, "measured")
        out["residual_weight"] = Setting(round(residual, 3), "measured")
    return out


def with_measured_settings(run: Run) -> Run:
    """The run with settings that its config does not state filled in from its figures, then from its name."""
    stated = {name: one for name, one in run.settings.items() if one.origin in ("config", "moved")}
    named = {name: one for name, one in run.settings.items() if one.origin == "file name"}
    measured = measured_settings(run)
    settings: Mapping[str, Setting] = {**named, **measured, **stated}
    notes = [
        text(
            "The name says {setting} = {named}, the {origin} {value}; the latter counts.",
            setting=name,
            named=str(one.value),
            origin=text("config says") if settings[name].origin == "config" else text("figures show"),
            value=str(settings[name].value),
        )
        for name, one in named.items()
        if settings[name].value != one.value
    ]
    return replace(run, settings=settings, notes=(*run.notes, *notes))
