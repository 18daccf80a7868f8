"""The training loop: the library's detector, losses, optimizer and schedule, and batches from the cache."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from aqr.batch import Batch
from aqr.config import Config
from aqr.detector import Detector
from aqr.detector.detector import DetectorOutput
from aqr.modulation import measure
from aqr.training.checkpoint import save_final
from aqr.training.denormals import flushed_denormals
from aqr.training.module import autocast, step_seed
from aqr.training.optimizer import adamw, one_cycle, set_lr
from aqr.training.recorder import memory_mb
from aqr.training.run_folder import RunFolder, append_line
from aqr.training.update import router_grad_norm

log = logging.getLogger(__name__)

ExtraLosses = Callable[[Detector, DetectorOutput, Batch], dict[str, Tensor]]


@dataclass(frozen=True)
class Effort:
    """What training took.

    Attributes:
        steps: taken.
        seconds: from the first step to the last.
        memory_mb: most GPU memory taken.
    """

    steps: int
    seconds: float
    memory_mb: float


@flushed_denormals()
def fit(
    detector: Detector,
    config: Config,
    batches: Iterator[Batch],
    folder: RunFolder,
    *,
    device: torch.device,
    seconds: float | None = None,
    extra: ExtraLosses | None = None,
) -> Effort:
    """Train for `config.train.steps` steps, or faster through the same schedule where time is short.

    Processes of the experiment share GPUs, so the run folder says nothing of time and memory.

    Args:
        detector: on `device`.
        config: its settings; `train` and `seed` count here.
        batches: one per step.
        folder: receives config.yaml, metrics.jsonl, aqr_stats.jsonl and the final weights.
        device: where to compute.
        seconds: time after which the schedule has to be over; steps are left out evenly. None takes every step.
        extra: further losses.

    Raises:
        FloatingPointError: where the loss is not finite.
    """
    settings = config.train
    folder.start(config)
    detector.train()
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    optimizer = adamw(detector, settings)
    parameters = [p for p in detector.parameters() if p.requires_grad]
    generator = torch.Generator(device)
    begin = mark = time.perf_counter()
    progress, step, waited = 0, 0, 0.0
    sums: dict[str, Tensor] = {}
    counted = 0
    while progress < settings.steps:
        asked = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - asked
        lr = one_cycle(progress, settings)
        set_lr(optimizer, lr)
        seed = step_seed(config.seed, step, 0)
        torch.manual_seed(seed)
        generator.manual_seed(seed)
        with autocast(device, settings.precision):
            output = detector(batch, generator=generator)
            losses = detector.losses(output, batch)
            if extra is not None:
                losses |= extra(detector, output, batch)
        loss = torch.stack([value.float() for value in losses.values()]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        of_router = {} if detector.aqr is None else {"router_grad_norm": router_grad_norm(detector.aqr, loss)}
        norm = torch.nn.utils.clip_grad_norm_(parameters, settings.grad_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step, counted = step + 1, counted + 1
        progress = step
        if seconds is not None:
            progress = max(progress, int((time.perf_counter() - begin) / seconds * settings.steps))
        values = {**losses, "loss": loss, "grad_norm": norm, **of_router}
        sums = {name: value.detach().float() + sums.get(name, 0.0) for name, value in values.items()}
        last = progress >= settings.steps
        if output.aqr is not None and (step % settings.stats_every == 0 or last):
            statistics = measure(output.aqr, output.bev, output.images).summary()
            append_line(folder.statistics, {"forward": step, "ranks": 1, **statistics})
        if step % settings.log_every == 0 or last:
            names = list(sums)
            means = dict(zip(names, (torch.stack(list(sums.values())) / counted).tolist(), strict=True))
            if not math.isfinite(means["loss"]):
                raise FloatingPointError(f"{folder.path}: the loss is {means['loss']} at step {step}")
            now = time.perf_counter()
            append_line(folder.metrics, {"iteration": step, **means, "lr": lr, "skipped": 0})
            log.info(
                "%s: step %d (%d of %d)  loss %.3f  %.1f ms a step, %.1f of them waiting for data",
                folder.path.name,
                step,
                progress,
                settings.steps,
                means["loss"],
                1e3 * (now - mark) / counted,
                1e3 * waited / counted,
            )
            sums, counted, waited, mark = {}, 0, 0.0, now
    effort = Effort(step, time.perf_counter() - begin, memory_mb(device))
    save_final(folder, detector, config, step)
    return effort
