"""The experiment on adaptive settings: its arms are valid, and what it derives from a study is right."""

import json
from pathlib import Path

import numpy as np
from benchmarks.adaptive.arms import NAMED_A, SMALL, arms
from benchmarks.adaptive.balance import SEARCH, on_test

from aqr.config import parse
from aqr.sweep import parse_search
from aqr.taxonomy import CLASSES


def test_every_arm_is_a_config_and_stands_beside_another(tmp_path: Path) -> None:
    known = arms(10)
    for name, arm in known.items():
        aqr = parse({"aqr": arm.aqr()}).aqr
        assert not aqr.modulator.gate, name
        assert arm.beside is None or arm.beside in known
        if name.startswith("by-class"):
            assert arm.beside == NAMED_A
            residuals = aqr.modulator.class_residuals
            assert residuals is not None
            others = {r for r, kind in zip(residuals, CLASSES, strict=True) if kind not in SMALL}
            assert others == {0.7}
    assert parse({"aqr": known["by-class-alike"].aqr()}).aqr.modulator.class_residuals == (0.7,) * 10
    path = tmp_path / "fixed.yaml"
    path.write_text("aqr: {modulator: {gate: false}}\n")
    assert [dimension.key for dimension in parse_search(path, (), SEARCH)] == list(SEARCH)


def test_the_study_on_test_has_its_own_front(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    trials = [
        {
            "number": number,
            "values": {"mAP": 0.1, "resistance": 0.5},
            "scores": {"test_mAP": float(rng.random()), "test_resistance": float(rng.random())},
        }
        for number in range(30)
    ]
    trials.append({"number": 30, "values": None, "scores": {}})
    (tmp_path / "study.json").write_text(
        json.dumps({"name": "balance", "objectives": ["mAP", "resistance"], "trials": trials, "best": []})
    )
    on_test(tmp_path / "study.json", tmp_path / "test")
    found = json.loads((tmp_path / "test" / "study.json").read_text())
    points = np.array([[t["scores"]["test_mAP"], t["scores"]["test_resistance"]] for t in trials[:30]])
    order = np.argsort(-points[:, 0])
    front, highest = [], -1.0
    for number in order:
        if points[number, 1] > highest:
            front.append(int(number))
            highest = points[number, 1]
    assert found["best"] == sorted(front)
    assert found["trials"][3]["values"] == {"mAP": points[3, 0], "resistance": points[3, 1]}
