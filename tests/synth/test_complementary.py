"""What only one of the sensors can tell, by design (docs/synth.md): each claim as an experiment on an empty street."""

from dataclasses import replace
from functools import cache

import numpy as np

from aqr.geometry import Pose
from aqr.synth.camera import View, render
from aqr.synth.layout import KERB
from aqr.synth.lidar import sweep
from aqr.synth.objects import build
from aqr.synth.rig import LIDAR_TO_EGO, draw_rig
from aqr.synth.shadows import ShadowPainter
from aqr.synth.solids import Solids, block
from aqr.synth.stage import Moment, Stage, build_stage
from aqr.synth.weather import Weather, draw_weather

EGO = Pose(np.eye(3), np.array([2.0, 0.0, 0.0]))
SIZE = (450, 800)


@cache
def weather(words: str) -> Weather:
    return next(w for seed in range(500) if (w := draw_weather(np.random.default_rng(seed))).words == words)


@cache
def place() -> Stage:
    return build_stage((0, 1), 2)


def experiment(*things: Solids, words: str = "Clear day") -> tuple[np.ndarray, View, tuple[Stage, Moment]]:
    """Echoes [P, 5] (street frame), the front camera's view, and the set, with one actor per thing and nothing else."""
    stage = replace(place(), weather=weather(words))
    stage = replace(stage, street=replace(stage.street, scenery=Solids.stack([])), lookalikes=())
    solids = Solids.stack(things)
    owners = np.repeat(np.arange(len(things)), [len(t) for t in things])
    moment = Moment(solids, owners, np.zeros((len(solids), 4)), np.zeros((len(things), 4)))
    lidar = EGO @ LIDAR_TO_EGO
    points = sweep(stage, moment, lidar, np.random.default_rng(0)).astype(np.float64)
    echoes = points[np.linalg.norm(points[:, :3], axis=1) > 1.5]
    echoes[:, :3] = lidar.apply(echoes[:, :3])
    camera = draw_rig(np.random.default_rng(0))[0]
    shadows = ShadowPainter(stage).paint(moment, EGO)
    intrinsic = camera.intrinsic(SIZE)
    view = render(stage, moment, shadows, EGO @ camera.to_ego, EGO, intrinsic, SIZE, np.random.default_rng(0))
    return echoes, view, (stage, moment)


def standing(name: str, x: float, y: float, seed: int = 0) -> Solids:
    return build(name, np.random.default_rng(seed)).solids.placed(x, y, KERB, 0.0)


def on(echoes: np.ndarray, x: float, y: float, radius: float = 1.6) -> np.ndarray:
    near = np.hypot(echoes[:, 0] - x, echoes[:, 1] - y) < radius
    return echoes[near & (echoes[:, 2] > KERB + 0.15)]


def contrast(view: View, actor: int) -> float:
    """How far an actor stands out of the pixels around it, 0 … 255."""
    rows, columns = np.nonzero(view.actors == actor)
    window = np.s_[max(rows.min() - 6, 0) : rows.max() + 7, max(columns.min() - 6, 0) : columns.max() + 7]
    inside = view.actors[window] == actor
    colours = view.image[window].astype(float)
    return float(np.abs(colours[inside].mean(axis=0) - colours[~inside].mean(axis=0)).max())


def look(view: View, actor: int) -> np.ndarray:
    return view.image[view.actors == actor].astype(float).mean(axis=0)


def test_a_pedestrian_in_the_dark_is_left_to_the_lidar() -> None:
    thing = standing("pedestrian", 34.0, 9.0, seed=4)
    by_day, day, _ = experiment(thing)
    by_night, night, _ = experiment(thing, words="Night")
    assert contrast(day, 0) > 4 * contrast(night, 0)
    assert len(on(by_day, 34.0, 9.0)) >= 4
    assert len(on(by_night, 34.0, 9.0)) >= 0.7 * len(on(by_day, 34.0, 9.0))


def test_black_paint_swallows_echoes_that_white_paint_returns() -> None:
    cars = sorted((build("car", np.random.default_rng(s)).solids for s in range(40)), key=lambda c: c.colour[0].sum())
    counts = []
    for some in (cars[:6], cars[-6:]):
        fleet = [car.placed(40.0 + 4 * (i % 2), 6.0 * (i - 2.5), 0.0, np.pi / 2) for i, car in enumerate(some)]
        echoes, _, _ = experiment(*fleet)
        counts.append(sum(len(on(echoes, 40.0 + 4 * (i % 2), 6.0 * (i - 2.5), 2.6)) for i in range(6)))
    assert counts[0] < 0.8 * counts[1], counts
    _, view, _ = experiment(cars[0].placed(44.0, 0.0, 0.0, np.pi / 2))
    assert contrast(view, 0) > 25


def test_fog_hides_from_the_camera_first() -> None:
    thing = build("truck", np.random.default_rng(0)).solids.placed(44.0, 4.0, 0.0, np.pi / 2)
    clear, day, _ = experiment(thing)
    thick, fog, _ = experiment(thing, words="Day, fog")
    assert contrast(fog, 0) < 0.6 * contrast(day, 0)
    assert 0.5 < len(on(thick, 44.0, 4.0, 4.0)) / len(on(clear, 44.0, 4.0, 4.0)) < 1.0


def test_the_lidar_looks_over_what_blocks_the_cameras() -> None:
    wall = block((10.6, 11.0), (-6.0, 6.0), (0.0, 1.62), (0.3, 0.3, 0.3))
    people = (build("pedestrian", np.random.default_rng(s)) for s in range(50))
    behind = next(person for person in people if 1.60 < person.size[2] < 1.67)
    echoes, view, _ = experiment(wall, behind.solids.placed(17.0, 0.5, 0.0, 0.0))
    assert view.visible[1] == 0
    assert len(on(echoes, 17.0, 0.5, 1.0)) >= 1


def test_a_camera_separates_what_is_too_far_for_the_beams() -> None:
    far = [build("traffic_cone", np.random.default_rng(s)).solids.placed(52.0, y, 0.0, 0.0)
           for s, y in enumerate((-4.0, -1.0, 2.0))]  # fmt: skip
    echoes, view, _ = experiment(*far)
    assert sum(len(on(echoes, 52.0, y, 0.6)) for y in (-4.0, -1.0, 2.0)) <= 6
    assert (view.visible > 15).all()
