"""What a detector reads: one batch of samples on one device."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from aqr.geometry import Pose


@dataclass(frozen=True)
class Frame:
    """Where and when a sample was taken, and how augmentation moved it.

    Attributes:
        sample_token: nuScenes sample token.
        timestamp: keyframe time, microseconds.
        lidar_to_global: pose of the *unaugmented* LiDAR frame in the map.
        ego_translation: position of the ego vehicle in the map, metres, [3].
        augmentation: 4 x 4 matrix from the unaugmented to the augmented LiDAR frame, row-major tuples;
            identity at inference.
    """

    sample_token: str
    timestamp: int
    lidar_to_global: Pose
    ego_translation: tuple[float, float, float]
    augmentation: tuple[tuple[float, ...], ...]


@dataclass
class Batch:
    """B samples; P points and N boxes of all samples lie behind one another.

    Counts are Python integers so that nothing downstream has to ask the GPU for a shape.

    Attributes:
        points: [P, 5] float32, augmented LiDAR frame: x, y, z (m), intensity (0 … 255), time lag (s, >= 0:
            how long before the keyframe). P = 0 where LiDAR is off.
        point_counts: B integers that sum to P.
        images: [B, V, 3, H, W] uint8 RGB, resized, cropped and flipped; V = 0 where there is no camera.
        lidar2img: [B, V, 4, 4] float32: augmented LiDAR frame (m) to pixels of `images`, in homogeneous
            coordinates (u·d, v·d, d, 1).
        boxes: [N, 9] float32 [x, y, z, l, w, h, yaw, vx, vy] in the augmented LiDAR frame; NaN velocity where
            unknown.
        labels: [N] int64, index into `aqr.taxonomy.CLASSES`.
        box_counts: B integers that sum to N.
        frames: B frames.
    """

    points: Tensor
    point_counts: list[int]
    images: Tensor
    lidar2img: Tensor
    boxes: Tensor
    labels: Tensor
    box_counts: list[int]
    frames: list[Frame]

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def device(self) -> torch.device:
        return self.points.device

    @property
    def point_sample(self) -> Tensor:
        """[P] int64: the sample each point belongs to."""
        counts = torch.tensor(self.point_counts).to(self.device, non_blocking=True)
        index = torch.arange(len(self), device=self.device)
        return torch.repeat_interleave(index, counts, output_size=self.points.shape[0])

    def _map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return dataclasses.replace(
            self,
            points=change(self.points),
            images=change(self.images),
            lidar2img=change(self.lidar2img),
            boxes=change(self.boxes),
            labels=change(self.labels),
        )

    def to(self, device: torch.device | str, non_blocking: bool = True) -> Batch:
        """The same batch on another device. Copies from pinned memory to a GPU do not block; those back do."""
        lazy = non_blocking and torch.device(device).type != "cpu"
        return self._map(lambda t: t.to(device, non_blocking=lazy))

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory (called by DataLoader's pin_memory)."""
        return self._map(lambda t: t.contiguous().pin_memory())
