"""Deferred acceptance on near pairs against the loop that defines a match."""

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from aqr.scoring import matching
from aqr.scoring.matching import THRESHOLDS, Points, match, order_of_choice


def greedy(detections: Points, objects: Points, order: npt.NDArray[np.int64], threshold: float) -> dict[int, int]:
    """Object to detection, by the definition."""
    taken: dict[int, int] = {}
    for detection in order:
        best, best_distance = -1, np.inf
        for obj in range(len(objects.sample)):
            if objects.sample[obj] == detections.sample[detection] and obj not in taken:
                away = np.array([detections.x[detection] - objects.x[obj], detections.y[detection] - objects.y[obj]])
                if np.linalg.norm(away) < best_distance:
                    best, best_distance = obj, np.linalg.norm(away)
        if best_distance < threshold:
            taken[best] = int(detection)
    return taken


def points(rng: np.random.Generator, count: int, samples: int, reach: float, grid: float) -> Points:
    xy = np.round(rng.uniform(-reach, reach, (count, 2)) / grid) * grid
    sample = rng.integers(0, samples, count)
    ego = np.arange(samples) * 1000.3
    return Points(sample, xy[:, 0] + ego[sample], xy[:, 1], xy[:, 0])


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    detections=st.integers(0, 40),
    objects=st.integers(0, 25),
    samples=st.integers(1, 4),
    reach=st.sampled_from([1.0, 6.0, 30.0]),
    grid=st.sampled_from([1e-6, 0.1, 0.5]),
    levels=st.sampled_from([1, 3, 1000]),
)
def test_matches_are_those_of_the_greedy_loop(
    seed: int, detections: int, objects: int, samples: int, reach: float, grid: float, levels: int
) -> None:
    rng = np.random.default_rng(seed)
    found = points(rng, detections, samples, reach, grid)
    true = points(rng, objects, samples, reach, grid)
    order = order_of_choice(rng.integers(0, levels, detections) / levels)
    rank = np.argsort(order)
    pairs, matched = match(found, true, rank, samples)
    assert (np.diff(pairs.detection) >= 0).all()
    for threshold, places in zip(THRESHOLDS, matched, strict=True):
        ours = dict(zip(pairs.object[places].tolist(), pairs.detection[places].tolist(), strict=True))
        assert ours == greedy(found, true, order, threshold)


def test_distances_round_as_the_devkits_do() -> None:
    """To the last bit: a distance is compared with thresholds and with other distances."""
    rng = np.random.default_rng(4)
    found, true = points(rng, 2000, 1, 20.0, 1e-9), points(rng, 300, 1, 20.0, 1e-9)
    pairs, _ = match(found, true, np.arange(2000), 1)
    assert len(pairs.distance) > 10_000
    away = np.stack(
        [found.x[pairs.detection] - true.x[pairs.object], found.y[pairs.detection] - true.y[pairs.object]], axis=1
    )
    assert pairs.distance.tolist() == [float(np.linalg.norm(vector)) for vector in away]


def test_a_chain_of_refusals() -> None:
    """Everyone wants the first object; each of them ends up one further along the line."""
    count = 60
    line = np.arange(count) * 0.05
    zero = np.zeros(count, dtype=np.int64)
    objects = Points(zero, line, 0 * line, line)
    detections = Points(zero, 0 * line, 0 * line, 0 * line)
    pairs, matched = match(detections, objects, np.arange(count)[::-1], 1)
    places = matched[-1]
    assert dict(zip(pairs.object[places].tolist(), pairs.detection[places].tolist(), strict=True)) == {
        n: count - 1 - n for n in range(count)
    }
    assert len(matched[0]) == 10


def test_slices_of_pairs_give_what_one_slice_gives(monkeypatch: object) -> None:
    rng = np.random.default_rng(3)
    found, true = points(rng, 300, 3, 20.0, 0.1), points(rng, 100, 3, 20.0, 0.1)
    rank = rng.permutation(300)
    whole, matched = match(found, true, rank, 3)
    monkeypatch.setattr(matching, "_PAIRS_AT_ONCE", 7)  # type: ignore[attr-defined]
    sliced, matched_again = match(found, true, rank, 3)
    np.testing.assert_array_equal(whole.object, sliced.object)
    for a, b in zip(matched, matched_again, strict=True):
        np.testing.assert_array_equal(np.sort(a), np.sort(b))


@settings(max_examples=100)
@given(st.lists(st.sampled_from([0.0, 0.1, 0.5, 0.7, 1.0]), max_size=60))
def test_order_of_choice_is_the_devkits_sort(scores: list[float]) -> None:
    expected = [i for (_, i) in sorted((v, i) for (i, v) in enumerate(scores))][::-1]
    assert order_of_choice(np.array(scores)).tolist() == expected
