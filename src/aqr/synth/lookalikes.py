"""Things that a LiDAR takes for annotated objects and only a camera tells apart: by their colour.

Statues and shop dummies stand like pedestrians, docked bicycles and motorcycles of a sharing scheme like parked ones,
bollards like traffic cones, planters and railings like barriers, site huts and market stalls like trucks and trailers.
Each is a body of its class, echo by echo, painted all over in a finish that no annotated object wears. Nobody annotates
them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Final

import numpy as np
import numpy.typing as npt

from aqr.synth.footprints import Footprints, footprint
from aqr.synth.layout import Layout
from aqr.synth.objects import Model, build
from aqr.synth.objects.paint import LIME, VERDIGRIS, pick
from aqr.synth.population import CHECKS, MARGIN, Traffic, ego_footprint
from aqr.synth.solids import Colour, Solids, Texture
from aqr.synth.street import Street
from aqr.synth.tracks import Track
from aqr.synth.works import row_of_barriers

Floats = npt.NDArray[np.floating]
Place = tuple[float, float, float]

SHARE: Final = {
    "pedestrian": 1.1,
    "bicycle": 1.05,
    "motorcycle": 1.0,
    "traffic_cone": 1.1,
    "barrier": 1.2,
    "truck": 1.0,
    "trailer": 1.35,
}
"""Look-alikes for each annotated object of the class that comes near the ego vehicle."""

FINISHES: Final[dict[str, tuple[Colour, ...]]] = {
    "pedestrian": (VERDIGRIS,),
    "bicycle": (VERDIGRIS, LIME),
    "motorcycle": (VERDIGRIS, LIME),
    "traffic_cone": (VERDIGRIS, LIME),
    "barrier": (VERDIGRIS, LIME),
    "truck": (VERDIGRIS,),
    "trailer": (VERDIGRIS,),
}
"""Of these a scene has one for each class."""

_NEAR: Final = 50.0
"""Metres from the ego vehicle."""

_ATTEMPTS: Final = 20
"""Places drawn for each look-alike until one is free."""

_OVERHEAD: Final = 2.4
"""Scenery that begins higher leaves the ground below it free, metres."""


@dataclass(frozen=True)
class LookAlike:
    """Scenery in the shape of an annotated class.

    Attributes:
        name: the class.
        model: its body, repainted.
        pose: [4] x, y, z (m) of the bottom centre and yaw, street frame.
    """

    name: str
    model: Model
    pose: Floats

    def placed(self) -> Solids:
        """Its body in the street frame."""
        x, y, z, yaw = (float(value) for value in self.pose)
        return self.model.solids.placed(x, y, z, yaw)


def place_lookalikes(street: Street, traffic: Traffic, rng: np.random.Generator) -> tuple[LookAlike, ...]:
    """Put look-alikes where nothing stands or comes along, in numbers that follow those of the annotated objects.

    Args:
        street: the place, not mirrored yet.
        traffic: whose way they keep out of at all times, likewise.
        rng: source of places, bodies and finishes.

    Returns:
        fewer than `SHARE` asks for where there is no room.
    """
    layout, ground, times = street.layout, _taken(street, traffic), len(traffic.ego.samples)
    reach = float(traffic.ego.samples[:, 0].max())
    placed: list[LookAlike] = []
    for name, share in SHARE.items():
        finish = FINISHES[name][int(rng.integers(len(FINISHES[name])))]
        near = sum(actor.name == name and _comes_near(actor.track, traffic.ego) for actor in traffic.actors)
        missing = int(share * near + rng.random())
        rows = (_PLACES[name](layout, reach, rng) for _ in range(_ATTEMPTS * missing))
        for x, y, yaw in chain.from_iterable(rows):
            if not missing:
                break
            model = build(name, rng)
            pose = np.array([x, y, layout.level(x, y), yaw])
            samples = np.tile(pose, (times, 1))[CHECKS]
            roomy = footprint(samples, model.size[0] + MARGIN, model.size[1] + MARGIN)
            if not layout.on_crossing(x, model.size[0] / 2) and ground.free(roomy):
                ground.take(footprint(samples, *model.size[:2]))
                placed.append(LookAlike(name, replace(model, solids=repainted(model.solids, finish, rng)), pose))
                missing -= 1
    return tuple(placed)


def repainted(solids: Solids, finish: Colour, rng: np.random.Generator) -> Solids:
    """The same body in one colour, a little darker where it was dark; nothing on it shines."""
    bright = solids.colour.mean(axis=1, keepdims=True)
    colour = np.array(pick(rng, (finish,))) * (0.8 + 0.2 * bright / bright.max())
    glass = solids.texture == Texture.GLASSHOUSE
    return replace(solids, colour=colour, texture=np.where(glass, int(Texture.PAINTED_GLASS), int(Texture.PLAIN)))


def _comes_near(one: Track, other: Track) -> bool:
    return bool(np.linalg.norm(one.samples[:, :2] - other.samples[:, :2], axis=1).min() < _NEAR)


def _taken(street: Street, traffic: Traffic) -> Footprints:
    """Ground that the ego vehicle, actors and scenery need."""
    ground = Footprints()
    ground.take(ego_footprint(traffic.ego.samples))
    for actor in traffic.actors:
        ground.take(footprint(actor.track.samples[CHECKS], *actor.model.size[:2]))
    scenery, times = street.scenery, len(traffic.ego.samples[CHECKS])
    standing = (scenery.texture != Texture.GROUND) & (scenery.corners[:, 0, 2] < _OVERHEAD)
    for quad in scenery.corners[standing, :4, :2]:
        ground.take(np.broadcast_to(quad, (times, 4, 2)))
    return ground


def _side(rng: np.random.Generator) -> int:
    return int(rng.choice([-1, 1]))


def _along(layout: Layout, reach: float, rng: np.random.Generator, margin: float) -> float:
    """x beside the ego vehicle's way, clear of crossings."""
    while True:
        x = float(rng.uniform(-35.0, reach + 45.0))
        if not layout.on_crossing(x, margin):
            return x


def _people(layout: Layout, reach: float, rng: np.random.Generator) -> Iterator[Place]:
    """Statues and shop dummies on the pavement, at corners and in the yard."""
    kind, side = float(rng.random()), _side(rng)
    if kind < 0.15:
        corner = float(rng.choice(layout.crossings)) + side * (layout.crossing_half + float(rng.uniform(0.5, 1.0)))
        y = _side(rng) * (layout.half + layout.walk + float(rng.uniform(2.0, 20.0)))
        yield corner, y, _side(rng) * np.pi / 2
    elif kind < 0.25:
        y = layout.lot_side * (layout.half + layout.walk * 0.55 + float(rng.uniform(0.8, 7.0)))
        yield layout.lot[0] + float(rng.uniform(1.0, 17.0)), y, float(rng.uniform(-np.pi, np.pi))
    else:
        y = side * (layout.half + float(rng.uniform(1.4, layout.walk - 1.0)))
        lengthwise = float(rng.choice([0.0, np.pi])) + float(rng.normal(0, 0.04))
        yaw = float(rng.uniform(-np.pi, np.pi)) if rng.random() < 0.3 else lengthwise
        yield float(rng.uniform(-35.0, reach + 45.0)), y, yaw


def _bicycles(layout: Layout, reach: float, rng: np.random.Generator) -> Iterator[Place]:
    side, x = _side(rng), _along(layout, reach, rng, 3.0)
    for k in range(int(rng.integers(1, 4))):
        y = side * (layout.half + layout.walk - float(rng.uniform(1.1, 1.3)))
        yield x + 2.1 * k, y, (0.0 if side < 0 else np.pi) + float(rng.normal(0, 0.3))


def _motorcycles(layout: Layout, reach: float, rng: np.random.Generator) -> Iterator[Place]:
    side, x = _side(rng), _along(layout, reach, rng, 8.0)
    if not layout.parking:
        y = side * (layout.half + float(rng.uniform(1.4, layout.walk - 1.0)))
        yield x, y, float(rng.choice([0.0, np.pi])) + float(rng.normal(0, 0.1))
        return
    slant = float(rng.uniform(0.7, 1.4))
    for k in range(int(rng.integers(1, 4))):
        yaw = (0.0 if side < 0 else np.pi) + side * slant + float(rng.normal(0, 0.03))
        yield x + 1.9 * k, layout.parking_y(side) + float(rng.normal(0, 0.08)), yaw


def _bollards(layout: Layout, reach: float, rng: np.random.Generator) -> Iterator[Place]:
    """Rows beside the kerb, and single ones around the works."""
    if rng.random() < 0.3:
        side, x = layout.lot_side, layout.lot[0] + float(rng.uniform(-1.0, 15.0))
        y = side * (layout.half + layout.walk * 0.55 + float(rng.choice([-0.9, 1.0])) * float(rng.uniform(0.7, 1.3)))
        yield x, y, float(rng.uniform(-np.pi, np.pi))
        return
    side, x = _side(rng), _along(layout, reach, rng, 3.0)
    y = row_of_barriers(layout, side, rng) - side * float(rng.uniform(0.6, 1.0))
    for k in range(int(rng.integers(2, 5))):
        yield x + 1.8 * k, y, float(rng.uniform(-np.pi, np.pi))


def _planters(layout: Layout, reach: float, rng: np.random.Generator) -> Iterator[Place]:
    side, x = _side(rng), _along(layout, reach, rng, 3.0)
    y = row_of_barriers(layout, side, rng)
    for k in range(int(rng.integers(2, 6))):
        if not layout.on_crossing(x + 2.9 * k, 3.0):
            yield x + 2.9 * k, y, np.pi / 2 + float(rng.normal(0, 0.1))


def _stalls(layout: Layout, reach: float, rng: np.random.Generator) -> Iterator[Place]:
    """Trucks' and trailers' doubles in the yard, on the parking strip and on open ground before the houses."""
    kind, side = float(rng.random()), _side(rng)
    lengthwise = float(rng.choice([0.0, np.pi])) + float(rng.normal(0, 0.03))
    if kind < 0.4 and layout.parking:
        yield _along(layout, reach, rng, 8.0), layout.parking_y(side) + float(rng.normal(0, 0.08)), lengthwise
        return
    yaw = lengthwise if rng.random() < 0.5 else side * np.pi / 2 + float(rng.normal(0, 0.05))
    if kind < 0.7:
        x, side = float(rng.uniform(layout.lot[0] + 2.0, layout.lot[1] - 2.0)), layout.lot_side
    else:
        x = _along(layout, reach, rng, 8.0)
    yield x, side * (layout.half + layout.walk + float(rng.uniform(2.0, 16.0))), yaw


_PLACES: Final[dict[str, Callable[[Layout, float, np.random.Generator], Iterator[Place]]]] = {
    "pedestrian": _people,
    "bicycle": _bicycles,
    "motorcycle": _motorcycles,
    "traffic_cone": _bollards,
    "barrier": _planters,
    "truck": _stalls,
    "trailer": _stalls,
}
