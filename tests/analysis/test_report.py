"""The report's files, its languages, and what wrong input is told."""

import ast
import base64
import json
import string
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.analysis.logs import small_log
from tests.analysis.test_other_logs import run_folder

import aqr.analysis
from aqr.analysis import analyze
from aqr.analysis.language import LOCALE, Translator, compile_catalogue, parse_catalogue, text
from aqr.analysis.markdown import markdown_report
from aqr.analysis.tables import shown_number
from aqr.errors import InputError

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "clamp2.5_residual0.6.log"
    path.write_text(small_log(), encoding="utf-8")
    return path


def test_report_json_has_the_agreed_shape(log: Path, tmp_path: Path) -> None:
    other = run_folder(tmp_path / "plain", aqr=False)
    analyze([log], baseline=other, out=tmp_path / "out")
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    run = report["runs"][0]
    assert run.keys() >= {"name", "source", "config", "training", "evaluation", "aqr"}
    assert run["config"].keys() >= {"enable_aqr", "max_weight_clamp", "residual_weight"}
    assert run["training"].keys() >= {
        "iterations", "loss_first", "loss_last", "step_time_median_s", "memory_max_mb", "nonfinite_grad_iterations",
    }  # fmt: skip
    assert run["evaluation"].keys() >= {"mAP", "NDS", "mATE", "mASE", "mAOE", "mAVE", "mAAE", "per_class"}
    assert run["evaluation"]["per_class"]["car"].keys() >= {"AP", "ATE", "ASE", "AOE", "AVE", "AAE"}
    snapshot = run["aqr"]["snapshots"][0]
    assert snapshot.keys() >= {
        "forward",
        "ranks",
        "lidar_weights",
        "camera_weights",
        "weight_map_bev",
        "weight_map_pers",
    }
    assert snapshot["lidar_weights"].keys() >= {"mean", "mean_rank_std", "min", "max"}
    assert snapshot["modulation_pers"]["relative_change"] > 0
    assert report["comparisons"][0].keys() >= {
        "run", "baseline", "mAP_delta", "NDS_delta", "per_class_AP_delta", "step_time_ratio", "memory_ratio",
        "loss_first_delta",
    }  # fmt: skip
    assert report["findings"][0].keys() >= {"id", "severity", "title", "detail", "evidence"}
    assert report["recommendations"][0].keys() >= {
        "name", "max_weight_clamp", "residual_weight", "theoretical_max", "predicted_camera_relative_change", "reason",
    }  # fmt: skip
    assert len(report["verdict"]) == 3


def test_what_is_not_stated_is_null(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("Epoch [1][50/100]\tloss: 1.5000\n")
    run = analyze([path], out=tmp_path / "out").data["runs"][0]
    assert run["evaluation"] is None
    assert run["training"]["step_time_median_s"] is None
    assert run["training"]["memory_max_mb"] is None
    assert run["config"]["enable_aqr"] is None
    assert all(value is None for value in run["config"].values())


def test_demo_call(tmp_path: Path) -> None:
    (tmp_path / "bird_eye.png").write_bytes(PNG)
    summary = {"mean_ap": 0.001, "nd_score": 0.02, "tp_errors": {"trans_err": 1.0}, "eval_time": 1.0}
    report = analyze(
        [run_folder(tmp_path / "with-aqr")],
        baseline=run_folder(tmp_path / "without-aqr", aqr=False),
        out=tmp_path / "out",
        pictures=[tmp_path / "bird_eye.png"],
        extra_rows={"untrained": summary},
    )
    page = report.html.read_text(encoding="utf-8")
    assert base64.b64encode(PNG).decode() in page
    assert "bird eye" in page
    assert report.data["extra_rows"] == [{"name": "untrained", "mAP": 0.001, "NDS": 0.02, "mATE": 1.0}]
    assert "| untrained | 0.0010 | 0.0200 | 1.0000 |" in report.markdown.read_text(encoding="utf-8")
    assert report.verdict.startswith("With AQR mAP is 0.3000, without it 0.3000")
    comparison = report.data["comparisons"][0]
    assert comparison["like_for_like"] is True


def test_page_needs_nothing_from_outside(log: Path, tmp_path: Path) -> None:
    page = analyze([log], out=tmp_path / "out").html.read_text(encoding="utf-8")
    body = page[page.index("</script>") :]
    assert not any(word in body for word in ("http://", "https://", 'src="/', "@import", "url("))


def test_names_are_escaped(tmp_path: Path) -> None:
    path = tmp_path / "<img src=x onerror=alert(1)>.log"
    path.write_text(small_log(), encoding="utf-8")
    page = analyze([path], out=tmp_path / "out").html.read_text(encoding="utf-8")
    assert "<img src=x" not in page
    hostile = tmp_path / "b.log"
    hostile.write_text(small_log().replace("d0.loss_cls", "</script><script>alert(1)//loss"), encoding="utf-8")
    assert "<script>alert(1)" not in analyze([hostile], out=tmp_path / "out").html.read_text(encoding="utf-8")


def test_two_runs_of_one_name(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "train.log").write_text(small_log(), encoding="utf-8")
    data = analyze([tmp_path / "a" / "train.log", tmp_path / "b" / "train.log"], out=tmp_path / "out").data
    assert [run["name"] for run in data["runs"]] == ["train", "train (2)"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"runs": []}, "no run is given"),
        ({"lang": "fr"}, "language 'fr' is not known; use one of en, zh"),
        ({"reference_metrics": {"map": 0.6}}, "metric 'map' is not known; use mAP, NDS"),
        ({"reference_metrics": {"mAP": 67.9}}, r"mAP 67\.9 is no fraction; write 67\.9 % as 0\.679"),
        ({"extra_rows": {"x": {"AP": 1.0}}}, "x: metric 'AP' is not known"),
        ({"pictures": ["nowhere.png"]}, r"nowhere\.png: cannot be read"),
        ({"baseline": "nowhere"}, "nowhere: is not there"),
        ({"out": "/proc/report"}, "/proc/report: cannot be made"),
    ],
)
def test_wrong_input(log: Path, tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"runs": [log], "out": tmp_path / "out", **wrong}
    with pytest.raises(InputError, match=message):
        analyze(arguments.pop("runs"), **arguments)


def test_picture_that_is_none(log: Path, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("no picture")
    with pytest.raises(InputError, match=r"x\.png: is no PNG picture"):
        analyze([log], out=tmp_path / "out", pictures=[tmp_path / "x.png"])


def test_starts_without_torch_and_fast_modules_only(log: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from aqr.analysis import analyze; "
        f"analyze([{str(log)!r}], out={str(tmp_path / 'out')!r}); "
        "print([name for name in ('torch', 'lightning', 'transformers', 'matplotlib', 'tensorboard', 'plotly') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def templates() -> Iterator[str]:
    """Every text in the sources that is shown through the catalogues."""
    for path in sorted(Path(aqr.analysis.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
                continue
            shown = (
                node.args[:1]
                if node.func.id in ("text", "t")
                else node.args[1:3]
                if node.func.id == "layout_of"
                else []
            )
            for argument in shown:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str) and argument.value:
                    yield argument.value


FIELD_NAMES = {"AP", "residual_weight", "max_weight_clamp", "grad_norm"}
CHINESE = parse_catalogue((LOCALE / "zh_CN" / "LC_MESSAGES" / "aqr.po").read_text(encoding="utf-8"))


def test_every_text_has_its_translation() -> None:
    shown = set(templates())
    assert len(shown) > 200
    assert shown - FIELD_NAMES <= CHINESE.keys()


def test_translations_hold_the_same_values() -> None:
    def fields(template: str) -> list[tuple[str, str]]:
        parsed = string.Formatter().parse(template)
        return sorted((name, spec or "") for _, name, spec, _ in parsed if name is not None)

    for english, chinese in CHINESE.items():
        if english:
            assert fields(english) == fields(chinese), english


def test_chinese_report_has_the_same_figures(log: Path, tmp_path: Path) -> None:
    english = analyze([log], out=tmp_path / "en").data
    report = analyze([log], out=tmp_path / "zh", lang="zh")
    assert report.data["runs"] == english["runs"]
    assert [one["evidence"] for one in report.data["findings"]] == [one["evidence"] for one in english["findings"]]
    for one in report.data["findings"]:
        assert any("\u4e00" <= letter <= "\u9fff" for letter in one["title"] + one["detail"])
    assert "去噪查询" in report.html.read_text(encoding="utf-8")
    assert "## 发现" in report.markdown.read_text(encoding="utf-8")


def test_catalogue_survives_the_binary_form() -> None:
    import gettext
    import io

    catalogue = gettext.GNUTranslations(io.BytesIO(compile_catalogue(CHINESE)))
    for english, chinese in CHINESE.items():
        if english:
            assert catalogue.gettext(english) == chinese
    assert catalogue.gettext("not in it") == "not in it"


def test_a_title_that_asks_gets_no_full_stop(log: Path, tmp_path: Path) -> None:
    data = analyze([log], out=tmp_path / "out").data
    first = {**data["findings"][0], "title": "A leak?", "detail": "Perhaps."}
    shown = markdown_report({**data, "findings": [first, {**first, "title": "A leak"}]}, Translator("en"))
    assert "A leak?** Perhaps." in shown
    assert "A leak**. Perhaps." in shown


def test_no_negative_zero() -> None:
    assert [shown_number(value, 2, sign=True) for value in (-0.001, -0.009, 0.004)] == ["0.00", "−0.01", "0.00"]


def test_negative_numbers_have_a_minus_sign() -> None:
    shown = Translator("en").show(text("{value:+.1f} and {name}", value=-1.25, name="a-b"))
    assert shown == "−1.2 and a-b"
