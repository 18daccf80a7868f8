"""Tracks: where something is over time, and how vehicles come by theirs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]

STEP: Final = 0.05
"""Seconds between track samples."""


@dataclass(frozen=True)
class Track:
    """Positions over time.

    Attributes:
        start: time of the first sample, seconds.
        samples: [T, 4] x, y, z (m) of the bottom centre and yaw (radians, continuous), one every `STEP` seconds.
    """

    start: float
    samples: Floats

    def at(self, seconds: float) -> Floats:
        """[4] x, y, z, yaw, interpolated, held at the ends."""
        position = np.clip((seconds - self.start) / STEP, 0.0, len(self.samples) - 1.0)
        low = min(int(position), len(self.samples) - 2)
        share = position - low
        return np.asarray((1 - share) * self.samples[low] + share * self.samples[low + 1])

    def speed(self, seconds: float) -> float:
        """m/s, over a tenth of a second."""
        return float(np.linalg.norm(self.at(seconds + STEP)[:2] - self.at(seconds - STEP)[:2]) / (2 * STEP))


def straight(start: Floats) -> Floats:
    """Way points [N, 2] (m) every 10 cm along +x, from 30 m behind the start; distance 0 is the start."""
    x = np.arange(-30.0, 400.0, 0.1)
    return np.stack([start[0] + x, start[1] + 0.15 * np.sin(x / 11.0)], axis=1)


def turning(start: Floats, crossing: float, lane: float, side: int) -> Floats:
    """Way points [N, 2] (m) along +x, then by a quarter circle into a lane of the crossing street.

    Args:
        start: [2] x, y, metres.
        crossing: x of the middle of the crossing street, metres.
        lane: x of the lane's middle from there, metres.
        side: +1 to the left, -1 to the right.
    """
    radius = 6.5 if side < 0 else 9.5
    x_end = crossing + lane
    x_in = x_end - radius
    x = np.arange(-30.0, x_in, 0.1)
    enter = np.stack([x, np.full_like(x, start[1])], axis=1)
    angle = np.arange(0.0, np.pi / 2, 0.1 / radius)
    arc = np.stack([x_in + radius * np.sin(angle), start[1] + side * radius * (1 - np.cos(angle))], axis=1)
    leave = np.arange(0.0, 300.0, 0.1)
    out = np.stack([np.full_like(leave, x_end), start[1] + side * (radius + leave)], axis=1)
    return np.concatenate([enter, arc, out])


def drive(route: Floats, travelled: Floats) -> Floats:
    """[T, 4] x, y, z (m) and yaw at [T] distances (m) along way points; the one 30 m in stands at distance 0."""
    step = np.linalg.norm(np.diff(route, axis=0), axis=1)
    distance = np.concatenate([[0.0], np.cumsum(step)]) - 30.0
    x, y = (np.interp(travelled, distance, route[:, i]) for i in (0, 1))
    ahead = [
        np.interp(travelled + 0.8, distance, route[:, i]) - np.interp(travelled - 0.8, distance, route[:, i])
        for i in (0, 1)
    ]
    return np.stack([x, y, np.zeros_like(x), np.unwrap(np.arctan2(ahead[1], ahead[0]))], axis=1)


def cruise(times: Floats, speed: float, rng: np.random.Generator) -> Floats:
    """[T] metres driven at [T] times (s), at a speed (m/s) that swings by up to a fifth; 0 at time 0."""
    phase, period = float(rng.uniform(0, 6.28)), float(rng.uniform(5.0, 9.0))
    swing = 0.2 * speed * period / 6.28
    return np.asarray(speed * times + swing * (np.sin(6.28 * times / period + phase) - np.sin(phase)))


def brake(times: Floats, speed: float, stop: float) -> Floats:
    """[T] metres driven at [T] times (s), from `speed` (m/s) braking evenly to a halt after `stop` metres."""
    stop = max(stop, 2.0)
    slowing = speed * speed / 2 / 2.2
    if stop <= slowing:
        speed = float(np.sqrt(2 * 2.2 * stop))
        slowing = stop
    begin = (stop - slowing) / speed
    late = np.clip(times - begin, 0.0, speed / 2.2)
    return np.asarray(np.minimum(times, begin) * speed + late * speed - 1.1 * late * late)
