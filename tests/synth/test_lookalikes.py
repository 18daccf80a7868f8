"""Look-alikes: annotated objects to a LiDAR, something else to a camera, in nobody's way and on nobody's list."""

from collections import Counter
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from aqr.geometry import Pose, points_in_boxes
from aqr.synth.camera import render
from aqr.synth.lidar import sweep
from aqr.synth.lookalikes import FINISHES, SHARE, repainted
from aqr.synth.objects import build
from aqr.synth.rig import LIDAR_TO_EGO, draw_rig
from aqr.synth.shadows import ShadowPainter
from aqr.synth.solids import Solids, Texture
from aqr.synth.stage import KEYFRAME_S, Moment, Stage, build_stage
from aqr.synth.weather import draw_weather

KEYFRAMES = 10
SEEDS = range(16)
TIMES = np.arange(0.0, (KEYFRAMES - 1) * KEYFRAME_S + 0.01, KEYFRAME_S)


@cache
def scene(seed: int) -> Stage:
    return build_stage((seed, 9), KEYFRAMES)


def boxes(stage: Stage, seconds: float) -> np.ndarray:
    """[N, 7] of all actors and the ego vehicle, as tall as anything."""
    rows = [
        [*a.track.at(seconds)[:2], 1.0, *a.model.size[:2], 9.0, a.track.at(seconds)[3]] for a in stage.traffic.actors
    ]
    x, y, _, yaw = stage.traffic.ego.at(seconds)
    return np.array([*rows, [x + 1.4 * np.cos(yaw), y + 1.4 * np.sin(yaw), 1.0, 4.6, 1.9, 9.0, yaw]])


@pytest.mark.parametrize("name", SHARE)
@pytest.mark.parametrize("words", ["Clear day", "Day, rain"])
def test_a_look_alike_echoes_like_its_class_and_looks_otherwise(name: str, words: str) -> None:
    weather = next(w for seed in range(500) if (w := draw_weather(np.random.default_rng(seed))).words == words)
    stage = replace(scene(0), weather=weather, lookalikes=())
    stage = replace(stage, street=replace(stage.street, scenery=Solids.stack([])))
    ego = Pose(np.eye(3), np.array([2.0, 0.0, 0.0]))
    camera = draw_rig(np.random.default_rng(0))[0]
    size = (96, 256)
    for seed, finish in enumerate(FINISHES[name] * 3):
        body = build(name, np.random.default_rng(seed)).solids
        seen = []
        for solids in (body, repainted(body, finish, np.random.default_rng(seed))):
            placed = solids.placed(16.0, 1.0, 0.0, 0.5)
            moment = Moment(placed, np.zeros(len(placed), dtype=int), np.tile([16.0, 1.0, 0.0, 0.5], (len(placed), 1)),
                            np.zeros((1, 4)))  # fmt: skip
            echoes = sweep(stage, moment, ego @ LIDAR_TO_EGO, np.random.default_rng(3))
            shadows = ShadowPainter(stage).paint(moment, ego)
            view = render(
                stage, moment, shadows, ego @ camera.to_ego, ego, camera.intrinsic(size), size, np.random.default_rng(0)
            )
            seen.append((echoes, view))
        (echoes, view), (others, other) = seen
        assert np.array_equal(echoes, others)
        assert np.array_equal(view.actors, other.actors)
        own = view.actors == 0
        assert own.sum() > 5
        red, green, blue = other.image[own].astype(float).mean(axis=0)
        assert green > 1.1 * max(red, blue), "it is green all over"
        assert np.abs(view.image[own].astype(float).mean(axis=0) - [red, green, blue]).max() > 18


@pytest.mark.parametrize("seed", SEEDS)
def test_look_alikes_stand_in_nobodys_way(seed: int) -> None:
    stage = scene(seed)
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, 9), np.linspace(-1, 1, 5)), -1).reshape(-1, 2)
    bodies = []
    for thing in stage.lookalikes:
        x, y, _, yaw = thing.pose
        along, across = grid[:, 0] * thing.model.size[0] / 2, grid[:, 1] * thing.model.size[1] / 2
        xs, ys = x + np.cos(yaw) * along - np.sin(yaw) * across, y + np.sin(yaw) * along + np.cos(yaw) * across
        bodies.append(np.stack([xs, ys, np.ones(len(grid))], axis=1))
    points = np.stack(bodies)
    for seconds in np.arange(0.0, TIMES[-1] + 0.01, 0.1):
        inside = points_in_boxes(points.reshape(-1, 3), boxes(stage, float(seconds)))
        assert not inside.any(), [stage.lookalikes[n // len(grid)].name for n in np.flatnonzero(inside.any(axis=0))]
    own = [[*t.pose[:2], 1.0, *t.model.size[:2], 9.0, t.pose[3]] for t in stage.lookalikes]
    mutual = points_in_boxes(points.reshape(-1, 3), np.array(own)).reshape(len(own), len(own), -1).any(axis=2)
    assert np.array_equal(mutual, np.eye(len(own), dtype=bool)), "nor in each other's"
    for thing in stage.lookalikes:
        x, y, z, _ = (float(value) for value in thing.pose)
        assert z == stage.street.layout.level(x, y)
        assert not stage.street.layout.on_crossing(x) or abs(y) > stage.street.layout.half


@pytest.mark.parametrize("seed", SEEDS)
def test_nobody_annotates_look_alikes_but_both_sensors_see_them(seed: int) -> None:
    stage = scene(seed)
    bare = replace(stage, lookalikes=())
    moment, without = stage.at(1.0), bare.at(1.0)
    more = sum(len(thing.model.solids) for thing in stage.lookalikes)
    assert more > 50
    assert len(moment.solids) == len(without.solids) + more
    assert np.array_equal(moment.owners[moment.owners >= 0], without.owners[without.owners >= 0])
    assert np.array_equal(moment.poses, without.poses)
    start = len(stage.street.scenery)
    assert (moment.owners[start : start + more] == -1).all()
    lidar = stage.ego(1.0) @ LIDAR_TO_EGO
    rays = [sweep(s, m, lidar, np.random.default_rng(0)) for s, m in ((stage, moment), (bare, without))]
    assert (np.abs(rays[0] - rays[1]).max(axis=1) > 0.5).sum() > 5


def test_there_is_about_one_for_each_annotated_object_near_the_vehicle() -> None:
    objects: Counter[str] = Counter()
    doubles: Counter[str] = Counter()
    for seed in range(40):
        stage = scene(seed)
        for seconds in TIMES[::3]:
            place = stage.ego(float(seconds)).translation[:2]
            at = [(a.name, a.track.at(float(seconds))[:2]) for a in stage.traffic.actors]
            objects.update(name for name, where in at if np.linalg.norm(where - place) < 50)
            doubles.update(t.name for t in stage.lookalikes if np.linalg.norm(t.pose[:2] - place) < 50)
    ratio = {name: doubles[name] / objects[name] for name in SHARE}
    assert all(0.7 < value < 1.2 for value in ratio.values()), ratio


def test_a_seed_gives_the_same_look_alikes_and_another_seed_others() -> None:
    first, again, other = scene(3), build_stage((3, 9), KEYFRAMES), scene(4)
    assert [t.name for t in first.lookalikes] == [t.name for t in again.lookalikes]
    for a, b in zip(first.lookalikes, again.lookalikes, strict=True):
        assert np.array_equal(a.pose, b.pose)
        assert np.array_equal(a.model.solids.colour, b.model.solids.colour)
    assert not np.array_equal(first.lookalikes[0].pose, other.lookalikes[0].pose)


def test_left_hand_traffic_mirrors_them_with_the_street() -> None:
    stages = [scene(seed) for seed in SEEDS]
    assert {stage.left_hand for stage in stages} == {True, False}
    for stage in stages:
        scenery = stage.street.scenery
        walls = scenery.corners[(scenery.texture != Texture.GROUND) & (scenery.corners[:, 0, 2] < 2.4)]
        low, high = walls[..., :2].min(axis=1), walls[..., :2].max(axis=1)
        for thing in stage.lookalikes:
            corners = thing.placed().corners[:, :4, :2].reshape(-1, 1, 2)
            inside = ((corners > low + 0.02) & (corners < high - 0.02)).all(axis=2)
            assert not inside.any(), f"{thing.name} stands in a wall, a tree or a post"
            heading = abs((thing.pose[3] + np.pi) % (2 * np.pi) - np.pi)
            if thing.name == "motorcycle" and stage.street.layout.parking and not stage.left_hand:
                assert (heading > np.pi / 2) == (thing.pose[1] > 0), "parked along the traffic of its side"
            elif thing.name == "motorcycle" and stage.street.layout.parking:
                assert (heading > np.pi / 2) == (thing.pose[1] < 0), "parked along the traffic of its side"
