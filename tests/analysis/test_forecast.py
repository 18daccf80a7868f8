"""Closed forms against features that are really modulated, by every modulation_type."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.analysis.forward import Forward, forward_pass

from aqr.analysis import whatif
from aqr.analysis.forecast import Forecast, anchors_of
from aqr.analysis.formula import measured_settings
from aqr.analysis.run import Setting
from aqr.analysis.whatif import Cell
from aqr.modulation.modulate import Form, ModulationType

FORMS = get_args(Form)
POOLINGS = get_args(ModulationType)


def forecast(cell: Cell, sensor: str) -> Forecast:
    found = cell.camera if sensor == "camera" else cell.bev
    assert found is not None
    return found


@given(
    seed=st.integers(0, 10_000),
    share=st.floats(0.05, 1.0),
    scale=st.sampled_from([0.6, 2.0, 6.0]),
    empty=st.floats(0.0, 0.95),
    form=st.sampled_from(FORMS),
    pooling=st.sampled_from(POOLINGS),
    residual=st.floats(0.2, 0.9),
    other=st.floats(0.0, 1.0),
    clamp=st.sampled_from([1.0, 1.5, 2.4, 2.5, 2.6, 3.5, 8.0]),
)
@settings(max_examples=250, deadline=None)
def test_interval_holds_what_really_happens(
    seed: int,
    share: float,
    scale: float,
    empty: float,
    form: Form,
    pooling: ModulationType,
    residual: float,
    other: float,
    clamp: float,
) -> None:
    one = forward_pass(seed, share, scale, empty, clamp=2.5, residual=residual, form=form, pooling=pooling)
    cell = whatif(one.run(), [clamp], [other]).cells[0]
    for sensor in ("camera", "bev"):
        found = forecast(cell, sensor)
        assert found.low - 1e-6 <= one.change(sensor, clamp, other) <= found.high + 1e-6
        assert found.low <= found.expected <= found.high


@given(
    seed=st.integers(0, 10_000),
    pooling=st.sampled_from(POOLINGS),
    other=st.floats(0.0, 1.0),
    clamp=st.sampled_from([1.2, 2.0, 3.0]),
)
@settings(max_examples=60, deadline=None)
def test_centered_interval_holds_what_really_happens(
    seed: int, pooling: ModulationType, other: float, clamp: float
) -> None:
    """Maps are clamp^G with G in [−1, 1]: another clamp is another map."""
    rng = np.random.default_rng(seed)
    signal = rng.uniform(-1, 1, (2, 3, 1, 1)) * rng.uniform(0, 1, (2, 3, 8, 12))
    features = {"camera": rng.normal(size=(2, 3, 3, 8, 12))}
    now, then = (
        Forward({"camera": limit**signal}, features, clamp=limit, residual=0.6, pooling=pooling)
        for limit in (2.0, clamp)
    )
    run = now.run()
    run = replace(run, settings={**run.settings, "parameterisation": Setting("centered", "config")})
    found = forecast(whatif(run, [clamp], [other]).cells[0], "camera")
    assert found.low - 1e-7 <= then.change("camera", clamp, other) <= found.high + 1e-7


def two_values(low: float, high: float, count: int, limit: float, residual: float) -> Forward:
    """A map of two values, the higher one on `count` of 96 cells: no map with its moments has more to move."""
    raw = np.full((1, 1, 8, 12), low)
    raw.flat[:count] = high
    features = np.random.default_rng(0).normal(size=(1, 1, 3, 8, 12))
    return Forward({"camera": raw}, {"camera": features}, clamp=limit, residual=residual)


@pytest.mark.parametrize(
    ("low", "high", "count", "clamp"),
    [(0.0, 2.5, 5, 1.5), (0.5, 2.5, 30, 1.5), (0.0, 2.5, 60, 2.0), (1.25, 1.75, 48, 1.5)],
)
def test_what_a_lower_clamp_takes_is_bounded_tightly(low: float, high: float, count: int, clamp: float) -> None:
    one = two_values(low, high, count, 2.5, 0.6)
    found = forecast(whatif(one.run(), [clamp], [0.7]).cells[0], "camera")
    assert anchors_of(one.run())["camera"].lost(clamp) == pytest.approx((high - clamp) * count / 96)
    assert found.low == pytest.approx(one.change("camera", clamp, 0.7), abs=1e-7)


@pytest.mark.parametrize(("low", "count", "clamp"), [(0.0, 5, 3.0), (0.3, 30, 2.6), (1.0, 60, 6.0)])
def test_what_a_higher_clamp_adds_is_bounded_tightly(low: float, count: int, clamp: float) -> None:
    one = two_values(low, 9.0, count, 2.5, 0.6)
    found = forecast(whatif(one.run(), [clamp], [0.7]).cells[0], "camera")
    assert found.high == pytest.approx(one.change("camera", clamp, 0.7), abs=1e-7)


def test_no_formula_is_read_from_the_figures_of_a_pooled_map() -> None:
    """Of a map's mean the largest factor says nothing about the residual."""
    one = forward_pass(3, 0.5, 2.0, 0.0, clamp=2.5, residual=0.6, pooling="channel_wise")
    # A clamp of 2.5 and a largest factor of 1.25, as max|F'| / max|F' − F| = 5 tells.
    blocks = [replace(one.snapshot(at), changes=((5.0, 1.0),)) for at in (10, 20, 30)]
    pooled = one.run(*blocks)
    cellwise = replace(one, pooling="element_wise").run(*blocks)
    assert "residual_weight" not in measured_settings(pooled)
    assert measured_settings(cellwise)["residual_weight"].value == pytest.approx((2.5 - 1.25) / 1.5, abs=1e-3)


def test_centered_maps_whose_means_are_1_say_nothing_of_another_clamp() -> None:
    """2^0.585 and 2^−1 are 1 on average, 3^0.585 and 3^−1 are not."""
    signal = np.where(np.arange(96).reshape(1, 1, 8, 12) % 2, np.log2(1.49), -1.0)
    features = {"camera": np.ones((1, 1, 3, 8, 12))}
    now, then = (
        Forward({"camera": limit**signal}, features, clamp=limit, residual=0.6, pooling="channel_wise")
        for limit in (2.0, 3.0)
    )
    run = now.run()
    run = replace(run, settings={**run.settings, "parameterisation": Setting("centered", "config")})
    found = forecast(whatif(run, [3.0], [0.6]).cells[0], "camera")
    assert found.low <= then.change("camera", 3.0, 0.6) <= found.high
