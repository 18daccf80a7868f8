"""The pictures of docs/proof.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from benchmarks.proof.arms import ARMS, BASELINE
from benchmarks.proof.compare import Comparison
from benchmarks.proof.figures import CLEAN, FAILURES
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from aqr.data.failures.catalogue import KINDS
from aqr.files import replacing

BLUE: Final = "#0b5c8a"
RED: Final = "#b23a48"
GREY: Final = "0.55"
LIDAR_COLOR: Final = "#0b5c8a"
CAMERA_COLOR: Final = "#d98c1f"
TICKS: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2, 1.5, 2.0, 5.0, 10.0)
"""Weights that may be marked."""
MOST_TICKS: Final = 5


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=100)


def draw_differences(comparison: Comparison, chosen: str | None, path: Path) -> None:
    """Every arm against the baseline: clean, and mean over failures, with intervals and the single seeds."""
    arms = comparison.others
    figure = Figure(figsize=(11, 1.3 + 0.34 * len(arms)), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for ax, (name, title) in zip(axes, ((CLEAN, "nothing fails"), (FAILURES, "mean over all failures")), strict=True):
        for row, arm in enumerate(arms):
            color = RED if arm == chosen else BLUE if ARMS[arm].candidate else GREY
            seeds = comparison.differences(arm, BASELINE, name)
            ax.plot(100 * np.array(seeds), [row] * len(seeds), "|", color=color, alpha=0.5, markersize=9)
            found = comparison.difference(arm, name)
            if found is not None:
                ax.plot(100 * found.value, row, "o", color=color, markersize=6)
                ax.plot([100 * found.low, 100 * found.high], [row, row], color=color, linewidth=1.6)
        ax.axvline(0, color="0.3", linewidth=0.9)
        ax.set_title(title, fontsize=10)
        ax.set_xlabel("mAP points against the same fine-tuning without AQR")
        ax.set_yticks(range(len(arms)), arms)
        ax.grid(axis="x", color="0.9")
        ax.set_axisbelow(True)
    axes[0].invert_yaxis()
    _save(figure, path)


def draw_failures(comparison: Comparison, path: Path) -> None:
    """Every arm under every failure, against the baseline."""
    arms = comparison.others
    columns = [CLEAN, *(kind.name for kind in KINDS)]
    table = np.array(
        [[100 * np.mean(comparison.differences(arm, BASELINE, name) or [np.nan]) for name in columns] for arm in arms]
    )
    limit = max(float(np.nanmax(abs(table))), 0.1)
    figure = Figure(figsize=(11, 2.2 + 0.3 * len(arms)), layout="constrained")
    ax = figure.subplots()
    image = ax.imshow(table, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
    for (row, column), value in np.ndenumerate(table):
        ax.text(
            column,
            row,
            f"{value:+.1f}",
            ha="center",
            va="center",
            fontsize=7,
            color="white" if abs(value) > 0.6 * limit else "black",
        )
    base = [100 * comparison.mean(BASELINE, name) for name in columns]
    labels = [f"{name.replace('_', ' ')} ({value:.0f})" for name, value in zip(columns, base, strict=True)]
    ax.set_xticks(range(len(columns)), labels, rotation=40, ha="right", fontsize=8)
    ax.set_yticks(range(len(arms)), arms, fontsize=8)
    figure.colorbar(image, ax=ax, label="mAP points against no AQR", shrink=0.8)
    ax.set_title("mean over severities; in brackets what the detector without AQR reaches", fontsize=9)
    _save(figure, path)


def draw_weights(shown: dict[str, Any], path: Path) -> None:
    """What routers say: geometric mean of LiDAR and camera weight by failure, distance, class and light."""
    if not shown:
        return
    first = next(iter(shown.values()))
    failures = [name for name in first if name != CLEAN]
    panels = [("failure", [CLEAN, *failures])] + [
        (kind, list(first[CLEAN][kind])) for kind in ("distance", "class", "light")
    ]
    widths = [len(names) for _, names in panels]
    figure = Figure(figsize=(13, 1.4 + 1.6 * len(shown)), layout="constrained")
    axes = figure.subplots(len(shown), len(panels), squeeze=False, sharex="col", width_ratios=widths)
    for row, (arm, of_arm) in enumerate(shown.items()):
        low, high = 0.98, 1.02
        for column, (kind, names) in enumerate(panels):
            pairs = [
                of_arm[name]["all"]["all"] if kind == "failure" else of_arm[CLEAN][kind].get(name, (np.nan, np.nan))
                for name in names
            ]
            lidar, camera = np.array(pairs, dtype=float).T
            ax = axes[row][column]
            ax.plot(lidar, "s", color=LIDAR_COLOR, markersize=4.5, label="LiDAR")
            ax.plot(camera, "o", color=CAMERA_COLOR, markersize=4.5, label="camera")
            ax.vlines(range(len(names)), lidar, camera, color="0.7", linewidth=1, zorder=0)
            ax.axhline(1.0, color="0.6", linewidth=0.7)
            ax.set_yscale("log")
            ax.grid(axis="y", color="0.92")
            ax.set_xlim(-0.6, len(names) - 0.4)
            low, high = min(low, float(np.nanmin([lidar, camera]))), max(high, float(np.nanmax([lidar, camera])))
            if row == len(shown) - 1:
                labels = [name.removesuffix("-3").replace("_", " ") for name in names]
                ax.set_xticks(range(len(names)), labels, rotation=55, ha="right", fontsize=10)
            if row == 0:
                ax.set_title("failure, severity 3" if kind == "failure" else kind, fontsize=11)
        for ax in axes[row]:
            margin = (high / low) ** 0.12
            ax.set_ylim(low / margin, high * margin)
            ax.yaxis.set_major_locator(FixedLocator(_ticks(low / margin, high * margin)))
            ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
            ax.yaxis.set_minor_locator(NullLocator())
        axes[row][0].set_ylabel(f"{arm}\nweight", fontsize=10)
    axes[0][0].legend(fontsize=10, loc="upper right", ncols=2, frameon=False)
    _save(figure, path)


def _ticks(low: float, high: float) -> list[float]:
    """Round weights within limits, 1 among them, about evenly on a logarithmic scale."""
    apart = 0.1 * np.log(high / low)
    inside = [tick for tick in TICKS if low <= tick <= high and (tick == 1.0 or abs(np.log(tick)) > apart)]
    while len(inside) > MOST_TICKS:
        gaps = {tick: inside[n + 1] / inside[n - 1] for n, tick in enumerate(inside[1:-1], 1) if tick != 1.0}
        inside.remove(min(gaps, key=lambda tick: gaps[tick]))
    return inside
