"""The samples of a split as a PyTorch dataset."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from aqr.config import Data, Sensors
from aqr.data.augment import draw_bev, draw_image, randomness
from aqr.data.images import place
from aqr.data.index import Index, open_index
from aqr.data.points import FIELDS, load_points
from aqr.data.samples import Sample, frame_of, lidar_boxes, load_images, projection
from aqr.data.sampling import Draw
from aqr.errors import InputError
from aqr.geometry import CENTER
from aqr.taxonomy import CLASSES

PcRange = tuple[float, float, float, float, float, float]


class NuScenesDataset(Dataset[Sample]):
    """Samples of a split, augmented and filtered for training, or as they are.

    In training, boxes without a LiDAR or radar point and boxes whose centre lies outside pc_range (after
    augmentation) are left out. Otherwise all boxes of the ten classes are given.

    Attributes:
        index: of the data set.
        rows: [S] rows of the samples in the index.
        epoch: which epoch's augmentation `dataset[i]` draws; see `set_epoch`.
    """

    def __init__(
        self,
        data: Data,
        sensors: Sensors,
        split: str,
        *,
        training: bool,
        pc_range: PcRange,
        seed: int = 0,
        index: Index | None = None,
    ) -> None:
        """Open a split.

        Args:
            data: where the data set is, how many sweeps are added, how samples are augmented.
            sensors: LiDAR on or off, cameras in the order in which they are stacked.
            split: official split name.
            training: augment and filter.
            pc_range: x_min, y_min, z_min, x_max, y_max, z_max of the detector, metres.
            seed: of augmentation.
            index: of the data set where it is open already.

        Raises:
            InputError: where tables are missing or broken, the split is unknown or empty, or a sample lacks a camera.
        """
        self.data, self.sensors, self.training, self.seed = data, sensors, training, seed
        self.pc_range = np.array(pc_range)
        self.index = index if index is not None else open_index(data.root, data.version)
        self.rows = self.index.split(split)
        self.image_rows = self.index.image_rows(self.rows, sensors.cameras)
        self.epoch = 0
        sizeless = np.argwhere(self.index.images.size[self.image_rows].min(axis=-1) < 1)
        if len(sizeless):
            image = self.image_rows[tuple(sizeless[0])]
            raise InputError(
                f"{self.index.root / self.index.version}/sample_data.json: the record of "
                f"{self.index.images.path[image].decode()} states no width and height; mend the table"
            )

    def __len__(self) -> int:
        return len(self.rows)

    def set_epoch(self, epoch: int) -> None:
        """Change the augmentation that `dataset[i]` draws; a `Draw` brings its own epoch."""
        self.epoch = epoch

    def __getitem__(self, key: int | Draw) -> Sample:
        """One sample.

        Raises:
            InputError: if a file of the sample is missing or broken.
        """
        draw = key if isinstance(key, Draw) else Draw(int(key), self.epoch, 0)
        row = int(self.rows[draw.sample])
        augment = self.training and self.data.augment
        random = randomness(self.seed, draw.epoch, draw.sample, draw.repeat)
        frame = frame_of(self.index, row)
        truth = self.index.ground_truth(np.array([row]))
        images = self.image_rows[draw.sample].tolist()
        config = self.data.image
        sizes = [(int(height), int(width)) for height, width in self.index.images.size[images]]
        transforms = [draw_image(config, s, random) if augment else place(s, config.size) for s in sizes]
        lidar2img = np.empty((len(images), 4, 4))
        for camera, (image, transform) in enumerate(zip(images, transforms, strict=True)):
            lidar2img[camera] = projection(self.index, image, frame.lidar_to_global)
            lidar2img[camera, :3] = transform.matrix @ lidar2img[camera, :3]
        sample = Sample(
            points=load_points(self.index, row, self.data.sweeps) if self.sensors.lidar else _no_points(),
            images=load_images(self.index, images, transforms, config.size),
            lidar2img=lidar2img,
            boxes=lidar_boxes(truth, frame.lidar_to_global),
            labels=truth.label,
            frame=frame,
        )
        if augment:
            sample = sample.moved(draw_bev(self.data.bev, random))
        if self.training:
            centre = sample.boxes[:, CENTER]
            inside = ((centre >= self.pc_range[:3]) & (centre <= self.pc_range[3:])).all(axis=1)
            keep = inside & (truth.num_pts > 0)
            sample = replace(sample, boxes=sample.boxes[keep], labels=sample.labels[keep])
        return sample

    def class_presence(self) -> npt.NDArray[np.bool_]:
        """[S, 10] whether a sample shows a class by a box that holds a point; for class-balanced sampling."""
        truth = self.index.ground_truth(self.rows)
        seen = truth.num_pts > 0
        presence = np.zeros((len(self.rows), len(CLASSES)), dtype=bool)
        presence[truth.sample[seen], truth.label[seen]] = True
        return presence


def _no_points() -> npt.NDArray[np.float32]:
    return np.empty((0, FIELDS), dtype=np.float32)
