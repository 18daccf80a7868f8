"""Light and weather of a scene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]


KINDS: Final = {
    "Clear day": 0.4,
    "Cloudy day": 0.2,
    "Day, rain": 0.13,
    "Night": 0.14,
    "Night, after rain": 0.05,
    "Day, fog": 0.08,
}
"""Kinds of weather and how often they occur."""


@dataclass(frozen=True)
class Weather:
    """What light falls on the scene and what hangs in the air.

    Attributes:
        words: for the scene description: time of day and weather.
        sun_direction: [3] unit vector towards the sun (or moon), street frame.
        sun: [3] linear RGB of direct light; 0 under a closed sky.
        ambient: [3] linear RGB of light from the sky.
        zenith: [3] linear RGB of the sky overhead.
        horizon: [3] linear RGB of the sky at the horizon, and of fog.
        extinction: of light, 1/m.
        lidar_extinction: 1/m, one way.
        wet: 0 … 1, mirrors and darkens the ground, and stains the lenses.
        night: lamps are lit.
        exposure: factor before the image is stored.
        noise: standard deviation of sensor noise, 0 … 1 of full scale.
    """

    words: str
    sun_direction: Floats
    sun: Floats
    ambient: Floats
    zenith: Floats
    horizon: Floats
    extinction: float
    lidar_extinction: float
    wet: float
    night: bool
    exposure: float
    noise: float

    @property
    def drops(self) -> bool:
        """Whether there are rain drops on the lenses."""
        return self.words == "Day, rain"


def draw_weather(rng: np.random.Generator) -> Weather:
    """Six in ten scenes are clear or cloudy days; the others night, rain, rain at night or fog."""
    kind = str(
        rng.choice(
            list(KINDS),
            p=list(KINDS.values()),
        )
    )
    azimuth, height = float(rng.uniform(-np.pi, np.pi)), float(np.radians(rng.uniform(25, 65)))
    direction = np.array([np.cos(azimuth) * np.cos(height), np.sin(azimuth) * np.cos(height), np.sin(height)])
    night, wet = kind.startswith("Night"), float("rain" in kind)
    sun, ambient = np.array([1.55, 1.42, 1.2]), np.array([0.42, 0.50, 0.62])
    zenith, horizon = np.array([0.16, 0.32, 0.70]), np.array([0.62, 0.72, 0.82])
    extinction, lidar_extinction, exposure, noise = 1 / 1500, 1e-4, 0.85, 0.010
    if kind == "Cloudy day":
        sun, ambient = np.zeros(3) + 0.12, np.array([0.92, 0.95, 1.0])
        zenith, horizon = np.array([0.55, 0.60, 0.66]), np.array([0.78, 0.80, 0.82])
        extinction = 1 / 700
    elif kind == "Day, rain":
        sun, ambient = np.zeros(3), np.array([0.74, 0.80, 0.88])
        zenith, horizon = np.array([0.42, 0.46, 0.52]), np.array([0.56, 0.60, 0.64])
        extinction, lidar_extinction, noise = 1 / 220, 0.006, 0.016
    elif kind == "Day, fog":
        sun, ambient = np.zeros(3), np.array([0.85, 0.87, 0.9])
        zenith, horizon = np.array([0.62, 0.64, 0.66]), np.array([0.66, 0.68, 0.70])
        extinction, lidar_extinction = 1 / float(rng.uniform(35, 60)), 0.020
    elif night:
        sun, ambient = np.zeros(3), np.array([0.018, 0.020, 0.030])
        zenith, horizon = np.array([0.004, 0.005, 0.010]), np.array([0.030, 0.026, 0.028])
        extinction, exposure, noise = 1 / 500, 2.6, 0.035
        lidar_extinction = 0.001 if wet else 1e-4
    exposure *= float(rng.uniform(0.85, 1.15))
    return Weather(
        kind, direction, sun, ambient, zenith, horizon, extinction, lidar_extinction, wet, night, exposure, noise
    )
