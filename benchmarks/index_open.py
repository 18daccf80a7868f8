"""How long opening a data set of nuScenes trainval's size takes, and how much memory.

    python benchmarks/index_open.py [--scenes 850]

Writes tables of that size (34,149 samples, 2.6 million recordings, 1.17 million annotations; no sensor files) into a
temporary folder, then opens them twice, each time in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from aqr.data.tables import TABLES
from aqr.taxonomy import ATTRIBUTES, CAMERAS, CLASS_OF_CATEGORY, LIDAR

RADARS = ("RADAR_FRONT", "RADAR_FRONT_LEFT", "RADAR_FRONT_RIGHT", "RADAR_BACK_LEFT", "RADAR_BACK_RIGHT")
SAMPLES = 34_149
RECORDINGS_PER_SAMPLE = {LIDAR: 10, "camera": 6, "radar": 6}
ANNOTATIONS_PER_SAMPLE = 34
SCENES = 850

OPEN = """
import re, sys, time
from pathlib import Path
from aqr.data.index import open_index
start = time.perf_counter()
index = open_index(sys.argv[1], "v1.0-trainval")
seconds = time.perf_counter() - start
start = time.perf_counter()
truth = index.ground_truth(index.split("val"))
truth_seconds = time.perf_counter() - start
peak = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
print(f"{seconds:8.1f} s  {peak:8.0f} MB peak  ({len(index)} samples, {len(index.scans.path)} sweeps, "
      f"{len(index.images.path)} images, {len(index.annotations.token)} annotations; "
      f"ground truth of val: {len(truth.label)} boxes in {truth_seconds:.2f} s)")
"""


def token(kind: int, number: int) -> str:
    return f"{kind:02x}{number:030x}"


def write(folder: Path, table: str, records: Iterable[dict[str, object]]) -> None:
    with (folder / f"{table}.json").open("w", encoding="utf-8") as file:
        file.write("[\n")
        for number, record in enumerate(records):
            file.write((",\n" if number else "") + json.dumps(record, indent=0))
        file.write("\n]")


def write_large(folder: Path, table: str, records: Iterable[str]) -> None:
    with (folder / f"{table}.json").open("w", encoding="utf-8") as file:
        file.write("[\n" + next(iter(records)))
        file.writelines(",\n" + record for record in records)
        file.write("\n]")


def recordings(samples: int) -> Iterable[tuple[int, int, str, str, bool, int, int]]:
    """Number, sample, folder, channel, keyframe, previous number, microseconds of each recording."""
    counts = {name: RECORDINGS_PER_SAMPLE.get(name, 6) for name in (LIDAR, *CAMERAS, *RADARS)}
    per_sample = sum(counts.values())
    start = 0
    for channel, count in counts.items():
        for sample in range(samples):
            for sweep in range(count):
                number = sample * per_sample + start + sweep
                is_key = sweep == count - 1
                before = number - 1 if sweep else number - per_sample + count - 1
                previous = before if sample % 40 or sweep else -1
                stamp = 1_500_000_000_000_000 + sample * 500_000 + sweep * 500_000 // count
                yield number, sample, "samples" if is_key else "sweeps", channel, is_key, previous, stamp
        start += count


def make(root: Path, scenes: int) -> None:
    folder = root / "v1.0-trainval"
    folder.mkdir(parents=True)
    samples = SAMPLES * scenes // SCENES
    random = np.random.default_rng(0)
    from aqr.data.splits import scenes_of

    names = sorted(scenes_of("train") | scenes_of("val"))[:scenes]
    categories = (*CLASS_OF_CATEGORY, "static_object.bicycle_rack", "animal")
    channels = (LIDAR, *CAMERAS, *RADARS)
    instances = samples * 2
    for table in TABLES:
        write(folder, table, [])
    write(folder, "log", [{"token": token(1, 0), "logfile": "", "vehicle": "", "date_captured": "", "location": ""}])
    write(folder, "map", [{"token": token(2, 0), "category": "", "filename": "", "log_tokens": [token(1, 0)]}])
    write(
        folder,
        "scene",
        ({"token": token(3, n), "name": name, "log_token": token(1, 0)} for n, name in enumerate(names)),
    )
    write(
        folder,
        "sample",
        (
            {
                "token": token(4, n),
                "timestamp": 1_500_000_000_000_000 + n * 500_000,
                "scene_token": token(3, min(n // 40, scenes - 1)),
                "prev": token(4, n - 1),
                "next": token(4, n + 1),
            }
            for n in range(samples)
        ),
    )
    write(folder, "category", ({"token": token(5, n), "name": name} for n, name in enumerate(categories)))
    write(folder, "attribute", ({"token": token(6, n), "name": name} for n, name in enumerate(ATTRIBUTES)))
    write(folder, "visibility", ({"token": str(n + 1), "level": f"v{n}"} for n in range(4)))
    write(
        folder,
        "sensor",
        (
            {"token": token(7, n), "channel": name, "modality": {"L": "lidar", "C": "camera", "R": "radar"}[name[0]]}
            for n, name in enumerate(channels)
        ),
    )
    write(
        folder,
        "calibrated_sensor",
        (
            {
                "token": token(8, n),
                "sensor_token": token(7, n),
                "translation": [1.0, 0.0, 1.8],
                "rotation": [0.7, 0.0, 0.0, -0.7],
                "camera_intrinsic": [[1266.0, 0.0, 816.0], [0.0, 1266.0, 491.0], [0.0, 0.0, 1.0]]
                if name[0] == "C"
                else [],
            }
            for n, name in enumerate(channels)
        ),
    )
    write(
        folder,
        "instance",
        ({"token": token(9, n), "category_token": token(5, n % len(categories))} for n in range(instances)),
    )
    calibrated = {name: token(8, n) for n, name in enumerate(channels)}
    ending = {"L": "pcd.bin", "C": "jpg", "R": "pcd"}
    write_large(
        folder,
        "sample_data",
        (
            f'{{\n"token": "{token(10, n)}",\n"sample_token": "{token(4, sample)}",\n"ego_pose_token": '
            f'"{token(10, n)}",\n"calibrated_sensor_token": "{calibrated[channel]}",\n"timestamp": {stamp},\n'
            f'"fileformat": "{ending[channel[0]]}",\n"is_key_frame": {str(key).lower()},\n"height": 900,\n'
            f'"width": 1600,\n"filename": "{place}/{channel}/n008-2018-08-01-15-16-36-0400__{channel}__{stamp}.'
            f'{ending[channel[0]]}",\n"prev": "{token(10, before) if before >= 0 else ""}",\n"next": ""\n}}'
            for n, sample, place, channel, key, before, stamp in recordings(samples)
        ),
    )
    noise = random.normal(size=997).tolist()
    write_large(
        folder,
        "ego_pose",
        (
            f'{{\n"token": "{token(10, n)}",\n"timestamp": {stamp},\n"rotation": [\n{noise[n % 997]},\n'
            f"{noise[(n + 1) % 997]},\n{noise[(n + 2) % 997]},\n{noise[(n + 3) % 997]}\n],\n"
            f'"translation": [\n{noise[n % 991]},\n{noise[n % 983]},\n0.0\n]\n}}'
            for n, *_, stamp in recordings(samples)
        ),
    )
    last = ANNOTATIONS_PER_SAMPLE * samples

    def annotation(n: int) -> str:
        before = token(11, n - ANNOTATIONS_PER_SAMPLE) if n >= ANNOTATIONS_PER_SAMPLE else ""
        after = token(11, n + ANNOTATIONS_PER_SAMPLE) if n + ANNOTATIONS_PER_SAMPLE < last else ""
        return (
            f'{{\n"token": "{token(11, n)}",\n"sample_token": "{token(4, n // ANNOTATIONS_PER_SAMPLE)}",\n'
            f'"instance_token": "{token(9, n % instances)}",\n"visibility_token": "{n % 4 + 1}",\n"attribute_tokens": '
            f'[\n"{token(6, n % 8)}"\n],\n"translation": [\n{noise[n % 97]},\n{noise[n % 91]},\n{noise[n % 83]}\n],\n'
            f'"size": [\n1.9,\n4.6,\n1.7\n],\n"rotation": [\n0.98,\n0.0,\n0.0,\n{noise[n % 977]}\n],\n'
            f'"prev": "{before}",\n"next": "{after}",\n"num_lidar_pts": {n % 50},\n"num_radar_pts": {n % 3}\n}}'
        )

    write_large(folder, "sample_annotation", map(annotation, range(last)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=SCENES, help="number of scenes, 850 in trainval")
    scenes = parser.parse_args().scenes
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), scenes)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.json")) / 2**20
        print(f"tables: {size:.0f} MB")
        for name in ("first opening", "second opening"):
            done = subprocess.run(
                [sys.executable, "-c", OPEN, folder], capture_output=True, text=True, check=True
            ).stdout.strip()
            print(f"{name:15}{done}")
        cached = next(Path(folder).rglob("*.npz")).stat().st_size / 2**20
        print(f"cache: {cached:.0f} MB")


if __name__ == "__main__":
    main()
