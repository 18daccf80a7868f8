"""The written world, read by the official devkit."""

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.common.loaders import load_gt
from nuscenes.eval.detection.data_classes import DetectionBox
from nuscenes.eval.detection.evaluate import DetectionEval
from nuscenes.nuscenes import NuScenes
from nuscenes.utils.data_classes import LidarPointCloud
from nuscenes.utils.geometry_utils import points_in_box
from nuscenes.utils.splits import create_splits_scenes
from PIL import Image

from aqr.data.tables import TABLES
from aqr.synth.presets import PRESETS
from aqr.taxonomy import CAMERAS, CLASSES

TINY = PRESETS["tiny"]


def test_every_table_is_there_and_every_token_leads_somewhere(world: Path) -> None:
    tables = {name: json.loads((world / "v1.0-mini" / f"{name}.json").read_text()) for name in TABLES}
    known = {name: {row["token"] for row in rows} for name, rows in tables.items()}
    assert all(len(known[name]) == len(tables[name]) for name in TABLES), "a token occurs twice"
    foreign = {
        "instance": {"category_token": "category", "first_annotation_token": "sample_annotation",
                     "last_annotation_token": "sample_annotation"},
        "calibrated_sensor": {"sensor_token": "sensor"},
        "scene": {"log_token": "log", "first_sample_token": "sample", "last_sample_token": "sample"},
        "sample": {"scene_token": "scene", "prev": "sample", "next": "sample"},
        "sample_data": {"sample_token": "sample", "ego_pose_token": "ego_pose", "prev": "sample_data",
                        "calibrated_sensor_token": "calibrated_sensor", "next": "sample_data"},
        "sample_annotation": {"sample_token": "sample", "instance_token": "instance", "visibility_token": "visibility",
                              "prev": "sample_annotation", "next": "sample_annotation"},
    }  # fmt: skip
    for name, keys in foreign.items():
        for row in tables[name]:
            for key, target in keys.items():
                assert row[key] in known[target] or (key in ("prev", "next") and row[key] == ""), (name, key)
    for row in tables["sample_annotation"]:
        assert set(row["attribute_tokens"]) <= known["attribute"]
    for row in tables["map"]:
        assert set(row["log_tokens"]) <= known["log"]
    for row in [*tables["sample_data"], *tables["map"]]:
        assert (world / row["filename"]).is_file()


def test_chains_run_through_all_samples_sweeps_and_annotations(devkit: NuScenes) -> None:
    for scene in devkit.scene:
        times = []
        token = scene["first_sample_token"]
        while token:
            sample = devkit.get("sample", token)
            times.append(sample["timestamp"])
            token, last = sample["next"], token
        assert last == scene["last_sample_token"]
        assert len(times) == scene["nbr_samples"] == TINY.keyframes
        assert {b - a for a, b in pairwise(times)} == {500_000}
        first = devkit.get("sample_data", devkit.get("sample", scene["first_sample_token"])["data"]["LIDAR_TOP"])
        stamps, row = [first["timestamp"]], first
        while row["next"]:
            following = devkit.get("sample_data", row["next"])
            assert following["prev"] == row["token"]
            row = following
            stamps.append(row["timestamp"])
        assert len(stamps) == (TINY.sweeps + 1) * (TINY.keyframes - 1) + 1
        assert all(a < b for a, b in pairwise(stamps))
    for instance in devkit.instance:
        token, count = instance["first_annotation_token"], 0
        while token:
            row, count = devkit.get("sample_annotation", token), count + 1
            assert row["instance_token"] == instance["token"]
            token, last = row["next"], token
        assert (last, count) == (instance["last_annotation_token"], instance["nbr_annotations"])


def test_sensors_of_a_sample_look_at_their_own_times(devkit: NuScenes, world: Path) -> None:
    sample = devkit.get("sample", devkit.scene[0]["first_sample_token"])
    sample = devkit.get("sample", sample["next"])
    rows = {channel: devkit.get("sample_data", token) for channel, token in sample["data"].items()}
    assert set(rows) == {*CAMERAS, "LIDAR_TOP"}
    assert len({row["timestamp"] for row in rows.values()}) == 7
    poses = [devkit.get("ego_pose", row["ego_pose_token"]) for row in rows.values()]
    assert len({tuple(pose["translation"]) for pose in poses}) == 7, "the ego vehicle drives"
    for channel in CAMERAS:
        with Image.open(world / rows[channel]["filename"]) as image:
            assert image.size == (rows[channel]["width"], rows[channel]["height"])
            assert (image.format, image.mode) == ("JPEG", "RGB")
    points = np.fromfile(world / rows["LIDAR_TOP"]["filename"], np.float32).reshape(-1, 5)
    assert points.shape == (1084 * 32, 5)
    assert np.isfinite(points).all()
    assert np.array_equal(points[:64, 4], np.tile(np.arange(32), 2))
    assert 0 <= points[:, 3].min() <= points[:, 3].max() <= 255


def test_lidar_points_are_counted_as_the_devkit_counts_them(devkit: NuScenes) -> None:
    checked = 0
    for sample in devkit.sample[:4]:
        path, boxes, _ = devkit.get_sample_data(sample["data"]["LIDAR_TOP"])
        cloud = LidarPointCloud.from_file(path)
        for box in boxes:
            expected = devkit.get("sample_annotation", box.token)["num_lidar_pts"]
            assert points_in_box(box, cloud.points[:3]).sum() == expected
            checked += expected
    assert checked > 2000


@pytest.mark.parametrize("split", ["mini_train", "mini_val"])
def test_perfect_boxes_score_one_in_all_classes(devkit: NuScenes, tmp_path: Path, split: str) -> None:
    truth = load_gt(devkit, split, DetectionBox)
    results = {}
    for token in truth.sample_tokens:
        results[token] = [
            {
                "sample_token": token,
                "translation": list(box.translation),
                "size": list(box.size),
                "rotation": list(box.rotation),
                "velocity": [v if np.isfinite(v) else 0.0 for v in box.velocity],
                "detection_name": box.detection_name,
                "detection_score": 1.0,
                "attribute_name": box.attribute_name,
            }
            for box in truth[token]
            if box.num_pts > 0
        ]
    path = tmp_path / "results.json"
    meta = dict.fromkeys(("use_camera", "use_lidar", "use_radar", "use_map", "use_external"), False)
    path.write_text(json.dumps({"meta": meta, "results": results}))
    config = config_factory("detection_cvpr_2019")
    evaluation = DetectionEval(devkit, config, str(path), split, str(tmp_path / "out"), verbose=False)
    present = Counter(box.detection_name for token in truth.sample_tokens for box in evaluation.gt_boxes[token])
    assert set(present) == set(CLASSES)
    metrics, _ = evaluation.evaluate()
    assert metrics.mean_ap == pytest.approx(1.0, abs=1e-9)
    assert metrics.nd_score == pytest.approx(1.0, abs=1e-6)


def test_density_is_that_of_a_busy_street(devkit: NuScenes) -> None:
    counts, near = [], []
    for sample in devkit.sample:
        ego = devkit.get("ego_pose", devkit.get("sample_data", sample["data"]["LIDAR_TOP"])["ego_pose_token"])
        rows = [devkit.get("sample_annotation", token) for token in sample["anns"]]
        rows = [row for row in rows if row["num_lidar_pts"] > 0]
        gaps = [np.hypot(*(np.array(row["translation"]) - ego["translation"])[:2]) for row in rows]
        counts.append(sum(gap < 50 for gap in gaps))
        near += [gap < 40 for gap in gaps]
    assert 12 < np.mean(counts) < 50
    assert np.mean(near) > 0.6


def test_attributes_fit_the_motion(devkit: NuScenes) -> None:
    moving = 0
    for row in devkit.sample_annotation:
        speed = np.linalg.norm(devkit.box_velocity(row["token"])[:2])
        names = [devkit.get("attribute", token)["name"] for token in row["attribute_tokens"]]
        category = row["category_name"]
        assert len(names) == (0 if category.startswith("movable_object") else 1)
        if not row["prev"] or not row["next"] or not names or np.isnan(speed):
            continue
        if names[0].endswith(".moving"):
            moving += 1
            assert speed < 16
        elif names[0] in ("vehicle.parked", "pedestrian.standing", "cycle.without_rider"):
            assert speed < 0.05, (category, names)
    assert moving > 50


def test_names_are_official_and_descriptions_name_light_and_weather(devkit: NuScenes) -> None:
    splits = create_splits_scenes()
    names = [scene["name"] for scene in devkit.scene]
    assert [name in splits["mini_train"] for name in names] == [True, False]
    assert [name in splits["mini_val"] for name in names] == [False, True]
    for scene in devkit.scene:
        assert any(word in scene["description"] for word in ("day", "Day", "Night")), scene["description"]


def test_the_ego_vehicle_drives_on_the_map(devkit: NuScenes) -> None:
    for scene in devkit.scene:
        maps = [m for m in devkit.map if scene["log_token"] in m["log_tokens"]]
        mask = maps[0]["mask"]
        token = scene["first_sample_token"]
        while token:
            sample = devkit.get("sample", token)
            row = devkit.get("sample_data", sample["data"]["LIDAR_TOP"])
            x, y, _ = devkit.get("ego_pose", row["ego_pose_token"])["translation"]
            assert mask.is_on_mask(np.array([x]), np.array([y])).all()
            token = sample["next"]


def test_the_devkit_renders_a_sample(devkit: NuScenes, tmp_path: Path) -> None:
    sample = devkit.sample[1]
    devkit.render_sample_data(sample["data"]["CAM_FRONT"], out_path=str(tmp_path / "front.png"), verbose=False)
    devkit.render_sample_data(
        sample["data"]["LIDAR_TOP"], out_path=str(tmp_path / "top.png"), underlay_map=False, verbose=False
    )
    assert (tmp_path / "front.png").stat().st_size > 10_000
    assert (tmp_path / "top.png").stat().st_size > 10_000
