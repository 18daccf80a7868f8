"""Each finding where it belongs, and silence where it does not."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.analysis.logs import build_run

from aqr.analysis.comparison import compare
from aqr.analysis.findings import Context, Finding, find_all
from aqr.analysis.intervals import Intervals
from aqr.analysis.recommend import recommend
from aqr.analysis.run import ClassResult, Evaluation, Run

STEPS = list(range(50, 1050, 50))


def found(run: Run, baseline: Run | None = None, reference: dict[str, float] | None = None) -> dict[str, Finding]:
    comparison = compare(run, baseline) if baseline is not None else None
    return {one.id: one for one in find_all(Context(run, baseline, comparison, reference or {}))}


def snapshot(**changes: Any) -> dict[str, dict[str, list[float]]]:
    """Sound statistics of four ranks, but for the changes (`group__statistic=[…]`)."""
    groups: dict[str, dict[str, list[float]]] = {
        "lidar_weights": {"mean": [0.70, 0.71, 0.69, 0.70], "std": [0.1] * 4},
        "camera_weights": {"mean": [0.70, 0.72, 0.70, 0.69], "std": [0.1] * 4},
        "weight_map_bev": {"mean": [0.05] * 4, "std": [0.1] * 4, "max": [1.2, 1.3, 1.1, 1.2]},
        "weight_map_pers": {"mean": [0.15] * 4, "std": [0.3] * 4, "max": [1.6, 1.5, 1.7, 1.8]},
        "modulation_bev": {"relative_change": [0.27, 0.28, 0.27, 0.26]},
        "modulation_pers": {"relative_change": [0.27, 0.28, 0.27, 0.26]},
    }
    for name, values in changes.items():
        group, statistic = name.split("__")
        groups[group][statistic] = values
    return groups


SETTINGS: dict[str, Any] = {
    "enable_aqr": True, "max_weight_clamp": 2.0, "residual_weight": 0.7, "num_query": 900, "form": "convex",
}  # fmt: skip


def sound(**changes: Any) -> Run:
    return build_run(
        settings=SETTINGS,
        snapshots=[snapshot(**changes) for _ in range(3)],
        queries=[900] * 4,
        series={"router_grad_norm": (STEPS, [0.5] * len(STEPS))},
    )


def test_sound_run_has_no_warning() -> None:
    assert [one.id for one in found(sound()).values() if one.severity != "info"] == ["maps.background-damped"]


@pytest.mark.parametrize(("values", "identity"), [([0.36] * 4, "above"), ([0.2] * 4, "below"), ([0.27] * 4, None)])
def test_camera_band(values: list[float], identity: str | None) -> None:
    ids = [one for one in found(sound(modulation_pers__relative_change=values)) if "-band" in one]
    assert ids == ([f"modulation.camera-{identity}-band"] if identity else [])


def test_band_is_not_applied_with_a_gate_or_centred_maps() -> None:
    for setting in ({"gate": True}, {"parameterisation": "centered"}):
        run = build_run(settings={**SETTINGS, **setting}, snapshots=[snapshot(modulation_pers__relative_change=[0.01])])
        ids = found(run)
        assert "modulation.strength" in ids
        assert not any("band" in one or "background" in one for one in ids)
        assert recommend(run, None) == []


def test_a_map_that_is_pooled_has_no_cells_that_change_by_1_minus_residual() -> None:
    assert "modulation.set-by-residual" in found(sound())
    pooled = build_run(settings={**SETTINGS, "modulation_type": "channel_wise"}, snapshots=[snapshot()])
    assert "modulation.set-by-residual" not in found(pooled)


def test_residual_below_its_band() -> None:
    run = build_run(settings={**SETTINGS, "residual_weight": 0.6}, snapshots=[snapshot()])
    assert "modulation.residual-below-band" in found(run)
    assert "modulation.residual-below-band" not in found(sound())


@pytest.mark.parametrize(
    ("pers", "bev", "clamp", "expected"),
    [
        ([2.0] * 4, [1.2] * 4, 2.0, "maps.at-clamp"),
        ([40.0] * 4, [1.2] * 4, 2.0, "maps.clamp-not-applied"),
        ([40.0] * 4, [1.2] * 4, 2.0, "maps.invisible-queries-pile-up"),
        ([40.0] * 4, [1.2] * 4, None, "maps.invisible-queries-pile-up"),
        ([3.0] * 4, [0.2] * 4, None, None),
        ([1.9] * 4, [0.1] * 4, 2.0, None),
    ],
)
def test_maps(pers: list[float], bev: list[float], clamp: float | None, expected: str | None) -> None:
    settings = {key: value for key, value in {**SETTINGS, "max_weight_clamp": clamp}.items() if value is not None}
    snapshots = [snapshot(weight_map_pers__max=pers, weight_map_bev__max=bev)]
    ids = [one for one in found(build_run(settings=settings, snapshots=snapshots)) if one != "maps.background-damped"]
    if expected is None:
        assert not any(one.startswith("maps.") for one in ids)
    else:
        assert expected in ids


def test_share_at_the_clamp_decides_how_bad_it_is() -> None:
    for share, severity in ((0.001, "info"), (0.2, "warning")):
        run = sound(weight_map_pers__max=[2.0] * 4, weight_map_pers__clamped_share=[share] * 4)
        assert found(run)["maps.at-clamp"].severity == severity


@pytest.mark.parametrize(
    ("queries", "stated", "expected"),
    [([900] * 4, 900, False), ([1290, 1300], 900, True), ([1290, 1300], None, True), ([1290] * 4, None, False)],
)
def test_denoising_queries(queries: list[int], stated: int | None, expected: bool) -> None:
    settings = {key: value for key, value in {**SETTINGS, "num_query": stated}.items() if value is not None}
    run = build_run(settings=settings, snapshots=[snapshot()], queries=queries)
    assert ("queries.denoising-in-maps" in found(run)) == expected


def test_router_without_gradient() -> None:
    run = build_run(settings=SETTINGS, snapshots=[snapshot()] * 3, series={"router_grad_norm": (STEPS, [0.0] * 20)})
    assert found(run)["router.no-gradient"].severity == "critical"


def test_router_that_does_not_move_or_does() -> None:
    still = build_run(settings=SETTINGS, snapshots=[snapshot()] * 4)
    assert "router.not-learning" in found(still)
    moving = build_run(
        settings=SETTINGS,
        snapshots=[snapshot(lidar_weights__mean=[0.6 + 0.05 * k + 0.01 * r for r in range(4)]) for k in range(4)],
    )
    ids = found(moving)
    assert "router.not-learning" not in ids
    assert ids["trends.lidar-weights"].evidence["change"] == pytest.approx(0.15)
    assert "trends.noise" in ids


def test_pooled_statistics_are_not_tested_over_ranks() -> None:
    run = sound()
    pooled = build_run(settings=SETTINGS)
    snapshots = tuple(type(one)(one.forward, 8, True, one.samples) for one in run.snapshots)
    ids = found(Run(**{**pooled.__dict__, "snapshots": snapshots}))
    assert {one for one in ids if one.startswith(("trends.", "router."))} == {"router.learning-unknown"}


def curve(values: list[float], **more: Any) -> Run:
    return build_run(series={"loss": (STEPS[: len(values)], values)}, **more)


def test_start_shock() -> None:
    lr = {"lr": (STEPS, [1e-4 * (20 - k) for k in range(20)])}
    base = build_run("base", series={"loss": (STEPS, [10.0] * 20), **lr})
    run = build_run(series={"loss": (STEPS, [13.0] + [10.1] * 19), **lr})
    assert found(run, base)["training.start-shock"].evidence["delta"] == 3.0
    assert "training.start-shock" not in found(base, run)


def test_divergence_overfitting_and_schedule() -> None:
    falling = [10 - 0.2 * k for k in range(20)]
    assert not any(one.startswith("training.") for one in found(curve(falling)))
    assert "training.diverged" in found(
        curve([10 - 0.5 * k for k in range(10)] + [8.0, 12, 15, 20, 25, 30, 33, 36, 40, 44])
    )
    assert "training.loss-nonfinite" in found(curve([*falling[:10], float("nan")]))
    flat = build_run(series={"lr": (STEPS, [1e-4] * 20)})
    assert "training.lr-never-decayed" in found(flat)
    cosine = build_run(series={"lr": (STEPS, (1e-4 * (1 + np.cos(np.linspace(0, np.pi, 20)))).tolist())})
    assert "training.lr-never-decayed" not in found(cosine)
    scores = tuple(Evaluation({"mAP": value}, {}, at) for at, value in ((300, 0.5), (600, 0.6), (1000, 0.55)))
    assert "training.overfitting" in found(curve(falling, evaluations=scores))
    assert "training.overfitting" not in found(curve(falling, evaluations=scores[:2]))


def test_run_that_broke_off() -> None:
    assert "training.broke-off" in found(curve([5.0] * 20, planned=4004))
    assert "training.broke-off" not in found(curve([5.0] * 20, planned=1004))


def test_nonfinite_gradients_and_skipped_steps() -> None:
    run = build_run(series={"grad_norm": (STEPS, [float("nan"), float("inf")] + [1.0] * 18)})
    one = found(run)["gradients.nonfinite"]
    assert (one.evidence["nan"], one.evidence["infinite"], one.severity) == ([50], [100], "critical")
    skipped = build_run(series={"skipped": (STEPS, [0.0] * 5 + [2.0] * 15)})
    assert found(skipped)["gradients.steps-skipped"].evidence == {"skipped": 2, "iterations": [300]}


def scored(name: str, aps: dict[str, float], **more: Any) -> Run:
    mean = float(np.mean(list(aps.values())))
    classes = {label: ClassResult({"AP": ap}) for label, ap in aps.items()}
    return build_run(name, evaluations=(Evaluation({"mAP": mean}, classes),), **more)


SMALL = ("pedestrian", "bicycle", "motorcycle", "traffic_cone", "barrier")
LARGE = ("car", "truck", "bus", "trailer", "construction_vehicle")


def test_small_classes_need_a_test_not_an_impression() -> None:
    base = scored("base", dict.fromkeys((*SMALL, *LARGE), 0.5))
    hurt = scored("hurt", {**dict.fromkeys(SMALL, 0.4), **{name: 0.48 + k / 1000 for k, name in enumerate(LARGE)}})
    assert "classes.small-hurt-more" in found(hurt, base)
    mixed = scored("mixed", {name: 0.4 if k % 2 else 0.48 for k, name in enumerate((*SMALL, *LARGE))})
    assert "classes.small-hurt-more" not in found(mixed, base)


def test_better_and_worse_than_the_baseline() -> None:
    base = scored("base", dict.fromkeys((*SMALL, *LARGE), 0.5))
    worse = scored("worse", dict.fromkeys((*SMALL, *LARGE), 0.45), settings={"enable_aqr": True})
    better = scored("better", dict.fromkeys((*SMALL, *LARGE), 0.55), settings={"enable_aqr": True})
    assert found(worse, base)["scores.below-baseline"].severity == "warning"
    assert found(better, base)["scores.above-baseline"].severity == "info"
    assert [one.name for one in recommend(worse, compare(worse, base))] == ["off"]
    assert recommend(better, compare(better, base)) == []


@pytest.mark.parametrize(("interval", "off"), [((-0.02, 0.01), False), ((-0.02, -0.001), True)])
def test_without_aqr_only_where_the_whole_interval_is_a_loss(interval: tuple[float, float], off: bool) -> None:
    base = scored("base", dict.fromkeys((*SMALL, *LARGE), 0.5))
    lower = scored("lower", dict.fromkeys((*SMALL, *LARGE), 0.495), settings={"enable_aqr": True})
    comparison = replace(compare(lower, base), intervals=Intervals(100, {"mAP": interval}, {}))
    assert [one.name for one in recommend(lower, comparison)] == (["off"] if off else [])


def test_baseline_trained_otherwise() -> None:
    base = scored("base", {"car": 0.5}, series={"lr": (STEPS, [1e-4] * 20)})
    longer = scored("longer", {"car": 0.4}, series={"lr": ([*STEPS, 1050], [1e-4] * 21)})
    other = scored("other", {"car": 0.4}, series={"lr": (STEPS, [2e-4] * 20)})
    silent = scored("silent", {"car": 0.4})
    assert compare(longer, base).like_for_like is False
    assert compare(other, base).like_for_like is False
    assert compare(silent, base).like_for_like is None
    assert "baseline.trained-differently" in found(longer, base)
    assert "baseline.training-unknown" in found(silent, base)
    assert not any(one.name == "off" for one in recommend(other, compare(other, base)))


def test_cost() -> None:
    base = build_run("base", series={"step_time_s": (STEPS, [0.5] * 20), "memory_mb": (STEPS, [1000.0] * 20)})
    slow = build_run(series={"step_time_s": (STEPS, [1.0] * 20), "memory_mb": (STEPS, [1300.0] * 20)})
    ids = found(slow, base)
    assert ids["cost.step-time"].evidence["ratio"] == 2.0
    assert ids["cost.memory"].evidence["ratio"] == 1.3
    assert not any(one.startswith("cost.") for one in found(base, slow))


def test_imbalance_only_where_ranks_agree() -> None:
    assert "sensors.imbalance" in found(sound(camera_weights__mean=[0.8, 0.81, 0.8, 0.79]))
    assert "sensors.imbalance" not in found(sound(camera_weights__mean=[0.2, 1.4, 0.3, 1.3]))


def test_every_finding_can_be_shown_and_has_a_source() -> None:
    for one in found(sound(modulation_pers__relative_change=[0.36] * 4)).values():
        assert str(one.title)
        assert str(one.detail)
        assert str(one.source)
        assert "." in one.id
