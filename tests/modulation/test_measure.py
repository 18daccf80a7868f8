import os
import socket

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
    for group, figures in whole.items():
        for name, value in figures.items():
            if name != "shape":
                assert pooled[group][name] == pytest.approx(value, rel=1e-4, abs=1e-7), (group, name)
