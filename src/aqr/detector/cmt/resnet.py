"""ResNet-50 (arXiv 1512.03385) with the module names that mmdetection and torchvision share."""

from __future__ import annotations

from typing import Final

from torch import Tensor, nn

BLOCKS: Final = (3, 4, 6, 3)
WIDTHS: Final = (64, 128, 256, 512)
EXPANSION: Final = 4


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolution with batch norms, added to the input.

    Args:
        inputs: channels of the input.
        width: channels inside; the output has four times as many.
        stride: of the block.
        caffe: the stride is the first convolution's (as in the original models), not the second's.
        downsample: the input passes a strided 1 x 1 convolution before it is added.
    """

    def __init__(self, inputs: int, width: int, stride: int, caffe: bool, downsample: bool) -> None:
        super().__init__()
        first, second = (stride, 1) if caffe else (1, stride)
        outputs = EXPANSION * width
        self.conv1 = nn.Conv2d(inputs, width, 1, first, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, second, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
            if downsample
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, H, W] to [N, 4 · width, H / stride, W / stride]."""
        kept = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        out: Tensor = self.relu(self.bn3(self.conv3(x)) + kept)
        return out


class ResNet50(nn.Module):
    """The last two of four stages, of stride 16 and 32.

    Args:
        caffe: see `Bottleneck`.
    """

    channels: Final = (1024, 2048)

    def __init__(self, caffe: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        inputs, stages = 64, []
        for stage, (blocks, width) in enumerate(zip(BLOCKS, WIDTHS, strict=True)):
            layers = []
            for block in range(blocks):
                stride = 2 if block == 0 and stage > 0 else 1
                layers.append(Bottleneck(inputs, width, stride, caffe, downsample=block == 0))
                inputs = EXPANSION * width
            stages.append(nn.Sequential(*layers))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages

    def forward(self, x: Tensor) -> list[Tensor]:
        """[N, 3, H, W] to [N, 1024, H / 16, W / 16] and [N, 2048, H / 32, W / 32], rounded up."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        middle = self.layer3(self.layer2(self.layer1(x)))
        return [middle, self.layer4(middle)]
