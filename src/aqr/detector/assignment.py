"""Hungarian assignment: which query answers for which object (arXiv 2005.12872)."""

from __future__ import annotations

import functools
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from aqr.config import Loss
from aqr.detector.coding import CODE_VELOCITY, encode
from aqr.detector.objects import Objects
from aqr.detector.wrapping import Wrap, as_it_is

MOST_THREADS: Final = 8
UNUSABLE: Final = 1e4
"""Cost that stands for NaN or infinity: such a pair is matched last, and its loss says that something is wrong."""


def match_cost(
    logits: Tensor, codes: Tensor, boxes: Tensor, labels: Tensor, loss: Loss, code_weights: Tensor
) -> Tensor:
    """Cost of giving each query to each box: focal classification cost and weighted L1 distance, as in CMT.

    Velocities do not count, because some are unknown.

    Args:
        logits: [..., Q, 10].
        codes: [..., Q, 10].
        boxes: [..., N, 9].
        labels: [..., N] int64.
        loss: weights of the two parts.
        code_weights: [10] weights of the numbers of a code.

    Returns:
        [..., Q, N].
    """
    of_class, distance = _cost_parts(logits, codes, boxes, labels, code_weights)
    return loss.cls * of_class + loss.bbox * distance


def _cost_parts(
    logits: Tensor, codes: Tensor, boxes: Tensor, labels: Tensor, code_weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Classification cost and distance, [..., Q, N], not yet weighted against each other."""
    probability = logits.sigmoid()
    positive = 0.25 * (1 - probability) ** 2 * -(probability + 1e-12).log()
    negative = 0.75 * probability**2 * -(1 - probability + 1e-12).log()
    cls = (positive - negative).gather(-1, labels[..., None, :].expand(*logits.shape[:-1], -1))
    known = slice(0, CODE_VELOCITY.start)
    weights = code_weights[known]
    distance = (codes[..., :, None, known] - encode(boxes)[..., None, :, known]).abs() * weights
    return cls, distance.sum(-1)


@torch.no_grad()
def cost_tables(
    logits: Tensor, codes: Tensor, objects: Objects, loss: Loss, code_weights: Tensor, wrap: Wrap = as_it_is
) -> Tensor:
    """What it costs to give each object to each query, for every layer.

    Args:
        logits: [L, B, Q, 10].
        codes: [L, B, Q, 10].
        objects: the ground truth.
        loss: weights of the two parts of the cost.
        code_weights: [10] weights of the numbers of a code.
        wrap: makes of a function of tensors what is called instead, such as its compiled form.

    Returns:
        [L, B, N, Q] float32, all of them numbers; what stands in empty places means nothing.
    """
    found: Tensor = wrap(_table)(logits, codes, objects.boxes, objects.labels, loss.cls, loss.bbox, code_weights)
    return found


def assign(tables: Tensor, box_counts: list[int]) -> Tensor:
    """Match the queries of every layer and sample to that sample's objects at the least total cost.

    Every object has a query of its own, or where there are more objects than queries, every query an object.

    Args:
        tables: [L, B, N, Q] costs in host memory.
        box_counts: objects of each sample.

    Returns:
        [L, B, N] int64 in host memory, the query of each object; -1 where there is none.
    """
    costs = tables.numpy()
    matched = torch.full(tables.shape[:3], -1)
    found = matched.numpy()

    def solve(sample: int) -> None:
        for layer in layers[sample // batch :: threads]:
            box, query = linear_sum_assignment(costs[layer, sample % batch, : box_counts[sample % batch]])
            found[layer, sample % batch, box] = query

    layers, batch = range(len(tables)), len(box_counts)
    threads = min(len(layers), -(-_threads() // max(batch, 1)))
    list(_pool(os.getpid()).map(solve, range(threads * batch)))
    return matched


def _table(
    logits: Tensor, codes: Tensor, boxes: Tensor, labels: Tensor, cls: float, bbox: float, code_weights: Tensor
) -> Tensor:
    """[L, B, N, Q] costs, all of them numbers, each box's in a row."""
    of_class, distance = _cost_parts(logits.float(), codes.float(), boxes, labels, code_weights)
    costs = cls * of_class + bbox * distance
    return costs.nan_to_num(UNUSABLE, UNUSABLE, -UNUSABLE).transpose(-1, -2).contiguous()


def _threads() -> int:
    return max(1, min(MOST_THREADS, (os.cpu_count() or 1) - 1))


@functools.cache
def _pool(process: int) -> ThreadPoolExecutor:
    """Threads of a process that solve assignments side by side: SciPy computes without the interpreter's lock.

    A forked process inherits no threads, so each has its own.
    """
    return ThreadPoolExecutor(_threads(), thread_name_prefix="assign")
