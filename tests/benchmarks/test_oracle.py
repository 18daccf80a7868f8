"""Sensors chosen by the truth: the choices are the best there are, hiding hides, and the page says what was found."""

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from benchmarks.proof.arms import BASELINE, build
from benchmarks.proof.batches import load, pack, save, unpack
from benchmarks.proof.choices import BOTH, CHOICES, CONDITION, CONFIDENCE, NOISE, OBJECT, QUERY, SAMPLE, choose, taken
from benchmarks.proof.compare import Comparison
from benchmarks.proof.figures import CLEAN, FAILURES, figures
from benchmarks.proof.oracle import (
    AS_SURE,
    CONTROLS,
    KINDS_OF_CHOICE,
    SEEN,
    VARIANTS,
    Oracle,
    as_sure,
    called,
    chosen,
    hide_cameras,
    hide_lidar,
    measure,
    perturb,
    run_oracle,
)
from benchmarks.proof.plan import TEST, TOY, Place, conditions, config, name_of
from benchmarks.proof.sections.failures import headroom

from aqr.batch import Batch
from aqr.config import Loss
from aqr.data.dataset import NuScenesDataset
from aqr.data.failures.catalogue import KINDS, Failure
from aqr.data.failures.harm import Corruption
from aqr.data.samples import collate
from aqr.detector.assignment import match_cost
from aqr.detector.coding import encode

CPU = torch.device("cpu")
LOSS = Loss()
WEIGHTS = torch.tensor(LOSS.code_weights)
SEVERE = [one for one in conditions() if one is None or one.severity == 3]


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    """A detector with random weights that has been run."""
    work = tmp_path_factory.mktemp("oracle")
    place = Place(work, work / "out", dataclasses.replace(TOY, version="v1.0-mini", splits=("mini_train", "mini_val")))
    torch.manual_seed(0)
    weights = work / "random.safetensors"
    safetensors.torch.save_file(build(BASELINE, config(place)).state_dict(), weights)
    oracle = Oracle(place, weights, (3,))
    run_oracle(oracle, workers=1)
    return oracle


def batch_of(oracle: Oracle, split: str, number: int, name: str | None = None) -> Batch:
    """A sample read as a whole."""
    settings = oracle.config
    corruption = None if name is None else Corruption(Failure(name, 3))
    dataset = NuScenesDataset(
        settings.data,
        settings.sensors,
        split,
        training=False,
        pc_range=settings.detector.pc_range,
        corruption=corruption,
    )
    batch = unpack(pack(collate([dataset[number]]), reach=60.0), CPU)
    batch.frames = [dataset[number].frame]
    return batch


def made_up_boxes(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    boxes = torch.rand(count, 9, generator=random) + 0.5
    boxes[:, :2] += 12 * torch.arange(count)[:, None]
    return boxes, torch.arange(count) % 10


def test_the_object_choice_costs_as_little_as_any() -> None:
    boxes, labels = made_up_boxes(3)
    random = torch.Generator().manual_seed(1)
    logits = 2 * torch.randn(3, 4, 10, generator=random)
    codes = encode(boxes).mean(0) + 4 * torch.randn(3, 4, 10, generator=random)
    costs = match_cost(logits, codes, boxes, labels, LOSS, WEIGHTS)
    totals = {
        (queries, variants): sum(float(costs[v, q, n]) for n, (q, v) in enumerate(zip(queries, variants, strict=True)))
        for queries in itertools.permutations(range(4), 3)
        for variants in itertools.product(range(3), repeat=3)
    }
    queries, variants = min(totals, key=totals.__getitem__)
    expected = torch.zeros(4, dtype=torch.int64)
    expected[list(queries)] = torch.tensor(variants)
    found = choose(logits, codes, boxes, labels, LOSS, WEIGHTS)
    assert torch.equal(found[OBJECT], expected)
    (rest,) = set(range(4)) - set(queries)
    assert found[QUERY][rest] == logits[:, rest].amax(-1).argmin()
    assert torch.equal(found[QUERY][list(queries)], expected[list(queries)])


def test_a_sample_takes_the_variant_that_is_right() -> None:
    boxes, labels = made_up_boxes(4)
    logits = torch.full((3, 6, 10), -6.0)
    codes = torch.zeros(3, 6, 10)
    logits[2, torch.arange(4), labels] = 6.0
    codes[2, :4] = encode(boxes)
    found = choose(logits, codes, boxes, labels, LOSS, WEIGHTS)
    assert torch.equal(found[SAMPLE], torch.full((6,), 2))
    assert torch.equal(taken(codes, found[SAMPLE]), codes[2])
    none = choose(logits, codes, boxes[:0], labels[:0], LOSS, WEIGHTS)
    assert none[SAMPLE][0] < 2
    assert not none[OBJECT].any()
    assert (none[QUERY][:4] < 2).all()


def test_among_equals_no_choice_changes_anything(oracle: Oracle) -> None:
    boxes, labels = made_up_boxes(5)
    same = torch.randn(1, 25, 20, generator=torch.Generator().manual_seed(0)).expand(len(SEEN), -1, -1)
    found = chosen(same, boxes, labels, oracle.detector())
    assert found.keys() == {*SEEN, *AS_SURE, *(called(way, kind) for way in CHOICES for kind in KINDS_OF_CHOICE)}
    assert all(torch.equal(one, same[0]) for one in found.values())


def test_who_takes_each_object_from_the_variant_that_sees_it_scores_as_if_all_were_seen(
    oracle: Oracle, tmp_path: Path
) -> None:
    made_up = dataclasses.replace(oracle, weights=tmp_path / "made-up.safetensors", severities=(3,))
    (tmp_path / "made-up.safetensors").symlink_to(oracle.weights)
    perfect = dataclasses.replace(oracle, weights=tmp_path / "perfect.safetensors", severities=(3,))
    (tmp_path / "perfect.safetensors").symlink_to(oracle.weights)
    for sample in oracle.samples:
        truth = load(oracle.path(*sample))
        boxes, labels = truth["boxes"], truth["labels"]
        count = len(boxes)
        right = torch.cat([torch.full((count + 9, 10), -9.0), torch.zeros(count + 9, 10)], -1)
        right[:count, 10:] = encode(boxes).nan_to_num(0.0)
        right[torch.arange(count), labels] = 4.0
        partly = right.expand(len(SEEN), -1, -1).clone()
        for variant in range(3):
            missed = torch.arange(count) % 3 != variant
            partly[variant, :count][missed, :10] = -9.0
            partly[variant, :count][missed, 10] += 30.0
        partly[3:] = partly[0]
        # Where there is nothing, both sensors claim the most.
        partly[0, count:, 0] = 6.0
        partly[3:, count:, 0] = 6.0
        for one, answers in ((made_up, partly), (perfect, right.expand(len(SEEN), -1, -1))):
            names = {name_of(condition): answers for condition in SEVERE}
            save(one.path(*sample), names | {"boxes": boxes, "labels": labels})
    best = measure(perfect, oracle.samples)["mAP"][CLEAN]
    assert best[BOTH] == best[OBJECT] == best[called(QUERY, CONFIDENCE)] > 0.3
    found = measure(made_up, oracle.samples)
    scores = found["mAP"]["dark-3"]
    assert max(scores[BOTH], scores[SAMPLE]) < scores[OBJECT] < scores[QUERY] == best[BOTH]
    assert scores[CONDITION] == max(scores[name] for name in VARIANTS)
    gains = found["gain"][FAILURES]
    assert gains[OBJECT]["gain"] == pytest.approx(scores[OBJECT] - scores[BOTH], abs=1e-4)
    assert all(gain["controls"][NOISE]["gain"] == 0 for gain in gains.values())
    doubted = scores[called(QUERY, CONFIDENCE)] - scores[BOTH]
    assert gains[QUERY]["controls"][CONFIDENCE]["gain"] == pytest.approx(doubted, abs=1e-4)


def test_confidence_is_moved_for_all_queries_alike() -> None:
    answers = torch.randn(3, 7, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = as_sure(answers)
    assert torch.equal(found[..., 10:], answers[:1, :, 10:].expand(2, -1, -1))
    torch.testing.assert_close(found[..., :10].mean(1), answers[1:, :, :10].mean(1))
    moved = found[..., :10] - answers[0, :, :10]
    torch.testing.assert_close(moved, moved[:, :1].expand_as(moved))


def test_hiding_leaves_nothing_of_a_sensor_and_all_of_the_other(oracle: Oracle) -> None:
    batch = batch_of(oracle, "mini_val", 0)
    blind, deaf = hide_cameras(batch), hide_lidar(batch)
    assert torch.equal(blind.images, batch_of(oracle, "mini_val", 0, "missing_camera").images)
    assert torch.equal(blind.points, batch.points)
    assert len(deaf.points) == sum(deaf.point_counts) == 0
    assert torch.equal(deaf.images, batch.images)
    assert batch.images.any()
    assert len(batch.points) > 1000


def test_a_perturbation_is_small_and_leaves_dead_sensors_dead(oracle: Oracle) -> None:
    batch = batch_of(oracle, "mini_val", 0)
    first, again, other = (perturb(batch, seed) for seed in (1, 1, 2))
    assert torch.equal(first.points, again.points)
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.points, other.points)
    assert not torch.equal(first.images, other.images)
    assert len(first.points) == sum(first.point_counts)
    assert len(first.points) / len(batch.points) == pytest.approx(0.98, abs=0.005)
    off = (first.images.float() - batch.images.float())[(batch.images > 5) & (batch.images < 250)]
    assert off.mean().abs() < 0.02
    assert off.std() == pytest.approx(1.04, abs=0.05)
    dead = perturb(hide_cameras(hide_lidar(batch)), 1)
    assert not len(dead.points)
    assert not dead.images.any()


@pytest.mark.parametrize("name", ["limited_fov", "motion_blur", "spatial_misalignment"])
def test_answers_are_the_detectors(oracle: Oracle, name: str) -> None:
    sample = oracle.samples[1]
    answers = load(oracle.path(*sample))
    batch, detector = batch_of(oracle, *sample, name), oracle.detector()
    for looks, number in ((batch, 0), (hide_lidar(batch), 1), (hide_cameras(batch), 2)):
        with torch.inference_mode():
            found = detector(looks).queries
        expected = torch.cat([found.logits[-1, 0], found.codes[-1, 0]], -1)
        torch.testing.assert_close(answers[f"{name}-3"][number], expected, rtol=1e-4, atol=1e-4)
    assert len(answers["boxes"]) <= len(batch.boxes)


def test_figures_of_some_severities_are_those_of_what_was_run() -> None:
    names = [name_of(one) for one in SEVERE]
    found = figures(names, np.arange(len(names), dtype=float), SEVERE)
    assert found["lidar_drop"] == 1
    assert found[FAILURES] == np.mean(range(1, len(names)))
    with pytest.raises(ValueError, match="beams_reducing-1"):
        figures(names, np.zeros(len(names)))


def made_up_comparison(oracle: dict[str, Any]) -> Comparison:
    scores = {name_of(condition): 0.4 for condition in conditions()}
    run = {"arm": BASELINE, "seed": 0, TEST: {"mAP": scores}}
    return Comparison([run], {}, {}, {}, oracle=oracle)


def test_the_page_shows_what_was_run(oracle: Oracle) -> None:
    found = json.loads((oracle.place.out / "oracle.json").read_text())
    assert Comparison.read(oracle.place.out).oracle == found
    result = found["random"]
    assert result["samples"] == len(oracle.samples) == 4
    assert result["scenes"] == 2
    assert result["mAP"].keys() == {name_of(one) for one in SEVERE}
    assert result["mAP"][CLEAN].keys() == {
        *SEEN,
        *AS_SURE,
        *(called(way, kind) for way in (CONDITION, *CHOICES) for kind in KINDS_OF_CHOICE),
    }
    gained = [scores[CONDITION] - scores[BOTH] for name, scores in result["mAP"].items() if name != CLEAN]
    assert result["gain"][FAILURES][CONDITION]["gain"] == pytest.approx(np.mean(gained), abs=1e-5)
    assert len(gained) == len(KINDS)
    text = headroom(made_up_comparison(found))
    assert "4 samples of 2 scenes" in text
    assert text.count("| `random` |") == len((CONDITION, *CHOICES))
    assert "severity 3 (CPU)" in text
    assert "Choosing by sample or by object" in headroom(made_up_comparison({}))
    assert "Choosing by sample or by object" not in text
    assert {variants[0] for variants in KINDS_OF_CHOICE.values()} == {BOTH}


@pytest.mark.parametrize(
    ("gain", "error", "says"),
    [
        (0.010, 0.005, "below the +3.00 asked for by failure and severity"),
        (0.060, 0.005, "above the +3.00 asked for by sample +5.90 [+4.92, +6.88]"),
        (0.030, 0.005, "around the +3.00 asked for by sample +2.90 [+1.92, +3.88]"),
    ],
)
def test_what_follows_follows_from_the_figures(oracle: Oracle, gain: float, error: float, says: str) -> None:
    result = json.loads((oracle.place.out / "oracle.json").read_text())["random"]
    for choices in result["gain"].values():
        for way, one in choices.items():
            one["gain"] = gain if way == SAMPLE else 0.0
            assert one["controls"].keys() == CONTROLS.keys()
            one["controls"][NOISE] = {"gain": 0.001, "error": error if way == SAMPLE else 0.0}
            one["controls"][CONFIDENCE] = {"gain": 0.002 if way == OBJECT else 0.0, "error": 0.0}
    for name, gone in (("lidar_drop-3", 0.01), ("missing_camera-3", 0.03)):
        result["mAP"][name] |= {BOTH: 0.2, SAMPLE: 0.2 + gone}
    text = headroom(made_up_comparison({"base": result}))
    assert says in text
    assert "by object −0.10 [−0.10, −0.10], less than by confidence alone" in text
    assert text.count("less than by confidence alone") == 1
    assert f"| the base | sample | +{100 * gain:.2f} (+0.10, +0.00) |" in text
    assert "| +2.00 |" in text
