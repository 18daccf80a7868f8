"""Tables for the terminal."""

from __future__ import annotations

from rich.box import SIMPLE
from rich.table import Table

from aqr.analysis.forecast import ROUGH, Forecast
from aqr.analysis.whatif import WhatIf


def whatif_table(grid: WhatIf) -> Table:
    """The grid of `aqr whatif`: largest factor and relative_change to expect, per cent, for each clamp × residual."""
    additive = any(cell.camera_additive is not None for cell in grid.cells)
    formula = "residual + W" if grid.form == "additive" else "residual + (1 − residual)·W"
    table = Table(
        title=f"{grid.run}: {formula}",
        caption=" ".join(map(str, grid.assumptions)),
        caption_justify="left",
        box=SIMPLE,
        padding=(0, 1, 0, 0),
    )
    for name in ("clamp", "residual", "factor", "camera %", "", "BEV %", ""):
        table.add_column(name, justify="right", no_wrap=True)
    if additive:
        table.add_column("r + W %", justify="right", no_wrap=True)
    for cell in grid.cells:
        row = [f"{cell.max_weight_clamp:g}", f"{cell.residual_weight:g}", f"{cell.largest_factor:.3f}"]
        row += [*_shown(cell.camera, grid.source == "maps"), *_shown(cell.bev, grid.source == "maps")]
        table.add_row(*row, *([_shown(cell.camera_additive, False)[1]] if additive else []))
    return table


def _shown(forecast: Forecast | None, maps: bool) -> tuple[str, str]:
    """What is expected, and the interval; whole points where the spread is not known."""
    if forecast is None:
        return "–", ""
    low, high = 100 * forecast.low, 100 * forecast.high
    if maps and not forecast.rough and f"{low:.1f}" == f"{high:.1f}":
        return f"{100 * forecast.expected:.1f}", "exact"
    if forecast.rough:
        return f"{100 * forecast.expected:.0f}", "about" if high - low < ROUGH else f"{low:.0f}–{high:.0f}"
    return f"{100 * forecast.expected:.1f}", f"{low:.1f}–{high:.1f}"
