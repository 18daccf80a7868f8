"""What all readers share: log records gathered into series and evaluations."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from aqr.analysis.language import Message, text
from aqr.analysis.run import METRICS, ClassResult, Evaluation, Series

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

    rows: dict[tuple[str, ...], tuple[list[int], list[Sequence[float]]]] = field(default_factory=dict)
    last: int | None = None
    restarts: int = 0

    def add(self, iteration: int, names: tuple[str, ...], values: Sequence[float]) -> None:
        """Append a line; a line at or before the last iteration marks a restart, and the later line counts."""
        if self.last is not None and iteration <= self.last:
            self.restarts += 1
        self.last = iteration
        places, lines = self.rows.setdefault(names, ([], []))
        places.append(iteration)
        lines.append(values)

    def drop_cut_values(self) -> int:
        """Leave out the last value of lines that break off (their fields are the beginning of the usual ones).

        Returns:
            Number of values left out.
        """
        usual = sorted(self.rows, key=lambda names: -len(self.rows[names][0]))
        dropped = 0
        for names in list(self.rows):
            longer = next((other for other in usual if len(other) > len(names) and other[: len(names)] == names), None)
            if longer is None or len(self.rows[longer][0]) < len(self.rows[names][0]):
                continue
            places, lines = self.rows.pop(names)
            dropped += len(lines)
            short_places, short_lines = self.rows.setdefault(names[:-1], ([], []))
            short_places += places
            short_lines += [line[:-1] for line in lines]
        return dropped

    def series(self) -> dict[str, Series]:
        """Fields over time; where an iteration was logged twice, the line that came later in its column counts."""
        pieces: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        for names, (places, lines) in self.rows.items():
            if not names:
                continue
            table = np.array(lines, dtype=np.float64).reshape(len(lines), len(names))
            iterations = np.array(places, dtype=np.int64)
            for column, name in enumerate(names):
                pieces.setdefault(field_name(name), []).append((iterations, table[:, column]))
        out = {}
        for name, parts in pieces.items():
            iterations = np.concatenate([part[0] for part in parts])[::-1]
            values = np.concatenate([part[1] for part in parts])[::-1]
            kept, first = np.unique(iterations, return_index=True)
            out[name] = Series(kept, values[first])
        return out


TP_ERRORS: Final = {
    "trans_err": "ATE",
    "scale_err": "ASE",
    "orient_err": "AOE",
    "vel_err": "AVE",
    "attr_err": "AAE",
}
_METRIC: Final = re.compile(
    r"(?:(?P<prefix>.*)/)?(?:(?P<overall>mAP|NDS|mATE|mASE|mAOE|mAVE|mAAE)"
    r"|(?P<name>\w+?)_(?:AP_dist_(?P<distance>\d+(?:\.\d+)?)|(?P<error>trans_err|scale_err|orient_err|vel_err|attr_err)))"
)


def evaluation_of_fields(fields: Mapping[str, float] | Iterable[tuple[str, float]]) -> tuple[Evaluation, int] | None:
    """An evaluation from flat metric fields (`pts_bbox_NuScenes/car_AP_dist_0.5`, `…/mAP`).

    Returns:
        The evaluation and the number of prefixes (result sets); the set with most fields is taken. None where no
        field is a metric.
    """
    sets: dict[str, tuple[dict[str, float], dict[str, ClassResult]]] = {}
    counts: Counter[str] = Counter()
    for key, value in dict(fields).items():
        found = _METRIC.fullmatch(key)
        if found is None:
            continue
        prefix = found["prefix"] or ""
        counts[prefix] += 1
        figures, classes = sets.setdefault(prefix, ({}, {}))
        if found["overall"]:
            if math.isfinite(value):
                figures[found["overall"]] = value
            continue
        result = classes.get(found["name"], ClassResult())
        if found["distance"]:
            result = ClassResult(result.figures, {**result.ap_by_distance, found["distance"]: value})
        else:
            result = ClassResult({**result.figures, TP_ERRORS[found["error"]]: value}, result.ap_by_distance)
        classes[found["name"]] = result
    if not sets:
        return None
    best = max(counts, key=lambda prefix: (counts[prefix], "pts" in prefix))
    figures, classes = sets[best]
    return Evaluation({name: figures[name] for name in METRICS if name in figures}, classes), len(sets)


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
