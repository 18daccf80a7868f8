"""Speed of the synthetic world on a CPU, and the pictures of docs/synth.md; `synth_gpu.py` is about GPUs.

    python benchmarks/synth.py speed
    python benchmarks/synth.py pictures docs [NUSCENES_ROOT]

CPU time per keyframe on one core of a shared 2-core virtual machine, scene set-up left out:

| preset | images | sweeps | s per keyframe | cameras | LiDAR | JPEG, tables, disk |
|---|---|---|---|---|---|---|
| tiny | 352 x 198 | 1 | 0.19 | 69% | 15% | 16% |
| small | 704 x 396 | 4 | 0.59 | 81% | 11% | 7% |
| full | 1600 x 900 | 9 | 3.24 | 94% | 4% | 3% |
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw

from aqr.geometry import BOX_EDGES, Pose, box_corners, points_in_boxes, project
from aqr.synth import recorder, sensors
from aqr.synth.camera import View, render
from aqr.synth.layout import KERB
from aqr.synth.lidar import sweep
from aqr.synth.lookalikes import repainted
from aqr.synth.objects import build
from aqr.synth.objects.paint import VERDIGRIS
from aqr.synth.presets import PRESETS
from aqr.synth.realism import RANGES, of_nuscenes, of_synthetic
from aqr.synth.recorder import record
from aqr.synth.rig import LIDAR_TO_EGO, Camera, draw_rig
from aqr.synth.scene import draw_scene, lidar_boxes
from aqr.synth.sensors import SceneJob
from aqr.synth.shadows import ShadowPainter
from aqr.synth.solids import Solids, block
from aqr.synth.stage import Moment, Stage
from aqr.synth.weather import Weather, draw_weather

matplotlib.use("Agg")

COLOURS = {
    "car": (255, 210, 0), "truck": (255, 140, 0), "bus": (255, 0, 255), "trailer": (255, 60, 60),
    "construction_vehicle": (80, 120, 255), "pedestrian": (0, 230, 255), "bicycle": (0, 170, 255),
    "motorcycle": (255, 150, 200), "barrier": (120, 255, 0), "traffic_cone": (255, 255, 255),
}  # fmt: skip
ROWS = (("CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT"), ("CAM_BACK_RIGHT", "CAM_BACK", "CAM_BACK_LEFT"))


def speed() -> None:
    spent: dict[str, float] = {}

    def timed(name: str, function: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*args: object, **options: object) -> object:
            begin = time.process_time()
            try:
                return function(*args, **options)
            finally:
                spent[name] = spent.get(name, 0.0) + time.process_time() - begin

        return wrapped

    parts = (("cameras", sensors, "render"), ("lidar", sensors, "sweep"), ("scene", recorder, "draw_scene"))
    for part, module, function in parts:
        setattr(module, function, timed(part, getattr(module, function)))
    for name, preset in PRESETS.items():
        spent.clear()
        short = replace(preset, keyframes=5)
        with tempfile.TemporaryDirectory() as folder:
            begin = time.process_time()
            record(SceneJob("scene-0061", 5, short), Path(folder), lambda: None)
            total = (time.process_time() - begin - spent["scene"]) / short.keyframes
        cameras, lidar = (spent[part] / short.keyframes for part in ("cameras", "lidar"))
        height, width = preset.image_size
        sys.stdout.write(
            f"| {name} | {width} x {height} | {preset.sweeps} | {total:.2f} | {cameras / total:.0%} | "
            f"{lidar / total:.0%} | {1 - (cameras + lidar) / total:.0%} |\n"
        )


def weather(words: str) -> Weather:
    return next(w for seed in range(500) if (w := draw_weather(np.random.default_rng(seed))).words == words)


def picture(stage: Stage, moment: Moment, ego: Pose, camera: Camera, size: tuple[int, int]) -> View:
    shadows = ShadowPainter(stage).paint(moment, ego)
    rng = np.random.default_rng(0)
    return render(stage, moment, shadows, ego @ camera.to_ego, ego, camera.intrinsic(size), size, rng)


def with_boxes(stage: Stage, moment: Moment, ego: Pose, camera: Camera, view: View) -> Image.Image:
    image = Image.fromarray(view.image)
    pen = ImageDraw.Draw(image)
    size = (image.height, image.width)
    intrinsic = np.eye(4)
    intrinsic[:3, :3] = camera.intrinsic(size)
    sizes = np.array([actor.model.size for actor in stage.traffic.actors])
    boxes = np.column_stack([moment.poses[:, :3] + np.array([0, 0, 0.5]) * sizes[:, 2:], sizes, moment.poses[:, 3]])
    pixels, depth = project(box_corners(boxes), intrinsic @ (ego @ camera.to_ego).inverse().matrix)
    for n, actor in enumerate(stage.traffic.actors):
        if (depth[n] < 0.3).any() or view.visible[n] < 12:
            continue
        for a, b in BOX_EDGES:
            pen.line([tuple(pixels[n, a]), tuple(pixels[n, b])], fill=COLOURS[actor.name], width=1)
    return image


def mosaic(rows: list[list[Image.Image]], gap: int = 4) -> Image.Image:
    width = max(sum(image.width + gap for image in row) for row in rows) - gap
    height = sum(max(image.height for image in row) + gap for row in rows) - gap
    out, y = Image.new("RGB", (width, height), "white"), 0
    for row in rows:
        x = 0
        for image in row:
            out.paste(image, (x, y))
            x += image.width + gap
        y += max(image.height for image in row) + gap
    return out


def pictures(out: Path, real: Path | None) -> None:
    rig = {camera.channel: camera for camera in draw_rig(np.random.default_rng(0))}
    seconds = 2.0
    stage = draw_scene((6, 61), 8)
    moment, ego = stage.at(seconds), stage.ego(seconds)
    size = (252, 448)
    rows = [
        [with_boxes(stage, moment, ego, rig[c], picture(stage, moment, ego, rig[c], size)) for c in row] for row in ROWS
    ]
    mosaic(rows).save(out / "synth-cameras.jpg", quality=84)

    words = ("Clear day", "Cloudy day", "Day, rain", "Day, fog", "Night", "Night, after rain")
    views = []
    for light in words:
        scene = replace(stage, weather=weather(light))
        views.append(Image.fromarray(picture(scene, moment, ego, rig["CAM_FRONT"], size).image))
    mosaic([views[:3], views[3:]]).save(out / "synth-weather.jpg", quality=84)
    _complementary(out, stage, rig["CAM_FRONT"])
    _lidar(out, stage, seconds, real)


def _alone(stage: Stage, things: list[Solids], light: str) -> tuple[Stage, Moment]:
    solids = Solids.stack(things)
    owners = np.repeat(np.arange(len(things)), [len(t) for t in things])
    scene = replace(
        stage, weather=weather(light), street=replace(stage.street, scenery=Solids.stack([])), lookalikes=()
    )
    return scene, Moment(solids, owners, np.zeros((len(solids), 4)), np.zeros((len(things), 4)))


def _complementary(out: Path, stage: Stage, camera: Camera) -> None:
    """Experiments on an empty street: what the camera shows beside what the LiDAR returns."""
    ego = Pose(np.eye(3), np.array([2.0, 0.0, 0.0]))

    def make(name: str, seed: int, x: float, y: float, yaw: float = 0.0) -> Solids:
        return build(name, np.random.default_rng(seed)).solids.placed(x, y, KERB, yaw)

    def twin(name: str, seed: int, x: float, y: float, yaw: float = 0.0) -> Solids:
        return repainted(make(name, seed, x, y, yaw), VERDIGRIS, np.random.default_rng(seed))

    people = [build("pedestrian", np.random.default_rng(s)) for s in range(50)]
    short = next(person for person in people if 1.60 < person.size[2] < 1.67)
    wall = block((10.6, 11.0), (-2.0, 3.0), (0.0, 1.62), (0.35, 0.3, 0.25))
    sets: list[tuple[str, str, list[Solids]]] = [
        ("objects and their look-alikes", "Clear day",
         [make("traffic_cone", 0, 13.0, 3.4), twin("traffic_cone", 0, 13.0, 2.4),
          make("barrier", 1, 13.5, 0.4), twin("barrier", 1, 13.5, -2.5),
          make("pedestrian", 4, 13.6, -4.3), twin("pedestrian", 4, 13.6, -5.2)]),
        ("pedestrians in the dark", "Night", [make("pedestrian", 4, 30.0, 8.5), make("pedestrian", 5, 24.0, -7.0)]),
        ("a pedestrian behind a wall", "Clear day", [wall, short.solids.placed(17.0, 0.5, 0.0, 0.0)]),
        ("cones at 52 m", "Clear day", [make("traffic_cone", s, 52.0, y) for s, y in enumerate((-4.0, -1.0, 2.0))]),
    ]  # fmt: skip
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, len(sets), figsize=(14, 5.4), height_ratios=(1, 1.2), layout="constrained")
    figure.get_layout_engine().set(wspace=0.04)
    for column, (title, light, things) in enumerate(sets):
        scene, moment = _alone(stage, things, light)
        view = picture(scene, moment, ego, camera, (450, 800))
        lidar = ego @ LIDAR_TO_EGO
        points = sweep(scene, moment, lidar, np.random.default_rng(0)).astype(np.float64)
        spots = lidar.apply(points[np.linalg.norm(points[:, :3], axis=1) > 2, :3])
        spots = spots[(spots[:, 2] > KERB + 0.1) & (spots[:, 0] > 8)]
        corners = moment.solids.corners.reshape(-1, 3)
        intrinsic = np.eye(4)
        intrinsic[:3, :3] = camera.intrinsic((450, 800))
        pixels, _ = project(corners, intrinsic @ (ego @ camera.to_ego).inverse().matrix)
        (u0, v0), (u1, v1) = pixels.min(axis=0) - 12, pixels.max(axis=0) + 12
        above, below = axes[:, column]
        width = min(max(u1 - u0, (v1 - v0) * 16 / 9), 800)
        height = width * 9 / 16
        left, top = (np.clip((u0 + u1 - width) / 2, 0, 800 - width), np.clip((v0 + v1 - height) / 2, 0, 450 - height))
        above.imshow(view.image)
        above.set(xlim=(left, left + width), ylim=(top + height, top), xticks=[], yticks=[])
        above.set_title(title, fontsize=14)
        drawn = below.scatter(-spots[:, 1], spots[:, 2], s=16, c=spots[:, 0] - lidar.translation[0],
                              cmap="viridis_r", norm=LogNorm(7, 60))  # fmt: skip
        below.set(xlim=(-corners[:, 1].max() - 1, -corners[:, 1].min() + 1), ylim=(-0.1, 2.2))
        below.tick_params(labelsize=12, labelleft=column == 0)
        below.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes[0, 0].set_ylabel("camera", fontsize=13)
    axes[1, 0].set_ylabel("LiDAR: height, m", fontsize=13)
    figure.supxlabel("metres to the right of the vehicle", fontsize=13)
    bar = figure.colorbar(drawn, ax=axes[1], pad=0.01, aspect=12, ticks=[10, 20, 30, 50], format="%d")
    bar.ax.minorticks_off()
    bar.set_label("distance ahead, m", fontsize=13)
    bar.ax.tick_params(labelsize=12)
    figure.savefig(out / "synth-complementary.png", dpi=90)
    plt.close(figure)


def _lidar(out: Path, stage: Stage, seconds: float, real: Path | None) -> None:
    from matplotlib import pyplot as plt

    moment, ego = stage.at(seconds), stage.ego(seconds)
    points = sweep(stage, moment, ego @ LIDAR_TO_EGO, np.random.default_rng(0))
    figure, (top, bars) = plt.subplots(1, 2, figsize=(14, 6.8), width_ratios=(1.15, 1), layout="constrained")
    far = np.linalg.norm(points[:, :3], axis=1) > 2
    shade = np.minimum(points[far, 3], 60)
    dots = top.scatter(points[far, 0], points[far, 1], s=0.8, c=shade, cmap="Greys", vmin=-30, vmax=60, linewidths=0)
    bar = figure.colorbar(dots, ax=top, pad=0.01, aspect=40, extend="max", boundaries=np.linspace(0, 60, 61))
    bar.set_label("intensity", fontsize=12)
    bar.set_ticks([0, 20, 40, 60])
    boxes = lidar_boxes(stage, moment, seconds)
    inside = points_in_boxes(points[far], boxes)
    drawn: dict[str, Line2D] = {}
    on_white = COLOURS | {"traffic_cone": (150, 60, 0), "bicycle": (0, 60, 255), "construction_vehicle": (130, 60, 255)}
    for box, actor, echoes in zip(boxes, stage.traffic.actors, inside, strict=True):
        if not echoes.any():
            continue
        corner = box_corners(box[None])[0, [0, 1, 2, 3, 0], :2]
        (drawn[actor.name],) = top.plot(*corner.T, color=np.array(on_white[actor.name]) / 300, linewidth=1.6)
    top.set(xlim=(-45, 45), ylim=(-40, 50), aspect="equal")
    top.set_title("One synthetic sweep and its boxes, LiDAR frame, m", fontsize=13)
    names = [name for name in COLOURS if name in drawn]
    words = [name.replace("_", " ") for name in names]
    figure.legend(
        [drawn[name] for name in names], words, loc="outside lower center", ncols=10, handlelength=1, columnspacing=1.2
    )
    place = np.arange(len(RANGES) - 1)
    if real is not None:
        bars.bar(place - 0.2, of_nuscenes(real).ranges, 0.4, label="one real nuScenes sweep", color="tab:orange")
    synthetic = of_synthetic(20)
    bars.bar(place + 0.2, synthetic.ranges, 0.4, label="synthetic, mean of 40 sweeps", color="tab:blue")
    bars.set_xticks(place, [f"{a:g}–{b:g}" for a, b in pairwise(RANGES)], rotation=45)
    bars.set_title("Points per sweep by range", fontsize=13)
    bars.set_xlabel("range, m", fontsize=12)
    bars.set_ylabel("points", fontsize=12)
    bars.legend(fontsize=12)
    for axes in (top, bars, bar.ax):
        axes.tick_params(labelsize=11)
    figure.savefig(out / "synth-lidar.png", dpi=80)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["speed", "pictures"])
    parser.add_argument("out", type=Path, nargs="?", default=Path("docs"))
    parser.add_argument("real", type=Path, nargs="?")
    arguments = parser.parse_args()
    if arguments.what == "speed":
        speed()
    else:
        pictures(arguments.out, arguments.real)


if __name__ == "__main__":
    main()
