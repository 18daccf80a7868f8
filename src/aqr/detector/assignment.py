"""Hungarian assignment: which query answers for which object (arXiv 2005.12872)."""

from __future__ import annotations

import functools
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from aqr.config import Loss
from aqr.detector.coding import CODE_VELOCITY, encode
from aqr.detector.denoising import padding
from aqr.detector.wrapping import Wrap, as_it_is

MOST_THREADS: Final = 8
UNUSABLE: Final = 1e4
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
def assign(
    logits: Tensor,
    codes: Tensor,
    boxes: Tensor,
    labels: Tensor,
    box_counts: list[int],
    loss: Loss,
    code_weights: Tensor,
    wrap: Wrap = as_it_is,
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
        wrap: makes of a function of tensors what is called instead, such as its compiled form.

    Returns:
        Assignment, on the device of logits.
    """
    layers, batch = logits.shape[:2]
    slots, _ = padding(box_counts)
    rows = slots.to(boxes.device, non_blocking=True)
    own_boxes, own_labels = (t[rows] if len(t) else t.new_ones(*rows.shape, *t.shape[1:]) for t in (boxes, labels))
    tables = _on_host(wrap(_table)(logits, codes, own_boxes, own_labels, loss.cls, loss.bbox, code_weights)).numpy()

    problems = [(layer, sample) for sample in range(batch) for layer in range(layers)]
    solve = _pool(os.getpid()).map
    matched = list(solve(lambda at: linear_sum_assignment(tables[*at, : box_counts[at[1]]]), problems))
    pairs, first = [], 0
    for sample, count in enumerate(box_counts):
        of_sample = np.array(matched[sample * layers : (sample + 1) * layers], dtype=np.int64)
        box, query = of_sample[:, 0] + first, of_sample[:, 1]
        pairs.append(np.stack([np.full_like(box, sample), query, box]))
        first += count
    found = torch.from_numpy(np.concatenate(pairs, axis=2)).to(logits.device, non_blocking=True)
    return Assignment(*found.unbind(0))


def _table(
    logits: Tensor, codes: Tensor, boxes: Tensor, labels: Tensor, cls: float, bbox: float, code_weights: Tensor
) -> Tensor:
    """[L, B, N, Q] costs, all of them numbers, each box's in a row."""
    of_class, distance = _cost_parts(logits.float(), codes.float(), boxes, labels, code_weights)
    costs = cls * of_class + bbox * distance
    return costs.nan_to_num(UNUSABLE, UNUSABLE, -UNUSABLE).transpose(-1, -2).contiguous()


def _on_host(values: Tensor) -> Tensor:
    """Values in host memory, through page-locked memory where they come from a GPU."""
    if not values.is_cuda:
        return values
    found = values.to("cpu", non_blocking=True)
    torch.cuda.current_stream(values.device).synchronize()
    return found


@functools.cache
def _pool(process: int) -> ThreadPoolExecutor:
    """Threads of a process that solve assignments side by side: SciPy computes without the interpreter's lock.

    A forked process inherits no threads, so each has its own.
    """
    return ThreadPoolExecutor(max(1, min(MOST_THREADS, (os.cpu_count() or 1) - 1)), thread_name_prefix="assign")
