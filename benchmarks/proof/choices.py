"""Which of several predictions to take, by sample, by object or by query, for somebody who knows the truth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from aqr.config import Loss
from aqr.detector.assignment import assign, cost_tables
from aqr.detector.losses import set_losses
from aqr.detector.objects import Objects, padding

BOTH: Final = "both"
CONDITION: Final = "condition"
"""One variant for all samples under a failure at a severity: the one with the best score."""
SAMPLE: Final = "sample"
OBJECT: Final = "object"
QUERY: Final = "query"
CHOICES: Final = (SAMPLE, OBJECT, QUERY)
NOISE: Final = "noise"
CONFIDENCE: Final = "confidence"
"""What variants differ by where sensors do not matter."""


def choose(
    logits: Tensor, codes: Tensor, boxes: Tensor, labels: Tensor, loss: Loss, code_weights: Tensor
) -> Mapping[str, Tensor]:
    """The variant that each query of a sample takes its prediction from.

    By sample: the variant with the least loss. By object: every object gets the query and the variant that fit it
    best, by one Hungarian assignment of the least costs; all other queries keep the first variant. By query: the
    other queries, which are to find nothing, take the variant that claims least.

    Args:
        logits: [V, Q, 10] of V variants of one sample, whose queries stand in the same places.
        codes: [V, Q, 10].
        boxes: [N, 9] the objects.
        labels: [N] int64.
        loss: weights of the losses and of the costs.
        code_weights: [10] weights of the numbers of a code.

    Returns:
        [Q] int64 under each of `CHOICES`.
    """
    queries = logits.shape[1]
    count = len(boxes)
    objects = Objects.of(boxes, labels, padding([count]))
    tables = cost_tables(logits[:, None], codes[:, None], objects, loss, code_weights)
    each = assign(tables, [count])
    sums = set_losses(logits[:, None], codes[:, None], objects, each, loss, code_weights)
    best = (sums["loss_cls"] + sums["loss_bbox"]).argmin()

    cost, variant = tables[:, 0].min(0)
    query = assign(cost[None, None], [count])[0, 0]
    place = (query >= 0).nonzero()[:, 0]
    by_object = torch.zeros(queries, dtype=torch.int64)
    by_object[query[place]] = variant[place, query[place]]
    by_query = logits.amax(-1).argmin(0)
    by_query[query[place]] = by_object[query[place]]
    return {SAMPLE: best.expand(queries), OBJECT: by_object, QUERY: by_query}


def taken(values: Tensor, choice: Tensor) -> Tensor:
    """What queries take: [Q, ...] of the variants' values [V, Q, ...], by the number of the variant of each, [Q]."""
    return values[choice, torch.arange(values.shape[1])]
