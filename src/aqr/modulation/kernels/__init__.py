"""Fused GPU kernels in Triton for what route, render and modulate say in plain PyTorch.

The plain forms are the reference: they run everywhere, in every dtype, and the tests compare. `fused` says which of
the two a call takes.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os

import torch
from torch import Tensor

SWITCH = os.environ.get("AQR_FUSED", "auto")
"""`0`: never. `1`: also on a CPU, through Triton's interpreter (with TRITON_INTERPRET=1). Else on a GPU."""

INSTALLED = importlib.util.find_spec("triton") is not None

INDEXABLE = 2**31
"""Kernels count in 32 bits."""

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.bool)


def fused(*tensors: Tensor | None) -> bool:
    """Whether the kernels take these tensors: on a CUDA device, of at most 32 bits, with Triton installed."""
    if not INSTALLED or SWITCH == "0":
        return False
    given = [tensor for tensor in tensors if tensor is not None]
    if any(tensor.dtype not in DTYPES or tensor.numel() >= INDEXABLE for tensor in given):
        return False
    if given[0].is_cuda:
        return True
    # The interpreter multiplies matrices of bf16 by their bits.
    return SWITCH == "1" and all(tensor.dtype != torch.bfloat16 for tensor in given)


def launching(tensor: Tensor) -> contextlib.AbstractContextManager[object]:
    """Makes the GPU of a tensor the current one, on which Triton launches; compiled code sees to that by itself."""
    if torch.compiler.is_compiling() or not tensor.is_cuda:
        return contextlib.nullcontext()
    return torch.cuda.device(tensor.device)


def power_of_two(n: int) -> int:
    """The least power of two that is not below n: the sizes of blocks that Triton allows."""
    return 1 << max(n - 1, 0).bit_length()
