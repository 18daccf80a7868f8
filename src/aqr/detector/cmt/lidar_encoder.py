"""CMT's LiDAR encoder: voxels, sparse 3D convolutions, SECOND's 2D backbone and FPN."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from aqr.config import CmtEncoders
from aqr.detector.cmt.middle import NORM_EPS, NORM_MOMENTUM, OUT_WIDTH, MiddleEncoder, map_shape
from aqr.detector.cmt.voxels import voxelise
from aqr.detector.lidar_encoder import conv_norm_relu

POINT_CHANNELS: Final = 5
STAGE_WIDTHS: Final = (128, 256)
STAGE_STRIDES: Final = (1, 2)
STAGE_LAYERS: Final = 5
"""Convolutions of a stage after the first, which is the strided one."""
LEVEL_WIDTH: Final = 256


class CmtLidarEncoder(nn.Module):
    """LiDAR points to a BEV map.

    Args:
        config: voxels and what computes the sparse convolutions.
        hidden_dim: C of the map.
        pc_range: x_min, y_min, z_min, x_max, y_max, z_max, metres.

    Raises:
        InputError: where spconv is asked for and not installed.
    """

    pc_range: Tensor
    voxel_size: Tensor

    def __init__(self, config: CmtEncoders, hidden_dim: int, pc_range: tuple[float, ...]) -> None:
        super().__init__()
        self.shape, self.max_points, self.max_voxels = config.sparse_shape, config.max_points, config.max_voxels
        self.register_buffer("pc_range", torch.tensor(pc_range), persistent=False)
        self.register_buffer("voxel_size", torch.tensor(config.voxel_size), persistent=False)
        self.middle = MiddleEncoder(POINT_CHANNELS, config.sparse_backend)
        self.backbone = nn.ModuleList()
        self.neck = nn.ModuleList()
        inputs, reached = OUT_WIDTH * map_shape(self.shape)[0], 1
        for width, stride in zip(STAGE_WIDTHS, STAGE_STRIDES, strict=True):
            convolutions = [conv_norm_relu(inputs, width, stride=stride)]
            convolutions += [conv_norm_relu(width, width) for _ in range(STAGE_LAYERS)]
            self.backbone.append(nn.Sequential(*(layer for block in convolutions for layer in block)))
            inputs, reached = width, reached * stride
            resample: nn.Module = (
                nn.Conv2d(width, LEVEL_WIDTH, 1, bias=False)
                if reached == 1
                else nn.ConvTranspose2d(width, LEVEL_WIDTH, reached, reached, bias=False)
            )
            self.neck.append(nn.Sequential(resample, nn.BatchNorm2d(LEVEL_WIDTH), nn.ReLU(inplace=True)))
        for module in (*self.backbone.modules(), *self.neck.modules()):
            if isinstance(module, nn.BatchNorm2d):
                module.eps, module.momentum = NORM_EPS, NORM_MOMENTUM
        self.shared_conv = conv_norm_relu(LEVEL_WIDTH * len(STAGE_WIDTHS), hidden_dim)

    def forward(self, points: Tensor, sample: Tensor, batch_size: int) -> Tensor:
        """Encode a batch of point clouds, which may be empty.

        Args:
            points: [P, 5] x, y, z (m), intensity (0 … 255), time lag (s).
            sample: [P] int64, the sample of each point.
            batch_size: B.

        Returns:
            [B, C, Hb, Wb], row y, column x.
        """
        with torch.autocast(points.device.type, enabled=False):
            limit = self.max_voxels[0 if self.training else 1]
            voxels = voxelise(
                points.float(),
                sample,
                batch_size,
                self.pc_range,
                self.voxel_size,
                self.shape,
                self.max_points,
                limit,
            )
            features = self.middle(voxels)
        out: Tensor = self.shared_conv(self.levels(features))
        return out

    def levels(self, features: Tensor) -> Tensor:
        """SECOND's backbone and FPN: [B, C, H, W] of the 3D encoder to [B, 512, H, W]."""
        levels = []
        for stage, neck in zip(self.backbone, self.neck, strict=True):
            features = stage(features)
            levels.append(neck(features))
        return torch.cat(levels, 1)
