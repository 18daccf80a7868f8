"""The key under a picture: what each colour and line means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from aqr.taxonomy import CLASSES
from aqr.view.page import SMALL_SIZE, Page, points
from aqr.view.palette import CLASS_COLOURS, GROUND, HEIGHTS, QUERY, TRUTH, ramp, weight_colours
from aqr.view.scene import Detections, Scene, WeightScale

ROW: Final = 30
BAR_ROW: Final = 52
_SWATCH: Final = 26
_BAR: Final = 210
_GAP: Final = 24


@dataclass(frozen=True)
class Entry:
    """One item of the key.

    Attributes:
        words: its label.
        draw: draws the sign into bare axes whose unit is the pixel.
        width: of the sign, pixels.
        ticks: for a colour bar, (share of its width, label) under it.
    """

    words: str
    draw: Callable[[Any], None]
    width: int = _SWATCH
    ticks: tuple[tuple[float, str], ...] = ()


def flow(page: Page | None, entries: Sequence[Entry], x: float, y: float, room: float) -> float:
    """Set entries one after another, in lines at most `room` pixels wide; returns the height they need.

    With no page nothing is drawn: the height alone is measured.
    """
    pen = page if page is not None else Page(8, 8)
    left, top, line = x, y, 0.0
    for entry in entries:
        width = entry.width + 8 + pen.measure(entry.words)
        height = BAR_ROW if entry.ticks else ROW
        if left > x and left + width > x + room:
            left, top, line = x, top + line, 0.0
        line = max(line, height)
        if page is not None:
            _place(page, entry, left, top)
        left += width + _GAP
    return top + line - y


def _place(page: Page, entry: Entry, x: float, y: float) -> None:
    tall = 18
    axes = page.panel(x, y + (ROW - tall) / 2, entry.width, tall)
    axes.set(xlim=(0, entry.width), ylim=(tall, 0))
    entry.draw(axes)
    page.text(x + entry.width + 8, y + ROW / 2, entry.words)
    for share, words in entry.ticks:
        align = "left" if share <= 0.0 else "right" if share >= 1.0 else "center"
        page.text(x + share * entry.width, y + ROW + 6, words, size=SMALL_SIZE, align=align)


def _on_ground(axes: Any, width: int = _SWATCH) -> None:
    axes.fill_between([0, width], 0, 18, color=GROUND, linewidth=0)


def _box(colour: str, line_width: float) -> Callable[[Any], None]:
    def draw(axes: Any) -> None:
        _on_ground(axes)
        axes.plot([5, 21, 21, 5, 5], [4, 4, 14, 14, 4], color=colour, linewidth=points(line_width))
        axes.plot([13, 21], [9, 9], color=colour, linewidth=points(line_width))

    return draw


def box_entries(scene: Scene, shown: Detections | None, truth_width: float, line_width: float) -> list[Entry]:
    """Entries for the classes that occur, with their number of boxes, and for ground truth beside detections."""
    labels = scene.true_labels if shown is None else shown.labels
    entries = []
    if shown is not None and len(scene.true_boxes):
        entries.append(Entry(f"ground truth {len(scene.true_boxes)}", _box(TRUTH, truth_width)))
    for label, count in enumerate(np.bincount(labels, minlength=len(CLASSES))):
        if count:
            name = CLASSES[label]
            entries.append(Entry(f"{name.replace('_', ' ')} {count}", _box(CLASS_COLOURS[name], line_width)))
    return entries


def height_entry(low: float, high: float) -> Entry:
    """The colours of points."""
    return Entry("height of points", _gradient(ramp(np.linspace(0.0, 1.0, _BAR)[None], HEIGHTS)), _BAR,
                 ((0.0, f"{low:g} m"), (1.0, f"{high:g} m")))  # fmt: skip


def weight_entry(scale: WeightScale) -> Entry:
    """The colours of weights, with the neutral value and the clamp marked."""
    if scale.centered:
        values = np.exp(np.linspace(-1.0, 1.0, _BAR + 90) * np.log(max(scale.clamp, 1.0 + 1e-6)))
        ticks = [(0.0, f"{1.0 / scale.clamp:.3g}"), (0.5, "1 = no query"), (1.0, f"{scale.clamp:.3g} clamp")]
    else:
        values = np.linspace(0.0, scale.clamp, _BAR + 90)
        ticks = [(0.0, "0 = no query"), (1.0 / scale.clamp, "1"), (1.0, f"{scale.clamp:.3g} clamp")]
        if scale.clamp < 1.3:
            del ticks[1]
    return Entry("weight", _gradient(weight_colours(values[None], scale)), _BAR + 90, tuple(ticks))


def _gradient(colours: Any) -> Callable[[Any], None]:
    def draw(axes: Any) -> None:
        image = np.asarray(colours.round(), dtype=np.uint8)
        axes.imshow(image, extent=(0, image.shape[1], 18, 0), aspect="auto", interpolation="nearest")

    return draw


def query_entry(count: int) -> Entry:
    """The mark of an object query."""

    def draw(axes: Any) -> None:
        _on_ground(axes)
        axes.plot([8, 18, 13], [6, 11, 13], linestyle="", marker="o", markersize=points(3.0), color=QUERY)

    return Entry(f"{count} queries", draw)


def legend_height(entries: Sequence[Entry], room: float) -> float:
    """Pixels that `flow` needs for these entries."""
    return flow(None, entries, 0.0, 0.0, room)
