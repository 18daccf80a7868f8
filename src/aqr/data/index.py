"""The index of a nuScenes version: everything its tables say about samples, as arrays.

    index = open_index("data/nuscenes", "v1.0-mini")
    samples = index.split("mini_val")
    truth = index.ground_truth(samples)

Rows of one kind (samples, scans, images, annotations) are numbered from 0 in the order of their table, and refer to
one another by row; -1 stands for "none". Text is held as UTF-8 bytes. Imports no torch.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from aqr.data import splits
from aqr.errors import InputError
from aqr.geometry import Pose
from aqr.taxonomy import BICYCLE_RACK, CLASS_OF_CATEGORY, LABEL_OF

log = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
SmallInts = npt.NDArray[np.integer]
Bytes = npt.NDArray[np.bytes_]

MAX_SWEEPS: Final = 10


@dataclass(frozen=True)
class Scenes:
    """Attributes: name: [C], `scene-0061`."""

    name: Bytes


@dataclass(frozen=True)
class Calibrations:
    """Where sensors sit on their vehicle.

    Attributes:
        translation: [K, 3] metres, sensor frame to ego frame.
        rotation: [K, 4] quaternions, sensor frame to ego frame.
        intrinsic: [K, 3, 3] pixels of the full image; NaN for a LiDAR.
    """

    translation: Floats
    rotation: Floats
    intrinsic: Floats


@dataclass(frozen=True)
class Scans:
    """LiDAR sweeps, keyframes among them.

    Attributes:
        path: [L] relative to the root.
        timestamp: [L] microseconds.
        calibration: [L] rows of `Calibrations`.
        ego_translation: [L, 3] metres, ego frame to map, at the time of the sweep.
        ego_rotation: [L, 4] quaternions, ego frame to map.
        prev: [L] the sweep before, -1 at the start of a scene.
    """

    path: Bytes
    timestamp: npt.NDArray[np.int64]
    calibration: SmallInts
    ego_translation: Floats
    ego_rotation: Floats
    prev: SmallInts


@dataclass(frozen=True)
class Images:
    """Camera keyframes; fields as in `Scans`, and `size` [I, 2]: height and width in pixels, 0 where not stated."""

    path: Bytes
    timestamp: npt.NDArray[np.int64]
    calibration: SmallInts
    ego_translation: Floats
    ego_rotation: Floats
    size: SmallInts


@dataclass(frozen=True)
class Samples:
    """Keyframes.

    Attributes:
        token: [S].
        timestamp: [S] microseconds.
        scene: [S] rows of `Scenes`.
        scan: [S] rows of `Scans`: the LIDAR_TOP keyframe.
        image: [S, cameras] rows of `Images`, columns in the order of `Index.cameras`; -1 where a camera is missing.
        annotations: [S + 1]: sample s owns rows annotations[s] to annotations[s + 1] of `Annotations`.
    """

    token: Bytes
    timestamp: npt.NDArray[np.int64]
    scene: SmallInts
    scan: SmallInts
    image: SmallInts
    annotations: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Annotations:
    """Annotated boxes in the global frame, all categories, grouped by sample and in table order within one.

    Attributes:
        token: [A].
        instance: [A] rows of the instance table.
        category: [A] rows of `Index.categories`.
        attribute: [A] rows of `aqr.taxonomy.ATTRIBUTES`, -1 for none.
        visibility: [A] 1 (0-40 % visible) to 4 (80-100 %), 0 where not stated.
        translation: [A, 3] metres, box centre.
        size: [A, 3] metres: length, width, height (the tables hold width, length, height).
        rotation: [A, 4] quaternions, box frame (x along the heading) to map.
        velocity: [A, 3] m/s as the devkit's `box_velocity` defines it, NaN where unknown.
        num_lidar_pts: [A].
        num_radar_pts: [A].
    """

    token: Bytes
    instance: SmallInts
    category: SmallInts
    attribute: SmallInts
    visibility: SmallInts
    translation: Floats
    size: Floats
    rotation: Floats
    velocity: Floats
    num_lidar_pts: SmallInts
    num_radar_pts: SmallInts


@dataclass(frozen=True)
class GroundTruth:
    """What detections of some samples are scored against: global frame, unfiltered.

    Attributes:
        sample_tokens: [S] str.
        ego_translation: [S, 3] metres: the ego vehicle at the time of the LIDAR_TOP keyframe.
        sample: [N] which of the S samples a box belongs to; boxes are grouped by sample.
        annotation: [N] rows of `Annotations`.
        label: [N] index into `aqr.taxonomy.CLASSES`.
        translation: [N, 3] metres, box centre.
        size: [N, 3] metres: length, width, height.
        rotation: [N, 4] quaternions [w, x, y, z].
        yaw: [N] heading seen from above, radians.
        velocity: [N, 2] m/s, NaN where unknown.
        attribute: [N] index into `aqr.taxonomy.ATTRIBUTES`, -1 for none.
        num_pts: [N] LiDAR and radar points inside the box.
        rack_sample: [R] which of the S samples a bicycle rack belongs to.
        rack_translation: [R, 3] metres.
        rack_size: [R, 3] metres: length, width, height.
        rack_rotation: [R, 4] quaternions.
    """

    sample_tokens: list[str]
    ego_translation: Floats
    sample: Rows
    annotation: Rows
    label: Rows
    translation: Floats
    size: Floats
    rotation: Floats
    yaw: Floats
    velocity: Floats
    attribute: Rows
    num_pts: Rows
    rack_sample: Rows
    rack_translation: Floats
    rack_size: Floats
    rack_rotation: Floats


@dataclass(frozen=True)
class Index:
    """One version of a data set.

    Attributes:
        root: folder that holds `samples/`, `sweeps/` and the version folder.
        version: name of the version folder.
        cache: folder of the cached index, None for the default (see `open_index`).
        cameras: channel names of all cameras, sorted.
        categories: category names.
    """

    root: Path
    version: str
    cache: Path | None
    cameras: tuple[str, ...]
    categories: tuple[str, ...]
    scenes: Scenes
    calibrations: Calibrations
    scans: Scans
    images: Images
    samples: Samples
    annotations: Annotations

    def __len__(self) -> int:
        return len(self.samples.token)

    def __reduce__(self) -> tuple[object, ...]:
        """Worker processes open the cached index instead of receiving hundreds of megabytes."""
        return open_index, (self.root, self.version, self.cache)

    def split(self, name: str) -> Rows:
        """[S] rows of the samples of an official split, in table order.

        Raises:
            InputError: if the split is unknown, not part of this version, or none of its scenes is here.
        """
        splits.check_version(name, self.version)
        wanted = np.array([scene.decode() in splits.scenes_of(name) for scene in self.scenes.name], dtype=bool)
        rows = np.flatnonzero(wanted[self.samples.scene]) if len(wanted) else np.empty(0, np.int64)
        if not len(rows):
            raise InputError(
                f"{self.root / self.version}/scene.json: no scene of split {name!r} with a sample; "
                "choose another split or version"
            )
        return rows

    def token(self, sample: int) -> str:
        """Sample token."""
        return str(self.samples.token[sample].decode())

    def lidar_to_ego(self, scan: int) -> Pose:
        """Pose of the LiDAR on its vehicle."""
        row = self.scans.calibration[scan]
        return Pose.from_quaternion(self.calibrations.rotation[row], self.calibrations.translation[row])

    def scan_to_global(self, scan: int) -> Pose:
        """Pose of the LiDAR in the map at the time of a sweep."""
        ego = Pose.from_quaternion(self.scans.ego_rotation[scan], self.scans.ego_translation[scan])
        return ego @ self.lidar_to_ego(scan)

    def image_to_global(self, image: int) -> Pose:
        """Pose of a camera (x right, y down, z forward) in the map at the time of an image."""
        row = self.images.calibration[image]
        sensor = Pose.from_quaternion(self.calibrations.rotation[row], self.calibrations.translation[row])
        return Pose.from_quaternion(self.images.ego_rotation[image], self.images.ego_translation[image]) @ sensor

    def sweeps(self, sample: int, count: int = MAX_SWEEPS) -> list[int]:
        """Rows of the up to `count` sweeps before a keyframe, latest first; fewer at the start of a scene."""
        rows: list[int] = []
        scan = int(self.scans.prev[self.samples.scan[sample]])
        while scan >= 0 and len(rows) < count:
            rows.append(scan)
            scan = int(self.scans.prev[scan])
        return rows

    def image_rows(self, samples: npt.NDArray[np.integer], cameras: tuple[str, ...]) -> Rows:
        """[S, V] rows of the images of named cameras.

        Raises:
            InputError: naming a sample and the camera that it lacks.
        """
        for camera in cameras:
            if camera not in self.cameras:
                raise InputError(
                    f"{self.root / self.version}/sensor.json: there is no camera {camera!r} "
                    f"(known: {', '.join(self.cameras) or 'none'}); mend sensors.cameras in the config"
                )
        columns = [self.cameras.index(camera) for camera in cameras]
        rows = self.samples.image[np.asarray(samples)[:, None], columns].astype(np.int64)
        missing = np.argwhere(rows < 0)
        if len(missing):
            sample, camera = missing[0]
            raise InputError(
                f"{self.root / self.version}/sample_data.json: sample {self.token(samples[sample])} has no keyframe of "
                f"{cameras[camera]}; remove the camera from sensors.cameras in the config, or restore the table"
            )
        return rows

    def label_of_category(self) -> Rows:
        """[categories] index into `aqr.taxonomy.CLASSES`, -1 for categories that are not detected."""
        return np.array([LABEL_OF.get(CLASS_OF_CATEGORY.get(name, ""), -1) for name in self.categories], dtype=np.int64)

    def ground_truth(self, samples: npt.NDArray[np.integer]) -> GroundTruth:
        """Boxes of the ten classes in some samples, and their bicycle racks."""
        samples = np.asarray(samples, dtype=np.int64)
        notes = self.annotations
        first, last = self.samples.annotations[samples], self.samples.annotations[samples + 1]
        count = last - first
        place = np.repeat(np.arange(len(samples)), count)
        rows = np.arange(count.sum()) + np.repeat(first - np.cumsum(count) + count, count)
        label = self.label_of_category()[notes.category[rows]]
        rack = np.array([name == BICYCLE_RACK for name in self.categories], dtype=bool)[notes.category[rows]]
        boxes, racks = rows[label >= 0], rows[rack]
        w, x, y, z = np.moveaxis(notes.rotation[boxes], -1, 0)
        return GroundTruth(
            sample_tokens=[token.decode() for token in self.samples.token[samples]],
            ego_translation=self.scans.ego_translation[self.samples.scan[samples]],
            sample=place[label >= 0],
            annotation=boxes,
            label=label[label >= 0],
            translation=notes.translation[boxes],
            size=notes.size[boxes],
            rotation=notes.rotation[boxes],
            yaw=np.arctan2(2 * (x * y + w * z), w * w + x * x - y * y - z * z),
            velocity=notes.velocity[boxes, :2],
            attribute=notes.attribute[boxes].astype(np.int64),
            num_pts=notes.num_lidar_pts[boxes].astype(np.int64) + notes.num_radar_pts[boxes],
            rack_sample=place[rack],
            rack_translation=notes.translation[racks],
            rack_size=notes.size[racks],
            rack_rotation=notes.rotation[racks],
        )


def open_index(root: str | Path, version: str, cache: str | Path | None = None) -> Index:
    """The index of a version, from the cache where that is valid and from the tables where not.

    Args:
        root: data set folder.
        version: version folder inside it (`v1.0-mini`, `v1.0-trainval`, `v1.0-test`).
        cache: folder for the cached index. By default the version folder, or `aqr` in the user's cache folder
            where that may not be written.

    Raises:
        InputError: where a table is missing, broken or refers to a record that does not exist.
    """
    from aqr.data import cache as files
    from aqr.data.build import build_index

    root = Path(root)
    folder = None if cache is None else Path(cache)
    key = files.key_of(root, version)
    path = files.place_of(root, version, folder)
    index = files.load(path, key, root, version, folder)
    if index is None:
        log.info("reading the tables of %s", root / version)
        index = build_index(root, version, folder)
        files.save(path, key, index)
    return index
