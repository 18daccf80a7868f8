"""Project: where each query's reference point lies in the BEV map and in the image maps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aqr.geometry import denormalise, in_image, project
from aqr.modulation.kernels import fused


@dataclass(frozen=True)
class Sites:
    """Positions of Q queries in V maps of one size.

    Attributes:
        cells: [B, V, Q, 2] column and row in cells, sub-cell precision; cell j spans [j, j + 1), its centre lies
            at j + 0.5. (0, 0) where not visible.
        visible: [B, V, Q] bool. A query touches no cell of a map in which it is not visible.
        size: rows and columns of the maps.
    """

    cells: Tensor
    visible: Tensor
    size: tuple[int, int]


def bev_sites(reference_points: Tensor, size: tuple[int, int]) -> Sites:
    """Sites in the BEV map, whose rows run along y and whose columns run along x of pc_range.

    Args:
        reference_points: [B, Q, 3] in [0, 1]³ of pc_range.
        size: rows Hb and columns Wb.

    Returns:
        Sites with V = 1; points outside [0, 1) along x or y are not visible.
    """
    rows, columns = size
    x, y = reference_points[..., 0] * columns, reference_points[..., 1] * rows
    visible = (x >= 0) & (x < columns) & (y >= 0) & (y < rows)
    cells = torch.stack([x, y], -1)
    return Sites(torch.where(visible[..., None], cells, 0.0)[:, None], visible[:, None], size)


def image_sites(
    reference_points: Tensor, lidar2img: Tensor, pc_range: Tensor, image_size: tuple[int, int], size: tuple[int, int]
) -> Sites:
    """Sites in the image maps: pixel of `lidar2img · p`, scaled to the map.

    Args:
        reference_points: [B, Q, 3] in [0, 1]³ of pc_range.
        lidar2img: [B, V, 4, 4], LiDAR frame (m) to pixels of an image of `image_size`, augmentation included.
        pc_range: [6] metres.
        image_size: height and width in pixels.
        size: rows Hi and columns Wi of the image maps.

    Returns:
        Sites; visible iff depth > 0.1 m and inside the image.
    """
    if fused(reference_points, lidar2img) and reference_points.dtype == torch.float32 and not lidar2img.requires_grad:
        from aqr.modulation.kernels.locate import locate

        return Sites(*locate(reference_points, lidar2img, pc_range, image_size, size), size)
    points = denormalise(reference_points, pc_range)
    pixels, depth = project(points[:, None], lidar2img)
    visible = in_image(pixels, depth, image_size)
    columns = pixels[..., 0] * (size[1] / image_size[1])
    rows = pixels[..., 1] * (size[0] / image_size[0])
    # Just short of the image's end, rounding may put a point on the map's.
    visible = visible & (columns < size[1]) & (rows < size[0])
    return Sites(torch.where(visible[..., None], torch.stack([columns, rows], -1), 0.0), visible, size)
