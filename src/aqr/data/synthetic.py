"""Samples of a synthetic world, rendered batch by batch where the detector learns, without a disk.

They are the samples that a folder written by `aqr synth` holds: same tables, tokens, boxes and points. Pictures are
taken with the lens and crop that an image transform amounts to, so where that keeps every pixel they are those of the
folder before JPEG, and sharper where it would resample.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from queue import Full, Queue
from threading import Event, Thread

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from aqr.batch import Batch
from aqr.config import Config, Data
from aqr.data.dataset import NuScenesDataset, Plan
from aqr.data.failures.harm import Corruption
from aqr.data.images import ImageTransform, PictureChange, transformed
from aqr.data.index import Index, open_index
from aqr.data.points import EGO_RADIUS, FIELDS
from aqr.data.samples import Sample, collate
from aqr.data.sampling import Draw
from aqr.synth.device.film import Sight
from aqr.synth.device.pool import Moments, Shot, turned
from aqr.synth.device.renderer import Renderer
from aqr.synth.live import LiveWorld
from aqr.synth.recorder import moment_of
from aqr.taxonomy import CAMERAS

AHEAD = 2
"""Batches rendered before they are asked for."""


def live_world(data: Data, device: torch.device | None = None) -> LiveWorld:
    """The world of `data.synth`, by default on this process's GPU, or on the CPU where there is none.

    Raises:
        InputError: where `data.version` has no names for so many scenes.
    """
    if device is None:
        local = int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")))
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        device = torch.device("cuda", local % count) if count else torch.device("cpu")
    world = data.synth
    return LiveWorld.of(
        scenes=world.scenes,
        seed=world.seed,
        preset=world.preset,
        version=data.version,
        weather=world.weather,
        device=device,
        workers=data.workers,
    )


class SyntheticDataset(NuScenesDataset):
    """Samples of a split of a synthetic world.

    `dataset[i]` gives one sample on the CPU, in which sensors may fail; `batch` gives several on the world's device.
    """

    def __init__(
        self,
        config: Config,
        split: str,
        *,
        training: bool,
        index: Index | None = None,
        corruption: Corruption | None = None,
        device: torch.device | None = None,
    ) -> None:
        """Open a split, draw its scenes and put them on the device.

        Args:
            config: of the run.
            split: official split name.
            training: augment and filter.
            index: of the world where it is open already.
            corruption: a failure that every sample shows.
            device: where samples are rendered, by default this process's GPU where there is one.

        Raises:
            InputError: where the settings are impossible, or the split is unknown or empty.
        """
        world = live_world(config.data, device)
        super().__init__(
            config.data,
            config.sensors,
            split,
            training=training,
            pc_range=config.detector.pc_range,
            seed=config.seed,
            index=open_index(world.tables(), world.version) if index is None else index,
            corruption=corruption,
        )
        numbers = sorted({moment_of(int(time))[0] for time in self.index.samples.timestamp[self.rows]})
        self._place = {number: place for place, number in enumerate(numbers)}
        by_number = {job.number: job for job in world.jobs}
        self._jobs = [by_number[number] for number in numbers]
        self._renderer: Renderer = world.renderer(self._jobs)
        self._cameras = [CAMERAS.index(name) for name in self.sensors.cameras]
        self.device = world.device
        sample_of = np.full(len(self.index.images.path), -1, dtype=np.int64)
        camera_of = np.full(len(self.index.images.path), -1, dtype=np.int64)
        for column, name in enumerate(self.index.cameras):
            sample_of[self.index.samples.image[:, column]] = np.arange(len(self.index))
            camera_of[self.index.samples.image[:, column]] = CAMERAS.index(name)
        self._sample_of, self._camera_of = sample_of, camera_of
        self._album: tuple[int, dict[int, npt.NDArray[np.uint8]]] | None = None

    def scan(self, row: int) -> npt.NDArray[np.float32]:
        shot = self._shot(int(self.index.scans.timestamp[row]))
        moments = self._renderer.moments([shot])
        random = self._jobs[shot.scene].sweep_random(shot.time_us)
        found: npt.NDArray[np.float32] = self._renderer.sweeps(moments, [random])[0].cpu().numpy()
        return found

    def picture(self, row: int, transform: ImageTransform, change: PictureChange | None) -> npt.NDArray[np.uint8]:
        sample, camera = int(self._sample_of[row]), int(self._camera_of[row])
        if self._album is None or self._album[0] != sample or camera not in self._album[1]:
            self._album = sample, self._taken(sample, sorted({camera, *self._cameras}), transform.source)
        whole = self._album[1][camera]
        return transformed(Image.fromarray(whole if change is None else change(whole)), transform)

    def _taken(self, sample: int, cameras: Sequence[int], size: tuple[int, int]) -> dict[int, npt.NDArray[np.uint8]]:
        """Whole pictures of a sample."""
        shot = self._shot(int(self.index.samples.timestamp[sample]))
        moments = self._renderer.moments([shot])
        sights = [self._sight(0, shot, camera, size, np.eye(3)) for camera in cameras]
        taken, _ = self._renderer.pictures(moments, self._renderer.shadows(moments), sights, size)
        return dict(zip(cameras, taken.permute(0, 2, 3, 1).contiguous().cpu().numpy(), strict=True))

    def plans(self, draws: Sequence[Draw]) -> list[Plan]:
        """What several samples will show."""
        return [self.plan(draw) for draw in draws]

    def batch(self, draws: Sequence[Draw]) -> Batch:
        """Samples behind one another on the world's device."""
        return self.render(self.plans(draws))

    def render(self, plans: Sequence[Plan]) -> Batch:
        """The samples of plans behind one another on the world's device; those in which a sensor fails one by one."""
        size = self.data.image.size
        nothing = np.empty((0, FIELDS), dtype=np.float32)
        blank = np.empty((0, 3, *size), dtype=np.uint8)
        read: list[Sample] = [
            self.put_together(plan, nothing, blank) if plan.harm is None else self.read(plan) for plan in plans
        ]
        whole = [number for number, plan in enumerate(plans) if plan.harm is None]
        bare = [replace(sample, images=blank) for sample in read]
        batch = collate(bare).to(self.device)
        if not whole:
            batch.images = torch.from_numpy(np.stack([sample.images for sample in read])).to(self.device)
            return batch
        own = [plans[number] for number in whole]
        moments = self._renderer.moments([self._shot(plan.frame.timestamp) for plan in own])
        points, counts = self._points(own, moments)
        images = self._images(own, moments, size)
        if len(whole) < len(plans):
            points, counts = _mixed(points, counts, whole, batch)
            failing = [number for number in range(len(plans)) if number not in whole]
            shown = torch.from_numpy(np.stack([read[number].images for number in failing])).to(self.device)
            images = torch.cat([images, shown])[torch.tensor([*whole, *failing], device=self.device).argsort()]
        batch.points, batch.point_counts, batch.images = points, counts, images
        return batch

    def _points(self, plans: Sequence[Plan], keyframes: Moments) -> tuple[Tensor, list[int]]:
        """Points of all plans behind one another, moved, and how many each has."""
        if not self.sensors.lidar:
            return torch.empty(0, FIELDS, device=self.device), [0] * len(plans)
        index = self.index
        shots, movements, lags, owners = [], [], [], []
        for number, plan in enumerate(plans):
            key = int(index.samples.scan[plan.row])
            global_to_key = index.scan_to_global(key).inverse()
            moved = np.eye(4) if plan.movement is None else plan.movement
            for scan in [key, *index.sweeps(plan.row, self.data.sweeps)]:
                shots.append(self._shot(int(index.scans.timestamp[scan])))
                movements.append(moved @ (global_to_key @ index.scan_to_global(scan)).matrix)
                lags.append(max(int(index.scans.timestamp[key]) - int(index.scans.timestamp[scan]), 0) * 1e-6)
                owners.append(number)
        randoms = [self._jobs[shot.scene].sweep_random(shot.time_us) for shot in shots]
        moments = keyframes if tuple(shots) == keyframes.shots else self._renderer.moments(shots)
        stored = self._renderer.sweeps(moments, randoms)
        matrix = torch.from_numpy(np.stack(movements).astype(np.float32)).to(self.device, non_blocking=True)
        points = torch.empty(*stored.shape[:2], FIELDS, device=self.device)
        points[..., :3] = turned(stored[..., :3], matrix[:, None, :3, :3]) + matrix[:, None, :3, 3]
        points[..., 3] = stored[..., 3]
        points[..., 4] = torch.tensor(lags, dtype=torch.float32).to(self.device, non_blocking=True)[:, None]
        far = (stored[..., 0].abs() >= EGO_RADIUS) | (stored[..., 1].abs() >= EGO_RADIUS)
        counts = np.bincount(owners, weights=far.sum(1).cpu().numpy(), minlength=len(plans)).astype(int).tolist()
        return points[far], counts

    def _images(self, plans: Sequence[Plan], moments: Moments, size: tuple[int, int]) -> Tensor:
        """[B, V, 3, H, W] pictures of all plans."""
        if not self._cameras:
            return torch.empty(len(plans), 0, 3, *size, dtype=torch.uint8, device=self.device)
        sights = [
            self._sight(number, shot, camera, transform.source, transform.matrix)
            for number, (plan, shot) in enumerate(zip(plans, moments.shots, strict=True))
            for camera, transform in zip(self._cameras, plan.transforms, strict=True)
        ]
        taken, _ = self._renderer.pictures(moments, self._renderer.shadows(moments), sights, size)
        return taken.view(len(plans), len(self._cameras), 3, *size)

    def _shot(self, timestamp: int) -> Shot:
        number, time_us = moment_of(timestamp)
        return Shot(self._place[number], time_us)

    def _sight(
        self, moment: int, shot: Shot, camera: int, source: tuple[int, int], matrix: npt.NDArray[np.float64]
    ) -> Sight:
        random = self._jobs[shot.scene].picture_random(shot.time_us, camera)
        return Sight(moment, camera, source, matrix, random)


def _mixed(points: Tensor, counts: list[int], whole: Sequence[int], batch: Batch) -> tuple[Tensor, list[int]]:
    """Points of the samples number `whole` among those that a batch holds already."""
    parts = list(torch.split(batch.points, batch.point_counts))
    for number, part in zip(whole, torch.split(points, counts), strict=True):
        parts[number] = part
    return torch.cat(parts), [len(part) for part in parts]


class Rendered:
    """Batches, rendered in a thread on a stream of its own while others are worked on."""

    def __init__(self, dataset: SyntheticDataset, batches: Iterable[Sequence[Draw]], count: int) -> None:
        self._dataset, self._batches, self._count = dataset, batches, count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Batch]:
        queue: Queue[Batch | BaseException | None] = Queue(AHEAD)
        stop = Event()
        thread = Thread(target=self._work, args=(queue, stop), daemon=True)
        thread.start()
        try:
            while (item := queue.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                if item.device.type == "cuda":
                    _keep_for_this_stream(item)
                yield item
        finally:
            stop.set()
            thread.join()

    def _work(self, queue: Queue[Batch | BaseException | None], stop: Event) -> None:
        def put(item: Batch | BaseException | None) -> None:
            placed = False
            while not placed and not stop.is_set():
                with suppress(Full):
                    queue.put(item, timeout=0.1)
                    placed = True

        device = self._dataset.device
        stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        try:
            with ThreadPoolExecutor(1) as planner:
                for plans in _one_ahead(planner.submit(self._dataset.plans, draws) for draws in self._batches):
                    with torch.cuda.stream(stream), torch.no_grad():
                        batch = self._dataset.render(plans)
                    if stream is not None:
                        stream.synchronize()
                    put(batch)
                    if stop.is_set():
                        return
            put(None)
        except BaseException as error:  # who waits for the batch is to hear of it
            put(error)


def _one_ahead(futures: Iterator[Future[list[Plan]]]) -> Iterator[list[Plan]]:
    """Results, of which the next is worked on while one is used."""
    current = next(futures, None)
    while current is not None:
        following = next(futures, None)
        yield current.result()
        current = following


def _keep_for_this_stream(batch: Batch) -> None:
    """Memory of a batch goes back to the stream that rendered it only when this one is done with it."""
    for tensor in (batch.points, batch.images, batch.lidar2img, batch.boxes, batch.labels):
        tensor.record_stream(torch.cuda.current_stream(batch.device))
