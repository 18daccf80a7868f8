"""What the cameras and the LiDAR show lies where the boxes say."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from aqr.geometry import Pose, box_corners, in_image, points_in_boxes, project
from aqr.synth.camera import View, render
from aqr.synth.lidar import sweep
from aqr.synth.rig import LIDAR_TO_EGO, Camera, draw_rig
from aqr.synth.shadows import ShadowPainter
from aqr.synth.stage import Moment, Stage, build_stage

SIZE = (198, 352)
SECONDS = 1.5


@cache
def scene(seed: int) -> tuple[Stage, Moment, np.ndarray]:
    """A scene, its solids at one time, and the boxes of its actors [N, 7] in the street frame."""
    stage = build_stage((seed, 103), 6)
    moment = stage.at(SECONDS)
    sizes = np.array([a.model.size for a in stage.traffic.actors])
    centres = moment.poses[:, :3] + np.array([0, 0, 0.5]) * sizes[:, 2:]
    return stage, moment, np.column_stack([centres, sizes, moment.poses[:, 3]])


@cache
def views(seed: int) -> tuple[tuple[Camera, Pose, View], ...]:
    stage, moment, _ = scene(seed)
    shadows = ShadowPainter(stage).paint(moment, stage.ego(SECONDS))
    taken = []
    for camera in draw_rig(np.random.default_rng(seed)):
        ego = stage.ego(SECONDS + camera.delay_us * 1e-6)
        pose = ego @ camera.to_ego
        rng = np.random.default_rng(0)
        view = render(stage, moment, shadows, pose, ego, camera.intrinsic(SIZE), SIZE, rng)
        taken.append((camera, pose, view))
    return tuple(taken)


def to_image(camera: Camera, pose: Pose) -> np.ndarray:
    """[4, 4] from the street frame to pixels."""
    intrinsic = np.eye(4)
    intrinsic[:3, :3] = camera.intrinsic(SIZE)
    return intrinsic @ pose.inverse().matrix


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_projected_boxes_lie_on_the_objects(seed: int) -> None:
    _, _, boxes = scene(seed)
    checked = 0
    for camera, pose, view in views(seed):
        pixels, depth = project(box_corners(boxes), to_image(camera, pose))
        for n in range(len(boxes)):
            if (depth[n] < 0.5).any():
                continue
            rows, columns = np.nonzero(view.actors == n)
            assert len(rows) == view.visible[n]
            low, high = pixels[n].min(axis=0), pixels[n].max(axis=0)
            if len(rows) == 0:
                continue
            assert low[0] - 1 <= columns.min() <= columns.max() <= high[0], n
            assert low[1] - 1 <= rows.min() <= rows.max() <= high[1], n
            inside = (low > 1).all() and (high < np.array(SIZE[::-1]) - 1).all()
            if inside and view.visible[n] == view.silhouette[n] > 150:
                checked += 1
                width, height = high - low
                assert columns.max() - columns.min() > 0.55 * width - 3, "the box is too wide"
                assert rows.max() - rows.min() > 0.75 * height - 3, "the box is too high"
    assert checked >= 3


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_lidar_and_cameras_see_the_same_things(seed: int) -> None:
    stage, moment, boxes = scene(seed)
    lidar = stage.ego(SECONDS) @ LIDAR_TO_EGO
    points = sweep(stage, moment, lidar, np.random.default_rng(0))
    echoes = lidar.apply(points[np.linalg.norm(points[:, :3], axis=1) > 2.0, :3])
    inside = points_in_boxes(echoes, boxes)
    agreeing = total = 0
    for camera, pose, view in views(seed):
        pixels, depth = project(echoes, to_image(camera, pose))
        seen = in_image(pixels, depth, SIZE)
        for n in np.flatnonzero((inside & seen).sum(axis=1) >= 10):
            hits = pixels[inside[n] & seen].astype(int)
            agreeing += int((view.actors[hits[:, 1], hits[:, 0]] == n).sum())
            total += len(hits)
    assert total > 300
    assert agreeing > 0.75 * total, "points on an object must fall on its pixels, but for parallax and silhouettes"


def test_echoes_lie_on_surfaces() -> None:
    stage, moment, _ = scene(0)
    lidar = stage.ego(SECONDS) @ LIDAR_TO_EGO
    points = sweep(stage, moment, lidar, np.random.default_rng(0))
    echoes = lidar.apply(points[np.linalg.norm(points[:, :3], axis=1) > 3.0, :3])[::7]
    solids = moment.solids
    gap = np.abs(echoes[:, 2])
    for k in range(len(solids)):
        planes = slice(0, int(solids.planes[k]))
        outside = (echoes @ solids.normals[k, planes].T - solids.offsets[k, planes]).max(axis=1)
        gap = np.minimum(gap, np.abs(outside))
    assert np.percentile(gap, 99) < 0.06
    assert 0.002 < np.median(gap) < 0.02, "range noise of 18 mm"


def test_dark_and_wet_scenes_look_it() -> None:
    light: dict[str, list[float]] = {}
    for seed in range(30):
        stage = build_stage((seed, 103), 2)
        if len(light.get(stage.weather.words, [])) >= 1:
            continue
        moment, ego = stage.at(0.0), stage.ego(0.0)
        camera = draw_rig(np.random.default_rng(0))[0]
        shadows = ShadowPainter(stage).paint(moment, ego)
        size = (99, 176)
        view = render(
            stage, moment, shadows, ego @ camera.to_ego, ego, camera.intrinsic(size), size, np.random.default_rng(0)
        )
        light.setdefault(stage.weather.words, []).append(float(view.image.mean()))
    assert len(light) >= 5
    days = [v for words, values in light.items() if not words.startswith("Night") for v in values]
    nights = [v for words, values in light.items() if words.startswith("Night") for v in values]
    assert max(nights) < min(days)


def test_fog_and_rain_cost_the_lidar_echoes() -> None:
    stage, moment, _ = scene(0)
    lidar = stage.ego(SECONDS) @ LIDAR_TO_EGO
    far = []
    for extinction in (1e-4, 0.006, 0.020):
        air = replace(stage, weather=replace(stage.weather, lidar_extinction=extinction, wet=0.0))
        points = sweep(air, moment, lidar, np.random.default_rng(0))
        far.append(int((np.linalg.norm(points[:, :3], axis=1) > 20).sum()))
    assert far[0] > 1.03 * far[1] > 1.2 * far[2], far
