"""The painted ground: asphalt, markings, pavement and grass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from aqr.synth.layout import DEPTH, Interval, Layout, across

GROUND_CELL: Final = 0.1
"""Side of a cell of the painted ground, metres."""


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


def paint(layout: Layout, green: list[tuple[Interval, Interval]], rng: np.random.Generator) -> Ground:
    """Asphalt, markings, pavement and grass, in square roots of linear albedo."""
    x0, x1 = layout.span[0] - 20, layout.span[1] + 20
    y0, y1 = -DEPTH - 10, DEPTH + 10
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
    lot_y = across(layout.lot_side, half + layout.walk, half + layout.walk + 20.0)
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
