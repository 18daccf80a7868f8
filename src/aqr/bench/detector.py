"""How long a training step of the whole detector takes, and how long it takes from tensors on the GPU to boxes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

import torch
from torch import Tensor

from aqr.batch import Batch
from aqr.bench.inputs import random_batch
from aqr.bench.results import Row, Section, number
from aqr.bench.timing import Clock, Timing
from aqr.config import Config, parse
from aqr.detector import Detector
from aqr.detector.graph import GraphedDetector
from aqr.detector.graphed_step import GraphedStep
from aqr.training.module import autocast
from aqr.training.optimizer import adamw
from aqr.training.update import Update

TARGET_STEP = 50.0
TARGET_LATENCY = 6.0
TARGET_SHARE = 2.0
TARGET_MEMORY = 200.0
BATCH = 4
BOXES = 30
POINTS = 250_000
How = Literal["plain", "compiled", "compiled, with CUDA graphs"]
PARTS = ["forward", "losses", "backward", "optimizer"]
PARTS_OF_GRAPHS = ["forward, losses, backward", "optimizer"]
FULL_SIZE: Final = "ResNet-50, 320 × 800, BEV 128²"
FASTEST: Final[How] = "compiled, with CUDA graphs"
FASTEST_INFERENCE: Final = "compiled, CUDA graph"
"""The ways that targets of time stand beside; the others are measured for comparison."""

REDUCED = {
    "num_query": 200,
    "num_layers": 2,
    "hidden_dim": 64,
    "feedforward_dim": 128,
    "lidar": {"pillars": [128, 128], "channels": [32, 64], "blocks": [1, 1], "strides": [2, 2], "out_stride": 4},
    "image": {"options": {"hidden_sizes": [32, 64, 128, 256], "depths": [1, 1, 1, 1]}},
}
REDUCED_POINTS = 20_000


def detector_config(reduced: bool, aqr: bool) -> Config:
    """ResNet-50 at 320 x 800 with frozen norms, BEV map 128 x 128, six layers; or a small one for CPUs."""
    detector = REDUCED if reduced else {"image": {"freeze_norm": True}}
    image = {"size": [64, 160]} if reduced else {}
    return parse({"detector": detector, "data": {"image": image}, "aqr": {"enabled": aqr}}, "benchmark")


class TrainingStep:
    """One step as `aqr train` takes it: forward, losses, backward, clipping, AdamW, one look at the numbers.

    Args:
        config: of the detector.
        batch: on the device.
        how: the detector runs.
    """

    def __init__(self, config: Config, batch: Batch, how: How = "plain") -> None:
        torch.manual_seed(0)
        self.config = config
        self.batch = batch
        self.detector = Detector(config).to(batch.device).train()
        if how != "plain":
            self.detector.compile_parts()
        self.graphed: GraphedStep | None = None
        if how == "compiled, with CUDA graphs":
            self.graphed = GraphedStep(self.detector, self._autocast)
        self.parts = PARTS if self.graphed is None else PARTS_OF_GRAPHS
        self.update = Update(self.detector, adamw(self.detector, config.train), config.train.grad_clip)
        self.generator = torch.Generator(batch.device).manual_seed(0)

    def __call__(self, mark: Callable[[str], None]) -> None:
        loss, losses = self._forward_and_backward(mark)
        mark(self.parts[-2])
        numbers = torch.stack([loss.detach(), *(value.detach().float() for value in losses.values())])
        self.update(numbers)()
        mark("optimizer")

    def _forward_and_backward(self, mark: Callable[[str], None]) -> tuple[Tensor, dict[str, Tensor]]:
        if self.graphed is not None:
            found = self.graphed(self.batch, self.generator)
            return found.loss, found.losses
        with self._autocast():
            output = self.detector(self.batch, generator=self.generator)
            mark("forward")
            losses = self.detector.losses(output, self.batch)
        del output
        mark("losses")
        loss = torch.stack([value.float() for value in losses.values()]).sum()
        torch.autograd.backward(loss)
        return loss, losses

    def _autocast(self) -> torch.autocast:
        on_gpu = self.batch.device.type == "cuda"
        return autocast(self.batch.device, self.config.train.precision if on_gpu else "32")


def training_step(clock: Clock, how: How, alone: float | None) -> Section:
    """Without and with AQR.

    Args:
        clock: of the device.
        how: the detector runs.
        alone: what AQR takes by itself, run in the same way, milliseconds; None where that was not measured.
    """
    before = torch.backends.cudnn.benchmark
    # As `aqr train` has it on a GPU.
    torch.backends.cudnn.benchmark = clock.device.type == "cuda"
    try:
        return _training_step(clock, how, alone)
    finally:
        torch.backends.cudnn.benchmark = before


def _training_step(clock: Clock, how: How, alone: float | None) -> Section:
    reduced = clock.device.type != "cuda"
    samples = 1 if reduced else BATCH
    size = "a reduced detector on this CPU, no sign of a GPU's speed" if reduced else FULL_SIZE
    section = step_section(size, samples, how)
    whole: dict[bool, Timing] = {}
    peaks: dict[bool, float | None] = {}
    for aqr in (False, True):
        config = detector_config(reduced, aqr)
        points = REDUCED_POINTS if reduced else POINTS
        step = TrainingStep(config, random_batch(config, samples, BOXES, points).to(clock.device), how)
        parts = clock.time_parts(step, step.parts, warm_up=1 if reduced else 5)
        whole[aqr] = parts["whole"]
        # Graphs hold their memory for good, so that a run of theirs takes none.
        peaks[aqr] = None
        if step.graphed is None:
            peaks[aqr] = clock.peak_mb(lambda step=step: step(lambda name: None))  # type: ignore[misc]
        name = "with AQR" if aqr else "without AQR"
        goal = TARGET_STEP if aqr and not reduced and how == FASTEST else None
        section.rows.append(timed(f"training step {name}, {how}", whole[aqr], goal))
        section.rows += [timed(f"  {part}", parts[part]) for part in step.parts]
        del step
    section.rows.append(added_share(whole[False], whole[True]))
    if not reduced:
        section.rows.append(alone_share(alone, whole[True], how))
    without, with_aqr = peaks[False], peaks[True]
    if without is not None and with_aqr is not None:
        section.rows.append(Row("peak memory without AQR", without, "MB"))
        goal = TARGET_MEMORY if how == "plain" else None
        note = f"in a {how} step; graphs hold theirs for good"
        section.rows.append(Row("extra peak memory of AQR", with_aqr - without, "MB", goal, note=note))
    section.remarks.append("Noise as images: the speed of convolutions and attention does not depend on it.")
    return section


def step_section(size: str, samples: int, how: How) -> Section:
    """The table of a training step, still without rows."""
    return Section(f"Training step, {size}, B {samples}, {how}")


def inference_section(size: str) -> Section:
    """The table of inference, still without rows."""
    return Section(f"Inference, {size}, B 1, from tensors on the device to boxes in host memory")


def added_share(without: Timing, with_aqr: Timing) -> Row:
    """What AQR adds to a step in percent, and whether the two steps' p10 to p90 lie apart."""
    share = 100 * (with_aqr.median / without.median - 1)
    noise = without.low <= with_aqr.high and with_aqr.low <= without.high
    note = "noise: p10 to p90 of the two steps overlap" if noise else ""
    return Row("AQR's share of the step, from the two steps", share, "%", note=note)


def alone_share(alone: float | None, step: Timing, how: How) -> Row:
    """AQR by itself over the step that holds it, percent, both run in the same way."""
    what = f"AQR alone over the training step with it, {how}"
    goal = TARGET_SHARE if how == FASTEST else None
    if alone is None:
        return Row(what, None, "%", goal, note=f"AQR alone was not timed {how}")
    return Row(what, 100 * alone / step.median, "%", goal, note=f"AQR alone: {number(alone)} ms")


def latency(clock: Clock, compiled: bool) -> Section:
    """One sample, from tensors on the device to boxes in host memory."""
    reduced = clock.device.type != "cuda"
    section = inference_section("a reduced detector on this CPU" if reduced else FULL_SIZE)
    for aqr in (False, True):
        config = detector_config(reduced, aqr)
        points = REDUCED_POINTS if reduced else POINTS
        batch = random_batch(config, 1, 0, points).to(clock.device)
        name = f"inference {'with' if aqr else 'without'} AQR"
        torch.manual_seed(0)
        detector = Detector(config).to(clock.device).eval()
        precision = "32" if reduced else config.train.precision

        @torch.no_grad()
        def eager(detector: Detector = detector, batch: Batch = batch, precision: str = precision) -> object:
            with autocast(batch.device, precision):
                return detector.decode(detector(batch))

        section.rows.append(timed(f"{name}, as it is", clock.time(eager)))
        if reduced:
            continue
        for kind in ("CUDA graph", *([FASTEST_INFERENCE] if compiled else [])):
            goal = TARGET_LATENCY if aqr and kind == FASTEST_INFERENCE else None
            try:
                graphed = GraphedDetector(detector, batch, precision, compiled=kind.startswith("compiled"))
                timing = clock.time(lambda graphed=graphed, batch=batch: graphed(batch))  # type: ignore[misc]
            except Exception as error:  # a compiler that fails must not cost the other figures
                reason = " ".join(str(error).split())[:160]
                section.rows.append(Row(f"{name}, {kind}", None, target=goal, note=f"failed: {reason}"))
            else:
                section.rows.append(timed(f"{name}, {kind}", timing, goal))
    if reduced:
        section.remarks.append("Not measured without a GPU: the CUDA graph and the full size.")
    return section


def timed(what: str, timing: Timing, target: float | None = None) -> Row:
    """A row of a time."""
    return Row(what, timing.median, "ms", target, None, timing.low, timing.high, timing.runs)
