"""The scaling benchmark at toy size: two ranks on the CPU agree, and skip a poisoned step together."""

import json
import multiprocessing
import subprocess
import sys
import time
from pathlib import Path

import pytest
from benchmarks.ddp import place, see_to_the_end

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "ddp.py"


@pytest.mark.timeout(200)
def test_two_ranks_agree(tmp_path: Path) -> None:
    out = tmp_path / "ddp.json"
    arguments = ["--toy", "--ranks", "2", "--steps", "4", "--warm-up", "1", "--out", str(out)]
    ended = subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    (run,) = json.loads(out.read_text())["runs"]
    assert run["ranks"] == 2
    assert run["weights_equal"]
    assert run["nan_skipped_everywhere"]
    assert run["statistics_pooled"]
    assert run["step_ms"] > 0
    assert 0 < run["first_step_s"] < run["first_counted_s"] < run["last_step_s"] < run["all_s"]
    assert [line.split(" ended")[0].strip() for line in ended.stdout.splitlines() if " ended" in line] == [
        "step 1",
        "step 2",
        "step 4",
    ]


def slow(rank: int) -> None:
    if rank:
        raise ValueError("this rank fails")
    time.sleep(60)


def test_ranks_do_not_wait_for_one_that_failed() -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=slow, args=(rank,)) for rank in range(2)]
    began = time.monotonic()
    for process in processes:
        process.start()
    with pytest.raises(RuntimeError, match="one failed"):
        see_to_the_end(processes, began + 50)
    assert time.monotonic() - began < 30
    lasting = [context.Process(target=slow, args=(0,))]
    lasting[0].start()
    with pytest.raises(RuntimeError, match=r"\[0\] had not ended"):
        see_to_the_end(lasting, time.monotonic())


def test_every_rank_has_a_gpu_of_its_own_and_calls_it_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [place(rank, 2, 1)["CUDA_VISIBLE_DEVICES"] for rank in range(2)] == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-7")
    assert [place(rank, 2, 1)["CUDA_VISIBLE_DEVICES"] for rank in range(2)] == ["4", "GPU-7"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert place(0, 1, 1) == {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
