"""The whole way, from tables and results.json on disk to metrics.json, against the devkit's own."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nuscenes import NuScenes
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.detection.evaluate import DetectionEval
from tests.data.conftest import write_world
from tests.scoring import devkit
from tests.scoring.worlds import detections_of, perfect

from aqr.data.index import open_index
from aqr.errors import InputError
from aqr.scoring import GroundTruth, load_ground_truth, score_files, write_submission
from aqr.scoring.filters import scored


def official(root: Path, results: Path, split: str, out: Path) -> tuple[Any, Any]:
    """metrics_summary.json and metrics_details.json as the devkit writes them."""
    nusc = NuScenes("v1.0-mini", str(root), verbose=False)
    config = config_factory("detection_cvpr_2019")
    DetectionEval(nusc, config, str(results), split, str(out), verbose=False).main(render_curves=False)
    return json.loads((out / "metrics_summary.json").read_text()), json.loads(
        (out / "metrics_details.json").read_text()
    )


def assert_files_equal(root: Path, results: Path, split: str, folder: Path) -> dict[str, Any]:
    summary, details = official(root, results, split, folder / "official")
    returned = score_files(results, root, "v1.0-mini", split, folder / "ours" / "metrics.json")
    ours = json.loads((folder / "ours" / "metrics.json").read_text())
    devkit.assert_same(ours, summary)
    devkit.assert_same(returned, summary)
    devkit.assert_same(json.loads((folder / "ours" / "metrics_details.json").read_text()), details)
    return ours


@pytest.fixture(scope="module")
def frame(real_frame: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real frame's tables where an index may be written beside them."""
    root = tmp_path_factory.mktemp("frame")
    for folder in ("v1.0-mini", "maps"):
        (root / folder).mkdir()
        for file in (real_frame / folder).iterdir():
            shutil.copyfile(file, root / folder / file.name)
    return root


@pytest.fixture(scope="module")
def frame_truth(frame: Path) -> GroundTruth:
    index = open_index(frame, "v1.0-mini")
    return load_ground_truth(index, index.split("mini_train"))


def test_perfect_boxes_on_the_real_frame(frame: Path, frame_truth: GroundTruth, tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    write_submission(results, frame_truth.samples.tokens, perfect(frame_truth))
    assert assert_files_equal(frame, results, "mini_train", tmp_path)["mean_ap"] == pytest.approx(0.494, abs=5e-4)
    seen = np.flatnonzero(frame_truth.num_points > 0)
    write_submission(results, frame_truth.samples.tokens, perfect(frame_truth, seen), {"use_lidar": True})
    summary = assert_files_equal(frame, results, "mini_train", tmp_path)
    assert summary["mean_ap"] == pytest.approx(0.5)
    assert summary["meta"]["use_lidar"] is True


@pytest.mark.parametrize("seed", range(4))
def test_noised_boxes_on_the_real_frame(seed: int, frame: Path, frame_truth: GroundTruth, tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    write_submission(results, frame_truth.samples.tokens, detections_of(frame_truth, seed, per_sample=200))
    summary = assert_files_equal(frame, results, "mini_train", tmp_path)
    assert 0.02 < summary["mean_ap"] < 0.49


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve samples in two scenes, with tracks, bicycle racks and annotations in mixed order, near the vehicle."""
    root = write_world(tmp_path_factory.mktemp("split") / "world", seed=2, samples_per_scene=6)
    tables = root / "v1.0-mini"
    rng = np.random.default_rng(2)
    records = {name: json.loads((tables / f"{name}.json").read_text()) for name in ("sample_data", "ego_pose")}
    pose = {record["token"]: record["translation"] for record in records["ego_pose"]}
    ego = {
        record["sample_token"]: pose[record["ego_pose_token"]]
        for record in records["sample_data"]
        if record["is_key_frame"] and "LIDAR_TOP" in record["filename"]
    }
    notes = json.loads((tables / "sample_annotation.json").read_text())
    for note in notes:
        note["translation"] = (np.array(ego[note["sample_token"]]) + rng.normal(0, [20, 20, 1])).tolist()
    (tables / "sample_annotation.json").write_text(json.dumps(notes))
    return root


@pytest.mark.parametrize(("name", "count"), [("mini_train", 12), ("mini_val", 6)])
def test_a_split_with_tracks_and_racks(name: str, count: int, split: Path, tmp_path: Path) -> None:
    index = open_index(split, "v1.0-mini")
    truth = load_ground_truth(index, index.split(name))
    assert len(truth.samples) == count
    assert len(truth.samples.racks.sample) > 0
    assert np.isnan(truth.velocity).any()
    assert not np.isnan(truth.velocity).all()
    results = tmp_path / "results.json"
    write_submission(results, truth.samples.tokens, detections_of(truth, seed=3, per_sample=150))
    summary = assert_files_equal(split, results, name, tmp_path)
    assert summary["mean_ap"] > 0.05
    assert 20 < scored(truth, truth.samples).sum() < len(truth)


def test_what_is_asked_for_beside_the_metrics(split: Path, tmp_path: Path) -> None:
    index = open_index(split, "v1.0-mini")
    truth = load_ground_truth(index, index.split("mini_train"))
    results, other = tmp_path / "results.json", tmp_path / "other.json"
    write_submission(results, truth.samples.tokens, detections_of(truth, seed=5, per_sample=80))
    write_submission(other, truth.samples.tokens, detections_of(truth, seed=6, per_sample=80, noise=1.5))
    plain = score_files(results, split, "v1.0-mini", "mini_train")
    summary = score_files(
        results,
        split,
        "v1.0-mini",
        "mini_train",
        tmp_path / "metrics.json",
        bootstrap=30,
        baseline=other,
        breakdown=True,
        picture=tmp_path / "curves.png",
    )
    devkit.assert_same({key: summary[key] for key in plain}, plain, tolerance=0)
    assert list(summary)[len(plain) :] == ["bootstrap", "baseline", "breakdown"]
    assert summary["bootstrap"]["mean_ap"]["value"] == pytest.approx(plain["mean_ap"])
    worse = score_files(other, split, "v1.0-mini", "mini_train")
    change = summary["baseline"]["difference"]["nd_score"]
    assert change["value"] == pytest.approx(plain["nd_score"] - worse["nd_score"])
    assert change["low"] <= change["value"] <= change["high"]
    assert {part["kind"] for part in summary["breakdown"]} >= {"distance", "lidar_points", "light"}
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    devkit.assert_same(json.loads((tmp_path / "metrics.json").read_text()), summary, tolerance=0)


def test_light_and_weather_come_from_the_descriptions_of_the_scenes(split: Path, tmp_path: Path) -> None:
    root = tmp_path / "described"
    shutil.copytree(split / "v1.0-mini", root / "v1.0-mini", ignore=shutil.ignore_patterns("*.npz"))
    path = root / "v1.0-mini" / "scene.json"
    scenes = json.loads(path.read_text())
    words = {"scene-0061": "Night, parked cars", "scene-0553": "Heavy rain after lunch"}
    for scene in scenes:
        scene["description"] = words.get(scene["name"], "")
    path.write_text(json.dumps(scenes))
    index = open_index(root, "v1.0-mini")
    samples = load_ground_truth(index, index.split("mini_train")).samples
    assert samples.night.tolist() == [True] * 6 + [False] * 6
    assert samples.rain.tolist() == [False] * 6 + [True] * 6
    assert samples.scene.tolist() == [0] * 6 + [1] * 6


def test_a_split_of_another_version_is_refused(frame: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="val"):
        score_files(tmp_path / "results.json", frame, "v1.0-mini", "val")


def test_a_split_without_annotations_is_refused(split: Path, tmp_path: Path) -> None:
    root = tmp_path / "bare"
    shutil.copytree(split / "v1.0-mini", root / "v1.0-mini", ignore=shutil.ignore_patterns("*.npz"))
    (root / "v1.0-mini" / "sample_annotation.json").write_text("[]")
    with pytest.raises(InputError, match=r"sample_annotation\.json: no box of the ten classes"):
        score_files(tmp_path / "results.json", root, "v1.0-mini", "mini_val")


def test_scoring_loads_no_torch() -> None:
    code = "import sys, aqr.scoring; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
