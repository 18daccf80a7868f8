"""Sizes of the ten classes: the means of the nuScenes training annotations (arXiv 1903.11027), varied a little."""

from __future__ import annotations

from typing import Final

import numpy as np

MEAN_SIZE: Final[dict[str, tuple[float, float, float]]] = {
    "car": (4.62, 1.95, 1.73),
    "truck": (6.90, 2.50, 2.83),
    "construction_vehicle": (6.40, 2.80, 3.20),
    "bus": (11.10, 2.93, 3.47),
    "trailer": (12.00, 2.90, 3.85),
    "barrier": (0.50, 2.50, 0.98),
    "motorcycle": (2.10, 0.77, 1.46),
    "bicycle": (1.70, 0.60, 1.30),
    "pedestrian": (0.73, 0.67, 1.77),
    "traffic_cone": (0.41, 0.41, 1.07),
}
"""Mean length, width, height in metres."""

SLACK: Final = 0.03
"""Metres between a body and each side (and the top) of its annotated box, which annotators draw around noisy points."""

_SPREAD: Final[dict[str, tuple[float, float, float]]] = {
    "car": (0.08, 0.05, 0.09),
    "truck": (0.20, 0.08, 0.14),
    "construction_vehicle": (0.14, 0.08, 0.09),
    "bus": (0.09, 0.03, 0.05),
    "trailer": (0.16, 0.05, 0.07),
    "barrier": (0.12, 0.12, 0.08),
    "motorcycle": (0.07, 0.10, 0.06),
    "bicycle": (0.06, 0.08, 0.06),
    "pedestrian": (0.14, 0.12, 0.07),
    "traffic_cone": (0.12, 0.12, 0.16),
}


def draw_size(name: str, rng: np.random.Generator) -> tuple[float, float, float]:
    """A plausible length, width and height (m) of a class; the three vary together, large cars are large all over."""
    common = rng.normal() * 0.7
    mean, spread = MEAN_SIZE[name], _SPREAD[name]
    length, width, height = (
        float(m * np.clip(1 + s * (common + 0.7 * rng.normal()), 1 - 2.2 * s, 1 + 2.2 * s))
        for m, s in zip(mean, spread, strict=True)
    )
    return round(length, 3), round(width, 3), round(height, 3)
