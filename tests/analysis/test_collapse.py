"""Empty maps, inert clamps, negative gates, and losses that are too good: where they belong, and nowhere else."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.analysis.logs import build_run
from tests.analysis.test_findings import SETTINGS, STEPS, found, scored, snapshot, sound
from tests.analysis.test_other_logs import run_folder, write_lines

from aqr.analysis import analyze, read_run, whatif
from aqr.analysis.comparison import compare
from aqr.analysis.findings.collapse import share_near_zero
from aqr.analysis.language import Translator
from aqr.analysis.recommend import recommend
from aqr.analysis.run import Kind, Run, Snapshot
from aqr.analysis.verdict import verdict
from aqr.errors import InputError

GATED = {**SETTINGS, "gate": True, "residual_weight": 0.6}


def maps(settings: dict[str, Any], pers: float, bev: float = 0.05, **more: Any) -> Run:
    changes = {
        "weight_map_pers__mean": [pers] * 4,
        "weight_map_pers__max": [1.5 if pers else 0.0] * 4,
        "weight_map_bev__mean": [bev] * 4,
        "weight_map_bev__max": [1.2 if bev else 0.0] * 4,
    }
    return build_run(settings=settings, snapshots=[snapshot(**changes, **more) for _ in range(3)], queries=[900] * 4)


@given(seed=st.integers(0, 1000), share=st.floats(0.0, 0.3), level=st.floats(0.001, 0.2))
def test_the_share_of_empty_cells_is_a_lower_bound(seed: int, share: float, level: float) -> None:
    rng = np.random.default_rng(seed)
    weights = np.where(rng.random(2000) < share, rng.random(2000), 0.0)
    stats = {"mean": np.array([weights.mean()]), "max": np.array([weights.max()])}
    bound = share_near_zero(Snapshot(1, 1, True, {"weight_map_bev": stats}), "weight_map_bev", level)
    assert bound is not None
    assert bound <= (weights < level).mean() + 1e-12


@pytest.mark.parametrize(
    ("pers", "bev", "weight", "severity"),
    [
        (0.0, 0.05, 0.7, "warning"),
        (0.0, 0.0, 0.7, "critical"),
        (0.0004, 0.0, 0.002, "critical"),
        (0.0004, 0.0, 0.7, "warning"),
        (0.01, 0.05, 0.002, None),
        (0.002, 0.002, 0.7, None),
    ],
)
def test_empty_maps(pers: float, bev: float, weight: float, severity: str | None) -> None:
    ids = found(maps(SETTINGS, pers, bev, camera_weights__mean=[weight] * 4))
    assert ("maps.empty" in ids) == (severity is not None)
    if severity is not None:
        assert ids["maps.empty"].severity == severity
    assert "maps.empty" not in found(maps({**SETTINGS, "parameterisation": "centered"}, pers, bev))


def lone_queries(weight: float, threshold: float) -> Run:
    """A run whose 64 queries, none near another, weigh the same, with the statistics of maps drawn for them."""
    kernels = np.exp(-((np.arange(128)[:, None] - np.arange(6, 128, 16)) ** 2) / 2) / np.sqrt(2 * np.pi)
    total = weight * np.outer(kernels.sum(1), kernels.sum(1))
    drawn = np.where(total < threshold, 0.0, total)
    stats = {"mean": [drawn.mean()] * 4, "max": [drawn.max()] * 4}
    changes = {f"weight_map_{name}__{key}": value for name in ("bev", "pers") for key, value in stats.items()}
    weights = {f"{name}_weights__mean": [weight] * 4 for name in ("lidar", "camera")}
    settings = {**SETTINGS, "min_weight_threshold": threshold}
    return build_run(settings=settings, snapshots=[snapshot(**changes, **weights) for _ in range(3)])


@pytest.mark.parametrize(
    ("weight", "threshold", "severity"),
    [(0.3, 0.01, None), (0.1, 0.01, "warning"), (0.055, 0.01, "critical"), (0.3, 0.06, "critical")],
)
def test_maps_are_empty_below_the_threshold(weight: float, threshold: float, severity: str | None) -> None:
    """A lone query reaches 0.159 of its weight: 0.048 of 0.3 ranks it, unless the threshold takes it away."""
    one = found(lone_queries(weight, threshold)).get("maps.empty")
    assert (one.severity if one else None) == severity
    if one:
        assert one.evidence["near_zero_below"] == threshold


def said(run: Run) -> tuple[str, str]:
    """The second and the third sentence of the verdict."""
    _, mechanism, following = verdict(run, None, list(found(run).values()), recommend(run, None))
    return str(mechanism), str(following)


CONSTANT = "other strengths only change the constant"


def test_one_empty_map_does_not_stand_for_both() -> None:
    """Advice for empty maps is given where both are; beside a living map, other strengths still tell."""
    strong = {"modulation_pers__relative_change": [0.4] * 4}
    mechanism, following = said(replace(maps(SETTINGS, 0.05, 0.0, **strong), kind="run folder"))
    assert "all but a constant factor where weight maps are empty" in mechanism
    assert following.startswith("Next, try ")
    mechanism, following = said(replace(maps(SETTINGS, 0.0, 0.0, **strong), kind="run folder"))
    assert "where weight maps are empty" in mechanism
    assert "aqr.parameterisation: centered" in following
    assert CONSTANT in following


@pytest.mark.parametrize("kind", ["mmcv text log", "mmengine text log", "JSON log", "TensorBoard events"])
def test_other_frameworks_are_not_told_of_keys_that_they_lack(kind: Kind) -> None:
    _, following = said(replace(maps(SETTINGS, 0.0, 0.0), kind=kind))
    assert "aqr." not in following
    assert CONSTANT in following


def test_gates_beside_empty_maps_are_the_logged_ones() -> None:
    run = maps(GATED, 0.0, 0.0, modulation_pers__relative_change=[0.39] * 4)
    logged = {"lidar_gate": 0.25, "camera_gate": -0.98}
    last = [replace(one, gates=logged) for one in run.snapshots]
    detail = found(replace(run, snapshots=tuple(last)))["maps.empty"].detail
    assert "(LiDAR: gate 0.250; cameras: gate −0.980)" in str(detail)
    assert "up or down" not in str(detail)
    assert "（激光雷达：门控 0.250；相机：门控 −0.980）" in Translator("zh").show(detail)
    alone = maps(GATED, 0.05, 0.0)
    last = [replace(one, gates=logged) for one in alone.snapshots]
    detail = found(replace(alone, snapshots=tuple(last)))["maps.empty"].detail
    assert "(LiDAR: gate 0.250)" in str(detail)


def test_what_an_empty_map_does_is_said_with_and_without_a_gate() -> None:
    gated = found(maps(GATED, 0.0, modulation_pers__relative_change=[0.39] * 4, camera_weights__mean=[0.002] * 4))
    detail = str(gated["maps.empty"].detail)
    assert "image map is 0 on every cell" in detail
    assert "(1 − 0.6) × gate" in detail
    assert f"a gate of {0.39 / 0.4:.2f}" in detail
    assert "cameras 0.0020" in detail
    assert "modulation.residual-below-band" not in gated
    plain = str(found(maps(SETTINGS, 0.0))["maps.empty"].detail)
    assert "all but the same factor, residual_weight (0.7)" in plain
    assert "given these sensors up" not in plain


def test_a_clamp_that_nothing_reaches() -> None:
    low = sound(weight_map_pers__max=[0.9] * 4, weight_map_bev__max=[0.16] * 4)
    assert found(low)["maps.clamp-inert"].evidence["largest"] == {"weight_map_bev": 0.16, "weight_map_pers": 0.9}
    assert "maps.clamp-inert" not in found(sound())
    cells = whatif(low, [1.5, 2.0], [0.7]).cells
    assert cells[0].camera == cells[1].camera


def stats_lines(folder: Path, **more: Any) -> Path:
    """The folder with these keys added to every line of its statistics."""
    path = folder / "aqr_stats.jsonl"
    lines = [json.loads(line) | more for line in path.read_text(encoding="utf-8").splitlines()]
    write_lines(path, lines)
    return folder


@pytest.mark.parametrize(
    ("gates", "negative"),
    [
        ({}, None),
        ({"lidar_gate": 0.2, "camera_gate": 0.1}, None),
        ({"lidar_gate": -0.2, "camera_gate": 0.1}, "LiDAR"),
        ({"lidar_gate": 0.2, "camera_gate": -0.05}, "cameras"),
    ],
)
def test_gates(tmp_path: Path, gates: dict[str, float], negative: str | None) -> None:
    report = analyze([stats_lines(run_folder(tmp_path / "run"), **gates)], out=tmp_path / "out")
    ids = {one["id"]: one for one in report.data["findings"]}
    assert ("modulation.gate-negative" in ids) == (negative is not None)
    if negative:
        one = ids["modulation.gate-negative"]
        assert one["evidence"]["gates"] == gates
        assert f"{negative}: gate −{-min(gates.values()):.3f}" in one["detail"]
        assert one["severity"] == ("warning" if negative == "LiDAR" else "info")
        assert {"LiDAR": "cameras", "cameras": "LiDAR"}[str(negative)] not in one["detail"]
    assert report.data["runs"][0]["aqr"]["snapshots"][-1].get("gates", {}) == gates
    assert ("gate at the end" in report.markdown.read_text()) == bool(gates)


def leaking(loss: float, ap: float, **more: Any) -> tuple[Run, Run]:
    """A run whose loss_cls is `loss` times the baseline's, and its AP, against a baseline with AP 0.5."""
    rng = np.random.default_rng(0)
    base, noise = 0.4 + 0.02 * rng.normal(size=20), 0.002 * rng.normal(size=20)
    series = {"loss_cls": (STEPS, (loss * base + noise).tolist()), "lr": (STEPS, [1e-4] * 20)}
    other = {"loss_cls": (STEPS, base.tolist()), "lr": (STEPS, [1e-4] * 20)}
    classes = dict.fromkeys(("car", "truck", "bus"), ap)
    run = scored("run", classes, series=series, settings={**SETTINGS, **more})
    return run, scored("base", dict.fromkeys(classes, 0.5), series=other, settings={"enable_aqr": False})


@pytest.mark.parametrize(
    ("loss", "ap", "severity"),
    [
        (0.95, 0.43, "critical"),
        (0.97, 0.485, "warning"),
        (0.95, 0.5, None),
        (0.95, 0.56, None),
        (1.0, 0.43, None),
        (1.05, 0.43, None),
        (0.998, 0.43, None),
    ],
)
def test_a_leak_needs_both_a_lower_loss_and_a_lower_score(loss: float, ap: float, severity: str | None) -> None:
    ids = found(*leaking(loss, ap))
    assert (ids["training.leak"].severity if "training.leak" in ids else None) == severity


def test_no_leak_without_an_evaluation_or_a_like_baseline() -> None:
    run, base = leaking(0.9, 0.4)
    unscored = Run(**{**{k: v for k, v in run.__dict__.items() if k != "evaluation"}, "evaluations": ()})
    assert "training.leak" not in found(unscored, base)
    other = build_run("base", series={"loss_cls": (STEPS, [0.4] * 20), "lr": (STEPS, [2e-4] * 20)})
    differently = Run(**{**other.__dict__, "evaluations": base.evaluations})
    assert compare(run, differently).like_for_like is False
    assert "training.leak" not in found(run, differently)
    assert "training.leak" not in found(run)


def attention(folder: Path) -> Path:
    path = run_folder(folder) / "config.yaml"
    text = path.read_text(encoding="utf-8")
    assert text.count("target: features") == 1
    path.write_text(text.replace("target: features", "target: attention"), encoding="utf-8")
    return folder


def test_weights_in_attention_have_neither_modulation_nor_forecasts(tmp_path: Path) -> None:
    folder = attention(tmp_path / "run")
    zero = {"mean_change": 0.0, "relative_change": 0.0}
    stats_lines(folder, modulation_bev=zero, modulation_pers=zero)
    report = analyze([folder], out=tmp_path / "out")
    data = report.data
    ids = {one["id"] for one in data["findings"]}
    assert "modulation.attention" in ids
    assert not any(one.startswith(("modulation.", "maps.")) for one in ids - {"modulation.attention"})
    assert data["whatif"] == data["recommendations"] == []
    assert data["runs"][0]["aqr"]["snapshots"][-1]["modulation_pers"] is None
    assert data["runs"][0]["aqr"]["snapshots"][-1]["camera_weights"] is not None
    assert data["runs"][0]["config"]["form"] is None
    page = report.html.read_text(encoding="utf-8")
    assert 'id="weights"' in page
    assert 'id="modulation"' not in page
    with pytest.raises(InputError, match="act in attention"):
        whatif(folder, [2.0], [0.7])


def test_nothing_is_said_of_cost_where_no_step_times_are(tmp_path: Path) -> None:
    folders = [run_folder(tmp_path / "with"), run_folder(tmp_path / "without", aqr=False)]
    for folder in folders:
        path = folder / "metrics.jsonl"
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        unknown = ("step_time_s", "data_time_s", "memory_mb")
        write_lines(path, [{k: v for k, v in line.items() if k not in unknown} for line in lines])
    report = analyze([folders[0]], baseline=folders[1], out=tmp_path / "out")
    comparison = report.data["comparisons"][0]
    assert comparison["step_time_ratio"] is comparison["memory_ratio"] is None
    assert not any(one["id"].startswith("cost.") for one in report.data["findings"])
    text = report.markdown.read_text(encoding="utf-8")
    assert not any(word in text for word in ("step time", "memory", "Memory", "times as long"))
    assert 'id="timings"' not in report.html.read_text(encoding="utf-8")


def test_one_rank_gives_whole_points(tmp_path: Path) -> None:
    """One rank has no spread: what is expected is rounded, and never called exact."""
    run = read_run(run_folder(tmp_path / "run"))
    cell = whatif(run, [2.5, 3.0], [0.7]).cells[0]
    assert cell.camera is not None
    assert cell.camera.rough
    eight = whatif(sound(), [2.0], [0.65]).cells[0].camera
    assert eight is not None
    assert not eight.rough


def test_far_below_the_baseline_another_strength_does_not_come_first(tmp_path: Path) -> None:
    """Off first where points are lost by the handful, last where a setting may still help."""
    aps = {f"class {number}": 0.5 for number in range(10)}
    base = scored("base", aps, settings={"enable_aqr": False})
    strong = sound(modulation_pers__relative_change=[0.35, 0.36, 0.35, 0.36])
    for lost, first in ((0.07, "off"), (0.015, "A")):
        low = scored("low", {name: ap - lost for name, ap in aps.items()})
        run = Run(**{**strong.__dict__, "evaluations": low.evaluations})
        names = [one.name for one in recommend(run, compare(run, base))]
        assert "off" in names
        assert (names[0] == "off") == (first == "off")
