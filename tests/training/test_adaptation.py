"""Settings that move while a detector trains: recorded, restored, and the same on all ranks."""

import itertools
import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import run_adaptive
import torch
from processes import start
from run_adaptive import SeeingDetector, StoppingLoader, config_of
from test_whole_line import tiny
from training_fakes import NoEvaluation

from aqr.config import parse
from aqr.errors import InputError
from aqr.training import fit, load_detector, train
from aqr.training.adaptation import Adaptation, apply_settings, settings_of
from aqr.training.checkpoint import Checkpoint, Trained
from aqr.training.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("on_cpu")

CONTROLLER = {"controller": {"enabled": True, "every": 2, "band": [0.05, 0.06], "residual_rate": 0.02}}
SCHEDULE = {
    "schedule": {
        "max_weight_clamp": {"kind": "linear", "start": 1.0},
        "residual_weight": {"kind": "warmup", "start": 1.0, "until": 0.5},
    }
}


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(fit, "Detector", SeeingDetector)
    monkeypatch.setattr(fit, "Evaluation", NoEvaluation)
    stop(monkeypatch, -1)
    return monkeypatch


def stop(patch: pytest.MonkeyPatch, at: int) -> None:
    def loader(config: Any, rank: int, world_size: int, start: int) -> StoppingLoader:
        made = StoppingLoader(config, [rank], start)
        made.stop_at = at
        return made

    patch.setattr(fit, "train_loader", loader)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_controller_moves_a_real_run_and_says_so(fakes: pytest.MonkeyPatch, tmp_path: Path) -> None:
    train(config_of(CONTROLLER), tmp_path)
    recorded = lines(tmp_path / "aqr_stats.jsonl")
    # Snapshots at multiples of 6, measurements at multiples of 2.
    assert [line["forward"] for line in recorded] == list(range(2, 25, 2))
    assert sorted(int(path.stem) for path in (tmp_path / "maps").iterdir()) == [6, 12, 18, 24]
    assert all(line["controller"]["measured"] == line["modulation_pers"]["relative_change"] for line in recorded)
    residuals = [line["settings"]["residual_weight"] for line in recorded]
    assert residuals[0] == 0.7
    assert residuals[1] == recorded[0]["controller"]["residual_weight"] != 0.7
    assert max(abs(b - a) for a, b in itertools.pairwise(residuals)) <= 0.02 + 1e-12
    assert [line["residual_weight"] for line in lines(tmp_path / "metrics.jsonl")][-1] == residuals[-1]
    # What is left behind is what a later evaluation computes with.
    final = recorded[-1]["controller"]
    for path in (RunFolder(tmp_path).final_weights, RunFolder(tmp_path).last_checkpoint):
        moved = Trained.read(path).adaptation
        assert {name: moved[name] for name in ("residual_weight", "max_weight_clamp")} == {
            name: final[name] for name in ("residual_weight", "max_weight_clamp")
        }
    detector = SeeingDetector(config_of(CONTROLLER))
    apply_settings(detector.aqr, moved)
    assert settings_of(detector.aqr)["residual_weight"] == final["residual_weight"]


@pytest.mark.parametrize(("start", "first"), [(0, 2), (3, 4), (4, 6), (5, 6)])
def test_the_first_measurement_comes_after_the_steps_before_it(start: int, first: int) -> None:
    adaptation = Adaptation(config_of({"controller": CONTROLLER["controller"] | {"start": start}}))
    assert [step for step in range(1, 11) if adaptation.measures(step)] == list(range(first, 11, 2))


@pytest.mark.parametrize("aqr", [CONTROLLER, SCHEDULE], ids=["controller", "schedule"])
def test_a_resumed_run_is_bitwise_the_uninterrupted_one(
    fakes: pytest.MonkeyPatch, tmp_path: Path, aqr: dict[str, Any]
) -> None:
    whole, halted = tmp_path / "whole", tmp_path / "halted"
    train(config_of(aqr), whole)
    stop(fakes, 13)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(config_of(aqr), halted)
    assert len(lines(halted / "metrics.jsonl")) == 4
    stop(fakes, -1)
    train(config_of(aqr), halted, resume=True)
    assert (halted / "aqr_stats.jsonl").read_text() == (whole / "aqr_stats.jsonl").read_text()
    ends = [Checkpoint.load(RunFolder(folder).last_checkpoint) for folder in (whole, halted)]
    assert ends[0].adaptation == ends[1].adaptation != {}
    torch.testing.assert_close(ends[1].detector, ends[0].detector, rtol=0, atol=0)


def test_a_schedule_is_followed_and_ends_at_the_config(fakes: pytest.MonkeyPatch, tmp_path: Path) -> None:
    train(config_of(SCHEDULE | {"renderer": {"max_weight_clamp": 2.5}}), tmp_path)
    at = {line["iteration"]: line for line in lines(tmp_path / "metrics.jsonl")}
    for iteration in (3, 12, 24):
        progress = (iteration - 1) / 23
        assert at[iteration]["max_weight_clamp"] == pytest.approx(1 + 1.5 * progress)
        assert at[iteration]["residual_weight"] == pytest.approx(1 - 0.3 * min(progress / 0.5, 1))
    assert Trained.read(RunFolder(tmp_path).final_weights).adaptation == {
        "max_weight_clamp": 2.5,
        "residual_weight": 0.7,
    }


def test_both_ranks_use_the_same_settings_at_every_step(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = {"run_dir": folder, "aqr": CONTROLLER, "train": {"steps": 12, "devices": 2}}
    ended = start(run_adaptive.run, options | {"output": tmp_path / "said"}, ranks=2)
    assert ended.codes == [0, 0], ended.said
    first, second = ((folder / f"settings{rank}.json").read_text() for rank in (0, 1))
    assert first == second
    assert len({entry["residual_weight"] for entry in json.loads(first)}) > 3
    assert {line["ranks"] for line in lines(folder / "aqr_stats.jsonl")} == {2}


def test_a_band_out_of_reach_is_said_once(
    fakes: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = {"enabled": True, "every": 1, "band": [3.0, 4.0], "residual_rate": 0.2, "clamp_rate": 0.5, "patience": 2}
    with caplog.at_level(logging.WARNING):
        train(config_of({"controller": wanted}), tmp_path)
    assert sum("cannot bring relative_change" in record.getMessage() for record in caplog.records) == 1
    assert Trained.read(RunFolder(tmp_path).final_weights).adaptation["controller"]["stopped"]


def test_an_evaluation_computes_with_the_settings_that_training_arrived_at(world: Path, tmp_path: Path) -> None:
    """On a real detector: what is loaded from the run, its weights and its checkpoint is where the controller was."""
    wanted = {"enabled": True, "every": 1, "band": [0.01, 0.02], "residual_rate": 0.05}
    aqr = parse({"aqr": {"modulator": {"gate": False}, "controller": wanted}}).aqr
    run = train(tiny(world, steps=3).model_copy(update={"aqr": aqr}), tmp_path / "run", show=False)
    last = lines(run / "aqr_stats.jsonl")[-1]["controller"]
    assert last["residual_weight"] == pytest.approx(0.85)
    for source in (run, RunFolder(run).final_weights, RunFolder(run).last_checkpoint):
        detector, _ = load_detector(source)
        assert detector.aqr is not None
        assert detector.aqr.residual_weight == last["residual_weight"]


def test_nothing_moves_and_nothing_is_recorded_by_default(fakes: pytest.MonkeyPatch, tmp_path: Path) -> None:
    train(config_of({}, steps=6), tmp_path)
    assert not Adaptation(config_of({})).moves
    assert "max_weight_clamp" not in lines(tmp_path / "metrics.jsonl")[0]
    assert "settings" not in lines(tmp_path / "aqr_stats.jsonl")[0]
    assert Trained.read(RunFolder(tmp_path).final_weights).adaptation == {}


@pytest.mark.parametrize(
    ("aqr", "said"),
    [
        ({"controller": {"enabled": True}}, "gate: false"),
        ({"controller": {"enabled": True}, "modulator": {"gate": False, "form": "additive"}}, "form: convex"),
        ({"controller": {"enabled": True}, "modulator": {"gate": False, "residual_weight": 1}}, "below 1"),
        ({"controller": {"enabled": True}, **SCHEDULE, "modulator": {"gate": False}}, "leave one of them out"),
        (
            {"controller": {"enabled": True}, "modulator": {"gate": False, "residual_weight": {"default": 0.7}}},
            "is a mapping",
        ),
        ({**SCHEDULE, "modulator": {"residual_weight": {"default": 0.7}}}, "is a mapping"),
        ({"schedule": {"max_weight_clamp": {"kind": "linear", "start": 0.5}}}, "at least 1"),
        ({"controller": {"band": [0.3, 0.2]}}, "runs backwards"),
        ({"modulator": {"residual_weight": {"default": 0.7, "bike": 0.9}}}, "no class 'bike'"),
        ({"modulator": {"residual_weight": {"bicycle": 0.9}}}, "needs `default`"),
        ({"modulator": {"residual_weight": {"default": 0.7, "bicycle": 1.9}}}, "aqr.modulator.residual_weight.bicycle"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(aqr: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match="aqr") as caught:
        parse({"aqr": aqr})
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_residuals_of_classes_come_in_the_order_of_the_taxonomy() -> None:
    modulator = parse({"aqr": {"modulator": {"residual_weight": {"default": 0.7, "bicycle": 0.9}}}}).aqr.modulator
    assert modulator.class_residuals == (0.7,) * 7 + (0.9,) + (0.7,) * 2
    assert modulator.default_residual == 0.7
    assert parse({}).aqr.modulator.class_residuals is None
    assert math.isclose(parse({}).aqr.modulator.default_residual, 0.7)
