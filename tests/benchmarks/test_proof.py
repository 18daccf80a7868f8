"""The experiment of docs/proof.md: its data are the library's, its arms differ as they say, its figures add up."""

import dataclasses
import json
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.proof import finetune
from benchmarks.proof.arms import ARMS, BASELINE, RUN, build, schedule
from benchmarks.proof.base import SHIPPED, base_folder, train_base, weights_of
from benchmarks.proof.batches import POINT_STEP, arm_order, base_order, load, pack, step_path, stream, unpack
from benchmarks.proof.collect import collect
from benchmarks.proof.compare import Comparison
from benchmarks.proof.conditions import Split
from benchmarks.proof.data import _Maker, complete, rows_of
from benchmarks.proof.figures import CLEAN, FAILURES, Spread, difference, figures, figures_of, spread
from benchmarks.proof.finetune import batches, order, run_arm
from benchmarks.proof.lease import run_everything
from benchmarks.proof.plan import (
    BASE,
    BASES,
    COURSES,
    FIRST_RUN,
    FROM_BASE,
    FROZEN,
    FULL,
    INTACT,
    INTACT_BASE,
    LATE,
    NEVER,
    PILOT,
    SCRATCH,
    TAUGHT,
    TAUGHT_BASE,
    TEST,
    TOY,
    TRAIN,
    Course,
    Place,
    conditions,
    config,
    name_of,
)
from benchmarks.proof.report import write_report
from benchmarks.proof.sections.again import repeated
from benchmarks.proof.sections.arms import collapsed
from benchmarks.proof.sections.weights import leaning_table, moves_rightly
from benchmarks.proof.sections.wording import interval
from benchmarks.proof.supervision import alive, evidence
from scipy import stats

from aqr.batch import Batch
from aqr.config import load as load_config
from aqr.data.dataset import NuScenesDataset
from aqr.data.failures.catalogue import KINDS, Failure
from aqr.data.failures.harm import Corruption
from aqr.data.samples import collate
from aqr.training.checkpoint import load_weights
from aqr.training.run_folder import RunFolder

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def place(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Caches of two training steps, failing and not, and of the two test samples under every condition."""
    work = tmp_path_factory.mktemp("proof")
    (work / "world").symlink_to(world)
    scale = dataclasses.replace(
        TOY,
        version="v1.0-mini",
        splits=("mini_train", "mini_val"),
        pilot_scenes=0,
        cached_steps=2,
        base_steps=2,
        arm_steps=2,
    )
    here = Place(work, work / "out", scale)
    maker = _Maker(here)
    for job in maker.jobs({TRAIN: range(2), INTACT: range(2)}):
        maker.make(job)
    return here


@pytest.fixture(scope="module")
def batch(place: Place) -> Batch:
    return unpack(load(step_path(place.cache(TRAIN), 0)), CPU)


def assert_same(got: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal, unknown velocities included."""
    torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)


def test_packing_keeps_all_but_far_points(place: Place) -> None:
    settings = config(place)
    dataset = NuScenesDataset(
        settings.data, settings.sensors, "mini_val", training=False, pc_range=settings.detector.pc_range
    )
    before = collate([dataset[0], dataset[3]])
    after = unpack(pack(before, reach=40.0), CPU)
    near = (before.points[:, :3].abs() < 40.0).all(1)
    assert 0 < near.sum() < len(near)
    torch.testing.assert_close(after.points, before.points[near], rtol=0, atol=0.5 * max(POINT_STEP) + 1e-5)
    assert (after.points[:, :3] - before.points[near, :3]).abs().max() < 0.0011
    first = int(near[: before.point_counts[0]].sum())
    assert after.point_counts == [first, int(near.sum()) - first]
    for name in ("images", "lidar2img", "boxes", "labels"):
        assert_same(getattr(after, name), getattr(before, name))


@pytest.mark.parametrize("name", ["lidar_fog-2", "lidar_drop-3", "dark-3", "camera_stuck-1", "spatial_misalignment-2"])
def test_cached_conditions_are_what_the_data_set_gives(place: Place, name: str) -> None:
    kind, _, severity = name.rpartition("-")
    failure = Failure(kind, int(severity))
    settings = config(place)
    split = Split(place, settings, TEST)
    (samples, got), *others = split.batches(failure, CPU)
    assert not others
    assert list(samples) == [0, 1]
    dataset = NuScenesDataset(
        settings.data,
        settings.sensors,
        "mini_val",
        training=False,
        pc_range=settings.detector.pc_range,
        corruption=Corruption(failure),
    )
    expected = unpack(pack(collate([dataset[0], dataset[5]]), reach=60.0), CPU)
    assert [frame.sample_token for frame in got.frames] == [dataset[n].frame.sample_token for n in (0, 5)]
    for field in ("points", "images", "lidar2img", "boxes", "labels"):
        assert_same(getattr(got, field), getattr(expected, field))
    assert got.point_counts == expected.point_counts


def test_no_scene_is_in_pilot_and_test(place: Place) -> None:
    scenes = np.repeat([4, 9, 2, 7, 5], 8)
    index: Any = SimpleNamespace(split=lambda _: np.arange(40), samples=SimpleNamespace(scene=scenes))
    large = dataclasses.replace(place, scale=dataclasses.replace(place.scale, pilot_scenes=2))
    found = {name: {int(scenes[row]) for row in rows_of(index, name, large)} for name in (PILOT, TEST)}
    assert found == {PILOT: {2, 4}, TEST: {5, 7, 9}}


def test_orders_depend_on_the_seed_alone() -> None:
    assert sorted(base_order(10, 5)[:5]) == sorted(base_order(10, 5)[5:]) == list(range(5))
    assert base_order(7, 5) == base_order(10, 5)[:7]
    assert arm_order(30, 100, 1) == arm_order(30, 100, 1) != arm_order(30, 100, 2)
    assert len(set(arm_order(30, 100, 1))) == 30


def test_batches_come_in_order_and_errors_come_through(place: Place) -> None:
    order = [1, 0, 1]
    labels = [batch.labels for batch in stream(place.cache(TRAIN), order, CPU)]
    for number, got in zip(order, labels, strict=True):
        assert torch.equal(got, load(step_path(place.cache(TRAIN), number))["labels"])
    with pytest.raises(TimeoutError, match="does not come"):
        list(stream(place.cache(TRAIN), [0, 7], CPU, patience=0.1))


def test_intact_batches_are_the_same_samples_without_failures(place: Place, batch: Batch) -> None:
    settings = config(place, batches=INTACT)
    assert not settings.data.failures.augmentation
    assert settings.data.failures.lidar_dropout == settings.data.failures.camera_dropout == 0
    intact = [unpack(load(step_path(place.cache(INTACT), step)), CPU) for step in range(2)]
    assert all(count > 1000 for one in intact for count in one.point_counts)
    assert torch.equal(intact[0].labels, batch.labels)
    assert_same(intact[0].boxes, batch.boxes)


@pytest.mark.parametrize("course", COURSES.values())
def test_a_course_needs_the_batches_of_its_runs_and_no_others(place: Place, course: Course) -> None:
    large = dataclasses.replace(place, scale=dataclasses.replace(FULL, scratch_steps=40))
    needed = batches(large, course)
    assert list(needed) == [course.batches]
    runs = [order(large, course, seed) for _, seed in schedule(course)]
    assert needed[course.batches] == {number for run in runs for number in run}
    assert {len(run) for run in runs} == {80 if course == SCRATCH else 300}
    assert course.base is None or BASES[course.base].batches == (TRAIN if course == FROM_BASE else INTACT)


def test_every_arm_is_run_once_before_any_is_run_again() -> None:
    runs = schedule()
    assert len(runs) == len(set(runs)) == sum(ARMS[name].seeds for name in RUN[FROM_BASE])
    assert [name for name, _ in runs[: len(RUN[FROM_BASE])]] == list(RUN[FROM_BASE])


def test_data_come_in_the_order_in_which_they_are_wanted(place: Place) -> None:
    jobs = [job.split for job in _Maker(place).jobs({TRAIN: [1], INTACT: [0]})]
    assert (jobs[0], jobs[-1]) == (TRAIN, INTACT)
    assert set(jobs[1:-1]) <= {PILOT, TEST}


def train_step(name: str, place: Place, batch: Batch) -> tuple[Any, Any]:
    torch.manual_seed(0)
    detector = build(name, config(place, **ARMS[name].sections())).train()
    return detector, detector(batch, generator=torch.Generator().manual_seed(1))


def test_the_original_cuts_the_weights_from_the_graph_and_its_mended_twin_does_not(place: Place, batch: Batch) -> None:
    for name, learns in (("original", False), ("mend-cut", True)):
        detector, output = train_step(name, place, batch)
        sum(detector.losses(output, batch).values()).backward()
        found = [p.grad is not None and bool(p.grad.any()) for p in detector.aqr.router.logits.parameters()]
        assert found == [learns, learns]


def test_the_original_renders_the_truth_and_its_mended_twin_does_not(place: Place, batch: Batch) -> None:
    moved = dataclasses.replace(batch, boxes=batch.boxes + torch.tensor([9.0, 4.0, 0, 0, 0, 0, 0, 0, 0]))
    for name, leaks in (("original", True), ("mend-leak", False)):
        maps = [train_step(name, place, given)[1].aqr.bev_map for given in (batch, moved)]
        assert torch.equal(*maps) != leaks
    output = train_step("original", place, batch)[1]
    assert output.aqr.lidar_weights.shape == output.reference_points.shape[:2]
    plain = train_step("mend-leak", place, batch)[1]
    assert torch.equal(output.noised.reference_points, plain.noised.reference_points)


def test_the_original_piles_invisible_queries_up_and_its_mended_twin_does_not(place: Place, batch: Batch) -> None:
    corners = {}
    for name in ("original", "mend-pile"):
        detector, _ = train_step(name, place, batch)
        output = detector.eval()(batch)
        invisible = ~output.aqr.visible.any(1)
        assert invisible.any()
        corners[name] = output.aqr.image_maps[:, 0, 0, 0]
    assert (corners["original"] > corners["mend-pile"] + 0.1).all()


def test_a_dead_sensor_is_told_to_weigh_less(place: Place, batch: Batch) -> None:
    detector, _ = train_step("alive", place, batch)
    batch = dataclasses.replace(batch, images=batch.images.clamp(min=100))
    no_points = dataclasses.replace(batch, points=batch.points[:0], point_counts=[0] * len(batch))
    black = dataclasses.replace(batch, images=torch.zeros_like(batch.images))
    for given, sign in ((no_points, 1.0), (black, -1.0)):
        output = detector(given, generator=torch.Generator().manual_seed(1))
        output.aqr.log_weights.retain_grad()
        alive(detector, output, given)["loss_router"].backward()
        slope = output.aqr.log_weights.grad
        concerned = output.aqr.visible.any(1)
        assert (sign * slope[:, concerned][..., 0] > 0).all()
        assert (sign * slope[:, concerned][..., 1] < 0).all()
        assert (slope[:, ~concerned] == 0).all()
    both = dataclasses.replace(no_points, images=black.images)
    assert alive(detector, detector(both), both)["loss_router"].item() == 0


def test_the_sensor_that_was_right_is_told_to_weigh_more(place: Place, batch: Batch) -> None:
    detector, output = train_step("experts", place, batch)
    right = output.solo.codes.clone(), output.solo.logits.clone()
    for sensor in (0, 1):
        codes, logits = (part.clone() for part in right)
        first = 0
        for sample, count in enumerate(batch.box_counts):
            boxes = batch.boxes[first : first + count]
            queries = torch.arange(min(count, codes.shape[2]))
            logits[sensor, sample] = -6.0
            codes[sensor, sample, queries, :2] = boxes[queries, :2]
            logits[sensor, sample, queries, batch.labels[first : first + len(queries)]] = 6.0
            first += count
        solo = dataclasses.replace(output.solo, codes=codes, logits=logits)
        weights = torch.zeros_like(output.aqr.log_weights, requires_grad=True)
        told = dataclasses.replace(output, solo=solo, aqr=dataclasses.replace(output.aqr, log_weights=weights))
        evidence(detector, told, batch)["loss_router"].backward()
        slope = weights.grad.sum((0, 1, 2))
        assert slope[1 - sensor] > 0 > -slope[1 - sensor]
        assert abs(slope[sensor]) < 0.2 * abs(slope[1 - sensor])


def test_scene_errors_belong_to_the_failures_that_have_them(tmp_path: Path) -> None:
    names = [name_of(condition) for condition in conditions()]
    random = np.random.default_rng(0)
    for arm in (BASELINE, "attention"):
        run = made_up_run(arm, 0, 0.5, 0.3, 0.3) | {"weights": None}
        run[TEST]["AP"] = {"clean": {}}
        resampled = np.full((len(names), 50), 0.3)
        if arm == "attention":
            resampled[names.index("lidar_drop-3")] += random.normal(0, 0.01, 50)
        (tmp_path / "arms").mkdir(exist_ok=True)
        (tmp_path / "arms" / f"{arm}-0.json").write_text(json.dumps(run))
        np.savez(tmp_path / "arms" / f"{arm}-0.npz", mean_ap=resampled, nds=resampled)
    collect(tmp_path, tmp_path / "results")
    found = json.loads((tmp_path / "results" / "arms.json").read_text())["scene_error"]["attention"][BASELINE]["mAP"]
    assert found["lidar_drop"] == pytest.approx(0.01, rel=0.3)
    assert found[FAILURES] == pytest.approx(found["lidar_drop"] / len(KINDS), rel=1e-6)
    assert found["dark"] == found["limited_fov"] == found[CLEAN] == 0


def test_figures_weigh_failures_alike() -> None:
    names = [name_of(condition) for condition in conditions()]
    values = np.array([0.9 if name == "clean" else 0.5 for name in names])
    values[names.index("lidar_drop-3")] = 0.2
    values[[names.index(f"dark-{severity}") for severity in (1, 2, 3)]] = (0.3, 0.2, 0.1)
    found = figures(names, values)
    assert found["clean"] == 0.9
    assert found["lidar_drop"] == pytest.approx(0.2)
    assert found["dark"] == pytest.approx(0.2)
    assert found["failures"] == pytest.approx((0.5 * (len(KINDS) - 2) + 0.2 + 0.2) / len(KINDS))
    assert found["LiDAR failures"] == pytest.approx((0.5 * 6 + 0.2) / 7)
    assert found["camera failures"] == pytest.approx((0.5 * 6 + 0.2) / 7)


def test_intervals_are_students_where_only_seeds_matter_and_normal_where_only_scenes_do() -> None:
    values = [0.01, 0.03, 0.02, 0.06]
    alone = difference(values, 0.0, spread([values]))
    expected = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (alone.low, alone.high) == pytest.approx(expected)
    scenes = difference(values, 0.02, Spread(0.0, 3))
    assert scenes.high - scenes.value == pytest.approx(1.959964 * 0.02, rel=1e-5)
    assert spread([[1.0, 3.0], [10.0, 10.0, 13.0]]).deviation == pytest.approx(np.sqrt((2 + 6) / 3))


def test_intervals_hold_what_they_promise() -> None:
    random = np.random.default_rng(0)
    for count, scenes in ((1, 0.006), (4, 0.006), (12, 0.0), (12, 0.006)):
        held = 0
        for _ in range(2000):
            arms = random.normal(0, 0.01, (count, 3)) - random.normal(0, 0.01, 3) + 0.05
            shift = random.normal(0, scenes)
            found = difference((arms[0] + shift).tolist(), scenes, spread(arms.tolist()))
            held += found.low <= 0.05 <= found.high
        # Where one arm alone tells the spread, the quantile of Welch and Satterthwaite is a little short.
        assert (0.92 if count == 1 else 0.94) < held / 2000 < 0.975


def made_up_run(arm: str, seed: int, clean: float, failing: float, pilot: float) -> dict[str, Any]:
    names = [name_of(condition) for condition in conditions()]
    scores = {name: clean if name == "clean" else failing for name in names}
    judged = {name: clean if name == "clean" else pilot for name in names}
    return {
        "arm": arm,
        "says": "",
        "seed": seed,
        "effort": {"steps": 1, "seconds": 1.0, "memory_mb": 0.0},
        "device": "none",
        "parameters": 1,
        "trained": 1,
        TEST: {"mAP": scores, "NDS": scores},
        PILOT: {"mAP": judged, "NDS": judged},
    }


def test_the_choice_is_made_on_the_pilot_among_candidates_that_stay_clean() -> None:
    runs = [
        made_up_run(BASELINE, 0, 0.5, 0.30, 0.30),
        made_up_run("attention", 0, 0.5, 0.30, 0.33),
        made_up_run("centered", 0, 0.5, 0.39, 0.32),
        made_up_run("experts", 0, 0.4, 0.40, 0.40),
        made_up_run("mend-cut", 0, 0.5, 0.40, 0.40),
        made_up_run("none-solo", 0, 0.5, 0.40, 0.40),
    ]
    comparison = Comparison(runs, {}, {}, {})
    assert comparison.chosen() == "attention"
    assert comparison.differences("centered", BASELINE, FAILURES) == [pytest.approx(0.09)]
    assert comparison.difference("centered", CLEAN) is None
    assert Comparison(runs[:1], {}, {}, {}).chosen() is None


def said(lidar: dict[str, float]) -> dict[str, Any]:
    """What a router says whose camera weight is 1 and whose LiDAR weights near objects are these, by condition."""
    return {
        name: {
            "all": {"all": [9.0, 1.0]},
            "class": {"car": [2 * w, 1.0], "bus": [w / 2, 1.0], "background": [9.0, 1.0]},
        }
        for name, w in lidar.items()
    }


def test_routers_are_judged_by_where_their_weights_move_near_objects() -> None:
    names = ("clean", "lidar_drop-3", "missing_camera-3")
    right, still, half, wrong = (
        said(dict(zip(names, weights, strict=True)))
        for weights in ((1.0, 0.5, 2.0), (1.0, 1.0, 1.0), (1.0, 0.5, 1.01), (1.0, 2.0, 0.5))
    )
    assert [moves_rightly(one) for one in (right, still, half, wrong)] == [True, False, False, False]
    runs = [made_up_run(arm, 0, 0.5, 0.3, 0.3) for arm in (BASELINE, "centered", "attention", "sigmoid-gated")]
    weights = {"centered": right, "attention": wrong, "sigmoid-gated": right}
    lines = leaning_table(Comparison(runs, {}, {}, weights)).splitlines()
    assert [line.split("|")[1:3] for line in lines[-2:]] == [[" attention ", " 1 "], [" centered ", " 1 "]]
    assert lines[-1].endswith("| 0.5 | 2 | yes |")
    assert "the other way with LiDAR gone; no, the other way with cameras gone" in lines[-2]
    assert leaning_table(Comparison(runs, {}, {}, {"sigmoid-gated": right})) == ""


def test_forms_are_compared_with_the_same_training_without_aqr() -> None:
    scores = {BASELINE: 0.5, "none-solo": 0.4, "experts": 0.42, "centered": 0.51, "original": 0.3}
    runs = [made_up_run(arm, seed, score, score, 0.3) for arm, score in scores.items() for seed in (0, 1)]
    nothing = dict.fromkeys(figures_of(runs[0][TEST]["mAP"]), 0.0)
    errors = {arm: {other: {"mAP": nothing} for other in (BASELINE, "none-solo")} for arm in scores}
    found = Comparison(runs, errors, {}, {}).forms(CLEAN)
    assert {arm: round(one.value, 6) for arm, one in found.items()} == {"experts": 0.02, "centered": 0.01}


def test_one_seed_has_an_interval_for_other_scenes_alone() -> None:
    found = difference([0.02], 0.005, spread([[0.02]]))
    assert np.isnan(found.low)
    assert found.scenes == pytest.approx(1.959964 * 0.005)
    assert interval(found) == "+2.00 ± 0.98 (one seed)"


def test_twins_differ_as_they_do_and_changed_arms_are_none() -> None:
    runs = [
        made_up_run(arm, 0, score, 0.3, 0.3) for arm, score in ((BASELINE, 0.5), ("centered", 0.5), ("sigmoid", 0.9))
    ]
    before = [
        made_up_run(arm, 0, 0.503 if arm == BASELINE else 0.496, 0.3, 0.3) for arm in (BASELINE, "centered", "sigmoid")
    ]
    first = Comparison(before, {}, {}, {}, changed=("sigmoid",))
    text = " ".join(repeated(Comparison(runs, {}, {}, {}), first).split())
    assert "2 of these runs, with 2 arms" in text
    assert "differs by 0.35 points clean (root mean square; at most 0.40) and 0.00 over failures" in text
    assert repeated(Comparison(runs[2:], {}, {}, {}), first) == ""


def test_emptied_maps_are_counted_run_by_run() -> None:
    runs = [
        made_up_run("sigmoid", seed, 0.5, 0.3, 0.3) | {"map": {"BEV": low, "images": 0.4}}
        for seed, low in enumerate((0.2, 0.001))
    ]
    assert collapsed(Comparison(runs, {}, {}, {})).startswith("In 1 of 2 runs of `sigmoid` the map of one sensor")
    assert collapsed(Comparison(runs[:1], {}, {}, {})) == ""


def test_a_base_in_training_is_waited_for(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    full = dataclasses.replace(place, scale=dataclasses.replace(place.scale, small=False), out=place.work / "waited")
    assert {name: weights_of(full, name) for name in BASES} == {**SHIPPED, TAUGHT_BASE: None}
    done: list[tuple[str, Path | None]] = []
    monkeypatch.setattr(finetune, "work", lambda place, course, base, only, left: done.append((course.name, base)))
    ours = RunFolder(base_folder(full, INTACT_BASE)).final_weights

    def sleep(seconds: float) -> None:
        ours.parent.mkdir(parents=True)
        ours.touch()

    monkeypatch.setattr(time, "sleep", sleep)
    finetune.work_through(full, [LATE, FROM_BASE, SCRATCH], 60.0, awaited=[INTACT_BASE])
    assert done == [("arms", SHIPPED[BASE]), ("scratch", None), ("late", ours)]


def test_a_lease_trains_a_base_and_then_runs_its_courses(place: Place, tmp_path: Path) -> None:
    """The stages themselves are replaced by a script that says how it was called."""
    script = tmp_path / "benchmarks" / "proof" / "__main__.py"
    script.parent.mkdir(parents=True)
    script.write_text(
        "import sys, pathlib\n"
        "a = sys.argv\n"
        f"said = pathlib.Path({str(tmp_path / 'said')!r})\n"
        "said.open('a').write(' '.join(a[1:a.index('--work')]) + '\\n')\n"
    )
    here = dataclasses.replace(place, out=tmp_path / "out")
    for split in (PILOT, TEST):
        complete(here, split).parent.mkdir(parents=True, exist_ok=True)
        complete(here, split).touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        patch.setenv("PYTHONPATH", str(tmp_path))
        run_everything(here, True, [INTACT_BASE, "late", "frozen"], 2, time.monotonic() + 60)
    said = [line.split(" --seconds")[0] for line in (tmp_path / "said").read_text().splitlines()]
    assert sorted(said[:2]) == ["base-intact", "data --of base-intact late frozen"]
    assert said[2:] == ["runs --of late frozen"] * 2


def test_from_base_to_page(place: Place) -> None:
    train_base(place, seconds=None)
    base = RunFolder(base_folder(place)).final_weights
    again = build("sigmoid-gated", config(place, **ARMS["sigmoid-gated"].sections()))
    assert all(name.startswith("aqr.") for name in load_weights(again, base).missing)
    splits = {name: Split(place, config(place), TEST) for name in (PILOT, TEST)}
    runs = {arm: run_arm(place, arm, 0, base, splits) for arm in (BASELINE, "sigmoid-gated", "original", "experts")}
    first = {
        arm: json.loads((place.out / "runs" / f"{arm}-0" / "metrics.jsonl").read_text().splitlines()[0]) for arm in runs
    }
    assert first["sigmoid-gated"]["loss"] == pytest.approx(first[BASELINE]["loss"], rel=1e-5)
    assert first["experts"]["loss_cls"] == pytest.approx(first[BASELINE]["loss_cls"], rel=1e-4)
    assert first["original"]["loss"] != pytest.approx(first[BASELINE]["loss"], rel=1e-5)
    assert runs[BASELINE]["weights"] is None
    scratch = {arm: run_arm(place, arm, 0, None, splits, SCRATCH) for arm in (BASELINE, "sigmoid-gated")}
    train_base(place, seconds=None, name=INTACT_BASE)
    intact = RunFolder(base_folder(place, INTACT_BASE)).final_weights
    late = {
        (course, arm): run_arm(place, arm, 0, intact, splits, course)
        for course in (LATE, FROZEN, NEVER)
        for arm in (BASELINE, "centered-fast")
    }
    train_base(place, seconds=None, name=TAUGHT_BASE)
    skilled = RunFolder(base_folder(place, TAUGHT_BASE)).final_weights
    for arm in (BASELINE, "experts"):
        run_arm(place, arm, 0, skilled, splits, TAUGHT)
    settled = load_config(RunFolder(LATE.run_folder(place.out, "centered-fast-0")).config)
    assert settled.train.only == ()
    assert load_config(RunFolder(FROZEN.run_folder(place.out, "centered-fast-0")).config).train.only == ("aqr",)
    assert late[FROZEN, BASELINE]["trained"] == late[FROZEN, BASELINE]["effort"]["steps"] == 0
    assert 0 < late[FROZEN, "centered-fast"]["trained"] < 0.3 * late[LATE, "centered-fast"]["trained"]
    lidar, camera = runs["original"]["weights"]["lidar_drop-3"]["all"]["all"]
    assert 0 < lidar < 1
    assert 0 < camera < 1

    results = place.work / "results"
    collect(place.out, results)
    comparison = Comparison.read(results)
    assert comparison.differences("original", BASELINE, CLEAN) == [
        pytest.approx(runs["original"][TEST]["mAP"]["clean"] - runs[BASELINE][TEST]["mAP"]["clean"])
    ]
    fresh = Comparison.read(results, SCRATCH)
    assert fresh.arms == [BASELINE, "sigmoid-gated"]
    assert fresh.differences("sigmoid-gated", BASELINE, CLEAN) == [
        pytest.approx(scratch["sigmoid-gated"][TEST]["mAP"]["clean"] - scratch[BASELINE][TEST]["mAP"]["clean"])
    ]
    page = place.work / "page" / "proof.md"
    write_report(results, page)
    text = page.read_text()
    assert "| original |" in text
    assert "## From random weights" in text
    assert "## From a base that has never seen a sensor fail" in text
    assert "### AQR trained by itself" in text
    assert "| missing_camera | " in text.split("### AQR trained by itself")[1]
    assert "## From a base that was taught to see with either sensor alone" in text
    assert text.rstrip().endswith("Not run yet at full size: taught-late.")
    shutil.copytree(results, results / FIRST_RUN)
    write_report(results, page)
    assert "differs by 0.00 points clean" in page.read_text().replace("\n", " ")
    changed = {run["arm"]: run.get("change") for run in comparison.runs}
    assert changed[BASELINE] is None
    assert 0 < changed["original"]["BEV"] < 1
    assert comparison.errors(BASELINE).keys() >= {"trans_err", "vel_err"}
    assert not any("step_time_s" in path.read_text() for path in (place.out / "runs").glob("*/metrics.jsonl"))
    pictures = {path.name for path in page.parent.glob("*.png")}
    assert pictures == {f"proof-{kind}.png" for kind in ("arms", "failures", "weights", "frozen", "taught")}
    assert all(f"]({name})" in text for name in pictures)
