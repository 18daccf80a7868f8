"""Forecasts against features that are really modulated, and the formula read back from them."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.analysis.logs import small_log
from tests.analysis.test_other_logs import run_folder

from aqr.analysis import read_run, whatif
from aqr.analysis.formula import applied_factor, largest_factor, measured_settings
from aqr.analysis.run import Run, Setting, Snapshot
from aqr.errors import InputError

Array = NDArray[np.float64]
RANKS = 8


def sparse_map(rng: np.random.Generator, share: float, clamp: float) -> Array:
    """A map that is 0 on most cells, with weights and some pile-ups on the others."""
    weights = np.where(rng.random(4000) < share, rng.gamma(0.8, 0.6, 4000), 0.0)
    return np.minimum(weights, clamp)


def changed(weights: Array, features: Array, residual: float, form: str) -> Array:
    factor = residual + (weights if form == "additive" else (1 - residual) * weights)
    return factor * features


def run_of(maps: Sequence[Array], features: Sequence[Array], clamp: float, residual: float, form: str) -> Run:
    """What a log of these ranks would hold."""
    groups: dict[str, dict[str, list[float]]] = {"weight_map_pers": {}, "modulation_pers": {}}
    pairs = []
    for weights, before in zip(maps, features, strict=True):
        after = changed(weights, before, residual, form)
        change = np.abs(after - before)
        for name, value in (("mean", weights.mean()), ("std", weights.std()), ("max", weights.max())):
            groups["weight_map_pers"].setdefault(name, []).append(float(value))
        relative = float((change / (np.abs(before) + 1e-8)).mean())
        groups["modulation_pers"].setdefault("relative_change", []).append(relative)
        pairs.append((round(float(np.abs(after).max()), 6), round(float(change.max()), 6)))
    samples = {group: {name: np.array(v) for name, v in stats.items()} for group, stats in groups.items()}
    stated = {"max_weight_clamp": clamp, "residual_weight": residual, "form": form}
    return Run(
        name="run",
        source=Path("run"),
        kind="mmcv text log",
        settings={name: Setting(value, "measured") for name, value in stated.items()},
        snapshots=(Snapshot(1000, len(maps), False, samples, (), tuple(pairs)),),
    )


def world(seed: int, share: float, clamp: float) -> tuple[list[Array], list[Array]]:
    rng = np.random.default_rng(seed)
    return [sparse_map(rng, share, clamp) for _ in range(RANKS)], [rng.normal(size=4000) for _ in range(RANKS)]


@given(
    seed=st.integers(0, 10_000),
    share=st.floats(0.05, 0.3),
    residual=st.floats(0.3, 0.8),
    other=st.floats(0.3, 0.9),
    clamp=st.sampled_from([1.5, 2.0, 2.2, 2.5, 3.0, 5.0]),
)
@settings(max_examples=60, deadline=None)
def test_interval_holds_what_really_happens(
    seed: int, share: float, residual: float, other: float, clamp: float
) -> None:
    """In the convex form the change is exactly proportional to 1 − r, and another clamp stays within the bound."""
    raw, features = world(seed, share, np.inf)
    maps = [np.minimum(weights, 2.5) for weights in raw]
    grid = whatif(run_of(maps, features, 2.5, residual, "convex"), [clamp], [other])
    forecast = grid.cells[0].camera
    assert forecast is not None
    true = np.mean([(1 - other) * np.abs(np.minimum(weights, clamp) - 1).mean() for weights in raw])
    assert forecast.low - 1e-9 <= true <= forecast.high + 1e-9
    assert forecast.low <= forecast.expected <= forecast.high


@given(
    seed=st.integers(0, 10_000),
    share=st.floats(0.05, 0.4),
    residual=st.floats(0.3, 0.8),
    other=st.floats(0.3, 0.9),
    clamp=st.sampled_from([1.5, 2.0, 2.5, 3.0, 5.0]),
)
@settings(max_examples=60, deadline=None)
def test_additive_interval_holds_what_really_happens(
    seed: int, share: float, residual: float, other: float, clamp: float
) -> None:
    raw, features = world(seed, share, np.inf)
    maps = [np.minimum(weights, 2.5) for weights in raw]
    grid = whatif(run_of(maps, features, 2.5, residual, "additive"), [clamp], [other])
    forecast = grid.cells[0].camera_additive
    assert forecast is not None
    true = np.mean([np.abs(np.minimum(weights, clamp) + other - 1).mean() for weights in raw])
    assert forecast.low - 1e-9 <= true <= forecast.high + 1e-9


@pytest.mark.parametrize("form", ["convex", "additive"])
def test_formula_read_back_from_the_figures(form: str) -> None:
    """The largest change is where the clamp stands, on a feature that is large: as in a trained detector."""
    rng = np.random.default_rng(4)
    maps, features = [], []
    for _ in range(8):
        weights, values = sparse_map(rng, 0.2, 2.5), rng.normal(size=4000)
        weights[7], values[7] = 2.5, 9.0 + rng.random()
        maps.append(weights)
        features.append(values)
    run = run_of(maps, features, 2.5, 0.6, form)
    found = applied_factor(run.snapshots)
    assert found is not None
    assert found[0] == pytest.approx(largest_factor(2.5, 0.6, form), rel=1e-5)  # type: ignore[arg-type]
    settings = measured_settings(run)
    assert settings["form"].value == form
    assert settings["residual_weight"].value == pytest.approx(0.6)


def test_no_formula_where_the_ratios_disagree() -> None:
    maps, features = world(1, 0.2, 2.5)
    assert applied_factor(run_of(maps, features, 2.5, 0.6, "convex").snapshots) is None


def test_largest_factor() -> None:
    weights = np.linspace(0, 2.5, 11)
    ones = np.ones(11)
    for residual in (0.0, 0.6, 1.0):
        for form in ("convex", "additive"):
            top = changed(weights, ones, residual, form).max()
            assert largest_factor(2.5, residual, form) == pytest.approx(top)  # type: ignore[arg-type]
            for gate in np.linspace(-1, 1, 9):
                gated = ones + gate * (changed(weights, ones, residual, form) - ones)
                assert gated.max() <= largest_factor(2.5, residual, form, gate=True) + 1e-12  # type: ignore[arg-type]


def test_real_log(aqr_log: Path) -> None:
    grid = whatif(aqr_log, [2.0, 2.2, 2.5], [0.6, 0.65, 0.68, 0.7])
    cells = {(cell.max_weight_clamp, cell.residual_weight): cell for cell in grid.cells}
    assert len(cells) == 12
    assert {key: round(cells[key].largest_factor, 3) for key in ((2.5, 0.6), (2.0, 0.65), (2.0, 0.7), (2.2, 0.68))} == {
        (2.5, 0.6): 1.6, (2.0, 0.65): 1.35, (2.0, 0.7): 1.3, (2.2, 0.68): 1.384,
    }  # fmt: skip
    now = cells[2.5, 0.6]
    assert now.camera is not None
    assert now.bev is not None
    assert round(now.camera.expected, 4) == 0.3611
    assert round(now.bev.expected, 4) == 0.0981
    assert grid.source == "statistics"
    assert grid.assumptions


def test_maps_of_our_own_runs_are_summed_exactly(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run")
    rng = np.random.default_rng(2)
    bev, pers = sparse_map(rng, 0.2, 2.5).reshape(4, 20, 50), sparse_map(rng, 0.2, 2.5).reshape(2, 4, 10, 50)
    (folder / "maps").mkdir()
    np.savez(folder / "maps" / "00000030.npz", weight_map_bev=bev, weight_map_pers=pers)
    line = json.loads((folder / "aqr_stats.jsonl").read_text().splitlines()[-1])
    gate = -0.2
    line |= {"ranks": 1, "camera_gate": gate, "lidar_gate": gate}
    line["modulation_pers"]["relative_change"] = float(abs(gate) * 0.4 * np.abs(pers - 1).mean())
    (folder / "aqr_stats.jsonl").write_text(json.dumps(line) + "\n")
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace("gate: false", "gate: true"))
    grid = whatif(read_run(folder), [2.0, 4.0], [0.7])
    exact, beyond = grid.cells[0].camera, grid.cells[1].camera
    assert grid.source == "maps"
    assert exact is not None
    assert exact.low == exact.high == pytest.approx(abs(gate) * 0.3 * np.abs(np.minimum(pers, 2.0) - 1).mean())
    assert beyond is not None
    assert beyond.low < beyond.high  # what a higher clamp would let through is not in the maps


@pytest.mark.parametrize(
    ("clamps", "residuals", "message"),
    [
        ([0.5], [0.6], r"clamp 0\.5 is out of range"),
        ([float("nan")], [0.6], "clamp nan is out of range"),
        ([2.0], [1.6], r"residual 1\.6 is out of range"),
        ([], [0.6], "no setting is given"),
    ],
)
def test_wrong_settings(aqr_log: Path, clamps: list[float], residuals: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        whatif(aqr_log, clamps, residuals)


def test_run_without_statistics(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text(small_log().split("🔍")[0], encoding="utf-8")
    with pytest.raises(InputError, match="no AQR statistics"):
        whatif(path, [2.0], [0.6])
