"""Training losses: every decoder layer is compared with the objects, and with the denoising queries' own boxes."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional as F

from aqr.config import Loss
from aqr.detector.coding import CODE_VELOCITY, encode
from aqr.detector.denoising import NoisedQueries
from aqr.detector.objects import Objects
from aqr.detector.wrapping import Wrap, as_it_is

COUNTS: Final = ("matched", "near", "present", "centers", "image_centers", "cells")
"""What losses are divided by: matched pairs, near and all denoising queries, object centres in the BEV map and in the
image maps, image cells that show an object."""
DIVISORS: Final = {
    "loss_cls": "matched",
    "loss_bbox": "matched",
    "loss_router_cls": "matched",
    "lidar.loss_cls": "matched",
    "lidar.loss_bbox": "matched",
    "camera.loss_cls": "matched",
    "camera.loss_bbox": "matched",
    "dn_loss_cls": "near",
    "dn_loss_bbox": "present",
    "loss_heatmap": "centers",
    "loss_image_heatmap": "image_centers",
    "loss_depth": "cells",
}
"""The count that the sum of each loss is divided by, averaged over ranks, at least 1."""


def focal_loss(logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Sigmoid focal loss per element (arXiv 1708.02002).

    Args:
        logits: [...].
        targets: [...] 0 or 1.
        alpha: weight of positives; negatives weigh 1 - alpha.
        gamma: power of the modulating factor.

    Returns:
        [...].
    """
    probability = logits.sigmoid()
    missed = torch.where(targets > 0, 1 - probability, probability)
    weight = torch.where(targets > 0, alpha, 1 - alpha)
    return weight * missed**gamma * F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def code_loss(codes: Tensor, boxes: Tensor, code_weights: Tensor) -> Tensor:
    """Weighted L1 distance per number; a target that is NaN (an unknown velocity) contributes nothing.

    Args:
        codes: [..., 10].
        boxes: [..., 9].
        code_weights: [10].

    Returns:
        [..., 10].
    """
    targets = encode(boxes)
    known = ~targets[..., CODE_VELOCITY].isnan()
    known = F.pad(known, (targets.shape[-1] - known.shape[-1], 0), value=True)
    distance = (codes - torch.where(known, targets, codes.detach())).abs()
    return torch.where(known, distance, 0.0) * code_weights


def set_losses(
    logits: Tensor,
    codes: Tensor,
    objects: Objects,
    matched: Tensor,
    loss: Loss,
    code_weights: Tensor,
    router_logits: Tensor | None = None,
    wrap: Wrap = as_it_is,
) -> dict[str, Tensor]:
    """Losses of the real queries: those that are matched to an object are to find it, the others are background.

    Args:
        logits: [L, B, Q, 10].
        codes: [L, B, Q, 10].
        objects: the ground truth.
        matched: [L, B, N] int64, the query of each object in each layer; -1 where there is none.
        loss: weights of the two losses.
        code_weights: [10] weights of the numbers of a code.
        router_logits: [B, Q, 10] the router's own estimate of the queries' classes, which answers for the objects
            that the last layer is matched to.
        wrap: makes of a function of tensors what is called instead, such as its compiled form.

    Returns:
        Weighted sums: loss_cls and loss_bbox [L], and a scalar loss_router_cls where there is an estimate.
    """
    cls, bbox, last = wrap(_of_matched)(logits, codes, objects.boxes, objects.labels, matched, code_weights)
    sums = {"loss_cls": loss.cls * cls, "loss_bbox": loss.bbox * bbox}
    if router_logits is not None:
        sums["loss_router_cls"] = loss.router_cls * focal_loss(router_logits.float(), last).sum()
    return sums


def denoising_losses(
    logits: Tensor,
    codes: Tensor,
    noised: NoisedQueries,
    loss: Loss,
    code_weights: Tensor,
    wrap: Wrap = as_it_is,
) -> dict[str, Tensor]:
    """Losses of the denoising queries, each against the box that it came from.

    Every copy is to find its box; only near copies are to claim its class, the others are background.

    Args:
        logits: [L, B, G · N, 10].
        codes: [L, B, G · N, 10].
        noised: what they came from.
        loss: weights of the losses.
        code_weights: [10] weights of the numbers of a code.
        wrap: as in `set_losses`.

    Returns:
        Weighted sums: dn_loss_cls and dn_loss_bbox [L].
    """
    cls, bbox = wrap(_of_noised)(logits, codes, noised.boxes, noised.labels, noised.near, noised.present, code_weights)
    return {"dn_loss_cls": loss.dn * loss.cls * cls, "dn_loss_bbox": loss.dn * loss.bbox * bbox}


def _of_matched(
    logits: Tensor, codes: Tensor, boxes: Tensor, labels: Tensor, matched: Tensor, code_weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """[L] sums of both losses over all queries and pairs, and the last layer's class targets [B, Q, 10]."""
    layers, batch, queries, _ = logits.shape
    layer = torch.arange(layers, device=logits.device)[:, None, None]
    sample = torch.arange(batch, device=logits.device)[:, None]
    found = matched >= 0
    # A query too many takes the objects that have none.
    targets = logits.new_zeros(layers, batch, queries + 1, logits.shape[-1])
    # The one that is written is made where the others are: assigning a plain number would copy it from the host.
    places = (layer, sample, torch.where(found, matched, queries), labels)
    targets = targets.index_put_(places, targets.new_ones(()))
    targets = targets[:, :, :queries]
    cls = focal_loss(logits, targets).flatten(1).sum(1)
    chosen = codes.gather(2, matched.clamp(min=0)[..., None].expand(-1, -1, -1, codes.shape[-1]))
    distance = torch.where(found[..., None], code_loss(chosen, boxes, code_weights), 0.0)
    return cls, distance.flatten(1).sum(1), targets[-1]


def _of_noised(
    logits: Tensor, codes: Tensor, boxes: Tensor, labels: Tensor, near: Tensor, present: Tensor, code_weights: Tensor
) -> tuple[Tensor, Tensor]:
    """[L] sums of both losses over the denoising queries that are present."""
    classes = torch.arange(logits.shape[-1], device=logits.device)
    targets = ((labels[..., None] == classes) & near[..., None]).to(logits.dtype)
    focal = focal_loss(logits, targets.expand_as(logits))
    cls = torch.where(present[..., None], focal, 0.0).flatten(1).sum(1)
    distance = code_loss(codes, boxes, code_weights)
    return cls, torch.where(present[..., None], distance, 0.0).flatten(1).sum(1)


def mean_over_ranks(counts: Tensor) -> Tensor:
    """Mean of each count over all ranks of a distributed run, at least 1."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        counts = counts.clone()
        dist.all_reduce(counts)
        counts = counts / dist.get_world_size()
    return counts.clamp(min=1.0)


def stacked(counts: dict[str, Tensor], device: torch.device) -> Tensor:
    """Counts by the names of `COUNTS` as one tensor [6]; 0 where there is none."""
    nothing = torch.zeros((), device=device)
    return torch.stack([counts.get(name, nothing).float() for name in COUNTS])


def divided(sums: dict[str, Tensor], counts: Tensor) -> dict[str, Tensor]:
    """Losses from their sums, each over its count.

    Args:
        sums: weighted sums, of a whole batch or [L] of its layers.
        counts: [6], of `stacked`.

    Returns:
        Scalars; a loss of layers is called after the last one, those of the others have their number in front.
    """
    losses = {}
    for name, values in sums.items():
        shares = values / counts[COUNTS.index(DIVISORS[name])]
        if not shares.dim():
            losses[name] = shares
            continue
        for layer, share in enumerate(shares.unbind()):
            losses[name if layer == len(shares) - 1 else f"d{layer}.{name}"] = share
    return losses
