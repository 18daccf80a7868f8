import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aqr.modulation.modulate import largest_factor, modulate, modulation_factor

FORMS = ("convex", "additive")
TYPES = ("element_wise", "channel_wise", "adaptive")


@pytest.mark.parametrize("modulation_type", TYPES)
@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=40, deadline=None)
@given(
    clamp=st.floats(1, 4),
    residual=st.floats(0, 1),
    openness=st.none() | st.floats(-1, 1),
    seed=st.integers(0, 99),
)
def test_the_factor_never_passes_its_bound(form, modulation_type, clamp, residual, openness, seed) -> None:  # type: ignore[no-untyped-def]
    generator = torch.Generator().manual_seed(seed)
    corners = torch.tensor([0.0, clamp], dtype=torch.float64)[torch.randint(2, (2, 3, 4, 5), generator=generator)]
    gate = None if openness is None else torch.tensor(openness, dtype=torch.float64)
    factor = modulation_factor(corners, residual, form, modulation_type, gate)
    assert factor.abs().max() <= largest_factor(clamp, residual, form, openness is not None) + 1e-9


@pytest.mark.parametrize("clamp", [1.0, 2.5])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("gate", [None, 1.0, -1.0])
def test_the_bound_is_reached(form, clamp, gate) -> None:  # type: ignore[no-untyped-def]
    """A bound that nothing reaches would hide a wrong formula."""
    both = torch.tensor([[[[0.0]], [[clamp]]]], dtype=torch.float64)
    worst = max(
        modulation_factor(both, 0.6, form, "element_wise", None if gate is None else torch.tensor(sign * abs(gate)))
        .abs()
        .max()
        .item()
        for sign in (1, -1)
    )
    assert worst == pytest.approx(largest_factor(clamp, 0.6, form, gate is not None))


@pytest.mark.parametrize(
    ("clamp", "residual", "expected"), [(2.5, 0.6, 1.6), (2.0, 0.65, 1.35), (2.0, 0.70, 1.30), (2.2, 0.68, 1.384)]
)
def test_largest_factor_of_known_settings(clamp: float, residual: float, expected: float) -> None:
    assert largest_factor(clamp, residual) == pytest.approx(expected, abs=1e-12)


def test_forms_equal_their_formulas() -> None:
    weights, r = torch.rand(2, 3, 4, 5, dtype=torch.float64) * 2, 0.65
    features = torch.randn(2, 3, 8, 4, 5, dtype=torch.float64)
    w = weights[:, :, None]
    convex = modulate(features, weights, r, "convex")
    assert torch.allclose(convex, r * features + (1 - r) * w * features)
    additive = modulate(features, weights, r, "additive")
    assert torch.allclose(additive, r * features + w * features)
    gated = modulate(features, weights, r, "convex", "element_wise", torch.tensor(0.3))
    assert torch.allclose(gated, features + 0.3 * (convex - features))


def test_types_take_the_mean_of_each_map_alone() -> None:
    weights = torch.rand(2, 3, 4, 5, dtype=torch.float64)
    means = weights.mean((2, 3), keepdim=True).expand_as(weights)
    assert torch.allclose(modulation_factor(weights, 0.0, "convex", "channel_wise"), means)
    assert torch.allclose(modulation_factor(weights, 0.0, "convex", "adaptive"), 0.7 * weights + 0.3 * means)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_neutral_settings_leave_every_bit(dtype: torch.dtype) -> None:
    features = torch.randn(1, 2, 3, 4, 5).to(dtype)
    for out in (
        modulate(features, torch.ones(1, 2, 4, 5), 0.7),
        modulate(features, torch.rand(1, 2, 4, 5), 1.0),
        modulate(features, torch.rand(1, 2, 4, 5), 0.6, "additive", "adaptive", torch.zeros(())),
    ):
        assert out.dtype == dtype
        assert torch.equal(out, features)
