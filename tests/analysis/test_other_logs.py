"""JSON logs, TensorBoard events and run folders."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from aqr.analysis import analyze, read_run
from aqr.config import Config
from aqr.errors import InputError


def write_lines(path: Path, lines: list[dict[str, object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_mmcv_json(tmp_path: Path) -> None:
    shared = {"lr": 1e-5, "memory": 2000, "data_time": 0.1}
    lines: list[dict[str, object]] = [
        {"env_info": "sys.platform: linux", "config": "max_weight_clamp=2.5,\nresidual_weight=0.6)", "seed": 3},
        {"mode": "train", "epoch": 1, "iter": 50, **shared, "loss": 3.5, "time": 1.5},
        {"mode": "train", "epoch": 1, "iter": 100, **shared, "loss": 3.0, "time": 1.6},
        {"mode": "val", "epoch": 1, "iter": 753, "pts_bbox_NuScenes/mAP": 0.6, "pts_bbox_NuScenes/NDS": 0.65},
        {"mode": "train", "epoch": 2, "iter": 50, **shared, "loss": 2.5, "time": 1.7},
    ]
    path = write_lines(tmp_path / "20251012.log.json", lines)
    run = read_run(path)
    assert run.kind == "JSON log"
    assert run.training.series["loss"].iteration.tolist() == [50, 100, 150]
    assert run.training.series["step_time_s"].value.tolist() == [1.5, 1.6, 1.7]
    assert (run.number("max_weight_clamp"), run.number("residual_weight"), run.number("seed")) == (2.5, 0.6, 3)
    assert [one.figures for one in run.evaluations] == [{"mAP": 0.6, "NDS": 0.65}]
    assert any("length of an epoch" in str(note) for note in run.notes)
    zipped = tmp_path / "other.log.json.gz"
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    assert read_run(zipped).training.series["loss"].value.tolist() == [3.5, 3.0, 2.5]


def test_mmengine_json(tmp_path: Path) -> None:
    lines: list[dict[str, object]] = [
        {"lr": 1e-5, "data_time": 0.1, "loss": 3.5, "time": 1.5, "epoch": 1, "iter": 50, "memory": 2000, "step": 50},
        {"lr": 1e-5, "data_time": 0.1, "loss": 3.0, "time": 1.5, "epoch": 2, "iter": 150, "memory": 2000, "step": 150},
        {"NuScenes metric/pred_instances_3d_NuScenes/mAP": 0.6, "data_time": 0.1, "time": 0.2, "step": 2},
    ]
    write_lines(tmp_path / "vis_data" / "scalars.json", lines)
    run = read_run(tmp_path)
    assert run.training.series["loss"].iteration.tolist() == [50, 150]
    assert [(one.iteration, one.figures) for one in run.evaluations] == [(150, {"mAP": 0.6})]


def test_cut_json(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "a.json", [{"mode": "train", "iter": n, "epoch": 1, "loss": n / 7} for n in (1, 2, 3)]
    )
    path.write_bytes(path.read_bytes()[:-9])
    run = read_run(path)
    assert run.training.series["loss"].iteration.tolist() == [1, 2]
    assert any("no JSON objects" in str(note) for note in run.notes)


def test_tensorboard_against_its_own_writer(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(tmp_path))
    rng = np.random.default_rng(0)
    losses = rng.random(40).astype(np.float32)
    for step, loss in enumerate(losses):
        writer.add_scalar("train/loss", float(loss), 10 * step, new_style=step % 2 == 0)
        writer.add_scalar("learning_rate", 1e-4 / (step + 1), 10 * step, double_precision=True, new_style=True)
    writer.add_text("note", "hello", 3)
    writer.add_histogram("weights", rng.random(100), 3)
    writer.add_scalar("val/pts_bbox_NuScenes/mAP", 0.625, 390)
    writer.close()
    run = read_run(tmp_path)
    assert run.kind == "TensorBoard events"
    assert run.training.series["loss"].iteration.tolist() == list(range(0, 400, 10))
    np.testing.assert_array_equal(run.training.series["loss"].value, losses.astype(np.float64))
    np.testing.assert_array_equal(run.training.series["lr"].value, [1e-4 / (step + 1) for step in range(40)])
    assert run.evaluation is not None
    assert (run.evaluation.iteration, run.evaluation.figures) == (390, {"mAP": 0.625})

    path = next(tmp_path.iterdir())
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])
    half = read_run(path)
    shown = half.training.series["loss"]
    assert 5 < len(shown) < 40
    np.testing.assert_array_equal(shown.value, losses[: len(shown)].astype(np.float64))
    assert any("cut off or damaged" in str(note) for note in half.notes)


SUMMARY = {
    "mean_ap": 0.3, "nd_score": 0.4,
    "tp_errors": {"trans_err": 0.5, "scale_err": 0.4, "orient_err": 0.6, "vel_err": 0.7, "attr_err": 0.2},
    "mean_dist_aps": {"car": 0.6, "barrier": 0.1},
    "label_aps": {"car": {"0.5": 0.5, "1.0": 0.6, "2.0": 0.65, "4.0": 0.65}},
    "label_tp_errors": {"car": {"trans_err": 0.2}, "barrier": {"trans_err": 0.3, "vel_err": float("nan")}},
}  # fmt: skip


def run_folder(folder: Path, *, aqr: bool = True, clamp: float = 2.5) -> Path:
    """A run folder as `aqr train` writes it."""
    config = Config.model_validate({"aqr": {"enabled": aqr, "preset": "seed-2.5-0.6"}, "train": {"steps": 30}})
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
    metrics: list[dict[str, object]] = [
        {"iteration": at, "loss": 10 - at / 10, "loss_cls": 1.0, "grad_norm": 5.0, "router_grad_norm": 0.25,
         "step_time_s": 0.5, "data_time_s": 0.1, "lr": 1e-4, "memory_mb": 900.0, "skipped": at // 20}
        for at in (10, 20, 30)
    ]  # fmt: skip
    metrics[1] |= {"loss": None, "grad_norm": None}
    write_lines(folder / "metrics.jsonl", metrics)
    weights = {"mean": 0.7, "std": 0.1, "min": 0.1, "max": 0.9, "shape": [4, 900]}
    maps = {"mean": 0.1, "std": 0.3, "min": 0.0, "max": clamp, "shape": [4, 6, 20, 50], "clamped_share": 0.0125}
    change = {"mean_change": -0.1, "std_change": 0.2, "max_change": 3.0, "relative_change": 0.35}
    groups = {
        "lidar_weights": weights, "camera_weights": weights, "weight_map_bev": maps, "weight_map_pers": maps,
        "modulation_bev": change, "modulation_pers": change,
    }  # fmt: skip
    if aqr:
        write_lines(folder / "aqr_stats.jsonl", [{"forward": at, "ranks": 8, **groups} for at in (10, 20, 30)])
    (folder / "eval" / "val").mkdir(parents=True)
    (folder / "eval" / "val" / "metrics.json").write_text(json.dumps(SUMMARY))
    (folder / "eval" / "val-no-lidar").mkdir()
    (folder / "eval" / "val-no-lidar" / "metrics.json").write_text(json.dumps({**SUMMARY, "mean_ap": 0.01}))
    return folder


def test_run_folder(tmp_path: Path) -> None:
    run = read_run(run_folder(tmp_path / "some-run"))
    assert (run.kind, run.name, run.uses_aqr) == ("run folder", "some-run", True)
    assert (run.number("max_weight_clamp"), run.number("residual_weight"), run.text("form")) == (2.5, 0.6, "convex")
    assert run.training.series["loss"].iteration.tolist() == [10, 30]
    assert run.training.series["skipped"].value.tolist() == [0, 1, 1]
    assert (run.training.iterations, run.training.planned) == (30, 30)
    assert [(one.forward, one.ranks, one.pooled, one.queries) for one in run.snapshots] == [
        (at, 8, True, (900,)) for at in (10, 20, 30)
    ]
    assert run.snapshots[0].rank_std("lidar_weights", "mean") is None
    assert run.snapshots[0].mean("weight_map_pers", "clamped_share") == 0.0125
    assert len(run.evaluations) == 2
    assert run.evaluation is not None
    assert run.evaluation.figures["mAP"] == 0.3
    assert run.evaluation.per_class["car"].ap == 0.6
    assert np.isnan(run.evaluation.per_class["barrier"].figures["AVE"])
    plain = read_run(run_folder(tmp_path / "plain", aqr=False))
    assert plain.uses_aqr is False
    assert plain.notes == ()


def test_aqr_alone_is_compared_with_an_evaluation_of_what_it_started_from(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "alone")
    config = Config.model_validate({"aqr": {"enabled": True}, "train": {"only": ["aqr"], "init_from": "start.ckpt"}})
    (folder / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
    report = analyze([folder], out=tmp_path / "report")
    assert "Only aqr was trained. Next, score what the run started from (aqr eval start.ckpt" in report.verdict
    scored = tmp_path / "scored"
    scored.mkdir()
    (scored / "results.json").write_text("{}")
    (scored / "metrics.json").write_text(json.dumps({**SUMMARY, "mean_ap": 0.25}))
    run = read_run(scored)
    assert (run.kind, run.name, run.uses_aqr, run.training.series) == ("evaluation", "scored", None, {})
    report = analyze([folder], baseline=scored, out=tmp_path / "report", lang="zh")
    (comparison,) = report.data["comparisons"]
    assert comparison["mAP_delta"] == pytest.approx(0.05)
    assert comparison["step_time_ratio"] is None
    with pytest.raises(InputError, match="no log that is known"):
        read_run(folder / "eval" / "val-no-lidar")
    converted = run_folder(tmp_path / "converted", aqr=False)
    (converted / "metrics.jsonl").unlink()
    run = read_run(converted)
    assert (run.kind, run.name, run.uses_aqr, run.training.series) == ("run folder", "converted", False, {})
    assert run.evaluation is not None
    (scored / "metrics.json").write_text(json.dumps({"loss": 1.0}))
    with pytest.raises(InputError, match="no log that is known"):
        read_run(scored)


def test_folder_that_holds_run_folders(tmp_path: Path) -> None:
    run_folder(tmp_path / "runs" / "a")
    assert read_run(tmp_path).name == "a"
    run_folder(tmp_path / "runs" / "b")
    with pytest.raises(InputError, match=r"holds 2 run folders \(a, b\)"):
        read_run(tmp_path)


def test_what_a_run_folder_lacks_is_said(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run")
    (folder / "config.yaml").unlink()
    (folder / "eval" / "val" / "metrics.json").write_text("{")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 40, "lo')
    notes = " ".join(map(str, read_run(folder).notes))
    assert "no config.yaml" in notes
    assert "metrics.json is not valid JSON" in notes
    assert "1 lines of metrics.jsonl are broken" in notes
    assert read_run(folder).number("max_weight_clamp") == 2.5  # three maps stand there
