"""The controller against a simulated plant: change = (1 − r)·m(clamp, time), measured with noise."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aqr.modulation import measure
from aqr.modulation.aqr import AQRModulation
from aqr.modulation.controller import Controller, ControllerSettings, Decision

Floats = npt.NDArray[np.float64]
BAND = (0.25, 0.30)


@dataclass
class Loop:
    """A controller that closes the loop over a plant."""

    controller: Controller
    residual: float
    clamp: float = 2.0

    def run(self, plant: Callable[[int, float, float], float], steps: int, start: int = 0) -> list[Decision]:
        out = []
        for step in range(start, start + steps):
            decision = self.controller.update(plant(step, self.residual, self.clamp), self.residual, self.clamp)
            self.residual, self.clamp = decision.residual_weight, decision.max_weight_clamp
            out.append(decision)
        return out


def linear(m: float, clamp_effect: float = 0.0) -> Callable[[int, float, float], float]:
    return lambda step, residual, clamp: (1 - residual) * (m + clamp_effect * (clamp - 2.0))


@given(m=st.floats(0.32, 4.0), residual=st.floats(0.4, 0.95))
def test_it_settles_in_the_middle_of_the_band_from_anywhere(m: float, residual: float) -> None:
    loop = Loop(Controller(ControllerSettings(clamp_range=(1.999, 2.0))), residual)
    decisions = loop.run(linear(m), 200)
    reachable = 0.4 <= 1 - 0.275 / m <= 0.95
    if reachable:
        assert 0.25 <= (1 - loop.residual) * m <= 0.30
        tail = [one.residual_weight for one in decisions[100:]]
        assert max(tail) - min(tail) < 1e-9
        if not 0.25 <= decisions[0].measured <= 0.30:
            assert (1 - loop.residual) * m == pytest.approx(0.275, abs=0.0063)
    assert all(0.4 - 1e-9 <= one.residual_weight <= 0.95 + 1e-9 for one in decisions)


def test_a_step_of_the_plant_is_followed_at_the_given_rate_without_overshoot() -> None:
    settings = ControllerSettings()
    loop = Loop(Controller(settings), 0.70)
    assert {one.residual_weight for one in loop.run(linear(0.9), 20)} == {0.70}
    # The maps double: 54 % of change, and 1 - 0.275/1.8 = 0.847 is what is needed.
    after = loop.run(linear(1.8), 60, 20)
    path = np.array([0.70] + [one.residual_weight for one in after])
    moves = np.diff(path)
    assert np.all(moves >= -1e-12)
    assert np.max(moves) <= settings.residual_rate + 1e-12
    assert path[-1] == pytest.approx(1 - 0.275 / 1.8, abs=0.005)
    assert after[-1].max_weight_clamp == 2.0
    assert np.all(moves[-20:] == 0)


def test_noise_inside_the_band_moves_nothing_and_noise_across_it_does_not_make_it_swing() -> None:
    noise = np.random.default_rng(0).normal(0, 0.008, 600)
    loop = Loop(Controller(ControllerSettings()), 1 - 0.275 / 0.9)
    start = loop.residual
    assert {one.residual_weight for one in loop.run(lambda k, r, c: (1 - r) * 0.9 + noise[k], 300)} == {start}

    # From outside, with noise wider than the band: it arrives, stays, and seldom turns around.
    path, turns = _under_heavy_noise(smoothing=0.3)
    assert np.all(np.abs((1 - path) * 0.9 - 0.275) < 0.03)
    assert turns < 25


def test_a_controller_without_smoothing_would_swing() -> None:
    """The reason for it, so that the test above says something."""
    assert _under_heavy_noise(smoothing=1.0)[1] > 100


def _under_heavy_noise(smoothing: float) -> tuple[Floats, int]:
    """residual_weight after the first 60 of 600 measurements, and how often it turns around."""
    noise = np.random.default_rng(1).normal(0, 0.03, 600)
    loop = Loop(Controller(ControllerSettings(smoothing=smoothing)), 0.5)
    decisions = loop.run(lambda k, r, c: max((1 - r) * 0.9 + noise[k], 0.0), 600)
    path = np.array([one.residual_weight for one in decisions[60:]])
    moves = np.diff(path)
    return path, int(np.sum(np.diff(np.sign(moves[moves != 0])) != 0))


def test_a_slow_drift_is_followed_within_the_band() -> None:
    def drifting(step: int, residual: float, clamp: float) -> float:
        return (1 - residual) * (0.9 + 0.6 * min(step / 400, 1.0))

    loop = Loop(Controller(ControllerSettings()), 1 - 0.275 / 0.9)
    assert all(0.24 <= one.measured <= 0.31 for one in loop.run(drifting, 500))


def test_the_clamp_moves_only_where_the_residual_has_no_way_left() -> None:
    settings = ControllerSettings(residual_range=(0.6, 0.95), clamp_range=(1.2, 4.0))
    loop = Loop(Controller(settings), 0.7)
    # At r = 0.6 and clamp 2 the change is 0.4·0.55 = 22 %; the clamp brings the rest.
    decisions = loop.run(linear(0.55, clamp_effect=0.1), 150)
    first = next(i for i, one in enumerate(decisions) if one.max_weight_clamp != 2.0)
    assert decisions[first - 1].residual_weight == pytest.approx(0.6)
    ratios = np.diff(np.log([one.max_weight_clamp for one in decisions]))
    assert np.max(np.abs(ratios)) <= np.log(1.02) + 1e-12
    assert BAND[0] <= decisions[-1].measured <= BAND[1]
    assert not decisions[-1].stopped


@pytest.mark.parametrize(("m", "ends"), [(0.1, (0.4, 3.0)), (40.0, (0.95, 1.2))])
def test_a_band_out_of_reach_is_said_once_and_then_nothing_moves(
    m: float, ends: tuple[float, float], caplog: pytest.LogCaptureFixture
) -> None:
    loop = Loop(Controller(ControllerSettings(patience=3)), 0.7)
    with caplog.at_level(logging.WARNING, "aqr.modulation.controller"):
        decisions = loop.run(linear(m), 200)
    assert len(caplog.records) == 1
    assert "cannot bring relative_change into 25-30 %" in caplog.text
    assert decisions[-1].stopped
    assert (loop.residual, loop.clamp) == pytest.approx(ends)
    # Even a plant that comes back leaves it at rest.
    assert {(one.residual_weight, one.max_weight_clamp) for one in loop.run(linear(0.9), 20, 200)} == {
        (loop.residual, loop.clamp)
    }


def test_it_does_not_give_up_inside_the_band_where_nothing_is_left_to_move() -> None:
    """At the ends, 0.6 · 0.425 = 25.5 % lies in the band, though too far from its middle to rest."""
    loop = Loop(Controller(ControllerSettings(patience=2)), 0.7)
    decisions = loop.run(linear(0.425), 200)
    assert (loop.residual, loop.clamp) == pytest.approx((0.4, 3.0))
    assert loop.controller.state.moving
    assert not decisions[-1].stopped
    # And so it still answers where the plant changes.
    assert loop.run(linear(0.8), 60, 200)[-1].residual_weight == pytest.approx(1 - 0.275 / 0.8, abs=0.01)


@given(at=st.integers(0, 80), seed=st.integers(0, 20))
def test_going_on_from_its_state_is_bitwise_the_same(at: int, seed: int) -> None:
    noise = np.random.default_rng(seed).normal(0, 0.02, 100)

    def plant(step: int, residual: float, clamp: float) -> float:
        return float(abs((1 - residual) * (0.6 + 0.01 * step) + noise[step]))

    whole = Loop(Controller(ControllerSettings()), 0.6)
    expected = whole.run(plant, 100)
    first = Loop(Controller(ControllerSettings()), 0.6)
    before = first.run(plant, at)
    state = json.loads(json.dumps(first.controller.state_dict()))
    second = Loop(Controller(ControllerSettings(), state), first.residual, first.clamp)
    assert before + second.run(plant, 100 - at, at) == expected


@pytest.mark.parametrize("measured", [float("nan"), float("inf"), -0.1])
def test_what_is_no_change_is_refused(measured: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        Controller(ControllerSettings()).update(measured, 0.7, 2.0)
    with pytest.raises(ValueError, match="modulates nothing"):
        Controller(ControllerSettings()).update(0.2, 1.0, 2.0)


def test_a_real_module_answers_as_the_plant_does() -> None:
    """relative_change is (1 − r)·m exactly, and does not fall when the clamp rises: what the controller builds on."""
    torch.manual_seed(0)
    module = AQRModulation(16, (-54, -54, -5, 54, 54, 3), gate=False, gaussian_sigma=0.5)
    torch.nn.init.constant_(module.router.logits.bias, 4.0)
    # Queries in few places, so that weights add up to more than the clamp.
    queries, points = torch.randn(2, 60, 16), torch.rand(2, 60, 3) * 0.2 + 0.4
    bev = torch.randn(2, 16, 24, 24)

    def change(residual: float, clamp: float) -> float:
        module.residual_weight, module.max_weight_clamp = residual, clamp
        with torch.no_grad():
            out = module(queries, points, bev, None)
        found = measure(out, bev, None).summary()["modulation_bev"]["relative_change"]
        assert isinstance(found, float)
        return found

    for clamp in (1.2, 2.0, 3.0):
        responses = [change(residual, clamp) / (1 - residual) for residual in (0.2, 0.5, 0.9)]
        assert responses == pytest.approx([responses[0]] * 3, rel=1e-4)
    at = [change(0.5, clamp) for clamp in (1.0, 1.5, 2.0, 3.0, 5.0)]
    assert at == sorted(at)
    assert at[-1] > at[0]
