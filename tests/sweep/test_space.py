"""What can be searched, and the sentence about what cannot."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from aqr.errors import InputError
from aqr.sweep import SweepSettings, load_settings, parse_search
from aqr.sweep.space import _yaml, with_values


@given(value=st.floats(1e-12, 1e12, allow_nan=False) | st.integers(-5, 5) | st.booleans() | st.text(max_size=8))
def test_values_come_through_yaml_as_they_are(value: Any) -> None:
    read = yaml.safe_load(_yaml(value))
    assert read == value
    assert type(read) is type(value)


def test_kinds_follow_from_the_schema(config: Path) -> None:
    search = {
        "aqr.renderer.max_weight_clamp": "1..3",
        "train.lr": "1e-5..1e-3:log",
        "detector.num_layers": "1..6",
        "aqr.parameterisation": "sigmoid,centered",
        "aqr.modulator.gate": [True, False],
        "aqr.preset": "A,B,C",
    }
    found = {dimension.key: dimension for dimension in parse_search(config, (), search)}
    assert [found[key].kind for key in search] == ["float", "float", "int", "choice", "choice", "choice"]
    assert found["train.lr"].log
    assert found["aqr.modulator.gate"].choices == (True, False)
    assert found["aqr.preset"].choices == ("A", "B", "C")
    changed = with_values(config, ("seed=3",), {"train.lr": 1e-5, "detector.num_layers": 2, "aqr.preset": "B"})
    assert (changed.train.lr, changed.detector.num_layers, changed.seed) == (1e-5, 2, 3)
    assert changed.aqr.renderer.max_weight_clamp == 2.2


def test_a_residual_of_a_class_can_be_searched(config: Path) -> None:
    override = ("aqr.modulator.residual_weight={default: 0.7}",)
    (dimension,) = parse_search(config, override, {"aqr.modulator.residual_weight.bicycle": "0.6..0.95"})
    assert dimension.kind == "float"
    changed = with_values(config, override, {dimension.key: 0.8})
    assert changed.aqr.modulator.residual_weight == {"default": 0.7, "bicycle": 0.8}


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ({}, "nothing is to be searched"),
        ({"aqr.renderer.clamp": "1..2"}, "unknown key aqr.renderer.clamp"),
        ({"aqr.renderer.max_weight_clamp": "0.5..2"}, "greater than or equal to 1"),
        ({"aqr.renderer.max_weight_clamp": "3..2"}, "runs backwards"),
        ({"aqr.renderer.max_weight_clamp": "a..2"}, "no range of numbers"),
        ({"aqr.modulator.residual_weight": "0..0.5:log"}, "above 0"),
        ({"detector.num_layers": "1.5..3"}, "whole numbers"),
        ({"aqr.parameterisation": "sigmoid,tanh"}, "aqr.parameterisation"),
        ({"aqr.parameterisation": "sigmoid"}, "two or more different values"),
        ({"aqr.router.window_sizes": [[5, 9], [3, 7]]}, "neither a number nor a word"),
    ],
)
def test_what_cannot_be_searched_is_refused_in_one_sentence(config: Path, search: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_search(config, (), search)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_space_file_is_read_and_options_win(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("sweep: {search: {train.lr: 1e-5..1e-3:log}, objective: [mAP, NDS], trials: 7}\n")
    assert load_settings(path) == SweepSettings(
        search={"train.lr": "1e-5..1e-3:log"}, objective=("mAP", "NDS"), trials=7
    )
    assert load_settings(path, trials=3, objective=None).trials == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("search: {}\n", "one section `sweep:`"),
        ("sweep: {trails: 3}\n", "sweep.trails: is not known"),
        ("sweep: {objective: [mAp]}\n", "sweep.objective"),
        ("sweep: {objective: [mAP, NDS], pruner: median}\n", "single objective"),
        ("sweep: {trials: 0}\n", "sweep.trials"),
        ("sweep: [\n", "not valid YAML"),
    ],
)
def test_a_space_file_that_cannot_be_used(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_settings(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
