"""The pictures of docs/adaptive.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from benchmarks.proof.figures import Difference
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from aqr.analysis.studied import CLAMP, RESIDUAL, Studied
from aqr.config import PRESETS
from aqr.files import replacing

COLORS: Final = ("#0b5c8a", "#b23a48", "#d98c1f", "#2e7d4f", "#7a5195", "0.5", "#56b4e9", "#8c564b", "0.2", "#e377c2")
GREEN: Final = "#009e73"


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=100)


def draw_curves(curves: Mapping[str, Any], bands: Mapping[str, tuple[float, float]], path: Path) -> None:
    """Change of image features, and the settings that move, over the steps: every seed of every arm that can move."""
    names = [
        name for name in dict.fromkeys(run.rpartition("-")[0] for run in curves) if not name.startswith("by-class")
    ]
    panels = {"change": "change of image features, %", "residual_weight": "residual_weight"}
    if any(np.ptp(curve["max_weight_clamp"]) > 0 for curve in curves.values()):
        panels["max_weight_clamp"] = "max_weight_clamp"
    figure = Figure(figsize=(10, 1 + 2.5 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), 1, sharex=True)
    for color, name in zip(COLORS, names, strict=False):
        for run, curve in curves.items():
            if run.rpartition("-")[0] != name:
                continue
            for ax, key in zip(axes, panels, strict=True):
                values = (100 if key == "change" else 1) * np.array(curve[key])
                ax.plot(curve["step"], values, color=color, linewidth=1.3, alpha=0.85, label=name)
    for low, high in {bands[name] for name in names if name in bands}:
        axes[0].axhspan(100 * low, 100 * high, color=GREEN, alpha=0.12, linewidth=0)
    for ax, label in zip(axes, panels.values(), strict=True):
        ax.set_ylabel(label)
        ax.grid(color="0.9")
    axes[0].set_ylim(bottom=0)
    axes[-1].set_xlabel("step")
    handles, labels = axes[0].get_legend_handles_labels()
    first = {label: handle for handle, label in zip(handles, labels, strict=True)}
    figure.legend(first.values(), first.keys(), loc="outside lower center", ncols=4, frameon=False)
    _save(figure, path)


def draw_classes(rows: Mapping[str, Mapping[str, Difference | None]], path: Path) -> None:
    """AP of small classes against the uniform residual, with intervals."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    ax = figure.subplots()
    classes = list(next(iter(rows.values())))
    for number, (color, (name, row)) in enumerate(zip(COLORS, rows.items(), strict=False)):
        places = np.arange(len(classes)) + 0.22 * (number - (len(rows) - 1) / 2)
        for place, one in zip(places, row.values(), strict=True):
            if one is None:
                continue
            ax.plot(place, 100 * one.value, "o", color=color, label=name)
            ax.plot([place, place], [100 * one.low, 100 * one.high], color=color, linewidth=1.6)
    ax.axhline(0, color="0.3", linewidth=0.9)
    ax.set_xticks(range(len(classes)), [name.replace("_", "\n") for name in classes])
    ax.set_ylabel("AP points against the uniform residual")
    ax.grid(axis="y", color="0.9")
    handles, labels = ax.get_legend_handles_labels()
    first = {label: handle for handle, label in zip(handles, labels, strict=True)}
    figure.legend(first.values(), first.keys(), loc="outside lower center", ncols=3, frameon=False)
    _save(figure, path)


def draw_surface(studied: Studied, path: Path) -> None:
    """The surface over residual and clamp, and over the two gains, of what it explains; the rest at its best."""
    study = studied.study
    surfaces = {name: surface for name, surface in studied.surfaces.items() if surface is not None and surface.explains}
    if not surfaces:
        return
    ranges = [axis for axis in study.axes if not axis.choices]
    rest = [axis for axis in ranges if axis.key not in (CLAMP, RESIDUAL)]
    by_key = {axis.key: axis for axis in ranges}
    panels = [(by_key[RESIDUAL], by_key[CLAMP]), *([(rest[0], rest[1])] if len(rest) > 1 else [])]
    figure = Figure(figsize=(5.4 * len(panels), 4.4 * len(surfaces)), layout="constrained")
    grid = figure.subplots(len(surfaces), len(panels), squeeze=False)
    for row, (objective, surface) in zip(grid, surfaces.items(), strict=True):
        for ax, (x, y) in zip(row, panels, strict=True):
            xs = np.geomspace(x.low, x.high, 41) if x.log else np.linspace(x.low, x.high, 41)
            ys = np.geomspace(y.low, y.high, 41) if y.log else np.linspace(y.low, y.high, 41)
            heights, _ = surface.at([{**surface.optimum, x.key: float(a), y.key: float(b)} for b in ys for a in xs])
            shown = ax.contourf(xs, ys, heights.reshape(41, 41), 14, cmap="Blues")
            figure.colorbar(shown, ax=ax, shrink=0.9)
            scores = [trial.values[objective] for trial in study.complete]
            ax.scatter(
                [trial.params[x.key] for trial in study.complete],
                [trial.params[y.key] for trial in study.complete],
                c=scores,
                cmap="Blues",
                norm=shown.norm,
                edgecolors="0.2",
                s=26,
                linewidths=0.7,
            )
            ax.plot(surface.optimum[x.key], surface.optimum[y.key], "*", color="#b23a48", markersize=15)
            if not surface.extrapolated:
                (x0, x1), (y0, y1) = surface.intervals[x.key], surface.intervals[y.key]
                ax.plot([x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0], "--", color="#b23a48", linewidth=1.2)
            if x.key == RESIDUAL:
                for name in ("A", "B", "C"):
                    clamp, residual = PRESETS[name]
                    ax.plot(residual, clamp, "D", color="k", markersize=5)
                    ax.annotate(name, (residual, clamp), xytext=(4, 4), textcoords="offset points", fontsize=9)
            if x.log:
                ax.set_xscale("log")
                _plain(ax.xaxis)
            if y.log:
                ax.set_yscale("log")
                _plain(ax.yaxis)
            ax.set_xlabel(x.label)
            ax.set_ylabel(y.label)
            peak = ", the star is extrapolated" if surface.extrapolated else ""
            ax.set_title(f"{objective}, R² {surface.explained:.2f}{peak}", fontsize=10)
    _save(figure, path)


def _plain(axis: Axis) -> None:
    """Numbers as people write them on a short logarithmic axis."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 3.0, 5.0, 7.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())
