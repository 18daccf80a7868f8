"""How a sweep goes about its search."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from aqr.config import Count, Positive, Section
from aqr.errors import InputError

Objective = Literal["mAP", "NDS", "resistance"]
OBJECTIVES: Final[tuple[Objective, ...]] = ("mAP", "NDS", "resistance")

Scalar = float | int | str | bool


class SweepSettings(Section):
    """The section `sweep` of a --space file; options of the command line win over it."""

    search: dict[str, str | list[Scalar]] = Field(default_factory=dict)
    """Config key to `low..high`, `low..high:log`, `a,b,c` or a list of values."""
    objective: tuple[Objective, ...] = ("mAP",)
    """What is to be high; with several, the study looks for the settings that no other beats in all of them."""
    trials: Count = 20
    """Trials in all, over all workers."""
    sampler: Literal["tpe", "random"] = "tpe"
    startup: Count = 10
    """Random trials before `tpe` (arXiv 2304.11127) begins to learn from what it saw."""
    pruner: Literal["median", "hyperband", "none"] | None = None
    """Ends trials early that do worse than others at their intermediate evaluations (`train.val_every`), for a single
    objective of mAP or NDS. By default `median` where there are such evaluations."""
    corrupt: str = "all"
    """Sensor failures behind `resistance`, as for `aqr eval --corrupt`."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the search; that of training is the config's."""
    heartbeat: Positive = 60.0
    """Seconds between a worker's signs of life; a trial without one for twice as long is tried again elsewhere."""

    @model_validator(mode="after")
    def _pruning(self) -> SweepSettings:
        if not self.objective or len(set(self.objective)) < len(self.objective):
            raise ValueError("objective needs one name or several different ones")
        if self.pruner in ("median", "hyperband") and (len(self.objective) > 1 or self.objective[0] == "resistance"):
            raise ValueError(f"pruner {self.pruner} needs a single objective, mAP or NDS")
        return self


def load_settings(path: Path | None, **options: Any) -> SweepSettings:
    """Read the section `sweep` of a YAML file.

    Args:
        path: the file; None for the defaults.
        options: fields that replace those of the file, None where it is to be left alone.

    Raises:
        InputError: where the file or a field cannot be used.
    """
    values: Any = {}
    if path is not None:
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); give the path of a YAML file") from None
        except (yaml.YAMLError, UnicodeDecodeError):
            raise InputError(f"{path}: is not valid YAML; mend the syntax there") from None
        if not isinstance(values, dict) or values.keys() != {"sweep"} or not isinstance(values["sweep"], dict):
            raise InputError(f"{path}: must hold one section `sweep:` with {', '.join(SweepSettings.model_fields)}")
        values = values["sweep"]
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return SweepSettings.model_validate({**values, **given})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(["sweep", *(str(part) for part in first["loc"][:2])])
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            message = f"is not known; known: {', '.join(SweepSettings.model_fields)}"
        raise InputError(f"{path or 'options'}: {key}: {message}; change it there") from None
