"""Modulate: scale feature maps by weight maps."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from aqr.modulation.kernels import fused

ModulationType = Literal["element_wise", "channel_wise", "adaptive"]
Form = Literal["convex", "additive"]

ADAPTIVE_SHARE = 0.7
"""Share of the per-cell weight in `adaptive`; the rest is the map's mean."""


def modulation_factor(
    weight_map: Tensor,
    residual_weight: float | Tensor,
    form: Form = "convex",
    modulation_type: ModulationType = "element_wise",
    gate: Tensor | None = None,
) -> Tensor:
    """The factor m by which each cell's features are scaled.

    - convex: m = r + (1 − r)·W, additive: m = r + W
    - W per cell (`element_wise`), its mean over the map (`channel_wise`), or 0.7 / 0.3 of the two (`adaptive`)
    - with a gate a: 1 + a·(m − 1), which is F'' = F + a·(F' − F)

    Args:
        weight_map: W [B, V, H, W].
        residual_weight: r in [0, 1], a number or a map that broadcasts against W.
        form: see above.
        modulation_type: see above.
        gate: a, a scalar tensor in (−1, 1); None leaves m as it is.

    Returns:
        [B, V, H, W].
    """
    weights = _pooled(weight_map, modulation_type)
    # Written as a change from 1, so that W = 1 (convex) and a = 0 leave the features exactly as they are.
    change = (1 - residual_weight) * (weights - 1) if form == "convex" else weights + (residual_weight - 1)
    return 1 + (change if gate is None else gate * change)


def modulate(
    features: Tensor,
    weight_map: Tensor,
    residual_weight: float | Tensor,
    form: Form = "convex",
    modulation_type: ModulationType = "element_wise",
    gate: Tensor | None = None,
) -> Tensor:
    """Scale feature maps by `modulation_factor`.

    Args:
        features: [B, V, C, H, W].
        weight_map: W [B, V, H, W].
        residual_weight: see `modulation_factor`.
        form: likewise.
        modulation_type: likewise.
        gate: likewise.

    Returns:
        [B, V, C, H, W] in the dtype and memory format of the features.
    """
    if fused(features, weight_map) and weight_map.dtype == torch.float32:
        from aqr.modulation.kernels.scale import scale

        return scale(features, _pooled(weight_map, modulation_type), gate, residual_weight, form == "additive")
    factor = modulation_factor(weight_map, residual_weight, form, modulation_type, gate)
    return features * factor.to(features.dtype)[:, :, None]


def _pooled(weights: Tensor, modulation_type: ModulationType) -> Tensor:
    if modulation_type == "element_wise":
        return weights
    mean = weights.mean((-1, -2), keepdim=True).expand_as(weights)
    return mean if modulation_type == "channel_wise" else torch.lerp(mean, weights, ADAPTIVE_SHARE)


def largest_factor(max_weight_clamp: float, residual_weight: float, form: Form = "convex", gate: bool = False) -> float:
    """Upper bound of `modulation_factor` for W in [0, max_weight_clamp].

    r + (1 − r)·clamp for convex, r + clamp for additive; behind a gate, whose a may be negative, the greater of that
    and 2 − r.

    >>> round(largest_factor(2.5, 0.6), 6)
    1.6
    >>> round(largest_factor(2.0, 0.7, "additive"), 6)
    2.7
    """
    keep = residual_weight
    bound = keep + (1 - keep) * max_weight_clamp if form == "convex" else keep + max_weight_clamp
    return max(bound, 2 - keep) if gate else bound
