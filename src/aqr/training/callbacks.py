"""What happens beside the steps: checkpoints and evaluations."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
from rich.progress import Progress

from aqr.scoring import Metrics
from aqr.training.checkpoint import save_final, save_numbered
from aqr.training.console import print_scores
from aqr.training.evaluation import Evaluation
from aqr.training.module import TrainingModule
from aqr.training.recorder import Recorder
from aqr.training.run_folder import RunFolder

logger = logging.getLogger(__name__)


class Checkpointer(pl.Callback):  # type: ignore[misc]
    """Writes a checkpoint every `checkpoint_every` steps and at the last one, which also leaves the final weights."""

    def __init__(self, folder: RunFolder, recorder: Recorder) -> None:
        self._folder = folder
        self._recorder = recorder

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: TrainingModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        settings = pl_module.config.train
        done = pl_module.step == settings.steps
        if not done and pl_module.step % settings.checkpoint_every:
            return
        if trainer.is_global_zero:
            if done:
                moved = pl_module.adaptation.state(pl_module.detector.aqr)
                save_final(self._folder, pl_module.detector, pl_module.config, pl_module.step, moved)
            save_numbered(self._folder, pl_module.checkpoint(self._recorder.window.state()))
        self._recorder.restart_clock()


class Evaluator(pl.Callback):  # type: ignore[misc]
    """Scores the detector on the validation split every `val_every` steps and after the last one."""

    def __init__(
        self,
        evaluation: Evaluation,
        folder: RunFolder,
        recorder: Recorder,
        bar: Progress,
        on_evaluation: Callable[[int, Metrics], None] | None = None,
        show: bool = True,
    ) -> None:
        self._evaluation = evaluation
        self._folder = folder
        self._recorder = recorder
        self._bar = bar
        self._on_evaluation = on_evaluation
        self._show = show

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: TrainingModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        settings = pl_module.config.train
        if settings.val_every and pl_module.step % settings.val_every == 0 and pl_module.step < settings.steps:
            metrics = self._evaluate(pl_module)
            if metrics is not None and self._on_evaluation is not None:
                self._on_evaluation(pl_module.step, metrics)

    def on_train_end(self, trainer: pl.Trainer, pl_module: TrainingModule) -> None:
        metrics = self._evaluate(pl_module)
        self._bar.stop()
        if metrics is not None and self._show:
            print_scores(self._evaluation.split, metrics.summary())

    def _evaluate(self, module: TrainingModule) -> Metrics | None:
        split = self._evaluation.split
        folder = self._folder.evaluation(split)
        metrics = self._evaluation.run(module.detector, module.device, folder, self._bar, module.step)
        if metrics is not None:
            figures = {"mAP": metrics.mean_ap, "NDS": metrics.nds}
            logger.info("step %d  %s: mAP %.4f  NDS %.4f", module.step, split, *figures.values())
            self._recorder.scalars(f"eval/{split}", figures, module.step)
        self._recorder.restart_clock()
        return metrics
