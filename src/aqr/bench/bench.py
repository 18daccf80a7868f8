"""All measurements, one after another."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import torch
from rich.console import Console

from aqr.bench.detector import How, latency, training_step
from aqr.bench.double_loop import against_the_loop
from aqr.bench.inputs import FIRST_SHAPE, Shape
from aqr.bench.modulation import COMPILED, COMPILED_GRAPH, accuracy, growth, speed
from aqr.bench.picture import draw_growth
from aqr.bench.results import Results, Row, Section
from aqr.bench.timing import Clock, Rates, measure_rates
from aqr.errors import InputError

STAGES: Final = ("aqr", "accuracy", "loop", "growth", "step", "inference")
ALONE: Final[dict[How, str]] = {
    "plain": f"forward + backward, {FIRST_SHAPE}",
    "compiled": COMPILED,
    "compiled, with CUDA graphs": COMPILED_GRAPH,
}
"""The row of the stage `aqr`, in its first shape, that runs AQR as a training step does."""
CPU_LIMITS: Final = Shape(batch=2, queries=900, bev=(128, 128), cameras=6)


def bench(
    only: Sequence[str] = (),
    out: Path | None = None,
    picture: Path | None = None,
    *,
    budget_s: float = 900.0,
    seconds: float = 2.0,
    compiled: bool = True,
    device: str | None = None,
) -> Results:
    """Measure AQR and the detector and print tables, each figure beside its target and its floor.

    Args:
        only: of `STAGES`; all if empty.
        out: JSON file, rewritten after every stage.
        picture: of how AQR's cost grows, PNG, SVG or PDF.
        budget_s: no stage starts after this many seconds.
        seconds: of one measurement.
        compiled: whether the detector is measured compiled as well.
        device: by default a GPU where there is one.

    Raises:
        InputError: where a stage is unknown or a file cannot be written.
    """
    unknown = [name for name in only if name not in STAGES]
    if unknown:
        raise InputError(f"--only: there is no measurement {unknown[0]!r}; known: {', '.join(STAGES)}")
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    on_gpu = where.type == "cuda"
    clock = Clock(where, seconds, fewest=5 if on_gpu else 3)
    end = time.monotonic() + budget_s
    console = Console()
    if not console.is_terminal:
        console = Console(width=150)
    results = Results(out, where, " ".join(["aqr", *sys.argv[1:]]), console)
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        rates = measure_rates(clock)
        results.add("rates", _rates(rates, on_gpu))
        stages = _stages(clock, rates, results, picture, compiled and on_gpu)
        for name in STAGES:
            if only and name not in only:
                results.leave_out(name, "not asked for")
            elif time.monotonic() > end:
                results.leave_out(name, f"the {budget_s:g} s of --budget-s were over")
            else:
                stages[name]()
                if on_gpu:
                    torch.cuda.empty_cache()
    finally:
        torch.set_float32_matmul_precision(precision)
    if not on_gpu:
        results.leave_out("GPU", "there is none here: bf16, CUDA graphs, memory, the detector at full size")
    return results


def _stages(
    clock: Clock, rates: Rates, results: Results, picture: Path | None, compiled: bool
) -> dict[str, Callable[[], None]]:
    on_gpu = clock.device.type == "cuda"

    def grow() -> None:
        section, measured = growth(clock, None if on_gpu else CPU_LIMITS)
        results.add("growth", section)
        if picture is not None:
            draw_growth(measured, picture, f"AQR forward + backward, {results.about['device']}; dotted: linear")

    def step() -> None:
        ways: dict[str, How] = {"step": "plain"}
        if compiled:
            ways |= {"step_compiled": "compiled", "step_graphs": "compiled, with CUDA graphs"}
        for name, how in ways.items():
            torch.compiler.reset()
            try:
                results.add(name, training_step(clock, how, results.value("aqr", ALONE[how])))
            except Exception as error:
                # A compiler that fails on this machine must not cost the other figures.
                results.leave_out(name, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")

    return {
        "aqr": lambda: results.add("aqr", speed(clock, rates)),
        "accuracy": lambda: results.add("accuracy", accuracy(clock.device)),
        "loop": lambda: results.add("loop", against_the_loop(Clock(torch.device("cpu"), clock.seconds, 3))),
        "step": step,
        "inference": lambda: results.add("inference", latency(clock, compiled)),
        "growth": grow,
    }


def _rates(rates: Rates, on_gpu: bool) -> Section:
    product = "bf16 matrix product, 8192³" if on_gpu else "float32 matrix product, 1024³"
    return Section(
        "What this device reaches",
        [
            Row("copy, bytes read and written", rates.copy / 1e9, "GB/s", more_is_better=True),
            Row(product, rates.matmul / 1e12, "TFLOP/s", more_is_better=True),
        ],
    )
