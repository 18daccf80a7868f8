"""A run folder: what a training run leaves behind, and where."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aqr import config as configuration
from aqr.config import Config
from aqr.errors import InputError
from aqr.files import replacing


def append_line(path: Path, value: Mapping[str, Any]) -> None:
    """Add one JSON object as a line; numbers that are not finite are an error, JSON has none.

    Raises:
        InputError: where the file cannot be written.
    """
    line = json.dumps(value, allow_nan=False) + "\n"
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(line)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); free space and go on with --resume") from None


@dataclass(frozen=True)
class RunFolder:
    """Names of the files in a run folder.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The config as resolved, YAML."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """One JSON object per log step."""
        return self.path / "metrics.jsonl"

    @property
    def statistics(self) -> Path:
        """One JSON object per snapshot of AQR statistics."""
        return self.path / "aqr_stats.jsonl"

    @property
    def maps(self) -> Path:
        """Weight maps of the snapshots, one .npz each."""
        return self.path / "maps"

    @property
    def log(self) -> Path:
        """What was said during training."""
        return self.path / "train.log"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def last_checkpoint(self) -> Path:
        """What a run resumes from."""
        return self.checkpoints / "last.ckpt"

    @property
    def final_weights(self) -> Path:
        """The trained detector, safetensors."""
        return self.checkpoints / "final.safetensors"

    def evaluation(self, name: str) -> Path:
        """Folder with results.json and metrics.json of one split."""
        return self.path / "eval" / name

    def holds_run(self) -> bool:
        return self.config.is_file()

    def start(self, config: Config) -> None:
        """Make the folder and write the config.

        Raises:
            InputError: if the folder holds a run, or cannot be made.
        """
        if self.holds_run():
            raise InputError(f"{self.path}: already holds a run; continue it with --resume or name another --run-dir")
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be made ({error.strerror}); name another --run-dir") from None
        with replacing(self.config) as partial:
            partial.write_text(config.to_yaml(), encoding="utf-8")

    def save_maps(self, iteration: int, maps: Mapping[str, npt.NDArray[np.float32]]) -> None:
        """Keep rank 0's weight maps of a snapshot, from which `aqr whatif` forecasts other settings."""
        with replacing(self.maps / f"{iteration:08d}.npz") as partial, partial.open("wb") as file:
            np.savez_compressed(file, **maps)  # type: ignore[arg-type]

    def load_config(self) -> Config:
        """The config of the run.

        Raises:
            InputError: if the folder holds no run or its config is damaged.
        """
        if not self.holds_run():
            raise InputError(f"{self.path}: holds no run (no config.yaml); give the folder that `aqr train` wrote")
        return configuration.load(self.config)

    def forget_after(self, iteration: int) -> None:
        """Drop lines of metrics.jsonl and aqr_stats.jsonl and maps after an iteration, and a line cut short."""
        for path, key in ((self.metrics, "iteration"), (self.statistics, "forward")):
            if path.is_file():
                lines = path.read_text(encoding="utf-8").splitlines()
                kept = "".join(f"{line}\n" for line in lines if _position(line, key) <= iteration)
                with replacing(path) as partial:
                    partial.write_text(kept, encoding="utf-8")
        for path in self.maps.glob("*.npz"):
            if int(path.stem) > iteration:
                path.unlink()


def _position(line: str, key: str) -> float:
    try:
        return float(json.loads(line)[key])
    except (ValueError, KeyError, TypeError):
        return float("inf")
