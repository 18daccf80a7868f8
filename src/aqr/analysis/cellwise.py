"""Forecasts summed cell by cell over the weight maps that a run saved.

relative_change is R = mean s·|m − 1| with m a cell's factor and s the share of its features that are not 0, times the
gate |a| where there is one. The maps give m before and after another setting, not s. Where R says that s is at its
largest everywhere (|a|, or 1), as for image features, the sum is exact. Else any s in [0, largest] that gives R may be
true; the least and the most that another setting can then come to are a fractional knapsack: cells by the ratio of
|m' − 1| to |m − 1|, filled up from one end and from the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from aqr.analysis.forecast import SHORT, Anchor, Forecast, Sensor
from aqr.analysis.formula import Form
from aqr.analysis.run import Floats, Run, Snapshot
from aqr.errors import InputError

ADAPTIVE_SHARE: Final = 0.7
"""Share of the per-cell weight in modulation_type `adaptive`; the rest is the map's mean."""
_POOLINGS: Final = ("element_wise", "channel_wise", "adaptive")
_AT_CLAMP: Final = 1e-4
"""A weight within this share of the clamp may have been cut off there."""
_ROUNDING: Final = 1e-4
"""Relative shortfall of R that is put down to rounding, not to features that are 0."""
_SURPLUS: Final = 0.01
"""Relative excess of R over what the maps allow that rounding explains; beyond it the maps are not those of R."""


def saved_maps(run: Run) -> tuple[Snapshot, dict[Sensor, Floats]] | None:
    """The last maps that belong to a snapshot of the run, and that snapshot; None where there are none.

    Raises:
        InputError: where their file is damaged.
    """
    snapshots = {one.forward: one for one in run.snapshots}
    for path in reversed(run.maps):
        number = re.search(r"(\d+)$", path.stem)
        snapshot = snapshots.get(int(number[1])) if number else None
        if snapshot is not None:
            return snapshot, dict(_load(path))
    return None


def _load(path: Path) -> Iterator[tuple[Sensor, Floats]]:
    try:
        with np.load(path, allow_pickle=False) as saved:
            arrays: Mapping[Sensor, Floats] = {
                sensor: saved[f"weight_map_{short}"].astype(np.float64)
                for sensor, short in SHORT.items()
                if f"weight_map_{short}" in saved
            }
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: is no readable .npz of weight maps ({error}); delete it") from None
    for sensor, weights in arrays.items():
        if weights.ndim < 3 or not weights.size or not np.isfinite(weights).all():
            raise InputError(
                f"{path}: weight_map_{SHORT[sensor]} of shape {list(weights.shape)} should hold finite numbers, "
                "[B, H, W] or [B, V, H, W]; delete the file"
            )
        yield sensor, weights


def forecasts(
    weights: Floats, anchor: Anchor, clamp: float, residuals: Sequence[float], form: Form
) -> list[Forecast] | None:
    """What to expect of a clamp with each residual.

    Args:
        weights: the map as rendered, [..., H, W], each of its H × W maps pooled by itself.
        anchor: figures of the same forward pass.
        clamp: max_weight_clamp.
        residuals: values of residual_weight.
        form: of the run.

    Returns:
        One forecast per residual; None where the maps do not tell: of weights that the run's own clamp cut off, of
        `centered` maps at another clamp, and where R is more than the maps allow.
    """
    if anchor.pooling not in _POOLINGS or (anchor.parameterisation == "centered" and clamp != anchor.clamp):
        return None
    if clamp > anchor.clamp and weights.max() >= anchor.clamp * (1 - _AT_CLAMP):
        return None
    largest = 1.0 if anchor.gate is None else abs(anchor.gate)
    now, then = (_pooled(np.minimum(weights, limit), anchor.pooling).ravel() for limit in (anchor.clamp, clamp))
    kept = 1 - anchor.residual
    before = np.abs(now - kept) if form == "additive" else kept * np.abs(now - 1)
    if not 0 < anchor.change <= largest * before.mean() * (1 + _SURPLUS):
        return None
    if form == "additive":
        return [_expected(before, np.abs(then - (1 - r)), anchor.change, largest) for r in residuals]
    unit = _expected(before, np.abs(then - 1), anchor.change, largest)
    return [Forecast((1 - r) * unit.low, (1 - r) * unit.expected, (1 - r) * unit.high) for r in residuals]


def _pooled(weights: Floats, pooling: str) -> Floats:
    if pooling == "element_wise":
        return weights
    mean = np.broadcast_to(weights.mean((-2, -1), keepdims=True), weights.shape)
    return mean if pooling == "channel_wise" else mean + ADAPTIVE_SHARE * (weights - mean)


def _expected(before: Floats, after: Floats, change: float, largest: float) -> Forecast:
    """All that mean s·after can be with mean s·before = change and s in [0, largest]; expected for s alike everywhere.

    Args:
        before: |m − 1| of the run, [N].
        after: with the other setting, [N].
        change: R.
        largest: of s.
    """
    alike = change * float(after.mean()) / float(before.mean())
    if change >= largest * before.mean() * (1 - _ROUNDING):
        return Forecast(alike, alike, alike)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(before > 0, after / before, np.where(after > 0, np.inf, 0.0))
    order = np.argsort(ratio)
    low, high = (_filled(before[way], after[way], change, largest) for way in (order, order[::-1]))
    return Forecast(min(low, alike), alike, max(high, alike))


def _filled(before: Floats, after: Floats, change: float, largest: float) -> float:
    """mean s·after with s = largest cell by cell, until mean s·before comes to the change."""
    spent = np.cumsum(before) * (largest / len(before))
    full = int(np.searchsorted(spent, change, side="left"))
    left = change - (float(spent[full - 1]) if full else 0.0)
    part = left * float(after[full] / before[full]) if full < len(before) and before[full] > 0 else 0.0
    return float(after[:full].sum()) * largest / len(before) + part
