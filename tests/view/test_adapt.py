"""Scenes of batches and data sets."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from aqr.batch import Batch, Frame
from aqr.errors import InputError
from aqr.geometry import Pose, points_in_boxes
from aqr.view import scene_from_batch, scene_from_dataset, view_sample
from aqr.view.clipping import box_lines, project_lines


def a_batch() -> Batch:
    """Two samples, of 3 and 2 points and of 0 and 2 boxes; every number says which sample it is of."""
    frames = [
        Frame(name, 0, Pose.identity(), (0.0, 0.0, 0.0), tuple(map(tuple, (np.eye(4) * (n + 1)).tolist())))
        for n, name in enumerate(("first", "second"))
    ]
    images = torch.zeros(2, 1, 3, 4, 6, dtype=torch.uint8)
    images[1, 0, 2, 3, 5] = 77
    return Batch(
        points=torch.tensor([0.0, 0, 0, 1, 1])[:, None].expand(5, 5).contiguous(),
        point_counts=[3, 2],
        images=images,
        lidar2img=torch.stack([torch.eye(4), 2 * torch.eye(4)])[:, None],
        boxes=torch.ones(2, 9),
        labels=torch.tensor([4, 5]),
        box_counts=[0, 2],
        frames=frames,
    )


def test_scene_is_of_its_sample() -> None:
    detections = (torch.ones(1, 9, requires_grad=True), torch.tensor([3]), torch.tensor([0.5], dtype=torch.bfloat16))
    scene = scene_from_batch(a_batch(), 1, detections=detections, bev_weights=torch.ones(2, 3), queries=np.ones((4, 3)))
    assert scene.points.tolist() == [[1] * 5] * 2
    assert scene.true_labels.tolist() == [4, 5]
    assert scene.images[0].shape == (4, 6, 3)
    assert scene.images[0][3, 5].tolist() == [0, 0, 77]
    assert scene.lidar2img[0, 0, 0] == 2
    assert scene.title == "second"
    assert scene.augmentation[0, 0] == 2
    assert scene.detections is not None
    assert scene.detections.scores.tolist() == [0.5]
    first = scene_from_batch(a_batch(), 0)
    assert len(first.points) == 3
    assert len(first.true_boxes) == 0
    assert first.detections is None


def test_sample_beyond_the_batch() -> None:
    for index in (2, -1):
        with pytest.raises(IndexError, match="0 … 1"):
            scene_from_batch(a_batch(), index)


def test_weights_of_another_batch_are_refused() -> None:
    with pytest.raises(ValueError, match="image_weights"):
        scene_from_batch(a_batch(), 0, image_weights=torch.ones(2, 3, 4))


def test_real_frame(real_frame: Path, tmp_path: Path) -> None:
    paths = view_sample(real_frame, "v1.0-mini", tmp_path)
    assert [path.name.split("-")[1] for path in paths] == ["bev.png", "cameras.png"]
    for path in paths:
        assert path.stat().st_size < 1_500_000
        assert Image.open(path).width == 1400


def test_boxes_of_the_real_frame_cover_their_points_in_the_images(real_frame: Path) -> None:
    """The points inside a box, projected, lie within what is drawn of the box in that image."""
    scene = scene_from_dataset(real_frame, "v1.0-mini", split="mini_train")
    inside = points_in_boxes(scene.points, scene.true_boxes)
    checked = 0
    for image, matrix in zip(scene.images, scene.lidar2img, strict=True):
        height, width = image.shape[:2]
        for box, members in zip(scene.true_boxes, inside, strict=True):
            homogeneous = scene.points[members, :3] @ matrix[:3, :3].T + matrix[:3, 3]
            homogeneous = homogeneous[homogeneous[:, 2] > 0.5]
            pixels = homogeneous[:, :2] / homogeneous[:, 2:]
            pixels = pixels[((pixels >= 0) & (pixels < [width, height])).all(axis=1)]
            if len(pixels):
                drawn, _ = project_lines(box_lines(box[None])[0], matrix, (height, width))
                assert (pixels >= drawn.min(axis=(0, 1)) - 1e-3).all()
                assert (pixels <= drawn.max(axis=(0, 1)) + 1e-3).all()
                checked += len(pixels)
    assert checked > 700


def test_samples_by_token_and_number(real_frame: Path) -> None:
    by_number = scene_from_dataset(real_frame, "v1.0-mini", "0")
    token = by_number.title.split()[-1]
    by_token = scene_from_dataset(real_frame, "v1.0-mini", token, sweeps=10)
    assert by_token.title == by_number.title
    assert len(by_token.true_boxes) == 68
    with pytest.raises(InputError, match=r"no sample 'nonsense'.*token or a number"):
        scene_from_dataset(real_frame, "v1.0-mini", "nonsense")
    with pytest.raises(InputError, match=r"no sample number 7; the last is 0"):
        scene_from_dataset(real_frame, "v1.0-mini", 7, split="mini_train")
