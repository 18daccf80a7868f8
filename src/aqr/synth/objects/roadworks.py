"""Bodies of barriers and traffic cones, of a given length, width and height in metres."""

from __future__ import annotations

import numpy as np

from aqr.synth.objects.paint import SIGNAL_ORANGE, STEEL, pick
from aqr.synth.solids import Solids, Texture, between, block, prism


def barrier(size: tuple[float, float, float], rng: np.random.Generator) -> Solids:
    """A solid one, or two boards on posts."""
    length, width, height = size
    if rng.random() < 0.6:
        orange = rng.random() < 0.6
        paint = SIGNAL_ORANGE if orange else (0.75, 0.75, 0.72)
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
                block((-length / 2, length / 2), between(s * width / 2, s * (width / 2 - 0.08)), (0.0, 0.05), STEEL)
                for s in (-1, 1)
            ),
            *(
                block((-0.05, 0.05), between(s * width / 2, s * (width / 2 - 0.08)), (0.0, height), STEEL)
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


def traffic_cone(size: tuple[float, float, float], rng: np.random.Generator) -> Solids:
    """An orange cone on a square foot."""
    length, width, height = size
    orange = pick(rng, (SIGNAL_ORANGE,))
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
