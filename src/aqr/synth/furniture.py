"""Street furniture: trees, lamp posts, signals and small things."""

from __future__ import annotations

from typing import Final

import numpy as np

from aqr.synth.layout import KERB, Interval, Layout, across
from aqr.synth.solids import Colour, Solids, Texture, ball, bar, block, prism

_BARK: Final[Colour] = (0.10, 0.07, 0.05)
_POST: Final[Colour] = (0.20, 0.21, 0.22)
_LAMP: Final[Colour] = (0.95, 0.85, 0.60)


def furniture(layout: Layout, interval: Interval, side: int, rng: np.random.Generator) -> list[Solids]:
    """Trees, lamp posts and small things in the strip beside the kerb."""
    parts: list[Solids] = []
    y = side * (layout.half + 0.55)
    leafy = rng.random() < 0.65
    x = interval[0] + float(rng.uniform(4.0, 9.0))
    count = 0
    while x < interval[1] - 4.0:
        in_lot = side == layout.lot_side and layout.lot[0] - 2 < x < layout.lot[1] + 2
        if count % 3 == 0:
            parts += _lamp_post(x, y, side)
        elif leafy and not in_lot:
            parts += _tree(x, y, rng)
        elif rng.random() < 0.7:
            parts += _small_thing(x, y, rng)
        x += float(rng.uniform(6.0, 9.5))
        count += 1
    back = layout.half + layout.walk
    if rng.random() < 0.5 and not (side == layout.lot_side and interval[0] < layout.lot[1]):
        parts.append(
            block(
                (interval[0] + 2, interval[1] - 2),
                across(side, back - 0.7, back - 0.1),
                (KERB, 1.0),
                (0.05, 0.13, 0.03),
                texture=Texture.FOLIAGE,
            )
        )
    return parts


def signals(layout: Layout, crossing: float) -> list[Solids]:
    """Traffic lights on both sides of a crossing whose middle lies at x = `crossing` metres."""
    parts: list[Solids] = []
    for direction in (-1, 1):
        x = crossing + direction * (layout.crossing_half + 0.7)
        y = -direction * (layout.half + 0.7)
        parts += [
            prism(2, (x, y), (0.0, 5.4), 0.1, _POST, reflectivity=0.4),
            bar((x, y, 5.3), (x, y + direction * 3.2, 5.3), 0.1, 0.1, _POST),
            block(
                (x - 0.12, x + 0.12),
                (y + direction * 3.2 - 0.18, y + direction * 3.2 + 0.18),
                (4.6, 5.5),
                (0.03, 0.03, 0.03),
            ),
        ]
    return parts


def _tree(x: float, y: float, rng: np.random.Generator) -> list[Solids]:
    """A trunk and three overlapping crowns, which leave people (and the sensors) room below."""
    crown = float(rng.uniform(1.2, 1.9))
    middle = max(float(rng.uniform(4.2, 6.5)), 3.0 + 1.2 * crown)
    green = (float(rng.uniform(0.04, 0.10)), float(rng.uniform(0.12, 0.22)), float(rng.uniform(0.02, 0.05)))
    trunk = prism(2, (x, y), (0.0, middle), float(rng.uniform(0.10, 0.18)), _BARK, texture=Texture.ROUGH)
    parts = [trunk]
    for _ in range(3):
        shift = rng.uniform(-0.45, 0.45, 3) * crown
        radii = crown * rng.uniform(0.6, 0.9, 3)
        parts.append(
            ball(
                (x + float(shift[0]), y + float(shift[1]), middle + float(shift[2])),
                (float(radii[0]), float(radii[1]), float(radii[2])),
                green,
                texture=Texture.FOLIAGE,
                reflectivity=0.35,
            )
        )
    return parts


def _lamp_post(x: float, y: float, side: int) -> list[Solids]:
    reach = y - side * 1.8
    return [
        prism(2, (x, y), (0.0, 7.0), 0.09, _POST, reflectivity=0.4),
        bar((x, y, 6.95), (x, reach, 7.1), 0.1, 0.1, _POST),
        block(
            (x - 0.15, x + 0.15),
            (reach - 0.3, reach + 0.3),
            (6.95, 7.05),
            _LAMP,
            texture=Texture.LAMP,
        ),
    ]


def _small_thing(x: float, y: float, rng: np.random.Generator) -> list[Solids]:
    """A hydrant, a sign, a bin, or nothing: two places in five are left to look-alikes."""
    kind = int(rng.integers(5))
    top = KERB
    if kind < 2:
        return []
    if kind == 2:
        return [prism(2, (x, y), (top, top + 0.85), 0.2, (0.45, 0.03, 0.02), top_scale=0.8, reflectivity=0.5)]
    if kind == 3:
        return [
            prism(2, (x, y), (top, top + 2.5), 0.04, _POST, reflectivity=0.4),
            block(
                (x - 0.03, x + 0.03), (y - 0.35, y + 0.35), (top + 1.9, top + 2.6), (0.6, 0.08, 0.05), reflectivity=0.95
            ),
        ]
    return [block((x - 0.3, x + 0.3), (y - 0.3, y + 0.3), (top, top + 1.05), (0.04, 0.14, 0.08), reflectivity=0.35)]
