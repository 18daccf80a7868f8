"""Times, peak memory and the two rates that floors are computed from."""

from __future__ import annotations

import gc
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

FLUSH_BYTES: Final = 256 * 2**20
"""Written before every run on a GPU, so that no input is found in the L2 cache (50 MB on an H100 or H200)."""
MEGABYTE: Final = 1e6


@dataclass(frozen=True)
class Timing:
    """Times of one operation.

    Attributes:
        median: milliseconds.
        low: 10th percentile, milliseconds.
        high: 90th percentile, milliseconds.
        runs: number of runs behind them.
    """

    median: float
    low: float
    high: float
    runs: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Timing:
        """Summary of the milliseconds of single runs."""
        ordered = sorted(values)
        last = len(ordered) - 1
        return cls(statistics.median(ordered), ordered[round(0.1 * last)], ordered[round(0.9 * last)], len(ordered))


class Clock:
    """Measures on one device.

    On a GPU a run is timed with CUDA events, after a flush of the L2 cache; where the host cannot launch kernels as
    fast as the GPU executes them, the time is the host's. On a CPU it is the time on the wall.

    Args:
        device: where operations run.
        seconds: how long one measurement may take, warm-up excluded; at least `fewest` runs are made.
        fewest: smallest number of runs.
    """

    def __init__(self, device: torch.device, seconds: float = 3.0, fewest: int = 5) -> None:
        self.device = device
        self.seconds = seconds
        self.fewest = fewest
        self._on_gpu = device.type == "cuda"
        self._flush = torch.empty(FLUSH_BYTES, dtype=torch.int8, device=device) if self._on_gpu else None

    def time(self, operation: Callable[[], object], warm_up: int = 3) -> Timing:
        """Median over many runs."""
        return self.time_parts(lambda mark: operation(), [], warm_up)["whole"]

    def time_parts(
        self, operation: Callable[[Callable[[str], None]], object], names: list[str], warm_up: int = 3
    ) -> dict[str, Timing]:
        """Median of a run and of its parts.

        Args:
            operation: calls what it is given with the name of a part at the end of that part.
            names: parts in their order.
            warm_up: runs that do not count.

        Returns:
            Timing by name; `whole` is the whole run.
        """
        for _ in range(warm_up):
            operation(lambda name: None)
        self.wait()
        found: dict[str, list[float]] = {name: [] for name in (*names, "whole")}
        end = time.perf_counter() + self.seconds
        while time.perf_counter() < end or len(found["whole"]) < self.fewest:
            marks = self._run(operation)
            for (_, before), (name, after) in itertools.pairwise(marks):
                if name in found:
                    found[name].append(self._between(before, after))
            found["whole"].append(self._between(marks[0][1], marks[-1][1]))
        return {name: Timing.of(values) for name, values in found.items()}

    def _run(self, operation: Callable[[Callable[[str], None]], object]) -> list[tuple[str, float | torch.cuda.Event]]:
        if self._flush is not None:
            self._flush.zero_()
        marks = [("", self._now())]
        operation(lambda name: marks.append((name, self._now())))
        marks.append(("", self._now()))
        self.wait()
        return marks

    def _now(self) -> float | torch.cuda.Event:
        if not self._on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    @staticmethod
    def _between(before: float | torch.cuda.Event, after: float | torch.cuda.Event) -> float:
        if isinstance(before, float) or isinstance(after, float):
            assert isinstance(before, float)
            assert isinstance(after, float)
            return (after - before) * 1e3
        return float(before.elapsed_time(after))

    def wait(self) -> None:
        """Until the device has done everything."""
        if self._on_gpu:
            torch.cuda.synchronize(self.device)

    def peak_mb(self, operation: Callable[[], object]) -> float | None:
        """Largest memory that a run takes beyond what is taken before it, MB (10^6 bytes); None on a CPU."""
        if not self._on_gpu:
            return None
        operation()
        self.wait()
        gc.collect()
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        operation()
        self.wait()
        return (torch.cuda.max_memory_allocated(self.device) - before) / MEGABYTE

    def captured(self, operation: Callable[[], object]) -> Callable[[], None] | None:
        """The operation as a CUDA graph; None on a CPU.

        Raises:
            RuntimeError: where the operation waits for the host or cannot be captured for another reason.
        """
        if not self._on_gpu:
            return None
        stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            for _ in range(3):
                operation()
        torch.cuda.current_stream(self.device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            kept = operation()

        def replay(kept: object = kept) -> None:
            graph.replay()

        return replay


@dataclass(frozen=True)
class Rates:
    """What this device reaches.

    Attributes:
        copy: bytes per second, read and written bytes counted both.
        matmul: FLOP per second of a large bf16 matrix product (float32 on a CPU).
    """

    copy: float
    matmul: float

    def floor_ms(self, transferred: float, flops: float) -> float:
        """The longer of moving the bytes and computing the FLOPs, milliseconds."""
        return max(transferred / self.copy, flops / self.matmul) * 1e3


def measure_rates(clock: Clock) -> Rates:
    """Rates of a 1 GiB copy and of an 8192³ product; smaller on a CPU."""
    on_gpu = clock.device.type == "cuda"
    source = torch.empty((2**30 if on_gpu else 2**26) // 4, device=clock.device)
    target = torch.empty_like(source)
    copied = clock.time(lambda: target.copy_(source)).median
    size, dtype = (8192, torch.bfloat16) if on_gpu else (1024, torch.float32)
    left, right = (torch.randn(size, size, device=clock.device).to(dtype) for _ in range(2))
    out: Tensor = torch.empty_like(left)
    multiplied = clock.time(lambda: torch.matmul(left, right, out=out)).median
    return Rates(2 * source.nbytes / (copied * 1e-3), 2 * size**3 / (multiplied * 1e-3))
