"""Compiled, AQR computes what it computes otherwise, copies no gradient of a map, and stays with its own weights."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.modulation.test_aqr import PC_RANGE, C, build, inputs
from torch._dynamo.backends.common import aot_autograd
from torch._functorch import config as functorch
from torch._functorch.aot_autograd import make_boxed_func

from aqr.modulation import AQRModulation, AQROutput, AttentionRouting


class Backend:
    """Runs what it is given, and notes where the tensors lie that a backward pass takes."""

    def __init__(self) -> None:
        self.taken: set[int] = set()

    def __call__(self, graph: torch.fx.GraphModule, given: list[Any]) -> Callable[..., Any]:
        def backward(graph: torch.fx.GraphModule, _: list[Any]) -> Callable[..., Any]:
            def run(*tensors: Any) -> Any:
                self.taken |= {t.data_ptr() for t in tensors if isinstance(t, torch.Tensor)}
                return graph(*tensors)

            return make_boxed_func(run)

        compiled: Callable[..., Any] = aot_autograd(
            fw_compiler=lambda graph, _: make_boxed_func(graph.forward), bw_compiler=backward
        )(graph, given)
        return compiled


@pytest.fixture(autouse=True)
def as_before_2_13() -> Any:
    torch._dynamo.reset()
    with functorch.patch(guess_tangent_strides_as_outputs=False):
        yield
    torch._dynamo.reset()


def routing(seed: int = 0, **settings: object) -> AttentionRouting:
    torch.manual_seed(seed)
    module = AttentionRouting(C, PC_RANGE, window_sizes=(3, 5), **settings)  # type: ignore[arg-type]
    torch.nn.init.normal_(module.router.logits.weight)
    return module


def opened(seed: int = 0, **settings: object) -> AQRModulation:
    module = build(seed, **settings)
    with torch.no_grad():
        for gate in (module.lidar_gate, module.camera_gate):
            if gate is not None:
                gate.fill_(0.5)
    return module


def channels_last(maps: torch.Tensor) -> torch.Tensor:
    """The same values, in memory [B, V, H, W, C]."""
    return maps.movedim(-3, -1).contiguous().movedim(-1, -3)


def leaves(views: int = 3) -> dict[str, Any]:
    given = inputs(views)
    given["bev"] = given["bev"].contiguous(memory_format=torch.channels_last)
    given["images"] = channels_last(given["images"])
    return {n: t.requires_grad_() if n in ("query_embed", "bev", "images") else t for n, t in given.items()}


def results(module: AQRModulation) -> tuple[AQROutput, list[torch.Tensor], list[torch.Tensor]]:
    """What came out, the gradients given to the maps, and those of inputs and weights."""
    given = leaves()
    out = module(**given)
    assert out.bev is not None
    assert out.images is not None
    random = torch.Generator().manual_seed(1)
    slopes = [torch.empty_like(t).normal_(generator=random) for t in (out.bev.detach(), out.images.detach())]
    wanted = [given["query_embed"], given["bev"], given["images"], *module.parameters()]
    heads, sides = [out.bev, out.images], [*slopes]
    if out.log_weights is not None:
        heads, sides = [*heads, out.log_weights], [*sides, torch.ones_like(out.log_weights)]
    found = torch.autograd.grad(heads, wanted, sides, allow_unused=True)
    return out, slopes, [torch.zeros_like(w) if t is None else t for w, t in zip(wanted, found, strict=True)]


@pytest.mark.parametrize(
    "make",
    [
        opened,
        lambda: build(gate=False),
        lambda: opened(class_residuals=[0.5, 0.9], modulation_type="adaptive"),
        lambda: routing(context=True),
    ],
    ids=["gated", "bare", "by class", "attention"],
)
def test_compiled_it_gives_the_same_numbers(make: Callable[[], AQRModulation]) -> None:
    plain, compiled = make(), make()
    compiled.compile(fullgraph=True, backend=Backend())
    (out, _, gradients), (expected, _, truth) = results(compiled), results(plain)
    for name, value in vars(expected).items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(getattr(out, name), value, msg=name)
        else:
            assert getattr(out, name) == value
    torch.testing.assert_close(gradients, truth)
    assert out.images is not None
    assert out.images.stride() == expected.images.stride()  # type: ignore[union-attr]


def test_compiled_code_takes_the_gradients_of_maps_as_they_are() -> None:
    module, backend = opened(), Backend()
    module.compile(fullgraph=True, backend=backend)
    _, slopes, _ = results(module)
    assert not slopes[1].is_contiguous()
    assert {slope.data_ptr() for slope in slopes} <= backend.taken


@pytest.mark.parametrize("make", [opened, routing])
@pytest.mark.parametrize("again", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_a_copy_of_a_compiled_module_reads_its_own_weights(
    make: Callable[[], AQRModulation], again: Callable[[AQRModulation], AQRModulation]
) -> None:
    module = make()
    module.compile(backend=Backend())
    before = module(**leaves())
    twin = again(module)
    assert list(twin.state_dict()) == list(make().state_dict())
    for recompiled in (False, True):
        if recompiled:
            twin.compile(backend=Backend())
        with torch.no_grad():
            twin.router.logits.weight.add_(1.0)
        assert not torch.allclose(twin(**leaves()).lidar_weights, before.lidar_weights)
    torch.testing.assert_close(module(**leaves()).lidar_weights, before.lidar_weights)


def test_maps_may_be_changed_in_place() -> None:
    for compiled in (False, True):
        module, given = opened(), leaves()
        if compiled:
            module.compile(backend=Backend())
        out = module(**given)
        expected = torch.autograd.grad(3 * out.images.square().sum(), given["images"], retain_graph=True)
        out.images.mul_(2)
        out.bev.zero_()
        found = torch.autograd.grad(0.75 * out.images.square().sum() + out.bev.sum(), given["images"])
        torch.testing.assert_close(found, expected)
