"""Records one scene: sensor files on disk and the rows of its tables."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from aqr.geometry import Pose, points_in_boxes, quaternion_from_rotation, quaternion_from_yaw
from aqr.synth.ground import GROUND_CELL
from aqr.synth.rig import LIDAR_TO_EGO, Camera, draw_rig
from aqr.synth.scene import draw_scene, lidar_boxes
from aqr.synth.sensors import HostSensors, Pictures, SceneJob, Sensors
from aqr.synth.stage import KEYFRAME_S, Stage
from aqr.synth.tables import Row, Tables, attribute_token, category_token, sensor_token, token, visibility_level
from aqr.taxonomy import LIDAR

ANNOTATED_RADIUS = 60.0
"""Metres from the ego vehicle within which objects are annotated, where LiDAR or a camera sees them."""

_EPOCH_US = 1_530_000_000_000_000
_SCENE_GAP_US = 3_600_000_000


def draw(job: SceneJob) -> tuple[Stage, tuple[Camera, ...]]:
    """The scene of a job and the rig of its vehicle."""
    return draw_scene((job.seed, job.number), job.preset.keyframes, job.weather), draw_rig(job.random(0))


def record(job: SceneJob, out: Path, on_keyframe: Callable[[], None], device: str = "cpu") -> Tables:
    """Simulate a scene, write its sensor files under `out` and return its table rows.

    Args:
        job: the scene.
        out: root of the data set; folders are made as needed.
        on_keyframe: called after each keyframe.
        device: `cpu` renders with NumPy, any other name with PyTorch there.
    """
    stage, rig = draw(job)
    return _Recorder(job, stage, rig, _sensors(job, stage, rig, device), out).run(on_keyframe)


def describe(job: SceneJob, stage: Stage, rig: tuple[Camera, ...], sensors: Sensors) -> Tables:
    """The rows of a scene whose sensor files are not written; its pictures need not hold images."""
    return _Recorder(job, stage, rig, sensors, None).run(lambda: None)


class _Recorder:
    def __init__(
        self, job: SceneJob, stage: Stage, rig: tuple[Camera, ...], sensors: Sensors, out: Path | None
    ) -> None:
        self.job, self.out, self.preset = job, out, job.preset
        self.stage, self.rig, self.sensors = stage, rig, sensors
        self.start_us = _EPOCH_US + job.number * _SCENE_GAP_US
        self.rows: Tables = {
            name: []
            for name in (
                "instance",
                "calibrated_sensor",
                "ego_pose",
                "log",
                "scene",
                "sample",
                "sample_data",
                "sample_annotation",
                "map",
            )
        }
        self.last: dict[str, Row] = {}

    def token(self, *parts: object) -> str:
        return token("synth", self.job.seed, self.job.name, *parts)

    def run(self, on_keyframe: Callable[[], None]) -> Tables:
        self._log_and_map()
        self._calibration()
        for k in range(self.preset.keyframes):
            self._keyframe(k)
            on_keyframe()
        self._link()
        return self.rows

    def _log_and_map(self) -> None:
        place = "singapore-onenorth" if self.stage.left_hand else "boston-seaport"
        logfile = f"synth-{self.job.seed}-{self.job.number:04d}"
        log = {
            "token": self.token("log"),
            "logfile": logfile,
            "vehicle": "synth",
            "date_captured": "2018-06-26",
            "location": place,
        }
        filename = f"maps/{self.token('map')}.png"
        self._write(filename, self._map_png)
        self.rows["log"].append(log)
        self.rows["map"].append(
            {
                "token": self.token("map"),
                "category": "semantic_prior",
                "filename": filename,
                "log_tokens": [log["token"]],
            }
        )
        self.rows["scene"].append(
            {
                "token": self.token("scene"),
                "log_token": log["token"],
                "nbr_samples": self.preset.keyframes,
                "first_sample_token": self.token("sample", 0),
                "last_sample_token": self.token("sample", self.preset.keyframes - 1),
                "name": self.job.name,
                "description": self._description(),
            }
        )

    def _description(self) -> str:
        traffic = self.stage.traffic
        ego = {"cruise": "along a street", "stop": "stop at a crossing", "turn": "turn at a crossing"}[traffic.plan]
        names = [actor.name.replace("_", " ") for actor in traffic.actors]
        common = sorted(set(names), key=lambda name: (-names.count(name), name))[:3]
        side = "left" if self.stage.left_hand else "right"
        return f"{self.stage.weather.words}, {ego}, {side}-hand traffic, {', '.join(common)} (synthetic)"

    def _map_png(self) -> bytes:
        """The drivable area at 0.1 m per pixel, as nuScenes' semantic prior: the last row lies at y = 0."""
        ground = self.stage.street.ground
        rows, columns = ground.road.shape
        corners = np.array([[0, 0], [columns, 0], [columns, rows], [0, rows]]) * GROUND_CELL + ground.origin
        placed = self.stage.to_global.apply(np.column_stack([corners, np.zeros(4)]))[:, :2]
        size = tuple(int(v) for v in np.ceil(placed.max(axis=0) / GROUND_CELL) + 50)
        inverse = self.stage.to_global.inverse()
        r, t = inverse.rotation, inverse.translation
        shift = t[:2] / GROUND_CELL - np.asarray(ground.origin) / GROUND_CELL
        affine = (
            r[0, 0],
            -r[0, 1],
            r[0, 1] * size[1] + shift[0],
            r[1, 0],
            -r[1, 1],
            r[1, 1] * size[1] + shift[1],
        )
        road = Image.fromarray(ground.road.astype(np.uint8) * 255)
        mask = road.transform((size[0], size[1]), Image.Transform.AFFINE, affine)
        return _encoded(mask, "PNG", compress_level=1)

    def _calibration(self) -> None:
        rows = self.rows["calibrated_sensor"]
        rows.append(self._calibrated(LIDAR, LIDAR_TO_EGO, []))
        for camera in self.rig:
            rows.append(
                self._calibrated(camera.channel, camera.to_ego, camera.intrinsic(self.preset.image_size).tolist())
            )

    def _calibrated(self, channel: str, to_ego: Pose, intrinsic: list[list[float]]) -> Row:
        return {
            "token": self.token("calibrated_sensor", channel),
            "sensor_token": sensor_token(channel),
            "translation": to_ego.translation.tolist(),
            "rotation": quaternion_from_rotation(to_ego.rotation),
            "camera_intrinsic": intrinsic,
        }

    def _write(self, filename: str, data: Callable[[], bytes]) -> None:
        if self.out is not None:
            path = self.out / filename
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data())

    def _sensor_data(self, channel: str, keyframe: int, time_us: int, is_key: bool, data: Callable[[], bytes]) -> Row:
        """Write one sensor file, its ego pose and its row."""
        camera = channel != LIDAR
        stamp = self.start_us + time_us
        ending = "jpg" if camera else "pcd.bin"
        folder = "samples" if is_key else "sweeps"
        filename = f"{folder}/{channel}/synth-{self.job.seed}-{self.job.number:04d}__{channel}__{stamp}.{ending}"
        self._write(filename, data)
        name = self.token("sample_data", channel, time_us)
        ego = self.stage.to_global @ self.stage.ego(time_us * 1e-6)
        self.rows["ego_pose"].append(
            {
                "token": name,
                "timestamp": stamp,
                "rotation": quaternion_from_rotation(ego.rotation),
                "translation": ego.translation.tolist(),
            }
        )
        height, width = self.preset.image_size
        row = {
            "token": name,
            "sample_token": self.token("sample", keyframe),
            "ego_pose_token": name,
            "calibrated_sensor_token": self.token("calibrated_sensor", channel),
            "timestamp": stamp,
            "fileformat": "jpg" if camera else "pcd",
            "is_key_frame": is_key,
            "height": height if camera else 0,
            "width": width if camera else 0,
            "filename": filename,
            "prev": "",
            "next": "",
        }
        if channel in self.last:
            row["prev"] = self.last[channel]["token"]
            self.last[channel]["next"] = row["token"]
        self.last[channel] = row
        self.rows["sample_data"].append(row)
        return row

    def _keyframe(self, k: int) -> None:
        time_us = keyframe_us(k)
        times = [*sweep_times_us(k, self.preset.sweeps), time_us]
        sweeps = iter(self.sensors.sweeps(times if self.out is not None else [time_us]))
        points = np.empty((0, 5), dtype=np.float32)
        for at in times:
            if self.out is not None or at == time_us:
                points = next(sweeps)
            self._sensor_data(LIDAR, k, at, at == time_us, points.tobytes)
        pictures = self.sensors.pictures(time_us)
        for number, camera in enumerate(self.rig):
            self._sensor_data(
                camera.channel, k, time_us + camera.delay_us, True, partial(_jpeg, pictures.images, number)
            )
        self.rows["sample"].append(
            {
                "token": self.token("sample", k),
                "timestamp": self.start_us + time_us,
                "prev": self.token("sample", k - 1) if k else "",
                "next": self.token("sample", k + 1) if k + 1 < self.preset.keyframes else "",
                "scene_token": self.token("scene"),
            }
        )
        self._annotate(k, time_us * 1e-6, points, pictures)

    def _annotate(self, k: int, seconds: float, points: npt.NDArray[np.float32], pictures: Pictures) -> None:
        actors = self.stage.traffic.actors
        moment, ego = self.stage.at(seconds), self.stage.ego(seconds)
        heights = np.array([actor.model.size[2] for actor in actors])
        centres = moment.poses[:, :3] + np.array([0, 0, 0.5]) * heights[:, None]
        near = np.flatnonzero(np.linalg.norm(centres[:, :2] - ego.translation[:2], axis=1) < ANNOTATED_RADIUS)
        echoes = points[np.hypot(points[:, 0], points[:, 1]) > 1.0]
        counts = points_in_boxes(echoes, lidar_boxes(self.stage, moment, seconds)[near]).sum(axis=1)
        yaw = self.stage.to_global.yaw
        for n, count in zip(near, counts, strict=True):
            actor = actors[n]
            visibility = visibility_level(int(pictures.visible[n]), int(pictures.silhouette[n]))
            if count == 0 and visibility == "1":
                continue
            attribute = actor.attribute(seconds)
            length, width, height = actor.model.size
            self.rows["sample_annotation"].append(
                {
                    "token": self.token("annotation", int(n), k),
                    "sample_token": self.token("sample", k),
                    "instance_token": self.token("instance", int(n)),
                    "visibility_token": visibility,
                    "attribute_tokens": [attribute_token(attribute)] if attribute else [],
                    "translation": self.stage.to_global.apply(centres[n]).tolist(),
                    "size": [width, length, height],
                    "rotation": quaternion_from_yaw(float(moment.poses[n, 3]) + yaw),
                    "prev": "",
                    "next": "",
                    "num_lidar_pts": int(count),
                    "num_radar_pts": 0,
                }
            )

    def _link(self) -> None:
        """Chain the annotations of each instance."""
        chains: dict[str, list[Row]] = {}
        for row in self.rows["sample_annotation"]:
            chains.setdefault(row["instance_token"], []).append(row)
        for n, actor in enumerate(self.stage.traffic.actors):
            name = self.token("instance", n)
            chain = chains.get(name, [])
            if not chain:
                continue
            for before, after in pairwise(chain):
                before["next"], after["prev"] = after["token"], before["token"]
            self.rows["instance"].append(
                {
                    "token": name,
                    "category_token": category_token(actor.model.category),
                    "nbr_annotations": len(chain),
                    "first_annotation_token": chain[0]["token"],
                    "last_annotation_token": chain[-1]["token"],
                }
            )


def moment_of(timestamp: int) -> tuple[int, int]:
    """Number of the scene, and microseconds from its start, of a timestamp."""
    number = (timestamp - _EPOCH_US + _SCENE_GAP_US // 2) // _SCENE_GAP_US
    return number, timestamp - _EPOCH_US - number * _SCENE_GAP_US


def keyframe_us(k: int) -> int:
    """Time of a keyframe, microseconds from the scene's start."""
    return round(k * KEYFRAME_S * 1e6)


def sweep_times_us(k: int, sweeps: int) -> list[int]:
    """Times of the sweeps between the keyframe before and keyframe k; none before the first."""
    return [round((k - 1 + (j + 1) / (sweeps + 1)) * KEYFRAME_S * 1e6) for j in range(sweeps)] if k else []


def _sensors(job: SceneJob, stage: Stage, rig: tuple[Camera, ...], device: str) -> Sensors:
    if device == "cpu":
        return HostSensors(job, stage, rig)
    from aqr.synth.device.sensors import DeviceSensors  # only now: torch takes seconds

    return DeviceSensors(job, stage, rig, device)


def sensor_files(tables: Tables) -> Iterator[str]:
    """Names, relative to the root, of all files that a scene's rows refer to."""
    yield from (row["filename"] for row in tables["sample_data"])
    yield from (row["filename"] for row in tables["map"])


def _encoded(image: Image.Image, form: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def _jpeg(images: Sequence[npt.NDArray[np.uint8]], number: int) -> bytes:
    return _encoded(Image.fromarray(images[number]), "JPEG", quality=90)
