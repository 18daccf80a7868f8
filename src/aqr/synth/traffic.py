"""What moves and stands in the street: the ego vehicle and everything that is annotated.

Tracks are sampled 20 times per second. Vehicles of one lane share one speed profile, so they cannot run into each
other; every new actor is checked against all others over the whole scene and redrawn where their boxes overlap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from aqr.synth.objects import Model, build
from aqr.synth.street import KERB, Layout
from aqr.taxonomy import CLASS_RANGE

Floats = npt.NDArray[np.floating]

Plan = Literal["cruise", "stop", "turn"]

STEP: Final = 0.05
"""Seconds between track samples."""

_MARGIN: Final = 0.3
"""Free space kept around every box, metres."""

_EGO_SIZE: Final = (4.9, 2.0)
_EGO_MIDDLE: Final = 1.4
"""Middle of the ego vehicle ahead of its rear axle, metres."""


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


class _Population:
    """Actors placed so far, with their footprints over time."""

    def __init__(self, layout: Layout, duration: float, rng: np.random.Generator) -> None:
        self.layout = layout
        self.rng = rng
        self.times = np.arange(-1.0, duration + 1.0 + STEP, STEP)
        self.checks = slice(0, len(self.times), 5)
        self.footprints: list[Floats] = []
        self.actors: list[Actor] = []
        self.ahead = next(c for c in layout.crossings if c > layout.crossing_half + 11.0)
        self.plan = _draw_plan(rng)
        speed = float(rng.uniform(4.0, 10.0))
        self.ego_lane = int(rng.integers(layout.lanes))
        start = np.array([0.0, layout.lane_y(1, self.ego_lane)])
        self.oncoming = _cruise(self.times, float(rng.uniform(4.0, 11.0)), rng)
        if self.plan == "stop":
            self.travelled = _brake(self.times, speed, self.ahead - layout.crossing_half - 8.3)
            self.oncoming = _brake(self.times, speed, float(rng.uniform(5, 20)))
            route = _straight(start)
        elif self.plan == "turn":
            self.travelled = _brake(self.times, float(rng.uniform(3.5, 5.5)), self.ahead + 40.0)
            side = -1 if self.ego_lane == layout.lanes - 1 and rng.random() < 0.6 else 1
            route = _turning(start, self.ahead, side * layout.crossing_half / 2, side)
        else:
            self.travelled = _cruise(self.times, speed, rng)
            route = _straight(start)
        self.ego = Track(-1.0, _drive(route, self.travelled))
        middle = self.ego.samples.copy()
        middle[:, 0] += _EGO_MIDDLE * np.cos(middle[:, 3])
        middle[:, 1] += _EGO_MIDDLE * np.sin(middle[:, 3])
        self.footprints.append(_footprint(middle[self.checks], *_EGO_SIZE))

    def nearest(self, actor: Actor) -> float:
        """Least distance to the ego vehicle at any time, metres."""
        gap = actor.track.samples[:, :2] - self.ego.samples[:, :2]
        return float(np.linalg.norm(gap[20:-20], axis=1).min())

    def add(self, name: str, model: Model, samples: Floats, rest: str, motion: str) -> bool:
        """Add an actor unless it would touch another one at any time."""
        footprint = _footprint(samples[self.checks], model.size[0] + _MARGIN, model.size[1] + _MARGIN)
        if _touches(footprint, np.stack(self.footprints)):
            return False
        self.footprints.append(_footprint(samples[self.checks], *model.size[:2]))
        self.actors.append(Actor(name, model, Track(-1.0, samples), rest, motion))
        return True

    def still(self, x: float, y: float, yaw: float) -> Floats:
        on_road = abs(y) < self.layout.half or self.layout.on_crossing(x)
        return np.tile(np.array([x, y, 0.0 if on_road else KERB, yaw]), (len(self.times), 1))

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


def populate(layout: Layout, duration: float, rng: np.random.Generator) -> Traffic:
    """Fill a street for `duration` seconds; every class appears close to the ego vehicle's path."""
    town = _Population(layout, duration, rng)
    _work_site(town)
    _small_works(town)
    _yard(town)
    _lanes(town)
    _crossing_traffic(town)
    _parked(town)
    _pavement(town)
    _complete(town)
    return Traffic(town.ego, tuple(town.actors), town.plan)


def _draw_plan(rng: np.random.Generator) -> Plan:
    choice = float(rng.random())
    if choice < 0.5:
        return "cruise"
    return "stop" if choice < 0.75 else "turn"


def _straight(start: Floats) -> Floats:
    """Way points [N, 2] every 10 cm along +x, from 30 m behind the start; distance 0 is the start."""
    x = np.arange(-30.0, 400.0, 0.1)
    return np.stack([start[0] + x, start[1] + 0.15 * np.sin(x / 11.0)], axis=1)


def _turning(start: Floats, crossing: float, lane: float, side: int) -> Floats:
    """Way points along +x, then by a quarter circle into the crossing street's lane, `side` = +1 to the left."""
    radius = 6.5 if side < 0 else 9.5
    x_end = crossing + lane
    x_in = x_end - radius
    straight = np.stack([np.arange(-30.0, x_in, 0.1), np.full(len(np.arange(-30.0, x_in, 0.1)), start[1])], axis=1)
    angle = np.arange(0.0, np.pi / 2, 0.1 / radius)
    arc = np.stack([x_in + radius * np.sin(angle), start[1] + side * radius * (1 - np.cos(angle))], axis=1)
    leave = np.arange(0.0, 300.0, 0.1)
    out = np.stack([np.full_like(leave, x_end), start[1] + side * (radius + leave)], axis=1)
    return np.concatenate([straight, arc, out])


def _drive(route: Floats, travelled: Floats) -> Floats:
    """[T, 4] positions and heading at distances along way points; the one 30 m in stands at distance 0."""
    step = np.linalg.norm(np.diff(route, axis=0), axis=1)
    distance = np.concatenate([[0.0], np.cumsum(step)]) - 30.0
    x, y = (np.interp(travelled, distance, route[:, i]) for i in (0, 1))
    ahead = [
        np.interp(travelled + 0.8, distance, route[:, i]) - np.interp(travelled - 0.8, distance, route[:, i])
        for i in (0, 1)
    ]
    return np.stack([x, y, np.zeros_like(x), np.unwrap(np.arctan2(ahead[1], ahead[0]))], axis=1)


def _cruise(times: Floats, speed: float, rng: np.random.Generator) -> Floats:
    """Distance driven at a speed that swings by up to a fifth; 0 at time 0."""
    phase, period = float(rng.uniform(0, 6.28)), float(rng.uniform(5.0, 9.0))
    swing = 0.2 * speed * period / 6.28
    return np.asarray(speed * times + swing * (np.sin(6.28 * times / period + phase) - np.sin(phase)))


def _brake(times: Floats, speed: float, stop: float) -> Floats:
    """Distance driven when braking evenly to a halt after `stop` metres, from time 0 at the latest."""
    stop = max(stop, 2.0)
    slowing = speed * speed / 2 / 2.2
    if stop <= slowing:
        speed = float(np.sqrt(2 * 2.2 * stop))
        slowing = stop
    cruise = (stop - slowing) / speed
    late = np.clip(times - cruise, 0.0, speed / 2.2)
    return np.asarray(np.minimum(times, cruise) * speed + late * speed - 1.1 * late * late)


def _footprint(samples: Floats, length: float, width: float) -> Floats:
    """[T, 4, 2] corners seen from above."""
    cos, sin = np.cos(samples[:, 3, None]), np.sin(samples[:, 3, None])
    along = np.array([1, 1, -1, -1]) * length / 2
    across = np.array([1, -1, -1, 1]) * width / 2
    return np.stack(
        [samples[:, 0, None] + cos * along - sin * across, samples[:, 1, None] + sin * along + cos * across], axis=-1
    )


def _touches(one: Floats, others: Floats) -> bool:
    """Separating-axis test of [T, 4, 2] against [N, T, 4, 2]: does any pair overlap at any time?"""
    apart = np.zeros(others.shape[:2], dtype=bool)
    single = np.broadcast_to(one, others.shape)
    for quad in (single, others):
        for k in (0, 1):
            axis = quad[:, :, k + 1] - quad[:, :, k]
            a = np.einsum("ntci,nti->ntc", single, axis)
            b = np.einsum("ntci,nti->ntc", others, axis)
            apart |= (a.max(-1) < b.min(-1)) | (b.max(-1) < a.min(-1))
    return bool((~apart).any())


def _work_site(town: _Population) -> None:
    """An excavator behind a row of barriers and cones, with workers: the yard's half that is nearer to the start."""
    layout, rng = town.layout, town.rng
    side = layout.lot_side
    first = layout.lot[0] + 1.0
    near = layout.half + layout.walk
    for _ in range(30):
        x, y = first + float(rng.uniform(5.0, 11.0)), side * (near + float(rng.uniform(2.5, 6.0)))
        yaw = float(rng.uniform(-np.pi, np.pi))
        digger = build("construction_vehicle", rng)
        if town.add("construction_vehicle", digger, town.still(x, y, yaw), "vehicle.stopped", "vehicle.moving"):
            break
    row = side * (layout.half + layout.walk * 0.55)
    for k in range(int(rng.integers(4, 8))):
        model = build("barrier", rng)
        x = first + 1.5 + 2.75 * k
        jitter = float(rng.normal(0, 0.06))
        town.add("barrier", model, town.still(x, row, np.pi / 2 + jitter), "", "")
    for k in range(int(rng.integers(4, 8))):
        model = build("traffic_cone", rng)
        if rng.random() < 0.5:
            x, y = first + 2.0 * k, row - side * float(rng.uniform(0.7, 1.1))
        else:
            x, y = first + float(rng.uniform(-2, 14)), row + side * float(rng.uniform(0.6, 5.0))
        town.add("traffic_cone", model, town.still(x, y, float(rng.uniform(-3.1, 3.1))), "", "")
    for _ in range(int(rng.integers(1, 4))):
        model = build("pedestrian", rng, worker=True)
        x, y = first + float(rng.uniform(0, 16)), row + side * float(rng.uniform(0.8, 7.0))
        town.add(
            "pedestrian",
            model,
            town.still(x, y, float(rng.uniform(-3.1, 3.1))),
            "pedestrian.standing",
            "pedestrian.moving",
        )


def _small_works(town: _Population) -> None:
    """Short rows of barriers and cones farther along, on the parking strip or the pavement."""
    layout, rng = town.layout, town.rng
    for _ in range(int(rng.integers(1, 4))):
        x = float(rng.uniform(-40.0, town.travelled[-1] + 50.0))
        side = int(rng.choice([-1, 1]))
        if layout.parking and rng.random() < 0.6:
            row = layout.parking_y(side)
        else:
            row = side * (layout.half + float(rng.uniform(1.5, 2.2)))
        for k in range(int(rng.integers(2, 6))):
            if layout.on_crossing(x + 2.9 * k, 3.0):
                continue
            yaw = np.pi / 2 + float(rng.normal(0, 0.1))
            town.add("barrier", build("barrier", rng), town.still(x + 2.9 * k, row, yaw), "", "")
        for _ in range(int(rng.integers(1, 5))):
            place = x + float(rng.uniform(-4.0, 12.0))
            if not layout.on_crossing(place, 3.0):
                cone = town.still(place, row - side * float(rng.uniform(0.6, 1.0)), float(rng.uniform(-3.1, 3.1)))
                town.add("traffic_cone", build("traffic_cone", rng), cone, "", "")


def _yard(town: _Population) -> None:
    """Parked trailers and trucks in the yard's other half."""
    layout, rng = town.layout, town.rng
    side, near = layout.lot_side, layout.half + layout.walk
    placed = 0
    for k in range(60):
        name = "trailer" if placed == 0 else str(rng.choice(["trailer", "truck", "truck", "car"]))
        model = build(name, rng)
        yaw = float(rng.choice([0.0, np.pi])) if rng.random() < 0.5 else side * np.pi / 2
        x = float(rng.uniform(layout.lot[0] + 14, layout.lot[1] - 2))
        y = side * (near + float(rng.uniform(2.0, 14.0)))
        if town.add(
            name, model, town.still(x, y, yaw + float(rng.normal(0, 0.05))), "vehicle.parked", "vehicle.moving"
        ):
            placed += 1
        if placed >= 3 or (k > 30 and placed >= 1):
            return


def _lanes(town: _Population) -> None:
    """Moving traffic in both directions; a truck, a bus and a motorcycle are always among it."""
    layout, rng = town.layout, town.rng
    must = ["bus", "truck", "motorcycle", "car", "car"]
    rng.shuffle(must)
    places = []
    for direction in (1, -1):
        for lane in range(layout.lanes):
            x = float(rng.uniform(-50, -38))
            while x < town.travelled[-1] + 70:
                places.append((direction, lane, x))
                x += float(rng.uniform(13.0, 26.0))
    places = [p for p in places if not (p[0] == 1 and p[1] == town.ego_lane and -8 < p[2] < 10)]
    near = sorted(places, key=lambda p: abs(p[2] - 12) + (0 if p[0] > 0 else 10) + float(rng.uniform(0, 8)))
    for index, (direction, lane, x) in enumerate(near):
        if index < len(must):
            name = must[index]
        else:
            name = str(rng.choice(["car", "truck", "bus", "motorcycle"], p=[0.80, 0.11, 0.04, 0.05]))
            if rng.random() < 0.25:
                continue
        rider = name == "motorcycle"
        rest = "cycle.with_rider" if rider else "vehicle.stopped"
        motion = "cycle.with_rider" if rider else "vehicle.moving"
        for attempt in range(6):
            shift = float(rng.uniform(-3, 3)) if attempt else 0.0
            if town.add(name, build(name, rng, rider=rider), town.driving(direction, lane, x + shift), rest, motion):
                break


def _crossing_traffic(town: _Population) -> None:
    layout, rng = town.layout, town.rng
    for c in layout.crossings:
        for side in (-1, 1):
            x = c + side * layout.crossing_half / 2
            heading = -side * np.pi / 2
            for k in range(int(rng.integers(0, 3))):
                model = build(str(rng.choice(["car", "car", "car", "truck"])), rng)
                name = model.category.rsplit(".", 1)[1]
                y = side * (layout.half + 6.0 + 8.0 * k)
                samples = town.still(x, y, heading)
                if town.plan == "stop":
                    samples[:, 1] = side * (layout.half + 25.0 + 11.0 * k) - side * town.times * 7.0
                town.add(name, model, samples, "vehicle.stopped", "vehicle.moving")


def _parked(town: _Population) -> None:
    layout, rng = town.layout, town.rng
    if not layout.parking:
        return
    for side in (-1, 1):
        share = float(rng.uniform(0.25, 0.75))
        for x in np.arange(-48.0, town.travelled[-1] + 50.0, 6.6):
            place = float(x) + float(rng.normal(0, 0.3))
            if rng.random() > share or layout.on_crossing(place, 8.0):
                continue
            name = str(rng.choice(["car", "truck", "motorcycle"], p=[0.88, 0.06, 0.06]))
            rest = "cycle.without_rider" if name == "motorcycle" else "vehicle.parked"
            yaw = (0.0 if side < 0 else np.pi) + float(rng.normal(0, 0.03))
            if name == "motorcycle":
                yaw += side * float(rng.uniform(0.7, 1.4))
            model = build(name, rng)
            y = layout.parking_y(side) + float(rng.normal(0, 0.08))
            town.add(name, model, town.still(place, y, yaw), rest, rest)


def _pavement(town: _Population) -> None:
    """Pedestrians, cyclists and parked bicycles on both pavements."""
    layout, rng = town.layout, town.rng
    reach = float(town.travelled[-1])

    def spot(low: float, high: float) -> tuple[float, float, int]:
        side = int(rng.choice([-1, 1]))
        x = float(rng.uniform(-25.0, reach + 40.0))
        return x, side * (layout.half + float(rng.uniform(low, high))), side

    for k in range(int(rng.integers(3, 6))):
        rider = bool(k % 2)
        model = build("bicycle", rng, rider=rider)
        for _ in range(10):
            x, y, side = spot(1.3, 1.7) if rider else spot(layout.walk - 1.3, layout.walk - 1.1)
            x = float(rng.uniform(0.0, 24.0)) if k < 2 else x
            heading = 0.0 if side < 0 else np.pi
            if rider:
                samples = town.walking(x, y, heading, float(rng.uniform(2.5, 5.0)))
                attribute = "cycle.with_rider"
            else:
                samples = town.still(x, y, heading + float(rng.normal(0, 0.3)))
                attribute = "cycle.without_rider"
            if town.add("bicycle", model, samples, attribute, attribute):
                break
    for k in range(int(rng.integers(9, 18) + reach / 12)):
        model = build("pedestrian", rng)
        x, y, _ = spot(1.4, layout.walk - 1.0)
        x = float(rng.uniform(0.0, 26.0)) if k < 3 else x
        if rng.random() < 0.3:
            samples = town.still(x, y, float(rng.uniform(-np.pi, np.pi)))
        else:
            heading = float(rng.choice([0.0, np.pi])) + float(rng.normal(0, 0.04))
            samples = town.walking(x, y, heading, float(rng.uniform(0.8, 1.7)))
        town.add("pedestrian", model, samples, "pedestrian.standing", "pedestrian.moving")
    if town.plan == "stop":
        x = town.ahead - layout.crossing_half - 1.8
        for _ in range(int(rng.integers(1, 4))):
            side = int(rng.choice([-1, 1]))
            samples = town.walking(
                x + float(rng.normal(0, 0.4)),
                side * (layout.half - float(rng.uniform(0, 4))),
                -side * np.pi / 2,
                float(rng.uniform(0.9, 1.5)),
            )
            town.add("pedestrian", build("pedestrian", rng), samples, "pedestrian.standing", "pedestrian.moving")
    for c in layout.crossings:
        for _ in range(int(rng.integers(1, 5))):
            side, end = int(rng.choice([-1, 1])), int(rng.choice([-1, 1]))
            x = c + side * (layout.crossing_half + float(rng.uniform(0.5, 1.0)))
            y = end * (layout.half + layout.walk + float(rng.uniform(2.0, 30.0)))
            heading = float(rng.choice([-1, 1])) * np.pi / 2
            samples = town.walking(x, y, heading, float(rng.uniform(0.8, 1.7)))
            town.add("pedestrian", build("pedestrian", rng), samples, "pedestrian.standing", "pedestrian.moving")


def _complete(town: _Population) -> None:
    """Put one more of each class that is not near enough to be scored beside the ego vehicle's path."""
    layout, rng = town.layout, town.rng
    rest = {"motorcycle": "cycle.without_rider", "bicycle": "cycle.without_rider", "pedestrian": "pedestrian.standing"}
    for name, radius in CLASS_RANGE.items():
        if any(actor.name == name and town.nearest(actor) < 0.6 * radius for actor in town.actors):
            continue
        attribute = "" if name in ("barrier", "traffic_cone") else rest.get(name, "vehicle.parked")
        for _ in range(300):
            model = build(name, rng)
            x = float(town.ego.at(float(rng.uniform(0.0, town.times[-1])))[0])
            x += float(rng.uniform(-0.3, 0.5)) * radius
            if layout.on_crossing(x, 4.0):
                continue
            if max(model.size[:2]) < 2.8:
                y = float(rng.choice([-1, 1])) * (layout.half + float(rng.uniform(1.4, layout.walk - 1.0)))
            elif layout.lot[0] < x < layout.lot[1]:
                y = layout.lot_side * (layout.half + layout.walk + float(rng.uniform(2.0, 15.0)))
            else:
                continue
            samples = town.still(x, y, float(rng.choice([0.0, np.pi])) + float(rng.normal(0, 0.1)))
            if town.add(name, model, samples, attribute, attribute):
                break
