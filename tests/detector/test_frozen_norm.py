import pytest
import torch
from torch import nn

from aqr.detector.frozen_norm import FrozenBatchNorm2d, _FrozenNorm, freeze_norms


def a_norm(kind: type[nn.BatchNorm2d] = nn.BatchNorm2d) -> nn.BatchNorm2d:
    norm = kind(5, eps=1e-3).double()
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            tensor.normal_()
        norm.running_var.uniform_(0.2, 3.0)
    return norm


def test_freezing_keeps_names_parameters_and_statistics() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 5, 1), nn.Sequential(a_norm(), nn.ReLU()), nn.BatchNorm1d(5)).double()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    parameters = [id(p) for p in network.parameters()]
    images = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    expected = network[:2].eval()(images)
    freeze_norms(network)
    assert type(network[1][0]) is FrozenBatchNorm2d
    assert type(network[2]) is nn.BatchNorm1d
    assert [id(p) for p in network.parameters()] == parameters
    torch.testing.assert_close(network[:2].train()(images), expected)
    assert list(network.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_gradient_is_that_of_a_batch_norm_in_evaluation(layout: torch.memory_format) -> None:
    torch.manual_seed(1)
    norm = a_norm().eval()
    statistics = norm.running_mean, norm.running_var
    images = torch.randn(2, 5, 3, 4, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    side = torch.randn(2, 5, 3, 4, dtype=torch.float64).contiguous(memory_format=layout)
    wanted = [images, norm.weight, norm.bias]
    expected = torch.autograd.grad(norm(images), wanted, side)
    found = torch.autograd.grad(_FrozenNorm.apply(images, *statistics, norm.weight, norm.bias, norm.eps), wanted, side)
    # PyTorch sums the gradients of weight and bias in float32.
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
    assert found[0].is_contiguous(memory_format=layout)
