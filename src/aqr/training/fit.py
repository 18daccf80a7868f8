"""Training from a config to a run folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import lightning.pytorch as pl
import torch
from rich.console import Console

from aqr.config import Config
from aqr.data.loader import train_loader
from aqr.detector import Detector
from aqr.errors import InputError
from aqr.scoring import Metrics
from aqr.training.callbacks import Checkpointer, Evaluator
from aqr.training.checkpoint import Checkpoint, load_weights, stating_backbone, without_pretrained
from aqr.training.console import TrainingProgress, progress_bar, quiet_lightning, speaking
from aqr.training.denormals import flushed_denormals
from aqr.training.evaluation import Evaluation, evaluate, scored_step
from aqr.training.module import TrainingModule
from aqr.training.ranks import Processes
from aqr.training.recorder import Recorder
from aqr.training.run_folder import RunFolder

MAY_CHANGE: Final = frozenset(
    {
        "data.root",
        "data.val_split",
        "data.workers",
        "train.log_every",
        "train.stats_every",
        "train.checkpoint_every",
        "train.val_every",
        "train.compile",
        "train.init_from",
    }
)
"""Settings that may differ when a run is resumed: none of them changes what is learned."""

logger = logging.getLogger(__name__)


@flushed_denormals()
def train(
    config: Config,
    run_dir: str | Path,
    resume: bool = False,
    *,
    on_evaluation: Callable[[int, Metrics], None] | None = None,
    show: bool = True,
) -> Path:
    """Train a detector and score it on the validation split.

    Several GPUs (`train.devices`) run as one process each: this process starts the others by running its own command
    line again, unless torchrun or SLURM has started them. Only rank 0 writes and prints.

    Args:
        config: the run's config.
        run_dir: run folder, made here. It receives config.yaml, metrics.jsonl, aqr_stats.jsonl, train.log,
            checkpoints/, eval/ and TensorBoard events.
        resume: go on from the folder's last checkpoint, exactly as if the run had never stopped; a folder without one
            starts from the beginning.
        on_evaluation: called on rank 0 with the step and the scores after every evaluation of `train.val_every`. What
            it raises ends the run.
        show: say on the terminal how it goes.

    Returns:
        The run folder.

    Raises:
        InputError: if the folder already holds a run and `resume` is off, if the config of a resumed run differs in a
            setting that changes what is learned or its number of processes from that before, if data, checkpoint or
            devices are not there, or if 50 steps in a row were not finite.
    """
    folder = RunFolder(Path(run_dir))
    console = Console(stderr=True, quiet=not show)
    stored = folder.load_config() if resume and folder.holds_run() else None
    if stored is not None:
        config = stating_backbone(config, stored)
    checkpoint = None if stored is None else _last_checkpoint(folder, stored, config)
    if checkpoint is not None and checkpoint.step >= config.train.steps:
        return _finished(folder, config, checkpoint.step, show)
    with quiet_lightning():
        start = 0 if checkpoint is None else checkpoint.step
        trainer = _trainer(config, start, folder.path)
        if trainer.is_global_zero and folder.holds_run() and not resume:
            raise InputError(f"{folder.path}: already holds a run; continue it with --resume or name another --run-dir")
        if checkpoint is not None and checkpoint.world_size not in (None, trainer.world_size):
            raise InputError(
                f"{folder.last_checkpoint}: is of a run of {checkpoint.world_size} processes, and {trainer.world_size} "
                "would see other samples; resume on as many nodes and GPUs as before"
            )
        loader = train_loader(config, trainer.global_rank, trainer.world_size, start)
        evaluation = Evaluation.of(config, trainer.global_rank, trainer.world_size, loader.dataset.index)
        evaluation.check()
        # Only now: pretrained weights may have to come over the network.
        if stored is None:
            config = stating_backbone(config)
        module, notes = _module(config, checkpoint)
        if config.train.compile:
            module.detector.compile_parts()
        recorder = Recorder(
            folder, config.train.log_every, config.train.steps, None if checkpoint is None else checkpoint.window
        )
        bar = progress_bar(console)
        trainer.callbacks += [
            recorder,
            Checkpointer(folder, recorder),
            Evaluator(evaluation, folder, recorder, bar, on_evaluation, show),
            TrainingProgress(bar, config.train.steps),
        ]
        if trainer.is_global_zero:
            if folder.holds_run():
                folder.forget_after(module.step)
            else:
                folder.start(config)
        with speaking(console, folder.log):
            for note in notes:
                logger.info("%s", note)
            logger.info("training %s steps in %s", f"{config.train.steps:,}", folder.path)
            try:
                trainer.fit(module, loader)
            finally:
                bar.stop()
                recorder.close()
    return folder.path


def _module(config: Config, checkpoint: Checkpoint | None) -> tuple[TrainingModule, list[str]]:
    """The module to train, and what to tell the user about its weights."""
    if config.train.only and config.train.init_from is None and checkpoint is None:
        raise InputError(
            f"train.only={list(config.train.only)} would leave the rest of the detector at random weights; "
            "name the checkpoint to start from with train.init_from"
        )
    torch.manual_seed(config.seed)
    detector = Detector(config if checkpoint is None else without_pretrained(config))
    if config.train.only:
        detector.train_only(config.train.only)
    module = TrainingModule(config, detector)
    if checkpoint is not None:
        module.restore(checkpoint)
        return module, [f"resuming after step {checkpoint.step}"]
    if config.train.init_from is None:
        return module, []
    report = load_weights(module.detector, config.train.init_from)
    return module, [f"weights from {config.train.init_from}", *(f"  {line}" for line in report.lines())]


def _finished(folder: RunFolder, config: Config, step: int, show: bool) -> Path:
    """Score the detector where that was left undone, as by a run that was stopped during its last evaluation."""
    if scored_step(folder.evaluation(config.data.val_split)) != step:
        root = config.data.root if config.data.kind == "nuscenes" else None
        evaluate(folder.path, root=root, split=config.data.val_split, step=step, show=show)
    return folder.path


def _trainer(config: Config, start: int, root: Path) -> pl.Trainer:
    settings = config.train
    on_gpu = torch.cuda.is_available()
    if on_gpu and settings.devices > torch.cuda.device_count():
        raise InputError(
            f"train.devices is {settings.devices} but this machine shows {torch.cuda.device_count()} GPUs; lower it"
        )
    if settings.precision != "32":
        torch.set_float32_matmul_precision("high")
    nodes = int(os.environ.get("GROUP_WORLD_SIZE", os.environ.get("SLURM_NNODES", "1")))
    distributed = settings.devices * nodes > 1
    return pl.Trainer(
        accelerator="cuda" if on_gpu else "cpu",
        devices=settings.devices,
        num_nodes=nodes,
        strategy=Processes() if distributed else "auto",
        max_epochs=1,
        limit_train_batches=settings.steps - start,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        benchmark=on_gpu,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=root,
    )


def _last_checkpoint(folder: RunFolder, stored: Config, config: Config) -> Checkpoint | None:
    differing = [
        key
        for key, (old, new) in _compare(stored.model_dump(mode="json"), config.model_dump(mode="json")).items()
        if old != new and key not in MAY_CHANGE
    ]
    if differing:
        raise InputError(
            f"{folder.config}: the run was started with another {differing[0]}; resume with this file as the config, "
            f"or name another --run-dir"
        )
    return Checkpoint.load(folder.last_checkpoint) if folder.last_checkpoint.is_file() else None


def _compare(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Old and new value of every setting by dotted key; free-form mappings are one setting each."""
    pairs: dict[str, tuple[Any, Any]] = {}
    for key in old.keys() | new.keys():
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            pairs |= _compare(before, after, f"{prefix}{key}.")
        else:
            pairs[f"{prefix}{key}"] = (before, after)
    return pairs
