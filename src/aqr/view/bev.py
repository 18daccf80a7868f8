"""The bird's-eye view of a sample."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from aqr.geometry import Floats, L, W, box_corners
from aqr.view.caption import caption
from aqr.view.legend import Entry, box_entries, flow, height_entry, legend_height, query_entry, weight_entry
from aqr.view.page import HEADER, MARGIN, SMALL_SIZE, WIDTH, Page, points
from aqr.view.palette import (
    EGO,
    GROUND,
    HEIGHTS,
    QUERY,
    TRUTH,
    class_colours,
    ramp,
    rgb,
    score_opacity,
    weight_colours,
)
from aqr.view.scene import Detections, Pixels, Scene

_TALLEST: Final = 1000
_TRUTH_WIDTH: Final = 3.2
_LINE_WIDTH: Final = 1.8

_EGO_OUTLINE: Final = np.array([[-0.87, -1.57], [0.87, -1.57], [0.87, 1.5], [0.0, 2.5], [-0.87, 1.5], [-0.87, -1.57]])
"""nuScenes' Renault Zoe (4.08 m x 1.73 m) around its LiDAR, pointed at the front; metres, x right, y forward."""


@dataclass(frozen=True)
class Panel:
    """A window onto the ground: its pixels on the page, and the metres that it shows."""

    x: int
    y: int
    width: int
    height: int
    extent: tuple[float, float, float, float]
    """x_min, x_max, y_min, y_max."""
    words: str

    @property
    def pixels_per_metre(self) -> float:
        return self.width / (self.extent[1] - self.extent[0])


def draw_bev(scene: Scene, path: str | Path, min_score: float = 0.25) -> Path:
    """Draw a sample from above: x to the right, y (forward) up.

    The left panel shows the whole range: points coloured by height, predictions in the colour of their class, fainter
    the lower they score, over the ground truth in wide white lines. A line from the middle of each box shows its
    heading. Where there are no detections, the ground truth takes the colours of the classes. The right panel shows
    the BEV weight map, or, where the scene has none, the middle of the left one twice as large.

    Args:
        scene: what to draw.
        path: PNG file, 1400 pixels wide, written atomically.
        min_score: predictions that score less are left out.

    Returns:
        The path.

    Raises:
        InputError: where the file cannot be written.
    """
    shown = None if scene.detections is None else scene.detections.above(min_score)
    heights = _height_span(scene.points)
    entries = box_entries(scene, shown, _TRUTH_WIDTH, _LINE_WIDTH)
    if len(scene.points):
        entries.append(height_entry(*heights))
    if scene.bev_weights is not None:
        entries.append(weight_entry(scene.weight_scale))
        if scene.queries is not None:
            entries.append(query_entry(len(scene.queries)))
    page, left, right = _lay_out(scene, entries)
    page.header(
        scene.title or "Bird's-eye view",
        f"Bird's-eye view, {_direction(scene)} · {caption(scene, shown, min_score, scene.bev_weights)}",
    )
    _draw_sample_panel(page, left, scene, shown, heights)
    if scene.bev_weights is None:
        _draw_sample_panel(page, right, scene, shown, heights)
    else:
        _draw_weight_panel(page, right, scene, scene.bev_weights, shown)
    return page.save(Path(path))


def _direction(scene: Scene) -> str:
    ahead = scene.augmentation[:2, 1] / np.linalg.norm(scene.augmentation[:2, 1])
    return "forward is up" if ahead[1] > 0.999 else "in the augmented frame"


def _lay_out(scene: Scene, entries: list[Entry]) -> tuple[Page, Panel, Panel]:
    """A page with its key, and two panels of the range's proportions side by side."""
    x_min, y_min, _, x_max, y_max, _ = scene.pc_range
    scale = min((WIDTH - 3 * MARGIN) // 2 / (x_max - x_min), _TALLEST / (y_max - y_min))
    width, height = max(1, round((x_max - x_min) * scale)), max(1, round((y_max - y_min) * scale))
    room = WIDTH - 2 * MARGIN
    bottom = HEADER + height + 10
    page = Page(WIDTH, int(bottom + legend_height(entries, room) + 6))
    flow(page, entries, MARGIN, bottom, room)
    near = tuple(edge / 2.0 for edge in (x_min, x_max, y_min, y_max))
    whole = (x_min, x_max, y_min, y_max)
    if scene.bev_weights is None:
        words, extent = "the middle, twice as large", (near[0], near[1], near[2], near[3])
    else:
        words, extent = "weight map", whole
    left = (WIDTH - 2 * width - MARGIN) // 2
    return (
        page,
        Panel(left, HEADER, width, height, whole, "points and boxes"),
        Panel(left + width + MARGIN, HEADER, width, height, extent, words),
    )


def _height_span(cloud: Floats) -> tuple[float, float]:
    """The heights between which colours run: from nearly the lowest point to 4 m above, where objects end."""
    z = cloud[np.isfinite(cloud[:, :3]).all(axis=1), 2]
    if len(z) == 0:
        return -2.0, 2.0
    low = float(np.floor(2.0 * np.percentile(z, 2.0)) / 2.0)
    return low, low + 4.0


def _point_colours(cloud: Floats, heights: tuple[float, float], panel: Panel) -> Pixels:
    """The point cloud from above, [height, width, 3]: a dot of 2 x 2 pixels each, the highest on top."""
    x_min, x_max, y_min, y_max = panel.extent
    finite = cloud[np.isfinite(cloud[:, :3]).all(axis=1)]
    column = np.floor((finite[:, 0] - x_min) / (x_max - x_min) * panel.width)
    row = np.floor((y_max - finite[:, 1]) / (y_max - y_min) * panel.height)
    inside = (column >= 0) & (column < panel.width) & (row >= 0) & (row < panel.height)
    level = np.full((panel.height + 1, panel.width + 1), -1.0)
    share = np.clip((finite[inside, 2] - heights[0]) / (heights[1] - heights[0]), 0.0, 1.0)
    np.maximum.at(level, (row[inside].astype(np.int64), column[inside].astype(np.int64)), share)
    dots = np.maximum.reduce([level[:-1, :-1], level[1:, :-1], level[:-1, 1:], level[1:, 1:]])
    colours = np.where((dots < 0.0)[..., None], np.array(rgb(GROUND)), ramp(np.maximum(dots, 0.0), HEIGHTS))
    return np.asarray(colours.round(), dtype=np.uint8)


def _draw_sample_panel(
    page: Page, panel: Panel, scene: Scene, shown: Detections | None, heights: tuple[float, float]
) -> None:
    axes = _draw_ground(page, panel, scene, _point_colours(scene.points, heights, panel), panel.extent)
    truth = scene.true_boxes
    if shown is None:
        _draw_boxes(axes, panel, truth, class_colours(scene.true_labels), _LINE_WIDTH, np.ones(len(truth)))
        return
    _draw_boxes(axes, panel, truth, [TRUTH] * len(truth), _TRUTH_WIDTH, np.full(len(truth), 0.8))
    _draw_boxes(axes, panel, shown.boxes, class_colours(shown.labels), _LINE_WIDTH, score_opacity(shown.scores))


def _draw_weight_panel(page: Page, panel: Panel, scene: Scene, weights: Floats, shown: Detections | None) -> None:
    colours = np.asarray(weight_colours(weights, scene.weight_scale).round()[::-1], dtype=np.uint8)
    axes = _draw_ground(page, panel, scene, colours, panel.extent)
    if scene.queries is not None:
        axes.scatter(scene.queries[:, 0], scene.queries[:, 1], s=points(2.6) ** 2, c=QUERY, alpha=0.55, linewidths=0)
    boxes = scene.true_boxes if shown is None else shown.boxes
    _draw_boxes(axes, panel, boxes, [TRUTH] * len(boxes), 1.0, np.full(len(boxes), 0.8))


def _draw_ground(
    page: Page, panel: Panel, scene: Scene, ground: Pixels, extent: tuple[float, float, float, float]
) -> Any:
    """Axes in metres over an image of the ground [rows, columns, 3] whose first row is the farthest ahead."""
    axes = page.panel(panel.x, panel.y, panel.width, panel.height)
    axes.imshow(ground, extent=extent, aspect="auto", interpolation="nearest")
    axes.set(xlim=panel.extent[:2], ylim=panel.extent[2:])
    _draw_rings(axes, panel)
    outline = _EGO_OUTLINE @ scene.augmentation[:2, :2].T + scene.augmentation[:2, 3]
    axes.fill(outline[:, 0], outline[:, 1], facecolor=EGO, edgecolor=GROUND, linewidth=points(1.0))
    page.tag(panel.x, panel.y, panel.words)
    return axes


def _draw_boxes(
    axes: Any, panel: Panel, boxes: Floats, colours: list[str], line_width: float, opacity: npt.NDArray[np.float64]
) -> None:
    """Outlines with heading marks; lines of boxes of a few pixels are thinner, so that the box stays open."""
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgba_array

    if len(boxes) == 0:
        return
    corners = box_corners(boxes)[:, :4, :2]
    middle, front = corners.mean(axis=1), corners[:, :2].mean(axis=1)
    shades = to_rgba_array(colours)
    shades[:, 3] = opacity
    narrow = np.minimum(boxes[:, L], boxes[:, W]) * panel.pixels_per_metre
    widths = points(1.0) * np.clip(0.3 * narrow, min(1.2, line_width), line_width)
    for lines in (corners[:, [0, 1, 2, 3, 0, 1]], np.stack([middle, front], axis=1)):
        axes.add_collection(LineCollection(list(lines), colors=shades, linewidths=widths))


def _draw_rings(axes: Any, panel: Panel) -> None:
    """Circles around the LiDAR with their radius, at most eight to the edge."""
    from matplotlib.patches import Circle

    x_min, x_max, y_min, y_max = panel.extent
    reach = max(abs(x_min), abs(x_max), abs(y_min), abs(y_max))
    step = next((s for s in (1.0, 2.0, 5.0, 10.0, 20.0, 50.0) if reach / s <= 8.0), 100.0)
    for radius in np.arange(step, np.hypot(reach, reach), step):
        axes.add_patch(Circle((0.0, 0.0), radius, fill=False, edgecolor="white", alpha=0.22, linewidth=points(1.0)))
        at = radius * np.sqrt(0.5)
        if at < 0.95 * x_max and -at > 0.97 * y_min:
            axes.text(at, -at, f"{radius:g} m", color="#c6d0dc", fontsize=points(SMALL_SIZE), ha="center", va="center",
                      bbox={"facecolor": GROUND, "edgecolor": "none", "alpha": 0.7, "pad": 0.6})  # fmt: skip
