"""The tables that the HTML page and the Markdown text share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aqr.analysis.forecast import ROUGH
from aqr.analysis.language import Translator, text
from aqr.analysis.run import CLASS_METRICS, GATES, METRICS

NOTHING = "–"
_BEST = 10
"""Trials of a study that are shown."""


@dataclass(frozen=True)
class Table:
    name: str
    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    numeric: bool = True
    folded: bool = False


def shown_number(value: float | None, digits: int = 4, sign: bool = False) -> str:
    """A figure, or a dash where it is not known."""
    if value is None:
        return NOTHING
    # Adding 0 turns −0 into 0.
    value = round(value, digits) + 0.0
    shown = f"{value:+.{digits}f}" if sign and value else f"{value:.{digits}f}"
    return shown.replace("-", "−")


def class_tables(data: Mapping[str, Any], t: Translator) -> list[Table]:
    """AP and errors by class."""
    return [table for table in (_ap_by_class(data, t), _errors_by_class(data, t)) if table is not None]


def overall_table(data: Mapping[str, Any], t: Translator) -> Table | None:
    """Overall metrics of every row and run, and their differences."""
    rows: list[tuple[str, ...]] = [
        (t(extra["name"]), *(shown_number(extra.get(name)) for name in METRICS)) for extra in data["extra_rows"]
    ]
    rows += [
        (run["name"], *(shown_number(run["evaluation"][name]) for name in METRICS))
        for run in data["runs"]
        if run["evaluation"] is not None
    ]
    for one in data["comparisons"]:
        if one["metrics_delta"]:
            label = t.show(text("{run} − {baseline}", run=one["run"], baseline=one["baseline"]))
            rows.append((label, *(shown_number(one["metrics_delta"].get(name), sign=True) for name in METRICS)))
        if one["intervals"]:
            ends = one["intervals"]["metrics"]
            label = t.show(text("95 % over {scenes} scenes", scenes=one["intervals"]["scenes"]))
            rows.append((label, *(_ends(ends.get(name)) for name in METRICS)))
    if not rows:
        return None
    return Table(
        "results",
        t("Results"),
        ("", *METRICS),
        tuple(rows),
        t(
            "mAP and NDS: higher is better; the five errors: lower is better. Differences are taken before rounding. "
            "One run each: no spread known."
        )
        if any(one["intervals"] is None for one in data["comparisons"])
        else t("mAP and NDS: higher is better; the five errors: lower is better."),
    )


def _ends(interval: Sequence[float] | None) -> str:
    return (
        NOTHING
        if interval is None
        else f"{shown_number(interval[0], sign=True)} … {shown_number(interval[1], sign=True)}"
    )


def _scored(data: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [run for run in data["runs"] if run["evaluation"] is not None and run["evaluation"]["per_class"]]


def _class_names(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for run in runs for name in run["evaluation"]["per_class"]))


def _ap_by_class(data: Mapping[str, Any], t: Translator) -> Table | None:
    runs = _scored(data)
    if not runs:
        return None
    compared = [one for one in data["comparisons"] if one["per_class_AP_delta"]]
    rows = []
    for name in _class_names(runs):
        row = [name]
        row += [shown_number(run["evaluation"]["per_class"].get(name, {}).get("AP"), 3) for run in runs]
        row += [shown_number(one["per_class_AP_delta"].get(name), 3, sign=True) for one in compared]
        rows.append(tuple(row))
    head = (t("class"), *(run["name"] for run in runs), *(f"{one['run']} − {one['baseline']}" for one in compared))
    return Table("ap", t("AP by class"), head, tuple(rows))


def _errors_by_class(data: Mapping[str, Any], t: Translator) -> Table | None:
    runs = _scored(data)
    rows = []
    for name in _class_names(runs):
        for run in runs:
            result = run["evaluation"]["per_class"].get(name)
            if result is not None and any(result[error] is not None for error in CLASS_METRICS[1:]):
                label = name if len(runs) == 1 else f"{name} · {run['name']}"
                rows.append((label, *(shown_number(result[error], 3) for error in CLASS_METRICS[1:])))
    if not rows:
        return None
    note = t("A dash: nuScenes does not define the error for the class, or the log does not say.")
    return Table("errors", t("Errors by class"), (t("class"), *CLASS_METRICS[1:]), tuple(rows), note, folded=True)


def run_table(data: Mapping[str, Any], t: Translator) -> Table | None:
    """Settings, training and cost of every run."""
    runs = data["runs"]
    if not runs:
        return None
    lines: list[tuple[str, Callable[[Mapping[str, Any]], str]]] = [
        (t("source"), lambda run: t(run["kind"])),
        ("AQR", lambda run: {True: t("on"), False: t("off"), None: t("unknown")}[run["config"]["enable_aqr"]]),
        ("max_weight_clamp", lambda run: _setting(run, "max_weight_clamp", t)),
        ("residual_weight", lambda run: _setting(run, "residual_weight", t)),
        (t("formula"), lambda run: _setting(run, "form", t)),
    ]
    if any("gates" in one for run in runs for one in run["aqr"]["snapshots"][-1:]):
        lines.append((t("gate at the end, LiDAR · camera"), _gates))
    lines += [
        (t("iterations"), lambda run: shown_number(run["training"]["iterations"], 0)),
        (t("loss, first line"), lambda run: shown_number(run["training"]["loss_first"])),
        (t("loss, last line"), lambda run: shown_number(run["training"]["loss_last"])),
    ]
    if any(run["training"]["step_time_median_s"] is not None for run in runs):
        lines.append((t("step time, median (s)"), lambda run: shown_number(run["training"]["step_time_median_s"])))
    if any(run["training"]["memory_max_mb"] is not None for run in runs):
        lines.append((t("memory, largest (MB)"), lambda run: shown_number(run["training"]["memory_max_mb"], 0)))
    lines += [
        (
            t("gradient not finite at"),
            lambda run: ", ".join(map(str, run["training"]["nonfinite_grad_iterations"][:12])) or NOTHING,
        ),
        (t("AQR snapshots × ranks"), _snapshots),
    ]
    rows = tuple((label, *(show(run) for run in runs)) for label, show in lines)
    return Table("runs", t("The runs"), ("", *(run["name"] for run in runs)), rows)


def _setting(run: Mapping[str, Any], name: str, t: Translator) -> str:
    value = run["config"][name]
    if value is None or run["config"]["enable_aqr"] is False:
        return NOTHING
    origin = run["config_origin"].get(name)
    shown = t(value) if isinstance(value, str) else f"{value:g}"
    return shown if origin in (None, "config") else t.show(text("{value} ({origin})", value=shown, origin=t(origin)))


def _gates(run: Mapping[str, Any]) -> str:
    gates = next((one["gates"] for one in run["aqr"]["snapshots"][::-1] if "gates" in one), None)
    if gates is None:
        return NOTHING
    return " · ".join(shown_number(gates.get(name), 3, sign=True) for name in GATES)


def _snapshots(run: Mapping[str, Any]) -> str:
    snapshots = run["aqr"]["snapshots"]
    return f"{len(snapshots)} × {max(one['ranks'] for one in snapshots)}" if snapshots else NOTHING


def study_tables(data: Mapping[str, Any], t: Translator) -> list[Table]:
    """The best trials of every study."""
    out = []
    for study in data["studies"]:
        first = study["objectives"][0]
        done = [trial for trial in study["trials"] if trial["values"]]
        several = len(study["objectives"]) > 1
        shown = [trial for trial in done if trial["number"] in study["best"]] if several else done
        shown = sorted(shown, key=lambda trial: -trial["values"][first])[:_BEST]
        if not shown:
            continue
        keys = [axis["key"] for axis in study["search"]]
        rows = [
            (
                str(trial["number"]),
                *(shown_number(trial["values"][name]) for name in study["objectives"]),
                *(_param(trial["params"][key]) for key in keys),
            )
            for trial in shown
        ]
        counts = [sum(trial["state"] == state for trial in study["trials"]) for state in ("complete", "pruned")]
        errors = sum(trial["state"] == "failed" or trial["error"] is not None for trial in study["trials"])
        note = t.show(
            text(
                "{complete} trials complete, {pruned} ended early, {failed} could not be trained.",
                complete=counts[0],
                pruned=counts[1],
                failed=errors,
            )
        )
        head = (t("trial"), *study["objectives"], *(key.rpartition(".")[2] for key in keys))
        title = t.show(text("Best trials of study {name}", name=study["name"]))
        out.append(Table("study", title, head, tuple(rows), note))
    return out


def _param(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _expected(one: Mapping[str, Any], camera: Sequence[float], t: Translator) -> str:
    low, high = 100 * camera[0], 100 * camera[1]
    if one["spread_known"]:
        return f"{low:.1f}–{high:.1f}"
    if high - low < ROUGH:
        return t.show(text("about {expected:.0f}", expected=100 * one["expected_camera_relative_change"]))
    return f"{low:.0f}–{high:.0f}"


def recommendation_table(data: Mapping[str, Any], t: Translator) -> Table | None:
    rows = []
    several = len({one["run"] for one in data["recommendations"]}) > 1
    for one in data["recommendations"]:
        camera = one["predicted_camera_relative_change"]
        name = t("without AQR") if one["name"] == "off" else t(one["name"])
        rows.append(
            (
                t.show(text("{name}, after {run}", name=name, run=one["run"])) if several else name,
                NOTHING if one["max_weight_clamp"] is None else str(one["max_weight_clamp"]),
                NOTHING if one["residual_weight"] is None else str(one["residual_weight"]),
                shown_number(one["theoretical_max"], 3),
                NOTHING if camera is None or one["name"] == "off" else _expected(one, camera, t),
                one["reason"],
            )
        )
    head = (
        t("setting"),
        "max_weight_clamp",
        "residual_weight",
        t("largest factor"),
        t("image change to expect, %"),
        t("why"),
    )
    return Table("recommendations", t("What to try next"), head, tuple(rows), numeric=False) if rows else None


def whatif_table(data: Mapping[str, Any], t: Translator) -> Table | None:
    """What the forecasts take for granted."""
    rows = [(one["run"], t.sentences(one["assumptions"])) for one in data["whatif"]]
    return (
        Table(
            "assumptions",
            t("What the forecasts take for granted"),
            (t("run"), t("assumptions")),
            tuple(rows),
            numeric=False,
        )
        if rows
        else None
    )
