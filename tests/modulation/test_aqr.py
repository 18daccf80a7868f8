import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import aqr
from aqr.modulation import AQRModulation, AttentionRouting, largest_factor

C = 16
PC_RANGE = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0)
IMAGE_SIZE = (64, 160)


def ring_of_cameras(batch: int, views: int) -> torch.Tensor:
    """lidar2img [B, V, 4, 4] of cameras at the origin that look outwards, evenly around."""
    height, width = IMAGE_SIZE
    out = []
    for view in range(views):
        yaw = torch.tensor(2 * torch.pi * view / max(views, 1))
        forward = torch.stack([yaw.sin(), yaw.cos(), torch.tensor(0.0)])
        right = torch.stack([yaw.cos(), -yaw.sin(), torch.tensor(0.0)])
        axes = torch.stack([right, torch.tensor([0.0, 0.0, -1.0]), forward])
        intrinsics = torch.tensor([[90.0, 0.0, width / 2], [0.0, 90.0, height / 2], [0.0, 0.0, 1.0]])
        matrix = torch.eye(4)
        matrix[:3, :3] = intrinsics @ axes
        out.append(matrix)
    return torch.stack(out).expand(batch, views, 4, 4) if views else torch.zeros(batch, 0, 4, 4)


def inputs(views: int = 6, queries: int = 40, seed: int = 0) -> dict:  # type: ignore[type-arg]
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return {
        "query_embed": randn(2, queries, C),
        "reference_points": torch.rand(2, queries, 3, generator=generator),
        "bev": randn(2, C, 12, 10),
        "images": randn(2, views, C, 4, 10),
        "lidar2img": ring_of_cameras(2, views),
        "image_size": IMAGE_SIZE,
        "bev_position": randn(12, 10, C),
        "image_position": randn(2, views, 4, 10, C),
    }


def build(seed: int = 0, **settings_: object) -> AQRModulation:
    torch.manual_seed(seed)
    return AQRModulation(C, PC_RANGE, window_sizes=(3, 5), **settings_)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "settings_",
    [
        {},
        {"parameterisation": "centered", "gate": False},
        {"parameterisation": "centered"},
        {"form": "additive", "modulation_type": "adaptive"},
        {"render_method": "direct"},
    ],
)
def test_untrained_it_changes_nothing(settings_: dict[str, object]) -> None:
    given_ = inputs()
    out = build(**settings_)(**given_)
    assert torch.equal(out.bev, given_["bev"])
    assert torch.equal(out.images, given_["images"])


@pytest.mark.parametrize("render_method", ["gaussian", "bilinear", "direct", "distance_weighted"])
@pytest.mark.parametrize("parameterisation", ["sigmoid", "centered"])
@pytest.mark.parametrize("gate", [True, False])
def test_every_parameter_learns_from_the_second_step_on(render_method, parameterisation, gate) -> None:  # type: ignore[no-untyped-def]
    module = build(render_method=render_method, parameterisation=parameterisation, gate=gate)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    given_, target = inputs(), inputs(seed=1)
    for _ in range(2):
        optimizer.zero_grad()
        out = module(**given_)
        loss = ((out.bev - target["bev"]) ** 2).mean() + ((out.images - target["images"]) ** 2).mean()
        loss.backward()
        optimizer.step()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert (parameter.grad != 0).any(), name


@pytest.mark.parametrize("parameterisation", ["sigmoid", "centered"])
def test_gradient_of_the_whole_in_float64(parameterisation: str) -> None:
    # A threshold lets gradients pass that finite differences do not see.
    options = {"max_weight_clamp": 2.5, "residual_weight": 0.6, "min_weight_threshold": 0.0}
    module = build(parameterisation=parameterisation, gate=False, **options).double()
    nn.init.normal_(module.router.logits.weight, std=0.3)
    given_ = {k: v.double() if isinstance(v, torch.Tensor) else v for k, v in inputs(views=2, queries=5).items()}
    parameters = tuple(p.detach().clone().requires_grad_() for p in module.router.parameters())
    names = [name for name, _ in module.router.named_parameters()]

    def run(*values: torch.Tensor) -> torch.Tensor:
        state = {f"router.{n}": v for n, v in zip(names, values, strict=True)}
        out = torch.func.functional_call(module, state, kwargs=given_)
        return torch.cat([out.bev.flatten(), out.images.flatten()]).square().sum()

    assert torch.autograd.gradcheck(run, parameters, fast_mode=True, eps=1e-6, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    clamp=st.floats(1, 4),
    residual=st.floats(0, 1),
    form=st.sampled_from(["convex", "additive"]),
    parameterisation=st.sampled_from(["sigmoid", "centered"]),
    modulation_type=st.sampled_from(["element_wise", "channel_wise", "adaptive"]),
    gate=st.booleans(),
    seed=st.integers(0, 50),
)
def test_features_never_grow_beyond_the_largest_factor(  # type: ignore[no-untyped-def]
    clamp, residual, form, parameterisation, modulation_type, gate, seed
) -> None:
    module = build(
        seed,
        max_weight_clamp=clamp,
        residual_weight=residual,
        form=form,
        parameterisation=parameterisation,
        modulation_type=modulation_type,
        gate=gate,
    )
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) * 3)
    given_ = inputs(seed=seed)
    out = module(**given_)
    bound = largest_factor(clamp, residual, form, gate) * (1 + 1e-5) + 1e-6
    assert (out.bev.abs() <= bound * given_["bev"].abs()).all()
    assert (out.images.abs() <= bound * given_["images"].abs()).all()


def test_a_query_no_camera_sees_changes_only_the_bev_map() -> None:
    module = build(gate=False)
    given_ = inputs(views=2)
    unseen = ~module(**given_).visible.any(1)[0]
    assert unseen.any()
    query = int(unseen.nonzero()[0])
    base = module(**given_)
    moved = copy.copy(given_)
    moved["query_embed"] = given_["query_embed"].clone()
    moved["query_embed"][0, query] += 5.0
    out = module(**moved)
    assert torch.equal(out.image_maps, base.image_maps)
    assert not torch.equal(out.bev_map, base.bev_map)
    without = {
        k: v[:, torch.arange(40) != query] if k in ("query_embed", "reference_points") else v for k, v in given_.items()
    }
    assert torch.allclose(module(**without).image_maps[0], base.image_maps[0], atol=1e-6)


@pytest.mark.parametrize("views", [0, 1, 6, 12])
def test_any_number_of_cameras(views: int) -> None:
    out = build(gate=False)(**inputs(views=views))
    assert out.bev.shape == (2, C, 12, 10)
    assert (out.images is None) == (views == 0)
    if views:
        assert out.images.shape == (2, views, C, 4, 10)
        assert out.image_maps.shape == (2, views, 4, 10)


def test_cameras_alone() -> None:
    given_ = inputs() | {"bev": None, "bev_position": None}
    out = build(gate=False)(**given_)
    assert out.bev is None
    assert out.bev_map is None
    assert out.image_maps.max() > 0


def test_samples_of_a_batch_do_not_mix() -> None:
    module, given_ = build(gate=False), inputs()
    both = module(**given_)
    for b in range(2):
        alone = {
            k: v[b : b + 1] if isinstance(v, torch.Tensor) and k != "bev_position" else v for k, v in given_.items()
        }
        one = module(**alone)
        assert torch.allclose(one.bev_map[0], both.bev_map[b], atol=1e-5)
        assert torch.allclose(one.images[0], both.images[b], atol=1e-5)


def test_weights_are_those_of_the_parameterisation() -> None:
    sigmoid = build(gate=False)(**inputs())
    assert ((sigmoid.lidar_weights > 0) & (sigmoid.lidar_weights < 1)).all()
    assert sigmoid.lidar_weights.mean().item() == pytest.approx(1 / (1 + 2.718281828**-1.5), abs=0.08)
    centered = build(gate=False, parameterisation="centered", max_weight_clamp=2.5)(**inputs())
    assert (centered.camera_weights == 1).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reference_points": torch.rand(2, 39, 3)}, "reference_points"),
        ({"bev": torch.randn(2, C + 1, 4, 4)}, "bev must be"),
        ({"images": torch.randn(2, 6, C, 4)}, "images must be"),
        ({"lidar2img": None}, "need lidar2img"),
        ({"lidar2img": torch.eye(4).expand(2, 5, 4, 4)}, "lidar2img must be"),
    ],
)
def test_shapes_that_do_not_belong_together(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()(**(inputs() | change))
    with pytest.raises(ValueError, match=message):
        AttentionRouting(C, PC_RANGE)(**(inputs() | change))


@pytest.mark.parametrize(
    "settings_",
    [
        {"residual_weight": 1.6},
        {"max_weight_clamp": 0.5},
        {"gaussian_sigma": 0.0},
        {"form": "multiplicative"},
        {"render_method": "nearest"},
        {"window_sizes": (4, 5)},
    ],
)
def test_settings_out_of_range(settings_: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"must|none of"):
        AQRModulation(C, PC_RANGE, **settings_)  # type: ignore[arg-type]


def test_the_public_door() -> None:
    assert aqr.AQRModulation is AQRModulation
    with pytest.raises(AttributeError, match="no attribute"):
        _ = aqr.AQRModulator


def test_bf16_autocast_stays_close_to_float64() -> None:
    """Relative error of the maps and features under 1e-2, as accuracy is stated for bf16."""
    module = build(gate=False)
    given_ = inputs()
    exact_input = {k: v.double() if isinstance(v, torch.Tensor) else v for k, v in given_.items()}
    exact = copy.deepcopy(module).double()(**exact_input)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = module(**given_ | {"bev": given_["bev"].bfloat16(), "images": given_["images"].bfloat16()})
    for name in ("bev", "images", "bev_map", "image_maps"):
        reference = getattr(exact, name)
        error = (getattr(half, name).double() - reference).norm() / reference.norm()
        assert error < 1e-2, name
