"""How far a score difference would move with other scenes, where both runs kept their detections.

Two run folders that hold eval/<split>/results.json for the same split of a data set that is at hand are scored anew,
scenes are drawn with replacement, and the differences of all draws give the interval (`aqr.scoring.bootstrap`). It says
nothing of what another training seed would do.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from aqr.analysis.readers.collect import TP_ERRORS
from aqr.analysis.run import Run
from aqr.errors import InputError

RESAMPLES: Final = 1000
FEWEST_SCENES: Final = 5
"""Fewer scenes say too little of others."""
LARGEST: Final = 300_000_000
"""Bytes of detections that are scored anew; more would take minutes."""


@dataclass(frozen=True)
class Intervals:
    """95 % intervals of run minus baseline.

    Attributes:
        scenes: number of scenes that were drawn from.
        metrics: low and high by metric.
        classes: low and high of AP by class.
    """

    scenes: int
    metrics: dict[str, tuple[float, float]]
    classes: dict[str, tuple[float, float]]


def score_intervals(run: Run, baseline: Run) -> Intervals | None:
    """Intervals of a comparison; None where detections or data set are not at hand, or the scenes are too few."""
    ours, theirs = _results(run), _results(baseline)
    root, version = run.text("data_root"), run.text("data_version")
    if ours is None or theirs is None or root is None or version is None or not (Path(root) / version).is_dir():
        return None
    if ours.parent.name != theirs.parent.name or version != baseline.text("data_version"):
        return None
    if ours.stat().st_size + theirs.stat().st_size > LARGEST:
        return None
    from aqr.data.index import open_index
    from aqr.scoring import evaluate, load_ground_truth
    from aqr.scoring.bootstrap import difference
    from aqr.scoring.submission import read_submission

    try:
        index = open_index(root, version)
        truth = load_ground_truth(index, index.split(ours.parent.name))
        scenes = len(np.unique(truth.samples.scene))
        if scenes < FEWEST_SCENES:
            return None
        scored = [evaluate(truth, read_submission(path, truth.samples.tokens)[0], str(path)) for path in (ours, theirs)]
    except InputError:
        return None
    change = difference(scored[0], scored[1], RESAMPLES)
    return Intervals(
        scenes,
        {
            "mAP": _ends(change["mean_ap"]),
            "NDS": _ends(change["nd_score"]),
            **{f"m{short}": _ends(change["tp_errors"][name]) for name, short in TP_ERRORS.items()},
        },
        {name: _ends(one) for name, one in change["mean_dist_aps"].items()},
    )


def _results(run: Run) -> Path | None:
    if run.kind != "run folder" or run.evaluation is None or run.evaluation.split is None:
        return None
    path = run.source / "eval" / run.evaluation.split / "results.json"
    return path if path.is_file() else None


def _ends(interval: dict[str, Any]) -> tuple[float, float]:
    return round(float(interval["low"]), 6), round(float(interval["high"]), 6)
