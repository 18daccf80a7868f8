"""Run folders written by `aqr train`: config.yaml, metrics.jsonl, aqr_stats.jsonl, eval/<split>/metrics.json, maps/."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from aqr.analysis.language import Message, text
from aqr.analysis.readers.collect import NOT_SERIES, TP_ERRORS, Records, restart_notes
from aqr.analysis.readers.settings import config_settings
from aqr.analysis.run import GATES, GROUPS, WEIGHTS, ClassResult, Evaluation, Run, Setting, Snapshot, Training


def is_run_folder(folder: Path) -> bool:
    """Whether `aqr train` wrote there, or `aqr eval` into the folder of a detector that was not trained here."""
    if any((folder / name).is_file() for name in ("metrics.jsonl", "aqr_stats.jsonl")):
        return True
    return (folder / "config.yaml").is_file() and any(folder.glob("eval/*/metrics.json"))


def read_evaluation(folder: Path) -> Run | None:
    """Scores of a detector of whose training nothing is known.

    None where neither `aqr eval` nor another program wrote the devkit's metrics as metrics.json. Scores of a run under
    a sensor failure, `eval/<split>-<failure>`, are no word on the run either.
    """
    resolved = folder.resolve()
    if resolved.parent.name == "eval" and "-" in resolved.name:
        return None
    evaluation = _evaluation(folder / "metrics.json", [])
    if evaluation is None or not evaluation.figures:
        return None
    return Run(resolved.name, folder, "evaluation", evaluations=(replace(evaluation, split=None),))


def read_run_folder(folder: Path) -> Run:
    """Read what is there; what is missing or broken becomes a note."""
    notes: list[Message] = []
    settings = _settings(folder / "config.yaml", notes)
    records = Records()
    for line in _json_lines(folder / "metrics.jsonl", notes):
        iteration = line.get("iteration")
        if not isinstance(iteration, int):
            continue
        fields = {name: _number(value) for name, value in _flat(line) if name not in NOT_SERIES}
        names = tuple(name for name, value in fields.items() if value is not None)
        records.add(iteration, names, [float(fields[name] or 0.0) for name in names])
    notes += restart_notes(records)
    snapshots = {}
    in_attention = "target" in settings and settings["target"].value == "attention"
    plain = "enable_aqr" in settings and not settings["enable_aqr"].value
    for line in [] if plain else _json_lines(folder / "aqr_stats.jsonl", notes):
        snapshot = _snapshot(line, WEIGHTS if in_attention else GROUPS)
        if snapshot is not None:
            snapshots[snapshot.forward] = snapshot
    if snapshots:
        last = snapshots[max(snapshots)].settings
        # A residual by class is no one number, whatever moved beside it.
        settings |= {name: Setting(value, "moved") for name, value in last.items() if name in settings or not settings}
    evaluations = []
    for path in sorted(folder.glob("eval/*/metrics.json")):
        evaluation = _evaluation(path, notes)
        if evaluation is not None:
            evaluations.append(evaluation)
    steps = settings.get("steps")
    return Run(
        name=folder.resolve().name,
        source=folder,
        kind="run folder",
        settings=settings,
        training=Training(records.series(), int(steps.value) if steps is not None else None),
        evaluations=tuple(evaluations),
        snapshots=tuple(snapshots[forward] for forward in sorted(snapshots)),
        notes=tuple(notes),
        maps=tuple(sorted(folder.glob("maps/*.npz"))),
    )


def evaluation_of_summary(summary: Mapping[str, Any], split: str | None = None) -> Evaluation:
    """An evaluation from the devkit's metrics_summary.json."""
    figures: dict[str, float] = {}
    for name, value in (("mAP", summary.get("mean_ap")), ("NDS", summary.get("nd_score"))):
        if (number := _number(value)) is not None:
            figures[name] = number
    errors = summary.get("tp_errors")
    if isinstance(errors, Mapping):
        for key, short in TP_ERRORS.items():
            if (number := _number(errors.get(key))) is not None:
                figures[f"m{short}"] = number
    classes: dict[str, ClassResult] = {}
    by_distance, by_error = _mapping(summary.get("label_aps")), _mapping(summary.get("label_tp_errors"))
    means = _mapping(summary.get("mean_dist_aps"))
    for name in dict.fromkeys([*means, *by_distance, *by_error]):
        of_class: dict[str, float] = {}
        if (number := _number(means.get(name))) is not None:
            of_class["AP"] = number
        for key, short in TP_ERRORS.items():
            if (number := _number(_mapping(by_error.get(name)).get(key))) is not None:
                of_class[short] = number
        distances = {
            str(distance): number
            for distance, value in _mapping(by_distance.get(name)).items()
            if (number := _number(value)) is not None
        }
        classes[str(name)] = ClassResult(of_class, distances)
    return Evaluation(figures, classes, None, split)


def _evaluation(path: Path, notes: list[Message]) -> Evaluation | None:
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        summary = None
    if not isinstance(summary, dict):
        notes.append(text("{path} is not valid JSON and is left out.", path=str(path)))
        return None
    return evaluation_of_summary(summary, path.parent.name)


def _settings(path: Path, notes: list[Message]) -> dict[str, Setting]:
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError:
        notes.append(text("There is no config.yaml, so the settings are not known."))
        return {}
    except (yaml.YAMLError, UnicodeDecodeError):
        notes.append(text("config.yaml is not valid YAML, so the settings are not known."))
        return {}
    return config_settings(config) if isinstance(config, dict) else {}


def _json_lines(path: Path, notes: list[Message]) -> Iterator[dict[str, Any]]:
    """Objects of a .jsonl file; lines that are none are counted in a note."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError:
        notes.append(text("There is no {name}.", name=path.name))
        return
    broken = 0
    for line in lines:
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if isinstance(record, dict):
            yield record
        else:
            broken += 1
    if broken:
        notes.append(text("{count} lines of {name} are broken and left out.", count=broken, name=path.name))


def _flat(line: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Fields of a metrics line; losses may stand in a mapping of their own."""
    for name, value in line.items():
        if isinstance(value, Mapping):
            yield from value.items()
        else:
            yield name, value


def _snapshot(line: Mapping[str, Any], groups: tuple[str, ...]) -> Snapshot | None:
    forward, ranks = line.get("forward"), line.get("ranks")
    if not isinstance(forward, int):
        return None
    samples: dict[str, dict[str, np.ndarray]] = {}
    for group in groups:
        stats = {
            name: np.array([number])
            for name, value in _mapping(line.get(group)).items()
            if (number := _number(value)) is not None
        }
        if stats:
            samples[group] = stats
    shape = _mapping(line.get("lidar_weights")).get("shape")
    queries = (shape[1],) if isinstance(shape, list) and len(shape) == 2 and isinstance(shape[1], int) else ()
    moved = {
        name: number
        for name in ("max_weight_clamp", "residual_weight")
        if (number := _number(_mapping(line.get("settings")).get(name))) is not None and math.isfinite(number)
    }
    return Snapshot(
        forward,
        ranks if isinstance(ranks, int) else 1,
        True,
        samples,
        queries,
        settings=moved if len(moved) == 2 else {},
        stopped=_mapping(line.get("controller")).get("stopped") is True,
        gates={name: gate for name in GATES if (gate := _number(line.get(name))) is not None and math.isfinite(gate)},
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _number(value: Any) -> float | None:
    """A number, or NaN and infinity as JSON writers spell them."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value)
    if value in ("NaN", "nan"):
        return math.nan
    return math.inf if value in ("Infinity", "inf") else None
