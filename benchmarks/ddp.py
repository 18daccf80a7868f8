"""How training scales over the GPUs of one host, and whether its ranks agree.

    python benchmarks/ddp.py [--ranks 1,2] [--steps 40] [--compile true|graphs] [--toy] [--out ddp.json]

Trains the detector of configs/nuscenes_r50_320x800.yaml with AQR on random batches of 4 samples per rank, as `aqr
train` does (Lightning, NCCL; on CPUs gloo), once for each number of ranks. Efficiency is the step time of one
rank over that of several. Checked on the way: weights are equal on all ranks at the end; a batch with a NaN point on
the last rank makes every rank skip that step and change nothing; statistics are those of all ranks.
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


def settings(toy: bool, ranks: int, steps: int, compiled: bool | str) -> Config:
    detector: dict[str, Any] = REDUCED if toy else {"image": {"freeze_norm": True}}
    return parse(
        {
            "detector": detector,
            "data": {"image": {"size": [64, 160]} if toy else {}, "batch_size": 1 if toy else 4},
            "train": {"devices": ranks, "steps": steps, "stats_every": steps, "compile": compiled},
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
    """Step times, and what the steps said."""

    def __init__(self, poisoned: int) -> None:
        self.poisoned = poisoned
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
        result = module.result
        assert result is not None
        if result.skipped:
            self.skipped.append(batch_idx)
        if self._before:
            now = module.detector.parameters()
            self.unchanged = all(torch.equal(a, b) for a, b in zip(self._before, now, strict=True))
        if result.statistics is not None:
            self.pooled = int(result.statistics.totals[0, 0])


def train(local: int, ranks: int, port: int, options: dict[str, Any], folder: str) -> None:
    """One rank."""
    torch.set_num_threads(1)
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks)}
    if ranks > 1:
        os.environ.update(place | {"LOCAL_RANK": str(local), "NODE_RANK": "0"})
    config = settings(options["toy"], ranks, options["steps"], options["compile"])
    poisoned = options["steps"] // 2
    with quiet_lightning():
        trainer = _trainer(config, 0, Path(folder))
        torch.manual_seed(0)
        module = TrainingModule(config, Detector(config))
        if config.train.compile:
            module.detector.compile_parts()
        watch = Watch(poisoned)
        trainer.callbacks += [watch]
        trainer.fit(module, Batches(config, local, ranks, options["toy"], poisoned))
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
    }
    (Path(folder) / f"rank{local}.json").write_text(json.dumps(found))
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
        context = multiprocessing.get_context("spawn")
        processes = [context.Process(target=train, args=(n, ranks, port, options, folder)) for n in range(ranks)]
        for process in processes:
            process.start()
        end = time.monotonic() + LIMIT_S
        for process in processes:
            process.join(max(0.0, end - time.monotonic()))
        for process in processes:
            if process.is_alive():
                process.kill()
        if any(process.exitcode for process in processes):
            raise RuntimeError(f"{ranks} ranks ended with {[process.exitcode for process in processes]}")
        found = [json.loads((Path(folder) / f"rank{n}.json").read_text()) for n in range(ranks)]
    first = found[0]
    return {
        "ranks": ranks,
        "step_ms": max(rank["step_ms"] for rank in found),
        "weights_equal": all(rank["weights_apart"] == 0.0 for rank in found),
        "nan_skipped_everywhere": all(rank["skipped"] == [first["poisoned"]] and rank["unchanged"] for rank in found),
        "statistics_pooled": all(rank["pooled_queries"] == rank["expected_queries"] for rank in found),
    }


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
    for ranks in map(int, arguments.ranks.split(",")):
        found = measure(ranks, options)
        alone = next((run["step_ms"] for run in report["runs"] if run["ranks"] == 1), None)
        found["efficiency"] = None if alone is None else alone / found["step_ms"]
        report["runs"].append(found)
        print(", ".join(f"{name} {value}" for name, value in found.items()), flush=True)
        if arguments.out:
            arguments.out.write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
