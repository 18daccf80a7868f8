"""Auxiliary centre heatmaps on the encoders' maps (CenterPoint, arXiv 2006.11275; CornerNet's focal loss, 1808.01244).

Queries reach an encoder only through attention, which at first looks everywhere. A heatmap of object centres, one per
class, gives every cell of the BEV map and of the image maps its own target from the first step on.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aqr import geometry
from aqr.detector.heads import CLASS_PRIOR
from aqr.detector.objects import Objects
from aqr.taxonomy import CLASSES

SMALLEST_SIGMA: Final = 0.7
"""Cells."""
SIGMA_OF_EXTENT: Final = 1 / 6
"""Standard deviation of the Gaussian as a share of the object's extent in the map."""


class HeatmapHead(nn.Module):
    """Class logits of every cell of a map, one linear layer: the features that queries read must tell the classes.

    Args:
        dim: C.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.out = nn.Conv2d(dim, len(CLASSES), 1)
        assert self.out.bias is not None
        nn.init.constant_(self.out.bias, CLASS_PRIOR)

    def forward(self, features: Tensor) -> Tensor:
        """[N, C, H, W] to [N, 10, H, W]."""
        out: Tensor = self.out(features)
        return out


def bev_targets(objects: Objects, pc_range: Tensor, size: tuple[int, int]) -> Tensor:
    """A Gaussian of height 1 at every object's centre in the BEV map.

    Args:
        objects: the ground truth.
        pc_range: [6].
        size: rows and columns.

    Returns:
        [B, 10, rows, columns] in [0, 1].
    """
    boxes, labels = objects.boxes.flatten(0, 1), objects.labels.flatten()
    cells = _pair(size[1], size[0], boxes)
    unit = geometry.normalise(boxes[:, geometry.CENTER], pc_range)[:, :2]
    scale = cells / (pc_range[3:5] - pc_range[:2])
    extent = torch.maximum(boxes[:, geometry.L, None], boxes[:, geometry.W, None]) * scale
    present = objects.present.flatten() & ((unit >= 0) & (unit < 1)).all(1)
    return _render(unit * cells, extent, present, labels, objects.sample, len(objects.boxes), size)


def image_targets(objects: Objects, lidar2img: Tensor, image_size: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """A Gaussian of height 1 at every object's projected centre in each camera that sees it.

    Args:
        objects: the ground truth.
        lidar2img: [B, V, 4, 4].
        image_size: H, W in pixels.
        size: rows and columns of a map.

    Returns:
        [B · V, 10, rows, columns] in [0, 1].
    """
    batch, views = lidar2img.shape[:2]
    boxes, labels, sample = objects.boxes.flatten(0, 1), objects.labels.flatten(), objects.sample
    cells = _pair(size[1] / image_size[1], size[0] / image_size[0], boxes)
    pixels, depth = geometry.project(boxes[:, None, None, geometry.CENTER], lidar2img[sample])
    present = objects.present.flatten()[:, None] & geometry.in_image(pixels, depth, image_size)[..., 0]
    diameter = boxes[:, geometry.SIZE].norm(dim=1)[:, None]
    # Gradient of a pixel coordinate in space: that of (row · p) / (third row · p).
    rows, third = lidar2img[sample][..., :2, :3], lidar2img[sample][..., 2:3, :3]
    gradient = (rows - pixels[:, :, 0, :, None] * third) / depth.clamp(min=geometry.MIN_DEPTH)[..., None]
    pixels_per_metre = gradient.norm(dim=-1)
    extent = (diameter[..., None] * pixels_per_metre * cells).flatten(0, 1)
    view = (sample[:, None] * views + torch.arange(views, device=boxes.device)).flatten()
    center = (pixels[:, :, 0] * cells).flatten(0, 1)
    return _render(center, extent, present.flatten(), labels.repeat_interleave(views), view, batch * views, size)


def heatmap_loss(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Penalty-reduced focal loss: 1 is positive, other cells are negatives that weigh less the nearer to a centre.

    Args:
        logits: [N, 10, H, W].
        targets: [N, 10, H, W] in [0, 1].

    Returns:
        Scalars: the sum over all cells, and the number of centres that it is to be divided by.
    """
    logits = logits.float()
    probability = logits.sigmoid()
    centers = targets == 1
    positive = (1 - probability) ** 2 * F.logsigmoid(logits)
    negative = (1 - targets) ** 4 * probability**2 * F.logsigmoid(-logits)
    return -torch.where(centers, positive, negative).sum(), centers.sum()


def _render(
    centers: Tensor,
    extents: Tensor,
    present: Tensor,
    labels: Tensor,
    views: Tensor,
    view_count: int,
    size: tuple[int, int],
) -> Tensor:
    """Gaussians around the cells that hold the centres, the highest wins: [view_count, 10, rows, columns].

    Args:
        centers: [M, 2] x, y in cells.
        extents: [M, 2] of the objects, in cells.
        present: [M] bool.
        labels: [M] int64.
        views: [M] int64, map of each object.
        view_count: number of maps.
        size: rows and columns.
    """
    rows, columns = size
    sigma = (SIGMA_OF_EXTENT * extents).clamp(min=SMALLEST_SIGMA)
    offset_x = (torch.arange(columns, device=centers.device) - centers[:, :1].floor()) / sigma[:, :1]
    offset_y = (torch.arange(rows, device=centers.device) - centers[:, 1:].floor()) / sigma[:, 1:]
    bumps = (-offset_y.square() / 2).exp()[:, :, None] * (-offset_x.square() / 2).exp()[:, None, :]
    bumps = torch.where(present[:, None, None], bumps, 0.0).flatten(1)
    maps = bumps.new_zeros(view_count * len(CLASSES), rows * columns)
    index = (views * len(CLASSES) + labels)[:, None].expand_as(bumps)
    maps = maps.scatter_reduce(0, index, bumps, "amax")
    return maps.view(view_count, len(CLASSES), rows, columns)


def _pair(x: float, y: float, like: Tensor) -> Tensor:
    """[2], made where `like` is."""
    return torch.stack([like.new_full((), x), like.new_full((), y)])
