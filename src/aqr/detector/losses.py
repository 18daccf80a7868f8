"""Training losses: every decoder layer is compared with the objects, and with the denoising queries' own boxes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional as F

from aqr.config import Loss
from aqr.detector.assignment import assign
from aqr.detector.coding import CODE_VELOCITY, encode
from aqr.detector.denoising import NoisedQueries
from aqr.detector.wrapping import Wrap, as_it_is


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
    boxes: Tensor,
    labels: Tensor,
    box_counts: list[int],
    loss: Loss,
    code_weights: Tensor,
    router_logits: Tensor | None = None,
    wrap: Wrap = as_it_is,
) -> dict[str, Tensor]:
    """Losses of the real queries, each layer matched to the objects anew.

    Both are sums over all samples, divided by the number of matched pairs, averaged over ranks, at least 1.

    Args:
        logits: [L, B, Q, 10].
        codes: [L, B, Q, 10].
        boxes: [N, 9] of all samples behind one another.
        labels: [N] int64.
        box_counts: boxes of each sample.
        loss: weights of the two losses.
        code_weights: [10] weights of the numbers of a code.
        router_logits: [B, Q, 10] the router's own estimate of the queries' classes, which answers for the boxes that
            the last layer is matched to.
        wrap: makes of a function of tensors what is called instead, such as its compiled form.

    Returns:
        loss_cls and loss_bbox of the last layer, d0.loss_cls … of the others, and loss_router_cls where there is an
        estimate; weighted scalars.
    """
    pairs = assign(logits, codes, boxes, labels, box_counts, loss, code_weights, wrap)
    positives = mean_over_ranks(torch.full((), float(pairs.query.shape[1]), device=logits.device))
    cls, bbox, last = wrap(_of_matched)(
        logits, codes, boxes, labels, pairs.sample, pairs.query, pairs.box, code_weights
    )
    cls, bbox = cls / positives, bbox / positives
    losses = _named("", loss.cls * cls, loss.bbox * bbox)
    if router_logits is not None:
        missed = focal_loss(router_logits.float(), last).sum() / positives
        losses["loss_router_cls"] = loss.router_cls * missed
    return losses


def denoising_losses(
    logits: Tensor,
    codes: Tensor,
    noised: NoisedQueries | None,
    loss: Loss,
    code_weights: Tensor,
    wrap: Wrap = as_it_is,
) -> dict[str, Tensor]:
    """Losses of the denoising queries, each against the box that it came from.

    Every copy is to find its box; only near copies are to claim its class, the others are background.

    Args:
        logits: [L, B, G · N, 10]; G · N may be 0.
        codes: [L, B, G · N, 10].
        noised: what they came from; None where there is no box: the losses are 0.
        loss: weights of the losses.
        code_weights: [10] weights of the numbers of a code.
        wrap: as in `set_losses`.

    Returns:
        dn_loss_cls and dn_loss_bbox of the last layer, d0.dn_loss_cls … of the others; weighted scalars.
    """
    if noised is None:
        nothing = (logits.sum() + codes.sum()) * logits.new_zeros(len(logits))
        mean_over_ranks(logits.new_zeros(2))
        return _named("dn_", nothing, nothing)
    counts = mean_over_ranks(torch.stack([noised.near.sum(), noised.present.sum()]).float())
    cls, bbox = wrap(_of_noised)(logits, codes, noised.boxes, noised.labels, noised.near, noised.present, code_weights)
    cls, bbox = cls / counts[0], bbox / counts[1]
    return _named("dn_", loss.dn * loss.cls * cls, loss.dn * loss.bbox * bbox)


def _of_matched(
    logits: Tensor,
    codes: Tensor,
    boxes: Tensor,
    labels: Tensor,
    sample: Tensor,
    query: Tensor,
    box: Tensor,
    code_weights: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """[L] sums of both losses over all queries and pairs [L, M], and the last layer's class targets [B, Q, 10]."""
    layer = torch.arange(len(logits), device=logits.device)[:, None]
    targets = torch.zeros_like(logits)
    targets[layer, sample, query, labels[box]] = 1.0
    cls = focal_loss(logits, targets).flatten(1).sum(1)
    distance = code_loss(codes[layer, sample, query], boxes[box], code_weights)
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


def _named(prefix: str, cls: Tensor, bbox: Tensor) -> dict[str, Tensor]:
    names = [f"d{layer}." for layer in range(len(cls) - 1)] + [""]
    losses = {}
    for name, of_classes, of_boxes in zip(names, cls.unbind(), bbox.unbind(), strict=True):
        losses[f"{name}{prefix}loss_cls"] = of_classes
        losses[f"{name}{prefix}loss_bbox"] = of_boxes
    return losses
