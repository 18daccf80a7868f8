"""Where a training step and inference spend their time on a GPU: on the wall, in kernels, in gaps between them.

    python benchmarks/profile_step.py profile.json [--only step,inference] [--runs 12] [--kernels 70] [--remark TEXT]

Both run the fastest way, the step with `train.compile: graphs`, inference as a compiled CUDA graph, each without and
with AQR. Times are those of `--runs` runs on the wall, the GPU waited for after each; the profile is that of five more
runs in a row. The file holds the times as sections of `aqr bench`, so that `performance_page.py --bench` takes it, and
under `profiles` what PyTorch's profiler saw. A CPU has neither graphs nor kernels; the command then ends at once.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from aqr.bench.detector import (
    BATCH,
    BOXES,
    FASTEST,
    FASTEST_INFERENCE,
    FULL_SIZE,
    POINTS,
    TARGET_LATENCY,
    TARGET_STEP,
    TrainingStep,
    added_share,
    alone_share,
    detector_config,
    inference_section,
    step_section,
    timed,
)
from aqr.bench.inputs import random_batch
from aqr.bench.results import Row, Section, about
from aqr.bench.timing import Timing
from aqr.detector import Detector
from aqr.detector.graph import GraphedDetector
from aqr.files import write_json

WHAT: Final = ("step", "inference")
WARM_UP: Final = 6
"""Runs that do not count: the step captures its graphs in the third."""
PROFILED: Final = 5
GAPS: Final = 30
KINDS: Final = (
    ("attention, backward", r"sdpa.*bprop|flash_bwd"),
    ("attention, forward", r"sdpa.*fprop|flash_fwd"),
    ("convolutions", r"(?i)implicit_?gemm|cudnn.*(fprop|dgrad|wgrad|init_device_workspace)|nhwcAddPadding"),
    ("optimizer and clipping", r"multi_tensor_apply"),
    ("batch norms and what is fused with them", r"^triton.*batch_norm"),
    ("kernels written for AQR", r"^_[a-z_]+$"),
    ("matrix products", r"nvjet|gemm|splitKreduce|cutlass"),
    ("other compiled kernels", r"^triton"),
    ("copies, fills and all else", r""),
)
"""Kinds of kernels, and how one of the first that fits is known by its name."""


class Span(NamedTuple):
    """One kernel, copy or fill on the GPU; microseconds."""

    name: str
    start: float
    end: float


@dataclass(frozen=True)
class Profile:
    """One operation.

    Attributes:
        wall_ms: of single runs.
        busy_ms: of a run in which the GPU works.
        launches: kernels, copies and fills of a run.
        gaps_us: the longest times of all profiled runs in which it does not work.
        kinds_ms: time of a run by kind.
        kernels: time of a run in microseconds, count in a run, name; those that take longest.
        rest_ms: time of a run of all others.
    """

    wall_ms: list[float]
    busy_ms: float
    launches: float
    gaps_us: list[int]
    kinds_ms: dict[str, float]
    kernels: list[tuple[float, float, str]]
    rest_ms: float


def summed(spans: Iterable[Span], runs: int, most: int, wall_ms: Sequence[float] = ()) -> Profile:
    """What the GPU did in a row of runs.

    Args:
        spans: of all runs.
        runs: their number.
        most: kernels that are listed by name.
        wall_ms: of runs without the profiler.
    """
    counted: dict[str, tuple[int, float]] = defaultdict(lambda: (0, 0.0))
    busy, until, launches = 0.0, None, 0
    gaps = []
    for span in sorted(spans, key=lambda span: span.start):
        count, total = counted[span.name]
        counted[span.name] = (count + 1, total + span.end - span.start)
        launches += 1
        if until is None:
            until = span.start
        elif span.start > until:
            gaps.append(round(span.start - until))
        busy += max(0.0, span.end - max(span.start, until))
        until = max(until, span.end)
    longest = sorted(counted.items(), key=lambda entry: -entry[1][1])
    listed = [(round(total / runs, 1), count / runs, name) for name, (count, total) in longest[:most]]
    rest = sum(total for _, (_, total) in longest[most:]) / runs / 1e3
    kinds = by_kind((total / runs / 1e3, name) for name, (_, total) in longest)
    gaps = sorted(gaps, reverse=True)[:GAPS]
    return Profile(list(wall_ms), busy / runs / 1e3, launches / runs, gaps, kinds, listed, round(rest, 2))


def by_kind(kernels: Iterable[tuple[float, str]]) -> dict[str, float]:
    """Time by kind, longest first; of kernels' times and names."""
    found: dict[str, float] = defaultdict(float)
    for took, name in kernels:
        found[next(kind for kind, pattern in KINDS if re.search(pattern, name))] += took
    return {kind: round(took, 2) for kind, took in sorted(found.items(), key=lambda entry: -entry[1])}


def profiled(operation: Callable[[], object], runs: int, most: int) -> Profile:
    """Times on the wall, then a profile."""
    for _ in range(WARM_UP):
        operation()
    torch.cuda.synchronize()
    wall_ms = []
    for _ in range(runs):
        before = time.perf_counter()
        operation()
        torch.cuda.synchronize()
        wall_ms.append(round(1e3 * (time.perf_counter() - before), 2))
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as profiler:
        for _ in range(PROFILED):
            operation()
        torch.cuda.synchronize()
    spans = [
        Span(event.name, event.time_range.start, event.time_range.end)
        for event in profiler.events() or ()
        # The optimizer marks its own range, which is no work.
        if event.device_type == DeviceType.CUDA and not event.is_user_annotation
    ]
    return summed(spans, PROFILED, most, wall_ms)


def training_step(device: torch.device, aqr: bool) -> Callable[[], object]:
    """A step of `aqr train` with `train.compile: graphs`."""
    config = detector_config(reduced=False, aqr=aqr)
    step = TrainingStep(config, random_batch(config, BATCH, BOXES, POINTS).to(device), FASTEST)

    def run() -> None:
        step(lambda name: None)

    for _ in range(WARM_UP):
        run()
    if step.graphed is None or not step.graphed.captured:
        raise SystemExit("the training step was not captured as CUDA graphs; the warning above says why")
    return run


def inference(device: torch.device, aqr: bool) -> Callable[[], object]:
    """One sample, from tensors on the GPU to boxes in host memory."""
    config = detector_config(reduced=False, aqr=aqr)
    torch.manual_seed(0)
    detector = Detector(config).to(device).eval()
    batch = random_batch(config, 1, 0, POINTS).to(device)
    graphed = GraphedDetector(detector, batch, "bf16", compiled=True)
    return lambda: graphed(batch)


def sections(profiles: dict[str, Profile], remark: str = "") -> dict[str, Section]:
    """The times as sections of `aqr bench`.

    Args:
        profiles: by `step` or `inference`, and `without AQR` or `with AQR`: "step with AQR".
        remark: sentences on how they were taken.
    """
    timings = {name: Timing.of(found.wall_ms) for name, found in profiles.items()}
    made = {
        "step": ("step_graphs", step_section(FULL_SIZE, BATCH, FASTEST), "training step", FASTEST, TARGET_STEP),
        "inference": ("inference", inference_section(FULL_SIZE), "inference", FASTEST_INFERENCE, TARGET_LATENCY),
    }
    found = {}
    for what, (name, section, label, how, target) in made.items():
        if f"{what} with AQR" not in profiles:
            continue
        for which in ("without AQR", "with AQR"):
            one = f"{what} {which}"
            goal = target if which == "with AQR" else None
            section.rows.append(timed(f"{label} {which}, {how}", timings[one], goal))
            section.rows.append(Row("  of which the GPU works", profiles[one].busy_ms, "ms"))
        if what == "step":
            section.rows.append(added_share(timings["step without AQR"], timings["step with AQR"]))
            section.rows.append(alone_share(None, timings["step with AQR"], FASTEST))
        runs = timings[f"{what} with AQR"].runs
        section.remarks.append(
            f"{runs} runs each, on the wall, the GPU waited for after each and its L2 cache not flushed between them; "
            f"the GPU's work as profiled in {PROFILED} more runs in a row." + (f" {remark}" if remark else "")
        )
        found[name] = section
    return found


def written(path: Path, head: dict[str, str], profiles: dict[str, Profile], remark: str) -> dict[str, Any]:
    """Everything so far, as it goes into a file."""
    found = {
        **head,
        "sections": {name: section.as_dict() for name, section in sections(profiles, remark).items()},
        "not_measured": {},
        "profiles": {name: asdict(profile) for name, profile in profiles.items()},
    }
    write_json(path, found)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", default=",".join(WHAT), help="step, inference or both")
    parser.add_argument("--runs", type=int, default=12)
    parser.add_argument("--kernels", type=int, default=70, help="listed by name")
    parser.add_argument("--remark", default="", help="what else ran meanwhile, the commit: put below the tables")
    arguments = parser.parse_args()
    only = arguments.only.split(",")
    if unknown := [what for what in only if what not in WHAT]:
        parser.error(f"--only: there is no {unknown[0]!r}; known: {', '.join(WHAT)}")
    if arguments.runs < 1:
        parser.error("--runs: at least one")
    if not torch.cuda.is_available():
        parser.error("there is no GPU here, and a CPU has no CUDA graphs to profile")
    device = torch.device("cuda")
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True  # as `aqr train` has it
    head = {**about(device, " ".join(["python", *sys.argv])), "cudnn": str(torch.backends.cudnn.version())}  # type: ignore[no-untyped-call]
    profiles: dict[str, Profile] = {}
    for what in only:
        for aqr in (False, True):
            torch.compiler.reset()
            operation = (training_step if what == "step" else inference)(device, aqr)
            name = f"{what} {'with' if aqr else 'without'} AQR"
            found = profiles[name] = profiled(operation, arguments.runs, arguments.kernels)
            print(f"{name}: {Timing.of(found.wall_ms).median:.2f} ms, of which the GPU works {found.busy_ms:.2f}")
            for kind, took in found.kinds_ms.items():
                print(f"  {took:6.2f} ms  {kind}")
            del operation
            torch.cuda.empty_cache()
    written(arguments.out, head, profiles, arguments.remark)


if __name__ == "__main__":
    main()
