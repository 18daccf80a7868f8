"""Wheels and lamps of motor vehicles and trailers."""

from __future__ import annotations

from aqr.synth.objects.paint import HEADLAMP, RUBBER, TAILLAMP
from aqr.synth.solids import Solids, Texture, between, block, prism


def wheels(length: float, width: float, radius: float, along: list[float]) -> list[Solids]:
    """Pairs of wheels at positions given as shares of the length from the rear, flush with the sides."""
    wheels = []
    for share in along:
        x = (share - 0.5) * length
        for side in (-1, 1):
            flank = between(side * (width / 2 - 0.24), side * width / 2)
            wheels.append(prism(1, (x, radius), flank, radius * 0.966, RUBBER, sides=12, reflectivity=0.06))
    return wheels


def lamps(length: float, width: float, z: float, size: float = 0.14) -> list[Solids]:
    """Head and tail lamps on the end faces, inside the length."""
    parts = []
    for side in (-1, 1):
        span = between(side * width * 0.30, side * width * 0.46)
        front = (length / 2 - 0.06, length / 2)
        rear = (-length / 2, -length / 2 + 0.06)
        parts.append(block(front, span, (z, z + size), HEADLAMP, texture=Texture.LAMP, reflectivity=0.7))
        parts.append(block(rear, span, (z, z + size), TAILLAMP, texture=Texture.LAMP, reflectivity=0.8))
    return parts
