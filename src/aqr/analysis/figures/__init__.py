"""The charts, as Plotly figures in plain JSON; drawn by the plotly.js inlined in the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from aqr.analysis.figures.figure import COLOURS, Figure
from aqr.analysis.figures.routing import adaptation, maps, modulation, weights, whatif
from aqr.analysis.figures.scores import classes
from aqr.analysis.figures.study import study_figures
from aqr.analysis.figures.training import gradients, losses, parts, timings
from aqr.analysis.language import Translator

__all__ = ["Figure", "figures"]

_LONGEST: Final = 20


def figures(data: Mapping[str, Any], t: Translator) -> Iterator[Figure]:
    """Every chart that the data allow."""
    yield from study_figures(data, t)
    short = _short_names([run["name"] for run in data["runs"]])
    runs: Sequence[Mapping[str, Any]] = [{**run, "name": short[run["name"]]} for run in data["runs"]]
    data = {**data, "comparisons": [{**one, "run": short[one["run"]]} for one in data["comparisons"]]}
    colours = {run["name"]: COLOURS[number % len(COLOURS)] for number, run in enumerate(runs)}
    makers = (losses, gradients, parts, classes, weights, modulation, maps, adaptation, whatif, timings)
    for maker in makers:
        figure = maker(data, runs, colours, t)
        if figure is not None:
            yield figure


def _short_names(names: Sequence[str]) -> dict[str, str]:
    """Names that fit into a legend on a phone, still distinct."""
    out: dict[str, str] = {}
    for name in names:
        short = name if len(name) <= _LONGEST else f"{name[: _LONGEST - 10]}…{name[-9:]}"
        out[name] = short if short not in out.values() else f"{short} ({len(out) + 1})"
    return out
