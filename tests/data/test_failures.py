"""Failures as samples show them, in evaluation and in training."""

import hashlib
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aqr.config import Config, Failures, parse
from aqr.data.dataset import NuScenesDataset
from aqr.data.failures.catalogue import CAMERA, KIND_OF, KINDS, LIDAR, Failure, Kind, parse_failures
from aqr.data.failures.drawing import draw_harm
from aqr.data.failures.harm import Corruption
from aqr.data.loader import eval_loader, train_loader
from aqr.data.points import load_points
from aqr.data.samples import Sample, frame_of, lidar_boxes
from aqr.data.sampling import Draw
from aqr.errors import InputError

CAMERAS = ["CAM_FRONT", "CAM_BACK"]
EVERY = [Failure(kind.name, severity) for kind in KINDS for severity in kind.severities]


def config(root: Path, failures: dict[str, Any] | None = None, **other: Any) -> Config:
    return parse(
        {
            "seed": 3,
            "sensors": {"cameras": CAMERAS},
            "data": {
                "root": str(root),
                "version": "v1.0-mini",
                "train_split": "mini_train",
                "val_split": "mini_val",
                "sweeps": 2,
                "image": {"size": [64, 96]},
                "batch_size": 2,
                "workers": 0,
                "failures": failures or {},
            },
            "detector": {"pc_range": [-300, -300, -300, 300, 300, 300]},
            "train": {"steps": 6},
            **other,
        }
    )


def dataset(root: Path, corruption: Corruption | None = None, training: bool = False, **failures: Any) -> Any:
    settings = config(root, failures)
    return NuScenesDataset(
        settings.data,
        settings.sensors,
        "mini_train",
        training=training,
        pc_range=settings.detector.pc_range,
        seed=3,
        corruption=corruption,
    )


def same(a: Sample, b: Sample, *fields: str) -> bool:
    return all(np.array_equal(getattr(a, field), getattr(b, field), equal_nan=True) for field in fields)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_failure_changes_its_sensors_and_nothing_else(world: Path, kind: Kind) -> None:
    """`object_failure` finds no point in a box of this world and changes nothing; the next test is of it alone."""
    clean = dataset(world)
    for severity in kind.severities:
        failing = dataset(world, Corruption(Failure(kind.name, severity)))
        changed = Counter[str]()
        for i in range(len(clean)):
            a, b = clean[i], failing[i]
            changed.update(field for field in ("points", "images", "lidar2img") if not same(a, b, field))
            assert same(a, b, "boxes", "labels")
            assert a.frame.sample_token == b.frame.sample_token
            assert b.points.dtype == np.float32
            assert b.images.shape == a.images.shape
        sensor = {"points"} if LIDAR in kind.needs else {"images"}
        assert set(changed) == {"spatial_misalignment": {"lidar2img"}, "object_failure": set()}.get(kind.name, sensor)


PER_OBJECT = (1, 5, 120)


class Crowded(NuScenesDataset):
    """Keyframes whose sweep holds ground and `PER_OBJECT` points in the objects, named by their intensity."""

    def scan(self, row: int) -> Any:
        (sample,) = np.flatnonzero(self.index.samples.scan == row)
        to_global = frame_of(self.index, int(sample)).lidar_to_global
        boxes = lidar_boxes(self.index.ground_truth(np.array([sample])), to_global)
        random = np.random.default_rng(row)
        owner = np.repeat(np.arange(len(boxes)), np.resize(PER_OBJECT, len(boxes)))
        inside = random.uniform(-0.4, 0.4, (len(owner), 3)) * boxes[owner, 3:6]
        cos, sin = np.cos(boxes[owner, 6]), np.sin(boxes[owner, 6])
        x, y = cos * inside[:, 0] - sin * inside[:, 1], sin * inside[:, 0] + cos * inside[:, 1]
        points = np.c_[np.c_[x, y, inside[:, 2]] + boxes[owner, :3], owner, np.zeros(len(owner))]
        ground = np.c_[random.uniform(-500, 500, (40, 2)), np.full((40, 3), [-900, 200, 0])]
        return np.concatenate([points, ground]).astype(np.float32)


def test_any_object_of_a_sample_may_lose_its_points_however_many_it_has(world: Path) -> None:
    settings = config(world)
    data = settings.data.model_copy(update={"sweeps": 0})
    arguments: dict[str, Any] = {"training": False, "pc_range": settings.detector.pc_range}
    lost_before: set[tuple[int, int]] = set()
    for severity, chance in ((1, 0.25), (2, 0.5), (3, 0.75)):
        corruption = Corruption(Failure("object_failure", severity))
        failing = Crowded(data, settings.sensors, "mini_train", corruption=corruption, **arguments)
        clean = Crowded(data, settings.sensors, "mini_train", **arguments)
        lost, counts = set[tuple[int, int]](), Counter[int]()
        for i in range(len(clean)):
            before, after = (np.bincount(one[i].points[:, 3].astype(int), minlength=201) for one in (clean, failing))
            objects = len(clean[i].boxes)
            assert before[200] == after[200] == 40
            assert ((after == before) | (after == 0)).all()
            assert (before[:objects] == np.resize(PER_OBJECT, objects)).all()
            lost |= {(i, int(number)) for number in np.flatnonzero(after != before)}
            counts.update(before[:objects].tolist())
        assert lost_before < lost
        for points, objects in counts.items():
            gone = sum(PER_OBJECT[number % 3] == points for _, number in lost)
            assert abs(gone - chance * objects) < 4 * np.sqrt(chance * (1 - chance) * objects)
            assert objects > 30
        lost_before = lost
    unseen = {(i, int(n)) for i in range(len(clean)) for n in np.flatnonzero(clean.plan(Draw(i, 0, 0)).num_pts == 0)}
    assert unseen & lost, "also those that the tables call empty"


@pytest.mark.parametrize("failure", EVERY, ids=str)
def test_draws_are_fixed_and_differ_between_samples_and_seeds(world: Path, failure: Failure) -> None:
    one, two, other = (dataset(world, Corruption(failure, seed)) for seed in (0, 0, 1))
    order = [4, 0, 2]
    first = {i: one[i] for i in order}
    for i in sorted(order):
        assert same(first[i], two[i], "points", "images", "lidar2img")
    random = {"points_reducing", "missing_camera", "occlusion", "dark", "motion_blur", "spatial_misalignment"}
    if failure.name in random and str(failure) != "missing_camera-3":
        assert any(not same(first[i], other[i], "points", "images", "lidar2img") for i in order)
    draws = [one.corruption.of(token).random().random() for token in ("a", "b")]
    assert draws[0] != draws[1]


def test_severities_share_their_draws_and_failures_do_not() -> None:
    harms = [Corruption(Failure("occlusion", severity)).of("token") for severity in (1, 2, 3)]
    assert len({harm.entropy for harm in harms}) == 1
    assert Corruption(Failure("dark", 1)).of("token").entropy != harms[0].entropy
    assert harms[0].random(0).random() != harms[0].random(1).random()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_sensor_that_is_stuck_shows_an_earlier_keyframe_as_if_it_were_now(world: Path, count: int) -> None:
    clean = dataset(world)
    late_lidar = dataset(world, Corruption(Failure("lidar_stuck", count)))
    late_cameras = dataset(world, Corruption(Failure("camera_stuck", count)))
    tokens = [clean.index.token(row) for row in clean.rows]
    for i, token in enumerate(tokens):
        scene, place = token.removeprefix("sample").split("-")
        earlier = tokens.index(f"sample{scene}-{max(int(place) - count, 0)}")
        np.testing.assert_array_equal(late_lidar[i].points, load_points(clean.index, int(clean.rows[earlier]), 2))
        np.testing.assert_array_equal(late_cameras[i].images, clean[earlier].images)
        np.testing.assert_array_equal(late_cameras[i].lidar2img, clean[i].lidar2img)


def test_one_is_told_where_there_is_nothing_earlier_to_show(world: Path, caplog: pytest.LogCaptureFixture) -> None:
    scenes = {token.split("-")[0] for token in map(dataset(world).index.token, dataset(world).rows)}
    dataset(world, Corruption(Failure("camera_stuck", 2)))
    assert f"{2 * len(scenes)} of" in caplog.text
    caplog.clear()
    dataset(world, Corruption(Failure("dark", 2)))
    assert not caplog.text


def test_nothing_on_disk_changes(world: Path) -> None:
    def state() -> dict[Path, str]:
        files = [path for folder in ("samples", "sweeps") for path in (world / folder).rglob("*") if path.is_file()]
        return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    before = state()
    for failure in EVERY:
        dataset(world, Corruption(failure))[1]
    assert state() == before


def test_workers_and_batches_show_the_same_failures(world: Path) -> None:
    corruption = Corruption(Failure("points_reducing", 2))
    shown = {}
    for workers, size in ((0, 2), (2, 3)):
        settings = config(world)
        data = settings.data.model_copy(update={"workers": workers, "batch_size": size})
        loader = eval_loader(settings.model_copy(update={"data": data}), "mini_train", corruption=corruption)
        for batch in loader:
            for frame, points in zip(batch.frames, batch.points.split(batch.point_counts), strict=True):
                before = shown.setdefault(frame.sample_token, points)
                assert before.equal(points)


def test_names_and_severities() -> None:
    assert parse_failures("all") == EVERY
    assert [str(one) for one in parse_failures("dark")] == ["dark-1", "dark-2", "dark-3"]
    several = [str(one) for one in parse_failures("lidar_drop, dark:2,dark")]
    assert several == ["lidar_drop-3", "dark-2", "dark-1", "dark-3"]
    without_lidar = parse_failures("all", [CAMERA])
    assert {one.name for one in without_lidar} == {kind.name for kind in KINDS if kind.needs == (CAMERA,)}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("haze", ("'haze'", *KIND_OF, "all")),
        ("dark:4", ("dark", "'4'", "1, 2, 3")),
        ("dark:", ("dark", "''")),
        ("lidar_drop:1", ("lidar_drop", "'1'", "has 3")),
        ("dark,", ("''",)),
        ("", ("''",)),
        ("All", ("'All'",)),
    ],
)
def test_what_is_not_known_is_named(text: str, parts: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as caught:
        parse_failures(text)
    for part in parts:
        assert part in str(caught.value)


def test_a_failure_of_an_absent_sensor_is_refused() -> None:
    with pytest.raises(InputError, match="lidar"):
        parse_failures("spatial_misalignment", [CAMERA])


@pytest.mark.parametrize(
    ("failures", "parts"),
    [
        ({"lidar_dropout": 0.7, "camera_dropout": 0.4}, ("data.failures", "1.1")),
        ({"augmentation": [{"name": "haze", "probability": 0.1}]}, ("haze", "lidar_fog")),
        ({"augmentation": [{"name": "lidar_drop", "probability": 0.1, "severity": [1, 2]}]}, ("lidar_drop", "[3]")),
        ({"augmentation": [{"name": "dark", "probability": 0.1, "severity": [3, 2]}]}, ("dark", "3 to 2")),
        ({"augmentation": [{"name": "dark", "probability": 0.1, "level": 1}]}, ("augmentation.0.level", "severity")),
        ({"dropout": 0.1}, ("data.failures.dropout", "lidar_dropout")),
    ],
)
def test_wrong_settings_are_named(failures: dict[str, Any], parts: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as caught:
        parse({"data": {"failures": failures}})
    for part in parts:
        assert part in str(caught.value)


def test_probabilities_are_the_shares_of_samples() -> None:
    settings = Failures.model_validate(
        {
            "lidar_dropout": 0.1,
            "camera_dropout": 0.15,
            "augmentation": [
                {"name": "lidar_fog", "probability": 0.3},
                {"name": "dark", "probability": 0.25, "severity": [2, 3]},
            ],
        }
    )
    count = 6000
    drawn = Counter(
        "none" if (harm := draw_harm(settings, np.random.default_rng(i))) is None else str(harm.failure)
        for i in range(count)
    )
    expected = {"lidar_drop-3": 0.1, "missing_camera-3": 0.15, "none": 0.2}
    expected |= {f"lidar_fog-{severity}": 0.1 for severity in (1, 2, 3)}
    expected |= {f"dark-{severity}": 0.125 for severity in (2, 3)}
    assert set(drawn) == set(expected)
    for name, share in expected.items():
        assert drawn[name] / count == pytest.approx(share, abs=4 * np.sqrt(share / count))


DROPOUT = {"lidar_dropout": 0.4, "camera_dropout": 0.4}


def test_training_drops_one_sensor_at_a_time_and_leaves_other_augmentation_as_it_is(world: Path) -> None:
    plain, failing = dataset(world, training=True), dataset(world, training=True, **DROPOUT)
    seen = Counter[str]()
    for i in range(len(plain)):
        for epoch in range(6):
            a, b = plain[Draw(i, epoch, 0)], failing[Draw(i, epoch, 0)]
            assert (a.frame.sample_token, a.frame.augmentation) == (b.frame.sample_token, b.frame.augmentation)
            assert same(a, b, "boxes", "labels", "lidar2img")
            no_points, no_images = not len(b.points), not b.images.any()
            assert same(a, b, "points") != no_points
            assert same(a, b, "images") != no_images
            seen[f"{no_points}{no_images}"] += 1
            assert same(b, failing[Draw(i, epoch, 0)], "points", "images")
    assert set(seen) == {"TrueFalse", "FalseTrue", "FalseFalse"}


def test_evaluation_shows_no_training_failure(world: Path) -> None:
    plain, failing = dataset(world), dataset(world, lidar_dropout=1.0)
    assert all(same(plain[i], failing[i], "points", "images") for i in range(len(plain)))
    assert not len(dataset(world, training=True, lidar_dropout=1.0)[0].points)


def test_arms_of_an_experiment_see_the_same_failures(world: Path) -> None:
    failures = {
        **DROPOUT,
        "augmentation": [{"name": "occlusion", "probability": 0.1}, {"name": "points_reducing", "probability": 0.1}],
    }
    arms = [
        train_loader(config(world, failures, aqr=aqr))
        for aqr in ({"enabled": False}, {"preset": "A"}, {"parameterisation": "centered"})
    ]
    for batches in zip(*arms, strict=True):
        assert all(batch.points.equal(batches[0].points) for batch in batches)
        assert all(batch.images.equal(batches[0].images) for batch in batches)


def test_the_example_of_the_documentation_runs(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = Path(__file__).parents[2]
    page = (root / "docs" / "failures.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    cameras = f'"sensors.cameras={CAMERAS}"'.replace("'", "")
    for said, here in (
        ("/data/nuscenes", str(world)),
        ("configs/", f"{root}/configs/"),
        ('"data.version=v1.0-mini"', f'"data.version=v1.0-mini", {cameras}'),
    ):
        assert said in example
        example = example.replace(said, here)
    exec(example, {})
    rows, columns = map(int, re.findall(r"\d+", capsys.readouterr().out))
    clean = dataset(world)
    assert rows > 0
    assert columns == clean[0].points.shape[1]
