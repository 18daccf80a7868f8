"""Runs in processes of their own: killed and resumed, and on two ranks."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import run_counts
import run_fake
import torch
from processes import Ended, start

from aqr.training.checkpoint import Checkpoint
from aqr.training.run_folder import RunFolder

SCRIPT = Path(__file__).parent / "run_fake.py"


def run(options: dict[str, Any], ranks: int = 1) -> Ended:
    return start(run_fake.run, options | {"output": Path(options["run_dir"]).with_suffix(".out")}, ranks)


def curve(folder: Path) -> list[dict[str, Any]]:
    recorded = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    clocks = {"step_time_s", "data_time_s", "memory_mb"}
    return [{k: v for k, v in line.items() if k not in clocks} for line in recorded]


@pytest.mark.parametrize("precision", ["32", "16"])
def test_a_killed_run_resumes_as_if_it_had_never_stopped(tmp_path: Path, precision: str) -> None:
    # Log steps (3), checkpoints (5) and the poisoned step do not fall together.
    settings = {"steps": 14, "log_every": 3, "precision": precision}
    common = {"train": settings, "poisoned": [[9, 0]]}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run(common | {"run_dir": whole}).codes == [0]
    assert run(common | {"run_dir": killed, "kill_at": 8}).codes == [-signal.SIGKILL]
    assert len(curve(killed)) == 2
    assert run(common | {"run_dir": killed, "kill_at": 13, "resume": True}).codes == [-signal.SIGKILL]
    finished = run(common | {"run_dir": killed, "resume": True})
    assert finished.codes == [0], finished.said
    assert "resuming after step 10" in finished.said
    assert curve(killed) == curve(whole)
    assert (killed / "aqr_stats.jsonl").read_text() == (whole / "aqr_stats.jsonl").read_text()
    ends = [Checkpoint.load(RunFolder(folder).last_checkpoint) for folder in (whole, killed)]
    torch.testing.assert_close(ends[1].detector, ends[0].detector, rtol=0, atol=0)
    torch.testing.assert_close(ends[1].optimizer, ends[0].optimizer, rtol=0, atol=0)
    assert (ends[1].skipped, ends[1].step, ends[1].scaler) == (1, 14, ends[0].scaler)


def test_a_run_killed_before_its_first_checkpoint_starts_again(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    settings = {"train": {"steps": 6}}
    assert run(settings | {"run_dir": whole}).codes == [0]
    assert run(settings | {"run_dir": killed, "kill_at": 3}).codes == [-signal.SIGKILL]
    assert run(settings | {"run_dir": killed, "resume": True}).codes == [0]
    assert curve(killed) == curve(whole)


def test_two_ranks_start_by_themselves_and_lightning_stays_silent(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    # Without AQR the fake uses all of its parameters, which DDP would remark on.
    options = {"run_dir": str(folder), "aqr": False, "train": {"steps": 4, "devices": 2, "lr_mult": {}}}
    inherited = {k: v for k, v in os.environ.items() if k not in {"LOCAL_RANK", "WORLD_SIZE", "NODE_RANK"}}
    result = subprocess.run(
        [sys.executable, str(SCRIPT), json.dumps(options)],
        env=inherited | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    said = [line.split("  ")[0] for line in result.stderr.splitlines()]
    assert said == [f"training 4 steps in {folder}", "step 2/4", "step 4/4"]
    assert result.stdout == ""
    assert {p.name for p in folder.iterdir()} == {
        "config.yaml",
        "metrics.jsonl",
        "train.log",
        "checkpoints",
        "tensorboard",
    }


def test_two_ranks_train_as_one_process_on_the_joint_batch(tmp_path: Path) -> None:
    train = {"steps": 6, "checkpoint_every": 3}
    two = run({"run_dir": tmp_path / "two", "deterministic": True, "train": train | {"devices": 2}}, ranks=2)
    assert two.codes == [0, 0], two.said
    one = run({"run_dir": tmp_path / "one", "deterministic": True, "joint_ranks": 2, "train": train})
    assert one.codes == [0], one.said
    for ours, expected in zip(curve(tmp_path / "two"), curve(tmp_path / "one"), strict=True):
        assert ours == pytest.approx(expected, rel=1e-4)
    ends = [Checkpoint.load(RunFolder(tmp_path / name).last_checkpoint) for name in ("two", "one")]
    torch.testing.assert_close(ends[0].detector, ends[1].detector, rtol=1e-4, atol=1e-5)
    assert [end.world_size for end in ends] == [2, 1]
    snapshot = json.loads((tmp_path / "two" / "aqr_stats.jsonl").read_text().splitlines()[0])
    pooled = json.loads((tmp_path / "one" / "aqr_stats.jsonl").read_text().splitlines()[0])
    assert (snapshot["ranks"], pooled["ranks"]) == (2, 1)
    for group in ("weight_map_bev", "modulation_bev"):
        figures = {k: v for k, v in pooled[group].items() if k != "shape"}
        assert {k: v for k, v in snapshot[group].items() if k != "shape"} == pytest.approx(figures, rel=1e-3)


def test_a_step_poisoned_on_one_rank_is_skipped_on_both(tmp_path: Path) -> None:
    settings = {"train": {"steps": 6, "devices": 2, "checkpoint_every": 3}, "trace": True}
    result = run(settings | {"run_dir": tmp_path / "bad", "poisoned": [[4, 1]]}, ranks=2)
    assert result.codes == [0, 0], result.said
    assert result.said.count("skipped, nothing was updated") == 1
    assert "step 5 skipped, nothing was updated: a LiDAR point is not finite" in result.said
    assert Checkpoint.load(RunFolder(tmp_path / "bad").last_checkpoint).skipped == 1
    traces = [torch.load(tmp_path / "bad" / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    for trace in traces:
        torch.testing.assert_close(trace[4], trace[3], rtol=0, atol=0)
        assert not torch.equal(trace[5]["encoder.weight"], trace[4]["encoder.weight"])
    parameters = [k for k in traces[0][0] if "running" not in k]
    for step in range(6):
        for name in parameters:
            assert torch.equal(traces[0][step][name], traces[1][step][name])


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two ranks that differ have told each other."""
    folder = tmp_path_factory.mktemp("told")
    ended = start(run_counts.tell, {"folder": folder, "output": folder / "said"}, ranks=2)
    assert ended.codes == [0, 0], ended.said
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]


def test_a_layer_that_one_rank_uses_learns_on_both(told: list[dict[str, Any]]) -> None:
    for first, second in zip(told[0]["steps"], told[1]["steps"], strict=True):
        assert {name.partition(".")[0] for name in first["own"]} == {"shared"}
        assert {name.partition(".")[0] for name in second["own"]} == {"shared", "other"}
        assert first["averaged"].keys() == second["averaged"].keys() == second["own"].keys()
        for name, gradient in second["own"].items():
            expected = (gradient + first["own"].get(name, torch.zeros(()))) / 2
            assert expected.abs().max() > 0.1
            for rank in (first, second):
                torch.testing.assert_close(rank["averaged"][name], expected)
        torch.testing.assert_close(first["weights"], second["weights"], rtol=0, atol=0)
    before, after = (step["weights"] for step in told[0]["steps"])
    changed = {name.partition(".")[0] for name in after if not torch.equal(before[name], after[name])}
    assert changed == {"shared", "other"}


def test_losses_are_divided_by_the_mean_of_the_ranks_counts_and_by_one_at_least(told: list[dict[str, Any]]) -> None:
    for rank in told:
        assert rank["counts"].tolist() == [5.5, 1.0, 2.5, 1.0]
