"""Run folders."""

from pathlib import Path

import pytest

from aqr.config import Config, load
from aqr.errors import InputError
from aqr.training.run_folder import RunFolder, append_line


def test_a_folder_is_started_once(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    config = Config(seed=4)
    folder.start(config)
    assert load(folder.config) == config
    assert folder.load_config() == config
    with pytest.raises(InputError, match="--resume"):
        folder.start(config)


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no run"):
        RunFolder(tmp_path).load_config()


def test_lines_after_an_iteration_and_a_line_cut_short_go(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for iteration in (5, 10, 15):
        append_line(folder.metrics, {"iteration": iteration, "loss": 0.5})
        append_line(folder.statistics, {"forward": iteration, "ranks": 1})
    before = folder.metrics.read_text().splitlines()
    with folder.metrics.open("a") as file:
        file.write('{"iteration": 20, "lo')
    folder.forget_after(10)
    assert folder.metrics.read_text().splitlines() == before[:2]
    assert len(folder.statistics.read_text().splitlines()) == 2


def test_a_line_never_holds_what_json_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        append_line(tmp_path / "metrics.jsonl", {"loss": float("nan")})
