import math

import numpy as np
import pytest
import torch

from aqr.config import Denoising, Loss
from aqr.detector.assignment import assign, cost_tables
from aqr.detector.coding import encode
from aqr.detector.denoising import drawn_noise, noised_queries
from aqr.detector.losses import code_loss, denoising_losses, divided, focal_loss, set_losses, stacked
from aqr.detector.objects import Objects, padding, placed

LOSS = Loss()
WEIGHTS = [2, 2, 1, 1, 1, 1, 1, 1, 0.2, 0.2]


def focal_slowly(logit: float, target: float) -> float:
    p = 1 / (1 + math.exp(-logit))
    return -0.25 * (1 - p) ** 2 * math.log(p) if target else -0.75 * p**2 * math.log(1 - p)


def make(layers: int, queries: int, counts: list[int]) -> tuple[torch.Tensor, ...]:
    rng = np.random.default_rng(3)
    total = sum(counts)
    boxes = np.column_stack(
        [rng.uniform(-5, 5, (total, 3)), rng.uniform(0.5, 5, (total, 3)), rng.normal(size=(total, 3))]
    )
    boxes[::2, 7:] = np.nan
    shape = (layers, len(counts), queries, 10)
    logits, codes = (torch.tensor(rng.normal(0, 1.5, shape), dtype=torch.float32).requires_grad_() for _ in range(2))
    return logits, codes, torch.tensor(boxes, dtype=torch.float32), torch.tensor(rng.integers(0, 10, total))


def l1_slowly(code: torch.Tensor, box: torch.Tensor) -> float:
    target = encode(box).tolist()
    return sum(w * abs(a - b) for w, a, b in zip(WEIGHTS, code.tolist(), target, strict=True) if not math.isnan(b))


def test_focal_loss_equals_its_formula_and_survives_extremes() -> None:
    for logit in (-4.0, -0.3, 0.0, 2.5):
        for target in (0.0, 1.0):
            got = focal_loss(torch.tensor(logit), torch.tensor(target)).item()
            assert got == pytest.approx(focal_slowly(logit, target), rel=1e-5)
    extreme = torch.tensor([-300.0, 300.0], requires_grad=True)
    loss = focal_loss(extreme, torch.tensor([1.0, 0.0])).sum()
    loss.backward()
    assert loss.isfinite()
    assert extreme.grad is not None
    assert extreme.grad.isfinite().all()


def test_set_losses_equal_a_loop_over_layers_queries_and_classes() -> None:
    counts = [3, 0, 2]
    logits, codes, boxes, labels = make(3, 6, counts)
    objects = Objects.of(boxes, labels, padding(counts, 4))
    matched = assign(cost_tables(logits, codes, objects, LOSS, torch.tensor(WEIGHTS)), counts)
    sums = set_losses(logits, codes, objects, matched, LOSS, torch.tensor(WEIGHTS))
    losses = divided(sums, stacked({"matched": torch.tensor(5)}, logits.device))
    assert set(losses) == {f"{d}loss_{kind}" for d in ("", "d0.", "d1.") for kind in ("cls", "bbox")}
    for layer, name in enumerate(["d0.", "d1.", ""]):
        target = torch.zeros(3, 6, 10)
        bbox = 0.0
        for b, place in (matched[layer] >= 0).nonzero().tolist():
            q, n = matched[layer, b, place], place + (0, 3, 3)[b]
            target[b, q, labels[n]] = 1
            bbox += l1_slowly(codes[layer, b, q], boxes[n])
        flat = zip(logits[layer].flatten().tolist(), target.flatten().tolist(), strict=True)
        cls = sum(focal_slowly(x, t) for x, t in flat)
        assert losses[f"{name}loss_cls"].item() == pytest.approx(2.0 * cls / 5, rel=1e-4)
        assert losses[f"{name}loss_bbox"].item() == pytest.approx(0.25 * bbox / 5, rel=1e-4)


def test_an_unknown_velocity_has_no_loss_and_no_gradient() -> None:
    codes = torch.randn(1, 10, requires_grad=True)
    box = torch.tensor([[1.0, 2, 0, 4, 2, 1.5, 0.3, float("nan"), 2.0]])
    loss = code_loss(codes, box, torch.tensor(WEIGHTS))
    loss.sum().backward()
    assert loss[0, 8] == 0
    assert loss[0, 9] > 0
    assert codes.grad is not None
    assert codes.grad.isfinite().all()
    assert codes.grad[0, 8] == 0


def test_nan_in_a_centre_is_not_hidden() -> None:
    box = torch.tensor([[float("nan"), 2.0, 0, 4, 2, 1.5, 0.3, 0, 0]])
    assert code_loss(torch.zeros(1, 10), box, torch.ones(10)).isnan().any()


def test_denoising_losses_equal_a_loop() -> None:
    counts = [2, 3]
    _, _, boxes, labels = make(1, 1, counts)
    pc_range = torch.tensor([-54.0, -54.0, -5.0, 54.0, 54.0, 3.0])
    generator = torch.Generator().manual_seed(0)
    rows = padding(counts)
    noise = placed(drawn_noise(5, 4, generator, boxes.device), rows, 0.0)
    noised = noised_queries(Objects.of(boxes, labels, rows), noise, pc_range, Denoising(groups=4))
    logits, codes = torch.randn(2, 2, 12, 10), torch.randn(2, 2, 12, 10)
    sums = denoising_losses(logits, codes, noised, Loss(dn=0.5), torch.tensor(WEIGHTS))
    near = int(noised.near.sum())
    losses = divided(sums, stacked({"near": noised.near.sum(), "present": torch.tensor(20)}, logits.device))
    assert 0 < near < 20
    for layer, name in enumerate(["d0.", ""]):
        cls = bbox = 0.0
        for b in range(2):
            for slot in range(12):
                if slot % 3 >= counts[b]:
                    continue
                n = slot % 3 + (0, 2)[b]
                for c in range(10):
                    positive = bool(noised.near[b, slot]) and c == int(labels[n])
                    cls += focal_slowly(logits[layer, b, slot, c].item(), positive)
                bbox += l1_slowly(codes[layer, b, slot], boxes[n])
        assert losses[f"{name}dn_loss_cls"].item() == pytest.approx(0.5 * 2.0 * cls / near, rel=1e-4)
        assert losses[f"{name}dn_loss_bbox"].item() == pytest.approx(0.5 * 0.25 * bbox / 20, rel=1e-4)


def test_a_batch_without_boxes_still_teaches_background() -> None:
    logits, codes, boxes, labels = make(2, 4, [0, 0])
    rows = padding([0, 0])
    objects, nothing = Objects.of(boxes, labels, rows), torch.full((2, 2, 1), -1)
    losses = set_losses(logits, codes, objects, nothing, LOSS, torch.tensor(WEIGHTS))
    noised = noised_queries(objects, torch.zeros(2, 1, 4, 3), torch.tensor([-54.0, -54, -5, 54, 54, 3]), Denoising())
    losses |= denoising_losses(logits, codes, noised, LOSS, torch.tensor(WEIGHTS))
    assert not losses["loss_bbox"].any()
    assert not losses["dn_loss_cls"].any()
    assert not losses["dn_loss_bbox"].any()
    assert (losses["loss_cls"] > 0).all()
    sum(value.sum() for value in losses.values()).backward()
    assert logits.grad is not None
    assert (logits.grad > 0).all()
