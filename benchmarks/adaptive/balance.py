"""The study: clamp, residual, camera gain and LiDAR gain, each trial a short fine-tuning."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks.adaptive.finetune import settings_for, tune
from benchmarks.proof.base import KEY_CONDITIONS
from benchmarks.proof.conditions import Scores, Split, score
from benchmarks.proof.plan import PILOT, TEST, Place

from aqr.config import Config
from aqr.files import replacing
from aqr.sweep import SweepSettings, sweep
from aqr.sweep.trial import Report
from aqr.training.run_folder import RunFolder

log = logging.getLogger(__name__)

SEARCH: Final = {
    "aqr.renderer.max_weight_clamp": "1.2..3.0",
    "aqr.modulator.residual_weight": "0.3..0.95",
    "aqr.renderer.camera_gain": "0.5..2.0:log",
    "aqr.renderer.lidar_gain": "0.5..2.0:log",
}
STUDY: Final = "balance"
FIXED: Final[dict[str, Any]] = {
    "enabled": True,
    "parameterisation": "sigmoid",
    "modulator": {"gate": False, "form": "convex"},
}


class OutOfTime(Exception):
    """A trial would not end in time."""


def search(place: Place, base: Path, splits: dict[str, Split], trials: int, steps: int, deadline: float) -> None:
    """Take trials from the study until it is complete or the time is over.

    Args:
        place: of the caches; the study is kept in `out/study`.
        base: weights that every trial starts from.
        splits: pilot, which the study optimises, and test, which is recorded beside it.
        trials: in all, over all processes.
        steps: of each fine-tuning.
        deadline: by `time.monotonic`.
    """
    folder = place.out / "study"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{STUDY}.yaml"
    with replacing(path) as partial:
        partial.write_text(settings_for(place, FIXED, 0, base, steps).to_yaml(), encoding="utf-8")
    settings = SweepSettings.model_validate(
        {"search": SEARCH, "objective": ("mAP", "resistance"), "trials": trials, "startup": max(trials // 2, 1)}
    )
    try:
        sweep(path, folder, settings, run_trial=_trial(place, base, splits, deadline), say=log.info)
    except OutOfTime:
        log.info("no time for another trial")


def _trial(
    place: Place, base: Path, splits: dict[str, Split], deadline: float
) -> Callable[[Config, Path, SweepSettings, Report], dict[str, float]]:
    longest = 0.0

    def run(config: Config, folder: Path, settings: SweepSettings, report: Report) -> dict[str, float]:
        nonlocal longest
        begin = time.monotonic()
        if begin + 1.15 * longest > deadline:
            raise OutOfTime
        detector, _ = tune(place, config, RunFolder(folder), base, max(config.train.steps // 5, 1))
        device = next(detector.parameters()).device
        pilot, test = (score(detector, splits[name], device, KEY_CONDITIONS) for name in (PILOT, TEST))
        longest = max(longest, time.monotonic() - begin)
        return {
            "mAP": float(pilot.mean_ap[0]),
            "NDS": float(pilot.nds[0]),
            "resistance": _resistance(pilot),
            "test_mAP": float(test.mean_ap[0]),
            "test_NDS": float(test.nds[0]),
            "test_resistance": _resistance(test),
        }

    return run


def _resistance(scores: Scores) -> float:
    """Mean NDS under failures over the clean one."""
    return float(scores.nds[1:].mean() / scores.nds[0]) if scores.nds[0] > 0 else 0.0


def on_test(study: Path, out: Path) -> None:
    """The same study with the scores on the test split, on which nothing was optimised.

    Args:
        study: study.json.
        out: folder for another study.json.
    """
    content = json.loads(study.read_text(encoding="utf-8"))
    content["name"] = f"{content['name']}-{TEST}"
    for trial in content["trials"]:
        if trial["values"]:
            trial["values"] = {name: trial["scores"][f"test_{name}"] for name in content["objectives"]}
    done = [trial for trial in content["trials"] if trial["values"]]
    content["best"] = [
        one["number"] for one in done if not any(_beats(other["values"], one["values"]) for other in done)
    ]
    with replacing(out / "study.json") as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _beats(ours: dict[str, float], theirs: dict[str, float]) -> bool:
    pairs = [(ours[name], theirs[name]) for name in theirs]
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)
