"""Lets the tests of this folder, and the processes they start, import the fakes beside them."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="module")
def on_cpu() -> Iterator[None]:
    """Train on the CPU also where there is a GPU, whose rounding differs from run to run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        yield
