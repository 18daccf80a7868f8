"""Builds the index from the thirteen tables; every reference between records that is followed is checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from aqr.data import tables
from aqr.data.index import Annotations, Bytes, Calibrations, Floats, Images, Index, Rows, Samples, Scans, Scenes
from aqr.data.tables import Column, Record, flags, integers, matrices, text, tokens, vectors
from aqr.errors import InputError
from aqr.taxonomy import ATTRIBUTES, CLASS_OF_CATEGORY, LIDAR

MAX_TIME_DIFF: Final = 1.5
"""Seconds between consecutive keyframes beyond which no velocity is estimated."""

VISIBILITY_LEVELS: Final = {"v0-40": 1, "v40-60": 2, "v60-80": 3, "v80-100": 4}


class References:
    """The tokens of one table, to follow references to it."""

    def __init__(self, folder: Path, table: str, tokens: Bytes) -> None:
        """Raises: InputError: if a token stands twice."""
        self.folder, self.table = folder, table
        self.row_of = {token: row for row, token in enumerate(tokens.tolist())}
        if len(self.row_of) < len(tokens):
            twice = next(token for row, token in enumerate(tokens.tolist()) if self.row_of[token] != row)
            raise InputError(f"{folder / table}.json: token {twice.decode()!r} stands twice; restore the table")

    def follow(self, referring: Column, table: str, field: str, owners: Bytes, may_be_empty: bool = False) -> Rows:
        """Rows that tokens refer to.

        Args:
            referring: [N] tokens.
            table: table they stand in.
            field: field they stand in.
            owners: [N] tokens of the records they stand in.
            may_be_empty: whether an empty token means "none", which gives -1.

        Raises:
            InputError: naming the first dangling token.
        """
        rows = np.array([self.row_of.get(token, -1) for token in referring.tolist()], dtype=np.int64)
        dangling = np.flatnonzero((rows < 0) & ((referring != b"") | (not may_be_empty)))
        if len(dangling):
            first = dangling[0]
            raise InputError(
                f"{self.folder / table}.json: record {owners[first].decode()!r}: {field} "
                f"{referring[first].decode()!r} is not in {self.table}.json; restore both tables from the archive"
            )
        return rows


@dataclass
class _Sensors:
    calibrations: Calibrations
    references: References
    channel: list[str]
    is_camera: list[bool]


def build_index(root: Path, version: str, cache: Path | None = None) -> Index:
    """Read and check all tables of a version.

    Raises:
        InputError: naming table and record where something is missing, broken or dangling.
    """
    folder = root / version
    scene = tables.read(folder, "scene", {"token": text, "name": text, "log_token": text})
    journeys = tables.read(folder, "log", {"token": text})
    References(folder, "log", journeys["token"]).follow(scene["log_token"], "scene", "log_token", scene["token"])

    sample = tables.read(folder, "sample", {"token": text, "timestamp": integers, "scene_token": text})
    scene_row = References(folder, "scene", scene["token"]).follow(
        sample["scene_token"], "sample", "scene_token", sample["token"]
    )
    samples = References(folder, "sample", sample["token"])
    sensors = _sensors(folder)
    cameras = tuple(sorted({name for name, camera in zip(sensors.channel, sensors.is_camera, strict=True) if camera}))
    scans, images, scan_row, image_row = _recordings(folder, sensors, cameras, sample["token"], samples)
    categories, annotations, bounds = _annotations(folder, sample["timestamp"], samples)
    return Index(
        root=root,
        version=version,
        cache=cache,
        cameras=cameras,
        categories=categories,
        scenes=Scenes(scene["name"]),
        calibrations=sensors.calibrations,
        scans=scans,
        images=images,
        samples=Samples(
            token=sample["token"],
            timestamp=sample["timestamp"],
            scene=scene_row.astype(np.int32),
            scan=scan_row,
            image=image_row,
            annotations=bounds,
        ),
        annotations=annotations,
    )


def box_velocity(translation: Floats, seconds: Floats, prev: Rows, following: Rows) -> Floats:
    """Velocity of annotations from their neighbours in time, as nuScenes defines it.

    The centred difference between the previous and the next annotation of the instance, one-sided where one of them
    is missing. NaN where both are, where the two lie more than 1.5 s apart (centred: 3 s), or at the same time.

    Args:
        translation: [A, 3] metres, global frame.
        seconds: [A] keyframe time.
        prev: [A] row of the previous annotation of the instance, -1 for none.
        following: [A] row of the next one, -1 for none.

    Returns:
        [A, 3] m/s.
    """
    own = np.arange(len(translation))
    first, last = np.where(prev >= 0, prev, own), np.where(following >= 0, following, own)
    elapsed = seconds[last] - seconds[first]
    limit = np.where((prev >= 0) & (following >= 0), 2 * MAX_TIME_DIFF, MAX_TIME_DIFF)
    elapsed = np.where((elapsed > limit) | (elapsed == 0), np.nan, elapsed)
    return np.asarray((translation[last] - translation[first]) / elapsed[:, None])


def _sensors(folder: Path) -> _Sensors:
    sensor = tables.read(folder, "sensor", {"token": text, "channel": text, "modality": text})
    mounted = tables.read(
        folder,
        "calibrated_sensor",
        {
            "token": text,
            "sensor_token": text,
            "translation": vectors(3),
            "rotation": vectors(4),
            "camera_intrinsic": matrices,
        },
    )
    _check_rotations(folder, "calibrated_sensor", mounted)
    kind = References(folder, "sensor", sensor["token"]).follow(
        mounted["sensor_token"], "calibrated_sensor", "sensor_token", mounted["token"]
    )
    is_camera = sensor["modality"][kind] == b"camera"
    blind = np.flatnonzero(is_camera & np.isnan(mounted["camera_intrinsic"]).any(axis=(1, 2)))
    if len(blind):
        raise InputError(
            f"{folder}/calibrated_sensor.json: record {mounted['token'][blind[0]].decode()!r} is a camera without "
            "camera_intrinsic; restore the table"
        )
    return _Sensors(
        Calibrations(mounted["translation"], mounted["rotation"], mounted["camera_intrinsic"]),
        References(folder, "calibrated_sensor", mounted["token"]),
        [name.decode() for name in sensor["channel"][kind]],
        is_camera.tolist(),
    )


def _recordings(
    folder: Path, sensors: _Sensors, cameras: tuple[str, ...], sample_tokens: Bytes, samples: References
) -> tuple[Scans, Images, Column, Column]:
    """LiDAR sweeps and camera keyframes, and which of them belong to each sample."""

    def wanted(record: Record) -> bool:
        row = sensors.references.row_of.get(str(record.get("calibrated_sensor_token")).encode())
        if row is None:
            raise InputError(
                f"{folder}/sample_data.json: record {record.get('token')!r}: calibrated_sensor_token "
                f"{record.get('calibrated_sensor_token')!r} is not in calibrated_sensor.json; "
                "restore both tables from the archive"
            )
        return sensors.channel[row] == LIDAR or (sensors.is_camera[row] and bool(record.get("is_key_frame")))

    data = tables.read(
        folder,
        "sample_data",
        {
            "token": text,
            "sample_token": text,
            "ego_pose_token": text,
            "calibrated_sensor_token": text,
            "timestamp": integers,
            "is_key_frame": flags,
            "filename": text,
            "prev": text,
            "height": integers,
            "width": integers,
        },
        wanted,
    )
    owners = data["token"]
    sample = samples.follow(data["sample_token"], "sample_data", "sample_token", owners)
    calibration = sensors.references.follow(
        data["calibrated_sensor_token"], "sample_data", "calibrated_sensor_token", owners
    )
    ego_translation, ego_rotation = _ego_poses(folder, data["ego_pose_token"], owners)

    is_scan = np.array([name == LIDAR for name in sensors.channel], dtype=bool)[calibration]
    of_scans, of_images = np.flatnonzero(is_scan), np.flatnonzero(~is_scan)
    column_of = {name: column for column, name in enumerate(cameras)}
    column = np.array([column_of.get(name, -1) for name in sensors.channel], dtype=np.int64)[calibration[of_images]]

    def common(rows: Rows) -> tuple[Column, Column, Column, Column, Column]:
        return (
            data["filename"][rows],
            data["timestamp"][rows],
            calibration[rows].astype(np.int32),
            ego_translation[rows],
            ego_rotation[rows],
        )

    scan_tokens = owners[of_scans]
    prev = References(folder, "sample_data", scan_tokens).follow(
        data["prev"][of_scans], "sample_data", "prev", scan_tokens, may_be_empty=True
    )
    scans = Scans(*common(of_scans), prev=prev.astype(np.int32))
    images = Images(*common(of_images), size=np.stack([data["height"], data["width"]], -1)[of_images].astype(np.int32))

    scan_of_sample = np.full(len(sample_tokens), -1, dtype=np.int32)
    key = np.flatnonzero(data["is_key_frame"][of_scans])
    scan_of_sample[sample[of_scans][key]] = key
    bare = np.flatnonzero(scan_of_sample < 0)
    if len(bare):
        raise InputError(
            f"{folder}/sample_data.json: sample {sample_tokens[bare[0]].decode()!r} has no keyframe of {LIDAR}, whose "
            "frame boxes are given in; restore the table"
        )
    image_of_sample = np.full((len(sample_tokens), len(cameras)), -1, dtype=np.int32)
    image_of_sample[sample[of_images], column] = np.arange(len(of_images))
    return scans, images, scan_of_sample, image_of_sample


def _ego_poses(folder: Path, referring: Bytes, owners: Bytes) -> tuple[Floats, Floats]:
    used = set(referring.tolist())
    poses = tables.read(
        folder,
        "ego_pose",
        {"token": text, "translation": vectors(3), "rotation": vectors(4)},
        lambda record: str(record.get("token")).encode() in used,
    )
    _check_rotations(folder, "ego_pose", poses)
    row = References(folder, "ego_pose", poses["token"]).follow(referring, "sample_data", "ego_pose_token", owners)
    return poses["translation"][row], poses["rotation"][row]


def _annotations(folder: Path, timestamps: Column, samples: References) -> tuple[tuple[str, ...], Annotations, Column]:
    category = tables.read(folder, "category", {"token": text, "name": text})
    attribute = tables.read(folder, "attribute", {"token": text, "name": text})
    visibility = tables.read(folder, "visibility", {"token": text, "level": text})
    instance = tables.read(folder, "instance", {"token": text, "category_token": text})
    notes = tables.read(
        folder,
        "sample_annotation",
        {
            "token": text,
            "sample_token": text,
            "instance_token": text,
            "visibility_token": text,
            "attribute_tokens": tokens,
            "translation": vectors(3),
            "size": vectors(3),
            "rotation": vectors(4),
            "prev": text,
            "next": text,
            "num_lidar_pts": integers,
            "num_radar_pts": integers,
        },
    )
    owners = notes["token"]

    def follow(references: References, field: str, may_be_empty: bool = False) -> Rows:
        return references.follow(notes.pop(field), "sample_annotation", field, owners, may_be_empty)

    _check_rotations(folder, "sample_annotation", notes)
    flat = np.flatnonzero((notes["size"] <= 0).any(axis=1))
    if len(flat):
        raise InputError(
            f"{folder}/sample_annotation.json: record {owners[flat[0]].decode()!r}: size "
            f"{notes['size'][flat[0]].tolist()} is not positive; mend the record"
        )
    names = tuple(name.decode() for name in category["name"])
    category_of_instance = References(folder, "category", category["token"]).follow(
        instance["category_token"], "instance", "category_token", instance["token"]
    )
    instance_row = follow(References(folder, "instance", instance["token"]), "instance_token")
    category_row = category_of_instance[instance_row].astype(np.int16)
    detected = np.array([name in CLASS_OF_CATEGORY for name in names], dtype=bool)[category_row]
    notes["attribute_tokens"] = _one_attribute(folder, owners, notes["attribute_tokens"], detected)
    attribute_row = follow(References(folder, "attribute", attribute["token"]), "attribute_tokens", True)
    level_row = follow(References(folder, "visibility", visibility["token"]), "visibility_token", True)
    own = References(folder, "sample_annotation", owners)
    prev, following = follow(own, "prev", True), follow(own, "next", True)
    sample_row = follow(samples, "sample_token")
    velocity = box_velocity(notes["translation"], 1e-6 * timestamps[sample_row], prev, following)

    order = np.argsort(sample_row, kind="stable")
    levels = [VISIBILITY_LEVELS.get(level.decode(), 0) for level in visibility["level"]]
    annotations = Annotations(
        token=owners[order],
        instance=instance_row[order].astype(np.int32),
        category=category_row[order],
        attribute=_attribute_labels(folder, attribute["name"])[attribute_row[order]],
        visibility=np.array([*levels, 0], dtype=np.int8)[level_row[order]],
        translation=notes["translation"][order],
        size=notes["size"][order][:, [1, 0, 2]],
        rotation=notes["rotation"][order],
        velocity=velocity[order],
        num_lidar_pts=notes["num_lidar_pts"][order].astype(np.int32),
        num_radar_pts=notes["num_radar_pts"][order].astype(np.int32),
    )
    bounds = np.searchsorted(sample_row[order], np.arange(len(timestamps) + 1))
    return names, annotations, bounds.astype(np.int64)


def _attribute_labels(folder: Path, names: Bytes) -> Column:
    """Rows of the attribute table to `aqr.taxonomy.ATTRIBUTES`, and -1 for row -1."""
    label_of = {name: label for label, name in enumerate(ATTRIBUTES)}
    for name in names:
        if name.decode() not in label_of:
            raise InputError(
                f"{folder}/attribute.json: unknown attribute {name.decode()!r}; nuScenes has {', '.join(ATTRIBUTES)}"
            )
    return np.array([*(label_of[name.decode()] for name in names), -1], dtype=np.int8)


def _one_attribute(folder: Path, owners: Bytes, attributes: Bytes, detected: Column) -> Bytes:
    """The first attribute of each annotation; those of the ten classes may have no second one."""
    several = np.flatnonzero([b" " in tokens for tokens in attributes.tolist()])
    for row in several:
        if detected[row]:
            raise InputError(
                f"{folder}/sample_annotation.json: record {owners[row].decode()!r} has more than one attribute; "
                "leave one in attribute_tokens"
            )
        attributes[row] = attributes[row].split()[0]
    return attributes


def _check_rotations(folder: Path, table: str, columns: dict[str, Column]) -> None:
    """Refuse quaternions of no length; those of another length than 1 are normalised."""
    length = np.linalg.norm(columns["rotation"], axis=1)
    if (length == 0).any():
        record = columns["token"][np.argmin(length)].decode()
        raise InputError(f"{folder / table}.json: record {record!r}: rotation is zero; mend the record")
    columns["rotation"] /= length[:, None]
