"""Clipping and the optimizer's step, from gradients that are given."""

import copy
from typing import Any

import pytest
import torch
from training_fakes import FakeDetector, small_config

from aqr.modulation import AQRModulation
from aqr.modulation.attend import AttentionRouting
from aqr.training.optimizer import adamw
from aqr.training.update import Update, router_grad_norm


def with_gradients() -> tuple[FakeDetector, torch.optim.AdamW]:
    """A detector whose optimizer has taken a step, and finite gradients for the next."""
    torch.manual_seed(0)
    config = small_config()
    detector: Any = FakeDetector(config)
    optimizer = adamw(detector, config.train)
    for _ in range(2):
        for parameter in detector.parameters():
            parameter.grad = torch.randn_like(parameter)
        if not optimizer.state:
            optimizer.step()
    return detector, optimizer


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", [0, 2])
def test_a_number_that_is_not_finite_keeps_everything_as_it_is_whatever_the_gradients(place: int, bad: float) -> None:
    detector, optimizer = with_gradients()
    before = copy.deepcopy((detector.state_dict(), optimizer.state_dict()["state"]))
    numbers = torch.tensor([0.0, 1.5, 1.0])
    numbers[place] = bad
    norm, router, *said = Update(detector, optimizer, 1.0)(numbers)()
    assert norm > router > 0
    torch.testing.assert_close(said, numbers.tolist(), equal_nan=True)
    after = (detector.state_dict(), optimizer.state_dict()["state"])
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert {float(state["step"]) for state in after[1].values()} == {1.0}


def test_finite_numbers_let_every_weight_go_a_step() -> None:
    detector, optimizer = with_gradients()
    before = copy.deepcopy(detector.state_dict())
    Update(detector, optimizer, 1.0)(torch.tensor([0.0, 1.5, 1.0]))
    changed = {name for name, value in detector.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name, _ in detector.named_parameters()}
    assert {float(state["step"]) for state in optimizer.state_dict()["state"].values()} == {2.0}


def test_a_router_without_gradients_has_a_norm_of_nothing_where_the_other_norm_lies() -> None:
    detector, optimizer = with_gradients()
    assert detector.aqr is not None
    for parameter in detector.aqr.router.parameters():
        parameter.requires_grad_(False).grad = None
    assert detector.aqr.lidar_gate is not None
    assert detector.aqr.lidar_gate.grad is not None, "the gate learns by itself"
    update = Update(detector, optimizer, 1.0)
    norm, router, number = update(torch.tensor([1.5]))()
    assert (router, number) == (0.0, 1.5)
    assert norm > 0
    # There need not be a GPU for it to lie elsewhere than PyTorch's own norm of nothing.
    for aqr in (detector.aqr, None):
        assert router_grad_norm(aqr, torch.zeros((), device="meta")).device.type == "meta"


@pytest.mark.parametrize("kind", ["features", "classes", "attention"])
def test_the_routers_norm_is_of_all_parts_that_decide_the_weights_and_of_no_gate(kind: str) -> None:
    space = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0)
    made = {
        "features": lambda: (AQRModulation(8, space), ("router",)),
        "classes": lambda: (AQRModulation(8, space, class_residuals=[0.5, 0.7]), ("router", "class_residual")),
        "attention": lambda: (AttentionRouting(8, space, context=True), ("router", "context")),
    }
    aqr, parts = made[kind]()
    torch.manual_seed(0)
    for parameter in aqr.parameters():
        parameter.grad = torch.randn_like(parameter)
    squares = [float(p.grad.square().sum()) for part in parts for p in aqr.get_submodule(part).parameters()]
    torch.testing.assert_close(float(router_grad_norm(aqr, torch.zeros(()))), sum(squares) ** 0.5)
