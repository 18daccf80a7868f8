"""The transformer decoder: queries look at each other and at the tokens of all sensors."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aqr.detector.attention import Attention


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention and a feed-forward network, each followed by its norm.

    The queries' positions are added to queries and to keys of self-attention, never to what is passed on.

    Args:
        dim: C.
        heads: attention heads.
        feedforward_dim: width of the feed-forward network.
        dropout: applied to what each attention returns.
    """

    def __init__(self, dim: int, heads: int, feedforward_dim: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = Attention(dim, heads)
        self.cross_attention = Attention(dim, heads, local=True)
        self.feedforward = nn.Sequential(nn.Linear(dim, feedforward_dim), nn.ReLU(), nn.Linear(feedforward_dim, dim))
        self.norms = nn.ModuleList([nn.LayerNorm(dim) for _ in range(3)])
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        position: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor | None,
        log_weights: Tensor | None = None,
        sensors: Tensor | None = None,
    ) -> Tensor:
        """One round.

        Args:
            x: [B, Q, C] state of the queries.
            position: [B, Q, C] their position embedding.
            keys: [B, T, C] what queries are compared with, projected for this layer.
            values: [B, T, C] what they read, projected for this layer.
            mask: [Q, Q] or [B, 1, Q, Q] bool, which query may look at which; None for all.
            log_weights: [B, Q, S], see `Attention`; of the cross-attention.
            sensors: [T, S] likewise.

        Returns:
            [B, Q, C].
        """
        placed = x + position
        x = self.norms[0](x + self.dropout(self.self_attention(placed, placed, x, mask)))
        found = self.cross_attention.mix(x + position, keys, values, None, log_weights, sensors)
        x = self.norms[1](x + self.dropout(found))
        out: Tensor = self.norms[2](x + self.feedforward(x))
        return out


class Decoder(nn.Module):
    """Layers whose states all go to the task heads, through one shared norm.

    Args:
        dim: C.
        heads: attention heads.
        feedforward_dim: width of the feed-forward networks.
        layers: number of layers.
        dropout: applied to what each attention returns.

    Attributes:
        last_only: whether the state after the last layer is all that comes out, as inference needs; L is then 1.
    """

    def __init__(self, dim: int, heads: int, feedforward_dim: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList([DecoderLayer(dim, heads, feedforward_dim, dropout) for _ in range(layers)])
        self.post_norm = nn.LayerNorm(dim)
        self.last_only = False

    def read(
        self,
        position: Tensor,
        tokens: list[tuple[Tensor, Tensor]],
        mask: Tensor | None = None,
        log_weights: Tensor | None = None,
    ) -> Tensor:
        """Let queries read the maps of all sensors.

        Queries start as their own position, and values carry their positions as keys do: a query that reads a token
        learns where it stands, which saves it most of the training that telling places from attention patterns takes.

        Args:
            position: [B, Q, C] position embedding of the queries.
            tokens: of each sensor its features [B, ..., C] and their position embedding, which broadcasts to them.
            mask: see `forward`.
            log_weights: [L or 1, B, Q, S], what is added to a query's logits of the tokens of each sensor, in the order
                of `tokens`; None for none.

        Returns:
            [L, B, Q, C], normed state after each layer.
        """
        placed = torch.cat([(features + places.to(features.dtype)).flatten(1, -2) for features, places in tokens], 1)
        sensors = None if log_weights is None else sensors_of(tokens)
        return self(position, position, placed, placed, mask, log_weights, sensors)  # type: ignore[no-any-return]

    def forward(
        self,
        start: Tensor,
        position: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor | None = None,
        log_weights: Tensor | None = None,
        sensors: Tensor | None = None,
    ) -> Tensor:
        """Run all layers.

        Args:
            start: [B, Q, C] state of the queries before the first layer.
            position: [B, Q, C] position embedding of the queries.
            keys: [B, T, C] what queries are compared with.
            values: [B, T, C] what they read.
            mask: [Q, Q] or [B, 1, Q, Q] bool, which query may look at which; None for all.
            log_weights: [L or 1, B, Q, S] for each layer, see `Attention`; one for all layers where L is 1.
            sensors: [T, S], which sensor each token is of.

        Returns:
            [L, B, Q, C], normed state after each layer.
        """
        x, states = start, []
        for number, (layer, projected) in enumerate(zip(self.layers, self._projected(keys, values), strict=True)):
            of_layer = None if log_weights is None else log_weights[min(number, len(log_weights) - 1)]
            x = layer(x, position, *projected, mask, of_layer, sensors)
            states.append(x)
        out: Tensor = self.post_norm(torch.stack(states[-1:] if self.last_only else states))
        return out

    def _projected(self, keys: Tensor, values: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of every layer; tokens do not change between layers, so one matrix product makes them all."""
        attentions = [cast(DecoderLayer, layer).cross_attention for layer in self.layers]
        of_keys, of_values = [a.key for a in attentions], [a.value for a in attentions]
        if keys is values:
            both = _all_at_once(keys, of_keys + of_values)
            return list(zip(both[: len(attentions)], both[len(attentions) :], strict=True))
        return list(zip(_all_at_once(keys, of_keys), _all_at_once(values, of_values), strict=True))


def sensors_of(tokens: list[tuple[Tensor, Tensor]]) -> Tensor:
    """[T, S] float32, 1 where a token is of a sensor, for tokens as in `Decoder.read`."""
    others = len(tokens) - 1
    return torch.cat(
        [
            F.pad(torch.ones(features[0, ..., 0].numel(), 1, device=features.device), (place, others - place))
            for place, (features, _) in enumerate(tokens)
        ]
    )


def _all_at_once(tokens: Tensor, projections: list[nn.Linear]) -> tuple[Tensor, ...]:
    weight = torch.cat([projection.weight for projection in projections])
    bias = torch.cat([projection.bias for projection in projections])
    return F.linear(tokens, weight, bias).chunk(len(projections), -1)
