import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.modulation import obvious

from aqr.modulation.render import RenderMethod, centered_map, sigmoid_map, splat
from aqr.modulation.sites import Sites

METHODS: tuple[RenderMethod, ...] = ("gaussian", "bilinear", "direct", "distance_weighted")
SIZE = (5, 7)


@st.composite
def scenes(draw: st.DrawFn) -> tuple[torch.Tensor, Sites]:
    """Queries anywhere in two maps, on cell borders and centres too, some not visible."""
    queries = draw(st.integers(1, 6))
    place = st.tuples(
        st.floats(0, SIZE[1], exclude_max=True) | st.integers(0, 2 * SIZE[1] - 1).map(lambda i: i / 2),
        st.floats(0, SIZE[0], exclude_max=True) | st.integers(0, 2 * SIZE[0] - 1).map(lambda i: i / 2),
    )
    count = 2 * queries
    cells = torch.tensor(draw(st.lists(place, min_size=count, max_size=count)), dtype=torch.float64)
    visible = torch.tensor(draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    weights = torch.tensor(draw(st.lists(st.floats(-1, 1), min_size=count, max_size=count)), dtype=torch.float64)
    visible, cells = visible.view(1, 2, queries), cells.view(1, 2, queries, 2)
    return weights.view(1, 2, queries), Sites(torch.where(visible[..., None], cells, 0.0), visible, SIZE)


@pytest.mark.parametrize("normalisation", ["sum", "peak"])
@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=25, deadline=None)
@given(scene=scenes(), sigma=st.sampled_from([0.4, 1.0, 2.3]))
def test_equals_the_double_loop(method, normalisation, scene, sigma) -> None:  # type: ignore[no-untyped-def]
    weights, sites = scene
    expected = obvious.splat(weights, sites, method, sigma, normalisation)
    assert torch.allclose(splat(weights, sites, method, sigma, normalisation), expected, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=25, deadline=None)
@given(
    scene=scenes(),
    sigma=st.floats(0.3, 3),
    threshold=st.floats(0, 0.2),
    clamp=st.floats(1, 4),
)
def test_maps_keep_their_bounds(method, scene, sigma, threshold, clamp) -> None:  # type: ignore[no-untyped-def]
    signal, sites = scene
    soft = sigmoid_map(signal.abs(), sites, method, sigma, threshold, clamp)
    assert soft.min() >= 0
    assert soft.max() <= clamp
    assert ((soft == 0) | (soft >= threshold)).all()
    centred = centered_map(signal * math.log(clamp), sites, method, sigma)
    assert centred.min() >= 1 / clamp * (1 - 1e-9)
    assert centred.max() <= clamp * (1 + 1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_a_map_is_zero_below_the_threshold_itself_and_untouched_from_there_to_the_clamp(method: RenderMethod) -> None:
    """Queries in the middles of cells and far apart, so that each makes of its own cell what its weight says."""
    cells = torch.tensor([[[[3.5 + 9 * i, 3.5] for i in range(6)]]], dtype=torch.float64)
    sites = Sites(cells, torch.ones(1, 1, 6, dtype=torch.bool), (7, 52))
    peak = splat(torch.ones(1, 1, 6, dtype=torch.float64), sites, method, 0.5)[0, 0, 3, 3].item()
    values = [0.01, 0.099, 0.101, 0.199, 1.999, 2.5]
    weights = torch.tensor([[values]], dtype=torch.float64) / peak
    soft = sigmoid_map(weights, sites, method, 0.5, 0.1, 2.0)
    assert soft[0, 0, 3, 3::9].tolist() == pytest.approx([0, 0, 0.101, 0.199, 1.999, 2.0], rel=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_nothing_visible_leaves_the_neutral_map(method: RenderMethod) -> None:
    sites = Sites(torch.zeros(1, 1, 3, 2), torch.zeros(1, 1, 3, dtype=torch.bool), SIZE)
    weights = torch.ones(1, 1, 3)
    assert (sigmoid_map(weights, sites, method, 1.0, 0.01, 2.0) == 0).all()
    assert (centered_map(weights, sites, method, 1.0) == 1).all()


@pytest.mark.parametrize("method", METHODS)
def test_an_invisible_query_touches_no_cell(method: RenderMethod) -> None:
    """Wherever it is said to be, and with whatever weight: the map does not change by a bit."""
    cells = torch.rand(1, 1, 4, 2) * 5
    visible = torch.tensor([[[True, True, True, False]]])
    weights = torch.rand(1, 1, 4)
    other_cells, other_weights = cells.clone(), weights.clone()
    other_cells[..., 3, :] = torch.tensor([2.0, 3.0])
    other_weights[..., 3] = 50.0
    for splatted in (
        lambda w, s: sigmoid_map(w, s, method, 1.0, 0.01, 2.0),
        lambda w, s: centered_map(w, s, method, 1),
    ):
        one = splatted(weights, Sites(cells, visible, SIZE))
        two = splatted(other_weights, Sites(other_cells, visible, SIZE))
        assert torch.equal(one, two)


@pytest.mark.parametrize("normalisation", ["sum", "peak"])
@pytest.mark.parametrize("method", ["gaussian", "bilinear", "distance_weighted"])
def test_gradients_in_weights_and_positions(method, normalisation) -> None:  # type: ignore[no-untyped-def]
    """Positions lie off the kinks: cell borders, the hat's foot and the cut-off ring."""
    generator = torch.Generator().manual_seed(3)
    cells = torch.rand(1, 2, 4, 2, generator=generator, dtype=torch.float64) * 4 + 0.27
    visible = torch.tensor([[[True, True, True, True], [True, False, True, True]]])
    weights = torch.randn(1, 2, 4, generator=generator, dtype=torch.float64)

    def run(w: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return splat(w, Sites(c, visible, SIZE), method, 0.9, normalisation)

    assert torch.autograd.gradcheck(run, (weights.requires_grad_(), cells.requires_grad_()), eps=1e-7, atol=1e-5)


def test_direct_passes_its_gradient_to_the_largest_weight() -> None:
    cells = torch.tensor([[[[1.2, 1.7], [1.9, 1.1], [4.0, 2.0]]]])
    weights = torch.tensor([[[0.3, 0.8, 0.5]]], requires_grad=True)
    splat(weights, Sites(cells, torch.ones(1, 1, 3, dtype=torch.bool), SIZE), "direct").sum().backward()
    assert weights.grad is not None
    assert weights.grad.tolist() == [[[0.0, 1.0, 1.0]]]


def test_a_query_in_the_middle_adds_its_weight() -> None:
    """Sum-normalised kernels: the map sums to the weight when nothing falls outside."""
    sites = Sites(torch.tensor([[[[20.3, 19.8]]]]), torch.ones(1, 1, 1, dtype=torch.bool), (40, 40))
    for method in ("gaussian", "bilinear", "distance_weighted"):
        assert splat(torch.tensor([[[0.7]]]), sites, method).sum().item() == pytest.approx(0.7, abs=1e-5)


def test_centered_averages_where_queries_overlap() -> None:
    """Two queries at one place, one asking for the double and one for the half: nothing changes there."""
    sites = Sites(torch.full((1, 1, 2, 2), 2.5), torch.ones(1, 1, 2, dtype=torch.bool), SIZE)
    log_weights = torch.tensor([[[math.log(2.0), -math.log(2.0)]]])
    assert torch.allclose(centered_map(log_weights, sites, "gaussian", 1.0), torch.ones(1, 1, *SIZE))
    alone = centered_map(
        log_weights[..., :1], Sites(sites.cells[:, :, :1], sites.visible[:, :, :1], SIZE), "gaussian", 1
    )
    assert alone[0, 0, 2, 2].item() == pytest.approx(2.0)


def test_unknown_method_is_refused() -> None:
    sites = Sites(torch.zeros(1, 1, 1, 2), torch.ones(1, 1, 1, dtype=torch.bool), SIZE)
    with pytest.raises(ValueError, match="unknown render_method 'splat'"):
        splat(torch.ones(1, 1, 1), sites, "splat")  # type: ignore[arg-type]


def lone(column: float, row: float, size: tuple[int, int] = (32, 32)) -> Sites:
    return Sites(torch.tensor([[[[column, row]]]]), torch.ones(1, 1, 1, dtype=torch.bool), size)


@pytest.mark.parametrize("sigma", [0.8, 1.0, 1.5])
def test_a_lone_query_peaks_far_below_its_weight(sigma: float) -> None:
    """What docs/concepts.md says of the sigmoid form: w/(2πσ²) in its own cell, 0 where it does not reach."""
    weight = torch.full((1, 1, 1), 0.82)
    middle = sigmoid_map(weight, lone(16.5, 16.5), "gaussian", sigma, 0.01, 2.0)
    assert middle.max().item() == pytest.approx(0.82 / (2 * math.pi * sigma**2), rel=1e-3)
    assert middle[0, 0, 0, 0] == 0
    corner = sigmoid_map(weight, lone(16, 16), "gaussian", 1.0, 0.01, 2.0)
    assert corner.max().item() == pytest.approx(0.82 * 0.124, rel=1e-3)


def test_only_piles_of_queries_reach_the_clamp_of_the_sigmoid_form() -> None:
    def pile(count: int) -> float:
        sites = Sites(torch.full((1, 1, count, 2), 16.5), torch.ones(1, 1, count, dtype=torch.bool), (32, 32))
        return sigmoid_map(torch.full((1, 1, count), 0.82), sites, "gaussian", 1.0, 0.01, 2.0).max().item()

    assert pile(15) < 2
    assert pile(16) == 2
    generator = torch.Generator().manual_seed(0)
    cells = torch.rand(8, 1, 900, 2, generator=generator) * 128
    scattered = Sites(cells, torch.ones(8, 1, 900, dtype=torch.bool), (128, 128))
    highest = sigmoid_map(torch.full((8, 1, 900), 0.82), scattered, "gaussian", 1.0, 0.01, 2.0).amax((1, 2, 3))
    assert highest.mean().item() == pytest.approx(0.42, abs=0.04)
    # Where the centered form lets one query do it.
    sure = torch.full((1, 1, 1), math.log(2.0))
    assert centered_map(sure, lone(16.5, 16.5), "gaussian", 1.0).max().item() == pytest.approx(2)
    assert centered_map(-sure, lone(16.5, 16.5), "gaussian", 1.0).min().item() == pytest.approx(0.5)


@pytest.mark.parametrize(("place", "least"), [(16.5, 0.0628), (16.0, 0.0807)])
def test_gradients_reach_a_weight_that_has_sunk_below_the_threshold(place: float, least: float) -> None:
    for weight, shows in ((least * 0.99, False), (least * 1.01, True), (1e-6, False)):
        w = torch.full((1, 1, 1), weight, requires_grad=True)
        rendered = sigmoid_map(w, lone(place, place), "gaussian", 1.0, 0.01, 2.0)
        assert bool(rendered.any()) == shows
        rendered.sum().backward()
        assert w.grad is not None
        assert w.grad.item() == pytest.approx(1, rel=1e-4)
