"""`aqr sweep` with real trainings on the synthetic world."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.command import aqr

CONFIG: dict[str, Any] = {
    "data": {
        "version": "v1.0-mini",
        "train_split": "mini_train",
        "val_split": "mini_val",
        "sweeps": 0,
        "image": {"size": [32, 64]},
        "batch_size": 2,
        "workers": 0,
    },
    "detector": {
        "hidden_dim": 16,
        "num_query": 20,
        "num_layers": 1,
        "num_heads": 2,
        "feedforward_dim": 16,
        "lidar": {
            "pillars": [32, 32],
            "pillar_channels": 8,
            "channels": [8],
            "blocks": [1],
            "strides": [2],
            "out_stride": 2,
        },
        "image": {"options": {"embedding_size": 8, "hidden_sizes": [8, 8, 8, 16], "depths": [1, 1, 1, 1]}},
        "denoising": {"groups": 1},
    },
    "train": {"steps": 2, "precision": "32", "log_every": 1, "stats_every": 1, "lr_mult": {}},
}


@pytest.fixture
def tiny(world: Path, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump({**CONFIG, "data": {**CONFIG["data"], "root": str(world)}}))
    return path


def test_real_trials_are_trained_scored_and_kept(tiny: Path, tmp_path: Path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(
        "sweep:\n"
        "  search: {aqr.renderer.max_weight_clamp: 1.5..2.5, aqr.modulator.gate: [true, false]}\n"
        "  objective: [NDS, resistance]\n"
        "  corrupt: lidar_drop\n"
    )
    out = tmp_path / "out"
    ended = aqr("sweep", tiny, "seed=3", "--space", space, "--trials", 2, "--out", out)
    assert ended.returncode == 0, ended.stderr
    said = ended.stdout.splitlines()
    assert said[0].startswith("trial-0000  mAP 0.")
    assert said[-2].startswith("2 complete, 0 ended early, 0 failed; best trial")
    assert said[-1] == str(out / "study.json")
    study = json.loads((out / "study.json").read_text())
    for trial in study["trials"]:
        folder = out / trial["run"]
        config = yaml.safe_load((folder / "config.yaml").read_text())
        assert config["aqr"]["renderer"]["max_weight_clamp"] == trial["params"]["aqr.renderer.max_weight_clamp"]
        assert config["aqr"]["modulator"]["gate"] == trial["params"]["aqr.modulator.gate"]
        summary = json.loads((folder / "eval" / "mini_val" / "metrics.json").read_text())
        assert trial["values"]["NDS"] == summary["nd_score"] == trial["scores"]["NDS"]
        assert trial["values"]["resistance"] == trial["scores"]["resistance"]
        assert [path.name for path in (folder / "checkpoints").iterdir()] == ["final.safetensors"]
    assert study["config"]["seed"] == 3


def test_a_users_mistake_is_one_sentence(tiny: Path, tmp_path: Path) -> None:
    for arguments, said in (
        ((), "nothing is to be searched"),
        (("--search", "aqr.clamp=1..2"), "unknown key aqr.clamp"),
        (("--search", "train.lr"), "write key=low..high"),
        (("--search", "train.lr=1e-4..1e-3", "--objective", "map"), "sweep.objective"),
        (("data.root=/none", "--search", "train.lr=1e-4..1e-3"), "/none"),
    ):
        ended = aqr("sweep", tiny, *arguments, "--trials", 1, "--out", tmp_path / "out")
        assert ended.returncode == 2, (arguments, ended.stdout, ended.stderr)
        assert said in ended.stderr
        assert len(ended.stderr.strip().splitlines()) == 1
