"""Fine-tune arms from the base, one after another, and score each under every condition."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from benchmarks.proof.arms import ARMS, build, schedule
from benchmarks.proof.base import name_of_device
from benchmarks.proof.batches import arm_order, stream
from benchmarks.proof.conditions import Split, score
from benchmarks.proof.plan import PILOT, TEST, TRAIN, Place, config
from benchmarks.proof.training import fit
from benchmarks.proof.weights import WeightLog

from aqr.detector import Detector
from aqr.files import write_json
from aqr.training.checkpoint import load_weights
from aqr.training.run_folder import RunFolder

log = logging.getLogger(__name__)

LR: Final = 5e-5
LR_PEAK: Final = 4.0
WARMUP: Final = 0.2
AQR_LR: Final = 5.0
GATE_LR: Final = 50.0
"""AQR is new where the rest is trained, and its gates start closed."""


def start_from(base: Path, detector: Detector) -> None:
    """Load the base's weights; AQR's own are new.

    Raises:
        ValueError: where the weights are of another detector.
    """
    report = load_weights(detector, base)
    missing = [name for name in report.missing if not name.startswith("aqr.")]
    if missing or report.mismatched:
        raise ValueError(f"{base} is not the base of this experiment: it lacks {missing + list(report.mismatched)}")


def run_arm(place: Place, arm: str, seed: int, base: Path, splits: dict[str, Split]) -> dict[str, Any]:
    """Fine-tune and score one arm.

    Args:
        place: where the caches lie.
        arm: one of `ARMS`.
        seed: of noise, of new weights and of the choice and order of the batches.
        base: weights that every arm starts from.
        splits: pilot and test.

    Returns:
        what is written to `arms/<arm>-<seed>.json`.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    steps = place.scale.arm_steps
    settings = config(
        place,
        seed=seed,
        **ARMS[arm].sections(),
        train={
            "steps": steps,
            "lr": LR,
            "lr_peak": LR_PEAK,
            "warmup_fraction": WARMUP,
            "lr_mult": _lr_mult(ARMS[arm].aqr),
            "log_every": max(steps // 20, 1),
            "stats_every": max(steps // 4, 1),
            "init_from": str(base),
        },
    )
    torch.manual_seed(seed)
    detector = build(arm, settings)
    start_from(base, detector)
    detector = detector.to(device)
    name = f"{arm}-{seed}"
    folder = RunFolder(place.out / "runs" / name)
    shutil.rmtree(folder.path, ignore_errors=True)
    batches = stream(place.cache(TRAIN), arm_order(steps, place.scale.cached_steps, seed), device)
    effort = fit(detector, settings, batches, folder, device=device, extra=ARMS[arm].extra)
    folder.final_weights.unlink()
    result: dict[str, Any] = {
        "arm": arm,
        "says": ARMS[arm].says,
        "seed": seed,
        "effort": asdict(effort),
        "device": name_of_device(device),
        "parameters": sum(p.numel() for p in detector.parameters()),
    }
    weights = WeightLog(splits[TEST].truth)
    tested = score(detector, splits[TEST], device, watch=weights)
    result[TEST] = tested.summary()
    result["weights"] = weights.summary()
    result[PILOT] = score(detector, splits[PILOT], device).summary()
    write_json(folder.evaluation(splits[TEST].config.data.val_split) / "metrics.json", tested.clean)
    path = place.out / "arms" / f"{name}.json"
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


def _lr_mult(aqr: Mapping[str, Any]) -> dict[str, float]:
    if not aqr["enabled"]:
        return {}
    gated = aqr.get("modulator", {}).get("gate", False)
    return {"aqr": AQR_LR} | ({"aqr.lidar_gate": GATE_LR, "aqr.camera_gate": GATE_LR} if gated else {})


def work(place: Place, base: Path, only: list[str] | None, seconds: float) -> None:
    """Take runs from the schedule that no other process has taken, until none is left or the time will not do.

    Args:
        place: where the caches lie.
        base: weights that every arm starts from.
        only: arms to run; None for all.
        seconds: from now.
    """
    begin = time.monotonic()
    splits = {name: Split(place, config(place), name) for name in (PILOT, TEST)}
    claims = place.work / "claims"
    claims.mkdir(parents=True, exist_ok=True)
    longest = 0.0
    for arm, seed in schedule():
        if (only is not None and arm not in only) or (place.out / "arms" / f"{arm}-{seed}.json").exists():
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
            run_arm(place, arm, seed, base, splits)
        except Exception:  # one arm that cannot be trained must not end the others
            log.exception("%s-%d failed", arm, seed)
        else:
            longest = max(longest, time.monotonic() - started)
        gc.collect()
