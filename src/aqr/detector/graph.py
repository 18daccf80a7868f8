"""Inference as one CUDA graph: the whole detector in a single launch."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor, nn

from aqr.batch import Batch
from aqr.detector.coding import Detections, select, unpack
from aqr.detector.decoder import Decoder
from aqr.detector.detector import Detector
from aqr.detector.heads import LayerwiseLinear, TaskHead
from aqr.detector.image_encoder import ImageEncoder
from aqr.detector.inputs import NOWHERE, Inputs
from aqr.detector.lidar_encoder import LidarEncoder
from aqr.detector.position import BevEmbedding

SPARE_POINTS: Final = 1.25
"""Room for points, as a multiple of those of the first batch."""
WARM_UPS: Final = 3

DTYPES: Final = {"32": None, "bf16": torch.bfloat16, "16": torch.float16}


class GraphedDetector:
    """A detector in evaluation mode, frozen, for batches of one size on one GPU.

    Launching a thousand small kernels one by one takes longer than running them. A CUDA graph launches them at once,
    and needs every shape to be known: points are padded to a fixed number, images keep their size. The weights are a
    copy, rounded to the precision once instead of in every call; later training does not reach it. What does not
    depend on the batch is computed once, and what only training reads (earlier layers' boxes) is left out.

    Where there is no GPU the same computation runs without a graph.

    Args:
        detector: with pillars; CMT's sparse convolutions have no fixed shape.
        example: a batch like those to come: its number of samples and cameras, its image size, about its points.
        precision: 32, bf16 or 16.
        max_points: of a whole batch; by default a quarter more than the example has.
        compiled: whether the copy is compiled first, which takes a minute or two.

    Raises:
        ValueError: where the detector has no fixed shapes.
    """

    def __init__(
        self,
        detector: Detector,
        example: Batch,
        precision: str,
        max_points: int | None = None,
        compiled: bool = False,
    ) -> None:
        if detector.has_sparse_convolutions:
            raise ValueError("a detector with sparse convolutions cannot be captured; its shapes depend on the points")
        self._detector = _rounded(detector, DTYPES[precision])
        if compiled:
            self._detector.compile_parts()
        self._precision = precision
        self._counts: list[int] = []
        device = example.device
        room = max_points or int(SPARE_POINTS * example.points.shape[0]) + 1
        self._inputs = Inputs(
            points=torch.full((room, example.points.shape[1]), NOWHERE, device=device),
            sample=torch.zeros(room, dtype=torch.int64, device=device),
            images=example.images.clone(memory_format=torch.contiguous_format),
            lidar2img=example.lidar2img.clone(),
            truth=None,
        )
        self._filled = room
        self._graph: torch.cuda.CUDAGraph | None = None
        self._load(example)
        if device.type == "cuda":
            self._capture(device)

    def __call__(self, batch: Batch) -> list[Detections]:
        """Detect.

        Args:
            batch: as many samples, cameras and pixels as the example, points within the room for them.

        Returns:
            One Detections per sample.

        Raises:
            ValueError: where the batch is of another size.
        """
        self._load(batch)
        if self._graph is None:
            return unpack(self._run())
        self._graph.replay()
        return unpack(self._found.cpu())

    def _load(self, batch: Batch) -> None:
        held, count = self._inputs, batch.points.shape[0]
        for name in ("images", "lidar2img"):
            wanted, given = getattr(held, name).shape, getattr(batch, name).shape
            if wanted != given:
                raise ValueError(f"{name} must be {list(wanted)}, not {list(given)}; make a GraphedDetector for these")
        if count > held.points.shape[0]:
            raise ValueError(f"{count} points are more than the {held.points.shape[0]} that there is room for")
        held.images.copy_(batch.images)
        held.lidar2img.copy_(batch.lidar2img)
        self._filled = held.hold(batch.points, self._filled)
        if len(batch) > 1 and batch.point_counts != self._counts:
            held.sample[:count].copy_(batch.point_sample)
            self._counts = list(batch.point_counts)

    @torch.no_grad()
    def _run(self) -> Tensor:
        detector = self._detector
        dtype = DTYPES[self._precision]
        autocast = torch.autocast(self._inputs.points.device.type, dtype or torch.bfloat16, dtype is not None)
        with autocast, _tensor_cores(dtype is not None):
            last = detector.run(self._inputs).queries
            return select(
                last.logits[-1],
                last.codes[-1],
                detector.pc_range,
                detector.settings.max_detections,
                detector.center_range,
            )

    def _capture(self, device: torch.device) -> None:
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(device))
        with _timed_convolutions():
            with torch.cuda.stream(stream):
                for _ in range(WARM_UPS):
                    self._run()
            torch.cuda.current_stream(device).wait_stream(stream)
            self._graph = torch.cuda.CUDAGraph()
            # The default stream of a capture is one of the GPU that was current when the first graph was made.
            with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
                self._found = self._run()


@contextlib.contextmanager
def _timed_convolutions() -> Iterator[None]:
    """Let cuDNN try its algorithms and take the fastest one; the shapes never change."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@contextlib.contextmanager
def _tensor_cores(allowed: bool) -> Iterator[None]:
    """Multiply what is left in float32 as TF32, as in mixed-precision training."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if allowed else before)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _rounded(detector: Detector, dtype: torch.dtype | None) -> Detector:
    """A copy for evaluation whose weights have the dtype in which autocast would use them."""
    frozen = copy.deepcopy(detector).eval().requires_grad_(False)
    if isinstance(frozen.position.bev, BevEmbedding) and isinstance(frozen.lidar_encoder, LidarEncoder):
        lidar = frozen.settings.lidar
        with torch.no_grad(), _tensor_cores(dtype is not None):
            frozen.position.bev.keep((lidar.pillars[0] // lidar.out_stride, lidar.pillars[1] // lidar.out_stride))
    if isinstance(frozen.decoder, Decoder):
        frozen.decoder.last_only = True
        for module in frozen.heads.modules():
            if isinstance(module, LayerwiseLinear | TaskHead):
                for name, weights in module.named_parameters(recurse=False):
                    setattr(module, name, nn.Parameter(weights[-1:].clone(), requires_grad=False))
    if dtype is None:
        return frozen
    halved: list[nn.Module] = [frozen.decoder] if isinstance(frozen.decoder, Decoder) else []
    if isinstance(frozen.image_encoder, ImageEncoder):
        halved.append(frozen.image_encoder)
    if isinstance(frozen.lidar_encoder, LidarEncoder):
        halved += [*frozen.lidar_encoder.stages, *frozen.lidar_encoder.laterals, frozen.lidar_encoder.shared_conv]
    if frozen.aqr is not None:
        halved.append(frozen.aqr.router)
    for part in halved:
        for module in part.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                module.to(dtype)
    return frozen
