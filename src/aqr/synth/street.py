"""The place: a straight street with crossings, kerbs, buildings and furniture, without what stands there for a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from aqr.synth.furniture import furniture, signals
from aqr.synth.ground import Ground, paint
from aqr.synth.layout import DEPTH, KERB, Interval, Layout, across
from aqr.synth.solids import Colour, Solids, Texture, block

_WALLS: Final[tuple[Colour, ...]] = (
    (0.42, 0.36, 0.28),
    (0.32, 0.14, 0.09),
    (0.50, 0.48, 0.44),
    (0.25, 0.27, 0.30),
    (0.45, 0.30, 0.16),
    (0.55, 0.52, 0.40),
    (0.18, 0.20, 0.22),
)


@dataclass(frozen=True)
class Street:
    """A finished place: layout, solids of the scenery and painted ground."""

    layout: Layout
    scenery: Solids
    ground: Ground


def build_street(layout: Layout, rng: np.random.Generator) -> Street:
    """Build and furnish a street; houses close it at both ends."""
    parts: list[Solids] = []
    green: list[tuple[Interval, Interval]] = []
    for interval in layout.blocks():
        for side in (-1, 1):
            parts.append(_slab(layout, interval, side))
            parts += _buildings(layout, interval, side, rng)
            parts += furniture(layout, interval, side, rng)
            if rng.random() < 0.5:
                reach = sorted((side * (layout.half + layout.walk), side * (layout.half + layout.walk + 4.0)))
                green.append((interval, (reach[0], reach[1])))
    for c in layout.crossings:
        parts += signals(layout, c)
    end = layout.span[1] + 2.0
    parts.append(
        block((end, end + 15), (-DEPTH, DEPTH), (0.0, float(rng.uniform(9, 16))), _wall(rng), texture=Texture.FACADE)
    )
    start = layout.span[0] - 2.0
    parts.append(
        block(
            (start - 15, start), (-DEPTH, DEPTH), (0.0, float(rng.uniform(9, 16))), _wall(rng), texture=Texture.FACADE
        )
    )
    return Street(layout, Solids.stack(parts), paint(layout, green, rng))


def _wall(rng: np.random.Generator) -> Colour:
    r, g, b = _WALLS[int(rng.integers(len(_WALLS)))]
    f = float(rng.uniform(0.75, 1.2))
    return r * f, g * f, b * f


def _slab(layout: Layout, interval: Interval, side: int) -> Solids:
    return block(interval, across(side, layout.half, DEPTH + 10), (-0.2, KERB), (0.3, 0.3, 0.3), texture=Texture.GROUND)


def _buildings(layout: Layout, interval: Interval, side: int, rng: np.random.Generator) -> list[Solids]:
    parts = []
    front = layout.half + layout.walk
    for row, depth in ((front, 14.0), (front + 24.0, 16.0)):
        x = interval[0] + float(rng.uniform(1.0, 4.0))
        while x < interval[1] - 8.0:
            width = min(float(rng.uniform(9.0, 24.0)), interval[1] - 1.0 - x)
            setback = float(rng.choice([0.0, 0.0, 5.0, 9.0]))
            in_lot = side == layout.lot_side and x < layout.lot[1] and x + width > layout.lot[0]
            if in_lot and row == front:
                setback = 21.0
            height = float(rng.uniform(3.6, 11.0) if rng.random() < 0.7 else rng.uniform(11.0, 34.0))
            near = row + setback
            body = block(
                (x, x + width),
                across(side, near, near + depth),
                (0.0, height),
                _wall(rng),
                texture=Texture.FACADE,
                reflectivity=0.35,
            )
            parts.append(body)
            if rng.random() < 0.6:
                parts.append(
                    block(
                        (x - 0.15, x + width + 0.15),
                        across(side, near - 0.3, near + depth + 0.3),
                        (height, height + 0.4),
                        (0.2, 0.19, 0.18),
                    )
                )
            if rng.random() < 0.4 and not in_lot and row == front:
                parts.append(block((x + 0.5, x + width - 0.5), across(side, near - 1.1, near), (2.7, 2.95), _wall(rng)))
            x += width + float(rng.choice([0.0, 2.5, 8.0, 20.0]))
    return parts
