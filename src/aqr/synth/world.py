"""Writes a world: scenes in parallel, tables last.

Each finished scene leaves its rows in OUT/.scenes; when all are there, the 13 tables are put together in a
temporary folder and renamed to OUT/VERSION. Until then no reader takes OUT for a data set, and a second run with the
same settings goes on where the first one stopped.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from queue import Empty, Queue
from threading import Event, Lock
from typing import IO, Any, Final

from aqr.errors import InputError
from aqr.synth.presets import PRESETS, Preset, PresetName, scene_names
from aqr.synth.recorder import record, sensor_files
from aqr.synth.sensors import SceneJob
from aqr.synth.tables import Tables, merge
from aqr.synth.weather import KINDS

Progress = Callable[[int, int], None]

RECIPE: Final = 2
"""Number of the recipe; a world begun by another one cannot be continued."""

_WORKER_MEMORY: Final = 4 << 30
"""Bytes of GPU memory that one process may need."""

_SETTINGS: Final = "synth.json"
_SCENES: Final = ".scenes"


def write_world(
    out: Path,
    *,
    scenes: int | None = None,
    seed: int = 0,
    preset: PresetName = "tiny",
    version: str | None = None,
    workers: int | None = None,
    device: str = "cpu",
    weather: Sequence[str] = (),
    progress: Progress | None = None,
) -> None:
    """Write a synthetic world as a nuScenes v1.0 data set.

    The same arguments give the same bytes on the same kind of machine, whatever the number of workers. A run that
    was interrupted continues with its first unfinished scene; a finished world is left as it is.

    Args:
        out: folder of the data set; made where missing.
        scenes: number of scenes; None takes the preset's.
        seed: of the world, at least 0; another seed is another world.
        preset: size of images and scenes.
        version: `v1.0-mini` or `v1.0-trainval`; None takes the smaller one that has names for all scenes.
        workers: processes; None takes one per CPU core (fewer where a GPU has no memory for so many), 1 works in this
            process.
        device: `cpu` renders with NumPy, `cuda` on the GPUs of this machine, where rounding differs: a few pixels and
            echoes are others, and a world begun on one is not continued on the other.
        weather: kinds of weather that occur, of `aqr.synth.weather.KINDS`; all if empty.
        progress: called with (keyframes done, keyframes in all) as the work goes on, from one thread at a time.

    Raises:
        InputError: where the settings are impossible, `out` holds something else, or it cannot be written.
    """
    if preset not in PRESETS:
        raise InputError(f"preset {preset!r} is unknown; choose one of {', '.join(PRESETS)}")
    if seed < 0:
        raise InputError(f"seed {seed} is negative; choose 0 or more")
    if workers is not None and workers < 1:
        raise InputError(f"{workers} workers cannot work; choose 1 or more")
    devices = ["cpu"] if device == "cpu" else gpus(device)
    size = PRESETS[preset]
    version, names = scene_names(size.scenes if scenes is None else scenes, version)
    unknown = [kind for kind in weather if kind not in KINDS]
    if unknown:
        raise InputError(f"weather {unknown[0]!r} is unknown; choose among {', '.join(map(repr, KINDS))}")
    jobs = [SceneJob(name, seed, size, tuple(weather)) for name in names]
    settings = {"recipe": RECIPE, "seed": seed, "preset": preset, "version": version, "scenes": names}
    if device != "cpu":
        settings["device"] = "cuda"
    if weather:
        settings["weather"] = list(weather)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with _alone(out):
            _open(out, version, settings)
            if not (out / version).exists():
                _record_all(jobs, out, workers or _most_workers(devices), devices, progress)
                _publish(jobs, out, version)
    except OSError as error:
        raise _unwritable(out, error) from error
    if progress is not None:
        progress(len(jobs) * size.keyframes, len(jobs) * size.keyframes)


def _unwritable(out: Path, error: OSError) -> InputError:
    where = error.filename or out
    if error.errno == errno.ENOMEM:
        return InputError(f"{where}: has no memory for so many workers; run again with fewer, finished scenes are kept")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return InputError(f"{where}: the disk is full; free some space and run again, finished scenes are kept")
    return InputError(f"{where}: cannot be written ({error.strerror}); choose a folder that can be written")


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Keep other processes from writing a folder at the same time; the system lets go of it when this one dies."""
    folder = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{out}: another process is writing there; wait until it has ended") from None
        except OSError:  # some network file systems have no locks
            pass
        yield
    finally:
        os.close(folder)


def _open(out: Path, version: str, settings: dict[str, Any]) -> None:
    """Claim a folder for a world, or find that it already holds this one."""
    marker = out / _SETTINGS
    if not marker.exists():
        foreign = next((entry for entry in sorted(out.iterdir()) if not entry.name.startswith(".")), None)
        if foreign is not None:
            raise InputError(f"{out}: holds {foreign.name}, which is not of this world; choose an empty folder")
        _write_atomically(marker, json.dumps(settings, indent=1))
        return
    try:
        found = json.loads(marker.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if found != settings:
        raise InputError(
            f"{out}: holds a synthetic world of other settings (see {_SETTINGS}); delete it or choose another folder"
        )


def gpus(device: str) -> list[str]:
    """The GPUs that a device name stands for: all of them for `cuda`, one for `cuda:1`.

    Raises:
        InputError: if there is no such device.
    """
    import torch  # only now: it takes seconds, and a world without a GPU does without

    count = torch.cuda.device_count()
    present = [f"cuda:{number}" for number in range(count)]
    if device == "cuda" and present:
        return present
    if device in present:
        return [device]
    raise InputError(
        f"device {device!r} is not here ({', '.join(['cpu', *present])}); leave it out to render on the CPU"
    )


def _most_workers(devices: list[str]) -> int:
    cores = os.cpu_count() or 1
    if devices == ["cpu"]:
        return cores
    import torch

    memory = sum(torch.cuda.get_device_properties(device).total_memory for device in devices)
    return max(1, min(cores, memory // _WORKER_MEMORY))


def _record_all(jobs: list[SceneJob], out: Path, workers: int, devices: list[str], progress: Progress | None) -> None:
    waiting = [job for job in jobs if not _rows_path(out, job).exists()]
    total = sum(job.preset.keyframes for job in jobs)
    done = total - sum(job.preset.keyframes for job in waiting)
    lock = Lock()

    def advance() -> None:
        nonlocal done
        with lock:
            done += 1
            if progress is not None:
                progress(done, total)

    if progress is not None:
        progress(done, total)
    if workers == 1 or len(waiting) < 2:
        for job in waiting:
            record_scene(job, out, advance, devices[0])
        return
    queue: Queue[SceneJob] = Queue()
    for job in waiting:
        queue.put(job)
    stop = Event()
    count = min(workers, len(waiting))
    with ThreadPoolExecutor(count) as pool:
        threads = [pool.submit(_drive, queue, out, devices[n % len(devices)], advance, stop) for n in range(count)]
        try:
            for thread in threads:
                thread.result()
        finally:
            stop.set()


def record_scene(job: SceneJob, out: Path, on_keyframe: Callable[[], None], device: str = "cpu") -> None:
    """Record one scene and, when all its sensor files are there, keep its rows."""
    rows = record(job, out, on_keyframe, device)
    path = _rows_path(out, job)
    path.parent.mkdir(exist_ok=True)
    _write_atomically(path, json.dumps(rows, separators=(",", ":")))


def _drive(queue: Queue[SceneJob], out: Path, device: str, advance: Callable[[], None], stop: Event) -> None:
    """Feed one worker process with scenes until none is left; it ends when its input does."""
    path = os.pathsep.join(p for p in sys.path if p)
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "aqr.synth.worker", str(out), device]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8", env=environment
    ) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        try:
            while not stop.is_set():
                try:
                    job = queue.get_nowait()
                except Empty:
                    break
                _send(worker.stdin, job)
                for message in _messages(worker.stdout):
                    if stop.is_set():
                        worker.kill()
                        return
                    if message == "keyframe":
                        advance()
                    elif message == "done":
                        break
                    else:
                        number, _, filename = message.partition(" ")
                        raise OSError(int(number), os.strerror(int(number)), filename)
                else:
                    raise _ended(worker.wait(), job, out)
            worker.stdin.close()
        except BaseException:
            stop.set()
            worker.kill()
            raise


def _send(stream: IO[str], job: SceneJob) -> None:
    """Name a scene to a worker; one that is dead shows it by the end of its messages."""
    try:
        stream.write(json.dumps(asdict(job)) + "\n")
        stream.flush()
    except BrokenPipeError:
        with suppress(BrokenPipeError):  # what it did not take is tried again
            stream.close()


def _ended(code: int, job: SceneJob, out: Path) -> Exception:
    """Why a worker is gone: somebody killed it, mostly the system for want of memory, or it failed by itself."""
    if code < 0:
        return InputError(
            f"{out}: a worker process was killed (signal {-code}) while it recorded {job.name}; run again, with fewer "
            "workers if memory is short, finished scenes are kept"
        )
    return RuntimeError(f"a worker process ended with code {code} while it recorded {job.name}")


def _messages(stream: IO[str]) -> Iterator[str]:
    for line in stream:
        yield line.rstrip("\n")


def job_from_json(line: str) -> SceneJob:
    """The inverse of `json.dumps(asdict(job))`."""
    values = json.loads(line)
    preset = values["preset"]
    size = Preset(**preset | {"image_size": tuple(preset["image_size"])})
    return SceneJob(values["name"], values["seed"], size, tuple(values["weather"]))


def _publish(jobs: list[SceneJob], out: Path, version: str) -> None:
    """Put the tables together and move them into place in one step."""
    parts: list[Tables] = [json.loads(_rows_path(out, job).read_text(encoding="utf-8")) for job in jobs]
    for rows in parts:
        for filename in sensor_files(rows):
            if not (out / filename).exists():
                raise InputError(f"{out / filename}: is missing; delete {out / _SCENES} and run again")
    folder = out / f".{version}.partial"
    if folder.exists():
        shutil.rmtree(folder)
    write_tables(parts, folder)
    folder.rename(out / version)
    shutil.rmtree(out / _SCENES)


def write_tables(parts: list[Tables], folder: Path) -> None:
    """Write the 13 tables of scenes into a new folder."""
    folder.mkdir()
    for name, values in merge(parts).items():
        with (folder / f"{name}.json").open("w", encoding="utf-8") as file:
            json.dump(values, file, indent=0)
            file.flush()
            os.fsync(file.fileno())


def _rows_path(out: Path, job: SceneJob) -> Path:
    return out / _SCENES / f"{job.name}.json"


def _write_atomically(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
