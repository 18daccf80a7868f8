"""Hungarian assignment: which query answers for which object (arXiv 2005.12872)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from aqr.config import Loss
from aqr.detector.coding import CODE_VELOCITY, encode

UNUSABLE = 1e4
"""Cost that stands for NaN or infinity: such a pair is matched last, and its loss says that something is wrong."""


@dataclass(frozen=True)
class Assignment:
    """M pairs of a query and a box for each of L decoder layers; every box has a query, or every query a box.

    Attributes:
        sample: [L, M] int64.
        query: [L, M] int64.
        box: [L, M] int64, index into the batch's boxes.
    """

    sample: Tensor
    query: Tensor
    box: Tensor


def match_cost(
    logits: Tensor, codes: Tensor, boxes: Tensor, labels: Tensor, loss: Loss, code_weights: Tensor
) -> Tensor:
    """Cost of giving each query to each box: focal classification cost and weighted L1 distance, as in CMT.

    Velocities do not count, because some are unknown.

    Args:
        logits: [..., Q, 10].
        codes: [..., Q, 10].
        boxes: [N, 9].
        labels: [N] int64.
        loss: weights of the two parts.
        code_weights: [10] weights of the numbers of a code.

    Returns:
        [..., Q, N].
    """
    probability = logits.sigmoid()
    positive = 0.25 * (1 - probability) ** 2 * -(probability + 1e-12).log()
    negative = 0.75 * probability**2 * -(1 - probability + 1e-12).log()
    cls = (positive - negative)[..., labels]
    known = slice(0, CODE_VELOCITY.start)
    weights = code_weights[known]
    bbox = torch.cdist(codes[..., known] * weights, encode(boxes)[..., known] * weights, p=1)
    return loss.cls * cls + loss.bbox * bbox


@torch.no_grad()
def assign(
    logits: Tensor,
    codes: Tensor,
    boxes: Tensor,
    labels: Tensor,
    box_counts: list[int],
    loss: Loss,
    code_weights: Tensor,
) -> Assignment:
    """Match the queries of every layer and sample to that sample's boxes at the least total cost.

    All costs come to the host in one transfer and all pairs go back in one.

    Args:
        logits: [L, B, Q, 10].
        codes: [L, B, Q, 10].
        boxes: [N, 9] of all samples behind one another.
        labels: [N] int64.
        box_counts: boxes of each sample.
        loss: weights of the two parts of the cost.
        code_weights: [10] weights of the numbers of a code.

    Returns:
        Assignment, on the device of logits.
    """
    layers, _, queries, _ = logits.shape
    costs = [
        match_cost(logits[:, sample].float(), codes[:, sample].float(), box, label, loss, code_weights)
        for sample, (box, label) in enumerate(
            zip(torch.split(boxes, box_counts), torch.split(labels, box_counts), strict=True)
        )
    ]
    flat = torch.cat([cost.flatten() for cost in costs]).nan_to_num(UNUSABLE, UNUSABLE, -UNUSABLE).cpu().numpy()
    pairs, start, first = [], 0, 0
    for sample, count in enumerate(box_counts):
        table = flat[start : start + layers * queries * count].reshape(layers, queries, count)
        matched = np.array([linear_sum_assignment(cost) for cost in table]).reshape(layers, 2, -1)
        pairs.append(np.stack([np.full_like(matched[:, 0], sample), matched[:, 0], matched[:, 1] + first]))
        start, first = start + table.size, first + count
    found = torch.from_numpy(np.concatenate(pairs, axis=2)).to(logits.device, non_blocking=True)
    return Assignment(*found.unbind(0))
