"""Keeps an index on disk, as one .npz of plain arrays.

A cached index is used only where it was made from the very tables that are there now (same sizes and times of
change), by this version of the format, and holds consistent arrays; otherwise it is made anew.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from aqr.data.index import Annotations, Calibrations, Images, Index, Samples, Scans, Scenes
from aqr.data.tables import TABLES
from aqr.errors import InputError
from aqr.files import cache_folder, replacing

log = logging.getLogger(__name__)

FORMAT: Final = 1
NAME: Final = ".aqr-index.npz"

Part = TypeVar("Part", Scenes, Calibrations, Scans, Images, Samples, Annotations)


def key_of(root: Path, version: str) -> str:
    """What a cached index must have been made from: format and the tables' sizes and times of change.

    Raises:
        InputError: if the version folder or a table is missing.
    """
    folder = root / version
    if not folder.is_dir():
        raise InputError(
            f"{folder}: there is no such folder; set data.root and data.version to a nuScenes data set "
            "(a folder that holds samples/ and the tables in v1.0-…/)"
        )
    states = {}
    for table in TABLES:
        path = folder / f"{table}.json"
        if not path.is_file():
            raise InputError(f"{path}: the table is missing; unpack the metadata of {version} into {folder}")
        state = path.stat()
        states[table] = [state.st_size, state.st_mtime_ns]
    return json.dumps({"format": FORMAT, "version": version, "tables": states}, sort_keys=True)


def place_of(root: Path, version: str, cache: Path | None) -> Path:
    """File of the cached index: in `cache`, else in the version folder, else with the user.

    The latter where the version folder is write-protected or holds another user's file that may not be read.
    """
    folder = root / version
    own = folder / NAME
    readable = os.access(own, os.R_OK) or not own.exists()
    # Permission bits are asked as well, for os.access lets root write into write-protected data.
    if cache is None and readable and os.access(folder, os.W_OK) and folder.stat().st_mode & 0o222:
        return own
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    return (cache or cache_folder()) / f"{version}-{name}{NAME}"


def save(path: Path, key: str, index: Index) -> None:
    """Write an index, whole or not at all; where it cannot be written, the next opening reads the tables again."""
    arrays: dict[str, Any] = {
        "key": np.array(key),
        "cameras": np.array(index.cameras, dtype=np.str_),
        "categories": np.array(index.categories, dtype=np.str_),
    }
    for part in (index.scenes, index.calibrations, index.scans, index.images, index.samples, index.annotations):
        arrays |= {_name(type(part), field): getattr(part, field) for field in _fields(type(part))}
    try:
        with replacing(path) as partial, partial.open("wb") as file:
            np.savez(file, **arrays)
    except InputError as error:
        by_user = index.cache is None and path.name != NAME
        choice = "XDG_CACHE_HOME says where" if by_user else "`cache` of open_index names one"
        log.warning("the index could not be kept, opening will be slow again: %s (%s)", error, choice)


def load(path: Path, key: str, root: Path, version: str, cache: Path | None) -> Index | None:
    """The cached index, or None where there is none, or a stale or damaged one."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            if str(file["key"]) != key:
                log.info("%s: made from other tables; making it again", path)
                return None
            index = Index(
                root=root,
                version=version,
                cache=cache,
                cameras=tuple(str(name) for name in file["cameras"]),
                categories=tuple(str(name) for name in file["categories"]),
                scenes=_part(Scenes, file.__getitem__),
                calibrations=_part(Calibrations, file.__getitem__),
                scans=_part(Scans, file.__getitem__),
                images=_part(Images, file.__getitem__),
                samples=_part(Samples, file.__getitem__),
                annotations=_part(Annotations, file.__getitem__),
            )
        _check(index)
    except PermissionError:
        log.warning("%s: may not be read; reading the tables instead", path)
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        log.warning("%s: damaged (%s); making it again", path, error)
        return None
    return index


def _fields(part: type) -> list[str]:
    return [field.name for field in dataclasses.fields(part)]


def _name(part: type, field: str) -> str:
    return f"{part.__name__.lower()}.{field}"


def _part(part: type[Part], array: Callable[[str], npt.NDArray[Any]]) -> Part:
    return part(*(array(_name(part, field)) for field in _fields(part)))


_SHAPES: Final[dict[str, tuple[str, tuple[int, ...]]]] = {
    "name": ("S", ()),
    "token": ("S", ()),
    "path": ("S", ()),
    "translation": ("f", (3,)),
    "rotation": ("f", (4,)),
    "ego_translation": ("f", (3,)),
    "ego_rotation": ("f", (4,)),
    "velocity": ("f", (3,)),
    "intrinsic": ("f", (3, 3)),
}
"""Kind of number and shape of a row; whole numbers, one per row, where not stated."""


def _check(index: Index) -> None:
    """Raises: ValueError: where arrays do not fit one another."""

    def rows(what: str, values: npt.NDArray[Any], count: int, lowest: int = 0) -> None:
        if values.size and not (values.min() >= lowest and values.max() < count):
            raise ValueError(f"{what} out of range")

    for part in (index.scenes, index.calibrations, index.scans, index.images, index.samples, index.annotations):
        lengths = set()
        for field in _fields(type(part)):
            array = getattr(part, field)
            kind, shape = _SHAPES.get(field, ("i", ()))
            if isinstance(part, Annotations) and field == "size":
                kind, shape = "f", (3,)
            elif field == "size":
                shape = (2,)
            elif field == "image":
                shape = (len(index.cameras),)
            if array.dtype.kind != kind or array.shape[1:] != shape:
                raise ValueError(f"{_name(type(part), field)} has an unexpected shape")
            lengths.add(len(array) - (field == "annotations"))
        if len(lengths) != 1:
            raise ValueError(f"arrays of {type(part).__name__} differ in length")
    scans, images, samples, notes = index.scans, index.images, index.samples, index.annotations
    mounted = len(index.calibrations.rotation)
    rows("scans.calibration", scans.calibration, mounted)
    rows("images.calibration", images.calibration, mounted)
    rows("scans.prev", scans.prev, len(scans.path), -1)
    rows("samples.scene", samples.scene, len(index.scenes.name))
    rows("samples.scan", samples.scan, len(scans.path))
    rows("samples.image", samples.image, len(images.path), -1)
    rows("annotations.category", notes.category, len(index.categories))
    bounds = samples.annotations
    if bounds[0] != 0 or bounds[-1] != len(notes.token) or (np.diff(bounds) < 0).any():
        raise ValueError("samples.annotations is not a partition")
