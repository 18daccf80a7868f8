"""The transformer decoder: queries look at each other and at the tokens of all sensors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

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

    def forward(self, x: Tensor, position: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """One round.

        Args:
            x: [B, Q, C] state of the queries.
            position: [B, Q, C] their position embedding.
            keys: [B, T, C] what queries are compared with.
            values: [B, T, C] what they read.
            mask: [Q, Q] or [B, 1, Q, Q] bool, which query may look at which; None for all.

        Returns:
            [B, Q, C].
        """
        placed = x + position
        x = self.norms[0](x + self.dropout(self.self_attention(placed, placed, x, mask)))
        x = self.norms[1](x + self.dropout(self.cross_attention(x + position, keys, values)))
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
    """

    def __init__(self, dim: int, heads: int, feedforward_dim: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList([DecoderLayer(dim, heads, feedforward_dim, dropout) for _ in range(layers)])
        self.post_norm = nn.LayerNorm(dim)

    def read(self, position: Tensor, tokens: list[tuple[Tensor, Tensor]], mask: Tensor | None = None) -> Tensor:
        """Let queries read the maps of all sensors.

        Queries start as their own position, and values carry their positions as keys do: a query that reads a token
        learns where it stands, which saves it most of the training that telling places from attention patterns takes.

        Args:
            position: [B, Q, C] position embedding of the queries.
            tokens: of each sensor its features [B, ..., C] and their position embedding, which broadcasts to them.
            mask: see `forward`.

        Returns:
            [L, B, Q, C], normed state after each layer.
        """
        placed = torch.cat([(features + places).flatten(1, -2) for features, places in tokens], 1)
        return self(position, position, placed, placed, mask)  # type: ignore[no-any-return]

    def forward(
        self, start: Tensor, position: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Run all layers.

        Args:
            start: [B, Q, C] state of the queries before the first layer.
            position: [B, Q, C] position embedding of the queries.
            keys: [B, T, C] what queries are compared with.
            values: [B, T, C] what they read.
            mask: [Q, Q] or [B, 1, Q, Q] bool, which query may look at which; None for all.

        Returns:
            [L, B, Q, C], normed state after each layer.
        """
        x, states = start, []
        for layer in self.layers:
            x = layer(x, position, keys, values, mask)
            states.append(x)
        out: Tensor = self.post_norm(torch.stack(states))
        return out
