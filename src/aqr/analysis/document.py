"""report.json: every figure of the report, null where the source does not say."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from aqr.analysis.comparison import Comparison
from aqr.analysis.findings import Finding
from aqr.analysis.forecast import Forecast
from aqr.analysis.language import Message, Translator
from aqr.analysis.recommend import Recommendation
from aqr.analysis.run import CLASS_METRICS, GROUPS, METRICS, MODULATION, Evaluation, Run, Series, Snapshot, Training
from aqr.analysis.studied import Studied, entry
from aqr.analysis.whatif import WhatIf

_CONFIG: Final = (
    "enable_aqr",
    "target",
    "max_weight_clamp",
    "residual_weight",
    "form",
    "gate",
    "parameterisation",
    "render_method",
    "gaussian_sigma",
    "min_weight_threshold",
    "modulation_type",
    "num_query",
    "init_from",
    "batch_size",
    "seed",
)
_POINTS: Final = 400
"""Longest series in the report; longer ones keep every n-th point and the last."""


def document(
    runs: Sequence[Run],
    main: Run | None,
    comparisons: Sequence[Comparison],
    findings: Sequence[Finding],
    recommendations: Sequence[Recommendation],
    grids: Iterable[WhatIf],
    verdict: Sequence[Message],
    extra_rows: Mapping[str, Mapping[str, float]],
    studies: Sequence[Studied],
    translate: Translator,
) -> dict[str, Any]:
    """The report as JSON-ready values; NaN and infinity become null. `main` is the run that the verdict is about."""
    out: dict[str, Any] = clean(
        {
            "language": translate.language,
            "verdict": [translate.show(sentence) for sentence in verdict],
            "main_run": None if main is None else main.name,
            "runs": [_run(run, translate) for run in runs],
            "extra_rows": [{"name": name, **row} for name, row in extra_rows.items()],
            "comparisons": [_comparison(one, translate) for one in comparisons],
            "findings": [_finding(one, translate) for one in findings],
            "recommendations": [_recommendation(one, translate) for one in recommendations],
            "whatif": [_grid(one, translate) for one in grids],
            "studies": [entry(one) for one in studies],
        }
    )
    return out


def clean(value: Any) -> Any:
    """JSON has no NaN: non-finite numbers become null."""
    if isinstance(value, Mapping):
        return {str(key): clean(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [clean(entry) for entry in value]
    if isinstance(value, np.generic):
        return clean(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _run(run: Run, translate: Translator) -> dict[str, Any]:
    names = [*_CONFIG, *(name for name in run.settings if name not in _CONFIG)]
    config = {name: run.settings[name].value if name in run.settings else None for name in names}
    config["enable_aqr"] = run.uses_aqr
    return {
        "name": run.name,
        "source": str(run.source),
        "kind": run.kind,
        "config": config,
        "config_origin": {name: setting.origin for name, setting in run.settings.items()},
        "training": _training(run.training),
        "evaluation": _evaluation(run.evaluation),
        "evaluations": [_evaluation(one) for one in run.evaluations],
        "aqr": {"snapshots": [_snapshot(one) for one in run.snapshots]},
        "notes": [translate.show(note) for note in run.notes],
    }


def _training(training: Training) -> dict[str, Any]:
    losses = training.series.get("loss")
    finite = losses.finite() if losses is not None else None
    norms = training.series.get("grad_norm")
    return {
        "iterations": training.iterations,
        "iterations_logged": training.last_logged,
        "iterations_planned": training.planned,
        "loss_first": float(finite.value[0]) if finite is not None and len(finite) else None,
        "loss_last": float(finite.value[-1]) if finite is not None and len(finite) else None,
        "loss_at": _landmarks(losses),
        "step_time_median_s": training.median("step_time_s"),
        "data_time_median_s": training.median("data_time_s"),
        "memory_max_mb": training.largest("memory_mb"),
        "log_lines": max((len(one) for one in training.series.values()), default=0),
        "nonfinite_grad_iterations": list(training.nonfinite_grad_iterations),
        "nan_grad_iterations": [] if norms is None else norms.iteration[np.isnan(norms.value)].tolist(),
        "series": {name: _series(one) for name, one in training.series.items()},
    }


def _landmarks(losses: Series | None) -> dict[str, float]:
    """The loss at the first and last line and at round iterations."""
    if losses is None or not len(losses):
        return {}
    span = int(losses.iteration[-1])
    step = 10 ** max(0, len(str(span)) - 1)
    wanted = {int(losses.iteration[0]), span, *range(step, span + 1, step)}
    return {str(at): value for at in sorted(wanted) if (value := losses.at(at)) is not None}


def _series(series: Series) -> dict[str, Any]:
    stride = max(1, math.ceil(len(series) / _POINTS))
    keep = np.arange(0, len(series), stride)
    if len(series) and keep[-1] != len(series) - 1:
        keep = np.append(keep, len(series) - 1)
    return {"iteration": series.iteration[keep].tolist(), "value": series.value[keep].tolist()}


def _evaluation(evaluation: Evaluation | None) -> dict[str, Any] | None:
    if evaluation is None:
        return None
    return {
        "split": evaluation.split,
        "iteration": evaluation.iteration,
        **{name: evaluation.figures.get(name) for name in METRICS},
        "per_class": {
            name: {
                **{figure: result.figure(figure) for figure in CLASS_METRICS},
                "AP_dist": dict(result.ap_by_distance),
            }
            for name, result in evaluation.per_class.items()
        },
    }


def _snapshot(snapshot: Snapshot) -> dict[str, Any]:
    out: dict[str, Any] = {"forward": snapshot.forward, "ranks": snapshot.ranks, "pooled": snapshot.pooled}
    if snapshot.settings:
        out["settings"] = {**snapshot.settings, "stopped": snapshot.stopped}
    if snapshot.gates:
        out["gates"] = dict(snapshot.gates)
    out["queries"] = [min(snapshot.queries), max(snapshot.queries)] if snapshot.queries else None
    for group in GROUPS:
        if group not in snapshot.samples:
            out[group] = None
            continue
        stats: dict[str, Any] = {}
        for name in snapshot.samples[group]:
            if name == "std":
                stats["std"] = snapshot.spread(group)
            elif name == "min":
                stats["min"] = snapshot.low(group)
            elif name in ("max", "max_change"):
                stats[name] = snapshot.high(group, name)
            else:
                stats[name] = snapshot.mean(group, name)
                stats[f"{name}_rank_std"] = snapshot.rank_std(group, name)
        if group in MODULATION:
            stats.setdefault("relative_change", None)
        out[group] = stats
    return out


def _comparison(one: Comparison, translate: Translator) -> dict[str, Any]:
    return {
        "run": one.run,
        "baseline": one.baseline,
        "mAP_delta": one.metrics.get("mAP"),
        "NDS_delta": one.metrics.get("NDS"),
        "metrics_delta": dict(one.metrics),
        "per_class_AP_delta": dict(one.per_class_ap),
        "step_time_ratio": one.step_time_ratio,
        "memory_ratio": one.memory_ratio,
        "loss_first_delta": one.loss_first,
        "loss_first_iteration": one.loss_first_iteration,
        "loss_last_delta": one.loss_last,
        "like_for_like": one.like_for_like,
        "differences": [translate.show(message) for message in one.differences],
        "not_compared": [translate.show(message) for message in one.unknown],
        "intervals": None
        if one.intervals is None
        else {
            "level": 0.95,
            "over": "scenes",
            "scenes": one.intervals.scenes,
            "metrics": one.intervals.metrics,
            "per_class_AP": one.intervals.classes,
        },
    }


def _finding(one: Finding, translate: Translator) -> dict[str, Any]:
    return {
        "id": one.id,
        "severity": one.severity,
        "run": one.run,
        "title": translate.show(one.title),
        "detail": translate.show(one.detail),
        "evidence": dict(one.evidence),
        "source": translate.show(one.source),
    }


def _range(forecast: Forecast | None) -> list[float] | None:
    return None if forecast is None else [round(forecast.low, 6), round(forecast.high, 6)]


def _recommendation(one: Recommendation, translate: Translator) -> dict[str, Any]:
    return {
        "name": one.name,
        "run": one.run,
        "max_weight_clamp": one.max_weight_clamp,
        "residual_weight": one.residual_weight,
        "theoretical_max": one.theoretical_max,
        "predicted_camera_relative_change": _range(one.camera),
        "expected_camera_relative_change": None if one.camera is None else round(one.camera.expected, 6),
        "spread_known": None if one.camera is None else not one.camera.rough,
        "predicted_if_additive": _range(one.camera_additive),
        "reason": translate.show(one.reason),
    }


def _grid(one: WhatIf, translate: Translator) -> dict[str, Any]:
    return {
        "run": one.run,
        "source": one.source,
        "forward": one.forward,
        "form": one.form,
        "spread_known": not any(cell.camera is not None and cell.camera.rough for cell in one.cells),
        "assumptions": [translate.show(message) for message in one.assumptions],
        "cells": [
            {
                "max_weight_clamp": cell.max_weight_clamp,
                "residual_weight": cell.residual_weight,
                "theoretical_max": round(cell.largest_factor, 6),
                "camera": _range(cell.camera),
                "camera_expected": None if cell.camera is None else round(cell.camera.expected, 6),
                "bev": _range(cell.bev),
                "bev_expected": None if cell.bev is None else round(cell.bev.expected, 6),
                "camera_if_additive": _range(cell.camera_additive),
            }
            for cell in one.cells
        ],
    }
