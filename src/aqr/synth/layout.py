"""Cross-section and extent of a street.

Street frame: x along the street, y to the left, z up, the road surface at z = 0. Traffic keeps to the right; where
it keeps to the left the finished scene is mirrored (`aqr.synth.stage`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

Interval = tuple[float, float]

KERB: Final = 0.13
"""Height of the pavement above the road, metres."""

DEPTH: Final = 62.0
"""How far from the middle of the street the place is built, metres."""


@dataclass(frozen=True)
class Layout:
    """Cross-section and extent of the street, metres.

    Attributes:
        span: start and end along x.
        lanes: per direction.
        lane_width: of each lane.
        parking: width of the parking strip on each side, 0 where there is none.
        walk: width of the pavement in front of the buildings.
        crossings: x of the middle of each crossing street.
        crossing_half: half of the width of crossing streets.
        lot: x interval of the open yard beside the street.
        lot_side: +1 where the yard lies to the left of the street, -1 to the right.
    """

    span: Interval
    lanes: int
    lane_width: float
    parking: float
    walk: float
    crossings: tuple[float, ...]
    crossing_half: float
    lot: Interval
    lot_side: int

    @property
    def half(self) -> float:
        """From the middle of the road to the kerb."""
        return self.lanes * self.lane_width + self.parking

    def lane_y(self, direction: int, lane: int) -> float:
        """Middle of a lane; direction +1 drives towards +x, lane 0 is the inner one."""
        return -direction * (lane + 0.5) * self.lane_width

    def parking_y(self, side: int) -> float:
        """Middle of the parking strip, `side` = +1 to the left of the street."""
        return side * (self.half - self.parking / 2)

    def on_crossing(self, x: float, margin: float = 0.0) -> bool:
        """Whether x lies on a crossing street or within `margin` metres of one."""
        return any(abs(x - c) < self.crossing_half + margin for c in self.crossings)

    def level(self, x: float, y: float) -> float:
        """Height of the ground, metres."""
        return 0.0 if abs(y) < self.half or self.on_crossing(x) else KERB

    def blocks(self) -> list[Interval]:
        """x intervals between crossings."""
        edges = [self.span[0]]
        for c in self.crossings:
            edges += [c - self.crossing_half, c + self.crossing_half]
        edges.append(self.span[1])
        return [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a > 1.0]


def draw_layout(rng: np.random.Generator, travel: float) -> Layout:
    """A street long enough for a drive of `travel` metres from x = 0, with margins that the LiDAR reaches."""
    span = (-85.0, travel + 95.0)
    lanes = int(rng.choice([1, 2], p=[0.45, 0.55]))
    crossing_half = float(rng.uniform(4.2, 6.5))
    crossings = []
    x = float(rng.uniform(18.0, 58.0))
    while x < span[1] - 20.0:
        crossings.append(x)
        x += float(rng.uniform(70.0, 110.0))
    back = crossings[0] - float(rng.uniform(80.0, 110.0))
    if back > span[0] + 20.0:
        crossings.insert(0, back)
    ahead = next(c for c in crossings if c > 0.0)
    lot_end = min(float(rng.uniform(20.0, 30.0)), ahead - crossing_half - 3.0)
    return Layout(
        span=span,
        lanes=lanes,
        lane_width=float(rng.uniform(3.2, 3.6)),
        parking=2.3 if rng.random() < 0.75 else 0.0,
        walk=float(rng.uniform(3.2, 5.0)),
        crossings=tuple(crossings),
        crossing_half=crossing_half,
        lot=(lot_end - 34.0, lot_end),
        lot_side=int(rng.choice([-1, 1])),
    )


def across(side: int, near: float, far: float) -> Interval:
    """y interval on one side of the street, from distances to its middle."""
    return (near, far) if side > 0 else (-far, -near)
