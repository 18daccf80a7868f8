"""Pictures, pixel by pixel where it matters."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from aqr.errors import InputError
from aqr.taxonomy import CLASSES
from aqr.view import Detections, Scene, WeightScale, draw_bev, draw_cameras, draw_sample
from aqr.view.page import write_png
from aqr.view.palette import CLASS_COLOURS, GROUND, TRUTH, rgb

RANGE = (-50.0, -50.0, -5.0, 50.0, 50.0, 3.0)
PANEL = 676
"""Pixels of a square panel: (1400 − 3 margins of 16) / 2."""
TOP = 68

CAMERA = np.array([[400.0, 400, 0, 0], [0, 160, -400, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
"""Looks along +y: u = 400·x/y + 400, v = 160 − 400·z/y, for pictures of 320 x 800."""


def box(*values: float) -> npt.NDArray[np.float64]:
    return np.array([[*values, 0.0, 0.0]])


def labels(*names: str) -> npt.NDArray[np.int64]:
    return np.array([CLASSES.index(name) for name in names])


def read(path: Path) -> npt.NDArray[np.int64]:
    return np.asarray(Image.open(path).convert("RGB")).astype(np.int64)


def bev_pixel(x: float, y: float, panel: int = 0) -> tuple[int, int]:
    """Row and column of the page where metres x, y stand."""
    left = 16 + panel * (PANEL + 16)
    return int(TOP + (50 - y) / 100 * PANEL), int(left + (x + 50) / 100 * PANEL)


def near(picture: npt.NDArray[np.int64], pixel: tuple[int, int], colour: str, reach: int = 1) -> bool:
    """Whether a pixel, or one that touches it, has a colour, anti-aliasing apart."""
    row, column = pixel
    patch = picture[row - reach : row + reach + 1, column - reach : column + reach + 1]
    return bool((abs(patch - np.array(rgb(colour))).sum(axis=-1) < 90).any())


def six_cameras(**changes: Any) -> Scene:
    photo = np.full((320, 800, 3), 120, dtype=np.uint8)
    return Scene(**{"images": (photo,), "lidar2img": CAMERA[None], "pc_range": RANGE, **changes})


def test_box_stands_where_it_is_from_above(tmp_path: Path) -> None:
    """x to the right, y up; the front of a box at yaw 0 looks to the right and bears the heading mark."""
    scene = Scene(true_boxes=box(20, 30, 0, 8, 4, 2, 0), true_labels=labels("car"), pc_range=RANGE)
    picture = read(draw_bev(scene, tmp_path / "bev.png"))
    assert picture.shape[1] == 1400
    for x, y in ((24, 31), (16, 31), (20, 32), (20, 28), (22, 30)):
        assert near(picture, bev_pixel(x, y), CLASS_COLOURS["car"]), (x, y)
    for x, y in ((18, 30), (22, 31), (30, 30), (20, -30), (-20, 30)):
        assert not near(picture, bev_pixel(x, y), CLASS_COLOURS["car"]), (x, y)


def test_ego_car_points_ahead(tmp_path: Path) -> None:
    picture = read(draw_bev(Scene(pc_range=RANGE), tmp_path / "bev.png"))
    assert near(picture, bev_pixel(0, 0), "#ffffff")
    assert near(picture, bev_pixel(0, 2), "#ffffff")
    assert not near(picture, bev_pixel(0, -2.5), "#ffffff")


def test_ego_car_follows_the_augmentation(tmp_path: Path) -> None:
    behind = np.diag([-1.0, -1.0, 1.0, 1.0])
    picture = read(draw_bev(Scene(pc_range=RANGE, augmentation=behind), tmp_path / "bev.png"))
    assert near(picture, bev_pixel(0, -2), "#ffffff")
    assert not near(picture, bev_pixel(0, 2.5), "#ffffff")


def test_points_are_brighter_the_higher(tmp_path: Path) -> None:
    cloud = np.array([[-30.0, 10, -2, 0, 0]] * 99 + [[30, 10, 1.9, 0, 0], [np.nan, 0, 0, 0, 0], [900, 0, 0, 0, 0]])
    picture = read(draw_bev(Scene(points=cloud, pc_range=RANGE), tmp_path / "bev.png"))
    low, high = (picture[bev_pixel(x, 10)].sum() for x in (-30, 30))
    ground = sum(rgb(GROUND))
    assert ground + 60 < low < high - 200
    assert picture[bev_pixel(5, 35)].sum() == ground


def test_predictions_over_ground_truth(tmp_path: Path) -> None:
    """Truth is white; predictions wear their class; what scores too little is left out."""
    found = Detections(
        np.concatenate([box(-20, 20, 0, 8, 4, 2, 0), box(-20, -20, 0, 8, 4, 2, 0)]),
        labels("bus", "bus"),
        np.array([0.99, 0.2]),
    )
    scene = Scene(true_boxes=box(20, 20, 0, 8, 4, 2, 0), true_labels=labels("car"), detections=found, pc_range=RANGE)
    picture = read(draw_bev(scene, tmp_path / "bev.png", min_score=0.25))
    assert near(picture, bev_pixel(20, 22), "#d0d2d4")
    assert not near(picture, bev_pixel(20, 22), CLASS_COLOURS["car"])
    assert near(picture, bev_pixel(-20, 22), CLASS_COLOURS["bus"])
    assert not near(picture, bev_pixel(-20, -22), CLASS_COLOURS["bus"], reach=3)
    every = read(draw_bev(scene, tmp_path / "bev.png", min_score=0.0))
    bright, faint = (every[bev_pixel(-20, y)].max() for y in (22, -22))
    assert rgb(GROUND)[2] + 20 < faint < bright - 40


@pytest.mark.parametrize("neutral", [0.0, 1.0])
def test_weight_map_from_above(tmp_path: Path, neutral: float) -> None:
    """Row 0 of the map is y_min, column 0 is x_min; neutral cells show the ground."""
    weights = np.full((10, 20), neutral)
    weights[8, 2] = 2.0
    weights[1, 2] = 0.6
    scene = Scene(bev_weights=weights, weight_scale=WeightScale(neutral, 2.0), pc_range=RANGE)
    picture = read(draw_bev(scene, tmp_path / "bev.png"))
    ahead, behind, nowhere = (picture[bev_pixel(x, y, 1)] for x, y in ((-37.5, 35), (-37.5, -35), (12.5, 27)))
    assert ahead.sum() > 500
    assert nowhere.tolist() == list(rgb(GROUND))
    assert behind.sum() > 150
    if neutral == 1.0:
        assert behind[2] > behind[0] + 60
        assert ahead[0] > ahead[2] + 60


def test_box_stands_where_it_is_in_the_image(tmp_path: Path) -> None:
    """Its back face, 9 m away and 4 x 2 m, spans u = 400 ± 89, v = 160 ± 44 in the image, shown 1368 wide."""
    scene = six_cameras(true_boxes=box(0, 10, 0, 2, 4, 2, np.pi / 2), true_labels=labels("truck"))
    picture = read(draw_cameras(scene, tmp_path / "cameras.png"))
    scale = 1368 / 800
    for u, v in ((400 + 4e2 * 2 / 9, 170), (400 - 4e2 * 2 / 9, 170), (380, 160 + 4e2 / 9), (380, 160 - 4e2 / 11)):
        assert near(picture, (int(TOP + v * scale), int(16 + u * scale)), CLASS_COLOURS["truck"]), (u, v)
    for u, v in ((600, 170), (200, 170), (400, 300)):
        assert not near(picture, (int(TOP + v * scale), int(16 + u * scale)), CLASS_COLOURS["truck"]), (u, v)


def test_image_weights(tmp_path: Path) -> None:
    """A cell of the map tints its part of the grey picture below; the rest stays grey."""
    weights = np.zeros((1, 4, 10))
    weights[0, 3, 9] = 2.0
    picture = read(draw_cameras(six_cameras(image_weights=weights), tmp_path / "cameras.png"))
    height = round(1368 / 800 * 320)
    top = TOP + height + 14
    tinted = picture[top + height - 20, 16 + 1368 - 20]
    grey = picture[top + height - 20, 16 + 1368 - 200]
    assert tinted[0] > tinted[2] + 50
    assert grey.max() - grey.min() <= 2


@pytest.mark.parametrize("count", [1, 5, 6, 12])
def test_any_number_of_cameras(tmp_path: Path, count: int) -> None:
    turn = np.linspace(0, 2 * np.pi, count, endpoint=False)
    cameras = np.array([CAMERA] * count)
    for camera, angle in zip(cameras, turn, strict=True):
        rotation = np.eye(4)
        rotation[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        camera[:] = CAMERA @ rotation
    shades = tuple(np.full((32, 80, 3), 15 + 19 * view, dtype=np.uint8) for view in range(count))
    scene = Scene(images=shades, lidar2img=cameras, true_boxes=box(0, 10, 0, 2, 4, 2, 0), true_labels=labels("bus"))
    picture = read(draw_cameras(scene, tmp_path / "cameras.png"))
    for view in range(count):
        shade = (15 + 19 * view) & 0xFC | 2
        assert (picture == shade).all(axis=-1).sum() > 2000, f"camera {view} is not to be seen"


def test_images_of_different_sizes(tmp_path: Path) -> None:
    photos = (np.full((320, 800, 3), 90, np.uint8), np.full((900, 900, 3), 150, np.uint8))
    scene = Scene(images=photos, lidar2img=np.stack([CAMERA, CAMERA]), camera_names=("A", "B"))
    assert read(draw_cameras(scene, tmp_path / "cameras.png")).shape[1] == 1400


def test_sample_without_camera_has_one_picture(tmp_path: Path) -> None:
    assert [path.name for path in draw_sample(Scene(), tmp_path, "s")] == ["s-bev.png"]
    with pytest.raises(ValueError, match="no image"):
        draw_cameras(Scene(), tmp_path / "cameras.png")


def test_sample_with_cameras_has_two(tmp_path: Path) -> None:
    paths = draw_sample(six_cameras(), tmp_path / "new" / "folder", "s")
    assert [path.name for path in paths] == ["s-bev.png", "s-cameras.png"]
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == ["s-bev.png", "s-cameras.png"]


def test_drawing_again_gives_the_same_file(tmp_path: Path) -> None:
    scene = six_cameras(true_boxes=box(0, 10, 0, 2, 4, 2, 1), true_labels=labels("bus"), title="a $title$ with_signs")
    first = [path.read_bytes() for path in draw_sample(scene, tmp_path, "a")]
    second = [path.read_bytes() for path in draw_sample(scene, tmp_path, "b")]
    assert first == second


def test_interrupted_writing_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(InputError, match="No space left"):
        draw_bev(Scene(), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be written.*another folder"):
        draw_bev(Scene(), tmp_path / "file" / "bev.png")


def test_large_pictures_are_reduced(tmp_path: Path) -> None:
    """Noise cannot be compressed: 900 x 900 in full colour is 2.4 MB."""
    noise = np.random.default_rng(0).integers(0, 256, (900, 900, 3), dtype=np.uint8)
    path = write_png(noise, tmp_path / "noise.png")
    assert path.stat().st_size < 1_400_000
    assert abs(read(path) - noise).mean() < 40


GOOD: dict[str, Any] = {
    "points": np.zeros((3, 5)),
    "images": (np.zeros((4, 6, 3), np.uint8),) * 2,
    "lidar2img": np.stack([CAMERA] * 2),
    "true_boxes": np.ones((2, 9)),
    "true_labels": np.zeros(2, np.int64),
    "bev_weights": np.zeros((3, 4)),
    "image_weights": np.zeros((2, 3, 4)),
    "queries": np.zeros((5, 3)),
}


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("points", np.zeros((3, 2)), "points"),
        ("images", (np.zeros((4, 6, 3), np.float32),) * 2, "uint8"),
        ("images", (np.zeros((3, 4, 6), np.uint8),) * 2, "image 0"),
        ("images", (np.zeros((4, 6, 3), np.uint8),), "1 images need lidar2img"),
        ("camera_names", ("one",), "camera names"),
        ("lidar2img", np.eye(4), "lidar2img"),
        ("true_boxes", np.ones((2, 8)), "true boxes"),
        ("true_labels", np.zeros(3, np.int64), "as many labels"),
        ("true_labels", np.array([0, 10]), r"0 … 9"),
        ("bev_weights", np.zeros((1, 3, 4)), "bev_weights"),
        ("image_weights", np.zeros((3, 3, 4)), "image_weights"),
        ("queries", np.zeros((5, 2)), "queries"),
        ("pc_range", (0.0, 0.0, 0.0, 0.0, 1.0, 1.0), "empty"),
        ("augmentation", np.eye(3), "augmentation"),
    ],
)
def test_shapes_that_do_not_fit(field: str, value: Any, words: str) -> None:
    scene = Scene(**GOOD)
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(scene, **{field: value})


def test_detections_and_scales_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="as many scores"):
        Detections(np.ones((2, 9)), np.zeros(2, np.int64), np.zeros(3))
    with pytest.raises(ValueError, match="as many labels"):
        Detections(np.ones((2, 9)), np.zeros(1, np.int64), np.zeros(2))
    with pytest.raises(ValueError, match="neutral"):
        WeightScale(0.5, 2.0)
    with pytest.raises(ValueError, match="clamp"):
        WeightScale(0.0, 0.9)


def test_weight_scales() -> None:
    """Sigmoid is linear from 0 to the clamp; centred is logarithmic about 1, so that x and 1/x mirror each other."""
    np.testing.assert_allclose(WeightScale(0.0, 2.5).level(np.array([0, 1.25, 2.5, 9, np.nan])), [0, 0.5, 1, 1, 0])
    centred = WeightScale(1.0, 2.0).level(np.array([0.5, 2**-0.5, 1, 2**0.5, 2, np.nan, 0]))
    np.testing.assert_allclose(centred, [-1, -0.5, 0, 0.5, 1, 0, -1], atol=1e-12)


def test_white_is_kept_for_ground_truth() -> None:
    assert TRUTH not in CLASS_COLOURS.values()
    assert set(CLASS_COLOURS) == set(CLASSES)


MACHADO = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
"""Colour-vision deficiency in linear RGB (Machado, Oliveira and Fernandes, 2009, severity 1)."""


@pytest.mark.parametrize("sight", sorted(MACHADO))
def test_class_colours_can_be_told_apart(sight: str) -> None:
    """OKLab distance of at least 0.09 between any two; tab10, for comparison, has 0.007 in protanopia."""
    colours = np.array([rgb(colour) for colour in CLASS_COLOURS.values()]) / 255
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(MACHADO[sight]).T, 0, 1)
    to_lms = [[0.4122215, 0.5363325, 0.0514460], [0.2119035, 0.6806995, 0.1073970], [0.0883025, 0.2817188, 0.6299787]]
    to_lab = [
        [0.2104543, 0.7936178, -0.0040720],
        [1.9779985, -2.4285922, 0.4505937],
        [0.0259040, 0.7827718, -0.8086758],
    ]
    lab = np.cbrt(seen @ np.array(to_lms).T) @ np.array(to_lab).T
    distance = np.linalg.norm(lab[:, None] - lab[None], axis=-1) + 9 * np.eye(len(lab))
    assert distance.min() > 0.09
