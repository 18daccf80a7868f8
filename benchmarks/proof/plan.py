"""The sizes of the experiment, its aims, its failures and its detector."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aqr
from aqr import config as configuration
from aqr.config import Config
from aqr.config.merge import merge
from aqr.data.failures.catalogue import KINDS, Failure, parse_failures

SMALL_DETECTOR: Final = Path(aqr.__file__).parent / "assets" / "small.yaml"
SHIPPED_BASE: Final = SMALL_DETECTOR.with_name("base.safetensors")
"""A base that comes with the library: no run of this experiment has to be repeated to have one."""
LIDAR_DROPOUT: Final = 0.2
CAMERA_DROPOUT: Final = 0.08
OTHER_FAILURES: Final = 0.025
"""Share of the training samples that shows each failure, at a severity drawn at random; 37 % show none."""

BASE: Final = "base"
INTACT_BASE: Final = "base-intact"
TAUGHT_BASE: Final = "base-taught"
"""Detectors that arms start from: one has seen sensors fail in training, the others never have; the last was taught to
see with either sensor alone, by queries that read one of them."""
SOLO: Final = 0.5
"""Weight of the losses of such queries."""

CLEAN_TARGET: Final = -0.003
FAILURE_TARGET: Final = 0.03
SENSOR_TARGET: Final = 0.05
BASE_TARGET: Final = 0.45
"""mAP asked for: of AQR against none, clean and over failures; of each sensor; of the base."""

PLAIN_WORLD: Final = "plain-world"
"""Folder of results from a world without look-alikes, recipe 1 of `aqr.synth.world`."""
FIRST_RUN: Final = "first-run"
"""Folder of results of an earlier run of the same arms in the same world, which was made anew."""

TRAIN: Final = "train"
INTACT: Final = "train-intact"
"""Training batches in which sensors fail, and in which none does."""
PILOT: Final = "pilot"
TEST: Final = "test"
"""Choices are made on `pilot`, results are reported on `test`; both are parts of the validation split."""


@dataclass(frozen=True)
class Scale:
    """How large everything is.

    Attributes:
        scenes: of the synthetic world, about one in six for validation.
        version: of the world, `v1.0-trainval` or `v1.0-mini`.
        splits: names of its training and of its validation split.
        pilot_scenes: validation scenes that choices are made on; the others are the test split.
        every: of the test scenes each so manieth keyframe is scored, since neighbours are near copies.
        pilot_every: likewise of the pilot scenes.
        cached_steps: different training batches; every detector sees the same.
        batch_size: samples per step.
        base_steps: steps from random weights.
        arm_steps: steps of fine-tuning.
        scratch_steps: steps from random weights where arms are compared so.
        oracle_scenes: of the world in which sensors are chosen by the truth.
        oracle_every: each so manieth keyframe of that world is scored.
        chunk: samples per evaluation batch.
        resamples: of the bootstrap over scenes.
        small: whether the detector is shrunk until a CPU can train it.
    """

    scenes: int
    version: str
    splits: tuple[str, str]
    pilot_scenes: int
    every: int
    pilot_every: int
    cached_steps: int
    batch_size: int
    base_steps: int
    arm_steps: int
    scratch_steps: int
    oracle_scenes: int
    oracle_every: int
    chunk: int
    resamples: int
    small: bool


FULL: Final = Scale(
    scenes=600,
    version="v1.0-trainval",
    splits=("train", "val"),
    pilot_scenes=15,
    every=4,
    pilot_every=2,
    cached_steps=3000,
    batch_size=16,
    base_steps=6000,
    arm_steps=300,
    scratch_steps=2600,
    oracle_scenes=60,
    oracle_every=4,
    chunk=50,
    resamples=250,
    small=False,
)
TOY: Final = Scale(
    scenes=12,
    version="v1.0-trainval",
    splits=("train", "val"),
    pilot_scenes=1,
    every=5,
    pilot_every=5,
    cached_steps=6,
    batch_size=2,
    base_steps=8,
    arm_steps=4,
    scratch_steps=4,
    oracle_scenes=2,
    oracle_every=7,
    chunk=2,
    resamples=20,
    small=True,
)


@dataclass(frozen=True)
class Place:
    """Where the files of an experiment lie, and how large it is.

    Attributes:
        work: synthetic world and caches, tens of GB.
        out: results, small.
        scale: sizes.
    """

    work: Path
    out: Path
    scale: Scale

    @property
    def world(self) -> Path:
        return self.work / "world"

    def cache(self, name: str) -> Path:
        return self.work / "cache" / name


SHRUNK: Final = (
    "data.image.size=[64, 160]",
    "detector.hidden_dim=32",
    "detector.num_query=25",
    "detector.num_layers=2",
    "detector.feedforward_dim=32",
    "detector.lidar={pillars: [32, 32], pillar_channels: 8, channels: [8], blocks: [1], strides: [1], out_stride: 1}",
    "detector.image.options={embedding_size: 8, hidden_sizes: [8, 8, 8, 8], depths: [1, 1, 1, 1], layer_type: basic}",
)


@dataclass(frozen=True)
class Course:
    """How runs that are compared with one another are trained.

    Attributes:
        name: of their folder of results.
        base: that they start from; None for random weights.
        batches: that they are trained on, `TRAIN` or `INTACT`.
        frozen: whether AQR alone is trained, in a detector that stays as it is.
    """

    name: str
    base: str | None
    batches: str
    frozen: bool = False

    def run_folder(self, out: Path, run: str) -> Path:
        """Of a run, named by arm and seed."""
        return out / "runs" / (run if self == FROM_BASE else f"{self.name}-{run}")


@dataclass(frozen=True)
class Base:
    """How a detector is trained that arms start from.

    Attributes:
        batches: that it is trained on, `TRAIN` or `INTACT`.
        solo: `detector.loss.solo`.
    """

    batches: str
    solo: float = 0.0


FROM_BASE: Final = Course("arms", BASE, TRAIN)
SCRATCH: Final = Course("scratch", None, TRAIN)
LATE: Final = Course("late", INTACT_BASE, TRAIN)
FROZEN: Final = Course("frozen", INTACT_BASE, TRAIN, frozen=True)
NEVER: Final = Course("never", INTACT_BASE, INTACT)
TAUGHT: Final = Course("taught", TAUGHT_BASE, TRAIN, frozen=True)
TAUGHT_LATE: Final = Course("taught-late", TAUGHT_BASE, TRAIN)
COURSES: Final = {course.name: course for course in (FROM_BASE, SCRATCH, LATE, FROZEN, NEVER, TAUGHT, TAUGHT_LATE)}
BASES: Final = {BASE: Base(TRAIN), INTACT_BASE: Base(INTACT), TAUGHT_BASE: Base(INTACT, SOLO)}


def conditions() -> list[Failure | None]:
    """No failure, then every failure at every severity."""
    return [None, *parse_failures("all")]


def name_of(condition: Failure | None) -> str:
    return "clean" if condition is None else str(condition)


def config(place: Place, seed: int = 0, batches: str = TRAIN, **sections: dict[str, Any]) -> Config:
    """The detector of `aqr demo` without AQR, on the synthetic world.

    Args:
        place: where the world lies.
        seed: of the run.
        batches: of training: `TRAIN`, in which sensors fail, or `INTACT`.
        sections: settings that differ, by section: `aqr={"enabled": True}`.
    """
    failures = {
        "lidar_dropout": LIDAR_DROPOUT,
        "camera_dropout": CAMERA_DROPOUT,
        "augmentation": [
            {"name": kind.name, "probability": OTHER_FAILURES} for kind in KINDS if kind.name not in ("lidar_drop",)
        ],
    }
    base = configuration.load(SMALL_DETECTOR, SHRUNK if place.scale.small else ()).model_dump()
    changes: dict[str, Any] = {
        "data": {
            "root": place.world,
            "version": place.scale.version,
            "train_split": place.scale.splits[0],
            "val_split": place.scale.splits[1],
            "batch_size": place.scale.batch_size,
            "failures": failures if batches == TRAIN else {},
        },
        "seed": seed,
        "aqr": {"enabled": False},
        "train": {"precision": "bf16"},
    }
    return configuration.parse(merge(merge(base, changes), sections), "the experiment's settings")
