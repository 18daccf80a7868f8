"""Settings of the detector: encoders, queries and losses."""

from __future__ import annotations

from itertools import accumulate
from operator import mul
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from aqr.config.section import Count, Fraction, NonNegative, Positive, Section


class LidarEncoder(Section):
    """Pillars (arXiv 1812.05784) and a SECOND-style BEV backbone with an FPN, in plain PyTorch."""

    pillars: tuple[Count, Count] = (512, 512)
    """Pillar grid, rows (y) and columns (x) over pc_range."""
    pillar_channels: Count = 64
    channels: tuple[Count, ...] = (64, 128, 256)
    blocks: tuple[Count, ...] = (3, 5, 5)
    strides: tuple[Count, ...] = (2, 2, 2)
    out_stride: Count = 4
    """Pillars per cell of the BEV map: with 4, 512 pillars give a 128 x 128 map."""

    @model_validator(mode="after")
    def _stages(self) -> LidarEncoder:
        if not 0 < len(self.channels) == len(self.blocks) == len(self.strides):
            raise ValueError("channels, blocks and strides must have one entry per stage, and one stage at least")
        for stride in accumulate(self.strides, mul):
            if stride % self.out_stride and self.out_stride % stride:
                raise ValueError(
                    f"a stage has {stride} pillars per cell (strides {list(self.strides)} up to it), which is neither "
                    f"a multiple nor a divisor of out_stride {self.out_stride}"
                )
            if any(n % stride for n in self.pillars):
                raise ValueError(
                    f"pillars {list(self.pillars)} must be multiples of all strides {list(self.strides)} together"
                )
        if any(n % self.out_stride for n in self.pillars):
            raise ValueError(f"pillars {list(self.pillars)} must be multiples of out_stride {self.out_stride}")
        return self

    @property
    def bev_size(self) -> tuple[int, int]:
        """Rows and columns of the BEV map."""
        return self.pillars[0] // self.out_stride, self.pillars[1] // self.out_stride


class ImageEncoder(Section):
    """A backbone from transformers and an FPN."""

    backbone: str = "resnet"
    """Model type of a transformers backbone (resnet, convnext, swin, dinov2, …), or `timm:NAME`."""
    pretrained: str | None = None
    """Hub name or folder of pretrained weights; None starts from random ones."""
    options: dict[str, Any] = Field(default={})
    """Fields of the backbone's transformers config, where it is not pretrained (`depths`, `hidden_sizes`, …)."""
    freeze_norm: bool = False
    """Keep batch-norm statistics as loaded; sensible with pretrained weights and small batches."""
    out_stride: Literal[8, 16] = 16
    """Pixels per cell of the image map."""
    depth_bins: Annotated[int, Field(ge=0)] = 0
    """Bins in which the depth of the object in every cell is told, from 1 m to the corner of pc_range; the cell's
    position then says where that is (arXiv 2211.14710). 0 builds no such head, and a cell stands for its whole ray."""


class CmtEncoders(Section):
    """The encoders of a CMT checkpoint (arXiv 2301.01283), in place of `lidar` and `image` where `style` is cmt."""

    voxel_size: tuple[Positive, Positive, Positive] = (0.1, 0.1, 0.2)
    """Metres along x, y and z."""
    sparse_shape: tuple[Count, Count, Count] = (41, 1024, 1024)
    """Voxels along z, y and x, counted from the lower corner of pc_range; those beyond are dropped. The BEV map has a
    cell per 8 x 8 of them. CMT's own setting for 0.1 m leaves out the last 5.6 m of the 108 m along x and y."""
    max_points: Count = 10
    """Points of a voxel that count, the first ones; their mean describes the voxel."""
    max_voxels: tuple[Count, Count] = (120_000, 160_000)
    """Voxels of a sample that count, the first ones, in training and in inference."""
    image_backbone: Literal["resnet50", "resnet50-caffe", "vovnet99"] = "resnet50"
    """`resnet50-caffe` has the stride of a bottleneck in its first convolution, not in its second."""
    sparse_backend: Literal["torch", "spconv"] = "torch"
    """What computes the sparse 3D convolutions; spconv is an extra, faster on a GPU."""
    center_range: tuple[float, float, float, float, float, float] = (-61.2, -61.2, -10.0, 61.2, 61.2, 10.0)
    """Boxes whose centre lies outside are left out."""
    boxes: Literal["mmdet3d-1", "mmdet3d-0"] = "mmdet3d-1"
    """What the weights call width and heading: mmdet3d changed it with its version 1.0."""


class Denoising(Section):
    """Denoising queries (arXiv 2203.01305, as used by CMT)."""

    groups: Annotated[int, Field(ge=0)] = 10
    """Copies of the ground truth; 0 turns denoising off."""
    noise_scale: NonNegative = 1.0
    """Largest offset of a noised centre, in half box sizes."""
    split: Fraction = 0.75
    """A copy displaced by more than this share of the largest offset is labelled background."""


class Loss(Section):
    cls: NonNegative = 2.0
    bbox: NonNegative = 0.25
    dn: NonNegative = 1.0
    """Weight of the denoising losses."""
    code_weights: tuple[NonNegative, ...] = (2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2)
    """CMT's, for x, y, z, l, w, h, sin, cos, vx, vy."""
    router_cls: NonNegative = 0.5
    """Weight of the router's class loss, where aqr.modulator.residual_weight is by class."""
    solo: NonNegative = 0.0
    """Weight of the losses of two more copies of the queries, one of which reads LiDAR alone, the other cameras alone,
    so that the decoder learns on every sample what to do without a sensor; 0 makes no copies. In training only."""
    depth: NonNegative = 1.0
    """Weight of the depth loss of the image cells, where detector.image.depth_bins asks for depths."""
    heatmap: NonNegative = 0.0
    """Weight of the auxiliary centre heatmap on the BEV map (arXiv 2006.11275); 0 builds no heatmap head."""

    @model_validator(mode="after")
    def _ten(self) -> Loss:
        if len(self.code_weights) != 10:
            raise ValueError(f"code_weights needs 10 numbers, has {len(self.code_weights)}")
        return self


class DetectorConfig(Section):
    """A CMT-style detector (arXiv 2301.01283)."""

    style: Literal["aqr", "cmt"] = "aqr"
    """`cmt` computes what CMT computes, from weights that `aqr convert cmt` brought along."""
    pc_range: tuple[float, float, float, float, float, float] = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0)
    hidden_dim: Count = 256
    num_query: Count = 900
    num_layers: Count = 6
    num_heads: Count = 8
    feedforward_dim: Count = 1024
    dropout: Fraction = 0.1
    reference_init: Literal["uniform", "grid"] = "uniform"
    """Start of the learned reference points: uniform in pc_range, or on a regular BEV grid at one height."""
    max_detections: Annotated[int, Field(ge=1, le=500)] = 300
    lidar: LidarEncoder = LidarEncoder()
    image: ImageEncoder = ImageEncoder()
    cmt: CmtEncoders = CmtEncoders()
    denoising: Denoising = Denoising()
    loss: Loss = Loss()

    @model_validator(mode="after")
    def _consistent(self) -> DetectorConfig:
        if any(low >= high for low, high in zip(self.pc_range[:3], self.pc_range[3:], strict=True)):
            raise ValueError(f"pc_range {list(self.pc_range)} is empty along an axis")
        if self.hidden_dim % self.num_heads:
            raise ValueError(f"hidden_dim {self.hidden_dim} is not a multiple of num_heads {self.num_heads}")
        if self.image.depth_bins == 1:
            raise ValueError("image.depth_bins needs two bins at least, or 0 for none")
        if self.style == "cmt" and (self.image.depth_bins or self.image.out_stride != 16):
            raise ValueError("style cmt has neither image.depth_bins nor another image.out_stride than 16")
        return self
