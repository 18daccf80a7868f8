"""Log weights in attention, and queries that read one sensor alone."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from aqr.batch import Batch
from aqr.config import Config, parse
from aqr.detector import Detector, DetectorOutput
from aqr.detector.assignment import assign, cost_tables
from aqr.detector.attention import Attention
from aqr.detector.decoder import Decoder
from aqr.detector.losses import set_losses
from aqr.detector.solo import solo_log_weights, solo_mask
from aqr.errors import InputError
from aqr.modulation import AttentionRouting

PC_RANGE = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0)


def sensor_of_tokens(lidar: int, camera: int) -> torch.Tensor:
    return F.one_hot(torch.tensor([0] * lidar + [1] * camera), 2).float()


@pytest.mark.parametrize("heads", [2, 4])
def test_log_weights_multiply_what_each_token_counts(heads: int) -> None:
    torch.manual_seed(0)
    attention = Attention(16, heads)
    query, tokens = torch.randn(2, 5, 16), torch.randn(2, 9, 16)
    log_weights = torch.randn(2, 5, 2)
    sensors = sensor_of_tokens(6, 3)
    got = attention(query, tokens, tokens, None, log_weights, sensors)
    q, k, v = (
        projection(x).view(2, -1, heads, 16 // heads).transpose(1, 2)
        for projection, x in ((attention.query, query), (attention.key, tokens), (attention.value, tokens))
    )
    share = (q @ k.transpose(-1, -2) / math.sqrt(16 // heads)).exp()
    share = share * torch.repeat_interleave(log_weights.exp(), torch.tensor([6, 3]), dim=-1)[:, None]
    share = share / share.sum(-1, keepdim=True)
    expected = attention.out((share @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_log_weights_learn() -> None:
    torch.manual_seed(0)
    attention = Attention(8, 2).double()
    tokens = torch.randn(1, 4, 8, dtype=torch.double)
    query = torch.randn(1, 3, 8, dtype=torch.double)
    log_weights = torch.randn(1, 3, 2, dtype=torch.double, requires_grad=True)
    sensors = sensor_of_tokens(2, 2).double()
    assert torch.autograd.gradcheck(lambda w: attention(query, tokens, tokens, None, w, sensors), (log_weights,))


def test_each_layer_has_its_own_weights_and_a_silent_sensor_is_not_read() -> None:
    torch.manual_seed(0)
    decoder = Decoder(16, 2, 16, 2, 0.0)
    position = torch.randn(1, 4, 16)
    bev, bev_place = torch.randn(1, 3, 3, 16), torch.randn(3, 3, 16)
    images, image_place = torch.randn(1, 2, 2, 3, 16), torch.randn(1, 2, 2, 3, 16)
    tokens = [(bev, bev_place), (images, image_place)]
    silent = torch.zeros(2, 1, 4, 2)
    silent[..., 1] = -60.0
    got = decoder.read(position, tokens, None, silent)
    torch.testing.assert_close(got, decoder.read(position, tokens[:1]), rtol=1e-5, atol=1e-5)
    first_alone = silent.clone()
    first_alone[1] = 0.0
    mixed = decoder.read(position, tokens, None, first_alone)
    torch.testing.assert_close(mixed[0], got[0], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(mixed[1], got[1], atol=1e-3)


def test_solo_groups_see_themselves_alone() -> None:
    among = torch.tensor([[True, False, True], [True, True, True], [False, False, True]])[None, None]
    mask = solo_mask(among, 3, 2, among.device)[0, 0]
    expected = torch.block_diag(among[0, 0].float(), torch.ones(2, 2), torch.ones(2, 2)).bool()
    assert torch.equal(mask, expected)
    alone = solo_mask(None, 3, 2, among.device)[0, 0]
    assert torch.equal(alone, torch.block_diag(*(torch.ones(n, n) for n in (3, 2, 2))).bool())


def test_solo_log_weights_silence_the_other_sensor() -> None:
    real = torch.rand(2, 3, 3)
    given = torch.randn(1, 2, 3, 2)
    weights = solo_log_weights(given, real, others=5)
    assert weights.shape == (1, 2, 11, 2)
    torch.testing.assert_close(weights[:, :, :3], given)
    assert (weights[:, :, 3:5] == 0).all()
    assert (weights[:, :, 5:8].exp() == torch.tensor([1.0, math.exp(-60.0)])).all()
    assert (weights[:, :, 8:].exp() == torch.tensor([math.exp(-60.0), 1.0])).all()


def test_a_new_attention_router_weighs_every_sensor_alike_and_then_learns() -> None:
    torch.manual_seed(0)
    routing = AttentionRouting(16, PC_RANGE, layers=3, num_heads=2, context=True)
    queries, points = torch.randn(2, 7, 16), torch.rand(2, 7, 3)
    bev, images = torch.randn(2, 16, 8, 8), torch.randn(2, 3, 16, 4, 6)
    matrices = torch.eye(4).expand(2, 3, 4, 4)
    out = routing(queries, points, bev, images, matrices, (64, 96))
    assert out.log_weights.shape == (3, 2, 7, 2)
    assert (out.lidar_weights == 1).all()
    assert out.bev is bev
    out.log_weights.sum().backward()
    assert routing.router.logits.weight.grad.abs().sum() > 0


def test_context_averages_the_cameras_that_see_a_query() -> None:
    torch.manual_seed(0)
    routing = AttentionRouting(16, PC_RANGE, num_heads=2, context=True)
    images = torch.randn(1, 3, 16, 4, 6)
    visible = torch.zeros(1, 3, 2, dtype=torch.bool)
    visible[0, [0, 2], 0] = True
    found = routing.context(None, images, visible)
    told = routing.context.camera(torch.cat([images.mean((-1, -2)), images.amax((-1, -2))], -1))[0]
    torch.testing.assert_close(found[0, 0], (told[0] + told[2]) / 2)
    assert (found[0, 1] == 0).all()


def test_settings_of_the_other_target_are_refused() -> None:
    for section in (
        {"router": {"context": True}},
        {"target": "attention", "modulator": {"residual_weight": {"default": 0.7, "car": 0.5}, "gate": False}},
    ):
        with pytest.raises(InputError, match="target: attention"):
            parse({"aqr": section})


ATTENTION: dict[str, Any] = {"enabled": True, "target": "attention", "router": {"context": True, "per_layer": True}}


def build(config: Config) -> Detector:
    torch.manual_seed(0)
    return Detector(config)


def run(detector: Detector, batch: Batch) -> DetectorOutput:
    torch.manual_seed(1)
    return detector(batch, generator=torch.Generator().manual_seed(2))


def test_a_new_detector_with_attention_routing_computes_what_one_without_computes(
    small_config: Callable[..., Config], toy_batch: Callable[..., Batch]
) -> None:
    base, routed = build(small_config()), build(small_config(aqr=ATTENTION))
    for part in (toy_batch(), dataclasses.replace(toy_batch(), points=torch.zeros(0, 5), point_counts=[0, 0])):
        expected, got = run(base, part), run(routed, part)
        torch.testing.assert_close(got.queries.codes, expected.queries.codes, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(got.denoising.logits, expected.denoising.logits, rtol=1e-4, atol=1e-4)


def test_routing_changes_real_queries_alone(
    small_config: Callable[..., Config], toy_batch: Callable[..., Batch]
) -> None:
    routed = build(small_config(aqr=ATTENTION))
    batch = toy_batch()
    before = run(routed, batch)
    with torch.no_grad():
        routed.aqr.router.logits.bias.copy_(torch.tensor([-3.0, 3.0] * 2))
    after = run(routed, batch)
    # In the first layer; later ones look at real queries, which are routed.
    torch.testing.assert_close(after.denoising.logits[0], before.denoising.logits[0])
    assert not torch.allclose(after.queries.logits, before.queries.logits, atol=1e-3)
    assert (after.aqr.camera_weights > after.aqr.lidar_weights).all()


def test_solo_queries_read_one_sensor_and_disturb_nobody(
    small_config: Callable[..., Config], toy_batch: Callable[..., Batch]
) -> None:
    batch = toy_batch()
    black = dataclasses.replace(batch, images=torch.zeros_like(batch.images))
    moved = dataclasses.replace(batch, points=batch.points + torch.tensor([3.0, 1.0, 0.0, 0.0, 0.0]))
    plain = build(small_config()).eval()
    taught = build(small_config(detector={"loss": {"solo": 0.5}})).eval()
    assert taught.state_dict().keys() == plain.state_dict().keys()
    assert run(taught, batch).solo is None
    # Queries attend differently in training; batch norm is kept from mixing samples.
    for detector in (plain, taught):
        detector.training = True
    expected, got = run(plain, batch), run(taught, batch)
    torch.testing.assert_close(got.queries.codes, expected.queries.codes, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(got.denoising.logits, expected.denoising.logits, rtol=1e-4, atol=1e-4)
    assert got.solo.logits.shape == (2, *expected.queries.logits.shape[1:])
    without_images, without_points = run(taught, black).solo, run(taught, moved).solo
    torch.testing.assert_close(without_images.logits[0], got.solo.logits[0])
    torch.testing.assert_close(without_points.logits[1], got.solo.logits[1])
    assert not torch.allclose(without_images.logits[1], got.solo.logits[1], atol=1e-3)
    assert not torch.allclose(without_points.logits[0], got.solo.logits[0], atol=1e-3)


def test_solo_losses_are_those_of_a_query_set_of_their_own(
    small_config: Callable[..., Config], toy_batch: Callable[..., Batch]
) -> None:
    batch = toy_batch()
    detector = build(small_config(detector={"loss": {"solo": 0.5}}))
    output = run(detector, batch)
    losses = detector.losses(output, batch)
    objects, weights, total = output.objects, (detector.settings.loss, detector.code_weights), len(batch.boxes)
    for number, name in enumerate(("lidar", "camera")):
        found = output.solo.logits[number : number + 1], output.solo.codes[number : number + 1]
        matched = assign(cost_tables(*found, objects, *weights), batch.box_counts)
        alone = set_losses(*found, objects, matched, *weights)
        torch.testing.assert_close(losses[f"{name}.loss_cls"], 0.5 * alone["loss_cls"][0] / total)
        torch.testing.assert_close(losses[f"{name}.loss_bbox"], 0.5 * alone["loss_bbox"][0] / total)
