import pytest
import torch
from tests.modulation.obvious import local_attention

from aqr.modulation.route import LocalAttention, Router, attend_all, window_index
from aqr.modulation.sites import Sites


def random_sites(batch: int, views: int, queries: int, size: tuple[int, int], seed: int) -> Sites:
    generator = torch.Generator().manual_seed(seed)
    scale = torch.tensor([size[1], size[0]], dtype=torch.float64)
    cells = torch.rand(batch, views, queries, 2, generator=generator, dtype=torch.float64) * scale * 0.999
    visible = torch.rand(batch, views, queries, generator=generator) < 0.5
    return Sites(torch.where(visible[..., None], cells, 0.0), visible, size)


@pytest.mark.parametrize(("views", "max_views", "window"), [(1, 1, 5), (4, 2, 3), (3, 3, 7), (2, 2, 1)])
def test_equals_standard_attention_over_the_window(views: int, max_views: int, window: int) -> None:
    torch.manual_seed(views)
    layer = LocalAttention(16, window, num_heads=4).double()
    queries = torch.randn(2, 9, 16, dtype=torch.float64)
    tokens = torch.randn(2, views, 5, 8, 16, dtype=torch.float64)
    sites = random_sites(2, views, 9, (5, 8), seed=window)
    expected = local_attention(layer, queries, tokens, sites, max_views)
    assert torch.allclose(layer(queries, tokens, sites, max_views), expected, atol=1e-12)


def test_layers_together_find_the_sum_of_what_each_finds_alone() -> None:
    torch.manual_seed(0)
    asked, expected = [], []
    queries = torch.randn(2, 9, 12, dtype=torch.float64, requires_grad=True)
    for views, max_views, window in [(1, 1, 3), (4, 2, 5), (2, 1, 1)]:
        layer = LocalAttention(12, window, num_heads=3).double()
        tokens = torch.randn(2, views, 5, 8, 12, dtype=torch.float64, requires_grad=True)
        sites = random_sites(2, views, 9, (5, 8), seed=window)
        asked.append((layer, tokens, sites, max_views))
        expected.append(local_attention(layer, queries, tokens, sites, max_views))
    assert torch.allclose(attend_all(queries, asked), torch.stack(expected).sum(0), atol=1e-12)
    leaves = [queries, *(tokens for _, tokens, *_ in asked), *(p for layer, *_ in asked for p in layer.parameters())]
    assert torch.autograd.gradcheck(lambda *_: attend_all(queries, asked), leaves, fast_mode=True)


def test_a_query_that_nothing_sees_finds_nothing_and_has_finite_gradients() -> None:
    layer = LocalAttention(8, 3, num_heads=2)
    queries = torch.randn(1, 2, 8, requires_grad=True)
    sites = Sites(torch.zeros(1, 1, 2, 2), torch.tensor([[[False, True]]]), (4, 4))
    found = layer(queries, torch.randn(1, 1, 4, 4, 8), sites, 1)
    assert (found[0, 0] == 0).all()
    assert (found[0, 1] != 0).any()
    found.sum().backward()
    assert queries.grad is not None
    assert torch.isfinite(queries.grad).all()


def test_cells_beyond_the_window_do_not_matter() -> None:
    layer = LocalAttention(8, 3, num_heads=2)
    sites = Sites(torch.tensor([[[[5.5, 2.5]]]]), torch.ones(1, 1, 1, dtype=torch.bool), (6, 9))
    queries, tokens = torch.randn(1, 1, 8), torch.randn(1, 1, 6, 9, 8)
    before = layer(queries, tokens, sites, 1)
    for row, column, matters in [(2, 4, True), (3, 6, True), (2, 7, False), (4, 5, False), (2, 3, False)]:
        changed = tokens.clone()
        changed[0, 0, row, column] += 1
        assert torch.equal(before, layer(queries, changed, sites, 1)) is not matters


def test_window_at_a_corner_keeps_to_the_map() -> None:
    sites = Sites(torch.tensor([[[[0.2, 3.9]]]]), torch.ones(1, 1, 1, dtype=torch.bool), (4, 5))
    index, valid = window_index(sites, 3, 1)
    assert sorted(index[valid].tolist()) == [10, 11, 15, 16]


def test_without_cameras_the_query_attends_to_lidar_alone() -> None:
    """A router given cameras that see nothing decides as the router without cameras."""
    torch.manual_seed(0)
    router = Router(8, (3, 3), 2)
    queries, bev = torch.randn(1, 4, 8), torch.randn(1, 1, 6, 6, 8)
    on_bev = Sites(torch.rand(1, 1, 4, 2) * 5, torch.ones(1, 1, 4, dtype=torch.bool), (6, 6))
    unseen = Sites(torch.zeros(1, 2, 4, 2), torch.zeros(1, 2, 4, dtype=torch.bool), (3, 3))
    blind = router(queries, (bev, on_bev), (torch.randn(1, 2, 3, 3, 8), unseen))
    assert torch.equal(blind, router(queries, (bev, on_bev), None))


@pytest.mark.parametrize(("window", "heads"), [(4, 2), (0, 2), (3, 3)])
def test_settings_that_make_no_sense_are_refused(window: int, heads: int) -> None:
    with pytest.raises(ValueError, match=r"must be odd|multiple"):
        LocalAttention(8, window, heads)
