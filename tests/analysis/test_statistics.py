"""Small-sample statistics against scipy and brute force."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from aqr.analysis.statistics import half_width, holm, permutation_test, trend

VALUES = st.lists(st.floats(-5, 5).map(lambda x: round(x, 3)), min_size=4, max_size=24)


@given(values=VALUES)
def test_interval_of_a_mean(values: list[float]) -> None:
    sample = np.array(values)
    if np.ptp(sample) > 0.01:
        low, high = stats.t.interval(0.95, len(sample) - 1, sample.mean(), stats.sem(sample))
        assert half_width(sample) == pytest.approx((high - low) / 2)


def test_one_value_has_no_interval() -> None:
    assert half_width(np.array([1.0])) is None


@given(values=VALUES)
def test_trend_is_linear_regression(values: list[float]) -> None:
    sample = np.array(values)
    times = np.repeat(np.arange(len(values)), 1) // 2 * 1000.0
    line = trend(times, sample)
    expected = stats.linregress(times, sample)
    assert line is not None
    assert line.change == pytest.approx(expected.slope * np.ptp(times), abs=1e-9)
    if expected.stderr > 1e-6:  # below, residuals are rounding alone
        half = stats.t.ppf(0.975, len(values) - 2) * expected.stderr * np.ptp(times)
        assert line.p == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-9)
        assert line.half_width == pytest.approx(half, rel=1e-6)


def test_no_trend_without_time_or_values() -> None:
    assert trend(np.array([1.0, 1.0, 1.0]), np.array([1.0, 2.0, 3.0])) is None
    assert trend(np.array([1.0, 2.0]), np.array([1.0, 2.0])) is None


def test_noise_is_rarely_called_a_trend() -> None:
    rng = np.random.default_rng(0)
    times = np.repeat([1.0, 2.0, 3.0, 4.0], 8)
    found = [trend(times, rng.normal(size=32)) for _ in range(1000)]
    rate = np.mean([line is not None and line.p <= 0.05 for line in found])
    assert 0.03 < rate < 0.07


def test_holm() -> None:
    # Worked example: 0.01·4, 0.02·3, 0.03·2, 0.04 made monotone.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([]) == []


@given(
    first=st.lists(st.integers(-9, 9), min_size=2, max_size=5),
    second=st.lists(st.integers(-9, 9), min_size=2, max_size=5),
)
def test_permutations_counted_one_by_one(first: list[int], second: list[int]) -> None:
    everything = first + second
    observed = abs(np.mean(first) - np.mean(second))
    count = total = 0
    for chosen in combinations(range(len(everything)), len(first)):
        one = [everything[place] for place in chosen]
        other = [everything[place] for place in range(len(everything)) if place not in chosen]
        total += 1
        count += abs(np.mean(one) - np.mean(other)) >= observed - 1e-12
    assert permutation_test(first, second) == pytest.approx(count / total)
