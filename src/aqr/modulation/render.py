"""Render: splat the queries' weights into weight maps.

A query's kernel is centred on its sub-cell position. Gaussian and bilinear kernels are separable, so the map of a
view is one small matrix product, map = Gyᵀ · diag(w) · Gx with Gy [Q, H] and Gx [Q, W]: no loop over queries, no
atomics, differentiable in the weights and in the positions. `direct` and `distance_weighted` scatter into the few
cells they touch; on a GPU their sums are not bitwise repeatable.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from aqr.modulation.kernels import fused
from aqr.modulation.sites import Sites

RenderMethod = Literal["gaussian", "bilinear", "direct", "distance_weighted"]
Normalisation = Literal["sum", "peak"]

CUTOFF_SIGMAS = 3.0
"""Distance at which `distance_weighted` ends, in decay lengths."""

SHARPEST = 0.1
"""Least σ of the kernel on the GPU, cells: it divides by the sums along both axes at once, which would underflow."""


def splat(
    weights: Tensor,
    sites: Sites,
    method: RenderMethod = "gaussian",
    sigma: float = 1.0,
    normalisation: Normalisation = "sum",
) -> Tensor:
    """Sum over queries of kernel times weight (for `direct`, the maximum).

    Kernels at distance d (in cells, per axis dx, dy) from the query's position:

    - gaussian: exp(−d²/2σ²), over the whole map
    - bilinear: max(0, 1 − |dx|)·max(0, 1 − |dy|)
    - distance_weighted: exp(−d/σ) for d <= 3σ, else 0
    - direct: 1 in the cell that holds the position, else 0

    Args:
        weights: [B, V, Q] or broadcastable to it; any sign.
        sites: positions of the queries; invisible ones add nothing.
        method: kernel.
        sigma: σ in cells; not used by bilinear and direct.
        normalisation: `peak` keeps the kernels as above, 1 at the query's own position. `sum` divides each by its
            sum over an unbounded map, so that a query adds its weight in all; what falls outside the map is lost.

    Returns:
        [B, V, H, W]; 0 where no kernel reaches.
    """
    weights = torch.where(sites.visible, weights, 0.0)
    if method == "gaussian":
        x = _gaussian(sites.cells[..., 0], sites.size[1], sigma, normalisation)
        y = _gaussian(sites.cells[..., 1], sites.size[0], sigma, normalisation)
        return (y * weights[..., None]).transpose(-1, -2) @ x
    if method == "bilinear":
        x = _hat(sites.cells[..., 0], sites.size[1])
        y = _hat(sites.cells[..., 1], sites.size[0])
        return (y * weights[..., None]).transpose(-1, -2) @ x
    if method == "distance_weighted":
        return _splat_by_distance(weights, sites, sigma, normalisation)
    if method == "direct":
        return _splat_maximum(weights, sites)
    raise ValueError(f"unknown render_method {method!r}; use gaussian, bilinear, direct or distance_weighted")


def _offsets(positions: Tensor, size: int) -> Tensor:
    """[..., size]: signed distance from each position [...] to each cell centre along one axis."""
    centres = torch.arange(size, device=positions.device, dtype=positions.dtype) + 0.5
    return centres - positions[..., None]


def _gaussian(positions: Tensor, size: int, sigma: float, normalisation: Normalisation) -> Tensor:
    kernel = torch.exp(_offsets(positions, size).square() * (-0.5 / sigma**2))
    if normalisation == "peak":
        return kernel
    # Beyond 6σ a Gaussian is under 2e-8 of its peak: the sum over these cells is the sum over all.
    reach = math.ceil(6 * sigma) + 1
    steps = torch.arange(-reach, reach + 1, device=positions.device, dtype=positions.dtype) + 0.5
    from_centre = steps - (positions - positions.floor())[..., None]
    total = torch.exp(from_centre.square() * (-0.5 / sigma**2)).sum(-1, keepdim=True)
    return kernel / total


def _hat(positions: Tensor, size: int) -> Tensor:
    """Sums to 1 over an unbounded axis as it stands, and is 1 at the position itself."""
    return (1 - _offsets(positions, size).abs()).clamp(min=0)


def _splat_by_distance(weights: Tensor, sites: Sites, sigma: float, normalisation: Normalisation) -> Tensor:
    rows, columns = sites.size
    cutoff = CUTOFF_SIGMAS * sigma
    reach = math.ceil(cutoff)
    steps = torch.arange(-reach, reach + 1, device=weights.device)
    corner = sites.cells.detach().floor()
    column = corner[..., 0, None] + steps
    row = corner[..., 1, None] + steps
    dx = column + 0.5 - sites.cells[..., 0, None]
    dy = row + 0.5 - sites.cells[..., 1, None]
    squared = dx[..., None, :].square() + dy[..., :, None].square()
    # The distance has no gradient at zero; half an epsilon of a cell keeps it finite there.
    distance = (squared + torch.finfo(squared.dtype).tiny).sqrt()
    kernel = torch.where(distance <= cutoff, torch.exp(-distance / sigma), 0.0)
    if normalisation == "sum":
        kernel = kernel / kernel.sum((-1, -2), keepdim=True).clamp(min=torch.finfo(kernel.dtype).tiny)
    inside = ((column >= 0) & (column < columns))[..., None, :] & ((row >= 0) & (row < rows))[..., :, None]
    index = row.long().clamp(0, rows - 1)[..., :, None] * columns + column.long().clamp(0, columns - 1)[..., None, :]
    amount = torch.where(inside, kernel, 0.0) * weights[..., None, None]
    flat = amount.new_zeros(*weights.shape[:2], rows * columns)
    return flat.scatter_add(-1, index.flatten(2), amount.flatten(2)).view(*weights.shape[:2], rows, columns)


def _splat_maximum(weights: Tensor, sites: Sites) -> Tensor:
    rows, columns = sites.size
    cell = sites.cells.detach().floor().long()
    index = cell[..., 1].clamp(0, rows - 1) * columns + cell[..., 0].clamp(0, columns - 1)
    lowest = float("-inf")
    flat = weights.new_full((*weights.shape[:2], rows * columns), lowest)
    candidates = torch.where(sites.visible, weights, lowest)
    flat = flat.scatter_reduce(-1, index, candidates, "amax", include_self=True)
    return torch.where(flat == lowest, 0.0, flat).view(*weights.shape[:2], rows, columns)


def sigmoid_map(
    weights: Tensor,
    sites: Sites,
    method: RenderMethod,
    sigma: float,
    min_weight_threshold: float,
    max_weight_clamp: float,
) -> Tensor:
    """Weight map of the `sigmoid` parameterisation.

    Sum-normalised kernels, weights summed, values under min_weight_threshold set to 0, then clamped to
    [0, max_weight_clamp]. Where no query is, W = 0. Gradients pass the threshold as if it were not there (straight
    through, arXiv 1308.3432): a router whose weights had sunk below it could never come back otherwise.

    Args:
        weights: [B, V, Q] in (0, 1).
        sites: positions.
        method: see `splat`.
        sigma: cells.
        min_weight_threshold: >= 0.
        max_weight_clamp: >= 1.

    Returns:
        [B, V, H, W] in [0, max_weight_clamp].
    """
    if _fused(weights, sites, method, sigma):
        from aqr.modulation.kernels.splat import splat_map

        return splat_map(
            weights,
            sites.cells,
            sites.visible,
            sites.size,
            gaussian=method == "gaussian",
            centered=False,
            sigma=sigma,
            min_weight_threshold=min_weight_threshold,
            max_weight_clamp=max_weight_clamp,
        )
    total = splat(weights, sites, method, sigma, "sum")
    kept = torch.where(total < min_weight_threshold, total - total.detach(), total)
    return kept.clamp(max=max_weight_clamp)


def centered_map(log_weights: Tensor, sites: Sites, method: RenderMethod, sigma: float) -> Tensor:
    """Weight map of the `centered` parameterisation.

    G = Σ k_q g_q / max(1, Σ k_q) with peak-normalised kernels k, so that the map averages where queries overlap,
    and W = exp(G). Where no query is, W = 1. `direct` takes the largest g of the queries in a cell.

    Args:
        log_weights: g [B, V, Q] in [−ln c, ln c], c = max_weight_clamp.
        sites: positions.
        method: see `splat`.
        sigma: cells.

    Returns:
        [B, V, H, W] in [1/c, c].
    """
    if _fused(log_weights, sites, method, sigma):
        from aqr.modulation.kernels.splat import splat_map

        return splat_map(
            log_weights,
            sites.cells,
            sites.visible,
            sites.size,
            gaussian=method == "gaussian",
            centered=True,
            sigma=sigma,
        )
    total = splat(log_weights, sites, method, sigma, "peak")
    if method == "direct":
        return total.exp()
    mass = splat(torch.ones_like(log_weights), sites, method, sigma, "peak")
    return (total / mass.clamp(min=1)).exp()


def _fused(weights: Tensor, sites: Sites, method: RenderMethod, sigma: float) -> bool:
    separable = method == "bilinear" or (method == "gaussian" and sigma >= SHARPEST)
    return separable and weights.dtype == sites.cells.dtype == torch.float32 and fused(weights, sites.cells)
