"""Colours of classes, heights and weights.

The class colours were chosen by a search that maximises the smallest distance (OKLab) between any two of them, for
normal sight and for the three colour-vision deficiencies, among colours that stand out on the dark ground and on
photographs. White is kept for ground truth.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from aqr.geometry import Floats
from aqr.taxonomy import CLASSES
from aqr.view.scene import Pixels, WeightScale

CLASS_COLOURS: Final = {
    "car": "#05b7fc",
    "truck": "#c8ff44",
    "construction_vehicle": "#f67ab5",
    "bus": "#db09ba",
    "trailer": "#a66f71",
    "barrier": "#9ac13f",
    "motorcycle": "#736ff7",
    "bicycle": "#03fcfd",
    "pedestrian": "#fc0007",
    "traffic_cone": "#f8c1a6",
}
TRUTH: Final = "#ffffff"
GROUND: Final = "#11151c"
INK: Final = "#1b2430"
MUTED: Final = "#5b6675"
EGO: Final = "#ffffff"
QUERY: Final = "#ffffff"

HEIGHTS: Final = ("#2f4256", "#4d7590", "#86b0b8", "#c4cfc0")
FROM_ZERO: Final = ("#11151c", "#4b1d7a", "#b4326f", "#f0763a", "#fddc8a")
BELOW_ONE: Final = ("#11151c", "#1b5fc4", "#5fb0ff", "#cbe8ff")
ABOVE_ONE: Final = ("#11151c", "#b34a00", "#ff8c1a", "#ffe3a6")


def class_colours(labels: npt.NDArray[np.integer]) -> list[str]:
    """A colour for each label [N]."""
    return [CLASS_COLOURS[CLASSES[label]] for label in labels]


def score_opacity(scores: Floats) -> npt.NDArray[np.float64]:
    """Opacity of the lines of predictions [M]: 0.3 at score 0, full at score 1."""
    return 0.3 + 0.7 * np.clip(np.asarray(scores, dtype=np.float64), 0.0, 1.0)


def rgb(colour: str) -> tuple[int, int, int]:
    """(r, g, b), 0 … 255, of "#rrggbb"."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def ramp(levels: Floats, colours: tuple[str, ...]) -> npt.NDArray[np.float64]:
    """Levels [...] in 0 … 1 to RGB [..., 3], 0 … 255, linear between evenly spaced colours."""
    stops = np.linspace(0.0, 1.0, len(colours))
    channels = np.array([rgb(colour) for colour in colours], dtype=np.float64).T
    return np.stack([np.interp(levels, stops, channel) for channel in channels], axis=-1)


def weight_colours(weights: Floats, scale: WeightScale) -> npt.NDArray[np.float64]:
    """RGB [..., 3], 0 … 255, of weights [...]: the dark ground where neutral, brighter the further from it.

    Centred weights turn blue below 1 and orange above it.
    """
    level = scale.level(weights)
    if not scale.centered:
        return ramp(level, FROM_ZERO)
    return np.where((level < 0.0)[..., None], ramp(-level, BELOW_ONE), ramp(level, ABOVE_ONE))


def overlay_weights(photo: Pixels, weights: Floats, scale: WeightScale) -> Pixels:
    """A photograph [H, W, 3] in dim grey, tinted by the weights [H, W]: colour says weight and nothing else."""
    grey = photo @ np.array([0.299, 0.587, 0.114]) * 0.6
    level = abs(scale.level(weights))
    cover = np.minimum(0.75, 2.0 * level)[..., None]
    tinted = (1.0 - cover) * grey[..., None] + cover * weight_colours(weights, scale)
    return np.asarray(tinted.round(), dtype=np.uint8)
