"""The arms of the experiment: what differs between detectors that are otherwise trained alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from aqr.config import Config
from aqr.detector import Detector


@dataclass(frozen=True)
class Arm:
    """One arm.

    Attributes:
        says: what it is, for people.
        aqr: the `aqr` section of its config.
    """

    says: str
    aqr: Mapping[str, Any] = field(default_factory=lambda: {"enabled": False})


def _aqr(clamp: float, residual: float, gate: bool, parameterisation: str = "sigmoid") -> dict[str, Any]:
    return {
        "enabled": True,
        "parameterisation": parameterisation,
        "renderer": {"max_weight_clamp": clamp},
        "modulator": {"residual_weight": residual, "form": "convex", "gate": gate},
    }


ARMS: Final = {
    "none": Arm("no AQR"),
    "sigmoid-2.5-0.6": Arm("sigmoid 2.5 + 0.6, mended, no gate", _aqr(2.5, 0.6, gate=False)),
    "sigmoid-2.0-0.65": Arm("sigmoid 2.0 + 0.65, mended, no gate", _aqr(2.0, 0.65, gate=False)),
    "sigmoid-2.0-0.70": Arm("sigmoid 2.0 + 0.70, mended, no gate", _aqr(2.0, 0.7, gate=False)),
    "sigmoid-gated": Arm("sigmoid 2.5 + 0.6 behind a gate", _aqr(2.5, 0.6, gate=True)),
    "centered": Arm("centered 2.5 + 0.6, no gate", _aqr(2.5, 0.6, gate=False, parameterisation="centered")),
    "centered-gated": Arm("centered 2.5 + 0.6 behind a gate", _aqr(2.5, 0.6, gate=True, parameterisation="centered")),
}


def build(name: str, config: Config) -> Detector:
    """The detector of an arm, with random weights."""
    return Detector(config)
