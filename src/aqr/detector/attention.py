"""Multi-head attention."""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aqr.detector.position import AMPLITUDE

LOCAL_LOGIT: Final = 12.0
"""How far the logit of a token at the query's own position starts above that of a token far away."""


class Attention(nn.Module):
    """Multi-head attention (arXiv 1706.03762) through PyTorch's fused kernel.

    Args:
        dim: C, a multiple of heads.
        heads: number of heads.
        local: start with keys and queries projected alike, by a multiple of the identity, so that a query attends
            first to the tokens whose position embedding resembles its own.
    """

    def __init__(self, dim: int, heads: int, local: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)
        for projection in (self.query, self.key, self.value, self.out):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)
        if local:
            # A head compares C / (2 · heads) pairs with sin² + cos² = 1 and divides by sqrt(C / heads).
            gain = math.sqrt(2 * LOCAL_LOGIT / math.sqrt(dim / heads)) / AMPLITUDE
            for projection in (self.query, self.key):
                nn.init.eye_(projection.weight)
                projection.weight.data.mul_(gain)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None = None,
        log_weights: Tensor | None = None,
        sensors: Tensor | None = None,
    ) -> Tensor:
        """Weighted means of values.

        Args:
            query: [B, Q, C].
            key: [B, T, C].
            value: [B, T, C].
            mask: [Q, T] or [B, 1, Q, T] bool, true where a query may look; None where it may look everywhere.
            log_weights: [B, Q, S], what is added to a query's logits of the tokens of each of S sensors; None for none.
            sensors: [T, S], 1 where a token is of a sensor, else 0; needed with log_weights.

        Returns:
            [B, Q, C].
        """
        return self.mix(query, self.key(key), self.value(value), mask, log_weights, sensors)

    def mix(
        self,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor | None = None,
        log_weights: Tensor | None = None,
        sensors: Tensor | None = None,
    ) -> Tensor:
        """Weighted means of values that are projected already, as the keys are.

        Args:
            query: [B, Q, C], not yet projected.
            keys: [B, T, C].
            values: [B, T, C].
            mask: as in `forward`.
            log_weights: as in `forward`.
            sensors: as in `forward`.

        Returns:
            [B, Q, C].
        """
        q, k, v = (
            tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2) for tokens in (self.query(query), keys, values)
        )
        width = q.shape[-1]
        if log_weights is not None and sensors is not None:
            # Two more dimensions of queries and keys say the same as a bias, and fused attention takes no bias.
            bias = (log_weights * math.sqrt(width)).to(q.dtype)[:, None].expand(-1, self.heads, -1, -1)
            kind = sensors.to(k.dtype).expand(*k.shape[:2], -1, -1)
            to_eight = -(width + bias.shape[-1]) % 8
            q = F.pad(torch.cat([q, bias], -1), (0, to_eight))
            k = F.pad(torch.cat([k, kind], -1), (0, to_eight))
            v = F.pad(v, (0, q.shape[-1] - width))
        found = F.scaled_dot_product_attention(q, k, v, mask, scale=width**-0.5)[..., :width]
        mixed: Tensor = self.out(found.transpose(1, 2).flatten(2))
        return mixed
