"""How long AQR takes alone, how its cost grows, and how exact it is."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from aqr.bench.inputs import CHANNELS, FIRST_SHAPE, SECOND_SHAPE, ModulationInputs, Shape
from aqr.bench.inputs import modulation_inputs as make_inputs
from aqr.bench.inputs import modulation_module as make_module
from aqr.bench.results import Row, Section
from aqr.bench.timing import Clock, Rates, Timing
from aqr.modulation import AQRModulation
from aqr.modulation.route import MAX_VIEWS

LARGEST_SHAPE = Shape(batch=16, queries=3600, bev=(256, 256), cameras=12)
TARGET_FIRST = 1.0
TARGET_SECOND = 1.2
TARGET_INFERENCE = 0.25

COMPILED = "the same compiled"
COMPILED_GRAPH = "the same compiled, as a CUDA graph"

Growth = dict[str, list[tuple[int, float, float | None]]]
"""By axis: value, milliseconds, MB."""


def speed(clock: Clock, rates: Rates) -> Section:
    """Forward and backward at the two shapes, and inference of one sample.

    A target stands beside the fastest way to run, compiled and as a CUDA graph; the other ways are for comparison.
    """
    on_gpu = clock.device.type == "cuda"
    section = Section("AQR: route, render, modulate" + ("" if on_gpu else " (float32 on this CPU)"))
    for shape, target in ((FIRST_SHAPE, TARGET_FIRST), (SECOND_SHAPE, TARGET_SECOND)):
        step = _training_step(shape, clock.device)
        floor = rates.floor_ms(transferred(shape, clock.device, True), flops(shape, True))
        section.rows.append(_row(f"forward + backward, {shape}", clock.time(step), None, floor))
        section.rows.append(_as_graph(clock, "the same as a CUDA graph", step, None, floor))
        peak = clock.peak_mb(step)
        note = "gradients of maps and positions included" if on_gpu else "a CPU does not tell"
        section.rows.append(Row("peak memory of it", peak, "MB", note=note))
        if on_gpu:
            step = _training_step(shape, clock.device, compiled=True)
            section.rows.append(_launched(clock, COMPILED, step, floor))
            section.rows.append(_as_graph(clock, COMPILED_GRAPH, step, target, floor))
    one = replace(FIRST_SHAPE, batch=1)
    infer = _inference(one, clock.device)
    floor = rates.floor_ms(transferred(one, clock.device, False), flops(one, False))
    section.rows.append(_row(f"forward, inference, {one}", clock.time(infer), None, floor))
    section.rows.append(_as_graph(clock, "the same as a CUDA graph", infer, None, floor))
    if on_gpu:
        infer = _inference(one, clock.device, compiled=True)
        section.rows.append(_as_graph(clock, COMPILED_GRAPH, infer, TARGET_INFERENCE, floor))
    section.remarks.append(
        f"Floor: the greater of bytes over {rates.copy / 1e12:.2f} TB/s and FLOPs over {rates.matmul / 1e12:.1f} "
        "TFLOP/s, both measured here. Bytes: feature maps read and written once, in the backward pass read twice and "
        "written once, positions read once (their gradient written once), every window read once (in the backward "
        "pass read and written once)."
    )
    return section


def growth(clock: Clock, largest: Shape | None = None) -> tuple[Section, Growth]:
    """Forward + backward along each axis from the first shape, the other sizes held; on a GPU as a CUDA graph.

    Launched one by one, kernels of all these sizes take as long as their host needs to launch them.

    Args:
        clock: of the device.
        largest: bounds of every axis, for a device on which the whole range would take too long.
    """
    base, most = FIRST_SHAPE, largest or LARGEST_SHAPE
    base = replace(
        base,
        batch=min(base.batch, most.batch),
        queries=min(base.queries, most.queries),
        bev=min(base.bev, most.bev),
        cameras=min(base.cameras, most.cameras),
    )
    axes = {
        "queries": [(n, replace(base, queries=n)) for n in (300, 600, 900, 1800, 3600) if n <= most.queries],
        "batch": [(n, replace(base, batch=n)) for n in (1, 2, 4, 8, 16) if n <= most.batch],
        "map side": [(n, replace(base, bev=(n, n))) for n in (64, 96, 128, 192, 256) if n <= most.bev[0]],
        "cameras": [(n, replace(base, cameras=n)) for n in (1, 2, 4, 6, 9, 12) if n <= most.cameras],
    }
    how = ", as a CUDA graph" if clock.device.type == "cuda" else ""
    section, measured = Section(f"AQR forward + backward{how}: how its cost grows from {base}"), Growth()
    warm_up = 3 if clock.device.type == "cuda" else 1
    for axis, points in axes.items():
        measured[axis] = []
        for value, shape in points:
            step = _training_step(shape, clock.device)
            peak = clock.peak_mb(step)
            timing = clock.time(clock.captured(step) or step, warm_up)
            measured[axis].append((value, timing.median, peak))
            memory = "" if peak is None else f"{peak:.0f} MB"
            section.rows.append(_row(f"{axis} {value}", timing, None, None, memory))
        section.remarks.append(f"{axis}: {linearity(measured[axis])}")
    return section, measured


def linearity(points: list[tuple[int, float, float | None]]) -> str:
    """Where time is proportional to an axis, in words: the exponent between neighbours, time ~ axis^exponent."""
    parts = []
    for (low, fast, _), (high, slow, _) in itertools.pairwise(points):
        parts.append(f"{low} → {high}: {math.log(slow / fast) / math.log(high / low):.2f}")
    return "exponent of time over the axis " + ", ".join(parts) if parts else "one point only"


def accuracy(device: torch.device, shape: Shape | None = None) -> Section:
    """float32 and bf16 against float64: outputs and gradients.

    The reference is computed in float64 on the CPU from the inputs as each precision sees them.
    """
    shape = shape or replace(FIRST_SHAPE, batch=1)
    section = Section(f"AQR against float64: ‖out − ref‖ / ‖ref‖, {shape}")
    for name, maps, limit in (("float32", torch.float32, 1e-5), ("bf16 autocast", torch.bfloat16, 1e-2)):
        source = make_inputs(shape)
        rounded = source.to("cpu", torch.float32, maps)
        reference = _results(make_module(shape).double(), rounded.to("cpu", torch.float64), autocast=False)
        precision = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            found = _results(
                make_module(shape).to(device), rounded.to(device, torch.float32, maps), maps is torch.bfloat16
            )
        finally:
            torch.set_float32_matmul_precision(precision)
        for what, truth in reference.items():
            got = found[what].double().cpu()
            error = float((got - truth).norm() / truth.norm().clamp(min=1e-300))
            section.rows.append(Row(f"{name}, {what}", error, "", limit))
    return section


def transferred(shape: Shape, device: torch.device, training: bool) -> float:
    """Bytes that AQR has to read and write."""
    width = 2 if device.type == "cuda" else 4
    cells = shape.batch * (shape.bev[0] * shape.bev[1] + shape.cameras * shape.image[0] * shape.image[1])
    maps = cells * CHANNELS * width
    window = shape.windows[0] ** 2 + min(MAX_VIEWS, shape.cameras) * shape.windows[1] ** 2
    windows = shape.batch * shape.queries * window * CHANNELS * width
    positions = (shape.bev[0] * shape.bev[1] + cells - shape.batch * shape.bev[0] * shape.bev[1]) * CHANNELS * 4
    forward = 2 * maps + positions + windows
    return float(forward + 3 * maps + positions + 2 * windows if training else forward)


def flops(shape: Shape, training: bool) -> float:
    """FLOPs of the router's linear maps and of attention in the windows, with `key` and `value` folded."""
    queries = shape.batch * shape.queries
    linear = (2 * 4 + 1) * 2 * CHANNELS**2
    window = shape.windows[0] ** 2 + min(MAX_VIEWS, shape.cameras) * shape.windows[1] ** 2
    attention = 2 * 2 * 4 * window * CHANNELS
    return float(queries * (linear + attention) * (3 if training else 1))


def _training_step(shape: Shape, device: torch.device, compiled: bool = False) -> Callable[[], object]:
    module, inputs = _on(shape, device)
    inputs = inputs.with_gradients()
    if compiled:
        # What was compiled for another shape would be compiled anew for any.
        torch.compiler.reset()
        module.compile(fullgraph=True)
    wanted = [*inputs.differentiable, *module.parameters()]
    random = torch.Generator(device).manual_seed(0)
    # In the order in memory of the maps, as the decoder returns them.
    gradients = [torch.empty_like(t).normal_(generator=random) for t in (inputs.bev.detach(), inputs.images.detach())]

    def step() -> object:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            output = inputs.call(module)
        assert output.bev is not None
        assert output.images is not None
        return torch.autograd.grad([output.bev, output.images], wanted, gradients, allow_unused=True)

    return step


def _inference(shape: Shape, device: torch.device, compiled: bool = False) -> Callable[[], object]:
    module, inputs = _on(shape, device)
    module.eval()
    if compiled:
        # What was compiled for another shape would be compiled anew for any.
        torch.compiler.reset()
        module.compile(fullgraph=True)

    @torch.no_grad()
    def infer() -> object:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            return inputs.call(module)

    return infer


def _on(shape: Shape, device: torch.device) -> tuple[AQRModulation, ModulationInputs]:
    maps = torch.bfloat16 if device.type == "cuda" else torch.float32
    return make_module(shape).to(device), make_inputs(shape).to(device, torch.float32, maps)


def _results(module: nn.Module, inputs: ModulationInputs, autocast: bool) -> dict[str, Tensor]:
    assert isinstance(module, AQRModulation)
    inputs = inputs.with_gradients()
    device = inputs.queries.device
    with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
        output = inputs.call(module)
    assert output.bev is not None
    assert output.images is not None
    random = torch.Generator().manual_seed(1)
    sides = [torch.randn(t.shape, generator=random, dtype=torch.float64) for t in (output.bev, output.images)]
    gradients = [side.to(device, t.dtype) for side, t in zip(sides, (output.bev, output.images), strict=True)]
    wanted = {
        "gradient of the BEV map": inputs.bev,
        "gradient of the image maps": inputs.images,
        "gradient of the queries": inputs.queries,
    }
    parameters = [p for p in module.parameters() if p.requires_grad]
    found = torch.autograd.grad([output.bev, output.images], [*wanted.values(), *parameters], gradients)
    assert output.bev_map is not None
    assert output.image_maps is not None
    return {
        "BEV map": output.bev.detach(),
        "image maps": output.images.detach(),
        "BEV weight map": output.bev_map.detach(),
        "image weight maps": output.image_maps.detach(),
        **dict(zip(wanted, found, strict=False)),
        "gradient of the router and the gates": torch.cat([g.double().flatten() for g in found[len(wanted) :]]),
    }


def _row(what: str, timing: Timing, target: float | None, floor: float | None, note: str = "") -> Row:
    return Row(what, timing.median, "ms", target, floor, timing.low, timing.high, timing.runs, note=note)


def _launched(clock: Clock, what: str, operation: Callable[[], object], floor: float) -> Row:
    try:
        timing = clock.time(operation)
    except Exception as error:  # a compiler that fails must not cost the other figures
        return Row(what, None, note=f"failed: {' '.join(str(error).split())[:120]}")
    return _row(what, timing, None, floor)


def _as_graph(clock: Clock, what: str, operation: Callable[[], object], target: float | None, floor: float) -> Row:
    try:
        replay = clock.captured(operation)
    except Exception as error:  # a compiler that fails must not cost the other figures
        return Row(what, None, target=target, note=f"cannot be captured: {' '.join(str(error).split())[:120]}")
    if replay is None:
        return Row(what, None, note="CUDA graphs need a GPU")
    return _row(what, clock.time(replay), target, floor)
