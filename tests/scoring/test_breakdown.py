"""Parts of a split against scoring what belongs to them alone."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from tests.scoring.worlds import perfect, random_world

from aqr.scoring import GroundTruth, Metrics, Predictions, break_down, evaluate
from aqr.scoring.boxes import Racks
from aqr.scoring.breakdown import DISTANCES, Part, parts_of
from aqr.scoring.curves import ERRORS
from aqr.scoring.filters import ego_distance, scored
from aqr.scoring.metrics import detection_score
from aqr.taxonomy import CLASSES, LABEL_OF


@pytest.fixture(scope="module")
def world() -> tuple[GroundTruth, Predictions]:
    return random_world(50, samples=24, objects=60, detections=90, noise=0.4)


def part_named(metrics: Metrics, kind: str, name: str) -> dict[str, Any]:
    return next(part for part in break_down(metrics) if (part["kind"], part["name"]) == (kind, name))


def assert_like_alone(part: dict[str, Any], alone: Metrics) -> None:
    """What the part says equals the metrics of its boxes alone, over the classes that it holds."""
    held = np.array([len(matches.objects) > 0 for matches in alone.matches])
    assert held.sum() > 0
    assert part["objects"] == sum(len(matches.objects) for matches in alone.matches)
    for name, ap in part["mean_dist_aps"].items():
        label = LABEL_OF[name]
        assert ap == (pytest.approx(alone.ap[label].mean(), abs=1e-12) if held[label] else None)
    errors = np.nanmean(alone.errors[held], axis=0)
    np.testing.assert_allclose([part["tp_errors"][name] for name in ERRORS], errors, atol=1e-12)
    mean_ap = alone.ap[held].mean()
    assert part["mean_ap"] == pytest.approx(mean_ap, abs=1e-12)
    assert part["nd_score"] == pytest.approx(float(detection_score(mean_ap, errors)), abs=1e-12)


@pytest.mark.parametrize(
    ("kind", "name"), [("light", "night"), ("light", "day"), ("weather", "rain"), ("weather", "dry")]
)
def test_light_and_weather_are_their_samples_alone(
    kind: str, name: str, world: tuple[GroundTruth, Predictions]
) -> None:
    truth, found = world
    chosen = truth.samples.night if kind == "light" else truth.samples.rain
    chosen = chosen if name in ("night", "rain") else ~chosen
    alone = evaluate(truth.take(chosen[truth.sample]), found.take(chosen[found.sample]))
    assert_like_alone(part_named(evaluate(truth, found), kind, name), alone)


@pytest.mark.parametrize("place", range(len(DISTANCES) - 1))
def test_a_ring_is_its_boxes_alone_where_no_match_crosses_its_bounds(
    place: int, world: tuple[GroundTruth, Predictions]
) -> None:
    truth, found = world
    near_bound = [
        np.min(np.abs(ego_distance(boxes, truth.samples)[:, None] - np.array(DISTANCES)), axis=1) < 2.01
        for boxes in world
    ]
    truth, found = truth.take(~near_bound[0]), found.take(~near_bound[1])
    low, high = DISTANCES[place], DISTANCES[place + 1]
    ring = [
        (low <= ego_distance(boxes, truth.samples)) & (ego_distance(boxes, truth.samples) < high)
        for boxes in (truth, found)
    ]
    alone = evaluate(truth.take(ring[0]), found.take(ring[1]))
    assert_like_alone(part_named(evaluate(truth, found), "distance", f"{low:.0f}-{high:.0f} m"), alone)


def test_a_part_that_is_everything_scores_like_everything(world: tuple[GroundTruth, Predictions]) -> None:
    metrics = evaluate(*world)
    for detections in (None, np.ones(len(world[1]), dtype=bool)):
        part = Part("all", "all", np.ones(len(world[0]), dtype=bool), detections)
        assert_like_alone(break_down(metrics, [part])[0], metrics)


def test_visibility_takes_all_false_positives_and_scales_precision() -> None:
    """Four cars, two of them half hidden. Both of these are found, one of the others too, and there is one false
    alarm between: precision in the hidden part is w·TP / (w·TP + FP) with w = 4 / 2."""
    truth, _ = random_world(51, samples=1, objects=4)
    ego = truth.samples.ego[0]
    truth = dataclasses.replace(
        truth,
        samples=dataclasses.replace(truth.samples, racks=Racks.none()),
        translation=ego + np.array([[8.0, 0, 0], [0, 8.0, 0], [-8.0, 0, 0], [0, -8.0, 0]]),
        label=np.zeros(4, dtype=np.int64),
        num_points=np.ones(4, dtype=np.int64),
        visibility=np.array([2, 2, 4, 4]),
    )
    found = perfect(truth, np.array([0, 2, 1, 1]))
    found = dataclasses.replace(
        found,
        score=np.array([0.9, 0.8, 0.7, 0.75]),
        translation=np.where(np.arange(4)[:, None] == 3, ego + np.array([20.0, 20.0, 0.0]), found.translation),
    )
    metrics = evaluate(truth, found)
    hidden = part_named(metrics, "visibility", "40-60 %")
    assert hidden["objects"] == 2
    recall = np.linspace(0, 1, 101)[11:]
    # 1 up to recall 0.5, then from 2 / (2 + 1) after the false alarm to 4 / (4 + 1) at recall 1.
    precision = np.where(recall < 0.5, 1.0, 2 / 3 + (recall - 0.5) / 0.5 * (4 / 5 - 2 / 3))
    assert hidden["mean_dist_aps"]["car"] == pytest.approx((precision - 0.1).mean() / 0.9, abs=1e-9)
    assert hidden["mean_dist_aps"]["bus"] is None
    assert metrics.ap[0].mean() < hidden["mean_dist_aps"]["car"]


def test_parts_divide_the_scored_objects(world: tuple[GroundTruth, Predictions]) -> None:
    truth, found = world
    total = int(scored(truth, truth.samples).sum())
    parts = break_down(evaluate(truth, found))
    for kind in ("distance", "visibility", "lidar_points", "light", "weather"):
        assert sum(part["objects"] for part in parts if part["kind"] == kind) == total
    assert all(set(part["mean_dist_aps"]) == set(CLASSES) for part in parts)


def test_parts_without_an_object_are_left_out(world: tuple[GroundTruth, Predictions]) -> None:
    truth, found = world
    dark = dataclasses.replace(truth, samples=dataclasses.replace(truth.samples, night=np.ones(24, dtype=bool)))
    assert ("light", "day") not in {(part.kind, part.name) for part in parts_of(dark, found)}


def test_a_part_whose_objects_are_all_filtered_has_no_figures(world: tuple[GroundTruth, Predictions]) -> None:
    truth, found = world
    none = ~scored(truth, truth.samples)
    part = break_down(evaluate(truth, found), [Part("x", "dropped", none, None)])[0]
    assert part["objects"] == 0
    assert part["mean_ap"] is part["nd_score"] is part["tp_errors"]["trans_err"] is None
