"""What the routers' weights mean, and whether they move as they should."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

from benchmarks.proof.arms import ARMS, BASELINE
from benchmarks.proof.collect import NO_CAMERA, NO_LIDAR
from benchmarks.proof.compare import Comparison
from benchmarks.proof.figures import CLEAN
from benchmarks.proof.sections.wording import interval, table
from benchmarks.proof.weights import BACKGROUND

ALIVE: Final = "alive"
SHOWN: Final = (
    "original",
    "sigmoid",
    "sigmoid-gated",
    "centered",
    "centered-fast",
    "attention-context",
    "attention-fast",
    "experts",
    ALIVE,
)
LEAST: Final = 5e-5
"""Weights are kept with four decimals."""
MOVES: Final = 1.05
"""Factor from which on a change of weights counts."""


def shown_weights(comparison: Comparison, chosen: str | None) -> dict[str, Any]:
    """Weights of the arms with a router of their own kind, and of the chosen one."""
    arms = [arm for arm in comparison.arms if (arm in SHOWN or arm == chosen) and arm in comparison.weights]
    return {arm: comparison.weights[arm] for arm in arms}


def weights(comparison: Comparison, chosen: str | None) -> str:
    shown = shown_weights(comparison, chosen)
    if not shown:
        return ""
    gated = _gated(shown)
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
{leaning_table(comparison, shown)}
"""


def leaning_table(comparison: Comparison, shown: Mapping[str, Any] | None = None) -> str:
    """Which sensor the routers lean on, and whether that moves as it should; gated arms are left out."""
    found = judged(comparison)
    rows = [(arm, *_leaning(of_arm)) for arm, of_arm in found.items() if shown is None or arm in shown]
    if not rows:
        return ""
    return f"""What LiDAR weighs for every 1 that the camera weighs, geometric mean over queries near an object; changes
of less than 5 % do not count:

{table(("arm", "nothing fails", "LiDAR gone", "cameras gone", "moves as it should"), rows)}"""


def judged(comparison: Comparison) -> dict[str, Any]:
    """What the routers said whose weights mean what they say: a gate may turn them round."""
    found = comparison.weights
    gated = _gated(found)
    return {arm: found[arm] for arm in comparison.arms if arm in found and arm not in gated}


def _gated(arms: Iterable[str]) -> list[str]:
    return [arm for arm in arms if ARMS[arm].aqr.get("modulator", {}).get("gate")]


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


def moves_rightly(of_arm: Mapping[str, Any]) -> bool:
    """Whether weights move towards the other sensor where one is gone, whichever it is."""
    clean, no_lidar, no_camera = _ratios(of_arm)
    return min(clean / no_lidar, no_camera / clean) > MOVES


def _ratios(of_arm: Mapping[str, Any]) -> tuple[float, float, float]:
    """LiDAR weight over camera weight near objects where nothing fails, LiDAR is gone, and cameras are."""
    clean, no_lidar, no_camera = (_near_objects(of_arm[name]) for name in (CLEAN, NO_LIDAR, NO_CAMERA))
    return clean, no_lidar, no_camera


def _near_objects(of_condition: Mapping[str, Any]) -> float:
    """Geometric mean over the classes: most queries stand where nothing is, and what they weigh hardly matters."""
    pairs = [pair for name, pair in of_condition["class"].items() if name != BACKGROUND]
    return math.exp(sum(math.log(max(lidar, LEAST) / max(camera, LEAST)) for lidar, camera in pairs) / len(pairs))


def _leaning(of_arm: Mapping[str, Any]) -> tuple[str, ...]:
    clean, no_lidar, no_camera = _ratios(of_arm)
    ratios = {"LiDAR gone": clean / no_lidar, "cameras gone": no_camera / clean}
    right = [f"yes with {says}" for says, ratio in ratios.items() if ratio > MOVES]
    wrong = [f"no, the other way with {says}" for says, ratio in ratios.items() if ratio < 1 / MOVES]
    moves = "yes" if len(right) == len(ratios) else "; ".join(right + wrong) or "hardly moves"
    return (*(f"{ratio:.3g}" for ratio in (clean, no_lidar, no_camera)), moves)
