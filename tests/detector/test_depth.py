"""Depths of image cells and the places that follow from them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from aqr import geometry
from aqr.batch import Batch
from aqr.config import Config
from aqr.detector import Detector
from aqr.detector.depth import NEAR_CORNER, ImageDepth, object_depths
from aqr.detector.objects import Objects, padding
from aqr.detector.position import BevEmbedding, inverse
from aqr.errors import InputError

PC_RANGE = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0)
IMAGE = (64, 128)


@pytest.fixture
def depth() -> ImageDepth:
    torch.manual_seed(0)
    return ImageDepth(16, 20, PC_RANGE)


def test_bins_widen_from_one_metre_to_the_corner_of_the_range(depth: ImageDepth) -> None:
    steps = depth.depths.diff()
    assert depth.depths[0] == 1.0
    torch.testing.assert_close(depth.depths[-1], torch.tensor(54 * 2**0.5))
    torch.testing.assert_close(steps.diff(), steps.diff().mean().expand(18), rtol=1e-3, atol=1e-4)


def test_places_are_the_embedding_of_the_point_where_the_depth_is_certain(
    depth: ImageDepth, toy_batch: Callable[..., Batch]
) -> None:
    batch = toy_batch(samples=2)
    bev = BevEmbedding(16, 2)
    size = (4, 8)
    bins = torch.randint(20, (2, 6, *size), generator=torch.Generator().manual_seed(1))
    logits = torch.full((2, 6, 20, *size), -1e4).scatter(2, bins[:, :, None], 0.0)
    got = depth.places(logits, IMAGE, inverse(batch.lidar2img), bev)
    assert got.shape == (2, 6, *size, 16)
    for sample, view, row, column in ((0, 0, 0, 0), (0, 3, 2, 5), (1, 5, 3, 7)):
        metres = depth.depths[bins[sample, view, row, column]].item()
        matrix = batch.lidar2img[sample, view].double().numpy()
        u, v = (column + 0.5) * 16, (row + 0.5) * 16
        point = np.linalg.solve(matrix, [u * metres, v * metres, metres, 1.0])[:3]
        unit = (point[:2] + 54) / 108
        wanted = bev(torch.tensor(unit, dtype=torch.float32))
        torch.testing.assert_close(got[sample, view, row, column], wanted, rtol=1e-3, atol=2e-3)


def test_doubt_leaves_only_the_long_waves(depth: ImageDepth, toy_batch: Callable[..., Batch]) -> None:
    batch = toy_batch(samples=1)
    bev = BevEmbedding(16, 1)
    torch.nn.init.zeros_(bev.mlp[2].weight)
    torch.nn.init.zeros_(bev.mlp[2].bias)
    places = depth.places(torch.zeros(1, 6, 20, 4, 8), IMAGE, inverse(batch.lidar2img), bev).detach()
    power = places.view(-1, 4, 2, 2).square().sum((-1, -2)).mean(0) / 4
    assert power[0] > 0.5
    assert power[-1] < 0.2


def test_depth_learns_from_where_queries_look(depth: ImageDepth, toy_batch: Callable[..., Batch]) -> None:
    batch = toy_batch(samples=1)
    logits = torch.randn(1, 6, 20, 4, 8, requires_grad=True)
    depth.places(logits, IMAGE, inverse(batch.lidar2img), BevEmbedding(16, 2)).square().sum().backward()
    assert logits.grad is not None
    assert logits.grad.abs().amax(2).gt(0).all()


def test_object_depths_are_those_of_the_nearest_object_in_each_cell(toy_batch: Callable[..., Batch]) -> None:
    batch = toy_batch(samples=3, boxes=None, seed=4)
    size = (16, 32)
    objects = Objects.of(batch.boxes, batch.labels, padding(batch.box_counts))
    got = object_depths(objects, batch.lidar2img, IMAGE, size).numpy()
    expected = np.full((18, *size), np.inf)
    samples = np.repeat(np.arange(3), batch.box_counts)
    corners = geometry.box_corners(batch.boxes.double().numpy())
    for n, sample in enumerate(samples):
        for view in range(6):
            matrix = batch.lidar2img[sample, view].double().numpy()
            (u, v, d, _) = matrix @ [*batch.boxes[n, :3].double().tolist(), 1.0]
            bounds = np.array([matrix[:3] @ [*corner, 1.0] for corner in corners[n]])
            if d <= 0.1 or not (0 <= u / d < 128 and 0 <= v / d < 64) or bounds[:, 2].min() <= NEAR_CORNER:
                continue
            x, y = bounds[:, 0] / bounds[:, 2] / 4, bounds[:, 1] / bounds[:, 2] / 4
            for row in range(size[0]):
                for column in range(size[1]):
                    across = x.min() <= column + 0.5 <= x.max() or int(u / d / 4) == column
                    down = y.min() <= row + 0.5 <= y.max() or int(v / d / 4) == row
                    if across and down:
                        here = expected[6 * sample + view]
                        here[row, column] = min(here[row, column], d)
    assert np.isfinite(expected).sum() > 50
    np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_no_object_gives_no_depth(toy_batch: Callable[..., Batch]) -> None:
    batch = toy_batch(samples=2, boxes=0)
    objects = Objects.of(batch.boxes, batch.labels, padding(batch.box_counts))
    none = object_depths(objects, batch.lidar2img, IMAGE, (4, 8))
    assert none.shape == (12, 4, 8)
    assert none.isinf().all()


def test_loss_is_least_where_the_two_bins_around_the_depth_share(depth: ImageDepth) -> None:
    metres = 0.25 * depth.depths[7] + 0.75 * depth.depths[8]
    targets = torch.full((1, 2, 2), torch.inf)
    targets[0, 1, 0] = metres
    logits = torch.randn(1, 1, 20, 2, 2)
    chances = logits[0, 0, :, 1, 0].log_softmax(0)
    got, count = depth.loss(logits, targets)
    torch.testing.assert_close(got, -(0.25 * chances[7] + 0.75 * chances[8]))
    assert count == 1
    best = torch.full((1, 1, 20, 2, 2), -30.0)
    best[:, :, 7], best[:, :, 8] = np.log(0.25), np.log(0.75)
    entropy = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
    assert depth.loss(best, targets)[0].item() == pytest.approx(entropy, abs=1e-4)


@pytest.mark.parametrize("metres", [0.2, 1.0, 54 * 2**0.5, 400.0])
def test_depths_outside_the_bins_count_as_the_outermost(depth: ImageDepth, metres: float) -> None:
    logits = torch.randn(1, 1, 20, 1, 1)
    wanted = logits[0, 0, :, 0, 0].log_softmax(0)[0 if metres <= 1 else -1]
    got, _ = depth.loss(logits, torch.full((1, 1, 1), metres))
    torch.testing.assert_close(got, -wanted)


@pytest.mark.parametrize("stride", [8, 16])
def test_detector_learns_depths(
    small_config: Callable[..., Config], toy_batch: Callable[..., Batch], stride: int
) -> None:
    image = {"depth_bins": 12, "out_stride": stride}
    torch.manual_seed(0)
    detector = Detector(small_config(sensors={"lidar": False}, detector={"image": image}))
    batch = toy_batch(samples=2)
    optimizer = torch.optim.AdamW(detector.parameters(), 2e-3)
    found = []
    for _ in range(30):
        output = detector(batch, generator=torch.Generator().manual_seed(0))
        losses = detector.losses(output, batch)
        found.append(losses["loss_depth"].item())
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert output.depth is not None
    assert output.depth.shape == (2, 6, 12, 64 // stride, 128 // stride)
    assert found[-1] < 0.7 * found[0]


def test_detector_without_cameras_has_no_depths(
    small_config: Callable[..., Config], toy_batch: Callable[..., Batch]
) -> None:
    detector = Detector(small_config(sensors={"cameras": []}, detector={"image": {"depth_bins": 12}}))
    assert detector.depth is None
    seeing = Detector(small_config(detector={"image": {"depth_bins": 12}}))
    assert seeing.eval()(toy_batch(samples=1, views=0)).depth is None


@pytest.mark.parametrize(
    "detector", [{"image": {"depth_bins": 1}}, {"style": "cmt", "image": {"depth_bins": 8}}], ids=["one bin", "cmt"]
)
def test_settings_that_cannot_be_are_refused(small_config: Callable[..., Config], detector: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="depth_bins"):
        small_config(detector=detector)
