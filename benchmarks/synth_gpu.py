"""Speed of the synthetic world on a GPU, and whether it is the world of the CPU.

    python benchmarks/synth_gpu.py OUT.json

Every stage runs in a process of its own, bounded by a time limit, and adds its figures to OUT.json as they come:

- equal: a short scene recorded by NumPy and twice by the GPU, and pictures of it drawn with and without kernels
- disk: keyframes per second of `aqr synth --preset full`, written by all cores, and where one process's time goes
- live: samples per second of `data.kind: synth`, batches of 16 at 6 x 256 x 704 with one sweep, and where time goes
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from aqr.config import parse
from aqr.data.loader import train_loader
from aqr.synth import PRESETS, Preset, write_world
from aqr.synth import recorder as recording
from aqr.synth.device import Pool, Renderer, Shot, Sight
from aqr.synth.device import lidar as device_lidar
from aqr.synth.device import renderer as rendering
from aqr.synth.device.cast import cast
from aqr.synth.device.film import Film, Reel
from aqr.synth.device.sensors import DeviceSensors
from aqr.synth.recorder import draw, record
from aqr.synth.sensors import SceneJob
from aqr.synth.tables import Tables
from aqr.synth.weather import KINDS, draw_weather

LIMITS = {"equal": 60, "disk": 110, "live": 90}
Note = Callable[[str, Any], None]


def settle(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


@contextmanager
def timed(spent: dict[str, float], name: str, device: str) -> Iterator[None]:
    settle(device)
    begin = time.perf_counter()
    yield
    settle(device)
    spent[name] = spent.get(name, 0.0) + time.perf_counter() - begin


def median_ms(work: Callable[[], object], device: str, repeats: int = 5) -> float:
    work()
    found = []
    for _ in range(repeats):
        spent: dict[str, float] = {}
        with timed(spent, "", device):
            work()
        found.append(1e3 * spent[""])
    return round(float(np.median(found)), 3)


def equal(note: Note, device: str, small: bool) -> None:
    job = SceneJob("scene-0061", 5, Preset(2 if small else 4, (99, 176) if small else (198, 352), 1, 1))
    with tempfile.TemporaryDirectory() as folder:
        worlds: dict[str, tuple[Tables, Path]] = {}
        for name, where in (("numpy", "cpu"), ("gpu", device), ("again", device)):
            out = Path(folder) / name
            begin = time.perf_counter()
            worlds[name] = record(job, out, lambda: None, where), out
            note(f"seconds_{name}", time.perf_counter() - begin)
        (first, a), (second, b), (third, c) = worlds.values()
        files = [row["filename"] for row in first["sample_data"]]
        note("same_bytes_twice", second == third and all((b / f).read_bytes() == (c / f).read_bytes() for f in files))
        note("rows_that_differ", {n: sum(x != y for x, y in zip(first[n], second[n], strict=True)) for n in first})
        points, pixels = [], []
        for f in files:
            if f.endswith(".bin"):
                gap = np.abs(np.fromfile(a / f, np.float32) - np.fromfile(b / f, np.float32)).reshape(-1, 5)
                points.append([(gap[:, :3].max(axis=1) > 1e-3).mean(), (gap[:, 3] > 0).mean()])
            else:
                one, two = (np.asarray(Image.open(root / f)).astype(int) for root in (a, b))
                pixels.append([np.abs(one - two).mean(), (np.abs(one - two).max(axis=2) > 16).mean()])
        note("echoes_moved_and_intensities_changed", np.mean(points, axis=0).tolist())
        note("pixels_mean_difference_and_share_over_16", np.mean(pixels, axis=0).tolist())
    stage, rig = draw(job)
    renderer = Renderer(Pool([stage], [rig], device))
    moments = renderer.moments([Shot(0, 500_000)])
    size = job.preset.image_size
    sights = [Sight(0, camera, size, np.eye(3), np.random.default_rng(0)) for camera in range(6)]
    _, views, _ = renderer._open(moments, sights, size)
    kernels = device != "cpu"
    plain, fast = cast(views, silhouettes=True, plainly=True), cast(views, silhouettes=True, plainly=not kernels)
    assert plain.silhouette is not None
    assert fast.silhouette is not None
    note("kernel_codes_that_differ", float((plain.code != fast.code).float().mean()))
    note("kernel_silhouettes_that_differ_by", int((plain.silhouette - fast.silhouette).abs().max()))
    for kind in KINDS:
        stage = replace(stage, weather=next(w for s in range(500) if (w := draw_weather(dice(s))).words == kind))
        renderer = Renderer(Pool([stage], [rig], device))
        moments = renderer.moments([Shot(0, 500_000)])
        shadows = renderer.shadows(moments)
        slow, quick = (
            renderer.pictures(moments, shadows, [replace(s, random=dice(0)) for s in sights], size, plainly=plainly)[
                0
            ].int()
            for plainly in (True, not kernels)
        )
        off = (slow - quick).abs()
        note(f"shading kernel, {kind}: mean difference, share over 2, largest",
             [float(off.float().mean()), float((off.amax(1) > 2).float().mean()), int(off.max())])  # fmt: skip


def dice(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def disk(note: Note, device: str, small: bool) -> None:
    _where_one_process_spends(note, device, small)
    scenes, workers = (1, 1) if small else (16, os.cpu_count() or 1)
    note("workers", workers)
    times: list[tuple[float, int]] = []
    begin = time.perf_counter()

    def progress(done: int, total: int) -> None:
        times.append((time.perf_counter() - begin, done))
        if done % 20 == 0 or done == total:
            note("keyframes_done", [done, total])
            note("seconds", times[-1][0])
            early, late = (next((t for t in times if t[1] >= share * total), times[-1]) for share in (0.1, 0.8))
            if late[1] > early[1]:
                note("keyframes_per_s_between_10_and_80_percent", (late[1] - early[1]) / (late[0] - early[0]))

    if small:
        PRESETS["full"] = replace(PRESETS["full"], keyframes=2, image_size=(90, 160), sweeps=2)
    else:
        PRESETS["full"] = replace(PRESETS["full"], keyframes=24)
    with tempfile.TemporaryDirectory() as folder:
        write_world(
            Path(folder) / "world", scenes=scenes, preset="full", workers=workers, device=device, progress=progress
        )
        seconds = time.perf_counter() - begin
        note("keyframes_per_s_overall_with_start", scenes * PRESETS["full"].keyframes / seconds)


def _where_one_process_spends(note: Note, device: str, small: bool) -> None:
    """Seconds per keyframe of one process: rendering, encoding, the rest."""
    spent: dict[str, float] = {}

    class Timed(DeviceSensors):
        def sweeps(self, times_us: Any) -> Any:
            with timed(spent, "10 sweeps", device):
                found = list(super().sweeps(times_us))
            yield from found

        def pictures(self, time_us: int) -> Any:
            with timed(spent, "6 pictures", device):
                return super().pictures(time_us)

    jpeg = recording._jpeg

    def encode(images: Sequence[npt.NDArray[np.uint8]], number: int) -> bytes:
        with timed(spent, "6 JPEGs", "cpu"):
            return jpeg(images, number)

    preset = replace(PRESETS["full"], keyframes=6)
    job = SceneJob("scene-0061", 5, replace(preset, keyframes=2, image_size=(90, 160), sweeps=2) if small else preset)
    with timed(spent, "scene", "cpu"):
        stage, rig = draw(job)
    with timed(spent, "scene to GPU", device):
        sensors = Timed(job, stage, rig, device)
    list(sensors.sweeps([0]))
    sensors.pictures(0)
    recording._jpeg = encode
    ready = {name: spent.pop(name) for name in ("scene", "scene to GPU")}
    spent.clear()
    with tempfile.TemporaryDirectory() as folder, timed(spent, "all", "cpu"):
        recording._Recorder(job, stage, rig, sensors, Path(folder)).run(lambda: None)
    recording._jpeg = jpeg
    note("seconds_per_scene", ready)
    note("seconds_per_keyframe_of_one_process", {n: s / job.preset.keyframes for n, s in spent.items()})


def live(note: Note, device: str, small: bool) -> None:
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp()
    size, batch_size, steps = ([64, 192], 2, 2) if small else ([256, 704], 16, 110)
    config = parse(
        {
            "data": {
                "kind": "synth",
                "version": "v1.0-trainval",
                "synth": {"preset": "tiny" if small else "small", "scenes": 2 if small else 20},
                "image": {"size": size},
                "sweeps": 0,
                "batch_size": batch_size,
                "workers": 0 if small else 12,
            },
            "train": {"steps": steps},
        }
    )
    begin = time.perf_counter()
    loader = train_loader(config)
    note("seconds_to_open_first", time.perf_counter() - begin)
    begin = time.perf_counter()
    loader = train_loader(config)
    note("seconds_to_open_again", time.perf_counter() - begin)
    stamps, ahead = [time.perf_counter()], 1 if small else 10
    stamps.extend(time.perf_counter() for _ in loader)
    settle(device)
    stamps.append(time.perf_counter())
    note("samples_per_s", batch_size * (steps - ahead) / (stamps[-1] - stamps[ahead]))
    if device != "cpu":
        note("gpu_memory_peak_mib", torch.cuda.max_memory_allocated() / 2**20)
    dataset: Any = loader.dataset
    draws = loader._loader._batches.order.places(0, batch_size)  # type: ignore[union-attr]
    with torch.no_grad():
        note("milliseconds_per_batch_in_turn", median_ms(lambda: dataset.batch(draws), device))
        note("milliseconds_by_part", _parts(dataset, draws, device))
        if device != "cpu":
            _profile(note, dataset, draws)


def _parts(dataset: Any, draws: Any, device: str) -> dict[str, float]:
    spent: dict[str, float] = {}

    def wrap(module: Any, name: str, label: str) -> Callable[[], None]:
        inner = getattr(module, name)

        def outer(*arguments: Any, **options: Any) -> Any:
            with timed(spent, label, device):
                return inner(*arguments, **options)

        setattr(module, name, outer)
        return lambda: setattr(module, name, inner)

    undo = [
        wrap(dataset, "plan", "plans (CPU)"),
        wrap(dataset, "_points", "points"),
        wrap(dataset, "_images", "images"),
        wrap(device_lidar, "cast", "points: cast"),
        wrap(device_lidar, "lidar_views", "points: planes and windows"),
        wrap(device_lidar, "_draw_rest", "points: second draws"),
        wrap(rendering, "camera_views", "images: planes and windows"),
        wrap(rendering, "cast", "images: cast"),
        wrap(rendering, "shade", "images: shade")
        if device == "cpu"
        else wrap(shade_kernel(), "launch", "images: shade"),
        wrap(rendering, "paint", "images: shadows"),
        wrap(Film, "softened", "images: drops"),
        wrap(Film, "exposed", "images: expose"),
        wrap(Reel, "film", "images: wait for drops and noise"),
        wrap(rendering.Renderer, "moments", "moments"),
    ]
    dataset.batch(draws)
    for back in undo:
        back()
    return {name: round(1e3 * seconds, 2) for name, seconds in spent.items()}


def shade_kernel() -> Any:
    from aqr.synth.device import shade_kernel  # only now: Triton is there where a GPU is

    return shade_kernel


def _profile(note: Note, dataset: Any, draws: Any) -> None:
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as report:
        dataset.batch(draws)
        torch.cuda.synchronize()
    rows = [
        (e.key, e.self_device_time_total / 1e3, e.count)
        for e in report.key_averages()
        if e.self_device_time_total > 0 and str(e.device_type).endswith("CUDA")
    ]
    rows.sort(key=lambda row: -row[1])
    note("gpu_milliseconds_of_a_batch", sum(row[1] for row in rows))
    note("kernels_of_a_batch", sum(row[2] for row in rows))
    note("longest_kernels", [[name[:110], round(ms, 3), count] for name, ms, count in rows[:24]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try the script itself")
    parser.add_argument("--stages", nargs="+", choices=list(LIMITS), default=list(LIMITS))
    parser.add_argument("--stage", choices=list(LIMITS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stage is None:
        for stage in arguments.stages:
            command = [sys.executable, __file__, str(arguments.out), "--device", arguments.device, "--stage", stage]
            try:
                done = subprocess.run(command + ["--small"] * arguments.small, timeout=LIMITS[stage], check=False)
                how = f"ended with {done.returncode}"
            except subprocess.TimeoutExpired:
                how = f"stopped after {LIMITS[stage]} s"
            add(arguments.out, stage, "how", how)
        return
    begin = time.perf_counter()

    def note(name: str, value: Any) -> None:
        add(arguments.out, arguments.stage, name, value)

    {"equal": equal, "disk": disk, "live": live}[arguments.stage](note, arguments.device, arguments.small)
    note("stage_seconds", time.perf_counter() - begin)


def add(path: Path, stage: str, name: str, value: Any) -> None:
    found = json.loads(path.read_text()) if path.is_file() else {}
    found.setdefault(stage, {})[name] = value
    path.write_text(json.dumps(found, indent=1))
    sys.stdout.write(f"{stage}: {name} = {value}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
