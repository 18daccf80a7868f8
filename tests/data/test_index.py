import json
import logging
import os
import pickle
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aqr.data import cache
from aqr.data.build import box_velocity
from aqr.data.index import Index, open_index
from aqr.errors import InputError
from aqr.taxonomy import ATTRIBUTES, CLASSES, LIDAR

Edit = Callable[[str, Callable[[list[dict[str, Any]]], object]], Path]


@pytest.fixture(scope="module")
def index(world: Path) -> Index:
    return open_index(world, "v1.0-mini")


def row_of(index: Index, token: str) -> int:
    return index.samples.token.tolist().index(token.encode())


def test_splits_hold_the_samples_of_their_scenes_in_table_order(index: Index, devkit: Any) -> None:
    scene = {record["token"]: record["name"] for record in devkit.scene}
    for split, names in (("mini_train", {"scene-0061", "scene-0553"}), ("mini_val", {"scene-0103"})):
        expected = [record["token"] for record in devkit.sample if scene[record["scene_token"]] in names]
        assert [index.token(row) for row in index.split(split)] == expected


def test_velocity_is_the_devkits(index: Index, devkit: Any) -> None:
    notes = index.annotations
    expected = np.array([devkit.box_velocity(token.decode()) for token in notes.token])
    np.testing.assert_array_equal(notes.velocity, expected)
    unknown = np.isnan(expected).any(axis=1).mean()
    assert 0.05 < unknown < 0.95


def test_velocity_limits() -> None:
    def speed(before: float, after: float) -> float:
        """Of the middle one of three annotations 3 m apart; a negative time stands for a missing neighbour."""
        places = np.array([[0.0, 0, 0], [3, 0, 0], [6, 0, 0]])
        seconds = np.array([100 - before, 100, 100 + after])
        prev, following = np.array([-1, 0 if before >= 0 else -1, 1]), np.array([1, 2 if after >= 0 else -1, -1])
        return float(box_velocity(places, seconds, prev, following)[1, 0])

    assert speed(1.5, 1.5) == 2.0
    assert speed(2.0, 1.0) == 2.0
    assert np.isnan(speed(2.0, 1.25))
    assert speed(1.5, -1) == 2.0
    assert np.isnan(speed(1.75, -1))
    assert speed(-1, 0.5) == 6.0
    assert np.isnan(speed(-1, 0.0))
    assert np.isnan(speed(-1, -1))


@pytest.mark.parametrize("split", ["mini_train", "mini_val"])
def test_ground_truth_is_the_devkits(index: Index, devkit: Any, split: str) -> None:
    from nuscenes.eval.common.loaders import load_gt
    from nuscenes.eval.common.utils import quaternion_yaw
    from nuscenes.eval.detection.data_classes import DetectionBox
    from pyquaternion import Quaternion

    official = load_gt(devkit, split, DetectionBox)
    truth = index.ground_truth(index.split(split))
    assert truth.sample_tokens == official.sample_tokens
    assert len(truth.label) == len(official.all) > 20
    for place, token in enumerate(truth.sample_tokens):
        own = np.flatnonzero(truth.sample == place)
        boxes = official[token]
        assert len(own) == len(boxes)
        for n, box in zip(own, boxes, strict=True):
            assert CLASSES[truth.label[n]] == box.detection_name
            assert (ATTRIBUTES[truth.attribute[n]] if truth.attribute[n] >= 0 else "") == box.attribute_name
            assert truth.num_pts[n] == box.num_pts
            assert tuple(truth.translation[n]) == tuple(box.translation)
            assert tuple(truth.size[n]) == (box.size[1], box.size[0], box.size[2])
            np.testing.assert_array_equal(truth.velocity[n], box.velocity)
            rotation = Quaternion(box.rotation)
            np.testing.assert_allclose(truth.rotation[n], rotation.elements, atol=1e-12)
            np.testing.assert_allclose(truth.yaw[n], quaternion_yaw(rotation), atol=1e-12)
        scan = devkit.get("sample_data", devkit.get("sample", token)["data"][LIDAR])
        ego = devkit.get("ego_pose", scan["ego_pose_token"])
        assert truth.ego_translation[place].tolist() == ego["translation"]
        racks = [
            note
            for note in (devkit.get("sample_annotation", t) for t in devkit.get("sample", token)["anns"])
            if note["category_name"] == "static_object.bicycle_rack"
        ]
        mine = truth.rack_sample == place
        assert truth.rack_translation[mine].tolist() == [rack["translation"] for rack in racks]
        assert truth.rack_size[mine][:, [1, 0, 2]].tolist() == [rack["size"] for rack in racks]
        np.testing.assert_allclose(
            truth.rack_rotation[mine].reshape(-1, 4),
            np.reshape([rack["rotation"] for rack in racks], (-1, 4)),
            atol=1e-12,
        )
    assert len(truth.rack_sample) > 0


def test_ground_truth_of_some_samples_in_any_order(index: Index) -> None:
    whole = index.ground_truth(np.arange(len(index)))
    some = index.ground_truth(np.array([7, 2]))
    expected = np.r_[np.flatnonzero(whole.sample == 7), np.flatnonzero(whole.sample == 2)]
    assert some.annotation.tolist() == whole.annotation[expected].tolist()
    assert some.sample_tokens == [index.token(7), index.token(2)]
    assert len(index.ground_truth(np.array([], dtype=int)).label) == 0


def test_annotation_details(index: Index, devkit: Any) -> None:
    notes = index.annotations
    for n, token in enumerate(notes.token):
        record = devkit.get("sample_annotation", token.decode())
        assert notes.num_lidar_pts[n] == record["num_lidar_pts"]
        assert notes.num_radar_pts[n] == record["num_radar_pts"]
        assert index.categories[notes.category[n]] == record["category_name"]
        assert notes.visibility[n] == int(record["visibility_token"] or 0)
        assert devkit.instance[notes.instance[n]]["token"] == record["instance_token"]


def test_recordings_and_poses(index: Index, devkit: Any) -> None:
    from nuscenes.utils.geometry_utils import transform_matrix
    from pyquaternion import Quaternion

    def to_global(record: dict[str, Any]) -> np.ndarray:
        matrix = np.eye(4)
        for table, field in (("calibrated_sensor", "calibrated_sensor_token"), ("ego_pose", "ego_pose_token")):
            pose = devkit.get(table, record[field])
            matrix = transform_matrix(pose["translation"], Quaternion(pose["rotation"])) @ matrix
        return matrix

    for row in range(len(index)):
        data = devkit.get("sample", index.token(row))["data"]
        scan = devkit.get("sample_data", data[LIDAR])
        assert index.scans.path[index.samples.scan[row]].decode() == scan["filename"]
        assert index.samples.timestamp[row] == devkit.get("sample", index.token(row))["timestamp"]
        np.testing.assert_allclose(index.scan_to_global(index.samples.scan[row]).matrix, to_global(scan), atol=1e-9)
        for camera, image in zip(
            ("CAM_FRONT", "CAM_BACK"), index.image_rows(np.array([row]), ("CAM_FRONT", "CAM_BACK"))[0], strict=True
        ):
            record = devkit.get("sample_data", data[camera])
            assert index.images.path[image].decode() == record["filename"]
            assert index.images.timestamp[image] == record["timestamp"]
            assert index.images.size[image].tolist() == [record["height"], record["width"]]
            np.testing.assert_allclose(index.image_to_global(image).matrix, to_global(record), atol=1e-9)


def test_sweeps_follow_prev_back_to_the_start_of_the_scene(index: Index, devkit: Any) -> None:
    for row in range(len(index)):
        expected = []
        record = devkit.get("sample_data", devkit.get("sample", index.token(row))["data"][LIDAR])
        while record["prev"]:
            record = devkit.get("sample_data", record["prev"])
            expected.append(record["filename"])
        for count in (0, 2, 10):
            found = [index.scans.path[scan].decode() for scan in index.sweeps(row, count)]
            assert found == expected[:count]
    assert {len(index.sweeps(row)) for row in range(len(index))} >= {0, 4, 10}


def test_a_camera_that_is_not_there_is_refused(own_world: Path, edit: Edit) -> None:
    index = open_index(own_world, "v1.0-mini")
    with pytest.raises(InputError, match=r"sensor.json: there is no camera 'CAM_UP' \(known: CAM_BACK, CAM_FRONT\)"):
        index.image_rows(np.array([0]), ("CAM_FRONT", "CAM_UP"))
    lost = index.token(3)

    def lose(records: list[dict[str, Any]]) -> None:
        records[:] = [r for r in records if r["sample_token"] != lost or not r["token"].startswith("CAM_BACK")]

    edit("sample_data", lose)
    index = open_index(own_world, "v1.0-mini")
    assert (index.image_rows(np.arange(6), ("CAM_FRONT",)) >= 0).all()
    with pytest.raises(InputError, match=f"sample_data.json: sample {lost} has no keyframe of CAM_BACK; remove"):
        index.image_rows(np.arange(6), ("CAM_FRONT", "CAM_BACK"))


def test_a_sample_without_lidar_is_refused(own_world: Path, edit: Edit) -> None:
    def lose(records: list[dict[str, Any]]) -> None:
        records[:] = [r for r in records if r["sample_token"] != "sample2-0" or not r["token"].startswith(LIDAR)]
        for record in records:
            record["prev"] = ""

    edit("sample_data", lose)
    with pytest.raises(InputError, match=r"sample_data.json: sample 'sample2-0' has no keyframe of LIDAR_TOP"):
        open_index(own_world, "v1.0-mini")


@pytest.mark.parametrize(
    ("table", "field"),
    [
        ("scene", "log_token"),
        ("sample", "scene_token"),
        ("calibrated_sensor", "sensor_token"),
        ("sample_data", "sample_token"),
        ("sample_data", "ego_pose_token"),
        ("sample_data", "calibrated_sensor_token"),
        ("sample_data", "prev"),
        ("instance", "category_token"),
        ("sample_annotation", "sample_token"),
        ("sample_annotation", "instance_token"),
        ("sample_annotation", "visibility_token"),
        ("sample_annotation", "attribute_tokens"),
        ("sample_annotation", "prev"),
        ("sample_annotation", "next"),
    ],
)
def test_a_dangling_token_is_refused_with_table_record_and_mend(
    own_world: Path, edit: Edit, table: str, field: str
) -> None:
    touched = {}

    def spoil(records: list[dict[str, Any]]) -> None:
        touched.update(records[0])
        records[0][field] = ["nowhere"] if field == "attribute_tokens" else "nowhere"

    edit(table, spoil)
    with pytest.raises(InputError) as caught:
        open_index(own_world, "v1.0-mini")
    sentence = str(caught.value)
    assert f"{table}.json: record {touched['token']!r}: {field} 'nowhere' is not in " in sentence
    assert "restore" in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize("field", ["sample_token", "calibrated_sensor_token", "scene_token"])
def test_an_empty_reference_dangles_where_none_is_not_allowed(own_world: Path, edit: Edit, field: str) -> None:
    table = "sample" if field == "scene_token" else "sample_data"
    edit(table, lambda records: records[0].update({field: ""}))
    with pytest.raises(InputError, match=f"{field} '' is not in"):
        open_index(own_world, "v1.0-mini")


@pytest.mark.parametrize(
    ("table", "change", "sentence"),
    [
        ("sample_annotation", {"size": [1.0, 0.0, 2.0]}, r"size \[1.0, 0.0, 2.0\] is not positive"),
        ("sample_annotation", {"rotation": [0, 0, 0, 0]}, "rotation is zero"),
        ("ego_pose", {"rotation": [0, 0, 0, 0]}, "rotation is zero"),
        ("attribute", {"name": "vehicle.flying"}, "unknown attribute 'vehicle.flying'"),
        ("sample", {"token": "sample0-1"}, "token 'sample0-1' stands twice"),
    ],
)
def test_impossible_records_are_refused(
    own_world: Path, edit: Edit, table: str, change: dict[str, Any], sentence: str
) -> None:
    edit(table, lambda records: records[0].update(change))
    with pytest.raises(InputError, match=f"{table}.json: .*{sentence}"):
        open_index(own_world, "v1.0-mini")


def test_a_camera_without_intrinsics_is_refused(own_world: Path, edit: Edit) -> None:
    edit("calibrated_sensor", lambda records: [record.update(camera_intrinsic=[]) for record in records])
    with pytest.raises(InputError, match=r"calibrated_sensor.json: record .* is a camera without camera_intrinsic"):
        open_index(own_world, "v1.0-mini")


def test_two_attributes_are_refused_for_the_ten_classes_only(own_world: Path, edit: Edit) -> None:
    category = {r["token"]: r["name"] for r in json.loads((own_world / "v1.0-mini/category.json").read_text())}
    kind = {
        r["token"]: category[r["category_token"]]
        for r in json.loads((own_world / "v1.0-mini/instance.json").read_text())
    }

    def two(names: set[str]) -> Callable[[list[dict[str, Any]]], None]:
        def change(records: list[dict[str, Any]]) -> None:
            for record in records:
                if kind[record["instance_token"]] in names:
                    record["attribute_tokens"] = ["attribute3", "attribute4"]

        return change

    edit("sample_annotation", two({"animal"}))
    notes = open_index(own_world, "v1.0-mini").annotations
    assert 3 in notes.attribute
    edit("sample_annotation", two({"vehicle.car"}))
    with pytest.raises(InputError, match="has more than one attribute"):
        open_index(own_world, "v1.0-mini")


def test_missing_folder_table_and_split(own_world: Path) -> None:
    with pytest.raises(InputError, match=r"v1.0-trainval: there is no such folder; set data.root and data.version"):
        open_index(own_world, "v1.0-trainval")
    (own_world / "v1.0-mini" / "map.json").unlink()
    with pytest.raises(InputError, match=r"map.json: the table is missing; unpack"):
        open_index(own_world, "v1.0-mini")


def test_a_split_without_samples_is_refused(own_world: Path, edit: Edit) -> None:
    edit("scene", lambda records: [record.update(name="scene-0061") for record in records])
    with pytest.raises(InputError, match=r"scene.json: no scene of split 'mini_val'"):
        open_index(own_world, "v1.0-mini").split("mini_val")


def test_a_version_without_annotations_opens(own_world: Path, edit: Edit) -> None:
    """v1.0-test is like that."""
    edit("sample_annotation", list.clear)
    edit("instance", list.clear)
    for _ in range(2):
        index = open_index(own_world, "v1.0-mini")
        assert len(index.ground_truth(index.split("mini_val")).label) == 0


def same(a: Index, b: Index) -> bool:
    parts = ("scenes", "calibrations", "scans", "images", "samples", "annotations")
    arrays = [(vars(getattr(a, part)), vars(getattr(b, part))) for part in parts]
    return (a.cameras, a.categories) == (b.cameras, b.categories) and all(
        x.dtype == other[name].dtype and np.array_equal(x, other[name], equal_nan=x.dtype.kind == "f")
        for own, other in arrays
        for name, x in own.items()
    )


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list that grows by one whenever tables are read."""
    from aqr.data import build

    read: list[str] = []
    real = build.build_index

    def counted(root: Path, version: str, cache: Path | None = None) -> Index:
        read.append(version)
        return real(root, version, cache)

    monkeypatch.setattr(build, "build_index", counted)
    return read


def test_the_cache_is_used_until_a_table_changes(own_world: Path, edit: Edit, builds: list[str]) -> None:
    first = open_index(own_world, "v1.0-mini")
    second = open_index(own_world, "v1.0-mini")
    assert len(builds) == 1
    assert same(first, second)
    edit("sample_annotation", lambda records: records[0].update(num_lidar_pts=77))
    third = open_index(own_world, "v1.0-mini")
    assert len(builds) == 2
    assert 77 in third.annotations.num_lidar_pts
    assert [path.name for path in (own_world / "v1.0-mini").glob(".*")] == [cache.NAME]


def test_the_cache_holds_a_data_set_without_a_camera(own_world: Path, edit: Edit, builds: list[str]) -> None:
    def drop_cameras(records: list[dict[str, Any]]) -> None:
        records[:] = [record for record in records if "CAM_" not in record["token"]]

    for table in ("sensor", "calibrated_sensor", "sample_data"):
        edit(table, drop_cameras)
    first = open_index(own_world, "v1.0-mini")
    assert first.cameras == ()
    assert same(open_index(own_world, "v1.0-mini"), first)
    assert len(builds) == 1


def damage_tail(content: bytes) -> bytes:
    return content[:-100]


def damage_middle(content: bytes) -> bytes:
    half = len(content) // 2
    return content[:half] + bytes(255 - byte for byte in content[half : half + 200]) + content[half + 200 :]


@pytest.mark.parametrize("damage", [damage_tail, damage_middle, lambda _: b"", lambda _: b"rubbish"])
def test_a_damaged_cache_is_made_again(
    own_world: Path, builds: list[str], damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    first = open_index(own_world, "v1.0-mini")
    path = own_world / "v1.0-mini" / cache.NAME
    path.write_bytes(damage(path.read_bytes()))
    with caplog.at_level(logging.INFO, "aqr"):
        assert same(open_index(own_world, "v1.0-mini"), first)
    assert len(builds) == 2
    assert "damaged" in caplog.text
    open_index(own_world, "v1.0-mini")
    assert len(builds) == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("samples.scan", 10**6),
        ("samples.image", -5),
        ("scans.prev", 10**6),
        ("scans.calibration", -1),
        ("samples.annotations", -1),
        ("annotations.category", 999),
    ],
)
def test_a_cache_with_impossible_rows_is_made_again(own_world: Path, builds: list[str], name: str, value: int) -> None:
    first = open_index(own_world, "v1.0-mini")
    path = own_world / "v1.0-mini" / cache.NAME
    with np.load(path) as file:
        arrays = dict(file)
    arrays[name].flat[1] = value
    np.savez(path, **arrays)
    assert same(open_index(own_world, "v1.0-mini"), first)
    assert len(builds) == 2


def test_a_cache_that_needs_pickle_is_not_opened(own_world: Path, builds: list[str]) -> None:
    open_index(own_world, "v1.0-mini")
    path = own_world / "v1.0-mini" / cache.NAME
    with np.load(path) as file:
        arrays = dict(file)
    arrays["scenes.name"] = np.array([print], dtype=object)
    np.savez(path, **arrays)
    open_index(own_world, "v1.0-mini")
    assert len(builds) == 2


def test_a_write_protected_version_is_cached_elsewhere(
    own_world: Path, tmp_path: Path, builds: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = own_world / "v1.0-mini"
    folder.chmod(0o555)
    try:
        open_index(own_world, "v1.0-mini")
        open_index(own_world, "v1.0-mini")
    finally:
        folder.chmod(0o755)
    assert len(builds) == 1
    assert not (folder / cache.NAME).exists()
    assert len(list((tmp_path / "home/.cache/aqr").iterdir())) == 1


@pytest.fixture
def open_to_all(own_world: Path) -> Iterator[Path]:
    """The world in a folder that other users reach, in which they may write."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        root = Path(name) / "world"
        shutil.copytree(own_world, root)
        for folder in (root, root / "v1.0-mini"):
            folder.chmod(0o777)
        yield root


@contextmanager
def as_another_user() -> Iterator[None]:
    """Root becomes somebody else for a while; others cannot, and lose the file's permission bits instead."""
    if os.getuid():
        yield
        return
    "".encode("cp437")  # what zipfile needs, where the library itself lies in root's own folder
    os.setresuid(12345, 12345, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


def test_users_of_one_data_folder_share_its_cache(open_to_all: Path, builds: list[str]) -> None:
    mask = os.umask(0o022)
    try:
        open_index(open_to_all, "v1.0-mini")
    finally:
        os.umask(mask)
    kept = open_to_all / "v1.0-mini" / cache.NAME
    assert stat.S_IMODE(kept.stat().st_mode) == 0o644
    with as_another_user():
        open_index(open_to_all, "v1.0-mini")
    assert len(builds) == 1


def test_a_cache_that_may_not_be_read_is_left_alone(
    open_to_all: Path, builds: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = open_index(open_to_all, "v1.0-mini")
    kept = open_to_all / "v1.0-mini" / cache.NAME
    kept.chmod(0)
    before = kept.stat()
    monkeypatch.setenv("XDG_CACHE_HOME", str(open_to_all / "mine"))
    with caplog.at_level(logging.WARNING, "aqr"), as_another_user():
        assert same(open_index(open_to_all, "v1.0-mini"), first)
        assert same(open_index(open_to_all, "v1.0-mini"), first)
        assert cache.load(kept, "", open_to_all, "v1.0-mini", None) is None
    assert len(builds) == 2
    assert [record.getMessage() for record in caplog.records] == [
        f"{kept}: may not be read; reading the tables instead"
    ]
    assert (kept.stat().st_ino, kept.stat().st_mode) == (before.st_ino, before.st_mode)
    assert len(list((open_to_all / "mine" / "aqr").iterdir())) == 1


def test_a_cache_folder_of_ones_own(own_world: Path, tmp_path: Path, builds: list[str]) -> None:
    kept = tmp_path / "kept"
    index = open_index(own_world, "v1.0-mini", kept)
    assert len(list(kept.iterdir())) == 1
    assert not (own_world / "v1.0-mini" / cache.NAME).exists()
    assert same(pickle.loads(pickle.dumps(index)), index)
    assert len(builds) == 1


def test_an_index_travels_to_workers_as_its_place_only(index: Index) -> None:
    assert len(pickle.dumps(index)) < 1000
    assert same(pickle.loads(pickle.dumps(index)), index)


def test_an_unwritable_cache_is_not_fatal(own_world: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    index = open_index(own_world, "v1.0-mini", tmp_path / "file" / "cache")
    assert len(index) == 6
    assert "could not be kept" in caplog.text
    assert "`cache` of open_index" in caplog.text


def test_an_unwritable_cache_of_the_user_names_the_variable_that_places_it(
    own_world: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    (own_world / "v1.0-mini").chmod(0o555)
    try:
        open_index(own_world, "v1.0-mini")
    finally:
        (own_world / "v1.0-mini").chmod(0o755)
    assert "XDG_CACHE_HOME" in caplog.text


def test_opening_imports_no_torch(world: Path) -> None:
    code = (
        "import sys; from aqr.data.index import open_index; import numpy as np;"
        f"i = open_index({str(world)!r}, 'v1.0-mini'); i.ground_truth(i.split('mini_val'));"
        "assert not {'torch', 'lightning', 'PIL'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)


def test_real_frame(real_frame: Path, tmp_path: Path) -> None:
    index = open_index(real_frame, "v1.0-mini", tmp_path)
    truth = index.ground_truth(index.split("mini_train"))
    assert len(truth.label) == 68
    assert len(index.cameras) == 6
    assert index.annotations.num_lidar_pts.sum() == 999
    assert index.sweeps(0) == []
    assert np.isnan(truth.velocity).all()
