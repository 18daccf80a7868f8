"""Random inputs with the statistics of a nuScenes sample."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from aqr.batch import Batch, Frame
from aqr.config import Config
from aqr.geometry import MIN_DEPTH, Pose
from aqr.modulation import AQRModulation, AQROutput
from aqr.taxonomy import CLASSES

PC_RANGE = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0)
CHANNELS = 256
STRIDE = 16
"""Pixels per cell of an image map."""
GROUND = -1.84
"""Metres, where the road lies in nuScenes' LiDAR frame."""


@dataclass(frozen=True)
class Shape:
    """Sizes of one AQR call.

    Attributes:
        batch: B.
        queries: Q, those that are routed.
        bev: Hb, Wb.
        cameras: V.
        image: Hi, Wi.
        windows: sides of the BEV and image windows.
    """

    batch: int
    queries: int = 900
    bev: tuple[int, int] = (128, 128)
    cameras: int = 6
    image: tuple[int, int] = (20, 50)
    windows: tuple[int, int] = (5, 9)

    def __str__(self) -> str:
        return (
            f"B {self.batch}, {self.queries} queries, BEV {self.bev[0]} × {self.bev[1]}, "
            f"images {self.cameras} × {self.image[0]} × {self.image[1]}, windows {self.windows[0]} and "
            f"{self.windows[1]}, C {CHANNELS}"
        )


FIRST_SHAPE = Shape(batch=4)
SECOND_SHAPE = Shape(batch=2, bev=(180, 180), image=(40, 100), windows=(5, 15))


@dataclass
class ModulationInputs:
    """Arguments of one AQR call, as the detector makes it: bf16 channels-last maps, float32 positions.

    Attributes:
        queries: [B, Q, C].
        points: [B, Q, 3].
        bev: [B, C, Hb, Wb].
        images: [B, V, C, Hi, Wi].
        lidar2img: [B, V, 4, 4].
        image_size: H, W in pixels.
        bev_position: [Hb, Wb, C].
        image_position: [B, V, Hi, Wi, C].
    """

    queries: Tensor
    points: Tensor
    bev: Tensor
    images: Tensor
    lidar2img: Tensor
    image_size: tuple[int, int]
    bev_position: Tensor
    image_position: Tensor

    @property
    def differentiable(self) -> list[Tensor]:
        """What a training step asks gradients of."""
        return [self.queries, self.points, self.bev, self.images, self.bev_position, self.image_position]

    def to(self, device: torch.device | str, dtype: torch.dtype, maps: torch.dtype | None = None) -> ModulationInputs:
        """A copy without history; `maps` is the dtype of the feature maps where it is another one."""

        def moved(t: Tensor, wanted: torch.dtype = dtype) -> Tensor:
            return t.detach().to(device, wanted, copy=True)

        own = maps or dtype
        return replace(
            self,
            queries=moved(self.queries),
            points=moved(self.points),
            bev=moved(self.bev, own).contiguous(memory_format=torch.channels_last),
            images=_channels_last(moved(self.images, own)),
            lidar2img=moved(self.lidar2img),
            bev_position=moved(self.bev_position),
            image_position=moved(self.image_position),
        )

    def with_gradients(self) -> ModulationInputs:
        """The same tensors, which now ask for gradients."""
        for tensor in self.differentiable:
            tensor.requires_grad_(True)
        return self

    def call(self, module: AQRModulation) -> AQROutput:
        """Route, render, modulate."""
        output: AQROutput = module(
            self.queries,
            self.points,
            self.bev,
            self.images,
            self.lidar2img,
            self.image_size,
            self.bev_position,
            self.image_position,
        )
        return output


def modulation_inputs(shape: Shape, seed: int = 0) -> ModulationInputs:
    """Random float32 inputs in host memory; queries lie all over the range, as reference points do."""
    random = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=random)

    height, width = shape.image[0] * STRIDE, shape.image[1] * STRIDE
    points = torch.rand(shape.batch, shape.queries, 3, generator=random)
    points[..., 2] = 0.3 + 0.3 * points[..., 2]
    return ModulationInputs(
        queries=normal(shape.batch, shape.queries, CHANNELS),
        points=points,
        bev=normal(shape.batch, CHANNELS, *shape.bev).contiguous(memory_format=torch.channels_last),
        images=_channels_last(normal(shape.batch, shape.cameras, CHANNELS, *shape.image)),
        lidar2img=ring_of_cameras(shape.cameras, (height, width)).expand(shape.batch, -1, -1, -1).contiguous(),
        image_size=(height, width),
        bev_position=normal(*shape.bev, CHANNELS),
        image_position=normal(shape.batch, shape.cameras, *shape.image, CHANNELS),
    )


def modulation_module(shape: Shape, seed: int = 0) -> AQRModulation:
    """An AQR in the middle of training: gates half open, weights that differ from query to query."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = AQRModulation(CHANNELS, PC_RANGE, window_sizes=shape.windows)
    with torch.no_grad():
        for gate in (module.lidar_gate, module.camera_gate):
            assert gate is not None
            gate.fill_(0.5)
    return module


def ring_of_cameras(count: int, size: tuple[int, int]) -> Tensor:
    """[V, 4, 4] lidar2img of level cameras that look outwards, 70 degrees wide, evenly spread.

    Args:
        count: V.
        size: image height and width in pixels.
    """
    height, width = size
    focal = width / 2 / math.tan(math.radians(35))
    intrinsic = np.array([[focal, 0, width / 2, 0], [0, focal, height / 3, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    matrices = []
    for camera in range(count):
        yaw = math.pi / 2 - 2 * math.pi * camera / count
        ahead, right = [math.cos(yaw), math.sin(yaw), 0.0], [math.sin(yaw), -math.cos(yaw), 0.0]
        extrinsic = np.eye(4)
        extrinsic[:3, :3] = np.array([right, [0.0, 0.0, -1.0], ahead])
        extrinsic[:3, 3] = [0, -0.3, MIN_DEPTH]
        matrices.append(intrinsic @ extrinsic)
    return torch.tensor(np.array(matrices).reshape(count, 4, 4), dtype=torch.float32)


def random_batch(config: Config, samples: int, boxes: int = 30, points: int = 250_000, seed: int = 0) -> Batch:
    """A batch with the size and the density of nuScenes, without a meaning: boxes hold no points of their own.

    Points thin out with distance as a scanner's do, most of them on the ground; images are noise.

    Args:
        config: of the detector; says how large images are and how many cameras there are.
        samples: B.
        boxes: per sample.
        points: per sample, all sweeps together.
        seed: of everything random.
    """
    random = np.random.default_rng(seed)
    total, size, views = samples * points, config.data.image.size, len(config.sensors.cameras)
    distance, angle = 1.5 + random.exponential(14.0, total), random.uniform(-np.pi, np.pi, total)
    height = np.where(random.random(total) < 0.6, random.normal(GROUND, 0.05, total), random.uniform(-2, 2, total))
    lag = 0.05 * random.integers(0, 11, total)
    cloud = np.column_stack(
        [distance * np.cos(angle), distance * np.sin(angle), height, random.uniform(0, 255, total), lag]
    )
    count = samples * boxes
    extent = np.array([config.detector.pc_range[3], config.detector.pc_range[4]])
    truth = np.column_stack(
        [
            random.uniform(-0.95, 0.95, (count, 2)) * extent,
            random.uniform(-2, 0, count),
            random.uniform(0.5, 5, (count, 3)),
            random.uniform(-np.pi, np.pi, count),
            random.normal(0, 2, (count, 2)),
        ]
    )
    identity = tuple(tuple(row) for row in np.eye(4).tolist())
    return Batch(
        points=torch.tensor(cloud, dtype=torch.float32),
        point_counts=[points] * samples,
        images=torch.tensor(random.integers(0, 256, (samples, views, 3, *size), dtype=np.uint8)),
        lidar2img=ring_of_cameras(views, size).expand(samples, -1, -1, -1).contiguous(),
        boxes=torch.tensor(truth, dtype=torch.float32),
        labels=torch.tensor(random.integers(0, len(CLASSES), count)),
        box_counts=[boxes] * samples,
        frames=[Frame(str(n), 0, Pose.identity(), (0.0, 0.0, 0.0), identity) for n in range(samples)],
    )


def _channels_last(images: Tensor) -> Tensor:
    """[B, V, C, H, W] whose views are channels-last in memory, as the image encoder's output is."""
    return images.flatten(0, 1).contiguous(memory_format=torch.channels_last).view(images.shape)
