import math
import os
import socket
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tests.modulation.test_aqr import build, inputs

from aqr.modulation import AQROutput, measure


def measured(seed: int, samples: slice) -> tuple[AQROutput, torch.Tensor, torch.Tensor]:
    given = inputs(seed=seed, queries=200)
    part = {k: v[samples] if isinstance(v, torch.Tensor) and k != "bev_position" else v for k, v in given.items()}
    return build(gate=False, max_weight_clamp=1.1)(**part), part["bev"], part["images"]


def test_figures_equal_the_formulas() -> None:
    out, bev, images = measured(0, slice(None))
    figures = measure(out, bev, images).summary()
    d = out.bev - bev
    assert figures["modulation_bev"]["mean_change"] == pytest.approx(d.mean().item(), rel=1e-5)
    assert figures["modulation_bev"]["std_change"] == pytest.approx(d.std().item(), rel=1e-5)
    assert figures["modulation_bev"]["max_change"] == pytest.approx(d.abs().max().item())
    relative = (d.abs() / (bev.abs() + 1e-8)).mean().item()
    assert figures["modulation_bev"]["relative_change"] == pytest.approx(relative, rel=1e-5)
    for group, tensor in (
        ("lidar_weights", out.lidar_weights),
        ("camera_weights", out.camera_weights),
        ("weight_map_bev", out.bev_map),
        ("weight_map_pers", out.image_maps),
    ):
        assert figures[group]["mean"] == pytest.approx(tensor.mean().item(), rel=1e-5)
        assert figures[group]["std"] == pytest.approx(tensor.std().item(), rel=1e-5)
        assert figures[group]["min"] == pytest.approx(tensor.min().item())
        assert figures[group]["max"] == pytest.approx(tensor.max().item())
        assert figures[group]["shape"] == list(tensor.shape)
    share = (out.bev_map >= 1.1 * (1 - 1e-4)).double().mean().item()
    assert 0 < share < 1
    assert figures["weight_map_bev"]["clamped_share"] == pytest.approx(share)


def test_an_absent_sensor_is_left_out() -> None:
    given = inputs(views=0)
    figures = measure(build(gate=False)(**given), given["bev"], None).summary()
    assert sorted(figures) == ["camera_weights", "lidar_weights", "modulation_bev", "weight_map_bev"]


def _worker(rank: int, port: int, queue: mp.SimpleQueue) -> None:  # type: ignore[type-arg]
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2)
    out, bev, images = measured(0, slice(rank, rank + 1))
    out = replace(out, lidar_gate=torch.tensor(0.1 + 0.2 * rank))
    pooled = measure(out, bev, images).all_reduce()
    if rank == 0:
        queue.put((pooled.summary(), pooled.ranks))
    dist.destroy_process_group()


def test_two_ranks_pool_to_the_figures_of_the_whole_batch() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    queue = mp.get_context("spawn").SimpleQueue()
    mp.spawn(_worker, (port, queue), nprocs=2)
    pooled, ranks = queue.get()
    whole = measure(*measured(0, slice(None))).summary()
    assert ranks == 2
    assert pooled["lidar_gate"] == pytest.approx(0.2)
    for group, figures in whole.items():
        for name, value in figures.items():
            if name != "shape":
                assert pooled[group][name] == pytest.approx(value, rel=1e-4, abs=1e-7), (group, name)


def gated(alpha: tuple[float, float]) -> AQROutput:
    module = build(gate=True)
    with torch.no_grad():
        module.lidar_gate.fill_(alpha[0])
        module.camera_gate.fill_(alpha[1])
    given = inputs()
    return module(**given)


def test_gates_are_told_as_the_factor_that_they_are() -> None:
    given = inputs()
    figures = measure(gated((-0.3, 0.8)), given["bev"], given["images"]).summary()
    assert figures["lidar_gate"] == pytest.approx(math.tanh(-0.3))
    assert figures["camera_gate"] == pytest.approx(math.tanh(0.8))
    without = measure(*measured(0, slice(None))).summary()
    assert not {"lidar_gate", "camera_gate"} & without.keys()
    alone = inputs(views=0)
    assert "camera_gate" not in measure(build(gate=True)(**alone), alone["bev"], None).summary()


def test_a_negative_gate_turns_the_meaning_of_a_weight_round() -> None:
    """Behind a < 0 the features of a cell grow as its weight falls, and without queries they grow by -a(1 - r)."""
    out = gated((-0.3, -0.3))
    factor = (out.bev / inputs()["bev"])[:, 0]
    by_weight = out.bev_map.flatten().argsort()
    assert (factor.flatten()[by_weight].diff() < 1e-6).all()
    assert factor.max().item() == pytest.approx(1 + math.tanh(0.3) * 0.3 * (1 - out.bev_map.min().item()), rel=1e-5)
    assert torch.allclose(factor, 1 + math.tanh(-0.3) * 0.3 * (out.bev_map - 1), atol=1e-5)
