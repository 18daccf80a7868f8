"""From a `.pth` file to a run folder: nothing left over, nothing run, everything wrong named."""

import json
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from aqr import config as configuration
from aqr.cli import app
from aqr.cmt import convert_cmt, infer_config
from aqr.cmt.checkpoint import CmtCheckpoint, literals, read_checkpoint
from aqr.cmt.keys import TABLE, translate
from aqr.config import parse
from aqr.detector import Detector
from aqr.errors import InputError
from aqr.training.checkpoint import load_weights, read_config

from . import reference

SMALL = """
point_cloud_range = [-54.0, -54.0, -5.0, 54.0, 54.0, 3.0]
voxel_size = [3.375, 3.375, 0.2]
import os
ida_aug_conf = {"resize_lim": (0.47, 0.625), "final_dim": (64, 128), "rand_flip": True}
model = dict(
    type='CmtDetector',
    img_backbone=dict(type='ResNet', depth=50, style='pytorch'),
    pts_voxel_layer=dict(max_num_points=10, max_voxels=(1200, 1600), voxel_size=voxel_size),
    pts_middle_encoder=dict(type='SparseEncoder', sparse_shape=[41, 32, 32]),
    pts_bbox_head=dict(type='CmtHead', bbox_coder=dict(post_center_range=[-61.2, -61.2, -10.0, 61.2, 61.2, 10.0])))
optimizer = make_optimizer(1e-4)
"""


def full_layout(backbone: str = "resnet50", spconv: int = 2, queries: int = 50) -> reference.Shapes:
    images = reference.vovnet_layout() if backbone == "vovnet99" else reference.resnet_layout()
    return {**images, **reference.lidar_layout(spconv), **reference.head_layout(queries)}


@pytest.fixture(scope="module")
def weights() -> reference.State:
    return reference.random_state(full_layout())


@pytest.fixture(scope="module")
def checkpoint(weights: reference.State, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What mmcv writes: weights, the config as text, and an optimizer with a NumPy number among its settings."""
    path = tmp_path_factory.mktemp("cmt") / "epoch_20.pth"
    meta = {"epoch": 20, "iter": 80080, "CLASSES": ("car", "truck"), "config": SMALL, "env_info": "sys.platform: linux"}
    optimizer = {"state": {}, "param_groups": [{"lr": np.float64(1e-4), "params": [0, 1]}]}
    torch.save({"meta": meta, "state_dict": weights, "optimizer": optimizer}, path)
    return path


@pytest.fixture(scope="module")
def converted(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cmt") / "out"
    result = CliRunner().invoke(app, ["convert", "cmt", str(checkpoint), str(out)], catch_exceptions=False)
    assert result.exit_code == 0
    assert "0 not" in result.output
    return out


def test_a_full_checkpoint_converts_with_nothing_left_over(converted: Path, weights: reference.State) -> None:
    report = json.loads((converted / "conversion.json").read_text())
    assert set(report["used"]) == set(weights)
    assert report["ignored"] == []
    final = converted / "checkpoints" / "final.safetensors"
    for config in (configuration.load(converted / "config.yaml"), read_config(final)):
        assert not config.aqr.enabled
        assert config.data.image.size == (64, 128)
        assert config.detector.cmt.sparse_shape == (41, 32, 32)
        assert config.detector.cmt.max_voxels == (1200, 1600)
        assert (config.detector.num_query, config.detector.num_layers) == (50, 6)


def test_the_run_folder_starts_an_aqr_fine_tuning(converted: Path) -> None:
    """`train.init_from` takes all of it, and with AQR on the detector computes what it computes without."""
    config = configuration.load(converted / "config.yaml")
    final = converted / "checkpoints" / "final.safetensors"
    plain, routed = (
        Detector(config.model_copy(update={"aqr": parse({"aqr": aqr}).aqr})).eval()
        for aqr in ({"enabled": False}, {"enabled": True, "preset": "A", "modulator": {"gate": True}})
    )
    report = load_weights(plain, final)
    assert (report.missing, report.unexpected, report.mismatched) == ((), (), ())
    report = load_weights(routed, final)
    assert not report.unexpected
    assert not report.mismatched
    assert report.missing
    assert all(name.startswith("aqr.") for name in report.missing)
    batch = tiny_batch()
    with torch.no_grad():
        one, other = plain(batch).queries, routed(batch).queries
    torch.testing.assert_close(one.logits, other.logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(one.codes, other.codes, atol=1e-3, rtol=0)


def tiny_batch() -> Any:
    from tests.detector.conftest import make_batch

    return make_batch(samples=1, size=(64, 128))


def test_a_converted_run_is_evaluated(converted: Path, world: Path, tmp_path: Path) -> None:
    from aqr.training import evaluate

    summary = evaluate(converted, root=world, version="v1.0-mini", split="mini_val", out=tmp_path / "eval", show=False)
    assert np.isfinite(summary["nd_score"])
    assert (tmp_path / "eval" / "results.json").is_file()


@pytest.mark.parametrize("backbone", ["resnet50", "vovnet99"])
@pytest.mark.parametrize("spconv", [1, 2])
def test_every_key_of_either_backbone_is_known(backbone: str, spconv: int) -> None:
    layout = full_layout(backbone, spconv)
    config = infer_config(CmtCheckpoint(Path("x.pth"), {k: torch.zeros(()).expand(s) for k, s in layout.items()}, ()))
    assert config.detector.cmt.image_backbone == backbone
    size = {"resnet50": ((320, 800), (41, 1024, 1024), 0.1), "vovnet99": ((640, 1600), (41, 1440, 1440), 0.075)}
    expected = size[backbone]
    cmt = config.detector.cmt
    assert (config.data.image.size, cmt.sparse_shape, cmt.voxel_size[0]) == expected
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in Detector(config).state_dict().items()}
    found = translate({name: torch.zeros(()).expand(shape) for name, shape in layout.items()}, shapes)
    assert set(found.used) == set(layout)
    assert (found.unknown, found.misfits, found.missing) == ((), (), ())


def test_every_row_of_the_table_is_needed() -> None:
    names = {**full_layout("resnet50"), **full_layout("vovnet99")}
    from aqr.cmt.keys import _compile

    for source, _, _ in TABLE:
        assert any(_compile(source).fullmatch(name) for name in names), source


def test_keys_that_nobody_knows_are_reported(weights: reference.State, tmp_path: Path) -> None:
    odd = {
        "module." + k: v
        for k, v in {**weights, "img_neck.fpn_convs.7.conv.weight": torch.zeros(3), "ema_decay": 0.9}.items()
    }
    torch.save({"state_dict": odd, "meta": {"config": SMALL}}, tmp_path / "x.pth")
    conversion = convert_cmt(tmp_path / "x.pth", tmp_path / "out")
    assert conversion.ignored == ("img_neck.fpn_convs.7.conv.weight", "ema_decay")
    assert any("img_neck.fpn_convs.7.conv.weight" in line for line in conversion.lines())


def test_what_does_not_fit_is_named(weights: reference.State, tmp_path: Path) -> None:
    path = tmp_path / "x.pth"

    def refusal(state: reference.State, **how: Any) -> str:
        torch.save({"state_dict": state, "meta": {"config": SMALL}}, path)
        with pytest.raises(InputError) as caught:
            convert_cmt(path, tmp_path / "out", **how)
        assert not (tmp_path / "out").exists()
        return str(caught.value)

    without = {k: v for k, v in weights.items() if k != "pts_neck.deblocks.1.0.weight"}
    assert "lidar_encoder.neck.1.0.weight" in refusal(without)
    assert "pts_neck.deblocks.1.0.weight" in refusal({**without, "pts_neck.deblocks.1.0.weight": torch.zeros(2, 2)})
    assert "pts_bbox_head.reference_points.weight" in refusal({"img_backbone.conv1.weight": torch.zeros(3)})
    other = tmp_path / "other.yaml"
    other.write_text("detector: {style: cmt, num_query: 900, cmt: {sparse_shape: [41, 32, 32]}}\n")
    assert "--config" in refusal(weights, config=other)
    assert "none of its" in refusal({"backbone.weight": torch.zeros(3)}, config=other)


def test_a_folder_that_holds_a_run_is_left_alone(checkpoint: Path, converted: Path) -> None:
    before = (converted / "conversion.json").stat().st_mtime_ns
    result = CliRunner().invoke(app, ["convert", "cmt", str(checkpoint), str(converted)])
    assert isinstance(result.exception, InputError)
    assert "name another folder" in str(result.exception)
    assert (converted / "conversion.json").stat().st_mtime_ns == before


class Evil:
    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call, self.arguments


@pytest.mark.parametrize("old", [True, False])
def test_a_checkpoint_that_would_run_code_is_refused_by_name(old: bool, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    path = tmp_path / "evil.pth"
    content = {"state_dict": {"a": torch.zeros(2)}, "meta": Evil(os.system, f"touch {mark}")}
    torch.save(content, path, _use_new_zipfile_serialization=not old)
    with pytest.raises(InputError) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert old or "system" in str(caught.value)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02}q\x00.", b"hello world", pickle.dumps([1, 2])])
def test_files_that_are_no_checkpoints(content: bytes, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"{name}: .*; give the \.pth file"):
        read_checkpoint(path)
    with pytest.raises(InputError, match="does not exist"):
        read_checkpoint(tmp_path / "none.pth")


def test_a_checkpoint_cut_short(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.pth"
    path.write_bytes(checkpoint.read_bytes()[:-1000])
    with pytest.raises(InputError, match="cut short"):
        read_checkpoint(path)


def test_configs_are_parsed_and_never_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    text = (
        f"open({str(mark)!r}, 'w')\na = 1\nb = dict(c=a, d=open({str(mark)!r}, 'w'))\ne = [-1.5, (2, 'x')]\nf = a + 1\n"
    )
    assert literals(text) == {"a": 1, "b": {"c": 1, "d": None}, "e": [-1.5, [2, "x"]]}
    assert not mark.exists()
    assert literals("def (") == {}
    assert literals("a = " + "(" * 5000) == {}


def test_conversion_needs_no_mmcv(converted: Path) -> None:
    assert converted.is_dir()
    assert not {"mmcv", "mmdet", "mmdet3d"} & set(sys.modules)
