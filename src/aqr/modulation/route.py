"""Route: local attention gives each query a LiDAR and a camera logit.

Cross-attention from a query to a small window around its position in the BEV map and in the images that see it,
after the router with local attention of MoME (arXiv 2503.19776). Windows are gathered; no mask over all cells is
ever built.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from aqr.modulation.kernels import INDEXABLE, fused
from aqr.modulation.sites import Sites

MAX_VIEWS = 2
"""Cameras a query attends to at most; nuScenes' fields of view overlap in pairs."""

ALIGNED = 8
"""Numbers of bf16 in 16 bytes."""


class LocalAttention(nn.Module):
    """Multi-head cross-attention from each query to a square window of cells around its sites.

    Equal to standard attention over the gathered cells with projections `query`, `key`, `value` and `out`. The key
    projection is applied to the query instead of to the cells, and the value projection to the attended mean
    (both are linear), so that the cost does not depend on the size of the maps; what is linear behind one another is
    multiplied out first. There is no key bias: softmax would cancel it.
    """

    def __init__(self, channels: int, window_size: int, num_heads: int) -> None:
        """Args:
        channels: C, a multiple of num_heads.
        window_size: side of the window in cells, odd.
        num_heads: attention heads.

        Raises:
            ValueError: if window_size is even or channels not a multiple of num_heads.
        """
        super().__init__()
        if window_size % 2 == 0 or window_size < 1:
            raise ValueError(f"window_size must be odd and positive, not {window_size}")
        if channels % num_heads:
            raise ValueError(f"channels {channels} is not a multiple of num_heads {num_heads}")
        self.window_size = window_size
        self.num_heads = num_heads
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels, bias=False)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, queries: Tensor, tokens: Tensor, sites: Sites, max_views: int) -> Tensor:
        """Attend.

        Args:
            queries: [B, Q, C].
            tokens: [B, V, H, W, C] features plus position embeddings.
            sites: positions of the queries in the V maps.
            max_views: number of maps a query attends to at most; those in which it lies nearest the centre are
                taken.

        Returns:
            [B, Q, C]; 0 for a query that no map sees.
        """
        return attend_all(queries, [(self, tokens, sites, max_views)])

    def attend(self, on_cells: Tensor, tokens: Tensor, sites: Sites, max_views: int) -> Tensor:
        """Attended mean of the raw cells around each query.

        Args:
            on_cells: [B, Q, heads, C], what each head asks of a cell.
            tokens: see `forward`, as are the others.
            sites: likewise.
            max_views: likewise.

        Returns:
            [B, Q, heads, C]; 0 for a query that no map sees.
        """
        batch, count, heads, channels = on_cells.shape
        slots = min(max_views, tokens.shape[1])
        # The backward pass keeps a score per head, query and cell of its windows.
        countable = batch * count * slots * self.window_size**2 * heads < INDEXABLE
        if countable and sites.cells.dtype == torch.float32 and fused(on_cells, tokens, sites.cells):
            from aqr.modulation.kernels import window

            limit = window.shared_memory(tokens.device.index if tokens.is_cuda else None)
            reading = window.reading(channels, heads, tokens.dtype, limit)
            if reading is not None:
                return window.attend(on_cells, tokens, sites.cells, sites.visible, self.window_size, slots, reading)
        return self._attend(on_cells, tokens, sites, max_views)

    def _attend(self, on_cells: Tensor, tokens: Tensor, sites: Sites, max_views: int) -> Tensor:
        """`kernels.window.attend` in plain PyTorch, which also allows for float64."""
        index, valid = window_index(sites, self.window_size, max_views)
        cells = nn.functional.embedding(index, tokens.reshape(-1, tokens.shape[-1]))
        scores = on_cells @ cells.transpose(-1, -2)
        seen = valid.any(-1)[..., None, None]
        scores = scores.masked_fill(~(valid[:, :, None] | ~seen), float("-inf"))
        attention = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(cells.dtype)
        return attention @ cells * seen


def attend_all(queries: Tensor, asked: Sequence[tuple[LocalAttention, Tensor, Sites, int]]) -> Tensor:
    """Sum of what several layers of the same channels and heads find, with as few products as one of them takes.

    Args:
        queries: [B, Q, C].
        asked: layers, and the tokens, sites and max_views that each is called with.

    Returns:
        [B, Q, C].
    """
    layers = [layer for layer, *_ in asked]
    heads = (*queries.shape[:2], layers[0].num_heads)
    ask, read, told = _merged(layers)
    with_one = nn.functional.pad(queries, (0, ALIGNED), value=1.0)
    found = []
    for n, (layer, tokens, sites, max_views) in enumerate(asked):
        on_cells = nn.functional.linear(with_one, ask[n]).to(tokens.dtype).view(*heads, queries.shape[2])
        mean = layer.attend(on_cells, tokens, sites, max_views)
        # Where no map sees a query, its mean is 0.
        found.append(mean.flatten(2).to(read.dtype) @ read[n] + told[n] * sites.visible.any(1)[..., None])
    return sum(found[1:], start=found[0])


def _merged(layers: Sequence[LocalAttention]) -> tuple[Tensor, Tensor, Tensor]:
    """The linear maps that are left around attention to raw cells, with one batched product for all of them.

    ask [layers, heads · C, C + ALIGNED] makes of a query, and of ones behind it, what each head asks of a cell:
    `query`, then the transpose of `key`. read [layers, heads · C, C] makes of the heads' means the answer: `value`,
    then `out`, but for their biases, which are told [layers, C]. No tensor has a row per query between them.
    """
    heads, channels = layers[0].num_heads, layers[0].query.in_features
    width = channels // heads
    scale = width**-0.5
    inner = torch.stack([layer.key.weight for layer in layers] + [layer.value.weight for layer in layers])
    query = torch.stack([layer.query.weight for layer in layers]) * scale
    bias = torch.stack([layer.query.bias for layer in layers])[..., None] * scale
    out = torch.stack([layer.out.weight for layer in layers])
    asking = torch.cat([query, nn.functional.pad(bias, (0, ALIGNED - 1))], -1)
    telling = nn.functional.pad(out.view(-1, channels, heads, width).permute(0, 2, 3, 1), (0, ALIGNED))
    both = inner.view(-1, heads, width, channels).transpose(-1, -2) @ torch.cat(
        [asking.view(-1, heads, width, channels + ALIGNED), telling]
    )
    ask, read = both.flatten(1, 2).chunk(2)
    value = torch.stack([layer.value.bias for layer in layers])
    told = (out * value[:, None]).sum(-1) + torch.stack([layer.out.bias for layer in layers])
    return ask, read[..., :channels], told


def window_index(sites: Sites, window_size: int, max_views: int) -> tuple[Tensor, Tensor]:
    """Flat indices of the cells in every query's windows.

    Args:
        sites: positions in V maps of H × W cells.
        window_size: side w of the window.
        max_views: S, windows per query (fewer where V is smaller).

    Returns:
        index [B, Q, S·w²] into the B·V·H·W cells and valid [B, Q, S·w²]: false where the query is not visible or
        the cell lies outside the map (its index is then clamped to the map, not to be read).
    """
    rows, columns = sites.size
    batch, views, _ = sites.visible.shape
    off_x = sites.cells[..., 0] / columns - 0.5
    off_y = sites.cells[..., 1] / rows - 0.5
    eccentricity = torch.where(sites.visible, off_x.square() + off_y.square(), float("inf"))
    # At equal distance the first, as the kernel has it.
    view = eccentricity.sort(dim=1, stable=True).indices[:, : min(max_views, views)]
    visible = sites.visible.gather(1, view)
    corner = sites.cells.floor().long()
    column = corner[..., 0].gather(1, view)
    row = corner[..., 1].gather(1, view)

    reach = window_size // 2
    offset = torch.arange(-reach, reach + 1, device=row.device)
    window_rows = row[..., None, None] + offset[:, None]
    window_columns = column[..., None, None] + offset
    inside = (window_rows >= 0) & (window_rows < rows) & (window_columns >= 0) & (window_columns < columns)
    valid = inside & visible[..., None, None]
    sample = torch.arange(batch, device=row.device)[:, None, None]
    plane = (sample * views + view)[..., None, None]
    index = (plane * rows + window_rows.clamp(0, rows - 1)) * columns + window_columns.clamp(0, columns - 1)
    return index.transpose(1, 2).flatten(2), valid.transpose(1, 2).flatten(2)


class Router(nn.Module):
    """Decides per query how far to trust each sensor.

    The query is joined by what it finds in its BEV window and in its image windows; a query that no camera sees
    attends to LiDAR alone. Two logits come out.
    """

    def __init__(self, channels: int, window_sizes: tuple[int, int], num_heads: int) -> None:
        """Args:
        channels: C of queries and maps.
        window_sizes: side of the BEV window and of the image windows, cells, odd.
        num_heads: attention heads.
        """
        super().__init__()
        self.lidar_attention = LocalAttention(channels, window_sizes[0], num_heads)
        self.camera_attention = LocalAttention(channels, window_sizes[1], num_heads)
        self.norm = nn.LayerNorm(channels)
        self.hidden = nn.Linear(channels, channels)
        self.logits = nn.Linear(channels, 2)

    def forward(
        self,
        query_embed: Tensor,
        bev: tuple[Tensor, Sites] | None,
        images: tuple[Tensor, Sites] | None,
    ) -> Tensor:
        """Route.

        Args:
            query_embed: [B, Q, C].
            bev: tokens [B, 1, Hb, Wb, C] and sites, or None without LiDAR.
            images: tokens [B, V, Hi, Wi, C] and sites, or None without cameras.

        Returns:
            [B, Q, 2] logits: LiDAR, camera.
        """
        return self.read(self.state(query_embed, bev, images))

    def read(self, state: Tensor) -> Tensor:
        """The two logits [B, Q, 2] of a state [B, Q, C]."""
        # GPUs multiply matrices of bf16 far faster where rows are a multiple of 16 bytes; two columns are not.
        spare = -self.logits.out_features % ALIGNED
        weight = nn.functional.pad(self.logits.weight, (0, 0, 0, spare))
        bias = nn.functional.pad(self.logits.bias, (0, spare))
        return nn.functional.linear(state, weight, bias)[..., : self.logits.out_features]

    def state(
        self,
        query_embed: Tensor,
        bev: tuple[Tensor, Sites] | None,
        images: tuple[Tensor, Sites] | None,
    ) -> Tensor:
        """What the logits are read off, [B, Q, C]; arguments as for `forward`."""
        asked = []
        if bev is not None:
            asked.append((self.lidar_attention, *bev, 1))
        if images is not None:
            asked.append((self.camera_attention, *images, MAX_VIEWS))
        state = query_embed + attend_all(query_embed, asked) if asked else query_embed
        # Smooth: in bf16 a kink would turn rounding into gradients of the wrong units (4 % error where SiLU has 0.5 %).
        return nn.functional.silu(self.hidden(self.norm(state)))
