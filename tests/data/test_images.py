from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from aqr.data.images import ImageTransform, place, read_image
from aqr.errors import InputError


def dot(path: Path, size: tuple[int, int], at: tuple[float, float], sigma: float) -> Path:
    """A bright Gaussian dot whose centre lies at continuous pixel (u, v)."""
    u, v = np.arange(size[1]) + 0.5, np.arange(size[0]) + 0.5
    bump = np.exp(-((v[:, None] - at[1]) ** 2 + (u - at[0]) ** 2) / (2 * sigma**2))
    Image.fromarray((255 * bump).round().astype(np.uint8)).convert("RGB").save(path, quality=97)
    return path


def centroid(image: np.ndarray) -> np.ndarray:
    """Continuous (u, v) of the centre of brightness."""
    light = np.clip(image[0].astype(np.float64) - 6, 0, None)
    v, u = np.indices(light.shape) + 0.5
    return np.array([(light * u).sum(), (light * v).sum()]) / light.sum()


@pytest.mark.parametrize("ending", ["jpg", "png"])
@pytest.mark.parametrize("zoom", [0.94, 1.0, 1.1, 1.25])
@pytest.mark.parametrize("across", [0.0, 0.37, 1.0])
@pytest.mark.parametrize("flip", [False, True])
def test_a_dot_lands_where_the_matrix_says(tmp_path: Path, ending: str, zoom: float, across: float, flip: bool) -> None:
    source, at = (900, 1600), (811.3, 613.7)
    path = dot(tmp_path / f"dot.{ending}", source, at, sigma=9)
    transform = place(source, (320, 800), zoom, across, flip)
    image = read_image(path, transform)
    assert image.shape == (3, 320, 800)
    assert image.dtype == np.uint8
    expected = transform.matrix @ [*at, 1]
    np.testing.assert_allclose(centroid(image), expected[:2], atol=0.05)
    assert expected[2] == 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    height=st.integers(330, 450),
    width=st.integers(330, 450),
    shrink=st.floats(1.0, 9.0),
    squeeze=st.floats(0.8, 1.25),
    shift=st.tuples(st.integers(-6, 0), st.integers(-6, 0)),
    flip=st.booleans(),
)
@example(height=401, width=333, shrink=8.2, squeeze=1.0, shift=(0, 0), flip=False)
@example(height=335, width=331, shrink=4.1, squeeze=1.0, shift=(-3, -2), flip=True)
def test_a_dot_lands_where_the_matrix_says_at_any_size(
    tmp_path: Path, height: int, width: int, shrink: float, squeeze: float, shift: tuple[int, int], flip: bool
) -> None:
    """JPEG decoded at 1/2, 1/4 and 1/8 included, also where that does not divide the size."""
    at = width * 0.52, height * 0.47
    path = dot(tmp_path / "dot.jpg", (height, width), at, sigma=3 * shrink)
    resized = round(height / shrink), round(width / shrink * squeeze)
    size = resized[0] + 6, resized[1] + 6
    transform = ImageTransform((height, width), resized, shift[1], shift[0], size, flip)
    np.testing.assert_allclose(centroid(read_image(path, transform)), (transform.matrix @ [*at, 1])[:2], atol=0.1)


def test_without_a_change_the_image_is_what_pillow_decodes(real_frame: Path) -> None:
    path = next((real_frame / "samples" / "CAM_FRONT").iterdir())
    image = read_image(path, place((900, 1600), (900, 1600)))
    with Image.open(path) as official:
        np.testing.assert_array_equal(image, np.asarray(official).transpose(2, 0, 1))


def test_reduced_decoding_looks_like_the_slow_way(real_frame: Path) -> None:
    for folder in sorted((real_frame / "samples").glob("CAM_*")):
        path = next(folder.iterdir())
        image = read_image(path, place((900, 1600), (320, 800)))
        with Image.open(path) as whole:
            slow = np.asarray(whole.resize((800, 450), Image.Resampling.BOX))[130:].transpose(2, 0, 1)
        assert abs(image.astype(float) - slow).mean() < 2


def test_inference_covers_the_window_keeps_the_bottom_and_the_middle() -> None:
    assert place((900, 1600), (320, 800)) == ImageTransform((900, 1600), (450, 800), 130, 0, (320, 800))
    assert place((900, 1600), (448, 640)) == ImageTransform((900, 1600), (448, 796), 0, 78, (448, 640))


def test_the_window_lies_between_the_left_edge_and_the_right_one() -> None:
    lefts = [place((450, 800), (320, 800), 1.25, across).left for across in (0.0, 0.25, 0.5, 1.0)]
    assert lefts == [0, 50, 100, 200]


@settings(deadline=None)
@given(
    source=st.tuples(st.integers(8, 2000), st.integers(8, 2000)),
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    zoom=st.floats(1.0, 3.0),
    across=st.floats(0, 1),
)
def test_from_zoom_one_on_the_window_lies_inside_the_image(
    source: tuple[int, int], size: tuple[int, int], zoom: float, across: float
) -> None:
    transform = place(source, size, zoom, across)
    assert transform.top + size[0] == transform.resized[0]
    assert transform.top >= 0
    assert 0 <= transform.left <= transform.resized[1] - size[1]


def test_beyond_the_image_is_black(tmp_path: Path) -> None:
    path = tmp_path / "white.png"
    Image.new("RGB", (40, 20), (255, 255, 255)).save(path)
    image = read_image(path, ImageTransform((20, 40), (10, 20), -3, -4, (16, 32)))
    inside = np.zeros((16, 32), dtype=bool)
    inside[3:13, 4:24] = True
    np.testing.assert_array_equal(image, np.broadcast_to(np.where(inside, 255, 0), (3, 16, 32)))
    assert not read_image(path, ImageTransform((20, 40), (10, 20), 50, 0, (16, 32))).any()


def test_grey_images_become_rgb(tmp_path: Path) -> None:
    path = tmp_path / "grey.png"
    Image.new("L", (32, 32), 77).save(path)
    assert (read_image(path, place((32, 32), (32, 32))) == 77).all()


def test_missing_broken_and_wrong_images_are_refused_by_name(tmp_path: Path) -> None:
    transform = place((64, 64), (32, 32))
    path = tmp_path / "a.jpg"
    with pytest.raises(InputError, match=r"a.jpg: the image is missing; restore"):
        read_image(path, transform)
    Image.effect_noise((64, 64), 90).convert("RGB").save(path)
    whole = path.read_bytes()
    for spoilt in (whole[: len(whole) // 2], b"", b"no image at all"):
        path.write_bytes(spoilt)
        with pytest.raises(InputError, match=r"a.jpg: the image cannot be decoded \(.*restore the file"):
            read_image(path, transform)
    path.write_bytes(whole)
    with pytest.raises(InputError, match=r"a.jpg: is 64 x 64 pixels, sample_data.json says 90 x 64;"):
        read_image(path, place((64, 90), (32, 32)))
