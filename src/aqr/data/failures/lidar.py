"""LiDAR failures.

Except for `hide_objects`, they act on one sweep as the sensor delivered it, [P, 5] x right, y forward, z up (m, frame
of that sweep), intensity (0 … 255), ring index: a failing sensor fails in each of the sweeps that are added up. The
same draws serve every severity, so what one severity takes away the next takes as well.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from aqr.geometry import CENTER, VELOCITY, X, Y, Z, points_in_boxes

Points = npt.NDArray[np.float32]

INTENSITY: Final = 3
RING: Final = 4
LAG: Final = 4

HDL32E_LOWEST: Final = -30.67
HDL32E_STEP: Final = 4 / 3
HDL32E_BEAMS: Final = 32
"""Elevation of nuScenes' beams, degrees, for data without ring indices, and their number."""


def beams_of(points: Points) -> tuple[npt.NDArray[np.int64], int]:
    """The beam of each point, lowest first, and the number of beams.

    The stored ring index where there is one; where all are equal or not whole, the nearest of the HDL-32E's elevations.
    A sweep in which the topmost beams have no return tells nothing of them: there are 32 at least.

    Returns:
        [P] index and the count.
    """
    ring = points[:, RING]
    if len(ring) and ring.min() >= 0 and ring.max() > ring.min() and (ring == np.floor(ring)).all():
        return ring.astype(np.int64), max(int(ring.max()) + 1, HDL32E_BEAMS)
    elevation = np.degrees(np.arctan2(points[:, Z], np.hypot(points[:, X], points[:, Y])))
    nearest = np.round((elevation - HDL32E_LOWEST) / HDL32E_STEP)
    return nearest.clip(0, HDL32E_BEAMS - 1).astype(np.int64), HDL32E_BEAMS


def keep_beams(points: Points, count: int) -> Points:
    """Only `count` evenly spaced beams: of 32, rings 1, 3, 5 … or 1, 5, 9 … or 1, 9, 17, 25 as in MultiCorrupt."""
    beam, beams = beams_of(points)
    kept = np.arange(count) * beams // count + beams // HDL32E_BEAMS
    return points[np.isin(beam, kept)] if count < beams else points


def limit_view(points: Points, degrees: float) -> Points:
    """Only points at most `degrees` to the left or right of straight ahead (nuScenes-R)."""
    return points[np.abs(np.degrees(np.arctan2(points[:, X], points[:, Y]))) <= degrees]


def thin_out(points: Points, share: float, random: np.random.Generator) -> Points:
    """A share of the points lost at random, the rest in order (MultiCorrupt)."""
    kept = random.permutation(len(points))[: round(len(points) * (1 - share))]
    return points[np.sort(kept)]


MAX_RANGE: Final = 100.0
MAX_RANGE_REFLECTIVITY: Final = 0.9
"""Metres at which a target of that reflectivity is just detected (LISA, arXiv 2107.07004)."""
PULSE_DEPTH: Final = 3.0
"""Depth (m) of fog that a 20 ns pulse lights at a time (Hahner)."""
RETRO: Final = 100.0
"""Velodyne intensities up to 100 are diffuse reflectivity in per cent."""


def add_fog(points: Points, extinction: float, random: np.random.Generator) -> Points:
    """Homogeneous fog: returns grow faint and are lost, and the fog itself answers from close by.

    The power of a target of reflectivity ρ at range r goes with ρ/r² · exp(−2αr) (Hahner). It is detected for
    certain above the threshold 0.9/100² (LISA), and with a chance in proportion to its power below, where a point
    that was recorded without fog counts as having reached the threshold: the chance falls by exp(−2αr) at most. Fog
    lit by a pulse of depth L answers like a target of reflectivity πβL, with backscatter β = 0.046 α / ln 20
    (Hahner), up to the range R where that falls below the threshold. A lost return becomes such an echo
    where its light was scattered before R, which has the chance 1 − exp(−2αR); echoes lie at 1 … R metres, denser
    where they are stronger.

    Args:
        points: [P, 5].
        extinction: α, 1/m; meteorological visibility is ln 20/α.
        random: source of the draws.

    Returns:
        [P', 5], P' <= P: survivors with fainter intensity and echoes on the rays of lost points.
    """
    chance, pick, place = random.random((3, len(points)))
    distance = np.linalg.norm(points[:, :3].astype(np.float64), axis=1).clip(min=0.1)
    fading = np.exp(-2 * extinction * distance)
    threshold = MAX_RANGE_REFLECTIVITY / MAX_RANGE**2
    margin = points[:, INTENSITY].clip(min=1.0) / RETRO / distance**2 / threshold
    survives = chance < fading * margin.clip(min=1.0)

    grid = np.arange(1.0, 20.0, 0.01)
    power = np.pi * 0.046 * extinction / np.log(20) * PULSE_DEPTH * np.exp(-2 * extinction * grid) / grid**2
    reach = float(grid[power >= threshold].max(initial=grid[0]))
    density = np.where(grid <= reach, power, 0.0).cumsum()
    echo_at = np.interp(place, density / density[-1], grid)
    echoes = ~survives & (pick < 1 - np.exp(-2 * extinction * reach)) & (echo_at < distance)

    foggy = points.copy()
    foggy[:, INTENSITY] = np.round(points[:, INTENSITY] * fading)
    foggy[echoes, :3] *= (echo_at / distance)[echoes, None].astype(np.float32)
    foggy[echoes, INTENSITY] = 1.0
    return np.asarray(foggy[survives | echoes], dtype=np.float32)


def hide_objects(points: Points, boxes: npt.NDArray[np.float32], chance: float, random: np.random.Generator) -> Points:
    """Some objects return no points (nuScenes-R, "object failure": each with a chance of its own).

    Points of an earlier sweep are looked for where the object was then, going by its velocity.

    Args:
        points: [P, 5] all sweeps in the keyframe's LiDAR frame, time lag (s) in the last column.
        boxes: [N, 9] every object, keyframe's LiDAR frame; NaN velocity counts as standing still.
        chance: of an object to be hidden.
        random: source of the draws.
    """
    hidden = boxes[random.random(len(boxes)) < chance].astype(np.float64)
    gone = np.zeros(len(points), dtype=bool)
    for lag in np.unique(points[:, LAG]):
        then = hidden.copy()
        then[:, CENTER][:, :2] -= np.nan_to_num(hidden[:, VELOCITY]) * float(lag)
        rows = np.flatnonzero(points[:, LAG] == lag)
        gone[rows] = points_in_boxes(points[rows], then).any(axis=0)
    return points[~gone]
