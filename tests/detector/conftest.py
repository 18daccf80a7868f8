"""A small detector and a toy world: boxes full of points, painted into the images as coloured rectangles."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from aqr.batch import Batch, Frame
from aqr.config import Config, parse
from aqr.geometry import Pose, box_corners, in_image, project
from aqr.taxonomy import CAMERAS, CLASSES

SIZES = np.array(
    [
        [4.6, 1.9, 1.7],
        [6.9, 2.5, 2.8],
        [6.4, 2.8, 3.2],
        [11.0, 2.9, 3.5],
        [12.0, 2.9, 3.9],
        [0.5, 2.5, 1.0],
        [2.1, 0.8, 1.5],
        [1.7, 0.6, 1.3],
        [0.7, 0.7, 1.8],
        [0.4, 0.4, 1.1],
    ]
)
GROUND = -1.84
IMAGE_SIZE = (64, 128)


def make_config(**sections: dict[str, Any]) -> Config:
    """A detector that trains on a CPU in seconds; sections are merged into it, one level deep below `detector`."""
    values: dict[str, Any] = {
        "sensors": {"cameras": list(CAMERAS)},
        "aqr": {"enabled": False},
        "detector": {
            "hidden_dim": 32,
            "num_query": 40,
            "num_layers": 2,
            "num_heads": 4,
            "feedforward_dim": 64,
            "dropout": 0.0,
            "reference_init": "grid",
            "max_detections": 60,
            "lidar": {
                "pillars": [64, 64],
                "pillar_channels": 16,
                "channels": [16, 32],
                "blocks": [1, 1],
                "strides": [2, 2],
                "out_stride": 2,
            },
            "image": {
                "options": {
                    "embedding_size": 8,
                    "hidden_sizes": [16, 16, 24, 32],
                    "depths": [1, 1, 1, 1],
                    "layer_type": "basic",
                }
            },
            "denoising": {"groups": 3},
        },
        "data": {"image": {"size": list(IMAGE_SIZE)}},
    }
    for name, section in sections.items():
        for key, value in section.items():
            old = values.setdefault(name, {}).get(key)
            values[name][key] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
    return parse(values)


def ring_of_cameras(count: int, size: tuple[int, int] = IMAGE_SIZE) -> np.ndarray:
    """[V, 4, 4] lidar2img of cameras 0.3 m from the LiDAR, level, looking outwards, 70° wide."""
    height, width = size
    focal = width / 2 / np.tan(np.radians(35))
    intrinsic = np.array([[focal, 0, width / 2, 0], [0, focal, 0.45 * height, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    matrices = []
    for view in range(count):
        yaw = np.pi / 2 - 2 * np.pi * view / count
        forward, right = np.array([np.cos(yaw), np.sin(yaw), 0]), np.array([np.sin(yaw), -np.cos(yaw), 0])
        extrinsic = np.eye(4)
        extrinsic[:3, :3] = np.stack([right, [0, 0, -1], forward])
        extrinsic[:3, 3] = -extrinsic[:3, :3] @ (0.3 * forward + [0, 0, -0.2])
        matrices.append(intrinsic @ extrinsic)
    return np.array(matrices).reshape(count, 4, 4)


def make_batch(
    samples: int = 2,
    views: int = 6,
    boxes: int | None = 6,
    seed: int = 0,
    reach: float = 45.0,
    points_per_box: int = 60,
    clutter: int = 500,
    size: tuple[int, int] = IMAGE_SIZE,
) -> Batch:
    """Random boxes that stand on the ground; boxes = None draws their number."""
    rng = np.random.default_rng(seed)
    points, images, all_boxes, labels, counts, point_counts = [], [], [], [], [], []
    lidar2img = ring_of_cameras(views, size)
    colours = np.random.default_rng(1).integers(0, 256, (len(CLASSES), 3))
    for _ in range(samples):
        count = int(rng.integers(0, 9)) if boxes is None else boxes
        label = rng.integers(0, len(CLASSES), count)
        dims = SIZES[label] * rng.uniform(0.9, 1.1, (count, 3))
        cell = rng.permutation(36)[:count]
        xy = (np.stack([cell % 6, cell // 6], 1) + rng.uniform(0.2, 0.8, (count, 2))) / 6 * 2 * reach - reach
        yaw = rng.uniform(-np.pi, np.pi, count)
        speed = np.where(rng.random(count) < 0.5, 0, rng.uniform(0, 8, count))
        box = np.column_stack([xy, GROUND + dims[:, 2] / 2, dims, yaw, speed * np.cos(yaw), speed * np.sin(yaw)])
        all_boxes.append(box)
        labels.append(label)
        counts.append(count)

        local = rng.uniform(-0.5, 0.5, (count, points_per_box, 3)) * dims[:, None]
        cos, sin = np.cos(yaw)[:, None], np.sin(yaw)[:, None]
        inside = np.stack(
            [cos * local[..., 0] - sin * local[..., 1], sin * local[..., 0] + cos * local[..., 1], local[..., 2]], -1
        )
        ground = np.column_stack([rng.uniform(-54, 54, (clutter, 2)), rng.normal(GROUND, 0.03, clutter)])
        xyz = np.concatenate([(inside + box[:, None, :3]).reshape(-1, 3), ground])
        points.append(np.column_stack([xyz, rng.uniform(0, 255, len(xyz)), np.zeros(len(xyz))]))
        point_counts.append(len(xyz))

        picture = rng.integers(90, 130, (views, 3, *size), dtype=np.uint8)
        order = np.argsort(-np.hypot(*xy.T)) if count else []
        for n in order:
            corners, depth = project(box_corners(box[n : n + 1]), lidar2img)
            for view in range(views):
                if (depth[view] < 0.5).any() or not in_image(corners[view], depth[view], size).any():
                    continue
                low = corners[view].min(0).clip(0).astype(int)
                high = np.ceil(corners[view].max(0).clip(0)).astype(int)
                picture[view, :, low[1] : high[1], low[0] : high[0]] = colours[label[n]][:, None, None]
        images.append(picture)
    identity = tuple(tuple(float(i == j) for j in range(4)) for i in range(4))
    frames = [Frame(str(i), 0, Pose.identity(), (0.0, 0.0, 0.0), identity) for i in range(samples)]
    return Batch(
        points=torch.tensor(np.concatenate(points), dtype=torch.float32),
        point_counts=point_counts,
        images=torch.tensor(np.array(images)).view(samples, views, 3, *size),
        lidar2img=torch.tensor(lidar2img, dtype=torch.float32).expand(samples, views, 4, 4).contiguous(),
        boxes=torch.tensor(np.concatenate(all_boxes), dtype=torch.float32).view(-1, 9),
        labels=torch.tensor(np.concatenate(labels), dtype=torch.int64),
        box_counts=counts,
        frames=frames,
    )


@pytest.fixture(scope="session")
def small_config() -> Callable[..., Config]:
    return make_config


@pytest.fixture(scope="session")
def toy_batch() -> Callable[..., Batch]:
    return make_batch
