"""How much a detector without AQR would gain if somebody who knows the truth chose its sensors.

The detector sees every sample of a world that nothing was trained on three times: as it is, without LiDAR and without
cameras. What is chosen among the three by looking at the truth gains something whatever they are: where they differ by
noise alone, and more where one is surer than another, since whoever knows the truth can then believe what is right and
doubt what is wrong. So the same choices are made among three that all have both sensors and differ by noise, and among
three that differ by how sure they are.
"""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from benchmarks.proof.arms import BASELINE, build
from benchmarks.proof.base import name_of_device
from benchmarks.proof.batches import load, pack, save, unpack
from benchmarks.proof.choices import BOTH, CHOICES, CONDITION, CONFIDENCE, NOISE, choose, taken
from benchmarks.proof.collect import ORACLE, write_lines
from benchmarks.proof.data import REACH, changed, failing
from benchmarks.proof.figures import FIGURES, Floats, figures
from benchmarks.proof.finetune import start_from
from benchmarks.proof.plan import INTACT, Place, conditions, config, name_of
from torch import Tensor

from aqr.batch import Batch
from aqr.config import Config
from aqr.data.dataset import NuScenesDataset
from aqr.data.failures.catalogue import Failure
from aqr.data.index import Index, open_index
from aqr.data.samples import collate, frame_of
from aqr.detector import Detector
from aqr.detector.coding import decode
from aqr.scoring import evaluate, load_ground_truth
from aqr.scoring.bootstrap import draw_scenes, resample
from aqr.synth import write_world
from aqr.taxonomy import CLASSES
from aqr.training.denormals import flushed_denormals
from aqr.training.evaluation import in_global_frame
from aqr.training.inference import SampleDetections

log = logging.getLogger(__name__)

WORLD_SEED: Final = 4300
SEVERITIES: Final = (1, 2, 3)

VARIANTS: Final = (BOTH, "no LiDAR", "no camera")
PERTURBED: Final = ("perturbed 1", "perturbed 2")
SEEN: Final = (*VARIANTS, *PERTURBED)
"""What the detector is asked about."""
AS_SURE: Final = ("as sure as no LiDAR", "as sure as no camera")
CONTROLS: Final = {NOISE: (BOTH, *PERTURBED), CONFIDENCE: (BOTH, *AS_SURE)}
"""What is chosen from where sensors do not matter. The first is what all choices must beat."""
KINDS_OF_CHOICE: Final = {"": VARIANTS, **CONTROLS}

POINTS_LEFT_OUT: Final = 0.02
GREY_NOISE: Final = 1.0
"""Share of the points, and standard deviation in grey levels of 255, of a perturbation."""


def hide_lidar(batch: Batch) -> Batch:
    return replace(batch, points=batch.points[:0], point_counts=[0] * len(batch))


def hide_cameras(batch: Batch) -> Batch:
    return replace(batch, images=torch.zeros_like(batch.images))


def perturb(batch: Batch, seed: int) -> Batch:
    """The batch without some of its points and with noise in its images; what is black stays black."""
    random = torch.Generator().manual_seed(seed)
    kept = torch.rand(len(batch.points), generator=random) >= POINTS_LEFT_OUT
    counts = torch.bincount(batch.point_sample[kept], minlength=len(batch)).tolist()
    noise = GREY_NOISE * torch.randn(batch.images.shape, generator=random)
    noisy = (batch.images + noise).round().clamp(0, 255).to(torch.uint8)
    images = torch.where(batch.images > 0, noisy, batch.images)
    return replace(batch, points=batch.points[kept], point_counts=counts, images=images)


def seen(batch: Batch, seed: int) -> list[Batch]:
    """The batch as each of `SEEN` sees it."""
    return [batch, hide_lidar(batch), hide_cameras(batch), *(perturb(batch, seed + n) for n in range(len(PERTURBED)))]


class Answers:
    """What a detector's queries say of one sample in the end.

    Nothing is computed twice until it is forgotten: a failure of one sensor leaves the other one as it was.
    """

    def __init__(self, detector: Detector) -> None:
        self.detector = detector.eval()
        self.known: dict[bytes, Tensor] = {}
        position = detector.position
        parts = {
            "forward": (detector.lidar_encoder, detector.image_encoder, position),
            "grid": (position.bev, position.ray),
            "places": (detector.depth,),
        }
        for method, owners in parts.items():
            for owner in owners:
                setattr(owner, method, self._remembered(getattr(owner, method)))

    def of(self, batch: Batch) -> Tensor:
        """[Q, 20] logits and codes after the last layer."""

        def answer(*_: Tensor) -> Tensor:
            found = self.detector(batch).queries
            return torch.cat([found.logits[-1, 0], found.codes[-1, 0]], -1)

        return self._remembered(answer, "answer")(batch.points, batch.images, batch.lidar2img)

    def forget(self) -> None:
        self.known.clear()

    def _remembered(self, compute: Callable[..., Tensor], name: str | None = None) -> Callable[..., Tensor]:
        called = (name or repr(compute)).encode()

        def remembered(*values: Any) -> Tensor:
            digest = hashlib.blake2b(called)
            for value in values:
                is_tensor = isinstance(value, Tensor)
                digest.update(repr(value.shape if is_tensor else value).encode())
                digest.update(value.numpy().tobytes() if is_tensor else b"")
            key = digest.digest()
            if key not in self.known:
                self.known[key] = compute(*values)
            return self.known[key]

        return remembered


@dataclass(frozen=True)
class Oracle:
    """Where one detector's answers and scores come from.

    Attributes:
        place: of the experiment.
        weights: of the detector.
        severities: that failures are seen at; those that a failure does not have are left out.
    """

    place: Place
    weights: Path
    severities: tuple[int, ...] = SEVERITIES

    @property
    def world(self) -> Path:
        return self.place.work / "oracle-world"

    @property
    def conditions(self) -> list[Failure | None]:
        return [one for one in conditions() if one is None or one.severity in self.severities]

    @cached_property
    def config(self) -> Config:
        """Nothing is augmented and nothing fails by itself."""
        return config(self.place, batches=INTACT, data={"root": self.world, "augment": False})

    @cached_property
    def index(self) -> Index:
        return open_index(self.config.data.root, self.config.data.version)

    @cached_property
    def samples(self) -> list[tuple[str, int]]:
        """Split and place there of all samples, shuffled, so that any first few are as good as others."""
        found = [
            (split, number)
            for split in self.place.scale.splits
            for number in range(0, len(self.index.split(split)), self.place.scale.oracle_every)
        ]
        return [found[number] for number in np.random.default_rng(WORLD_SEED).permutation(len(found))]

    def row(self, split: str, number: int) -> int:
        return int(self.index.split(split)[number])

    def path(self, split: str, number: int) -> Path:
        """Of what the detector answers to a sample."""
        severities = "".join(map(str, self.severities))
        return self.place.work / "oracle" / f"{self.weights.stem}-{severities}" / f"{split}-{number:05d}.pt"

    def detector(self) -> Detector:
        torch.manual_seed(0)
        detector = build(BASELINE, self.config)
        start_from(self.weights, detector)
        return detector.eval()


class _Maker:
    """Makes answers in worker processes, which inherit it by forking."""

    def __init__(self, oracle: Oracle, deadline: float) -> None:
        self.oracle, self.deadline = oracle, deadline
        self.answers = Answers(oracle.detector())
        settings, index = oracle.config, oracle.index
        pc_range = settings.detector.pc_range
        self.intact, self.failing = {}, {}
        for split in oracle.place.scale.splits:
            # Objects are those that training would count, without those that no sensor hits.
            self.intact[split] = NuScenesDataset(
                settings.data, settings.sensors, split, training=True, pc_range=pc_range, index=index
            )
            for one in oracle.conditions[1:]:
                self.failing[split, name_of(one)] = failing(one, settings, split, index)

    def batches(self, split: str, number: int) -> Iterator[tuple[str, Batch]]:
        """A sample under every condition."""
        clean = self.intact[split][number]
        values = pack(collate([clean]), REACH)
        for condition in self.oracle.conditions:
            name, now = name_of(condition), values
            if condition is not None:
                sample = self.failing[split, name][number]
                now = values | changed(pack(collate([sample]), REACH), condition)
            batch = unpack(now, torch.device("cpu"))
            batch.frames = [clean.frame]
            yield name, batch

    @flushed_denormals()
    @torch.inference_mode()
    def make(self, split: str, number: int) -> bool:
        """Whether a sample's answers are there."""
        path = self.oracle.path(split, number)
        if path.exists():
            return True
        if time.monotonic() > self.deadline:
            return False
        found: dict[str, Any] = {}
        for name, batch in self.batches(split, number):
            # A seed for each sample: noise is the same under every condition.
            looks = seen(batch, len(PERTURBED) * self.oracle.row(split, number))
            found[name] = torch.stack([self.answers.of(look) for look in looks])
            found |= {"boxes": batch.boxes, "labels": batch.labels}
        self.answers.forget()
        save(path, found)
        return True


_maker: _Maker | None = None


def _make(sample: tuple[str, int]) -> bool:
    assert _maker is not None
    return _maker.make(*sample)


def run_oracle(oracle: Oracle, seconds: float | None = None, workers: int | None = None) -> dict[str, Any]:
    """Make the world, let the detector answer and score the choices; what is there already is kept.

    Args:
        oracle: what to run.
        seconds: after which no further sample is begun; None to take all.
        workers: processes; by default all cores.

    Returns:
        what is written to oracle.json under the name of the weights.
    """
    global _maker
    begin, scale = time.monotonic(), oracle.place.scale
    deadline = float("inf") if seconds is None else begin + seconds
    count = workers or os.cpu_count() or 1
    write_world(
        oracle.world,
        scenes=scale.oracle_scenes,
        seed=WORLD_SEED,
        preset="tiny",
        version=scale.version,
        workers=count,
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    _maker = _Maker(oracle, deadline)
    done = []
    with multiprocessing.get_context("fork").Pool(count) as pool:
        for sample, is_there in zip(oracle.samples, pool.imap(_make, oracle.samples), strict=True):
            done += [sample] if is_there else []
            log.info("%d of %d samples after %.0f s", len(done), len(oracle.samples), time.monotonic() - begin)
    result = measure(oracle, done)
    torch.set_num_threads(threads)
    path = oracle.place.out / ORACLE
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    write_lines(path, before | {oracle.weights.stem: result})
    for figure, found in result["gain"].items():
        log.info("%s: %s", figure, json.dumps(found))
    return result


@torch.inference_mode()
def measure(oracle: Oracle, samples: Sequence[tuple[str, int]]) -> dict[str, Any]:
    """Score every choice.

    Args:
        oracle: whose answers lie ready.
        samples: that count.

    Returns:
        mAP by condition and choice, and what `gains` says of them.
    """
    rows = np.array([oracle.row(*sample) for sample in samples])
    truth = load_ground_truth(oracle.index, rows)
    frames = [frame_of(oracle.index, int(row)) for row in rows]
    scenes = int(truth.samples.scene.max()) + 1
    draws = draw_scenes(scenes, oracle.place.scale.resamples, seed=0)
    answers = [load(oracle.path(*sample)) for sample in samples]
    detector = oracle.detector()
    detections: dict[str, list[SampleDetections]]
    scores: dict[str, dict[str, float]] = {}
    resampled: dict[str, dict[str, Floats]] = {}
    for condition in oracle.conditions:
        name, detections = name_of(condition), {}
        for frame, answer in zip(frames, answers, strict=True):
            for way, found in chosen(answer[name], answer["boxes"], answer["labels"], detector).items():
                decoded = decode(*_parts(found[None]), detector.pc_range, detector.settings.max_detections)
                detections.setdefault(way, []).append(SampleDetections.of(frame, decoded[0]))
        scores[name], resampled[name] = {}, {}
        for way, of_way in detections.items():
            metrics = evaluate(truth, in_global_frame(of_way))
            scores[name][way], resampled[name][way] = metrics.mean_ap, resample(metrics, draws).mean_ap
        for kind, variants in KINDS_OF_CHOICE.items():
            way = called(CONDITION, kind)
            best = max(variants, key=scores[name].__getitem__)
            scores[name][way], resampled[name][way] = scores[name][best], resampled[name][best]
        log.info("%s scored", name)
    return {
        "weights": oracle.weights.name,
        "device": name_of_device(torch.device("cpu")),
        "seed": WORLD_SEED,
        "scenes": scenes,
        "samples": len(samples),
        "severities": list(oracle.severities),
        "points_left_out": POINTS_LEFT_OUT,
        "grey_noise": GREY_NOISE,
        "gain": gains(oracle.conditions, scores, resampled),
        "mAP": {name: {way: round(value, 5) for way, value in of.items()} for name, of in scores.items()},
    }


def called(choice: str, control: str = "") -> str:
    """The name of a choice, or of the same choice in one of `CONTROLS`."""
    return f"{choice}, {control}" if control else choice


def as_sure(answers: Tensor) -> Tensor:
    """The first variant's answers with the others' confidence in each class, on average over a sample's queries.

    Args:
        answers: [V, Q, 20].

    Returns:
        [V - 1, Q, 20].
    """
    logits, codes = _parts(answers)
    shift = (logits[1:] - logits[:1]).mean(1, keepdim=True)
    return torch.cat([logits[:1] + shift, codes[:1].expand(len(shift), -1, -1)], -1)


def chosen(answers: Tensor, boxes: Tensor, labels: Tensor, detector: Detector) -> dict[str, Tensor]:
    """What the queries of a sample say, [Q, 20], in each of `SEEN` and `AS_SURE`, and after every choice of `CHOICES`.

    Args:
        answers: [5, Q, 20] logits and codes, in the order of `SEEN`.
        boxes: [N, 9] objects.
        labels: [N].
        detector: whose losses are meant.
    """
    found = dict(zip(SEEN, answers, strict=True))
    found |= dict(zip(AS_SURE, as_sure(answers[: len(VARIANTS)]), strict=True))
    for kind, variants in KINDS_OF_CHOICE.items():
        values = torch.stack([found[name] for name in variants])
        choices = choose(*_parts(values), boxes, labels, detector.settings.loss, detector.code_weights)
        found |= {called(way, kind): taken(values, choices[way]) for way in CHOICES}
    return found


def _parts(answers: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [..., 10] and codes [..., 10] of answers [..., 20]."""
    return answers[..., : len(CLASSES)], answers[..., len(CLASSES) :]


def gains(
    wanted: Sequence[Failure | None],
    scores: Mapping[str, Mapping[str, float]],
    resampled: Mapping[str, Mapping[str, Floats]],
) -> dict[str, dict[str, dict[str, Any]]]:
    """What choices gain, clean, over failures and over groups of them.

    Args:
        wanted: conditions.
        scores: mAP by condition and choice.
        resampled: [R] likewise, of resamples of the scenes.

    Returns:
        by figure and choice the gain and, under `controls`, the gain of each control and the standard deviation over
        the resamples of what the choice gains more than it.
    """
    names = list(scores)

    def over(values: Mapping[str, Mapping[str, Any]], way: str) -> dict[str, Floats]:
        return figures(names, np.array([values[name][way] for name in names]), wanted)

    found: dict[str, dict[str, dict[str, Any]]] = {}
    both = over(scores, BOTH)
    for way in (CONDITION, *CHOICES):
        ours, moved = over(scores, way), over(resampled, way)
        for figure in FIGURES:
            found.setdefault(figure, {})[way] = {"gain": float(ours[figure] - both[figure]), "controls": {}}
        for kind in CONTROLS:
            theirs, beside = over(scores, called(way, kind)), over(resampled, called(way, kind))
            for figure, of_figure in found.items():
                of_figure[way]["controls"][kind] = {
                    "gain": float(theirs[figure] - both[figure]),
                    "error": float((moved[figure] - beside[figure]).std(ddof=1)),
                }
    return found
