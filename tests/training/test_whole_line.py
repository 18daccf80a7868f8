"""Training and evaluation on real parts: the synthetic world, the detector, the scoring, and the devkit as a judge."""

import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import run_fake
import safetensors.torch
import torch
from processes import start
from torch import nn

from aqr.batch import Batch
from aqr.config import Config, parse
from aqr.data.loader import train_loader
from aqr.detector import Detections
from aqr.detector.image_encoder import build_backbone
from aqr.errors import InputError
from aqr.scoring import score_files
from aqr.training import evaluate, evaluate_failures, evaluation, fit, load_detector, predict, train, view_run
from aqr.training.checkpoint import Checkpoint, read_weights
from aqr.training.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("on_cpu")


def tiny(root: Path, **train_settings: Any) -> Config:
    settings = {"steps": 4, "precision": "32", "log_every": 1, "stats_every": 2, "checkpoint_every": 2, "lr_mult": {}}
    return parse(
        {
            "data": {
                "root": str(root),
                "version": "v1.0-mini",
                "train_split": "mini_train",
                "val_split": "mini_val",
                "sweeps": 1,
                "image": {"size": [64, 160]},
                "batch_size": 2,
                "workers": 0,
            },
            "detector": {
                "hidden_dim": 32,
                "num_query": 40,
                "num_layers": 2,
                "num_heads": 2,
                "feedforward_dim": 32,
                "lidar": {
                    "pillars": [64, 64],
                    "pillar_channels": 16,
                    "channels": [16, 16],
                    "blocks": [1, 1],
                    "strides": [2, 2],
                    "out_stride": 2,
                },
                "image": {"options": {"embedding_size": 8, "hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1]}},
                "denoising": {"groups": 2},
            },
            "train": settings | train_settings,
        }
    )


@pytest.fixture(scope="module")
def run(on_cpu: None, world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tiny(world, val_every=2), tmp_path_factory.mktemp("runs") / "run")


def lines(path: Path) -> list[dict[str, Any]]:
    clocks = {"step_time_s", "data_time_s", "memory_mb"}
    recorded = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in clocks} for line in recorded]


def test_a_run_leaves_what_the_contract_names(run: Path, world: Path) -> None:
    recorded = lines(run / "metrics.jsonl")
    assert [line["iteration"] for line in recorded] == [1, 2, 3, 4]
    assert {"loss_cls", "loss_bbox", "d0.loss_cls", "dn_loss_cls", "loss", "lr", "grad_norm"} <= recorded[0].keys()
    assert recorded[1]["router_grad_norm"] > 0
    snapshots = lines(run / "aqr_stats.jsonl")
    assert [(line["forward"], line["ranks"]) for line in snapshots] == [(2, 1), (4, 1)]
    assert snapshots[0].keys() >= {"lidar_weights", "camera_weights", "weight_map_bev", "weight_map_pers"}
    assert snapshots[0].keys() >= {"modulation_bev", "modulation_pers"}
    results = run / "eval" / "mini_val" / "results.json"
    scored = score_files(results, world, "v1.0-mini", "mini_val")
    written = json.loads((run / "eval" / "mini_val" / "metrics.json").read_text())
    for key in ("mean_ap", "nd_score", "mean_dist_aps", "tp_errors", "meta"):
        assert written[key] == scored[key]
    assert written["meta"]["use_lidar"] is True
    assert any((run / "tensorboard").iterdir())
    said = (run / "train.log").read_text()
    assert [f"step {step}  mini_val: mAP" in said for step in (1, 2, 3, 4)] == [False, True, False, True]


def test_evaluation_predicts_again_what_the_run_saw(run: Path, tmp_path: Path) -> None:
    at_the_end = json.loads((run / "eval" / "mini_val" / "results.json").read_text())
    summary = evaluate(run, out=tmp_path / "again", show=False)
    again = json.loads((tmp_path / "again" / "results.json").read_text())
    assert again == at_the_end
    assert summary["mean_ap"] == json.loads((tmp_path / "again" / "metrics.json").read_text())["mean_ap"]
    submission = predict(run / "checkpoints" / "last.ckpt", tmp_path / "results.json")
    assert json.loads(submission.read_text()) == at_the_end


def test_two_ranks_evaluate_each_sample_once(run: Path, tmp_path: Path) -> None:
    ended = start(run_fake.score, {"run": run, "out": tmp_path / "two", "output": tmp_path / "said"}, ranks=2)
    assert ended.codes == [0, 0], ended.said
    alone = json.loads((run / "eval" / "mini_val" / "results.json").read_text())["results"]
    together = json.loads((tmp_path / "two" / "results.json").read_text())["results"]
    assert together.keys() == alone.keys()
    assert len(alone) == 10
    for token, boxes in alone.items():
        # Another composition of the batches rounds otherwise.
        for figure in (lambda box: box["detection_score"], lambda box: box["translation"][0]):
            expected = sorted(map(figure, boxes))
            assert sorted(map(figure, together[token])) == pytest.approx(expected, rel=1e-4, abs=1e-3)
    assert ended.said == ""


def test_an_untrained_detector_can_be_scored(world: Path, tmp_path: Path) -> None:
    summary = evaluate(tiny(world), out=tmp_path, show=False)
    assert 0 <= summary["mean_ap"] < 0.05


def test_a_split_without_annotations_is_refused_before_anything_is_detected(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = tmp_path / "v1.0-mini"
    shutil.copytree(world / "v1.0-mini", tables, ignore=shutil.ignore_patterns(".aqr-index*"))
    (tables / "sample_annotation.json").write_text("[]")
    monkeypatch.setattr(evaluation, "detect", lambda *_: pytest.fail("detected in vain"))
    with pytest.raises(InputError, match="choose a split that is annotated"):
        evaluate(tiny(tmp_path), show=False)


def test_the_tables_are_printed(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(run, out=tmp_path)
    shown = capsys.readouterr().out
    for word in ("mAP", "NDS", "mATE", "construction_vehicle", "AAE"):
        assert word in shown


def test_a_finished_run_is_scored_where_it_is_resumed_with_other_data(run: Path, world: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.symlink_to(world)
    config = tiny(elsewhere, val_every=2)
    data = config.data.model_copy(update={"val_split": "mini_train"})
    train(config.model_copy(update={"data": data}), run, resume=True)
    assert (run / "eval" / "mini_train" / "metrics.json").is_file()


def test_a_run_that_stopped_during_its_last_evaluation_is_scored_as_it_ended(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []
    scoring = evaluation.Evaluation.run

    def stopping(self: evaluation.Evaluation, *arguments: Any) -> Any:
        asked.append(arguments[-1])
        if len(asked) == 2:
            raise KeyError("the machine is gone")
        return scoring(self, *arguments)

    monkeypatch.setattr(evaluation.Evaluation, "run", stopping)
    config, scores = tiny(world, steps=2, val_every=1, lr=1e-2), tmp_path / "run" / "eval" / "mini_val"
    with pytest.raises(KeyError):
        train(config, tmp_path / "run", show=False)
    assert json.loads((scores / "metrics.json").read_text())["step"] == 1
    for _ in range(2):
        train(config, tmp_path / "run", resume=True, show=False)
        assert asked == [1, 2, 2]
    assert capsys.readouterr().out == "", "show=False"
    assert json.loads((scores / "metrics.json").read_text())["step"] == 2
    evaluate(tmp_path / "run" / "checkpoints" / "last.ckpt", out=tmp_path / "again", show=False)
    for name in ("results.json", "metrics.json"):
        again = json.loads((tmp_path / "again" / name).read_text())
        assert json.loads((scores / name).read_text()) | {"eval_time": 0} == again | {"eval_time": 0}


def test_weights_that_do_not_say_their_step_are_scored_once_as_those_of_the_runs_last(
    run: Path, tmp_path: Path, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(run, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    safetensors.torch.save_file(read_weights(folder.final_weights), folder.final_weights)
    metrics = folder.evaluation("mini_val") / "metrics.json"
    metrics.unlink()
    train(tiny(world, val_every=2), folder.path, resume=True, show=False)
    assert json.loads(metrics.read_text())["step"] == 4
    monkeypatch.setattr(fit, "evaluate", lambda *_, **__: pytest.fail("scored again"))
    train(tiny(world, val_every=2), folder.path, resume=True, show=False)


@pytest.mark.parametrize("corrupt", [None, "dark:1"])
def test_a_checkpoint_is_read_once_and_quiet_evaluation_draws_no_bar(
    run: Path,
    tmp_path: Path,
    corrupt: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(run, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    folder.final_weights.unlink()
    reads, reading = [], torch.load
    monkeypatch.setattr(torch, "load", lambda path, **options: [reads.append(path), reading(path, **options)][1])
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal, as far as rich can tell
    if corrupt is None:
        evaluate(folder.path, out=tmp_path / "mini_val", show=False)
    else:
        evaluate_failures(folder.path, corrupt, out=tmp_path, show=False)
    assert reads == [folder.last_checkpoint]
    assert json.loads((tmp_path / "mini_val" / "metrics.json").read_text())["step"] == 4
    assert capsys.readouterr() == ("", "")


class Breaking:
    """The real loader, which breaks down after three batches."""

    def __init__(self, *arguments: Any) -> None:
        self.loader = train_loader(*arguments)
        self.dataset = self.loader.dataset

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        for number, batch in enumerate(self.loader):
            if number == 3:
                raise KeyError("the machine is gone")
            yield batch


def test_a_run_that_stopped_goes_on_exactly(
    run: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run that it is compared with was evaluated half-way, which changes nothing either."""
    monkeypatch.setattr(fit, "train_loader", Breaking)
    with pytest.raises(KeyError):
        train(tiny(world), tmp_path)
    monkeypatch.undo()
    assert len(lines(tmp_path / "metrics.jsonl")) >= 2
    train(tiny(world), tmp_path, resume=True)
    assert lines(tmp_path / "metrics.jsonl") == lines(run / "metrics.jsonl")
    assert lines(tmp_path / "aqr_stats.jsonl") == lines(run / "aqr_stats.jsonl")
    ends = [Checkpoint.load(RunFolder(folder).last_checkpoint).detector for folder in (tmp_path, run)]
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=0)


def test_points_that_are_nan_cost_one_step_and_one_warning(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Poisoned:
        def __init__(self, *arguments: Any) -> None:
            self.loader = train_loader(*arguments)
            self.dataset = self.loader.dataset

        def __iter__(self) -> Iterator[Batch]:
            for number, batch in enumerate(self.loader):
                if number == 1:
                    batch.points[:100] = float("nan")
                yield batch

    monkeypatch.setattr(fit, "train_loader", Poisoned)
    with caplog.at_level(logging.WARNING, logger="aqr"):
        train(tiny(world), tmp_path)
    assert [r.getMessage() for r in caplog.records] == [
        "step 2 skipped, nothing was updated: a LiDAR point is not finite"
    ]
    recorded = lines(tmp_path / "metrics.jsonl")
    assert [line["skipped"] for line in recorded] == [0, 1, 1, 1]
    assert recorded[1]["loss"] is None
    assert all(torch.isfinite(t).all() for t in load_detector(tmp_path)[0].state_dict().values())


def test_pictures_of_a_run(run: Path, tmp_path: Path) -> None:
    pictures = view_run(run, tmp_path, [0])
    assert [p.name.rpartition("-")[2] for p in pictures] == ["bev.png", "cameras.png"]
    assert all(p.stat().st_size > 10_000 for p in pictures)
    with pytest.raises(InputError, match="has samples 0 to 9, not 10"):
        view_run(run, tmp_path, [10])
    with pytest.raises(InputError, match="no sample 'abc'"):
        view_run(run, tmp_path, ["abc"])


def test_aqr_alone_is_trained_and_resumed_in_the_detector_it_starts_from(
    run: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"train.only=\['aqr'\] would leave .* train.init_from"):
        train(tiny(world, only=["aqr"]), tmp_path / "random")
    start = run / "checkpoints" / "final.safetensors"
    config = tiny(world, only=["aqr"], init_from=start, lr=1e-2, val_every=2)
    monkeypatch.setattr(fit, "train_loader", Breaking)
    with pytest.raises(KeyError):
        train(config, tmp_path / "alone")
    monkeypatch.undo()
    train(config, tmp_path / "alone", resume=True)
    before, after = (safetensors.torch.load_file(p) for p in (start, tmp_path / "alone" / "checkpoints" / start.name))
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"aqr"}


def test_a_run_needs_its_pretrained_weights_at_the_start_only(world: Path, tmp_path: Path) -> None:
    config = tiny(world, steps=2)
    weights = tmp_path / "weights"
    build_backbone(config.detector.image)[0].save_pretrained(weights)
    image = {"pretrained": str(weights), "options": {}}
    values = config.model_dump(mode="json")
    config = parse(values | {"detector": values["detector"] | {"image": image}})
    folder = RunFolder(train(config, tmp_path / "run"))
    at_the_end = (folder.evaluation("mini_val") / "results.json").read_text()
    shutil.rmtree(weights)
    folder.final_weights.unlink()
    evaluate(folder.path, out=tmp_path / "again", show=False)
    assert (tmp_path / "again" / "results.json").read_text() == at_the_end
    assert folder.load_config().detector.image.pretrained == str(weights)

    # The machine was lost after the first checkpoint.
    checkpoint = Checkpoint.load(folder.last_checkpoint)
    replace(checkpoint, step=1).save(folder.last_checkpoint)
    assert train(config, folder.path, resume=True) == folder.path
    with pytest.raises(InputError, match=str(weights)):
        train(config, tmp_path / "other")


def test_weights_of_another_detector_are_refused(run: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.start(parse(tiny(tmp_path).model_dump(mode="json") | {"aqr": {"enabled": False}}))
    folder.final_weights.write_bytes(RunFolder(run).final_weights.read_bytes())
    with pytest.raises(InputError, match="are of different detectors"):
        load_detector(folder.path)


def test_a_run_without_a_checkpoint_says_so(tmp_path: Path) -> None:
    RunFolder(tmp_path).start(tiny(tmp_path))
    with pytest.raises(InputError, match="holds no checkpoint yet"):
        load_detector(tmp_path)


def test_a_missing_data_set_leaves_no_run_behind(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        train(tiny(tmp_path / "nowhere"), tmp_path / "run")
    assert not RunFolder(tmp_path / "run").holds_run()


class Oracle(nn.Module):
    """Finds what is annotated."""

    def __init__(self, config: Config) -> None:
        super().__init__()

    def forward(self, batch: Batch) -> Batch:
        return batch

    def decode(self, output: Batch) -> list[Detections]:
        found = []
        for boxes, labels in zip(
            output.boxes.split(output.box_counts), output.labels.split(output.box_counts), strict=True
        ):
            found.append(Detections(boxes.nan_to_num(0.0), torch.ones(len(boxes)), labels, torch.arange(len(boxes))))
        return found


def test_perfect_boxes_of_the_real_frame_get_what_the_devkit_gives_them(
    real_frame: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nuscenes = pytest.importorskip("nuscenes.nuscenes")
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.detection.evaluate import DetectionEval

    monkeypatch.setattr(evaluation, "Detector", Oracle)
    config = tiny(real_frame)
    summary = evaluate(config, root=real_frame, split="mini_train", out=tmp_path, show=False)
    devkit = DetectionEval(
        nuscenes.NuScenes("v1.0-mini", str(real_frame), verbose=False),
        config_factory("detection_cvpr_2019"),
        str(tmp_path / "results.json"),
        "mini_train",
        str(tmp_path / "devkit"),
        verbose=False,
    )
    expected = devkit.main(plot_examples=0, render_curves=False)
    # Every box scores 1, so the order among equals decides a little: perfect boxes get 0.494 in FACTS.
    assert summary["mean_ap"] == pytest.approx(0.494, abs=0.002)
    assert summary["mean_ap"] == pytest.approx(expected["mean_ap"], abs=1e-6)
    assert summary["nd_score"] == pytest.approx(expected["nd_score"], abs=1e-6)
    errors = summary["label_tp_errors"]["car"]
    assert errors["trans_err"] < 1e-4
    assert errors["scale_err"] < 1e-4
    assert errors["orient_err"] < 1e-3
    for name, value in expected["tp_errors"].items():
        assert summary["tp_errors"][name] == pytest.approx(value, abs=1e-6)
