"""CMT's decoder: queries start from nothing, and positions stand in keys alone."""

from __future__ import annotations

import torch
from torch import Tensor

from aqr.detector.decoder import Decoder, sensors_of


class CmtDecoder(Decoder):
    """Layers as in `Decoder`, fed as in CMT."""

    def read(
        self,
        position: Tensor,
        tokens: list[tuple[Tensor, Tensor]],
        mask: Tensor | None = None,
        log_weights: Tensor | None = None,
    ) -> Tensor:
        """Let queries read the maps of all sensors.

        Args:
            position: [B, Q, C] position embedding of the queries.
            tokens: of each sensor its features [B, ..., C] and their position embedding, which broadcasts to them.
            mask: [Q, Q] or [B, 1, Q, Q] bool, which query may look at which; None for all.
            log_weights: [L or 1, B, Q, S], see `Decoder.read`.

        Returns:
            [L, B, Q, C], normed state after each layer.
        """
        keys = torch.cat([(features + places).flatten(1, -2) for features, places in tokens], 1)
        values = torch.cat([features.flatten(1, -2) for features, _ in tokens], 1)
        sensors = None if log_weights is None else sensors_of(tokens)
        start = torch.zeros_like(position)
        return self(start, position, keys, values, mask, log_weights, sensors)  # type: ignore[no-any-return]
