"""The sparse 3D encoder of SECOND as CMT uses it: residual blocks, four times halved, height folded into channels."""

from __future__ import annotations

from typing import Any, Final

from torch import Tensor, nn
from torch.nn import functional as F

from aqr.detector.cmt.sparse import Backend, Triple, output_shape, sparse_conv, sparse_tensor
from aqr.detector.cmt.voxels import Voxels

NORM_EPS: Final = 1e-3
NORM_MOMENTUM: Final = 0.01

STEM_WIDTH: Final = 16
STAGES: Final[tuple[tuple[int, int, Triple | None], ...]] = (
    (16, 32, (1, 1, 1)),
    (32, 64, (1, 1, 1)),
    (64, 128, (0, 1, 1)),
    (128, 128, None),
)
"""Per stage the width of its two residual blocks, and the width and padding of the strided convolution after them."""
OUT_WIDTH: Final = 128
OUT_KERNEL: Final[Triple] = (3, 1, 1)
OUT_STRIDE: Final[Triple] = (2, 1, 1)
HALVING: Final[Triple] = (2, 2, 2)
TAPS: Final[Triple] = (3, 3, 3)


class VoxelNorm(nn.BatchNorm1d):
    """Batch norm over voxels; fewer than two have no statistics of their own and take the running ones."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, NORM_EPS, NORM_MOMENTUM)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C] to [N, C]."""
        if len(x) > 1:
            return super().forward(x)
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)


class SparseConvNorm(nn.Module):
    """Sparse convolution, batch norm, ReLU."""

    def __init__(
        self,
        backend: Backend,
        inputs: int,
        outputs: int,
        kernel: Triple = TAPS,
        stride: Triple | None = None,
        padding: Triple = (0, 0, 0),
    ) -> None:
        super().__init__()
        self.conv = sparse_conv(backend, inputs, outputs, kernel, stride, padding)
        self.norm = VoxelNorm(outputs)

    def forward(self, x: Any) -> Any:
        """A sparse tensor to a sparse tensor."""
        x = self.conv(x)
        return x.replace_feature(self.norm(x.features).relu())


class SparseBlock(nn.Module):
    """Two submanifold convolutions with batch norms, added to the input."""

    def __init__(self, backend: Backend, width: int) -> None:
        super().__init__()
        self.conv1 = sparse_conv(backend, width, width)
        self.norm1 = VoxelNorm(width)
        self.conv2 = sparse_conv(backend, width, width)
        self.norm2 = VoxelNorm(width)

    def forward(self, x: Any) -> Any:
        """A sparse tensor to one of the same voxels."""
        inner = self.conv1(x)
        inner = self.conv2(inner.replace_feature(self.norm1(inner.features).relu()))
        return x.replace_feature((self.norm2(inner.features) + x.features).relu())


class MiddleEncoder(nn.Module):
    """Voxels to a dense BEV map of an eighth of their resolution.

    Args:
        inputs: features of a voxel.
        backend: what computes the sparse convolutions.
    """

    def __init__(self, inputs: int, backend: Backend) -> None:
        super().__init__()
        self.backend = backend
        self.conv_input = SparseConvNorm(backend, inputs, STEM_WIDTH)
        self.stages = nn.ModuleDict()
        for number, (width, following, padding) in enumerate(STAGES, 1):
            layers: list[nn.Module] = [SparseBlock(backend, width), SparseBlock(backend, width)]
            if padding is not None:
                layers.append(SparseConvNorm(backend, width, following, TAPS, HALVING, padding))
            self.stages[str(number)] = nn.Sequential(*layers)
        self.conv_out = SparseConvNorm(backend, STAGES[-1][1], OUT_WIDTH, OUT_KERNEL, OUT_STRIDE)

    def forward(self, voxels: Voxels) -> Tensor:
        """Encode a batch.

        Args:
            voxels: of D x H x W voxels per sample.

        Returns:
            [B, C · D', H / 8, W / 8], channel-major: all heights of the first channel, then of the second.
        """
        make = sparse_tensor(self.backend)
        x = self.conv_input(make(voxels.features, voxels.coordinates, voxels.shape, voxels.batch_size))
        for stage in self.stages.values():
            x = stage(x)
        dense: Tensor = self.conv_out(x).dense()
        return dense.flatten(1, 2)


def map_shape(shape: Triple) -> Triple:
    """Heights, rows and columns of the encoded map of a grid of voxels along z, y and x."""
    for _, _, padding in STAGES:
        if padding is not None:
            shape = output_shape(shape, TAPS, HALVING, padding)
    return output_shape(shape, OUT_KERNEL, OUT_STRIDE, (0, 0, 0))
