"""Info files of both forms, made from the devkit's tables as mmdet3d makes them."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nuscenes.nuscenes import NuScenes
from pyquaternion import Quaternion
from typer.testing import CliRunner

from aqr.cli import app
from aqr.cmt import check_infos, read_infos
from aqr.data.index import open_index
from aqr.data.samples import lidar_boxes
from aqr.errors import InputError
from aqr.geometry import YAW, wrap_angle
from aqr.taxonomy import CAMERAS, CLASS_OF_CATEGORY

NEW_CLASSES = ("car", "truck", "trailer", "bus", "construction_vehicle", "bicycle", "motorcycle", "pedestrian")
NEW_CLASSES = (*NEW_CLASSES, "traffic_cone", "barrier")


def old_infos(nusc: NuScenes, second: bool = False) -> dict[str, Any]:
    """As mmdet3d 1.0 writes them, or with sizes and angles as before 1.0."""
    infos = []
    for sample in nusc.sample:
        lidar = nusc.get("sample_data", sample["data"]["LIDAR_TOP"])
        calibrated = nusc.get("calibrated_sensor", lidar["calibrated_sensor_token"])
        pose = nusc.get("ego_pose", lidar["ego_pose_token"])
        path, boxes, _ = nusc.get_sample_data(lidar["token"])
        l2e, e2g = Quaternion(calibrated["rotation"]).rotation_matrix, Quaternion(pose["rotation"]).rotation_matrix

        def top(token: str, l2e: Any = l2e, e2g: Any = e2g, calibrated: Any = calibrated, pose: Any = pose) -> Any:
            record = nusc.get("sample_data", token)
            sensor = nusc.get("calibrated_sensor", record["calibrated_sensor_token"])
            at = nusc.get("ego_pose", record["ego_pose_token"])
            s2e, a2g = Quaternion(sensor["rotation"]).rotation_matrix, Quaternion(at["rotation"]).rotation_matrix
            back = np.linalg.inv(e2g).T @ np.linalg.inv(l2e).T
            rotation = (s2e.T @ a2g.T) @ back
            shift = (np.array(sensor["translation"]) @ a2g.T + np.array(at["translation"])) @ back
            shift = (
                shift
                - np.array(pose["translation"]) @ back
                - np.array(calibrated["translation"]) @ np.linalg.inv(l2e).T
            )
            return {
                "data_path": record["filename"],
                "sample_data_token": token,
                "sensor2ego_translation": sensor["translation"],
                "sensor2ego_rotation": sensor["rotation"],
                "ego2global_translation": at["translation"],
                "ego2global_rotation": at["rotation"],
                "timestamp": record["timestamp"],
                "sensor2lidar_rotation": rotation.T,
                "sensor2lidar_translation": shift,
            }

        cams = {}
        for name in CAMERAS:
            token = sample["data"][name]
            cams[name] = {**top(token), "cam_intrinsic": nusc.get_sample_data(token)[2]}
        sweeps, at = [], lidar
        while at["prev"] and len(sweeps) < 10:
            sweeps.append(top(at["prev"]))
            at = nusc.get("sample_data", at["prev"])
        notes = [nusc.get("sample_annotation", token) for token in sample["anns"]]
        velocity = np.array([[*nusc.box_velocity(t)[:2], 0.0] for t in sample["anns"]]).reshape(-1, 3)
        velocity = velocity @ np.linalg.inv(e2g).T @ np.linalg.inv(l2e).T
        wlh = np.array([b.wlh for b in boxes]).reshape(-1, 3)
        yaw = np.array([b.orientation.yaw_pitch_roll[0] for b in boxes]).reshape(-1, 1)
        sizes, angle = (wlh, -yaw - np.pi / 2) if second else (wlh[:, [1, 0, 2]], yaw)
        infos.append(
            {
                "lidar_path": path,
                "token": sample["token"],
                "sweeps": sweeps,
                "cams": cams,
                "lidar2ego_translation": calibrated["translation"],
                "lidar2ego_rotation": calibrated["rotation"],
                "ego2global_translation": pose["translation"],
                "ego2global_rotation": pose["rotation"],
                "timestamp": sample["timestamp"],
                "gt_boxes": np.concatenate([np.array([b.center for b in boxes]).reshape(-1, 3), sizes, angle], axis=1),
                "gt_names": np.array([CLASS_OF_CATEGORY.get(b.name, b.name) for b in boxes]),
                "gt_velocity": velocity[:, :2],
                "num_lidar_pts": np.array([a["num_lidar_pts"] for a in notes]),
                "num_radar_pts": np.array([a["num_radar_pts"] for a in notes]),
                "valid_flag": np.array([a["num_lidar_pts"] + a["num_radar_pts"] > 0 for a in notes], dtype=bool),
            }
        )
    return {"infos": infos, "metadata": {"version": nusc.version}}


def matrix(rotation: Any, translation: Any) -> list[list[float]]:
    whole = np.eye(4)
    whole[:3, :3], whole[:3, 3] = Quaternion(rotation).rotation_matrix, translation
    return whole.astype(np.float32).tolist()


def new_infos(old: dict[str, Any]) -> dict[str, Any]:
    """The form of mmdet3d 1.1 and later."""
    samples = []
    for number, info in enumerate(old["infos"]):
        images = {}
        for name, camera in info["cams"].items():
            back = np.eye(4)
            back[:3, :3] = camera["sensor2lidar_rotation"].T
            back[:3, 3] = -camera["sensor2lidar_rotation"].T @ camera["sensor2lidar_translation"]
            images[name] = {
                "img_path": Path(camera["data_path"]).name,
                "cam2img": camera["cam_intrinsic"].tolist(),
                "lidar2cam": back.astype(np.float32).tolist(),
            }
        instances = [
            {
                "bbox_3d": info["gt_boxes"][i].tolist(),
                "bbox_label_3d": NEW_CLASSES.index(name) if name in NEW_CLASSES else -1,
                "velocity": info["gt_velocity"][i].tolist(),
                "num_lidar_pts": info["num_lidar_pts"][i],
                "bbox_3d_isvalid": info["valid_flag"][i],
            }
            for i, name in enumerate(info["gt_names"])
        ]
        samples.append(
            {
                "sample_idx": number,
                "token": info["token"],
                "timestamp": info["timestamp"] / 1e6,
                "ego2global": matrix(info["ego2global_rotation"], info["ego2global_translation"]),
                "images": images,
                "lidar_points": {
                    "lidar_path": Path(info["lidar_path"]).name,
                    "lidar2ego": matrix(info["lidar2ego_rotation"], info["lidar2ego_translation"]),
                },
                "lidar_sweeps": [{"lidar_points": {"lidar_path": sweep["data_path"]}} for sweep in info["sweeps"]],
                "instances": instances,
            }
        )
    categories = {name: number for number, name in enumerate(NEW_CLASSES)} | {"animal": -1}
    meta = {
        "categories": categories,
        "dataset": "nuscenes",
        "version": old["metadata"]["version"],
        "info_version": "1.1",
    }
    return {"metainfo": meta, "data_list": samples}


@pytest.fixture(scope="module", params=["real", "synthetic"])
def tables(request: pytest.FixtureRequest) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    root = request.getfixturevalue("real_frame" if request.param == "real" else "world")
    nusc = NuScenes("v1.0-mini", str(root), verbose=False)
    return root, old_infos(nusc), old_infos(nusc, second=True)


def write(path: Path, value: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


@pytest.mark.parametrize("form", ["infos", "data_list", "second"])
def test_both_forms_agree_with_the_tables(tables: Any, form: str, tmp_path: Path) -> None:
    root, old, second = tables
    content = {"infos": old, "data_list": new_infos(old), "second": second}[form]
    path = write(tmp_path / "infos.pkl", content)
    file = read_infos(path)
    assert file.form == ("data_list" if form == "data_list" else "infos")
    assert file.version == "v1.0-mini"
    assert file.convention == ("mmdet3d-0" if form == "second" else "mmdet3d-1")
    index = open_index(root, "v1.0-mini")
    rows = {index.token(row): row for row in range(len(index))}
    for sample in file.samples:
        row = rows[sample.token]
        truth = index.ground_truth(np.array([row]))
        expected = lidar_boxes(truth, index.scan_to_global(int(index.samples.scan[row])))
        named = np.array([name in NEW_CLASSES for name in sample.names], dtype=bool)
        got = sample.boxes[named]
        assert len(got) == len(expected)
        assert len(sample.sweeps) == len(index.sweeps(row))
        nearest = np.linalg.norm(got[:, None, :3] - expected[None, :, :3], axis=-1).argmin(1)
        assert sorted(nearest) == list(range(len(got)))
        expected = expected[nearest].astype(np.float64)
        np.testing.assert_allclose(got[:, :6], expected[:, :6], atol=2e-3)
        assert np.abs(wrap_angle(got[:, YAW] - expected[:, YAW])).max(initial=0) < 5e-3
        np.testing.assert_allclose(got[:, 7:], expected[:, 7:], atol=0.05)
        scan = index.scan_to_global(int(index.samples.scan[row])).matrix
        np.testing.assert_allclose(sample.lidar_to_global.matrix, scan, atol=1e-3)
        assert sample.valid.sum() >= (truth.num_pts > 0).sum()
    check = check_infos(path, root)
    assert (check.found, check.missing, check.differences) == (len(old["infos"]), (), ())
    assert check.boxes > 0
    assert check.pixels < 0.05
    assert check.metres < 2e-3


@pytest.mark.parametrize("protocol", range(6))
def test_every_pickle_protocol(real_frame: Path, protocol: int, tmp_path: Path) -> None:
    old = old_infos(NuScenes("v1.0-mini", str(real_frame), verbose=False))
    file = read_infos(write(tmp_path / "infos.pkl", old, protocol))
    assert np.array_equal(file.samples[0].boxes[:, :6], old["infos"][0]["gt_boxes"][:, :6])


def test_what_differs_is_told(real_frame: Path, tmp_path: Path) -> None:
    old = old_infos(NuScenes("v1.0-mini", str(real_frame), verbose=False))
    info = old["infos"][0]
    info["gt_boxes"][3, 0] += 0.2
    info["cams"]["CAM_BACK"]["cam_intrinsic"] = info["cams"]["CAM_BACK"]["cam_intrinsic"] + 2.0
    info["lidar_path"] = "samples/LIDAR_TOP/other.pcd.bin"
    old["infos"].append({**info, "token": "0" * 32})
    path = write(tmp_path / "infos.pkl", old)
    result = CliRunner().invoke(
        app, ["convert", "check-infos", str(path), "--data", str(real_frame)], catch_exceptions=False
    )
    for words in ("boxes differ by 0.200 m", "projections differ", "other.pcd.bin", f"not in the tables: {'0' * 32}"):
        assert words in result.output


@pytest.mark.parametrize(
    "content",
    [[], {"a": 1}, {"infos": []}, {"infos": [{}], "metadata": {"version": "v"}}, {"data_list": [1], "metainfo": 3}],
)
def test_pickles_that_are_no_info_files(content: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"x\.pkl.*give an info file"):
        read_infos(write(tmp_path / "x.pkl", content))
