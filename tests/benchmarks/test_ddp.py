"""The scaling benchmark at toy size: two ranks on the CPU agree, and skip a poisoned step together."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

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
