import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aqr import geometry
from aqr.config import Denoising
from aqr.detector.denoising import NoisedQueries, attention_mask, drawn_noise, noised_queries
from aqr.detector.objects import Objects, padding, placed

PC_RANGE = torch.tensor([-54.0, -54.0, -5.0, 54.0, 54.0, 3.0])


def make(
    counts: list[int], config: Denoising, seed: int = 0, multiple: int = 1
) -> tuple[torch.Tensor, torch.Tensor, NoisedQueries]:
    rng = np.random.default_rng(seed)
    total = sum(counts)
    boxes = torch.tensor(
        np.column_stack(
            [
                rng.uniform(-40, 40, (total, 2)),
                rng.uniform(-2, 0, total),
                rng.uniform(0.5, 5, (total, 3)),
                rng.uniform(-3, 3, (total, 3)),
            ]
        ),
        dtype=torch.float32,
    )
    labels = torch.tensor(rng.integers(0, 10, total))
    generator = torch.Generator().manual_seed(seed)
    rows = padding(counts, multiple)
    noise = placed(drawn_noise(total, config.groups, generator, boxes.device), rows, 0.0)
    return boxes, labels, noised_queries(Objects.of(boxes, labels, rows), noise, PC_RANGE, config)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.integers(1, 4))
@settings(deadline=None, max_examples=30)
def test_padding_lists_every_item_once(counts: list[int], multiple: int) -> None:
    rows = padding(counts, multiple)
    assert rows[rows >= 0].tolist() == list(range(sum(counts)))
    assert (rows >= 0).sum(1).tolist() == counts
    assert rows.shape[1] % multiple == 0
    assert max([1, *counts]) <= rows.shape[1] < max([1, *counts]) + multiple


def test_noise_does_not_depend_on_the_padding() -> None:
    _, _, narrow = make([2, 3], Denoising(groups=4))
    _, _, wide = make([2, 3], Denoising(groups=4), multiple=8)
    for name in ("reference_points", "boxes", "labels", "near"):
        of_narrow, of_wide = (getattr(n, name)[n.present] for n in (narrow, wide))
        assert torch.equal(of_narrow, of_wide)
    assert wide.present.shape == (2, 32)
    assert not wide.near[~wide.present].any()


@pytest.mark.parametrize("scale", [1.0, 0.4])
def test_copies_lie_inside_their_box_and_far_ones_are_background(scale: float) -> None:
    config = Denoising(groups=40, noise_scale=scale, split=0.75)
    boxes, labels, noised = make([3, 0, 5], config)
    assert noised.reference_points.shape == (3, 200, 3)
    points = geometry.denormalise(noised.reference_points, PC_RANGE)
    start = {0: 0, 2: 3}
    near, offsets = 0, []
    for b, count in enumerate([3, 0, 5]):
        for group in range(40):
            for n in range(5):
                slot = group * 5 + n
                assert noised.present[b, slot] == (n < count)
                if n >= count:
                    assert not noised.near[b, slot]
                    continue
                box = boxes[start[b] + n]
                assert torch.equal(noised.boxes[b, slot], box)
                assert noised.labels[b, slot] == labels[start[b] + n]
                dx, dy, dz = (points[b, slot] - box[:3]).tolist()
                cos, sin = np.cos(box[6].item()), np.sin(box[6].item())
                share = np.array([cos * dx + sin * dy, -sin * dx + cos * dy, dz]) / (scale * box[3:6].numpy() / 2)
                assert abs(share).max() <= 1 + 2e-3
                if abs(np.linalg.norm(share) - 0.75) > 2e-3:
                    assert noised.near[b, slot] == (np.linalg.norm(share) < 0.75)
                near += int(noised.near[b, slot])
                offsets.append(share)
    np.testing.assert_allclose(np.std(offsets, axis=0), 1 / np.sqrt(3), rtol=0.1)
    assert near / len(offsets) == pytest.approx(np.pi / 6 * 0.75**3, abs=0.06)


def test_noise_comes_from_the_generator() -> None:
    first, again, other = (make([4], Denoising(groups=2), seed)[2] for seed in (1, 1, 2))
    assert torch.equal(first.reference_points, again.reference_points)
    assert not torch.equal(first.reference_points, other.reference_points)


def test_nothing_to_denoise() -> None:
    _, _, noised = make([0, 0], Denoising(groups=3))
    assert noised.present.shape == (2, 3)
    assert not noised.present.any()
    assert not noised.near.any()


def test_mask_separates_groups_and_hides_them_from_real_queries() -> None:
    queries, groups, counts = 3, 2, [2, 1]
    _, _, noised = make(counts, Denoising(groups=groups))
    mask = attention_mask(queries, noised)
    total = queries + groups * 2
    assert mask.shape == (2, 1, total, total)
    for b in range(2):
        for row in range(total):
            for column in range(total):
                if column < queries:
                    allowed = True
                elif row < queries:
                    allowed = False
                else:
                    same_group = (row - queries) // 2 == (column - queries) // 2
                    allowed = row == column or (same_group and (column - queries) % 2 < counts[b])
                assert mask[b, 0, row, column] == allowed
