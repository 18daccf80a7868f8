"""The place: a straight street with crossings, kerbs, buildings, trees, poles and street furniture.

Street frame: x along the street, y to the left, z up, the road surface at z = 0. Traffic keeps to the right; where
it keeps to the left the finished scene is mirrored (`aqr.synth.scene`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from aqr.synth.solids import Colour, Solids, Texture, ball, bar, block, prism

Interval = tuple[float, float]

KERB: Final = 0.13
"""Height of the pavement above the road, metres."""

GROUND_CELL: Final = 0.1
"""Side of a cell of the painted ground, metres."""

_DEPTH: Final = 62.0
"""How far from the middle of the street the place is built, metres."""

_WALLS: Final[tuple[Colour, ...]] = (
    (0.42, 0.36, 0.28),
    (0.32, 0.14, 0.09),
    (0.50, 0.48, 0.44),
    (0.25, 0.27, 0.30),
    (0.45, 0.30, 0.16),
    (0.55, 0.52, 0.40),
    (0.18, 0.20, 0.22),
)
_BARK: Final[Colour] = (0.10, 0.07, 0.05)
_POST: Final[Colour] = (0.20, 0.21, 0.22)
_LAMP: Final[Colour] = (0.95, 0.85, 0.60)


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
        return side * (self.half - self.parking / 2)

    def on_crossing(self, x: float, margin: float = 0.0) -> bool:
        return any(abs(x - c) < self.crossing_half + margin for c in self.crossings)

    def blocks(self) -> list[Interval]:
        """x intervals between crossings."""
        edges = [self.span[0]]
        for c in self.crossings:
            edges += [c - self.crossing_half, c + self.crossing_half]
        edges.append(self.span[1])
        return [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a > 1.0]


@dataclass(frozen=True)
class Ground:
    """Painted ground: square roots of linear RGB, in several resolutions.

    Attributes:
        origin: street coordinates (x, y) of the corner of the first cell, metres.
        levels: images [Y, X, 3] uint8, each half as fine as the one before; the first has `GROUND_CELL` cells.
        road: [Y, X] bool at the first level, where vehicles may drive.
    """

    origin: tuple[float, float]
    levels: tuple[npt.NDArray[np.uint8], ...]
    road: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Street:
    """A finished place: layout, solids of the scenery and painted ground."""

    layout: Layout
    scenery: Solids
    ground: Ground


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


def build_street(layout: Layout, rng: np.random.Generator) -> Street:
    parts: list[Solids] = []
    green: list[tuple[Interval, Interval]] = []
    for interval in layout.blocks():
        for side in (-1, 1):
            parts.append(_slab(layout, interval, side))
            parts += _buildings(layout, interval, side, rng)
            parts += _furniture(layout, interval, side, rng)
            if rng.random() < 0.5:
                reach = sorted((side * (layout.half + layout.walk), side * (layout.half + layout.walk + 4.0)))
                green.append((interval, (reach[0], reach[1])))
    for c in layout.crossings:
        parts += _signals(layout, c)
    end = layout.span[1] + 2.0
    parts.append(
        block((end, end + 15), (-_DEPTH, _DEPTH), (0.0, float(rng.uniform(9, 16))), _wall(rng), texture=Texture.FACADE)
    )
    start = layout.span[0] - 2.0
    parts.append(
        block(
            (start - 15, start), (-_DEPTH, _DEPTH), (0.0, float(rng.uniform(9, 16))), _wall(rng), texture=Texture.FACADE
        )
    )
    return Street(layout, Solids.stack(parts), _paint(layout, green, rng))


def _wall(rng: np.random.Generator) -> Colour:
    r, g, b = _WALLS[int(rng.integers(len(_WALLS)))]
    f = float(rng.uniform(0.75, 1.2))
    return r * f, g * f, b * f


def _across(side: int, near: float, far: float) -> Interval:
    """y interval on one side of the street, from distances to its middle."""
    return (near, far) if side > 0 else (-far, -near)


def _slab(layout: Layout, interval: Interval, side: int) -> Solids:
    return block(
        interval, _across(side, layout.half, _DEPTH + 10), (-0.2, KERB), (0.3, 0.3, 0.3), texture=Texture.GROUND
    )


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
                _across(side, near, near + depth),
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
                        _across(side, near - 0.3, near + depth + 0.3),
                        (height, height + 0.4),
                        (0.2, 0.19, 0.18),
                    )
                )
            if rng.random() < 0.4 and not in_lot and row == front:
                parts.append(
                    block((x + 0.5, x + width - 0.5), _across(side, near - 1.1, near), (2.7, 2.95), _wall(rng))
                )
            x += width + float(rng.choice([0.0, 2.5, 8.0, 20.0]))
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
            (min(reach, reach + 0.01) - 0.3, reach + 0.3),
            (6.95, 7.05),
            _LAMP,
            texture=Texture.LAMP,
        ),
    ]


def _furniture(layout: Layout, interval: Interval, side: int, rng: np.random.Generator) -> list[Solids]:
    """Trees, lamp posts and small things in the strip beside the kerb, some of them shaped like annotated classes."""
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
                _across(side, back - 0.7, back - 0.1),
                (KERB, 1.0),
                (0.05, 0.13, 0.03),
                texture=Texture.FOLIAGE,
            )
        )
    return parts


def bollard(x: float, y: float) -> list[Solids]:
    """Not annotated, and for the LiDAR a traffic cone: only its look tells."""
    grey = (0.30, 0.30, 0.30)
    return [
        prism(2, (x, y), (KERB, KERB + 1.0), 0.16, grey, top_scale=0.22, texture=Texture.ROUGH, reflectivity=0.7),
        block((x - 0.18, x + 0.18), (y - 0.18, y + 0.18), (KERB, KERB + 0.06), grey, reflectivity=0.1),
    ]


def planter(x: float, y: float) -> list[Solids]:
    """Not annotated, and for the LiDAR a barrier."""
    trough = (0.28, 0.26, 0.24)
    return [
        block(
            (x - 1.25, x + 1.25),
            (y - 0.22, y + 0.22),
            (KERB, KERB + 0.3),
            trough,
            top_y=(y - 0.14, y + 0.14),
            texture=Texture.ROUGH,
            reflectivity=0.45,
        ),
        block(
            (x - 1.23, x + 1.23),
            (y - 0.14, y + 0.14),
            (KERB + 0.3, KERB + 0.96),
            (0.06, 0.15, 0.04),
            top_y=(y - 0.1, y + 0.1),
            texture=Texture.FOLIAGE,
            reflectivity=0.6,
        ),
    ]


def _small_thing(x: float, y: float, rng: np.random.Generator) -> list[Solids]:
    kind = int(rng.integers(5))
    top = KERB
    if kind == 0:
        return bollard(x, y)
    if kind == 1:
        return planter(x, y)
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


def _signals(layout: Layout, crossing: float) -> list[Solids]:
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


def _paint(layout: Layout, green: list[tuple[Interval, Interval]], rng: np.random.Generator) -> Ground:
    """Asphalt, markings, pavement and grass, in square roots of linear albedo."""
    x0, x1 = layout.span[0] - 20, layout.span[1] + 20
    y0, y1 = -_DEPTH - 10, _DEPTH + 10
    size = (int((x1 - x0) / GROUND_CELL) // 16 * 16, int((y1 - y0) / GROUND_CELL) // 16 * 16)
    asphalt, pavement, white, grass = (76, 76, 78), (132, 128, 122), (208, 208, 204), (72, 98, 48)
    image = Image.new("RGB", size, pavement)
    road = Image.new("L", size, 0)
    pen, mask = ImageDraw.Draw(image), ImageDraw.Draw(road)

    def fill(x: Interval, y: Interval, colour: tuple[int, int, int]) -> None:
        box = (
            (x[0] - x0) / GROUND_CELL,
            (y[0] - y0) / GROUND_CELL,
            (x[1] - x0) / GROUND_CELL - 1,
            (y[1] - y0) / GROUND_CELL - 1,
        )
        if box[2] >= box[0] and box[3] >= box[1]:
            pen.rectangle(box, fill=colour)
            if colour == asphalt:
                mask.rectangle(box, fill=255)

    for x, y in green:
        fill(x, y, grass)
    half, c_half = layout.half, layout.crossing_half
    lot_y = _across(layout.lot_side, half + layout.walk, half + layout.walk + 20.0)
    fill(layout.lot, lot_y, (112, 100, 84))
    fill((x0, x1), (-half, half), asphalt)
    for c in layout.crossings:
        fill((c - c_half, c + c_half), (y0, y1), asphalt)
    for a, b in layout.blocks():
        stop = 4.2
        for side in (-1, 1):
            for lane in range(1, layout.lanes):
                line = side * lane * layout.lane_width
                for dash in np.arange(a + stop + 2, b - stop - 4, 6.0).tolist():
                    fill((dash, dash + 2.5), (line - 0.08, line + 0.08), white)
            if layout.parking:
                line = side * layout.lanes * layout.lane_width
                fill((a + stop, b - stop), (line - 0.06, line + 0.06), white)
            kerb = side * half
            fill((a, b), (kerb - 0.15 if side < 0 else kerb, kerb if side < 0 else kerb + 0.15), (168, 166, 160))
        amber = (190, 150, 40)
        for line in (-0.16, 0.16):
            fill((a + stop, b - stop), (line - 0.06, line + 0.06), amber)
    lanes = layout.lanes * layout.lane_width
    for c in layout.crossings:
        for direction in (-1, 1):
            edge = c - direction * c_half
            for bar_y in np.arange(-half + 0.3, half - 0.3, 1.0).tolist():
                fill(_ordered(edge - direction * 0.6, edge - direction * 3.0), (bar_y, bar_y + 0.5), white)
            fill(_ordered(edge - direction * 3.7, edge - direction * 4.1), _ordered(0.0, -direction * lanes), white)
    coarse = rng.normal(0.0, 0.035, (size[1] // 16, size[0] // 16)).astype(np.float32)
    dirt = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BILINEAR)) + np.float32(1)
    levels = [np.empty((size[1], size[0], 3), dtype=np.uint8)]
    for channel in range(3):
        colour = np.asarray(image.getchannel(channel), dtype=np.float32)
        levels[0][..., channel] = np.minimum(colour * dirt, np.float32(255))
    for _ in range(3):
        finer = levels[-1]
        levels.append(np.asarray(Image.fromarray(finer).reduce(2)))
    return Ground((x0, y0), tuple(levels), np.asarray(road) > 0)


def _ordered(a: float, b: float) -> Interval:
    return (a, b) if a <= b else (b, a)
