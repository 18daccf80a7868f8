from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from aqr.batch import Batch
from aqr.config import Config, parse
from aqr.data.dataset import NuScenesDataset
from aqr.data.loader import eval_loader, train_loader
from aqr.data.samples import collate
from aqr.data.sampling import Draw
from aqr.errors import InputError


def config(root: Path, workers: int = 0, steps: int = 5, batch_size: int = 2, **data: Any) -> Config:
    return parse(
        {
            "seed": 3,
            "sensors": {"cameras": ["CAM_FRONT", "CAM_BACK"]},
            "data": {
                "root": str(root),
                "version": "v1.0-mini",
                "train_split": "mini_train",
                "val_split": "mini_val",
                "image": {"size": [32, 64]},
                "batch_size": batch_size,
                "workers": workers,
                **data,
            },
            "detector": {"pc_range": [-300, -300, -300, 300, 300, 300]},
            "train": {"steps": steps},
        }
    )


def same(a: Batch, b: Batch) -> bool:
    tensors = ("points", "images", "lidar2img", "boxes", "labels")
    return (
        all(torch.equal(getattr(a, name).nan_to_num(-1), getattr(b, name).nan_to_num(-1)) for name in tensors)
        and (a.point_counts, a.box_counts) == (b.point_counts, b.box_counts)
        and [(f.sample_token, f.augmentation) for f in a.frames] == [(f.sample_token, f.augmentation) for f in b.frames]
    )


def all_same(a: list[Batch], b: list[Batch]) -> bool:
    return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("cbgs", [True, False])
def test_batches_do_not_depend_on_workers_and_resume_exactly(world: Path, cbgs: bool) -> None:
    settings = config(world, steps=9, cbgs=cbgs)
    whole = list(train_loader(settings))
    assert len(whole) == len(train_loader(settings)) == 9
    assert all(len(batch) == 2 for batch in whole)
    assert not same(whole[0], whole[1])
    assert all_same(list(train_loader(config(world, workers=2, steps=9, cbgs=cbgs))), whole)
    assert all_same(list(train_loader(settings, start_step=4)), whole[4:])
    assert list(train_loader(settings, start_step=9)) == []


def test_two_ranks_share_the_batches_of_one(world: Path) -> None:
    alone = list(train_loader(config(world, batch_size=4)))
    ranks = [list(train_loader(config(world, batch_size=2), rank=rank, world_size=2)) for rank in range(2)]
    for step, batch in enumerate(alone):
        shown = [(frame.sample_token, frame.augmentation) for rank in ranks for frame in rank[step].frames]
        assert shown == [(frame.sample_token, frame.augmentation) for frame in batch.frames]


@pytest.mark.parametrize("world_size", [1, 2, 7])
def test_evaluation_shows_every_sample_once_as_it_is(world: Path, world_size: int) -> None:
    settings = config(world)
    shown = []
    for rank in range(world_size):
        loader = eval_loader(settings, rank=rank, world_size=world_size)
        batches = list(loader)
        assert len(batches) == len(loader)
        shown.append([frame for batch in batches for frame in batch.frames])
    dataset = loader.dataset
    tokens = [dataset.index.token(row) for row in dataset.rows]
    assert sorted(frame.sample_token for frames in shown for frame in frames) == sorted(tokens)
    assert [frame.sample_token for frame in shown[0]] == tokens[::world_size]
    identity = tuple(tuple(float(row == column) for column in range(4)) for row in range(4))
    assert all(frame.augmentation == identity for frames in shown for frame in frames)
    train = eval_loader(settings, "mini_train")
    assert sum(len(batch) for batch in train) == len(train.dataset) == 10


def test_spawned_workers_give_the_same(world: Path) -> None:
    settings = config(world)
    dataset = NuScenesDataset(
        settings.data, settings.sensors, "mini_train", training=True, pc_range=settings.detector.pc_range
    )
    draws = [[Draw(0, 0, 0), Draw(3, 0, 0)], [Draw(3, 1, 0), Draw(5, 0, 2)]]
    spawned = DataLoader(
        dataset, batch_sampler=draws, collate_fn=collate, num_workers=1, multiprocessing_context="spawn"
    )
    assert all_same(list(spawned), [collate([dataset[draw] for draw in batch]) for batch in draws])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_file_met_by_a_worker_stays_one_sentence(own_world: Path, workers: int) -> None:
    for path in own_world.glob("samples/CAM_BACK/*.jpg"):
        path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError) as caught:
        list(train_loader(config(own_world, workers=workers)))
    assert "CAM_BACK" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_a_broken_file_met_by_evaluation(own_world: Path) -> None:
    path = next(own_world.glob("samples/LIDAR_TOP/1-*.bin"))
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(InputError, match=f"{path.name}: the LiDAR sweep is truncated"):
        list(eval_loader(config(own_world)))


def test_a_split_without_boxes_cannot_be_trained_on(own_world: Path, edit: Any) -> None:
    edit("sample_annotation", lambda records: [r.update(num_lidar_pts=0, num_radar_pts=0) for r in records])
    with pytest.raises(InputError, match=r"sample_annotation.json: no box of the ten classes holds a point in split"):
        train_loader(config(own_world))
    assert len(list(eval_loader(config(own_world)))) == 1


def test_fewer_samples_than_a_batch(real_frame: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One frame fills batches of three."""
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = config(real_frame, steps=2, batch_size=3)
    batches = list(train_loader(settings))
    assert [len(batch) for batch in batches] == [3, 3]
    assert len({frame.augmentation for batch in batches for frame in batch.frames}) == 6
