"""The ten classes: how large they are and what they are made of.

Sizes follow the means of the nuScenes training annotations (arXiv 1903.11027) with a few per cent of variation.
Shapes stand on the ground at the origin of their own frame, x along the heading; together they fill the annotated
box but for a small slack.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from aqr.synth.solids import Colour, Solids, Texture, ball, bar, block, prism

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

_PAINTS: Final[tuple[Colour, ...]] = (
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
_CLOTHES: Final[tuple[Colour, ...]] = (
    (0.05, 0.06, 0.10),
    (0.03, 0.03, 0.03),
    (0.40, 0.08, 0.07),
    (0.12, 0.22, 0.42),
    (0.55, 0.55, 0.52),
    (0.15, 0.25, 0.12),
    (0.45, 0.35, 0.20),
    (0.30, 0.12, 0.30),
)
_RUBBER: Final[Colour] = (0.02, 0.02, 0.02)
_STEEL: Final[Colour] = (0.25, 0.25, 0.26)
_GLASS: Final[Colour] = (0.03, 0.04, 0.05)
_HEADLAMP: Final[Colour] = (0.85, 0.85, 0.75)
_TAILLAMP: Final[Colour] = (0.55, 0.02, 0.02)
_SIGNAL_ORANGE: Final[Colour] = (0.80, 0.20, 0.02)
_MACHINE_YELLOW: Final[Colour] = (0.70, 0.42, 0.02)
_SKINS: Final[tuple[Colour, ...]] = ((0.55, 0.36, 0.26), (0.35, 0.20, 0.13), (0.16, 0.09, 0.06))


@dataclass(frozen=True)
class Model:
    """One individual of a class.

    Attributes:
        category: nuScenes category.
        size: length, width, height in metres.
        solids: in the object's frame, on the ground at its origin.
    """

    category: str
    size: tuple[float, float, float]
    solids: Solids


def draw_size(name: str, rng: np.random.Generator) -> tuple[float, float, float]:
    """A plausible length, width and height (m) of a class; the three vary together, large cars are large all over."""
    common = rng.normal() * 0.7
    mean, spread = MEAN_SIZE[name], _SPREAD[name]
    length, width, height = (
        float(m * np.clip(1 + s * (common + 0.7 * rng.normal()), 1 - 2.2 * s, 1 + 2.2 * s))
        for m, s in zip(mean, spread, strict=True)
    )
    return round(length, 3), round(width, 3), round(height, 3)


def build(name: str, rng: np.random.Generator, *, rider: bool = False, worker: bool = False) -> Model:
    """One individual.

    Args:
        name: one of the ten classes.
        rng: source of size, paint and variant.
        rider: for bicycle and motorcycle: somebody sits on it (and is part of the box, as in nuScenes).
        worker: for pedestrian: a construction worker in signal clothes.
    """
    size = draw_size(name, rng)
    if name == "pedestrian" and not worker and rng.random() < 0.06:
        size = (round(0.75 * size[0], 3), round(0.72 * size[1], 3), round(0.70 * size[2], 3))
    if name in ("bicycle", "motorcycle"):
        height = float(rng.uniform(1.62, 1.82)) if rider else size[2] * (0.86 if name == "bicycle" else 0.9)
        size = (size[0], size[1], round(height, 3))
    body = (size[0] - 2 * SLACK, size[1] - 2 * SLACK, size[2] - SLACK)
    if name == "pedestrian":
        kind = "construction_worker" if worker else "child" if size[2] < 1.45 else "adult"
        return Model(f"human.pedestrian.{kind}", size, _pedestrian(body, rng, worker))
    if name in ("bicycle", "motorcycle"):
        return Model(f"vehicle.{name}", size, _two_wheeler(body, rng, rider, heavy=name == "motorcycle"))
    category, shape = _SHAPES[name]
    return Model(category, size, shape(body, rng))


def _pick(rng: np.random.Generator, choices: tuple[Colour, ...]) -> Colour:
    r, g, b = choices[int(rng.integers(len(choices)))]
    f = float(rng.uniform(0.8, 1.25))
    return min(r * f, 1.0), min(g * f, 1.0), min(b * f, 1.0)


def _shine(paint: Colour) -> float:
    """LiDAR reflectivity of a painted body: black cars send little back."""
    return 0.015 + 0.8 * sum(paint) / 3


def _ordered(a: float, b: float) -> tuple[float, float]:
    return (a, b) if a <= b else (b, a)


def _wheels(length: float, width: float, radius: float, along: list[float]) -> list[Solids]:
    """Pairs of wheels at positions given as shares of the length from the rear, flush with the sides."""
    wheels = []
    for share in along:
        x = (share - 0.5) * length
        for side in (-1, 1):
            flank = _ordered(side * (width / 2 - 0.24), side * width / 2)
            wheels.append(prism(1, (x, radius), flank, radius * 0.966, _RUBBER, sides=12, reflectivity=0.06))
    return wheels


def _lamps(length: float, width: float, z: float, size: float = 0.14) -> list[Solids]:
    """Head and tail lamps on the end faces, inside the length."""
    parts = []
    for side in (-1, 1):
        span = _ordered(side * width * 0.30, side * width * 0.46)
        front = (length / 2 - 0.06, length / 2)
        rear = (-length / 2, -length / 2 + 0.06)
        parts.append(block(front, span, (z, z + size), _HEADLAMP, texture=Texture.LAMP, reflectivity=0.7))
        parts.append(block(rear, span, (z, z + size), _TAILLAMP, texture=Texture.LAMP, reflectivity=0.8))
    return parts


def _car(size: tuple[float, float, float], rng: np.random.Generator) -> Solids:
    length, width, height = size
    paint = _pick(rng, _PAINTS)
    shine = _shine(paint)
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
                reflectivity=shine,
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
            *_wheels(length, width, 0.19 * height, [0.19, 0.81]),
            *_lamps(length, width, 0.36 * height),
        ]
    )


def _truck(size: tuple[float, float, float], rng: np.random.Generator) -> Solids:
    length, width, height = size
    paint, cargo = _pick(rng, _PAINTS), _pick(rng, ((0.7, 0.7, 0.68), (0.55, 0.56, 0.55), (0.12, 0.2, 0.36)))
    cab = min(2.1, 0.32 * length)
    split = length / 2 - cab
    deck = 0.30 * height
    parts = [
        block(
            (-length / 2 + 0.05, length / 2 - 0.2),
            (-0.4 * width, 0.4 * width),
            (0.15 * height, deck),
            _STEEL,
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
        *_wheels(length, width, min(0.48, 0.17 * height), [0.15, 0.28, 0.86] if length > 6.5 else [0.2, 0.84]),
        *_lamps(length, width, 0.2 * height),
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
            block((split - 0.3, split - 0.05), (-width / 2, width / 2), (deck, height), _STEEL, reflectivity=0.3)
        )
    return Solids.stack(parts)


def _bus(size: tuple[float, float, float], rng: np.random.Generator) -> Solids:
    length, width, height = size
    paint = _pick(rng, ((0.55, 0.06, 0.05), (0.05, 0.25, 0.12), (0.75, 0.75, 0.72), (0.65, 0.45, 0.05)))
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
                _GLASS,
                texture=Texture.GLASSHOUSE,
                reflectivity=0.12,
            ),
            block((-length / 2, length / 2), (-width / 2, width / 2), (0.80 * height, height), paint, reflectivity=0.4),
            *_wheels(length, width, 0.14 * height, [0.22, 0.80]),
            *_lamps(length, width, 0.16 * height, 0.2),
        ]
    )


def _trailer(size: tuple[float, float, float], rng: np.random.Generator) -> Solids:
    length, width, height = size
    cover = _pick(rng, ((0.72, 0.72, 0.72), (0.6, 0.6, 0.55), (0.5, 0.12, 0.06), (0.08, 0.15, 0.4)))
    deck = 0.32 * height
    parts = [
        block(
            (-length / 2, length / 2), (-0.36 * width, 0.36 * width), (0.24 * height, deck), _STEEL, reflectivity=0.2
        ),
        *_wheels(length, width, min(0.5, 0.13 * height), [0.09, 0.19, 0.29]),
        block(
            (0.22 * length, 0.26 * length), (-0.3 * width, 0.3 * width), (0.0, 0.24 * height), _STEEL, reflectivity=0.2
        ),
        block(
            (-length / 2, length / 2),
            (-width / 2, width / 2),
            (deck, height),
            cover,
            texture=Texture.PANELS,
            reflectivity=0.55,
        ),
        block((-length / 2, -length / 2 + 0.08), (-0.45 * width, 0.45 * width), (0.16 * height, 0.19 * height), _STEEL),
        *(
            block(
                (-length / 2, -length / 2 + 0.09),
                _ordered(side * 0.30 * width, side * 0.44 * width),
                (0.15 * height, 0.20 * height),
                _TAILLAMP,
                texture=Texture.LAMP,
                reflectivity=0.8,
            )
            for side in (-1, 1)
        ),
    ]
    return Solids.stack(parts)


def _excavator(size: tuple[float, float, float], rng: np.random.Generator) -> Solids:
    length, width, height = size
    paint = _pick(rng, (_MACHINE_YELLOW, _MACHINE_YELLOW, (0.72, 0.25, 0.02)))
    rear, body = -length / 2, -length / 2 + 0.5 * length
    elbow = (0.18 * length, 0.0, height - 0.16)
    parts = [
        *(
            block(
                (rear + 0.3, body),
                _ordered(s * width / 2, s * (width / 2 - 0.6)),
                (0.0, 0.27 * height),
                _RUBBER,
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
            _STEEL,
            top_x=(length / 2 - 0.5, length / 2 - 0.1),
            reflectivity=0.2,
        ),
    ]
    return Solids.stack(parts)


def _barrier(size: tuple[float, float, float], rng: np.random.Generator) -> Solids:
    length, width, height = size
    if rng.random() < 0.6:
        orange = rng.random() < 0.6
        paint = _SIGNAL_ORANGE if orange else (0.75, 0.75, 0.72)
        texture = Texture.STRIPES if not orange else Texture.PLAIN
        return Solids.stack(
            [
                block(
                    (-length / 2, length / 2),
                    (-width / 2, width / 2),
                    (0.0, 0.30 * height),
                    paint,
                    top_x=(-0.3 * length, 0.3 * length),
                    reflectivity=0.45,
                ),
                block(
                    (-0.3 * length, 0.3 * length),
                    (-width / 2 + 0.02, width / 2 - 0.02),
                    (0.30 * height, height),
                    paint,
                    top_x=(-0.2 * length, 0.2 * length),
                    texture=texture,
                    reflectivity=0.6,
                ),
            ]
        )
    return Solids.stack(
        [
            *(
                block((-length / 2, length / 2), _ordered(s * width / 2, s * (width / 2 - 0.08)), (0.0, 0.05), _STEEL)
                for s in (-1, 1)
            ),
            *(
                block((-0.05, 0.05), _ordered(s * width / 2, s * (width / 2 - 0.08)), (0.0, height), _STEEL)
                for s in (-1, 1)
            ),
            block(
                (-0.03, 0.03),
                (-width / 2, width / 2),
                (0.62 * height, height),
                (0.75, 0.75, 0.72),
                texture=Texture.STRIPES,
                reflectivity=0.8,
            ),
            block(
                (-0.03, 0.03),
                (-width / 2, width / 2),
                (0.22 * height, 0.42 * height),
                (0.75, 0.75, 0.72),
                texture=Texture.STRIPES,
                reflectivity=0.8,
            ),
        ]
    )


def _cone(size: tuple[float, float, float], rng: np.random.Generator) -> Solids:
    length, width, height = size
    orange = _pick(rng, (_SIGNAL_ORANGE,))
    radius = 0.42 * min(length, width)
    return Solids.stack(
        [
            block(
                (-length / 2, length / 2), (-width / 2, width / 2), (0.0, 0.06), (0.05, 0.05, 0.05), reflectivity=0.1
            ),
            prism(
                2, (0.0, 0.0), (0.06, height), radius, orange, top_scale=0.22, texture=Texture.BANDS, reflectivity=0.7
            ),
        ]
    )


def _person(
    height: float, width: float, depth: float, stride: float, rng: np.random.Generator, worker: bool
) -> list[Solids]:
    """A standing or walking body of the given height, `stride` metres between the feet."""
    cloth = (0.85, 0.35, 0.02) if worker else _pick(rng, _CLOTHES)
    trousers = (0.05, 0.06, 0.10) if worker else _pick(rng, _CLOTHES)
    skin = _pick(rng, _SKINS)
    hair = (0.8, 0.6, 0.02) if worker else _pick(rng, ((0.02, 0.015, 0.01), (0.10, 0.05, 0.02)))
    leg = 0.47 * height
    half, limb = width / 2, min(0.13, depth * 0.3)
    parts = [
        bar((side * stride / 2, side * 0.22 * width, 0.03), (0.0, side * 0.2 * width, leg), limb, limb, trousers)
        for side in (-1, 1)
    ]
    parts += [
        block(
            (-0.14, 0.14),
            (-0.62 * half, 0.62 * half),
            (leg - 0.05, 0.83 * height),
            cloth,
            top_x=(-0.11, 0.11),
            texture=Texture.ROUGH,
            reflectivity=0.75 if worker else 0.25,
        ),
        prism(2, (0.0, 0.0), (0.84 * height, 0.93 * height), 0.095, skin, reflectivity=0.3),
        ball((0.0, 0.0, 0.945 * height), (0.11, 0.10, 0.055 * height), hair, reflectivity=0.2),
    ]
    for side in (-1, 1):
        parts.append(
            bar(
                (0.0, side * 0.72 * half, 0.80 * height),
                (-side * 0.35 * stride, side * 0.86 * half, 0.47 * height),
                min(0.1, 0.26 * half),
                0.1,
                cloth,
            )
        )
    return parts


def _pedestrian(size: tuple[float, float, float], rng: np.random.Generator, worker: bool) -> Solids:
    length, width, height = size
    return Solids.stack(_person(height, width, length, max(length - 0.2, 0.1), rng, worker))


def _two_wheeler(size: tuple[float, float, float], rng: np.random.Generator, rider: bool, heavy: bool) -> Solids:
    length, width, height = size
    radius, tyre = (0.30, 0.13) if heavy else (0.33, 0.04)
    paint = _pick(rng, _PAINTS)
    bare = (1.15 if heavy else 1.05) if rider else height
    parts = [
        prism(
            1,
            (side * (length / 2 - radius), radius),
            (-tyre / 2, tyre / 2),
            radius * 0.966,
            _RUBBER,
            sides=12,
            reflectivity=0.08,
        )
        for side in (-1, 1)
    ]
    axle = length / 2 - radius
    handlebar = block(
        (0.30 * length - 0.05, 0.30 * length + 0.05), (-width / 2, width / 2), (bare - 0.08, bare), _STEEL
    )
    if heavy:
        parts += [
            block(
                (-0.30 * length, 0.25 * length),
                (-0.16, 0.16),
                (0.32, 0.72),
                paint,
                top_x=(-0.36 * length, 0.20 * length),
                reflectivity=0.4,
            ),
            block((-0.42 * length, 0.0), (-0.14, 0.14), (0.72, 0.84), _RUBBER, reflectivity=0.1),
            bar((axle, 0.0, radius), (0.30 * length, 0.0, bare - 0.04), 0.12, 0.12, _STEEL),
            block((axle - 0.15, axle - 0.05), (-0.1, 0.1), (0.72, 0.9), _HEADLAMP, texture=Texture.LAMP),
        ]
    else:
        parts += [
            bar((-axle, 0.0, radius), (0.26 * length, 0.0, 0.78), 0.05, 0.05, paint, reflectivity=0.4),
            bar((-0.12 * length, 0.0, 0.75), (0.28 * length, 0.0, 0.80), 0.05, 0.05, paint, reflectivity=0.4),
            bar((0.02, 0.0, 0.30), (-0.12 * length, 0.0, 0.92), 0.05, 0.05, paint, reflectivity=0.4),
            bar((axle, 0.0, radius), (0.28 * length, 0.0, bare - 0.04), 0.05, 0.05, paint, reflectivity=0.4),
            block((-0.20 * length, -0.05 * length), (-0.08, 0.08), (0.90, 0.96), _RUBBER),
        ]
    parts.append(handlebar)
    if rider:
        cloth, trousers, skin = _pick(rng, _CLOTHES), _pick(rng, _CLOTHES), _pick(rng, _SKINS)
        helmet = _pick(rng, _PAINTS)
        hip = (-0.13 * length, 0.0, 0.92)
        neck = (0.06 * length, 0.0, height - 0.27)
        parts += [
            bar(hip, neck, 0.38, 0.22, cloth, texture=Texture.ROUGH),
            ball((0.09 * length, 0.0, height - 0.13), (0.14, 0.12, 0.13), helmet),
            prism(2, (0.09 * length, 0.0), (height - 0.28, height - 0.2), 0.08, skin),
        ]
        for side in (-1, 1):
            parts.append(
                bar((-0.10 * length, side * 0.14, 0.90), (0.08 * length, side * 0.16, 0.42), 0.12, 0.13, trousers)
            )
            parts.append(
                bar(
                    (0.04 * length, side * 0.19, height - 0.36),
                    (0.29 * length, side * 0.24, bare - 0.02),
                    0.08,
                    0.08,
                    cloth,
                )
            )
    return Solids.stack(parts)


_SHAPES: Final[dict[str, tuple[str, Callable[[tuple[float, float, float], np.random.Generator], Solids]]]] = {
    "car": ("vehicle.car", _car),
    "truck": ("vehicle.truck", _truck),
    "construction_vehicle": ("vehicle.construction", _excavator),
    "bus": ("vehicle.bus.rigid", _bus),
    "trailer": ("vehicle.trailer", _trailer),
    "barrier": ("movable_object.barrier", _barrier),
    "traffic_cone": ("movable_object.trafficcone", _cone),
}
