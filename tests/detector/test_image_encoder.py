import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from aqr.config import ImageEncoder as ImageEncoderConfig
from aqr.detector.image_encoder import ImageEncoder, ImageNeck, build_backbone, stated
from aqr.errors import InputError

RESNET = {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "layer_type": "basic"}
BACKBONES: dict[str, dict[str, Any]] = {
    "resnet": RESNET,
    "convnext": {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]},
    "swin": {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 4},
    "dinov2": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2},
}


@pytest.mark.parametrize("backbone", BACKBONES)
def test_any_backbone_gives_one_map_of_stride_16(backbone: str) -> None:
    config = ImageEncoderConfig(backbone=backbone, options=BACKBONES[backbone])
    encoder = ImageEncoder(config, 12).eval()
    images = torch.randint(0, 256, (2, 3, 3, 64, 96), dtype=torch.uint8)
    maps = encoder(images)
    assert maps.shape == (2, 3, 12, 4, 6)
    one = encoder(images[1:, 2:])
    torch.testing.assert_close(maps[1:, 2:], one, atol=1e-5, rtol=1e-4)


def test_images_reach_the_backbone_normalised() -> None:
    encoder = ImageEncoder(ImageEncoderConfig(options=RESNET), 4).eval()
    seen = []
    encoder.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    encoder(torch.tensor([255, 0, 128], dtype=torch.uint8)[:, None, None].expand(1, 1, 3, 32, 32))
    expected = [(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (128 / 255 - 0.406) / 0.225]
    torch.testing.assert_close(seen[0][0, :, 5, 7], torch.tensor(expected))


def test_neck_adds_what_lies_at_the_same_place() -> None:
    neck = ImageNeck([1, 1, 1], 1)
    for conv in neck.laterals:
        nn.init.ones_(conv.weight)
        nn.init.zeros_(conv.bias)
    nn.init.dirac_(neck.out.weight)
    nn.init.zeros_(neck.out.bias)
    fine, same, coarse = torch.rand(1, 1, 4, 8), torch.rand(1, 1, 2, 4), torch.rand(1, 1, 1, 2)
    out = neck([fine, same, coarse], (2, 4))
    for row in range(2):
        for column in range(4):
            block = fine[0, 0, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].mean()
            expected = block + same[0, 0, row, column] + coarse[0, 0, row // 2, column // 2]
            torch.testing.assert_close(out[0, 0, row, column], expected)


def test_frozen_norms_keep_their_statistics() -> None:
    images = torch.randint(0, 256, (1, 1, 3, 64, 64), dtype=torch.uint8)
    for freeze in (True, False):
        encoder = ImageEncoder(ImageEncoderConfig(options=RESNET, freeze_norm=freeze), 4).train()
        norms = [m for m in encoder.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
        encoder(images)
        assert all(bool((norm.running_mean == 0).all()) == freeze for norm in norms)


def test_pretrained_weights_come_from_a_folder(tmp_path: Path) -> None:
    torch.manual_seed(1)
    saved, _ = build_backbone(ImageEncoderConfig(options=RESNET))
    saved.save_pretrained(tmp_path)
    torch.manual_seed(2)
    loaded, channels = build_backbone(ImageEncoderConfig(pretrained=str(tmp_path)))
    assert channels == [16, 16]
    assert all(torch.equal(a, b) for a, b in zip(saved.parameters(), loaded.parameters(), strict=True))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_stated_architecture_is_built_without_its_weights(backbone: str, tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    build_backbone(ImageEncoderConfig(backbone=backbone, options=BACKBONES[backbone]))[0].save_pretrained(folder)
    config = ImageEncoderConfig(pretrained=str(folder), freeze_norm=True)
    written = yaml.safe_dump(stated(config).model_dump(mode="json"))
    trained = ImageEncoder(config, 12)
    shutil.rmtree(folder)
    read = ImageEncoderConfig.model_validate(yaml.safe_load(written))
    assert (read.backbone, read.pretrained, read.freeze_norm) == (backbone, str(folder), True)
    again = ImageEncoder(read.model_copy(update={"pretrained": None}), 12)
    again.load_state_dict(trained.state_dict())
    images = torch.randint(0, 256, (1, 1, 3, 64, 96), dtype=torch.uint8)
    torch.testing.assert_close(again.eval()(images), trained.eval()(images), rtol=0, atol=0)


def test_settings_without_pretrained_weights_are_stated_already() -> None:
    for config in (
        ImageEncoderConfig(options=RESNET),
        ImageEncoderConfig(backbone="timm:resnet18", pretrained="timm"),
    ):
        assert stated(config) == config
    with pytest.raises(InputError, match=r"detector\.image\.pretrained: '/nowhere/at/all'"):
        stated(ImageEncoderConfig(pretrained="/nowhere/at/all"))


def test_what_the_hub_says_on_the_way_to_an_error_is_not_heard(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hub = logging.getLogger("huggingface_hub")
    level = hub.level

    def unreachable(_: str) -> None:
        logging.getLogger("huggingface_hub.utils._http").warning("Retrying in 1s [Retry 1/5].")
        raise OSError("the hub cannot be reached")

    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", unreachable)
    for ask in (stated, build_backbone):
        with pytest.raises(InputError, match="the hub cannot be reached"):
            ask(ImageEncoderConfig(pretrained="someone/weights"))
    assert not caplog.records
    assert hub.level == level


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"backbone": "no-such-net"}, "no-such-net"),
        ({"backbone": "bert"}, "bert"),
        ({"backbone": "resnet", "options": {"depths": 3}}, "depths"),
        ({"pretrained": "/nowhere/at/all"}, "/nowhere/at/all"),
        ({"backbone": "timm:resnet18"}, "timm"),
    ],
)
def test_a_wrong_setting_is_named(config: dict[str, Any], named: str) -> None:
    if named == "timm":
        utils = pytest.importorskip("transformers.utils")
        if utils.is_timm_available():
            pytest.skip("timm is installed")
    with pytest.raises(InputError, match=named):
        build_backbone(ImageEncoderConfig(**config))
