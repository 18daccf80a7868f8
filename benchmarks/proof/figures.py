"""From scores under every condition to the figures that are reported, and their differences with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from benchmarks.proof.plan import conditions, name_of
from scipy import stats

from aqr.data.failures.catalogue import CAMERA, KINDS, LIDAR, Failure

Floats = npt.NDArray[np.float64]

CLEAN: Final = "clean"
FAILURES: Final = "failures"
GROUPS: Final = {(LIDAR,): "LiDAR failures", (CAMERA,): "camera failures", (LIDAR, CAMERA): "both"}
FIGURES: Final = (CLEAN, FAILURES, GROUPS[(LIDAR,)], GROUPS[(CAMERA,)])
"""What tables of arms state."""
LEVEL: Final = 0.95
WIDTH: Final = float(stats.norm.ppf((1 + LEVEL) / 2))
"""Standard deviations to either side that hold `LEVEL` of a normal distribution."""


def figures(names: Sequence[str], values: Floats, wanted: Sequence[Failure | None] | None = None) -> dict[str, Floats]:
    """Clean, every failure (mean over its severities), and means over failures.

    Args:
        names: of the K conditions.
        values: [K, ...].
        wanted: conditions that count, among them every failure at one severity at least; all by default.

    Returns:
        [...] each, under `clean`, `failures` (the mean over all failures), the groups of `GROUPS`, and the failures'
        names.
    """
    by_failure: dict[str, list[Floats]] = {}
    for condition in conditions() if wanted is None else wanted:
        if condition is not None:
            by_failure.setdefault(condition.name, []).append(values[list(names).index(name_of(condition))])
    means = {name: np.mean(of_failure, axis=0) for name, of_failure in by_failure.items()}
    groups = {
        group: np.mean([means[kind.name] for kind in KINDS if kind.needs == needs], axis=0)
        for needs, group in GROUPS.items()
        if needs != (LIDAR, CAMERA)
    }
    return {
        CLEAN: values[list(names).index(CLEAN)],
        FAILURES: np.mean(list(means.values()), axis=0),
        **groups,
        **means,
    }


def figures_of(scores: Mapping[str, float]) -> dict[str, float]:
    """The same for one run, from its scores by condition."""
    found = figures(list(scores), np.array(list(scores.values())))
    return {name: float(value) for name, value in found.items()}


@dataclass(frozen=True)
class Difference:
    """How far an arm is from another one.

    Attributes:
        value: mean over the seeds that both were run with, of arm minus other with the same seed.
        low: lower end of the interval.
        high: upper end.
        seeds: number of seeds.
        scenes: half of the interval that holds other scenes alone, and no other seed.
    """

    value: float
    low: float
    high: float
    seeds: int
    scenes: float


@dataclass(frozen=True)
class Spread:
    """How far differences scatter over seeds, pooled over all arms.

    Attributes:
        deviation: standard deviation of the difference of one seed.
        freedom: degrees of freedom behind it.
    """

    deviation: float
    freedom: float


def spread(differences: Sequence[Sequence[float]]) -> Spread:
    """Pooled over arms: each has its own mean, all have one variance.

    All differences are from one other arm, whose chance they share, so that n − 1 of each do not add up. With d seeds
    of the other arm less one, D degrees summed over arms, and as much chance in every arm, the pooled variance scatters
    like one of 4 / (1/d + 3/D) degrees of freedom (Satterthwaite): d for a single arm, at most 4 d for many.

    Args:
        differences: per arm those of its seeds.
    """
    own = [np.array(of_arm) for of_arm in differences if len(of_arm) > 1]
    if not own:
        return Spread(float("nan"), 0.0)
    degrees = [len(of_arm) - 1 for of_arm in own]
    squares = sum(float(((of_arm - of_arm.mean()) ** 2).sum()) for of_arm in own)
    return Spread(float(np.sqrt(squares / sum(degrees))), 4 / (1 / max(degrees) + 3 / sum(degrees)))


def difference(values: Sequence[float], scene_error: float, seeds: Spread) -> Difference:
    """Mean over seeds with an interval for other seeds and other scenes.

    The two sources of chance add up in quadrature: the standard deviation over resamples of the scenes (of the mean
    over seeds), and the pooled deviation over seeds divided by √n. The quantile is Student's with the degrees of
    freedom that Welch and Satterthwaite give for the sum.

    Args:
        values: differences, one per seed.
        scene_error: standard deviation of their mean over resamples of the scenes.
        seeds: the pooled spread.
    """
    value = float(np.mean(values))
    of_seeds = seeds.deviation / np.sqrt(len(values))
    of_scenes = WIDTH * scene_error
    total = np.hypot(scene_error, of_seeds)
    if not np.isfinite(total):
        return Difference(value, float("nan"), float("nan"), len(values), of_scenes)
    freedom = np.inf if of_seeds == 0 else seeds.freedom * (total / of_seeds) ** 4
    half = float(stats.t.ppf((1 + LEVEL) / 2, freedom) * total)
    return Difference(value, value - half, value + half, len(values), of_scenes)
