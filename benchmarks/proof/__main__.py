"""python -m benchmarks.proof STAGE --out RESULTS [--work FOLDER] [--toy]; docs/proof.md says what each stage does."""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks.proof.base import base_folder
from benchmarks.proof.lease import Stage, bring_home, run_all, start_data
from benchmarks.proof.plan import FROM_BASE, FULL, SCRATCH, TOY, Place

from aqr.training.run_folder import RunFolder

SCORING_SECONDS: Final = 30.0
"""Kept of a lease for starting a process and for scoring a detector."""
PACKING_SECONDS: Final = 15.0
STARTING_SECONDS: Final = 25.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.proof")
    parser.add_argument(
        "stage",
        choices=("data", "base", "arms", "scratch", "lease-base", "lease-arms", "lease-scratch", "collect", "report"),
    )
    parser.add_argument(
        "--work", type=Path, default=Path("/tmp/proof"), help="synthetic world and caches (about 45 GB)"
    )
    parser.add_argument("--out", type=Path, required=True, help="results")
    parser.add_argument("--toy", action="store_true", help="a size that a CPU can do in minutes")
    parser.add_argument("--base-steps", type=int, default=None, help="steps from random weights")
    parser.add_argument("--arm-steps", type=int, default=None, help="steps of fine-tuning")
    parser.add_argument("--workers", type=int, default=None, help="processes of the data stage")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--arms", default="", help="arms to run, by default all")
    parser.add_argument(
        "--base", type=Path, default=None, help="arms: weights that all start from; by default those in --out"
    )
    parser.add_argument("--raw", type=Path, default=None, help="collect: the folder that was --out of the runs")
    parser.add_argument("--page", type=Path, default=Path("docs/proof.md"), help="report: where to write")
    parser.add_argument(
        "--parallel", type=int, default=7, help="lease-arms, lease-scratch: processes, which take turns at the GPUs"
    )
    parser.add_argument("--seconds", type=float, default=None, help="base: for training; others: for everything")
    parser.add_argument("--home", type=Path, default=None, help="lease-*: folder for the few files to bring home")
    arguments = parser.parse_args()
    if arguments.seconds is None and arguments.stage in (
        "arms",
        "scratch",
        "lease-base",
        "lease-arms",
        "lease-scratch",
    ):
        parser.error("--seconds: say how long the stage may take")
    if arguments.stage == "collect" and arguments.raw is None:
        parser.error("--raw: name the folder that was --out of the runs")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    scale = TOY if arguments.toy else FULL
    scale = replace(
        scale,
        base_steps=arguments.base_steps or scale.base_steps,
        arm_steps=arguments.arm_steps or scale.arm_steps,
    )
    place = Place(arguments.work, arguments.out, scale)
    if arguments.stage == "data":
        from benchmarks.proof.data import make_data

        make_data(place, arguments.workers)
    elif arguments.stage == "base":
        from benchmarks.proof.base import train_base

        train_base(place, arguments.seconds, arguments.seed)
    elif arguments.stage == "arms":
        from benchmarks.proof.finetune import work

        work(place, arguments.base, arguments.arms.split(",") if arguments.arms else None, arguments.seconds)
    elif arguments.stage == "scratch":
        from benchmarks.proof.finetune import work

        work(place, None, arguments.arms.split(",") if arguments.arms else None, arguments.seconds)
    elif arguments.stage == "lease-base":
        lease_base(place, arguments)
    elif arguments.stage in ("lease-arms", "lease-scratch"):
        lease_runs(place, arguments, arguments.stage == "lease-scratch")
    elif arguments.stage == "collect":
        from benchmarks.proof.collect import collect

        collect(arguments.raw, arguments.out)
    elif arguments.stage == "report":
        from benchmarks.proof.report import write_report

        write_report(arguments.out, arguments.page)
    return 0


def lease_base(place: Place, arguments: argparse.Namespace) -> None:
    """Data, then the base for what is left of the time."""
    begin = time.monotonic()
    deadline = begin + arguments.seconds
    data = start_data(place, arguments.toy, deadline)
    left = deadline - time.monotonic() - SCORING_SECONDS
    run_all([Stage("base", ("base", "--seconds", f"{left:.0f}"))], place, arguments.toy, 1, deadline)
    if data.poll() is None:
        data.kill()
    bring_home(place, arguments.home or place.work / "home", "base")


def lease_runs(place: Place, arguments: argparse.Namespace, scratch: bool) -> None:
    """Data where they are missing, then arms in several processes for what is left of the time."""
    kind = SCRATCH if scratch else FROM_BASE
    deadline = time.monotonic() + arguments.seconds
    data = start_data(place, arguments.toy, deadline)
    while data.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    shutil.rmtree(place.work / "claims" / kind, ignore_errors=True)
    left = deadline - time.monotonic() - STARTING_SECONDS - PACKING_SECONDS
    command: tuple[str, ...] = (kind, "--arms", arguments.arms, "--seconds", f"{left:.0f}")
    if not scratch:
        command += ("--base", str(arguments.base or RunFolder(base_folder(place)).final_weights))
    stages = [Stage(f"{kind}-{number}", command) for number in range(arguments.parallel)]
    run_all(stages, place, arguments.toy, len(stages), deadline - PACKING_SECONDS)
    bring_home(place, arguments.home or place.work / "home", kind)


if __name__ == "__main__":
    sys.exit(main())
