"""The camera images of a sample, laid out as the car sees them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from aqr.geometry import CENTER, Floats, in_image, project
from aqr.taxonomy import CLASSES
from aqr.view.caption import caption
from aqr.view.clipping import LINES_PER_BOX, box_lines, project_lines
from aqr.view.layout import camera_rows
from aqr.view.legend import box_entries, flow, legend_height, query_entry, weight_entry
from aqr.view.page import HEADER, MARGIN, WIDTH, Page, points
from aqr.view.palette import GROUND, QUERY, TRUTH, class_colours, overlay_weights, score_opacity
from aqr.view.scene import Detections, Pixels, Scene

_GAP: Final = 6
_BLOCK_GAP: Final = 14
_TRUTH_WIDTH: Final = 2.4
_LINE_WIDTH: Final = 1.5
_TAG_SIZE: Final = 12.5
_TAGGED_HEIGHT: Final = 26.0
"""A box lower than this many pixels of the page gets no name."""
_SMALL_HEIGHT: Final = 24.0
"""A box lower than this gets thinner lines and no heading mark."""


def draw_cameras(scene: Scene, path: str | Path, min_score: float = 0.25) -> Path:
    """Draw the images with boxes projected into them; below them, the weight maps over the same images in grey.

    Images stand as the car sees them: those that look ahead in the upper rows, from left to right. Boxes are cut
    where they pass behind the camera. Colours are those of `aqr.view.draw_bev`.

    Args:
        scene: what to draw; it has at least one image.
        path: PNG file, 1400 pixels wide, written atomically.
        min_score: predictions that score less are left out.

    Returns:
        The path.

    Raises:
        ValueError: where the scene has no image.
        InputError: where the file cannot be written.
    """
    if not scene.images:
        raise ValueError("the scene has no image: draw the bird's-eye view alone")
    shown = None if scene.detections is None else scene.detections.above(min_score)
    entries = box_entries(scene, shown, _TRUTH_WIDTH, _LINE_WIDTH)
    if scene.image_weights is not None:
        entries.append(weight_entry(scene.weight_scale))
        if scene.queries is not None:
            entries.append(query_entry(len(scene.queries)))
    cells, height = _cells(scene)
    room = WIDTH - 2 * MARGIN
    second = HEADER + height + _BLOCK_GAP
    bottom = (HEADER if scene.image_weights is None else second) + height + 8
    page = Page(WIDTH, int(bottom + legend_height(entries, room) + 6))
    flow(page, entries, MARGIN, bottom, room)
    count = f"{len(scene.images)} camera{'s' if len(scene.images) > 1 else ''}"
    page.header(scene.title or "Cameras", f"{count} · {caption(scene, shown, min_score, scene.image_weights)}")
    for cell in cells:
        photo = _resize(scene.images[cell.view], cell.width, cell.height)
        axes = _draw_photo(page, scene, cell, photo, HEADER)
        _draw_boxes(axes, scene, cell, shown)
        if scene.image_weights is not None:
            weights = _spread(scene.image_weights[cell.view], cell.width, cell.height)
            tinted = overlay_weights(photo, weights, scene.weight_scale)
            axes = _draw_photo(page, scene, cell, tinted, second)
            _draw_queries(axes, scene, cell)
    return page.save(Path(path))


@dataclass(frozen=True)
class Cell:
    """The place of one camera's picture: pixels from the left of the page and from the top of its block."""

    view: int
    x: int
    y: int
    width: int
    height: int
    scale: float
    """Pixels of the page per pixel of the source image."""


def _cells(scene: Scene) -> tuple[list[Cell], int]:
    """The cells of a block of pictures, and its height; short rows are centred."""
    rows = camera_rows(scene.lidar2img @ scene.augmentation)
    columns = max(len(row) for row in rows)
    width = (WIDTH - 2 * MARGIN - (columns - 1) * _GAP) // columns
    cells: list[Cell] = []
    top = 0
    for row in rows:
        left = (WIDTH - len(row) * width - (len(row) - 1) * _GAP) // 2
        tallest = 0
        for place, view in enumerate(row):
            rows_in, columns_in = scene.images[view].shape[:2]
            scale = width / columns_in
            height = max(1, round(rows_in * scale))
            cells.append(Cell(view, left + place * (width + _GAP), top, width, height, scale))
            tallest = max(tallest, height)
        top += tallest + _GAP
    return cells, top - _GAP


def _resize(image: Pixels, width: int, height: int) -> Pixels:
    """The image at the size it is shown, in 64 levels per channel: half the file, and no difference to the eye."""
    scaled = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))
    return np.asarray((scaled & 0xFC) | 0x02, dtype=np.uint8)


def _spread(weights: Floats, width: int, height: int) -> npt.NDArray[np.floating]:
    """A weight map [Hi, Wi] over the whole picture, [height, width], each cell a rectangle."""
    rows = np.arange(height) * weights.shape[0] // height
    columns = np.arange(width) * weights.shape[1] // width
    return np.asarray(weights[rows[:, None], columns])


def _draw_photo(page: Page, scene: Scene, cell: Cell, photo: Pixels, top: int) -> Any:
    """The picture with its camera's name, in axes whose unit is the pixel of the source image."""
    height, width = scene.images[cell.view].shape[:2]
    axes = page.panel(cell.x, top + cell.y, cell.width, cell.height)
    axes.imshow(photo, extent=(0, width, height, 0), aspect="auto", interpolation="nearest")
    axes.set(xlim=(0, width), ylim=(height, 0))
    page.tag(cell.x, top + cell.y, _camera_name(scene, cell.view))
    return axes


def _camera_name(scene: Scene, view: int) -> str:
    if not scene.camera_names:
        return f"camera {view}"
    return scene.camera_names[view].removeprefix("CAM_").replace("_", " ").lower()


def _draw_queries(axes: Any, scene: Scene, cell: Cell) -> None:
    if scene.queries is None:
        return
    height, width = scene.images[cell.view].shape[:2]
    pixels, depth = project(scene.queries.astype(np.float64), scene.lidar2img[cell.view].astype(np.float64))
    seen = pixels[in_image(pixels, depth, (height, width))]
    axes.scatter(seen[:, 0], seen[:, 1], s=points(2.6) ** 2, c=QUERY, alpha=0.55, linewidths=0)


def _draw_boxes(axes: Any, scene: Scene, cell: Cell, shown: Detections | None) -> None:
    truth = scene.true_boxes
    if shown is None:
        colours = class_colours(scene.true_labels)
        extents = _draw_lines(axes, scene, cell, truth, colours, _LINE_WIDTH, np.ones(len(truth)))
        words = [CLASSES[label].replace("_", " ") for label in scene.true_labels]
        _draw_tags(axes, scene, cell, truth, extents, words, colours)
        return
    _draw_lines(axes, scene, cell, truth, [TRUTH] * len(truth), _TRUTH_WIDTH, np.full(len(truth), 0.8))
    colours = class_colours(shown.labels)
    extents = _draw_lines(axes, scene, cell, shown.boxes, colours, _LINE_WIDTH, score_opacity(shown.scores))
    words = [
        f"{CLASSES[label].replace('_', ' ')} {score:.2f}"
        for label, score in zip(shown.labels, shown.scores, strict=True)
    ]
    _draw_tags(axes, scene, cell, shown.boxes, extents, words, colours)


def _draw_lines(
    axes: Any,
    scene: Scene,
    cell: Cell,
    boxes: Floats,
    colours: list[str],
    line_width: float,
    opacity: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Draw what is visible of the boxes, light on a dark edge.

    Returns:
        [N, 4] left, top, right, bottom of what is drawn of each box, in pixels of the cell; left is infinite where
        nothing is.
    """
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgba_array

    size = scene.images[cell.view].shape[:2]
    lines = box_lines(boxes).reshape(-1, 2, 3)
    pixels, line = project_lines(lines, scene.lidar2img[cell.view], (size[0], size[1]))
    owner = line // LINES_PER_BOX
    extents = np.tile([np.inf, np.inf, -np.inf, -np.inf], (len(boxes), 1))
    np.minimum.at(extents[:, :2], owner, pixels.min(axis=1) * cell.scale)
    np.maximum.at(extents[:, 2:], owner, pixels.max(axis=1) * cell.scale)
    small = extents[owner, 3] - extents[owner, 1] < _SMALL_HEIGHT
    drawn = ~(small & (line % LINES_PER_BOX == LINES_PER_BOX - 1))
    if not drawn.any():
        return extents
    pixels, owner, small = pixels[drawn], owner[drawn], small[drawn]
    shades = to_rgba_array(colours)
    shades[:, 3] = opacity
    widths = points(1.0) * np.where(small, 0.7 * line_width, line_width)
    shadow = np.tile([0.0, 0.0, 0.0, 0.55], (len(owner), 1))
    shadow[:, 3] *= shades[owner, 3]
    axes.add_collection(LineCollection(list(pixels), colors=shadow, linewidths=widths + points(1.2)))
    axes.add_collection(LineCollection(list(pixels), colors=shades[owner], linewidths=widths, capstyle="round"))
    return extents


def _draw_tags(
    axes: Any,
    scene: Scene,
    cell: Cell,
    boxes: Floats,
    extents: npt.NDArray[np.float64],
    words: list[str],
    colours: list[str],
) -> None:
    """Name boxes, nearest first, where the name meets no other and the box is large enough to need one."""
    _, depth = project(boxes[:, CENTER].astype(np.float64), scene.lidar2img[cell.view].astype(np.float64))
    tall = _TAG_SIZE + 5.0
    taken = [(0.0, 0.0, 0.62 * _TAG_SIZE * len(_camera_name(scene, cell.view)) + 24.0, 26.0)]
    for box in np.argsort(depth, kind="stable").tolist():
        left, top, right, bottom = extents[box]
        if not bottom - top >= _TAGGED_HEIGHT:
            continue
        wide = len(words[box]) * 0.6 * _TAG_SIZE + 6.0
        x = min(max((left + right - wide) / 2.0, 0.0), cell.width - wide)
        y = max(top - tall, 0.0)
        if any(x < b[2] and b[0] < x + wide and y < b[3] and b[1] < y + tall for b in taken):
            continue
        taken.append((x, y, x + wide, y + tall))
        axes.text(
            (x + wide / 2.0) / cell.scale, (y + tall / 2.0) / cell.scale, words[box], color=GROUND,
            fontsize=points(_TAG_SIZE), ha="center", va="center", parse_math=False,
            bbox={"facecolor": colours[box], "edgecolor": "none", "alpha": 0.9, "pad": points(2.0)},
        )  # fmt: skip
