"""What AQR did: weights, modulation, maps, and what other settings would do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from aqr.analysis.figures.figure import BAND, COLOURS, Colours, Figure, Runs, labels, layout_of
from aqr.analysis.findings.bands import CAMERA_CHANGE
from aqr.analysis.language import Translator, text

_LEAST: Final = 0.1
"""Least span of the axis of weights: what is smaller is no trend."""
_WIDE: Final = 50.0
_NARROW: Final = 1.0
"""Per cent at which the colours of a forecast end at least, with the wanted band and without it."""
_BESIDE: Final = {"A": "middle right", "B": "top center", "C": "middle left"}
"""Where the names of the presets stand, which are neighbours."""


def weights(data: Mapping[str, Any], runs: Runs, colours: Colours, t: Translator) -> Figure | None:
    shown = _with_snapshots(runs)
    traces = []
    for number, run in enumerate(shown):
        for place, (group, what) in enumerate(
            (("lidar_weights", t("LiDAR weight")), ("camera_weights", t("camera weight")))
        ):
            colour = COLOURS[(2 * number + place) % len(COLOURS)]
            traces += _over_time(run, group, "mean", colour, labels(run, what, len(shown) > 1), 1.0)
    if not traces:
        return None
    values = [value for trace in traces for value in trace["y"]]
    low, high = min(values), max(values)
    margin = max(0.05 * (high - low), (_LEAST - (high - low)) / 2)
    return Figure(
        "weights",
        text("Query weights"),
        text("Mean weight of the queries over all ranks; the band is one standard deviation between ranks.")
        if any("fill" in trace for trace in traces)
        else text("Mean weight of the queries."),
        {
            "data": traces,
            "layout": layout_of(t, "forward pass", "weight", yaxis={"range": [low - margin, high + margin]}),
        },
    )


def modulation(data: Mapping[str, Any], runs: Runs, colours: Colours, t: Translator) -> Figure | None:
    shown = _with_snapshots(runs)
    traces = []
    for number, run in enumerate(shown):
        for place, (group, what) in enumerate(
            (("modulation_bev", t("BEV modulation")), ("modulation_pers", t("image modulation")))
        ):
            colour = COLOURS[(2 * number + place) % len(COLOURS)]
            traces += _over_time(run, group, "relative_change", colour, labels(run, what, len(shown) > 1), 100.0)
    if not traces:
        return None
    low, high = (100 * edge for edge in CAMERA_CHANGE)
    layout = layout_of(t, "forward pass", "relative change, %", yaxis={"rangemode": "tozero"})
    plot = {"data": traces, "layout": layout}
    if not any(_banded(run) for run in shown):
        return Figure("modulation", text("Strength of the modulation"), text("Mean of |F′ − F| / |F|."), plot)
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
        plot,
    )


def _banded(run: Mapping[str, Any]) -> bool:
    """Whether the wanted band holds for the run: maps that are 0 where no query is, no gate."""
    return not run["config"]["gate"] and run["config"]["parameterisation"] != "centered"


def maps(data: Mapping[str, Any], runs: Runs, colours: Colours, t: Translator) -> Figure | None:
    shown = _with_snapshots(runs)
    traces = []
    for number, run in enumerate(shown):
        for place, (group, what) in enumerate((("weight_map_bev", t("BEV map")), ("weight_map_pers", t("image map")))):
            colour = COLOURS[(2 * number + place) % len(COLOURS)]
            traces += _over_time(
                run, group, "mean", colour, labels(run, t.show(text("{map}, mean", map=what)), len(shown) > 1), 1.0
            )
            highs = _over_time(
                run, group, "max", colour, labels(run, t.show(text("{map}, maximum", map=what)), len(shown) > 1), 1.0
            )
            for trace in highs:
                trace["line"] = {"color": colour, "width": 2, "dash": "dash" if place else "dot"}
            traces += highs
    if not traces:
        return None
    return Figure(
        "maps",
        text("Weight maps"),
        text("Mean and maximum of the weight maps; they end at max_weight_clamp."),
        {"data": traces, "layout": layout_of(t, "forward pass", "weight", yaxis={"rangemode": "tozero"})},
    )


def _with_snapshots(runs: Runs) -> list[Mapping[str, Any]]:
    return [run for run in runs if run["aqr"]["snapshots"]]


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


def whatif(data: Mapping[str, Any], runs: Runs, colours: Colours, t: Translator) -> Figure | None:
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
    about = None if grid["spread_known"] else t("about")
    hover = [[_forecast(at[clamp, residual], factor, about) for residual in residuals] for clamp in clamps]
    low, high = (100 * edge for edge in CAMERA_CHANGE)
    banded = any(_banded(run) for run in data["runs"] if run["name"] == grid["run"])
    traces: list[dict[str, Any]] = [
        {
            "type": "heatmap",
            "x": residuals,
            "y": clamps,
            "z": z,
            "text": hover,
            "zsmooth": False,
            "zmin": 0,
            "zmax": max(_WIDE if banded else _NARROW, *map(max, z)),
            "colorscale": [[0, "#f4f8fb"], [0.5, "#9ecae1"], [1, "#08519c"]],
            "hovertemplate": "residual %{x:.2f}, clamp %{y:.2f}<br>%{text}<extra></extra>",
            "colorbar": {"title": {"text": "%"}, "thickness": 12, "len": 0.9},
        }
    ]
    if banded:
        traces += [_contour(residuals, clamps, z, level) for level in (low, high)]
    settings = [
        (
            run["name"],
            run["config"]["max_weight_clamp"],
            run["config"]["residual_weight"],
            colours[run["name"]],
            "circle",
        )
        for run in runs
        if run["config"]["enable_aqr"]
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
                "textposition": _BESIDE.get(name, "top center"),
                "textfont": {"size": 14, "weight": "bold"},
                "name": name,
                "showlegend": symbol == "circle",
                "marker": {"size": 12, "symbol": symbol, "color": colour, "line": {"color": "#fff", "width": 2}},
                "hovertemplate": f"{name}: clamp {clamp:g}, residual {residual:g}<extra></extra>",
            }
        )
    return Figure(
        "whatif",
        text("What if: image modulation by clamp and residual"),
        text(
            "Expected change of image features, per cent; between the green lines, 25 and 30 %, lies the wanted band. "
            "Circles are runs, diamonds recommended settings."
        )
        if banded
        else text("Expected change of image features, per cent, as long as gate and maps stay as they are."),
        {"data": traces, "layout": layout_of(t, "residual_weight", "max_weight_clamp", height=460)},
        wide=True,
    )


def adaptation(data: Mapping[str, Any], runs: Runs, colours: Colours, t: Translator) -> Figure | None:
    """Settings that training moved, above what they did to the image features."""
    shown = [run for run in runs if any("settings" in one for one in run["aqr"]["snapshots"])]
    if not shown:
        return None
    names = ("relative_change", "residual_weight", "max_weight_clamp")
    traces: list[dict[str, Any]] = []
    for run in shown:
        snapshots = [one for one in run["aqr"]["snapshots"] if "settings" in one and one["modulation_pers"]]
        for place, name in enumerate(names):
            suffix = "" if place == 0 else str(place + 1)
            values = [
                100 * one["modulation_pers"]["relative_change"] if place == 0 else one["settings"][name]
                for one in snapshots
            ]
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "x": [one["forward"] for one in snapshots],
                    "y": values,
                    "name": run["name"],
                    "showlegend": place == 0 and len(shown) > 1,
                    "line": {"color": colours[run["name"]], "width": 2},
                    "xaxis": "x",
                    "yaxis": f"y{suffix}",
                    "hovertemplate": f"%{{x}}: {name} %{{y:.3f}}<extra></extra>",
                }
            )
    low, high = (100 * edge for edge in CAMERA_CHANGE)
    band = {"type": "rect", "xref": "paper", "x0": 0, "x1": 1, "y0": low, "y1": high, "fillcolor": BAND}
    titles = (t("image change, %"), "residual_weight", "max_weight_clamp")
    layout = layout_of(
        t,
        "iteration",
        "",
        height=560,
        shapes=[{**band, "line": {"width": 0}, "layer": "below"}],
        xaxis={"anchor": "y3"},
    )
    for place, (title, domain) in enumerate(zip(titles, ([0.7, 1], [0.36, 0.64], [0, 0.3]), strict=True)):
        layout["yaxis" + ("" if place == 0 else str(place + 1))] = {
            "title": {"text": title},
            "domain": domain,
            "automargin": True,
            "zeroline": False,
            "nticks": 4,
        }
    return Figure(
        "adaptation",
        text("Settings that moved"),
        text("Change of image features, residual and clamp at each snapshot; the wanted band is green."),
        {"data": traces, "layout": layout},
    )


def _forecast(cell: Mapping[str, Any], factor: str, about: str | None) -> str:
    if about is not None:
        return f"{about} {100 * cell['camera_expected']:.0f} %<br>{factor} {cell['theoretical_max']:.2f}"
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
        },
        "line": {"color": "#009E73", "width": 2.5},
    }
