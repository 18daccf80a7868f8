"""One individual of a class: its size, its category and its body."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from aqr.synth.objects.people import pedestrian
from aqr.synth.objects.roadworks import barrier, traffic_cone
from aqr.synth.objects.sizes import SLACK, draw_size
from aqr.synth.objects.two_wheelers import two_wheeler
from aqr.synth.objects.vehicles import bus, car, excavator, trailer, truck
from aqr.synth.solids import Solids

_SHAPES: Final[dict[str, tuple[str, Callable[[tuple[float, float, float], np.random.Generator], Solids]]]] = {
    "car": ("vehicle.car", car),
    "truck": ("vehicle.truck", truck),
    "construction_vehicle": ("vehicle.construction", excavator),
    "bus": ("vehicle.bus.rigid", bus),
    "trailer": ("vehicle.trailer", trailer),
    "barrier": ("movable_object.barrier", barrier),
    "traffic_cone": ("movable_object.trafficcone", traffic_cone),
}


@dataclass(frozen=True)
class Model:
    """One individual of a class.

    Attributes:
        category: nuScenes category.
        size: length, width, height in metres.
        solids: in the object's frame, on the ground at its origin.
    """

    category: str
    size: tuple[float, float, float]
    solids: Solids


def build(name: str, rng: np.random.Generator, *, rider: bool = False, worker: bool = False) -> Model:
    """One individual.

    Args:
        name: one of the ten classes.
        rng: source of size, paint and variant.
        rider: for bicycle and motorcycle: somebody sits on it (and is part of the box, as in nuScenes).
        worker: for pedestrian: a construction worker in signal clothes.
    """
    size = draw_size(name, rng)
    if name == "pedestrian" and not worker and rng.random() < 0.06:
        size = (round(0.75 * size[0], 3), round(0.72 * size[1], 3), round(0.70 * size[2], 3))
    if name in ("bicycle", "motorcycle"):
        height = float(rng.uniform(1.62, 1.82)) if rider else size[2] * (0.86 if name == "bicycle" else 0.9)
        size = (size[0], size[1], round(height, 3))
    body = (size[0] - 2 * SLACK, size[1] - 2 * SLACK, size[2] - SLACK)
    if name == "pedestrian":
        kind = "construction_worker" if worker else "child" if size[2] < 1.45 else "adult"
        return Model(f"human.pedestrian.{kind}", size, pedestrian(body, rng, worker))
    if name in ("bicycle", "motorcycle"):
        return Model(f"vehicle.{name}", size, two_wheeler(body, rng, rider, heavy=name == "motorcycle"))
    category, shape = _SHAPES[name]
    return Model(category, size, shape(body, rng))
