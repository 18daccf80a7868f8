"""Fine-tune one arm from the base of benchmarks/proof, on its cached batches, and score it."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from benchmarks.proof.base import KEY_CONDITIONS, name_of_device
from benchmarks.proof.batches import arm_order, stream
from benchmarks.proof.conditions import Split
from benchmarks.proof.finetune import AQR_LR, LR, LR_PEAK, WARMUP, start_from
from benchmarks.proof.plan import PILOT, TEST, TRAIN, Place, config, name_of
from benchmarks.proof.training import Effort, fit
from torch import Tensor

from aqr.batch import Batch
from aqr.config import Config
from aqr.data.failures.catalogue import Failure
from aqr.detector import Detector
from aqr.detector.detector import DetectorOutput
from aqr.modulation import measure
from aqr.scoring import Metrics, evaluate
from aqr.scoring.bootstrap import draw_scenes, resample
from aqr.taxonomy import CLASSES
from aqr.training.adaptation import Adaptation, settings_of
from aqr.training.evaluation import evaluation_precision, in_global_frame
from aqr.training.inference import SampleDetections
from aqr.training.module import autocast
from aqr.training.run_folder import RunFolder, append_line

log = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]


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


@dataclass(frozen=True)
class Scores:
    """Scores on one split under K conditions.

    Attributes:
        names: of the conditions, `clean` first.
        mean_ap: [K].
        nds: [K].
        class_ap: [10] clean, in the order of `aqr.taxonomy.CLASSES`.
        resampled: [R, 10] clean, of R resamples of the scenes, drawn alike for every detector.
    """

    names: tuple[str, ...]
    mean_ap: tuple[float, ...]
    nds: tuple[float, ...]
    class_ap: Floats
    resampled: Floats

    @property
    def resistance(self) -> float:
        """Mean NDS under failures over the clean one."""
        return float(np.mean(self.nds[1:]) / self.nds[0]) if self.nds[0] > 0 else 0.0

    def summary(self) -> dict[str, Any]:
        return {
            "mAP": dict(zip(self.names, self.mean_ap, strict=True)),
            "NDS": dict(zip(self.names, self.nds, strict=True)),
            "AP": dict(zip(CLASSES, self.class_ap.round(5).tolist(), strict=True)),
        }


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
            "lr_mult": {"aqr": AQR_LR} if aqr["enabled"] else {},
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


@torch.inference_mode()
def score(detector: Detector, split: Split, wanted: Sequence[Failure | None]) -> Scores:
    """Detect and score under every condition; the first is clean."""
    device = next(detector.parameters()).device
    detector.eval()
    precision = evaluation_precision(split.config, device)
    found: list[Metrics] = []
    for condition in wanted:
        samples: list[SampleDetections] = []
        for _, batch in split.batches(condition, device):
            with autocast(device, precision):
                decoded = detector.decode(detector(batch))
            samples += [
                SampleDetections.of(frame, detections) for frame, detections in zip(batch.frames, decoded, strict=True)
            ]
        found.append(evaluate(split.truth, in_global_frame(samples)))
    scenes = int(split.truth.samples.scene.max()) + 1
    drawn = resample(found[0], draw_scenes(scenes, split.place.scale.resamples, seed=0))
    return Scores(
        names=tuple(name_of(condition) for condition in wanted),
        mean_ap=tuple(round(float(one.mean_ap), 6) for one in found),
        nds=tuple(round(float(one.nds), 6) for one in found),
        class_ap=found[0].ap.mean(axis=1),
        resampled=drawn.ap,
    )


def run_arm(
    place: Place, name: str, aqr: dict[str, Any], seed: int, base: Path, splits: dict[str, Split], every: int
) -> dict[str, Any]:
    """Fine-tune and score one arm; what is returned can be written as JSON, `resampled` beside it."""
    folder = RunFolder(place.out / "runs" / f"{name}-{seed}")
    settings = settings_for(place, aqr, seed, base, place.scale.arm_steps)
    detector, effort = tune(place, settings, folder, base, every)
    tested = score(detector, splits[TEST], KEY_CONDITIONS)
    result: dict[str, Any] = {
        "arm": name,
        "seed": seed,
        "effort": asdict(effort),
        "device": name_of_device(next(detector.parameters()).device),
        "settings": None if detector.aqr is None else settings_of(detector.aqr),
        TEST: tested.summary(),
        PILOT: score(detector, splits[PILOT], KEY_CONDITIONS[:1]).summary(),
    }
    path = place.out / "arms" / f"{name}-{seed}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path.with_suffix(".npz"), ap=tested.resampled.astype(np.float32))
    log.info("%s-%d: mAP %.4f", name, seed, tested.mean_ap[0])
    return result
