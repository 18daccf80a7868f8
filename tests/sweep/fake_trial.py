"""Trials that take no training: a known surface over clamp and residual, in this process or in others."""

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

from aqr.config import Config
from aqr.errors import InputError
from aqr.sweep import sweep
from aqr.sweep.settings import SweepSettings
from aqr.sweep.trial import Report

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["aqr.sweep"])

SEARCH = {"aqr.renderer.max_weight_clamp": "1.2..3.0", "aqr.modulator.residual_weight": "0.3..0.95"}
BEST = (2.1, 0.72)


def surface(clamp: float, residual: float) -> float:
    return 0.5 - 0.1 * (clamp - BEST[0]) ** 2 - 0.8 * (residual - BEST[1]) ** 2


def scored(config: Config) -> dict[str, float]:
    residual = config.aqr.modulator.default_residual
    value = surface(config.aqr.renderer.max_weight_clamp, residual)
    return {"mAP": value, "NDS": value + 0.1, "resistance": residual}


def quick(config: Config, folder: Path, settings: SweepSettings, report: Report) -> dict[str, float]:
    scores = scored(config)
    for step in (10, 20):
        report(step, {name: value * step / 30 for name, value in scores.items()})
    return scores


def slow(config: Config, folder: Path, settings: SweepSettings, report: Report) -> dict[str, float]:
    folder.mkdir()
    (folder / "worker").write_text(str(os.getpid()))
    time.sleep(0.1)
    return scored(config)


def deadly(config: Config, folder: Path, settings: SweepSettings, report: Report) -> dict[str, float]:
    """The worker that meets the third trial dies, and one that meets it again does not."""
    if folder.name == "trial-0002":
        os.kill(os.getpid(), signal.SIGKILL)
    return slow(config, folder, settings, report)


def failing(config: Config, folder: Path, settings: SweepSettings, report: Report) -> dict[str, float]:
    """Small clamps cannot be trained."""
    if config.aqr.renderer.max_weight_clamp < 2 and folder.name != "trial-0000":
        raise InputError("training stopped at step 3: 50 steps in a row were not finite; lower train.lr")
    return scored(config)


def work(options: dict[str, Any], name: str) -> None:
    """One worker of several."""
    trial = {"slow": slow, "deadly": deadly}[name]
    settings = SweepSettings(search=SEARCH, trials=options["trials"], heartbeat=1, startup=4)
    sweep(options["config"], options["out"], settings, storage=options.get("storage"), run_trial=trial)


def workers(options: dict[str, Any], count: int, name: str = "slow") -> list[int | None]:
    """Start workers at once and wait for them; their exit codes."""
    processes = [SERVER.Process(target=work, args=(options, name)) for _ in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(100)
    return [process.exitcode for process in processes]
