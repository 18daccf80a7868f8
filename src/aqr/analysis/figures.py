"""The charts, as Plotly figures in plain JSON; drawn by the plotly.js inlined in the page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aqr.analysis.findings.bands import CAMERA_CHANGE
from aqr.analysis.findings.scores import SMALL
from aqr.analysis.language import Message, Translator, text

COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6B6B6B")
"""Okabe and Ito's palette, distinguishable with colour-blindness."""
_PANELS: Final = 6
BAND: Final = "rgba(0, 158, 115, 0.16)"

_CLASSES_BY_SIZE: Final = (
    "traffic_cone",
    "pedestrian",
    "bicycle",
    "motorcycle",
    "barrier",
    "car",
    "construction_vehicle",
    "truck",
    "bus",
    "trailer",
)


@dataclass(frozen=True)
class Figure:
    """A chart.

    Attributes:
        name: stable, used as its anchor.
        plot: `data` and `layout` for Plotly.
    """

    name: str
    title: Message
    caption: Message
    plot: dict[str, Any]


def figures(data: Mapping[str, Any], t: Translator) -> Iterator[Figure]:
    """Every chart that the data allow."""
    runs: Sequence[Mapping[str, Any]] = data["runs"]
    colours = {run["name"]: COLOURS[number % len(COLOURS)] for number, run in enumerate(runs)}
    makers = (_losses, _parts, _classes, _weights, _modulation, _maps, _whatif, _timings, _gradients)
    for maker in makers:
        figure = maker(data, runs, colours, t)
        if figure is not None:
            yield figure


Runs = Sequence[Mapping[str, Any]]
Colours = Mapping[str, str]


def _layout(t: Translator, x: str, y: str, **more: Any) -> dict[str, Any]:
    return {
        "xaxis": {"title": {"text": t(x)}, "automargin": True, "zeroline": False, **more.pop("xaxis", {})},
        "yaxis": {"title": {"text": t(y)}, "automargin": True, "zeroline": False, **more.pop("yaxis", {})},
        **more,
    }


def _series(run: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    series = run["training"]["series"].get(name)
    return series if series and series["iteration"] else None


def _line(run: Mapping[str, Any], name: str, colour: str, label: str, **more: Any) -> dict[str, Any]:
    series = _series(run, name) or {"iteration": [], "value": []}
    few = len(series["iteration"]) < 3
    return {
        "type": "scatter",
        "mode": "lines+markers" if few else "lines",
        "x": series["iteration"],
        "y": series["value"],
        "name": label,
        "line": {"color": colour, "width": 2},
        **more,
    }


def _losses(data: Mapping[str, Any], runs: Runs, colours: Colours, t: Translator) -> Figure | None:
    shown = [run for run in runs if _series(run, "loss")]
    if not shown:
        return None
    traces = [_line(run, "loss", colours[run["name"]], run["name"]) for run in shown]
    return Figure(
        "losses",
        text("Loss"),
        text("The whole training loss as logged, one line per run."),
        {"data": traces, "layout": _layout(t, "iteration", "loss")},
    )


def _parts(data: Mapping[str, Any], runs: Runs, colours: Colours, t: Translator) -> Figure | None:
    """Small multiples: one panel per part, one colour per run."""
    found = dict.fromkeys(
        name for run in runs for name in run["training"]["series"] if "loss" in name and name != "loss"
    )
    main = [name for name in found if "." not in name][:_PANELS] or found[:_PANELS]
    if not main:
        return None
    traces: list[dict[str, Any]] = []
    rows = math.ceil(len(main) / 2)
    layout: dict[str, Any] = {
        "grid": {"rows": rows, "columns": min(2, len(main)), "pattern": "independent", "xgap": 0.16, "ygap": 0.34},
        "annotations": [],
        "height": 130 + 170 * rows,
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.1, "yanchor": "bottom"},
    }
    for number, name in enumerate(main):
        suffix = "" if number == 0 else str(number + 1)
        layout[f"xaxis{suffix}"] = {"nticks": 3, "tickangle": 0, "zeroline": False}
        layout[f"yaxis{suffix}"] = {"nticks": 4, "zeroline": False, "automargin": True}
        layout["annotations"].append(
            {
                "text": name,
                "xref": f"x{suffix} domain",
                "yref": f"y{suffix} domain",
                "x": 0,
                "y": 1,
                "xanchor": "left",
                "yanchor": "bottom",
                "showarrow": False,
                "font": {"size": 12},
            }
        )
        for run in runs:
            if _series(run, name):
                once = {"legendgroup": run["name"], "showlegend": not any(one["name"] == run["name"] for one in traces)}
                axes = {"xaxis": f"x{suffix}", "yaxis": f"y{suffix}"}
                traces.append(_line(run, name, colours[run["name"]], run["name"], **once, **axes))
    return Figure(
        "loss-parts",
        text("Parts of the loss"),
        text("Losses of the last decoder layer and of the denoising queries, by iteration."),
        {"data": traces, "layout": layout},
    )


def _classes(data: Mapping[str, Any], runs: Runs, colours: Colours, t: Translator) -> Figure | None:
    compared = [one for one in data["comparisons"] if one["per_class_AP_delta"]]
    traces: list[dict[str, Any]] = []
    if compared:
        for one in compared:
            deltas = one["per_class_AP_delta"]
            names = _by_size(deltas)
            traces.append(
                {
                    "type": "bar",
                    "orientation": "h",
                    "y": names,
                    "x": [100 * deltas[name] for name in names],
                    "text": [f"{100 * deltas[name]:+.1f}" for name in names],
                    "textposition": "outside",
                    "cliponaxis": False,
                    "name": one["run"],
                    "marker": {
                        "color": colours[one["run"]],
                        "opacity": [1.0 if name in SMALL else 0.55 for name in names],
                    },
                    "hovertemplate": "%{y}: %{x:+.2f}<extra></extra>",
                }
            )
        points = [point for trace in traces for point in trace["x"]]
        reach = max(map(abs, points)) or 1.0
        span = [min(min(points), 0) - 0.18 * reach, max(max(points), 0) + 0.18 * reach]
        return Figure(
            "classes",
            text("AP by class against the baseline"),
            text("Points of AP, small classes (full colour) at the top. One run each: no spread known."),
            {
                "data": traces,
                "layout": _layout(
                    t,
                    "AP, points",
                    "",
                    yaxis={"autorange": "reversed"},
                    xaxis={"zeroline": True, "range": span},
                    barmode="group",
                    height=90 + 34 * max(len(trace["y"]) * len(traces) ** 0.5 for trace in traces),
                ),
            },
        )
    scored = [run for run in runs if run["evaluation"] and run["evaluation"]["per_class"]]
    if not scored:
        return None
    for run in scored:
        classes = run["evaluation"]["per_class"]
        names = [name for name in _by_size(classes) if classes[name]["AP"] is not None]
        traces.append(
            {
                "type": "bar",
                "orientation": "h",
                "y": names,
                "x": [classes[name]["AP"] for name in names],
                "name": run["name"],
                "marker": {"color": colours[run["name"]]},
            }
        )
    return Figure(
        "classes",
        text("AP by class"),
        text("Small classes at the top."),
        {"data": traces, "layout": _layout(t, "AP", "", yaxis={"autorange": "reversed"}, barmode="group", height=430)},
    )


def _by_size(names: Mapping[str, Any]) -> list[str]:
    known = [name for name in _CLASSES_BY_SIZE if name in names]
    return known + [name for name in names if name not in known]


def _over_time(
    run: Mapping[str, Any], group: str, statistic: str, colour: str, label: str, scale: float
) -> list[dict[str, Any]]:
    """A line over snapshots and, where known, a band of one standard deviation between ranks."""
    points = [
        (one["forward"], scale * one[group][statistic], one[group].get(f"{statistic}_rank_std"))
        for one in run["aqr"]["snapshots"]
        if one[group] is not None and one[group].get(statistic) is not None
    ]
    if not points:
        return []
    x = [point[0] for point in points]
    y = [point[1] for point in points]
    traces = []
    if all(point[2] is not None for point in points):
        spread = [scale * point[2] for point in points]
        traces.append(
            {
                "type": "scatter",
                "x": [*x, *x[::-1]],
                "y": [a + b for a, b in zip(y, spread, strict=True)]
                + [a - b for a, b in zip(y, spread, strict=True)][::-1],
                "fill": "toself",
                "fillcolor": _faint(colour),
                "line": {"width": 0},
                "hoverinfo": "skip",
                "showlegend": False,
                "mode": "lines",
            }
        )
    traces.append(
        {
            "type": "scatter",
            "mode": "lines+markers",
            "x": x,
            "y": y,
            "name": label,
            "line": {"color": colour, "width": 2},
        }
    )
    return traces


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, 0.18)"


def _with_snapshots(runs: Runs) -> list[Mapping[str, Any]]:
    return [run for run in runs if run["aqr"]["snapshots"]]


def _labels(run: Mapping[str, Any], what: str, several: bool) -> str:
    return f"{what} · {run['name']}" if several else what


def _weights(data: Mapping[str, Any], runs: Runs, colours: Colours, t: Translator) -> Figure | None:
    shown = _with_snapshots(runs)
    traces = []
    for number, run in enumerate(shown):
        for place, (group, what) in enumerate(
            (("lidar_weights", t("LiDAR weight")), ("camera_weights", t("camera weight")))
        ):
            colour = COLOURS[(2 * number + place) % len(COLOURS)]
            traces += _over_time(run, group, "mean", colour, _labels(run, what, len(shown) > 1), 1.0)
    if not traces:
        return None
    return Figure(
        "weights",
        text("Query weights"),
        text(
            "Mean weight of the queries over all ranks; the band is one standard deviation between ranks, where known."
        ),
        {"data": traces, "layout": _layout(t, "forward pass", "weight")},
    )


def _modulation(data: Mapping[str, Any], runs: Runs, colours: Colours, t: Translator) -> Figure | None:
    shown = _with_snapshots(runs)
    traces = []
    for number, run in enumerate(shown):
        for place, (group, what) in enumerate(
            (("modulation_bev", t("BEV modulation")), ("modulation_pers", t("image modulation")))
        ):
            colour = COLOURS[(2 * number + place) % len(COLOURS)]
            traces += _over_time(run, group, "relative_change", colour, _labels(run, what, len(shown) > 1), 100.0)
    if not traces:
        return None
    low, high = (100 * edge for edge in CAMERA_CHANGE)
    layout = _layout(t, "forward pass", "relative change, %", yaxis={"rangemode": "tozero"})
    layout["shapes"] = [
        {
            "type": "rect",
            "xref": "paper",
            "x0": 0,
            "x1": 1,
            "y0": low,
            "y1": high,
            "fillcolor": BAND,
            "line": {"width": 0},
            "layer": "below",
        }
    ]
    layout["annotations"] = [
        {
            "xref": "paper",
            "x": 0.01,
            "y": (low + high) / 2,
            "text": t("wanted for images"),
            "showarrow": False,
            "xanchor": "left",
            "font": {"size": 12, "color": "#00664b"},
        }
    ]
    return Figure(
        "modulation",
        text("Strength of the modulation"),
        text("Mean of |F′ − F| / |F|; the green band is the wanted range for image features."),
        {"data": traces, "layout": layout},
    )


def _maps(data: Mapping[str, Any], runs: Runs, colours: Colours, t: Translator) -> Figure | None:
    shown = _with_snapshots(runs)
    traces = []
    for number, run in enumerate(shown):
        for place, (group, what) in enumerate((("weight_map_bev", t("BEV map")), ("weight_map_pers", t("image map")))):
            colour = COLOURS[(2 * number + place) % len(COLOURS)]
            traces += _over_time(
                run, group, "mean", colour, _labels(run, t.show(text("{map}, mean", map=what)), len(shown) > 1), 1.0
            )
            highs = _over_time(
                run, group, "max", colour, _labels(run, t.show(text("{map}, maximum", map=what)), len(shown) > 1), 1.0
            )
            for trace in highs:
                trace["line"] = {"color": colour, "width": 2, "dash": "dash" if place else "dot"}
            traces += highs
    if not traces:
        return None
    return Figure(
        "maps",
        text("Weight maps"),
        text("Mean and maximum of the weight maps; a maximum that lies flat stands at the clamp."),
        {"data": traces, "layout": _layout(t, "forward pass", "weight", yaxis={"rangemode": "tozero"})},
    )


def _whatif(data: Mapping[str, Any], runs: Runs, colours: Colours, t: Translator) -> Figure | None:
    if not data["whatif"]:
        return None
    grid = data["whatif"][0]
    cells = [cell for cell in grid["cells"] if cell["camera_expected"] is not None]
    if not cells:
        return None
    clamps = sorted({cell["max_weight_clamp"] for cell in cells})
    residuals = sorted({cell["residual_weight"] for cell in cells})
    at = {(cell["max_weight_clamp"], cell["residual_weight"]): cell for cell in cells}
    z = [[100 * at[clamp, residual]["camera_expected"] for residual in residuals] for clamp in clamps]
    factor = t("largest factor")
    hover = [[_forecast(at[clamp, residual], factor) for residual in residuals] for clamp in clamps]
    low, high = (100 * edge for edge in CAMERA_CHANGE)
    traces: list[dict[str, Any]] = [
        {
            "type": "heatmap",
            "x": residuals,
            "y": clamps,
            "z": z,
            "text": hover,
            "zsmooth": False,
            "zmin": 0,
            "zmax": max(50.0, max(map(max, z))),
            "colorscale": [[0, "#f4f8fb"], [0.5, "#9ecae1"], [1, "#08519c"]],
            "hovertemplate": "residual %{x:.2f}, clamp %{y:.2f}<br>%{text}<extra></extra>",
            "colorbar": {"title": {"text": "%"}, "thickness": 12, "len": 0.9},
        }
    ]
    traces += [_contour(residuals, clamps, z, level) for level in (low, high)]
    settings = [
        (run["name"], run["config"]["max_weight_clamp"], run["config"]["residual_weight"], "#D55E00", "circle")
        for run in runs
    ]
    settings += [
        (one["name"], one["max_weight_clamp"], one["residual_weight"], "#000000", "diamond")
        for one in data["recommendations"]
    ]
    seen = set()
    for name, clamp, residual, colour, symbol in settings:
        if clamp is None or residual is None or (name, clamp, residual) in seen:
            continue
        seen.add((name, clamp, residual))
        traces.append(
            {
                "type": "scatter",
                "mode": "markers+text" if symbol == "diamond" else "markers",
                "x": [residual],
                "y": [clamp],
                "text": [name],
                "textposition": "top center",
                "name": name,
                "showlegend": symbol == "circle",
                "marker": {"size": 12, "symbol": symbol, "color": colour, "line": {"color": "#fff", "width": 1.5}},
                "hovertemplate": f"{name}: clamp {clamp:g}, residual {residual:g}<extra></extra>",
            }
        )
    return Figure(
        "whatif",
        text("What if: image modulation by clamp and residual"),
        text(
            "Expected change of image features, per cent; between the green lines lies the wanted band. Circles are "
            "runs, diamonds recommended settings."
        ),
        {"data": traces, "layout": _layout(t, "residual_weight", "max_weight_clamp", height=460)},
    )


def _forecast(cell: Mapping[str, Any], factor: str) -> str:
    low, high = (100 * edge for edge in cell["camera"])
    return f"{low:.1f}–{high:.1f} %<br>{factor} {cell['theoretical_max']:.2f}"


def _contour(x: Sequence[float], y: Sequence[float], z: Sequence[Sequence[float]], level: float) -> dict[str, Any]:
    return {
        "type": "contour",
        "x": x,
        "y": y,
        "z": z,
        "showscale": False,
        "hoverinfo": "skip",
        "showlegend": False,
        "contours": {
            "start": level,
            "end": level,
            "size": 1,
            "coloring": "none",
            "showlabels": True,
            "labelfont": {"size": 12, "color": "#00664b"},
        },
        "line": {"color": "#009E73", "width": 2.5},
    }


def _timings(data: Mapping[str, Any], runs: Runs, colours: Colours, t: Translator) -> Figure | None:
    timed = [run for run in runs if run["training"]["step_time_median_s"] is not None]
    if not timed:
        return None
    names = [run["name"] for run in timed]
    steps = [run["training"]["step_time_median_s"] for run in timed]
    waits = [run["training"]["data_time_median_s"] for run in timed]
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "y": names,
            "x": steps,
            "name": t("step"),
            "marker": {"color": [colours[name] for name in names]},
            "text": [f"{step:.3g} s" for step in steps],
            "textposition": "auto",
            "showlegend": False,
        }
    ]
    if any(wait is not None for wait in waits):
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "y": names,
                "x": waits,
                "name": t("of which waiting for data"),
                "marker": {"symbol": "line-ns-open", "size": 18, "color": "#000", "line": {"width": 3}},
            }
        )
    return Figure(
        "timings",
        text("Time per step"),
        text("Median over all log lines."),
        {
            "data": traces,
            "layout": _layout(
                t,
                "seconds per step",
                "",
                height=130 + 46 * len(names),
                xaxis={"rangemode": "tozero"},
                yaxis={"autorange": "reversed"},
            ),
        },
    )


def _gradients(data: Mapping[str, Any], runs: Runs, colours: Colours, t: Translator) -> Figure | None:
    traces = []
    for run in runs:
        if _series(run, "grad_norm"):
            traces.append(_line(run, "grad_norm", colours[run["name"]], run["name"], connectgaps=False))
        if _series(run, "router_grad_norm"):
            trace = _line(run, "router_grad_norm", colours[run["name"]], f"{t('router')} · {run['name']}")
            traces.append(trace | {"line": {"color": colours[run["name"]], "width": 2, "dash": "dot"}})
        lost = run["training"]["nonfinite_grad_iterations"]
        if lost:
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "x": lost,
                    "y": [_floor(run)] * len(lost),
                    "name": t("not finite"),
                    "legendgroup": run["name"],
                    "showlegend": False,
                    "marker": {"symbol": "x", "size": 10, "color": colours[run["name"]]},
                }
            )
    if not traces:
        return None
    return Figure(
        "gradients",
        text("Gradient norm"),
        text("As logged; crosses mark lines where it is not finite."),
        {"data": traces, "layout": _layout(t, "iteration", "grad_norm")},
    )


def _floor(run: Mapping[str, Any]) -> float:
    values = [
        value for value in run["training"]["series"]["grad_norm"]["value"] if value is not None and math.isfinite(value)
    ]
    return min(values, default=0.0)
