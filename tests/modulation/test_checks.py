"""What AQRModulation refuses: impossible settings, tensors that do not fit, values with which it would do nothing."""

import copy
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tests.modulation.test_aqr import IMAGE_SIZE, PC_RANGE, C, build, inputs

from aqr.modulation import AQRModulation, AttentionRouting

NAN = float("nan")


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"channels": 0}, "channels"),
        ({"channels": 16.0}, "channels"),
        ({"pc_range": (-54, -54, NAN, 54, 54, 3)}, "pc_range"),
        ({"pc_range": (-54, -54, -5, 54, 54, float("inf"))}, "pc_range"),
        ({"window_sizes": 5}, "window_sizes"),
        ({"window_sizes": (5,)}, "window_sizes"),
        ({"window_sizes": (4, 9)}, "window_sizes"),
        ({"num_heads": 0}, "num_heads"),
        ({"gaussian_sigma": NAN}, "gaussian_sigma"),
        ({"min_weight_threshold": -0.1}, "min_weight_threshold"),
        ({"min_weight_threshold": NAN}, "min_weight_threshold"),
        ({"max_weight_clamp": NAN}, "max_weight_clamp"),
        ({"max_weight_clamp": float("inf")}, "max_weight_clamp"),
        ({"residual_weight": NAN}, "residual_weight"),
        ({"gate": "yes"}, "gate"),
        ({"gains": (1.0, NAN)}, "gains"),
        ({"gains": 2.0}, "gains"),
        ({"class_residuals": [0.5, NAN]}, "class_residuals"),
        ({"class_residuals": []}, "class_residuals"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_named(setting: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        AQRModulation(**{"channels": C, "pc_range": PC_RANGE} | setting)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"query_embed": torch.randn(2, 40, 4 * C)}, ("query_embed must be [B, Q, 16]", "[2, 40, 64]")),
        ({"query_embed": torch.randn(40, C)}, ("query_embed must be [B, Q, 16]", "[40, 16]")),
        ({"query_embed": torch.randn(40, 2, C)}, ("[40, 2, 16]", "batch first")),
        ({"query_embed": torch.randn(2, 40, C).bfloat16()}, ("torch.bfloat16", "torch.float32", "autocast")),
        ({"query_embed": np.zeros((2, 40, C))}, ("query_embed must be a torch.Tensor", "numpy.ndarray")),
        ({"lidar2img": np.zeros((2, 6, 4, 4))}, ("lidar2img must be a torch.Tensor", "numpy.ndarray")),
        ({"bev": torch.ones(2, C, 12, 10, dtype=torch.int64)}, ("bev must be floating-point", "int64")),
        ({"image_size": (64, 160, 3)}, ("image_size", "(64, 160, 3)")),
        ({"image_size": (0, 160)}, ("image_size", "(0, 160)")),
        ({"image_size": 160}, ("image_size", "160")),
        ({"bev_position": torch.randn(10, 12, C)}, ("bev_position", "12, 10, 16]", "[10, 12, 16]")),
        ({"image_position": torch.randn(2, 6, C, 4, 10)}, ("image_position", "4, 10, 16]")),
        # These would be taken for other batches and cameras.
        ({"bev_position": torch.randn(6, 12, 10, C)}, ("bev_position", "[2, 12, 10, 16]", "[6, 12, 10, 16]")),
        ({"image_position": torch.randn(2, 4, 10, C)}, ("image_position", "4, 10, 16]", "[2, 4, 10, 16]")),
        ({"query_embed": torch.ones(2, 40, C, dtype=torch.int64)}, ("query_embed must be floating-point", "int64")),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], parts: tuple[str, ...]) -> None:
    for module in (build(), AttentionRouting(C, PC_RANGE)):
        with pytest.raises(ValueError, match=r"must|where the module") as caught:
            module(**(inputs() | change))
        assert all(part in str(caught.value) for part in parts), caught.value


def test_all_tensors_with_other_channels_than_the_module_blame_the_module() -> None:
    with pytest.raises(ValueError, match=r"query_embed must be \[B, Q, 32\], as the module has channels=32"):
        AQRModulation(32, PC_RANGE)(**inputs())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_maps_of_another_dtype_are_fine(dtype: torch.dtype) -> None:
    given = inputs()
    out = build(gate=False)(**given | {name: given[name].to(dtype) for name in ("bev", "images")})
    assert (out.bev.dtype, out.images.dtype) == (dtype, dtype)


def metres(points: torch.Tensor) -> torch.Tensor:
    low, high = torch.tensor(PC_RANGE[:3]), torch.tensor(PC_RANGE[3:])
    return low + points * (high - low)


def one_nan(points: torch.Tensor) -> torch.Tensor:
    return points.index_fill(1, torch.tensor(3), NAN)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("reference_points", metres, "lie outside"),
        ("reference_points", one_nan, "reference_points must be finite"),
        ("reference_points", lambda points: points + 2, "100 % lie outside"),
        ("lidar2img", lambda matrices: matrices * NAN, "lidar2img must be finite"),
    ],
)
def test_values_that_would_make_it_do_nothing_are_refused_at_the_first_call(
    name: str, change: Callable[[torch.Tensor], torch.Tensor], said: str
) -> None:
    given = inputs()
    wrong = given | {name: change(given[name])}
    for module in (build(), AttentionRouting(C, PC_RANGE)):
        for _ in range(2):  # a refused call is no first call
            with pytest.raises(ValueError, match=said):
                module(**wrong)
        module(**given)
        module(**wrong)  # looked at once
        module(**given)


def test_learned_points_may_wander(caplog: pytest.LogCaptureFixture) -> None:
    """All a little outside, or a third far outside, as may happen to learned points."""
    given = inputs()
    wandered = given["reference_points"].clone()
    wandered[..., 2] = 1.0001
    far = given["reference_points"].clone()
    far[:, ::3] += 1
    with caplog.at_level(logging.WARNING):
        for points in (wandered, far):
            build()(**given | {"reference_points": points})
    assert not caplog.records


def test_cameras_that_see_nothing_are_worth_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    module, given = build(), inputs()
    blind = given | {"lidar2img": torch.zeros_like(given["lidar2img"])}
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            module(**blind)
        build()(**inputs(views=0))
    (record,) = caplog.records
    assert "no camera sees any of the 80 queries" in record.getMessage()


def test_a_batch_without_queries_is_no_first_look() -> None:
    module = build()
    module(**inputs(queries=0))
    with pytest.raises(ValueError, match="finite"):
        module(**inputs() | {"reference_points": torch.full((2, 40, 3), NAN)})


def test_later_calls_read_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    module, given = build(), inputs()
    module(**given)

    def read(*_: object) -> None:
        raise AssertionError("a value was read")

    for name in ("item", "tolist", "__bool__"):
        monkeypatch.setattr(torch.Tensor, name, read)
    module(**given)
    copy.deepcopy(module)(**given)


class Exported(torch.nn.Module):
    """Tensors in, tensors out."""

    def __init__(self, module: AQRModulation) -> None:
        super().__init__()
        self.module = module

    def forward(
        self, queries: torch.Tensor, points: torch.Tensor, bev: torch.Tensor, images: torch.Tensor, to: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        out = self.module(queries, points, bev, images, to, IMAGE_SIZE)
        return out.bev, out.images


def exported() -> tuple[Exported, tuple[torch.Tensor, ...]]:
    given = inputs()
    names = ("query_embed", "reference_points", "bev", "images", "lidar2img")
    return Exported(build(gate=False)), tuple(given[name] for name in names)


@pytest.mark.parametrize("make", ["compile", "export", "strict export"])
def test_a_graph_of_a_new_module_holds_no_look_at_values(make: str) -> None:
    module, given = exported()
    expected = copy.deepcopy(module)(*given)
    if make == "compile":
        torch._dynamo.reset()
        whole = torch.compile(module, fullgraph=True, backend="eager")
    else:
        whole = torch.export.export(module, given, strict=make == "strict export").module()
    for found in (whole(*given), whole(*given)):
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other)
    wrong = (given[0], torch.full_like(given[1], NAN), *given[2:])
    whole(*wrong)
    assert not module.module.looked


def test_a_first_call_without_a_graph_compiles_nothing_anew() -> None:
    module, given = exported()
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    compiled(*given)
    module(*given)
    assert module.module.looked
    with torch._dynamo.config.patch(error_on_recompile=True):
        compiled(*given)


def test_shapes_alone_go_through() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        module, given = exported()
        bev, images = module(*given)
        assert (bev.shape, images.shape) == (given[2].shape, given[3].shape)


def test_values_are_not_looked_at_under_a_transform() -> None:
    module, given = build(), inputs()
    points = given["reference_points"]

    def routed(moved: torch.Tensor) -> torch.Tensor:
        return module(**(given | {"reference_points": moved})).lidar_weights

    several = torch.func.vmap(routed)(torch.stack([points, points.flip(1)]))
    assert not module.looked
    torch.testing.assert_close(several, torch.stack([routed(points), routed(points.flip(1))]))
