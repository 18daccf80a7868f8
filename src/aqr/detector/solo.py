"""Solo queries: in training, copies of the queries that read one sensor alone and answer for the objects as well.

A fused decoder seldom has to do without a sensor, and modality dropout shows it few samples of that. Copies that read
LiDAR alone and cameras alone teach it on every sample, the way the experts of MoME (arXiv 2503.19776) are taught, but
with shared weights. They see only each other in self-attention, and are gone at inference.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from aqr.config import Loss
from aqr.detector.losses import set_losses
from aqr.detector.objects import Objects

SILENT: Final = -60.0
"""Log weight of a sensor that is not to be read."""
NAMES: Final = ("lidar", "camera")


def solo_mask(mask: Tensor | None, others: int, count: int, device: torch.device) -> Tensor:
    """Which query may look at which, with two solo groups behind the others.

    Args:
        mask: [B or 1, 1, others, others] bool among the others; None where all may look at all.
        others: number of queries before the solo ones.
        count: Q, queries of each group.
        device: of the result.

    Returns:
        [B or 1, 1, others + 2 Q, others + 2 Q] bool.
    """
    group = torch.arange(others + 2 * count, device=device)
    group = torch.where(group < others, -1, (group - others) // count)
    whole = (group[:, None] == group)[None, None]
    if mask is None:
        return whole
    whole = whole.repeat(len(mask), 1, 1, 1)
    whole[:, :, :others, :others] = mask
    return whole


def solo_log_weights(log_weights: Tensor | None, real: Tensor, others: int) -> Tensor:
    """Log weights of all queries: those of the real ones, none for denoising queries, one sensor for solo queries.

    Args:
        log_weights: [L or 1, B, Q, 2] of the real queries, LiDAR and camera; None for none.
        real: [B, Q, 3] reference points of the real queries, which come first.
        others: number of queries before the solo ones.

    Returns:
        [L or 1, B, others + 2 Q, 2].
    """
    batch, count, _ = real.shape
    if log_weights is None:
        log_weights = real.new_zeros(1, batch, count, 2)
    layers = len(log_weights)
    idle = log_weights.new_zeros(layers, batch, others - count, 2)
    alone = log_weights.new_zeros(layers, batch, 2, count, 2)
    alone[:, :, 0, :, 1] = SILENT
    alone[:, :, 1, :, 0] = SILENT
    return torch.cat([log_weights, idle, alone.flatten(2, 3)], 2)


def solo_parts(found: Tensor, count: int) -> Tensor:
    """[L, B, … + 2 Q, D] to what the two solo groups say after the last layer, [2, B, Q, D]."""
    return torch.stack([found[-1, :, -2 * count : -count], found[-1, :, -count:]])


def solo_losses(
    logits: Tensor, codes: Tensor, objects: Objects, matched: Tensor, loss: Loss, code_weights: Tensor
) -> dict[str, Tensor]:
    """Losses of the solo queries, each group matched to the objects by itself.

    Args:
        logits: [2, B, Q, 10].
        codes: [2, B, Q, 10].
        objects: see `aqr.detector.losses.set_losses`, as for all that follow.
        matched: [2, B, N].
        loss: weights.
        code_weights: [10].

    Returns:
        Weighted sums lidar.loss_cls, lidar.loss_bbox, camera.loss_cls, camera.loss_bbox; scalars.
    """
    found = set_losses(logits, codes, objects, matched, loss, code_weights)
    return {
        f"{name}.{part}": loss.solo * found[part][group]
        for group, name in enumerate(NAMES)
        for part in ("loss_cls", "loss_bbox")
    }
