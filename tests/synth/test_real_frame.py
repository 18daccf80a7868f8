"""The synthetic LiDAR beside a real nuScenes sweep: every figure within a factor of two."""

import json
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np

from aqr.geometry import points_in_boxes
from aqr.synth.lidar import sweep
from aqr.synth.rig import LIDAR_TO_EGO
from aqr.synth.scene import lidar_boxes
from aqr.synth.stage import Stage, build_stage
from aqr.taxonomy import CLASS_OF_CATEGORY

RANGES = (0.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 40.0, 60.0, 110.0)
DISTANCES = (0.0, 10.0, 20.0, 30.0, 50.0)
ENOUGH = 4

Counted = dict[tuple[str, int], list[float]]


def real_points(root: Path) -> np.ndarray:
    path = next((root / "samples" / "LIDAR_TOP").iterdir())
    return np.fromfile(path, np.float32).reshape(-1, 5)


def by_class_and_distance(rows: list[tuple[str, float, int]]) -> Counted:
    """Points per box that holds any, at 10 m: counts fall with the square of the distance."""
    cells: Counted = {}
    for name, distance, count in rows:
        if count > 0 and distance < DISTANCES[-1]:
            cell = (name, int(np.digitize(distance, DISTANCES)))
            cells.setdefault(cell, []).append(count * (distance / 10) ** 2)
    return cells


def real_boxes(root: Path) -> Counted:
    def table(name: str) -> list[dict]:  # type: ignore[type-arg]
        return json.loads((root / "v1.0-mini" / f"{name}.json").read_text())

    category = {row["token"]: row["name"] for row in table("category")}
    of = {row["token"]: CLASS_OF_CATEGORY.get(category[row["category_token"]]) for row in table("instance")}
    lidar = next(row for row in table("sample_data") if "LIDAR_TOP" in row["filename"])
    ego = next(row for row in table("ego_pose") if row["token"] == lidar["ego_pose_token"])
    rows = []
    for row in table("sample_annotation"):
        gap = np.hypot(*np.subtract(row["translation"], ego["translation"])[:2])
        rows.append((str(of[row["instance_token"]]), float(gap), int(row["num_lidar_pts"])))
    return by_class_and_distance(rows)


@cache
def scene(seed: int) -> Stage:
    return build_stage((seed, 61), 6)


@cache
def synthetic() -> tuple[np.ndarray, Counted]:
    """Ranges [F, 34688] of 28 sweeps and their points per box."""
    ranges, rows = [], []
    for seed, seconds in product(range(14), (0.0, 2.5)):
        stage = scene(seed)
        moment, ego = stage.at(seconds), stage.ego(seconds)
        lidar = ego @ LIDAR_TO_EGO
        points = sweep(stage, moment, lidar, np.random.default_rng(seed))
        ranges.append(np.linalg.norm(points[:, :3], axis=1))
        boxes = lidar_boxes(stage, moment, seconds)
        counts = points_in_boxes(points[ranges[-1] > 1.0], boxes).sum(axis=1)
        gaps = np.linalg.norm(moment.poses[:, :2] - ego.translation[:2], axis=1)
        rows += [(a.name, float(g), int(n)) for a, g, n in zip(stage.traffic.actors, gaps, counts, strict=True)]
    return np.array(ranges), by_class_and_distance(rows)


def within_a_factor_of_two(real: float, synth: float) -> bool:
    return real / 2 <= synth <= real * 2


def test_points_per_sweep_and_empty_rays(real_frame: Path) -> None:
    points = real_points(real_frame)
    ranges, _ = synthetic()
    assert ranges.shape[1] == len(points) == 34_688
    real = (np.linalg.norm(points[:, :3], axis=1) < 1.0).mean()
    assert within_a_factor_of_two(real, (ranges < 1.0).mean())


def test_ranges(real_frame: Path) -> None:
    real, _ = np.histogram(np.linalg.norm(real_points(real_frame)[:, :3], axis=1), RANGES)
    ranges, _ = synthetic()
    synth = np.array([np.histogram(row, RANGES)[0] for row in ranges]).mean(axis=0)
    for low, a, b in zip(RANGES, real, synth, strict=False):
        assert within_a_factor_of_two(a, b), f"from {low} m: {a} real, {b:.0f} synthetic"


def test_points_per_box(real_frame: Path) -> None:
    _, synth = synthetic()
    real = {cell: counts for cell, counts in real_boxes(real_frame).items() if len(counts) >= ENOUGH}
    assert len(real) >= 4
    for cell, counts in real.items():
        assert within_a_factor_of_two(float(np.mean(counts)), float(np.mean(synth[cell]))), cell


def test_intensities(real_frame: Path) -> None:
    points = real_points(real_frame)
    far = np.linalg.norm(points[:, :3], axis=1) > 2.0
    stage = scene(1)
    sweeps = sweep(stage, stage.at(1.0), stage.ego(1.0) @ LIDAR_TO_EGO, np.random.default_rng(0))
    echoes = np.linalg.norm(sweeps[:, :3], axis=1) > 2.0
    for share in (25, 50, 75, 90):
        a, b = np.percentile(points[far, 3], share), np.percentile(sweeps[echoes, 3], share)
        assert within_a_factor_of_two(a, b), f"{share} %: {a} real, {b} synthetic"
