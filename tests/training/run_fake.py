"""Train the fake detector in a process of its own: `run_fake.py '{"run_dir": …, "train": {…}, …}'`.

Lightning starts the other ranks by running this command line again.
"""

import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from training_fakes import DeterministicDetector, FakeDetector, FakeLoader, NoEvaluation, small_config

from aqr.batch import Batch
from aqr.config import Config
from aqr.training import fit


@dataclass
class DeadlyLoader(FakeLoader):
    """Kills its process when asked for the batch of a step."""

    kill_at: int = -1

    def __iter__(self) -> Iterator[Batch]:
        for step, batch in enumerate(super().__iter__(), self.start_step):
            if step == self.kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch


def main() -> None:
    torch.set_num_threads(1)
    options: dict[str, Any] = json.loads(sys.argv[1])
    poisoned = frozenset((step, rank) for step, rank in options.get("poisoned", []))
    config = small_config(**options.get("train", {}))
    if "batch_size" in options:
        config = config.model_copy(
            update={"data": config.data.model_copy(update={"batch_size": options["batch_size"]})}
        )

    def loader(config: Config, rank: int, world_size: int, start_step: int) -> FakeLoader:
        return DeadlyLoader(config, rank, world_size, start_step, poisoned, options.get("kill_at", -1))

    fit.train_loader = loader
    fit.Detector = DeterministicDetector if options.get("deterministic") else FakeDetector
    fit.Evaluation = NoEvaluation
    fit.train(config, options["run_dir"], resume=options.get("resume", False))


if __name__ == "__main__":
    main()
