"""Batches as small files, read ahead of their use.

Every detector of the experiment is to see the same samples, augmented and failing alike, in an order that depends on
the seed alone. So the data pipeline runs once, its batches are kept, and training reads nothing else.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from aqr.batch import Batch, Frame
from aqr.geometry import Pose

POINT_STEP: Final = (0.002, 0.002, 0.002, 0.01, 0.0001)
"""Points are kept as whole multiples (16 bits) of 2 mm, of 0.01 in intensity and of 0.1 ms."""

READ_AHEAD: Final = 3

_IDENTITY: Final = tuple(tuple(float(row == column) for column in range(4)) for row in range(4))
_NOWHERE: Final = Frame("", 0, Pose.identity(), (0.0, 0.0, 0.0), _IDENTITY)


def pack(batch: Batch, reach: float) -> dict[str, Any]:
    """A batch as plain tensors and lists.

    Args:
        batch: in host memory.
        reach: metres; points farther away along x or y are left out (no detector of the experiment looks there).
    """
    points = batch.points.clone()
    near = (points[:, :2].abs() < reach).all(1) & (points[:, 2].abs() < reach)
    sample = batch.point_sample[near]
    steps = torch.tensor(POINT_STEP)
    return {
        "points": (points[near] / steps).round().clamp(-32768, 32767).to(torch.int16),
        "point_counts": torch.bincount(sample, minlength=len(batch)).tolist(),
        "images": batch.images,
        "lidar2img": batch.lidar2img,
        "boxes": batch.boxes,
        "labels": batch.labels,
        "box_counts": batch.box_counts,
    }


def unpack(values: dict[str, Any], device: torch.device) -> Batch:
    """The inverse of `pack`, on a device; frames say nothing."""
    on_device = {name: value.to(device) for name, value in values.items() if isinstance(value, Tensor)}
    steps = torch.tensor(POINT_STEP, device=device)
    return Batch(
        points=on_device["points"].float() * steps,
        point_counts=values["point_counts"],
        images=on_device["images"],
        lidar2img=on_device["lidar2img"],
        boxes=on_device["boxes"],
        labels=on_device["labels"],
        box_counts=values["box_counts"],
        frames=[_NOWHERE] * len(values["point_counts"]),
    )


def save(path: Path, values: dict[str, Any]) -> None:
    """Write a file that appears whole, without waiting for the disk: nothing of this outlives the experiment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    torch.save(values, partial)
    partial.replace(path)


def load(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return values


def step_path(folder: Path, step: int) -> Path:
    return folder / f"{step:05d}.pt"


def base_order(steps: int, cached: int) -> list[int]:
    """The cached batches as they were made, then in a new order each time round."""
    rounds = [np.arange(cached)]
    while len(rounds) * cached < steps:
        rounds.append(np.random.default_rng(len(rounds)).permutation(cached))
    return [int(number) for number in np.concatenate(rounds)[:steps]]


def arm_order(steps: int, cached: int, seed: int) -> list[int]:
    """Some of the cached batches, another choice and order for every seed, the same for all arms."""
    places = np.arange(max(cached, steps)) % cached
    return [int(number) for number in np.random.default_rng([seed, 1]).permutation(places)[:steps]]


def joined(batches: Sequence[Batch]) -> Batch:
    """Several batches as one."""
    return Batch(
        points=torch.cat([batch.points for batch in batches]),
        point_counts=[count for batch in batches for count in batch.point_counts],
        images=torch.cat([batch.images for batch in batches]),
        lidar2img=torch.cat([batch.lidar2img for batch in batches]),
        boxes=torch.cat([batch.boxes for batch in batches]),
        labels=torch.cat([batch.labels for batch in batches]),
        box_counts=[count for batch in batches for count in batch.box_counts],
        frames=[frame for batch in batches for frame in batch.frames],
    )


def together(batches: Iterator[Batch], count: int) -> Iterator[Batch]:
    """Each `count` batches as one; what is left over at the end is dropped."""
    while len(some := list(islice(batches, count))) == count:
        yield joined(some) if count > 1 else some[0]


def stream(folder: Path, order: Sequence[int], device: torch.device, patience: float = 600.0) -> Iterator[Batch]:
    """Batches in order, a few of them read ahead by a thread; waits for those that are still to be written.

    Args:
        folder: of the cached batches.
        order: their numbers.
        device: where they are wanted.
        patience: seconds to wait for a file.

    Raises:
        TimeoutError: where a file does not come.
    """
    waiting: queue.Queue[Batch | BaseException] = queue.Queue(READ_AHEAD)
    stop = threading.Event()

    def put(item: Batch | BaseException) -> None:
        while not stop.is_set():
            try:
                waiting.put(item, timeout=0.2)
            except queue.Full:
                continue
            break

    def read() -> None:
        try:
            for number in order:
                path = step_path(folder, number)
                deadline = time.monotonic() + patience
                while not path.exists():
                    if time.monotonic() > deadline or stop.is_set():
                        raise TimeoutError(f"{path} does not come")
                    time.sleep(0.05)
                put(unpack(load(path), device))
                if stop.is_set():
                    return
        except BaseException as error:  # handed to the consumer
            put(error)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        for _ in order:
            item = waiting.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
