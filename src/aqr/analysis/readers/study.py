"""study.json of `aqr sweep` -> `Study`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from aqr.errors import InputError

FILE: Final = "study.json"
FORMAT: Final = "aqr-study-1"


@dataclass(frozen=True)
class Axis:
    """One searched key.

    Attributes:
        key: dotted config key.
        low: lowest value; 0 where there are choices.
        high: highest value.
        log: whether the range is one of ratios.
        choices: the values of a list; empty for a range.
    """

    key: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    choices: tuple[Any, ...] = ()

    @property
    def label(self) -> str:
        """The last part of the key."""
        return self.key.rpartition(".")[2]


@dataclass(frozen=True)
class Trial:
    """One training of a study.

    Attributes:
        number: in the order of asking.
        state: complete, pruned, failed, running or waiting.
        params: value of every searched key.
        values: by objective; empty unless complete.
        error: why its settings could not be trained.
    """

    number: int
    state: str
    params: Mapping[str, Any]
    values: Mapping[str, float]
    error: str | None


@dataclass(frozen=True)
class Study:
    """What a sweep found.

    Attributes:
        name: of the study.
        source: the file.
        objectives: what was to be high.
        axes: what was searched.
        config: settings that all trials share.
        trials: in order.
        best: numbers of the complete trials that no other beats in all objectives.
    """

    name: str
    source: Path
    objectives: tuple[str, ...]
    axes: tuple[Axis, ...]
    config: Mapping[str, Any]
    trials: tuple[Trial, ...]
    best: tuple[int, ...]

    @property
    def complete(self) -> tuple[Trial, ...]:
        return tuple(trial for trial in self.trials if trial.state == "complete")

    @property
    def failed(self) -> tuple[Trial, ...]:
        """Those that could not be trained, with a message or without."""
        return tuple(trial for trial in self.trials if trial.state == "failed" or trial.error is not None)

    def trial(self, number: int) -> Trial:
        return next(trial for trial in self.trials if trial.number == number)

    def setting(self, key: str) -> Any:
        """A setting that all trials share; None where it is searched or not stated."""
        value: Any = None if any(axis.key == key for axis in self.axes) else self.config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value


def is_study(path: str | Path) -> bool:
    """Whether a path is a study.json or a folder with one."""
    path = Path(path)
    return path.is_file() if path.name == FILE else (path / FILE).is_file()


def read_study(path: str | Path) -> Study:
    """Read a study.

    Args:
        path: study.json, or the folder of a sweep.

    Raises:
        InputError: where the file cannot be read or is no study.
    """
    path = Path(path)
    path = path if path.name == FILE else path / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give the folder of a sweep") from None
    except ValueError:
        raise InputError(f"{path}: is not valid JSON; run `aqr sweep` once more, which writes it anew") from None
    try:
        if content["format"] != FORMAT:
            raise ValueError
        axes = tuple(
            Axis(
                str(one["key"]),
                float(one.get("low", 0.0)),
                float(one.get("high", 0.0)),
                bool(one.get("log", False)),
                tuple(one.get("choices", ())),
            )
            for one in content["search"]
        )
        study = Study(
            name=str(content["name"]),
            source=path,
            objectives=tuple(map(str, content["objectives"])),
            axes=axes,
            config=dict(content["config"]),
            trials=tuple(_trial(one, axes) for one in content["trials"]),
            best=tuple(map(int, content["best"])),
        )
        if not set(study.best) <= {trial.number for trial in study.complete}:
            raise ValueError
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InputError(f"{path}: is no study of `aqr sweep`, or damaged; run the sweep once more") from None
    return study


def _trial(one: Mapping[str, Any], axes: tuple[Axis, ...]) -> Trial:
    values = {name: float(value) for name, value in (one["values"] or {}).items()}
    params = dict(one["params"])
    done = one["state"] == "complete"
    if done and not (params.keys() >= {axis.key for axis in axes} and all(map(math.isfinite, values.values()))):
        raise ValueError
    return Trial(int(one["number"]), str(one["state"]), params, values if done else {}, one.get("error"))
