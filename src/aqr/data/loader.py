"""Batches for training and evaluation, read by worker processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, Dataset

from aqr.batch import Batch
from aqr.config import Config
from aqr.data.dataset import NuScenesDataset
from aqr.data.failures.harm import Corruption
from aqr.data.index import Index
from aqr.data.samples import Sample, collate
from aqr.data.sampling import Draw, TrainingBatches, TrainingOrder
from aqr.errors import InputError

if TYPE_CHECKING:
    from aqr.data.synthetic import Rendered


class Batches:
    """Batches in a fixed order, whatever the number of workers.

    An `InputError` met by a worker is raised here as it is, without the worker's traceback around it.
    """

    def __init__(self, loader: DataLoader[Any] | Rendered, dataset: NuScenesDataset) -> None:
        self._loader = loader
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._loader:
            if isinstance(batch, InputError):
                raise batch
            yield batch


class _Careful(Dataset[Any]):
    """Hands an InputError on as a value: DataLoader would wrap it into a traceback."""

    def __init__(self, dataset: NuScenesDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: int | Draw) -> Sample | InputError:
        try:
            return self.dataset[key]
        except InputError as error:
            return error


def _collate(samples: Sequence[Sample | InputError]) -> Batch | InputError:
    whole = []
    for sample in samples:
        if isinstance(sample, InputError):
            return sample
        whole.append(sample)
    return collate(whole)


def train_loader(
    config: Config, rank: int = 0, world_size: int = 1, start_step: int = 0, index: Index | None = None
) -> Batches:
    """Batches of `data.batch_size` samples for steps `start_step` to `train.steps`, over as many epochs as needed.

    What a step holds depends on the seed, the step, rank and world size alone: a run that stopped after step t
    continues exactly with `start_step=t`.

    Args:
        config: of the run.
        rank: of this process.
        world_size: number of processes.
        start_step: steps done already.
        index: of the data set where it is open already.

    Raises:
        InputError: where the data set cannot be used, at once or while iterating; or has nothing to train on.
    """
    dataset = _open(config, config.data.train_split, True, index, None)
    presence = dataset.class_presence()
    if not presence.any():
        raise InputError(
            f"{config.data.root / config.data.version}/sample_annotation.json: no box of the ten classes holds a point "
            f"in split {config.data.train_split!r}; train on another split"
        )
    order = TrainingOrder(len(dataset), config.seed, presence if config.data.cbgs else None)
    batches = TrainingBatches(order, config.data.batch_size, config.train.steps, rank, world_size, start_step)
    return Batches(_loader(config, dataset, batches), dataset)


def eval_loader(
    config: Config,
    split: str | None = None,
    rank: int = 0,
    world_size: int = 1,
    index: Index | None = None,
    corruption: Corruption | None = None,
) -> Batches:
    """Every sample of a split once (ranks take turns), unaugmented, in the order of the sample table.

    Args:
        config: of the run.
        split: official split name, by default `data.val_split`.
        rank: of this process.
        world_size: number of processes.
        index: of the data set where it is open already.
        corruption: a failure that every sample shows.

    Raises:
        InputError: where the data set cannot be used, at once or while iterating.
    """
    dataset = _open(config, split or config.data.val_split, False, index, corruption)
    own = range(rank, len(dataset), world_size)
    size = config.data.batch_size
    batches = [[Draw(sample, 0, 0) for sample in own[first : first + size]] for first in range(0, len(own), size)]
    return Batches(_loader(config, dataset, batches), dataset)


def _open(
    config: Config, split: str, training: bool, index: Index | None, corruption: Corruption | None
) -> NuScenesDataset:
    if config.data.kind == "synth":
        from aqr.data.synthetic import SyntheticDataset  # only now: most runs do without

        return SyntheticDataset(config, split, training=training, index=index, corruption=corruption)
    return NuScenesDataset(
        config.data,
        config.sensors,
        split,
        training=training,
        pc_range=config.detector.pc_range,
        seed=config.seed,
        index=index,
        corruption=corruption,
    )


def _loader(
    config: Config, dataset: NuScenesDataset, batch_sampler: TrainingBatches | list[list[Draw]]
) -> DataLoader[Any] | Rendered:
    if config.data.kind == "synth":
        from aqr.data.synthetic import Rendered, SyntheticDataset

        assert isinstance(dataset, SyntheticDataset)
        return Rendered(dataset, batch_sampler, len(batch_sampler))
    workers = config.data.workers
    return DataLoader(
        _Careful(dataset),
        batch_sampler=batch_sampler,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
    )
