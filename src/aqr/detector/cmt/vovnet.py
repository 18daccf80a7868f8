"""VoVNet-99 with effective squeeze-and-excitation (arXiv 1904.09730, 1911.06667), V-99-eSE for short."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STEM: Final = (64, 64, 128)
STAGE_WIDTHS: Final = (128, 160, 192, 224)
STAGE_OUTPUTS: Final = (256, 512, 768, 1024)
STAGE_BLOCKS: Final = (1, 3, 9, 3)
FIRST_STAGE: Final = 2
"""Number of the first stage; the stem is the one before."""
LAYERS: Final = 5
"""Convolutions of a block, whose outputs are all concatenated."""


class ConvNorm(nn.Module):
    """Convolution without bias that keeps the size but for the stride, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""
        return F.relu(self.norm(self.conv(x)), inplace=True)


class OneShotBlock(nn.Module):
    """One-shot aggregation: a chain of convolutions whose outputs are concatenated once, then weighted by channel.

    Args:
        inputs: channels of the input.
        width: channels of the chain.
        outputs: channels of the output.
        residual: the input is added to the output.
    """

    def __init__(self, inputs: int, width: int, outputs: int, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        self.layers = nn.ModuleList([ConvNorm(inputs if i == 0 else width, width, 3) for i in range(LAYERS)])
        self.concat = ConvNorm(inputs + LAYERS * width, outputs, 1)
        self.excite = nn.Conv2d(outputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, H, W] to [N, outputs, H, W]."""
        parts = [x]
        for layer in self.layers:
            parts.append(layer(parts[-1]))
        merged = self.concat(torch.cat(parts, 1))
        weight = F.hardsigmoid(self.excite(merged.mean((2, 3), keepdim=True)))
        out: Tensor = merged * weight
        return out + x if self.residual else out


class VoVNet99(nn.Module):
    """The last two of four stages, of stride 16 and 32; stages but the first begin with a pooling that rounds up."""

    channels: Final = (768, 1024)

    def __init__(self) -> None:
        super().__init__()
        stem = ConvNorm(3, STEM[0], 3, 2), ConvNorm(STEM[0], STEM[1], 3), ConvNorm(STEM[1], STEM[2], 3, 2)
        self.stem = _numbered(stem)
        self.stages = nn.ModuleDict()
        inputs = STEM[-1]
        sizes = zip(STAGE_WIDTHS, STAGE_OUTPUTS, STAGE_BLOCKS, strict=True)
        for number, (width, outputs, blocks) in enumerate(sizes, FIRST_STAGE):
            chain = [OneShotBlock(inputs if i == 0 else outputs, width, outputs, residual=i > 0) for i in range(blocks)]
            self.stages[str(number)] = _numbered(chain)
            inputs = outputs

    def forward(self, x: Tensor) -> list[Tensor]:
        """[N, 3, H, W] to [N, 768, H / 16, W / 16] and [N, 1024, H / 32, W / 32], rounded up."""
        x = self.stem(x)
        levels: list[Tensor] = []
        for stage in self.stages.values():
            x = stage(F.max_pool2d(x, 3, 2, ceil_mode=True) if levels else x)
            levels.append(x)
        return levels[-2:]


def _numbered(modules: Iterable[nn.Module]) -> nn.Sequential:
    """A sequence whose parts are counted from 1, as VoVNet's are."""
    return nn.Sequential(OrderedDict((str(number), module) for number, module in enumerate(modules, 1)))
