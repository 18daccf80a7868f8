"""Checkpoints of the mm world: `.pth` files, read without running anything that is in them."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from aqr.errors import InputError

MEND: Final = "give the .pth file that CMT's training wrote, such as epoch_20.pth"

_MAKE_SCALAR: Final = np.float64(0.0).__reduce__()[0]

SCALARS: Final[list[Any]] = [
    (_MAKE_SCALAR, "numpy.core.multiarray.scalar"),
    (_MAKE_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(code)) for code in ("?", "u1", "i4", "i8", "f4", "f8")),
]
"""What NumPy numbers are made of; mmcv leaves some among an optimizer's settings."""


@dataclass(frozen=True)
class CmtCheckpoint:
    """What a checkpoint holds.

    Attributes:
        path: the file.
        tensors: the weights by CMT's names; of parameters kept twice (moving averages), the ones that count.
        others: names in the state_dict that stand for no tensor.
        settings: the plain values at the top of the config that mmcv stored with the weights, empty without one.
    """

    path: Path
    tensors: dict[str, Tensor]
    others: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)


def read_checkpoint(path: Path) -> CmtCheckpoint:
    """Read a `.pth` file with PyTorch's restricted unpickler (`weights_only=True`).

    Raises:
        InputError: if the file is missing or damaged, holds more than tensors and plain values (which is named), or
            no weights.
    """
    values = _load(path)
    weights = values.get("state_dict", values)
    if not isinstance(weights, Mapping):
        raise InputError(f"{path}: its state_dict is a {type(weights).__name__}, no mapping of names; {MEND}")
    prefix = "module." if weights and all(str(name).startswith("module.") for name in weights) else ""
    named = {str(name).removeprefix(prefix): value for name, value in weights.items()}
    tensors = {name: value for name, value in named.items() if isinstance(value, Tensor)}
    if not tensors:
        raise InputError(f"{path}: holds no tensors by name; {MEND}")
    meta = values.get("meta")
    text = meta.get("config") if isinstance(meta, Mapping) else None
    return CmtCheckpoint(
        path,
        tensors,
        tuple(name for name in named if name not in tensors),
        literals(text) if isinstance(text, str) else {},
    )


def literals(source: str) -> dict[str, Any]:
    """The assignments of plain values at the top of a Python file, which is parsed and never run.

    Args:
        source: text of a config of mmcv.

    Returns:
        Values by name; `dict(...)` calls count as dictionaries, what is no plain value is left out. Empty where the
        text is no Python.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    found: dict[str, Any] = {}
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target = statement.targets[0]
            if isinstance(target, ast.Name):
                value = _plain(statement.value, found)
                if value is not None:
                    found[target.id] = value
    return found


def _plain(node: ast.expr, known: Mapping[str, Any]) -> Any:
    """The value of a literal, of a `dict(...)` or of a name assigned before; None for anything else."""
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return known.get(name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            value = _plain(operand, known)
            return -value if isinstance(value, int | float) else None
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_plain(item, known) for item in items]
        case ast.Dict(keys=keys, values=values):
            pairs = zip(keys, values, strict=True)
            return {_plain(key, known): _plain(value, known) for key, value in pairs if isinstance(key, ast.Constant)}
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=keywords):
            return {word.arg: _plain(word.value, known) for word in keywords if word.arg is not None}
    return None


def _load(path: Path) -> dict[Any, Any]:
    if not path.is_file():
        raise InputError(f"{path}: does not exist or is no file; {MEND}")
    try:
        with warnings.catch_warnings(), safe_globals(SCALARS):
            warnings.simplefilter("ignore")
            values = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # arbitrary bytes fail in the restricted unpickler, and in safetensors, in arbitrary ways
        raise InputError(f"{path}: {_refusal(path)}; {MEND}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: holds a {type(values).__name__} instead of weights by name; {MEND}")
    return values


def _refusal(path: Path) -> str:
    """Why a file was not read: what it names that is neither a tensor nor a plain value, or that it is damaged."""
    try:
        with safe_globals(SCALARS):
            names = get_unsafe_globals_in_checkpoint(path)
    except Exception:  # arbitrary bytes fail in arbitrary ways
        names = []
    if names:
        return f"was not read, because it asks for {', '.join(sorted(names)[:3])}, which could run code"
    return "cannot be read (cut short, damaged, or holding more than tensors and plain values)"
