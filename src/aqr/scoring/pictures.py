"""Precision-recall curves as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from aqr.errors import InputError
from aqr.files import replacing
from aqr.scoring.curves import MIN_PRECISION, MIN_RECALL, RECALLS
from aqr.scoring.matching import THRESHOLDS
from aqr.scoring.metrics import DEVKIT_ORDER, Metrics
from aqr.taxonomy import LABEL_OF

COLORS: Final = ("#0b3c5d", "#328cc1", "#d9b310", "#b23a48")
"""One per match distance, distinct in print and for the colour-blind."""


def draw_precision_recall(metrics: Metrics, path: str | Path, baseline: Metrics | None = None) -> None:
    """Draw precision over recall for the ten classes at the four match distances.

    The shaded margins, recall and precision up to 10 %, do not count.

    Args:
        metrics: what to draw.
        path: PNG, SVG or PDF by its ending; its folder is made.
        baseline: another run, drawn dashed.

    Raises:
        InputError: for another ending, or where the file cannot be written.
    """
    path = Path(path)
    form = picture_format(path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(15, 6.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 5, sharex=True, sharey=True)
    for place, (name, ax) in enumerate(zip(DEVKIT_ORDER, axes.flat, strict=True)):
        label = LABEL_OF[name]
        ax.axvspan(0, MIN_RECALL, color="0.94", zorder=0)
        ax.axhspan(0, MIN_PRECISION, color="0.94", zorder=0)
        for threshold, color in enumerate(COLORS):
            ax.plot(RECALLS, metrics.curves[label][threshold].precision, color=color, linewidth=1.5)
            if baseline is not None:
                ax.plot(RECALLS, baseline.curves[label][threshold].precision, color=color, linewidth=1, linestyle="--")
        title = f"{name.replace('_', ' ')}  AP {metrics.ap[label].mean():.3f}"
        if baseline is not None:
            title += f" ({metrics.ap[label].mean() - baseline.ap[label].mean():+.3f})"
        ax.set_title(title, fontsize=10)
        ax.set(xlim=(0, 1), ylim=(0, 1))
        ax.grid(color="0.88", linewidth=0.6)
        if place >= 5:
            ax.set_xlabel("recall")
        if place % 5 == 0:
            ax.set_ylabel("precision")
    lines = [Line2D([], [], color=color, label=f"{t:g} m") for t, color in zip(THRESHOLDS, COLORS, strict=True)]
    if baseline is not None:
        lines.append(Line2D([], [], color="0.3", linestyle="--", label="baseline"))
    figure.legend(handles=lines, loc="outside lower center", ncols=len(lines), frameon=False, title="match distance")
    with replacing(path) as partial:
        figure.savefig(partial, format=form, dpi=110)


def picture_format(path: Path) -> str:
    """The format that the ending of a picture's name stands for; PNG where it has none.

    Raises:
        InputError: for another format than PNG, SVG and PDF.
    """
    form = path.suffix.removeprefix(".").lower() or "png"
    if form not in ("png", "svg", "pdf"):
        raise InputError(f"{path}: cannot be drawn as {form}; name a .png, .svg or .pdf")
    return form
