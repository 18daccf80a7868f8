"""A picture addressed in pixels, and its file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from aqr.files import replacing
from aqr.view.palette import GROUND, INK, MUTED
from aqr.view.scene import Pixels

WIDTH: Final = 1400
"""Pixels across a page: the width of a report."""
MARGIN: Final = 16
HEADER: Final = 68
"""Pixels above the first panel."""
TITLE_SIZE: Final = 21.0
TEXT_SIZE: Final = 16.0
SMALL_SIZE: Final = 14.0
LARGEST_FILE: Final = 1_400_000
"""Bytes."""
_DPI: Final = 100


class Page:
    """A white page of width x height pixels, origin at the top left, on a canvas of its own.

    It uses no pyplot and so leaves the state of a notebook alone.
    """

    def __init__(self, width: int, height: int) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.width, self.height = width, height
        self.figure: Any = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")
        self.canvas: Any = FigureCanvasAgg(self.figure)

    def panel(self, x: float, y: float, width: float, height: float) -> Any:
        """Bare matplotlib axes over these pixels."""
        box = (x / self.width, 1.0 - (y + height) / self.height, width / self.width, height / self.height)
        axes = self.figure.add_axes(box)
        axes.set_axis_off()
        return axes

    def text(
        self,
        x: float,
        y: float,
        words: str,
        size: float = TEXT_SIZE,
        colour: str = INK,
        align: str = "left",
        bold: bool = False,
    ) -> float:
        """Write one line whose middle is at height y; returns its width in pixels."""
        written = self.figure.text(
            x / self.width, 1.0 - y / self.height, words, fontsize=points(size), color=colour, ha=align, va="center",
            weight="bold" if bold else "normal", parse_math=False,
        )  # fmt: skip
        return float(written.get_window_extent(self.canvas.get_renderer()).width)

    def header(self, title: str, words: str) -> None:
        """The title and a line about what is to be seen, in the first `HEADER` pixels."""
        room = self.width - 2 * MARGIN
        self.text(MARGIN, 24, self.fit(title, TITLE_SIZE, room, bold=True), size=TITLE_SIZE, bold=True)
        self.text(MARGIN, 50, self.fit(words, TEXT_SIZE, room), colour=MUTED)

    def tag(self, x: float, y: float, words: str) -> None:
        """Name the panel whose top left corner is here."""
        pad = 4.0
        self.figure.text(
            (x + pad) / self.width, 1.0 - (y + pad) / self.height, words, fontsize=points(SMALL_SIZE), color="white",
            ha="left", va="top", parse_math=False, zorder=10,
            bbox={"facecolor": GROUND, "edgecolor": "none", "alpha": 0.75, "pad": points(pad)},
        )  # fmt: skip

    def fit(self, words: str, size: float, room: float, bold: bool = False) -> str:
        """`words`, cut with an ellipsis where they are wider than `room` pixels."""
        while words and self.measure(words, size, bold) > room:
            words = words[:-2].rstrip() + "…" if len(words) > 2 else ""
        return words

    def measure(self, words: str, size: float = TEXT_SIZE, bold: bool = False) -> float:
        """Width of a line in pixels."""
        trial = self.figure.text(
            0, 0, words, fontsize=points(size), weight="bold" if bold else "normal", parse_math=False
        )
        width = float(trial.get_window_extent(self.canvas.get_renderer()).width)
        trial.remove()
        return width

    def pixels(self) -> Pixels:
        """The page as drawn, [height, width, 3]."""
        self.canvas.draw()
        return np.ascontiguousarray(np.asarray(self.canvas.buffer_rgba())[..., :3])

    def save(self, path: Path) -> Path:
        """Write the page as PNG; see `write_png`."""
        return write_png(self.pixels(), path)


def points(pixels: float) -> float:
    """A length in pixels as matplotlib wants it."""
    return pixels * 72.0 / _DPI


def write_png(pixels: npt.NDArray[np.uint8], path: Path) -> Path:
    """Write an image [H, W, 3] atomically; folders are made as needed.

    A picture that would be larger than `LARGEST_FILE` is reduced to 256 colours.

    Raises:
        InputError: where the file cannot be written.
    """
    image = Image.fromarray(pixels)
    content = _encode(image)
    if len(content) > LARGEST_FILE:
        content = _encode(image.quantize(256, method=Image.Quantize.FASTOCTREE))
    with replacing(path) as partial:
        partial.write_bytes(content)
    return path


def _encode(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
