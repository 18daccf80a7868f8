"""CMT's position embeddings of BEV cells, camera rays and queries."""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aqr import geometry
from aqr.detector.position import DEPTHS, bev_centers, frustum, inverse, ray_depths

EPS: Final = 1e-5
"""Reference points stay this far inside [0, 1] before a logit is taken."""
DEPTH_EPS: Final = 1e-6
"""Metres that a depth is moved away from 0 before it is divided by."""


def inverse_sigmoid(x: Tensor) -> Tensor:
    """Logit of x clamped to [0, 1], numerator and denominator each at least `EPS`."""
    x = x.clamp(0, 1)
    return (x.clamp(min=EPS) / (1 - x).clamp(min=EPS)).log()


def sine_code(positions: Tensor, width: int) -> Tensor:
    """Sines and cosines of a place: entry j of an axis divides 2π p by 1 + 2 floor(j / 2) / width.

    The divisors rise linearly from 1 to 2, so that all waves are slow; y stands before x.

    Args:
        positions: [..., 2] x and y in [0, 1].
        width: entries per axis, even.

    Returns:
        [..., 2 · width].
    """
    divisor = 1 + 2 * torch.arange(width // 2, device=positions.device) / width
    angles = 2 * math.pi * positions.flip(-1)[..., None] / divisor
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(-3)


class CmtBevEmbedding(nn.Module):
    """Embeds a BEV position: its sine code through a two-layer perceptron.

    Args:
        dim: C.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.mlp = nn.Sequential(nn.Linear(2 * dim, dim), nn.ReLU(), nn.Linear(dim, dim))

    def forward(self, xy: Tensor) -> Tensor:
        """Positions [..., 2] in [0, 1]² of pc_range to [..., C] float32."""
        with torch.autocast(xy.device.type, enabled=False):
            out: Tensor = self.mlp(sine_code(xy.float(), self.dim))
        return out

    def grid(self, size: tuple[int, int]) -> Tensor:
        """Embedding of the cell centres of a map: [Hb, Wb, C]."""
        out: Tensor = self(bev_centers(size, next(self.parameters()).device))
        return out


class CmtRayEmbedding(nn.Module):
    """Embeds a pixel: the points of its ray, normalised to pc_range but not clamped, through a two-layer perceptron.

    Args:
        dim: C.
        pc_range: x_min, y_min, z_min, x_max, y_max, z_max, metres; depths run from 1 m linearly towards x_max.
    """

    pc_range: Tensor
    depths: Tensor

    def __init__(self, dim: int, pc_range: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("pc_range", torch.tensor(pc_range), persistent=False)
        self.register_buffer("depths", ray_depths(pc_range), persistent=False)
        self.mlp = nn.Sequential(nn.Linear(3 * DEPTHS, 4 * dim), nn.ReLU(), nn.Linear(4 * dim, dim))

    def coordinates(self, pixels: Tensor, img2lidar: Tensor) -> Tensor:
        """What the perceptron reads.

        Args:
            pixels: [..., N, 3] u, v and the factor of the depth, which is 1 for pixels of a map.
            img2lidar: [..., 4, 4], inverse of lidar2img.

        Returns:
            [..., N, 3 · DEPTHS], point by point from near to far.
        """
        return geometry.normalise(frustum(pixels, img2lidar, self.depths), self.pc_range).flatten(-2)

    def forward(self, pixels: Tensor, img2lidar: Tensor) -> Tensor:
        """Pixels [..., N, 3] (see `coordinates`) of cameras [..., 4, 4] to [..., N, C] float32."""
        with torch.autocast(pixels.device.type, enabled=False):
            out: Tensor = self.mlp(self.coordinates(pixels.float(), img2lidar.float()))
        return out

    def pixels(self, map_size: tuple[int, int], image_size: tuple[int, int]) -> Tensor:
        """Upper left pixel of every cell, row by row: [Hi · Wi, 3]; no half-pixel offset."""
        device = self.depths.device
        v = torch.arange(map_size[0], device=device) * (image_size[0] / map_size[0])
        u = torch.arange(map_size[1], device=device) * (image_size[1] / map_size[1])
        return F.pad(torch.stack(torch.meshgrid(u, v, indexing="xy"), -1).flatten(0, 1), (0, 1), value=1.0)

    def grid(self, map_size: tuple[int, int], image_size: tuple[int, int], img2lidar: Tensor) -> Tensor:
        """Embedding of the cells of image maps.

        Args:
            map_size: Hi, Wi.
            image_size: H, W in pixels.
            img2lidar: [B, V, 4, 4].

        Returns:
            [B, V, Hi, Wi, C].
        """
        pixels = self.pixels(map_size, image_size).expand(*img2lidar.shape[:2], -1, -1)
        out: Tensor = self(pixels, img2lidar)
        return out.view(*img2lidar.shape[:2], *map_size, -1)


class CmtPositionEmbedding(nn.Module):
    """Embeds reference points: their BEV embedding plus their ray embedding in every camera that sees them.

    Args:
        pc_range: x_min, y_min, z_min, x_max, y_max, z_max, metres.
        bev: embedding of BEV positions.
        ray: embedding of pixels; None for a detector without cameras.
    """

    pc_range: Tensor

    def __init__(self, pc_range: tuple[float, ...], bev: CmtBevEmbedding, ray: CmtRayEmbedding | None) -> None:
        super().__init__()
        self.register_buffer("pc_range", torch.tensor(pc_range), persistent=False)
        self.bev = bev
        self.ray = ray

    def forward(self, reference_points: Tensor, lidar2img: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Embed points; they pass inverse sigmoid and sigmoid first, which keeps them off the range's faces.

        Args:
            reference_points: [B, Q, 3] in [0, 1]³ of pc_range.
            lidar2img: [B, V, 4, 4].
            image_size: H, W in pixels.

        Returns:
            [B, Q, C].
        """
        with torch.autocast(reference_points.device.type, enabled=False):
            points = inverse_sigmoid(reference_points.float()).sigmoid()
        embedding: Tensor = self.bev(points[..., :2])
        if self.ray is None or not lidar2img.shape[1]:
            return embedding
        pixels, visible = self.project(points, lidar2img, image_size)
        rays: Tensor = self.ray(torch.where(visible[..., None], pixels, 0.0), inverse(lidar2img))
        return embedding + (rays * visible[..., None]).sum(1)

    def project(self, points: Tensor, lidar2img: Tensor, image_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Where cameras see points.

        Args:
            points: [B, Q, 3] in [0, 1]³ of pc_range.
            lidar2img: [B, V, 4, 4].
            image_size: H, W in pixels.

        Returns:
            Pixels [B, V, Q, 3], u, v and depth over (depth + 1e-6), and visible [B, V, Q] bool: depth > 0 and inside
            the image.
        """
        with torch.autocast(points.device.type, enabled=False):
            matrix = lidar2img.float()
            metres = geometry.denormalise(points.float(), self.pc_range)[:, None]
            seen = metres @ matrix[..., :3, :3].mT + matrix[..., None, :3, 3]
            depth = seen[..., 2:]
            pixels = seen / torch.where(depth > 0, depth + DEPTH_EPS, depth - DEPTH_EPS)
            u, v = pixels[..., 0], pixels[..., 1]
            visible = (depth[..., 0] > 0) & (u >= 0) & (u < image_size[1]) & (v >= 0) & (v < image_size[0])
        return pixels, visible
