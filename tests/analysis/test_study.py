"""Reports on studies: what study.json says is found again, and the page says how sure it is."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aqr.analysis import analyze, read_run, whatif
from aqr.errors import InputError

CLAMP = "aqr.renderer.max_weight_clamp"
RESIDUAL = "aqr.modulator.residual_weight"


def write(folder: Path, noise: float = 0.003, count: int = 40, **changes: Any) -> Path:
    """A study of a known surface: highest at A, clamp 2.0 and residual 0.7."""
    rng = np.random.default_rng(0)
    trials = []
    for number in range(count):
        clamp, residual = float(rng.uniform(1.2, 3.0)), float(rng.uniform(0.3, 0.95))
        score = 0.5 - 0.02 * (clamp - 2.0) ** 2 - 0.8 * (residual - 0.7) ** 2 + float(rng.normal(0, noise))
        trials.append(
            {
                "number": number,
                "state": "complete",
                "params": {CLAMP: clamp, RESIDUAL: residual},
                "values": {"mAP": score},
                "error": None,
            }
        )
    trials.append({"number": count, "state": "pruned", "params": {}, "values": None, "error": None})
    trials.append({"number": count + 1, "state": "failed", "params": {}, "values": None, "error": "not finite; stop"})
    best = [max(trials[:count], key=lambda trial: trial["values"]["mAP"])["number"]] if count else []
    content = {
        "format": "aqr-study-1",
        "name": "balance",
        "objectives": ["mAP"],
        "search": [
            {"key": CLAMP, "kind": "float", "low": 1.2, "high": 3.0, "log": False},
            {"key": RESIDUAL, "kind": "float", "low": 0.3, "high": 0.95, "log": False},
        ],
        "config": {"aqr": {"modulator": {"gate": False}}},
        "trials": trials,
        "best": best,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.json").write_text(json.dumps(content | changes))
    return folder


def findings(data: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["id"]: one for one in data["findings"]}


def test_the_optimum_and_its_comparison_with_a_b_c(tmp_path: Path) -> None:
    report = analyze([write(tmp_path / "sweep")], out=tmp_path / "out")
    found = findings(report.data)
    optimum = found["study.optimum"]["evidence"]
    assert optimum["optimum"][RESIDUAL] == pytest.approx(0.7, abs=0.02)
    low, high = optimum["intervals"][RESIDUAL]
    assert low < 0.7 < high
    assert high - low < 0.06
    assert optimum["noise"] == pytest.approx(0.003, rel=0.3)
    assert found["study.importance"]["evidence"]["importance"][RESIDUAL] > 0.8
    # Nothing may be claimed against A, which is the best there is.
    versus = found["study.against-presets"]["evidence"]["versus"]
    assert versus["A"][1] < 0 < versus["A"][2]
    assert "not clearly better than" in found["study.against-presets"]["title"]
    assert found["study.failed-trials"]["evidence"]["trials"] == [41]
    assert "study.optimum-at-edge" not in found
    assert report.verdict.startswith("The best of 40 complete trials is number")
    page, text = report.html.read_text(), report.markdown.read_text()
    for name in ("study-surface", "study-slices", "study-progress"):
        assert f'id="{name}"' in page
    assert "## Best trials of study balance" in text
    assert json.loads(report.json.read_text())["studies"][0]["surfaces"]["mAP"]["trials"] == 40


def test_noise_is_called_noise(tmp_path: Path) -> None:
    report = analyze([write(tmp_path / "sweep", noise=1.0)], out=tmp_path / "out")
    found = findings(report.data)
    assert "study.no-signal" in found
    assert not {"study.optimum", "study.importance", "study.optimum-at-edge"} & found.keys()
    assert "do not explain mAP" in report.verdict


def test_an_optimum_at_the_end_of_a_range_is_said(tmp_path: Path) -> None:
    folder = write(tmp_path / "sweep")
    content = json.loads((folder / "study.json").read_text())
    content["trials"] = [t for t in content["trials"] if not t["values"] or t["params"][RESIDUAL] < 0.55]
    content["search"][1]["high"] = 0.55
    content["best"] = []
    (folder / "study.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="damaged"):
        analyze([write(tmp_path / "other", best=[999])], out=tmp_path / "out")
    content["best"] = [max((t for t in content["trials"] if t["values"]), key=lambda t: t["values"]["mAP"])["number"]]
    (folder / "study.json").write_text(json.dumps(content))
    found = findings(analyze([folder], out=tmp_path / "out").data)
    assert found["study.optimum-at-edge"]["evidence"]["edges"] == [RESIDUAL]
    assert found["study.against-presets"]["title"] == "A, B and C lie outside the searched region"


def test_an_extrapolated_optimum_has_neither_interval_nor_advantage(tmp_path: Path) -> None:
    folder = write(tmp_path / "sweep")
    content = json.loads((folder / "study.json").read_text())
    content["trials"] = [t for t in content["trials"] if not t["values"] or t["params"][CLAMP] > 2.6]
    for trial in content["trials"]:
        if trial["values"]:
            trial["values"]["mAP"] = 0.6 - 0.1 * trial["params"][CLAMP] - (trial["params"][RESIDUAL] - 0.7) ** 2
    content["trials"][-1] |= {"error": None}
    content["best"] = [max((t for t in content["trials"] if t["values"]), key=lambda t: t["values"]["mAP"])["number"]]
    (folder / "study.json").write_text(json.dumps(content))
    report = analyze([folder], out=tmp_path / "out")
    found = findings(report.data)
    assert "study.optimum" not in found
    assert not {"study.against-presets", "study.optimum-at-edge"} & found.keys()
    one = found["study.optimum-extrapolated"]
    assert one["evidence"]["intervals"] == {}
    assert one["evidence"]["value_interval"] is None
    assert "extrapolated" in one["title"]
    assert "extrapolated" in report.verdict
    surface = report.data["studies"][0]["surfaces"]["mAP"]
    assert surface["extrapolated"] is True
    assert all(versus["advantage"] is None for versus in surface["versus"])
    assert surface["slices"][CLAMP]["low"] is None
    assert found["study.failed-trials"]["evidence"]["trials"] == [41]
    assert "none of them left a message" in found["study.failed-trials"]["detail"]
    assert "1 could not be trained" in report.markdown.read_text()


@pytest.mark.parametrize("count", [0, 4])
def test_few_trials_or_none(tmp_path: Path, count: int) -> None:
    report = analyze([write(tmp_path / "sweep", count=count)], out=tmp_path / "out")
    assert "study.too-few-trials" in findings(report.data)
    assert ("no complete trial" if count == 0 else "too few trials") in report.verdict


def test_a_study_beside_a_run_and_in_chinese(tmp_path: Path, shared_dir: Path) -> None:
    log = next((shared_dir / "data" / "logs").glob("aqr*.log"))
    report = analyze([log, write(tmp_path / "sweep")], out=tmp_path / "out", lang="zh")
    assert report.data["main_run"] is not None
    assert "study.optimum" in findings(report.data)
    assert "响应曲面" in report.html.read_text(encoding="utf-8")


def test_several_objectives_show_the_front(tmp_path: Path) -> None:
    folder = write(tmp_path / "sweep")
    content = json.loads((folder / "study.json").read_text())
    content["objectives"] = ["mAP", "resistance"]
    for trial in content["trials"]:
        if trial["values"]:
            trial["values"]["resistance"] = trial["params"][RESIDUAL]
    (folder / "study.json").write_text(json.dumps(content))
    report = analyze([folder], out=tmp_path / "out")
    assert report.verdict.startswith("Of 40 complete trials 1 are beaten by no other in mAP + resistance")
    assert 'id="study-front"' in report.html.read_text()
    edges = [one for one in report.data["findings"] if one["id"] == "study.optimum-at-edge"]
    assert [one["evidence"]["objective"] for one in edges] == ["resistance"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "other"}', '{"format": "aqr-study-1", "name": "x"}'])
def test_a_damaged_study_is_one_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "study.json").write_text(content)
    with pytest.raises(InputError, match=r"study\.json") as caught:
        analyze([tmp_path / "study.json"], out=tmp_path / "out")
    assert "\n" not in str(caught.value)


def moved_run(folder: Path, stopped: bool) -> Path:
    folder.mkdir()
    (folder / "config.yaml").write_text(
        "aqr: {enabled: true, renderer: {max_weight_clamp: 2.0}, modulator: {residual_weight: 0.6, gate: false}}\n"
    )
    lines = []
    for place in range(20):
        residual = min(0.6 + 0.01 * place, 0.7)
        change = 0.9 * (1 - residual)
        lines.append(
            {
                "forward": 50 * (place + 1),
                "ranks": 1,
                "settings": {"max_weight_clamp": 2.0 + 0.05 * place, "residual_weight": residual},
                "controller": {"measured": change, "stopped": stopped and place > 15},
                "weight_map_pers": {"mean": 0.1, "std": 0.3, "min": 0.0, "max": 2.0, "clamped_share": 0.0},
                "modulation_pers": {"mean_change": 0, "std_change": 0, "max_change": 1, "relative_change": change},
            }
        )
    (folder / "aqr_stats.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def test_runs_whose_settings_moved_are_told_by_their_last_settings(tmp_path: Path) -> None:
    report = analyze([moved_run(tmp_path / "run", stopped=False)], out=tmp_path / "out")
    found = findings(report.data)
    evidence = found["adaptation.moved"]["evidence"]
    assert evidence["first"]["residual_weight"] == 0.6
    assert evidence["last"]["residual_weight"] == pytest.approx(0.7)
    assert evidence["turns"] == {"max_weight_clamp": 0, "residual_weight": 0}
    assert evidence["share_in_seed_band"] == 1.0
    (run,) = report.data["runs"]
    assert (run["config"]["residual_weight"], run["config_origin"]["residual_weight"]) == (pytest.approx(0.7), "moved")
    assert not {"adaptation.band-out-of-reach", "maps.clamp-not-applied"} & found.keys()
    assert 'id="adaptation"' in report.html.read_text()
    # A forecast of the last settings is the last measurement.
    cells = {(c["max_weight_clamp"], round(c["residual_weight"], 2)): c for c in report.data["whatif"][0]["cells"]}
    assert cells[(3.0, 0.7)]["camera_expected"] == pytest.approx(0.27, abs=1e-9)


def test_a_controller_that_gave_up_is_reported(tmp_path: Path) -> None:
    found = findings(analyze([moved_run(tmp_path / "run", stopped=True)], out=tmp_path / "out").data)
    assert found["adaptation.band-out-of-reach"]["evidence"]["forward"] == 850


def test_a_residual_by_class_is_no_number_to_forecast_from(tmp_path: Path) -> None:
    folder = moved_run(tmp_path / "run", stopped=False)
    (folder / "config.yaml").write_text(
        "aqr: {enabled: true, modulator: {residual_weight: {default: 0.6, bicycle: 0.9}, gate: false}}\n"
    )
    run = read_run(folder)
    assert run.number("residual_weight") is None
    with pytest.raises(InputError, match="known clamp and residual"):
        whatif(run, [2.0], [0.6])
