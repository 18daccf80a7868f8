"""The configs named after CMT's."""

from pathlib import Path

import pytest

from aqr.config import PRESETS, load

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
BASES = {
    "cmt_voxel0100_r50_800x320": ("resnet50", 0.1, (41, 1024, 1024), (320, 800), 4),
    "cmt_voxel0075_vov_1600x640": ("vovnet99", 0.075, (41, 1440, 1440), (640, 1600), 2),
}


@pytest.mark.parametrize("name", BASES)
def test_a_config_is_cmts(name: str) -> None:
    config = load(CONFIGS / f"{name}.yaml")
    cmt = config.detector.cmt
    size = config.data.image.size
    assert (cmt.image_backbone, cmt.voxel_size[0], cmt.sparse_shape, size, config.data.batch_size) == BASES[name]
    assert config.detector.style == "cmt"
    assert not config.aqr.enabled
    assert config.data.cbgs
    assert config.data.sweeps == 10


@pytest.mark.parametrize("preset", ["A", "B", "C"])
@pytest.mark.parametrize("name", BASES)
def test_a_variant_differs_in_aqr_alone(name: str, preset: str) -> None:
    base, variant = load(CONFIGS / f"{name}.yaml"), load(CONFIGS / f"{name}_aqr_{preset.lower()}.yaml")
    assert variant.train.lr_mult == {**base.train.lr_mult, "aqr": 100.0}
    train = variant.train.model_copy(update={"lr_mult": base.train.lr_mult})
    assert variant.model_copy(update={"aqr": base.aqr, "train": train}) == base
    assert variant.aqr.enabled
    settings = variant.aqr.renderer.max_weight_clamp, variant.aqr.modulator.residual_weight
    assert settings == PRESETS[preset]
    assert variant.aqr.modulator.gate


def test_precision_may_be_written_as_a_number() -> None:
    assert load(CONFIGS / "cmt_voxel0100_r50_800x320.yaml", ["train.precision=32"]).train.precision == "32"
