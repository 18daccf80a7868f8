"""Position embeddings: one code for places that queries, BEV cells and image cells share (CMT, arXiv 2301.01283).

A query finds a token because both went through the same embedding: of a BEV position, and of the camera ray that
passes through a pixel. Beside CMT's perceptron, the waves themselves are part of the code. Their inner product falls
off with distance whatever the weights, so that (see `Attention`) a new detector's queries look around their own
reference point instead of everywhere.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aqr import geometry

DEPTHS: Final = 64
"""Points per ray."""
NEAREST: Final = 1.0
"""Metres, depth of the first of them."""

BEV_CYCLES: Final = (0.5, 16.0)
"""Lowest and highest frequency of BEV positions, cycles per pc_range: 216 m … 6.8 m for nuScenes."""
RAY_CYCLES: Final = (0.25, 8.0)
"""Lowest and highest frequency of ray directions, cycles per unit of a unit vector."""

AMPLITUDE: Final = 2.0
"""Of the waves in the code; large beside features, whose elements are of order 1."""


def spread(count: int, cycles: tuple[float, float], heads: int) -> Tensor:
    """Frequencies in geometric progression, ordered so that each of `heads` equal parts covers the whole range.

    Args:
        count: K.
        cycles: lowest and highest.
        heads: number of parts.

    Returns:
        [K].
    """
    rising = torch.logspace(math.log2(cycles[0]), math.log2(cycles[1]), count, base=2.0)
    return torch.cat([rising[part::heads] for part in range(heads)])


def waves(values: Tensor, frequencies: Tensor) -> Tensor:
    """sin and cos of 2π · frequency · value.

    Args:
        values: [..., D].
        frequencies: [K], cycles per unit.

    Returns:
        [..., D, K, 2].
    """
    angles = 2 * math.pi * values[..., None] * frequencies
    return torch.stack([angles.sin(), angles.cos()], -1)


def carried(waves: Tensor, dim: int) -> Tensor:
    """Waves [..., D, K, 2] as the first channels of [..., dim], frequency by frequency, all axes together."""
    flat = AMPLITUDE * waves.transpose(-3, -2).flatten(-3)
    return F.pad(flat, (0, dim - flat.shape[-1]))


def bev_centers(size: tuple[int, int], device: torch.device) -> Tensor:
    """Centres of a BEV map's cells, x and y in [0, 1] of pc_range: [Hb, Wb, 2]."""
    rows, columns = size
    y = (torch.arange(rows, device=device) + 0.5) / rows
    x = (torch.arange(columns, device=device) + 0.5) / columns
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)


def ray_depths(pc_range: tuple[float, ...]) -> Tensor:
    """Depths of the points of a ray, from `NEAREST` linearly towards x_max: [DEPTHS] metres."""
    step = (pc_range[3] - NEAREST) / DEPTHS
    return NEAREST + step * torch.arange(DEPTHS)


def cell_centers(map_size: tuple[int, int], image_size: tuple[int, int], device: torch.device) -> Tensor:
    """Pixels at the centres of an image map's cells, row by row: [Hi · Wi, 2]."""
    v = (torch.arange(map_size[0], device=device) + 0.5) * (image_size[0] / map_size[0])
    u = (torch.arange(map_size[1], device=device) + 0.5) * (image_size[1] / map_size[1])
    return torch.stack(torch.meshgrid(u, v, indexing="xy"), -1).flatten(0, 1)


def frustum(pixels: Tensor, img2lidar: Tensor, depths: Tensor) -> Tensor:
    """Points on the pixels' rays.

    Args:
        pixels: [..., N, 2], or [..., N, 3] with the factor of the depth, which is 1 for those of two numbers.
        img2lidar: [..., 4, 4], inverse of lidar2img.
        depths: [D] metres in front of the image plane.

    Returns:
        [..., N, D, 3] metres, LiDAR frame.
    """
    homogeneous = F.pad(pixels, (0, 3 - pixels.shape[-1]), value=1.0)
    direction = homogeneous @ img2lidar[..., :3, :3].mT
    return img2lidar[..., None, None, :3, 3] + direction[..., None, :] * depths[:, None]


class BevEmbedding(nn.Module):
    """Embeds a BEV position: waves of y and x through a two-layer perceptron, plus the waves themselves.

    Args:
        dim: C.
        heads: heads of the attention that compares embeddings.
    """

    frequencies: Tensor
    kept: Tensor | None

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.dim = dim
        frequencies = spread(dim // 4, BEV_CYCLES, heads)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.mlp = nn.Sequential(nn.Linear(4 * len(frequencies), dim), nn.ReLU(), nn.Linear(dim, dim))
        self.register_buffer("kept", None, persistent=False)

    def forward(self, xy: Tensor) -> Tensor:
        """Positions [..., 2] in [0, 1]² of pc_range to [..., C] float32."""
        with torch.autocast(xy.device.type, enabled=False):
            return self.embed(waves(xy.float().flip(-1), self.frequencies))

    def embed(self, waved: Tensor) -> Tensor:
        """Waves [..., 2, K, 2] of y and x, or means of such, to [..., C]."""
        out: Tensor = self.mlp(waved.flatten(-3)) + carried(waved, self.dim)
        return out

    def keep(self, size: tuple[int, int]) -> None:
        """Compute `grid(size)` now and never again, for weights that no longer change."""
        self.kept = self.grid(size)

    def grid(self, size: tuple[int, int]) -> Tensor:
        """Embedding of the cell centres of a map: [Hb, Wb, C]."""
        if self.kept is not None and self.kept.shape[:2] == size:
            return self.kept
        out: Tensor = self(bev_centers(size, self.frequencies.device))
        return out


class RayEmbedding(nn.Module):
    """Embeds what a pixel can see: points along its ray and its direction.

    Points (in pc_range) and waves of the unit direction vector go through a two-layer perceptron; the waves are part
    of the result as they are, in reverse order so that they resemble no BEV position.

    Args:
        dim: C.
        heads: heads of the attention that compares embeddings.
        pc_range: x_min, y_min, z_min, x_max, y_max, z_max, metres; the last point lies near depth x_max.
    """

    frequencies: Tensor
    pc_range: Tensor
    depths: Tensor

    def __init__(self, dim: int, heads: int, pc_range: tuple[float, ...]) -> None:
        super().__init__()
        self.dim = dim
        self.register_buffer("frequencies", spread(dim // 6, RAY_CYCLES, heads), persistent=False)
        self.register_buffer("pc_range", torch.tensor(pc_range), persistent=False)
        self.register_buffer("depths", ray_depths(pc_range), persistent=False)
        inputs = 3 * DEPTHS + 6 * len(self.frequencies)
        self.mlp = nn.Sequential(nn.Linear(inputs, 4 * dim), nn.ReLU(), nn.Linear(4 * dim, dim))

    def forward(self, pixels: Tensor, img2lidar: Tensor) -> Tensor:
        """Pixels [..., N, 2] of cameras [..., 4, 4] to [..., N, C] float32."""
        with torch.autocast(pixels.device.type, enabled=False):
            points = frustum(pixels.float(), img2lidar.float(), self.depths)
            direction = F.normalize(points[..., -1, :] - points[..., 0, :], dim=-1)
            waved = waves(direction, self.frequencies)
            unit = geometry.normalise(points, self.pc_range)
            learned: Tensor = self.mlp(torch.cat([unit.flatten(-2), waved.flatten(-3)], -1))
            return learned + carried(waved, self.dim).flip(-1)

    def grid(self, map_size: tuple[int, int], image_size: tuple[int, int], img2lidar: Tensor) -> Tensor:
        """Embedding of the cell centres of image maps.

        Args:
            map_size: Hi, Wi.
            image_size: H, W in pixels.
            img2lidar: [B, V, 4, 4].

        Returns:
            [B, V, Hi, Wi, C].
        """
        pixels = cell_centers(map_size, image_size, img2lidar.device)
        out: Tensor = self(pixels.expand(*img2lidar.shape[:2], -1, -1), img2lidar)
        return out.view(*img2lidar.shape[:2], *map_size, -1)


class PositionEmbedding(nn.Module):
    """Embeds reference points as the tokens they should find: the BEV cell and the pixels of the cameras that see them.

    Args:
        pc_range: x_min, y_min, z_min, x_max, y_max, z_max, metres.
        bev: embedding of BEV positions.
        ray: embedding of pixels; None for a detector without cameras.
    """

    pc_range: Tensor

    def __init__(self, pc_range: tuple[float, ...], bev: BevEmbedding, ray: RayEmbedding | None) -> None:
        super().__init__()
        self.register_buffer("pc_range", torch.tensor(pc_range), persistent=False)
        self.bev = bev
        self.ray = ray

    def forward(self, reference_points: Tensor, lidar2img: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Sum of a point's BEV embedding and of its ray embedding in every camera that sees it.

        Args:
            reference_points: [B, Q, 3] in [0, 1]³ of pc_range.
            lidar2img: [B, V, 4, 4].
            image_size: H, W in pixels.

        Returns:
            [B, Q, C].
        """
        embedding: Tensor = self.bev(reference_points[..., :2])
        if self.ray is None or not lidar2img.shape[1]:
            return embedding
        with torch.autocast(reference_points.device.type, enabled=False):
            points = geometry.denormalise(reference_points.float(), self.pc_range)
            pixels, depth = geometry.project(points[:, None], lidar2img.float())
            visible = geometry.in_image(pixels, depth, image_size)
            pixels = torch.where(visible[..., None], pixels, 0.0)
        rays: Tensor = self.ray(pixels, inverse(lidar2img))
        return embedding + (rays * visible[..., None]).sum(1)


def inverse(lidar2img: Tensor) -> Tensor:
    """Image to LiDAR: [..., 4, 4] float32, computed in float64 and without waiting for a GPU.

    The last row of `lidar2img` is (0, 0, 0, 1), so the cofactors of its 3 x 3 part are all that is needed.
    """
    matrix = lidar2img.double()
    first, second, third = matrix[..., :3, :3].unbind(-2)
    cofactors = torch.stack(
        [torch.linalg.cross(second, third), torch.linalg.cross(third, first), torch.linalg.cross(first, second)], -1
    )
    inverted = cofactors / (first * cofactors[..., 0]).sum(-1)[..., None, None]
    offset = -(inverted @ matrix[..., :3, 3:])
    bottom = F.pad(torch.zeros_like(offset.mT), (0, 1), value=1.0)
    return torch.cat([torch.cat([inverted, offset], -1), bottom], -2).float()
