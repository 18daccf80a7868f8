"""What a step may and may not leave behind."""

import json
import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from training_fakes import FakeDetector, FakeLoader, NoEvaluation, make_batch, small_config

from aqr.errors import InputError
from aqr.training import fit, module, train
from aqr.training.checkpoint import Checkpoint
from aqr.training.module import StepResult, step_seed
from aqr.training.optimizer import adamw, one_cycle, set_lr
from aqr.training.recorder import Window
from aqr.training.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("on_cpu")


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(fit, "Detector", FakeDetector)
    monkeypatch.setattr(fit, "Evaluation", NoEvaluation)
    poison(monkeypatch, set())
    return monkeypatch


def poison(patch: pytest.MonkeyPatch, steps: set[int]) -> None:
    bad = frozenset((step, 0) for step in steps)
    patch.setattr(fit, "train_loader", lambda config, rank, world_size, start: FakeLoader(config, [rank], start, bad))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_training_equals_a_plain_loop(fakes: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = small_config(grad_clip=0.5)
    train(config, tmp_path)
    torch.manual_seed(config.seed)
    detector = FakeDetector(config)
    optimizer = adamw(detector, config.train)
    losses = []
    for step in range(config.train.steps):
        seed = step_seed(config.seed, step, 0)
        torch.manual_seed(seed)
        batch = make_batch(config.seed, step)
        set_lr(optimizer, one_cycle(step, config.train))
        named = detector.losses(detector(batch, generator=torch.Generator().manual_seed(seed)), batch)
        loss = sum(named.values(), torch.zeros(()))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(detector.parameters(), config.train.grad_clip)
        optimizer.step()
        losses.append(loss.item())
    trained = Checkpoint.load(RunFolder(tmp_path).last_checkpoint)
    torch.testing.assert_close(trained.detector, dict(detector.state_dict()), rtol=1e-6, atol=1e-7)
    recorded = lines(tmp_path / "metrics.jsonl")
    assert [line["iteration"] for line in recorded] == [2, 4, 6, 8, 10, 12]
    pairs = zip(losses[::2], losses[1::2], strict=True)
    assert [line["loss"] for line in recorded] == pytest.approx([(a + b) / 2 for a, b in pairs], rel=1e-5)
    named = {"loss_cls", "loss_bbox", "d0.loss_bbox", "grad_norm", "router_grad_norm", "lr"}
    named |= {"step_time_s", "data_time_s", "memory_mb", "skipped"}
    assert named <= recorded[0].keys()
    assert recorded[0]["loss"] == pytest.approx(sum(recorded[0][n] for n in ("loss_cls", "loss_bbox", "d0.loss_bbox")))
    assert [line["forward"] for line in lines(tmp_path / "aqr_stats.jsonl")] == [4, 8, 12]


def test_a_poisoned_step_leaves_no_trace_and_the_run_goes_on(
    fakes: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    states: list[dict[str, Any]] = []
    original = module.TrainingModule.training_step

    def spy(self: module.TrainingModule, *arguments: Any) -> None:
        def state() -> dict[str, Tensor]:
            optimizer = self.optimizers(use_pl_optimizer=False).state_dict()["state"]
            moments = {f"{p}.{k}": v for p, values in optimizer.items() for k, v in values.items()}
            return {k: torch.as_tensor(v).clone() for k, v in {**self.detector.state_dict(), **moments}.items()}

        before = state()
        original(self, *arguments)
        states.append({"before": before, "after": state()})

    fakes.setattr(module.TrainingModule, "training_step", spy)
    poison(fakes, {5})
    with caplog.at_level(logging.WARNING, logger="aqr"):
        train(small_config(), tmp_path)
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.getMessage() for record in warnings] == [
        "step 6 skipped, nothing was updated: a LiDAR point is not finite"
    ]
    assert len(states) == 12
    for step, state in enumerate(states):
        same = all(torch.equal(state["before"][k], state["after"][k]) for k in state["before"])
        assert same == (step == 5)
    assert any("running_mean" in name for name in states[5]["before"])
    recorded = lines(tmp_path / "metrics.jsonl")
    assert [line["skipped"] for line in recorded] == [0, 0, 1, 1, 1, 1]
    assert all(math.isfinite(value) for line in recorded for value in line.values())
    assert Checkpoint.load(RunFolder(tmp_path).last_checkpoint).skipped == 1


def test_a_window_of_skipped_steps_only_has_no_loss(fakes: pytest.MonkeyPatch, tmp_path: Path) -> None:
    poison(fakes, {4, 5})
    train(small_config(), tmp_path)
    recorded = lines(tmp_path / "metrics.jsonl")
    assert recorded[2]["loss"] is None
    assert recorded[2]["grad_norm"] is None
    assert recorded[2]["lr"] > 0
    assert recorded[3]["loss"] is not None


def test_a_gradient_that_is_not_finite_is_skipped_too(
    fakes: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Spiky(FakeDetector):
        def losses(self, output: Any, batch: Any) -> dict[str, Tensor]:
            named = super().losses(output, batch)
            if batch.frames[0].sample_token.startswith("3-"):
                # The square root of 0: a loss of 0 with an infinite gradient, times 0.
                named["loss_cls"] = named["loss_cls"] + (output.boxes.sum() * 0).sqrt()
            return named

    fakes.setattr(fit, "Detector", Spiky)
    with caplog.at_level(logging.WARNING, logger="aqr"):
        train(small_config(), tmp_path)
    assert [r.getMessage() for r in caplog.records] == ["step 4 skipped, nothing was updated: the gradient norm is nan"]
    assert Checkpoint.load(RunFolder(tmp_path).last_checkpoint).skipped == 1


def test_a_run_that_only_skips_stops_with_one_sentence(
    fakes: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    poison(fakes, set(range(3, 100)))
    with pytest.raises(InputError, match="stopped at step 53: 50 steps in a row were not finite"):
        train(small_config(steps=100), tmp_path)


def test_skipped_steps_in_a_row_are_counted_across_a_resume(fakes: pytest.MonkeyPatch, tmp_path: Path) -> None:
    poison(fakes, set(range(3, 100)))
    fakes.setattr(module, "SKIPPED_IN_ROW_LIMIT", 5)
    for resume in (False, True):  # from step 5, at which two of the five have been skipped
        with pytest.raises(InputError, match="stopped at step 8: 5 steps in a row were not finite"):
            train(small_config(), tmp_path, resume=resume)
    assert Checkpoint.load(RunFolder(tmp_path).last_checkpoint).skipped_in_row == 2


@pytest.mark.parametrize("precision", ["bf16", "16"])
def test_mixed_precision_trains(fakes: pytest.MonkeyPatch, tmp_path: Path, precision: str) -> None:
    train(small_config(precision=precision, steps=30), tmp_path)
    recorded = lines(tmp_path / "metrics.jsonl")
    assert recorded[-1]["loss"] < 0.7 * recorded[0]["loss"]
    checkpoint = Checkpoint.load(RunFolder(tmp_path).last_checkpoint)
    assert checkpoint.skipped == 0
    assert bool(checkpoint.scaler) == (precision == "16")
    assert all(tensor.dtype != torch.bfloat16 for tensor in checkpoint.detector.values())


def test_an_fp16_overflow_is_skipped_and_lowers_the_scale(
    fakes: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fakes.setattr(module, "INITIAL_LOSS_SCALE", 2.0**40)
    with caplog.at_level(logging.WARNING, logger="aqr"):
        train(small_config(precision="16", steps=40), tmp_path)
    checkpoint = Checkpoint.load(RunFolder(tmp_path).last_checkpoint)
    assert 0 < checkpoint.skipped < 40
    assert len(caplog.records) == checkpoint.skipped
    assert checkpoint.scaler["scale"] == 2.0 ** (40 - checkpoint.skipped)


def test_gradients_are_unscaled_before_they_are_clipped(fakes: pytest.MonkeyPatch, tmp_path: Path) -> None:
    norms = []
    for precision in ("32", "16"):
        train(small_config(precision=precision, steps=2, log_every=1, grad_clip=0.1), tmp_path / precision)
        norms.append([line["grad_norm"] for line in lines(tmp_path / precision / "metrics.jsonl")])
    assert norms[1] == pytest.approx(norms[0], rel=0.02)


def test_step_seeds_differ_between_runs_steps_and_ranks() -> None:
    seeds = {step_seed(seed, step, rank) for seed in range(4) for step in range(50) for rank in range(8)}
    assert len(seeds) == 4 * 50 * 8
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_window_survives_a_checkpoint() -> None:
    def result(loss: float, skipped: bool = False) -> StepResult:
        return StepResult(1, {"loss_cls": loss}, loss, 2.0, None, 0.1, skipped, None)

    window = Window()
    window.add(result(1.0), 0.5, 0.1)
    window.add(result(float("nan"), skipped=True), 0.3, 0.1)
    window = Window(json.loads(json.dumps(window.state())))
    window.add(result(2.0), 0.4, 0.1)
    means = window.means()
    assert means["loss"] == means["loss_cls"] == 1.5
    assert means["step_time_s"] == pytest.approx(0.4)


def test_a_second_run_in_a_folder_is_refused(fakes: pytest.MonkeyPatch, tmp_path: Path) -> None:
    train(small_config(steps=2), tmp_path)
    with pytest.raises(InputError, match="already holds a run; continue it with --resume"):
        train(small_config(steps=2), tmp_path)


def test_a_run_resumes_only_with_what_it_learned_by(fakes: pytest.MonkeyPatch, tmp_path: Path) -> None:
    train(small_config(steps=2), tmp_path)
    with pytest.raises(InputError, match=r"started with another train\.lr;"):
        train(small_config(steps=2, lr=0.1), tmp_path, resume=True)


def test_a_run_resumes_only_on_as_many_processes_as_it_was_started_on(
    fakes: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    train(small_config(steps=6), tmp_path)
    last = RunFolder(tmp_path).last_checkpoint
    saved = Checkpoint.load(last)
    assert saved.world_size == 1
    replace(saved, step=5, world_size=2).save(last)
    with pytest.raises(InputError, match=r"last\.ckpt: is of a run of 2 processes, and 1 would see other samples;"):
        train(small_config(steps=6), tmp_path, resume=True)
    old = torch.load(last, weights_only=True)
    del old["world_size"]
    torch.save(old, last)
    train(small_config(steps=6), tmp_path, resume=True)
    assert (Checkpoint.load(last).step, Checkpoint.load(last).world_size) == (6, 1)


def test_a_run_starts_from_given_weights_and_says_so(
    fakes: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(small_config(aqr=False, steps=1), tmp_path / "plain")
    final = RunFolder(tmp_path / "plain").final_weights
    starts = []
    original = module.TrainingModule.on_fit_start

    def spy(self: module.TrainingModule) -> None:
        starts.append({name: t.clone() for name, t in self.detector.state_dict().items()})
        original(self)

    fakes.setattr(module.TrainingModule, "on_fit_start", spy)
    with caplog.at_level(logging.INFO, logger="aqr"):
        train(small_config(steps=1, init_from=str(final)), tmp_path / "aqr")
    said = (tmp_path / "aqr" / "train.log").read_text()
    assert f"weights from {final}" in said
    assert "missing: " in said
    assert "aqr.router" in said
    expected = Checkpoint.load(RunFolder(tmp_path / "plain").last_checkpoint).detector
    torch.testing.assert_close({k: starts[0][k] for k in expected}, expected, rtol=0, atol=0)


def test_numbers_too_small_to_be_normal_count_as_zero_while_training(fakes: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # They take a CPU many times as long: in a trained detector two fifths of the step.
    def half() -> float:
        return (torch.tensor([1e-39]) * 0.5).item()

    seen = []
    original = module.TrainingModule.training_step

    def watching(self: module.TrainingModule, *arguments: Any) -> None:
        seen.append(half())
        original(self, *arguments)

    fakes.setattr(module.TrainingModule, "training_step", watching)
    assert half() > 0
    train(small_config(steps=2), tmp_path)
    assert seen == [0.0, 0.0]
    assert half() > 0
