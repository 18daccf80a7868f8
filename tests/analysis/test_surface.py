"""Response surfaces against known quadratics, and their intervals against repeated experiments."""

from typing import Any

import numpy as np
import pytest

from aqr.analysis.readers.study import Axis
from aqr.analysis.surface import fit_surface

CLAMP = Axis("aqr.renderer.max_weight_clamp", 1.2, 3.0)
RESIDUAL = Axis("aqr.modulator.residual_weight", 0.3, 0.95)
RATE = Axis("train.lr", 1e-5, 1e-3, log=True)
KIND = Axis("aqr.parameterisation", choices=("sigmoid", "centered"))


def draw(axes: list[Axis], count: int, seed: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return [
        {
            axis.key: axis.choices[rng.integers(len(axis.choices))]
            if axis.choices
            else float(np.exp(rng.uniform(np.log(axis.low), np.log(axis.high))))
            if axis.log
            else float(rng.uniform(axis.low, axis.high))
            for axis in axes
        }
        for _ in range(count)
    ]


def truth(one: dict[str, Any]) -> float:
    clamp, residual = one[CLAMP.key], one[RESIDUAL.key]
    return float(0.5 - 0.1 * (clamp - 2.1) ** 2 - 0.8 * (residual - 0.7) ** 2 + 0.05 * (clamp - 2.1) * (residual - 0.7))


def test_a_quadratic_without_noise_is_found_exactly() -> None:
    trials = draw([CLAMP, RESIDUAL], 12, 0)
    surface = fit_surface([CLAMP, RESIDUAL], trials, [truth(one) for one in trials])
    assert surface is not None
    assert surface.interactions
    assert surface.noise < 1e-9
    assert surface.explained == pytest.approx(1.0)
    assert surface.optimum[CLAMP.key] == pytest.approx(2.1, abs=0.05)
    assert surface.optimum[RESIDUAL.key] == pytest.approx(0.7, abs=0.02)
    assert surface.edges == ()
    others = draw([CLAMP, RESIDUAL], 20, 1)
    np.testing.assert_allclose(surface.at(others)[0], [truth(one) for one in others], atol=1e-9)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    inside = {"clamp": 0, "residual": 0, "advantage": 0}
    other = {CLAMP.key: 1.5, RESIDUAL.key: 0.5}
    repeats = 120
    for seed in range(repeats):
        trials = draw([CLAMP, RESIDUAL], 40, seed)
        noise = np.random.default_rng(1000 + seed).normal(0, 0.01, 40)
        surface = fit_surface([CLAMP, RESIDUAL], trials, [truth(one) + e for one, e in zip(trials, noise, strict=True)])
        assert surface is not None
        for name, key, best in (("clamp", CLAMP.key, 2.1), ("residual", RESIDUAL.key, 0.7)):
            interval = surface.intervals[key]
            assert isinstance(interval, tuple)
            inside[name] += interval[0] - 0.03 <= best <= interval[1] + 0.03
        _gain, (low, high) = surface.advantage(other)
        true_gain = truth(dict(surface.optimum)) - truth(other)
        inside["advantage"] += low <= true_gain <= high
    assert all(0.87 * repeats <= count for count in inside.values()), inside
    assert inside["advantage"] < repeats


def test_scores_that_are_noise_explain_nothing() -> None:
    explained = []
    for seed in range(20):
        trials = draw([CLAMP, RESIDUAL], 40, seed)
        surface = fit_surface([CLAMP, RESIDUAL], trials, np.random.default_rng(seed).normal(0.5, 0.01, 40).tolist())
        assert surface is not None
        assert surface.explained is not None
        explained.append(surface.explained)
        assert surface.noise == pytest.approx(0.01, rel=0.5)
    assert np.median(explained) < 0
    # Its highest place may be nearly anywhere, and the interval says so.
    interval = surface.intervals[CLAMP.key]
    assert isinstance(interval, tuple)
    assert interval[1] - interval[0] > 0.7 * (CLAMP.high - CLAMP.low)


def test_ratios_choices_and_ends() -> None:
    axes = [RATE, KIND]
    trials = draw(axes, 30, 3)
    scores = [0.1 * np.log10(one[RATE.key]) + 0.2 * (one[KIND.key] == "centered") for one in trials]
    surface = fit_surface(axes, trials, scores)
    assert surface is not None
    assert surface.optimum == {RATE.key: pytest.approx(1e-3), KIND.key: "centered"}
    assert surface.edges == (RATE.key,)
    assert surface.intervals[KIND.key] == {"sigmoid": 0.0, "centered": 1.0}
    # A line of slope 0.1 over two decades against a shift of 0.2: variances 0.1²/3 and 0.2²/4.
    assert surface.importance[RATE.key] == pytest.approx((0.01 / 3) / (0.01 / 3 + 0.01), rel=1e-6)


def test_importance_equals_the_variance_over_the_region() -> None:
    trials = draw([CLAMP, RESIDUAL], 15, 4)
    surface = fit_surface([CLAMP, RESIDUAL], trials, [truth(one) for one in trials])
    assert surface is not None
    clamps, residuals = np.linspace(1.2, 3.0, 401), np.linspace(0.3, 0.95, 401)
    grid = np.array([[truth({CLAMP.key: c, RESIDUAL.key: r}) for r in residuals] for c in clamps])
    for key, mean in ((CLAMP.key, grid.mean(1)), (RESIDUAL.key, grid.mean(0))):
        assert surface.importance[key] == pytest.approx(mean.var() / grid.var(), rel=0.02)


def test_few_trials_give_fewer_terms_and_too_few_none() -> None:
    axes = [CLAMP, RESIDUAL]
    for count, interactions in ((12, True), (8, False), (7, None)):
        trials = draw(axes, count, 5)
        surface = fit_surface(axes, trials, [truth(one) for one in trials])
        assert (None if surface is None else surface.interactions) == interactions
    same = [{CLAMP.key: 2.0, RESIDUAL.key: 0.7}] * 20
    assert fit_surface(axes, same, [0.5] * 20) is None


def test_a_peak_beyond_the_trials_is_extrapolated_and_one_among_them_is_not() -> None:
    """Scores rise to one end, and trials keep away from it."""
    rng = np.random.default_rng(6)
    noise = rng.normal(0, 0.002, 30)

    def study(low: float) -> Any:
        trials = [{CLAMP.key: float(rng.uniform(low, 3.0)), RESIDUAL.key: float(rng.uniform(0.3, 0.95))} for _ in noise]
        scores = [0.6 - 0.02 * one[CLAMP.key] - 0.3 * (one[RESIDUAL.key] - 0.7) ** 2 for one in trials]
        return fit_surface([CLAMP, RESIDUAL], trials, [score + e for score, e in zip(scores, noise, strict=True)])

    beyond, among = study(2.4), study(1.2)
    assert beyond.extrapolated
    assert beyond.optimum[CLAMP.key] < 2.4
    assert beyond.intervals == {}
    assert beyond.value_interval is None
    assert beyond.advantage({CLAMP.key: 2.0, RESIDUAL.key: 0.7}) is None
    assert not among.extrapolated
    assert among.edges == (CLAMP.key,)
    assert among.intervals.keys() == {CLAMP.key, RESIDUAL.key}
    assert among.best == pytest.approx(among.value, abs=0.01)


def test_a_peak_far_above_every_trial_is_extrapolated() -> None:
    """A ring of trials around a peak that none of them saw."""
    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    trials = [{CLAMP.key: 2.1 + 0.8 * np.cos(a), RESIDUAL.key: 0.625 + 0.3 * np.sin(a)} for a in angles]
    radius = np.array([0.9 if number % 2 else 1.0 for number in range(16)])
    trials = [
        {CLAMP.key: 2.1 + r * (one[CLAMP.key] - 2.1), RESIDUAL.key: 0.625 + r * (one[RESIDUAL.key] - 0.625)}
        for r, one in zip(radius, trials, strict=True)
    ]
    scores = [0.5 - (one[CLAMP.key] - 2.1) ** 2 / 0.64 - (one[RESIDUAL.key] - 0.625) ** 2 / 0.09 for one in trials]
    surface = fit_surface([CLAMP, RESIDUAL], trials, scores)
    assert surface is not None
    assert surface.value == pytest.approx(0.5, abs=0.01)
    assert surface.best < -0.3
    assert surface.extrapolated
