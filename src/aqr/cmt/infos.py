"""mmdet3d's info files: what they say of every sample, in both forms, and whether the nuScenes tables say the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from aqr.cmt.unpickle import load_plain
from aqr.data.index import Index, open_index
from aqr.data.samples import lidar_boxes, projection
from aqr.errors import InputError
from aqr.geometry import CENTER, SIZE, YAW, L, Pose, W, wrap_angle
from aqr.taxonomy import CLASSES, LABEL_OF

Floats = npt.NDArray[np.float64]
Convention = Literal["mmdet3d-1", "mmdet3d-0"]

MEND: Final = "give an info file that mmdet3d wrote, such as nuscenes_infos_val.pkl"
LONG: Final = ("car", "truck", "bus", "trailer")
"""Classes whose length exceeds their width, by which the order of sizes is told."""

PIXELS: Final = 0.5
"""Projections that differ by less agree; the newer files hold float32."""
METRES: Final = 0.01
RADIANS: Final = 0.01


@dataclass(frozen=True)
class InfoSample:
    """What an info file says of one sample.

    Attributes:
        token: nuScenes sample token.
        lidar_path: as written.
        sweeps: paths of the earlier sweeps, as written.
        lidar_to_global: pose of the LiDAR in the map.
        lidar2img: by camera, [4, 4] LiDAR frame (m) to pixels of the full image.
        boxes: [N, 9] our boxes, LiDAR frame; NaN velocity where unknown.
        names: N class names; others than our ten may be among them.
        valid: [N] bool, false for boxes without a LiDAR or radar point.
    """

    token: str
    lidar_path: str
    sweeps: tuple[str, ...]
    lidar_to_global: Pose
    lidar2img: Mapping[str, Floats]
    boxes: Floats
    names: tuple[str, ...]
    valid: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class InfoFile:
    """An info file.

    Attributes:
        path: the file.
        form: `infos` (mmdet3d up to 1.0) or `data_list` (from 1.1 on).
        version: of the nuScenes tables, such as v1.0-trainval.
        convention: how the file writes sizes and angles; `boxes` of the samples are ours either way.
        samples: in the file's order.
    """

    path: Path
    form: Literal["infos", "data_list"]
    version: str
    convention: Convention
    samples: tuple[InfoSample, ...]


def read_infos(path: str | Path) -> InfoFile:
    """Read an info file of either form, without running anything that is in it.

    Raises:
        InputError: if the file is missing or damaged, asks for anything but plain values and NumPy arrays (which is
            named), or is no info file of nuScenes.
    """
    path = Path(path)
    content = load_plain(path, MEND)
    if not isinstance(content, dict) or not ("infos" in content or "data_list" in content):
        raise InputError(f"{path}: holds neither infos nor a data_list; {MEND}")
    form: Literal["infos", "data_list"] = "infos" if "infos" in content else "data_list"
    try:
        if form == "infos":
            version = str(content["metadata"]["version"])
            raw = [_old_sample(info) for info in content["infos"]]
        else:
            version = str(content["metainfo"]["version"])
            names = {number: name for name, number in content["metainfo"]["categories"].items() if number >= 0}
            raw = [_new_sample(info, names) for info in content["data_list"]]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: is not as mmdet3d writes it ({type(error).__name__}: {error}); {MEND}") from None
    convention = _convention(raw)
    samples = tuple(_with_our_boxes(sample, convention) for sample in raw)
    return InfoFile(path, form, version, convention, samples)


def _old_sample(info: Mapping[str, Any]) -> InfoSample:
    lidar2img = {}
    for name, camera in info["cams"].items():
        to_lidar = Pose(np.asarray(camera["sensor2lidar_rotation"]), np.asarray(camera["sensor2lidar_translation"]))
        lidar2img[name] = _intrinsic(camera["cam_intrinsic"]) @ to_lidar.inverse().matrix
    ego = Pose.from_quaternion(info["ego2global_rotation"], info["ego2global_translation"])
    count = len(info.get("gt_names", ()))
    return InfoSample(
        token=str(info["token"]),
        lidar_path=str(info["lidar_path"]),
        sweeps=tuple(str(sweep["data_path"]) for sweep in info["sweeps"]),
        lidar_to_global=ego @ Pose.from_quaternion(info["lidar2ego_rotation"], info["lidar2ego_translation"]),
        lidar2img=lidar2img,
        boxes=_rows(info.get("gt_boxes", ()), info.get("gt_velocity", ()), count),
        names=tuple(str(name) for name in info.get("gt_names", ())),
        valid=np.asarray(info.get("valid_flag", np.ones(count)), dtype=bool).reshape(count),
    )


def _new_sample(info: Mapping[str, Any], names: Mapping[int, str]) -> InfoSample:
    objects = info.get("instances", ())
    lidar2img = {
        name: _intrinsic(camera["cam2img"]) @ np.asarray(camera["lidar2cam"], dtype=np.float64)
        for name, camera in info["images"].items()
    }
    lidar = info["lidar_points"]
    return InfoSample(
        token=str(info["token"]),
        lidar_path=str(lidar["lidar_path"]),
        sweeps=tuple(str(sweep["lidar_points"]["lidar_path"]) for sweep in info.get("lidar_sweeps", ())),
        lidar_to_global=Pose.from_matrix(info["ego2global"]) @ Pose.from_matrix(lidar["lidar2ego"]),
        lidar2img=lidar2img,
        boxes=_rows([one["bbox_3d"] for one in objects], [one["velocity"] for one in objects], len(objects)),
        names=tuple(names.get(int(one["bbox_label_3d"]), "") for one in objects),
        valid=np.array([bool(one.get("bbox_3d_isvalid", True)) for one in objects], dtype=bool),
    )


def _intrinsic(matrix: Any) -> Floats:
    whole = np.eye(4)
    part = np.asarray(matrix, dtype=np.float64)[:3, :3]
    whole[: part.shape[0], : part.shape[1]] = part
    return whole


def _rows(boxes: Any, velocities: Any, count: int) -> Floats:
    """[N, 9] boxes as the file has them: place, two sizes and height, angle, velocity."""
    place = np.asarray(boxes, dtype=np.float64).reshape(count, -1)[:, :7]
    return np.concatenate([place, np.asarray(velocities, dtype=np.float64).reshape(count, -1)[:, :2]], 1).reshape(-1, 9)


def _convention(samples: Sequence[InfoSample]) -> Convention:
    """Which of the two sizes is the length, by the boxes of vehicles that are longer than wide."""
    votes = sum(
        (1 if first > second else -1)
        for sample in samples
        for name, (first, second) in zip(sample.names, sample.boxes[:, L : W + 1], strict=True)
        if name in LONG
    )
    return "mmdet3d-1" if votes >= 0 else "mmdet3d-0"


def _with_our_boxes(sample: InfoSample, convention: Convention) -> InfoSample:
    boxes = sample.boxes.copy()
    if convention == "mmdet3d-0":
        boxes[:, [L, W]] = boxes[:, [W, L]]
        boxes[:, YAW] = -boxes[:, YAW] - np.pi / 2
    boxes[:, YAW] = wrap_angle(boxes[:, YAW])
    return InfoSample(
        sample.token,
        sample.lidar_path,
        sample.sweeps,
        sample.lidar_to_global,
        sample.lidar2img,
        boxes,
        sample.names,
        sample.valid,
    )


@dataclass(frozen=True)
class InfoCheck:
    """How an info file compares with the nuScenes tables.

    Attributes:
        infos: the file.
        found: samples that the tables hold too.
        missing: tokens that they do not.
        differences: sentences, one per disagreement.
        boxes: boxes of the ten classes that were compared.
        pixels: largest difference of a projected point, pixels.
        metres: largest distance of two centres, or difference of two sizes.
    """

    infos: InfoFile
    found: int
    missing: tuple[str, ...]
    differences: tuple[str, ...]
    boxes: int
    pixels: float
    metres: float

    def lines(self) -> list[str]:
        """A short account for people."""
        file = self.infos
        lines = [
            f"{file.path}: {len(file.samples)} samples of {file.version} ({file.form}), boxes as {file.convention} "
            "writes them",
            f"{self.found} of them in the tables, {self.boxes} boxes; projections differ by at most {self.pixels:.3f} "
            f"pixels, boxes by at most {self.metres:.4f} m",
        ]
        lines += [f"  not in the tables: {token}" for token in self.missing[:5]]
        lines += [f"  {difference}" for difference in self.differences[:10]]
        rest = max(len(self.missing) - 5, 0) + max(len(self.differences) - 10, 0)
        return [*lines, f"  and {rest} more"] if rest else lines


def check_infos(path: str | Path, root: str | Path, version: str | None = None) -> InfoCheck:
    """Compare an info file with the tables that training reads: paths, projections and boxes.

    Args:
        path: info file of either form.
        root: data set folder.
        version: version folder; by default the one that the file names.

    Raises:
        InputError: if file or tables cannot be read.
    """
    infos = read_infos(path)
    index = open_index(root, version or infos.version)
    rows = {token.decode(): row for row, token in enumerate(index.samples.token)}
    differences: list[str] = []
    boxes, pixels, metres = 0, 0.0, 0.0
    present = [sample for sample in infos.samples if sample.token in rows]
    for sample in present:
        row = rows[sample.token]
        off_pixels = _projection_difference(index, row, sample)
        count, off_metres, off_angle = _box_difference(index, row, sample)
        pixels, boxes = max(pixels, off_pixels), boxes + count
        metres = metres if np.isinf(off_metres) else max(metres, off_metres)
        stored = index.scans.path[index.samples.scan[row]].decode()
        if PurePosixPath(stored).name != PurePosixPath(sample.lidar_path).name:
            differences.append(f"{sample.token}: LiDAR file {sample.lidar_path}, the tables name {stored}")
        if off_pixels > PIXELS:
            differences.append(f"{sample.token}: projections differ by {off_pixels:.2f} pixels")
        if np.isinf(off_metres):
            differences.append(f"{sample.token}: another number of boxes than the tables")
        elif off_metres > METRES or off_angle > RADIANS:
            differences.append(f"{sample.token}: boxes differ by {off_metres:.3f} m and {off_angle:.3f} rad")
    missing = tuple(sample.token for sample in infos.samples if sample.token not in rows)
    return InfoCheck(infos, len(present), missing, tuple(differences), boxes, pixels, metres)


def _projection_difference(index: Index, row: int, sample: InfoSample) -> float:
    """Largest distance between the pixels of points 10 m before each camera."""
    lidar_to_global = index.scan_to_global(int(index.samples.scan[row]))
    worst = 0.0
    for name, ours in sample.lidar2img.items():
        if name not in index.cameras:
            continue
        image = int(index.samples.image[row, index.cameras.index(name)])
        if image < 0:
            continue
        theirs = projection(index, image, lidar_to_global)
        seen = np.array([[u * 10.0, v * 10.0, 10.0, 1.0] for u in (0, 800, 1600) for v in (0, 450, 900)])
        points = seen @ np.linalg.inv(theirs).T
        again = points @ ours.T
        worst = max(worst, float(np.abs(again[:, :2] / again[:, 2:3] - seen[:, :2] / 10.0).max()))
    return worst


def _box_difference(index: Index, row: int, sample: InfoSample) -> tuple[int, float, float]:
    """Boxes of the ten classes: how many, and the largest differences in metres and radians to the nearest ones.

    Infinitely many metres where the tables have another number of them.
    """
    truth = index.ground_truth(np.array([row]))
    theirs = lidar_boxes(truth, index.scan_to_global(int(index.samples.scan[row]))).astype(np.float64)
    known = np.array([name in LABEL_OF for name in sample.names], dtype=bool)
    ours, names = sample.boxes[known], [name for name in sample.names if name in LABEL_OF]
    worst_metres = worst_angle = 0.0
    for label, name in enumerate(CLASSES):
        one = ours[[n == name for n in names]] if names else ours[:0]
        other = theirs[truth.label == label]
        if len(one) != len(other):
            return len(ours), float("inf"), 0.0
        if not len(one):
            continue
        distance = np.linalg.norm(one[:, None, CENTER] - other[None, :, CENTER], axis=-1)
        nearest = other[distance.argmin(1)]
        sizes = np.abs(one[:, SIZE] - nearest[:, SIZE])
        worst_metres = max(worst_metres, float(distance.min(1).max()), float(sizes.max()))
        turn = wrap_angle(one[:, YAW] - nearest[:, YAW])
        worst_angle = max(worst_angle, float(np.abs(turn).max()))
    return len(ours), worst_metres, worst_angle
