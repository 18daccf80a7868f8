"""Scenes from a batch that a detector read, and from a data set on disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from aqr.errors import InputError
from aqr.view.scene import DEFAULT_RANGE, Detections, Scene, WeightScale

if TYPE_CHECKING:
    from torch import Tensor

    from aqr.batch import Batch
    from aqr.data.index import Index

Values: TypeAlias = "npt.NDArray[Any] | Tensor"


def scene_from_batch(
    batch: Batch,
    index: int,
    *,
    detections: tuple[Values, Values, Values] | None = None,
    bev_weights: Values | None = None,
    image_weights: Values | None = None,
    weight_scale: WeightScale | None = None,
    queries: Values | None = None,
    camera_names: tuple[str, ...] = (),
    pc_range: tuple[float, float, float, float, float, float] = DEFAULT_RANGE,
    title: str | None = None,
) -> Scene:
    """What there is to see of one sample of a batch. Arrays and tensors on any device will do.

    Args:
        batch: as the detector read it.
        index: which sample of it.
        detections: boxes [M, 9], labels [M], scores [M] of this sample, in the batch's LiDAR frame.
        bev_weights: [Hb, Wb] of this sample.
        image_weights: [V, Hi, Wi] of this sample.
        weight_scale: how the weights are read; by default neutral 0, clamp 2.
        queries: [Q, 3] metres.
        camera_names: V names.
        pc_range: of the detector.
        title: by default the sample token.

    Raises:
        ValueError: where shapes do not fit together.
        IndexError: where the batch has no such sample.
    """
    if not 0 <= index < len(batch):
        raise IndexError(f"the batch has samples 0 … {len(batch) - 1}, not {index}")
    point = sum(batch.point_counts[:index])
    box = sum(batch.box_counts[:index])
    last_point, last_box = point + batch.point_counts[index], box + batch.box_counts[index]
    return Scene(
        points=_array(batch.points[point:last_point]),
        images=tuple(np.ascontiguousarray(image.transpose(1, 2, 0)) for image in _array(batch.images[index])),
        camera_names=camera_names,
        lidar2img=_array(batch.lidar2img[index]),
        true_boxes=_array(batch.boxes[box:last_box]),
        true_labels=_array(batch.labels[box:last_box]),
        detections=None if detections is None else Detections(*(_array(part) for part in detections)),
        bev_weights=None if bev_weights is None else _array(bev_weights),
        image_weights=None if image_weights is None else _array(image_weights),
        weight_scale=WeightScale() if weight_scale is None else weight_scale,
        queries=None if queries is None else _array(queries),
        pc_range=pc_range,
        title=batch.frames[index].sample_token if title is None else title,
        augmentation=np.array(batch.frames[index].augmentation),
    )


def _array(values: Values) -> npt.NDArray[Any]:
    if isinstance(values, np.ndarray):
        return values
    plain = values.detach().cpu()
    return np.asarray((plain.float() if plain.is_floating_point() else plain).numpy())


def scene_from_dataset(
    root: str | Path,
    version: str,
    sample: str | int = 0,
    *,
    split: str | None = None,
    sweeps: int = 0,
    pc_range: tuple[float, float, float, float, float, float] = DEFAULT_RANGE,
) -> Scene:
    """A sample of a data set with its ground truth: all its cameras at full size, all boxes of the ten classes.

    Args:
        root: data set folder.
        version: version folder in it, such as `v1.0-mini`.
        sample: a sample token, or a number counted from 0 within the split.
        split: official split; by default all samples of the version, in table order.
        sweeps: number of earlier LiDAR sweeps added to the keyframe.
        pc_range: what the bird's-eye view shows.

    Raises:
        InputError: where the data set cannot be read or has no such sample.
    """
    from aqr.data.index import open_index
    from aqr.data.points import load_points
    from aqr.data.samples import frame_of, lidar_boxes, projection

    index = open_index(root, version)
    row = _row(index, sample, split)
    frame = frame_of(index, row)
    truth = index.ground_truth(np.array([row]))
    views = [(name, int(image)) for name, image in zip(index.cameras, index.samples.image[row], strict=True)]
    views = [(name, image) for name, image in views if image >= 0]
    projections = [projection(index, image, frame.lidar_to_global) for _, image in views]
    return Scene(
        points=load_points(index, row, sweeps),
        images=tuple(_read_image(index, image) for _, image in views),
        camera_names=tuple(name for name, _ in views),
        lidar2img=np.array(projections).reshape(-1, 4, 4),
        true_boxes=lidar_boxes(truth, frame.lidar_to_global),
        true_labels=truth.label,
        pc_range=pc_range,
        title=f"{index.scenes.name[index.samples.scene[row]].decode()} · {frame.sample_token}",
    )


def _row(index: Index, sample: str | int, split: str | None) -> int:
    rows = np.arange(len(index)) if split is None else index.split(split)
    among = f"{index.version}" if split is None else f"split {split!r} of {index.version}"
    if isinstance(sample, str):
        found = rows[index.samples.token[rows] == sample.encode()]
        if len(found):
            return int(found[0])
        if not sample.isdecimal():
            raise InputError(f"{index.root}: {among} has no sample {sample!r}; give a sample token or a number")
    number = int(sample)
    if not 0 <= number < len(rows):
        raise InputError(f"{index.root}: {among} has no sample number {number}; the last is {len(rows) - 1}")
    return int(rows[number])


def _read_image(index: Index, image: int) -> npt.NDArray[np.uint8]:
    from aqr.data.images import place, read_image

    height, width = (int(n) for n in index.images.size[image])
    path = index.root / index.images.path[image].decode()
    if height < 1 or width < 1:
        raise InputError(f"{path}: sample_data.json states no width and height for it; mend the table")
    pixels = read_image(path, place((height, width), (height, width)))
    return np.ascontiguousarray(pixels.transpose(1, 2, 0))
