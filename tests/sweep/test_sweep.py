"""A study in one process: what it finds, records, prunes and refuses."""

import errno
import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fake_trial import BEST, SEARCH, failing, quick, surface

from aqr.config import Config
from aqr.errors import InputError
from aqr.files import replacing
from aqr.sweep import SweepSettings, sweep


def settings(**changes: object) -> SweepSettings:
    return SweepSettings.model_validate({"search": SEARCH, "trials": 8, "pruner": "none"} | changes)


def test_tpe_finds_the_known_optimum(config: Path, tmp_path: Path) -> None:
    outcome = sweep(config, tmp_path / "out", settings(trials=50, startup=12), run_trial=quick)
    (best,) = outcome.best
    trial = outcome.document["trials"][best]
    found = [trial["params"][key] for key in SEARCH]
    assert trial["values"]["mAP"] == surface(*found)
    assert surface(*found) > surface(*BEST) - 0.01
    assert outcome.complete == 50
    assert json.loads(outcome.file.read_text()) == outcome.document


def test_a_sweep_is_repeatable_and_goes_on_where_it_stopped(config: Path, tmp_path: Path) -> None:
    first = sweep(config, tmp_path / "a", settings(), run_trial=quick)
    sweep(config, tmp_path / "b", settings(trials=3), run_trial=quick)
    second = sweep(config, tmp_path / "b", settings(), run_trial=quick)
    assert second.complete == 8
    assert [t["params"] for t in first.document["trials"]] == [t["params"] for t in second.document["trials"]]
    again = sweep(config, tmp_path / "b", settings(), run_trial=quick)
    assert again.complete == 8
    other = sweep(config, tmp_path / "c", settings(seed=1), run_trial=quick)
    assert other.document["trials"][0]["params"] != first.document["trials"][0]["params"]


def test_several_objectives_leave_a_pareto_front(config: Path, tmp_path: Path) -> None:
    outcome = sweep(
        config, tmp_path / "out", settings(objective=("mAP", "resistance"), trials=20, startup=20), run_trial=quick
    )
    points = {t["number"]: tuple(t["values"].values()) for t in outcome.document["trials"]}
    front = [
        number
        for number, (a, b) in points.items()
        if not any((c >= a and d >= b) and (c > a or d > b) for c, d in points.values())
    ]
    assert sorted(outcome.best) == sorted(front)
    assert len(front) > 1


@pytest.mark.parametrize("pruner", ["median", "hyperband", None])
def test_weak_trials_end_early_and_count(config: Path, tmp_path: Path, pruner: str | None) -> None:
    outcome = sweep(config, tmp_path / "out", settings(trials=30, startup=30, pruner=pruner), run_trial=quick)
    assert outcome.pruned > 3
    assert outcome.complete + outcome.pruned == 30
    pruned = [t for t in outcome.document["trials"] if t["state"] == "pruned"]
    assert all(t["values"] is None and t["intermediate"] for t in pruned)
    done = [t["values"]["mAP"] for t in outcome.document["trials"] if t["state"] == "complete"]
    # What was ended early would have been worse than the best by its own known surface.
    assert all(surface(*(t["params"][key] for key in SEARCH)) < max(done) for t in pruned)


def test_settings_that_cannot_be_trained_fail_alone_and_say_why(config: Path, tmp_path: Path) -> None:
    outcome = sweep(config, tmp_path / "out", settings(trials=12, startup=12), run_trial=failing)
    failed = [t for t in outcome.document["trials"] if t["state"] == "failed"]
    assert failed
    assert outcome.failed == len(failed)
    assert outcome.complete + outcome.failed == 12
    assert all("not finite" in t["error"] for t in failed)


def test_what_fails_from_the_start_ends_the_sweep(config: Path, tmp_path: Path) -> None:
    def never(*_: object) -> dict[str, float]:
        raise InputError("data/nuscenes: does not exist; give the folder of a data set")

    with pytest.raises(InputError, match="data/nuscenes"):
        sweep(config, tmp_path / "out", settings(), run_trial=never)
    # Once mended, the study has all of its trials to give.
    assert sweep(config, tmp_path / "out", settings(), run_trial=quick).complete == 8


def test_a_full_disk_ends_the_sweep_and_its_trial_does_not_count(config: Path, tmp_path: Path) -> None:
    def full(config: Config, folder: Path, *rest: Any) -> dict[str, float]:
        if folder.name == "trial-0003":
            with replacing(folder / "last.ckpt"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return quick(config, folder, *rest)

    with pytest.raises(InputError, match=r"last\.ckpt: cannot be written \(No space left on device\)"):
        sweep(config, tmp_path / "out", settings(), run_trial=full)
    outcome = sweep(config, tmp_path / "out", settings(), run_trial=quick)
    assert (outcome.complete, outcome.failed) == (8, 0)


def test_a_storage_that_fails_on_the_way_is_said_in_one_sentence(config: Path, tmp_path: Path) -> None:
    def breaking(*arguments: Any) -> dict[str, float]:
        with closing(sqlite3.connect(tmp_path / "out" / "study.db")) as database:
            database.execute("DROP TABLE trial_values")
            database.commit()
        return quick(*arguments)

    with pytest.raises(InputError, match=r"study\.db: failed on the way \(.*trial_values") as said:
        sweep(config, tmp_path / "out", settings(), run_trial=breaking)
    assert str(said.value).endswith("mend that and run the same command to go on")


def test_an_interrupted_trial_does_not_count(config: Path, tmp_path: Path) -> None:
    def interrupted(*_: object) -> dict[str, float]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(config, tmp_path / "out", settings(), run_trial=interrupted)
    assert sweep(config, tmp_path / "out", settings(), run_trial=quick).complete == 8


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"search": {"train.lr": "1e-5..1e-3:log"}}, "another search"),
        ({"objective": ("NDS",)}, "another objective"),
        ({"objective": ("mAP", "NDS")}, "has 1 objectives"),
    ],
)
def test_another_sweep_under_the_same_name_is_refused(
    config: Path, tmp_path: Path, change: dict[str, object], said: str
) -> None:
    sweep(config, tmp_path / "out", settings(trials=1), run_trial=quick)
    with pytest.raises(InputError, match=said):
        sweep(config, tmp_path / "out", settings(**change), run_trial=quick)
    with pytest.raises(InputError, match="another config"):
        sweep(config, tmp_path / "out", settings(), overrides=("seed=5",), run_trial=quick)


@pytest.mark.parametrize(
    ("storage", "said"),
    [
        ("nonsense", "is no address of a database"),
        ("postgresql://nobody:secret@127.0.0.1:1/none", r"nobody:\*\*\*@127\.0\.0\.1:1/none: cannot be used"),
        ("sqlite:////no/such/folder/study.db", "cannot be used"),
    ],
)
def test_a_storage_that_is_not_there_is_said_in_one_sentence(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: str, said: str
) -> None:
    monkeypatch.setattr("aqr.sweep.storage.time.sleep", lambda _: None)
    with pytest.raises(InputError, match=said) as caught:
        sweep(config, tmp_path / "out", settings(), storage=storage, run_trial=quick)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_trainings_over_several_gpus_and_pruning_blindly_are_refused(config: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a worker per GPU"):
        sweep(config, tmp_path / "out", settings(), overrides=("train.devices=2",), run_trial=quick)
    with pytest.raises(InputError, match=r"set train\.val_every"):
        sweep(config, tmp_path / "out", settings(pruner="median"), overrides=("train.val_every=0",), run_trial=quick)
