"""Residuals by class in the whole detector: the router's class head is supervised, learns, and shows in the maps."""

import math
from collections.abc import Callable

import pytest
import torch

from aqr.batch import Batch
from aqr.config import Config
from aqr.detector import Detector
from aqr.detector.assignment import assign

MakeConfig = Callable[..., Config]
MakeBatch = Callable[..., Batch]


def config_with(small_config: MakeConfig, residual: object, **more: object) -> Config:
    modulator = {"residual_weight": residual, "gate": False}
    return small_config(aqr={"enabled": True, "modulator": modulator}, detector={"dropout": 0.0, **more})


def build(config: Config) -> Detector:
    torch.manual_seed(0)
    return Detector(config)


def losses_of(detector: Detector, batch: Batch) -> dict[str, torch.Tensor]:
    return detector.losses(detector(batch, generator=torch.Generator().manual_seed(0)), batch)


def test_the_loss_is_the_focal_loss_over_the_last_layers_assignment(
    small_config: MakeConfig, toy_batch: MakeBatch
) -> None:
    config = config_with(small_config, {"default": 0.7, "pedestrian": 0.9}, loss={"router_cls": 0.3})
    detector, batch = build(config), toy_batch()
    output = detector(batch, generator=torch.Generator().manual_seed(0))
    found = detector.losses(output, batch)["loss_router_cls"].item()
    matched = assign(detector.costs(output), batch.box_counts)[-1]
    assert output.aqr is not None
    assert output.aqr.class_logits is not None
    target = torch.zeros_like(output.aqr.class_logits)
    assert output.objects is not None
    for sample, place in (matched >= 0).nonzero().tolist():
        target[sample, matched[sample, place], output.objects.labels[sample, place]] = 1
    total = 0.0
    for logit, wanted in zip(output.aqr.class_logits.flatten().tolist(), target.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-logit))
        total += -0.25 * (1 - p) ** 2 * math.log(p) if wanted else -0.75 * p**2 * math.log(1 - p)
    assert found == pytest.approx(0.3 * total / max(len(batch.boxes), 1), rel=1e-4)


def test_one_number_builds_no_head_and_alike_residuals_change_nothing(
    small_config: MakeConfig, toy_batch: MakeBatch
) -> None:
    batch = toy_batch()
    one, alike = (build(config_with(small_config, residual)) for residual in (0.65, {"default": 0.65}))
    extra = alike.state_dict().keys() - one.state_dict().keys()
    assert extra == {"aqr.class_residual.logits.weight", "aqr.class_residual.logits.bias"}
    assert all(torch.equal(value, alike.state_dict()[name]) for name, value in one.state_dict().items())
    expected, found = losses_of(one, batch), losses_of(alike, batch)
    assert found.keys() - expected.keys() == {"loss_router_cls"}
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)


def test_the_head_learns_what_stands_where_and_the_maps_follow(small_config: MakeConfig, toy_batch: MakeBatch) -> None:
    batch = toy_batch()
    only = dict.fromkeys(
        ("car", "truck", "construction_vehicle", "bus", "trailer", "barrier", "motorcycle", "bicycle"), 0.95
    )
    detector = build(config_with(small_config, {"default": 0.5, "pedestrian": 0.95, "traffic_cone": 0.95, **only}))
    assert detector.aqr is not None
    before = detector(batch).aqr
    assert before is not None
    assert before.bev_residual is not None
    # A new head asks for the default nearly everywhere.
    assert (before.bev_residual - 0.5).abs().max() < 0.06
    optimizer = torch.optim.Adam(detector.aqr.parameters(), lr=5e-3)
    losses = []
    for _ in range(40):
        loss = losses_of(detector, batch)["loss_router_cls"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    after = detector(batch).aqr
    assert after is not None
    assert after.bev_residual is not None
    assert after.bev_residual.max() > before.bev_residual.max() + 0.1
