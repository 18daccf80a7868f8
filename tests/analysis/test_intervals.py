"""Intervals of score differences, from detections that the runs kept."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from tests.analysis.test_other_logs import run_folder

from aqr.analysis import analyze, intervals, read_run
from aqr.data.index import open_index
from aqr.scoring import Predictions, evaluate, load_ground_truth, write_submission

SPLIT = "mini_val"


def detected(folder: Path, world: Path, share: float) -> float:
    """Give a run folder detections: this share of the boxes, exactly where they are. Returns their mAP."""
    index = open_index(world, "v1.0-mini")
    truth = load_ground_truth(index, index.split(SPLIT))
    rows = np.flatnonzero(np.random.default_rng(0).random(len(truth)) < share)
    boxes = truth.take(rows)
    found = Predictions(
        sample=boxes.sample,
        translation=boxes.translation,
        size=boxes.size,
        rotation=boxes.rotation,
        velocity=np.nan_to_num(boxes.velocity),
        label=boxes.label,
        attribute=boxes.attribute,
        score=np.linspace(1, 0.5, len(boxes)),
    )
    metrics = evaluate(truth, found)
    target = folder / "eval" / SPLIT
    target.mkdir(parents=True)
    write_submission(target / "results.json", truth.samples.tokens, found)
    (target / "metrics.json").write_text(json.dumps(metrics.summary()))
    for other in ("val", "val-no-lidar"):
        (folder / "eval" / other / "metrics.json").unlink()
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["data"] |= {"root": str(world), "version": "v1.0-mini", "val_split": SPLIT}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return metrics.mean_ap


def test_one_scene_drawn_again_is_the_difference_itself(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All resamples of a split with one scene are that scene, so both ends of the interval are the difference."""
    ours, theirs = run_folder(tmp_path / "aqr"), run_folder(tmp_path / "plain", aqr=False)
    change = detected(ours, world, 0.9) - detected(theirs, world, 0.5)
    assert intervals.score_intervals(read_run(ours), read_run(theirs)) is None  # too few scenes
    monkeypatch.setattr(intervals, "FEWEST_SCENES", 1)
    report = analyze([ours], baseline=theirs, out=tmp_path / "out")
    (comparison,) = report.data["comparisons"]
    assert comparison["mAP_delta"] == pytest.approx(change, abs=1e-6)
    assert comparison["intervals"]["metrics"]["mAP"] == pytest.approx([change, change], abs=1e-6)
    assert comparison["intervals"]["scenes"] == 1
    assert "with other scenes it would lie between" in report.verdict
    assert "95 % over 1 scenes" in report.markdown.read_text(encoding="utf-8")


def test_none_where_something_is_missing(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "FEWEST_SCENES", 1)
    ours, theirs = run_folder(tmp_path / "aqr"), run_folder(tmp_path / "plain", aqr=False)
    detected(ours, world, 0.9)
    detected(theirs, world, 0.5)
    assert intervals.score_intervals(read_run(ours), read_run(theirs)) is not None
    assert intervals.score_intervals(read_run(ours), read_run(run_folder(tmp_path / "bare", aqr=False))) is None
    (theirs / "eval" / SPLIT / "results.json").write_text("{}")
    assert intervals.score_intervals(read_run(ours), read_run(theirs)) is None
