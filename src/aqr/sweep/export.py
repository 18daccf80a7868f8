"""study.json: everything a study knows, for readers without optuna and without its database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import optuna
from optuna.trial import FrozenTrial, TrialState

FORMAT: Final = "aqr-study-1"
SURPLUS: Final = "surplus"
ERROR: Final = "error"
SCORES: Final = "scores"
RUN: Final = "run"
HOST: Final = "host"
_STATES: Final = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
    TrialState.FAIL: "failed",
}


def study_document(
    study: optuna.Study, objectives: Sequence[str], search: Sequence[Mapping[str, Any]], config: Mapping[str, Any]
) -> dict[str, Any]:
    """What study.json holds.

    Args:
        study: as stored now.
        objectives: names of its values.
        search: its dimensions.
        config: the settings that all trials share.

    Returns:
        format, name, objectives, search, config, trials and `best`: the numbers of the trials that no other beats in
        all objectives.
    """
    trials = [trial for trial in study.get_trials(deepcopy=False) if not trial.user_attrs.get(SURPLUS)]
    complete = any(trial.state == TrialState.COMPLETE for trial in trials)
    return {
        "format": FORMAT,
        "name": study.study_name,
        "objectives": list(objectives),
        "search": [dict(dimension) for dimension in search],
        "config": dict(config),
        "trials": [_trial(trial, objectives) for trial in trials],
        "best": sorted(trial.number for trial in study.best_trials) if complete else [],
    }


def _trial(trial: FrozenTrial, objectives: Sequence[str]) -> dict[str, Any]:
    values = trial.values if trial.state == TrialState.COMPLETE else None
    duration = trial.duration
    return {
        "number": trial.number,
        "state": _STATES[trial.state],
        "params": dict(trial.params),
        "values": None if values is None else dict(zip(objectives, values, strict=True)),
        "scores": dict(trial.user_attrs.get(SCORES, {})),
        "intermediate": {str(step): value for step, value in sorted(trial.intermediate_values.items())},
        "run": trial.user_attrs.get(RUN),
        "host": trial.user_attrs.get(HOST),
        "duration_s": None if duration is None else duration.total_seconds(),
        "retry_of": trial.system_attrs.get("failed_trial"),
        "error": trial.user_attrs.get(ERROR),
    }
