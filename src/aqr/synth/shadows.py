"""Shadows and occlusion on the ground, painted once per moment for all cameras."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from aqr.geometry import Pose
from aqr.synth.solids import Solids, Texture
from aqr.synth.stage import Moment, Stage

Floats = npt.NDArray[np.floating]

CELL: Final = 0.2
"""Side of a cell of the painted shadows, metres."""

REACH: Final = 64.0
"""Shadows are painted this far from the ego vehicle along x and y, metres."""

SHADE: Final = 70
"""Light from the sky below things, of 255."""


@dataclass(frozen=True)
class Shadows:
    """Light that reaches the ground around the ego vehicle.

    Attributes:
        origin: street coordinates (x, y) of the corner of the first cell, metres.
        sun: [Y, X] share of direct light, 0 … 1.
        sky: [Y, X] share of light from the sky, 0 … 1.
    """

    origin: tuple[float, float]
    sun: Floats
    sky: Floats

    def at(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Shares of sun and sky at street coordinates; 1 outside of the painted square."""
        cells = self.sun.shape[0]
        column = ((x - np.float32(self.origin[0])) * np.float32(1 / CELL)).astype(np.int32)
        row = ((y - np.float32(self.origin[1])) * np.float32(1 / CELL)).astype(np.int32)
        place = row.clip(0, cells - 1) * cells + column.clip(0, cells - 1)
        return self.sun.ravel()[place], self.sky.ravel()[place]


class ShadowPainter:
    """Keeps the shadows of a scene's scenery and adds those of its actors, moment by moment.

    Attributes:
        scenery: image of the sun that the scenery lets through, 0 … 255.
        feet: image of where look-alikes keep out the sky, 255, as actors do.
    """

    def __init__(self, stage: Stage) -> None:
        self.sun = stage.weather.sun_direction if stage.weather.sun.max() > 0.5 else None
        ground = stage.street.ground
        self.origin = ground.origin
        rows, columns = ground.road.shape
        self.scenery = Image.new("L", (columns // 2, rows // 2), 255)
        if self.sun is not None:
            fixed = stage.scenery
            _project(self.scenery, fixed, np.flatnonzero(_casts(fixed)), self.origin, self.sun)
        self.feet = Image.new("L", self.scenery.size, 0)
        bodies = Solids.stack([thing.placed() for thing in stage.lookalikes])
        _stamp(self.feet, bodies, _low(bodies), self.origin, 255)

    def paint(self, moment: Moment, ego: Pose) -> Shadows:
        """Shadows around a pose of the ego vehicle."""
        cells = int(2 * REACH / CELL)
        left, low = (int((ego.translation[i] - REACH - self.origin[i]) / CELL) for i in (0, 1))
        origin = (self.origin[0] + left * CELL, self.origin[1] + low * CELL)
        sun = self.scenery.crop((left, low, left + cells, low + cells))
        sky = Image.new("L", (cells, cells), 255)
        solids = moment.solids
        gap = np.abs(solids.corners[:, :4, :2].mean(axis=1) - ego.translation[:2]).max(axis=1)
        moving = (moment.owners >= 0) & (gap < REACH)
        if self.sun is not None:
            _project(sun, solids, np.flatnonzero(moving & _casts(solids)), origin, self.sun)
            sun = sun.filter(ImageFilter.BoxBlur(1))
        sky.paste(SHADE, mask=self.feet.crop((left, low, left + cells, low + cells)))
        _stamp(sky, solids, moving & _low(solids), origin, SHADE)
        sky = sky.filter(ImageFilter.BoxBlur(2))
        full = np.float32(1 / 255)
        light = np.asarray(sun, dtype=np.float32) * full
        light[[0, -1]], light[:, [0, -1]] = 1.0, 1.0
        return Shadows(origin, light, np.asarray(sky, dtype=np.float32) * full)


def _casts(solids: Solids) -> npt.NDArray[np.bool_]:
    return np.asarray((solids.texture != Texture.GROUND) & (solids.corners[:, 4, 2] > 0.25))


def _low(solids: Solids) -> npt.NDArray[np.bool_]:
    """Whether solids are so near the ground that they keep out the sky."""
    return np.asarray(solids.corners[:, 0, 2] < 0.7)


def _stamp(
    image: Image.Image, solids: Solids, chosen: npt.NDArray[np.bool_], origin: tuple[float, float], value: int
) -> None:
    """Fill the ground right below solids."""
    pen = ImageDraw.Draw(image)
    for quad in ((solids.corners[chosen, :4, :2] - origin) / CELL).reshape(-1, 8).tolist():
        pen.polygon(quad, fill=value)


def _project(
    image: Image.Image, solids: Solids, chosen: npt.NDArray[np.int64], origin: tuple[float, float], sun: Floats
) -> None:
    """Draw the shadows that solids throw on the plane z = 0."""
    corners = solids.corners[chosen]
    flat = (corners[..., :2] - sun[:2] / sun[2] * corners[..., 2:] - origin) / CELL
    pen = ImageDraw.Draw(image)
    low, high = flat[:, :4], flat[:, 4:]
    after = [1, 2, 3, 0]
    sides = np.stack([low, low[:, after], high[:, after], high], axis=2).reshape(-1, 4, 2)
    for quad in np.concatenate([sides, high]).reshape(-1, 8).tolist():
        pen.polygon(quad, fill=0)
