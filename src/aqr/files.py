"""Files that appear whole or not at all, and where those go that can be made again."""

from __future__ import annotations

import json
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aqr.errors import InputError


def cache_folder() -> Path:
    """This user's folder for files that can be made again: `aqr` in $XDG_CACHE_HOME, else in ~/.cache.

    A relative $XDG_CACHE_HOME does not count (XDG Base Directory Specification). A user without a home directory has
    a folder in that for temporary files, made here.

    Raises:
        InputError: where the latter cannot be made, or others may write to it.
    """
    stated = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if stated.is_absolute():
        return stated / "aqr"
    try:
        return Path.home() / ".cache" / "aqr"
    except RuntimeError:
        return _temporary_folder()


def _temporary_folder() -> Path:
    """Everybody may make files beside it, so its name may be taken."""
    folder = Path(tempfile.gettempdir()) / f"aqr-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({error.strerror}); set XDG_CACHE_HOME to another folder") from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise InputError(f"{folder}: others may write to it; set XDG_CACHE_HOME to a folder of your own")
    return folder


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, beside `path`, that takes its place when the block ends well and is removed when not.

    No other process or host writes to that path. The folder is made where it is missing. What is written is on the disk
    before it takes the place of the old file.

    Raises:
        InputError: where the file cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path}: cannot be written ({reason}); choose another folder or free space") from None


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file. NaN is written as `NaN`, as the nuScenes devkit does and as its reader expects.

    Raises:
        InputError: where it cannot be written.
    """
    with replacing(path) as partial, partial.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=2)
        file.write("\n")
