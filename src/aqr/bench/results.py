"""What was measured: rows of tables, on the terminal and in a JSON file that is rewritten after every stage."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from aqr.files import write_json


@dataclass
class Row:
    """One figure.

    Attributes:
        what: is measured.
        value: in `unit`; None where it could not be measured, `note` says why.
        unit: ms, MB, x, … .
        target: largest value (smallest, for a ratio of speeds) that was aimed at.
        floor: smallest value that the hardware allows, in the same unit.
        low: 10th percentile.
        high: 90th percentile.
        runs: behind the median.
        more_is_better: whether the target is a lower bound.
        note: what one must know to read the figure.
    """

    what: str
    value: float | None
    unit: str = "ms"
    target: float | None = None
    floor: float | None = None
    low: float | None = None
    high: float | None = None
    runs: int | None = None
    more_is_better: bool = False
    note: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the target is met; None where there is none, or no value."""
        if self.value is None or self.target is None:
            return None
        return self.value >= self.target if self.more_is_better else self.value <= self.target

    def as_dict(self) -> dict[str, Any]:
        """What a JSON file holds of it."""
        return {**asdict(self), "reached": self.reached}


@dataclass
class Section:
    """A table.

    Attributes:
        title: what its rows have in common.
        rows: figures.
        remarks: sentences below the table.
    """

    title: str
    rows: list[Row] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """What a JSON file holds of it."""
        return {"title": self.title, "rows": [row.as_dict() for row in self.rows], "remarks": self.remarks}


class Results:
    """Sections as they come, printed at once and kept in a JSON file.

    Args:
        out: JSON file; None keeps nothing.
        device: that is measured.
        command: the command line.
        console: to print on.
    """

    def __init__(self, out: Path | None, device: torch.device, command: str, console: Console) -> None:
        self._out = out
        self._console = console
        self.sections: dict[str, Section] = {}
        self.not_measured: dict[str, str] = {}
        self.about = about(device, command)
        console.print(", ".join(f"{key} {value}" for key, value in self.about.items()), highlight=False)

    def add(self, name: str, section: Section) -> None:
        """Print a section and write everything so far."""
        self.sections[name] = section
        self._console.print(table(section))
        for remark in section.remarks:
            self._console.print(f"  {remark}", markup=False, highlight=False)
        self._write()

    def leave_out(self, name: str, reason: str) -> None:
        """Say that a stage was not measured."""
        self.not_measured[name] = reason
        self._console.print(f"not measured: {name} ({reason})", markup=False, highlight=False)
        self._write()

    def value(self, name: str, what: str) -> float | None:
        """A figure of a section that came before."""
        rows = self.sections[name].rows if name in self.sections else []
        return next((row.value for row in rows if row.what == what), None)

    def as_dict(self) -> dict[str, Any]:
        """What the JSON file holds."""
        sections = {name: section.as_dict() for name, section in self.sections.items()}
        return {**self.about, "sections": sections, "not_measured": self.not_measured}

    def _write(self) -> None:
        if self._out is not None:
            write_json(self._out, self.as_dict())


def about(device: torch.device, command: str) -> dict[str, str]:
    """Where and when something was measured."""
    try:
        triton = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        triton = "none"
    on_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else f"{platform.machine()} CPU",
        "threads": str(torch.get_num_threads()),
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "triton": triton,
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "command": command,
    }


def table(section: Section) -> Table:
    """A section as a table for the terminal."""
    drawn = Table(title=section.title, title_justify="left", header_style="bold")
    drawn.add_column("what", overflow="fold")
    for heading in ("median", "p10 … p90", "target", "floor", "× floor"):
        drawn.add_column(heading, justify="right", no_wrap=True)
    drawn.add_column("note", overflow="fold")
    for row in section.rows:
        spread = "" if row.low is None or row.high is None else f"{number(row.low)} … {number(row.high)}"
        sign = "≥" if row.more_is_better else "≤"
        target = "" if row.target is None else f"{sign} {number(row.target)}"
        if row.reached is not None:
            target += " ✓" if row.reached else " ✗"
        ratio = "" if row.value is None or not row.floor else f"{row.value / row.floor:.1f}"
        drawn.add_row(
            row.what,
            "not measured" if row.value is None else f"{number(row.value)} {row.unit}",
            spread,
            target,
            "" if row.floor is None else number(row.floor),
            ratio,
            row.note,
        )
    return drawn


def number(value: float) -> str:
    """Three significant digits without an exponent, where that can be read."""
    if value and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.1e}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
