"""Every number of the metrics against the official evaluator."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.scoring import devkit
from tests.scoring.worlds import joined, perfect, random_world, samples_of

from aqr.errors import InputError
from aqr.scoring import GroundTruth, Predictions, Racks, evaluate
from aqr.scoring.filters import scored
from aqr.taxonomy import CLASSES, LABEL_OF


def assert_like_devkit(truth: GroundTruth, predictions: Predictions) -> None:
    official = devkit.score(truth, predictions)
    ours = evaluate(truth, predictions)
    summary = ours.summary()
    assert summary.pop("meta") == {}
    devkit.assert_same(summary, official.summary)
    devkit.assert_same(ours.details(), official.details)


@pytest.mark.parametrize(
    ("seed", "samples", "objects", "detections", "noise"),
    [(0, 6, 30, 80, 0.6), (1, 10, 50, 40, 0.2), (2, 3, 10, 200, 2.0), (3, 12, 4, 30, 0.5), (4, 1, 120, 300, 1.0)],
)
def test_random_worlds_score_as_in_the_devkit(
    seed: int, samples: int, objects: int, detections: int, noise: float
) -> None:
    assert_like_devkit(*random_world(seed, samples, objects, detections, noise, tilted=seed % 2 == 0))


def test_filters_keep_the_boxes_that_the_devkit_keeps() -> None:
    truth, predictions = random_world(5, samples=8, objects=60, detections=120)
    dropped_by_rack = 0
    for boxes in (truth, predictions):
        keep = scored(boxes, truth.samples)
        kept = boxes.take(keep)
        theirs = sorted((box.sample_token, box.translation) for box in devkit.filtered(boxes, truth).all)
        ours = sorted(
            (truth.samples.tokens[s], tuple(t)) for s, t in zip(kept.sample, kept.translation.tolist(), strict=True)
        )
        assert ours == theirs
        bare = dataclasses.replace(truth.samples, racks=Racks.none())
        dropped_by_rack += np.count_nonzero(scored(boxes, bare)) - len(kept)
    assert dropped_by_rack > 0


def test_faces_of_a_bicycle_rack_belong_to_it() -> None:
    rack = Racks(
        sample=np.array([0]),
        translation=np.zeros((1, 3)),
        size=np.array([[2.0, 4.0, 2.0]]),
        rotation=np.array([[1.0, 0.0, 0.0, 0.0]]),
    )
    steps = np.array([-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5])
    place = np.stack(np.meshgrid(steps, steps * 2, steps, indexing="ij"), -1).reshape(-1, 3)
    bicycle = perfect(random_world(6, samples=1, objects=1)[0], np.zeros(len(place), dtype=np.int64))
    bicycles = dataclasses.replace(bicycle, translation=place, label=np.full(len(place), LABEL_OF["bicycle"]))
    truth, _ = random_world(6, samples=1, objects=1)
    truth = dataclasses.replace(truth, samples=samples_of([(0.0, 0.0)], rack))
    kept = {box.translation for box in devkit.filtered(bicycles, truth).all}
    assert 0 < len(kept) < len(place)
    assert {tuple(p) for p in place[scored(bicycles, truth.samples)].tolist()} == kept


# Offsets whose length is a threshold or just not, in numbers that have no exact binary form.
STEPS = [
    (0.0, 0.0), (0.3, 0.4), (-0.4, 0.3), (0.5, 0.0), (0.6, -0.8), (1.0, 0.0), (1.2, 1.6), (-1.6, 1.2), (0.0, 2.0),
    (2.4, 3.2), (3.2, -2.4), (0.0, -4.0), (4.0, 0.0), (0.1, 0.1), (2.8, 2.8), (0.7, 0.7),
]  # fmt: skip
# From the vehicle; some of them as far as a class's range, in both arithmetics.
PLACES = [
    (0.0, 0.0), (1.0, 0.0), (-1.0, 2.0), (0.0, 2.0), (30.0, 40.0), (-40.0, 30.0), (18.0, 24.0), (24.0, -32.0),
    (50.0, 0.0), (0.0, -40.0), (30.0, 0.0), (28.0, 29.0), (0.6, 0.8), (49.9, 0.0), (3.0, 3.0),
]  # fmt: skip

boxes_of_truth = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(PLACES),
        st.sampled_from(["car", "pedestrian", "barrier", "traffic_cone", "bicycle"]),
        st.sampled_from([-1, 0, 5]),
        st.integers(0, 2),
        st.booleans(),
    ),
    max_size=14,
)
boxes_of_detector = st.lists(
    st.tuples(
        st.integers(0, 13),
        st.sampled_from(STEPS),
        st.sampled_from(["same", "same", "same", "car", "truck"]),
        st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5000000000000001, 0.9, 1.0, 3.0]),
        st.sampled_from([0.0, np.pi / 2, np.pi, -np.pi, 0.1]),
        st.booleans(),
    ),
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(
    objects=boxes_of_truth,
    detections=boxes_of_detector,
    ego=st.sampled_from([(0.0, 0.0), (1000.3, 601.7)]),
    racked=st.booleans(),
)
def test_nasty_inputs_score_as_in_the_devkit(
    objects: list[tuple], detections: list[tuple], ego: tuple[float, float], racked: bool
) -> None:
    """Ties of score and of distance, boxes at a threshold or range limit, several detections on one object, classes
    without objects or detections, empty samples, unknown velocities."""
    rack = Racks(
        sample=np.array([0]),
        translation=np.array([[ego[0], ego[1], 0.0]]),
        size=np.array([[2.0, 4.0, 2.0]]),
        rotation=np.array([[1.0, 0.0, 0.0, 0.0]]),
    )
    count = len(objects)
    unknown = np.array([o[5] for o in objects], dtype=bool).reshape(-1, 1)
    truth = GroundTruth(
        samples=samples_of([ego] * 3, rack if racked else None),
        sample=np.array([o[0] for o in objects], dtype=np.int64),
        translation=np.array([(ego[0] + o[1][0], ego[1] + o[1][1], 0.5) for o in objects]).reshape(-1, 3),
        size=np.tile([4.0, 2.0, 1.5], (count, 1)),
        rotation=np.tile([1.0, 0.0, 0.0, 0.0], (count, 1)),
        velocity=np.where(unknown, np.nan, np.ones((count, 2))),
        label=np.array([LABEL_OF[o[2]] for o in objects], dtype=np.int64),
        attribute=np.array([o[3] for o in objects], dtype=np.int64),
        num_points=np.array([o[4] for o in objects], dtype=np.int64),
        num_lidar_points=np.zeros(count, dtype=np.int64),
        visibility=np.zeros(count, dtype=np.int64),
    )
    near = [d for d in detections if count]
    source = truth.take(np.array([d[0] % max(count, 1) for d in near], dtype=np.int64))
    step = np.array([(*d[1], 0.0) for d in near]).reshape(-1, 3)
    yaw = np.array([d[4] for d in near])
    blind = np.array([d[5] for d in near], dtype=bool)
    labels = [s if d[2] == "same" else LABEL_OF[d[2]] for d, s in zip(near, source.label.tolist(), strict=True)]
    predictions = Predictions(
        sample=source.sample,
        translation=source.translation + step,
        size=source.size * 1.1,
        rotation=np.column_stack([np.cos(yaw / 2), 0 * yaw, 0 * yaw, np.sin(yaw / 2)]).reshape(-1, 4),
        velocity=np.where(blind[:, None], np.nan, 0.5 * np.ones((len(near), 2))),
        label=np.array(labels, dtype=np.int64),
        attribute=np.where(blind, -1, source.attribute),
        score=np.array([d[3] for d in near]),
    )
    order = np.argsort(predictions.sample, kind="stable")
    assert_like_devkit(truth, predictions.take(order))


def test_five_hundred_boxes_on_top_of_each_other() -> None:
    rng = np.random.default_rng(7)
    truth, _ = random_world(7, samples=2, objects=100)
    crowd = dataclasses.replace(
        truth,
        translation=np.column_stack([truth.samples.ego[truth.sample, :2] + rng.uniform(-4, 4, (200, 2)), np.ones(200)]),
        label=np.zeros(200, dtype=np.int64),
        num_points=np.ones(200, dtype=np.int64),
    )
    source = np.sort(rng.integers(0, 200, 900))
    predictions = dataclasses.replace(
        perfect(crowd, source),
        translation=crowd.translation[source] + rng.normal(size=(900, 3)),
        score=np.round(rng.random(900), 1),
    )
    assert_like_devkit(crowd, predictions)


def test_of_equal_scores_the_later_row_chooses_first() -> None:
    truth, _ = random_world(8, samples=1, objects=1)
    ego = truth.samples.ego[0]
    one = dataclasses.replace(
        truth, translation=ego[None] + np.array([5.0, 0, 0]), label=np.array([0]), num_points=np.array([1])
    )
    near, far = perfect(one), perfect(one)
    far = dataclasses.replace(far, translation=one.translation + np.array([0.4, 0, 0]))
    for first, second, error in ((near, far, 0.4), (far, near, 0.0)):
        predictions = joined(first, second)
        metrics = evaluate(one, predictions)
        assert metrics.errors[0, 0] == pytest.approx(error, abs=1e-9)
        assert_like_devkit(one, predictions)


def test_no_detections_score_nothing() -> None:
    truth, _ = random_world(9)
    metrics = evaluate(truth, Predictions.empty())
    assert metrics.mean_ap == 0.0
    assert metrics.nds == 0.0
    assert_like_devkit(truth, Predictions.empty())


def test_a_detection_that_states_zero_points_is_dropped() -> None:
    truth, predictions = random_world(10)
    stated = dataclasses.replace(predictions, num_points=np.arange(len(predictions)) % 3 - 1)
    assert evaluate(truth, stated).mean_ap != evaluate(truth, predictions).mean_ap
    assert_like_devkit(truth, stated)


def test_classes_stand_in_the_orders_they_promise() -> None:
    truth, predictions = random_world(11)
    metrics = evaluate(truth, predictions)
    summary = metrics.summary({"use_lidar": True})
    for label, name in enumerate(CLASSES):
        assert summary["mean_dist_aps"][name] == pytest.approx(metrics.ap[label].mean())
        assert metrics.matches[label].objects.size == np.count_nonzero(
            scored(truth, truth.samples) & (truth.label == label)
        )
    assert summary["meta"] == {"use_lidar": True}


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("size", -1.0, "a size that is not finite and positive"),
        ("size", 0.0, "a size that is not finite and positive"),
        ("size", np.nan, "a size that is not finite and positive"),
        ("translation", np.nan, "a translation that is not finite"),
        ("rotation", np.inf, "a rotation that is not finite"),
        ("score", np.nan, "a score that is not a finite number"),
        ("score", -0.5, "a score that is not a finite number"),
        ("label", 10, "an unknown class"),
        ("attribute", 8, "an unknown attribute"),
    ],
)
def test_what_cannot_be_scored_is_refused_with_its_sample(field: str, value: float, words: str) -> None:
    truth, predictions = random_world(12, samples=4, detections=10)
    row = int(np.flatnonzero(predictions.sample == 2)[3])
    values = getattr(predictions, field).copy()
    values[row] = value
    with pytest.raises(InputError, match=f"box 3 of sample sample-0002 has {words}"):
        evaluate(truth, dataclasses.replace(predictions, **{field: values}))


def test_501_boxes_are_refused_and_500_are_not() -> None:
    truth, predictions = random_world(13, samples=2, detections=501)
    with pytest.raises(InputError, match=r"sample sample-000\d has 501 boxes, nuScenes allows 500"):
        evaluate(truth, predictions)
    first = np.concatenate([np.flatnonzero(predictions.sample == s)[:500] for s in (0, 1)])
    evaluate(truth, predictions.take(first))
