"""What only a GPU shows."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from training_fakes import FakeDetector, FakeLoader, NoEvaluation, small_config

from aqr.training import fit, module, train
from aqr.training.checkpoint import Checkpoint
from aqr.training.run_folder import RunFolder

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(autouse=True)
def fakes(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(fit, "Detector", FakeDetector)
    monkeypatch.setattr(fit, "Evaluation", NoEvaluation)
    bad = frozenset({(5, 0)})
    monkeypatch.setattr(fit, "train_loader", lambda config, rank, world, start: FakeLoader(config, [rank], start, bad))
    return monkeypatch


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("precision", ["32", "bf16", "16"])
def test_every_precision_trains_and_resumes(fakes: pytest.MonkeyPatch, tmp_path: Path, precision: str) -> None:
    config = small_config(precision=precision, steps=30)
    train(config, tmp_path / "whole")
    whole = lines(tmp_path / "whole" / "metrics.jsonl")
    assert whole[-1]["loss"] < 0.7 * whole[0]["loss"]
    assert whole[-1]["skipped"] == 1
    assert whole[-1]["memory_mb"] > 0

    original = module.TrainingModule.training_step

    def dying(self: module.TrainingModule, *arguments: Any) -> None:
        if self.step == 17:
            raise KeyError("the machine is gone")
        original(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.TrainingModule, "training_step", dying)
        with pytest.raises(KeyError):
            train(config, tmp_path / "broken")
    train(config, tmp_path / "broken", resume=True)
    resumed = lines(tmp_path / "broken" / "metrics.jsonl")
    assert [line["loss"] for line in resumed] == pytest.approx([line["loss"] for line in whole], rel=1e-2)
    ends = [Checkpoint.load(RunFolder(tmp_path / name).last_checkpoint) for name in ("whole", "broken")]
    assert ends[0].scaler == ends[1].scaler


def test_a_step_waits_for_nothing_but_its_numbers(fakes: pytest.MonkeyPatch, tmp_path: Path) -> None:
    waits = []
    original = module.TrainingModule.training_step

    def counting(self: module.TrainingModule, *arguments: Any) -> None:
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                original(self, *arguments)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        waits.append(sum("synchroniz" in str(warning.message) for warning in caught))

    fakes.setattr(module.TrainingModule, "training_step", counting)
    train(small_config(precision="16", steps=10, stats_every=1000), tmp_path)
    # The first steps set up the optimizer. The numbers are waited for by an event, which is not warned of.
    assert not any(waits[2:])
