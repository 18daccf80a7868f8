"""A run beside its baseline, and whether the two were trained the same way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from aqr.analysis.intervals import Intervals, score_intervals
from aqr.analysis.language import Message, text
from aqr.analysis.run import METRICS, Evaluation, Run

_DIGITS: Final = 6
_SAME_LR: Final = 0.01
"""Relative difference of learning rates that printing alone can make."""

COMPARED_SETTINGS: Final = (
    "init_from",
    "batch_size",
    "devices",
    "seed",
    "lr",
    "num_query",
    "layers",
    "backbone",
    "train_split",
    "data_version",
    "augment",
    "cbgs",
    "precision",
)


@dataclass(frozen=True)
class Comparison:
    """Run minus baseline; None where one of the two does not state the figure.

    Attributes:
        metrics: difference of each overall metric.
        per_class_ap: difference of AP by class.
        loss_first: difference of the loss at `loss_first_iteration`, the first iteration that both log.
        loss_last: likewise at the last one.
        step_time_ratio, memory_ratio: run over baseline, medians and maxima.
        like_for_like: True where the training is known to be the same, False where it differs, None where too little
            is stated.
        intervals: 95 % intervals over scenes; None where the runs hold no results per sample.
        differences: what differs.
        unknown: what cannot be compared.
    """

    run: str
    baseline: str
    metrics: Mapping[str, float]
    per_class_ap: Mapping[str, float]
    loss_first: float | None
    loss_first_iteration: int | None
    loss_last: float | None
    loss_last_iteration: int | None
    step_time_ratio: float | None
    memory_ratio: float | None
    like_for_like: bool | None
    intervals: Intervals | None
    differences: tuple[Message, ...]
    unknown: tuple[Message, ...]


def compare(run: Run, baseline: Run, *, resample: bool = True) -> Comparison:
    """Run against baseline; `resample` looks for intervals over scenes."""
    first = last = first_at = last_at = None
    if "loss" in run.training.series and "loss" in baseline.training.series:
        ours, theirs = run.training.series["loss"].finite(), baseline.training.series["loss"].finite()
        shared, here, there = np.intersect1d(ours.iteration, theirs.iteration, return_indices=True)
        if len(shared):
            gaps = ours.value[here] - theirs.value[there]
            first, last = (_round(float(gap)) for gap in (gaps[0], gaps[-1]))
            first_at, last_at = int(shared[0]), int(shared[-1])
    same, differences, unknown = trained_alike(run, baseline)
    return Comparison(
        run=run.name,
        baseline=baseline.name,
        metrics=metric_differences(run.evaluation, baseline.evaluation),
        per_class_ap=_class_differences(run.evaluation, baseline.evaluation),
        loss_first=first,
        loss_first_iteration=first_at,
        loss_last=last,
        loss_last_iteration=last_at,
        step_time_ratio=_ratio(run.training.median("step_time_s"), baseline.training.median("step_time_s")),
        memory_ratio=_ratio(run.training.largest("memory_mb"), baseline.training.largest("memory_mb")),
        like_for_like=same,
        intervals=score_intervals(run, baseline) if resample else None,
        differences=differences,
        unknown=unknown,
    )


def metric_differences(run: Evaluation | None, baseline: Evaluation | None) -> dict[str, float]:
    if run is None or baseline is None:
        return {}
    return {
        name: _round(run.figures[name] - baseline.figures[name])
        for name in METRICS
        if name in run.figures and name in baseline.figures
    }


def _class_differences(run: Evaluation | None, baseline: Evaluation | None) -> dict[str, float]:
    if run is None or baseline is None:
        return {}
    out = {}
    for name, result in run.per_class.items():
        other = baseline.per_class.get(name)
        if other is not None and result.ap is not None and other.ap is not None:
            out[name] = _round(result.ap - other.ap)
    return out


def trained_alike(run: Run, baseline: Run) -> tuple[bool | None, tuple[Message, ...], tuple[Message, ...]]:
    """Whether two runs were trained the same way: length, learning rates over time, start, batch, seed, data.

    Returns:
        The answer, what differs, and what cannot be compared.
    """
    differences: list[Message] = []
    unknown: list[Message] = []
    ours, theirs = run.training.iterations, baseline.training.iterations
    if ours is None or theirs is None:
        unknown.append(text("the number of iterations"))
    elif ours != theirs:
        differences.append(
            text(
                "{run} took {ours} iterations, {baseline} {theirs}",
                run=run.name,
                ours=ours,
                baseline=baseline.name,
                theirs=theirs,
            )
        )
    schedules = _schedules_agree(run, baseline)
    if schedules is None:
        unknown.append(text("the learning rates"))
    elif not schedules:
        differences.append(text("the learning rates differ"))
    for name in COMPARED_SETTINGS:
        here, there = run.settings.get(name), baseline.settings.get(name)
        if here is None and there is None:
            continue
        if here is None or there is None:
            unknown.append(text("{name} (stated by one run only)", name=name))
        elif here.value != there.value:
            differences.append(
                text("{name} is {here} against {there}", name=name, here=str(here.value), there=str(there.value))
            )
    if differences:
        return False, tuple(differences), tuple(unknown)
    return (True if ours is not None and schedules else None), (), tuple(unknown)


def _schedules_agree(run: Run, baseline: Run) -> bool | None:
    if "lr" not in run.training.series or "lr" not in baseline.training.series:
        return None
    ours, theirs = run.training.series["lr"].finite(), baseline.training.series["lr"].finite()
    shared, here, there = np.intersect1d(ours.iteration, theirs.iteration, return_indices=True)
    if not len(shared):
        return None
    return bool(np.allclose(ours.value[here], theirs.value[there], rtol=_SAME_LR, atol=0))


def _ratio(value: float | None, baseline: float | None) -> float | None:
    return _round(value / baseline) if value is not None and baseline else None


def _round(value: float) -> float:
    return round(value, _DIGITS)
