import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from aqr.config import LidarEncoder as LidarEncoderConfig
from aqr.detector.lidar_encoder import LidarEncoder, PillarEncoder, _PillarMax

PC_RANGE = (-8.0, -4.0, -5.0, 8.0, 4.0, 3.0)
PILLARS = (4, 16)


def cloud(count: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    xyz = rng.uniform([-9, -5, -6], [9, 5, 4], (count, 3))
    rest = np.column_stack([rng.uniform(0, 255, count), rng.uniform(0, 0.5, count)])
    return torch.tensor(np.concatenate([xyz, rest], 1), dtype=torch.float32)


def encode_slowly(encoder: PillarEncoder, points: torch.Tensor, sample: torch.Tensor, batch: int) -> torch.Tensor:
    """Pillar by pillar, point by point."""
    rows, columns = PILLARS
    low, high = np.array(PC_RANGE[:3]), np.array(PC_RANGE[3:])
    pillars: dict[tuple[int, int, int], list[np.ndarray]] = {}
    for point, b in zip(points.double().numpy(), sample.tolist(), strict=True):
        if (point[:3] >= low).all() and (point[:3] < high).all():
            unit = (point[:3] - low) / (high - low)
            pillars.setdefault((b, int(unit[1] * rows), int(unit[0] * columns)), []).append(point)
    out = torch.zeros(batch, encoder.embed.out_features, rows, columns)
    for (b, row, column), members in pillars.items():
        heights = [(p[2] - low[2]) / (high[2] - low[2]) for p in members]
        vectors = []
        for p, height in zip(members, heights, strict=True):
            unit = (p[:3] - low) / (high - low)
            x, y = 2 * unit[0] - 1, 2 * unit[1] - 1
            features = [
                x,
                y,
                np.hypot(x, y),
                2 * height - 1,
                2 * (unit[0] * columns - column) - 1,
                2 * (unit[1] * rows - row) - 1,
                p[3] / 255,
                2 * p[4],
                4 * (max(heights) - height),
                4 * (height - min(heights)),
                np.log1p(len(members)) / 4,
            ]
            hidden = encoder.norm(encoder.embed(torch.tensor(features, dtype=torch.float32))).relu()
            vectors.append(encoder.refine(hidden).relu())
        out[b, :, row, column] = torch.stack(vectors).amax(0)
    return out


def test_pillars_equal_a_loop_over_points() -> None:
    torch.manual_seed(0)
    encoder = PillarEncoder(6, PILLARS, PC_RANGE)
    points = cloud(400)
    sample = torch.arange(400) % 3
    expected = encode_slowly(encoder, points, sample, 3)
    assert (expected.abs().sum(1) > 0).float().mean() > 0.5
    torch.testing.assert_close(encoder(points, sample, 3), expected, atol=1e-5, rtol=1e-5)


def test_order_of_points_does_not_matter() -> None:
    encoder = PillarEncoder(6, PILLARS, PC_RANGE)
    points, sample = cloud(300), torch.arange(300) % 2
    shuffled = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    # A matrix product may round a row otherwise in another place.
    found = encoder(points[shuffled], sample[shuffled], 2)
    torch.testing.assert_close(found, encoder(points, sample, 2), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30, 100.0])
@pytest.mark.parametrize("column", range(5))
def test_points_outside_or_not_finite_are_left_out(bad: float, column: int) -> None:
    if column > 2 and np.isfinite(bad):
        pytest.skip("an unusual intensity or time is no reason to drop a point")
    encoder = PillarEncoder(6, PILLARS, PC_RANGE)
    points, sample = cloud(50), torch.zeros(51, dtype=torch.int64)
    odd = points[:1].clone()
    odd[0, column] = bad
    alone = encoder(points, sample[:50], 1)
    assert torch.equal(encoder(torch.cat([points, odd]), sample, 1), alone)


def test_points_near_the_upper_edge_stay_in_the_grid() -> None:
    encoder = PillarEncoder(6, (5, 192), PC_RANGE)
    x = 8 - 2.0 ** -torch.arange(4, 24)
    points = torch.stack([x, x / 2, *torch.zeros(3, len(x))], 1)
    filled = encoder(torch.cat([points, torch.full((1, 5), 8.0)]), torch.zeros(21, dtype=torch.int64), 1)
    assert filled[0].abs().sum(0).nonzero().tolist() == [[4, 191]]


@given(st.integers(1, 60), st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_maximum_and_its_gradient_equal_scatter_reduce(count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 4, (count, 3), generator=generator).double().requires_grad_()
    index = torch.randint(0, 8, (count,), generator=generator)
    weight = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    fast = _PillarMax.apply(values, index, 7)
    (gradient,) = torch.autograd.grad((fast * weight).sum(), values)
    twin = torch.zeros(8, 3, dtype=torch.float64).scatter_reduce(
        0, index[:, None].expand(-1, 3), values, "amax", include_self=True
    )[:-1]
    (expected,) = torch.autograd.grad((twin * weight).sum(), values)
    torch.testing.assert_close(fast, twin)
    # Where all of a pillar's points are 0, scatter_reduce also counts the empty pillar's 0 among those that tie.
    positive = values.detach() > 0
    torch.testing.assert_close(gradient[positive], expected[positive])


def test_bev_map_has_its_size_its_orientation_and_works_without_points() -> None:
    torch.manual_seed(0)
    config = LidarEncoderConfig(
        pillars=(32, 64), pillar_channels=8, channels=(8, 8, 8), blocks=(1, 1, 1), strides=(2, 2, 2), out_stride=4
    )
    encoder = LidarEncoder(config, 16, (-8.0, -4.0, -5.0, 8.0, 4.0, 3.0)).eval()
    empty = encoder(torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64), 2)
    assert empty.shape == (2, 16, *config.bev_size) == (2, 16, 8, 16)
    assert empty.isfinite().all()
    point = torch.tensor([[6.0, -3.0, 0.0, 10.0, 0.0]])
    change = (encoder(point, torch.ones(1, dtype=torch.int64), 2) - empty).abs().sum(1)
    assert change[0].max() == 0
    center = F.avg_pool2d(change[1][None], 3, 1, 1)[0].argmax().item()
    assert abs(center // 16 - 1) <= 1
    assert abs(center % 16 - 14) <= 1


def test_an_empty_cloud_can_be_trained_on() -> None:
    config = LidarEncoderConfig(
        pillars=(16, 16), pillar_channels=8, channels=(8,), blocks=(1,), strides=(2,), out_stride=2
    )
    encoder = LidarEncoder(config, 8, PC_RANGE)
    encoder(torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64), 1).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())
