"""What is compared: settings that move against fixed ones, and residuals by class against one for all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

STRONG: Final = "fixed-2.5-0.6"
NAMED_A: Final = "fixed-A"
SMALL: Final = ("bicycle", "motorcycle", "pedestrian", "traffic_cone", "construction_vehicle")
"""Classes whose residual differs, and which the comparison is about."""


@dataclass(frozen=True)
class Arm:
    """One arm; none has a gate, so that clamp and residual alone set the change.

    Attributes:
        says: what it is, for people.
        clamp: max_weight_clamp.
        residual: residual_weight, a number or a mapping.
        moving: sections `schedule` and `controller` of `aqr`.
        enabled: whether there is AQR at all.
        beside: the arm that it is compared with.
        seeds: how many seeds it is to be run with.
    """

    says: str
    clamp: float = 2.0
    residual: float | Mapping[str, float] = 0.7
    moving: Mapping[str, Any] = field(default_factory=dict)
    enabled: bool = True
    beside: str | None = None
    seeds: int = 3

    def aqr(self) -> dict[str, Any]:
        """The `aqr` section of its config."""
        residual = dict(self.residual) if isinstance(self.residual, Mapping) else self.residual
        return {
            "enabled": self.enabled,
            "parameterisation": "sigmoid",
            "renderer": {"max_weight_clamp": self.clamp},
            "modulator": {"residual_weight": residual, "form": "convex", "gate": False},
            **self.moving,
        }


def _controller(low: float, high: float, every: int, **more: Any) -> dict[str, Any]:
    return {"controller": {"enabled": True, "band": [low, high], "every": every, **more}}


def _schedule(kind: str, until: float = 0.3) -> dict[str, Any]:
    ramp = {"kind": kind, "start": 1.0, "until": until}
    return {"schedule": {"max_weight_clamp": ramp, "residual_weight": ramp}}


def _by_class(small: float) -> dict[str, float]:
    return {"default": 0.7} | dict.fromkeys(SMALL, small)


def arms(every: int) -> dict[str, Arm]:
    """All arms, the most telling first.

    Args:
        every: steps between the controller's measurements.
    """
    return {
        "none": Arm("no AQR", enabled=False),
        STRONG: Arm("fixed 2.5 + 0.6", 2.5, 0.6, beside="none"),
        "controlled": Arm("from 2.5 + 0.6, held at 25-30 %", 2.5, 0.6, _controller(0.25, 0.30, every), beside=STRONG),
        NAMED_A: Arm("fixed 2.0 + 0.70", beside="none"),
        "by-class-alike": Arm("class head, all classes 0.70", residual=_by_class(0.7), beside=NAMED_A),
        "by-class-careful": Arm("small classes 0.85, others 0.70", residual=_by_class(0.85), beside=NAMED_A),
        "by-class-bold": Arm("small classes 0.50, others 0.70", residual=_by_class(0.5), beside=NAMED_A),
        "warm-up": Arm("2.5 + 0.6, reached from 1 + 1 in 30 % of steps", 2.5, 0.6, _schedule("warmup"), beside=STRONG),
        "cosine": Arm("2.5 + 0.6, reached from 1 + 1 by half a cosine", 2.5, 0.6, _schedule("cosine"), beside=STRONG),
        "controlled-far": Arm(
            "from 2.5 + 0.3, held at 25-30 %",
            2.5,
            0.3,
            _controller(0.25, 0.30, every, residual_range=[0.3, 0.95]),
            beside=STRONG,
            seeds=2,
        ),
        "controlled-low": Arm(
            "from 2.5 + 0.6, held at 10-15 %", 2.5, 0.6, _controller(0.10, 0.15, every), beside=STRONG, seeds=2
        ),
        "out-of-reach": Arm(
            "from 2.5 + 0.6, a band of 60-70 % that residuals from 0.5 up cannot reach",
            2.5,
            0.6,
            _controller(0.60, 0.70, every, residual_range=[0.5, 0.95]),
            beside=STRONG,
            seeds=1,
        ),
    }
