"""The synthetic world, the training batches and the failing samples of the evaluation, made once by all cores."""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from benchmarks.proof.batches import pack, save, step_path
from benchmarks.proof.plan import INTACT, PILOT, TEST, TRAIN, Place, conditions, config, name_of

from aqr.config import Config, Sensors
from aqr.data.dataset import NuScenesDataset
from aqr.data.failures.catalogue import CAMERA, LIDAR, Failure
from aqr.data.failures.harm import Corruption
from aqr.data.index import Index, open_index
from aqr.data.samples import collate
from aqr.data.sampling import TrainingBatches, TrainingOrder
from aqr.synth import write_world
from aqr.taxonomy import CAMERAS

log = logging.getLogger(__name__)

WORLD_SEED: Final = 4200
REACH: Final = 60.0
CHANGED: Final = {(LIDAR,): ("points", "point_counts"), (CAMERA,): ("images",), (LIDAR, CAMERA): ("lidar2img",)}
"""What a failure changes, by the sensors that it concerns. Only that is kept."""


def rows_of(index: Index, name: str, place: Place) -> list[int]:
    """Places, in the validation split, of the samples of `pilot` or `test`."""
    rows = index.split(place.scale.splits[1])
    scenes = index.samples.scene[rows]
    pilot = set(sorted(set(scenes.tolist()))[: place.scale.pilot_scenes])
    wanted = [number for number, scene in enumerate(scenes.tolist()) if (scene in pilot) == (name == PILOT)]
    return wanted[:: place.scale.pilot_every if name == PILOT else place.scale.every]


def failing(condition: Failure | None, config: Config, split: str, index: Index) -> NuScenesDataset:
    """The samples of a split, all failing, of which only the sensors are read that the failure concerns."""
    sensors = Sensors()
    if condition is not None and condition.kind.needs == (LIDAR,):
        sensors = Sensors(cameras=())
    elif condition is not None and condition.kind.needs == (CAMERA,):
        sensors = Sensors(lidar=False, cameras=CAMERAS)
    return NuScenesDataset(
        config.data,
        sensors,
        split,
        training=False,
        pc_range=config.detector.pc_range,
        index=index,
        corruption=None if condition is None else Corruption(condition),
    )


def changed(values: Mapping[str, Any], condition: Failure) -> dict[str, Any]:
    """What a failure changes, of a packed batch."""
    return {key: values[key] for key in CHANGED[condition.kind.needs]}


@dataclass(frozen=True)
class Job:
    """One file to make.

    Attributes:
        split: of training batches, `TRAIN` or `INTACT`, or pilot or test.
        condition: of pilot and test.
        number: of the step or of the chunk.
        path: of the file.
    """

    split: str
    condition: Failure | None
    number: int
    path: Path


def chunk_path(place: Place, split: str, condition: Failure | None, number: int) -> Path:
    return place.cache(split) / name_of(condition) / f"{number:03d}.pt"


def complete(place: Place, split: str) -> Path:
    """A file that is there once all files of a split are that were asked for."""
    return place.cache(split) / "complete"


def chunks(count: int, size: int) -> list[range]:
    return [range(first, min(first + size, count)) for first in range(0, count, size)]


class _Maker:
    """Makes files in worker processes, which inherit it by forking."""

    def __init__(self, place: Place) -> None:
        self.place, self.config = place, config(place)
        self.index = open_index(self.config.data.root, self.config.data.version)
        self.train = {batches: self._training(config(place, batches=batches)) for batches in (TRAIN, INTACT)}
        order = TrainingOrder(len(self.train[TRAIN]), self.config.seed)
        self.draws = list(TrainingBatches(order, self.config.data.batch_size, place.scale.cached_steps))
        self.rows = {name: rows_of(self.index, name, place) for name in (PILOT, TEST)}
        split = self.config.data.val_split
        self.failing = {name_of(one): failing(one, self.config, split, self.index) for one in conditions()}

    def _training(self, config: Config) -> NuScenesDataset:
        return NuScenesDataset(
            config.data,
            config.sensors,
            config.data.train_split,
            training=True,
            pc_range=config.detector.pc_range,
            index=self.index,
        )

    def jobs(self, steps: Mapping[str, Collection[int]]) -> Iterator[Job]:
        """Files to make.

        Args:
            steps: numbers of the batches of `TRAIN` and of `INTACT` that are wanted; pilot and test come after the
                first of the two.
        """
        first, *others = steps.items()
        yield from self._training_jobs(*first)
        for split in (PILOT, TEST):
            for condition in conditions():
                for number, _ in enumerate(chunks(len(self.rows[split]), self.place.scale.chunk)):
                    yield Job(split, condition, number, chunk_path(self.place, split, condition, number))
        for batches, numbers in others:
            yield from self._training_jobs(batches, numbers)

    def _training_jobs(self, batches: str, numbers: Collection[int]) -> Iterator[Job]:
        for step in sorted(numbers):
            yield Job(batches, None, step, step_path(self.place.cache(batches), step))

    def make(self, job: Job) -> None:
        if job.path.exists():
            return
        if job.split in self.train:
            samples = [self.train[job.split][draw] for draw in self.draws[job.number]]
            save(job.path, pack(collate(samples), REACH))
            return
        rows = self.rows[job.split]
        dataset = self.failing[name_of(job.condition)]
        wanted = chunks(len(rows), self.place.scale.chunk)[job.number]
        values = pack(collate([dataset[rows[number]] for number in wanted]), REACH)
        if job.condition is not None:
            values = changed(values, job.condition)
        save(job.path, values)


_maker: _Maker | None = None


def _make(job: Job) -> None:
    assert _maker is not None
    _maker.make(job)


def make_data(place: Place, steps: Mapping[str, Collection[int]], workers: int | None = None) -> None:
    """Write the world and batches; what is there already is kept.

    Args:
        place: where to.
        steps: numbers of the batches of `TRAIN` and of `INTACT` that are wanted; those of pilot and test always are.
        workers: processes; by default all cores but two.
    """
    global _maker
    begin = time.perf_counter()
    count = workers or max((os.cpu_count() or 1) - 2, 1)
    write_world(
        place.world,
        scenes=place.scale.scenes,
        seed=WORLD_SEED,
        preset="tiny",
        version=place.scale.version,
        workers=count,
    )
    log.info("world of %d scenes after %.0f s", place.scale.scenes, time.perf_counter() - begin)
    torch.set_num_threads(1)
    _maker = _Maker(place)
    jobs = list(_maker.jobs(steps))
    with multiprocessing.get_context("fork").Pool(count) as pool:
        total = Counter(job.split for job in jobs)
        done = Counter[str]()
        for job, _ in zip(jobs, pool.imap(_make, jobs), strict=True):
            done[job.split] += 1
            if done[job.split] == total[job.split]:
                complete(place, job.split).touch()
                log.info("%s: %d files after %.0f s", job.split, total[job.split], time.perf_counter() - begin)
