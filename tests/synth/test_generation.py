"""How a world comes into being: repeatable, resumable, never half done."""

import errno
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from nuscenes.utils.splits import create_splits_scenes

import aqr.synth.recorder
import aqr.synth.world
from aqr.errors import InputError
from aqr.synth import PRESETS, Preset, write_world
from aqr.synth.presets import scene_names

MICRO = Preset(keyframes=2, image_size=(54, 96), sweeps=1, scenes=3)


@pytest.fixture(autouse=True)
def micro(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "tiny", MICRO)


def digest(root: Path) -> dict[str, str]:
    files = (p for p in sorted(root.rglob("*")) if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_same_seed_same_bytes_whatever_the_workers_and_another_seed_another_world(tmp_path: Path) -> None:
    for name, seed, workers in (("a", 1, 1), ("b", 1, 2), ("c", 2, 1)):
        write_world(tmp_path / name, scenes=2, seed=seed, preset="tiny", workers=workers)
    a, b, c = (digest(tmp_path / name) for name in "abc")
    assert a == b
    assert len(a) == 13 + 1 + 2 * (1 + 2 * 7 + 1)
    assert not set(a.values()) & set(c.values()) - set(digest_of_shared_tables(tmp_path / "a" / "v1.0-mini", a)), (
        "two worlds share a file"
    )


def digest_of_shared_tables(tables: Path, digests: dict[str, str]) -> list[str]:
    same = ("category", "attribute", "visibility", "sensor")
    return [digests[f"{tables.name}/{name}.json"] for name in same]


def test_a_finished_world_is_left_alone(tmp_path: Path) -> None:
    write_world(tmp_path, scenes=1, preset="tiny", workers=1)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    seen: list[tuple[int, int]] = []
    write_world(tmp_path, scenes=1, preset="tiny", workers=1, progress=lambda done, total: seen.append((done, total)))
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    assert seen == [(2, 2)]


def test_progress_counts_keyframes(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_world(tmp_path, scenes=2, preset="tiny", workers=2, progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen[:5]] == [0, 1, 2, 3, 4]
    assert {total for _, total in seen} == {4}


@pytest.fixture
def torch_in_place_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """`cuda` is PyTorch's renderer on this machine's CPU."""
    monkeypatch.setattr(aqr.synth.world, "gpus", lambda device: ["cpu:0"])


_RUN = """
import sys
from pathlib import Path
import aqr.synth.world
from aqr.synth import PRESETS, Preset, write_world
aqr.synth.world.gpus = lambda device: ["cpu:0"]
PRESETS["tiny"] = Preset(keyframes=2, image_size=(54, 96), sweeps=1, scenes=3)
write_world(Path(sys.argv[1]), scenes=3, seed=7, preset="tiny", workers=int(sys.argv[2]), device=sys.argv[3])
"""


@pytest.mark.usefixtures("torch_in_place_of_a_gpu")
@pytest.mark.parametrize(("workers", "device"), [(1, "cpu"), (2, "cpu"), (2, "cuda")])
def test_a_killed_run_leaves_no_data_set_and_goes_on(tmp_path: Path, workers: int, device: str) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    write_world(whole, scenes=3, seed=7, preset="tiny", workers=1, device=device)
    run = subprocess.Popen([sys.executable, "-c", _RUN, str(cut), str(workers), device])
    deadline = time.monotonic() + 120
    while not list((cut / ".scenes").glob("scene-*.json")):
        assert run.poll() is None, "finished before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert not (cut / "v1.0-mini").exists()
    kept = next((cut / ".scenes").glob("scene-*.json"))
    rows = json.loads(kept.read_text())
    stamps = {row["filename"]: (cut / row["filename"]).stat().st_mtime_ns for row in rows["sample_data"]}
    write_world(cut, scenes=3, seed=7, preset="tiny", workers=1, device=device)
    assert digest(cut) == digest(whole)
    assert stamps == {name: (cut / name).stat().st_mtime_ns for name in stamps}, "a finished scene was made again"


@pytest.mark.usefixtures("torch_in_place_of_a_gpu")
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_full_disk_is_one_sentence_and_no_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    written = 0
    real = Path.write_bytes

    def write_bytes(path: Path, data: bytes) -> int:
        nonlocal written
        written += 1
        if written > 20:
            raise OSError(28, os.strerror(28), str(path))
        return real(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", write_bytes)
        with pytest.raises(InputError, match=r"disk is full; free some space and run again"):
            write_world(tmp_path, scenes=2, preset="tiny", workers=1, device=device)
    assert not (tmp_path / "v1.0-mini").exists()
    write_world(tmp_path, scenes=2, preset="tiny", workers=1, device=device)
    assert (tmp_path / "v1.0-mini" / "sample.json").is_file()


@pytest.mark.parametrize("at", [0, 1])
def test_a_killed_worker_is_one_sentence_and_no_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Killed before its first scene is named, or while it records."""
    started: list[subprocess.Popen[str]] = []
    real = subprocess.Popen

    def popen(*arguments: Any, **options: Any) -> subprocess.Popen[str]:
        worker = real(*arguments, **options)
        started.append(worker)
        if at == 0:
            worker.kill()
            worker.wait()
        return worker

    def progress(done: int, total: int) -> None:
        if at == 1 and done == 1:
            started[0].kill()
            started[0].wait()

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", popen)
        with pytest.raises(InputError, match=r"killed \(signal 9\) while it recorded scene-\d+; run again, with fewer"):
            write_world(tmp_path, scenes=3, preset="tiny", workers=2, progress=progress)
    assert all(worker.wait() is not None for worker in started)
    assert not (tmp_path / "v1.0-mini").exists()
    write_world(tmp_path, scenes=3, preset="tiny", workers=1)
    assert (tmp_path / "v1.0-mini" / "sample.json").is_file()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_file_system_that_refuses_is_one_sentence(tmp_path: Path, workers: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(InputError, match=r"cannot be written \(File too large\); choose"):
            write_world(tmp_path / "world", scenes=2, preset="tiny", workers=workers)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (tmp_path / "world" / "v1.0-mini").exists()


def test_too_little_memory_for_the_workers_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def record_scene(*arguments: object) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM), "cuda:0")

    monkeypatch.setattr(aqr.synth.world, "record_scene", record_scene)
    with pytest.raises(InputError, match=r"cuda:0: has no memory for so many workers; run again with fewer"):
        write_world(tmp_path, scenes=1, preset="tiny", workers=1)


def test_two_runs_do_not_write_one_folder_at_once(tmp_path: Path) -> None:
    said: list[str] = []

    def progress(done: int, total: int) -> None:
        if done < total:
            with pytest.raises(InputError, match="another process is writing there; wait until it has ended") as caught:
                write_world(tmp_path, scenes=1, preset="tiny", workers=1)
            said.append(str(caught.value))

    write_world(tmp_path, scenes=1, preset="tiny", workers=1, progress=progress)
    assert said
    write_world(tmp_path, scenes=1, preset="tiny", workers=1)


def test_an_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="cannot be written"):
        write_world(tmp_path / "file", scenes=1, preset="tiny", workers=1)


def test_foreign_folders_and_other_worlds_are_not_touched(tmp_path: Path) -> None:
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match=r"holds thesis\.tex"):
        write_world(tmp_path / "foreign", scenes=1, preset="tiny", workers=1)
    write_world(tmp_path / "world", scenes=1, seed=0, preset="tiny", workers=1)
    with pytest.raises(InputError, match="other settings"):
        write_world(tmp_path / "world", scenes=1, seed=1, preset="tiny", workers=1)


def test_a_missing_sensor_file_is_noticed_before_the_tables_appear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = aqr.synth.world.record_scene

    def record_and_lose(job, out, on_keyframe, device):  # type: ignore[no-untyped-def]
        real(job, out, on_keyframe, device)
        next((out / "samples" / "CAM_BACK").iterdir()).unlink()

    monkeypatch.setattr(aqr.synth.world, "record_scene", record_and_lose)
    with pytest.raises(InputError, match="is missing"):
        write_world(tmp_path, scenes=1, preset="tiny", workers=1)
    assert not (tmp_path / "v1.0-mini").exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"preset": "huge"}, "preset 'huge' is unknown; choose one of tiny, small, full"),
        ({"seed": -1}, "seed -1 is negative"),
        ({"workers": 0}, "0 workers cannot work"),
        ({"scenes": 0}, "0 scenes do not fit"),
        ({"scenes": 11, "version": "v1.0-mini"}, "write v1.0-trainval instead"),
        ({"version": "v1.0-test"}, "version 'v1.0-test' cannot be written"),
    ],
)
def test_impossible_settings_are_one_sentence(tmp_path: Path, changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        write_world(tmp_path / "world", **({"preset": "tiny", "scenes": 1} | changes))  # type: ignore[arg-type]
    assert not (tmp_path / "world").exists()


@pytest.mark.parametrize("scenes", [1, 2, 3, 5, 9, 10, 11, 40, 850])
def test_scene_names_belong_to_the_official_splits(scenes: int) -> None:
    version, names = scene_names(scenes, None)
    assert version == ("v1.0-mini" if scenes <= 10 else "v1.0-trainval")
    assert len(set(names)) == scenes
    splits = create_splits_scenes()
    train, val = ("mini_train", "mini_val") if scenes <= 10 else ("train", "val")
    in_train, in_val = (sum(name in splits[split] for name in names) for split in (train, val))
    assert in_train + in_val == scenes
    assert in_val >= (scenes > 1)
    assert in_train >= 0.7 * scenes or scenes < 4
