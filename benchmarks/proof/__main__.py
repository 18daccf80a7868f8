"""python -m benchmarks.proof STAGE --out RESULTS [--work FOLDER] [--toy]; docs/proof.md says what each stage does."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks.proof.base import base_folder, weights_of
from benchmarks.proof.lease import bring_home, run_everything
from benchmarks.proof.plan import BASE, BASES, COURSES, FULL, SHIPPED_BASE, TOY, Place

from aqr.training.run_folder import RunFolder

PACKING_SECONDS: Final = 15.0
"""Kept of a lease for what is brought home."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.proof")
    trained = (*BASES, *COURSES)
    parser.add_argument("stage", choices=("data", *trained, "runs", "lease", "collect", "oracle", "report"))
    parser.add_argument(
        "--work", type=Path, default=Path("/tmp/proof"), help="synthetic world and caches (about 45 GB)"
    )
    parser.add_argument("--out", type=Path, required=True, help="results")
    parser.add_argument("--toy", action="store_true", help="a size that a CPU can do in minutes")
    parser.add_argument("--base-steps", type=int, default=None, help="steps from random weights")
    parser.add_argument("--arm-steps", type=int, default=None, help="steps of fine-tuning")
    parser.add_argument(
        "--of", choices=trained, nargs="+", default=[BASE], help="data, runs, lease: bases, courses, most wanted first"
    )
    parser.add_argument("--await", dest="awaited", choices=BASES, nargs="*", default=[], help="runs: bases in training")
    parser.add_argument("--workers", type=int, default=None, help="processes of the stages data and oracle")
    parser.add_argument("--seed", type=int, default=0, help="of a base")
    parser.add_argument("--arms", default="", help="arms to run, by default all")
    parser.add_argument(
        "--base",
        type=Path,
        default=None,
        help="weights that arms start from; by default those in --out (oracle: aqr's)",
    )
    parser.add_argument(
        "--severities", type=int, choices=(1, 2, 3), nargs="+", default=[1, 2, 3], help="oracle: of the failures"
    )
    parser.add_argument("--raw", type=Path, default=None, help="collect: the folder that was --out of the runs")
    parser.add_argument("--page", type=Path, default=Path("docs/proof.md"), help="report: where to write")
    parser.add_argument("--parallel", type=int, default=5, help="lease: processes that take turns at a GPU")
    parser.add_argument(
        "--seconds", type=float, default=None, help="bases: for training; oracle: for answers; others: for everything"
    )
    parser.add_argument("--home", type=Path, default=None, help="lease: folder for the few files to bring home")
    arguments = parser.parse_args()
    stage: str = arguments.stage
    if arguments.seconds is None and stage in (*COURSES, "runs", "lease"):
        parser.error("--seconds: say how long the stage may take")
    if stage == "collect" and arguments.raw is None:
        parser.error("--raw: name the folder that was --out of the runs")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    scale = TOY if arguments.toy else FULL
    scale = replace(
        scale,
        base_steps=arguments.base_steps or scale.base_steps,
        arm_steps=arguments.arm_steps or scale.arm_steps,
    )
    place = Place(arguments.work, arguments.out, scale)
    if stage == "data":
        from benchmarks.proof.data import make_data
        from benchmarks.proof.finetune import batches

        wanted: dict[str, set[int]] = {}
        for of in arguments.of:
            every = set(range(scale.cached_steps))
            needs = {BASES[of].batches: every} if of in BASES else batches(place, COURSES[of])
            for split, numbers in needs.items():
                wanted[split] = wanted.get(split, set()) | numbers
        make_data(place, wanted, arguments.workers)
    elif stage in BASES:
        from benchmarks.proof.base import train_base

        train_base(place, arguments.seconds, arguments.seed, stage)
    elif stage in COURSES:
        from benchmarks.proof.finetune import work

        course = COURSES[stage]
        only = arguments.arms.split(",") if arguments.arms else None
        weights = None if course.base is None else arguments.base or weights_of(place, course.base)
        work(place, course, weights, only, arguments.seconds)
    elif stage == "runs":
        from benchmarks.proof.finetune import work_through

        work_through(place, [COURSES[name] for name in arguments.of], arguments.seconds, arguments.awaited)
    elif stage == "lease":
        deadline = time.monotonic() + arguments.seconds - PACKING_SECONDS
        run_everything(place, arguments.toy, arguments.of, arguments.parallel, deadline)
        bring_home(place, arguments.home or place.work / "home", "lease")
    elif stage == "collect":
        from benchmarks.proof.collect import collect

        collect(arguments.raw, arguments.out)
    elif stage == "oracle":
        from benchmarks.proof.oracle import Oracle, run_oracle

        ours = RunFolder(base_folder(place, BASE)).final_weights if arguments.toy else SHIPPED_BASE
        oracle = Oracle(place, arguments.base or ours, tuple(arguments.severities))
        run_oracle(oracle, arguments.seconds, arguments.workers)
    else:
        from benchmarks.proof.report import write_report

        write_report(arguments.out, arguments.page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
