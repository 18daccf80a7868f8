"""Numbers too small to be normal, below 1e-38, which trained detectors make and which take a CPU many times as long."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Such numbers count as zero in this thread, and in those that PyTorch starts meanwhile; afterwards as before."""
    before = (torch.tensor(1e-39) * 1.0).item() == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)
