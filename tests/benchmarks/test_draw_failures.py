"""The picture of docs/failures.md, drawn as its header says."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "draw_failures.py"


def call(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_it_says_what_it_takes() -> None:
    told = call("--help")
    assert told.returncode == 0, told.stderr
    assert "aqr synth" in told.stdout
    missing = call()
    assert missing.returncode == 2
    assert "Traceback" not in missing.stderr


def test_it_draws_every_failure_of_a_world(world: Path, tmp_path: Path) -> None:
    drawn = call(world, tmp_path / "out.jpg")
    assert drawn.returncode == 0, drawn.stderr
    assert (tmp_path / "out.jpg").read_bytes().startswith(b"\xff\xd8")
