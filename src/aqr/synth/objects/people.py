"""Bodies of pedestrians."""

from __future__ import annotations

import numpy as np

from aqr.synth.objects.paint import CLOTHES, SKINS, pick
from aqr.synth.solids import Solids, Texture, ball, bar, block, prism


def pedestrian(size: tuple[float, float, float], rng: np.random.Generator, worker: bool) -> Solids:
    """A standing or walking body, the longer the wider its stride.

    Args:
        size: length, width, height in metres.
        rng: source of colours.
        worker: in signal clothes.
    """
    length, width, height = size
    stride = max(length - 0.2, 0.1)
    cloth = (0.85, 0.35, 0.02) if worker else pick(rng, CLOTHES)
    trousers = (0.05, 0.06, 0.10) if worker else pick(rng, CLOTHES)
    skin = pick(rng, SKINS)
    hair = (0.8, 0.6, 0.02) if worker else pick(rng, ((0.02, 0.015, 0.01), (0.10, 0.05, 0.02)))
    leg = 0.47 * height
    half, limb = width / 2, min(0.13, length * 0.3)
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
    return Solids.stack(parts)
