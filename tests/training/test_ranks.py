"""What ranks tell each other, on one process that plays them all."""

import pytest
import torch
from torch import distributed as dist
from torch import nn

from aqr.training.ranks import Mean

RANKS = 7


@pytest.fixture(autouse=True)
def ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks that hold the same numbers, summed one after the other."""

    def summed(tensor: torch.Tensor, operation: dist.ReduceOp = dist.ReduceOp.SUM, group: None = None) -> None:
        if operation == dist.ReduceOp.SUM:
            own = tensor.clone()
            for _ in range(RANKS - 1):
                tensor += own

    monkeypatch.setattr(dist, "all_reduce", summed)
    monkeypatch.setattr(dist, "get_world_size", lambda: RANKS)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.Linear(2, 2))
    for norm in (layers[1], layers[2]):
        norm.running_mean.normal_()
    for parameter in layers.parameters():
        parameter.grad = torch.zeros_like(parameter)
    return layers


def test_the_mean_of_equal_ranks_is_what_each_has_and_idle_parameters_stay_without() -> None:
    layers = network()
    layers[0].to(memory_format=torch.channels_last)
    mean = Mean(layers)
    found = {name: torch.randn_like(p) for name, p in layers.named_parameters() if not name.startswith("3")}
    for _ in range(2):
        for name, parameter in layers.named_parameters():
            parameter.grad = found[name].clone(memory_format=torch.contiguous_format) if name in found else None
        numbers = torch.randn(5)
        torch.testing.assert_close(mean(numbers), numbers)
        for name, parameter in layers.named_parameters():
            assert (parameter.grad is None) == (name not in found)
            if parameter.grad is not None:
                torch.testing.assert_close(parameter.grad, found[name])
                assert parameter.grad.stride() == parameter.stride()


def test_statistics_that_do_not_learn_do_not_drift() -> None:
    layers = network()
    layers[2].eval()
    mean = Mean(layers)
    learning, frozen = layers[1].running_mean.clone(), layers[2].running_mean.clone()
    frozen.mul_(1 / 3)
    layers[2].running_mean.copy_(frozen)
    for _ in range(100):
        mean(torch.zeros(1))
    assert torch.equal(layers[2].running_mean, frozen)
    torch.testing.assert_close(layers[1].running_mean, learning)


def test_a_number_that_is_not_finite_on_one_rank_reaches_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def with_another(tensor: torch.Tensor, operation: dist.ReduceOp = dist.ReduceOp.SUM, group: None = None) -> None:
        if operation == dist.ReduceOp.SUM:
            tensor += torch.full_like(tensor, torch.nan)

    monkeypatch.setattr(dist, "all_reduce", with_another)
    assert Mean(network())(torch.zeros(3)).isnan().all()
