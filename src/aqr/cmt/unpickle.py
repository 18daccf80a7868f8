"""Pickles that hold plain values and NumPy arrays, read without calling anything that they name.

A pickle is a program: it names functions and has them called. This reader knows the handful of names that NumPy
arrays are written with, answers each with a stand-in of its own, and refuses every other name. Arrays are then made
here from their raw bytes, so that not even NumPy's own functions for unpickling see the file's content.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from aqr.errors import InputError

PLAIN: Final = (str, bytes, int, float, bool, type(None))
KINDS: Final = "biufUS"
"""Kinds of NumPy numbers and texts; arrays of Python objects are none of them."""


class Refusal(pickle.UnpicklingError):
    """What a pickle asked for and did not get, in words that continue `it …`."""


class _Frozen:
    """What a pickle is given in place of a name: it can be called or passed on, never changed."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        raise Refusal("changes what it was only given to use")

    def __setattr__(self, name: str, value: object) -> None:
        raise Refusal("changes what it was only given to use")


class _Function(_Frozen):
    __slots__ = ("_apply",)
    _apply: Callable[..., Any]

    def __init__(self, apply: Callable[..., Any]) -> None:
        object.__setattr__(self, "_apply", apply)

    def __call__(self, *arguments: Any) -> Any:
        return self._apply(*arguments)


class _Name(_Frozen):
    __slots__ = ()


class _Dtype:
    """A kind of number or text, in the bytes' own order."""

    __slots__ = ("order", "spec")

    def __init__(self, spec: str) -> None:
        self.spec, self.order = spec, "="

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise Refusal("holds a NumPy type that is none")
        if any(part is not None for part in state[2:5]):
            raise Refusal("holds a NumPy array of records or objects")
        self.order = state[1]

    @property
    def real(self) -> np.dtype[Any]:
        return np.dtype(self.spec).newbyteorder(self.order)  # type: ignore[arg-type]


class _Array:
    """An array whose shape and bytes are still to come."""

    __slots__ = ("value",)

    def __init__(self, value: np.ndarray[Any, Any] | None = None) -> None:
        self.value = value

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise Refusal("holds a NumPy array of another form than NumPy writes")
        _, shape, dtype, fortran, raw = state
        self.value = _array(raw, dtype, shape, "F" if fortran else "C")


def _make_dtype(spec: object, *_: object) -> _Dtype:
    try:
        kind = np.dtype(spec).kind if isinstance(spec, str) and len(spec) < 16 else ""
    except (TypeError, ValueError, SyntaxError):
        kind = ""
    if kind not in KINDS or not kind:
        raise Refusal("holds a NumPy array of records or objects")
    return _Dtype(str(spec))


def _array(raw: object, dtype: object, shape: object, order: object) -> np.ndarray[Any, Any]:
    if not isinstance(raw, bytes | bytearray) or not isinstance(dtype, _Dtype) or order not in ("C", "F"):
        raise Refusal("holds a NumPy array of another form than NumPy writes")
    sizes = shape if isinstance(shape, tuple) else (shape,)
    if not all(isinstance(size, int) and size >= 0 for size in sizes):
        raise Refusal("holds a NumPy array of another form than NumPy writes")
    real = dtype.real
    if not real.itemsize or math.prod(sizes) * real.itemsize != len(raw):
        raise Refusal("holds a NumPy array whose bytes do not fill its shape")
    return np.frombuffer(bytes(raw), real).reshape(sizes, order=order).copy()


def _scalar(dtype: object, raw: object) -> Any:
    return _array(raw, dtype, (), "C").item()


def _encode(text: object, encoding: object = "latin1", *_: object) -> bytes:
    """How protocols before 3 write bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise Refusal("asks for _codecs.encode of no bytes")
    return text.encode("latin-1")


def _no_bytes(*arguments: object) -> bytes:
    """How protocols before 3 write the empty bytes."""
    if arguments:
        raise Refusal("asks for a call of bytes with arguments")
    return b""


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _from_buffer(raw: object, dtype: object, shape: object, order: object) -> _Array:
    return _Array(_array(raw, dtype, shape, order))


def _ordered(pairs: object = ()) -> dict[Any, Any]:
    if not isinstance(pairs, list | tuple):
        raise Refusal("holds a mapping of another form than Python writes")
    return dict(pairs)


_KNOWN: Final[Mapping[tuple[str, str], Callable[[], _Frozen]]] = {
    ("numpy", "ndarray"): _Name,
    ("numpy", "dtype"): lambda: _Function(_make_dtype),
    ("_codecs", "encode"): lambda: _Function(_encode),
    ("__builtin__", "bytes"): lambda: _Function(_no_bytes),
    ("collections", "OrderedDict"): lambda: _Function(_ordered),
    **{
        (f"numpy.{core}.{module}", name): (lambda made=made: _Function(made))  # type: ignore[misc]
        for core in ("core", "_core")
        for module, name, made in (
            ("multiarray", "_reconstruct", _reconstruct),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _from_buffer),
        )
    },
}
"""Every name that a pickle may use, and its stand-in."""


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        stand_in = _KNOWN.get((module, name))
        if stand_in is None:
            raise Refusal(f"asks for {module}.{name}, which is neither a plain value nor a NumPy array")
        return stand_in()

    def persistent_load(self, pid: object) -> Any:
        raise Refusal("refers to objects outside the file")


def read_plain(content: bytes) -> Any:
    """The value of a pickle: dictionaries, lists, tuples, sets, texts, numbers and NumPy arrays of those.

    Raises:
        Refusal: if it asks for anything else, which is named.
        pickle.UnpicklingError: if it is damaged.
    """
    try:
        value = _Reader(io.BytesIO(content)).load()
        return _finish(value)
    except pickle.UnpicklingError:
        raise
    except RecursionError:
        raise Refusal("is nested too deeply") from None
    except Exception as error:  # arbitrary bytes fail in arbitrary ways
        raise pickle.UnpicklingError(f"is no complete pickle ({type(error).__name__})") from None


def load_plain(path: Path, mend: str) -> Any:
    """The value of a pickle file, see `read_plain`.

    Args:
        path: the file.
        mend: what to give instead, for errors.

    Raises:
        InputError: if the file is missing, damaged or asks for anything but plain values and NumPy arrays.
    """
    try:
        return read_plain(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {mend}") from None
    except Refusal as error:
        raise InputError(f"{path}: was not read, because it {error}; {mend}") from None
    except pickle.UnpicklingError:
        raise InputError(f"{path}: is no complete pickle file; {mend}") from None


def _finish(value: Any) -> Any:
    """The value with finished arrays in place of stand-ins; a stand-in that is no value is refused."""
    if isinstance(value, (*PLAIN, np.ndarray)):
        return value
    if isinstance(value, _Array):
        if value.value is None:
            raise Refusal("holds a NumPy array without content")
        return value.value
    if isinstance(value, dict):
        return {key if isinstance(key, str) else _finish(key): _finish(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finish(item) for item in value]
    if isinstance(value, tuple):
        return tuple(_finish(item) for item in value)
    if isinstance(value, set | frozenset):
        return {_finish(item) for item in value}
    if isinstance(value, bytearray):
        return bytes(value)
    if isinstance(value, complex | _Dtype | _Frozen):
        raise Refusal("holds a name in place of a value")
    raise Refusal(f"holds a {type(value).__name__}")
