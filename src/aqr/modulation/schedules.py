"""Settings that move with training progress: constant, linear, cosine or warm-up."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

ScheduleKind = Literal["constant", "linear", "cosine", "warmup"]


@dataclass(frozen=True)
class Schedule:
    """The value of a setting over a run, from `start` to `end`.

    With s = min(progress / until, 1):

    - constant: `end` throughout
    - linear: start + (end − start)·s, until = 1
    - cosine: start + (end − start)·(1 − cos πs)/2, until = 1
    - warmup: linear over the first `until` of the run, then `end`

    >>> Schedule("linear", 1.0, 2.0).value(0.25)
    1.25
    >>> Schedule("warmup", 1.0, 2.0, until=0.1).value(0.5)
    2.0

    Attributes:
        kind: shape of the way.
        start: value before the first step; not used by `constant`.
        end: value that the run ends with.
        until: share of the run after which `warmup` has arrived, in (0, 1].
    """

    kind: ScheduleKind
    start: float
    end: float
    until: float = 1.0

    def value(self, progress: float) -> float:
        """The value at a progress in [0, 1]."""
        if self.kind == "constant":
            return self.end
        share = min(progress / (self.until if self.kind == "warmup" else 1.0), 1.0)
        if share >= 1:
            return self.end
        if self.kind == "cosine":
            share = (1 - math.cos(math.pi * share)) / 2
        return self.start + (self.end - self.start) * share
