"""Intervals against cases whose answer is known, and resamples against scoring the drawn scenes themselves."""

import dataclasses

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binom
from tests.scoring.worlds import perfect, random_world, samples_of

from aqr.scoring import GroundTruth, Metrics, Predictions, bootstrap, difference, evaluate, intervals
from aqr.scoring.bootstrap import draw_scenes, resample
from aqr.scoring.boxes import Racks


def one_car_per_scene(scenes: int) -> GroundTruth:
    ego = np.arange(scenes)[:, None] * np.array([[200.0, 0.0, 0.0]])
    return GroundTruth(
        samples=samples_of(ego, samples_per_scene=1),
        sample=np.arange(scenes),
        translation=ego + np.array([10.0, 0.0, 0.0]),
        size=np.ones((scenes, 3)),
        rotation=np.tile([1.0, 0.0, 0.0, 0.0], (scenes, 1)),
        velocity=np.zeros((scenes, 2)),
        label=np.zeros(scenes, dtype=np.int64),
        attribute=np.zeros(scenes, dtype=np.int64),
        num_points=np.ones(scenes, dtype=np.int64),
        num_lidar_points=np.ones(scenes, dtype=np.int64),
        visibility=np.ones(scenes, dtype=np.int64),
    )


def ap_of_recall(found: npt.NDArray[np.integer], scenes: int) -> npt.NDArray[np.float64]:
    """AP where precision is 1 up to the recall that is reached: the share of the 90 recalls above 0.1."""
    return np.floor(100 * found / scenes + 1e-9).clip(10) / 90 - 1 / 9


@pytest.mark.parametrize(("scenes", "found"), [(40, 30), (25, 12), (150, 140)])
def test_interval_of_a_recall_is_the_binomial_one(scenes: int, found: int) -> None:
    """Each scene holds one car that is found or not: a resample finds a binomial number of them."""
    truth = one_car_per_scene(scenes)
    metrics = evaluate(truth, perfect(truth, np.arange(found)))
    stated = intervals(metrics, resamples=20_000, seed=1)
    car = stated["mean_dist_aps"]["car"]
    assert car["value"] == pytest.approx(ap_of_recall(np.array(found), scenes))
    spread = binom(scenes, found / scenes)
    for end, quantile in (("low", 0.025), ("high", 0.975)):
        possible = [ap_of_recall(spread.ppf(quantile + shift), scenes) for shift in (-0.004, 0.004)]
        assert possible[0] - 1e-9 <= car[end] <= possible[1] + 1e-9
    assert stated["mean_ap"]["low"] == pytest.approx(car["low"] / 10)
    assert stated["resamples"] == 20_000


def test_errors_of_resamples_are_means_over_the_drawn_scenes() -> None:
    scenes = 30
    truth = one_car_per_scene(scenes)
    shift = np.linspace(0, 0.4, scenes)
    found = perfect(truth)
    found = dataclasses.replace(
        found, translation=found.translation + shift[:, None] * [0.0, 1.0, 0.0], score=np.full(scenes, 0.5)
    )
    metrics = evaluate(truth, found)
    draws = draw_scenes(scenes, 500, seed=2)
    errors = resample(metrics, draws).errors[:, 0, 0]
    # All scores are equal, so every recall reads the error of the detection that chose first.
    first = np.array([np.flatnonzero(row)[-1] for row in draws])
    assert np.corrcoef(errors, shift[first])[0, 1] > 0.99 or np.ptp(errors) == 0
    different = dataclasses.replace(found, score=np.linspace(0.2, 0.9, scenes))
    errors = resample(evaluate(truth, different), draws).errors[:, 0, 0]
    np.testing.assert_allclose(errors, expected_errors(draws, shift), atol=2e-3)


def expected_errors(draws: npt.NDArray[np.int64], shift: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The definition on the drawn detections themselves; scores rise with the row, nothing is missed."""
    results = []
    for row in draws:
        drawn = np.repeat(shift[::-1], row[::-1])
        mean = np.cumsum(drawn) / np.arange(1, len(drawn) + 1)
        recall = np.arange(1, len(drawn) + 1) / len(drawn)
        results.append(np.interp(np.linspace(0, 1, 101)[11:], recall, mean).mean())
    return np.array(results)


def drawn_world(truth: GroundTruth, found: Predictions, draw: npt.NDArray[np.int64]) -> Metrics:
    """Scenes written out as often as they were drawn, and scored."""
    scene = truth.samples.scene
    samples = np.concatenate([np.flatnonzero(scene == s) for s, times in enumerate(draw) for _ in range(times)])
    parts = []
    for boxes in (truth, found):
        rows = [np.flatnonzero(boxes.sample == s) for s in samples]
        taken = boxes.take(np.concatenate(rows))
        parts.append(dataclasses.replace(taken, sample=np.repeat(np.arange(len(samples)), [len(r) for r in rows])))
    world = dataclasses.replace(
        truth.samples,
        tokens=tuple(map(str, range(len(samples)))),
        ego=truth.samples.ego[samples],
        scene=np.zeros(len(samples), dtype=np.int64),
        night=truth.samples.night[samples],
        rain=truth.samples.rain[samples],
        racks=Racks.none(),
    )
    return evaluate(dataclasses.replace(parts[0], samples=world), parts[1])


@pytest.fixture(scope="module")
def world() -> tuple[GroundTruth, Predictions]:
    truth, found = random_world(40, samples=60, objects=25, detections=60, noise=0.4)
    truth = dataclasses.replace(truth, samples=dataclasses.replace(truth.samples, racks=Racks.none()))
    return truth, dataclasses.replace(found, score=found.score + np.random.default_rng(40).random(len(found)) * 1e-3)


def test_a_resample_scores_like_its_scenes_written_out(world: tuple[GroundTruth, Predictions]) -> None:
    truth, found = world
    metrics = evaluate(truth, found)
    draws = draw_scenes(15, 12, seed=3)
    drawn = resample(metrics, draws)
    expected = [drawn_world(truth, found, draw) for draw in draws]
    spread = np.std([m.mean_ap for m in expected])
    assert np.abs(drawn.mean_ap - [m.mean_ap for m in expected]).max() < 0.1 * spread
    assert np.abs(drawn.nds - [m.nds for m in expected]).max() < 0.1 * np.std([m.nds for m in expected])
    np.testing.assert_allclose(drawn.ap, [m.ap.mean(axis=1) for m in expected], atol=0.01)


def test_the_whole_split_is_met_exactly(
    world: tuple[GroundTruth, Predictions], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a knot at every true positive nothing has to be taken off: the correction is 0."""
    metrics = evaluate(*world)
    ones = np.ones((1, 15), dtype=np.int64)
    monkeypatch.setattr(bootstrap, "KNOTS", 10**6)
    shifted = dataclasses.replace(metrics, ap=metrics.ap + 0.25, errors=metrics.errors + 0.25)
    raw = resample(shifted, np.vstack([ones, ones * 2]))
    np.testing.assert_allclose(raw.ap[0], metrics.ap.mean(axis=1) + 0.25, atol=1e-12)
    np.testing.assert_allclose(raw.errors[0], metrics.errors + 0.25, atol=1e-12)


def test_few_knots_hardly_move_intervals(
    world: tuple[GroundTruth, Predictions], monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = evaluate(*world)
    monkeypatch.setattr(bootstrap, "KNOTS", 10**6)
    exact = intervals(metrics, 400)["mean_ap"]
    monkeypatch.undo()
    close = intervals(metrics, 400)["mean_ap"]
    width = exact["high"] - exact["low"]
    assert abs(close["low"] - exact["low"]) < 0.02 * width
    assert abs(close["high"] - exact["high"]) < 0.02 * width


def test_a_run_does_not_differ_from_itself(world: tuple[GroundTruth, Predictions]) -> None:
    metrics = evaluate(*world)
    stated = difference(metrics, metrics, 50)
    assert stated["mean_ap"] == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_differences_are_paired() -> None:
    """Two runs that miss other cars but the same number in each scene: no difference in any resample."""
    truth, _ = random_world(41, samples=1, objects=1)
    scenes = 20
    truth = one_car_per_scene(scenes)
    good, bad = perfect(truth, np.arange(18)), perfect(truth, np.arange(12))
    stated = difference(evaluate(truth, good), evaluate(truth, bad), 4000, seed=5)["mean_dist_aps"]["car"]
    # 18 - 12 = 6 scenes tell the runs apart: the difference of the recalls is binomial.
    spread = binom(scenes, 6 / scenes)
    assert stated["value"] == pytest.approx(6 / scenes * 100 / 90, abs=1e-9)
    assert stated["low"] == pytest.approx(spread.ppf(0.025) / scenes * 100 / 90, abs=0.06)
    assert stated["high"] == pytest.approx(spread.ppf(0.975) / scenes * 100 / 90, abs=0.06)
    apart = intervals(evaluate(truth, good), 4000, seed=5)["mean_dist_aps"]["car"]
    assert stated["high"] - stated["low"] < 2.5 * (apart["high"] - apart["low"])


def test_runs_on_other_samples_are_not_compared(world: tuple[GroundTruth, Predictions]) -> None:
    with pytest.raises(ValueError, match="same samples"):
        difference(evaluate(*world), evaluate(*random_world(42)), 10)


def test_draws_hold_as_many_scenes_as_the_split_and_follow_the_seed() -> None:
    draws = draw_scenes(7, 100, seed=6)
    assert (draws.sum(axis=1) == 7).all()
    np.testing.assert_array_equal(draws, draw_scenes(7, 100, seed=6))
    assert (draws != draw_scenes(7, 100, seed=7)).any()
