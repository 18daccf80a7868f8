"""Forward and backward pass of a training step as three CUDA graphs, so that a slow host launches three times."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from aqr.batch import Batch
from aqr.detector.assignment import assign
from aqr.detector.denoising import drawn_noise
from aqr.detector.detector import Detector, DetectorOutput
from aqr.detector.inputs import NOWHERE, Inputs, Truth
from aqr.detector.losses import COUNTS, mean_over_ranks
from aqr.detector.objects import padding
from aqr.detector.transfer import host_like, launched

POINTS_MULTIPLE: Final = 65_536
"""Room for points grows by this much; a batch that needs more room makes all graphs anew."""
OBJECTS_MULTIPLE: Final = 32
"""Places for objects, and so for denoising queries of a group, come in multiples of this, each with its graphs."""
MOST_SHAPES: Final = 8
"""Shapes that get graphs; others run as they are."""
WARM_UPS: Final = 2
"""Steps of a shape that run as they are before it gets its graphs: compilers and cuDNN choose their kernels there."""

TOLERANCE: Final = 0.05
"""Graphs whose loss or gradient norm differs by more from what their batch gave without them are not used."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pass:
    """What a forward and a backward pass gave; gradients are in the parameters.

    Attributes:
        losses: as `Detector.losses`, detached.
        loss: their sum.
        output: of the detector, detached; the next pass may write over it.
    """

    losses: dict[str, Tensor]
    loss: Tensor
    output: DetectorOutput


class GraphedStep:
    """Runs the forward and backward pass of a detector in training.

    Batches are padded to few shapes, with points outside the range and places without an object. The first steps of a
    shape run launch by launch; then three graphs are captured: the network and the costs of giving objects to queries;
    the losses that need no assignment, which the GPU computes while the host assigns; the other losses and the
    backward pass. Losses and gradients are those of `Detector.forward` and `Detector.losses` up to rounding: graphs are
    kept only where they give what their batch gave without them. On a CPU the same three stages run as plain calls.

    Args:
        detector: in training, with `has_fixed_shapes`; its parameters stay where they are.
        autocast: makes the context of mixed precision.
        scale: makes of the loss what the backward pass starts from; for fp16.
    """

    def __init__(
        self,
        detector: Detector,
        autocast: Callable[[], torch.autocast],
        scale: Callable[[Tensor], Tensor] = lambda loss: loss,
    ) -> None:
        self._detector, self._autocast, self._scale = detector, autocast, scale
        self._shapes: dict[tuple[int, ...], _Shape] = {}
        self._room = 0
        self._capturing = detector.pc_range.is_cuda
        self._pool: Any = None
        # Memory that one graph no longer needs goes to another of the pool only where both come from one stream.
        self._stream: torch.cuda.Stream | None = None

    def __call__(self, batch: Batch, generator: torch.Generator | None = None) -> Pass:
        """Losses of a batch, and the gradients of their sum in place of those that the parameters had.

        Args:
            batch: on the device of the detector.
            generator: source of the denoising noise.
        """
        shape = self._shape(batch)
        shape.load(batch, generator)
        if self._capturing and shape.graphs is None and shape.runs >= WARM_UPS:
            self._capture(shape, batch.box_counts)
        return shape.run(batch.box_counts)

    @property
    def captured(self) -> int:
        """Number of shapes that have graphs."""
        return sum(shape.graphs is not None for shape in self._shapes.values())

    def _shape(self, batch: Batch) -> _Shape:
        if len(batch.points) > self._room:
            self._room = _up(len(batch.points), POINTS_MULTIPLE)
            self._shapes.clear()
            # A pool that no graph uses any more takes no new ones.
            self._pool = None
        width = _up(max([1, *batch.box_counts]), OBJECTS_MULTIPLE)
        key = (*batch.images.shape, width)
        if key in self._shapes:
            return self._shapes[key]
        found = _Shape(self._detector, self._autocast, self._scale, batch, self._room, width)
        if len(self._shapes) < MOST_SHAPES:
            self._shapes[key] = found
        return found

    def _capture(self, shape: _Shape, box_counts: list[int]) -> None:
        expected = self._tried(shape, box_counts)
        if not all(map(math.isfinite, expected)):
            return
        device = self._detector.pc_range.device
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        if self._stream is None:
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        before = torch.cuda.current_stream(device)
        try:
            shape.capture(self._pool, self._stream)
            found = self._tried(shape, box_counts)
            if not all(abs(f - e) <= TOLERANCE * abs(e) for f, e in zip(found, expected, strict=True)):
                raise RuntimeError(f"loss and gradient norm are {found} with graphs and {expected} without")
        except Exception as error:  # compilers raise what they like, and other ranks wait for this one
            self._capturing = False
            # A capture that cannot even be ended leaves its stream the current one.
            torch.cuda.set_stream(before)
            for known in {shape, *self._shapes.values()}:
                known.forget()
            _end_broken_capture(device, self._pool)
            self._pool = None
            # Ending a broken capture raises an error of its own over the one that broke it.
            reason = " ".join(str(shape.broken or error).split())[:300]
            shape.broken = None
            logger.warning(
                "the training step cannot be a CUDA graph here and goes on without: %s", reason, exc_info=error
            )

    def _tried(self, shape: _Shape, box_counts: list[int]) -> tuple[float, float]:
        """Loss and gradient norm of the loaded batch on this rank alone, leaving statistics and random state as before.

        Other ranks meet their shapes at other steps, so nothing may be said to them here.
        """
        buffers = list(self._detector.buffers())
        before = [buffer.clone() for buffer in buffers]
        device = self._detector.pc_range.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            loss = shape.run(box_counts, alone=True).loss
        gradients = [p.grad for p in self._detector.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        torch._foreach_copy_(buffers, before)
        return loss.item(), norm.item()


class _Shape:
    """Batches of one shape: where their tensors lie, and the graphs that read them there."""

    def __init__(
        self,
        detector: Detector,
        autocast: Callable[[], torch.autocast],
        scale: Callable[[Tensor], Tensor],
        batch: Batch,
        room: int,
        width: int,
    ) -> None:
        self._detector, self._autocast, self._scale = detector, autocast, scale
        self._parameters = [p for p in detector.parameters() if p.requires_grad]
        places, groups = len(batch) * width, detector.settings.denoising.groups
        points, boxes = batch.points, batch.boxes
        self._inputs = Inputs(
            points=points.new_full((room, points.shape[1]), NOWHERE),
            sample=torch.zeros(room, dtype=torch.int64, device=batch.device),
            images=torch.empty_like(batch.images, memory_format=torch.contiguous_format),
            lidar2img=torch.empty_like(batch.lidar2img, memory_format=torch.contiguous_format),
            truth=Truth(
                boxes=boxes.new_ones(places, boxes.shape[1]),
                labels=batch.labels.new_zeros(places),
                rows=torch.full((len(batch), width), -1, device=batch.device),
                noise=boxes.new_zeros(places, groups, 3) if groups else None,
            ),
        )
        self._filled = 0
        self._divisors = torch.ones(len(COUNTS), device=batch.device)
        self._tables: Tensor | None = None
        self._matched: Tensor | None = None
        self._gradients: list[Tensor | None] = []
        self.graphs: list[torch.cuda.CUDAGraph] | None = None
        self.runs = 0
        self.broken: Exception | None = None

    def load(self, batch: Batch, generator: torch.Generator | None) -> None:
        """Put a batch where the stages read it."""
        held, truth, count, objects = self._inputs, self._inputs.truth, len(batch.points), len(batch.boxes)
        assert truth is not None
        self._filled = held.hold(batch.points, self._filled)
        held.sample[:count].copy_(batch.point_sample)
        held.images.copy_(batch.images)
        held.lidar2img.copy_(batch.lidar2img)
        truth.boxes[:objects].copy_(batch.boxes)
        truth.labels[:objects].copy_(batch.labels)
        truth.rows.copy_(padding(batch.box_counts, truth.rows.shape[1]), non_blocking=True)
        if truth.noise is not None:
            truth.noise[:objects].copy_(drawn_noise(objects, truth.noise.shape[1], generator, batch.device))

    def run(self, box_counts: list[int], alone: bool = False) -> Pass:
        """The three stages, and the assignment between the last two; `alone` asks no other rank for its counts."""
        self.runs += 1
        stages = [self._network, self._aside, self._backward]
        if self.graphs is None:
            self._forget_gradients()
        else:
            stages = [graph.replay for graph in self.graphs]
        stages[0]()
        arrived = launched(self._divisors.device)
        stages[1]()
        self._divisors.copy_(self._counts.clamp(min=1.0) if alone else mean_over_ranks(self._counts))
        arrived()
        assert self._tables is not None
        found = assign(self._tables, box_counts)
        if self._matched is None:
            self._matched = torch.empty_like(found, device=self._divisors.device)
        self._matched.copy_(found.pin_memory() if self._matched.is_cuda else found, non_blocking=True)
        stages[2]()
        if self.graphs is not None:
            for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
                parameter.grad = gradient
            return self._found
        found_now = self._found
        del self._output, self._sums, self._found
        return found_now

    def capture(self, pool: Any, stream: torch.cuda.Stream) -> None:
        """Make graphs of the stages, which have run before."""
        stream.wait_stream(torch.cuda.current_stream(self._divisors.device))
        self._forget_gradients()
        # Nodes of earlier passes that garbage still holds would draw their stream into the capture.
        gc.collect()
        graphs = []
        for stage in (self._network, self._aside, self._backward):
            graphs.append(torch.cuda.CUDAGraph())
            # Other threads, of the loader and of NCCL, call CUDA meanwhile.
            with torch.cuda.graph(graphs[-1], pool=pool, stream=stream, capture_error_mode="thread_local"):
                try:
                    stage()
                except Exception as error:
                    self.broken = error
                    raise
        del self._output, self._sums
        self._gradients = [parameter.grad for parameter in self._parameters]
        self.graphs = graphs

    def _network(self) -> None:
        with self._autocast():
            self._output = self._detector.run(self._inputs)
            costs = self._detector.costs(self._output)
        if self._tables is None:
            self._tables = host_like(costs)
        self._tables.copy_(costs, non_blocking=True)

    def _aside(self) -> None:
        with self._autocast():
            self._sums, self._counts = self._detector.losses_aside(self._output)

    def _backward(self) -> None:
        assert self._matched is not None
        with self._autocast():
            losses = self._detector.losses_of(self._output, self._sums, self._divisors, self._matched)
        loss = torch.stack([value.float() for value in losses.values()]).sum()
        torch.autograd.backward(self._scale(loss))
        self._found = Pass(_detached(losses), loss.detach(), _detached(self._output))

    def forget(self) -> None:
        """Drop what a capture left behind that failed: its nodes would go on adding gradients on its stream."""
        self.graphs = None
        self._gradients = []
        for name in ("_output", "_sums", "_counts", "_found"):
            self.__dict__.pop(name, None)
        self._forget_gradients()

    def _forget_gradients(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None


def _end_broken_capture(device: torch.device, pool: Any) -> None:
    """Tell PyTorch that a capture is over which it could not end.

    Otherwise its generator refuses to draw (pytorch issue 171263), and its allocator to free memory (180395).
    """
    if device.type != "cuda":
        return
    index = torch.cuda.current_device() if device.index is None else device.index
    with contextlib.suppress(RuntimeError, AttributeError):  # where it did end; where PyTorch has another name for it
        torch._C._cuda_endAllocateToPool(index, pool)
    generator = torch.cuda.default_generators[index]
    generator.graphsafe_set_state(generator.clone_state())  # the clone takes part in no capture


def _up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


def _detached(value: Any) -> Any:
    """The same tensors without the way they came about, in dictionaries and dataclasses as well."""
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, dict):
        return {name: _detached(entry) for name, entry in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changes = {field.name: _detached(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **changes)
    return value
