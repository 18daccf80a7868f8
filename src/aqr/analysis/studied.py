"""A study with its response surfaces, and what report.json holds of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from aqr.analysis.readers.study import Axis, Study
from aqr.analysis.recommend import NAMED
from aqr.analysis.surface import Surface, fit_surface
from aqr.config import PRESETS

CLAMP: Final = "aqr.renderer.max_weight_clamp"
RESIDUAL: Final = "aqr.modulator.residual_weight"
_GRID: Final = 41


@dataclass(frozen=True)
class Versus:
    """The highest place of a surface against one of the settings A, B, C, all other searched keys left as they are.

    Attributes:
        name: of the setting.
        settings: its clamp and residual.
        inside: whether it lies in the searched region; otherwise nothing is said of its score.
        advantage: how much higher the highest place is; None where that place is extrapolated.
        interval: 95 % interval of that.
    """

    name: str
    settings: Mapping[str, float]
    inside: bool
    advantage: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Studied:
    """A study and what follows from it.

    Attributes:
        study: as read.
        surfaces: by objective; None where there are too few trials.
        versus: by objective.
    """

    study: Study
    surfaces: Mapping[str, Surface | None]
    versus: Mapping[str, tuple[Versus, ...]]


def examine(study: Study) -> Studied:
    """Fit a surface for every objective of a study."""
    trials = study.complete
    params = [trial.params for trial in trials]
    surfaces = {
        objective: fit_surface(study.axes, params, [trial.values[objective] for trial in trials])
        for objective in study.objectives
    }
    return Studied(study, surfaces, {name: _versus(study, surface) for name, surface in surfaces.items()})


def _versus(study: Study, surface: Surface | None) -> tuple[Versus, ...]:
    ranges = {axis.key: axis for axis in study.axes if not axis.choices}
    if surface is None or not {CLAMP, RESIDUAL} <= ranges.keys():
        return ()
    out = []
    for name in NAMED:
        settings = dict(zip((CLAMP, RESIDUAL), PRESETS[name], strict=True))
        inside = all(ranges[key].low <= value <= ranges[key].high for key, value in settings.items())
        gain = surface.advantage({**surface.optimum, **settings}) if inside else None
        advantage, interval = gain if gain is not None else (None, None)
        out.append(Versus(name, settings, inside, advantage, interval))
    return tuple(out)


def entry(studied: Studied) -> dict[str, Any]:
    """The study in report.json."""
    study = studied.study
    return {
        "name": study.name,
        "source": str(study.source),
        "objectives": list(study.objectives),
        "search": [
            {"key": axis.key, "low": axis.low, "high": axis.high, "log": axis.log, "choices": list(axis.choices)}
            for axis in study.axes
        ],
        "trials": [
            {
                "number": trial.number,
                "state": trial.state,
                "params": dict(trial.params),
                "values": dict(trial.values) or None,
                "error": trial.error,
            }
            for trial in study.trials
        ],
        "best": list(study.best),
        "surfaces": {
            objective: None if surface is None else _surface(surface, studied.versus[objective])
            for objective, surface in studied.surfaces.items()
        },
    }


def _surface(surface: Surface, versus: tuple[Versus, ...]) -> dict[str, Any]:
    return {
        "trials": surface.trials,
        "interactions": surface.interactions,
        "noise": surface.noise,
        "explained": surface.explained,
        "optimum": dict(surface.optimum),
        "value": surface.value,
        "best_trial": surface.best,
        "extrapolated": surface.extrapolated,
        "value_interval": None if surface.value_interval is None else list(surface.value_interval),
        "intervals": {
            key: dict(where) if isinstance(where, Mapping) else list(where) for key, where in surface.intervals.items()
        },
        "edges": list(surface.edges),
        "importance": dict(surface.importance),
        "versus": [
            {
                "name": one.name,
                "settings": dict(one.settings),
                "inside": one.inside,
                "advantage": one.advantage,
                "interval": None if one.interval is None else list(one.interval),
            }
            for one in versus
        ],
        "map": _map(surface),
        "slices": {axis.key: _slice(surface, axis) for axis in surface.axes if not axis.choices},
    }


def _line(axis: Axis) -> list[float]:
    spaced = np.geomspace if axis.log else np.linspace
    return [float(value) for value in spaced(axis.low, axis.high, _GRID)]


def _map(surface: Surface) -> dict[str, Any] | None:
    """Heights over residual and clamp, or else over the two ranges that matter most; other keys at the optimum."""
    ranges = [axis for axis in surface.axes if not axis.choices]
    if len(ranges) < 2:
        return None
    by_key = {axis.key: axis for axis in ranges}
    if by_key.keys() >= {CLAMP, RESIDUAL}:
        x, y = by_key[RESIDUAL], by_key[CLAMP]
    else:
        x, y = sorted(ranges, key=lambda axis: -surface.importance[axis.key])[:2]
    xs, ys = _line(x), _line(y)
    heights, _ = surface.at([{**surface.optimum, x.key: a, y.key: b} for b in ys for a in xs])
    return {"x_key": x.key, "y_key": y.key, "x": xs, "y": ys, "z": heights.reshape(len(ys), len(xs)).tolist()}


def _slice(surface: Surface, axis: Axis) -> dict[str, list[float] | None]:
    """Heights along one range with their 95 % band, other keys at the optimum; no band where that is extrapolated."""
    xs = _line(axis)
    heights, replicates = surface.at([{**surface.optimum, axis.key: x} for x in xs])
    if surface.extrapolated:
        return {"x": xs, "value": heights.tolist(), "low": None, "high": None}
    low, high = np.percentile(replicates, [2.5, 97.5], axis=0)
    return {"x": xs, "value": heights.tolist(), "low": low.tolist(), "high": high.tolist()}
