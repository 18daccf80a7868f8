"""What moves and stands in the street: the ego vehicle and everything that is annotated.

Tracks are sampled 20 times per second. Vehicles of one lane share one speed profile, so they cannot run into each
other; every new actor is checked against all others over the whole scene and redrawn where their boxes overlap.
"""

from __future__ import annotations

import numpy as np

from aqr.synth.layout import Layout
from aqr.synth.objects import build
from aqr.synth.population import Population, Traffic
from aqr.synth.works import small_works, work_site, yard
from aqr.taxonomy import CLASS_RANGE


def populate(layout: Layout, duration: float, rng: np.random.Generator) -> Traffic:
    """Fill a street for `duration` seconds; every class appears close to the ego vehicle's path."""
    town = Population(layout, duration, rng)
    work_site(town)
    small_works(town)
    yard(town)
    _lanes(town)
    _crossing_traffic(town)
    _parked(town)
    _pavement(town)
    _complete(town)
    return Traffic(town.ego, tuple(town.actors), town.plan)


def _lanes(town: Population) -> None:
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


def _crossing_traffic(town: Population) -> None:
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


def _parked(town: Population) -> None:
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


def _pavement(town: Population) -> None:
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


def _complete(town: Population) -> None:
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
