"""CMT's image encoder: a backbone of mmdetection's and the finest level of its feature pyramid."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aqr.config import CmtEncoders
from aqr.detector.cmt.resnet import ResNet50
from aqr.detector.cmt.vovnet import VoVNet99
from aqr.detector.frozen_norm import freeze_norms

BGR_MEAN: Final = (103.530, 116.280, 123.675)
BGR_STD: Final = (57.375, 57.120, 58.395)


class PyramidNeck(nn.Module):
    """CPFPN: both levels pass a 1 x 1 convolution, the coarse one is added to the fine one, one 3 x 3 convolution.

    CMT's neck returns the coarse level as well, which nobody reads.

    Args:
        channels: of the two levels.
        hidden_dim: C of the result.
    """

    def __init__(self, channels: tuple[int, ...], hidden_dim: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList([nn.Conv2d(width, hidden_dim, 1) for width in channels])
        self.out = nn.Conv2d(hidden_dim, hidden_dim, 3, padding=1)

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Levels [N, C_i, H_i, W_i], fine before coarse, to [N, C, H_0, W_0]."""
        fine, coarse = (lateral(level) for lateral, level in zip(self.laterals, levels, strict=True))
        out: Tensor = self.out(fine + F.interpolate(coarse, fine.shape[-2:], mode="nearest"))
        return out


class CmtImageEncoder(nn.Module):
    """Camera images to feature maps of stride 16, from pixels in the order blue, green, red.

    Args:
        config: which backbone.
        hidden_dim: C of the maps.
        freeze_norm: keep the backbone's batch-norm statistics as loaded.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: CmtEncoders, hidden_dim: int, freeze_norm: bool) -> None:
        super().__init__()
        backbone = (
            VoVNet99() if config.image_backbone == "vovnet99" else ResNet50(config.image_backbone == "resnet50-caffe")
        )
        self.backbone = backbone
        self.neck = PyramidNeck(backbone.channels, hidden_dim)
        self.freeze_norm = freeze_norm
        if freeze_norm:
            freeze_norms(self.backbone)
        self.register_buffer("mean", torch.tensor(BGR_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(BGR_STD)[:, None, None], persistent=False)
        self.train()

    def train(self, mode: bool = True) -> CmtImageEncoder:
        """Batch norms of the backbone stay in evaluation where `freeze_norm` asks for it."""
        super().train(mode)
        if self.freeze_norm:
            for module in self.backbone.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Encode the images of all cameras.

        Args:
            images: [B, V, 3, H, W] uint8 RGB, V >= 1.

        Returns:
            [B, V, C, ceil(H / 16), ceil(W / 16)].
        """
        bytes_last = images.flatten(0, 1).flip(1).contiguous(memory_format=torch.channels_last)
        maps: Tensor = self.neck(self.backbone((bytes_last.float() - self.mean) / self.std))
        return maps.view(*images.shape[:2], *maps.shape[1:])
