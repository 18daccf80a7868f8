"""The samples of a split as a PyTorch dataset."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from aqr.batch import Frame
from aqr.config import Data, Sensors
from aqr.data.augment import Matrix, draw_bev, draw_image, randomness
from aqr.data.failures.alignment import Keyframes
from aqr.data.failures.drawing import draw_harm
from aqr.data.failures.harm import Corruption, Harm
from aqr.data.images import ImageTransform, PictureChange, place, read_image
from aqr.data.index import Index, open_index
from aqr.data.points import FIELDS, load_points, read_scan
from aqr.data.samples import Sample, frame_of, lidar_boxes, load_images, projection
from aqr.data.sampling import Draw
from aqr.errors import InputError
from aqr.geometry import CENTER
from aqr.taxonomy import CLASSES

log = logging.getLogger(__name__)

PcRange = tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class Plan:
    """What one presentation of a sample shows, drawn before any sensor is read.

    Attributes:
        row: of the sample in the index.
        images: V rows of its images.
        transforms: V, of the images.
        lidar2img: [V, 4, 4] from the unmoved LiDAR frame to transformed pixels.
        boxes: [N, 9] in the unmoved LiDAR frame, and labels: [N].
        num_pts: [N] points in each box.
        frame: where and when.
        harm: what fails.
        movement: [4, 4] BEV augmentation.
    """

    row: int
    images: list[int]
    transforms: list[ImageTransform]
    lidar2img: npt.NDArray[np.float64]
    boxes: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    num_pts: npt.NDArray[np.int64]
    frame: Frame
    harm: Harm | None
    movement: Matrix | None


class NuScenesDataset(Dataset[Sample]):
    """Samples of a split: augmented, filtered and failing now and then for training, or as they are, or all failing.

    In training, boxes without a LiDAR or radar point and boxes whose centre lies outside pc_range (after
    augmentation) are left out. Otherwise all boxes of the ten classes are given. A failure changes what sensors say,
    never what is true.

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
        corruption: Corruption | None = None,
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
            corruption: a failure that every sample shows, in place of those that `data.failures` draws for training.

        Raises:
            InputError: where tables are missing or broken, the split is unknown or empty, or a sample lacks a camera.
        """
        self.data, self.sensors, self.training, self.seed = data, sensors, training, seed
        self.pc_range = np.array(pc_range)
        self.index = index if index is not None else open_index(data.root, data.version)
        self.rows = self.index.split(split)
        self.image_rows = self.index.image_rows(self.rows, sensors.cameras)
        self.epoch = 0
        self.corruption = corruption
        self.keyframes = Keyframes(self.index)
        if corruption is not None and corruption.failure.name in ("lidar_stuck", "camera_stuck"):
            self._warn_of_beginnings(corruption)
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
        return self.read(self.plan(key if isinstance(key, Draw) else Draw(int(key), self.epoch, 0)))

    def plan(self, draw: Draw) -> Plan:
        """What a presentation of a sample will show."""
        row = int(self.rows[draw.sample])
        augment = self.training and self.data.augment
        random = randomness(self.seed, draw.epoch, draw.sample, draw.repeat)
        frame = frame_of(self.index, row)
        truth = self.index.ground_truth(np.array([row]))
        images = self.image_rows[draw.sample].tolist()
        harm = self._harm(row, random)
        config = self.data.image
        sizes = [(int(height), int(width)) for height, width in self.index.images.size[images]]
        transforms = [draw_image(config, s, random) if augment else place(s, config.size) for s in sizes]
        lidar2img = np.empty((len(images), 4, 4))
        for camera, (image, transform) in enumerate(zip(images, transforms, strict=True)):
            lidar2img[camera] = projection(self.index, image, frame.lidar_to_global)
            lidar2img[camera, :3] = transform.matrix @ lidar2img[camera, :3]
        return Plan(
            row=row,
            images=images,
            transforms=transforms,
            lidar2img=lidar2img if harm is None else harm.projections(lidar2img),
            boxes=lidar_boxes(truth, frame.lidar_to_global),
            labels=truth.label,
            num_pts=truth.num_pts,
            frame=frame,
            harm=harm,
            movement=draw_bev(self.data.bev, random) if augment else None,
        )

    def read(self, plan: Plan) -> Sample:
        """The sample of a plan.

        Raises:
            InputError: if a file of the sample is missing or broken.
        """
        harm = plan.harm
        scanned, pictured = self._sources(plan.row, plan.images, harm)
        sweep_change = None if harm is None else harm.sweep_change()
        picture_change = None if harm is None else harm.picture_change(len(plan.images))
        points = _no_points()
        if self.sensors.lidar:
            points = load_points(self.index, scanned, self.data.sweeps, sweep_change, self.scan)
        if harm is not None:
            points = harm.points(points, plan.boxes)
        size = self.data.image.size
        return self.put_together(
            plan, points, load_images(pictured, plan.transforms, size, self.picture, picture_change)
        )

    def scan(self, row: int) -> npt.NDArray[np.float32]:
        """Points of a LiDAR sweep as stored; see `aqr.data.points.read_scan`."""
        return read_scan(self.index.root / self.index.scans.path[row].decode())

    def picture(self, row: int, transform: ImageTransform, change: PictureChange | None) -> npt.NDArray[np.uint8]:
        """An image, transformed; see `aqr.data.images.read_image`."""
        return read_image(self.index.root / self.index.images.path[row].decode(), transform, change)

    def put_together(self, plan: Plan, points: npt.NDArray[np.float32], images: npt.NDArray[np.uint8]) -> Sample:
        """The sample of a plan from what its sensors say: moved as a whole, and filtered for training."""
        sample = Sample(points, images, plan.lidar2img, plan.boxes, plan.labels, plan.frame)
        if plan.movement is not None:
            sample = sample.moved(plan.movement)
        if self.training:
            centre = sample.boxes[:, CENTER]
            inside = ((centre >= self.pc_range[:3]) & (centre <= self.pc_range[3:])).all(axis=1)
            keep = inside & (plan.num_pts > 0)
            sample = replace(sample, boxes=sample.boxes[keep], labels=sample.labels[keep])
        return sample

    def _harm(self, row: int, random: np.random.Generator) -> Harm | None:
        if self.corruption is not None:
            return self.corruption.of(self.index.token(row))
        return draw_harm(self.data.failures, random.spawn(1)[0]) if self.training else None

    def _sources(self, row: int, images: list[int], harm: Harm | None) -> tuple[int, list[int]]:
        """The sample whose sweeps are shown and the rows of the images that are, where a sensor may be late."""
        if harm is None:
            return row, images
        if harm.camera_delay:
            earlier = self.keyframes.earlier(row, harm.camera_delay)
            images = self.index.image_rows(np.array([earlier]), self.sensors.cameras)[0].tolist()
        return self.keyframes.earlier(row, harm.lidar_delay), images

    def _warn_of_beginnings(self, corruption: Corruption) -> None:
        count = int(corruption.failure.strength)
        lacking = self.keyframes.lacking(self.rows, count)
        if lacking:
            log.warning(
                "%s: %d of %d samples have fewer than %d keyframes before them and show the first of their scene",
                corruption.failure,
                lacking,
                len(self.rows),
                count,
            )

    def class_presence(self) -> npt.NDArray[np.bool_]:
        """[S, 10] whether a sample shows a class by a box that holds a point; for class-balanced sampling."""
        truth = self.index.ground_truth(self.rows)
        seen = truth.num_pts > 0
        presence = np.zeros((len(self.rows), len(CLASSES)), dtype=bool)
        presence[truth.sample[seen], truth.label[seen]] = True
        return presence


def _no_points() -> npt.NDArray[np.float32]:
    return np.empty((0, FIELDS), dtype=np.float32)
