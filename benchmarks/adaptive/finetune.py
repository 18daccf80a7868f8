"""Fine-tune one arm from the base of benchmarks/proof, on its cached batches, and score it."""

from __future__ import annotations

import logging
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.proof.arms import ROUTER_LR
from benchmarks.proof.base import KEY_CONDITIONS, name_of_device
from benchmarks.proof.batches import arm_order, stream
from benchmarks.proof.conditions import Scores, Split, score
from benchmarks.proof.finetune import LR, LR_PEAK, WARMUP, start_from
from benchmarks.proof.plan import PILOT, TEST, TRAIN, Place, config, name_of
from benchmarks.proof.training import Effort, fit
from torch import Tensor

from aqr.batch import Batch
from aqr.config import Config
from aqr.detector import Detector
from aqr.detector.detector import DetectorOutput
from aqr.modulation import measure
from aqr.training.adaptation import Adaptation, settings_of
from aqr.training.run_folder import RunFolder, append_line

log = logging.getLogger(__name__)


class Mover:
    """Lets schedules and controller act in the training loop, and writes what they see to aqr_stats.jsonl."""

    def __init__(self, settings: Config, detector: Detector, folder: RunFolder, every: int) -> None:
        self._adaptation = Adaptation(settings)
        self._folder = folder
        self._every = every
        self._step = 0
        self._now = self._adaptation.before_step(detector.aqr, 0)

    def __call__(self, detector: Detector, output: DetectorOutput, batch: Batch) -> dict[str, Tensor]:
        self._step += 1
        if output.aqr is not None and self._step % self._every == 0 and detector.aqr is not None:
            statistics = measure(output.aqr, output.bev, output.images)
            used = self._now or settings_of(detector.aqr)
            decision = self._adaptation.after_step(detector.aqr, self._step, statistics)
            line = {"forward": self._step, "ranks": 1, "settings": used}
            line |= {} if decision is None else {"controller": asdict(decision)}
            append_line(self._folder.statistics, line | statistics.summary())
        self._now = self._adaptation.before_step(detector.aqr, self._step)
        return {}


def settings_for(place: Place, aqr: dict[str, Any], seed: int, base: Path, steps: int) -> Config:
    """The config of a fine-tuning; all differ in AQR and seed alone."""
    return config(
        place,
        seed=seed,
        aqr=aqr,
        train={
            "steps": steps,
            "lr": LR,
            "lr_peak": LR_PEAK,
            "warmup_fraction": WARMUP,
            "lr_mult": {"aqr": ROUTER_LR} if aqr["enabled"] else {},
            "log_every": max(steps // 20, 1),
            "stats_every": 10 * steps,
            "init_from": str(base),
        },
    )


def tune(place: Place, settings: Config, folder: RunFolder, base: Path, every: int) -> tuple[Detector, Effort]:
    """Fine-tune from the base.

    Args:
        place: of the caches.
        settings: of the run.
        folder: made anew.
        base: weights to start from.
        every: steps between lines of aqr_stats.jsonl, and the controller's own.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(settings.seed)
    detector = Detector(settings)
    start_from(base, detector)
    detector = detector.to(device)
    shutil.rmtree(folder.path, ignore_errors=True)
    mover = Mover(settings, detector, folder, every)
    order = arm_order(settings.train.steps, place.scale.cached_steps, settings.seed)
    effort = fit(detector, settings, stream(place.cache(TRAIN), order, device), folder, device=device, extra=mover)
    folder.final_weights.unlink()
    return detector, effort


def summary(scores: Scores) -> dict[str, Any]:
    """mAP and NDS by condition, and AP by class with nothing failing, for JSON."""
    found = scores.summary()
    return {**found, "AP": found["AP"][name_of(None)]}


def run_arm(
    place: Place, name: str, aqr: dict[str, Any], seed: int, base: Path, splits: dict[str, Split], every: int
) -> dict[str, Any]:
    """Fine-tune and score one arm; what is returned can be written as JSON, `resampled` beside it."""
    folder = RunFolder(place.out / "runs" / f"{name}-{seed}")
    settings = settings_for(place, aqr, seed, base, place.scale.arm_steps)
    detector, effort = tune(place, settings, folder, base, every)
    device = next(detector.parameters()).device
    tested = score(detector, splits[TEST], device, KEY_CONDITIONS)
    result: dict[str, Any] = {
        "arm": name,
        "seed": seed,
        "effort": asdict(effort),
        "device": name_of_device(device),
        "settings": None if detector.aqr is None else settings_of(detector.aqr),
        TEST: summary(tested),
        PILOT: summary(score(detector, splits[PILOT], device, KEY_CONDITIONS[:1])),
    }
    path = place.out / "arms" / f"{name}-{seed}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path.with_suffix(".npz"), ap=tested.resampled_ap.astype(np.float32))
    log.info("%s-%d: mAP %.4f", name, seed, tested.mean_ap[0])
    return result
