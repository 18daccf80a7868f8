"""A detector's scores while sensors fail, beside its clean ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from aqr.data.failures.catalogue import CAMERA, LIDAR, parse_failures
from aqr.data.failures.harm import Corruption
from aqr.files import replacing
from aqr.scoring.resistance import draw_resistance, resistance, resistance_table
from aqr.training.console import progress_bar, quiet_lightning
from aqr.training.evaluation import Evaluation, config_of, evaluation_folder, open_detector, open_fabric, with_data


def evaluate_failures(
    source: str | Path,
    corrupt: str,
    *,
    root: str | Path | None = None,
    version: str | None = None,
    split: str | None = None,
    out: str | Path | None = None,
    devices: int | None = None,
    seed: int = 0,
    show: bool = True,
) -> dict[str, Any]:
    """Score a detector on a split, clean and under sensor failures.

    Each evaluation leaves <split>/ or <split>-<failure>-<severity>/ with results.json and metrics.json; together they
    leave <split>-resistance.json (one failure: <split>-resistance-<what was asked for>.json) and a picture of it.

    Args:
        source: run folder, checkpoint or final.safetensors of a run.
        corrupt: failures, see `aqr.data.failures.catalogue.parse_failures`.
        root: data set folder instead of the run's `data.root`.
        version: version folder instead of the run's `data.version`.
        split: split instead of the run's `data.val_split`.
        out: folder for these folders; by default eval/ in the run folder, or beside a checkpoint that lies in none.
        devices: number of GPUs; by default as many of `train.devices` as there are.
        seed: of the failures' draws. It is not the run's, so that all detectors meet the same failures.
        show: say on the terminal how it goes, and print the table, on rank 0.

    Returns:
        What `aqr.scoring.resistance.resistance` says, on every rank.

    Raises:
        InputError: where source or data cannot be used, or a failure is not known.
    """
    config = with_data(config_of(Path(source)), root, version, split)
    sensors = [*([LIDAR] if config.sensors.lidar else []), *([CAMERA] if config.sensors.cameras else [])]
    failures = parse_failures(corrupt, sensors)
    name = config.data.val_split
    folder = evaluation_folder(Path(source), name).parent if out is None else Path(out)
    with quiet_lightning():
        fabric = open_fabric(config, devices)
        detector, step = open_detector(source, config)
        detector.to(fabric.device)
        clean: dict[str, Any] | None = None
        failed: dict[str, dict[int, dict[str, Any]]] = {}
        index = None
        with progress_bar(Console(stderr=True, quiet=not show)) as bar:
            task = bar.add_task("failures", total=1 + len(failures))
            for failure in (None, *failures):
                bar.update(task, description="no failure" if failure is None else str(failure))
                corruption = None if failure is None else Corruption(failure, seed)
                evaluation = Evaluation.of(config, fabric.global_rank, fabric.world_size, index, corruption)
                evaluation.check()
                index = evaluation.loader.dataset.index
                place = folder / (name if failure is None else f"{name}-{failure}")
                metrics = evaluation.run(detector, fabric.device, place, bar, step)
                if metrics is not None and failure is None:
                    clean = metrics.summary()
                elif metrics is not None and failure is not None:
                    failed.setdefault(failure.name, {})[failure.severity] = metrics.summary()
                bar.advance(task)
        figures: dict[str, Any] | None = None
        if clean is not None:
            figures = {"split": name, "seed": seed} | resistance(clean, failed)
            _write(figures, folder, f"{name}-resistance" + _suffix(corrupt))
            if show:
                Console().print(resistance_table(figures))
        shared: dict[str, Any] = fabric.broadcast(figures)
    return shared


def _write(figures: dict[str, Any], folder: Path, stem: str) -> None:
    text = json.dumps(figures, indent=2, allow_nan=False) + "\n"
    with replacing(folder / f"{stem}.json") as partial:
        partial.write_text(text, encoding="utf-8")
    draw_resistance(figures, folder / f"{stem}.png", figures["split"])


def _suffix(corrupt: str) -> str:
    return "" if corrupt == "all" else "-" + corrupt.replace(":", "-").replace(",", "+").replace(" ", "")
