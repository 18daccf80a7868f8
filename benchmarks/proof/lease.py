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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from benchmarks.proof.base import weights_of
from benchmarks.proof.batches import step_path
from benchmarks.proof.data import complete
from benchmarks.proof.plan import BASE, BASES, COURSES, PILOT, TEST, Place

log = logging.getLogger(__name__)

LARGEST_FILE: Final = 16 * 2**20
BASE_SECONDS: Final = 285.0
"""For the training of a base, where others want to run as well."""
SCORING_SECONDS: Final = 30.0
"""Kept for starting a process and for scoring a detector."""


@dataclass(frozen=True)
class Stage:
    """One stage, run as a process of its own.

    Attributes:
        name: of its log file.
        arguments: after `python -m benchmarks.proof`, without --work, --out and --toy.
    """

    name: str
    arguments: tuple[str, ...]


def start(stage: Stage, place: Place, toy: bool, gpu: int = 0) -> subprocess.Popen[bytes]:
    """Run a stage in the background, on one GPU; what it says goes to logs/NAME.log."""
    logs = place.out / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "benchmarks.proof", *stage.arguments]
    command += ["--work", str(place.work), "--out", str(place.out), *(["--toy"] if toy else [])]
    command += ["--base-steps", str(place.scale.base_steps), "--arm-steps", str(place.scale.arm_steps)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | one_gpu(gpu)
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
    wait_for([step_path(place.cache(BASES[base].batches), 0)], data, place, deadline)
    return data


def wait_for(paths: Sequence[Path], data: subprocess.Popen[bytes], place: Place, deadline: float) -> None:
    """Wait until the stage `data` has made some files.

    Raises:
        RuntimeError: where it failed, or took too long, and is ended.
    """
    while not all(path.exists() for path in paths):
        if data.poll() not in (None, 0) or time.monotonic() > deadline:
            data.kill()
            raise RuntimeError(f"no data; see {place.out / 'logs' / 'data.log'}")
        time.sleep(0.2)


def run_everything(place: Place, toy: bool, wanted: Sequence[str], parallel: int, deadline: float) -> None:
    """Data, bases that are not there yet, and the runs of several courses, on all GPUs.

    A base has a GPU for itself. On other GPUs, and after the base on its own, processes take runs of those courses
    whose base is there.

    Args:
        place: of the experiment.
        toy: whether stages work at toy size.
        wanted: names of bases and courses, most wanted first.
        parallel: processes per GPU.
        deadline: by `time.monotonic`; what runs then is ended.

    Raises:
        RuntimeError: where making data failed, or took too long.
    """
    data = start(Stage("data", ("data", "--of", *wanted)), place, toy)
    gpus = max(torch.cuda.device_count(), 1)
    bases = [name for name in wanted if name in BASES and weights_of(place, name, here=True) is None]
    courses = [name for name in wanted if name in COURSES]
    shutil.rmtree(place.work / "claims", ignore_errors=True)

    def finish(*processes: subprocess.Popen[bytes]) -> None:
        for process in processes:
            try:
                process.wait(max(deadline - time.monotonic(), 0.0))
            except subprocess.TimeoutExpired:
                log.warning("out of time: a process is ended")
                process.kill()

    def use(gpu: int) -> None:
        for name in bases[gpu::gpus]:
            wait_for([step_path(place.cache(BASES[name].batches), 0)], data, place, deadline)
            left = deadline - time.monotonic() - SCORING_SECONDS
            seconds = min(BASE_SECONDS, left) if courses else left
            finish(start(Stage(name, (name, "--seconds", f"{seconds:.0f}")), place, toy, gpu))
        if not courses:
            return
        wait_for([complete(place, split) for split in (PILOT, TEST)], data, place, deadline)
        seconds = deadline - time.monotonic() - SCORING_SECONDS
        command = ("runs", "--of", *courses, "--seconds", f"{seconds:.0f}", "--await", *bases)
        finish(*(start(Stage(f"runs-{gpu}-{number}", command), place, toy, gpu) for number in range(parallel)))

    try:
        with ThreadPoolExecutor(gpus) as pool:
            list(pool.map(use, range(gpus)))
    finally:
        data.kill()


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
