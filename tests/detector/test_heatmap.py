from collections.abc import Callable

import numpy as np
import pytest
import torch

from aqr import geometry
from aqr.batch import Batch
from aqr.detector.heatmap import bev_targets, heatmap_loss, image_targets
from aqr.detector.objects import Objects, padding

PC_RANGE = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0)


def gaussian(size: tuple[int, int], x: float, y: float, extent: tuple[float, float]) -> np.ndarray:
    out = np.zeros(size)
    sigma = [max(e / 6, 0.7) for e in extent]
    for row in range(size[0]):
        for column in range(size[1]):
            out[row, column] = np.exp(
                -((column - np.floor(x)) ** 2) / (2 * sigma[0] ** 2) - (row - np.floor(y)) ** 2 / (2 * sigma[1] ** 2)
            )
    return out


def test_bev_targets_are_gaussians_at_the_centres(toy_batch: Callable[..., Batch]) -> None:
    batch = toy_batch(samples=3, boxes=None, views=0, seed=5)
    batch.boxes[0, 0] = 60.0
    size = (18, 36)
    got = bev_targets(Objects.of(batch.boxes, batch.labels, padding(batch.box_counts)), torch.tensor(PC_RANGE), size)
    expected = np.zeros((3, 10, *size))
    n = 0
    for b, count in enumerate(batch.box_counts):
        for _ in range(count):
            x, y = ((batch.boxes[n, :2] + 54) / 108 * torch.tensor([36.0, 18.0])).tolist()
            longest = batch.boxes[n, 3:5].max().item()
            if x < 36:
                peak = gaussian(size, x, y, (longest * 36 / 108, longest * 18 / 108))
                here = expected[b, batch.labels[n]]
                np.maximum(here, peak, out=here)
            n += 1
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-5)


def test_image_targets_are_gaussians_where_a_camera_sees_the_centre(toy_batch: Callable[..., Batch]) -> None:
    batch = toy_batch(samples=2, boxes=5, seed=2)
    size, image, cell = (32, 64), (64, 128), 2
    got = image_targets(Objects.of(batch.boxes, batch.labels, padding(batch.box_counts)), batch.lidar2img, image, size)
    assert got.shape == (12, 10, 32, 64)
    expected = np.zeros((12, 10, *size))
    for n in range(10):
        b = n // 5
        center = np.append(batch.boxes[n, :3].double().numpy(), 1.0)
        for view in range(6):
            matrix = batch.lidar2img[b, view].double().numpy()
            u, v, depth, _ = (matrix @ center).tolist()
            if depth <= geometry.MIN_DEPTH or not (0 <= u / depth < 128 and 0 <= v / depth < 64):
                continue
            diameter = np.linalg.norm(batch.boxes[n, 3:6].numpy())
            # How far the pixel moves per metre, from small steps along the three axes.
            moved = [matrix @ (center + np.append(step, 0.0)) for step in 1e-3 * np.eye(3)]
            gradient = np.array([[m[axis] / m[2] - (u, v)[axis] / depth for m in moved] for axis in range(2)]) / 1e-3
            extent = diameter * np.linalg.norm(gradient, axis=1) / cell
            here = expected[6 * b + view, batch.labels[n]]
            np.maximum(here, gaussian(size, u / depth / cell, v / depth / cell, (extent[0], extent[1])), out=here)
    assert (expected == 1).sum() >= 5
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-3)


def test_loss_equals_its_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 10, 3, 4, generator=generator)
    targets = torch.rand(2, 10, 3, 4, generator=generator) * 0.9
    targets[0, 3, 1, 2] = targets[1, 0, 0, 0] = targets[1, 9, 2, 3] = 1.0
    total = 0.0
    for logit, target in zip(logits.flatten().tolist(), targets.flatten().tolist(), strict=True):
        p = 1 / (1 + np.exp(-logit))
        total -= (1 - p) ** 2 * np.log(p) if target == 1 else (1 - target) ** 4 * p**2 * np.log(1 - p)
    found, count = heatmap_loss(logits, targets)
    assert found.item() == pytest.approx(total, rel=1e-4)
    assert count == 3


def test_no_boxes_is_all_background(toy_batch: Callable[..., Batch]) -> None:
    batch = toy_batch(samples=2, boxes=0)
    objects = Objects.of(batch.boxes, batch.labels, padding([0, 0], 4))
    assert not bev_targets(objects, torch.tensor(PC_RANGE), (4, 4)).any()
    targets = image_targets(objects, batch.lidar2img, (64, 128), (4, 8))
    assert targets.shape == (12, 10, 4, 8)
    assert not targets.any()
