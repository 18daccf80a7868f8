import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from aqr.batch import Batch
from aqr.config import Config
from aqr.detector import Detections, Detector, DetectorOutput
from aqr.detector.heatmap import bev_targets, image_targets
from aqr.errors import InputError

MakeConfig = Callable[..., Config]
MakeBatch = Callable[..., Batch]

UNTOUCHED = [
    {"parameterisation": "sigmoid", "modulator": {"gate": True}},
    {"parameterisation": "sigmoid", "modulator": {"gate": True, "form": "additive", "modulation_type": "adaptive"}},
    {"parameterisation": "centered", "modulator": {"gate": True}},
    {"parameterisation": "centered", "modulator": {"gate": False}},
]
"""Settings of AQR with which a new detector computes what it computes without AQR."""


def build(config: Config, seed: int = 0) -> Detector:
    torch.manual_seed(seed)
    return Detector(config)


def run(detector: Detector, batch: Batch, seed: int = 0) -> tuple[DetectorOutput, dict[str, torch.Tensor]]:
    output = detector(batch, generator=torch.Generator().manual_seed(seed))
    return output, detector.losses(output, batch)


def without_cameras(batch: Batch) -> Batch:
    return dataclasses.replace(batch, images=batch.images[:, :0], lidar2img=batch.lidar2img[:, :0])


def without_points(batch: Batch) -> Batch:
    return dataclasses.replace(batch, points=batch.points[:0], point_counts=[0] * len(batch))


@pytest.mark.parametrize("aqr", UNTOUCHED, ids=lambda a: f"{a['parameterisation']}-{a['modulator']}")
def test_a_new_detector_with_aqr_equals_the_one_without(
    small_config: MakeConfig, toy_batch: MakeBatch, aqr: dict[str, Any]
) -> None:
    batch = toy_batch()
    dense = {"loss": {"heatmap": 1.0}, "dropout": 0.1}
    base = build(small_config(detector=dense))
    routed = build(small_config(detector=dense, aqr={"enabled": True, **aqr}))
    after_base, after_routed = [torch.rand(3) for _ in range(2)]
    shared = routed.state_dict()
    assert all(torch.equal(value, shared[name]) for name, value in base.state_dict().items())
    assert base.aqr is None
    assert routed.aqr is not None
    for training in (True, False):
        torch.manual_seed(5)
        expected, expected_losses = run(base.train(training), batch)
        torch.manual_seed(5)
        got, got_losses = run(routed.train(training), batch)
        torch.testing.assert_close(got.queries.logits, expected.queries.logits, atol=1e-6, rtol=0)
        torch.testing.assert_close(got.queries.codes, expected.queries.codes, atol=1e-6 * 108, rtol=0)
        assert got_losses.keys() == expected_losses.keys()
        for name, value in expected_losses.items():
            torch.testing.assert_close(got_losses[name], value, atol=1e-6, rtol=1e-6)
    assert not torch.equal(after_base, after_routed)


def test_building_aqr_draws_nothing_from_the_common_random_stream(small_config: MakeConfig) -> None:
    build(small_config())
    expected = torch.rand(4)
    build(small_config(aqr={"enabled": True}))
    assert torch.equal(torch.rand(4), expected)


def test_aqr_that_is_not_gated_changes_the_detector(small_config: MakeConfig, toy_batch: MakeBatch) -> None:
    batch = toy_batch()
    base, _ = run(build(small_config()), batch)
    routed, _ = run(build(small_config(aqr={"enabled": True, "preset": "seed-2.5-0.6"})), batch)
    assert (routed.queries.logits - base.queries.logits).abs().max() > 1e-3


@pytest.mark.parametrize("aqr", UNTOUCHED, ids=lambda a: f"{a['parameterisation']}-{a['modulator']}")
def test_every_router_parameter_learns_from_the_second_step_on(
    small_config: MakeConfig, toy_batch: MakeBatch, aqr: dict[str, Any]
) -> None:
    detector, batch = build(small_config(aqr={"enabled": True, **aqr})), toy_batch()
    assert detector.aqr is not None
    optimizer = torch.optim.AdamW(detector.parameters(), lr=1e-3)
    moved: set[str] = set()
    for _ in range(2):
        optimizer.zero_grad()
        sum(run(detector, batch)[1].values()).backward()
        for name, parameter in detector.aqr.named_parameters():
            assert parameter.grad is not None, name
            if parameter.grad.abs().max() > 0:
                moved.add(name)
        optimizer.step()
    still = {name for name, _ in detector.aqr.named_parameters()} - moved
    # Softmax does not see a constant added to all keys.
    assert not {name for name in still if "key" not in name or not name.endswith("bias")}


def test_every_parameter_of_the_detector_learns(small_config: MakeConfig, toy_batch: MakeBatch) -> None:
    detector = build(small_config(detector={"loss": {"heatmap": 1.0}}))
    sum(run(detector, toy_batch())[1].values()).backward()
    still = [n for n, p in detector.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert not still


@pytest.mark.parametrize("named", [["aqr.router", "heads"], ["image_encoder.neck"]])
def test_only_what_is_named_is_trained_and_statistics_stay(
    small_config: MakeConfig, toy_batch: MakeBatch, named: list[str]
) -> None:
    detector = Detector(small_config(aqr={"enabled": True, "modulator": {"gate": False}})).train()
    with pytest.raises(InputError, match=r"no parameter of this detector lies under 'aq'; it has .*aqr"):
        detector.train_only(["decoder", "aq"])
    detector.train_only(named)
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in detector.parameters() if p.requires_grad], 0.1)
    batch = toy_batch(2)
    detector.eval()
    detector.train()
    output = detector(batch, generator=torch.Generator().manual_seed(0))
    assert output.noised is not None
    sum(detector.losses(output, batch).values()).backward()
    optimizer.step()
    moved = {name for name, value in detector.state_dict().items() if not torch.equal(value, before[name])}
    assert moved
    assert all(any(name.startswith(f"{prefix}.") for prefix in named) for name in moved)
    assert {prefix for prefix in named if any(name.startswith(prefix) for name in moved)} == set(named)


def test_weight_maps_do_not_know_denoising_queries(small_config: MakeConfig, toy_batch: MakeBatch) -> None:
    batch = toy_batch()
    maps = []
    for groups in (0, 3):
        detector = build(small_config(detector={"denoising": {"groups": groups}}, aqr={"enabled": True}))
        output, _ = run(detector, batch)
        assert output.aqr is not None
        assert output.denoising.logits.shape[2] == groups * 6
        assert output.aqr.lidar_weights.shape == (2, 40)
        maps.append((output.aqr.bev_map, output.aqr.image_maps, output.queries.logits))
    for without, with_them in zip(*maps, strict=True):
        torch.testing.assert_close(with_them, without, atol=1e-5, rtol=1e-5)
    assert torch.equal(maps[0][0], maps[1][0])
    assert torch.equal(maps[0][1], maps[1][1])


def test_real_queries_learn_nothing_from_the_truth(small_config: MakeConfig, toy_batch: MakeBatch) -> None:
    """Other noise and other boxes leave them as they are, to the bit."""
    batch = toy_batch()
    detector = build(small_config(aqr={"enabled": True, "modulator": {"gate": False}}))
    first, _ = run(detector, batch, seed=0)
    noise, _ = run(detector, batch, seed=1)
    moved = dataclasses.replace(batch, boxes=batch.boxes.roll(1, 0), labels=(batch.labels + 3) % 10)
    truth, _ = run(detector, moved, seed=0)
    assert not torch.equal(first.denoising.logits, noise.denoising.logits)
    for other in (noise, truth):
        assert torch.equal(first.queries.logits, other.queries.logits)
        assert torch.equal(first.queries.codes, other.queries.codes)


def test_samples_of_a_batch_do_not_mix(small_config: MakeConfig, toy_batch: MakeBatch) -> None:
    detector = build(small_config(aqr={"enabled": True, "modulator": {"gate": False}})).eval()
    one, two = toy_batch(samples=1, seed=3), toy_batch(samples=1, seed=4)
    both = Batch(
        points=torch.cat([one.points, two.points]),
        point_counts=one.point_counts + two.point_counts,
        images=torch.cat([one.images, two.images]),
        lidar2img=torch.cat([one.lidar2img, two.lidar2img]),
        boxes=torch.cat([one.boxes, two.boxes]),
        labels=torch.cat([one.labels, two.labels]),
        box_counts=one.box_counts + two.box_counts,
        frames=one.frames + two.frames,
    )
    together = detector(both).queries.codes
    for b, alone in enumerate((one, two)):
        torch.testing.assert_close(together[:, b : b + 1], detector(alone).queries.codes, atol=2e-3, rtol=1e-4)
    assert (together[:, 0] - together[:, 1]).abs().max() > 0.1


@pytest.mark.parametrize("views", [0, 1, 6, 12])
@pytest.mark.parametrize("enabled", [True, False])
def test_any_number_of_cameras(small_config: MakeConfig, toy_batch: MakeBatch, views: int, enabled: bool) -> None:
    detector = build(small_config(aqr={"enabled": enabled}, detector={"loss": {"heatmap": 1.0}}))
    batch = toy_batch(views=views)
    output, losses = run(detector, batch)
    assert (output.images is None) == (views == 0)
    assert ("loss_image_heatmap" in losses) == (views > 0)
    total = sum(losses.values())
    total.backward()
    assert total.isfinite()
    with torch.no_grad():
        found = detector.eval().decode(detector(batch))
    assert [len(sample) for sample in found] == [60, 60]


@pytest.mark.parametrize("missing", ["cameras", "points", "both"])
def test_a_sensor_may_be_missing_at_inference(small_config: MakeConfig, toy_batch: MakeBatch, missing: str) -> None:
    batch = toy_batch()
    if missing in ("cameras", "both"):
        batch = without_cameras(batch)
    if missing in ("points", "both"):
        batch = without_points(batch)
    with torch.no_grad():
        for aqr in ({"enabled": True}, {"enabled": False}):
            detector = build(small_config(aqr=aqr)).eval()
            assert all(sample.boxes.isfinite().all() for sample in detector.decode(detector(batch)))


@pytest.mark.parametrize("sensors", [{"cameras": []}, {"lidar": False}, {"cameras": ["CAM_BACK"]}])
def test_sensors_are_a_setting(small_config: MakeConfig, toy_batch: MakeBatch, sensors: dict[str, Any]) -> None:
    config = small_config(sensors=sensors, aqr={"enabled": True}, detector={"loss": {"heatmap": 1.0}})
    detector, batch = build(config), toy_batch(views=len(config.sensors.cameras))
    assert (detector.lidar_encoder is None) != config.sensors.lidar
    assert (detector.image_encoder is None) != bool(config.sensors.cameras)
    output, losses = run(detector, batch)
    assert ("loss_heatmap" in losses) == config.sensors.lidar
    sum(losses.values()).backward()
    assert all(p.grad is not None for n, p in detector.named_parameters() if not n.startswith("aqr."))
    assert output.bev is None or output.bev.shape == (2, 32, 32, 32)


def test_a_detector_without_cameras_ignores_those_of_a_batch(small_config: MakeConfig, toy_batch: MakeBatch) -> None:
    detector, batch = build(small_config(sensors={"cameras": []}, aqr={"enabled": True})).eval(), toy_batch()
    assert torch.equal(detector(batch).queries.codes, detector(without_cameras(batch)).queries.codes)


def test_losses_carry_the_names_of_the_field(small_config: MakeConfig, toy_batch: MakeBatch) -> None:
    config = small_config(detector={"num_layers": 6, "loss": {"heatmap": 1.0}})
    names = set(run(build(config), toy_batch())[1])
    layers = ["", *(f"d{i}." for i in range(5))]
    expected = {f"{d}{dn}loss_{kind}" for d in layers for dn in ("", "dn_") for kind in ("cls", "bbox")}
    assert names == expected | {"loss_heatmap", "loss_image_heatmap"}


def test_a_point_that_is_not_finite_makes_the_loss_nan_and_leaves_no_trace(
    small_config: MakeConfig, toy_batch: MakeBatch
) -> None:
    detector, batch = build(small_config()), toy_batch()
    batch.points[17, 1] = float("nan")
    output, losses = run(detector, batch)
    assert not output.finite
    assert sum(losses.values()).isnan()
    assert all(buffer.isfinite().all() for buffer in detector.buffers())
    assert all(sample.boxes.isfinite().all() for sample in detector.decode(output))


def test_batches_without_boxes(small_config: MakeConfig, toy_batch: MakeBatch) -> None:
    detector = build(small_config(detector={"loss": {"heatmap": 1.0}}, aqr={"enabled": True}))
    with_boxes = set(run(detector, toy_batch())[1])
    for batch in (toy_batch(boxes=0), toy_batch(boxes=None, samples=3, seed=8)):
        _, losses = run(detector, batch)
        assert set(losses) == with_boxes
        assert all(value.isfinite() for value in losses.values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_stays_close(small_config: MakeConfig, toy_batch: MakeBatch, dtype: torch.dtype) -> None:
    detector, batch = build(small_config(aqr={"enabled": True}, detector={"loss": {"heatmap": 1.0}})), toy_batch()
    _, exact = run(detector, batch)
    with torch.autocast("cpu", dtype):
        output, losses = run(detector, batch)
    assert output.queries.codes.dtype == output.queries.logits.dtype == torch.float32
    sum(losses.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in detector.parameters())
    for name, value in losses.items():
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(exact[name].item(), rel=0.15, abs=0.05), name


def same_objects(found: Detections, boxes: torch.Tensor, labels: torch.Tensor) -> bool:
    """Whether the best detections are the boxes: class, place, size, heading and velocity."""
    best = slice(0, len(boxes))
    nearest = torch.cdist(boxes[:, :2], found.boxes[best, :2]).argmin(1)
    guess = found.boxes[best][nearest]
    turn = torch.atan2((guess[:, 6] - boxes[:, 6]).sin(), (guess[:, 6] - boxes[:, 6]).cos())
    return bool(
        torch.equal(found.labels[best][nearest], labels)
        and (guess[:, :3] - boxes[:, :3]).norm(dim=1).max() < 0.5
        and (guess[:, 3:6].log() - boxes[:, 3:6].log()).abs().max() < 0.25
        and turn.abs().max() < 0.3
        and (guess[:, 7:] - boxes[:, 7:]).norm(dim=1).max() < 1.0
    )


def test_it_learns_a_batch_by_heart(small_config: MakeConfig, toy_batch: MakeBatch) -> None:
    """Loss falls, and decoding gives back the boxes before anything else."""
    config = small_config(detector={"loss": {"heatmap": 1.0}}, aqr={"enabled": True})
    detector, batch = build(config), toy_batch(samples=1, boxes=5)
    optimizer = torch.optim.AdamW(detector.parameters(), lr=3e-3, weight_decay=0.0)
    steps = 200
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps, pct_start=0.2)
    history = []
    for step in range(steps):
        optimizer.zero_grad()
        total = sum(run(detector, batch, seed=step)[1].values())
        total.backward()
        nn.utils.clip_grad_norm_(detector.parameters(), 10.0)
        optimizer.step()
        schedule.step()
        history.append(total.item())
    assert np.mean(history[-5:]) < 0.15 * history[0]
    with torch.no_grad():
        (found,) = detector.eval().decode(detector(batch))
    assert same_objects(found, batch.boxes, batch.labels)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_forward_pass_never_waits_for_the_gpu(small_config: MakeConfig, toy_batch: MakeBatch) -> None:
    detector = build(small_config(aqr={"enabled": True}, detector={"loss": {"heatmap": 1.0}})).cuda()
    batch, generator = toy_batch().to("cuda"), torch.Generator("cuda")
    detector(batch, generator=generator)
    torch.cuda.set_sync_debug_mode("error")
    try:
        output = detector(batch, generator=generator)
        size = (16, 16)
        bev_targets(output.objects, detector.pc_range, size)
        image_targets(output.objects, batch.lidar2img, (64, 128), size)
    finally:
        torch.cuda.set_sync_debug_mode("default")
