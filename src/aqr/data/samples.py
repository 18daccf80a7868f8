"""One keyframe as arrays, and several of them as a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from aqr.batch import Batch, Frame
from aqr.data.augment import Matrix, move_boxes, move_points, move_projections
from aqr.data.images import ImageTransform, PictureChange
from aqr.data.index import GroundTruth, Index
from aqr.geometry import BOX_DIM, CENTER, SIZE, VELOCITY, YAW, Pose


@dataclass(frozen=True)
class Sample:
    """One sample; the fields are those of `aqr.batch.Batch`.

    Attributes:
        points: [P, 5] float32.
        images: [V, 3, H, W] uint8.
        lidar2img: [V, 4, 4] float64.
        boxes: [N, 9] float32.
        labels: [N] int64.
        frame: where and when.
    """

    points: npt.NDArray[np.float32]
    images: npt.NDArray[np.uint8]
    lidar2img: npt.NDArray[np.float64]
    boxes: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    frame: Frame

    def moved(self, matrix: Matrix) -> Sample:
        """The sample in the frame that a [4, 4] BEV augmentation leads to; its inverse brings it back."""
        augmentation = matrix @ np.array(self.frame.augmentation)
        return replace(
            self,
            points=move_points(self.points, matrix),
            lidar2img=move_projections(self.lidar2img, matrix),
            boxes=move_boxes(self.boxes, matrix),
            frame=replace(self.frame, augmentation=tuple(tuple(row) for row in augmentation.tolist())),
        )


def frame_of(index: Index, sample: int) -> Frame:
    """Where and when a sample was taken, unaugmented."""
    scan = int(index.samples.scan[sample])
    x, y, z = index.scans.ego_translation[scan].tolist()
    return Frame(
        sample_token=index.token(sample),
        timestamp=int(index.samples.timestamp[sample]),
        lidar_to_global=index.scan_to_global(scan),
        ego_translation=(x, y, z),
        augmentation=tuple(tuple(row) for row in np.eye(4).tolist()),
    )


def lidar_boxes(truth: GroundTruth, lidar_to_global: Pose) -> npt.NDArray[np.float32]:
    """Boxes of one sample in its LiDAR frame.

    Centres and headings go through the full rotations of vehicle and sensor; what tilt is left is dropped, boxes
    stand upright in the LiDAR frame. The velocity is horizontal in the map.

    Returns:
        [N, 9] float32.
    """
    to_lidar = lidar_to_global.inverse()
    w, x, y, z = np.moveaxis(truth.rotation, -1, 0)
    heading = np.stack([w * w + x * x - y * y - z * z, 2 * (x * y + w * z), 2 * (x * z - w * y)], -1)
    heading = heading @ to_lidar.rotation.T
    boxes = np.empty((len(truth.label), BOX_DIM))
    boxes[:, CENTER] = to_lidar.apply(truth.translation)
    boxes[:, SIZE] = truth.size
    boxes[:, YAW] = np.arctan2(heading[:, 1], heading[:, 0])
    boxes[:, VELOCITY] = truth.velocity @ to_lidar.rotation[:2, :2].T
    return boxes.astype(np.float32)


def projection(index: Index, image: int, lidar_to_global: Pose) -> npt.NDArray[np.float64]:
    """[4, 4] from a LiDAR frame to homogeneous pixels (u·d, v·d, d, 1) of an image on disk."""
    intrinsic = np.eye(4)
    intrinsic[:3, :3] = index.calibrations.intrinsic[index.images.calibration[image]]
    return np.asarray(intrinsic @ (index.image_to_global(image).inverse() @ lidar_to_global).matrix)


def load_images(
    images: Sequence[int],
    transforms: Sequence[ImageTransform],
    size: tuple[int, int],
    read: Callable[[int, ImageTransform, PictureChange | None], npt.NDArray[np.uint8]],
    change: Callable[[int, npt.NDArray[np.uint8]], npt.NDArray[np.uint8]] | None = None,
) -> npt.NDArray[np.uint8]:
    """[V, 3, H, W] images of V rows, transformed.

    `read` gives the image of a row as `aqr.data.images.read_image` does. `change` makes of an image's place among the V
    and its picture [h, w, 3] what is transformed instead.

    Raises:
        InputError: if a file is missing, broken or of another size than the tables say.
    """
    stack = np.empty((len(images), 3, *size), dtype=np.uint8)
    for place, (image, transform) in enumerate(zip(images, transforms, strict=True)):
        own = None if change is None else partial(change, place)
        stack[place] = read(image, transform, own)
    return stack


def collate(samples: Sequence[Sample]) -> Batch:
    """Put samples behind one another."""
    return Batch(
        points=torch.from_numpy(np.concatenate([sample.points for sample in samples])),
        point_counts=[len(sample.points) for sample in samples],
        images=torch.from_numpy(np.stack([sample.images for sample in samples])),
        lidar2img=torch.from_numpy(np.stack([sample.lidar2img for sample in samples]).astype(np.float32)),
        boxes=torch.from_numpy(np.concatenate([sample.boxes for sample in samples])),
        labels=torch.from_numpy(np.concatenate([sample.labels for sample in samples])),
        box_counts=[len(sample.boxes) for sample in samples],
        frames=[sample.frame for sample in samples],
    )
