"""python -m benchmarks.adaptive STAGE --out RESULTS --base WEIGHTS [--work FOLDER] [--toy]; see docs/adaptive.md."""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Final

from benchmarks.adaptive.arms import arms
from benchmarks.proof.lease import one_gpu, start_data
from benchmarks.proof.plan import FULL, PILOT, TEST, TOY, Place, config

from aqr.files import write_json

log = logging.getLogger(__name__)

PACKING_SECONDS: Final = 10.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.adaptive")
    parser.add_argument("stage", choices=("work", "lease", "collect", "report"))
    parser.add_argument("--work", type=Path, default=Path("/tmp/proof"), help="world and caches of benchmarks.proof")
    parser.add_argument("--out", type=Path, required=True, help="results")
    parser.add_argument("--base", type=Path, default=None, help="weights that all runs start from")
    parser.add_argument("--toy", action="store_true", help="a size that a CPU can do in minutes")
    parser.add_argument("--only", default="", help="arms to run, with commas; `study` for the search; by default all")
    parser.add_argument("--trials", type=int, default=48, help="of the search")
    parser.add_argument("--seconds", type=float, default=500.0, help="work and lease: for everything")
    parser.add_argument("--parallel", type=int, default=7, help="lease: processes on the GPU")
    parser.add_argument("--home", type=Path, default=None, help="lease: folder for the archive to bring home")
    parser.add_argument("--raw", type=Path, default=None, help="collect: the unpacked archive")
    parser.add_argument("--page", type=Path, default=Path("docs/adaptive.md"), help="report: where the results go")
    options = parser.parse_args()
    if options.stage in ("work", "lease") and (options.base is None or not options.base.is_file()):
        parser.error(
            f"--base {options.base}: is no file; give the weights that `benchmarks.proof lease --of base` made"
        )
    if options.stage == "collect" and options.raw is None:
        parser.error("--raw: name the folder that the archive was unpacked into")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    place = Place(options.work, options.out, TOY if options.toy else FULL)
    if options.stage == "work":
        work(place, options)
    elif options.stage == "lease":
        lease(place, options)
    elif options.stage == "collect":
        from benchmarks.adaptive.collect import collect

        collect(options.raw, options.out)
    else:
        from benchmarks.adaptive.report import write_report

        write_report(options.out, options.page)
    return 0


def work(place: Place, options: argparse.Namespace) -> None:
    """Take arms that no other process has taken, then trials of the study, until the time is over."""
    from benchmarks.adaptive.finetune import run_arm
    from benchmarks.proof.conditions import Split

    deadline = time.monotonic() + options.seconds
    only = options.only.split(",") if options.only else None
    splits = {name: Split(place, config(place), name) for name in (PILOT, TEST)}
    every = max(place.scale.arm_steps // 50, 1)
    claims = place.out / "claims"
    claims.mkdir(parents=True, exist_ok=True)
    longest = 0.0
    known = arms(every)
    for seed in range(max(arm.seeds for arm in known.values())):
        for name, arm in known.items():
            if seed >= arm.seeds or (only is not None and name not in only):
                continue
            begin = time.monotonic()
            if begin + 1.15 * longest > deadline:
                return
            try:
                os.close(os.open(claims / f"{name}-{seed}", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                continue
            try:
                result = run_arm(place, name, arm.aqr(), seed, options.base, splits, every)
            except Exception:  # one arm that cannot be trained must not end the others
                log.exception("%s-%d failed", name, seed)
                continue
            write_json(place.out / "arms" / f"{name}-{seed}.json", result)
            longest = max(longest, time.monotonic() - begin)
    if only is None or "study" in only:
        from benchmarks.adaptive.balance import search

        steps = max(3 * place.scale.arm_steps // 5, 1)
        search(place, options.base, splits, options.trials, steps, deadline)


def lease(place: Place, options: argparse.Namespace) -> None:
    """Data where they are missing, then work in several processes, then the archive."""
    deadline = time.monotonic() + options.seconds
    data = start_data(place, options.toy, deadline)
    while data.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    shutil.rmtree(place.out / "claims", ignore_errors=True)
    left = deadline - time.monotonic() - PACKING_SECONDS
    logs = place.out / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "benchmarks.adaptive", "work", "--work", str(place.work), "--out", str(place.out)]
    command += ["--base", str(options.base), "--only", options.only, "--trials", str(options.trials)]
    command += ["--seconds", f"{left:.0f}", *(["--toy"] if options.toy else [])]
    running = []
    for number in range(options.parallel):
        with (logs / f"work-{number}.log").open("ab") as file:
            environment = os.environ | {"OMP_NUM_THREADS": "1"} | one_gpu(number)
            running.append(subprocess.Popen(command, stdout=file, stderr=file, env=environment))
    while any(process.poll() is None for process in running):
        if time.monotonic() > deadline - PACKING_SECONDS:
            for process in running:
                process.kill()
        time.sleep(0.2)
    home = options.home or place.work / "home"
    home.mkdir(parents=True, exist_ok=True)
    with tarfile.open(home / "adaptive.tar.gz", "w:gz") as tar:
        for path in sorted(place.out.rglob("*")):
            if path.is_file() and path.suffix not in (".safetensors", ".db", ".ckpt"):
                tar.add(path, str(path.relative_to(place.out)))


if __name__ == "__main__":
    sys.exit(main())
