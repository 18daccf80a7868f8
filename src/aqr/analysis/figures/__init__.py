"""The charts, as Plotly figures in plain JSON; drawn by the plotly.js inlined in the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aqr.analysis.figures.figure import COLOURS, Figure
from aqr.analysis.figures.routing import maps, modulation, weights, whatif
from aqr.analysis.figures.scores import classes
from aqr.analysis.figures.training import gradients, losses, parts, timings
from aqr.analysis.language import Translator

__all__ = ["Figure", "figures"]


def figures(data: Mapping[str, Any], t: Translator) -> Iterator[Figure]:
    """Every chart that the data allow."""
    runs: Sequence[Mapping[str, Any]] = data["runs"]
    colours = {run["name"]: COLOURS[number % len(COLOURS)] for number, run in enumerate(runs)}
    makers = (losses, parts, classes, weights, modulation, maps, whatif, timings, gradients)
    for maker in makers:
        figure = maker(data, runs, colours, t)
        if figure is not None:
            yield figure
