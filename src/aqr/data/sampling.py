"""Which sample is shown when: an endless order that depends on the seed alone.

All epochs stand behind one another. Step t of a run takes the next `batch_size · world_size` places, rank r its
share of them, so a run continues exactly from nothing but the number of the step, with any number of workers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

Rows = npt.NDArray[np.int64]


class Draw(NamedTuple):
    """One presentation of a sample.

    Attributes:
        sample: place of the sample in its data set.
        epoch: from 0.
        repeat: how often the sample was shown in this epoch before.
    """

    sample: int
    epoch: int
    repeat: int


def balanced(presence: npt.NDArray[np.bool_], random: np.random.Generator) -> Rows:
    """Class-balanced sampling (CBGS, arXiv 1908.09492, section 3.1): every class is drawn equally often.

    A sample counts once for every class in it; an epoch is as long as all these counts together. Each class that
    occurs gets the same share, drawn with replacement from the samples that show it.

    Args:
        presence: [S, classes] whether a sample shows a class.
        random: source of the draws.

    Returns:
        [E] rows, unshuffled; E depends on `presence` alone.
    """
    occurring = np.flatnonzero(presence.any(axis=0))
    if not len(occurring):
        return np.empty(0, dtype=np.int64)
    share = int(presence.sum()) // len(occurring)
    return np.concatenate(
        [random.choice(np.flatnonzero(presence[:, label]), share, replace=True) for label in occurring]
    )


class TrainingOrder:
    """The order of all epochs."""

    def __init__(self, count: int, seed: int, presence: npt.NDArray[np.bool_] | None = None) -> None:
        """Every sample once per epoch, or class-balanced.

        Args:
            count: number of samples.
            seed: of the run.
            presence: [count, classes] for class-balanced sampling.

        Raises:
            ValueError: if there is nothing to draw.
        """
        self.count, self.seed, self.presence = count, seed, presence
        self._epoch: tuple[int, list[Draw]] | None = None
        self.epoch_length = len(self.epoch(0))
        if not self.epoch_length:
            raise ValueError("no sample to draw")

    def epoch(self, epoch: int) -> list[Draw]:
        """The draws of an epoch, in order."""
        if self._epoch is None or self._epoch[0] != epoch:
            random = np.random.default_rng([self.seed, epoch])
            rows = np.arange(self.count) if self.presence is None else balanced(self.presence, random)
            rows = random.permutation(rows)
            draws = zip(rows.tolist(), _repeats(rows).tolist(), strict=True)
            self._epoch = epoch, [Draw(row, epoch, repeat) for row, repeat in draws]
        return self._epoch[1]

    def places(self, first: int, count: int) -> list[Draw]:
        """`count` draws from place `first` of the endless order."""
        draws: list[Draw] = []
        while len(draws) < count:
            epoch, offset = divmod(first + len(draws), self.epoch_length)
            draws += self.epoch(epoch)[offset : offset + count - len(draws)]
        return draws


def _repeats(rows: Rows) -> Rows:
    """How often each entry occurred before."""
    by_row = np.argsort(rows, kind="stable")
    ordered = rows[by_row]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    repeats = np.empty(len(rows), dtype=np.int64)
    repeats[by_row] = np.arange(len(rows)) - np.repeat(starts, np.diff(np.r_[starts, len(rows)]))
    return repeats


class TrainingBatches(Sampler[list[Draw]]):
    """One rank's batches for steps `start_step` to `steps` of a run. Every batch is full."""

    def __init__(
        self,
        order: TrainingOrder,
        batch_size: int,
        steps: int,
        rank: int = 0,
        world_size: int = 1,
        start_step: int = 0,
    ) -> None:
        self.order, self.batch_size, self.steps = order, batch_size, steps
        self.rank, self.world_size, self.start_step = rank, world_size, start_step

    def __len__(self) -> int:
        return max(0, self.steps - self.start_step)

    def __iter__(self) -> Iterator[list[Draw]]:
        for step in range(self.start_step, self.steps):
            yield self.order.places((step * self.world_size + self.rank) * self.batch_size, self.batch_size)
