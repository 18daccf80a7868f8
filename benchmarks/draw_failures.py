"""Draws docs/failures.jpg: every sensor failure on one keyframe of a synthetic world.

aqr synth /tmp/world --scenes 2 --seed 5 --preset tiny
python benchmarks/draw_failures.py /tmp/world docs/failures.jpg
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from aqr.config import parse
from aqr.data.dataset import NuScenesDataset
from aqr.data.failures.catalogue import KINDS, LIDAR, Failure
from aqr.data.failures.harm import Corruption
from aqr.data.samples import Sample
from aqr.geometry import box_corners, in_image, points_in_boxes, project

SEVERITY = 2
NUMBER = 4
CAMERA = 0
SIZE = (160, 352)


def sample(root: str, failure: Failure | None) -> Sample:
    config = parse({"data": {"root": root, "version": "v1.0-mini", "sweeps": 0, "image": {"size": SIZE}}})
    corruption = None if failure is None else Corruption(failure)
    return NuScenesDataset(
        config.data,
        config.sensors,
        "mini_train",
        training=False,
        pc_range=config.detector.pc_range,
        corruption=corruption,
    )[NUMBER]


def draw_points(ax: Any, shown: Sample) -> None:
    points = shown.points
    ax.scatter(points[:, 0], points[:, 1], c=points[:, 2], s=1.6, vmin=-3, vmax=2, cmap="viridis", linewidths=0)
    inside = points_in_boxes(points, shown.boxes)
    for corners, held in zip(box_corners(shown.boxes)[:, [0, 1, 2, 3, 0], :2], inside, strict=True):
        ax.plot(*corners.T, color="#d1495b", linewidth=1.3, linestyle="-" if held.any() else (0, (2, 1.5)))
    ax.set(xlim=(-26, 24), ylim=(-16, 16), aspect="equal")


def draw_cameras(ax: Any, shown: Sample) -> None:
    images = shown.images.transpose(0, 2, 3, 1)
    ax.imshow(np.concatenate([np.concatenate(images[order], axis=1) for order in ([2, 0, 1], [4, 3, 5])]))


def draw_overlay(ax: Any, shown: Sample) -> None:
    pixels, depth = project(shown.points[:, :3].astype(np.float64), shown.lidar2img[CAMERA])
    seen = in_image(pixels, depth, SIZE)
    ax.imshow(shown.images[CAMERA].transpose(1, 2, 0))
    ax.scatter(*pixels[seen].T, c=depth[seen], s=3, vmax=45, cmap="turbo", linewidths=0)
    ax.set(xlim=(0, SIZE[1]), ylim=(SIZE[0], 0))


def main(root: str, out: str) -> None:
    clean = sample(root, None)
    tiles: list[tuple[str, Sample, Any]] = [("LiDAR", clean, draw_points)]
    pictures: list[tuple[str, Sample, Any]] = [
        ("camera", clean, lambda ax, s: ax.imshow(s.images[CAMERA].transpose(1, 2, 0)))
    ]
    overlays: list[tuple[str, Sample, Any]] = [("points on the image", clean, draw_overlay)]
    for kind in KINDS:
        failure = Failure(kind.name, SEVERITY if SEVERITY in kind.severities else 3)
        title, shown = f"{failure.name}:{failure.severity}", sample(root, failure)
        if kind.name == "missing_camera":
            pictures.append((title, shown, draw_cameras))
        elif len(kind.needs) > 1:
            overlays.append((title, shown, draw_overlay))
        elif LIDAR in kind.needs:
            tiles.append((title, shown, draw_points))
        else:
            pictures.append((title, shown, pictures[0][2]))
    figure = Figure(figsize=(14, 12.4), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(5, 4, height_ratios=[1.4, 1.4, 1, 1, 1.95])
    places = [*(grid[row, column] for row in range(4) for column in range(4)), grid[4, :2], grid[4, 2:]]
    for place, (title, shown, draw) in zip(places, [*tiles, *pictures, *overlays], strict=True):
        ax = figure.add_subplot(place)
        draw(ax, shown)
        ax.set_title(title, fontsize=12)
        ax.set(xticks=[], yticks=[])
    figure.supxlabel(
        "LiDAR from above, 50 m × 32 m, points by height; red: annotated boxes, dashed where they hold no point. "
        "Below: points by depth.",
        fontsize=12,
    )
    figure.savefig(out, dpi=100, pil_kwargs={"quality": 85})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("world", help="folder that `aqr synth` wrote, tiny, of two scenes at least")
    parser.add_argument("out", help="picture to write, JPEG")
    arguments = parser.parse_args()
    main(arguments.world, arguments.out)
