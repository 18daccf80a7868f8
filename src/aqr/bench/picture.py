"""A picture of how AQR's cost grows."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from aqr.bench.modulation import Growth
from aqr.files import replacing


def draw_growth(growth: Growth, path: Path, caption: str) -> None:
    """Time and memory over each axis, both logarithmic, beside a straight line of slope 1 through the first point.

    Raises:
        InputError: where the picture cannot be written.
    """
    figure = Figure(figsize=(3.2 * len(growth), 5.4), layout="constrained")
    rows = 2 if any(memory is not None for points in growth.values() for _, _, memory in points) else 1
    axes = figure.subplots(rows, len(growth), squeeze=False)
    for column, (axis, points) in enumerate(growth.items()):
        values = [value for value, _, _ in points]
        series = [("ms", [ms for _, ms, _ in points]), ("MB", [memory or 0.0 for _, _, memory in points])]
        for row, (unit, ys) in enumerate(series[:rows]):
            plot = axes[row][column]
            plot.loglog(values, ys, "o-", color="#1f77b4", base=2)
            plot.loglog(values, [ys[0] * v / values[0] for v in values], ":", color="0.5", base=2)
            plot.set_xticks(values, [str(v) for v in values])
            ticks = [y for y in (2.0**n for n in range(-6, 20)) if min(ys) / 2 <= y <= max(ys) * 2]
            plot.set_yticks(ticks, [f"{y:g}" for y in ticks])
            plot.minorticks_off()
            plot.set_xlabel(axis)
            plot.set_ylabel(unit)
            plot.grid(alpha=0.3)
    figure.suptitle(caption, fontsize=10)
    with replacing(path) as partial:
        figure.savefig(partial, format=path.suffix.removeprefix(".") or "png", dpi=130)
