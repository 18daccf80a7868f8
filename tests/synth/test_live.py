"""Samples that are rendered as they are asked for, against the same world written to disk."""

from collections import defaultdict
from functools import cache, partialmethod
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.spatial import cKDTree
from torch.utils._python_dispatch import TorchDispatchMode

import aqr.synth.device.lidar
import aqr.synth.device.renderer
import aqr.synth.device.shadows
import aqr.synth.live
from aqr.batch import Batch
from aqr.config import Config, SynthWorld, parse
from aqr.data.failures.catalogue import Failure
from aqr.data.failures.harm import Corruption
from aqr.data.loader import eval_loader, train_loader
from aqr.data.sampling import Draw
from aqr.data.synthetic import SyntheticDataset
from aqr.errors import InputError
from aqr.synth import PRESETS, Preset, write_world
from aqr.synth.device import Renderer
from aqr.synth.device.cast import Hits, Views
from aqr.synth.weather import KINDS

MICRO = Preset(keyframes=3, image_size=(99, 176), sweeps=1, scenes=2)


@pytest.fixture(scope="module", autouse=True)
def micro(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Small scenes, each drawn once, on the CPU, and one cache of tables for this module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "tiny", MICRO)
        patch.setattr(aqr.synth.live, "draw", cache(aqr.synth.live.draw))
        patch.setattr(torch.cuda, "is_available", lambda: False)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("written") / "world"
    write_world(out, scenes=2, seed=8, preset="tiny", workers=1)
    return out


def config(kind: str, root: Path | None = None, cameras: int = 3, lidar: bool = True, **data: Any) -> Config:
    names = ["CAM_FRONT", "CAM_BACK_LEFT", "CAM_BACK"][:cameras]
    return parse(
        {
            "seed": 4,
            "sensors": {"cameras": names, "lidar": lidar},
            "data": {
                "kind": kind,
                "root": str(root or "nowhere"),
                "version": "v1.0-mini",
                "train_split": "mini_train",
                "val_split": "mini_val",
                "synth": {"preset": "tiny", "scenes": 2, "seed": 8},
                "image": {"size": [64, 160]},
                "sweeps": 2,
                "batch_size": 2,
                "workers": 0,
                **data,
            },
            "train": {"steps": 3},
        }
    )


def points_of(batch: Batch) -> list[npt.NDArray[np.float32]]:
    return [points.numpy() for points in batch.points.split(batch.point_counts)]


def assert_alike(live: Batch, disk: Batch, grey_levels: float) -> None:
    assert [f.sample_token for f in live.frames] == [f.sample_token for f in disk.frames]
    assert [f.timestamp for f in live.frames] == [f.timestamp for f in disk.frames]
    assert [f.augmentation for f in live.frames] == [f.augmentation for f in disk.frames]
    assert live.box_counts == disk.box_counts
    assert torch.equal(live.boxes.nan_to_num(-9), disk.boxes.nan_to_num(-9))
    assert torch.equal(live.labels, disk.labels)
    assert torch.equal(live.lidar2img, disk.lidar2img)
    for ours, theirs in zip(points_of(live), points_of(disk), strict=True):
        # Rounding, which differs between processors, may put a point on the other side of the range's end.
        assert abs(len(ours) - len(theirs)) <= 2
        away, nearest = cKDTree(theirs[:, :3]).query(ours[:, :3])
        assert (away > 1e-3).mean() < 1e-3
        assert (ours[:, 4] != theirs[nearest, 4]).mean() < 1e-3
    assert live.images.shape == disk.images.shape
    assert live.images.dtype == torch.uint8
    assert float((live.images.float() - disk.images.float()).abs().mean()) < grey_levels


def test_evaluation_samples_are_those_on_disk_up_to_jpeg(written: Path) -> None:
    plain = {"image": {"size": [96, 160]}}
    disk, live = list(eval_loader(config("nuscenes", written, **plain))), list(eval_loader(config("synth", **plain)))
    assert len(live) == len(disk) == 2
    for a, b in zip(live, disk, strict=True):
        assert_alike(a, b, 8.0)
        assert sum(a.box_counts) > 20


def test_augmented_training_samples_are_those_on_disk_up_to_resampling(written: Path) -> None:
    disk, live = list(train_loader(config("nuscenes", written))), list(train_loader(config("synth")))
    assert len(live) == len(disk) == 3
    for a, b in zip(live, disk, strict=True):
        assert_alike(a, b, 12.0)
    shifted = [(live[0].images.float() - b.images.float()).abs().mean() for b in disk]
    assert shifted[1] > 2 * shifted[0]


def same(a: Batch, b: Batch) -> bool:
    names = ("points", "images", "lidar2img", "boxes", "labels")
    return all(torch.equal(getattr(a, n).nan_to_num(-9), getattr(b, n).nan_to_num(-9)) for n in names)


def test_batches_depend_on_seed_and_step_alone() -> None:
    settings = config("synth", cameras=1)
    whole = list(train_loader(settings))
    again = list(train_loader(settings, start_step=1))
    assert [same(a, b) for a, b in zip(whole[1:], again, strict=True)] == [True, True]
    assert not same(whole[0], whole[1])
    other = train_loader(settings.model_copy(update={"seed": 5}))
    assert not same(next(iter(other)), whole[0])


def test_ranks_share_a_split() -> None:
    settings = config("synth", cameras=0)
    parts = [[f.sample_token for b in eval_loader(settings, rank=r, world_size=2) for f in b.frames] for r in (0, 1)]
    assert len(parts[0]) + len(parts[1]) == 3
    assert not set(parts[0]) & set(parts[1])


@pytest.mark.parametrize(("cameras", "lidar"), [(0, True), (2, False)])
def test_sensors_can_be_left_out(cameras: int, lidar: bool) -> None:
    batch = next(iter(train_loader(config("synth", cameras=cameras, lidar=lidar))))
    assert batch.images.shape[:2] == (2, cameras)
    assert (len(batch.points) > 0) == lidar
    assert sum(batch.point_counts) == len(batch.points)


@pytest.mark.parametrize("name", ["beams_reducing", "missing_camera", "camera_stuck", "lidar_stuck"])
def test_sensors_fail_as_on_disk(written: Path, name: str) -> None:
    plain = {"image": {"size": [96, 160]}}
    corruption = Corruption(Failure(name, 2))
    disk = list(eval_loader(config("nuscenes", written, cameras=2, **plain), corruption=corruption))
    live = list(eval_loader(config("synth", cameras=2, **plain), corruption=corruption))
    for a, b in zip(live, disk, strict=True):
        assert_alike(a, b, 8.0)


def test_batches_in_which_some_samples_fail_hold_what_each_sample_holds_alone() -> None:
    settings = config("synth", failures={"lidar_dropout": 0.3, "camera_dropout": 0.3}, cameras=2)
    dataset = train_loader(settings).dataset
    assert isinstance(dataset, SyntheticDataset)
    drawn = dataset.plans([Draw(0, epoch, 0) for epoch in range(20)])
    healthy, harmed = ([plan for plan in drawn if (plan.harm is not None) == fails] for fails in (False, True))
    # Places 0, 1 and 4 of 7: an order whose inverse is another one.
    plans = [*harmed[:2], *healthy[:2], harmed[2], *healthy[2:4]]
    failing = [n for n, plan in enumerate(plans) if plan.harm is not None]
    assert failing == [0, 1, 4]
    together = dataset.render(plans)
    points = torch.split(together.points, together.point_counts)
    for number, plan in enumerate(plans):
        alone = dataset.render([plan])
        assert torch.equal(together.images[number], alone.images[0])
        assert torch.equal(points[number], alone.points)
    assert torch.equal(dataset.render([plans[n] for n in failing]).images, together.images[failing])


class Operations(TorchDispatchMode):
    """Counts PyTorch operations that compute or copy; on a GPU each is a launch or more."""

    FREE = ("view", "_unsafe_view", "expand", "permute", "transpose", "select", "slice", "unsqueeze", "squeeze", "t",
            "unbind", "detach", "as_strided", "split", "split_with_sizes", "lift_fresh", "empty", "empty_strided",
            "_local_scalar_dense")  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        self.count += function._schema.name.split("::")[1] not in self.FREE
        return function(*arguments, **(options or {}))


def test_a_larger_batch_takes_no_more_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = pytest.importorskip("aqr.synth.device.shade_kernel")
    dataset = train_loader(config("synth", image={"size": [96, 160]})).dataset
    assert isinstance(dataset, SyntheticDataset)

    def nothing(views: Views, silhouettes: bool = False, plainly: bool | None = None) -> Hits:
        shape = (len(views.planes), views.rows.shape[1], views.columns.shape[1])
        return Hits(torch.full(shape, 0.1), torch.zeros(shape, dtype=torch.int32), None)

    for module in (aqr.synth.device.lidar, aqr.synth.device.renderer, aqr.synth.device.shadows):
        monkeypatch.setattr(module, "cast", nothing)
    monkeypatch.setattr(kernel, "_shade", defaultdict(lambda: lambda *arguments, **options: None))
    monkeypatch.setattr(Renderer, "pictures", partialmethod(Renderer.pictures, plainly=False))
    counts = []
    for samples in (2, 8):
        plans = dataset.plans([Draw(0, epoch, 0) for epoch in range(samples)])
        dataset.render(plans)
        with torch.no_grad(), Operations() as operations:
            dataset.render(plans)
        counts.append(operations.count)
    assert 300 < counts[0] < 1000
    assert counts[1] <= counts[0] + 5, "whatever the number of sweeps and pictures"


def test_keyframes_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    list(eval_loader(config("synth", cameras=1)))

    def never(*arguments: object) -> None:
        raise AssertionError("tables were made again")

    monkeypatch.setattr(aqr.synth.live, "describe", never)
    list(eval_loader(config("synth", cameras=1)))
    with pytest.raises(AssertionError):
        eval_loader(config("synth", cameras=1, synth={"preset": "tiny", "scenes": 2, "seed": 9}))


def test_only_scenes_of_the_split_are_drawn_and_splits_share_no_scene() -> None:
    settings = config("synth")
    train, val = train_loader(settings).dataset, eval_loader(settings).dataset
    assert isinstance(train, SyntheticDataset)
    assert isinstance(val, SyntheticDataset)
    assert len(train._jobs) == len(val._jobs) == 1
    assert train._jobs[0].number != val._jobs[0].number
    presence = train.class_presence()
    assert presence.any(axis=0).all(), "all ten classes"


def test_an_error_in_the_rendering_thread_reaches_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    loader = train_loader(config("synth", cameras=0))

    def fail(*arguments: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(SyntheticDataset, "render", fail)
    with pytest.raises(MemoryError, match="no room"):
        list(loader)


def test_a_loop_may_stop_early() -> None:
    for number, _ in enumerate(train_loader(config("synth", cameras=0))):
        if number == 0:
            break


def test_a_run_can_be_scored_on_a_folder_instead(written: Path) -> None:
    from aqr.training.evaluation import with_data

    assert with_data(config("synth"), None, None, None).data.kind == "synth"
    assert with_data(config("synth"), written, None, None).data.kind == "nuscenes"


def test_settings_are_checked() -> None:
    with pytest.raises(InputError, match=r"data\.synth\.weather"):
        config("synth", synth={"weather": ["Hail"]})
    with pytest.raises(InputError, match=r"do not fit v1\.0-mini"):
        train_loader(config("synth", synth={"scenes": 11}))
    annotation: Any = SynthWorld.model_fields["weather"].annotation
    assert get_args(get_args(annotation)[0]) == tuple(KINDS)


def test_a_cache_that_cannot_be_written_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("mine")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(InputError, match="set XDG_CACHE_HOME to another folder"):
        train_loader(config("synth", cameras=0))


def test_points_are_counted_as_stored() -> None:
    loader = eval_loader(config("synth", cameras=0))
    dataset = loader.dataset
    truth = dataset.index.ground_truth(dataset.rows)
    batch = next(iter(loader))
    assert np.isfinite(batch.points.numpy()).all()
    assert truth.num_pts.sum() > 100
