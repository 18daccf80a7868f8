"""The fused kernels against the plain forms: values and gradients, on a GPU or in Triton's interpreter."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.modulation.test_aqr import PC_RANGE, build, inputs

from aqr.modulation import AQRModulation, kernels, route
from aqr.modulation.modulate import modulate
from aqr.modulation.render import centered_map, sigmoid_map
from aqr.modulation.route import LocalAttention
from aqr.modulation.sites import Sites, image_sites

pytest.importorskip("triton")
window = pytest.importorskip("aqr.modulation.kernels.window")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def _triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything below is compared at float32; `plain` switches the kernels off."""
    monkeypatch.setattr(kernels, "SWITCH", "1")


def plain(call: Any) -> Any:
    before, kernels.SWITCH = kernels.SWITCH, "0"
    try:
        return call()
    finally:
        kernels.SWITCH = before


def both(make: Any, *leaves: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Pairs (fused, plain) of the output of `make` and of the gradients of all leaves, under a random slope."""

    def run() -> list[torch.Tensor]:
        out = make()
        slope = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
        given_ = [leaf for leaf in leaves if leaf.requires_grad]
        return [out.detach(), *torch.autograd.grad(out, given_, slope, allow_unused=True, materialize_grads=True)]

    yield from zip(run(), plain(run), strict=True)


def close(fused: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> bool:
    scale = max(expected.double().norm().item(), 1e-12)
    return (fused.double() - expected.double()).norm().item() <= tolerance * scale


def sites(batch: int, views: int, queries: int, size: tuple[int, int], share: float, seed: int) -> Sites:
    generator = torch.Generator().manual_seed(seed)
    cells = torch.rand(batch, views, queries, 2, generator=generator) * torch.tensor([size[1], size[0]]) * 0.999
    visible = torch.rand(batch, views, queries, generator=generator) < share
    return Sites(torch.where(visible[..., None], cells, 0.0).to(DEVICE), visible.to(DEVICE), size)


@pytest.mark.parametrize(
    ("channels", "heads", "window", "views", "slots", "size", "queries"),
    [
        (32, 4, 5, 1, 1, (18, 11), 40),
        (24, 3, 9, 3, 2, (10, 13), 66),
        (16, 2, 1, 2, 2, (4, 5), 9),
        (16, 4, 19, 2, 1, (20, 26), 8),
        (160, 4, 3, 6, 2, (5, 6), 12),
    ],
)
def test_windows(
    channels: int, heads: int, window: int, views: int, slots: int, size: tuple[int, int], queries: int
) -> None:
    torch.manual_seed(window)
    layer = LocalAttention(channels, window, heads).to(DEVICE)
    query = torch.randn(2, queries, channels, device=DEVICE, requires_grad=True)
    tokens = torch.randn(2, views, *size, channels, device=DEVICE, requires_grad=True)
    where = sites(2, views, queries, size, 0.6, seed=window)
    for fused, expected in both(lambda: layer(query, tokens, where, slots), query, tokens, *layer.parameters()):
        assert close(fused, expected)


@pytest.mark.parametrize(
    ("channels", "dtype", "limit", "expected"),
    [
        # As Triton 3.9 compiles them: 50,176 bytes, 198,656, 133,120 and 99,328 at most, and none that fits.
        (256, torch.bfloat16, 101_376, (32, 3)),
        (512, torch.float32, 232_448, (32, 3)),
        (512, torch.float32, 166_912, (32, 2)),
        (512, torch.float32, 103_000, (16, 2)),
        (512, torch.float32, 65_536, None),
    ],
)
def test_blocks_fit_the_shared_memory_of_the_gpu(
    channels: int, dtype: torch.dtype, limit: int, expected: tuple[int, int] | None
) -> None:
    assert window.reading(channels, 4, dtype, limit) == expected


@pytest.mark.parametrize(("limit", "block"), [(128 * 66, (32, 2)), (128 * 50, (16, 2)), (128 * 49, None)])
def test_any_block_and_the_plain_form_find_the_same(
    monkeypatch: pytest.MonkeyPatch, limit: int, block: tuple[int, int] | None
) -> None:
    blocks = []
    attend = window.attend
    monkeypatch.setattr(window, "shared_memory", lambda device: limit)
    monkeypatch.setattr(window, "attend", lambda *args: blocks.append(args[-1]) or attend(*args))
    torch.manual_seed(0)
    layer = LocalAttention(24, 7, 3).to(DEVICE)
    query = torch.randn(2, 11, 24, device=DEVICE, requires_grad=True)
    tokens = torch.randn(2, 3, 9, 8, 24, device=DEVICE, requires_grad=True)
    where = sites(2, 3, 11, (9, 8), 0.7, seed=1)
    for fused, expected in both(lambda: layer(query, tokens, where, 2), query, tokens, *layer.parameters()):
        assert close(fused, expected)
    assert blocks == ([] if block is None else [block])


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10**6), queries=st.integers(1, 80), crowd=st.booleans())
def test_every_query_is_collected_by_every_tile_it_reaches(seed: int, queries: int, crowd: bool) -> None:
    torch.manual_seed(seed)
    layer = LocalAttention(8, 7, 2).to(DEVICE)
    tokens = torch.randn(1, 1, 17, 20, 8, device=DEVICE, requires_grad=True)
    query = torch.randn(1, queries, 8, device=DEVICE)
    where = sites(1, 1, queries, (17, 20), 0.9, seed)
    if crowd:
        where = Sites(where.cells[:, :, :1].expand_as(where.cells).contiguous(), where.visible, where.size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "SWITCH", "1")
        pairs = list(both(lambda: layer(query, tokens, where, 1), tokens))
    assert all(close(fused, expected) for fused, expected in pairs)


@pytest.mark.parametrize("method", ["gaussian", "bilinear"])
@pytest.mark.parametrize("sigma", [0.7, 2.0])
@pytest.mark.parametrize("centered", [True, False])
def test_maps(method: Any, sigma: float, centered: bool) -> None:
    where = sites(2, 3, 50, (19, 37), 0.7, seed=3)
    where = Sites(where.cells.requires_grad_(), where.visible, where.size)
    signal = torch.rand(2, 2, 50, device=DEVICE).requires_grad_()

    def make() -> torch.Tensor:
        spread = signal[:, 1][:, None].expand_as(where.visible)
        if centered:
            return centered_map(spread - 0.5, where, method, sigma)
        return sigmoid_map(spread, where, method, sigma, 0.02, 0.6)

    for fused, expected in both(make, signal, where.cells):
        assert close(fused, expected, 2e-5)


@pytest.mark.parametrize("form", ["convex", "additive"])
@pytest.mark.parametrize("modulation_type", ["element_wise", "channel_wise", "adaptive"])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("mapped", [True, False])
def test_scaling(form: Any, modulation_type: Any, last: bool, gated: bool, mapped: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2 * 3, 20, 7, 9, generator=generator)
    if last:
        maps = maps.contiguous(memory_format=torch.channels_last)
    features = maps.unflatten(0, (2, 3)).to(DEVICE).requires_grad_()
    weights = (torch.rand(2, 3, 7, 9, generator=generator) * 2).to(DEVICE).requires_grad_()
    gate = torch.tensor(0.4, device=DEVICE).requires_grad_() if gated else None
    residual = torch.rand(2, 3, 7, 9, generator=generator).to(DEVICE).requires_grad_() if mapped else 0.65
    leaves = [t for t in (features, weights, gate, residual) if isinstance(t, torch.Tensor)]

    def make() -> torch.Tensor:
        return modulate(features, weights, residual, form, modulation_type, gate)

    assert make().stride() == plain(make).stride()
    for fused, expected in both(make, *leaves):
        assert close(fused, expected)


@pytest.mark.parametrize("last", [True, False])
def test_scaled_maps_may_be_changed_in_place(last: bool) -> None:
    features = torch.randn(6, 8, 5, 7, device=DEVICE)
    if last:
        features = features.contiguous(memory_format=torch.channels_last)
    features = features.unflatten(0, (2, 3)).requires_grad_()
    weights = torch.rand(2, 3, 5, 7, device=DEVICE).requires_grad_()
    for fused, expected in both(lambda: modulate(features, weights, 0.7).relu_(), features, weights):
        assert close(fused, expected)


def test_weights_and_gate_broadcast() -> None:
    features = torch.randn(2, 3, 8, 5, 7, device=DEVICE).requires_grad_()
    weights = torch.rand(1, 3, 5, 7, device=DEVICE).requires_grad_()
    gate = torch.tensor([0.3], device=DEVICE).requires_grad_()
    leaves = features, weights, gate
    for fused, expected in both(lambda: modulate(features, weights, 0.7, gate=gate), *leaves):
        assert close(fused, expected)
    where = sites(2, 3, 20, (6, 9), 0.7, seed=0)
    signal = torch.rand(2, 1, 20, device=DEVICE).requires_grad_()
    for fused, expected in both(lambda: sigmoid_map(signal, where, "gaussian", 1.0, 0.01, 2.0), signal):
        assert close(fused, expected)


@pytest.mark.parametrize(
    "view",
    [
        lambda maps: maps.permute(0, 2, 4, 3, 1),
        lambda maps: maps[:, :2, :1].expand(-1, -1, 5, -1, -1),
        lambda maps: maps[:, :, ::2],
        lambda maps: maps[..., :1],
    ],
)
def test_features_of_any_order_in_memory(view: Any) -> None:
    maps = torch.randn(2, 7, 3, 5, 8, device=DEVICE).requires_grad_()
    shape = view(maps).shape
    weights = torch.rand(*shape[:2], *shape[3:], device=DEVICE).requires_grad_()
    for fused, expected in both(lambda: modulate(view(maps), weights, 0.6), maps, weights):
        assert close(fused, expected)


@pytest.mark.parametrize("centered", [True, False])
def test_a_weight_that_is_not_a_number_shows(centered: bool) -> None:
    where = Sites(torch.full((1, 1, 2, 2), 2.0, device=DEVICE), torch.ones(1, 1, 2, device=DEVICE) > 0, (4, 5))
    signal = torch.tensor([[[0.5, float("nan")]]], device=DEVICE)
    assert (
        (
            centered_map(signal, where, "gaussian", 1.0)
            if centered
            else sigmoid_map(signal, where, "gaussian", 1.0, 0.01, 2.0)
        )
        .isnan()
        .all()
    )


@pytest.mark.parametrize("sigma", [0.05, 0.1])
def test_sharp_kernels_do_not_underflow(sigma: float) -> None:
    cells = torch.tensor([[[[2.0, 3.0], [2.5, 1.25], [1.1, 0.9]]]], device=DEVICE)
    where = Sites(cells, torch.ones(1, 1, 3, device=DEVICE) > 0, (6, 7))
    signal = torch.full((1, 1, 3), 0.5, device=DEVICE).requires_grad_()
    for fused, expected in both(lambda: sigmoid_map(signal, where, "gaussian", sigma, 0.0, 2.0), signal):
        assert close(fused, expected)


@pytest.mark.parametrize(("lowest", "highest"), [(0.0, 2.0), (0.5, 2.0), (0.0, 0.5)])
def test_kinks_have_the_slopes_of_the_plain_form(lowest: float, highest: float) -> None:
    """Queries at cell centres, at borders and in the corner; maps that equal a bound exactly."""
    cells = torch.tensor([[[[2.5, 3.5], [2.0, 1.25], [0.0, 0.0], [6.5, 0.5]]]], device=DEVICE).requires_grad_()
    where = Sites(cells, torch.ones(1, 1, 4, device=DEVICE) > 0, (6, 8))
    signal = torch.full((1, 1, 4), 0.5, device=DEVICE).requires_grad_()
    for fused, expected in both(lambda: sigmoid_map(signal, where, "bilinear", 1.0, lowest, highest), signal, cells):
        assert close(fused, expected)


def test_no_queries_no_cameras_no_samples() -> None:
    module = build(gate=False).to(DEVICE)
    for samples, queries, views in ((2, 0, 3), (2, 5, 0), (0, 5, 3), (1, 1, 1)):
        given_ = {k: v.to(DEVICE) if isinstance(v, torch.Tensor) else v for k, v in inputs(views, queries).items()}
        for name in ("query_embed", "reference_points", "bev", "images", "lidar2img", "image_position"):
            given_[name] = given_[name][:samples]
        leaves = [given_[k].requires_grad_() for k in ("query_embed", "bev")]
        for fused, expected in both(lambda: module(**given_).bev, *leaves):  # noqa: B023
            assert close(fused, expected)


def test_cameras_at_equal_distance_are_taken_in_their_order() -> None:
    torch.manual_seed(0)
    layer = LocalAttention(8, 3, 2).to(DEVICE)
    query, tokens = torch.randn(1, 5, 8, device=DEVICE), torch.randn(1, 9, 4, 6, 8, device=DEVICE)
    one = sites(1, 1, 5, (4, 6), 1.0, seed=0)
    where = Sites(one.cells.expand(-1, 9, -1, -1), one.visible.expand(-1, 9, -1), one.size)
    first = Sites(where.cells[:, :2], where.visible[:, :2], one.size)
    for found in (layer(query, tokens, where, 2), plain(lambda: layer(query, tokens, where, 2))):
        assert close(found, plain(lambda: layer(query, tokens[:, :2], first, 2)))


def test_what_the_kernels_cannot_take_goes_the_plain_way(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = LocalAttention(8, 3, 2).to(DEVICE)
    query, tokens = torch.randn(1, 5, 8, device=DEVICE), torch.randn(1, 2, 4, 6, 8, device=DEVICE)
    where = sites(1, 2, 5, (4, 6), 1.0, seed=0)
    rounded = Sites(where.cells.bfloat16(), where.visible, where.size)
    assert torch.equal(layer(query, tokens, rounded, 2), plain(lambda: layer(query, tokens, rounded, 2)))
    taken = []
    monkeypatch.setattr("aqr.modulation.kernels.window.attend", lambda *_: taken.append(1))
    # Two windows of 3 × 3 cells, two heads: a score more than can be counted.
    monkeypatch.setattr(route, "INDEXABLE", 5 * 2 * 9 * 2)
    layer(query, tokens, where, 2)
    assert not taken


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_gpu_that_is_not_the_current_one() -> None:
    torch.manual_seed(0)
    far = torch.device("cuda", 1 - torch.cuda.current_device())
    module = build().to(far)
    given_ = {k: v.to(far) if isinstance(v, torch.Tensor) else v for k, v in inputs(views=6, queries=60).items()}
    points = given_["reference_points"].requires_grad_()
    with torch.no_grad():
        for gate in (module.lidar_gate, module.camera_gate):
            assert gate is not None
            gate.fill_(0.5)

    def make() -> torch.Tensor:
        out = module(**given_)
        assert out.bev is not None
        assert out.images is not None
        return torch.cat([out.bev.flatten(), out.images.flatten()])

    for fused, expected in both(make, points, *module.parameters()):
        assert fused.device == far
        assert close(fused, expected)


def test_projection() -> None:
    given_ = inputs(views=6, queries=60)
    points = given_["reference_points"].to(DEVICE).requires_grad_()
    lidar2img, pc_range = given_["lidar2img"].to(DEVICE), torch.tensor(PC_RANGE, device=DEVICE)

    def make() -> torch.Tensor:
        return image_sites(points, lidar2img, pc_range, given_["image_size"], (4, 10)).cells

    for fused, expected in both(make, points):
        assert close(fused, expected)

    def seen() -> torch.Tensor:
        return image_sites(points, lidar2img, pc_range, given_["image_size"], (4, 10)).visible

    assert torch.equal(seen(), plain(seen))
    assert seen().any()
    assert not seen().all()


def test_what_an_image_shows_lies_in_its_map() -> None:
    """At 156 pixels and 20 cells, the last number below 156 scaled to cells rounds to 20."""
    edge = torch.tensor(156.0).nextafter(torch.tensor(0.0)).item()
    points = torch.tensor([[[edge, 50.0, 0.0], [50.0, edge, 0.0], [155.0, 155.0, 0.0], [0.0, 0.0, 0.0]]])
    matrix = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1]])
    unit = torch.tensor([0.0, 0, 0, 1, 1, 1], device=DEVICE)

    def make() -> Sites:
        return image_sites(points.to(DEVICE), matrix[None, None].to(DEVICE), unit, (156, 156), (20, 20))

    for found in (make(), plain(make)):
        assert (found.cells < 20).all()
        assert found.visible[0, 0, 2:].all()


def test_points_that_are_not_finite_lie_nowhere() -> None:
    nan, inf = float("nan"), float("inf")
    points = torch.tensor([[[nan, 0.5, 0.5], [0.5, inf, 0.5], [0.5, 0.5, -inf], [nan] * 3]], device=DEVICE)
    matrix = torch.tensor([[30.0, 50, 0, 0], [20, 0, -30, 0], [1, 0, 0, 0.1], [0, 0, 0, 1]], device=DEVICE)
    pc_range = torch.tensor(PC_RANGE, device=DEVICE)
    for found in (
        image_sites(points, matrix[None, None], pc_range, (64, 96), (4, 6)),
        plain(lambda: image_sites(points, matrix[None, None], pc_range, (64, 96), (4, 6))),
    ):
        assert found.cells.isfinite().all()
        assert not found.visible.any()


@pytest.mark.parametrize(
    "settings_",
    [
        {},
        {"parameterisation": "centered", "gate": False},
        {"gate": False, "form": "additive", "modulation_type": "adaptive"},
        {"gate": False, "render_method": "direct"},
    ],
)
def test_the_whole_module(settings_: dict[str, Any]) -> None:
    module = build(3, **settings_).to(DEVICE)
    with torch.no_grad():
        for gate in (module.lidar_gate, module.camera_gate):
            if gate is not None:
                gate.fill_(0.3)
        torch.nn.init.normal_(module.router.logits.weight, std=0.3)
    given_ = {k: v.to(DEVICE) if isinstance(v, torch.Tensor) else v for k, v in inputs(queries=30).items()}
    leaves = [given_[k].requires_grad_() for k in ("query_embed", "reference_points", "bev", "images", "bev_position")]

    def make() -> torch.Tensor:
        out = module(**given_)
        return torch.cat([out.bev.flatten(), out.images.flatten(), out.bev_map.flatten(), out.image_maps.flatten()])

    for fused, expected in both(make, *leaves, *module.parameters()):
        assert close(fused, expected, 5e-5)


def test_float64_takes_the_plain_forms() -> None:
    assert not kernels.fused(torch.zeros(1, dtype=torch.float64, device=DEVICE))
    assert kernels.fused(torch.zeros(1, device=DEVICE))


@pytest.mark.skipif(DEVICE == "cuda", reason="the interpreter runs on CPUs")
def test_bf16_is_not_interpreted() -> None:
    assert not kernels.fused(torch.zeros(1, dtype=torch.bfloat16))
    assert kernels.fused(torch.zeros(1, dtype=torch.float16))


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_stays_near_float64(dtype: torch.dtype, tolerance: float) -> None:
    module = AQRModulation(64, PC_RANGE, gate=False).cuda()
    reference = AQRModulation(64, PC_RANGE, gate=False).cuda().double()
    reference.load_state_dict(module.state_dict())
    generator = torch.Generator().manual_seed(0)
    given_ = inputs(queries=200)
    points, lidar2img = torch.rand(2, 200, 3, generator=generator).cuda(), given_["lidar2img"].cuda()
    query = torch.randn(2, 200, 64, generator=generator).cuda()
    maps = [torch.randn(*shape, generator=generator).to(dtype).cuda() for shape in ((2, 64, 32, 32), (2, 6, 64, 8, 20))]

    def run(m: AQRModulation, wide: torch.dtype, narrow: torch.dtype) -> dict[str, torch.Tensor]:
        leaves = [query.to(wide).requires_grad_(), *(x.to(narrow).requires_grad_() for x in maps)]
        with torch.autocast("cuda", torch.bfloat16, enabled=narrow == torch.bfloat16):
            out = m(leaves[0], points.to(wide), leaves[1], leaves[2], lidar2img.to(wide), given_["image_size"])
        loss = out.bev.to(wide).square().sum() + out.images.to(wide).square().sum()
        names = ["query", "bev", "images", *(name for name, _ in m.router.named_parameters())]
        gradients = torch.autograd.grad(loss, [*leaves, *m.router.parameters()])
        return {"out.bev": out.bev, "out.images": out.images} | dict(zip(names, gradients, strict=True))

    found, expected = run(module, torch.float32, dtype), run(reference, torch.float64, torch.float64)
    errors = {
        name: ((found[name].double() - value).norm() / value.norm()).item()
        for name, value in expected.items()
        if value.norm() > 1e-9
    }
    assert max(errors.values()) <= tolerance, errors


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
def test_repeats_to_the_bit_in_a_graph_without_waiting() -> None:
    module = build(gate=False).cuda()
    given_ = {k: v.cuda() if isinstance(v, torch.Tensor) else v for k, v in inputs(queries=200).items()}
    leaves = [given_[k].requires_grad_() for k in ("query_embed", "bev", "images")]

    def run() -> list[torch.Tensor]:
        out = module(**given_)
        slope = [torch.ones_like(out.bev), torch.ones_like(out.images)]
        gradients = torch.autograd.grad([out.bev, out.images], [*leaves, *module.parameters()], slope)
        return [out.bev.detach(), out.images.detach(), *gradients]

    first = run()
    torch.cuda.set_sync_debug_mode("error")
    try:
        again = run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run()
    graph.replay()
    assert all(torch.equal(a, b) for a, b in zip(first, captured, strict=True))


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
def test_compiles_in_one_graph() -> None:
    module = build(gate=False).cuda()
    given_ = {k: v.cuda() if isinstance(v, torch.Tensor) else v for k, v in inputs(queries=64).items()}
    compiled = torch.compile(module, fullgraph=True)
    out, expected = compiled(**given_), module(**given_)
    assert close(out.bev, expected.bev)
    assert close(out.images, expected.images)
    out.bev.square().sum().backward()
    assert module.router.logits.weight.grad.any()
