from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aqr.detector.coding import attribute_names, decode, decode_boxes, encode
from aqr.taxonomy import ATTRIBUTES_OF_CLASS, CLASSES

PC_RANGE = torch.tensor([-54.0, -54.0, -5.0, 54.0, 54.0, 3.0])

boxes = st.tuples(
    st.floats(-54, 54),
    st.floats(-54, 54),
    st.floats(-5, 3),
    *[st.floats(0.05, 30)] * 3,
    st.floats(-3.1, 3.1),
    *[st.floats(-20, 20)] * 2,
)


@given(st.lists(boxes, min_size=1, max_size=5))
@settings(deadline=None)
def test_decoding_undoes_encoding(rows: list[tuple[float, ...]]) -> None:
    box = torch.tensor(rows, dtype=torch.float64)
    torch.testing.assert_close(decode_boxes(encode(box)), box)


def test_an_unknown_velocity_stays_unknown_and_nothing_else() -> None:
    box = torch.tensor([[1.0, 2, 3, 4, 5, 6, 0.5, float("nan"), float("nan")]])
    assert encode(box).isnan().tolist() == [[False] * 8 + [True] * 2]


def decode_slowly(logits: torch.Tensor, codes: torch.Tensor, count: int) -> list[tuple[float, int, int, list[float]]]:
    pairs = [(1 / (1 + np.exp(-logits[q, c].item())), q, c) for q, c in product(*map(range, logits.shape))]
    pairs.sort(key=lambda pair: -pair[0])
    found = []
    for score, q, c in pairs[:count]:
        x, y, z, *sizes, sin, cos, vx, vy = codes[q].tolist()
        if -61.2 <= x <= 61.2 and -61.2 <= y <= 61.2 and -10 <= z <= 8:
            found.append((score, q, c, [x, y, z, *np.exp(sizes), np.arctan2(sin, cos), vx, vy]))
    return found


@pytest.mark.parametrize("limit", [20, 300])
def test_decoding_equals_a_sort_over_all_pairs(limit: int) -> None:
    generator = torch.Generator().manual_seed(0)
    logits, codes = (torch.randn(3, 12, 10, generator=generator) for _ in range(2))
    codes[..., :2] *= 50
    codes[..., 2] *= 6
    for b, found in enumerate(decode(logits, codes, PC_RANGE, limit)):
        expected = decode_slowly(logits[b], codes[b], limit)
        assert 0 < len(found) == len(expected) < min(limit, 120)
        torch.testing.assert_close(found.scores, torch.tensor([e[0] for e in expected], dtype=torch.float32))
        assert found.query_index.tolist() == [e[1] for e in expected]
        assert found.labels.tolist() == [e[2] for e in expected]
        torch.testing.assert_close(found.boxes, torch.tensor([e[3] for e in expected], dtype=torch.float32))


def test_what_is_not_finite_is_no_detection() -> None:
    logits, codes = torch.zeros(1, 4, 10), torch.zeros(1, 4, 10)
    codes[0, 0, 3] = float("nan")
    codes[0, 1, 8] = float("inf")
    logits[0, 2] = float("nan")
    codes[0, 3, 4] = 1e4
    (found,) = decode(logits, codes, PC_RANGE, 40)
    assert found.boxes.isfinite().all()
    assert found.scores.isfinite().all()
    assert set(found.query_index.tolist()) == {2, 3}
    assert (found.scores[found.query_index == 2] == 0).all()


def test_attributes_follow_class_and_speed() -> None:
    still = attribute_names(range(10), np.zeros((10, 2)))
    fast = attribute_names(range(10), np.full((10, 2), 1.0))
    for label, name in enumerate(CLASSES):
        allowed = ATTRIBUTES_OF_CLASS[name] or ("",)
        assert still[label] in allowed
        assert fast[label] in allowed
        assert (still[label] != fast[label]) == bool(ATTRIBUTES_OF_CLASS[name])
    assert fast[CLASSES.index("car")] == "vehicle.moving"
    assert fast[CLASSES.index("bicycle")] == "cycle.with_rider"
    assert fast[CLASSES.index("pedestrian")] == "pedestrian.moving"
    assert attribute_names([0, 0], [[0.1, 0.1], [0.0, -0.3]]) == ["vehicle.parked", "vehicle.moving"]
    assert attribute_names([], np.zeros((0, 2))) == []
