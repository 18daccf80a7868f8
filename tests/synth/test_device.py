"""The renderer for GPUs against the NumPy renderer; where there is no GPU, the kernel runs in Triton's interpreter."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from aqr.data.images import ImageTransform, transformed
from aqr.errors import InputError
from aqr.geometry import Pose
from aqr.synth import camera as pinhole
from aqr.synth.camera import View, render
from aqr.synth.device import Pool, Renderer, Shot, Sight
from aqr.synth.device import renderer as rendering
from aqr.synth.device.cast import Views, cast
from aqr.synth.device.film import blurred
from aqr.synth.device.pool import Moments, lidar_poses, turns
from aqr.synth.device.shadows import Shadows
from aqr.synth.device.views import eyes_at, lidar_views
from aqr.synth.lidar import sweep
from aqr.synth.presets import Preset
from aqr.synth.recorder import record
from aqr.synth.rig import LIDAR_TO_EGO, Camera, draw_rig
from aqr.synth.sensors import SceneJob
from aqr.synth.shadows import ShadowPainter
from aqr.synth.stage import Stage, build_stage
from aqr.synth.weather import KINDS
from aqr.synth.world import gpus, write_world

SIZE = (99, 176)
TIME_US = 1_500_000
SECONDS = TIME_US * 1e-6
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROUNDING = 0 if DEVICE == "cpu" else 3
"""Pixels of an object that rounding on a GPU may decide otherwise."""


@cache
def scenes() -> tuple[list[Stage], list[tuple[Camera, ...]], Renderer, Moments]:
    """A scene of every kind of weather, half of them with left-hand traffic or not as they come."""
    stages = [build_stage((seed, 103), 6, (kind,)) for seed, kind in enumerate(KINDS)]
    rigs = [draw_rig(np.random.default_rng(seed)) for seed in range(len(stages))]
    renderer = Renderer(Pool(stages, rigs, DEVICE), threads=1)
    return stages, rigs, renderer, renderer.moments([Shot(place, TIME_US) for place in range(len(stages))])


@cache
def shadows() -> Shadows:
    _, _, renderer, moments = scenes()
    return renderer.shadows(moments)


def sight(place: int, camera: int, matrix: np.ndarray | None = None) -> Sight:
    return Sight(place, camera, SIZE, np.eye(3) if matrix is None else matrix, np.random.default_rng(camera))


@cache
def by_numpy(place: int, camera: int) -> View:
    stages, rigs, _, _ = scenes()
    stage, mounted = stages[place], rigs[place][camera]
    painted = ShadowPainter(stage).paint(stage.at(SECONDS), stage.ego(SECONDS))
    ego = stage.ego(SECONDS + mounted.delay_us * 1e-6)
    return render(
        stage, stage.at(SECONDS), painted, ego @ mounted.to_ego, ego, mounted.intrinsic(SIZE), SIZE,
        np.random.default_rng(camera),
    )  # fmt: skip


@pytest.mark.parametrize("place", range(len(KINDS)))
def test_pictures_and_counts_are_those_of_numpy(place: int) -> None:
    _, _, renderer, moments = scenes()
    cameras = (place % 6, (place + 3) % 6)
    images, look = renderer.pictures(moments, shadows(), [sight(place, camera) for camera in cameras], SIZE, count=True)
    assert look is not None
    for v, camera in enumerate(cameras):
        view = by_numpy(place, camera)
        actors = len(view.visible)
        assert np.abs(look.silhouette[v, :actors] - view.silhouette).max() <= ROUNDING
        assert np.abs(look.visible[v, :actors] - view.visible).max() <= ROUNDING
        gap = np.abs(images[v].permute(1, 2, 0).cpu().numpy().astype(int) - view.image).max(axis=2)
        assert np.median(gap) == 0
        assert (gap > 8).mean() < 0.02, "edges of shadows may lie a cell of 0.2 m aside, nothing else may differ"
    assert sum(int(by_numpy(place, camera).visible.sum()) for camera in cameras) > 50


def test_sweeps_are_those_of_numpy() -> None:
    stages, _, renderer, moments = scenes()
    found = renderer.sweeps(moments, [np.random.default_rng(place) for place in range(len(stages))]).cpu().numpy()
    for place, stage in enumerate(stages):
        lidar = stage.ego(SECONDS) @ LIDAR_TO_EGO
        points = sweep(stage, stage.at(SECONDS), lidar, np.random.default_rng(place))
        moved = np.abs(found[place, :, :3] - points[:, :3]).max(axis=1) > 1e-3
        assert moved.mean() < 1e-3, "only grazing rays may differ"
        assert (np.abs(found[place, :, 3] - points[:, 3]) > 1).mean() < 1e-3
        assert np.array_equal(found[place, :, 4], points[:, 4])


def test_shadows_are_those_of_the_painter() -> None:
    stages = scenes()[0]
    sunny = 0
    for place, stage in enumerate(stages):
        painted = ShadowPainter(stage).paint(stage.at(SECONDS), stage.ego(SECONDS))
        assert np.allclose(shadows().origin[place].cpu().numpy(), painted.origin, atol=1e-9)
        sun, sky = shadows().sun[place].cpu().numpy(), shadows().sky[place].cpu().numpy()
        assert (np.abs(sun - painted.sun) > 0.4).mean() < 2e-3
        assert (np.abs(sky - painted.sky) > 0.4).mean() < 1e-3
        sunny += int((painted.sun < 0.5).mean() > 0.1)
        bare = ShadowPainter(stage).scenery
        if stage.weather.sun.max() > 0.5:
            assert np.asarray(bare).mean() < 255
            moving = (painted.sun < 0.5).sum() - (np.asarray(_crop(bare, painted.origin, stage)) < 128).sum()
            missing = (painted.sun < 0.5).sum() - (sun < 0.5).sum()
            assert moving > 200
            assert abs(missing) < 0.3 * moving, "actors throw shadows of the painter's size"
    assert sunny


def _crop(image: Image.Image, origin: tuple[float, float], stage: Stage) -> Image.Image:
    left, low = (round((origin[i] - stage.street.ground.origin[i]) / 0.2) for i in (0, 1))
    return image.crop((left, low, left + 640, low + 640))


def camera_views() -> Views:
    _, _, renderer, moments = scenes()
    size = (20, 40)
    sights = [Sight(0, camera, size, np.eye(3), np.random.default_rng(0)) for camera in (0, 3)]
    _, views, _ = renderer._open(moments, sights, size)
    return views


def narrow(views: Views, solids: int) -> Views:
    """The nearest solids only: the interpreter is slow."""
    return replace(views, number=views.number.clamp(max=solids))


def only(views: Views, places: list[int]) -> Views:
    """Some solids of a single view."""
    return replace(
        views,
        counts=views.counts[:, places],
        windows=views.windows[:, places],
        order=views.order[:, places],
        limits=views.limits[:, places],
        owners=views.owners[:, places],
        planes=views.planes[:, views.order[0, places].long()],
        number=torch.full_like(views.number, len(places)),
    )


@pytest.mark.parametrize("silhouettes", [False, True])
def test_kernel_draws_what_is_drawn_plainly(silhouettes: bool) -> None:
    pytest.importorskip("triton")
    views = narrow(camera_views(), 20)
    plain, kernel = cast(views, silhouettes, plainly=True), cast(views, silhouettes, plainly=False)
    assert (plain.code != kernel.code).float().mean() <= (0 if DEVICE == "cpu" else 1e-3)
    alike = plain.code == kernel.code
    assert torch.allclose(plain.inverse[alike], kernel.inverse[alike], rtol=1e-5, atol=1e-7)
    assert len(plain.code.unique()) > 8
    if silhouettes:
        assert plain.silhouette is not None
        assert kernel.silhouette is not None
        assert int((plain.silhouette - kernel.silhouette).abs().max()) <= ROUNDING
        assert int((plain.silhouette > 0).sum()) >= 3


def test_kernel_wraps_lidar_columns() -> None:
    cast_kernel = pytest.importorskip("aqr.synth.device.cast_kernel")
    _, _, renderer, moments = scenes()
    pose = lidar_poses(moments.ego[:1])
    eyes = eyes_at(renderer.pool, [0], turns(pose[:, 3]), pose[:, :3])
    views = lidar_views(renderer.pool, moments, eyes)
    ends = views.windows[0, : int(views.number[0]), 3]
    across = torch.nonzero(ends > views.columns.shape[1])[:3, 0].tolist()
    assert across, "some solid lies across the seam"
    views = only(views, sorted({0, 1, *across}))
    views = replace(views, order=torch.arange(views.order.shape[1], dtype=torch.int32, device=DEVICE)[None])
    plain, kernel = cast(views, plainly=True), cast_kernel.launch(views, False, tile=(32, 128))
    assert (plain.code != kernel.code).float().mean() <= (0 if DEVICE == "cpu" else 1e-3)
    seam = plain.code[0][:, [0, -1]]
    assert bool((seam >= 0).any(0).all())


def test_a_picture_does_not_depend_on_what_else_is_taken() -> None:
    _, _, renderer, moments = scenes()
    together, _ = renderer.pictures(moments, shadows(), [sight(place, 1) for place in range(len(KINDS))], SIZE)
    for place in (2, 4):
        alone = renderer.moments([Shot(place, TIME_US)])
        own = replace(sight(place, 1), moment=0)
        image, _ = renderer.pictures(alone, renderer.shadows(alone), [own], SIZE)
        assert torch.equal(image[0], together[place])


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("left", "top"), [(0, 35), (12, 40), (-20, 60)])
def test_shifted_and_mirrored_pictures_are_cut_out_of_the_whole(flip: bool, left: int, top: int) -> None:
    _, _, renderer, moments = scenes()
    place = list(KINDS).index("Day, rain")
    transform = ImageTransform(SIZE, SIZE, top=top, left=left, size=(64, 160), flip=flip)
    whole, _ = renderer.pictures(moments, shadows(), [sight(place, 0)], SIZE)
    part, _ = renderer.pictures(moments, shadows(), [sight(place, 0, transform.matrix)], transform.size)
    wanted = transformed(Image.fromarray(whole[0].permute(1, 2, 0).cpu().numpy()), transform)
    gap = np.abs(part[0].cpu().numpy().astype(int) - wanted).max(axis=0)
    assert (gap > 12).mean() < 0.03, "drops blur less of what lies beyond the edge of the part"
    assert (wanted == 0).all(axis=0).mean() == pytest.approx((part[0].cpu().numpy() == 0).all(axis=0).mean(), abs=1e-3)


def test_a_zoomed_picture_shows_things_where_the_matrix_says() -> None:
    _, _, renderer, moments = scenes()
    place = list(KINDS).index("Clear day")
    big = ImageTransform(SIZE, (198, 352), top=0, left=0, size=(198, 352))
    _, look = renderer.pictures(moments, shadows(), [sight(place, 0)], SIZE, count=True)
    _, twice = renderer.pictures(moments, shadows(), [sight(place, 0, big.matrix)], big.size, count=True)
    assert look is not None
    assert twice is not None
    seen = look.silhouette[0] > 100
    assert seen.sum() >= 3
    assert np.allclose(twice.silhouette[0][seen] / look.silhouette[0][seen], 4.0, rtol=0.15)


def test_blur_is_that_of_pillow() -> None:
    images, radii = np.random.default_rng(0).integers(0, 256, (3, 60, 90, 3)).astype(np.uint8), (1.3, 5.87, 26.7)
    found = blurred(torch.from_numpy(images).permute(0, 3, 1, 2).to(DEVICE), radii).permute(0, 2, 3, 1).cpu().numpy()
    for image, radius, own in zip(images, radii, found, strict=True):
        wanted = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius))).astype(int)
        assert np.abs(own - wanted).max() <= 1


def test_drops_are_blurred_as_if_all_of_the_image_were(monkeypatch: pytest.MonkeyPatch) -> None:
    for size in ((24, 40), (99, 176), (396, 704)):
        for seed in range(6):
            found = np.asarray(pinhole.draw_drops(size, np.random.default_rng(seed)))
            with monkeypatch.context() as patch:
                patch.setattr(pinhole, "_box_around", lambda spot, margin, size: (0, 0, size[1], size[0]))
                wanted = np.asarray(pinhole.draw_drops(size, np.random.default_rng(seed)))
            assert wanted.max() > 100
            assert np.array_equal(found, wanted)


def test_shading_kernel_colours_what_is_coloured_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = pytest.importorskip("aqr.synth.device.shade_kernel")
    _, _, renderer, moments = scenes()
    size = (48, 80)
    matrix = np.diag([size[1] / SIZE[1], size[0] / SIZE[0], 1.0])
    monkeypatch.setattr(rendering, "SHARP", 0.1)
    if DEVICE == "cpu":  # the interpreter is slow
        monkeypatch.setattr(kernel, "BLOCK", 4096)
        monkeypatch.setattr(rendering, "cast", lambda views, silhouettes, plainly: cast(views, silhouettes))
    plain, fast = (
        renderer.pictures(
            moments, shadows(), [sight(v, v % 2, matrix) for v in range(len(KINDS))], size, plainly=plainly
        )[0].int()
        for plainly in (True, False)
    )
    gap = (plain - fast).abs().amax(1)
    assert gap.amax() <= (1 if DEVICE == "cpu" else 255)
    assert (gap > 1).float().mean() < (1e-9 if DEVICE == "cpu" else 1e-3)
    assert plain.float().std(dim=(1, 2, 3)).min() > 10


def test_small_pictures_are_averages_of_larger_ones() -> None:
    _, _, renderer, moments = scenes()
    small = ImageTransform(SIZE, (48, 86), top=8, left=3, size=(40, 80), flip=True)
    third = np.diag([2.0, 2.0, 1.0]) @ small.matrix
    place = list(KINDS).index("Night")
    together = [sight(place, 0, small.matrix), sight(place, 1), sight(place, 0, small.matrix)]
    found = renderer.pictures(moments, shadows(), together, small.size)[0]
    large = renderer.pictures(moments, shadows(), [sight(place, 0, third)], (80, 160))[0][0].float()
    wanted = large.view(3, 40, 2, 80, 2).mean(dim=(2, 4))
    assert torch.equal(found[0], (wanted + 0.5).to(torch.uint8))
    assert torch.equal(found[0], found[2])
    assert torch.equal(found[1], renderer.pictures(moments, shadows(), [sight(place, 1)], small.size)[0][0])


def test_a_recorded_scene_has_the_same_truth_and_bytes_twice(tmp_path: Path) -> None:
    job = SceneJob("scene-0103", 2, Preset(2, (54, 96), 1, 1))
    by_torch, again, host = (
        record(job, tmp_path / name, lambda: None, device)
        for name, device in (("torch", "cpu:0"), ("again", "cpu:0"), ("numpy", "cpu"))
    )
    assert by_torch == again == host
    files = [row["filename"] for row in host["sample_data"]]
    assert all((tmp_path / "torch" / f).read_bytes() == (tmp_path / "again" / f).read_bytes() for f in files)
    points = [f for f in files if f.endswith(".bin")]
    assert len(points) == 3
    for name in points:
        gap = np.fromfile(tmp_path / "torch" / name, np.float32) - np.fromfile(tmp_path / "numpy" / name, np.float32)
        assert (np.abs(gap.reshape(-1, 5)[:, :3]).max(axis=1) > 1e-3).mean() < 1e-3


def test_weather_can_be_chosen(tmp_path: Path) -> None:
    kinds = ("Night", "Day, fog")
    assert {build_stage((seed, 1), 2, kinds).weather.words for seed in range(5)} == set(kinds)
    with pytest.raises(InputError, match="weather 'Hail' is unknown; choose among 'Clear day'"):
        write_world(tmp_path, scenes=1, weather=("Hail",))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_here_is_one_sentence(tmp_path: Path) -> None:
    for device in ("cuda", "cuda:1", "tpu"):
        with pytest.raises(InputError, match=f"device '{device}' is not here"):
            write_world(tmp_path / "world", scenes=1, device=device)
    assert not (tmp_path / "world").exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpus_are_named() -> None:
    assert gpus("cuda")[0] == "cuda:0"


def test_poses_of_the_lidar_are_those_of_the_rig() -> None:
    ego = np.array([[3.0, -2.0, 0.0, 0.7]])
    turn = turns(ego[:, 3])[0]
    wanted = Pose(turn, ego[0, :3]) @ LIDAR_TO_EGO
    found = lidar_poses(ego)[0]
    assert np.allclose(found[:3], wanted.translation)
    assert np.allclose(turns(found[3:])[0], wanted.rotation)
