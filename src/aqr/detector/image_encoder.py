"""Camera images to feature maps."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aqr.config import ImageEncoder as ImageEncoderConfig
from aqr.detector.frozen_norm import freeze_norms
from aqr.errors import InputError

TIMM: Final = "timm:"
_STAGES: Final = ("stage_names", "out_features", "out_indices")

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)


class ImageNeck(nn.Module):
    """A feature pyramid (arXiv 1612.03144) of which only the finest level is kept.

    Each level passes a 1 x 1 convolution and is brought to the size of the result, nearest upwards, averaged downwards;
    their sum passes one 3 x 3 convolution.

    Args:
        channels: of the backbone's levels.
        hidden_dim: C of the result.
    """

    def __init__(self, channels: list[int], hidden_dim: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList([nn.Conv2d(width, hidden_dim, 1) for width in channels])
        self.out = nn.Conv2d(hidden_dim, hidden_dim, 3, padding=1)

    def forward(self, levels: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Levels [N, C_i, H_i, W_i] to [N, C, *size]."""
        merged = sum(_resize(lateral(level), size) for lateral, level in zip(self.laterals, levels, strict=True))
        out: Tensor = self.out(merged)
        return out


class ImageEncoder(nn.Module):
    """A backbone from transformers and a neck, applied to every camera alike.

    Args:
        config: which backbone, its weights and options.
        hidden_dim: C of the maps.

    Raises:
        InputError: where the backbone or its weights cannot be found.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: ImageEncoderConfig, hidden_dim: int) -> None:
        super().__init__()
        self.backbone, channels = build_backbone(config)
        self.neck = ImageNeck(channels, hidden_dim)
        self.stride = config.out_stride
        self.freeze_norm = config.freeze_norm
        if config.freeze_norm:
            freeze_norms(self.backbone)
        self.register_buffer("mean", 255 * torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", 255 * torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)
        self.train()

    def train(self, mode: bool = True) -> ImageEncoder:
        """Batch norms of the backbone stay in evaluation where `freeze_norm` asks for it."""
        super().train(mode)
        if self.freeze_norm:
            for module in self.backbone.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Encode the images of all cameras.

        Args:
            images: [B, V, 3, H, W] uint8 RGB, V >= 1.

        Returns:
            [B, V, C, ceil(H / stride), ceil(W / stride)].
        """
        batch, views, _, height, width = images.shape
        bytes_last = images.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        levels = list(self.backbone((bytes_last.float() - self.mean) / self.std).feature_maps)
        maps: Tensor = self.neck(levels, (-(-height // self.stride), -(-width // self.stride)))
        return maps.view(batch, views, *maps.shape[1:])


def build_backbone(config: ImageEncoderConfig) -> tuple[nn.Module, list[int]]:
    """The last two stages of a transformers backbone (three for stride 8), with random or with pretrained weights.

    Args:
        config: `backbone` is a transformers model type or `timm:NAME`.

    Returns:
        A module whose output has `feature_maps`, and the channels of those.

    Raises:
        InputError: naming the setting that cannot be satisfied.
    """
    from transformers import AutoBackbone, AutoConfig

    if config.backbone.startswith(TIMM):
        return _timm_backbone(config)
    stages = slice(-_stages(config), None)
    with _foreign_errors(config):
        if config.pretrained is not None:
            settings = AutoConfig.from_pretrained(config.pretrained)
            settings = AutoConfig.from_pretrained(config.pretrained, out_features=settings.stage_names[stages])
        else:
            settings = AutoConfig.for_model(config.backbone, **config.options)
            settings = AutoConfig.for_model(
                config.backbone, **config.options, out_features=settings.stage_names[stages]
            )
        backbone = AutoBackbone.from_config(settings)
        if config.pretrained is not None:
            backbone = type(backbone).from_pretrained(config.pretrained, config=settings)
        return backbone, list(backbone.channels)


def stated(config: ImageEncoderConfig) -> ImageEncoderConfig:
    """The settings with the architecture of pretrained weights written out under `backbone` and `options`.

    With `pretrained` taken out of the result, `build_backbone` gives the same network and needs no file for it: what a
    checkpoint of the trained network is loaded into. Settings without pretrained weights stay as they are, as do those
    of `timm:NAME`, which names the architecture.

    Raises:
        InputError: where there are no such weights.
    """
    if config.pretrained is None or config.backbone.startswith(TIMM):
        return config
    from transformers import AutoConfig, PretrainedConfig

    with _foreign_errors(config):
        settings = AutoConfig.from_pretrained(config.pretrained)
        about_other_things = {*PretrainedConfig().to_dict(), *_STAGES, "torch_dtype", "num_labels"}
        options = {key: value for key, value in settings.to_dict().items() if key not in about_other_things}
        return config.model_copy(update={"backbone": settings.model_type, "options": options})


@contextmanager
def _foreign_errors(config: ImageEncoderConfig) -> Iterator[None]:
    """Turn whatever transformers says of a user's settings into one sentence, and what it says on the way to silence.

    Without a network the hub tells of five attempts for each of several files.
    """
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.ERROR)
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        key, named, mend = (
            (
                "pretrained",
                config.pretrained,
                "give a folder with config.json and model.safetensors, a hub name when online, or null for random "
                "weights",
            )
            if config.pretrained is not None
            else (
                "backbone",
                config.backbone,
                "name a backbone of transformers, such as resnet, convnext or swin, and its own options",
            )
        )
        raise InputError(f"detector.image.{key}: {named!r} cannot be used ({reason}); {mend}") from error
    finally:
        hub.setLevel(level)


def _timm_backbone(config: ImageEncoderConfig) -> tuple[nn.Module, list[int]]:
    from transformers import TimmBackbone, TimmBackboneConfig
    from transformers.utils import is_timm_available

    if not is_timm_available():
        raise InputError(f"detector.image.backbone: {config.backbone!r} needs timm; install it or name another one")
    settings = TimmBackboneConfig(
        backbone=config.backbone.removeprefix(TIMM),
        use_pretrained_backbone=config.pretrained is not None,
        out_indices=tuple(range(-_stages(config), 0)),
        **config.options,
    )
    backbone = TimmBackbone(settings)
    return backbone, list(backbone.channels)


def _stages(config: ImageEncoderConfig) -> int:
    return 2 if config.out_stride == 16 else 3


def _resize(level: Tensor, size: tuple[int, int]) -> Tensor:
    if level.shape[-2:] == size:
        return level
    if level.shape[-2] > size[0]:
        return F.adaptive_avg_pool2d(level, size)
    return F.interpolate(level, size, mode="nearest")
