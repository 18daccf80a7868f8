"""Values on their way from a GPU, while the host does something else."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def host_like(values: Tensor) -> Tensor:
    """Host memory for values of this shape, page-locked where they come from a GPU."""
    return torch.empty_like(values, device="cpu", pin_memory=values.is_cuda)


def on_its_way(values: Tensor, host: Tensor) -> Callable[[], None]:
    """Copy values to host memory; what is returned waits until they are there, and for nothing that is launched later.

    Args:
        values: of any device.
        host: of `host_like`.
    """
    host.copy_(values, non_blocking=True)
    return launched(values.device)


def launched(device: torch.device) -> Callable[[], None]:
    """What waits until all that has been launched on a device so far is done, and for nothing launched later."""
    if device.type != "cuda":
        return lambda: None
    done = torch.cuda.Event()  # type: ignore[no-untyped-call]
    done.record()
    return done.synchronize
