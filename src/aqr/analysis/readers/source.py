"""Finds out what a path holds and hands it to its reader."""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path
from typing import Final

from aqr.analysis.formula import with_measured_settings
from aqr.analysis.language import Message, text
from aqr.analysis.readers.json_log import looks_like_json_log, read_json_log
from aqr.analysis.readers.run_folder import is_run_folder, read_evaluation, read_run_folder
from aqr.analysis.readers.settings import settings_in_name
from aqr.analysis.readers.tensorboard import is_event_file, read_events
from aqr.analysis.readers.text_log import read_text_log
from aqr.analysis.run import Run
from aqr.errors import InputError

_TEXTS: Final = (".log", ".txt", ".out")
_HEAD: Final = 2_000_000
"""Bytes from which a JSON log is told from other JSON."""
_DEPTH: Final = 4
"""Folders below a given one in which logs are looked for."""


def read_run(path: str | Path) -> Run:
    """Read a run from whatever it left behind.

    Args:
        path: mmcv 1.x or mmengine text log, their JSON log, TensorBoard event file (each also gzipped), a run folder
            of `aqr train`, the folder of an evaluation by `aqr eval`, or a folder in which a log is found.

    Raises:
        InputError: where nothing is there, or nothing in it is a training log.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: is not there; give a log file, a TensorBoard folder or a run folder")
    run = _read_folder(path) if path.is_dir() else _read_file(path)
    if not (run.training.series or run.evaluations or run.snapshots):
        raise InputError(
            f"{path}: holds no training lines, evaluation or AQR statistics; give an mmcv or mmengine log, "
            "a TensorBoard folder or a run folder"
        )
    return with_measured_settings(run)


def _read_folder(folder: Path) -> Run:
    if is_run_folder(folder):
        return read_run_folder(folder)
    evaluation = read_evaluation(folder)
    if evaluation is not None:
        return evaluation
    files = sorted(
        path for depth in range(1, _DEPTH + 1) for path in folder.glob("/".join("*" * depth)) if path.is_file()
    )
    below = sorted({path.parent for path in files if is_run_folder(path.parent)})
    if len(below) == 1:
        return read_run_folder(below[0])
    if below:
        listed = ", ".join(path.name for path in below[:5])
        raise InputError(f"{folder}: holds {len(below)} run folders ({listed}); name the one to read")
    events = [path for path in files if is_event_file(path)]
    logs = [path for path in files if path.name.removesuffix(".gz").endswith(_TEXTS) or _is_json_log(path)]
    runs = [run for path in logs if any(_weight(run := _read_file(path)))]
    if runs:
        fullest = max(runs, key=_weight)
        if len(runs) == 1:
            return fullest
        note = text(
            "The folder holds {count} logs; {name} is read, which says most.", count=len(runs), name=fullest.source.name
        )
        return replace(fullest, notes=(*fullest.notes, note))
    if events:
        return read_events(events, folder.resolve().name, folder)
    raise InputError(
        f"{folder}: holds no log that is known here; give a log file, a TensorBoard folder or a run folder"
    )


def _is_json_log(path: Path) -> bool:
    if not path.name.endswith((".json", ".jsonl")):
        return False
    with path.open("rb") as file:
        return looks_like_json_log(file.read(_HEAD))


def _weight(run: Run) -> tuple[int, int]:
    """How much a log holds: AQR snapshots and evaluations first, then training lines."""
    lines = max((len(series) for series in run.training.series.values()), default=0)
    return len(run.snapshots) + len(run.evaluations), lines


def _read_file(path: Path) -> Run:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    notes: list[Message] = []
    if data.startswith(b"\x1f\x8b"):
        data = _gunzip(data, notes)
    if is_event_file(path):
        return read_events([path], _name(path), path)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        data = data.decode("utf-16", "replace").encode()
    if looks_like_json_log(data):
        return read_json_log(data, _name(path), path, notes)
    log = read_text_log(data)
    settings = {**settings_in_name(path.name), **log.settings}
    return Run(
        name=_name(path),
        source=path,
        kind=log.kind,
        settings=settings,
        training=log.training,
        evaluations=log.evaluations,
        snapshots=log.snapshots,
        notes=tuple(notes + log.notes),
    )


def _gunzip(data: bytes, notes: list[Message]) -> bytes:
    """Decompress as far as the file reaches."""
    out, left = b"", data
    while left.startswith(b"\x1f\x8b"):
        stream = zlib.decompressobj(wbits=31)
        try:
            out += stream.decompress(left)
        except zlib.error:
            notes.append(text("The gzip file is damaged; only its beginning is read."))
            return out
        if not stream.eof:
            notes.append(text("The gzip file is cut off; only its beginning is read."))
            return out
        left = stream.unused_data
    return out


def _name(path: Path) -> str:
    name = path.name.removesuffix(".gz")
    for ending in (".log.json", ".log", ".txt", ".out", ".jsonl", ".json"):
        if name.endswith(ending) and len(name) > len(ending):
            return name.removesuffix(ending)
    return name
