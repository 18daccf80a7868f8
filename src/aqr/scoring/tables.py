"""Metrics as tables for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich import box
from rich.table import Table

from aqr.scoring.curves import ERRORS

SHORT_ERRORS: Final = dict(zip(ERRORS, ("ATE", "ASE", "AOE", "AVE", "AAE"), strict=True))
"""Column heads of the five errors; the mean over the classes has an m before it."""


def overall_table(summaries: Mapping[str, Mapping[str, Any]]) -> Table:
    """mAP, NDS and the five mean errors, one line per run.

    Args:
        summaries: name of a run to its metrics_summary (`Metrics.summary`, or metrics.json read back).
    """
    table = Table(title="nuScenes detection")
    table.add_column("run")
    for head in ("mAP", "NDS", *(f"m{short}" for short in SHORT_ERRORS.values())):
        table.add_column(head, justify="right")
    for name, summary in summaries.items():
        errors = [summary["tp_errors"][error] for error in ERRORS]
        table.add_row(name, *(_number(value, 4) for value in (summary["mean_ap"], summary["nd_score"], *errors)))
    return table


def class_table(summary: Mapping[str, Any], title: str = "by class") -> Table:
    """The ten classes with AP, ATE, ASE, AOE, AVE and AAE; a dash where a class has no such error."""
    table = Table(title=title)
    table.add_column("class")
    for head in ("AP", *SHORT_ERRORS.values()):
        table.add_column(head, justify="right")
    for name, ap in summary["mean_dist_aps"].items():
        errors = summary["label_tp_errors"][name]
        table.add_row(name, _number(ap, 3), *(_number(errors[error], 3) for error in ERRORS))
    return table


def interval_table(figures: Mapping[str, Any], title: str) -> Table:
    """Figures with the ends of their intervals, as `bootstrap` and `difference` of metrics.json hold them."""
    table = Table(title=title, caption=f"{figures['level']:.0%} of {figures['resamples']} resamples of the scenes")
    table.add_column("figure")
    for head in ("value", "low", "high"):
        table.add_column(head, justify="right")
    rows = {"mAP": figures["mean_ap"], "NDS": figures["nd_score"]}
    rows |= {f"m{SHORT_ERRORS[name]}": figure for name, figure in figures["tp_errors"].items()}
    rows |= {f"AP {name}": figure for name, figure in figures["mean_dist_aps"].items()}
    for name, figure in rows.items():
        table.add_row(name, *(_number(figure[end], 4) for end in ("value", "low", "high")))
    return table


def breakdown_table(parts: Sequence[Mapping[str, Any]]) -> Table:
    """Parts of a split, as `breakdown` of metrics.json holds them."""
    table = Table(title="by part", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("part", no_wrap=True)
    for head in ("objects", "mAP", "NDS", *(f"m{short}" for short in SHORT_ERRORS.values())):
        table.add_column(head, justify="right", no_wrap=True)
    kind = parts[0]["kind"] if parts else ""
    for part in parts:
        if part["kind"] != kind:
            kind = part["kind"]
            table.add_section()
        errors = [part["tp_errors"][error] for error in ERRORS]
        figures = [_number(value, 3) for value in (part["mean_ap"], part["nd_score"], *errors)]
        table.add_row(f"{kind.replace('_', ' ')} {part['name']}", str(part["objects"]), *figures)
    return table


def score_tables(summary: Mapping[str, Any], name: str = "run") -> list[Table]:
    """Every table that what `score_files` returned has content for."""
    runs = {name: summary}
    if "baseline" in summary:
        runs["baseline"] = summary["baseline"]["summary"]
    tables = [overall_table(runs), class_table(summary)]
    if "bootstrap" in summary:
        tables.append(interval_table(summary["bootstrap"], "intervals"))
    if "baseline" in summary:
        tables.append(interval_table(summary["baseline"]["difference"], f"{name} minus baseline"))
    if "breakdown" in summary:
        tables.append(breakdown_table(summary["breakdown"]))
    return tables


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"
