"""Thresholds and where they come from."""

from __future__ import annotations

from typing import Final

from aqr.analysis.language import Message, text

CAMERA_CHANGE: Final = (0.25, 0.30)
"""Wanted relative_change of image features."""
RESIDUAL: Final = (0.65, 0.70)
"""Wanted residual_weight."""

SEED: Final[Message] = text(
    "rule of thumb of the AQR experiments on nuScenes (camera change 25–30 %, residual 0.65–0.70)"
)
ARITHMETIC: Final[Message] = text("arithmetic on the log's own figures")
DEFINITION: Final[Message] = text("definition in the AQR formulas")
STUDENT: Final[Message] = text("Student's t over ranks and snapshots, 5 % after Holm's correction")
PERMUTATION: Final[Message] = text("exact permutation test over classes, 5 %")
PAIRED: Final[Message] = text(
    "paired differences of log lines, Student's t, 5 %; mAP lower by 1 point or more, loss by 1 %"
)
MARKOV: Final[Message] = text("bound from the map's mean (Markov's inequality), 95 % of the cells")
HABIT: Final[Message] = text("rule of thumb of this report")
