"""Bodies of bicycles and motorcycles, with or without a rider."""

from __future__ import annotations

import numpy as np

from aqr.synth.objects.paint import CLOTHES, HEADLAMP, PAINTS, RUBBER, SKINS, STEEL, pick
from aqr.synth.solids import Solids, Texture, ball, bar, block, prism


def two_wheeler(size: tuple[float, float, float], rng: np.random.Generator, rider: bool, heavy: bool) -> Solids:
    """A bicycle, or a motorcycle where `heavy`.

    Args:
        size: length, width, height in metres, the height of the rider's head where there is one.
        rng: source of colours.
        rider: somebody sits on it.
        heavy: a motorcycle.
    """
    length, width, height = size
    radius, tyre = (0.30, 0.13) if heavy else (0.33, 0.04)
    paint = pick(rng, PAINTS)
    bare = (1.15 if heavy else 1.05) if rider else height
    parts = [
        prism(
            1,
            (side * (length / 2 - radius), radius),
            (-tyre / 2, tyre / 2),
            radius * 0.966,
            RUBBER,
            sides=12,
            reflectivity=0.08,
        )
        for side in (-1, 1)
    ]
    axle = length / 2 - radius
    handlebar = block((0.30 * length - 0.05, 0.30 * length + 0.05), (-width / 2, width / 2), (bare - 0.08, bare), STEEL)
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
            block((-0.42 * length, 0.0), (-0.14, 0.14), (0.72, 0.84), RUBBER, reflectivity=0.1),
            bar((axle, 0.0, radius), (0.30 * length, 0.0, bare - 0.04), 0.12, 0.12, STEEL),
            block((axle - 0.15, axle - 0.05), (-0.1, 0.1), (0.72, 0.9), HEADLAMP, texture=Texture.LAMP),
        ]
    else:
        parts += [
            bar((-axle, 0.0, radius), (0.26 * length, 0.0, 0.78), 0.05, 0.05, paint, reflectivity=0.4),
            bar((-0.12 * length, 0.0, 0.75), (0.28 * length, 0.0, 0.80), 0.05, 0.05, paint, reflectivity=0.4),
            bar((0.02, 0.0, 0.30), (-0.12 * length, 0.0, 0.92), 0.05, 0.05, paint, reflectivity=0.4),
            bar((axle, 0.0, radius), (0.28 * length, 0.0, bare - 0.04), 0.05, 0.05, paint, reflectivity=0.4),
            block((-0.20 * length, -0.05 * length), (-0.08, 0.08), (0.90, 0.96), RUBBER),
        ]
    parts.append(handlebar)
    if rider:
        cloth, trousers, skin = pick(rng, CLOTHES), pick(rng, CLOTHES), pick(rng, SKINS)
        helmet = pick(rng, PAINTS)
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
