"""Sparse 3D convolution: only voxels that hold something are computed (Sensors 18(10):3337, arXiv 1711.10275).

A convolution is a list of pairs (input voxel, output voxel) for each of its offsets; per offset the inputs are
gathered, multiplied by that offset's weights and added to the outputs. `SparseConv` does so with plain PyTorch. spconv
does the same with kernels of its own; both hold their weights as [outputs, kz, ky, kx, inputs].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal

import torch
from torch import Tensor, nn

from aqr.errors import InputError

Triple = tuple[int, int, int]
Backend = Literal["torch", "spconv"]


@dataclass(frozen=True)
class Rules:
    """Which input voxel counts for which output voxel.

    Attributes:
        pairs: per offset of the kernel, rows of inputs and rows of outputs, no output twice.
        coordinates: [M, 4] int64 of the outputs.
        shape: of the output grid.
    """

    pairs: list[tuple[Tensor, Tensor]]
    coordinates: Tensor
    shape: Triple


@dataclass(frozen=True)
class SparseTensor:
    """Features of N voxels of a grid.

    Attributes:
        features: [N, C].
        coordinates: [N, 4] int64: sample, z, y, x; no two alike.
        shape: voxels along z, y and x.
        batch_size: B.
        rules: of the submanifold convolutions at these voxels, by kernel.
    """

    features: Tensor
    coordinates: Tensor
    shape: Triple
    batch_size: int
    rules: dict[Triple, Rules] = field(default_factory=dict)

    def replace_feature(self, features: Tensor) -> SparseTensor:
        """Other features of the same voxels."""
        return SparseTensor(features, self.coordinates, self.shape, self.batch_size, self.rules)

    def dense(self) -> Tensor:
        """[B, C, D, H, W], zero where there is no voxel."""
        depth, height, width = self.shape
        grid = self.features.new_zeros(self.batch_size * depth * height * width, self.features.shape[1])
        grid = grid.index_copy(0, keys_of(self.coordinates, self.shape), self.features)
        return grid.view(self.batch_size, depth, height, width, -1).permute(0, 4, 1, 2, 3)


def keys_of(coordinates: Tensor, shape: Triple) -> Tensor:
    """One number per voxel: [N, 4] to [N]."""
    sample, z, y, x = coordinates.unbind(1)
    return ((sample * shape[0] + z) * shape[1] + y) * shape[2] + x


def submanifold_rules(coordinates: Tensor, shape: Triple, kernel: Triple) -> Rules:
    """Rules of a convolution whose outputs are the inputs' voxels; odd kernel, centred."""
    keys, order = keys_of(coordinates, shape).sort()
    pairs = []
    for offset in product(*(range(size) for size in kernel)):
        shift = [position - size // 2 for position, size in zip(offset, kernel, strict=True)]
        neighbour = coordinates + coordinates.new_tensor([0, *shift])
        inside = _inside(neighbour, shape)
        wanted = keys_of(neighbour, shape)
        place = torch.searchsorted(keys, wanted).clamp(max=max(len(keys) - 1, 0))
        outputs = (inside & (keys[place] == wanted)).nonzero()[:, 0]
        pairs.append((order[place[outputs]], outputs))
    return Rules(pairs, coordinates, shape)


def strided_rules(coordinates: Tensor, shape: Triple, kernel: Triple, stride: Triple, padding: Triple) -> Rules:
    """Rules of a convolution whose outputs are all voxels that see an input."""
    reached = output_shape(shape, kernel, stride, padding)
    step, pad = coordinates.new_tensor(stride), coordinates.new_tensor(padding)
    inputs, wanted = [], []
    for offset in product(*(range(size) for size in kernel)):
        start = coordinates[:, 1:] + pad - coordinates.new_tensor(offset)
        place = torch.div(start, step, rounding_mode="floor")
        output = torch.cat([coordinates[:, :1], place], 1)
        rows = (((start % step) == 0).all(1) & _inside(output, reached)).nonzero()[:, 0]
        inputs.append(rows)
        wanted.append(keys_of(output[rows], reached))
    keys, outputs = torch.cat(wanted).unique(return_inverse=True)  # type: ignore[no-untyped-call]
    pairs = list(zip(inputs, outputs.split([len(rows) for rows in inputs]), strict=True))
    rest, x = keys // reached[2], keys % reached[2]
    rest, y = rest // reached[1], rest % reached[1]
    found = torch.stack([rest // reached[0], rest % reached[0], y, x], 1)
    return Rules(pairs, found, reached)


def output_shape(shape: Triple, kernel: Triple, stride: Triple, padding: Triple) -> Triple:
    """Voxels along z, y and x after a strided convolution."""
    depth, height, width = (
        (size + 2 * pad - taps) // step + 1
        for size, taps, step, pad in zip(shape, kernel, stride, padding, strict=True)
    )
    return depth, height, width


def _inside(coordinates: Tensor, shape: Triple) -> Tensor:
    limit = coordinates.new_tensor(shape)
    return ((coordinates[:, 1:] >= 0) & (coordinates[:, 1:] < limit)).all(1)


class SparseConv(nn.Module):
    """Sparse 3D convolution without bias.

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
        kernel: taps along z, y and x.
        stride: along z, y and x; None for a submanifold convolution, whose outputs are its inputs' voxels.
        padding: along z, y and x, of a strided convolution.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: Triple, stride: Triple | None = None, padding: Triple = (0, 0, 0)
    ) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding
        bound = 1 / math.sqrt(inputs * math.prod(kernel))
        self.weight = nn.Parameter(torch.empty(outputs, *kernel, inputs).uniform_(-bound, bound))

    def rules(self, x: SparseTensor) -> Rules:
        """Made once per set of voxels for submanifold convolutions."""
        if self.stride is not None:
            return strided_rules(x.coordinates, x.shape, self.kernel, self.stride, self.padding)
        if self.kernel not in x.rules:
            x.rules[self.kernel] = submanifold_rules(x.coordinates, x.shape, self.kernel)
        return x.rules[self.kernel]

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Convolve; features are [N, inputs], then [M, outputs]."""
        rules = self.rules(x)
        taps = self.weight.flatten(1, 3).permute(1, 2, 0)
        out = x.features.new_zeros(len(rules.coordinates), self.weight.shape[0])
        for tap, (inputs, outputs) in zip(taps, rules.pairs, strict=True):
            out = out.index_add(0, outputs, x.features[inputs] @ tap)
        if self.stride is None:
            return x.replace_feature(out)
        return SparseTensor(out, rules.coordinates, rules.shape, x.batch_size)


def sparse_conv(
    backend: Backend,
    inputs: int,
    outputs: int,
    kernel: Triple = (3, 3, 3),
    stride: Triple | None = None,
    padding: Triple = (0, 0, 0),
) -> nn.Module:
    """A sparse convolution of either backend; both have one parameter, `weight` [outputs, kz, ky, kx, inputs].

    Args:
        backend: `torch` or `spconv`.
        inputs: see `SparseConv`.
        outputs: see `SparseConv`.
        kernel: see `SparseConv`.
        stride: see `SparseConv`.
        padding: see `SparseConv`.

    Raises:
        InputError: where spconv is asked for and not installed.
    """
    if backend == "torch":
        return SparseConv(inputs, outputs, kernel, stride, padding)
    spconv = load_spconv()
    module: nn.Module
    if stride is None:
        module = spconv.SubMConv3d(inputs, outputs, kernel, padding=tuple(size // 2 for size in kernel), bias=False)
    else:
        module = spconv.SparseConv3d(inputs, outputs, kernel, stride, padding, bias=False)
    return module


def sparse_tensor(backend: Backend) -> Callable[[Tensor, Tensor, Triple, int], Any]:
    """What a backend's convolutions read, made of features, coordinates, shape and batch size."""
    if backend == "torch":
        return SparseTensor
    spconv = load_spconv()
    return lambda features, coordinates, shape, batch_size: spconv.SparseConvTensor(
        features, coordinates.int(), list(shape), batch_size
    )


def load_spconv() -> Any:
    """spconv's PyTorch modules, imported only where they are needed.

    Raises:
        InputError: where spconv is not installed or does not run beside this PyTorch.
    """
    try:
        import spconv.pytorch
    except (ImportError, OSError, RuntimeError) as error:
        raise InputError(
            f"detector.cmt.sparse_backend: spconv cannot be imported ({error}); install aqr[spconv] (or the "
            "spconv-cuXXX wheel of your CUDA), or set it to torch"
        ) from None
    return spconv.pytorch
