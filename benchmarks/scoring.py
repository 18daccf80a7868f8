"""How fast detections are scored, beside the official evaluator.

    python benchmarks/scoring.py                 # 6,019 samples x 300 boxes, as nuScenes val; several minutes
    python benchmarks/scoring.py --samples 600   # a tenth of it
    python benchmarks/scoring.py --growth        # evaluate() alone, 100 to 100,000 samples

The split is made up: as many objects of each class as in nuScenes val on average, in scenes that differ as much as
scenes do, and 300 detections a sample of which about half sit on objects, several on one, the others anywhere. The
devkit gets boxes that are loaded and filtered already, and its results are compared with ours. `aqr score` starts as a
process of its own on tables and results.json on disk.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from aqr.data.splits import scenes_of
from aqr.scoring import GroundTruth, Metrics, Predictions, Racks, Samples, evaluate, intervals, write_submission
from aqr.scoring.filters import scored
from aqr.taxonomy import ATTRIBUTES, CLASS_OF_CATEGORY, CLASSES, LIDAR

VAL_SAMPLES = 6019
BOXES = 300
SAMPLES_PER_SCENE = 40
OBJECTS_PER_SAMPLE = np.array([12.7, 2.6, 0.4, 0.5, 0.6, 4.2, 0.35, 0.33, 6.7, 2.5])
"""Of each class, about as in nuScenes val."""


def make_split(samples: int, boxes: int, seed: int = 0) -> tuple[GroundTruth, Predictions]:
    """Ground truth and detections of a made-up split."""
    rng = np.random.default_rng(seed)
    scenes = -(-samples // SAMPLES_PER_SCENE)
    scene = np.arange(samples) // SAMPLES_PER_SCENE
    ego = np.column_stack([rng.uniform(0, 2500, (scenes, 2))[scene], np.zeros(samples)])
    ego[:, 0] += np.arange(samples) % SAMPLES_PER_SCENE * 3.0
    rate = OBJECTS_PER_SAMPLE * rng.gamma(0.7, 1 / 0.7, (scenes, len(CLASSES)))
    counts = rng.poisson(rate[scene])
    sample = np.repeat(np.arange(samples), counts.sum(axis=1)).astype(np.int32)
    label = np.repeat(np.tile(np.arange(len(CLASSES), dtype=np.int8), samples), counts.reshape(-1))
    total = len(sample)
    velocity = rng.normal(size=(total, 2)) * 2
    velocity[rng.random(total) < 0.03] = np.nan
    truth = GroundTruth(
        samples=Samples(
            tokens=tuple(f"{number:032x}" for number in range(samples)),
            ego=ego,
            scene=scene,
            racks=Racks.none(),
            night=scene % 10 == 0,
            rain=scene % 5 == 0,
        ),
        sample=sample,
        translation=ego[sample] + around(rng, total),
        size=rng.uniform(0.5, 5.0, (total, 3)),
        rotation=about_z(rng.uniform(-np.pi, np.pi, total)),
        velocity=velocity,
        label=label,
        attribute=rng.integers(-1, len(ATTRIBUTES), total, dtype=np.int8),
        num_points=rng.poisson(20, total),
        num_lidar_points=rng.poisson(20, total),
        visibility=rng.integers(1, 5, total),
    )
    return truth, detect(rng, truth, rate[scene], boxes)


def detect(rng: np.random.Generator, truth: GroundTruth, rate: np.ndarray, boxes: int) -> Predictions:
    samples = len(truth.samples)
    objects = np.bincount(truth.sample, minlength=samples)
    first = np.cumsum(objects) - objects
    sample = np.repeat(np.arange(samples, dtype=np.int32), boxes)
    total = len(sample)
    on_object = (rng.random(total) < 0.5) & (objects[sample] > 0)
    source = np.where(on_object, first[sample] + (rng.random(total) * objects[sample]).astype(np.int64), 0)
    share = np.cumsum(rate, axis=1) / rate.sum(axis=1, keepdims=True)
    wild_label = (rng.random(total)[:, None] > share[sample]).sum(axis=1).astype(np.int8).clip(max=len(CLASSES) - 1)
    keeps_label = on_object & (rng.random(total) < 0.9)
    near = truth.translation[source] + rng.normal(size=(total, 3)) * rng.gamma(1.0, 0.7, (total, 1))
    return Predictions(
        sample=sample,
        translation=np.where(on_object[:, None], near, truth.samples.ego[sample] + around(rng, total)),
        size=truth.size[source] * rng.uniform(0.8, 1.25, (total, 3)),
        rotation=truth.rotation[source] + rng.normal(size=(total, 4)) * 0.05,
        velocity=np.nan_to_num(truth.velocity[source]) + rng.normal(size=(total, 2)) * 0.3,
        label=np.where(keeps_label, truth.label[source], wild_label).astype(np.int8),
        attribute=np.where(rng.random(total) < 0.2, -1, truth.attribute[source]).astype(np.int8),
        score=np.where(on_object, rng.beta(1, 3, total), rng.beta(1, 12, total)).astype(np.float32).astype(np.float64),
    )


def around(rng: np.random.Generator, count: int) -> np.ndarray:
    """[count, 3] offsets from the vehicle, denser where it is near."""
    radius, angle = 55 * rng.random(count) ** 0.7, rng.uniform(-np.pi, np.pi, count)
    return np.column_stack([radius * np.cos(angle), radius * np.sin(angle), rng.normal(size=count)])


def about_z(yaw: np.ndarray) -> np.ndarray:
    nothing = np.zeros(len(yaw))
    return np.column_stack([np.cos(yaw / 2), nothing, nothing, np.sin(yaw / 2)])


def timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Seconds on the clock, seconds of CPU, result."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def devkit_evaluate(truth: GroundTruth, predictions: Predictions) -> tuple[float, float, dict[str, Any]]:
    """The official `DetectionEval.evaluate` on the boxes that are left after the filters."""
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.common.data_classes import EvalBoxes
    from nuscenes.eval.detection.data_classes import DetectionBox
    from nuscenes.eval.detection.evaluate import DetectionEval

    def convert(boxes: GroundTruth | Predictions) -> EvalBoxes:
        kept = boxes.take(scored(boxes, truth.samples))
        score = kept.score if isinstance(kept, Predictions) else np.full(len(kept), -1.0)
        result = EvalBoxes()
        for token in truth.samples.tokens:
            result.add_boxes(token, [])
        columns = (kept.translation, kept.size[:, [1, 0, 2]], kept.rotation, kept.velocity, kept.label, kept.attribute)
        rows = zip(kept.sample.tolist(), *(column.tolist() for column in columns), score.tolist(), strict=True)
        for sample, translation, size, rotation, velocity, label, attribute, value in rows:
            token = truth.samples.tokens[sample]
            result.boxes[token].append(
                DetectionBox(
                    sample_token=token,
                    translation=tuple(translation),
                    size=tuple(size),
                    rotation=tuple(rotation),
                    velocity=tuple(velocity),
                    detection_name=CLASSES[label],
                    detection_score=value,
                    attribute_name="" if attribute < 0 else ATTRIBUTES[attribute],
                )
            )
        return result

    official = DetectionEval.__new__(DetectionEval)
    official.cfg = config_factory("detection_cvpr_2019")
    official.verbose = False
    official.gt_boxes, official.pred_boxes = convert(truth), convert(predictions)
    wall, cpu, (metrics, _) = timed(official.evaluate)
    return wall, cpu, metrics.serialize()


def largest_difference(ours: Any, theirs: Any) -> float:
    """Largest difference of two nested dictionaries of numbers, `eval_time` apart."""
    if isinstance(theirs, dict):
        pairs = [(a, b) for (key, b), a in zip(theirs.items(), ours.values(), strict=True) if key != "eval_time"]
        return max(largest_difference(a, b) for a, b in pairs)
    if isinstance(theirs, int | float):
        return 0.0 if np.isnan(ours) and np.isnan(theirs) else abs(ours - theirs)
    return 0.0


def write_tables(folder: Path, truth: GroundTruth) -> None:
    """nuScenes tables of the split, as scenes of val: samples, LiDAR keyframes and annotations."""
    names = sorted(scenes_of("val"))
    tokens, samples = truth.samples.tokens, truth.samples
    category_of = {name: category for category, name in CLASS_OF_CATEGORY.items()}
    upright = [1.0, 0.0, 0.0, 0.0]
    scene = np.minimum(samples.scene, len(names) - 1).tolist()
    tables: dict[str, list[dict[str, Any]]] = {
        "log": [{"token": "log", "logfile": "", "vehicle": "", "date_captured": "", "location": ""}],
        "map": [{"token": "map", "category": "", "filename": "", "log_tokens": ["log"]}],
        "category": [{"token": name, "name": name, "description": ""} for name in category_of.values()],
        "attribute": [{"token": name, "name": name, "description": ""} for name in ATTRIBUTES],
        "visibility": [
            {"token": str(level), "level": name, "description": ""}
            for level, name in enumerate(("v0-40", "v40-60", "v60-80", "v80-100"), start=1)
        ],
        "sensor": [{"token": LIDAR, "channel": LIDAR, "modality": "lidar"}],
        "calibrated_sensor": [
            {
                "token": LIDAR,
                "sensor_token": LIDAR,
                "translation": [0, 0, 1.8],
                "rotation": upright,
                "camera_intrinsic": [],
            }
        ],
        "scene": [
            {"token": str(n), "log_token": "log", "name": names[n], "description": "Night" if n % 10 == 0 else ""}
            for n in range(max(scene) + 1)
        ],
        "sample": [
            {"token": token, "timestamp": 500_000 * n, "prev": "", "next": "", "scene_token": str(scene[n])}
            for n, token in enumerate(tokens)
        ],
        "ego_pose": [
            {"token": token, "timestamp": 500_000 * n, "rotation": upright, "translation": samples.ego[n].tolist()}
            for n, token in enumerate(tokens)
        ],
        "sample_data": [
            {
                "token": token,
                "sample_token": token,
                "ego_pose_token": token,
                "calibrated_sensor_token": LIDAR,
                "timestamp": 500_000 * n,
                "fileformat": "pcd",
                "is_key_frame": True,
                "height": 0,
                "width": 0,
                "filename": f"samples/{LIDAR}/{token}.pcd.bin",
                "prev": "",
                "next": "",
            }
            for n, token in enumerate(tokens)
        ],
        "instance": [
            {"token": str(n), "category_token": category_of[CLASSES[label]]}
            for n, label in enumerate(truth.label.tolist())
        ],
        "sample_annotation": [
            {
                "token": str(n),
                "sample_token": tokens[truth.sample[n]],
                "instance_token": str(n),
                "visibility_token": str(truth.visibility[n]),
                "attribute_tokens": [ATTRIBUTES[truth.attribute[n]]] if truth.attribute[n] >= 0 else [],
                "translation": truth.translation[n].tolist(),
                "size": truth.size[n, [1, 0, 2]].tolist(),
                "rotation": truth.rotation[n].tolist(),
                "prev": "",
                "next": "",
                "num_lidar_pts": int(truth.num_points[n]),
                "num_radar_pts": 0,
            }
            for n in range(len(truth))
        ],
    }
    folder.mkdir(parents=True)
    for name, records in tables.items():
        (folder / f"{name}.json").write_text(json.dumps(records))


SCORE = """
import resource, sys, time
start = time.perf_counter()
from aqr.scoring import score_files
options = {"bootstrap": 1000, "breakdown": True} if len(sys.argv) > 4 else {}
score_files(sys.argv[1], sys.argv[2], "v1.0-trainval", "val", sys.argv[3], **options)
usage = resource.getrusage(resource.RUSAGE_SELF)
print(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e6)
"""


def row(what: str, wall: float, cpu: float, note: str = "") -> None:
    print(f"| {what} | {wall:.2f} s | {cpu:.2f} s | {note} |", flush=True)


def side_by_side(samples: int, devkit: bool, folder: Path) -> None:
    truth, predictions = make_split(samples, BOXES)
    kept = int(scored(predictions, truth.samples).sum())
    print(f"{samples:,} samples, {len(truth):,} objects, {len(predictions):,} detections, {kept:,} of them in range\n")
    print("| what | clock | CPU | |\n|---|---|---|---|")
    runs = [timed(lambda: evaluate(truth, predictions)) for _ in range(3)]
    wall, cpu, metrics = min(runs, key=lambda run: run[1])
    row("evaluate(), filters and checks included", wall, cpu, f"mAP {metrics.mean_ap:.4f}, NDS {metrics.nds:.4f}")
    wall_bootstrap, cpu_bootstrap, _ = timed(lambda: intervals(metrics, 1000))
    row("intervals from 1,000 resamples", wall_bootstrap, cpu_bootstrap)
    from_disk(truth, predictions, folder)
    if devkit:
        compare(truth, predictions, metrics, wall, cpu)


def compare(truth: GroundTruth, predictions: Predictions, metrics: Metrics, wall: float, cpu: float) -> None:
    wall_devkit, cpu_devkit, theirs = devkit_evaluate(truth, predictions)
    ours = metrics.summary()
    del ours["meta"]
    ratio = f"{wall_devkit / wall:.0f} x on the clock, {cpu_devkit / cpu:.0f} x in CPU"
    row("nuscenes-devkit 1.2.0, evaluate() alone", wall_devkit, cpu_devkit, ratio)
    print(f"\nlargest difference of any figure: {largest_difference(ours, theirs):.1e}")


def from_disk(truth: GroundTruth, predictions: Predictions, folder: Path) -> None:
    results = folder / "results.json"
    wall, cpu, _ = timed(lambda: write_submission(results, truth.samples.tokens, predictions))
    row("write_submission()", wall, cpu, f"{results.stat().st_size / 1e6:.0f} MB")
    write_tables(folder / "v1.0-trainval", truth)
    for what, arguments in (
        ("aqr score, tables read for the first time", []),
        ("aqr score", []),
        ("aqr score --bootstrap 1000 --breakdown", ["more"]),
    ):
        command = [sys.executable, "-c", SCORE, str(results), str(folder), str(folder / "metrics.json"), *arguments]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        wall, cpu, memory = map(float, output.split())
        row(what, wall, cpu, f"{memory:.2f} GB at most")


def growth() -> None:
    print("| samples | detections | evaluate(), clock | CPU | CPU per 1,000 samples | memory at most |")
    print("|---|---|---|---|---|---|", flush=True)
    for samples in (100, 1_000, 10_000, 100_000):
        subprocess.run([sys.executable, __file__, "--one-size", str(samples)], check=True)


def one_size(samples: int) -> None:
    truth, predictions = make_split(samples, BOXES)
    repeat = 5 if samples <= 1_000 else 1
    wall, cpu, _ = min((timed(lambda: evaluate(truth, predictions)) for _ in range(repeat)), key=lambda run: run[1])
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"| {samples:,} | {len(predictions):,} | {wall:.3f} s | {cpu:.3f} s | {cpu / samples * 1e6:.0f} ms "
        f"| {memory:.1f} GB |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=VAL_SAMPLES)
    parser.add_argument("--no-devkit", action="store_true", help="leave the devkit out")
    parser.add_argument("--growth", action="store_true", help="evaluate() alone, 100 to 100,000 samples")
    parser.add_argument("--one-size", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one_size:
        one_size(arguments.one_size)
    elif arguments.growth:
        growth()
    else:
        with tempfile.TemporaryDirectory() as folder:
            side_by_side(arguments.samples, not arguments.no_devkit, Path(folder))


if __name__ == "__main__":
    main()
