"""What every chart is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aqr.analysis.language import Message, Translator

COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6B6B6B")
"""Okabe and Ito's palette, distinguishable with colour-blindness."""
BAND: Final = "rgba(0, 158, 115, 0.16)"

Runs = Sequence[Mapping[str, Any]]
Colours = Mapping[str, str]


@dataclass(frozen=True)
class Figure:
    """A chart.

    Attributes:
        name: stable, used as its anchor.
        plot: `data` and `layout` for Plotly, and `panels`, their number, where the page is to place small multiples.
        wide: whether it needs the whole width.
    """

    name: str
    title: Message
    caption: Message
    plot: dict[str, Any]
    wide: bool = False


def layout_of(t: Translator, x: str, y: str, **more: Any) -> dict[str, Any]:
    return {
        "xaxis": {"title": {"text": t(x)}, "automargin": True, "zeroline": False, **more.pop("xaxis", {})},
        "yaxis": {"title": {"text": t(y)}, "automargin": True, "zeroline": False, **more.pop("yaxis", {})},
        **more,
    }


def series_of(run: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    series = run["training"]["series"].get(name)
    return series if series and series["iteration"] else None


def line_of(run: Mapping[str, Any], name: str, colour: str, label: str, **more: Any) -> dict[str, Any]:
    series = series_of(run, name) or {"iteration": [], "value": []}
    few = len(series["iteration"]) < 3
    return {
        "type": "scatter",
        "mode": "lines+markers" if few else "lines",
        "x": series["iteration"],
        "y": series["value"],
        "name": label,
        "line": {"color": colour, "width": 2},
        **more,
    }


def labels(run: Mapping[str, Any], what: str, several: bool) -> str:
    return f"{what} · {run['name']}" if several else what
