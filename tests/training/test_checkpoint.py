"""Checkpoints: what is written comes back, and nothing else is let in."""

import dataclasses
import os
import pickle
import resource
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from aqr.config import Config
from aqr.errors import InputError
from aqr.training.checkpoint import (
    Checkpoint,
    load_weights,
    read_config,
    read_weights,
    save_final,
    save_numbered,
)
from aqr.training.run_folder import RunFolder, append_line


def checkpoint(step: int = 3) -> Checkpoint:
    model = nn.Linear(2, 3)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return Checkpoint(
        step=step,
        skipped=2,
        skipped_in_row=1,
        detector=model.state_dict(),
        optimizer=optimizer.state_dict(),
        scaler={"scale": 512.0},
        window={"steps": 1, "sums": {"loss": 0.1}},
        config=Config(seed=5).to_yaml(),
    )


def test_a_checkpoint_comes_back_whole(tmp_path: Path) -> None:
    saved = checkpoint()
    saved.save(tmp_path / "a.ckpt")
    loaded = Checkpoint.load(tmp_path / "a.ckpt")
    for name in ("detector", "optimizer"):
        torch.testing.assert_close(getattr(loaded, name), getattr(saved, name), rtol=0, atol=0)
    for name in ("step", "skipped", "skipped_in_row", "scaler", "window", "config"):
        assert getattr(loaded, name) == getattr(saved, name)
    assert read_config(tmp_path / "a.ckpt") == Config(seed=5)
    torch.load(tmp_path / "a.ckpt", weights_only=True)


def test_a_full_disk_is_one_sentence_and_leaves_what_was_there(tmp_path: Path) -> None:
    folder, small = RunFolder(tmp_path), nn.Linear(2, 3)
    save_numbered(folder, checkpoint())
    save_final(folder, small, Config(), 3)
    append_line(folder.metrics, {"iteration": 3})
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    large = nn.Linear(200, 500)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        for write in (
            lambda: dataclasses.replace(checkpoint(), detector=large.state_dict()).save(folder.last_checkpoint),
            lambda: save_final(folder, large, Config(), 4),
            lambda: append_line(folder.metrics, {"said": "x" * 100_000}),
        ):
            with pytest.raises(InputError, match=r"cannot be written \(File too large\)"):
                write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after.keys() == before.keys()
    assert all(after[path].startswith(before[path]) for path in before)


def test_the_latest_two_and_last_stay(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for step in (5, 10, 15):
        save_numbered(folder, checkpoint(step))
    assert sorted(p.name for p in folder.checkpoints.iterdir()) == [
        "last.ckpt",
        "step-00000010.ckpt",
        "step-00000015.ckpt",
    ]
    assert Checkpoint.load(folder.last_checkpoint).step == 15


class Malicious:
    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.proof}",)


def test_a_malicious_pickle_is_refused_and_does_not_run(tmp_path: Path) -> None:
    proof, path, legacy = tmp_path / "ran", tmp_path / "bad.ckpt", tmp_path / "bad.pth"
    torch.save({"detector": Malicious(proof)}, path)
    legacy.write_bytes(pickle.dumps({"state_dict": Malicious(proof)}))
    for file in (path, legacy):
        for read in (Checkpoint.load, read_weights, read_config):
            with pytest.raises(InputError, match=str(file)):
                read(file)
    assert not proof.exists()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused_by_name(tmp_path: Path, share: float) -> None:
    checkpoint().save(tmp_path / "a.ckpt")
    safetensors.torch.save_file({"weight": torch.ones(100)}, tmp_path / "a.safetensors")
    for name in ("a.ckpt", "a.safetensors"):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(InputError, match=name):
            read_weights(tmp_path / name)


@pytest.mark.parametrize("name", ["none.ckpt", "none.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=name):
        read_weights(tmp_path / name)


def test_weights_of_something_else_are_no_checkpoint(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(2)}, tmp_path / "w.pth")
    torch.save([torch.ones(2)], tmp_path / "list.pth")
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(InputError, match=r"w\.pth: is no checkpoint of an aqr run"):
        Checkpoint.load(tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"list\.pth: holds a list"):
        read_weights(tmp_path / "list.pth")
    with pytest.raises(InputError, match=r"empty\.pth: holds no tensors"):
        read_weights(tmp_path / "empty.pth")


class Small(nn.Module):
    def __init__(self, classes: int = 4, router: bool = True) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        self.head = nn.Linear(3, classes)
        if router:
            self.router = nn.Linear(3, 1)


@pytest.mark.parametrize("form", ["ckpt", "safetensors", "state_dict", "nested"])
def test_loading_takes_what_fits_and_says_what_does_not(tmp_path: Path, form: str) -> None:
    source, target = Small(classes=5, router=False), Small()
    weights = source.state_dict() | {"old.layer": torch.ones(1)}
    path = tmp_path / f"w.{form}"
    if form == "ckpt":
        saved = checkpoint()
        saved.detector = weights
        saved.save(path)
    elif form == "safetensors":
        safetensors.torch.save_file(weights, path)
    else:
        torch.save(weights if form == "state_dict" else {"epoch": 1, "state_dict": weights}, path)
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    report = load_weights(target, path)
    assert set(report.loaded) == {name for name in target.state_dict() if name.startswith("body.")}
    assert set(report.missing) == {"router.weight", "router.bias"}
    assert report.unexpected == ("old.layer",)
    assert [text.split()[0] for text in report.mismatched] == ["head.weight", "head.bias"]
    assert "[5, 3] in the file, [4, 3] here" in report.mismatched[0]
    for name, tensor in target.state_dict().items():
        expected = source.state_dict()[name] if name in report.loaded else before[name]
        assert torch.equal(tensor, expected)
    lines = report.lines()
    assert lines[0].startswith("loaded: 7 tensors")
    assert lines[1] == "missing: 2 tensors: router.weight (1), router.bias (1)"


def test_a_file_of_which_nothing_fits_is_refused(tmp_path: Path) -> None:
    torch.save({"x": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"other\.pth: none of its 1 tensors"):
        load_weights(Small(), tmp_path / "other.pth")


def test_final_weights_carry_their_config(tmp_path: Path) -> None:
    folder, model = RunFolder(tmp_path), Small()
    path = save_final(folder, model, Config(seed=3), 10)
    assert read_config(path) == Config(seed=3)
    torch.testing.assert_close(read_weights(path), dict(model.state_dict()), rtol=0, atol=0)
    safetensors.torch.save_file({"x": torch.ones(1)}, tmp_path / "bare.safetensors")
    with pytest.raises(InputError, match="holds weights but no config"):
        read_config(tmp_path / "bare.safetensors")
