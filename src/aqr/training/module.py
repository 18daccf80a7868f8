"""One training step: forward, backward, and an update only where every number is finite, on every rank."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from typing import Any, Final

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from aqr.batch import Batch
from aqr.config import Config, Train
from aqr.detector import Detector
from aqr.detector.graphed_step import GraphedStep, Pass
from aqr.errors import InputError
from aqr.modulation import Statistics, measure
from aqr.modulation.controller import Decision
from aqr.training.adaptation import Adaptation
from aqr.training.checkpoint import Checkpoint
from aqr.training.optimizer import adamw, one_cycle, resume, set_lr
from aqr.training.ranks import Mean
from aqr.training.update import Update

SKIPPED_IN_ROW_LIMIT: Final = 50
"""Skipped steps in a row after which a run stops: no later batch will help it."""

INITIAL_LOSS_SCALE: Final = 2.0**12
"""fp16; doubled after every 2000 finite steps, halved at an overflow."""

logger = logging.getLogger(__name__)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The mixed precision of `train.precision`: 32, bf16 or 16."""
    dtype = torch.float16 if precision == "16" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "32")


def step_seed(seed: int, step: int, rank: int) -> int:
    """Seed of everything random in one step on one rank, below 2^63."""
    return int(np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)[0] >> np.uint64(1))


@dataclass(frozen=True)
class StepResult:
    """What one step gave, over all ranks.

    Attributes:
        iteration: number of this step, from 1.
        losses: weighted losses by name, mean over the ranks.
        loss: their sum.
        grad_norm: norm of the gradient before clipping.
        router_grad_norm: that of AQR without its gates, see `aqr.training.update.router_grad_norm`; None without AQR.
        lr: learning rate of the step where its factor is 1.
        skipped: whether a number was not finite and nothing was updated.
        statistics: pooled AQR statistics where this step took a snapshot.
        weight_maps: in snapshots of `train.stats_every` also this rank's maps, weight_map_bev [B, Hb, Wb] and
            weight_map_pers [B, V, Hi, Wi].
        settings: max_weight_clamp and residual_weight of this step, in runs that move them.
        decision: what the controller made of this step's statistics.
    """

    iteration: int
    losses: dict[str, float]
    loss: float
    grad_norm: float
    router_grad_norm: float | None
    lr: float
    skipped: bool
    statistics: Statistics | None
    weight_maps: dict[str, Tensor] = field(default_factory=dict)
    settings: dict[str, float] = field(default_factory=dict)
    decision: Decision | None = None


class TrainingModule(pl.LightningModule):  # type: ignore[misc]
    """Trains a detector for `config.train.steps` steps.

    Optimization is manual, because a step whose loss, gradient or points are not finite must leave no trace: weights
    and optimizer are not touched, buffers (batch-norm statistics) are put back, and all ranks decide together. The
    schedule and the order of samples go on as if the step had been taken.

    All random state is set at the start of each step from (seed, step, rank), so a resumed run needs none of it saved.

    Attributes:
        detector: the detector.
        step: steps done.
        skipped: of these, skipped.
        result: what the last step gave.
    """

    def __init__(self, config: Config, detector: Detector) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.config = config
        self.detector = detector
        self.step = 0
        self.skipped = 0
        self.skipped_in_row = 0
        self.result: StepResult | None = None
        self.adaptation = Adaptation(config)
        self._restored: Checkpoint | None = None
        self._scaler: torch.amp.GradScaler | None = None
        self._generator: torch.Generator | None = None
        self._graphed: GraphedStep | None = None
        self._ranks: Mean | None = None
        self._live_buffers: list[Tensor] = []
        self._saved_buffers: list[Tensor] = []

    @property
    def train_config(self) -> Train:
        return self.config.train

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint; optimizer and scaler follow when fitting starts."""
        self.detector.load_state_dict(checkpoint.detector)
        self.step = checkpoint.step
        self.skipped = checkpoint.skipped
        self.skipped_in_row = checkpoint.skipped_in_row
        self.adaptation.restore(self.detector.aqr, checkpoint.adaptation)
        self._restored = checkpoint

    def checkpoint(self, window: dict[str, Any]) -> Checkpoint:
        """The state after the last step; `window` is the recorder's."""
        assert self._scaler is not None
        return Checkpoint(
            step=self.step,
            skipped=self.skipped,
            skipped_in_row=self.skipped_in_row,
            detector=self.detector.state_dict(),
            optimizer=self.optimizers(use_pl_optimizer=False).state_dict(),
            scaler=self._scaler.state_dict(),
            window=window,
            config=self.config.to_yaml(),
            adaptation=self.adaptation.state(self.detector.aqr),
            world_size=self.trainer.world_size,
        )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return adamw(self.detector, self.train_config)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return batch.to(device)

    def on_fit_start(self) -> None:
        fp16 = self.train_config.precision == "16"
        self._scaler = torch.amp.GradScaler(self.device.type, init_scale=INITIAL_LOSS_SCALE, enabled=fp16)
        self._generator = torch.Generator(self.device)
        self._live_buffers = list(self.detector.buffers())
        self._saved_buffers = [torch.empty_like(buffer) for buffer in self._live_buffers]
        if self._restored is not None:
            resume(self.optimizers(use_pl_optimizer=False), self._restored.optimizer)
            if fp16:
                self._scaler.load_state_dict(self._restored.scaler)
            self._restored = None
        if self.trainer.world_size > 1:
            self._ranks = Mean(self.detector)
            self._ranks.start()
        if self.train_config.compile == "graphs":
            self._use_graphs(self._scaler)

    def _use_graphs(self, scaler: torch.amp.GradScaler) -> None:
        if not self.detector.has_fixed_shapes:
            logger.warning("train.compile: graphs runs as true: sparse convolutions and settings that move need it so")
            return
        precision = self.train_config.precision
        self._graphed = GraphedStep(self.detector, lambda: autocast(self.device, precision), scaler.scale)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        assert self._scaler is not None
        assert self._generator is not None
        optimizer = self.optimizers(use_pl_optimizer=False)
        lr = one_cycle(self.step, self.train_config)
        set_lr(optimizer, lr)
        seed = step_seed(self.config.seed, self.step, self.trainer.global_rank)
        torch.manual_seed(seed)
        self._generator.manual_seed(seed)
        torch._foreach_copy_(self._saved_buffers, self._live_buffers)

        settings = self.adaptation.before_step(self.detector.aqr, self.step)
        takes_snapshot = (self.step + 1) % self.train_config.stats_every == 0
        found = self._forward_and_backward(batch, self._generator)
        output, losses = found.output, found.losses
        statistics = None
        maps: dict[str, Tensor | None] = {}
        if output.aqr is not None and (takes_snapshot or self.adaptation.measures(self.step + 1)):
            statistics = measure(output.aqr, output.bev, output.images).all_reduce()
        if output.aqr is not None and takes_snapshot:
            maps = {"weight_map_bev": output.aqr.bev_map, "weight_map_pers": output.aqr.image_maps}
        numbers = torch.stack(
            [torch.where(output.finite, 0.0, torch.nan), found.loss, *(value.float() for value in losses.values())]
        )
        del found, output
        if self._ranks is not None:
            numbers = self._ranks(numbers)
        self._scaler.unscale_(optimizer)
        read = Update(self.detector, optimizer, self.train_config.grad_clip)(numbers)
        self._scaler.update()
        norm, router, poisoned, total, *parts = read()
        skipped = not all(map(math.isfinite, (norm, router, poisoned, total, *parts)))
        if skipped:
            torch._foreach_copy_(self._live_buffers, self._saved_buffers)

        self.step += 1
        decision = None
        if statistics is not None and not skipped:
            decision = self.adaptation.after_step(self.detector.aqr, self.step, statistics)
        self.result = StepResult(
            iteration=self.step,
            losses=dict(zip(losses, parts, strict=True)),
            loss=total,
            grad_norm=norm,
            router_grad_norm=None if self.detector.aqr is None else router,
            lr=lr,
            skipped=skipped,
            statistics=None if skipped else statistics,
            # A CUDA graph of the next step would write over them.
            weight_maps={} if skipped else {name: m.detach().clone() for name, m in maps.items() if m is not None},
            settings=settings,
            decision=decision,
        )
        self._count_skipped(self.result, math.isnan(poisoned))

    def _forward_and_backward(self, batch: Batch, generator: torch.Generator) -> Pass:
        """Losses of this rank's batch, and gradients of their scaled sum in the parameters."""
        assert self._scaler is not None
        if self._graphed is not None:
            return self._graphed(batch, generator)
        with autocast(self.device, self.train_config.precision):
            output = self.detector(batch, generator=generator)
            losses = self.detector.losses(output, batch)
        loss = torch.stack([value.float() for value in losses.values()]).sum()
        torch.autograd.backward(self._scaler.scale(loss))
        return Pass({name: value.detach() for name, value in losses.items()}, loss.detach(), output)

    def _count_skipped(self, result: StepResult, bad_points: bool) -> None:
        if not result.skipped:
            self.skipped_in_row = 0
            return
        self.skipped += 1
        self.skipped_in_row += 1
        bad = [f"{name} is {value}" for name, value in result.losses.items() if not math.isfinite(value)]
        if bad_points:
            reason = "a LiDAR point is not finite"
        elif bad:
            reason = ", ".join(bad)
        else:
            reason = f"the gradient norm is {result.grad_norm}"
        logger.warning("step %d skipped, nothing was updated: %s", result.iteration, reason)
        if self.skipped_in_row >= SKIPPED_IN_ROW_LIMIT:
            raise InputError(
                f"training stopped at step {result.iteration}: {self.skipped_in_row} steps in a row were not finite "
                f"(last: {reason}); check the data, lower train.lr or set train.precision to bf16 or 32"
            )
