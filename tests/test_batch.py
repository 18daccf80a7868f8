import pytest
import torch

from aqr.batch import Batch, Frame
from aqr.geometry import Pose


def batch(point_counts: list[int]) -> Batch:
    frame = Frame("token", 7, Pose.identity(), (0.0, 0.0, 0.0), tuple(tuple(row) for row in torch.eye(4).tolist()))
    total = sum(point_counts)
    return Batch(
        points=torch.arange(total * 5, dtype=torch.float32).reshape(total, 5),
        point_counts=point_counts,
        images=torch.zeros(len(point_counts), 2, 3, 4, 6, dtype=torch.uint8),
        lidar2img=torch.eye(4).expand(len(point_counts), 2, 4, 4),
        boxes=torch.zeros(3, 9),
        labels=torch.tensor([1, 2, 3]),
        box_counts=[3] + [0] * (len(point_counts) - 1),
        frames=[frame] * len(point_counts),
    )


@pytest.mark.parametrize("counts", [[3, 0, 2], [0, 0], [4], [0, 5]])
def test_point_sample_names_the_sample_of_each_point(counts: list[int]) -> None:
    expected = [sample for sample, count in enumerate(counts) for _ in range(count)]
    found = batch(counts).point_sample
    assert found.dtype == torch.int64
    assert found.tolist() == expected


def test_length_is_the_number_of_samples() -> None:
    assert len(batch([3, 0, 2])) == 3


def test_moving_takes_every_tensor_along_and_keeps_the_rest() -> None:
    here = batch([2, 1])
    there = here.to("meta")
    tensors = ("points", "images", "lidar2img", "boxes", "labels")
    assert {getattr(there, name).device.type for name in tensors} == {"meta"}
    assert {getattr(here, name).device.type for name in tensors} == {"cpu"}
    assert there.device.type == "meta"
    for name in tensors:
        assert getattr(there, name).shape == getattr(here, name).shape
        assert getattr(there, name).dtype == getattr(here, name).dtype
    assert (there.point_counts, there.box_counts) == ([2, 1], [3, 0])
    assert there.frames is here.frames


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that lags behind")
def test_a_batch_that_comes_back_is_all_there() -> None:
    onto = batch([1_000_000, 1_000_000]).to("cuda")
    expected = onto.points.double().sum().item()
    torch.cuda._sleep(200_000_000)
    onto.points = onto.points + 0
    assert onto.to("cpu").points.double().sum().item() == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="page-locked memory needs CUDA")
def test_pinned_batch_moves_without_a_sync() -> None:
    pinned = batch([2, 1]).pin_memory()
    assert pinned.points.is_pinned()
    assert pinned.images.is_pinned()
    torch.cuda.set_sync_debug_mode("error")
    try:
        moved = pinned.to("cuda")
        sample = moved.point_sample
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(moved.points.cpu(), pinned.points)
    assert sample.tolist() == [0, 0, 1]
