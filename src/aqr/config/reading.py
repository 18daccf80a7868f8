"""A config file and overrides, read and checked, with one sentence about what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from aqr.config.aqr import MAPPING, NUMBER
from aqr.config.merge import merge
from aqr.config.presets import PRESETS, preset_settings
from aqr.config.run import Config
from aqr.errors import InputError


def parse(values: dict[str, Any], source: str = "config") -> Config:
    """Validate nested settings.

    Args:
        values: as read from YAML.
        source: file name for error messages.

    Raises:
        InputError: naming the key, what is wrong and the mend.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"] if part not in (NUMBER, MAPPING)) or "the config"
        if first["type"] == "extra_forbidden":
            raise InputError(f"{source}: unknown key {key}; {_near_keys(first['loc'])}") from None
        got = first.get("input")
        shown = f" (got {got!r})" if isinstance(got, str | int | float | bool) else ""
        raise InputError(
            f"{source}: {key}: {first['msg'].removeprefix('Value error, ')}{shown}; change it there"
        ) from None


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a config file and apply `section.key=value` overrides, whose values are YAML.

    A file may name one other to start from under the key `base` (a path relative to it), which has no base itself.
    Overrides count in their order: `aqr.preset=B` replaces what the file says of the preset's settings.

    Raises:
        InputError: where the file is missing, is no YAML mapping, or holds a wrong setting.
    """
    values = _read(Path(path))
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise InputError(f"override {override!r} is not of the form section.key=value")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise InputError(f"override {override!r}: the value is not valid YAML") from None
        nested: Any = value
        for part in reversed(key.split(".")):
            nested = {part: nested}
        values = merge(values, nested)
        if key == "aqr.preset" and isinstance(value, str) and value in PRESETS:
            values = merge(values, {"aqr": preset_settings(value)})
    return parse(values, str(path))


def _read(path: Path, may_have_base: bool = True) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give the path of a config file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        place = getattr(error, "problem_mark", None)
        where = f" at line {place.line + 1}" if place else ""
        raise InputError(f"{path}: is not valid YAML{where}; mend the syntax there") from None
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise InputError(f"{path}: must hold `section: {{key: value}}`, not a {type(values).__name__}")
    if "base" not in values:
        return values
    if not may_have_base:
        raise InputError(f"{path}: is the base of another file and names a base itself; write its settings out")
    base = values.pop("base")
    return merge(_read(path.parent / str(base), may_have_base=False), values)


def _near_keys(location: tuple[int | str, ...]) -> str:
    """The keys that a section does know, for the sentence about one that it does not."""
    section: Any = Config
    for part in location[:-1]:
        section = get_args(section)[0] if isinstance(part, int) else section.model_fields[part].annotation
    return "known here: " + ", ".join(section.model_fields)
