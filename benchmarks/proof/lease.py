"""Several stages at a time on one machine, in a given time."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

import torch
from benchmarks.proof.batches import step_path
from benchmarks.proof.plan import BASE, BASES, Course, Place

log = logging.getLogger(__name__)

LARGEST_FILE: Final = 16 * 2**20

_started = count()


@dataclass(frozen=True)
class Stage:
    """One stage, run as a process of its own.

    Attributes:
        name: of its log file.
        arguments: after `python -m benchmarks.proof`, without --work, --out and --toy.
    """

    name: str
    arguments: tuple[str, ...]


def start(stage: Stage, place: Place, toy: bool) -> subprocess.Popen[bytes]:
    """Run a stage in the background; what it says goes to logs/NAME.log."""
    logs = place.out / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "benchmarks.proof", *stage.arguments]
    command += ["--work", str(place.work), "--out", str(place.out), *(["--toy"] if toy else [])]
    command += ["--base-steps", str(place.scale.base_steps), "--arm-steps", str(place.scale.arm_steps)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | one_gpu(next(_started))
    with (logs / f"{stage.name}.log").open("ab") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, env=environment)


def one_gpu(number: int) -> dict[str, str]:
    """The environment in which the processes of a machine with several GPUs take turns at them."""
    gpus = torch.cuda.device_count()
    return {"CUDA_VISIBLE_DEVICES": str(number % gpus)} if gpus > 1 else {}


def start_data(place: Place, toy: bool, deadline: float, base: str = BASE) -> subprocess.Popen[bytes]:
    """Make the data that a base is trained on in the background, and wait for its first training batch.

    Raises:
        RuntimeError: where making data failed.
    """
    data = start(Stage("data", ("data", "--of", base)), place, toy)
    while not step_path(place.cache(BASES[base].batches), 0).exists():
        if data.poll() not in (None, 0) or time.monotonic() > deadline:
            data.kill()
            raise RuntimeError(f"no data; see {place.out / 'logs' / 'data.log'}")
        time.sleep(0.2)
    return data


def make_data(place: Place, toy: bool, deadline: float, course: Course) -> None:
    """Make the data that the runs of a course need.

    Raises:
        RuntimeError: where that failed, or took too long.
    """
    if run_all([Stage("data", ("data", "--of", course.name))], place, toy, 1, deadline) != ["data"]:
        raise RuntimeError(f"no data; see {place.out / 'logs' / 'data.log'}")


def run_all(stages: Sequence[Stage], place: Place, toy: bool, parallel: int, deadline: float) -> list[str]:
    """Run stages in order, some of them at a time, until all are done or the time is over.

    Args:
        stages: most important first.
        place: of the experiment.
        toy: whether stages work at toy size.
        parallel: processes at a time.
        deadline: by `time.monotonic`; what runs then is ended.

    Returns:
        names of the stages that ended well.
    """
    waiting, running, done = list(stages), dict[str, subprocess.Popen[bytes]](), list[str]()
    while waiting or running:
        while waiting and len(running) < parallel and time.monotonic() < deadline:
            stage = waiting.pop(0)
            running[stage.name] = start(stage, place, toy)
        for name, process in list(running.items()):
            code = process.poll()
            if code is not None:
                del running[name]
                log.info("%s ended with code %d", name, code)
                done += [name] if code == 0 else []
        if time.monotonic() >= deadline:
            log.warning("out of time: %s ended, %s not begun", sorted(running), [stage.name for stage in waiting])
            for process in running.values():
                process.kill()
            break
        time.sleep(0.2)
    return done


def bring_home(place: Place, target: Path, name: str) -> None:
    """Pack results as few files of limited size: NAME.tar.gz, and the bases by themselves.

    Args:
        place: of the experiment.
        target: folder that is brought home.
        name: of the archive.
    """
    target.mkdir(parents=True, exist_ok=True)
    archive = target / f"{name}.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for path in sorted(place.out.rglob("*")):
            if path.is_file() and path.suffix != ".safetensors":
                tar.add(path, str(path.relative_to(place.out)))
    weights = [path for base in BASES for path in place.out.glob(f"runs/{base}/checkpoints/final.safetensors")]
    for path in weights:
        shutil.copyfile(path, target / f"{path.parent.parent.name}.safetensors")
    for path in (archive, *weights):
        if path.stat().st_size > LARGEST_FILE:
            log.warning("%s has %.1f MB", path, path.stat().st_size / 2**20)
