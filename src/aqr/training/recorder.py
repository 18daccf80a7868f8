"""Writes metrics.jsonl, aqr_stats.jsonl and TensorBoard events while a detector trains."""

from __future__ import annotations

import logging
import resource
import sys
import time
from dataclasses import asdict
from typing import Any

import lightning.pytorch as pl
import torch
from torch.utils.tensorboard import SummaryWriter

from aqr.training.console import STEP_LOGGER
from aqr.training.module import StepResult, TrainingModule
from aqr.training.run_folder import RunFolder, append_line

logger = logging.getLogger(STEP_LOGGER)

MEGABYTE = 2**20


class Window:
    """Sums of the steps since the last log step, in a form that a checkpoint can hold.

    Losses and norms are averaged over the steps that were not skipped, times over all of them.
    """

    def __init__(self, state: dict[str, Any] | None = None) -> None:
        state = state or {}
        self.steps: int = state.get("steps", 0)
        self.counted: int = state.get("counted", 0)
        self.sums: dict[str, float] = dict(state.get("sums", {}))
        self.times: dict[str, float] = dict(state.get("times", {}))

    def state(self) -> dict[str, Any]:
        return {"steps": self.steps, "counted": self.counted, "sums": dict(self.sums), "times": dict(self.times)}

    def add(self, result: StepResult, step_time: float, data_time: float) -> None:
        self.steps += 1
        for name, value in (("step_time_s", step_time), ("data_time_s", data_time)):
            self.times[name] = self.times.get(name, 0.0) + value
        values = {**result.losses, "loss": result.loss, "grad_norm": result.grad_norm}
        if result.router_grad_norm is not None:
            values["router_grad_norm"] = result.router_grad_norm
        self.counted += not result.skipped
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + (0.0 if result.skipped else value)

    def means(self) -> dict[str, float | None]:
        """Mean of every figure by name; None for losses and norms where all steps were skipped."""
        figures = {name: total / self.counted if self.counted else None for name, total in self.sums.items()}
        return {**figures, **{name: total / self.steps for name, total in self.times.items()}}


class Recorder(pl.Callback):  # type: ignore[misc]
    """Rank 0's record of a run. Checkpoints and evaluations do not count into step_time_s."""

    def __init__(self, folder: RunFolder, log_every: int, steps: int, window: dict[str, Any] | None = None) -> None:
        self.window = Window(window)
        self._folder = folder
        self._log_every = log_every
        self._steps = steps
        self._writer: SummaryWriter | None = None
        self._mark = 0.0
        self._data_time = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: TrainingModule) -> None:
        if trainer.is_global_zero:
            self._writer = SummaryWriter(str(self._folder.path / "tensorboard"), purge_step=pl_module.step + 1)
        self.restart_clock()

    def restart_clock(self) -> None:
        """Leave out what happened since the last step."""
        self._mark = time.perf_counter()

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: TrainingModule, batch: Any, batch_idx: int) -> None:
        self._data_time = time.perf_counter() - self._mark

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: TrainingModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        result = pl_module.result
        assert result is not None
        now = time.perf_counter()
        self.window.add(result, now - self._mark, self._data_time)
        self._mark = now
        if result.iteration % self._log_every == 0 or result.iteration == self._steps:
            if trainer.is_global_zero:
                self._log(result, pl_module)
            self.window = Window()
        if result.statistics is not None and trainer.is_global_zero:
            line = {
                "forward": result.iteration,
                "ranks": result.statistics.ranks,
                **({"settings": result.settings} if result.settings else {}),
                **({"controller": asdict(result.decision)} if result.decision is not None else {}),
                **result.statistics.summary(),
            }
            append_line(self._folder.statistics, line)
            if result.weight_maps:
                maps = {name: weights.float().cpu().numpy() for name, weights in result.weight_maps.items()}
                self._folder.save_maps(result.iteration, maps)

    def scalars(self, group: str, values: dict[str, float], iteration: int) -> None:
        """Add figures to the TensorBoard events."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"{group}/{name}", value, iteration)
            self._writer.flush()

    def _log(self, result: StepResult, module: TrainingModule) -> None:
        means = self.window.means()
        line = {
            "iteration": result.iteration,
            **means,
            "lr": result.lr,
            **result.settings,
            "memory_mb": memory_mb(module.device),
            "skipped": module.skipped,
        }
        append_line(self._folder.metrics, line)
        self.scalars("train", {k: v for k, v in line.items() if isinstance(v, float)}, result.iteration)
        shown = "  ".join(
            f"{name} {value:.4g}"
            for name in ("loss", "grad_norm", "lr", "step_time_s", "data_time_s", "memory_mb")
            if (value := line[name]) is not None
        )
        logger.info("step %d/%d  %s", result.iteration, self._steps, shown)

    def close(self) -> None:
        """Finish the TensorBoard events."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def memory_mb(device: torch.device) -> float:
    """Largest memory taken so far, MiB: on the GPU, or by this process where there is none."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MEGABYTE
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MEGABYTE if sys.platform == "darwin" else peak * 1024 / MEGABYTE
