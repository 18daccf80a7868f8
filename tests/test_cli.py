"""The command line as a user meets it: one process per call."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from tests.command import aqr

SMALL = Path(__file__).parents[1] / "src" / "aqr" / "assets" / "small.yaml"
QUICK = (
    "data.workers=0",
    "data.batch_size=1",
    "data.image.size=[64,128]",
    "detector.hidden_dim=32",
    "detector.num_query=30",
    "detector.num_layers=1",
    "detector.lidar.pillars=[32,32]",
    "train.steps=2",
    "train.log_every=1",
    "train.stats_every=1",
)


def as_a_user(*arguments: object) -> subprocess.CompletedProcess[str]:
    """`aqr` in a Python of its own."""
    return subprocess.run(
        [sys.executable, "-m", "aqr.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )


def assert_refused(result: subprocess.CompletedProcess[str], *parts: str) -> None:
    """Exit code 2 and one sentence on stderr that says these things."""
    assert result.returncode == 2, result.stderr
    said = [line for line in result.stderr.splitlines() if not line.startswith(("training ", "weights "))]
    assert len(said) == 1, result.stderr
    for part in parts:
        assert part in said[0]


@pytest.fixture(scope="module")
def run(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a training of two steps."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    done = as_a_user("train", SMALL, f"data.root={world}", *QUICK, "--run-dir", folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_training_leaves_what_the_run_folder_promises(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [1, 2]
    assert {"loss", "loss_cls", "loss_bbox", "dn_loss_cls", "lr", "grad_norm", "step_time_s"} <= lines[-1].keys()
    snapshot = json.loads((run / "aqr_stats.jsonl").read_text().splitlines()[-1])
    assert {"forward", "ranks", "lidar_weights", "weight_map_pers", "modulation_bev"} <= snapshot.keys()
    assert all(-1 < snapshot[gate] < 1 for gate in ("lidar_gate", "camera_gate"))
    summary = json.loads((run / "eval" / "mini_val" / "metrics.json").read_text())
    assert {"mean_ap", "nd_score", "label_aps", "tp_errors"} <= summary.keys()


def test_saved_maps_are_those_of_the_snapshot_and_make_forecasts_exact(run: Path) -> None:
    snapshot = json.loads((run / "aqr_stats.jsonl").read_text().splitlines()[-1])
    with np.load(run / "maps" / "00000002.npz") as maps:
        for name in ("weight_map_bev", "weight_map_pers"):
            assert list(maps[name].shape) == snapshot[name]["shape"]
            assert maps[name].max() == pytest.approx(snapshot[name]["max"])
            assert maps[name].mean() == pytest.approx(snapshot[name]["mean"], rel=1e-5)
    said = aqr("whatif", run, "--clamp", "1.5,2.0", "--residual", "0.7,0.8")
    assert said.returncode == 0, said.stderr
    assert said.stdout.count("exact") >= 4


def test_a_grid_that_is_no_numbers_is_refused(run: Path) -> None:
    assert_refused(aqr("whatif", run, "--clamp", "1.5;2", "--residual", "0.7"), "--clamp", "1.5;2")


def test_predict_then_score_equals_eval(run: Path, world: Path, tmp_path: Path) -> None:
    assert aqr("eval", run, "--out", tmp_path / "eval").returncode == 0
    assert aqr("predict", run, "--out", tmp_path / "results.json").returncode == 0
    where = ("--data", world, "--version", "v1.0-mini", "--split", "mini_val")
    scored = aqr("score", tmp_path / "results.json", *where, "--out", tmp_path / "metrics.json")
    assert scored.returncode == 0, scored.stderr
    assert "mAP" in scored.stdout
    one = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    two = json.loads((tmp_path / "metrics.json").read_text())
    assert one["label_aps"] == two["label_aps"]
    assert one["nd_score"] == two["nd_score"]


def test_score_compares_and_divides_where_it_is_asked_to(run: Path, world: Path, tmp_path: Path) -> None:
    results = run / "eval" / "mini_val" / "results.json"
    where = ("--data", world, "--version", "v1.0-mini", "--split", "mini_val", "--out", tmp_path / "metrics.json")
    plain = aqr("score", results, *where)
    assert plain.returncode == 0, plain.stderr
    assert not {"bootstrap", "baseline", "breakdown"} & json.loads((tmp_path / "metrics.json").read_text()).keys()
    asked = ("--bootstrap", 10, "--baseline", results, "--breakdown", "--picture", tmp_path / "curves.png")
    done = aqr("score", results, *where, *asked)
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written["bootstrap"]["resamples"] == 10
    assert written["baseline"]["difference"]["mean_ap"]["value"] == 0
    assert {part["kind"] for part in written["breakdown"]} >= {"distance", "light"}
    for words in ("intervals", "results minus baseline", "distance 0-20 m"):
        assert words in done.stdout
        assert words not in plain.stdout
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert_refused(aqr("score", results, *where, "--picture", tmp_path / "curves.gif"), "curves.gif", ".svg")


def test_view_draws_a_sample_with_and_without_a_run(run: Path, world: Path, tmp_path: Path) -> None:
    where = ("--data", world, "--version", "v1.0-mini", "--split", "mini_val", "--sample", "1")
    for extra in ((), ("--run", run)):
        out = tmp_path / str(len(extra))
        assert aqr("view", *where, "--out", out, *extra).returncode == 0
        assert sorted(path.name.rsplit("-", 1)[1] for path in out.iterdir()) == ["bev.png", "cameras.png"]
    own = tmp_path / "own"
    assert aqr("view", "--run", run, "--sample", "1", "--out", own).returncode == 0
    assert sorted(path.name for path in own.iterdir()) == sorted(path.name for path in out.iterdir())
    assert_refused(aqr("view", "--data", world, "--out", own), "--version", "--run")


def test_analyze_reads_the_run(run: Path, tmp_path: Path) -> None:
    done = aqr("analyze", run, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report.html").is_file()
    assert json.loads((tmp_path / "report.json").read_text())["runs"][0]["training"]["iterations"] == 2


def test_a_run_is_not_written_over(run: Path, world: Path) -> None:
    again = aqr("train", SMALL, f"data.root={world}", *QUICK, "--run-dir", run)
    assert_refused(again, str(run), "--resume")


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("aqr.modulator.residual_weight=1.6", ("aqr.modulator.residual_weight", "1.6")),
        ("aqr.modulater.gate=true", ("unknown key aqr.modulater", "modulator")),
        ("data.root=/nowhere", ("/nowhere",)),
        ("data.val_split=evening", ("evening",)),
        ("train.init_from=/nowhere.ckpt", ("/nowhere.ckpt",)),
    ],
)
def test_wrong_settings(world: Path, tmp_path: Path, override: str, parts: tuple[str, ...]) -> None:
    assert_refused(aqr("train", SMALL, f"data.root={world}", override, "--run-dir", tmp_path / "run"), *parts)


def test_data_are_looked_for_before_pretrained_weights(world: Path, tmp_path: Path) -> None:
    """Weights may have to come over a network."""
    weights = "detector.image.pretrained=/no/weights/here"
    for override, named in (("data.root=/nowhere", "/nowhere"), ("data.val_split=evening", "evening")):
        refused = aqr("train", SMALL, f"data.root={world}", override, weights, "--run-dir", tmp_path / "run")
        assert_refused(refused, named)
        assert "weights" not in refused.stderr
    refused = aqr("train", SMALL, f"data.root={world}", weights, "--run-dir", tmp_path / "run")
    assert_refused(refused, "detector.image.pretrained", "/no/weights/here", "null")
    assert not (tmp_path / "run").exists()


def test_the_version_is_told() -> None:
    told = aqr("--version")
    assert (told.returncode, told.stdout) == (0, f"aqr {version('aqr')}\n")


def test_a_wrong_setting_is_found_before_torch_is_imported() -> None:
    code = (
        "import sys; import aqr.cli; sys.argv = sys.argv[1:]\n"
        "try: aqr.cli.main()\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, "aqr", "train", SMALL, "train.stepps=3"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == ["2", "False"]


def remove_image(root: Path) -> str:
    image = min((root / "samples" / "CAM_BACK").iterdir())
    for path in image.parent.iterdir():
        path.unlink()
    return "CAM_BACK"


def truncate_points(root: Path) -> str:
    for path in (root / "samples" / "LIDAR_TOP").iterdir():
        path.write_bytes(path.read_bytes()[:-7])
    return ".bin"


def break_image(root: Path) -> str:
    for path in (root / "samples" / "CAM_FRONT").iterdir():
        path.write_bytes(path.read_bytes()[:200])
    return "CAM_FRONT"


def dangle(root: Path) -> str:
    path = root / "v1.0-mini" / "sample_data.json"
    records = json.loads(path.read_text())
    records[3]["ego_pose_token"] = "f" * 32
    path.write_text(json.dumps(records))
    return "sample_data.json"


def drop_camera(root: Path) -> str:
    path = root / "v1.0-mini" / "sample_data.json"
    records = json.loads(path.read_text())
    gone = next(r for r in records if "CAM_FRONT_LEFT" in r["filename"])
    kept = [r for r in records if r is not gone]
    for record in kept:
        for link in ("prev", "next"):
            if record[link] == gone["token"]:
                record[link] = ""
    path.write_text(json.dumps(kept))
    return "CAM_FRONT_LEFT"


@pytest.mark.parametrize("spoil", [remove_image, truncate_points, break_image, dangle, drop_camera])
def test_damaged_data_is_named(world: Path, tmp_path: Path, spoil: Callable[[Path], str]) -> None:
    root = tmp_path / "data"
    shutil.copytree(world, root)
    for cache in root.rglob(".aqr-index*"):
        cache.unlink()
    named = spoil(root)
    before = sorted(path for path in root.rglob("*") if path.is_file() and "aqr-index" not in path.name)
    assert_refused(aqr("train", SMALL, f"data.root={root}", *QUICK, "--run-dir", tmp_path / "run"), str(root), named)
    after = sorted(path for path in root.rglob("*") if path.is_file() and "aqr-index" not in path.name)
    assert before == after


def test_a_pickle_is_not_opened(run: Path, tmp_path: Path) -> None:
    """A checkpoint that would run a command when unpickled is refused, and the command does not run."""
    import pickle

    class Command:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    path = tmp_path / "sent.ckpt"
    path.write_bytes(pickle.dumps(Command()))
    assert_refused(aqr("eval", path), str(path))
    assert not (tmp_path / "ran").exists()


def test_help_names_every_verb() -> None:
    said = as_a_user("--help").stdout
    for verb in ("demo", "synth", "train", "eval", "predict", "score", "analyze", "view"):
        assert verb in said


@pytest.mark.parametrize("verb", ["analyze", "score"])
def test_verbs_without_a_network_start_without_torch(verb: str) -> None:
    package = {"analyze": "analysis", "score": "scoring"}[verb]
    code = f"import sys; import aqr.cli; import aqr.{package}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
