from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from aqr import config as configuration
from aqr.config import PRESETS, Config
from aqr.errors import InputError

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


def write(folder: Path, text: str, name: str = "run.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_shipped_configs_are_valid(path: Path) -> None:
    configuration.load(path)


def test_the_resolved_file_gives_the_same_config_back(tmp_path: Path) -> None:
    for path in CONFIGS:
        resolved = configuration.load(path)
        assert configuration.load(write(tmp_path, resolved.to_yaml())) == resolved


def test_a_file_states_only_what_differs(tmp_path: Path) -> None:
    loaded = configuration.load(write(tmp_path, "aqr: {renderer: {max_weight_clamp: 2.5}}"))
    assert loaded.aqr.renderer.max_weight_clamp == 2.5
    assert loaded.aqr.renderer.gaussian_sigma == Config().aqr.renderer.gaussian_sigma
    assert configuration.load(write(tmp_path, "")) == Config()


def test_overrides_win_over_the_file_and_the_file_over_its_base(tmp_path: Path) -> None:
    write(tmp_path, "seed: 1\ntrain: {steps: 10, lr: 0.5}\n", "base.yaml")
    path = write(tmp_path, "base: base.yaml\ntrain: {steps: 20}\n")
    loaded = configuration.load(path, ["train.grad_clip=3", "sensors.cameras=[CAM_FRONT]"])
    assert (loaded.seed, loaded.train.steps, loaded.train.lr, loaded.train.grad_clip) == (1, 20, 0.5, 3.0)
    assert loaded.sensors.cameras == ("CAM_FRONT",)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_set_clamp_and_residual_and_open_the_gate(name: str) -> None:
    aqr = configuration.parse({"aqr": {"preset": name}}).aqr
    assert (aqr.renderer.max_weight_clamp, aqr.modulator.residual_weight) == PRESETS[name]
    assert not aqr.modulator.gate
    assert aqr.parameterisation == "sigmoid"


def test_what_stands_beside_a_preset_wins() -> None:
    aqr = configuration.parse({"aqr": {"preset": "A", "modulator": {"residual_weight": 0.9}}}).aqr
    assert aqr.modulator.residual_weight == 0.9
    assert aqr.renderer.max_weight_clamp == 2.0


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("aqr: {modulator: {residual_weight: 1.6}}", ["aqr.modulator.residual_weight", "1.6", "less than or equal"]),
        ("aqr: {modulatr: {}}", ["unknown key aqr.modulatr", "modulator"]),
        ("colour: red", ["unknown key colour", "sensors"]),
        ("aqr: {renderer: {max_weight_clamp: 0.5}}", ["aqr.renderer.max_weight_clamp", "0.5"]),
        ("aqr: {renderer: {max_weight_clamp: .nan}}", ["aqr.renderer.max_weight_clamp"]),
        ("aqr: {router: {window_sizes: [4, 9]}}", ["aqr.router", "[4, 9]", "odd"]),
        ("aqr: {preset: Z}", ["aqr", "unknown preset 'Z'", "seed-2.5-0.6"]),
        ("sensors: {lidar: false, cameras: []}", ["sensors", "at least one camera"]),
        ("detector: {hidden_dim: 100, num_heads: 8}", ["detector", "multiple of num_heads"]),
        ("detector: {pc_range: [0, 0, 0, 1, 1, 0]}", ["detector", "empty"]),
        ("detector: {hidden_dim: 40}\naqr: {router: {num_heads: 3}}", ["hidden_dim 40", "aqr.router.num_heads 3"]),
        ("detector: {lidar: {strides: [3, 2, 2]}}", ["detector.lidar", "[3, 2, 2]", "out_stride 4"]),
        ("detector: {lidar: {pillars: [500, 512]}}", ["detector.lidar", "[500, 512]", "strides [2, 2, 2]"]),
        ("detector: {lidar: {channels: [], blocks: [], strides: []}}", ["detector.lidar", "one stage at least"]),
        ("data: {bev: {scale: [1.1, 0.9]}}", ["data.bev", "[1.1, 0.9]", "backwards"]),
        ("data: {image: {size: [100, 800]}}", ["data.image", "multiples of 32"]),
        ("train: {steps: many}", ["train.steps", "'many'"]),
        ("- a\n- b", ["list"]),
        ("a: [1", ["not valid YAML", "line"]),
        ("base: nowhere.yaml", ["nowhere.yaml", "cannot be read"]),
        ("base: run.yaml", ["names a base itself"]),
    ],
)
def test_a_wrong_setting_is_named_in_one_sentence(tmp_path: Path, text: str, parts: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        configuration.load(write(tmp_path, text))
    sentence = str(caught.value)
    assert "\n" not in sentence
    for part in [*parts, ".yaml"]:
        assert part in sentence


@pytest.mark.parametrize("override", ["steps", "=3", "train.steps=[1"])
def test_a_malformed_override_is_refused(tmp_path: Path, override: str) -> None:
    with pytest.raises(InputError, match="override"):
        configuration.load(write(tmp_path, ""), [override])


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from([*Config.model_fields, "lidar", "loss", "preset", "x"]), inner, max_size=3
            )
        ),
        max_leaves=6,
    )
)
def test_anything_in_a_section_is_a_config_or_a_sentence(value: object) -> None:
    for section in Config.model_fields:
        complaint = ""
        try:
            configuration.parse({section: value})
        except InputError as error:
            complaint = str(error)
        assert not complaint or section in complaint


def test_a_router_that_is_off_may_have_any_number_of_heads() -> None:
    configuration.parse({"detector": {"hidden_dim": 40}, "aqr": {"enabled": False, "router": {"num_heads": 3}}})


def test_defaults_are_written_out() -> None:
    assert configuration.parse(yaml.safe_load(Config().to_yaml())) == Config()


def test_a_preset_given_later_replaces_the_settings_of_a_resolved_config(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(configuration.parse({"aqr": {"preset": "A"}}).to_yaml(), encoding="utf-8")
    aqr = configuration.load(path, ["aqr.preset=B", "aqr.modulator.residual_weight=0.5"]).aqr
    assert aqr.renderer.max_weight_clamp == 2.2
    assert aqr.modulator.residual_weight == 0.5
    assert not aqr.modulator.gate
