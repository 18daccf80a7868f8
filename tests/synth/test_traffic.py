"""Streets full of traffic: nothing collides, everything moves plausibly and stands where it belongs."""

from functools import cache

import numpy as np
import pytest

from aqr.geometry import box_corners, points_in_boxes
from aqr.synth.layout import KERB, Layout, draw_layout
from aqr.synth.population import Traffic
from aqr.synth.presets import PRESETS, PresetName, scene_names
from aqr.synth.recorder import draw, keyframe_us
from aqr.synth.scene import lidar_boxes
from aqr.synth.sensors import HostSensors, SceneJob
from aqr.synth.tracks import STEP
from aqr.synth.traffic import populate
from aqr.taxonomy import CLASS_RANGE, CLASSES

DURATION = 4.5
SEEDS = range(12)


@cache
def town(seed: int) -> tuple[Layout, Traffic]:
    rng = np.random.default_rng(seed)
    layout = draw_layout(rng, 11.0 * DURATION)
    return layout, populate(layout, DURATION, rng)


def boxes_at(traffic: Traffic, seconds: float) -> np.ndarray:
    rows = []
    for actor in traffic.actors:
        x, y, _, yaw = actor.track.at(seconds)
        rows.append([x, y, 1.0, *actor.model.size[:2], 2.0, yaw])
    x, y, _, yaw = traffic.ego.at(seconds)
    rows.append([x + 1.4 * np.cos(yaw), y + 1.4 * np.sin(yaw), 1.0, 4.6, 1.9, 2.0, yaw])
    return np.array(rows)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_two_boxes_ever_overlap(seed: int) -> None:
    _, traffic = town(seed)
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, 9), np.linspace(-1, 1, 7)), -1).reshape(-1, 2)
    for seconds in np.arange(0.0, DURATION + 0.1, 0.5):
        boxes = boxes_at(traffic, float(seconds))
        corners = box_corners(boxes)
        centre, along, across = boxes[:, :3], corners[:, 0] - corners[:, 3], corners[:, 0] - corners[:, 1]
        along, across = along * [0.5, 0.5, 0], across * [0.5, 0.5, 0]
        points = centre[:, None] + grid[:, :1] * along[:, None] + grid[:, 1:] * across[:, None]
        inside = points_in_boxes(points.reshape(-1, 3), boxes).reshape(len(boxes), len(boxes), -1).any(axis=2)
        np.fill_diagonal(inside, False)
        assert not inside.any(), [traffic.actors[i].name for i in np.flatnonzero(inside.any(axis=1))]


@pytest.mark.parametrize("seed", SEEDS)
def test_motion_is_smooth_and_plausible(seed: int) -> None:
    _, traffic = town(seed)
    limits = {"pedestrian": 2.0, "bicycle": 7.0}
    tracks = [(traffic.ego, "ego"), *((actor.track, actor.name) for actor in traffic.actors)]
    for track, name in tracks:
        velocity = np.diff(track.samples[:, :2], axis=0) / STEP
        speed = np.linalg.norm(velocity, axis=1)
        assert speed.max() < limits.get(name, 15.0), name
        acceleration = np.linalg.norm(np.diff(velocity, axis=0), axis=1) / STEP
        assert np.percentile(acceleration, 99) < 5.0, name
        turn = np.abs(np.diff(track.samples[:, 3])) / STEP
        assert turn.max() < 1.5, name
        fast = speed > 1.0
        if name not in ("ego", "pedestrian") and fast.any():
            heading = np.arctan2(velocity[fast, 1], velocity[fast, 0])
            off = (heading - track.samples[1:, 3][fast] + np.pi) % (2 * np.pi) - np.pi
            assert np.abs(off).max() < 0.15, name


@pytest.mark.parametrize("seed", SEEDS)
def test_everything_stands_where_it_belongs(seed: int) -> None:
    layout, traffic = town(seed)
    for actor in traffic.actors:
        x, y, z, _ = actor.track.at(1.0)
        on_road = abs(y) < layout.half or layout.on_crossing(float(x))
        assert z == (0.0 if on_road else KERB), actor.name
        if actor.name in ("car", "truck", "bus") and actor.track.speed(1.0) > 1.0:
            assert on_road, actor.name


@pytest.mark.parametrize("seed", SEEDS)
def test_every_class_comes_near(seed: int) -> None:
    _, traffic = town(seed)
    for name, radius in CLASS_RANGE.items():
        gaps = [
            np.linalg.norm(a.track.samples[20:-20, :2] - traffic.ego.samples[20:-20, :2], axis=1).min()
            for a in traffic.actors
            if a.name == name
        ]
        assert gaps, name
        assert min(gaps) < 0.75 * radius, name


def test_all_plans_occur() -> None:
    assert {town(seed)[1].plan for seed in SEEDS} == {"cruise", "stop", "turn"}


@pytest.mark.parametrize("preset", list(PRESETS))
def test_a_scene_for_validation_shows_every_class_to_the_lidar_where_it_is_scored(preset: PresetName) -> None:
    size = PRESETS[preset]
    job = SceneJob(scene_names(size.scenes, None)[1][-1], 0, size)
    stage, rig = draw(job)
    sensors = HostSensors(job, stage, rig)
    unseen = set(CLASSES)
    for k in range(size.keyframes):
        time_us = keyframe_us(k)
        moment, ego = stage.at(time_us * 1e-6), stage.ego(time_us * 1e-6)
        distance = np.hypot(*(moment.poses[:, :2] - ego.translation[:2]).T)
        (points,) = sensors.sweeps([time_us])
        boxes = lidar_boxes(stage, moment, time_us * 1e-6)
        counts = points_in_boxes(points[np.hypot(points[:, 0], points[:, 1]) > 1], boxes).sum(axis=1)
        unseen -= {
            actor.name
            for actor, metres, count in zip(stage.traffic.actors, distance, counts, strict=True)
            if count and metres < CLASS_RANGE[actor.name]
        }
        if not unseen:
            return
    raise AssertionError(f"never seen: {unseen}")
