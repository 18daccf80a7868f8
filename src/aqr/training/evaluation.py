"""Detections of a split as a nuScenes submission, and their score."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from lightning.fabric import Fabric
from rich.console import Console
from rich.progress import Progress

from aqr.config import Config
from aqr.data.failures.harm import Corruption
from aqr.data.index import Index
from aqr.data.loader import Batches, eval_loader
from aqr.detector import Detector, attribute_names
from aqr.errors import InputError
from aqr.files import write_json
from aqr.geometry import VELOCITY
from aqr.scoring import GroundTruth, Metrics, Predictions, load_ground_truth, write_submission
from aqr.scoring import evaluate as score
from aqr.scoring.submission import ATTRIBUTE_OF, MODALITIES
from aqr.training.adaptation import apply_settings
from aqr.training.checkpoint import Trained, read_config, take_weights, without_pretrained
from aqr.training.console import print_scores, progress_bar, quiet_lightning
from aqr.training.denormals import flushed_denormals
from aqr.training.inference import SampleDetections, detect, gather
from aqr.training.run_folder import RunFolder

RESULTS: Final = "results.json"
METRICS: Final = "metrics.json"


@dataclass(frozen=True)
class Evaluation:
    """One split, ready to be detected on and scored again and again.

    Attributes:
        config: of the detector.
        split: official split name.
        loader: this rank's share of the split.
    """

    config: Config
    split: str
    loader: Batches

    @classmethod
    def of(
        cls,
        config: Config,
        rank: int,
        world_size: int,
        index: Index | None = None,
        corruption: Corruption | None = None,
    ) -> Evaluation:
        """Open `data.val_split`, with a sensor failure in every sample where one is given.

        Raises:
            InputError: where the data set cannot be used.
        """
        split = config.data.val_split
        return cls(config, split, eval_loader(config, split, rank, world_size, index, corruption))

    @cached_property
    def tokens(self) -> list[str]:
        """Tokens of all samples of the split."""
        dataset = self.loader.dataset
        return [dataset.index.token(row) for row in dataset.rows]

    @cached_property
    def truth(self) -> GroundTruth:
        """What detections are scored against.

        Raises:
            InputError: if the split is not annotated.
        """
        dataset = self.loader.dataset
        return load_ground_truth(dataset.index, dataset.rows)

    def detect(self, detector: Detector, device: torch.device, bar: Progress) -> Predictions | None:
        """Detections of the whole split in the global frame, on rank 0; None on the other ranks."""
        found = gather(detect(detector, self.loader, device, evaluation_precision(self.config, device), bar))
        return None if found is None else in_global_frame([found[token] for token in self.tokens])

    def check(self) -> None:
        """Find out now what would go wrong later.

        Raises:
            InputError: if the split is not annotated.
        """
        self.truth  # noqa: B018

    @property
    def meta(self) -> dict[str, bool]:
        """What a submission says of the sensors behind it."""
        sensors = self.config.sensors
        return dict.fromkeys(MODALITIES, False) | {"use_camera": bool(sensors.cameras), "use_lidar": sensors.lidar}

    def write(self, predictions: Predictions, path: Path) -> None:
        """Write a nuScenes submission."""
        write_submission(path, self.tokens, predictions, self.meta)

    def run(
        self, detector: Detector, device: torch.device, folder: Path | None, bar: Progress, step: int | None = None
    ) -> Metrics | None:
        """Detect and score.

        Args:
            detector: what to score.
            device: where it is.
            folder: for results.json and metrics.json; None leaves none.
            bar: shows how far it is.
            step: after which the detector stands in its training, where that is known; metrics.json says so.

        Returns:
            The scores on rank 0, None on the other ranks.

        Raises:
            InputError: if the split is not annotated, before anything is detected.
        """
        self.check()
        predictions = self.detect(detector, device, bar)
        if predictions is None:
            return None
        metrics = score(self.truth, predictions)
        if folder is not None:
            self.write(predictions, folder / RESULTS)
            write_json(folder / METRICS, metrics.summary(self.meta) | ({} if step is None else {"step": step}))
        return metrics


def scored_step(folder: Path) -> int | None:
    """The step of a run whose scores stand in a folder; None where there are none, or no whole ones of a run."""
    try:
        step = json.loads((folder / METRICS).read_text(encoding="utf-8")).get("step")
    except (FileNotFoundError, ValueError):
        return None
    return step if isinstance(step, int) else None


def in_global_frame(found: list[SampleDetections]) -> Predictions:
    """Detections of samples 0, 1, … as rows in the global frame, each with the attribute that its speed suggests."""
    if not found:
        return Predictions.empty()
    boxes = np.concatenate([sample.boxes for sample in found])
    labels = np.concatenate([sample.labels for sample in found])
    return Predictions.from_lidar(
        sample=np.repeat(np.arange(len(found)), [len(sample.labels) for sample in found]),
        boxes=boxes,
        label=labels,
        score=np.concatenate([sample.scores for sample in found]),
        attribute=np.array(
            [ATTRIBUTE_OF[name] for name in attribute_names(labels, boxes[:, VELOCITY])], dtype=np.int64
        ),
        lidar_to_global=[sample.frame.lidar_to_global for sample in found],
    )


@flushed_denormals()
def evaluate(
    source: str | Path | Config,
    *,
    root: str | Path | None = None,
    version: str | None = None,
    split: str | None = None,
    out: str | Path | None = None,
    devices: int | None = None,
    step: int | None = None,
    show: bool = True,
) -> dict[str, Any]:
    """Score a detector on a split.

    Args:
        source: run folder, checkpoint or final.safetensors of a run; or a config, for a detector that has learned
            nothing.
        root: data set folder instead of the run's `data.root`.
        version: version folder instead of the run's `data.version`.
        split: split instead of the run's `data.val_split`.
        out: folder for results.json and metrics.json; by default eval/<split> in the run folder (beside a checkpoint
            that lies in none), and nowhere for a config.
        devices: number of GPUs; by default as many of `train.devices` as there are.
        step: after which the detector stands in its training, for metrics.json where the source does not say.
        show: say on the terminal how it goes, and print the tables, on rank 0.

    Returns:
        The devkit's metrics_summary.json, on every rank.

    Raises:
        InputError: where source or data cannot be used.
    """
    config = with_data(source if isinstance(source, Config) else config_of(Path(source)), root, version, split)
    folder = None if out is None else Path(out)
    if folder is None and not isinstance(source, Config):
        folder = evaluation_folder(Path(source), config.data.val_split)
    with quiet_lightning():
        fabric = open_fabric(config, devices)
        evaluation = Evaluation.of(config, fabric.global_rank, fabric.world_size)
        detector, stated = open_detector(source, config)
        with progress_bar(Console(stderr=True, quiet=not show)) as bar:
            metrics = evaluation.run(
                detector.to(fabric.device), fabric.device, folder, bar, step if stated is None else stated
            )
        summary = None if metrics is None else metrics.summary(evaluation.meta)
        if summary is not None and show:
            print_scores(config.data.val_split, summary)
        broadcast: dict[str, Any] = fabric.broadcast(summary)
    return broadcast


@flushed_denormals()
def predict(
    source: str | Path | Config,
    out: str | Path,
    *,
    root: str | Path | None = None,
    version: str | None = None,
    split: str | None = None,
    devices: int | None = None,
) -> Path:
    """Write a detector's nuScenes submission for a split, which need not be annotated.

    Args:
        source: see `evaluate`.
        out: results.json.
        root: see `evaluate`.
        version: see `evaluate`.
        split: see `evaluate`.
        devices: see `evaluate`.

    Returns:
        The submission.

    Raises:
        InputError: where source or data cannot be used.
    """
    config = with_data(source if isinstance(source, Config) else config_of(Path(source)), root, version, split)
    with quiet_lightning():
        fabric = open_fabric(config, devices)
        evaluation = Evaluation.of(config, fabric.global_rank, fabric.world_size)
        detector, _ = open_detector(source, config)
        with progress_bar(Console(stderr=True)) as bar:
            predictions = evaluation.detect(detector.to(fabric.device), fabric.device, bar)
        if predictions is not None:
            evaluation.write(predictions, Path(out))
        fabric.barrier()
    return Path(out)


def load_detector(source: str | Path) -> tuple[Detector, Config]:
    """The trained detector of a run folder or checkpoint, in evaluation mode on the CPU, and its config.

    Raises:
        InputError: where the source cannot be used.
    """
    config = config_of(Path(source))
    detector, _ = open_detector(source, config)
    return detector.eval(), config


def config_of(source: Path) -> Config:
    """The config of a run folder or checkpoint.

    Raises:
        InputError: where the source cannot be used.
    """
    return RunFolder(source).load_config() if source.is_dir() else read_config(source)


def _weights_of(source: Path) -> Path:
    if not source.is_dir():
        return source
    folder = RunFolder(source)
    for path in (folder.final_weights, folder.last_checkpoint):
        if path.is_file():
            return path
    raise InputError(f"{folder.checkpoints}: holds no checkpoint yet; let `aqr train` run until it writes one")


def open_detector(source: str | Path | Config, config: Config) -> tuple[Detector, int | None]:
    """The detector of a config with the weights of a source, or the weights it starts from where that is a config.

    Returns:
        The detector on the CPU, and the steps it has done; None where the source does not say.

    Raises:
        InputError: where the source cannot be used or holds the weights of another detector.
    """
    torch.manual_seed(config.seed)
    if isinstance(source, Config):
        return Detector(config), None
    path = _weights_of(Path(source))
    trained = Trained.read(path)
    detector = Detector(without_pretrained(config))
    report = take_weights(detector, trained.weights, path)
    lacking = [*report.missing, *report.mismatched, *report.unexpected]
    if lacking:
        raise InputError(
            f"{path}: its weights and the config beside them are of different detectors (first: {lacking[0]}); "
            "restore the config that the run was trained with"
        )
    apply_settings(detector.aqr, trained.adaptation)
    return detector, trained.step


def evaluation_precision(config: Config, device: torch.device) -> str:
    """The run's precision on a GPU; fp32 on a CPU, where it is the fastest."""
    return config.train.precision if device.type == "cuda" else "32"


def with_data(config: Config, root: str | Path | None, version: str | None, split: str | None) -> Config:
    """The config with other data where named."""
    changes = {
        key: value
        for key, value in (
            ("root", None if root is None else Path(root)),
            ("kind", None if root is None else "nuscenes"),
            ("version", version),
            ("val_split", split),
        )
        if value is not None
    }
    return config.model_copy(update={"data": config.data.model_copy(update=changes)})


def evaluation_folder(path: Path, split: str) -> Path:
    """Where the evaluation of a run folder or checkpoint on a split is kept."""
    if path.is_dir():
        return RunFolder(path).evaluation(split)
    run = RunFolder(path.parent.parent)
    return run.evaluation(split) if run.holds_run() else path.parent / "eval" / split


def open_fabric(config: Config, devices: int | None) -> Fabric:
    """Processes on `devices` GPUs, by default as many of `train.devices` as there are, or one on the CPU.

    Raises:
        InputError: if there are fewer GPUs than asked for.
    """
    on_gpu = torch.cuda.is_available()
    present = torch.cuda.device_count() if on_gpu else 1
    count = min(config.train.devices, present) if devices is None else devices
    if on_gpu and count > present:
        raise InputError(f"{count} devices were asked for but this machine shows {present} GPUs; ask for fewer")
    fabric = Fabric(accelerator="cuda" if on_gpu else "cpu", devices=count, strategy="ddp" if count > 1 else "auto")
    fabric.launch()
    return fabric
