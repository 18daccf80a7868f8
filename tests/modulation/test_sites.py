import torch
from hypothesis import given
from hypothesis import strategies as st

from aqr.modulation.sites import bev_sites, image_sites

PC_RANGE = torch.tensor([-54.0, -20.0, -5.0, 54.0, 40.0, 3.0])


def pinhole(focal: float, width: int, height: int) -> torch.Tensor:
    """lidar2img of a camera at the LiDAR origin that looks along +y."""
    intrinsics = torch.tensor([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])
    axes = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
    out = torch.eye(4)
    out[:3, :3] = intrinsics @ axes
    return out


def test_bev_cell_of_a_map_that_is_not_square() -> None:
    """x runs along columns and y along rows: a point one metre right of the left edge, two up from the lower one."""
    point = torch.tensor([[[1.0 / 108, 2.0 / 60, 0.5]]])
    sites = bev_sites(point, (30, 216))
    assert torch.allclose(sites.cells[0, 0, 0], torch.tensor([2.0, 1.0]), atol=1e-5)


def test_bev_points_outside_are_not_visible() -> None:
    points = torch.tensor([[[-0.01, 0.5, 0.5], [0.5, 1.0, 0.5], [0.0, 0.0, 0.5], [0.999, 0.999, 7.0]]])
    assert bev_sites(points, (8, 8)).visible[0, 0].tolist() == [False, False, True, True]


@given(x=st.floats(-50, 50), y=st.floats(-19, 39), z=st.floats(-4.9, 2.9), focal=st.floats(50, 400))
def test_image_cell_equals_the_pinhole_formula(x: float, y: float, z: float, focal: float) -> None:
    width, height, columns, rows = 320, 160, 20, 5
    metres = torch.tensor([x, y, z])
    point = (metres - PC_RANGE[:3]) / (PC_RANGE[3:] - PC_RANGE[:3])
    sites = image_sites(
        point[None, None], pinhole(focal, width, height)[None, None], PC_RANGE, (height, width), (rows, columns)
    )
    if y <= 0.1:
        assert not sites.visible.item() or y > 0.0999
        return
    u, v = width / 2 + focal * x / y, height / 2 - focal * z / y
    near_edge = min(abs(u), abs(u - width), abs(v), abs(v - height)) < 0.05 or abs(y - 0.1) < 1e-4
    inside = 0 <= u < width and 0 <= v < height
    assert near_edge or sites.visible.item() == inside
    if sites.visible.item():
        expected = torch.tensor([u * columns / width, v * rows / height])
        assert torch.allclose(sites.cells[0, 0, 0], expected, atol=2e-3)


def test_a_point_behind_the_camera_has_a_finite_place_and_is_not_visible() -> None:
    points = torch.tensor([[[0.5, 0.1, 0.5], [0.5, 1 / 3, 0.625]]])
    sites = image_sites(points, pinhole(100, 64, 32)[None, None], PC_RANGE, (32, 64), (2, 4))
    assert not sites.visible.any()
    assert (sites.cells == 0).all()
