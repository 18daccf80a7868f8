"""A residual per class against a loop over queries, and against the one number that it replaces."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aqr.modulation.aqr import AQRModulation, AQROutput
from aqr.modulation.residual import ClassResidual, residual_map
from aqr.modulation.sites import Sites, bev_sites

RESIDUALS = (0.9, 0.5, 0.7)
RANGE = (-54, -54, -5, 54, 54, 3)


def obvious_map(logits: Tensor, cells: Tensor, size: tuple[int, int], sigma: float, default: float) -> Tensor:
    """One sample, one map: the formulae cell by cell."""
    out = torch.empty(size, dtype=torch.float64)
    for row in range(size[0]):
        for column in range(size[1]):
            total = mass = 0.0
            for query in range(len(logits)):
                p = [1 / (1 + math.exp(-float(x))) for x in logits[query]]
                asked = sum(pc * (rc - default) for pc, rc in zip(p, RESIDUALS, strict=True)) / max(1.0, sum(p))
                x, y = cells[query].tolist()
                k = math.exp(-((column + 0.5 - x) ** 2 + (row + 0.5 - y) ** 2) / (2 * sigma**2))
                total += k * asked
                mass += k * min(1.0, sum(p))
            out[row, column] = default + total / max(1.0, mass)
    return out


@given(seed=st.integers(0, 1000), queries=st.integers(1, 6), scale=st.floats(0.1, 6))
@settings(max_examples=25)
def test_the_map_equals_the_obvious_one(seed: int, queries: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    head = ClassResidual(8, RESIDUALS).double()
    logits = torch.randn(1, queries, 3, generator=generator, dtype=torch.float64) * scale
    points = torch.rand(1, queries, 3, generator=generator, dtype=torch.float64)
    sites = bev_sites(points, (5, 7))
    found = residual_map(*head.ask(logits, 0.6), sites, "gaussian", 0.8, 0.6)
    expected = obvious_map(logits[0], sites.cells[0, 0], (5, 7), 0.8, 0.6)
    torch.testing.assert_close(found[0, 0], expected, rtol=1e-6, atol=1e-7)
    assert found.min() >= min(*RESIDUALS, 0.6) - 1e-9
    assert found.max() <= max(RESIDUALS) + 1e-9


def test_sure_queries_ask_for_their_class_and_others_for_the_default() -> None:
    head = ClassResidual(4, RESIDUALS)
    sure = torch.tensor([[[30.0, -30, -30], [-30, 30, -30], [-30, -30, -30]]])
    offset, sureness = head.ask(sure, 0.7)
    torch.testing.assert_close(offset, torch.tensor([[0.2, -0.2, 0.0]]))
    torch.testing.assert_close(sureness, torch.tensor([[1.0, 1.0, 0.0]]))
    # Two queries on one spot: the one that sees an object decides, the one that sees nothing has no say.
    cells = torch.full((1, 1, 3, 2), 2.5)
    sites = Sites(cells, torch.tensor([[[True, False, True]]]), (5, 5))
    found = residual_map(offset, sureness, sites, "gaussian", 0.1, 0.7)
    assert found[0, 0, 2, 2].item() == pytest.approx(0.9)
    assert found[0, 0, 0, 0].item() == pytest.approx(0.7)


def outputs(
    residual: float, by_class: tuple[float, ...] | None, train: bool = False, **options: object
) -> tuple[AQROutput, AQRModulation]:
    torch.manual_seed(3)
    module = AQRModulation(16, RANGE, residual_weight=residual, class_residuals=by_class, **options)  # type: ignore[arg-type]
    if module.lidar_gate is not None and module.camera_gate is not None:
        torch.nn.init.constant_(module.lidar_gate, 0.4)
        torch.nn.init.constant_(module.camera_gate, -0.3)
    torch.manual_seed(4)
    queries, points = torch.randn(2, 30, 16), torch.rand(2, 30, 3)
    bev, images = torch.randn(2, 16, 12, 12), torch.randn(2, 2, 16, 4, 6)
    lidar2img = torch.tensor([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    lidar2img = torch.diag(torch.tensor([40.0, 40, 1, 1])) @ lidar2img
    lidar2img[0, 2], lidar2img[1, 2] = 48.0, 32.0
    views = torch.stack([lidar2img, lidar2img @ torch.diag(torch.tensor([-1.0, -1, 1, 1]))])
    return module(queries, points, bev, images, views.expand(2, 2, 4, 4), (64, 96)), module


@pytest.mark.parametrize("parameterisation", ["sigmoid", "centered"])
@pytest.mark.parametrize("method", ["gaussian", "bilinear", "direct", "distance_weighted"])
def test_alike_residuals_are_the_one_number(parameterisation: str, method: str) -> None:
    options = {"parameterisation": parameterisation, "render_method": method}
    one, plain = outputs(0.65, None, **options)
    many, _ = outputs(0.65, (0.65,) * 10, **options)
    assert plain.class_residual is None
    assert one.class_logits is None
    assert many.class_logits is not None
    assert many.class_logits.shape == (2, 30, 10)
    for name in ("bev_map", "image_maps", "lidar_weights", "camera_weights"):
        assert torch.equal(getattr(one, name), getattr(many, name)), name
    # 1 − 0.65 is rounded in another place where 0.65 is a float32 map: the last bit of a factor may differ.
    for name in ("bev", "images"):
        torch.testing.assert_close(getattr(one, name), getattr(many, name), rtol=3e-7, atol=0)
    assert many.bev_residual is not None
    assert torch.all(many.bev_residual == torch.tensor(0.65))


def test_different_residuals_change_the_features_by_the_map() -> None:
    out, _ = outputs(0.7, (0.95,) * 5 + (0.2,) * 5, gate=False)
    torch.manual_seed(4)
    torch.randn(2, 30, 16), torch.rand(2, 30, 3)
    bev = torch.randn(2, 16, 12, 12)
    assert out.bev is not None
    assert out.bev_map is not None
    assert out.bev_residual is not None
    r, w = out.bev_residual[:, None], out.bev_map[:, None]
    torch.testing.assert_close(out.bev, r * bev + (1 - r) * w * bev)
    assert out.bev_residual.unique().numel() > 10


def test_the_head_learns_from_classes_and_not_from_the_residual_it_asks_for() -> None:
    out, module = outputs(0.7, (0.95,) * 5 + (0.2,) * 5, gate=False)
    assert module.class_residual is not None
    assert out.bev is not None
    assert out.images is not None
    (out.bev.square().mean() + out.images.square().mean()).backward()
    assert module.class_residual.logits.weight.grad is None
    assert module.router.hidden.weight.grad is not None


@pytest.mark.parametrize("parameterisation", ["sigmoid", "centered"])
def test_gains_multiply_the_weights_and_the_clamp_still_bounds_the_maps(parameterisation: str) -> None:
    options = {"parameterisation": parameterisation, "max_weight_clamp": 1.5}
    plain, _ = outputs(0.7, None, **options)
    gained, _ = outputs(0.7, None, gains=(1.1, 0.5), **options)
    for name, gain in (("lidar_weights", 1.1), ("camera_weights", 0.5)):
        expected = getattr(plain, name) * gain
        if parameterisation == "centered":
            expected = expected.clamp(1 / 1.5, 1.5)
        torch.testing.assert_close(getattr(gained, name), expected)
    assert gained.bev_map is not None
    assert gained.bev_map.max() <= 1.5 + 1e-6
    same, _ = outputs(0.7, None, gains=(1.0, 1.0), **options)
    assert torch.equal(plain.lidar_weights, same.lidar_weights)


@pytest.mark.parametrize("options", [{"class_residuals": (0.5, 1.2)}, {"gains": (0.0, 1.0)}])
def test_settings_out_of_range_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must"):
        AQRModulation(16, RANGE, **options)  # type: ignore[arg-type]
