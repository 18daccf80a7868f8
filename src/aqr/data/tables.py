"""Reads nuScenes tables into columns.

A table is a JSON list of records. The largest holds 2.6 million of them, so records are decoded one after another
from a sliding window of text and turned into arrays in blocks: the whole list never exists as Python objects.
Text is held as UTF-8 bytes (NumPy `S`), a quarter of the size of NumPy's own strings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from aqr.errors import InputError

TABLES: Final = (
    "attribute",
    "calibrated_sensor",
    "category",
    "ego_pose",
    "instance",
    "log",
    "map",
    "sample",
    "sample_annotation",
    "sample_data",
    "scene",
    "sensor",
    "visibility",
)
"""The thirteen tables of nuScenes v1.0."""

Column = npt.NDArray[Any]
Convert = Callable[[list[Any]], Column]
Record = dict[str, Any]

_WINDOW: Final = 1 << 23
_LONGEST_RECORD: Final = 1 << 22
_BLOCK: Final = 1 << 14
_GAP: Final = re.compile(r"[ \t\r\n]*")


def text(values: list[Any]) -> Column:
    """Strings as [N] bytes."""
    return np.array([value.encode() for value in values], dtype=np.bytes_)


def integers(values: list[Any]) -> Column:
    """Whole numbers as [N] int64."""
    numbers = np.array(values)
    if numbers.dtype.kind not in "iuf" or numbers.ndim != 1:
        raise ValueError("not a number")
    with np.errstate(invalid="ignore"):
        whole = numbers.astype(np.int64)
    if (whole != numbers).any():
        raise ValueError("not a whole number")
    return whole


def flags(values: list[Any]) -> Column:
    """Booleans as [N] bool."""
    if any(value is not True and value is not False for value in values):
        raise ValueError("neither true nor false")
    return np.array(values, dtype=np.bool_)


def vectors(length: int) -> Convert:
    """Lists of `length` finite numbers as [N, length] float64."""

    def convert(values: list[Any]) -> Column:
        found = np.array(values, dtype=np.float64) if values else np.empty((0, length))
        if found.shape != (len(values), length) or not np.isfinite(found).all():
            raise ValueError(f"not {length} finite numbers")
        return found

    return convert


def matrices(values: list[Any]) -> Column:
    """3 x 3 matrices as [N, 3, 3] float64, NaN where the list is empty."""
    nothing = np.full((3, 3), np.nan)
    found = np.array([value or nothing for value in values], dtype=np.float64) if values else np.empty((0, 3, 3))
    if found.shape != (len(values), 3, 3):
        raise ValueError("neither empty nor a 3 x 3 matrix")
    return found


def tokens(values: list[Any]) -> Column:
    """Lists of strings, [N] bytes: the strings joined by spaces."""
    return text([" ".join(value) for value in values])


def records(path: Path) -> Iterator[Record]:
    """The records of a table, one at a time.

    Raises:
        InputError: where the file is missing, or is no JSON list of records.
    """
    decode = json.JSONDecoder().raw_decode
    try:
        with path.open(encoding="utf-8") as file:
            window, place, line = file.read(_WINDOW), 0, 1

            def broken(what: str) -> InputError:
                at = line + window.count("\n", 0, place)
                return InputError(f"{path}: {what} at line {at}; the file is damaged, unpack it again from the archive")

            def after_gap(place: int) -> int:
                gap = _GAP.match(window, place)
                return gap.end() if gap else place

            place = after_gap(place)
            if not window.startswith("[", place):
                raise broken("is not a JSON list of records")
            place = after_gap(place + 1)
            if window.startswith("]", place):
                return
            ended = len(window) < _WINDOW
            while True:
                if len(window) - place < _LONGEST_RECORD and not ended:
                    line += window.count("\n", 0, place)
                    more = file.read(_WINDOW)
                    ended = len(more) < _WINDOW
                    window, place = window[place:] + more, 0
                    place = after_gap(place)
                try:
                    record, end = decode(window, place)
                except json.JSONDecodeError:
                    raise broken("broken JSON in the record that starts") from None
                if not isinstance(record, dict):
                    raise broken("is not a JSON list of records")
                yield record
                place = after_gap(end)
                mark = window[place : place + 1]
                if mark == "]":
                    return
                if mark != ",":
                    raise broken("the list ends early or a comma is missing")
                place = after_gap(place + 1)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); give the folder that holds the tables of this version"
        ) from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not UTF-8 text; the file is damaged, unpack it again from the archive") from None


def read(
    folder: Path, table: str, columns: Mapping[str, Convert], keep: Callable[[Record], bool] | None = None
) -> dict[str, Column]:
    """Columns of a table.

    Args:
        folder: version folder.
        table: name without `.json`.
        columns: fields to keep and how to convert them.
        keep: says which records to keep; all by default.

    Returns:
        One array per field, records along the first axis in the table's order.

    Raises:
        InputError: naming file, record and field where something is missing or of the wrong kind.
    """
    path = folder / f"{table}.json"
    blocks: list[dict[str, Column]] = []
    block: list[Record] = []
    for record in records(path):
        if keep is None or keep(record):
            block.append(record)
        if len(block) == _BLOCK:
            blocks.append(_convert(path, block, columns))
            block = []
    if block or not blocks:
        blocks.append(_convert(path, block, columns))
    return {field: np.concatenate([done.pop(field) for done in blocks]) for field in columns}


def _convert(path: Path, block: list[Record], columns: Mapping[str, Convert]) -> dict[str, Column]:
    converted = {}
    for field, convert in columns.items():
        try:
            converted[field] = convert([record[field] for record in block])
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            raise _blame(path, block, field, convert) from None
    return converted


def _blame(path: Path, block: list[Record], field: str, convert: Convert) -> InputError:
    for record in block:
        name = record.get("token")
        if field not in record:
            return InputError(f"{path}: record {name!r} has no field {field!r}; restore the table from the archive")
        try:
            convert([record[field]])
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            return InputError(
                f"{path}: record {name!r}: {field} is {str(record[field])[:60]!r} ({error}); mend the record"
            )
    return InputError(f"{path}: field {field!r} holds values of different kinds; restore the table from the archive")
