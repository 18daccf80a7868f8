"""Lets the tests of this folder, and the processes they start, import the fakes beside them."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A config for the fake trials."""
    path = tmp_path / "small.yaml"
    path.write_text("train: {steps: 30, val_every: 10, devices: 1}\n")
    return path
