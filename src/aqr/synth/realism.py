"""How close the synthetic LiDAR comes to a real one, in four figures.

`python -m aqr.synth.realism NUSCENES_ROOT` prints them for the keyframes of a nuScenes folder and for synthetic
scenes, side by side: rays per sweep and the share without an echo, echoes by range, echoes by intensity, and echoes
per box by class and distance.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from aqr.geometry import points_in_boxes
from aqr.synth.lidar import sweep
from aqr.synth.rig import LIDAR_TO_EGO
from aqr.synth.scene import lidar_boxes
from aqr.synth.stage import build_stage
from aqr.taxonomy import CLASS_OF_CATEGORY, CLASSES, LIDAR

Floats = npt.NDArray[np.floating]

EMPTY: Final = 1.0
"""Metres below which a point stands for a ray without an echo (or one that hit the vehicle's own roof)."""

RANGES: Final = (0.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 40.0, 60.0, 110.0)
DISTANCES: Final = (0.0, 10.0, 20.0, 30.0, 50.0)
QUANTILES: Final = (0.25, 0.5, 0.75, 0.9)


@dataclass(frozen=True)
class Figures:
    """What a set of sweeps looks like.

    Attributes:
        rays: points per sweep, those without an echo included.
        empty: share of points closer than `EMPTY`.
        ranges: mean number of points per sweep in each interval of `RANGES`.
        intensities: at `QUANTILES`, of points beyond 3 m.
        boxes: by class and interval of `DISTANCES` (1 is the nearest): points of each box that holds any, multiplied
            by (distance / 10 m)², with which counts fall.
    """

    rays: float
    empty: float
    ranges: Floats
    intensities: Floats
    boxes: dict[tuple[str, int], list[float]]


def measure(sweeps: list[Floats], boxes: list[tuple[str, float, int]]) -> Figures:
    """Figures of sweeps [P, 5] and of boxes (class, horizontal distance in m, points inside)."""
    ranges = [np.linalg.norm(points[:, :3], axis=1) for points in sweeps]
    together = np.concatenate(ranges)
    intensity = np.concatenate([points[:, 3] for points in sweeps])
    cells: dict[tuple[str, int], list[float]] = {}
    for name, distance, count in boxes:
        if count > 0 and distance < DISTANCES[-1]:
            cell = (name, int(np.digitize(distance, DISTANCES)))
            cells.setdefault(cell, []).append(count * (distance / 10) ** 2)
    return Figures(
        rays=float(np.mean([len(r) for r in ranges])),
        empty=float((together < EMPTY).mean()),
        ranges=np.histogram(together, RANGES)[0] / len(sweeps),
        intensities=np.quantile(intensity[together > 3.0], QUANTILES),
        boxes=cells,
    )


def of_nuscenes(root: Path, version: str = "v1.0-mini") -> Figures:
    """Figures of all LiDAR keyframes of a nuScenes folder."""

    def table(name: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads((root / version / f"{name}.json").read_text(encoding="utf-8"))
        return rows

    category = {row["token"]: row["name"] for row in table("category")}
    classes = {row["token"]: CLASS_OF_CATEGORY.get(category[row["category_token"]]) for row in table("instance")}
    poses = {row["token"]: row["translation"] for row in table("ego_pose")}
    lidar = [row for row in table("sample_data") if row["is_key_frame"] and f"/{LIDAR}/" in row["filename"]]
    centre = {row["sample_token"]: poses[row["ego_pose_token"]] for row in lidar}
    boxes = []
    for row in table("sample_annotation"):
        name = classes[row["instance_token"]]
        if name is not None:
            gap = np.hypot(*np.subtract(row["translation"], centre[row["sample_token"]])[:2])
            boxes.append((name, float(gap), int(row["num_lidar_pts"])))
    sweeps: list[Floats] = [np.fromfile(root / row["filename"], np.float32).reshape(-1, 5) for row in lidar]
    return measure(sweeps, boxes)


def of_synthetic(scenes: int, seed: int = 0, seconds: tuple[float, ...] = (0.0, 2.5)) -> Figures:
    """Figures of some moments of some synthetic scenes."""
    sweeps: list[Floats] = []
    boxes = []
    for number in range(scenes):
        stage = build_stage((seed, number), 6)
        names = [actor.name for actor in stage.traffic.actors]
        for moment, time in ((stage.at(t), t) for t in seconds):
            ego = stage.ego(time)
            points = sweep(stage, moment, ego @ LIDAR_TO_EGO, np.random.default_rng(number))
            sweeps.append(points)
            echoes = points[np.linalg.norm(points[:, :3], axis=1) > EMPTY]
            counts = points_in_boxes(echoes, lidar_boxes(stage, moment, time)).sum(axis=1)
            gaps = np.linalg.norm(moment.poses[:, :2] - ego.translation[:2], axis=1)
            boxes += list(zip(names, gaps.tolist(), counts.tolist(), strict=True))
    return measure(sweeps, boxes)


def table(real: Figures, synthetic: Figures, enough: int = 4) -> str:
    """Both side by side, as Markdown; box cells with at least `enough` real boxes."""
    lines = ["| | real | synthetic | ratio |", "|---|---|---|---|"]

    def add(what: str, a: float, b: float, form: str) -> None:
        lines.append(f"| {what} | {a:{form}} | {b:{form}} | {b / a if a else float('nan'):.2f} |")

    add("rays per sweep", real.rays, synthetic.rays, ".0f")
    add(f"share below {EMPTY:.0f} m", real.empty, synthetic.empty, ".3f")
    for low, high, a, b in zip(RANGES, RANGES[1:], real.ranges, synthetic.ranges, strict=False):
        add(f"points from {low:g} to {high:g} m", float(a), float(b), ".0f")
    for share, a, b in zip(QUANTILES, real.intensities, synthetic.intensities, strict=True):
        add(f"intensity, {share:.0%} quantile", float(a), float(b), ".0f")
    for name in CLASSES:
        for cell in range(1, len(DISTANCES)):
            counts = real.boxes.get((name, cell), [])
            if len(counts) >= enough and (name, cell) in synthetic.boxes:
                what = f"{name} from {DISTANCES[cell - 1]:g} to {DISTANCES[cell]:g} m, points per box, as at 10 m"
                add(what, float(np.mean(counts)), float(np.mean(synthetic.boxes[name, cell])), ".1f")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare the synthetic LiDAR with a real one.")
    parser.add_argument("root", type=Path, help="a nuScenes folder")
    parser.add_argument("--version", default="v1.0-mini")
    parser.add_argument("--scenes", type=int, default=20, help="synthetic scenes, two moments each")
    arguments = parser.parse_args()
    text = table(of_nuscenes(arguments.root, arguments.version), of_synthetic(arguments.scenes))
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
