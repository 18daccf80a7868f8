"""The bases that arms start from: detectors without AQR, from random weights."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch
from benchmarks.proof.arms import BASELINE, build
from benchmarks.proof.batches import base_order, stream, together
from benchmarks.proof.conditions import Split, score
from benchmarks.proof.plan import BASE, BASES, INTACT_BASE, PILOT, SHIPPED_BASE, TEST, Place, config, name_of
from benchmarks.proof.training import fit

from aqr.data.failures.catalogue import Failure
from aqr.files import write_json
from aqr.training.run_folder import RunFolder

log = logging.getLogger(__name__)

LR: Final = 1.6e-4
LR_PEAK: Final = 5.0
WARMUP: Final = 0.12
BATCHES_PER_STEP: Final = 3
"""Cached batches that make a step; a GPU hardly needs longer for several than for one."""

SHIPPED: Final = {
    BASE: SHIPPED_BASE,
    INTACT_BASE: Path(__file__).parent / "results" / "base-intact.safetensors",
}
"""The weights that the figures in the repository are of."""

KEY_CONDITIONS: Final = [None, Failure("lidar_drop", 3), Failure("missing_camera", 3), Failure("limited_fov", 2)]


def train_base(place: Place, seconds: float | None, seed: int = 0, name: str = BASE) -> dict[str, Any]:
    """Train a base and score it.

    Args:
        place: where the caches lie.
        seconds: for training.
        seed: of weights and noise.
        name: of `BASES`.

    Returns:
        what is written to NAME.json: effort, and scores on pilot and test.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    steps = place.scale.base_steps
    settings = config(
        place,
        seed=seed,
        batches=BASES[name].batches,
        detector={"loss": {"solo": BASES[name].solo}},
        train={
            "steps": steps,
            "lr": LR,
            "lr_peak": LR_PEAK,
            "warmup_fraction": WARMUP,
            "log_every": max(steps // 80, 1),
            "stats_every": max(steps // 8, 1),
        },
    )
    torch.manual_seed(seed)
    detector = build(BASELINE, settings).to(device)
    folder = RunFolder(base_folder(place, name))
    shutil.rmtree(folder.path, ignore_errors=True)
    order = base_order(BATCHES_PER_STEP * steps, place.scale.cached_steps)
    cached = stream(place.cache(BASES[name].batches), order, device)
    batches = together(cached, BATCHES_PER_STEP)
    effort = fit(detector, settings, batches, folder, device=device, seconds=seconds)
    result: dict[str, Any] = {"seed": seed, "effort": asdict(effort), "device": name_of_device(device)}
    path = place.out / f"{name}.json"
    write_json(path, result)
    for part, wanted in ((PILOT, KEY_CONDITIONS), (TEST, KEY_CONDITIONS), (TEST, None)):
        split = Split(place, settings, part)
        if not len(split.rows):
            continue
        scores = score(detector, split, device, wanted)
        result[part] = scores.summary()
        write_json(path, result)
        shown = {name_of(c): round(100 * result[part]["mAP"][name_of(c)], 1) for c in KEY_CONDITIONS}
        log.info("%s on %s: mAP %s", name, part, json.dumps(shown))
    return result


def base_folder(place: Place, name: str = BASE) -> Path:
    """Its run folder."""
    return place.out / "runs" / name


def weights_of(place: Place, name: str, here: bool = False) -> Path | None:
    """A base's weights: those that were trained here, else, unless only such will do, those of the repository."""
    trained = RunFolder(base_folder(place, name)).final_weights
    if trained.exists():
        return trained
    return None if here or place.scale.small else SHIPPED.get(name)


def name_of_device(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
