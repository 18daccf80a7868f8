"""JSON logs: mmcv 1.x (`*.log.json`) and mmengine (`vis_data/scalars.json`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from aqr.analysis.language import Message, text
from aqr.analysis.readers.collect import NOT_SERIES, Records, evaluation_of_fields, restart_notes
from aqr.analysis.readers.settings import printed_settings, settings_in_name
from aqr.analysis.run import Evaluation, Run, Setting, Training

_FIRST_LINES = 20


def looks_like_json_log(data: bytes) -> bool:
    """Whether most of the first lines are JSON objects."""
    lines = [line for line in data[:2_000_000].split(b"\n", 400)[:400] if line.strip()][:_FIRST_LINES]
    objects = sum(line.lstrip().startswith(b"{") and _object(line) is not None for line in lines)
    return objects > 0 and objects >= len(lines) - objects


def read_json_log(data: bytes, name: str, source: Path, notes: list[Message]) -> Run:
    """Read a JSON log; lines that are cut or no objects are counted in a note."""
    records = Records()
    evaluations: list[Evaluation] = []
    settings: dict[str, Setting] = settings_in_name(source.name)
    broken = 0
    last: int | None = None
    epochs: dict[int, int] = {}
    lines: list[tuple[int, int, dict[str, float]]] = []
    for raw in data.split(b"\n"):
        if not raw.strip():
            continue
        line = _object(raw)
        if line is None:
            broken += 1
            continue
        config = line.get("config")
        if isinstance(config, str):
            found, setting_notes = printed_settings(config)
            settings |= found
            notes = notes + setting_notes
        if isinstance(line.get("seed"), int):
            settings["seed"] = Setting(line["seed"], "config")
        fields = {
            key: float(value)
            for key, value in line.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }
        evaluation = evaluation_of_fields(fields)
        if evaluation is not None:
            figures = evaluation[0]
            evaluations.append(Evaluation(figures.figures, figures.per_class, last))
            continue
        place = line.get("step", line.get("iter", line.get("iteration")))
        if not isinstance(place, int) or isinstance(place, bool) or line.get("mode", "train") != "train":
            continue
        epoch = line.get("epoch")
        inner = "step" not in line and "iteration" not in line and isinstance(epoch, int)
        number = int(epoch) if inner and isinstance(epoch, int) else 1
        epochs[number] = max(epochs.get(number, 0), place)
        lines.append((number, place, fields))
        last = place
    length = max((epochs[number] for number in epochs), default=0) if len(epochs) > 1 else 0
    for number, place, fields in lines:
        names = tuple(key for key in fields if key not in NOT_SERIES)
        records.add((number - 1) * length + place, names, [fields[key] for key in names])
    if length:
        notes = [
            *notes,
            text(
                "The log does not state the length of an epoch; {length} iterations, the last one logged in an epoch, "
                "are used, so later epochs stand up to one logging interval too early.",
                length=length,
            ),
        ]
    if broken:
        notes = [*notes, text("{count} lines are no JSON objects and are left out.", count=broken)]
    return Run(
        name=name,
        source=source,
        kind="JSON log",
        settings=settings,
        training=Training(records.series()),
        evaluations=tuple(evaluations),
        notes=(*notes, *restart_notes(records)),
    )


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
