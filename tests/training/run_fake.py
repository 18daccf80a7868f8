"""Train the fake detector in a process of its own: `run_fake.py '{"run_dir": …, "train": {…}, …}'`.

Lightning starts the other ranks by running this command line again.
"""

import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from training_fakes import DeterministicDetector, FakeDetector, FakeLoader, NoEvaluation, small_config

from aqr.batch import Batch
from aqr.config import Config
from aqr.training import evaluate, fit
from aqr.training.module import TrainingModule


@dataclass
class DeadlyLoader(FakeLoader):
    """Kills its process when asked for the batch of a step."""

    kill_at: int = -1

    def __iter__(self) -> Iterator[Batch]:
        for step, batch in enumerate(super().__iter__(), self.start_step):
            if step == self.kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch


def trace_weights(folder: Path) -> None:
    """Have every rank leave its weights after each step in a file."""
    original = TrainingModule.training_step
    trace: list[dict[str, Tensor]] = []

    def step(self: TrainingModule, batch: Batch, batch_idx: int) -> None:
        original(self, batch, batch_idx)
        trace.append({name: tensor.clone() for name, tensor in self.detector.state_dict().items()})
        torch.save(trace, folder / f"rank{self.trainer.global_rank}.pt")

    TrainingModule.training_step = step


def settle(options: dict[str, Any], environment: dict[str, str]) -> None:
    """Take a place among the ranks, and say everything to the file `options["output"]` where one is named."""
    torch.set_num_threads(1)
    os.environ.update(environment | {"CUDA_VISIBLE_DEVICES": ""})
    if "output" in options:
        handle = os.open(options["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, 1)
        os.dup2(handle, 2)


def score(options: dict[str, Any], environment: dict[str, str]) -> None:
    """Evaluate a real run on two ranks."""
    settle(options, environment)
    evaluate(options["run"], out=options["out"], devices=2, show=False)


def run(options: dict[str, Any], environment: dict[str, str] | None = None) -> None:
    """Train the fake detector as the options say."""
    settle(options, environment or {})
    poisoned = frozenset((step, rank) for step, rank in options.get("poisoned", []))
    config = small_config(options.get("aqr", True), **options.get("train", {}))

    def loader(config: Config, rank: int, world_size: int, start_step: int) -> FakeLoader:
        ranks = range(rank, rank + options.get("joint_ranks", 1))
        return DeadlyLoader(config, ranks, start_step, poisoned, options.get("kill_at", -1))

    if options.get("trace"):
        trace_weights(Path(options["run_dir"]))
    fit.train_loader = loader
    fit.Detector = DeterministicDetector if options.get("deterministic") else FakeDetector
    fit.Evaluation = NoEvaluation
    fit.train(config, options["run_dir"], resume=options.get("resume", False))


if __name__ == "__main__":
    run(json.loads(sys.argv[1]))
