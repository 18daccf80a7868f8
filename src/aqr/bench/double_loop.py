"""AQR as a double loop over queries and cameras, the way the original computes it: what the fast one is held against.

Straightforward PyTorch without a batched operation over queries. Values are exact, so that the ratio compares two
programs that compute the same.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aqr.bench.inputs import FIRST_SHAPE, ModulationInputs, Shape
from aqr.bench.inputs import modulation_inputs as make_inputs
from aqr.bench.inputs import modulation_module as make_module
from aqr.bench.results import Row, Section
from aqr.bench.timing import Clock
from aqr.modulation import AQRModulation
from aqr.modulation.route import MAX_VIEWS, LocalAttention
from aqr.modulation.sites import Sites, bev_sites, image_sites


def looped(module: AQRModulation, inputs: ModulationInputs) -> tuple[Tensor, Tensor]:
    """The modulated BEV map [B, C, Hb, Wb] and image maps [B, V, C, Hi, Wi], query by query.

    Args:
        module: with the `sigmoid` parameterisation, Gaussian rendering, `element_wise` and gates.
        inputs: one batch.
    """
    bev_tokens = inputs.bev.permute(0, 2, 3, 1)[:, None] + inputs.bev_position
    image_tokens = inputs.images.permute(0, 1, 3, 4, 2) + inputs.image_position
    on_bev = bev_sites(inputs.points, (bev_tokens.shape[2], bev_tokens.shape[3]))
    size = (image_tokens.shape[2], image_tokens.shape[3])
    on_images = image_sites(inputs.points, inputs.lidar2img, module.pc_range, inputs.image_size, size)
    router = module.router
    bev_maps, image_maps = [], []
    for sample in range(len(inputs.queries)):
        bev_map = inputs.queries.new_zeros(1, *on_bev.size)
        image_map = inputs.queries.new_zeros(len(on_images.cells[sample]), *size)
        for number, query in enumerate(inputs.queries[sample]):
            state = query + _attend(router.lidar_attention, query, bev_tokens[sample], on_bev, sample, number, 1)
            state = state + _attend(
                router.camera_attention, query, image_tokens[sample], on_images, sample, number, MAX_VIEWS
            )
            weights = router.logits(F.silu(router.hidden(router.norm(state)))).sigmoid()
            bev_map = _splat(bev_map, weights[0], on_bev, sample, number, module.gaussian_sigma)
            image_map = _splat(image_map, weights[1], on_images, sample, number, module.gaussian_sigma)
        bev_maps.append(bev_map)
        image_maps.append(image_map)
    bev = _modulate(module, inputs.bev[:, None], torch.stack(bev_maps), module.lidar_gate)[:, 0]
    return bev, _modulate(module, inputs.images, torch.stack(image_maps), module.camera_gate)


def against_the_loop(clock: Clock, shape: Shape | None = None) -> Section:
    """Forward pass of both, and the distance of their outputs.

    Args:
        clock: of a CPU.
        shape: by default one sample at the first shape.
    """
    shape = shape or Shape(batch=1, queries=FIRST_SHAPE.queries)
    module, inputs = make_module(shape), make_inputs(shape)
    section = Section(f"AQR against the double loop over queries and cameras, forward pass on this CPU, {shape}")
    with torch.no_grad():
        fast = clock.time(lambda: inputs.call(module), warm_up=1)
        slow = Clock(clock.device, seconds=0.0, fewest=3).time(lambda: looped(module, inputs), warm_up=0)
        output, (bev, images) = inputs.call(module), looped(module, inputs)
    assert output.bev is not None
    assert output.images is not None
    error = max(float((output.bev - bev).norm() / bev.norm()), float((output.images - images).norm() / images.norm()))
    section.rows = [
        Row("AQR", fast.median, low=fast.low, high=fast.high, runs=fast.runs),
        Row("the double loop", slow.median, runs=slow.runs),
        Row("ratio", slow.median / fast.median, "x", more_is_better=True),
        Row("difference of their outputs, ‖a − b‖ / ‖b‖", error, "", 1e-5),
    ]
    return section


def _attend(
    layer: LocalAttention, query: Tensor, tokens: Tensor, sites: Sites, sample: int, number: int, max_views: int
) -> Tensor:
    rows, columns = sites.size
    reach = layer.window_size // 2
    seeing = []
    for view in range(len(tokens)):
        if sites.visible[sample, view, number]:
            x, y = sites.cells[sample, view, number].tolist()
            seeing.append(((x / columns - 0.5) ** 2 + (y / rows - 0.5) ** 2, view, int(x), int(y)))
    cells = [
        tokens[view, max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1].flatten(0, 1)
        for _, view, x, y in sorted(seeing)[:max_views]
    ]
    if not cells:
        return torch.zeros_like(query)
    window = torch.cat(cells)
    heads = layer.num_heads
    q = layer.query(query).view(heads, -1)
    k = layer.key(window).view(len(window), heads, -1)
    v = layer.value(window).view(len(window), heads, -1)
    attention = (torch.einsum("hd,nhd->hn", q, k) * q.shape[1] ** -0.5).softmax(-1)
    found: Tensor = layer.out(torch.einsum("hn,nhd->hd", attention, v).flatten())
    return found


def _splat(weight_map: Tensor, weight: Tensor, sites: Sites, sample: int, number: int, sigma: float) -> Tensor:
    rows, columns = sites.size
    for view in range(len(weight_map)):
        if not sites.visible[sample, view, number]:
            continue
        x, y = sites.cells[sample, view, number].tolist()
        kernel = _gaussian(y, rows, sigma, weight)[:, None] * _gaussian(x, columns, sigma, weight)
        weight_map = weight_map.index_add(0, torch.tensor([view]), (weight * kernel)[None])
    return weight_map


def _gaussian(position: float, size: int, sigma: float, like: Tensor) -> Tensor:
    def kernel(first: int, last: int) -> Tensor:
        offset = torch.arange(first, last, dtype=like.dtype) + 0.5 - position
        return (-0.5 * (offset / sigma) ** 2).exp()

    far = int(8 * sigma) + 2
    return kernel(0, size) / kernel(int(position) - far, int(position) + far + 1).sum()


def _modulate(module: AQRModulation, features: Tensor, total: Tensor, gate: nn.Parameter | None) -> Tensor:
    weights = torch.where(total < module.min_weight_threshold, 0.0, total).clamp(max=module.max_weight_clamp)
    openness = 1.0 if gate is None else gate.tanh()
    return features * (1 + openness * (1 - module.residual_weight) * (weights - 1))[:, :, None]
