"""How far away the things in an image are, and where in BEV an image cell therefore stands.

A ray says in which direction a cell looks, not how far what it shows is, and attention alone takes long to learn that.
So a head says for every cell at which depth its object is (bins that widen with depth: CaDDN, arXiv 2103.01100), and
the cell's position embedding gains that of the place there, as in 3DPPE (arXiv 2211.14710). It is the mean of the
embedding's waves over all depths: where the depth is uncertain the short waves cancel, and only the long ones, about
which there is no doubt, remain (the idea of mip-NeRF's integrated encoding, arXiv 2103.13415).
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor, nn

from aqr import geometry
from aqr.detector.objects import Objects
from aqr.detector.position import NEAREST, BevEmbedding, cell_centers, frustum, waves

NEAR_CORNER: Final = 0.5
"""Metres; an object with a corner nearer to the image plane has no bounds in the image that mean anything."""


class ImageDepth(nn.Module):
    """Depth of image cells.

    Args:
        dim: C.
        bins: D, from 1 m to the farthest corner of pc_range.
        pc_range: x_min, y_min, z_min, x_max, y_max, z_max, metres.
    """

    depths: Tensor
    pc_range: Tensor

    def __init__(self, dim: int, bins: int, pc_range: tuple[float, ...]) -> None:
        super().__init__()
        farthest = max(math.hypot(x, y) for x in pc_range[::3] for y in pc_range[1::3])
        steps = torch.arange(bins, dtype=torch.float64)
        depths = NEAREST + (farthest - NEAREST) * steps * (steps + 1) / (bins * (bins - 1))
        self.register_buffer("depths", depths.float(), persistent=False)
        self.register_buffer("pc_range", torch.tensor(pc_range), persistent=False)
        self.head = nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1), nn.ReLU(), nn.Conv2d(dim, bins, 1))

    def forward(self, images: Tensor, rays: Tensor) -> Tensor:
        """Logits of the depth bins.

        Features are read together with the cells' rays: how far away a thing on the ground is shows in how far below
        the horizon it stands, and its size in pixels means nothing without the focal length.

        Args:
            images: [B, V, C, Hi, Wi].
            rays: [B, V, Hi, Wi, C] embedding of the cells' rays.

        Returns:
            [B, V, D, Hi, Wi].
        """
        logits: Tensor = self.head((images + rays.permute(0, 1, 4, 2, 3)).flatten(0, 1))
        return logits.view(*images.shape[:2], *logits.shape[1:])

    def places(self, logits: Tensor, image_size: tuple[int, int], img2lidar: Tensor, bev: BevEmbedding) -> Tensor:
        """BEV embedding of where the cells' objects are, averaged over depths.

        Args:
            logits: [B, V, D, Hi, Wi].
            image_size: H, W in pixels.
            img2lidar: [B, V, 4, 4].
            bev: embedding of BEV positions.

        Returns:
            [B, V, Hi, Wi, C] float32.
        """
        rows, columns = logits.shape[-2:]
        with torch.autocast(logits.device.type, enabled=False):
            pixels = cell_centers((rows, columns), image_size, logits.device)
            points = frustum(pixels.expand(*img2lidar.shape[:2], -1, -1), img2lidar.float(), self.depths)
            unit = geometry.normalise(points, self.pc_range)[..., :2]
            waved = waves(unit.flip(-1), bev.frequencies)
            chance = logits.float().softmax(2).permute(0, 1, 3, 4, 2).flatten(2, 3)
            mean = (chance[..., None, :] @ waved.flatten(-3)).view(*chance.shape[:3], *waved.shape[-3:])
            places = bev.embed(mean)
        return places.view(*places.shape[:2], rows, columns, -1)

    def loss(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy against the two bins around an object's depth, the nearer one weighing more.

        Args:
            logits: [B, V, D, Hi, Wi].
            targets: [B · V, Hi, Wi] metres; infinite where there is no object.

        Returns:
            Scalars: the sum over all cells, and the number of cells that it is to be divided by.
        """
        present = targets.isfinite()
        depth = torch.where(present, targets, 0.0).clamp(self.depths[0], self.depths[-1])
        upper = torch.searchsorted(self.depths, depth, right=True).clamp(1, len(self.depths) - 1)
        low, high = self.depths[upper - 1], self.depths[upper]
        share = (depth - low) / (high - low)
        chances = logits.flatten(0, 1).float().log_softmax(1)
        at_low = chances.gather(1, upper[:, None] - 1)[:, 0]
        at_high = chances.gather(1, upper[:, None])[:, 0]
        return -torch.where(present, (1 - share) * at_low + share * at_high, 0.0).sum(), present.sum()


def object_depths(objects: Objects, lidar2img: Tensor, image_size: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Depth of the centre of the nearest object that each cell shows.

    A cell shows an object where, along each axis, its middle lies within the bounds of the object's corners or the
    object's centre lies in it: an object thinner than a cell still has a row or a column of them.

    Args:
        objects: the ground truth.
        lidar2img: [B, V, 4, 4].
        image_size: H, W in pixels.
        size: rows and columns of a map.

    Returns:
        [B · V, rows, columns] metres; infinite where there is no object.
    """
    batch, views = lidar2img.shape[:2]
    rows, columns = size
    boxes, sample = objects.boxes.flatten(0, 1), objects.sample
    matrices = lidar2img[sample]
    centers, depth = geometry.project(boxes[:, None, None, geometry.CENTER], matrices)
    pixels, of_corners = geometry.project(_corners(boxes)[:, None], matrices)
    present = geometry.in_image(centers, depth, image_size)[..., 0] & (of_corners.amin(-1) > NEAR_CORNER)
    present = objects.present.flatten()[:, None] & present
    scale = (columns / image_size[1], rows / image_size[0])
    inside = []
    for axis, cells in enumerate((columns, rows)):
        first, last = pixels[..., axis].aminmax(dim=-1)
        number = torch.arange(cells, device=boxes.device)
        middle = number + 0.5
        holds = (centers[..., axis] * scale[axis]).floor() == number
        within = (first[..., None] * scale[axis] <= middle) & (middle <= last[..., None] * scale[axis])
        inside.append(holds | within)
    shown = present[..., None, None] & inside[1][..., None] & inside[0][..., None, :]
    metres = torch.where(shown, depth[..., None], torch.inf).flatten(0, 1).flatten(1)
    view = (sample[:, None] * views + torch.arange(views, device=boxes.device)).flatten()
    nearest = metres.new_full((batch * views, rows * columns), torch.inf)
    return nearest.scatter_reduce(0, view[:, None].expand_as(metres), metres, "amin").view(-1, rows, columns)


def _corners(boxes: Tensor) -> Tensor:
    """[N, 9] to [N, 8, 3]."""
    # Made where the boxes are: which of the eight corners it is, bit by bit.
    corner = torch.arange(8, device=boxes.device)
    sides = torch.stack([corner // 4, corner // 2 % 2, corner % 2], -1) - 0.5
    offset = boxes[:, None, geometry.SIZE] * sides
    cos, sin = boxes[:, geometry.YAW, None].cos(), boxes[:, geometry.YAW, None].sin()
    x, y, z = offset.unbind(-1)
    return boxes[:, None, geometry.CENTER] + torch.stack([cos * x - sin * y, sin * x + cos * y, z], -1)
