import math
from collections.abc import Callable

import numpy as np
import torch

from aqr import geometry
from aqr.batch import Batch
from aqr.detector.position import (
    AMPLITUDE,
    BEV_CYCLES,
    BevEmbedding,
    PositionEmbedding,
    RayEmbedding,
    frustum,
    inverse,
    spread,
    waves,
)

PC_RANGE = (-54.0, -30.0, -5.0, 54.0, 30.0, 3.0)
SIZE = (64, 128)


def test_waves_are_sines_and_cosines_of_each_axis() -> None:
    values, frequencies = torch.tensor([[0.3, 0.8]]), torch.tensor([0.5, 2.0, 7.0])
    out = waves(values, frequencies)
    for axis in range(2):
        for k in range(3):
            angle = 2 * math.pi * frequencies[k].item() * values[0, axis].item()
            assert np.allclose(out[0, axis, k], [math.sin(angle), math.cos(angle)], atol=1e-6)


def test_every_head_gets_the_whole_range_of_frequencies() -> None:
    frequencies = spread(16, (0.5, 16.0), 4)
    assert sorted(frequencies.tolist()) == sorted(torch.logspace(-1, 4, 16, base=2.0).tolist())
    for part in frequencies.view(4, 4):
        assert part[0] < 1.1
        assert part[-1] > 7.9
    assert len(spread(10, (0.5, 16.0), 4)) == 10


def test_a_query_embeds_like_the_bev_cell_under_it() -> None:
    embed = BevEmbedding(32, 4)
    grid = embed.grid((6, 10))
    assert grid.shape == (6, 10, 32)
    for row, column in [(0, 0), (5, 0), (0, 9), (2, 7)]:
        point = torch.tensor([(column + 0.5) / 10, (row + 0.5) / 6])
        torch.testing.assert_close(embed(point), grid[row, column])
    assert (grid[2, 7] - grid[7 % 6, 2]).abs().max() > 0.1


def test_bev_code_falls_off_with_distance_whatever_the_weights() -> None:
    embed = BevEmbedding(64, 4)
    torch.nn.init.zeros_(embed.mlp[2].weight)
    torch.nn.init.zeros_(embed.mlp[2].bias)
    grid = embed.grid((64, 64))
    similarity = grid @ grid[20, 40]
    assert similarity.argmax().item() == 20 * 64 + 40
    torch.testing.assert_close(similarity.max(), torch.tensor(AMPLITUDE**2 * 32))
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    far = torch.hypot(rows - 20.0, columns - 40.0) > 64 / BEV_CYCLES[1]
    assert similarity[far].max() < 0.8 * similarity.max()


def test_points_of_a_ray_project_onto_its_pixel(toy_batch: Callable[..., Batch]) -> None:
    lidar2img = toy_batch(views=6).lidar2img
    pixels = torch.rand(2, 6, 40, 2) * torch.tensor([128.0, 64.0])
    points = frustum(pixels, inverse(lidar2img), RayEmbedding(16, 4, PC_RANGE).depths)
    assert points.shape == (2, 6, 40, 64, 3)
    back, depth = geometry.project(points, lidar2img[:, :, None])
    torch.testing.assert_close(back, pixels[:, :, :, None].expand_as(back), atol=2e-3, rtol=0)
    torch.testing.assert_close(depth[0, 0, 0, 0], torch.tensor(1.0))
    torch.testing.assert_close(depth[0, 0, 0, 1:] - depth[0, 0, 0, :-1], torch.full((63,), 53 / 64), atol=1e-4, rtol=0)


def test_a_query_embeds_like_the_image_cell_it_projects_to(toy_batch: Callable[..., Batch]) -> None:
    lidar2img = toy_batch(samples=1).lidar2img
    ray = RayEmbedding(16, 4, PC_RANGE)
    position = PositionEmbedding(PC_RANGE, BevEmbedding(16, 4), ray)
    grid = ray.grid((4, 8), SIZE, inverse(lidar2img))
    row, column, view = 2, 5, 3
    pixel = torch.tensor([(column + 0.5) * 16, (row + 0.5) * 16])
    point = frustum(pixel.expand(1, 6, 1, 2), inverse(lidar2img), ray.depths)[0, view, 0, 12]
    unit = geometry.normalise(point, torch.tensor(PC_RANGE))
    pixels, depth = geometry.project(point[None], lidar2img[0])
    assert geometry.in_image(pixels, depth, SIZE)[:, 0].nonzero().flatten().tolist() == [view]
    embedded = position(unit.view(1, 1, 3), lidar2img, SIZE)[0, 0]
    torch.testing.assert_close(embedded - position.bev(unit[:2]), grid[0, view, row, column], atol=1e-3, rtol=1e-3)


def test_query_embedding_sums_over_the_cameras_that_see_it(toy_batch: Callable[..., Batch]) -> None:
    lidar2img = toy_batch(views=12).lidar2img
    ray = RayEmbedding(16, 4, PC_RANGE)
    position = PositionEmbedding(PC_RANGE, BevEmbedding(16, 4), ray)
    unit = torch.rand(2, 30, 3, generator=torch.Generator().manual_seed(0))
    out = position(unit, lidar2img, SIZE)
    seen = []
    for b in range(2):
        for q in range(30):
            expected = position.bev(unit[b, q, :2])
            point = geometry.denormalise(unit[b, q], torch.tensor(PC_RANGE)).double()
            views = 0
            for v in range(12):
                u, w, depth = (lidar2img[b, v].double() @ torch.cat([point, torch.ones(1).double()]))[:3]
                if depth > 0.1 and 0 <= u / depth < 128 and 0 <= w / depth < 64:
                    pixel = torch.stack([u / depth, w / depth]).float()
                    expected = expected + ray(pixel[None], inverse(lidar2img[b, v]))[0]
                    views += 1
            seen.append(views)
            torch.testing.assert_close(out[b, q], expected, atol=1e-3, rtol=1e-3)
    assert set(seen) >= {0, 2}


def test_embeddings_are_float32_under_autocast(toy_batch: Callable[..., Batch]) -> None:
    lidar2img = toy_batch(samples=1).lidar2img
    position = PositionEmbedding(PC_RANGE, BevEmbedding(16, 4), RayEmbedding(16, 4, PC_RANGE))
    unit = torch.rand(1, 5, 3)
    exact = position(unit, lidar2img, SIZE)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(position(unit, lidar2img, SIZE), exact)


def test_inverse_is_exact_for_large_focal_lengths() -> None:
    matrix = torch.eye(4)[None].repeat(2, 1, 1)
    matrix[:, 0, 0] = matrix[:, 1, 1] = 1266.4
    matrix[:, :2, 2] = torch.tensor([816.3, 491.5])
    matrix[:, :3, 3] = torch.tensor([900.0, -500.0, 1.7])
    expected = np.linalg.inv(matrix.double().numpy())
    np.testing.assert_allclose(inverse(matrix).numpy(), expected, rtol=1e-6, atol=1e-7)
