"""What is searched: config keys with a range or a list of values each."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast

import optuna
import yaml

from aqr import config as configuration
from aqr.config import Config
from aqr.errors import InputError

Value = float | int | str | bool

FORM: Final = "write key=low..high, key=low..high:log or key=a,b,c"
_RANGE: Final = re.compile(r"\s*(\S+?)\s*\.\.\s*(\S+?)\s*(:log)?\s*")


@dataclass(frozen=True)
class Dimension:
    """One key of the config that is searched.

    Attributes:
        key: dotted config key.
        kind: `float` and `int` have a range, `choice` a list.
        low: lowest value of a range.
        high: highest value of a range.
        log: whether a range is searched by ratio instead of by difference.
        choices: values of a list.
    """

    key: str
    kind: Literal["float", "int", "choice"]
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    choices: tuple[Value, ...] = ()

    def suggest(self, trial: optuna.Trial) -> Value:
        """Let the study choose a value."""
        if self.kind == "choice":
            return cast(Value, trial.suggest_categorical(self.key, self.choices))
        if self.kind == "int":
            return trial.suggest_int(self.key, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(self.key, self.low, self.high, log=self.log)

    def ends(self) -> tuple[Value, ...]:
        """The values that must be valid for all to be."""
        if self.kind == "choice":
            return self.choices
        return (int(self.low), int(self.high)) if self.kind == "int" else (self.low, self.high)

    def as_dict(self) -> dict[str, Any]:
        """For study.json."""
        values = asdict(self)
        return {k: values[k] for k in ("key", "kind", *(("choices",) if self.choices else ("low", "high", "log")))}


def parse_search(
    path: Path, overrides: Sequence[str], entries: Mapping[str, str | Sequence[Value]]
) -> tuple[Dimension, ...]:
    """Read what is to be searched and hold every end of it against the schema of configs.

    Args:
        path: config file.
        overrides: `section.key=value` for all trials.
        entries: config key to `low..high`, `low..high:log`, `a,b,c` or a list of values.

    Returns:
        A dimension per key.

    Raises:
        InputError: naming the key, what is wrong and the mend.
    """
    if not entries:
        raise InputError(f"nothing is to be searched; {FORM} under --search or in a --space file")
    dimensions = tuple(_dimension(key, right) for key, right in entries.items())
    for dimension in dimensions:
        for value in dimension.ends():
            with_values(path, overrides, {dimension.key: value})
    return dimensions


def with_values(path: Path, overrides: Sequence[str], values: Mapping[str, Value]) -> Config:
    """The config of one trial.

    Raises:
        InputError: where these values do not make a config.
    """
    return configuration.load(path, [*overrides, *(f"{key}={_yaml(value)}" for key, value in values.items())])


def _dimension(key: str, right: str | Sequence[Value]) -> Dimension:
    if isinstance(right, str) and (found := _RANGE.fullmatch(right)):
        return _range(key, found[1], found[2], found[3] is not None)
    values = right.split(",") if isinstance(right, str) else list(right)
    choices = [_scalar(key, value) for value in values]
    if len(set(map(repr, choices))) < max(len(choices), 2):
        raise InputError(f"search: {key} needs two or more different values; {FORM}")
    return Dimension(key, "choice", choices=tuple(choices))


def _range(key: str, first: str, last: str, log: bool) -> Dimension:
    try:
        low, high = float(first), float(last)
    except ValueError:
        raise InputError(f"search: {key}={first}..{last} is no range of numbers; {FORM}") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(f"search: {key}={first}..{last} is empty or runs backwards; swap or widen its ends")
    if log and low <= 0:
        raise InputError(f"search: {key}={first}..{last}:log needs a lowest value above 0; raise it")
    whole = _holds_integers(key)
    if whole and not (low.is_integer() and high.is_integer()):
        raise InputError(f"search: {key} takes whole numbers, not {first}..{last}; round its ends")
    return Dimension(key, "int" if whole else "float", low, high, log)


def _holds_integers(key: str) -> bool:
    section: Any = Config
    for part in key.split("."):
        field = getattr(section, "model_fields", {}).get(part)
        if field is None:
            return False
        section = field.annotation
    return section is int


def _scalar(key: str, value: Any) -> Value:
    if isinstance(value, str):
        try:
            value = yaml.safe_load(value)
        except yaml.YAMLError:
            raise InputError(f"search: {key}: {value!r} is not valid YAML; {FORM}") from None
    if not isinstance(value, float | int | str | bool):
        raise InputError(f"search: {key}: {value!r} is neither a number nor a word; {FORM}")
    return value


def _yaml(value: Value) -> str:
    if isinstance(value, float):
        digits, exponent, power = repr(value).partition("e")
        return f"{digits if '.' in digits else digits + '.0'}{exponent}{power}"
    if isinstance(value, str):
        return yaml.safe_dump(value, default_style='"', width=math.inf).strip()
    return json.dumps(value)
