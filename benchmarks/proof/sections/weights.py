"""What the routers' weights mean, and whether they move as they should."""

from __future__ import annotations

import math
from typing import Any, Final

from benchmarks.proof.arms import ARMS, BASELINE
from benchmarks.proof.collect import NO_CAMERA, NO_LIDAR
from benchmarks.proof.compare import Comparison
from benchmarks.proof.figures import CLEAN
from benchmarks.proof.sections.wording import interval, table

ALIVE: Final = "alive"
MOVES: Final = 1.05
"""Factor from which on a change of weights counts."""


def shown_weights(comparison: Comparison, chosen: str | None) -> dict[str, Any]:
    """Weights of the arms with a router of their own kind, and of the chosen one."""
    kinds = ("original", "sigmoid", "sigmoid-gated", "centered", "attention", "attention-context", "experts", ALIVE)
    arms = [arm for arm in comparison.arms if (arm in kinds or arm == chosen) and arm in comparison.weights]
    return {arm: comparison.weights[arm] for arm in arms}


def weights(comparison: Comparison, chosen: str | None) -> str:
    shown = shown_weights(comparison, chosen)
    if not shown:
        return ""
    gated = [arm for arm in shown if ARMS[arm].aqr.get("modulator", {}).get("gate")]
    rows = [(arm, *_leaning(of_arm)) for arm, of_arm in shown.items() if arm not in gated]
    unjudged = f" ({', '.join(f'`{arm}`' for arm in gated)})" if gated else ""
    return f"""## What the weights mean

![LiDAR and camera weights by failure, distance, class and light](proof-weights.png)

Geometric means over the queries of all test samples, one seed; every row has a scale of its own. A query counts for a
class where an object of that class stands within 4 m of its reference point. Weights of `sigmoid` arms lie in (0, 1);
those of the others are 1 where the router has no preference. A router that works shows it where a sensor is gone: the
other one's weight is the larger.
Only the direction counts below, not the level: a decoder can learn to read past weights that stay the same. Arms
behind a gate{unjudged} are drawn but not judged: a gate's sign is learned, and behind a negative one a larger weight
means less.
{_lopsided(comparison, shown)}
What LiDAR weighs for every 1 that the camera weighs; changes of less than 5 % do not count:

{table(("arm", "nothing fails", "LiDAR gone", "cameras gone", "moves as it should"), rows)}
"""


def _lopsided(comparison: Comparison, shown: dict[str, Any]) -> str:
    """What `alive` shows of levels, where it still does: it leans on the weaker sensor and loses nothing by it."""
    clean = comparison.difference(ALIVE, CLEAN)
    if ALIVE not in shown or clean is None or math.isnan(clean.low) or clean.high < 0:
        return ""
    lidar, camera = shown[ALIVE][CLEAN]["all"]["all"]
    scores = comparison.scores(BASELINE)
    if (lidar < camera) == (scores[NO_CAMERA] < scores[NO_LIDAR]):
        return ""
    return f"""`{ALIVE}` is told which sensor is dead, nothing else, and leans on the weaker one when both are well:
{interval(clean)} mAP points clean against no AQR.
"""


def _leaning(of_arm: dict[str, Any]) -> tuple[str, str, str, str]:
    pairs = (of_arm[name]["all"]["all"] for name in (CLEAN, NO_LIDAR, NO_CAMERA))
    clean, no_lidar, no_camera = (lidar / camera for lidar, camera in pairs)
    ratios = {"LiDAR gone": clean / no_lidar, "cameras gone": no_camera / clean}
    right = [f"yes with {says}" for says, ratio in ratios.items() if ratio > MOVES]
    wrong = [f"no, the other way with {says}" for says, ratio in ratios.items() if ratio < 1 / MOVES]
    moves = "yes" if len(right) == len(ratios) else "; ".join(right + wrong) or "hardly moves"
    return f"{clean:.2f}", f"{no_lidar:.2f}", f"{no_camera:.2f}", moves
