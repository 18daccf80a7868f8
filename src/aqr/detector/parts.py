"""What a detector is put together from: the one place that reads `detector.style`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aqr.config import Config
from aqr.detector.cmt.decoder import CmtDecoder
from aqr.detector.cmt.heads import CmtTaskHeads
from aqr.detector.cmt.image_encoder import CmtImageEncoder
from aqr.detector.cmt.lidar_encoder import CmtLidarEncoder
from aqr.detector.cmt.position import CmtBevEmbedding, CmtPositionEmbedding, CmtRayEmbedding
from aqr.detector.decoder import Decoder
from aqr.detector.heads import TaskHeads
from aqr.detector.image_encoder import ImageEncoder
from aqr.detector.lidar_encoder import LidarEncoder
from aqr.detector.position import BevEmbedding, PositionEmbedding, RayEmbedding
from aqr.detector.reference import initial_points


@dataclass(frozen=True)
class Parts:
    """Modules with random weights, in the order in which they draw them.

    Attributes:
        lidar_encoder: points to a BEV map; None without LiDAR.
        image_encoder: images to image maps; None without cameras.
        reference_points: [Q, 3] start of the learned reference points.
        position: embeds queries and tokens.
        decoder: queries read tokens.
        heads: what queries say about boxes.
        center_range: [6], where decoded centres may lie; None for pc_range and a margin.
    """

    lidar_encoder: LidarEncoder | CmtLidarEncoder | None
    image_encoder: ImageEncoder | CmtImageEncoder | None
    reference_points: Tensor
    position: PositionEmbedding | CmtPositionEmbedding
    decoder: Decoder
    heads: TaskHeads
    center_range: Tensor | None


def build_parts(config: Config) -> Parts:
    """The parts of a detector of the style that the config asks for.

    Raises:
        InputError: where the image backbone cannot be built.
    """
    return _cmt_parts(config) if config.detector.style == "cmt" else _own_parts(config)


def _own_parts(config: Config) -> Parts:
    settings = config.detector
    dim, heads, pc_range = settings.hidden_dim, settings.num_heads, settings.pc_range
    return Parts(
        lidar_encoder=LidarEncoder(settings.lidar, dim, pc_range) if config.sensors.lidar else None,
        image_encoder=ImageEncoder(settings.image, dim) if config.sensors.cameras else None,
        reference_points=initial_points(settings.reference_init, settings.num_query, pc_range),
        position=PositionEmbedding(
            pc_range,
            BevEmbedding(dim, heads),
            RayEmbedding(dim, heads, pc_range) if config.sensors.cameras else None,
        ),
        decoder=Decoder(dim, heads, settings.feedforward_dim, settings.num_layers, settings.dropout),
        heads=TaskHeads(settings.num_layers, dim, pc_range),
        center_range=None,
    )


def _cmt_parts(config: Config) -> Parts:
    settings = config.detector
    dim, pc_range = settings.hidden_dim, settings.pc_range
    return Parts(
        lidar_encoder=CmtLidarEncoder(settings.cmt, dim, pc_range) if config.sensors.lidar else None,
        image_encoder=CmtImageEncoder(settings.cmt, dim, settings.image.freeze_norm)
        if config.sensors.cameras
        else None,
        reference_points=initial_points(settings.reference_init, settings.num_query, pc_range),
        position=CmtPositionEmbedding(
            pc_range,
            CmtBevEmbedding(dim),
            CmtRayEmbedding(dim, pc_range) if config.sensors.cameras else None,
        ),
        decoder=CmtDecoder(dim, settings.num_heads, settings.feedforward_dim, settings.num_layers, settings.dropout),
        heads=CmtTaskHeads(settings.num_layers, dim, pc_range, settings.cmt.boxes),
        center_range=torch.tensor(settings.cmt.center_range),
    )
