"""Draws scenes until one shows all ten classes to the LiDAR, so that every split can be scored in all of them."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from aqr.geometry import points_in_boxes
from aqr.synth.lidar import sweep
from aqr.synth.rig import LIDAR_TO_EGO
from aqr.synth.stage import KEYFRAME_S, Moment, Stage, build_stage
from aqr.taxonomy import CLASS_RANGE

Floats = npt.NDArray[np.floating]

_ATTEMPTS: Final = 50
_ENOUGH: Final = 4
"""Echoes that make an object count as seen here; sensor noise differs in the recording."""


def draw_scene(seed: tuple[int, ...], keyframes: int, weather: tuple[str, ...] = ()) -> Stage:
    """The first of the scenes of a seed in which every class has echoes within its scoring range.

    Args:
        seed: the scene's own numbers.
        keyframes: length of the scene.
        weather: kinds of weather that it may have; all if empty.

    Raises:
        RuntimeError: if 50 scenes in a row lack a class.
    """
    for attempt in range(_ATTEMPTS):
        stage = build_stage((*seed, attempt), keyframes, weather)
        if not _unseen(stage, keyframes):
            return stage
    raise RuntimeError(f"no scene of seed {seed} shows all classes")


def lidar_boxes(stage: Stage, moment: Moment, seconds: float) -> Floats:
    """Boxes of all actors, [N, 7] in the LiDAR frame, yaw not wrapped."""
    lidar = stage.ego(seconds) @ LIDAR_TO_EGO
    sizes = np.array([actor.model.size for actor in stage.traffic.actors])
    centres = moment.poses[:, :3] + np.array([0, 0, 0.5]) * sizes[:, 2:]
    return np.column_stack([lidar.inverse().apply(centres), sizes, moment.poses[:, 3] - lidar.yaw])


def _unseen(stage: Stage, keyframes: int) -> set[str]:
    """Classes that no keyframe's sweep shows within their scoring range."""
    missing = set(CLASS_RANGE)
    names = np.array([actor.name for actor in stage.traffic.actors])
    reach = np.array([CLASS_RANGE[name] for name in names])
    order = sorted(range(keyframes), key=lambda k: (k % 4 != 0, k))
    for k in order:
        seconds = k * KEYFRAME_S
        moment, ego = stage.at(seconds), stage.ego(seconds)
        near = np.linalg.norm(moment.poses[:, :2] - ego.translation[:2], axis=1) < reach - 1.0
        wanted = np.flatnonzero(near & np.isin(names, list(missing)))
        if len(wanted):
            points = sweep(stage, moment, ego @ LIDAR_TO_EGO, np.random.default_rng(0))
            counts = points_in_boxes(points, lidar_boxes(stage, moment, seconds)[wanted]).sum(axis=1)
            missing -= set(names[wanted[counts >= _ENOUGH]].tolist())
        if not missing:
            break
    return missing
