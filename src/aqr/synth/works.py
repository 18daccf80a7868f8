"""Road works and the yard beside the street."""

from __future__ import annotations

import numpy as np

from aqr.synth.layout import Layout
from aqr.synth.objects import build
from aqr.synth.population import Population


def work_site(town: Population) -> None:
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


def small_works(town: Population) -> None:
    """Short rows of barriers and cones farther along, on the parking strip or the pavement."""
    layout, rng = town.layout, town.rng
    for _ in range(int(rng.integers(1, 4))):
        x = float(rng.uniform(-40.0, town.travelled[-1] + 50.0))
        side = int(rng.choice([-1, 1]))
        row = row_of_barriers(layout, side, rng)
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


def row_of_barriers(layout: Layout, side: int, rng: np.random.Generator) -> float:
    """y (m) of a row of barriers, or of what looks like them, `side` = +1 to the left of the street."""
    if layout.parking and rng.random() < 0.6:
        return layout.parking_y(side)
    return side * (layout.half + float(rng.uniform(1.5, 2.2)))


def yard(town: Population) -> None:
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
