"""What moves and stands in a street, placed one by one without ever touching."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from aqr.synth.footprints import Footprints, footprint
from aqr.synth.layout import KERB, Layout
from aqr.synth.objects import Model
from aqr.synth.tracks import STEP, Track, brake, cruise, drive, straight, turning

Floats = npt.NDArray[np.floating]

Plan = Literal["cruise", "stop", "turn"]

MARGIN: Final = 0.3
"""Free space kept around every box, metres."""

CHECKS: Final = slice(None, None, 5)
"""Track samples at which boxes are kept apart."""

_EGO_SIZE: Final = (4.9, 2.0)
_EGO_MIDDLE: Final = 1.4
"""Middle of the ego vehicle ahead of its rear axle, metres."""


@dataclass(frozen=True)
class Actor:
    """An annotated object.

    Attributes:
        name: class, one of the ten.
        model: its body.
        track: where it is.
        rest: attribute while it stands still; empty for classes without attributes.
        motion: attribute while it moves.
    """

    name: str
    model: Model
    track: Track
    rest: str
    motion: str

    def attribute(self, seconds: float) -> str:
        """Which attribute applies at a time; faster than 0.2 m/s is motion."""
        return self.motion if self.track.speed(seconds) > 0.2 else self.rest


@dataclass(frozen=True)
class Traffic:
    """A populated street.

    Attributes:
        ego: where the ego vehicle's rear axle is, on the ground.
        actors: all annotated objects.
        plan: what the ego vehicle does.
    """

    ego: Track
    actors: tuple[Actor, ...]
    plan: Plan


class Population:
    """Actors placed so far, with their footprints over time."""

    def __init__(self, layout: Layout, duration: float, rng: np.random.Generator) -> None:
        self.layout = layout
        self.rng = rng
        self.times = np.arange(-1.0, duration + 1.0 + STEP, STEP)
        self.ground = Footprints()
        self.actors: list[Actor] = []
        self.ahead = next(c for c in layout.crossings if c > layout.crossing_half + 11.0)
        self.plan = _draw_plan(rng)
        speed = float(rng.uniform(4.0, 10.0))
        self.ego_lane = int(rng.integers(layout.lanes))
        start = np.array([0.0, layout.lane_y(1, self.ego_lane)])
        self.oncoming = cruise(self.times, float(rng.uniform(4.0, 11.0)), rng)
        if self.plan == "stop":
            self.travelled = brake(self.times, speed, self.ahead - layout.crossing_half - 8.3)
            self.oncoming = brake(self.times, speed, float(rng.uniform(5, 20)))
            route = straight(start)
        elif self.plan == "turn":
            self.travelled = brake(self.times, float(rng.uniform(3.5, 5.5)), self.ahead + 40.0)
            side = -1 if self.ego_lane == layout.lanes - 1 and rng.random() < 0.6 else 1
            route = turning(start, self.ahead, side * layout.crossing_half / 2, side)
        else:
            self.travelled = cruise(self.times, speed, rng)
            route = straight(start)
        self.ego = Track(-1.0, drive(route, self.travelled))
        self.ground.take(ego_footprint(self.ego.samples))

    def nearest(self, actor: Actor) -> float:
        """Least distance to the ego vehicle at any time, metres."""
        gap = actor.track.samples[:, :2] - self.ego.samples[:, :2]
        return float(np.linalg.norm(gap[20:-20], axis=1).min())

    def add(self, name: str, model: Model, samples: Floats, rest: str, motion: str) -> bool:
        """Add an actor unless it would touch another one at any time."""
        if not self.ground.free(footprint(samples[CHECKS], model.size[0] + MARGIN, model.size[1] + MARGIN)):
            return False
        self.ground.take(footprint(samples[CHECKS], *model.size[:2]))
        self.actors.append(Actor(name, model, Track(-1.0, samples), rest, motion))
        return True

    def still(self, x: float, y: float, yaw: float) -> Floats:
        """[T, 4] track samples of what stands on the ground at x, y (m), turned by yaw (radians)."""
        return np.tile(np.array([x, y, self.layout.level(x, y), yaw]), (len(self.times), 1))

    def driving(self, direction: int, lane: int, gap: float) -> Floats:
        """In a lane, `gap` metres ahead of the ego vehicle's start along +x."""
        travelled = self.travelled if direction > 0 else self.oncoming
        x = gap + direction * travelled
        y = np.full_like(x, self.layout.lane_y(direction, lane) + float(self.rng.normal(0, 0.12)))
        return np.stack([x, y, np.zeros_like(x), np.full_like(x, 0.0 if direction > 0 else np.pi)], axis=1)

    def walking(self, x: float, y: float, heading: float, speed: float) -> Floats:
        """At constant speed, down the kerb where a street is crossed."""
        progress = self.times * speed
        xs, ys = x + np.cos(heading) * progress, y + np.sin(heading) * progress
        on_road = np.abs(ys) < self.layout.half
        for c in self.layout.crossings:
            on_road |= np.abs(xs - c) < self.layout.crossing_half
        return np.stack([xs, ys, np.where(on_road, 0.0, KERB), np.full_like(progress, heading)], axis=1)


def ego_footprint(samples: Floats) -> Floats:
    """[T, 4, 2] corners of the ego vehicle at the checked ones of [., 4] track samples of its rear axle."""
    middle = samples[CHECKS].copy()
    middle[:, 0] += _EGO_MIDDLE * np.cos(middle[:, 3])
    middle[:, 1] += _EGO_MIDDLE * np.sin(middle[:, 3])
    return footprint(middle, *_EGO_SIZE)


def _draw_plan(rng: np.random.Generator) -> Plan:
    choice = float(rng.random())
    if choice < 0.5:
        return "cruise"
    return "stop" if choice < 0.75 else "turn"
