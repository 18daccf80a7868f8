"""The fused kernels against the plain forms: values and gradients, on a GPU or in Triton's interpreter."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.modulation.test_aqr import PC_RANGE, build, inputs

from aqr.modulation import AQRModulation, kernels
from aqr.modulation.modulate import modulate
from aqr.modulation.render import centered_map, sigmoid_map
from aqr.modulation.route import LocalAttention
from aqr.modulation.sites import Sites, image_sites

pytest.importorskip("triton")
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
