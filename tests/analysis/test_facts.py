"""The two real logs: every figure of theirs that is known, and every wrong conclusion that was drawn from them."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aqr.analysis import analyze

AQR, NONE = "aqr_clamp2.5_residual0.6", "no_aqr"
REFERENCE = {"mAP": 0.679, "NDS": 0.708}


@pytest.fixture(scope="module")
def report(aqr_log: Path, no_aqr_log: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("report")
    analyze([aqr_log], baseline=no_aqr_log, out=out, reference_metrics=REFERENCE)
    document: dict[str, Any] = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return document


@pytest.fixture(scope="module")
def run(report: dict[str, Any]) -> Callable[[str], dict[str, Any]]:
    return lambda name: next(run for run in report["runs"] if run["name"] == name)


@pytest.fixture(scope="module")
def finding(report: dict[str, Any]) -> Callable[..., dict[str, Any]]:
    def find(identity: str, of: str = AQR) -> dict[str, Any]:
        found = [one for one in report["findings"] if one["id"] == identity and one["run"] == of]
        assert len(found) == 1, identity
        return found[0]

    return find


@pytest.mark.parametrize(
    ("name", "figures"),
    [
        (AQR, [0.6397, 0.6825, 0.3373, 0.2500, 0.3259, 0.2731, 0.1876]),
        (NONE, [0.6575, 0.6908, 0.3353, 0.2493, 0.3339, 0.2715, 0.1899]),
    ],
)
def test_overall_metrics(run: Any, name: str, figures: list[float]) -> None:
    evaluation = run(name)["evaluation"]
    assert [evaluation[key] for key in ("mAP", "NDS", "mATE", "mASE", "mAOE", "mAVE", "mAAE")] == figures


@pytest.mark.parametrize(
    ("name", "aps"),
    [
        (
            AQR,
            {
                "car": 0.851, "truck": 0.602, "bus": 0.729, "trailer": 0.416, "construction_vehicle": 0.289,
                "pedestrian": 0.822, "motorcycle": 0.695, "bicycle": 0.594, "traffic_cone": 0.692, "barrier": 0.708,
            },
        ),
        (
            NONE,
            {
                "car": 0.859, "truck": 0.609, "bus": 0.735, "trailer": 0.423, "construction_vehicle": 0.301,
                "pedestrian": 0.840, "motorcycle": 0.729, "bicycle": 0.641, "traffic_cone": 0.727, "barrier": 0.711,
            },
        ),
    ],
)  # fmt: skip
def test_ap_of_classes(run: Any, name: str, aps: dict[str, float]) -> None:
    classes = run(name)["evaluation"]["per_class"]
    assert {key: classes[key]["AP"] for key in classes} == aps
    assert classes["traffic_cone"]["AOE"] is None
    assert classes["car"]["AP_dist"].keys() == {"0.5", "1.0", "2.0", "4.0"}


@pytest.mark.parametrize(
    ("name", "losses", "step_time", "memory", "nan"),
    [
        (AQR, {"50": 13.3535, "1000": 10.8323, "4000": 10.1168}, 1.8905, 22962, [50, 1400]),
        (NONE, {"50": 10.0520, "1000": 10.4464, "4000": 9.9272}, 0.6450, 21587, [50, 100]),
    ],
)
def test_training(run: Any, name: str, losses: dict[str, float], step_time: float, memory: int, nan: list[int]) -> None:
    training = run(name)["training"]
    assert {at: training["loss_at"][at] for at in losses} == losses
    assert (training["loss_first"], training["loss_last"]) == (losses["50"], losses["4000"])
    assert training["iterations"] == 4004
    assert training["log_lines"] == 80
    assert round(training["step_time_median_s"], 4) == step_time
    assert training["memory_max_mb"] == memory
    assert training["nan_grad_iterations"] == nan


def test_infinite_gradients_count_as_not_finite(run: Any) -> None:
    assert run(AQR)["training"]["nonfinite_grad_iterations"] == [50, 1400]
    assert run(NONE)["training"]["nonfinite_grad_iterations"] == [50, 100, 2100]  # 2100 is inf


SNAPSHOTS = {
    1000: ((0.7028, 0.0194), (0.7974, 0.0236), (0.0968, 0.0030), (0.3585, 0.0085)),
    2000: ((0.7048, 0.0154), (0.8070, 0.0215), (0.1006, 0.0047), (0.3604, 0.0051)),
    3000: ((0.7068, 0.0167), (0.8021, 0.0229), (0.1001, 0.0032), (0.3563, 0.0075)),
    4000: ((0.7200, 0.0155), (0.8043, 0.0166), (0.0981, 0.0041), (0.3611, 0.0066)),
}


@pytest.mark.parametrize("forward", SNAPSHOTS)
def test_statistics_over_ranks(run: Any, forward: int) -> None:
    snapshot = next(one for one in run(AQR)["aqr"]["snapshots"] if one["forward"] == forward)
    shown = [
        (round(snapshot[group][name], 4), round(snapshot[group][f"{name}_rank_std"], 4))
        for group, name in (
            ("lidar_weights", "mean"),
            ("camera_weights", "mean"),
            ("modulation_bev", "relative_change"),
            ("modulation_pers", "relative_change"),
        )
    ]
    assert tuple(shown) == SNAPSHOTS[forward]
    assert snapshot["ranks"] == 8
    assert snapshot["weight_map_bev"]["max"] == snapshot["weight_map_pers"]["max"] == 2.5


def test_run_without_aqr_has_no_statistics(run: Any) -> None:
    assert run(NONE)["aqr"]["snapshots"] == []
    assert run(NONE)["config"]["enable_aqr"] is False
    assert run(NONE)["config"]["max_weight_clamp"] is None


def test_settings_follow_from_the_figures(run: Any) -> None:
    config, origin = run(AQR)["config"], run(AQR)["config_origin"]
    assert (config["max_weight_clamp"], config["residual_weight"], config["form"]) == (2.5, 0.6, "additive")
    assert origin["max_weight_clamp"] == origin["residual_weight"] == origin["form"] == "measured"
    assert config["num_query"] is None  # the log does not say


def test_comparison_with_the_same_training(report: dict[str, Any]) -> None:
    (comparison,) = report["comparisons"]
    assert (comparison["run"], comparison["baseline"]) == (AQR, NONE)
    assert (comparison["mAP_delta"], comparison["NDS_delta"]) == (-0.0178, -0.0083)
    assert comparison["loss_first_delta"] == 3.3015
    assert round(comparison["step_time_ratio"], 2) == 2.93
    assert round(comparison["memory_ratio"], 3) == 1.064
    assert comparison["per_class_AP_delta"]["bicycle"] == -0.047
    assert comparison["like_for_like"] is True
    assert comparison["intervals"] is None


def test_1_the_reference_is_no_baseline(finding: Any) -> None:
    evidence = finding("baseline.not-like-for-like")["evidence"]
    assert evidence["delta_to_reference"] == {"mAP": -0.0393, "NDS": -0.0255}
    assert evidence["delta_to_baseline"] == {"mAP": -0.0178, "NDS": -0.0083}
    assert evidence["explained_by_the_training"] == {"mAP": -0.0215, "NDS": -0.0172}


def test_2_the_trends_are_noise(finding: Any, report: dict[str, Any]) -> None:
    evidence = finding("trends.noise")["evidence"]
    for group in ("lidar_weights", "camera_weights", "modulation_bev", "modulation_pers"):
        assert evidence[group]["significant"] is False
        assert abs(evidence[group]["change"]) < evidence[group]["half_width_95"]
    # What was quoted, 78.1 -> 82.1 % and 9.17 -> 10.58 %, is within what single ranks show.
    for group, quoted in (("camera_weights", 0.8211 - 0.7812), ("modulation_bev", 0.1058 - 0.0917)):
        low, high = evidence[group]["single_rank_range"]
        assert low <= quoted <= high
    assert [one["id"] for one in report["findings"] if one["id"].startswith("trends.")] == ["trends.noise"]


def test_3_gradients_were_not_finite(finding: Any) -> None:
    assert finding("gradients.nonfinite")["evidence"]["nan"] == [50, 1400]
    assert finding("gradients.nonfinite", NONE)["evidence"]["nan"] == [50, 100]
    assert finding("gradients.nonfinite", NONE)["evidence"]["infinite"] == [2100]


def test_4_steps_take_longer(finding: Any) -> None:
    found = finding("cost.step-time")
    assert round(found["evidence"]["ratio"], 2) == 2.93
    assert "2.93" in found["title"]


def test_5_the_residual_sets_the_strength(finding: Any) -> None:
    evidence = finding("modulation.set-by-residual")["evidence"]
    assert round(evidence["relative_change"], 4) == 0.3611
    assert round(evidence["residual_effect"], 4) == 0.0903  # 0.3611 · (1 − 0.30 / 0.40)
    assert evidence["clamp_effect_at_most"] < evidence["residual_effect"] / 5


def test_6_denoising_queries_are_counted(finding: Any) -> None:
    evidence = finding("queries.denoising-in-maps")["evidence"]
    assert evidence["weights_per_sample"] == [1120, 1790]
    assert evidence["num_query"] is None


def test_the_formula_is_not_the_one_reasoned_with(finding: Any) -> None:
    evidence = finding("modulation.formula-differs")["evidence"]
    assert evidence["largest_factor"] == 3.1
    assert evidence["formula_allows"] == 1.6
    assert evidence["blocks_in_all"] == 32
    assert evidence["blocks"] >= 29


@pytest.mark.parametrize(
    "identity",
    [
        "modulation.camera-above-band",
        "modulation.residual-below-band",
        "maps.at-clamp",
        "maps.background-damped",
        "router.not-learning",
        "training.start-shock",
        "classes.small-hurt-more",
        "scores.below-baseline",
        "sensors.imbalance",
    ],
)
def test_further_findings(finding: Any, identity: str) -> None:
    found = finding(identity)
    assert found["title"]
    assert found["detail"]
    assert found["source"]
    assert found["evidence"]


def test_the_leak_shows_in_the_losses(finding: Any, aqr_log: Path, no_aqr_log: Path) -> None:
    """The classification loss of the queries, read with nothing but a regular expression."""
    found = finding("training.leak")
    ours, theirs = (
        [float(one) for one in re.findall(r"[\t ]loss_cls: ([\d.]+)", path.read_text(encoding="utf-8"))][40:]
        for path in (aqr_log, no_aqr_log)
    )
    assert len(ours) == len(theirs) == found["evidence"]["log_lines"] == 40
    assert found["evidence"]["share_lower"] == pytest.approx(1 - sum(ours) / sum(theirs), abs=1e-6)
    assert found["evidence"]["share_lower"] == pytest.approx(0.029, abs=0.001)
    assert found["severity"] == "warning"
    assert "can mean" in found["detail"]


def test_small_classes_by_permutation(finding: Any) -> None:
    evidence = finding("classes.small-hurt-more")["evidence"]
    assert evidence["small_mean"] == -0.0274
    assert evidence["large_mean"] == -0.008
    assert evidence["p"] == round(12 / 252, 6)  # counted by hand: 6 of the 252 splits are as uneven, either way round


@pytest.mark.parametrize(
    ("name", "clamp", "residual", "largest", "expected", "band"),
    [
        ("A", 2.0, 0.70, 1.30, 0.271, (0.25, 0.28)),
        ("B", 2.2, 0.68, 1.384, 0.289, (0.28, 0.32)),
        ("C", 2.0, 0.65, 1.35, 0.316, (0.30, 0.33)),
    ],
)
def test_recommendations(
    report: dict[str, Any],
    name: str,
    clamp: float,
    residual: float,
    largest: float,
    expected: float,
    band: tuple[float, float],
) -> None:
    one = next(one for one in report["recommendations"] if one["name"] == name)
    assert (one["max_weight_clamp"], one["residual_weight"]) == (clamp, residual)
    assert one["theoretical_max"] == pytest.approx(largest, abs=1e-9)
    low, high = one["predicted_camera_relative_change"]
    assert band[0] <= low <= one["expected_camera_relative_change"] <= high <= band[1]
    assert round(one["expected_camera_relative_change"], 3) == expected
    assert one["reason"]


def test_without_aqr_is_recommended_too(report: dict[str, Any]) -> None:
    off = next(one for one in report["recommendations"] if one["name"] == "off")
    assert off["max_weight_clamp"] is None
    assert "1.78" in off["reason"]


def test_verdict(report: dict[str, Any]) -> None:
    score, mechanism, following = report["verdict"]
    assert "−1.78" in score
    assert "2.93" in score
    assert "no spread" in score
    assert "denoising" in mechanism
    assert "A (clamp 2.0, residual 0.7)" in following


def test_reference_alone(aqr_log: Path, tmp_path: Path) -> None:
    report = analyze([aqr_log], out=tmp_path, reference_metrics=REFERENCE)
    found = [one for one in report.data["findings"] if one["id"] == "baseline.not-like-for-like"]
    assert len(found) == 1
    assert "not a like-for-like baseline" in found[0]["title"]
    assert report.data["comparisons"] == []
    assert "not a like-for-like baseline" in report.verdict
    assert not any(one["name"] == "off" for one in report.data["recommendations"])


def test_run_without_aqr_given_beside_it_is_the_baseline(aqr_log: Path, no_aqr_log: Path, tmp_path: Path) -> None:
    report = analyze([no_aqr_log, aqr_log], out=tmp_path)
    assert [(one["run"], one["baseline"]) for one in report.data["comparisons"]] == [(AQR, NONE)]
