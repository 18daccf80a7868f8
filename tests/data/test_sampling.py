from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aqr.data.sampling import Draw, TrainingBatches, TrainingOrder, balanced


def presence_of(seed: int, count: int = 200) -> np.ndarray:
    """Classes from common to rare, one that never occurs."""
    shares = np.array([0.9, 0.5, 0.2, 0.1, 0.05, 0.3, 0.4, 0.02, 0.6, 0.0])
    presence = np.random.default_rng(seed).random((count, 10)) < shares
    presence[0, :9] = True
    return presence


@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(1, 40),
    seed=st.integers(0, 1000),
    batch_size=st.integers(1, 5),
    world_size=st.integers(1, 4),
    steps=st.integers(1, 12),
    cut=st.integers(0, 12),
    cbgs=st.booleans(),
)
def test_a_run_that_stopped_continues_exactly(
    count: int, seed: int, batch_size: int, world_size: int, steps: int, cut: int, cbgs: bool
) -> None:
    presence = presence_of(seed, count) if cbgs else None

    def run(rank: int, start: int) -> list[list[Draw]]:
        order = TrainingOrder(count, seed, presence)
        batches = TrainingBatches(order, batch_size, steps, rank, world_size, start)
        drawn = list(batches)
        assert len(drawn) == len(batches)
        assert all(len(batch) == batch_size for batch in drawn)
        return drawn

    for rank in range(world_size):
        assert run(rank, cut) == run(rank, 0)[cut:]


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 30), world_size=st.integers(1, 4), batch_size=st.integers(1, 4))
def test_ranks_together_walk_the_epochs_in_order(count: int, world_size: int, batch_size: int) -> None:
    order = TrainingOrder(count, seed=3)
    steps = 4
    ranks = [list(TrainingBatches(order, batch_size, steps, rank, world_size)) for rank in range(world_size)]
    together = [draw for step in range(steps) for rank in range(world_size) for draw in ranks[rank][step]]
    expected = [draw for epoch in range(1 + len(together) // count) for draw in order.epoch(epoch)]
    assert together == expected[: len(together)]


def test_an_epoch_shows_every_sample_once_in_an_order_of_its_own() -> None:
    order = TrainingOrder(50, seed=0)
    epochs = [[draw.sample for draw in order.epoch(epoch)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != list(range(50))
    assert [draw.sample for draw in TrainingOrder(50, seed=1).epoch(0)] != epochs[0]
    assert {(draw.epoch, draw.repeat) for draw in order.epoch(2)} == {(2, 0)}


def test_class_balanced_epochs_draw_every_class_equally_often() -> None:
    """Without overlap of classes the drawn shares are equal exactly."""
    labels = np.repeat(np.arange(4), [100, 50, 8, 2])
    presence = np.eye(10, dtype=bool)[labels]
    drawn = balanced(presence, np.random.default_rng(0))
    assert len(drawn) == 160
    assert Counter(labels[drawn].tolist()) == {0: 40, 1: 40, 2: 40, 3: 40}


@settings(deadline=None)
@given(seed=st.integers(0, 1000))
def test_class_balanced_length_and_rare_classes(seed: int) -> None:
    presence = presence_of(seed)
    drawn = balanced(presence, np.random.default_rng(seed))
    assert len(drawn) == presence.sum() // 9 * 9
    before, after = presence.mean(axis=0), presence[drawn].mean(axis=0)
    rare = [4, 7]
    assert (after[rare] > 1.5 * before[rare]).all()
    assert (after[:9] >= 0.9 / 9).all()


def test_repeats_of_a_sample_within_an_epoch_are_numbered() -> None:
    order = TrainingOrder(200, 5, presence_of(5))
    for epoch in range(2):
        seen: Counter[int] = Counter()
        for draw in order.epoch(epoch):
            assert draw == Draw(draw.sample, epoch, seen[draw.sample])
            seen[draw.sample] += 1
        assert max(seen.values()) > 3
    assert len(order.epoch(0)) == len(order.epoch(1)) == order.epoch_length
    assert order.epoch(0) != order.epoch(1)


def test_nothing_to_draw_is_an_error() -> None:
    with pytest.raises(ValueError, match="no sample"):
        TrainingOrder(0, 0)
    with pytest.raises(ValueError, match="no sample"):
        TrainingOrder(3, 0, np.zeros((3, 10), dtype=bool))
