"""A scene put together: street, traffic and weather, and every solid of it at a moment in time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from aqr.geometry import Pose, quaternion_from_yaw
from aqr.synth.ground import GROUND_CELL, Ground
from aqr.synth.layout import Layout, draw_layout
from aqr.synth.lookalikes import LookAlike, place_lookalikes
from aqr.synth.population import Actor, Traffic
from aqr.synth.solids import Solids
from aqr.synth.street import Street, build_street
from aqr.synth.tracks import Track
from aqr.synth.traffic import populate
from aqr.synth.weather import Weather, draw_weather

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]

KEYFRAME_S: Final = 0.5

_FLIP: Final = np.array([1.0, -1.0, 1.0, -1.0])
"""Mirrors x, y, z, yaw."""


@dataclass(frozen=True)
class Moment:
    """All solids at one time, street frame.

    Attributes:
        solids: K solids, scenery first.
        owners: [K] index of the actor, -1 for the scenery.
        frames: [K, 4] x, y, z (m), yaw of the frame that textures are drawn in.
        poses: [N, 4] x, y, z of the bottom centre and yaw of each actor.
    """

    solids: Solids
    owners: Ints
    frames: Floats
    poses: Floats


@dataclass(frozen=True)
class Stage:
    """One scene.

    Attributes:
        street: the place.
        traffic: ego vehicle and actors.
        weather: light and weather.
        lookalikes: what only cameras tell from annotated objects; scenery like the street's own.
        left_hand: traffic keeps to the left.
        to_global: pose of the street frame in the map.
    """

    street: Street
    traffic: Traffic
    weather: Weather
    lookalikes: tuple[LookAlike, ...]
    left_hand: bool
    to_global: Pose

    def ego(self, seconds: float) -> Pose:
        """Pose of the ego vehicle (rear axle, on the ground) in the street frame."""
        x, y, z, yaw = self.traffic.ego.at(seconds)
        return Pose.from_quaternion(quaternion_from_yaw(float(yaw)), [x, y, z])

    @cached_property
    def scenery(self) -> Solids:
        """All that is not annotated, street frame."""
        return Solids.stack([self.street.scenery, *(thing.placed() for thing in self.lookalikes)])

    @cached_property
    def _cast(self) -> tuple[Solids, Ints]:
        """Solids of all actors, each in its own frame, and whose they are."""
        actors = self.traffic.actors
        owners = np.repeat(np.arange(len(actors)), [len(a.model.solids) for a in actors])
        return Solids.stack([a.model.solids for a in actors]), owners

    def at(self, seconds: float) -> Moment:
        local, owners = self._cast
        poses = np.array([a.track.at(seconds) for a in self.traffic.actors]).reshape(-1, 4)
        frames = poses[owners]
        cos, sin = np.cos(frames[:, 3]), np.sin(frames[:, 3])
        turn = np.zeros((len(owners), 3, 3))
        turn[:, 0, 0], turn[:, 0, 1], turn[:, 1, 0], turn[:, 1, 1], turn[:, 2, 2] = cos, -sin, sin, cos, 1.0
        normals = np.einsum("kij,kfj->kfi", turn, local.normals)
        moved = replace(
            local,
            normals=normals,
            offsets=local.offsets + np.einsum("kfi,ki->kf", normals, frames[:, :3]),
            corners=np.einsum("kij,kcj->kci", turn, local.corners) + frames[:, None, :3],
        )
        scenery = self.scenery
        return Moment(
            Solids.stack([scenery, moved]),
            np.concatenate([np.full(len(scenery), -1), owners]),
            np.concatenate([np.zeros((len(scenery), 4)), frames]),
            poses,
        )


def build_stage(seed: tuple[int, ...], keyframes: int, kinds: tuple[str, ...] = ()) -> Stage:
    """Draw a scene; the same seed and length give the same scene. `kinds` of weather are allowed, all if empty."""
    sequence = np.random.SeedSequence(seed)
    rng = np.random.default_rng(sequence)
    duration = (keyframes - 1) * KEYFRAME_S
    layout = draw_layout(rng, 11.0 * duration)
    street = build_street(layout, rng)
    traffic = populate(layout, duration, rng)
    lookalikes = place_lookalikes(street, traffic, np.random.default_rng(sequence.spawn(1)[0]))
    weather = draw_weather(rng)
    while kinds and weather.words not in kinds:
        weather = draw_weather(rng)
    left_hand = bool(rng.random() < 0.5)
    if left_hand:
        street, traffic = _mirror_street(street), _mirror_traffic(traffic)
        lookalikes = tuple(replace(thing, pose=thing.pose * _FLIP) for thing in lookalikes)
    placement = _placement(layout, float(rng.uniform(-np.pi, np.pi)))
    return Stage(street, traffic, weather, lookalikes, left_hand, placement)


def _placement(layout: Layout, yaw: float) -> Pose:
    """Turns the street and moves it to positive coordinates, where the map image lies."""
    turn = Pose.from_quaternion(quaternion_from_yaw(yaw), [0.0, 0.0, 0.0])
    ends = np.array([[x, y, 0.0] for x in (layout.span[0] - 20, layout.span[1] + 20) for y in (-75.0, 75.0)])
    return replace(turn, translation=np.append(20.0 - turn.apply(ends)[:, :2].min(axis=0), 0.0))


def _mirror_street(street: Street) -> Street:
    flip = np.array([1.0, -1.0, 1.0])
    scenery = replace(street.scenery, normals=street.scenery.normals * flip, corners=street.scenery.corners * flip)
    ground = street.ground
    top = ground.origin[1] + GROUND_CELL * ground.levels[0].shape[0]
    mirrored = Ground(
        (ground.origin[0], -top), tuple(np.ascontiguousarray(level[::-1]) for level in ground.levels), ground.road[::-1]
    )
    return replace(street, scenery=scenery, ground=mirrored)


def _mirror_traffic(traffic: Traffic) -> Traffic:
    def mirror(track: Track) -> Track:
        return replace(track, samples=track.samples * _FLIP)

    actors: tuple[Actor, ...] = tuple(replace(a, track=mirror(a.track)) for a in traffic.actors)
    return replace(traffic, ego=mirror(traffic.ego), actors=actors)
