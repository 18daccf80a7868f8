"""Camera failures against closed formulas and counted pixels."""

import io

import numpy as np
import pytest
from PIL import Image

from aqr.data.failures import camera
from aqr.data.failures.catalogue import KIND_OF, Failure
from aqr.data.failures.harm import Corruption


@pytest.fixture
def picture() -> camera.Picture:
    """Gradients, an edge and texture, 90 x 160."""
    down, across = np.mgrid[0:90, 0:160]
    levels = np.stack([across * 1.5, down * 2.5, (across // 8 + down // 8) % 2 * 120 + 60], axis=-1)
    return (levels + np.random.default_rng(0).integers(0, 12, levels.shape)).clip(0, 255).astype(np.uint8)


def seeded(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize(("cameras", "gone"), [(6, (1, 3, 6)), (1, (1, 1, 1)), (5, (1, 3, 5)), (3, (1, 2, 3))])
def test_one_half_and_all_cameras_turn_black(cameras: int, gone: tuple[int, ...], picture: camera.Picture) -> None:
    lost_before: set[int] = set()
    for severity, count in zip((1, 2, 3), gone, strict=True):
        change = Corruption(Failure("missing_camera", severity)).of("sample").picture_change(cameras)
        assert change is not None
        shown = [change(number, picture) for number in range(cameras)]
        lost = {number for number, image in enumerate(shown) if not image.any()}
        assert len(lost) == count
        assert lost_before <= lost
        assert all((image == picture).all() for number, image in enumerate(shown) if number not in lost)
        lost_before = lost


def test_every_camera_is_lost_in_turn(picture: camera.Picture) -> None:
    lost = []
    for token in range(60):
        change = Corruption(Failure("missing_camera", 1)).of(str(token)).picture_change(6)
        assert change is not None
        lost += [number for number in range(6) if not change(number, picture).any()]
    assert set(lost) == set(range(6))


def test_dirt_covers_the_share_of_the_lens_it_is_asked_to(picture: camera.Picture) -> None:
    white = np.full((90, 160, 3), 255, dtype=np.uint8)
    covered_before = np.zeros((90, 160), dtype=bool)
    for share in KIND_OF["occlusion"].strengths:
        covered = camera.occlude(white, share, seeded()).mean(axis=-1) < 147
        assert covered.mean() == pytest.approx(share, abs=0.03)
        assert (covered | ~covered_before).mean() > 0.999
        covered_before = covered
        clear = (camera.occlude(white, share, seeded()) == 255).all(axis=-1)
        np.testing.assert_array_equal(camera.occlude(picture, share, seeded())[clear], picture[clear])
        assert clear.mean() > 1 - share - 0.15
    assert not (camera.occlude(white, 0.35, seeded(1)) == camera.occlude(white, 0.35, seeded(2))).all()


@pytest.mark.parametrize(("white", "photons", "read"), [(0.6, 250, 0.008), (0.4, 120, 0.018), (0.3, 50, 0.026)])
@pytest.mark.parametrize("level", [255, 180])
def test_darkness_has_the_mean_and_noise_of_its_model(white: float, photons: float, read: float, level: int) -> None:
    flat = np.full((100, 200, 3), level, dtype=np.uint8)
    dark = camera.darken(flat, white, seeded()) / 255
    mean = white * (level / 255) ** 2
    spread = np.sqrt(mean / photons + read**2)
    assert dark.mean() == pytest.approx(mean, abs=0.002)
    assert dark.std() == pytest.approx(spread, rel=0.03)


def test_overexposure_multiplies_linear_light_and_cuts_it_off() -> None:
    levels = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, axis=2)
    for stops in (1, 2, 3):
        for level, shown in zip(range(256), camera.overexpose(levels, stops)[0, :, 0].tolist(), strict=True):
            linear = (level / 255) ** 2.2 * 2**stops
            assert shown == round(min(linear, 1.0) ** (1 / 2.2) * 255)


@pytest.mark.parametrize("length", KIND_OF["motion_blur"].strengths)
@pytest.mark.parametrize("seed", range(4))
def test_a_point_of_light_becomes_a_centred_line(length: float, seed: int) -> None:
    dark = np.zeros((201, 1001, 3), dtype=np.uint8)
    dark[90:111, 490:511] = 255
    blurred = camera.motion_blur(dark, length, seeded(seed)).astype(float)[..., 0]
    assert blurred.sum() == pytest.approx(dark[..., 0].sum(dtype=float), rel=0.02)
    down, across = np.mgrid[0:201, 0:1001]
    spot = dark[..., 0].astype(float)
    centre = np.array([(blurred * axis).sum() for axis in (down, across)]) / blurred.sum()
    np.testing.assert_allclose(centre, (100, 500), atol=1.0)
    offset = down - centre[0], across - centre[1]
    added = [(blurred * axis**2).sum() / blurred.sum() for axis in offset]
    own = (spot * (across - 500) ** 2).sum() / spot.sum()
    spread = sum(added) - 2 * own
    assert np.sqrt(12 * spread) == pytest.approx(1001 * length, rel=0.06), "a line of length L has variance L²/12"
    assert added[0] - own <= added[1] - own + 3, "at most 45° from level"


def test_blur_leaves_a_flat_picture_alone() -> None:
    flat = np.full((30, 50, 3), 77, dtype=np.uint8)
    np.testing.assert_array_equal(camera.motion_blur(flat, 0.3, seeded()), flat)


def test_compression_is_jpeg(picture: camera.Picture) -> None:
    for quality in (25, 7):
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=quality)
        np.testing.assert_array_equal(camera.compress(picture, quality), np.asarray(Image.open(file)))


@pytest.mark.parametrize("name", ["occlusion", "dark", "brightness", "motion_blur", "jpeg"])
def test_graver_is_farther_from_the_truth(name: str, picture: camera.Picture) -> None:
    before = picture.copy()
    errors = []
    for severity in (1, 2, 3):
        change = Corruption(Failure(name, severity)).of("sample").picture_change(6)
        assert change is not None
        shown = change(2, picture)
        assert shown.dtype == np.uint8
        assert shown.shape == picture.shape
        errors.append(np.abs(shown.astype(float) - picture).mean())
    assert 1 < errors[0] < errors[1] < errors[2]
    np.testing.assert_array_equal(picture, before)
