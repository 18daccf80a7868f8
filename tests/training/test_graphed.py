"""Training by graphs, whose stages run as plain calls on a CPU, is training."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from aqr.batch import Batch
from aqr.bench.inputs import random_batch
from aqr.config import Config, parse
from aqr.detector import Detector
from aqr.training.fit import _trainer
from aqr.training.module import StepResult, TrainingModule

pytestmark = pytest.mark.usefixtures("on_cpu")

DETECTOR = {
    "hidden_dim": 32,
    "num_query": 30,
    "num_layers": 2,
    "num_heads": 2,
    "feedforward_dim": 32,
    "dropout": 0.0,
    "lidar": {
        "pillars": [32, 32],
        "pillar_channels": 8,
        "channels": [8],
        "blocks": [1],
        "strides": [2],
        "out_stride": 2,
    },
    "image": {"options": {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}},
    "denoising": {"groups": 2},
}
STEPS, POISONED = 6, 3


def config_of(compiled: Any, **aqr: Any) -> Config:
    train = {"steps": STEPS, "precision": "32", "stats_every": 2, "compile": compiled, "lr": 1e-3}
    data = {"image": {"size": [32, 64]}, "batch_size": 2}
    return parse({"detector": DETECTOR, "data": data, "train": train, "aqr": {"enabled": True, **aqr}}, "test")


class Batches:
    def __init__(self, config: Config) -> None:
        self._config = config

    def __len__(self) -> int:
        return STEPS

    def __iter__(self) -> Iterator[Batch]:
        for step in range(STEPS):
            batch = random_batch(self._config, 2, 3 + step, 400 - 20 * step, seed=step)
            if step == POISONED:
                batch.points[-1, 2] = float("nan")
            yield batch


class Results(pl.Callback):  # type: ignore[misc]
    def __init__(self) -> None:
        self.steps: list[StepResult] = []

    def on_train_batch_end(self, trainer: Any, module: TrainingModule, *_: Any) -> None:
        assert module.result is not None
        self.steps.append(module.result)


def run(config: Config, folder: Path) -> tuple[list[StepResult], TrainingModule]:
    torch.manual_seed(0)
    module, results = TrainingModule(config, Detector(config)), Results()
    trainer = _trainer(config, 0, folder)
    trainer.callbacks += [results]
    trainer.fit(module, Batches(config))
    return results.steps, module


def test_graphs_train_as_the_plain_module_does(tmp_path: Path) -> None:
    plain, expected = run(config_of(False), tmp_path)
    staged, got = run(config_of("graphs"), tmp_path)
    assert [step.skipped for step in staged] == [step == POISONED for step in range(STEPS)]
    for step, reference in zip(staged, plain, strict=True):
        assert step.skipped == reference.skipped
        if not step.skipped:
            assert step.losses == pytest.approx(reference.losses, rel=1e-4)
            assert step.grad_norm == pytest.approx(reference.grad_norm, rel=1e-3)
        assert (step.statistics is None) == (reference.statistics is None)
        assert step.weight_maps.keys() == reference.weight_maps.keys()
        if step.statistics is not None and reference.statistics is not None:
            torch.testing.assert_close(step.statistics.totals, reference.statistics.totals, rtol=1e-3, atol=1e-3)
        for name, kept in step.weight_maps.items():
            torch.testing.assert_close(kept, reference.weight_maps[name], rtol=1e-3, atol=1e-4)
    ends = [module.detector.state_dict() for module in (got, expected)]
    # The same number on all keys changes no attention: its gradient is noise, which Adam makes large.
    ours, theirs = ({k: v for k, v in end.items() if not k.endswith("key.bias")} for end in ends)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=2e-4)


def test_settings_that_move_train_without_graphs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = config_of("graphs", schedule={"residual_weight": {"kind": "linear", "start": 1.0}})
    with caplog.at_level(logging.WARNING, logger="aqr"):
        steps, module = run(config, tmp_path)
    assert len(steps) == STEPS
    assert module._graphed is None
    assert sum("train.compile: graphs runs as true" in record.getMessage() for record in caplog.records) == 1
