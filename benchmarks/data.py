"""How many samples per second and core the loader reads, and where the time goes.

    python benchmarks/data.py [--frame ../shared/data/nuscenes-one] [--workers 1,2] [--out data.json]

Reads the training configuration of configs/nuscenes_r50_320x800.yaml (320 x 800 pixels, augmentation, ten sweeps) from
one real nuScenes keyframe: its six 1600 x 900 JPEGs, and its LiDAR scan also as ten earlier sweeps, which a single
keyframe does not come with. Files are in the page cache, so a slow disk is not part of the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from aqr.config import Config, parse
from aqr.data.dataset import NuScenesDataset
from aqr.data.images import place, read_image
from aqr.data.loader import train_loader
from aqr.data.samples import collate
from aqr.taxonomy import LIDAR

SWEEPS = 10
SWEEP_US = 50_000
STEP_S = 0.050
"""A training step of BATCH samples on one GPU that is to be kept busy."""
BATCH = 4


def with_sweeps(source: Path, root: Path) -> None:
    """The keyframe's data set under `root`, with ten sweeps before the keyframe while the vehicle drove straight on."""
    shutil.copytree(source, root)
    folder = root / "v1.0-mini"
    tables = {name: json.loads((folder / f"{name}.json").read_text()) for name in ("sample_data", "ego_pose")}
    key = next(record for record in tables["sample_data"] if LIDAR in record["filename"])
    pose = next(record for record in tables["ego_pose"] if record["token"] == key["ego_pose_token"])
    (root / "sweeps" / LIDAR).mkdir(parents=True)
    next_record = key
    for number in range(1, SWEEPS + 1):
        name = f"{number:032x}"
        path = f"sweeps/{LIDAR}/{name}.pcd.bin"
        shutil.copy(root / key["filename"], root / path)
        moment = key["timestamp"] - number * SWEEP_US
        shift = [pose["translation"][0] - 0.4 * number, *pose["translation"][1:]]
        tables["ego_pose"].append({**pose, "token": name, "timestamp": moment, "translation": shift})
        record = {
            **key,
            "token": name,
            "ego_pose_token": name,
            "timestamp": moment,
            "is_key_frame": False,
            "filename": path,
            "prev": "",
            "next": next_record["token"],
        }
        next_record["prev"] = name
        tables["sample_data"].append(record)
        next_record = record
    for name, records in tables.items():
        (folder / f"{name}.json").write_text(json.dumps(records))


def settings(root: Path, workers: int, steps: int = 1, **sensors: object) -> Config:
    values = {
        "data": {"root": str(root), "version": "v1.0-mini", "train_split": "mini_train", "workers": workers},
        "train": {"steps": steps},
        "sensors": sensors,
    }
    return parse(values, "benchmark")


def dataset(config: Config) -> NuScenesDataset:
    return NuScenesDataset(
        config.data, config.sensors, "mini_train", training=True, pc_range=config.detector.pc_range, seed=0
    )


def milliseconds(operation: Callable[[int], object], runs: int) -> float:
    """Median processor time of one call, given the number of the run: what others do on this machine does not count."""
    operation(0)
    times = []
    for number in range(runs):
        start = time.process_time()
        operation(number)
        times.append(1e3 * (time.process_time() - start))
    return statistics.median(times)


def stages(root: Path, runs: int) -> dict[str, float]:
    """Milliseconds per sample on one core."""
    both = dataset(settings(root, 0))
    images = dataset(settings(root, 0, lidar=False))
    points = dataset(settings(root, 0, cameras=[]))

    def drawn(data: NuScenesDataset) -> Callable[[int], object]:
        def read(number: int) -> object:
            data.set_epoch(number)
            return data[0]

        return read

    paths = sorted(root.glob("samples/CAM_*/*.jpg"))
    same = place((900, 1600), (320, 800))

    def decode(size: tuple[int, int]) -> Callable[[int], object]:
        def read(_: int) -> None:
            for path in paths:
                with Image.open(path) as image:
                    image.draft("RGB", size)
                    image.load()

        return read

    four = [both[0]] * BATCH

    return {
        "a training sample": milliseconds(drawn(both), runs),
        "its images alone": milliseconds(drawn(images), runs),
        "its points alone": milliseconds(drawn(points), runs),
        "putting 4 samples together, per sample": milliseconds(lambda _: collate(four), runs) / BATCH,
        "six images at the scale of inference": milliseconds(lambda _: [read_image(p, same) for p in paths], runs),
        "  decoding them at 1/2": milliseconds(decode((800, 450)), runs),
        "  decoding them whole, for comparison": milliseconds(decode((1600, 900)), runs),
    }


def throughput(root: Path, workers: int, batches: int) -> float:
    """Samples per second through the training loader with so many worker processes."""
    skipped = 2 * max(workers, 1)
    loader = train_loader(settings(root, workers, steps=batches + skipped))
    start = 0.0
    for number, _ in enumerate(loader):
        if number == skipped - 1:
            start = time.perf_counter()
    return batches * BATCH / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    beside = Path(__file__).parents[1].parent / "shared"
    default = Path(os.environ.get("AQR_SHARED", beside)) / "data" / "nuscenes-one"
    parser.add_argument("--frame", type=Path, default=default)
    parser.add_argument("--workers", default="1,2", help="numbers of worker processes, such as 1,2,8")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "data"
        with_sweeps(arguments.frame, root)
        count = len(dataset(settings(root, 0))[0].points)
        print(f"{os.cpu_count()} cores; a sample: 6 JPEGs of 1600 x 900, {count:,} points of {SWEEPS + 1} sweeps")
        ms = stages(root, arguments.runs)
        for what, value in ms.items():
            print(f"{what:45s} {value:8.1f} ms")
        rates: dict[int, float] = {}
        for workers in map(int, arguments.workers.split(",")):
            rate = throughput(root, workers, arguments.batches * max(workers, 1))
            rates[workers] = rate
            print(f"{workers} workers: {rate:6.1f} samples/s, {rate / max(workers, 1):5.1f} per worker")
        best = max(rate / max(workers, 1) for workers, rate in rates.items())
        needed = int(np.ceil(BATCH / STEP_S / best))
        print(f"{needed} cores keep a GPU busy that takes {1e3 * STEP_S:.0f} ms for {BATCH} samples")
        found = {"cores": os.cpu_count(), "points": count, "ms": ms, "samples_per_s": rates, "cores_needed": needed}
        if arguments.out:
            arguments.out.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
