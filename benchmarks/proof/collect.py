"""What the runs left, brought into a few small JSON files."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from benchmarks.proof.arms import ARMS, BASELINE
from benchmarks.proof.figures import Floats, figures
from benchmarks.proof.plan import BASES, COURSES, FROM_BASE, PILOT, TEST, Course

from aqr.files import replacing
from aqr.training.run_folder import RunFolder

log = logging.getLogger(__name__)

METRICS: Final = {"mAP": "mean_ap", "NDS": "nds"}
CHANGED: Final = {"images": "modulation_pers", "BEV": "modulation_bev"}
MAPS: Final = {"images": "weight_map_pers", "BEV": "weight_map_bev"}
"""Groups of a run's statistics by the features that they concern."""
WEIGHTS: Final = "weights.json"
COST: Final = "cost.json"
ORACLE: Final = "oracle.json"
SHOWN_SEVERITY: Final = "3"
NO_LIDAR: Final = "lidar_drop-3"
NO_CAMERA: Final = "missing_camera-3"
SENSORS: Final = {"clean": "both", NO_LIDAR: "no LiDAR", NO_CAMERA: "no camera"}
"""Conditions that say what each sensor is worth, in words."""


def collect(raw: Path, results: Path) -> None:
    """Write a file for every base and for every course that has been run, and weights.json.

    Args:
        raw: what the leases brought home, unpacked into one folder.
        results: folder of the small files.
    """
    for base in BASES:
        if (raw / f"{base}.json").exists():
            write_lines(results / f"{base}.json", _base(raw / f"{base}.json"))
    for course in COURSES.values():
        if not (raw / course.name).exists():
            continue
        content, weights = _runs(raw, course)
        write_lines(results / f"{course.name}.json", content)
        if weights:
            write_lines(results / weights_file(course), weights)
        arms = {run["arm"] for run in content["runs"]}
        log.info("%s: %d runs of %d arms", course.name, len(content["runs"]), len(arms))


def weights_file(course: Course) -> str:
    """Name of the file of what a course's routers said."""
    return WEIGHTS if course == FROM_BASE else f"weights-{course.name}.json"


def _runs(raw: Path, course: Course) -> tuple[dict[str, Any], dict[str, Any]]:
    """Runs with the scatter of their differences, and what the routers of the first seed said, by arm."""
    runs, resampled, weights = [], {}, {}
    for path in sorted((raw / course.name).glob("*.json")):
        run = json.loads(path.read_text(encoding="utf-8"))
        arm, seed = run["arm"], run["seed"]
        names = list(run[TEST]["mAP"])
        with np.load(path.with_suffix(".npz")) as arrays:
            resampled[arm, seed] = {
                metric: figures(names, arrays[key].astype(np.float64)) for metric, key in METRICS.items()
            }
        if seed == 0 and run["weights"] is not None:
            shown = ("clean", *(name for name in names if name.endswith(f"-{SHOWN_SEVERITY}")))
            weights[arm] = {name: run["weights"][name] for name in shown}
        runs.append(
            {
                key: run[key]
                for key in ("arm", "says", "seed", "effort", "device", "parameters", "trained")
                if key in run
            }
            | {split: {metric: run[split][metric] for metric in METRICS} for split in (TEST, PILOT)}
            | {"AP": run[TEST]["AP"]["clean"], **_left(RunFolder(course.run_folder(raw, path.stem)))}
        )
    return {"runs": runs, "scene_error": _scene_errors(resampled)}, weights


def _left(folder: RunFolder) -> dict[str, Any]:
    """What else a run folder tells: true-positive errors where nothing fails, and how far AQR changes features."""
    found: dict[str, Any] = {}
    for scored in folder.path.glob("eval/*/metrics.json"):
        found["TP"] = json.loads(scored.read_text(encoding="utf-8"))["tp_errors"]
    if folder.statistics.exists():
        last = json.loads(folder.statistics.read_text(encoding="utf-8").splitlines()[-1])
        found["change"] = {says: last[group]["relative_change"] for says, group in CHANGED.items() if group in last}
        found["map"] = {says: last[group]["mean"] for says, group in MAPS.items() if group in last}
    return found


def _base(path: Path) -> dict[str, Any]:
    base = json.loads(path.read_text(encoding="utf-8"))
    return {key: value for key, value in base.items() if key not in (TEST, PILOT)} | {
        split: {metric: base[split][metric] for metric in METRICS}
        | {"AP": {name: base[split]["AP"][name] for name in SENSORS}}
        for split in (TEST, PILOT)
        if split in base
    }


def _scene_errors(
    resampled: Mapping[tuple[str, int], Mapping[str, Mapping[str, Floats]]],
) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """Standard deviation over resamples of the scenes of the mean over seeds, by arm, other arm, metric and figure."""
    errors: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for arm in {arm for arm, _ in resampled}:
        for other in {BASELINE, ARMS[arm].beside} - {None, arm}:
            assert other is not None
            seeds = [seed for name, seed in resampled if name == arm and (other, seed) in resampled]
            if seeds:
                errors.setdefault(arm, {})[other] = {
                    metric: {
                        figure: float(
                            np.mean(
                                [
                                    resampled[arm, s][metric][figure] - resampled[other, s][metric][figure]
                                    for s in seeds
                                ],
                                axis=0,
                            ).std(ddof=1)
                        )
                        for figure in resampled[arm, seeds[0]][metric]
                    }
                    for metric in METRICS
                }
    return errors


def write_lines(path: Path, content: Mapping[str, Any]) -> None:
    """JSON with a line per entry of the outermost list or mapping."""
    lines = [f"{json.dumps(key)}: {_lines(value)}" for key, value in content.items()]
    with replacing(path) as partial:
        partial.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def _lines(value: Any) -> str:
    if isinstance(value, list):
        return "[\n" + ",\n".join(json.dumps(entry) for entry in value) + "\n]"
    return json.dumps(value)
