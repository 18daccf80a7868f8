"""Colours of bodies, clothes and materials, as linear RGB."""

from __future__ import annotations

from typing import Final

import numpy as np

from aqr.synth.solids import Colour

PAINTS: Final[tuple[Colour, ...]] = (
    (0.72, 0.72, 0.70),
    (0.72, 0.72, 0.70),
    (0.03, 0.03, 0.035),
    (0.05, 0.05, 0.055),
    (0.22, 0.23, 0.24),
    (0.38, 0.39, 0.40),
    (0.35, 0.02, 0.02),
    (0.03, 0.07, 0.28),
    (0.02, 0.16, 0.10),
    (0.42, 0.30, 0.12),
    (0.10, 0.22, 0.38),
)
CLOTHES: Final[tuple[Colour, ...]] = (
    (0.05, 0.06, 0.10),
    (0.03, 0.03, 0.03),
    (0.40, 0.08, 0.07),
    (0.12, 0.22, 0.42),
    (0.55, 0.55, 0.52),
    (0.15, 0.25, 0.12),
    (0.45, 0.35, 0.20),
    (0.30, 0.12, 0.30),
)
SKINS: Final[tuple[Colour, ...]] = ((0.55, 0.36, 0.26), (0.35, 0.20, 0.13), (0.16, 0.09, 0.06))
RUBBER: Final[Colour] = (0.02, 0.02, 0.02)
STEEL: Final[Colour] = (0.25, 0.25, 0.26)
GLASS: Final[Colour] = (0.03, 0.04, 0.05)
HEADLAMP: Final[Colour] = (0.85, 0.85, 0.75)
TAILLAMP: Final[Colour] = (0.55, 0.02, 0.02)
SIGNAL_ORANGE: Final[Colour] = (0.80, 0.20, 0.02)
MACHINE_YELLOW: Final[Colour] = (0.70, 0.42, 0.02)
VERDIGRIS: Final[Colour] = (0.08, 0.36, 0.21)
LIME: Final[Colour] = (0.22, 0.44, 0.04)
"""Both are worn by no annotated object."""


def pick(rng: np.random.Generator, choices: tuple[Colour, ...]) -> Colour:
    """One of the colours, a little darker or lighter."""
    r, g, b = choices[int(rng.integers(len(choices)))]
    f = float(rng.uniform(0.8, 1.25))
    return min(r * f, 1.0), min(g * f, 1.0), min(b * f, 1.0)


def shine(paint: Colour) -> float:
    """LiDAR reflectivity of a painted body: black cars send little back."""
    return 0.015 + 0.8 * sum(paint) / 3
