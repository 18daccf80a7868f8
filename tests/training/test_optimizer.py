"""Schedule and parameter groups."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from aqr.config import Train
from aqr.training.optimizer import adamw, one_cycle, resume, set_lr


@given(
    steps=st.integers(20, 3000),
    lr=st.floats(1e-6, 1e-2),
    peak=st.floats(1.0, 20.0),
    fraction=st.floats(0.1, 0.9),
)
def test_one_cycle_rises_to_the_peak_and_falls_to_the_end(steps: int, lr: float, peak: float, fraction: float) -> None:
    config = Train(steps=steps, lr=lr, lr_peak=peak, warmup_fraction=fraction)
    curve = [one_cycle(step, config) for step in range(steps)]
    summit = fraction * steps
    assert curve[0] == pytest.approx(lr)
    assert curve[-1] == pytest.approx(lr * 1e-4, rel=1e-6)
    assert max(curve) <= lr * peak * (1 + 1e-9)
    up, down = curve[: math.ceil(summit)], curve[math.ceil(summit) :]
    assert up == sorted(up)
    assert down == sorted(down, reverse=True)


def test_one_cycle_is_half_a_cosine_each_way() -> None:
    config = Train(steps=101, lr=0.5, lr_peak=6.0, warmup_fraction=0.4)
    # 40.4 steps up: a quarter of the way is a phase of pi/4.
    quarter = 0.5 * (1 + 5 * (1 - math.cos(math.pi / 4)) / 2)
    assert one_cycle(10, config) == pytest.approx(quarter, rel=0.02)
    halfway_down = 0.5 * (6 + 1e-4) / 2
    assert one_cycle(70, config) == pytest.approx(halfway_down, rel=0.02)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_one_cycle_of_very_short_runs(steps: int) -> None:
    assert all(0 < one_cycle(step, Train(steps=steps)) < 1 for step in range(steps))


class Parts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image_encoder = nn.ModuleDict({"backbone": nn.Linear(2, 2), "neck": nn.Linear(2, 2)})
        self.image_encoder_extra = nn.Linear(2, 2)
        self.norm = nn.LayerNorm(2)
        self.gate = nn.Parameter(torch.zeros(()))
        self.layerwise_bias = nn.Parameter(torch.zeros(3, 1, 2))
        self.frozen = nn.Parameter(torch.zeros(2, 2), requires_grad=False)


def test_every_parameter_gets_the_factor_of_its_longest_prefix_and_its_decay() -> None:
    model = Parts()
    mult = {"image_encoder": 0.5, "image_encoder.backbone": 0.01}
    optimizer = adamw(model, Train(lr=2.0, lr_mult=mult, weight_decay=0.3))
    found = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    expected = {
        "image_encoder.backbone.weight": (0.02, 0.3),
        "image_encoder.backbone.bias": (0.02, 0.0),
        "image_encoder.neck.weight": (1.0, 0.3),
        "image_encoder.neck.bias": (1.0, 0.0),
        "image_encoder_extra.weight": (2.0, 0.3),
        "image_encoder_extra.bias": (2.0, 0.0),
        "norm.weight": (2.0, 0.0),
        "norm.bias": (2.0, 0.0),
        "gate": (2.0, 0.0),
        "layerwise_bias": (2.0, 0.0),
    }
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert {name: found[id(p)] for name, p in named.items()} == expected
    assert len(found) == len(expected)
    set_lr(optimizer, 10.0)
    assert {group["lr"] for group in optimizer.param_groups} == {0.1, 5.0, 10.0}


def test_a_prefix_that_matches_nothing_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="aqr"):
        adamw(Parts(), Train(lr_mult={"image_encoder.neck": 0.1, "image_encodr": 0.1}))
    assert "image_encodr" in caplog.text
    assert "image_encoder.neck" not in caplog.text


def test_the_state_of_an_optimizer_that_was_not_fused_becomes_that_of_a_fused_one() -> None:
    model, config = Parts(), Train()
    plain = adamw(model, config)
    for group in plain.param_groups:
        group["fused"] = None
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    plain.step()
    state = plain.state_dict()
    for entry in state["state"].values():
        # In place of another device: what is not taken for a fused optimizer's stays as it is.
        entry["step"] = entry["step"].double()
    resumed = adamw(model, config)
    resume(resumed, state)
    assert all(group["fused"] for group in resumed.param_groups)
    assert {entry["step"].dtype for entry in resumed.state.values()} == {torch.float32}
    resumed.step()
    assert {entry["step"].item() for entry in resumed.state.values()} == {2.0}
