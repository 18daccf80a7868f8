"""Pickles: plain values and arrays come back as they were, everything else is refused by name and runs nothing."""

import builtins
import codecs
import functools
import operator
import os
import pickle
import struct
import subprocess
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from aqr.cmt.infos import read_infos
from aqr.cmt.unpickle import Refusal, read_plain
from aqr.errors import InputError

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)
DTYPES = st.sampled_from(["f8", "f4", "f2", "i8", "i4", "u1", "?", ">f8", "<i2", "U7", "S3"])


@given(PLAIN, st.integers(0, 5))
def test_plain_values(value: Any, protocol: int) -> None:
    assert read_plain(pickle.dumps(value, protocol)) == value


@given(hnp.arrays(DTYPES, hnp.array_shapes(min_dims=0, max_dims=3, max_side=4)), st.integers(0, 5), st.booleans())
def test_arrays(array: np.ndarray, protocol: int, fortran: bool) -> None:
    array = np.asfortranarray(array) if fortran else array
    got = read_plain(pickle.dumps({"a": array, "same": [array]}, protocol))
    for one in (got["a"], got["same"][0]):
        assert type(one) is np.ndarray
        assert one.dtype == array.dtype
        np.testing.assert_array_equal(one, array)


@pytest.mark.parametrize("number", [np.float64(1.5), np.float32(2.5), np.int64(-3), np.bool_(True), np.str_("car")])
def test_numpy_numbers_become_pythons(number: Any) -> None:
    got = read_plain(pickle.dumps(number))
    assert type(got) in (float, int, bool, str)
    assert got == number


def test_names_of_older_and_newer_numpy() -> None:
    array = np.arange(6.0).reshape(2, 3)
    content = pickle.dumps(array, 4)
    old, new = b"numpy.core.multiarray", b"numpy._core.multiarray"
    for wanted, present in ((old, new), (new, old)):
        if present in content:
            swapped = content.replace(
                b"\x8c" + bytes([len(present)]) + present, b"\x8c" + bytes([len(wanted)]) + wanted
            )
            frame = struct.pack("<Q", struct.unpack("<Q", content[3:11])[0] + len(wanted) - len(present))
            swapped = content[:3] + frame + swapped[11:]
            np.testing.assert_array_equal(read_plain(swapped), array)


def test_an_ordered_mapping_is_a_mapping() -> None:
    assert read_plain(pickle.dumps(OrderedDict(a=1, b=[2]))) == {"a": 1, "b": [2]}


class Call:
    """Pickles as a call of a function, whatever the function is."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, state: Any = None) -> None:
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.parts


def gadgets(mark: Path) -> dict[str, Any]:
    """Known forms of malicious pickles; each would leave `mark` behind or give access to what could."""
    touch = f"open({str(mark)!r}, 'w')"
    return {
        "os.system": Call(os.system, f"touch {mark}"),
        "subprocess.Popen": Call(subprocess.Popen, ["touch", str(mark)]),
        "subprocess.check_output": Call(subprocess.check_output, ["touch", str(mark)]),
        "builtins.eval": Call(eval, touch),
        "builtins.exec": Call(exec, touch),
        "builtins.open": Call(builtins.open, str(mark), "w"),
        "builtins.getattr": Call(getattr, "", "join"),
        "builtins.__import__": Call(__import__, "antigravity"),
        "operator.attrgetter": Call(operator.attrgetter, "system"),
        "functools.partial": Call(functools.partial, os.system, f"touch {mark}"),
        "codecs.decode": Call(codecs.decode, "x", "rot13"),
        "pickle.loads": Call(pickle.loads, pickle.dumps(Call(os.system, f"touch {mark}"))),
        "numpy.load": Call(np.load, "x.npy", None, True),
        "numpy.fromfile": Call(np.fromfile, "/etc/hostname"),
        "path": Path("/tmp/x"),
        "type": str,
        "lambda's module": Call(map, os.system, ["true"]),
        "exception": ValueError("x"),
        "object array": np.array([{"a": 1}, None], dtype=object),
        "records": np.zeros(2, dtype=[("a", "f8"), ("b", "i4")]),
        "dates": np.array(["2020-01-01"], dtype="M8[D]"),
        "complex": 1j,
        "a range": range(3),
    }


RAW = {
    "protocol 0 call": b"cposix\nsystem\n(S'touch MARK'\ntR.",
    "instance opcode": b"(S'touch MARK'\nios\nsystem\n.",
    "object opcode": b"(cos\nsystem\nS'touch MARK'\no.",
    "newobj": b"\x80\x02cbuiltins\nobject\n)\x81.",
    "newobj_ex": b"\x80\x04\x8c\x08builtins\x8c\x06object\x93)}\x92.",
    "dotted name": b"\x80\x04\x8c\x05numpy\x8c\x0endarray.__new__\x93.",
    "dotted module": b"\x80\x04\x8c\x0bcollections\x8c\x0b_sys.exit\x93)R.",
    "persistent id": b"Pevil\n.",
    "binary persistent id": b"\x80\x02X\x04\x00\x00\x00evilQ.",
    "extension": b"\x80\x02\x82\x01.",
    "stand-in as value": b"cnumpy\nndarray\n.",
    "function as value": b"cnumpy._core.multiarray\n_reconstruct\n.",
    "changed stand-in": b"\x80\x02cnumpy\nndarray\n}U\x01aK\x01sb.",
    "changed function": b"\x80\x02cnumpy\ndtype\nN}U\x0c__defaults__)s\x86b.",
    "array of nothing": b"cnumpy._core.multiarray\n_reconstruct\n(tR.",
    "type of objects": b"\x80\x02cnumpy\ndtype\nU\x01O\x85R.",
    "decoding by other codecs": b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00xX\x05\x00\x00\x00rot13\x86R.",
}


@pytest.mark.parametrize("name", gadgets(Path("x")))
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_gadgets_are_refused_and_run_nothing(name: str, protocol: int, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    content = pickle.dumps({"infos": [gadgets(mark)[name]], "metadata": {}}, protocol)
    with pytest.raises(Refusal):
        read_plain(content)
    path = tmp_path / "x.pkl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.pkl: was not read, because it") as caught:
        read_infos(path)
    assert not mark.exists()
    if "." in name:
        said = str(caught.value)
        assert name.split(".")[1] in said or "asks for" in said


@pytest.mark.parametrize("name", RAW)
def test_opcodes_by_hand_are_refused(name: str, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    with pytest.raises(pickle.UnpicklingError):
        read_plain(RAW[name].replace(b"MARK", str(mark).encode()))
    assert not mark.exists()


def test_the_refused_name_is_told() -> None:
    with pytest.raises(Refusal, match=r"asks for posix\.system, which is neither a plain value nor a NumPy array"):
        read_plain(RAW["protocol 0 call"])


def test_a_refused_pickle_leaves_no_trace_for_the_next() -> None:
    array = np.arange(3.0)
    for content in RAW.values():
        with pytest.raises(pickle.UnpicklingError):
            read_plain(content)
    np.testing.assert_array_equal(read_plain(pickle.dumps(array)), array)


def test_bytes_must_fill_the_shape() -> None:
    content = pickle.dumps(np.arange(4, dtype="u1"), 2)
    wrong = content.replace(b"K\x04\x85", b"K\x09\x85")
    assert wrong != content
    with pytest.raises(Refusal, match="do not fill its shape"):
        read_plain(wrong)


@given(st.binary(max_size=60))
def test_arbitrary_bytes_never_do_worse_than_to_be_refused(content: bytes) -> None:
    try:
        read_plain(content)
    except pickle.UnpicklingError:
        return


def test_deep_nesting_and_rings() -> None:
    with pytest.raises(Refusal, match="too deeply"):
        read_plain(b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".")
    ring: list[Any] = []
    ring.append(ring)
    with pytest.raises(Refusal, match="too deeply"):
        read_plain(pickle.dumps(ring))


def test_files_cut_short(tmp_path: Path) -> None:
    content = pickle.dumps({"infos": [np.zeros(100)], "metadata": {}})
    path = tmp_path / "x.pkl"
    for end in (0, 1, 20, len(content) - 1):
        path.write_bytes(content[:end])
        with pytest.raises(InputError, match=r"x\.pkl: is no complete pickle file"):
            read_infos(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_infos(tmp_path / "none.pkl")
