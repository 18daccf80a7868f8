"""The response surface of a study: scores as a quadratic of the settings, and how sure its highest place is.

Ranges are scaled to [−1, 1] (logarithmically where they are searched by ratio). The model is a constant, x_j and x_j²
for every range, a shift for every choice of a list, and x_i·x_j where there are trials enough; fitted by least squares.

How sure: residual bootstrap. The residuals, each divided by √(1 − its leverage), are drawn again with replacement
and added to the fitted values, the surface is fitted to these scores, and its highest place in the searched region is
looked up; 95 % of those places lie in the interval given. What a surface is worth is said by predicting every trial
from the others (leave-one-out R²): at 0 or below, the settings tell no more than the mean does.

A quadratic goes on where no trial was. Its highest place is called extrapolated where the surface is known there less
well than one more trial would tell it (leverage above 1, which no trial has), or where it stands higher above the best
trial than the scatter of trials explains. Such a place has no interval and no advantage: the bootstrap knows of no
other surface than a quadratic.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.stats import qmc

from aqr.analysis.readers.study import Axis

Floats = npt.NDArray[np.float64]

REPLICATES: Final = 1000
CANDIDATES: Final = 4096
"""Places in the searched region among which the highest is looked for; a power of 2."""
SPARE: Final = 3
"""Trials that must be left beyond the terms of the model."""
_EDGE: Final = 0.05
"""Share of a range that counts as its end."""
_SCATTER: Final = 2.0
"""Standard deviations of the scores around the surface that its peak may stand above the best trial."""
_RISE: Final = 0.05
"""Share of the range of the scores that the peak may stand above the best trial besides."""


@dataclass(frozen=True)
class Surface:
    """A fitted surface.

    Attributes:
        axes: what was searched.
        interactions: whether there were trials enough for products of two settings.
        trials: number of trials it is fitted to.
        noise: standard deviation of the scores around it.
        explained: leave-one-out R²; None where the scores do not differ.
        optimum: settings of its highest place.
        value: its height there.
        best: the highest score of a trial.
        extrapolated: whether the highest place lies beyond what the trials show; there are no intervals then.
        value_interval: 95 % interval of that height; None where extrapolated.
        intervals: 95 % interval of where the highest place is, for every range; for a list, the share of
            replicates by choice. Empty where extrapolated.
        edges: ranges at whose end the highest place lies.
        importance: share of the surface's variance over the searched region that a setting accounts for alone.
    """

    axes: tuple[Axis, ...]
    interactions: bool
    trials: int
    noise: float
    explained: float | None
    optimum: Mapping[str, Any]
    value: float
    best: float
    extrapolated: bool
    value_interval: tuple[float, float] | None
    intervals: Mapping[str, tuple[float, float] | Mapping[str, float]]
    edges: tuple[str, ...]
    importance: Mapping[str, float]
    _coefficients: Floats
    _replicates: Floats

    @property
    def explains(self) -> bool:
        """Whether a trial is predicted from the others better than by their mean."""
        return self.explained is not None and self.explained > 0

    def at(self, settings: Sequence[Mapping[str, Any]]) -> tuple[Floats, Floats]:
        """Heights at settings [N], and of the replicates [R, N]."""
        basis = _basis(self.axes, settings, self.interactions)
        return basis @ self._coefficients, self._replicates @ basis.T

    def advantage(self, settings: Mapping[str, Any]) -> tuple[float, tuple[float, float]] | None:
        """How much higher the highest place is than other settings, with a 95 % interval; None where extrapolated."""
        if self.extrapolated:
            return None
        values, replicates = self.at([self.optimum, settings])
        return float(values[0] - values[1]), _interval(replicates[:, 0] - replicates[:, 1])


def fit_surface(
    axes: Sequence[Axis], params: Sequence[Mapping[str, Any]], scores: Sequence[float], seed: int = 0
) -> Surface | None:
    """Fit a surface.

    Args:
        axes: what was searched.
        params: settings of N trials.
        scores: their scores.
        seed: of the bootstrap.

    Returns:
        The surface; None where there are fewer than 3 trials more than terms without products of settings.
    """
    axes = tuple(axes)
    y = np.asarray(scores, dtype=np.float64)
    for interactions in (True, False):
        basis = _basis(axes, params, interactions)
        if len(y) >= basis.shape[1] + SPARE and np.linalg.matrix_rank(basis) == basis.shape[1]:
            break
    else:
        return None
    rng = np.random.default_rng(seed)
    inverse = np.linalg.pinv(basis)
    coefficients = inverse @ y
    fitted = basis @ coefficients
    leverage = np.clip(np.einsum("ij,ji->i", basis, inverse), 0.0, 1 - 1e-6)
    residual = y - fitted
    spread = float(((y - y.mean()) ** 2).sum())
    rescaled = residual / np.sqrt(1 - leverage)
    rescaled -= rescaled.mean()
    drawn = fitted + rescaled[rng.integers(len(y), size=(REPLICATES, len(y)))]
    replicates = drawn @ inverse.T

    places = _candidates(axes, CANDIDATES, seed)
    heights = _basis(axes, places, interactions)
    best = places[int(np.argmax(heights @ coefficients))]
    highest = np.argmax(heights @ replicates.T, axis=0)
    there = _basis(axes, [best], interactions)[0]
    noise = float(np.sqrt((residual**2).sum() / (len(y) - basis.shape[1])))
    value = float(there @ coefficients)
    rise = value - float(y.max())
    extrapolated = float(((there @ inverse) ** 2).sum()) > 1.0 or rise > _SCATTER * noise + _RISE * float(np.ptp(y))
    return Surface(
        axes=axes,
        interactions=interactions,
        trials=len(y),
        noise=noise,
        explained=1 - float(((residual / (1 - leverage)) ** 2).sum()) / spread if spread > 0 else None,
        optimum=best,
        value=value,
        best=float(y.max()),
        extrapolated=extrapolated,
        value_interval=None if extrapolated else _interval(replicates @ there),
        intervals={}
        if extrapolated
        else {axis.key: _where(axis, [places[index] for index in highest]) for axis in axes},
        edges=tuple(
            axis.key for axis in axes if not axis.choices and abs(_scaled(axis, best[axis.key])) > 1 - 2 * _EDGE
        ),
        importance=_importance(axes, coefficients, interactions),
        _coefficients=coefficients,
        _replicates=replicates,
    )


def _scaled(axis: Axis, value: float) -> float:
    low, high, at = np.log([axis.low, axis.high, value]) if axis.log else (axis.low, axis.high, value)
    return float(2 * (at - low) / (high - low) - 1)


def _unscaled(axis: Axis, x: float) -> float:
    share = (x + 1) / 2
    if axis.log:
        return float(axis.low * (axis.high / axis.low) ** share)
    return float(axis.low + (axis.high - axis.low) * share)


def _basis(axes: Sequence[Axis], params: Sequence[Mapping[str, Any]], interactions: bool) -> Floats:
    """[N, terms]: 1, x_j …, x_j² …, shifts of choices …, x_i·x_j …"""
    ranges = [np.array([_scaled(axis, one[axis.key]) for one in params]) for axis in axes if not axis.choices]
    shifts = [
        np.array([float(one[axis.key] == choice) for one in params]) for axis in axes for choice in axis.choices[1:]
    ]
    products = [a * b for a, b in itertools.combinations(ranges, 2)] if interactions else []
    columns = [np.ones(len(params)), *ranges, *(x**2 for x in ranges), *shifts, *products]
    return np.stack(columns, axis=1)


def _candidates(axes: Sequence[Axis], count: int, seed: int) -> list[dict[str, Any]]:
    """Places spread over the searched region, its borders included."""
    unit = qmc.Sobol(len(axes), seed=np.random.default_rng(seed)).random(count)
    columns: list[list[Any]] = []
    for axis, draws in zip(axes, unit.T, strict=True):
        if axis.choices:
            columns.append([axis.choices[min(int(u * len(axis.choices)), len(axis.choices) - 1)] for u in draws])
        else:
            # Stretched a little and cut off, so that the ends themselves are among the places.
            columns.append([_unscaled(axis, x) for x in np.clip((2 * draws - 1) * 1.05, -1.0, 1.0)])
    return [dict(zip((axis.key for axis in axes), row, strict=True)) for row in zip(*columns, strict=True)]


def _where(axis: Axis, places: Sequence[Mapping[str, Any]]) -> tuple[float, float] | dict[str, float]:
    found = [place[axis.key] for place in places]
    if axis.choices:
        return {str(choice): found.count(choice) / len(found) for choice in axis.choices}
    return _interval(np.array(found))


def _importance(axes: Sequence[Axis], coefficients: Floats, interactions: bool) -> dict[str, float]:
    """Sobol's first-order indices, in closed form: Var x = 1/3, Var x² = 4/45, Var x_i·x_j = 1/9 over [−1, 1]."""
    ranges = [axis for axis in axes if not axis.choices]
    first, second = coefficients[1 : 1 + len(ranges)], coefficients[1 + len(ranges) : 1 + 2 * len(ranges)]
    alone = {axis.key: float(a**2 / 3 + 4 * b**2 / 45) for axis, a, b in zip(ranges, first, second, strict=True)}
    start = 1 + 2 * len(ranges)
    for axis in axes:
        if axis.choices:
            shifts = np.concatenate([[0.0], coefficients[start : start + len(axis.choices) - 1]])
            alone[axis.key] = float(shifts.var())
            start += len(axis.choices) - 1
    together = float((coefficients[start:] ** 2).sum() / 9) if interactions else 0.0
    total = sum(alone.values()) + together
    return {axis.key: alone[axis.key] / total if total > 0 else 0.0 for axis in axes}


def _interval(values: Floats) -> tuple[float, float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
