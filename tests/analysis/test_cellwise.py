"""Forecasts from saved maps against features that are really modulated."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.analysis.forward import Forward, forward_pass
from tests.analysis.test_forecast import forecast

from aqr.analysis import whatif
from aqr.analysis.cellwise import ADAPTIVE_SHARE
from aqr.analysis.terminal import whatif_table
from aqr.errors import InputError
from aqr.modulation import modulate
from aqr.modulation.modulate import Form, ModulationType

FORMS = get_args(Form)
POOLINGS = get_args(ModulationType)


def with_maps(one: Forward, folder: Path) -> Path:
    return one.save(folder / "maps" / "00000030.npz")


def test_pools_as_the_modulation_does() -> None:
    assert modulate.ADAPTIVE_SHARE == ADAPTIVE_SHARE


@pytest.mark.parametrize("gate", [None, -0.4])
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("form", FORMS)
def test_exact_where_no_feature_is_zero(
    form: Form, pooling: ModulationType, gate: float | None, tmp_path: Path
) -> None:
    one = forward_pass(5, 0.4, 2.0, 0.0, clamp=2.5, residual=0.6, form=form, pooling=pooling, gate=gate)
    grid = whatif(one.run(maps=(with_maps(one, tmp_path),)), [1.2, 2.0, 2.5], [0.3, 0.6, 0.85])
    assert grid.source == "maps"
    for cell in grid.cells:
        for sensor in ("camera", "bev"):
            true = one.change(sensor, cell.max_weight_clamp, cell.residual_weight)
            found = forecast(cell, sensor)
            assert found.low == pytest.approx(true, rel=1e-5)
            assert found.high == pytest.approx(true, rel=1e-5)
    shown = whatif_table(grid)
    assert list(shown.columns[4].cells) == ["exact"] * 9


@given(
    seed=st.integers(0, 10_000),
    share=st.floats(0.05, 1.0),
    scale=st.sampled_from([0.6, 2.0]),
    empty=st.floats(0.2, 0.95),
    form=st.sampled_from(FORMS),
    pooling=st.sampled_from(POOLINGS),
    gate=st.sampled_from([None, 0.7, -0.3]),
    logged=st.booleans(),
    other=st.floats(0.0, 1.0),
    clamp=st.sampled_from([1.0, 1.5, 2.4, 2.5]),
)
@settings(max_examples=150, deadline=None)
def test_range_holds_what_happens_to_features_of_which_some_are_zero(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    share: float,
    scale: float,
    empty: float,
    form: Form,
    pooling: ModulationType,
    gate: float | None,
    logged: bool,
    other: float,
    clamp: float,
) -> None:
    """BEV features are 0 on most cells, less often where weights are: no plain sum over the map can be exact."""
    one = forward_pass(seed, share, scale, empty, clamp=2.5, residual=0.6, form=form, pooling=pooling, gate=gate)
    snapshot = one.snapshot() if logged else replace(one.snapshot(), gates={})
    run = one.run(snapshot, maps=(with_maps(one, tmp_path_factory.mktemp("run")),))
    found = forecast(whatif(run, [clamp], [other]).cells[0], "bev")
    true = one.change("bev", clamp, other)
    assert found.low - 1e-6 <= true <= found.high + 1e-6
    assert found.low <= found.expected <= found.high
    if form == "convex" and clamp == 2.5:
        assert found.low == pytest.approx(true, rel=1e-4)
        assert found.high == pytest.approx(true, rel=1e-4)


def test_range_is_no_wider_than_what_can_happen(tmp_path: Path) -> None:
    """Features where the map is high alone, or where it is low alone, come to the two ends of the range."""
    raw = np.zeros((1, 1, 4, 6))
    raw[..., :3] = 2.5  # changes by 0.6 there, by 0.4 elsewhere
    ends = []
    for high_cells, low_cells in ((12, 0), (0, 12)):
        shown = np.zeros((1, 1, 3, 4, 6))
        shown[..., :3].reshape(3, 12)[:, :high_cells] = 1.0
        flat = shown.reshape(3, 4, 6)
        flat[:, :, :3] = 1.0 if high_cells else 0.0
        flat[:, :, 3:] = 1.0 if low_cells else 0.0
        ends.append(Forward({"bev": raw}, {"bev": shown}, clamp=2.5, residual=0.6))
    high, low = ends
    assert (high.now("bev"), low.now("bev")) == (pytest.approx(0.3), pytest.approx(0.2))
    # The same R from either: all of the low cells, or two thirds of the high ones.
    found = forecast(whatif(low.run(maps=(with_maps(low, tmp_path),)), [1.0], [0.6]).cells[0], "bev")
    assert found.high == pytest.approx(low.change("bev", 1.0, 0.6), abs=1e-7)
    assert found.low == pytest.approx(high.change("bev", 1.0, 0.6) * 2 / 3, abs=1e-7) == 0.0


def test_half_of_the_features_zero_at_random_scales_the_sum(tmp_path: Path) -> None:
    one = forward_pass(8, 0.4, 2.0, 0.0, clamp=2.5, residual=0.6)
    halved = {"camera": one.features["camera"] * np.array([1.0, 0.0, 0.0])[:, None, None]}
    third = Forward({"camera": one.raw["camera"]}, halved, clamp=2.5, residual=0.6)
    found = forecast(whatif(third.run(maps=(with_maps(third, tmp_path),)), [1.5], [0.7]).cells[0], "camera")
    assert found.expected == pytest.approx(one.change("camera", 1.5, 0.7) / 3, rel=1e-5)
    assert found.low < found.expected < found.high


def test_what_the_own_clamp_cut_off_is_left_to_the_closed_form(tmp_path: Path) -> None:
    one = forward_pass(5, 0.4, 2.0, 0.0, clamp=2.5, residual=0.6)
    found = forecast(whatif(one.run(maps=(with_maps(one, tmp_path),)), [4.0], [0.6]).cells[0], "camera")
    assert found == forecast(whatif(one.run(), [4.0], [0.6]).cells[0], "camera")
    assert found.low < found.high


def test_starts_from_the_snapshot_that_the_maps_are_of(tmp_path: Path) -> None:
    """A controller measures more often than maps are saved, and has moved both settings by then."""
    then = forward_pass(5, 0.4, 2.0, 0.0, clamp=2.5, residual=0.6)
    later = forward_pass(6, 0.2, 2.0, 0.0, clamp=1.8, residual=0.75)
    run = later.run(
        then.snapshot(30, max_weight_clamp=2.5, residual_weight=0.6),
        later.snapshot(45, max_weight_clamp=1.8, residual_weight=0.75),
        maps=(with_maps(then, tmp_path),),
    )
    grid = whatif(run, [1.5, 2.2], [0.7])
    assert grid.forward == 30
    for cell in grid.cells:
        assert forecast(cell, "camera").expected == pytest.approx(
            then.change("camera", cell.max_weight_clamp, 0.7), rel=1e-5
        )
    assert any("clamp of 2.5 and a residual of 0.6" in str(one) for one in grid.assumptions)


def test_maps_of_no_known_snapshot_are_left_aside(tmp_path: Path) -> None:
    one = forward_pass(5, 0.4, 2.0, 0.0, clamp=2.5, residual=0.6)
    orphan = one.save(tmp_path / "maps" / "00000040.npz")
    grid = whatif(one.run(maps=(with_maps(one, tmp_path), orphan)), [2.0], [0.6])
    assert (grid.source, grid.forward) == ("maps", 30)
    assert whatif(one.run(maps=(orphan,)), [2.0], [0.6]).source == "statistics"


def test_maps_that_do_not_come_to_the_logged_change_are_not_summed(tmp_path: Path) -> None:
    one = forward_pass(5, 0.4, 2.0, 0.0, clamp=2.5, residual=0.6)
    other = replace(one, raw={"camera": np.full_like(one.raw["camera"], 0.9), "bev": one.raw["bev"]})
    found = forecast(whatif(one.run(maps=(with_maps(other, tmp_path),)), [1.5], [0.6]).cells[0], "camera")
    assert found == forecast(whatif(one.run(), [1.5], [0.6]).cells[0], "camera")


def test_one_rank_of_several_is_not_called_exact(tmp_path: Path) -> None:
    one = forward_pass(5, 0.4, 2.0, 0.0, clamp=2.5, residual=0.6)
    grid = whatif(one.run(one.snapshot(ranks=8), maps=(with_maps(one, tmp_path),)), [1.5], [0.6])
    found = forecast(grid.cells[0], "camera")
    assert found.expected == pytest.approx(one.change("camera", 1.5, 0.6), rel=1e-5)
    assert found.low < found.expected < found.high
    assert "exact" not in list(whatif_table(grid).columns[4].cells)
    assert any("one rank's of 8" in str(message) for message in grid.assumptions)


@pytest.mark.parametrize("damage", ["no archive", "not finite", "flat"])
def test_damaged_maps(damage: str, tmp_path: Path) -> None:
    one = forward_pass(5, 0.4, 2.0, 0.0, clamp=2.5, residual=0.6)
    path = with_maps(one, tmp_path)
    if damage == "no archive":
        path.write_bytes(b"PK")
    else:
        values = np.full((2, 3, 4), np.nan) if damage == "not finite" else np.zeros(5)
        np.savez(path, weight_map_pers=values)
    with pytest.raises(InputError, match="00000030"):
        whatif(one.run(maps=(path,)), [1.5], [0.6])


def test_cells_that_did_not_change_may_hold_features_that_then_do(tmp_path: Path) -> None:
    """residual + W = 1 on the upper half, where all features are; below, half of them are 0."""
    raw = np.zeros((1, 1, 4, 6))
    raw[:, :, :2] = 0.5
    features = np.ones((1, 1, 3, 4, 6))
    features[..., 2:, ::2] = 0.0
    one = Forward({"bev": raw}, {"bev": features}, clamp=2.5, residual=0.5, form="additive")
    found = forecast(whatif(one.run(maps=(with_maps(one, tmp_path),)), [2.5], [0.25]).cells[0], "bev")
    assert found.high == pytest.approx(one.change("bev", 2.5, 0.25), abs=1e-6)
