from itertools import permutations

import numpy as np
import pytest
import torch

from aqr.config import Loss
from aqr.detector.assignment import assign, cost_tables, match_cost
from aqr.detector.coding import encode
from aqr.detector.objects import Objects, padding

LOSS = Loss()
WEIGHTS = torch.tensor(LOSS.code_weights)


def make(layers: int, queries: int, counts: list[int], seed: int = 0) -> tuple[torch.Tensor, ...]:
    rng = np.random.default_rng(seed)
    total = sum(counts)
    boxes = np.column_stack(
        [
            rng.uniform(-5, 5, (total, 3)),
            rng.uniform(0.5, 5, (total, 3)),
            rng.uniform(-3, 3, total),
            np.full((total, 2), np.nan),
        ]
    )
    shape = (layers, len(counts), queries, 10)
    logits, codes = rng.normal(0, 2, shape), rng.normal(0, 2, shape)
    labels = torch.tensor(rng.integers(0, 10, total))
    return *(torch.tensor(a, dtype=torch.float32) for a in (logits, codes, boxes)), labels


def cost_slowly(logits: torch.Tensor, code: torch.Tensor, box: torch.Tensor, label: int) -> float:
    """One query, one box, as the definition says."""
    p = 1 / (1 + np.exp(-logits[label].item()))
    cls = -0.25 * (1 - p) ** 2 * np.log(p) + 0.75 * p**2 * np.log(1 - p)
    x, y, z, length, width, height, yaw = box[:7].tolist()
    target = [x, y, z, np.log(length), np.log(width), np.log(height), np.sin(yaw), np.cos(yaw)]
    distance = sum(w * abs(a - b) for w, a, b in zip([2, 2, 1, 1, 1, 1, 1, 1], code.tolist(), target, strict=False))
    return 2.0 * cls + 0.25 * distance


def matches(
    logits: torch.Tensor, codes: torch.Tensor, boxes: torch.Tensor, labels: torch.Tensor, counts: list[int]
) -> torch.Tensor:
    objects = Objects.of(boxes, labels, padding(counts, 4))
    return assign(cost_tables(logits, codes, objects, LOSS, WEIGHTS), counts)


def test_cost_equals_its_definition() -> None:
    logits, codes, boxes, labels = make(1, 6, [4])
    cost = match_cost(logits[0, 0], codes[0, 0], boxes, labels, LOSS, WEIGHTS)
    for q in range(6):
        for n in range(4):
            expected = cost_slowly(logits[0, 0, q], codes[0, 0, q], boxes[n], int(labels[n]))
            assert cost[q, n].item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("counts", [[3, 0, 2], [0, 0], [1], [7, 2]])
def test_pairs_have_the_least_total_cost(counts: list[int]) -> None:
    layers, queries = 2, 5
    logits, codes, boxes, labels = make(layers, queries, counts)
    matched = matches(logits, codes, boxes, labels, counts)
    assert matched.shape[:2] == (layers, len(counts))
    first = np.cumsum([0, *counts])
    for layer in range(layers):
        for b, count in enumerate(counts):
            box = (matched[layer, b] >= 0).nonzero()[:, 0].tolist()
            query = matched[layer, b, box].tolist()
            assert len(set(query)) == len(query) == min(count, queries)
            assert all(n < count for n in box)
            own = slice(first[b], first[b + 1])
            cost = match_cost(logits[layer, b], codes[layer, b], boxes[own], labels[own], LOSS, WEIGHTS).numpy()
            small = cost if count <= queries else cost.T
            options = permutations(range(max(count, queries)), min(count, queries))
            best = min(sum(small[i, n] for n, i in enumerate(option)) for option in options)
            assert sum(cost[q, n] for q, n in zip(query, box, strict=True)) == pytest.approx(best, abs=1e-4)


def test_perfect_predictions_are_matched_to_their_boxes() -> None:
    _, _, boxes, labels = make(1, 8, [5])
    codes, logits = torch.full((1, 1, 8, 10), 30.0), torch.full((1, 1, 8, 10), -5.0)
    order = torch.tensor([6, 1, 3, 0, 7])
    codes[0, 0, order] = encode(boxes).nan_to_num(0.0)
    logits[0, 0, order, labels] = 5.0
    assert matches(logits, codes, boxes, labels, [5])[0, 0, :5].tolist() == order.tolist()


def test_numbers_that_are_not_finite_do_not_stop_the_assignment() -> None:
    logits, codes, boxes, labels = make(1, 5, [3])
    codes[0, 0, 2] = float("nan")
    logits[0, 0, 4] = float("inf")
    boxes[1, 0] = float("inf")
    assert len(set(matches(logits, codes, boxes, labels, [3])[0, 0, :3].tolist()) - {-1}) == 3
