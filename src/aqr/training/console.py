"""What a run says, where it says it, and what is kept from the user's terminal."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from aqr.scoring.tables import class_table, overall_table

STEP_LOGGER = "aqr.training.steps"
"""Logger of the line per log step, which a terminal with a progress bar does not need."""


def is_main_process() -> bool:
    """Whether this process is the one that writes and speaks: rank 0."""
    return int(rank_zero_only.rank or 0) == 0


class _ConsoleHandler(logging.Handler):
    """Prints through rich, so that a running progress bar stays below what is said."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        style = "yellow" if record.levelno >= logging.WARNING else None
        self._console.print(self.format(record), style=style, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning's hints, summaries and advice off the terminal; its errors pass."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\.")
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextmanager
def speaking(console: Console, log: Path | None = None) -> Iterator[None]:
    """Send the `aqr` loggers to a log file and to the console.

    Plain stream handlers of the root logger step aside, because they would write across a progress bar; where the
    caller has installed handlers of another kind, nothing goes to the console. On ranks other than 0 only errors are
    heard.
    """
    everything, root = logging.getLogger(), logging.getLogger("aqr")
    aside: list[logging.Handler] = [
        handler for handler in everything.handlers if type(handler) is logging.StreamHandler
    ]
    for handler in aside:
        everything.removeHandler(handler)
    handlers: list[logging.Handler] = []
    level = root.level
    if is_main_process():
        root.setLevel(logging.INFO)
        if not root.hasHandlers():
            shown = _ConsoleHandler(console)
            if console.is_terminal:
                shown.addFilter(lambda record: record.name != STEP_LOGGER)
            handlers.append(shown)
        if log is not None:
            written = logging.FileHandler(log, encoding="utf-8")
            written.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
            handlers.append(written)
    else:
        root.setLevel(logging.ERROR)
    for handler in handlers:
        root.addHandler(handler)
    try:
        yield
    finally:
        root.setLevel(level)
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()
        for handler in aside:
            everything.addHandler(handler)


def print_scores(name: str, summary: Mapping[str, Any]) -> None:
    """Print the overall table and the one by class to standard output."""
    console = Console()
    console.print(overall_table({name: summary}))
    console.print(class_table(summary))


def progress_bar(console: Console) -> Progress:
    """A bar that shows on a terminal that is not quiet, and nowhere else."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal or console.quiet or not is_main_process(),
        transient=True,
    )


class TrainingProgress(pl.Callback):  # type: ignore[misc]
    """Steps done, loss and remaining time."""

    def __init__(self, bar: Progress, steps: int) -> None:
        self._bar = bar
        self._steps = steps
        self._task: TaskID | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._bar.start()
        self._task = self._bar.add_task("training", total=self._steps, completed=pl_module.step)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        assert self._task is not None
        loss = pl_module.result.loss
        self._bar.update(self._task, completed=pl_module.step, description=f"training  loss {loss:.4f}")
