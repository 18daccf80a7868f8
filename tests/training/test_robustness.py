"""`aqr eval --corrupt` on a run, from the command line to the files."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from aqr.cli import app
from aqr.config import Config, parse
from aqr.data.failures.catalogue import KINDS
from aqr.detector import Detector
from aqr.errors import InputError
from aqr.training import evaluate, evaluate_failures
from aqr.training.checkpoint import save_final
from aqr.training.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("on_cpu")


def tiny(world: Path, **sections: Any) -> Config:
    return parse(
        {
            "sensors": {"cameras": ["CAM_FRONT"]},
            "data": {
                "root": str(world),
                "version": "v1.0-mini",
                "val_split": "mini_val",
                "sweeps": 0,
                "image": {"size": [32, 64]},
                "batch_size": 10,
                "workers": 0,
            },
            "detector": {
                "hidden_dim": 32,
                "num_query": 20,
                "num_layers": 1,
                "num_heads": 2,
                "lidar": {
                    "pillars": [32, 32],
                    "pillar_channels": 4,
                    "channels": [16],
                    "blocks": [1],
                    "strides": [2],
                    "out_stride": 2,
                },
                "image": {
                    "options": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
                },
            },
            **sections,
        }
    )


def write_run(path: Path, config: Config) -> Path:
    folder = RunFolder(path)
    folder.start(config)
    torch.manual_seed(0)
    save_final(folder, Detector(config), config, 1)
    return path


@pytest.fixture(scope="module")
def run(world: Path, tmp_path_factory: pytest.TempPathFactory, on_cpu: None) -> Path:
    return write_run(tmp_path_factory.mktemp("robustness") / "run", tiny(world))


def aqr(*arguments: object) -> None:
    app([str(argument) for argument in arguments], standalone_mode=False)


def test_every_failure_leaves_its_folder_and_all_one_table(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    aqr("eval", run, "--corrupt", "all", "--out", tmp_path)
    expected = {f"mini_val-{kind.name}-{severity}" for kind in KINDS for severity in kind.severities} | {"mini_val"}
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == expected
    figures = json.loads((tmp_path / "mini_val-resistance.json").read_text())
    assert list(figures["failures"]) == [kind.name for kind in KINDS]
    for kind in KINDS:
        for severity in kind.severities:
            folder = tmp_path / f"mini_val-{kind.name}-{severity}"
            assert (folder / "results.json").is_file()
            summary = json.loads((folder / "metrics.json").read_text())
            entry = figures["failures"][kind.name]["severities"][str(severity)]
            assert (entry["mAP"], entry["NDS"]) == (summary["mean_ap"], summary["nd_score"])
    results = {path.name: json.loads((path / "results.json").read_text())["results"] for path in tmp_path.glob("*/")}
    clean = results.pop("mini_val")
    assert [name for name, found in results.items() if found == clean] == [], "every failure reaches the detector"
    said = capsys.readouterr().out
    assert all(kind.name in said for kind in KINDS)
    assert "mRA" in said
    assert Image.open(tmp_path / "mini_val-resistance.png").size[1] > 400


def test_clean_scores_are_those_of_plain_evaluation_and_failures_repeat(run: Path) -> None:
    figures = evaluate_failures(run, "lidar_drop,points_reducing:2", show=False)
    folder = run / "eval"
    names = {path.name for path in folder.iterdir()}
    stem = "mini_val-resistance-lidar_drop+points_reducing-2"
    assert names == {"mini_val", "mini_val-lidar_drop-3", "mini_val-points_reducing-2", f"{stem}.json", f"{stem}.png"}
    assert figures == json.loads((folder / f"{stem}.json").read_text())
    corrupted = (folder / "mini_val-points_reducing-2" / "results.json").read_text()
    clean = (folder / "mini_val" / "results.json").read_text()
    summary = evaluate(run, show=False)
    assert (figures["clean"]["mAP"], figures["clean"]["NDS"]) == (summary["mean_ap"], summary["nd_score"])
    assert (folder / "mini_val" / "results.json").read_text() == clean
    evaluate_failures(run, "points_reducing:2", show=False)
    assert (folder / "mini_val-points_reducing-2" / "results.json").read_text() == corrupted
    evaluate_failures(run, "points_reducing:2", seed=1, show=False)
    assert (folder / "mini_val-points_reducing-2" / "results.json").read_text() != corrupted


def test_an_unknown_failure_is_refused_before_anything_is_written(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'haze'.*lidar_fog"):
        aqr("eval", run, "--corrupt", "haze", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_detector_is_tried_on_the_sensors_it_uses(world: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", tiny(world, sensors={"lidar": True, "cameras": []}))
    with pytest.raises(InputError, match="camera"):
        evaluate_failures(run, "dark", show=False)
    figures = evaluate_failures(run, "lidar_drop", show=False)
    assert list(figures["failures"]) == ["lidar_drop"]
