"""Lines are cut where they leave the camera's view, against closed forms and against dense sampling."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aqr.geometry import MIN_DEPTH, box_corners, in_image, project
from aqr.view.clipping import LINES_PER_BOX, box_lines, clip_to_rectangle, project_lines

AHEAD = np.array([[100.0, 100, 0, 0], [0, 50, -100, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
"""A camera in the origin that looks along +y: u = 100·x/y + 100, v = 50 − 100·z/y."""


def test_line_through_the_camera_plane_ends_where_it_leaves_the_image() -> None:
    """At x = 1 the line leaves the image, 200 wide, at y = 1."""
    pixels, line = project_lines(np.array([[[1.0, 5, 0], [1, -5, 0]]]), AHEAD, (100, 200))
    assert line.tolist() == [0]
    np.testing.assert_allclose(pixels, [[[120, 50], [200, 50]]])


def test_line_is_cut_at_the_near_plane() -> None:
    """In a picture wide enough to hold it, the end lies at depth 0.1: u = 100·1/0.1 + 100."""
    for order in (1, -1):
        pixels, _ = project_lines(np.array([[[1.0, 5, -0.2], [1, -5, -0.2]][::order]]), AHEAD, (400, 3000))
        np.testing.assert_allclose(pixels, [[[120, 54], [1100, 50 + 20 / MIN_DEPTH]][::order]])


def test_lines_behind_beside_and_inside() -> None:
    lines = np.array(
        [
            [[1.0, -5, 0], [-1, -5, 0]],
            [[0.1, 0.05, 0], [0.1, -3, 0]],
            [[9.0, 5, 0], [9, 6, 0]],
            [[0.0, 5, 0], [1, 5, 0.5]],
            [[np.nan, 5, 0], [1, 5, 0]],
        ]
    )
    pixels, line = project_lines(lines, AHEAD, (100, 200))
    assert line.tolist() == [3]
    np.testing.assert_allclose(pixels[0], project(lines[3], AHEAD)[0])


def test_no_lines() -> None:
    pixels, line = project_lines(np.zeros((0, 2, 3)), AHEAD, (100, 200))
    assert pixels.shape == (0, 2, 2)
    assert line.shape == (0,)


def test_rectangle() -> None:
    lines = np.array(
        [
            [[-10.0, 5], [30, 5]],
            [[5, -10], [5, 30]],
            [[-5, 5], [5, -5]],
            [[-1, 4], [-1, 6]],
            [[2, 2], [3, 3]],
            [[-10, -10], [30, 30]],
        ]
    )
    parts, kept = clip_to_rectangle(lines, (10, 20))
    assert kept.tolist() == [0, 1, 4, 5]
    np.testing.assert_allclose(parts[0], [[0, 5], [20, 5]])
    np.testing.assert_allclose(parts[1], [[5, 0], [5, 10]])
    np.testing.assert_allclose(parts[2], [[2, 2], [3, 3]])
    np.testing.assert_allclose(parts[3], [[0, 0], [10, 10]])


coordinate = st.floats(-6, 6, allow_nan=False).map(lambda v: round(v, 3))
point = st.tuples(coordinate, coordinate, coordinate)


@settings(max_examples=200, deadline=None)
@given(start=point, end=point)
def test_exactly_the_visible_points_of_a_line_are_kept(start: tuple[float, ...], end: tuple[float, ...]) -> None:
    """A point of the line that is seen lies on the part that is kept; its ends are points of the line in front."""
    ends = np.array([start, end])
    walk = ends[0] + np.linspace(0, 1, 501)[:, None] * (ends[1] - ends[0])
    seen_pixels, depth = project(walk, AHEAD)
    seen = seen_pixels[in_image(seen_pixels, depth, (100, 200))]
    pixels, _ = project_lines(ends[None], AHEAD, (100, 200))
    if len(pixels) == 0:
        # A line towards the camera is seen as a point, of which there is nothing to draw.
        assert len(seen) <= 1 or np.ptp(seen, axis=0).max() < 1e-6
        return
    low, high = pixels[0].min(axis=0), pixels[0].max(axis=0)
    assert (low >= -1e-6).all()
    assert (high <= [200 + 1e-6, 100 + 1e-6]).all()
    along = pixels[0, 1] - pixels[0, 0]
    for pixel in seen:
        offset = pixel - pixels[0, 0]
        assert abs(along[0] * offset[1] - along[1] * offset[0]) <= 1e-6 * max(1.0, np.linalg.norm(along))
        assert (pixel >= low - 1e-6).all()
        assert (pixel <= high + 1e-6).all()
    start_h, step_h = (ends[0] @ AHEAD[:3, :3].T), ((ends[1] - ends[0]) @ AHEAD[:3, :3].T)
    for pixel in pixels[0]:
        gain, value = step_h[:2] - pixel * step_h[2], pixel * start_h[2] - start_h[:2]
        axis = int(np.argmax(abs(gain)))
        if abs(gain[axis]) > 1e-3:
            share = value[axis] / gain[axis]
            assert -1e-6 <= share <= 1 + 1e-6
            assert start_h[2] + share * step_h[2] >= MIN_DEPTH - 1e-6


def test_box_beside_the_camera_keeps_what_is_in_front() -> None:
    """A truck that we pass: its front half is seen, nothing is drawn outside the image, and it does not vanish."""
    truck = np.array([[2.0, 0, 0, 10, 2, 2, np.pi / 2, 0, 0]])
    pixels, line = project_lines(box_lines(truck)[0], AHEAD, (100, 200))
    assert len(line) > 0
    assert ((pixels >= 0) & (pixels <= [200, 100])).all()
    front = {edge for edge, ends in enumerate(box_lines(truck)[0]) if (ends[:, 1] > 1).all()}
    assert front & set(line.tolist())
    assert pixels[..., 0].min() == pytest.approx(100 * 1 / 5 + 100)


def test_lines_of_a_box() -> None:
    """Twelve edges of three lengths, and a heading mark from the middle of the floor to the front."""
    box = np.array([[1.0, 2, 3, 4, 2, 1.5, np.pi / 2, 0, 0]])
    lines = box_lines(box)
    assert lines.shape == (1, LINES_PER_BOX, 2, 3)
    lengths = np.linalg.norm(lines[0, :, 1] - lines[0, :, 0], axis=-1)
    np.testing.assert_allclose(sorted(lengths[:12]), [1.5] * 4 + [2] * 4 + [4] * 4)
    np.testing.assert_allclose(lines[0, 12], [[1, 2, 2.25], [1, 4, 2.25]], atol=1e-9)
    assert {tuple(p) for p in lines[0, :12].reshape(-1, 3).round(6)} == {tuple(p) for p in box_corners(box)[0].round(6)}
