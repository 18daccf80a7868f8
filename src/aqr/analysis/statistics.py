"""Tests and intervals for small samples: a handful of ranks, a few snapshots, ten classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.special import stdtr, stdtrit

from aqr.analysis.run import Floats

LEVEL = 0.05
"""Level of significance, after Holm's correction where several tests answer one question."""


def half_width(values: Floats) -> float | None:
    """Half the 95 % confidence interval of a mean (Student's t); None for fewer than two values."""
    n = len(values)
    if n < 2:
        return None
    return float(stdtrit(n - 1, 1 - LEVEL / 2) * values.std(ddof=1) / np.sqrt(n))


@dataclass(frozen=True)
class Trend:
    """A straight line through values over time.

    Attributes:
        change: of the line from the first to the last time.
        half_width: half of its 95 % confidence interval.
        p: two-sided probability of a line at least this steep where nothing changes.
    """

    change: float
    half_width: float
    p: float


def trend(times: Floats, values: Floats) -> Trend | None:
    """Least squares with Student's t; None without spread (fewer than two times, or at most two values).

    Args:
        times: [N], several values may share a time (ranks).
        values: [N].
    """
    n = len(values)
    if n < 3 or np.ptp(times) == 0:
        return None
    centred = times - times.mean()
    slope = float(centred @ values / (centred @ centred))
    residuals = values - values.mean() - slope * centred
    error = float(np.sqrt(residuals @ residuals / (n - 2) / (centred @ centred)))
    span = float(np.ptp(times))
    if error == 0.0:
        return Trend(slope * span, 0.0, 1.0 if slope == 0 else 0.0)
    p = 2 * float(stdtr(n - 2, -abs(slope / error)))
    return Trend(slope * span, float(stdtrit(n - 2, 1 - LEVEL / 2)) * error * span, p)


def holm(ps: Sequence[float]) -> list[float]:
    """Probabilities corrected for the number of tests (Holm 1979), in the given order."""
    corrected, running = [0.0] * len(ps), 0.0
    for position, index in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        running = max(running, min(1.0, (len(ps) - position) * ps[index]))
        corrected[index] = running
    return corrected


def permutation_test(first: Sequence[float], second: Sequence[float]) -> float:
    """Exact two-sided permutation test of a difference in means.

    Returns:
        Share of all ways to split the values into groups of these sizes whose means differ at least as much.
    """
    values = np.array([*first, *second])
    size, total = len(first), float(values.sum())
    rest = len(values) - size
    sums = np.array([values[list(chosen)].sum() for chosen in combinations(range(len(values)), size)])
    differences = np.abs(sums / size - (total - sums) / rest)
    return float((differences >= differences[0] * (1 - 1e-12) - 1e-15).mean())
