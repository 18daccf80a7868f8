"""What all readers share: log records gathered into series and evaluations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from aqr.analysis.language import Message, text
from aqr.analysis.run import METRICS, ClassResult, Evaluation, Floats, Ints, Series

FIELD_NAMES: Final = {
    "time": "step_time_s",
    "data_time": "data_time_s",
    "memory": "memory_mb",
    "learning_rate": "lr",
    "base_lr": "base_lr",
}
"""Field names of other loggers -> ours."""

NOT_SERIES: Final = frozenset({"eta", "epoch", "iter", "iteration", "step", "mode", "forward", "ranks"})


def field_name(name: str) -> str:
    return FIELD_NAMES.get(name, name)


@dataclass
class Records:
    """Training log lines by the tuple of fields they hold, so that long logs stay columns."""

    tables: dict[tuple[str, ...], list[tuple[Sequence[int], Floats, bool]]] = field(default_factory=dict)
    iterations: list[int] = field(default_factory=list)
    restarts: int = 0

    @property
    def last(self) -> int | None:
        """Iteration of the last line."""
        return self.iterations[-1] if self.iterations else None

    def place(self, iteration: int) -> int:
        """Note a line's iteration; one at or before the line before marks a restart.

        Returns:
            The line's number.
        """
        if self.iterations and iteration <= self.iterations[-1]:
            self.restarts += 1
        self.iterations.append(iteration)
        return len(self.iterations) - 1

    def add(self, iteration: int, names: tuple[str, ...], values: Sequence[float]) -> None:
        """Append a line."""
        self.extend([self.place(iteration)], names, np.array([values], dtype=np.float64))

    def extend(self, lines: Sequence[int], names: tuple[str, ...], table: Floats, *, open_end: bool = False) -> None:
        """Append what stands in lines that hold the same fields.

        Args:
            lines: [N] numbers of the lines.
            names: M fields.
            table: [N, M] values.
            open_end: nothing follows the last value, so that it may be cut.
        """
        self.tables.setdefault(names, []).append((lines, table.reshape(len(lines), len(names)), open_end))

    def drop_cut_values(self) -> int:
        """Leave out the last value of lines that break off in it (their fields are the beginning of the usual ones).

        Returns:
            Number of values left out.
        """
        counts = {names: sum(len(part[0]) for part in parts) for names, parts in self.tables.items()}
        usual = sorted(counts, key=lambda names: -counts[names])
        dropped = 0
        for names in usual:
            longer = next((other for other in usual if len(other) > len(names) and other[: len(names)] == names), None)
            if longer is None or not names or counts[longer] < counts[names]:
                continue
            for lines, table, open_end in self.tables.pop(names):
                dropped += len(lines) * open_end
                kept = names[:-1] if open_end else names
                self.extend(lines, kept, table[:, : len(kept)])
        return dropped

    def series(self) -> dict[str, Series]:
        """Fields over time; where an iteration was logged twice, the later line counts."""
        pieces: dict[str, list[tuple[Ints, Floats]]] = {}
        for names, tables in self.tables.items():
            lines = np.concatenate([np.array(part[0], dtype=np.int64) for part in tables])
            table = np.concatenate([part[1] for part in tables])
            for column, name in enumerate(names):
                pieces.setdefault(field_name(name), []).append((lines, table[:, column]))
        iterations = np.array(self.iterations, dtype=np.int64)
        out = {}
        for name, parts in pieces.items():
            lines = np.concatenate([part[0] for part in parts])
            values = np.concatenate([part[1] for part in parts])
            latest_first = np.argsort(-lines)
            kept, first = np.unique(iterations[lines[latest_first]], return_index=True)
            out[name] = Series(kept, values[latest_first][first])
        return out


TP_ERRORS: Final = {
    "trans_err": "ATE",
    "scale_err": "ASE",
    "orient_err": "AOE",
    "vel_err": "AVE",
    "attr_err": "AAE",
}


def evaluation_of_fields(fields: Mapping[str, float] | Iterable[tuple[str, float]]) -> tuple[Evaluation, int] | None:
    """An evaluation from flat metric fields (`pts_bbox_NuScenes/car_AP_dist_0.5`, `…/mAP`).

    Returns:
        The evaluation and the number of prefixes (result sets); the set with most fields is taken. None where no
        field is a metric.
    """
    sets: dict[str, dict[str, float]] = {}
    classes: dict[str, dict[str, tuple[dict[str, float], dict[str, float]]]] = {}
    for key, value in dict(fields).items():
        prefix, _, name = key.rpartition("/")
        if name in METRICS:
            sets.setdefault(prefix, {})[name] = value
            continue
        label, _, distance = name.partition("_AP_dist_")
        if distance and label:
            classes.setdefault(prefix, {}).setdefault(label, ({}, {}))[1][distance] = value
            continue
        label, *error = name.rsplit("_", 2)
        if len(error) == 2 and label and (short := TP_ERRORS.get("_".join(error))):
            classes.setdefault(prefix, {}).setdefault(label, ({}, {}))[0][short] = value
    prefixes = dict.fromkeys([*sets, *classes])
    if not prefixes:
        return None
    best = max(prefixes, key=lambda one: (len(sets.get(one, {})) + len(classes.get(one, {})), "pts" in one))
    figures = {name: value for name, value in sets.get(best, {}).items() if math.isfinite(value)}
    return (
        Evaluation(
            {name: figures[name] for name in METRICS if name in figures},
            {label: ClassResult(*result) for label, result in classes.get(best, {}).items()},
        ),
        len(prefixes),
    )


def merge_evaluations(printed: Evaluation, fields: Evaluation) -> Evaluation | None:
    """One evaluation from its printed tables and its field list; None where they contradict each other."""
    for name in set(printed.figures) & set(fields.figures):
        if abs(printed.figures[name] - fields.figures[name]) > 1.01e-4:
            return None
    classes = {}
    for name in [*printed.per_class, *(name for name in fields.per_class if name not in printed.per_class)]:
        table, flat = printed.per_class.get(name, ClassResult()), fields.per_class.get(name, ClassResult())
        classes[name] = ClassResult({**flat.figures, **table.figures}, flat.ap_by_distance or table.ap_by_distance)
    iteration = fields.iteration if fields.iteration is not None else printed.iteration
    return Evaluation({**fields.figures, **printed.figures}, classes, iteration, printed.split or fields.split)


def restart_notes(records: Records) -> list[Message]:
    if not records.restarts:
        return []
    return [
        text(
            "The log starts again {count} times at an earlier iteration (a resumed run, or several runs in one file); "
            "where an iteration was logged twice, the later line counts.",
            count=records.restarts,
        )
    ]
