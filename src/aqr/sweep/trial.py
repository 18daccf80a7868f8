"""One trial: train, score, and say how it goes meanwhile."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from aqr.config import Config
from aqr.scoring import Metrics
from aqr.sweep.settings import SweepSettings
from aqr.training import evaluate_failures, train
from aqr.training.run_folder import RunFolder

Report = Callable[[int, Mapping[str, float]], None]
"""Takes a step and the scores there; raises where the trial is not worth going on."""
RunTrial = Callable[[Config, Path, SweepSettings, Report], dict[str, float]]
"""Trains in a folder and returns the scores by name."""


def train_and_score(config: Config, folder: Path, settings: SweepSettings, report: Report) -> dict[str, float]:
    """Train a detector and score it on the validation split.

    Checkpoints to resume from are dropped at the end, the final weights stay.

    Args:
        config: of the trial.
        folder: its run folder.
        settings: of the sweep.
        report: is told every intermediate evaluation.

    Returns:
        mAP and NDS, and `resistance` (mean resistance ability, NDS) where it is an objective.
    """

    def tell(step: int, metrics: Metrics) -> None:
        report(step, {"mAP": metrics.mean_ap, "NDS": metrics.nds})

    run = RunFolder(folder)
    try:
        train(config, folder, on_evaluation=tell, show=False)
    finally:
        for path in run.checkpoints.glob("*.ckpt"):
            path.unlink()
    summary: dict[str, Any] = json.loads((run.evaluation(config.data.val_split) / "metrics.json").read_text())
    scores = {"mAP": float(summary["mean_ap"]), "NDS": float(summary["nd_score"])}
    if "resistance" in settings.objective:
        figures = evaluate_failures(folder, settings.corrupt, show=False)
        scores["resistance"] = float(figures["mean"]["mRA_NDS"] or 0.0)
    return scores
