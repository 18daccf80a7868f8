"""Encoders against the documented arithmetic, block by block, on random weights taken through the key table."""

import importlib.util
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aqr.cmt.keys import translate
from aqr.config import CmtEncoders
from aqr.detector.cmt.image_encoder import BGR_MEAN, BGR_STD, CmtImageEncoder
from aqr.detector.cmt.lidar_encoder import CmtLidarEncoder
from aqr.detector.cmt.middle import MiddleEncoder
from aqr.detector.cmt.sparse import SparseConv, SparseTensor, sparse_conv, sparse_tensor
from aqr.detector.cmt.voxels import voxelise
from aqr.errors import InputError

from . import reference

PC_RANGE = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0)
HAS_SPCONV = importlib.util.find_spec("spconv") is not None
BACKENDS = ["torch", pytest.param("spconv", marks=pytest.mark.skipif(not HAS_SPCONV, reason="needs the extra spconv"))]


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    with torch.no_grad():
        yield


def fill(module: nn.Module, prefix: str, state: Mapping[str, Tensor]) -> None:
    """Load a state of CMT's names into one part of a detector; every tensor must find its place."""
    shapes = {f"{prefix}.{name}": value.shape for name, value in module.state_dict().items()}
    found = translate(state, shapes)
    assert not found.unknown
    assert not found.misfits
    assert not [name for name in found.missing if "shared_conv" not in name]
    module.load_state_dict({k.removeprefix(f"{prefix}."): v for k, v in found.tensors.items()}, strict=False)


def same(got: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    """Equal up to rounding, relative to the largest value."""
    assert expected.abs().max() > 1e-2
    torch.testing.assert_close(got, expected, atol=tolerance * expected.abs().max().item(), rtol=tolerance)


@pytest.mark.parametrize(
    ("backbone", "size"),
    [("resnet50", (64, 96)), ("resnet50-caffe", (64, 96)), ("vovnet99", (64, 96)), ("vovnet99", (50, 70))],
)
def test_image_encoders(backbone: str, size: tuple[int, int]) -> None:
    encoder = CmtImageEncoder(CmtEncoders(image_backbone=backbone), 256, freeze_norm=True).eval()
    layout = reference.vovnet_layout() if backbone == "vovnet99" else reference.resnet_layout()
    state = reference.random_state(layout)
    fill(encoder, "image_encoder", state)
    images = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (1, 2, 3, *size), dtype=np.uint8))
    bgr = images[0].float()[:, [2, 1, 0]]
    pixels = (bgr - torch.tensor(BGR_MEAN).view(3, 1, 1)) / torch.tensor(BGR_STD).view(3, 1, 1)
    if backbone == "vovnet99":
        levels = reference.vovnet(state, pixels)
    else:
        levels = reference.resnet(state, pixels, caffe=backbone.endswith("caffe"))
    for ours, theirs in zip(encoder.backbone(pixels), levels, strict=True):
        same(ours, theirs)
    same(encoder(images)[0], reference.neck(state, levels))


def test_caffe_and_pytorch_strides_differ() -> None:
    state = reference.random_state(reference.resnet_layout())
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    one, other = (reference.resnet(state, pixels, caffe)[1] for caffe in (True, False))
    assert (one - other).abs().max() > 0.1 * one.abs().max()


def random_voxels(shape: tuple[int, int, int], share: float, batch: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A dense grid of 5 features and the mask of its voxels."""
    rng = np.random.default_rng(seed)
    mask = torch.from_numpy(rng.random((batch, 1, *shape)) < share)
    return torch.from_numpy(rng.normal(size=(batch, 5, *shape))).float() * mask, mask


def gathered(dense: Tensor, mask: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features and coordinates of the voxels, in random order."""
    coordinates = mask[:, 0].nonzero()
    coordinates = coordinates[torch.randperm(len(coordinates), generator=torch.Generator().manual_seed(seed))]
    b, z, y, x = coordinates.unbind(1)
    return dense[b, :, z, y, x], coordinates


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [
        ((3, 3, 3), None, (0, 0, 0)),
        ((3, 3, 3), (2, 2, 2), (1, 1, 1)),
        ((3, 3, 3), (2, 2, 2), (0, 1, 1)),
        ((3, 1, 1), (2, 1, 1), (0, 0, 0)),
    ],
)
@pytest.mark.parametrize("share", [0.02, 0.4])
def test_a_sparse_convolution_is_a_dense_one_with_a_mask(
    backend: Any, kernel: Any, stride: Any, padding: Any, share: float
) -> None:
    shape = (7, 12, 9)
    dense, mask = random_voxels(shape, share)
    features, coordinates = gathered(dense, mask)
    torch.manual_seed(0)
    conv = sparse_conv(backend, 5, 4, kernel, stride, padding)
    assert conv.weight.shape == (4, *kernel, 5)
    out = conv(sparse_tensor(backend)(features, coordinates, shape, 2))
    weight = conv.weight.permute(0, 4, 1, 2, 3)
    if stride is None:
        expected = F.conv3d(dense, weight, padding=1) * mask
        reached = mask
    else:
        expected = F.conv3d(dense, weight, stride=stride, padding=padding)
        reached = F.conv3d(mask.float(), torch.ones(1, 1, *kernel), stride=stride, padding=padding) > 0
    assert len(out.features) == reached.sum()
    same(out.dense(), expected * reached)


def test_gradients_of_a_sparse_convolution() -> None:
    dense, mask = random_voxels((2, 3, 3), 0.4, batch=1)
    features, coordinates = gathered(dense, mask)
    for stride in (None, (2, 2, 2)):
        conv = SparseConv(5, 2, (3, 3, 3), stride, (1, 1, 1)).double()

        def apply(x: Tensor, weight: Tensor, conv: SparseConv = conv) -> Tensor:
            tensor = SparseTensor(x, coordinates, (2, 3, 3), 1)
            return torch.func.functional_call(conv, {"weight": weight}, (tensor,)).features

        with torch.enable_grad():
            inputs = features.double().requires_grad_(), conv.weight.detach().requires_grad_()
            assert torch.autograd.gradcheck(apply, inputs)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("version", [1, 2])
def test_the_sparse_encoder(backend: Any, version: int) -> None:
    shape = (41, 24, 16)
    state = {k: v for k, v in reference.random_state(reference.lidar_layout(2)).items() if "middle" in k}
    given = {
        name: value.permute(1, 2, 3, 4, 0) if version == 1 and value.dim() == 5 else value
        for name, value in state.items()
    }
    encoder = MiddleEncoder(5, backend).eval()
    fill(encoder, "lidar_encoder.middle", given)
    dense, mask = random_voxels(shape, 0.01)
    features, coordinates = gathered(dense, mask)
    voxels = voxels_of(features, coordinates, shape, 2)
    got = encoder(voxels)
    assert got.shape == (2, 256, 3, 2)
    same(got, reference.middle(state, dense, mask))


def voxels_of(features: Tensor, coordinates: Tensor, shape: tuple[int, int, int], batch: int) -> Any:
    from aqr.detector.cmt.voxels import Voxels

    return Voxels(features, coordinates, shape, batch)


def test_the_whole_lidar_encoder() -> None:
    """Points, voxels, sparse and dense convolutions, against loops and dense grids."""
    config = CmtEncoders(voxel_size=(4.5, 6.0, 0.2), sparse_shape=(41, 16, 32))
    encoder = CmtLidarEncoder(config, 256, PC_RANGE).eval()
    state = reference.random_state(reference.lidar_layout())
    fill(encoder, "lidar_encoder", state)
    rng = np.random.default_rng(0)
    points = np.column_stack([rng.uniform(-56, 56, (4000, 2)), rng.uniform(-5.5, 3.5, 4000), rng.random((4000, 2))])
    points[::40, :3] = np.array([10.0, 20.0, -1.0]) + rng.uniform(0, 0.05, (100, 3))
    sample = np.sort(rng.integers(0, 2, 4000))
    dense, mask = slow_voxels(points.astype(np.float32), sample, 2, config)
    levels = reference.second(state, reference.middle(state, dense, mask))
    got = encoder.middle(
        voxelise(
            torch.tensor(points).float(),
            torch.tensor(sample),
            2,
            encoder.pc_range,
            encoder.voxel_size,
            encoder.shape,
            10,
            10**6,
        )
    )
    same(got, reference.middle(state, dense, mask))
    same(encoder.levels(got), levels)
    whole = encoder(torch.tensor(points).float(), torch.tensor(sample), 2)
    shared = encoder.shared_conv
    same(whole, F.batch_norm(F.conv2d(levels, shared[0].weight, padding=1), *running(shared[1])).relu())
    assert [m.eps for m in encoder.modules() if isinstance(m, nn.BatchNorm2d)] == [1e-3] * 14 + [1e-5]
    norms = [m for m in (*encoder.middle.modules(), *encoder.neck.modules()) if hasattr(m, "momentum")]
    assert all((m.eps, m.momentum) == (1e-3, 0.01) for m in norms)


def running(norm: Any) -> tuple[Tensor, ...]:
    return norm.running_mean, norm.running_var, norm.weight, norm.bias


def slow_voxels(points: np.ndarray, sample: np.ndarray, batch: int, config: CmtEncoders) -> tuple[Tensor, Tensor]:
    """Point by point: the first ten points of a voxel are averaged."""
    depth, height, width = config.sparse_shape
    grid = [round((PC_RANGE[i + 3] - PC_RANGE[i]) / config.voxel_size[i]) for i in range(3)]
    assert grid == [24, 18, 40]
    held: dict[tuple[int, ...], list[np.ndarray]] = {}
    for point, b in zip(points, sample, strict=True):
        x, y, z = (
            int(np.floor(np.float32(np.float32(point[i] - np.float32(PC_RANGE[i])) / np.float32(config.voxel_size[i]))))
            for i in range(3)
        )
        if 0 <= x < min(width, grid[0]) and 0 <= y < min(height, grid[1]) and 0 <= z < min(depth, grid[2]):
            held.setdefault((int(b), z, y, x), []).append(point)
    dense, mask = torch.zeros(batch, 5, depth, height, width), torch.zeros(batch, 1, depth, height, width)
    for (b, z, y, x), inside in held.items():
        dense[b, :, z, y, x] = torch.from_numpy(np.mean(inside[: config.max_points], axis=0))
        mask[b, 0, z, y, x] = 1
    assert max(len(inside) for inside in held.values()) > config.max_points
    return dense, mask > 0


def test_voxels_are_kept_in_the_order_of_their_first_points() -> None:
    points = torch.tensor([[5.5, 0, 0], [1.5, 0, 0], [5.2, 0, 0], [3.5, 0, 0], [7.5, 0, 0], [1.5, 0, 0.0]])
    sample = torch.tensor([0, 0, 0, 0, 1, 1])
    low = torch.tensor([0.0, -1, -1, 8, 1, 1])
    voxels = voxelise(points, sample, 2, low, torch.tensor([1.0, 2, 2]), (1, 1, 8), max_points=1, max_voxels=2)
    assert voxels.coordinates.tolist() == [[0, 0, 0, 5], [0, 0, 0, 1], [1, 0, 0, 7], [1, 0, 0, 1]]
    assert voxels.features[:, 0].tolist() == [5.5, 1.5, 7.5, 1.5]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("count", [0, 1])
def test_empty_and_almost_empty_clouds(training: bool, count: int) -> None:
    config = CmtEncoders(voxel_size=(6.75, 6.75, 0.2), sparse_shape=(41, 16, 16))
    encoder = CmtLidarEncoder(config, 32, PC_RANGE).train(training)
    out = encoder(torch.zeros(count, 5), torch.zeros(count, dtype=torch.int64), 2)
    assert out.shape == (2, 32, 2, 2)
    assert out.isfinite().all()


def test_points_that_are_not_finite_belong_to_no_voxel() -> None:
    config = CmtEncoders(voxel_size=(6.75, 6.75, 0.2), sparse_shape=(41, 16, 16))
    encoder = CmtLidarEncoder(config, 32, PC_RANGE).eval()
    points = torch.rand(50, 5)
    spoilt = torch.cat([points, torch.full((1, 5), float("nan"))])
    sample = torch.zeros(51, dtype=torch.int64)
    assert torch.equal(encoder(spoilt, sample, 1), encoder(points, sample[:50], 1))


@pytest.mark.skipif(HAS_SPCONV, reason="spconv is installed here")
def test_spconv_that_is_not_installed_is_named_with_the_mend() -> None:
    with pytest.raises(InputError, match=r"detector\.cmt\.sparse_backend.*aqr\[spconv\]"):
        MiddleEncoder(5, "spconv")


def test_spconv_that_cannot_be_imported_is_named_with_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "spconv", None)
    monkeypatch.setitem(sys.modules, "spconv.pytorch", None)
    with pytest.raises(InputError, match=r"detector\.cmt\.sparse_backend.*aqr\[spconv\]"):
        MiddleEncoder(5, "spconv")
