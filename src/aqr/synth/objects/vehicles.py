"""Bodies of cars, trucks, buses, trailers and excavators, of a given length, width and height in metres."""

from __future__ import annotations

import numpy as np

from aqr.synth.objects.fittings import lamps, wheels
from aqr.synth.objects.paint import GLASS, MACHINE_YELLOW, PAINTS, RUBBER, STEEL, TAILLAMP, pick, shine
from aqr.synth.solids import Solids, Texture, bar, between, block


def car(size: tuple[float, float, float], rng: np.random.Generator) -> Solids:
    """A sedan, a hatchback or a van."""
    length, width, height = size
    paint = pick(rng, PAINTS)
    waist = height * float(rng.uniform(0.52, 0.58))
    kind = rng.choice(["sedan", "hatch", "van"], p=[0.45, 0.4, 0.15])
    foot = {"sedan": (-0.36, 0.24), "hatch": (-0.485, 0.24), "van": (-0.49, 0.36)}[str(kind)]
    roof = {"sedan": (-0.22, 0.08), "hatch": (-0.42, 0.07), "van": (-0.46, 0.24)}[str(kind)]
    end = length / 2 - 0.03
    return Solids.stack(
        [
            block(
                (-end, end),
                (-width / 2 + 0.02, width / 2 - 0.02),
                (0.17 * height, waist),
                paint,
                top_x=(-end + 0.04, end - 0.16),
                top_y=(-width / 2 + 0.08, width / 2 - 0.08),
                reflectivity=shine(paint),
            ),
            block(
                (foot[0] * length, foot[1] * length),
                (-width / 2 + 0.08, width / 2 - 0.08),
                (waist, height),
                paint,
                top_x=(roof[0] * length, roof[1] * length),
                top_y=(-width * 0.36, width * 0.36),
                texture=Texture.GLASSHOUSE,
                reflectivity=0.25,
            ),
            *wheels(length, width, 0.19 * height, [0.19, 0.81]),
            *lamps(length, width, 0.36 * height),
        ]
    )


def truck(size: tuple[float, float, float], rng: np.random.Generator) -> Solids:
    """A cab with a box or an open deck behind it."""
    length, width, height = size
    paint, cargo = pick(rng, PAINTS), pick(rng, ((0.7, 0.7, 0.68), (0.55, 0.56, 0.55), (0.12, 0.2, 0.36)))
    cab = min(2.1, 0.32 * length)
    split = length / 2 - cab
    deck = 0.30 * height
    parts = [
        block(
            (-length / 2 + 0.05, length / 2 - 0.2),
            (-0.4 * width, 0.4 * width),
            (0.15 * height, deck),
            STEEL,
            reflectivity=0.2,
        ),
        block(
            (split, length / 2), (-0.47 * width, 0.47 * width), (0.14 * height, 0.50 * height), paint, reflectivity=0.4
        ),
        block(
            (split, length / 2),
            (-0.47 * width, 0.47 * width),
            (0.50 * height, 0.86 * height),
            paint,
            top_x=(split, length / 2 - 0.35),
            texture=Texture.GLASSHOUSE,
            reflectivity=0.3,
        ),
        *wheels(length, width, min(0.48, 0.17 * height), [0.15, 0.28, 0.86] if length > 6.5 else [0.2, 0.84]),
        *lamps(length, width, 0.2 * height),
    ]
    if rng.random() < 0.75:
        parts.append(
            block(
                (-length / 2, split - 0.12),
                (-width / 2, width / 2),
                (deck, height),
                cargo,
                texture=Texture.PANELS,
                reflectivity=0.5,
            )
        )
    else:
        parts.append(
            block((-length / 2, split - 0.12), (-width / 2, width / 2), (deck, 0.55 * height), cargo, reflectivity=0.4)
        )
        parts.append(
            block((split - 0.3, split - 0.05), (-width / 2, width / 2), (deck, height), STEEL, reflectivity=0.3)
        )
    return Solids.stack(parts)


def bus(size: tuple[float, float, float], rng: np.random.Generator) -> Solids:
    """A rigid bus."""
    length, width, height = size
    paint = pick(rng, ((0.55, 0.06, 0.05), (0.05, 0.25, 0.12), (0.75, 0.75, 0.72), (0.65, 0.45, 0.05)))
    return Solids.stack(
        [
            block(
                (-length / 2 + 0.03, length / 2 - 0.03),
                (-width / 2, width / 2),
                (0.10 * height, 0.42 * height),
                paint,
                reflectivity=0.4,
            ),
            block(
                (-length / 2, length / 2),
                (-width / 2 + 0.02, width / 2 - 0.02),
                (0.42 * height, 0.80 * height),
                GLASS,
                texture=Texture.GLASSHOUSE,
                reflectivity=0.12,
            ),
            block((-length / 2, length / 2), (-width / 2, width / 2), (0.80 * height, height), paint, reflectivity=0.4),
            *wheels(length, width, 0.14 * height, [0.22, 0.80]),
            *lamps(length, width, 0.16 * height, 0.2),
        ]
    )


def trailer(size: tuple[float, float, float], rng: np.random.Generator) -> Solids:
    """A semi-trailer that stands alone."""
    length, width, height = size
    cover = pick(rng, ((0.72, 0.72, 0.72), (0.6, 0.6, 0.55), (0.5, 0.12, 0.06), (0.08, 0.15, 0.4)))
    deck = 0.32 * height
    parts = [
        block((-length / 2, length / 2), (-0.36 * width, 0.36 * width), (0.24 * height, deck), STEEL, reflectivity=0.2),
        *wheels(length, width, min(0.5, 0.13 * height), [0.09, 0.19, 0.29]),
        block(
            (0.22 * length, 0.26 * length), (-0.3 * width, 0.3 * width), (0.0, 0.24 * height), STEEL, reflectivity=0.2
        ),
        block(
            (-length / 2, length / 2),
            (-width / 2, width / 2),
            (deck, height),
            cover,
            texture=Texture.PANELS,
            reflectivity=0.55,
        ),
        block((-length / 2, -length / 2 + 0.08), (-0.45 * width, 0.45 * width), (0.16 * height, 0.19 * height), STEEL),
        *(
            block(
                (-length / 2, -length / 2 + 0.09),
                between(side * 0.30 * width, side * 0.44 * width),
                (0.15 * height, 0.20 * height),
                TAILLAMP,
                texture=Texture.LAMP,
                reflectivity=0.8,
            )
            for side in (-1, 1)
        ),
    ]
    return Solids.stack(parts)


def excavator(size: tuple[float, float, float], rng: np.random.Generator) -> Solids:
    """A tracked excavator, its arm stretched forward."""
    length, width, height = size
    paint = pick(rng, (MACHINE_YELLOW, MACHINE_YELLOW, (0.72, 0.25, 0.02)))
    rear, body = -length / 2, -length / 2 + 0.5 * length
    elbow = (0.18 * length, 0.0, height - 0.16)
    parts = [
        *(
            block(
                (rear + 0.3, body),
                between(s * width / 2, s * (width / 2 - 0.6)),
                (0.0, 0.27 * height),
                RUBBER,
                top_x=(rear + 0.1, body + 0.2),
                texture=Texture.ROUGH,
                reflectivity=0.1,
            )
            for s in (-1, 1)
        ),
        block(
            (rear, body - 0.2), (-0.45 * width, 0.45 * width), (0.30 * height, 0.62 * height), paint, reflectivity=0.4
        ),
        block(
            (body - 1.5, body + 0.1),
            (0.0, 0.42 * width),
            (0.45 * height, 0.93 * height),
            paint,
            texture=Texture.GLASSHOUSE,
            reflectivity=0.2,
        ),
        bar(
            (body - 0.4, -0.15 * width, 0.5 * height),
            (elbow[0], -0.15 * width, elbow[2]),
            0.36,
            0.32,
            paint,
            reflectivity=0.4,
        ),
        bar(
            (elbow[0], -0.15 * width, elbow[2]),
            (length / 2 - 0.45, -0.15 * width, 0.42 * height),
            0.3,
            0.3,
            paint,
            reflectivity=0.4,
        ),
        block(
            (length / 2 - 0.85, length / 2),
            (-0.15 * width - 0.5, -0.15 * width + 0.5),
            (0.12 * height, 0.40 * height),
            STEEL,
            top_x=(length / 2 - 0.5, length / 2 - 0.1),
            reflectivity=0.2,
        ),
    ]
    return Solids.stack(parts)
