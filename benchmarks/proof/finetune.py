"""Train arms from the base or from random weights, one after another, and score each under every condition."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from benchmarks.proof.arms import ARMS, Arm, build, schedule
from benchmarks.proof.base import LR as BASE_LR
from benchmarks.proof.base import LR_PEAK as BASE_LR_PEAK
from benchmarks.proof.base import name_of_device, weights_of
from benchmarks.proof.batches import arm_order, stream, together
from benchmarks.proof.conditions import Split, score
from benchmarks.proof.plan import FROM_BASE, PILOT, TEST, Course, Place, config
from benchmarks.proof.training import Effort, fit
from benchmarks.proof.weights import WeightLog

from aqr.detector import Detector
from aqr.files import write_json
from aqr.training.checkpoint import load_weights
from aqr.training.run_folder import RunFolder

log = logging.getLogger(__name__)

LR: Final = 5e-5
LR_PEAK: Final = 4.0
WARMUP: Final = 0.2
SCRATCH_BATCHES: Final = 2
"""Cached batches that make a step from random weights."""
SCRATCH_GATE_LR: Final = 10.0
GATE_LR: Final = 50.0
"""Gates start closed where the rest is trained."""


def steps_and_batches(place: Place, course: Course) -> tuple[int, int]:
    """Steps of a run, and cached batches that make one of them."""
    if course.base is None:
        return place.scale.scratch_steps, SCRATCH_BATCHES
    return place.scale.arm_steps, 1


def order(place: Place, course: Course, seed: int) -> list[int]:
    """Numbers of the cached batches of a run."""
    steps, per_step = steps_and_batches(place, course)
    return arm_order(per_step * steps, place.scale.cached_steps, seed)


def batches(place: Place, course: Course) -> dict[str, set[int]]:
    """Numbers of the cached batches that all runs of a course need."""
    return {course.batches: {number for _, seed in schedule(course) for number in order(place, course, seed)}}


def start_from(base: Path, detector: Detector) -> None:
    """Load the base's weights; AQR's own are new.

    Raises:
        ValueError: where the weights are of another detector.
    """
    report = load_weights(detector, base)
    missing = [name for name in report.missing if not name.startswith("aqr.")]
    if missing or report.mismatched:
        raise ValueError(f"{base} is not the base of this experiment: it lacks {missing + list(report.mismatched)}")


def run_arm(
    place: Place, arm: str, seed: int, base: Path | None, splits: dict[str, Split], course: Course = FROM_BASE
) -> dict[str, Any]:
    """Train and score one arm.

    Args:
        place: where the caches lie.
        arm: one of `ARMS`.
        seed: of noise, of new weights and of the choice and order of the batches.
        base: weights that every arm starts from; None for random ones.
        splits: pilot and test.
        course: what it is trained on, and where results go.

    Returns:
        what is written to `<course>/<arm>-<seed>.json`.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    steps, per_step = steps_and_batches(place, course)
    settings = config(
        place,
        seed=seed,
        batches=course.batches,
        **ARMS[arm].sections(),
        train={
            "steps": steps,
            "lr": BASE_LR if base is None else LR,
            "lr_peak": BASE_LR_PEAK if base is None else LR_PEAK,
            "warmup_fraction": WARMUP,
            "lr_mult": _lr_mult(ARMS[arm], base is None),
            "log_every": max(steps // 20, 1),
            "stats_every": max(steps // 4, 1),
            "init_from": None if base is None else str(base),
            "only": ["aqr"] if course.frozen and ARMS[arm].aqr["enabled"] else [],
        },
    )
    torch.manual_seed(seed)
    detector = build(arm, settings)
    if base is not None:
        start_from(base, detector)
    if course.frozen:
        detector.train_only(settings.train.only)
    detector = detector.to(device)
    name = f"{arm}-{seed}"
    folder = RunFolder(course.run_folder(place.out, name))
    shutil.rmtree(folder.path, ignore_errors=True)
    cached = stream(place.cache(course.batches), order(place, course, seed), device)
    batches = together(cached, per_step)
    trained = sum(p.numel() for p in detector.parameters() if p.requires_grad)
    if trained:
        effort = fit(detector, settings, batches, folder, device=device, extra=ARMS[arm].extra)
        folder.final_weights.unlink()
    else:
        folder.start(settings)
        effort = Effort(0, 0.0, 0.0)
    result: dict[str, Any] = {
        "arm": arm,
        "says": ARMS[arm].says,
        "seed": seed,
        "effort": asdict(effort),
        "device": name_of_device(device),
        "parameters": sum(p.numel() for p in detector.parameters()),
        "trained": trained,
    }
    weights = WeightLog(splits[TEST].truth)
    tested = score(detector, splits[TEST], device, watch=weights)
    result[TEST] = tested.summary()
    result["weights"] = weights.summary()
    result[PILOT] = score(detector, splits[PILOT], device).summary()
    write_json(folder.evaluation(splits[TEST].config.data.val_split) / "metrics.json", tested.clean)
    path = place.out / course.name / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        path.with_suffix(".npz"),
        mean_ap=tested.resampled.astype(np.float32),
        nds=tested.resampled_nds.astype(np.float32),
    )
    write_json(path, result)
    found = result[TEST]["mAP"]
    log.info(
        "%s: clean %.2f, mean over failures %.2f",
        name,
        100 * found["clean"],
        100 * float(np.mean([value for condition, value in found.items() if condition != "clean"])),
    )
    return result


def _lr_mult(arm: Arm, scratch: bool) -> dict[str, float]:
    if not arm.aqr["enabled"]:
        return {}
    gate = SCRATCH_GATE_LR if scratch else GATE_LR
    gates = {"aqr.lidar_gate": gate, "aqr.camera_gate": gate} if arm.aqr.get("modulator", {}).get("gate", False) else {}
    return gates if scratch else {"aqr": arm.router_lr} | gates


def work_through(place: Place, courses: Sequence[Course], seconds: float, awaited: Collection[str] = ()) -> None:
    """Take the runs of several courses, in order, each as soon as the base that it starts from is there.

    Args:
        place: where the caches lie.
        courses: most wanted first.
        seconds: from now.
        awaited: bases that are in training here, so that those of the repository will not do.
    """
    end = time.monotonic() + seconds
    waiting = list(courses)

    def start(course: Course) -> Path | None:
        return None if course.base is None else weights_of(place, course.base, course.base in awaited)

    while waiting and (left := end - time.monotonic()) > 0:
        course = next((one for one in waiting if one.base is None or start(one) is not None), None)
        if course is None:
            time.sleep(1.0)
            continue
        waiting.remove(course)
        work(place, course, start(course), None, left)


def work(place: Place, course: Course, base: Path | None, only: list[str] | None, seconds: float) -> None:
    """Take runs from the schedule that no other process has taken, until none is left or the time will not do.

    Args:
        place: where the caches lie.
        course: whose runs they are.
        base: weights that every arm starts from; None for random ones.
        only: arms to run; None for all.
        seconds: from now.
    """
    begin = time.monotonic()
    splits = {name: Split(place, config(place), name) for name in (PILOT, TEST)}
    claims = place.work / "claims" / course.name
    claims.mkdir(parents=True, exist_ok=True)
    longest = 0.0
    for arm, seed in schedule(course):
        if (only is not None and arm not in only) or (place.out / course.name / f"{arm}-{seed}.json").exists():
            continue
        if time.monotonic() - begin + 1.1 * longest > seconds:
            log.info("no time for %s-%d", arm, seed)
            break
        try:
            os.close(os.open(claims / f"{arm}-{seed}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue
        started = time.monotonic()
        try:
            run_arm(place, arm, seed, base, splits, course)
        except Exception:  # one arm that cannot be trained must not end the others
            log.exception("%s-%d failed", arm, seed)
        else:
            longest = max(longest, time.monotonic() - started)
        gc.collect()
