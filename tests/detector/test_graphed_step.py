"""Padded batches and three stages give what the detector gives in one piece."""

import contextlib
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.autograd.graph import get_gradient_edge
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from aqr.batch import Batch
from aqr.config import Config
from aqr.detector import Detector
from aqr.detector import graphed_step as module
from aqr.detector.graphed_step import GraphedStep
from aqr.detector.inputs import Inputs

WHOLE: dict[str, Any] = {
    "detector": {
        "loss": {"heatmap": 0.5, "solo": 0.5},
        "image": {"depth_bins": 8, "freeze_norm": True},
    },
    "aqr": {"enabled": True},
}


def build(config: Config, device: str = "cpu") -> Detector:
    torch.manual_seed(0)
    return Detector(config).to(device).train()


def no_autocast(device: str = "cpu") -> Callable[[], torch.autocast]:
    return lambda: torch.autocast(device, dtype=torch.bfloat16, enabled=False)


def in_one_piece(detector: Detector, batch: Batch, seed: int) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    detector.zero_grad(set_to_none=True)
    torch.manual_seed(seed)
    generator = torch.Generator(batch.device).manual_seed(seed)
    losses = detector.losses(detector(batch, generator=generator), batch)
    torch.stack(list(losses.values())).sum().backward()
    return {name: value.item() for name, value in losses.items()}, gradients(detector)


def in_stages(
    step: GraphedStep, detector: Detector, batch: Batch, seed: int
) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    torch.manual_seed(seed)
    found = step(batch, torch.Generator(batch.device).manual_seed(seed))
    assert found.loss.item() == pytest.approx(sum(value.item() for value in found.losses.values()), rel=1e-5)
    return {name: value.item() for name, value in found.losses.items()}, gradients(detector)


def gradients(detector: Detector) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in detector.named_parameters() if p.grad is not None}


def of_counts(toy_batch: Callable[..., Batch], counts: list[int], seed: int, **options: Any) -> Batch:
    """A batch whose samples have the given numbers of boxes."""
    batch = toy_batch(samples=len(counts), boxes=max([1, *counts]), seed=seed, **options)
    width = len(batch.boxes) // len(counts)
    kept = torch.cat([n * width + torch.arange(count) for n, count in enumerate(counts)])
    batch.boxes, batch.labels, batch.box_counts = batch.boxes[kept], batch.labels[kept], counts
    return batch


@pytest.mark.parametrize(
    "sections", [{}, WHOLE, {"detector": {"denoising": {"groups": 0}}}], ids=["plain", "all", "no dn"]
)
def test_losses_and_gradients_are_those_of_the_detector_in_one_piece(
    small_config: Callable[..., Config], toy_batch: Callable[..., Batch], sections: dict[str, Any]
) -> None:
    config = small_config(**sections)
    detector, staged = build(config), build(config)
    detector.load_state_dict(staged.state_dict())
    step = GraphedStep(staged, no_autocast())
    for seed, counts in enumerate([[3, 0], [5, 7], [0, 0], [33, 2], [2, 6]]):
        batch = of_counts(toy_batch, counts, seed, clutter=300 + 40 * seed)
        expected, expected_gradients = in_one_piece(detector, batch, seed)
        got, got_gradients = in_stages(step, staged, batch, seed)
        assert got == pytest.approx(expected, rel=2e-6, abs=1e-7)
        assert got_gradients.keys() == expected_gradients.keys()
        norm = torch.nn.utils.get_total_norm(list(expected_gradients.values()))
        apart = [gradient - expected_gradients[name] for name, gradient in got_gradients.items()]
        assert torch.nn.utils.get_total_norm(apart) < 3e-6 * norm
    torch.testing.assert_close(staged.state_dict(), detector.state_dict(), rtol=1e-5, atol=1e-6)


def test_batches_of_many_sizes_have_few_shapes(
    small_config: Callable[..., Config], toy_batch: Callable[..., Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "POINTS_MULTIPLE", 1024)
    monkeypatch.setattr(module, "OBJECTS_MULTIPLE", 8)
    detector = build(small_config())
    step = GraphedStep(detector, no_autocast())
    shapes: list[tuple[int, int]] = []
    original = detector.run

    def spy(inputs: Any) -> Any:
        shapes.append((len(inputs.points), inputs.truth.rows.shape[1]))
        return original(inputs)

    monkeypatch.setattr(detector, "run", spy)
    for seed, counts in enumerate([[3, 1], [8, 2], [9, 0], [1, 1]]):
        step(of_counts(toy_batch, counts, seed, clutter=200))
    step(of_counts(toy_batch, [4, 4], 9, clutter=900))
    step(of_counts(toy_batch, [4, 4], 10, clutter=200))
    first = shapes[0][0]
    assert first % 1024 == 0
    assert [width for _, width in shapes] == [8, 8, 16, 8, 8, 8]
    # Room for points grows and does not shrink.
    assert [points for points, _ in shapes[4:]] == [shapes[4][0]] * 2
    assert shapes[4][0] > shapes[3][0]


def test_a_point_that_is_not_finite_shows_and_is_gone_in_the_next_batch(
    small_config: Callable[..., Config], toy_batch: Callable[..., Batch]
) -> None:
    detector = build(small_config())
    step = GraphedStep(detector, no_autocast())
    batch = toy_batch(clutter=500)
    batch.points[-1, 1] = float("nan")
    bad = step(batch)
    assert not bad.output.finite
    assert bad.losses["loss_cls"].isnan()
    good = step(toy_batch(clutter=400))
    assert good.output.finite
    assert good.loss.isfinite()


def test_shapes_share_a_pool_until_all_graphs_are_made_anew(
    small_config: Callable[..., Config], toy_batch: Callable[..., Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    # PyTorch refuses a capture into a pool whose graphs are all gone, and shares no memory between streams.
    monkeypatch.setattr(module, "POINTS_MULTIPLE", 8192)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", object)
    monkeypatch.setattr(torch.cuda, "Stream", lambda _: object())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: None)
    captures: list[tuple[object, object]] = []
    monkeypatch.setattr(module._Shape, "capture", lambda _, pool, stream: captures.append((pool, stream)))
    step = GraphedStep(build(small_config()), no_autocast())
    step._capturing = True
    for seed, (boxes, clutter) in enumerate([(3, 100)] * 3 + [(34, 100)] * 3 + [(3, 9000)] * 3):
        step(of_counts(toy_batch, [boxes, 1], seed, clutter=clutter))
    (first, stream), (second, same), (anew, too) = captures
    assert first is second
    assert anew is not first
    assert stream is same
    assert same is too


def test_training_goes_on_where_a_capture_fails(
    small_config: Callable[..., Config],
    toy_batch: Callable[..., Batch],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails(shape: Any, *_: object) -> None:
        shape.broken = RuntimeError("operation not permitted\nwhen stream is capturing")
        raise RuntimeError("the capture could not be ended")

    streams: list[object] = []
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", object)
    monkeypatch.setattr(torch.cuda, "Stream", lambda _: "of captures")
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: "of training")
    monkeypatch.setattr(torch.cuda, "set_stream", streams.append)
    monkeypatch.setattr(module._Shape, "capture", fails)
    step = GraphedStep(build(small_config()), no_autocast())
    step._capturing = True
    found = [step(of_counts(toy_batch, [3, 1], seed)) for seed in range(4)]
    assert all(one.loss.isfinite() for one in found)
    assert streams == ["of training"]
    assert step.captured == 0
    assert "operation not permitted when stream" in caplog.text
    assert "could not be ended" not in caplog.messages[0]


def test_graphs_that_give_other_numbers_are_not_used(
    small_config: Callable[..., Config],
    toy_batch: Callable[..., Batch],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Replayed:
        """Stands for a graph that replays what its stage did, the last one with twice the loss."""

        def __init__(self, stage: Callable[[], None], shape: Any, wrong: bool) -> None:
            self.stage, self.shape, self.wrong = stage, shape, wrong

        def replay(self) -> None:
            self.shape._forget_gradients()
            self.stage()
            if self.stage == self.shape._backward:
                self.shape._gradients = [parameter.grad for parameter in self.shape._parameters]
                if self.wrong:
                    self.shape._found = dataclasses.replace(self.shape._found, loss=2 * self.shape._found.loss)

    def capture(wrong: bool) -> Callable[..., None]:
        def captured(shape: Any, *_: object) -> None:
            stages = (shape._network, shape._aside, shape._backward)
            shape.graphs = [Replayed(stage, shape, wrong) for stage in stages]

        return captured

    for name in ("graph_pool_handle", "Stream", "current_stream", "set_stream"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)
    batches = [of_counts(toy_batch, [3, 1], seed) for seed in range(4)]
    plain = build(small_config())
    plainly = GraphedStep(plain, no_autocast())
    expected = [in_stages(plainly, plain, batch, seed) for seed, batch in enumerate(batches)]
    for wrong in (False, True):
        monkeypatch.setattr(module._Shape, "capture", capture(wrong))
        detector = build(small_config())
        step = GraphedStep(detector, no_autocast())
        step._capturing = True
        for seed, batch in enumerate(batches):
            losses, found = in_stages(step, detector, batch, seed)
            assert losses == pytest.approx(expected[seed][0], rel=1e-5)
            for key, gradient in found.items():
                torch.testing.assert_close(gradient, expected[seed][1][key])
        assert step.captured == (not wrong)
        buffers = zip(plain.buffers(), detector.buffers(), strict=True)
        assert all(torch.equal(*pair) for pair in buffers)
    assert "with graphs and" in caplog.text


def test_nothing_of_a_pass_keeps_the_way_its_gradients_came(
    small_config: Callable[..., Config], toy_batch: Callable[..., Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nodes that a pass before the capture left would draw its stream into the capture, which CUDA refuses.
    detector = build(small_config(**WHOLE))
    parameters = [parameter for parameter in detector.parameters() if parameter.requires_grad]
    original = detector.run

    def marking(inputs: Inputs) -> Any:
        nodes = [get_gradient_edge(parameter).node for parameter in parameters]
        for node in nodes:
            node.metadata["old"] = True
        return original(inputs)

    def old() -> int:
        return sum("old" in get_gradient_edge(parameter).node.metadata for parameter in parameters)

    monkeypatch.setattr(detector, "run", marking)
    step = GraphedStep(detector, no_autocast())
    kept = step(toy_batch())
    assert old() == 0
    assert kept.loss.isfinite()
    output = detector(toy_batch())
    assert old() > 0
    del output


class NothingOfTheHost(TorchDispatchMode):
    """Refuses operations that read a tensor in host memory."""

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        for value in tree_leaves((arguments, options)):
            assert not isinstance(value, torch.Tensor) or value.device.type == "meta", function
        return function(*arguments, **(options or {}))


def test_what_graphs_hold_reads_no_memory_of_the_host_and_no_value(
    small_config: Callable[..., Config], toy_batch: Callable[..., Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A copy from the host would be repeated by a graph from wherever it was then; a value would have to be waited for.
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    detector = build(small_config(**WHOLE)).to("meta")
    inputs = elsewhere(Inputs.of(toy_batch(), detector.settings.denoising.groups, None, 8))
    with NothingOfTheHost():
        output = detector.run(inputs)
        costs = detector.costs(output)
        sums, counts = detector.losses_aside(output)
        matched = torch.zeros(costs.shape[:3], dtype=torch.int64, device="meta")
        losses = detector.losses_of(output, sums, counts, matched)
        torch.stack(list(losses.values())).sum().backward()
    assert len(losses) == 2 * 2 * 2 + 4 + 2 + 1
    with pytest.raises(AssertionError), NothingOfTheHost():
        torch.ones(2).to("meta")


def elsewhere(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return torch.empty_like(value, device="meta")
    changes = {field.name: elsewhere(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return dataclasses.replace(value, **changes)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("compiled", [False, True])
def test_cuda_graphs_give_what_the_detector_gives(
    small_config: Callable[..., Config],
    toy_batch: Callable[..., Batch],
    compiled: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Of TF32's rounding, which depends on the shapes, little networks make gradients that differ by percents.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(module, "POINTS_MULTIPLE", 8192)
    config = small_config(**WHOLE)
    detector, graphed = build(config, "cuda"), build(config, "cuda")
    if compiled:
        graphed.compile_parts()
    step = GraphedStep(graphed, no_autocast("cuda"))
    for seed in range(16):
        counts = [[3, 0], [34, 6]][seed % 2]
        # Half way through, the points need more room.
        batch = of_counts(toy_batch, counts, seed, clutter=300 + 10 * seed + seed // 8 * 9000).to("cuda")
        expected, expected_gradients = in_one_piece(detector, batch, seed)
        got, got_gradients = in_stages(step, graphed, batch, seed)
        assert got == pytest.approx(expected, rel=2e-3)
        of_all = [
            torch.cat([g[name].flatten() for name in expected_gradients]) for g in (got_gradients, expected_gradients)
        ]
        assert (of_all[0] - of_all[1]).norm() < 2e-2 * of_all[1].norm()
        assert step.captured == [0, 0, 0, 0, 1, 2, 2, 2][seed % 8]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_cuda_graphs_draw_the_dropout_that_their_seed_gives(
    small_config: Callable[..., Config], toy_batch: Callable[..., Batch], precision: torch.dtype
) -> None:
    config = small_config(**WHOLE | {"detector": WHOLE["detector"] | {"dropout": 0.1}})
    plain, graphed = build(config, "cuda"), build(config, "cuda")

    def mixed() -> torch.autocast:
        return torch.autocast("cuda", dtype=precision, enabled=precision != torch.float32)

    launched, replayed = GraphedStep(plain, mixed), GraphedStep(graphed, mixed)
    launched._capturing = False
    for seed in range(6):
        batch = of_counts(toy_batch, [5, 2], seed).to("cuda")
        expected, _ = in_stages(launched, plain, batch, seed)
        got, _ = in_stages(replayed, graphed, batch, seed)
        assert got == pytest.approx(expected, rel=2e-2)
    assert replayed.captured == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
def test_a_capture_that_breaks_leaves_cuda_as_it_was(
    small_config: Callable[..., Config], toy_batch: Callable[..., Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    backward = module._Shape._backward

    def waits(shape: Any) -> None:
        if torch.cuda.is_current_stream_capturing():
            shape._counts.sum().item()
        backward(shape)

    monkeypatch.setattr(module._Shape, "_backward", waits)
    detector = build(small_config(detector={"dropout": 0.1}), "cuda")
    step = GraphedStep(detector, no_autocast("cuda"))
    losses = [step(of_counts(toy_batch, [5, 2], seed).to("cuda")).loss.item() for seed in range(6)]
    assert all(map(math.isfinite, losses))
    assert step.captured == 0
    torch.cuda.empty_cache()
