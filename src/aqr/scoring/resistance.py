"""How much of its clean score a detector keeps when sensors fail.

Definition (MultiCorrupt, arXiv 2402.11677). With M the score (mAP or NDS) of failure c at severity s:

    RA(c, s) = M(c, s) / M(clean)        resistance ability
    RA(c)    = mean over the severities of c
    mRA      = mean over the failures of RA(c)

MultiCorrupt gives it for NDS. A failure without degrees, such as a LiDAR that is gone, has one severity.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich import box
from rich.table import Table

from aqr.files import replacing

METRICS: Final = {"mAP": "mean_ap", "NDS": "nd_score"}
"""Metrics compared, and their keys in a metrics_summary."""
COLORS: Final = ("#b9d3e5", "#5b9bc4", "#0b3c5d")
"""One per severity, slight to grave."""
MEAN_COLOR: Final = "#b23a48"


def resistance(
    clean: Mapping[str, Any], failed: Mapping[str, Mapping[int, Mapping[str, Any]]]
) -> dict[str, dict[str, Any]]:
    """Scores and resistance abilities.

    Args:
        clean: metrics_summary without a failure.
        failed: metrics_summary by name of the failure and severity.

    Returns:
        `clean`: mAP and NDS. `failures`: for each name, `severities` with mAP, NDS, RA_mAP, RA_NDS of each, and the
        means RA_mAP, RA_NDS. `mRA_mAP`, `mRA_NDS` under `mean`. A resistance is None where the clean score is 0.
    """
    reference = {metric: float(clean[key]) for metric, key in METRICS.items()}
    failures: dict[str, Any] = {}
    for name, summaries in failed.items():
        severities: dict[str, dict[str, float | None]] = {}
        for severity, summary in summaries.items():
            scores = {metric: float(summary[key]) for metric, key in METRICS.items()}
            kept = {f"RA_{metric}": _share(score, reference[metric]) for metric, score in scores.items()}
            severities[str(severity)] = {**scores, **kept}
        means = {f"RA_{metric}": _mean(entry[f"RA_{metric}"] for entry in severities.values()) for metric in METRICS}
        failures[name] = {"severities": severities} | means
    mean = {f"mRA_{metric}": _mean(entry[f"RA_{metric}"] for entry in failures.values()) for metric in METRICS}
    return {"clean": reference, "failures": failures, "mean": mean}


def resistance_table(figures: Mapping[str, Any]) -> Table:
    """What `resistance` returns: a line per failure and severity, the mean of each failure, and the mean of all."""
    table = Table(title="sensor failures", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("failure", no_wrap=True)
    for head in ("severity", "mAP", "NDS", "RA mAP", "RA NDS"):
        table.add_column(head, justify="right", no_wrap=True)
    clean = figures["clean"]
    table.add_row("none", "", *(f"{clean[metric]:.4f}" for metric in METRICS), "", "", end_section=True)
    for name, failure in figures["failures"].items():
        several = len(failure["severities"]) > 1
        for place, (severity, entry) in enumerate(failure["severities"].items()):
            scores = (f"{entry[metric]:.4f}" for metric in METRICS)
            kept = (_percent(entry[f"RA_{metric}"]) for metric in METRICS)
            last = place == len(failure["severities"]) - 1
            table.add_row("" if place else name, severity, *scores, *kept, end_section=last and not several)
        if several:
            means = (_percent(failure[f"RA_{metric}"]) for metric in METRICS)
            table.add_row("", "mean", "", "", *means, style="bold", end_section=True)
    table.add_row("mRA", "", "", "", *(_percent(figures["mean"][f"mRA_{metric}"]) for metric in METRICS), style="bold")
    return table


def draw_resistance(figures: Mapping[str, Any], path: str | Path, title: str = "") -> None:
    """Draw the resistance ability of every failure and severity, mAP beside NDS.

    Args:
        figures: what `resistance` returns.
        path: PNG, SVG or PDF by its ending; its folder is made.
        title: over the picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    path = Path(path)
    failures = figures["failures"]
    figure = Figure(figsize=(11, 1.6 + 0.42 * len(failures)), layout="constrained")
    FigureCanvasAgg(figure)
    for metric, ax in zip(METRICS, figure.subplots(1, 2, sharey=True), strict=True):
        for row, failure in enumerate(failures.values()):
            for severity, entry in failure["severities"].items():
                share = entry[f"RA_{metric}"]
                place = row + 0.26 * (int(severity) - 2) if len(failure["severities"]) > 1 else row
                ax.barh(place, np.nan if share is None else share, height=0.24, color=COLORS[int(severity) - 1])
            if failure[f"RA_{metric}"] is not None:
                ax.plot(failure[f"RA_{metric}"], row, marker="|", markersize=17, markeredgewidth=1.6, color=MEAN_COLOR)
        mean = figures["mean"][f"mRA_{metric}"]
        ax.axvline(1.0, color="0.4", linewidth=0.8)
        if mean is not None:
            ax.axvline(mean, color=MEAN_COLOR, linewidth=1.2, linestyle="--")
        ax.set_title(f"{metric}: {figures['clean'][metric]:.3f} clean, mRA {_percent(mean)}", fontsize=10)
        ax.set_yticks(range(len(failures)), [name.replace("_", " ") for name in failures])
        ax.set_xlabel("share of the clean score kept")
        ax.set_xlim(0, max(1.05, ax.get_xlim()[1]))
        ax.grid(axis="x", color="0.88", linewidth=0.6)
        ax.set_axisbelow(True)
    figure.axes[0].invert_yaxis()
    bars = [Patch(color=color, label=f"severity {place}") for place, color in enumerate(COLORS, 1)]
    tick = Line2D([], [], color=MEAN_COLOR, marker="|", markersize=12, markeredgewidth=1.6, linestyle="", label="mean")
    line = Line2D([], [], color=MEAN_COLOR, linestyle="--", label="mean of all failures (mRA)")
    keys = [*bars, tick, line]
    figure.legend(handles=keys, loc="outside lower center", ncols=len(keys), frameon=False)
    if title:
        figure.suptitle(title, fontsize=11)
    with replacing(path) as partial:
        figure.savefig(partial, format=path.suffix.removeprefix(".") or "png", dpi=110)


def _share(score: float, clean: float) -> float | None:
    return score / clean if clean > 0 else None


def _mean(shares: Any) -> float | None:
    known = [share for share in shares if share is not None]
    return math.fsum(known) / len(known) if known else None


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"
