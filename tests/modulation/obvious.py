"""The obvious way to compute what aqr.modulation computes: loops over queries and cells, float64 numbers."""

import math

import torch
from torch import Tensor, nn

from aqr.modulation.route import LocalAttention
from aqr.modulation.sites import Sites


def kernel(method: str, dx: float, dy: float, sigma: float) -> float:
    """Value at a cell whose centre lies (dx, dy) cells from the query's position."""
    if method == "gaussian":
        return math.exp(-(dx * dx + dy * dy) / (2 * sigma * sigma))
    if method == "bilinear":
        return max(0.0, 1 - abs(dx)) * max(0.0, 1 - abs(dy))
    if method == "distance_weighted":
        distance = math.hypot(dx, dy)
        return math.exp(-distance / sigma) if distance <= 3 * sigma else 0.0
    raise AssertionError(method)


def splat(weights: Tensor, sites: Sites, method: str, sigma: float, normalisation: str) -> Tensor:
    batch, views, queries = weights.shape
    rows, columns = sites.size
    out = torch.zeros(batch, views, rows, columns, dtype=torch.float64)
    for b in range(batch):
        for v in range(views):
            hit: dict[tuple[int, int], float] = {}
            for q in range(queries):
                if not sites.visible[b, v, q]:
                    continue
                x, y = (float(c) for c in sites.cells[b, v, q])
                w = float(weights[b, v, q])
                if method == "direct":
                    cell = (math.floor(y), math.floor(x))
                    hit[cell] = max(hit.get(cell, -math.inf), w)
                    continue
                total = 1.0
                if normalisation == "sum":
                    far = math.ceil(8 * sigma) + 2
                    total = sum(
                        kernel(method, j + 0.5 - x, i + 0.5 - y, sigma)
                        for i in range(math.floor(y) - far, math.floor(y) + far + 1)
                        for j in range(math.floor(x) - far, math.floor(x) + far + 1)
                    )
                for i in range(rows):
                    for j in range(columns):
                        out[b, v, i, j] += w * kernel(method, j + 0.5 - x, i + 0.5 - y, sigma) / total
            for (i, j), w in hit.items():
                out[b, v, i, j] = w
    return out


def local_attention(layer: LocalAttention, queries: Tensor, tokens: Tensor, sites: Sites, max_views: int) -> Tensor:
    """nn.MultiheadAttention over the cells of each query's windows, one query at a time."""
    batch, count, channels = queries.shape
    _, views, rows, columns, _ = tokens.shape
    standard = nn.MultiheadAttention(channels, layer.num_heads, batch_first=True, dtype=queries.dtype)
    with torch.no_grad():
        standard.in_proj_weight.copy_(torch.cat([layer.query.weight, layer.key.weight, layer.value.weight]))
        standard.in_proj_bias.copy_(torch.cat([layer.query.bias, torch.zeros(channels), layer.value.bias]))
        standard.out_proj.weight.copy_(layer.out.weight)
        standard.out_proj.bias.copy_(layer.out.bias)
    out = torch.zeros_like(queries)
    reach = layer.window_size // 2
    for b in range(batch):
        for q in range(count):
            seeing = [v for v in range(views) if sites.visible[b, v, q]]

            def off_centre(v: int, b: int = b, q: int = q) -> float:
                x, y = (float(c) for c in sites.cells[b, v, q])
                return (x / columns - 0.5) ** 2 + (y / rows - 0.5) ** 2

            cells = []
            for v in sorted(seeing, key=off_centre)[:max_views]:
                x, y = (math.floor(float(c)) for c in sites.cells[b, v, q])
                cells += [
                    tokens[b, v, i, j]
                    for i in range(max(y - reach, 0), min(y + reach + 1, rows))
                    for j in range(max(x - reach, 0), min(x + reach + 1, columns))
                ]
            if cells:
                memory = torch.stack(cells)[None]
                out[b, q] = standard(queries[b, q][None, None], memory, memory)[0][0, 0]
    return out
