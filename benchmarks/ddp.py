"""How training scales over the GPUs of one host, and whether its ranks agree.

    python benchmarks/ddp.py [--ranks 1,2] [--steps 40] [--compile true|graphs] [--toy] [--out ddp.json]

Trains the detector of configs/nuscenes_r50_320x800.yaml with AQR on random batches of 4 samples per rank, as `aqr
train` does (Lightning, NCCL; on CPUs gloo), once for each number of ranks. Efficiency is the step time of one
rank over that of several. Checked on the way: weights are equal on all ranks at the end; a batch with a NaN point on
the last rank makes every rank skip that step and change nothing; statistics are those of all ranks.

Rank 0 says when its first step, its first counted step and its last one ended. A first step that compiles takes
minutes; runs with more ranks find in Inductor's cache what the run before them compiled.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from aqr.batch import Batch
from aqr.bench.detector import BOXES, POINTS, REDUCED, REDUCED_POINTS
from aqr.bench.inputs import random_batch
from aqr.config import Config, parse
from aqr.detector import Detector
from aqr.training.console import quiet_lightning
from aqr.training.fit import _trainer
from aqr.training.module import TrainingModule

LIMIT_S = 300
COMPILING_S = 600
"""Allowed on top where a first step compiles."""


def settings(toy: bool, steps: int, compiled: bool | str) -> Config:
    detector: dict[str, Any] = REDUCED if toy else {"image": {"freeze_norm": True}}
    return parse(
        {
            "detector": detector,
            "data": {"image": {"size": [64, 160]} if toy else {}, "batch_size": 1 if toy else 4},
            "train": {"devices": 1, "steps": steps, "stats_every": steps, "compile": compiled},
        },
        "benchmark",
    )


class Batches:
    """A few batches over and over; the one of step `poisoned` holds a NaN point on the last rank."""

    def __init__(self, config: Config, rank: int, ranks: int, toy: bool, poisoned: int) -> None:
        count, points = config.data.batch_size, REDUCED_POINTS if toy else POINTS
        batches = [random_batch(config, count, BOXES, points, seed=10 * rank + n) for n in range(2)]
        self._batches = [batch.pin_memory() for batch in batches] if torch.cuda.is_available() else batches
        self._steps = config.train.steps
        self._poisoned = poisoned if rank == ranks - 1 else -1

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[Batch]:
        for step in range(self._steps):
            batch = self._batches[step % len(self._batches)]
            if step != self._poisoned:
                yield batch
                continue
            healthy = batch.points[0, 0].item()
            batch.points[0, 0] = float("nan")
            yield batch
            batch.points[0, 0] = healthy


class Watch(pl.Callback):  # type: ignore[misc]
    """Step times, and what the steps said.

    Args:
        poisoned: step whose batch holds a NaN.
        began: when the ranks were started, by `time.monotonic`.
        said: steps whose end rank 0 prints.
    """

    def __init__(self, poisoned: int, began: float, said: tuple[int, ...]) -> None:
        self.poisoned = poisoned
        self.began = began
        self.said = said
        self.ended: dict[int, float] = {}
        self.times: list[float] = []
        self.skipped: list[int] = []
        self.unchanged = True
        self.pooled: int | None = None
        self._mark = 0.0
        self._before: list[torch.Tensor] = []

    def on_train_batch_start(self, trainer: Any, module: TrainingModule, batch: Any, batch_idx: int) -> None:
        self._mark = time.perf_counter()
        self._before = [p.detach().clone() for p in module.detector.parameters()] if batch_idx == self.poisoned else []

    def on_train_batch_end(
        self, trainer: Any, module: TrainingModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.times.append(time.perf_counter() - self._mark)
        if batch_idx in self.said:
            self.ended[batch_idx] = time.monotonic() - self.began
            if trainer.is_global_zero:
                print(f"  step {batch_idx + 1} ended after {self.ended[batch_idx]:.1f} s", flush=True)
        result = module.result
        assert result is not None
        if result.skipped:
            self.skipped.append(batch_idx)
        if self._before:
            now = module.detector.parameters()
            self.unchanged = all(torch.equal(a, b) for a, b in zip(self._before, now, strict=True))
        if result.statistics is not None:
            self.pooled = int(result.statistics.totals[0, 0])


def place(rank: int, ranks: int, port: int) -> dict[str, str]:
    """Environment of a rank: a node with one GPU.

    As another GPU of one node it would be cuda:1, and have to compile all anew: what Inductor and Triton cache is for
    one number of a device.
    """
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = [str(n) for n in range(ranks)] if shown is None else shown.split(",")
    # Lightning would give several ranks more threads than one, which the cache tells apart as well.
    found = {"CUDA_VISIBLE_DEVICES": devices[rank] if rank < len(devices) else "", "OMP_NUM_THREADS": "1"}
    if ranks == 1:
        return found
    found |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks)}
    return found | {"GROUP_WORLD_SIZE": str(ranks), "NODE_RANK": str(rank), "LOCAL_RANK": "0"}


def train(rank: int, ranks: int, port: int, began: float, options: dict[str, Any], folder: str) -> None:
    """One rank."""
    torch.set_num_threads(1)
    os.environ.update(place(rank, ranks, port))
    config = settings(options["toy"], options["steps"], options["compile"])
    poisoned = options["steps"] // 2
    with quiet_lightning():
        trainer = _trainer(config, 0, Path(folder))
        torch.manual_seed(0)
        module = TrainingModule(config, Detector(config))
        if config.train.compile:
            module.detector.compile_parts()
        marks = (0, options["warm_up"], options["steps"] - 1)
        watch = Watch(poisoned, began, marks)
        trainer.callbacks += [watch]
        trainer.fit(module, Batches(config, rank, ranks, options["toy"], poisoned))
    sums = torch.stack([p.detach().double().sum() for p in module.detector.parameters()])
    sums = sums.to(trainer.strategy.root_device)  # Lightning has brought the weights to the host, where NCCL cannot
    apart = 0.0
    if ranks > 1:
        everywhere = [torch.empty_like(sums) for _ in range(ranks)]
        dist.all_gather(everywhere, sums)
        apart = max(float((other - sums).abs().max()) for other in everywhere)
    counted = watch.times[options["warm_up"] : -1]
    found = {
        "step_ms": 1e3 * statistics.median(counted),
        "skipped": watch.skipped,
        "unchanged": watch.unchanged,
        "weights_apart": apart,
        "pooled_queries": watch.pooled,
        "expected_queries": ranks * config.data.batch_size * config.detector.num_query,
        "poisoned": poisoned,
        "ended_s": [watch.ended[mark] for mark in marks],
    }
    (Path(folder) / f"rank{rank}.json").write_text(json.dumps(found))
    if dist.is_initialized():
        dist.destroy_process_group()


def measure(ranks: int, options: dict[str, Any]) -> dict[str, Any]:
    """What all ranks found, the slowest one's step time.

    Raises:
        RuntimeError: where a rank failed or did not end.
    """
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        began = time.monotonic()
        context = multiprocessing.get_context("spawn")
        processes = [context.Process(target=train, args=(n, ranks, port, began, options, folder)) for n in range(ranks)]
        for process in processes:
            process.start()
        see_to_the_end(processes, began + LIMIT_S + (COMPILING_S if options["compile"] else 0))
        seconds = time.monotonic() - began
        found = [json.loads((Path(folder) / f"rank{n}.json").read_text()) for n in range(ranks)]
    first = found[0]
    return {
        "ranks": ranks,
        "step_ms": max(rank["step_ms"] for rank in found),
        "first_step_s": max(rank["ended_s"][0] for rank in found),
        "first_counted_s": max(rank["ended_s"][1] for rank in found),
        "last_step_s": max(rank["ended_s"][2] for rank in found),
        "all_s": seconds,
        "weights_equal": all(rank["weights_apart"] == 0.0 for rank in found),
        "nan_skipped_everywhere": all(rank["skipped"] == [first["poisoned"]] and rank["unchanged"] for rank in found),
        "statistics_pooled": all(rank["pooled_queries"] == rank["expected_queries"] for rank in found),
    }


def see_to_the_end(processes: list[Any], end: float) -> None:
    """Wait for all until `end`, by `time.monotonic`; the others of one that failed would wait for it, and are ended.

    Raises:
        RuntimeError: where a rank failed or did not end.
    """
    failed = False
    try:
        while running := [process for process in processes if process.exitcode is None]:
            failed = any(process.exitcode for process in processes)
            if failed or time.monotonic() > end:
                break
            wait([process.sentinel for process in running], timeout=1.0)
        late = [rank for rank, process in enumerate(processes) if process.exitcode is None]
    finally:
        for process in processes:
            if process.exitcode is None:
                process.kill()
                process.join()
    codes = [process.exitcode for process in processes]
    if any(codes):
        why = "one failed" if failed or not late else f"{late} had not ended in time"
        raise RuntimeError(f"{len(processes)} ranks: {why}; they ended with {codes}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", default="1,2")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--warm-up", type=int, default=10)
    parser.add_argument("--compile", choices=["true", "graphs"], help="train.compile; as it is without")
    parser.add_argument("--toy", action="store_true", help="a small detector, for CPUs")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    options = {name: getattr(arguments, name) for name in ("steps", "warm_up", "compile", "toy")}
    options["compile"] = {"true": True, "graphs": "graphs", None: False}[options["compile"]]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    report: dict[str, Any] = {"device": device, "torch": str(torch.__version__), **options, "runs": []}
    if not 0 < arguments.warm_up < arguments.steps - 1:
        parser.error("--warm-up must lie between 0 and one less than the last step")
    counts = [int(count) for count in arguments.ranks.split(",")]
    if torch.cuda.is_available() and max(counts) > torch.cuda.device_count():
        parser.error(f"--ranks {max(counts)}: this machine shows {torch.cuda.device_count()} GPUs")
    for ranks in counts:
        print(f"{ranks} ranks", flush=True)
        found = measure(ranks, options)
        alone = next((run["step_ms"] for run in report["runs"] if run["ranks"] == 1), None)
        found["efficiency"] = None if alone is None else alone / found["step_ms"]
        report["runs"].append(found)
        print(", ".join(f"{name} {value}" for name, value in found.items()), flush=True)
        if arguments.out:
            arguments.out.write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
