"""The arms of the experiment: what differs between detectors that are otherwise trained alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks.proof.faults import Faults, FaultyDetector
from benchmarks.proof.plan import FROM_BASE, FROZEN, LATE, NEVER, SCRATCH, SOLO, TAUGHT, TAUGHT_LATE, Course
from benchmarks.proof.supervision import alive, evidence
from benchmarks.proof.training import ExtraLosses

from aqr.config import Config
from aqr.detector import Detector

BASELINE: Final = "none"
ORIGINAL: Final = "original"
SOLO_BASELINE: Final = "none-solo"
ATTENTION_CLAMP: Final = 20.0
ROUTER_LR: Final = 5.0
"""AQR is new where the rest is trained."""
FAST_ROUTER_LR: Final = 25.0


@dataclass(frozen=True)
class Arm:
    """One arm.

    Attributes:
        says: what it is, for people.
        aqr: the `aqr` section of its config.
        solo: `detector.loss.solo`.
        faults: of the original that it has; None for none.
        extra: losses of its own.
        router_lr: learning rate of AQR in multiples of the detector's.
        seeds: how many seeds it is to be run with.
        beside: a second arm that it is compared with.
        candidate: whether it is AQR as it might be used, and may be chosen.
    """

    says: str
    aqr: Mapping[str, Any] = field(default_factory=lambda: {"enabled": False})
    solo: float = 0.0
    faults: Faults | None = None
    extra: ExtraLosses | None = None
    router_lr: float = ROUTER_LR
    seeds: int = 1
    beside: str | None = None
    candidate: bool = True

    def sections(self) -> dict[str, dict[str, Any]]:
        """What its config says otherwise than the baseline's."""
        return {"aqr": dict(self.aqr), "detector": {"loss": {"solo": self.solo}}}


def _features(
    clamp: float, residual: float, gate: bool, parameterisation: str = "sigmoid", form: str = "convex"
) -> dict[str, Any]:
    return {
        "enabled": True,
        "parameterisation": parameterisation,
        "renderer": {"max_weight_clamp": clamp},
        "modulator": {"residual_weight": residual, "form": form, "gate": gate},
    }


def _attention(context: bool = False, per_layer: bool = False) -> dict[str, Any]:
    return {
        "enabled": True,
        "target": "attention",
        "router": {"context": context, "per_layer": per_layer},
        "renderer": {"max_weight_clamp": ATTENTION_CLAMP},
    }


_ORIGINAL: Final = _features(2.5, 0.6, gate=False, form="additive")
_MENDED: Final = _features(2.5, 0.6, gate=False)

ARMS: Final = {
    BASELINE: Arm("no AQR", seeds=3, candidate=False),
    ORIGINAL: Arm("the original, 2.5 + 0.6, all faults", _ORIGINAL, faults=Faults(), seeds=3, candidate=False),
    "sigmoid": Arm("the original's sigmoid 2.5 + 0.6, faults mended, no gate", _MENDED, seeds=3),
    "sigmoid-gated": Arm("sigmoid 2.5 + 0.6 behind a gate", _features(2.5, 0.6, gate=True), seeds=3),
    "attention": Arm("weights in attention", _attention(), seeds=3),
    "attention-context": Arm(
        "weights in attention, by layer, the router knows each sensor as a whole",
        _attention(context=True, per_layer=True),
        seeds=3,
    ),
    SOLO_BASELINE: Arm("no AQR, queries that read one sensor alone", solo=SOLO, seeds=3, candidate=False),
    "experts": Arm(
        "weights in attention as attention-context, solo queries, weights told which sensor was right",
        _attention(context=True, per_layer=True),
        solo=SOLO,
        extra=evidence,
        seeds=3,
        beside=SOLO_BASELINE,
    ),
    "centered": Arm(
        "centered 2.5 + 0.6, no gate", _features(2.5, 0.6, gate=False, parameterisation="centered"), seeds=3
    ),
    "alive": Arm(
        "weights in attention as attention-context, told which sensor is dead",
        _attention(context=True, per_layer=True),
        extra=alive,
        seeds=3,
    ),
    "attention-solo": Arm(
        "weights in attention as attention-context, solo queries",
        _attention(context=True, per_layer=True),
        solo=SOLO,
        seeds=2,
        beside=SOLO_BASELINE,
    ),
    "mend-cut": Arm(
        "the original, but weights learn",
        _ORIGINAL,
        faults=Faults(cut=False),
        seeds=2,
        beside=ORIGINAL,
        candidate=False,
    ),
    "mend-leak": Arm(
        "the original, but denoising queries are not rendered",
        _ORIGINAL,
        faults=Faults(leak=False),
        seeds=2,
        beside=ORIGINAL,
        candidate=False,
    ),
    "mend-pile": Arm(
        "the original, but invisible queries are not drawn",
        _ORIGINAL,
        faults=Faults(pile=False),
        seeds=2,
        beside=ORIGINAL,
        candidate=False,
    ),
    "mend-additive": Arm(
        "the original, but convex", _MENDED, faults=Faults(), seeds=2, beside=ORIGINAL, candidate=False
    ),
    "mend-start": Arm(
        "the original, but behind a gate that starts at zero",
        _features(2.5, 0.6, gate=True, form="additive"),
        faults=Faults(),
        seeds=2,
        beside=ORIGINAL,
        candidate=False,
    ),
    "sigmoid-2.0-0.65": Arm("sigmoid 2.0 + 0.65, mended, no gate", _features(2.0, 0.65, gate=False), seeds=3),
    "sigmoid-2.0-0.70": Arm("sigmoid 2.0 + 0.70, mended, no gate", _features(2.0, 0.7, gate=False), seeds=3),
    "centered-gated": Arm(
        "centered 2.5 + 0.6 behind a gate", _features(2.5, 0.6, gate=True, parameterisation="centered"), seeds=2
    ),
    "centered-strong": Arm(
        "centered 8 + 0, no gate", _features(8.0, 0.0, gate=False, parameterisation="centered"), seeds=3
    ),
    "centered-fast": Arm(
        "centered 8 + 0, no gate, a router that learns five times as fast",
        _features(8.0, 0.0, gate=False, parameterisation="centered"),
        router_lr=FAST_ROUTER_LR,
        seeds=3,
    ),
    "attention-fast": Arm(
        "weights in attention as attention-context, a router that learns five times as fast",
        _attention(context=True, per_layer=True),
        router_lr=FAST_ROUTER_LR,
        seeds=3,
    ),
}


RUN: Final[dict[Course, tuple[str, ...]]] = {
    FROM_BASE: (
        BASELINE,
        ORIGINAL,
        "sigmoid",
        "sigmoid-gated",
        "attention-context",
        "centered",
        "attention-fast",
        "centered-fast",
        "sigmoid-2.0-0.65",
        "sigmoid-2.0-0.70",
        SOLO_BASELINE,
        "experts",
        *(name for name, arm in ARMS.items() if arm.beside == ORIGINAL),
    ),
    SCRATCH: (BASELINE, "sigmoid-gated", "centered-strong"),
    LATE: (BASELINE, "attention-fast", "sigmoid-gated", "centered-fast", "alive"),
    FROZEN: (BASELINE, "attention-fast", "sigmoid-gated", "centered-fast", "attention-context"),
    NEVER: (BASELINE, "attention-fast", "sigmoid-gated"),
    TAUGHT: (BASELINE, "attention-context", "attention-fast", "centered-fast", "experts"),
    TAUGHT_LATE: (BASELINE, "attention-fast", SOLO_BASELINE, "experts"),
}
"""Arms of each course, most wanted first. Others of `ARMS` were run in another world, see `plan.PLAIN_WORLD`."""


def build(name: str, config: Config) -> Detector:
    """The detector of an arm, with random weights."""
    faults = ARMS[name].faults
    return Detector(config) if faults is None else FaultyDetector(config, faults)


def schedule(course: Course = FROM_BASE) -> list[tuple[str, int]]:
    """All runs of a course, arm and seed: every arm once before any is run again."""
    most = max(ARMS[name].seeds for name in RUN[course])
    return [(name, seed) for seed in range(most) for name in RUN[course] if seed < ARMS[name].seeds]
