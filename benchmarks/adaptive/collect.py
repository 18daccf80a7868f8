"""What the runs left, brought into a few small JSON files."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, Final

import numpy as np
from benchmarks.adaptive.arms import arms
from benchmarks.adaptive.balance import on_test
from benchmarks.proof.collect import write_lines

from aqr.files import replacing
from aqr.taxonomy import CLASSES

log = logging.getLogger(__name__)

RUNS: Final = "runs.json"
CURVES: Final = "curves.json"


def collect(raw: Path, results: Path) -> None:
    """Write runs.json, curves.json, study/study.json and study-test/study.json.

    Args:
        raw: what `lease` brought home, unpacked.
        results: folder of the small files.
    """
    runs: list[dict[str, Any]] = []
    drawn: dict[tuple[str, int], Any] = {}
    curves: dict[str, Any] = {}
    for path in sorted((raw / "arms").glob("*.json")):
        run = json.loads(path.read_text(encoding="utf-8"))
        runs.append(run)
        with np.load(path.with_suffix(".npz")) as arrays:
            drawn[run["arm"], run["seed"]] = arrays["ap"].astype(np.float64)
        curve = _curve(raw / "runs" / path.stem / "aqr_stats.jsonl")
        if curve is not None:
            curves[path.stem] = curve
    write_lines(results / RUNS, {"runs": runs, "scene_error": _scene_errors(drawn)})
    write_lines(results / CURVES, curves)
    study = raw / "study" / "study.json"
    if study.is_file():
        content = json.loads(study.read_text(encoding="utf-8"))
        with replacing(results / "study" / "study.json") as partial:
            partial.write_text(json.dumps(content) + "\n", encoding="utf-8")
        on_test(study, results / "study-test")
    log.info("%d runs, study %s", len(runs), "there" if study.is_file() else "missing")


def _curve(path: Path) -> dict[str, list[float]] | None:
    """What the settings were and what they did, line by line."""
    if not path.is_file():
        return None
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if "settings" in line and "modulation_pers" in line]
    if not lines:
        return None
    return {
        "step": [line["forward"] for line in lines],
        "change": [round(line["modulation_pers"]["relative_change"], 5) for line in lines],
        "bev_change": [round(line["modulation_bev"]["relative_change"], 5) for line in lines],
        "residual_weight": [round(line["settings"]["residual_weight"], 5) for line in lines],
        "max_weight_clamp": [round(line["settings"]["max_weight_clamp"], 5) for line in lines],
        "stopped": [bool(line.get("controller", {}).get("stopped")) for line in lines],
    }


def _scene_errors(drawn: dict[tuple[str, int], Any]) -> dict[str, dict[str, float]]:
    """Standard deviation, over resamples of the scenes, of the mean over seeds of arm minus the arm beside it."""
    errors: dict[str, dict[str, float]] = {}
    for name, arm in arms(1).items():
        seeds = _seeds(drawn, name, arm.beside)
        if not seeds or arm.beside is None:
            continue
        difference = np.mean([drawn[name, seed] - drawn[arm.beside, seed] for seed in seeds], axis=0)
        errors[name] = {"mAP": float(difference.mean(axis=1).std(ddof=1))} | dict(
            zip(CLASSES, difference.std(axis=0, ddof=1).tolist(), strict=True)
        )
    return errors


def _seeds(drawn: dict[tuple[str, int], Any], name: str, beside: str | None) -> list[int]:
    return sorted(seed for one, seed in drawn if one == name and (beside, seed) in drawn)
