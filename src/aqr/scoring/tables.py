"""Metrics as tables for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

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


def _number(value: float, digits: int) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}f}"
