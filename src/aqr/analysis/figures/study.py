"""Charts of a study: its response surface, slices through it, and the scores in the order of trials."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from aqr.analysis.figures.figure import COLOURS, Figure
from aqr.analysis.language import Translator, text

_HEIGHTS: Final = [[0, "#f4f8fb"], [0.5, "#9ecae1"], [1, "#08519c"]]


def study_figures(data: Mapping[str, Any], t: Translator) -> Iterator[Figure]:
    """Every chart of every study, the first objective's surface."""
    for number, study in enumerate(data["studies"]):
        suffix = "" if number == 0 else f"-{number + 1}"
        objective = study["objectives"][0]
        surface = study["surfaces"][objective]
        if surface is not None and surface["map"] is not None:
            yield _surface(study, surface, objective, suffix)
        if surface is not None and surface["slices"]:
            yield _slices(study, surface, objective, suffix)
        if len(study["objectives"]) > 1:
            yield _front(study, suffix)
        elif any(trial["values"] for trial in study["trials"]):
            yield _progress(study, objective, suffix, t)


def _label(key: str) -> str:
    return key.rpartition(".")[2]


def _axis(study: Mapping[str, Any], key: str) -> dict[str, Any]:
    log = next(one["log"] for one in study["search"] if one["key"] == key)
    return {"title": {"text": _label(key)}, "automargin": True, "zeroline": False, **({"type": "log"} if log else {})}


def _surface(study: Mapping[str, Any], surface: Mapping[str, Any], objective: str, suffix: str) -> Figure:
    heights = surface["map"]
    x, y = heights["x_key"], heights["y_key"]
    done = [trial for trial in study["trials"] if trial["values"]]
    best = surface["optimum"]
    traces: list[dict[str, Any]] = [
        {
            "type": "contour",
            "x": heights["x"],
            "y": heights["y"],
            "z": heights["z"],
            "colorscale": _HEIGHTS,
            "contours": {"coloring": "heatmap", "showlabels": True, "labelfont": {"size": 11}},
            "colorbar": {"title": {"text": objective}, "thickness": 12, "len": 0.9},
            "hovertemplate": f"{_label(x)} %{{x:.3g}}, {_label(y)} %{{y:.3g}}: %{{z:.4f}}<extra></extra>",
        },
        {
            "type": "scatter",
            "mode": "markers",
            "x": [trial["params"][x] for trial in done],
            "y": [trial["params"][y] for trial in done],
            "text": [f"{trial['number']}: {trial['values'][objective]:.4f}" for trial in done],
            "name": "trials",
            "showlegend": False,
            "marker": {
                "size": 8,
                "color": [trial["values"][objective] for trial in done],
                "colorscale": _HEIGHTS,
                "line": {"color": "#333", "width": 1},
            },
            "hovertemplate": "%{text}<extra></extra>",
        },
        {
            "type": "scatter",
            "mode": "markers",
            "x": [best[x]],
            "y": [best[y]],
            "showlegend": False,
            "marker": {"size": 14, "symbol": "star", "color": "#D55E00", "line": {"color": "#fff", "width": 1}},
            "hovertemplate": f"{_label(x)} {best[x]:.3g}, {_label(y)} {best[y]:.3g}<extra></extra>",
        },
    ]
    traces += [
        {
            "type": "scatter",
            "mode": "markers+text",
            "x": [one["settings"][x]],
            "y": [one["settings"][y]],
            "text": [one["name"]],
            "textposition": "top center",
            "showlegend": False,
            "marker": {"size": 11, "symbol": "diamond", "color": "#000", "line": {"color": "#fff", "width": 1.5}},
            "hovertemplate": f"{one['name']}<extra></extra>",
        }
        for one in surface["versus"]
        if one["inside"]
    ]
    shapes = []
    if not surface["extrapolated"]:
        (x0, x1), (y0, y1) = surface["intervals"][x], surface["intervals"][y]
        line = {"color": "#D55E00", "width": 2, "dash": "dash"}
        shapes.append({"type": "rect", "x0": x0, "x1": x1, "y0": y0, "y1": y1, "line": line})
    return Figure(
        f"study-surface{suffix}",
        text("Response surface of {objective}", objective=objective),
        text(
            "Fitted height by {x} and {y}, other settings at the star. Points are trials, diamonds are settings A, B "
            "and C; the star is the highest place, which is extrapolated here and has no intervals.",
            x=_label(x),
            y=_label(y),
        )
        if surface["extrapolated"]
        else text(
            "Fitted height by {x} and {y}, other settings at the optimum. Points are trials, the star is the highest "
            "place; the dashed box spans its 95 % intervals, diamonds are settings A, B and C.",
            x=_label(x),
            y=_label(y),
        ),
        {
            "data": traces,
            "layout": {
                "xaxis": _axis(study, x),
                "yaxis": _axis(study, y),
                "height": 460,
                "shapes": shapes,
            },
        },
    )


def _slices(study: Mapping[str, Any], surface: Mapping[str, Any], objective: str, suffix: str) -> Figure:
    traces: list[dict[str, Any]] = []
    layout: dict[str, Any] = {"showlegend": False, "annotations": []}
    names = sorted(surface["slices"], key=lambda key: -surface["importance"][key])
    rows = (len(names) + 1) // 2
    layout["grid"] = {"rows": rows, "columns": min(2, len(names)), "pattern": "independent", "xgap": 0.2, "ygap": 0.4}
    layout["height"] = 110 + 210 * rows
    done = [trial for trial in study["trials"] if trial["values"]]
    for number, key in enumerate(names):
        place = "" if number == 0 else str(number + 1)
        axes = {"xaxis": f"x{place}", "yaxis": f"y{place}"}
        cut = surface["slices"][key]
        colour = COLOURS[0]
        if cut["low"] is not None:
            band = {"type": "scatter", "mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", **axes}
            traces += [
                {**band, "x": cut["x"], "y": cut["low"]},
                {**band, "x": cut["x"], "y": cut["high"], "fill": "tonexty", "fillcolor": "rgba(0, 114, 178, 0.16)"},
            ]
        traces += [
            {
                "type": "scatter",
                "mode": "lines",
                "x": cut["x"],
                "y": cut["value"],
                "line": {"color": colour, "width": 2},
                "hovertemplate": "%{x:.3g}: %{y:.4f}<extra></extra>",
                **axes,
            },
            {
                "type": "scatter",
                "mode": "markers",
                "x": [trial["params"][key] for trial in done],
                "y": [trial["values"][objective] for trial in done],
                "marker": {"size": 5, "color": "#6B6B6B"},
                "hovertemplate": "%{x:.3g}: %{y:.4f}<extra></extra>",
                **axes,
            },
        ]
        layout[f"xaxis{place}"] = {**_axis(study, key), "nticks": 4}
        layout[f"yaxis{place}"] = {"zeroline": False, "automargin": True, "nticks": 4}
    return Figure(
        f"study-slices{suffix}",
        text("{objective} along each setting", objective=objective),
        text("The surface, other settings at its peak, which is extrapolated; points are the trials as they are.")
        if surface["extrapolated"]
        else text("The surface with its 95 % band, other settings at the optimum; points are the trials as they are."),
        {"data": traces, "layout": layout},
    )


def _progress(study: Mapping[str, Any], objective: str, suffix: str, t: Translator) -> Figure:
    done = [trial for trial in study["trials"] if trial["values"]]
    values = [trial["values"][objective] for trial in done]
    best = [max(values[: place + 1]) for place in range(len(values))]
    numbers = [trial["number"] for trial in done]
    return Figure(
        f"study-progress{suffix}",
        text("{objective} by trial", objective=objective),
        text("Complete trials in the order in which they were asked for, and the best so far."),
        {
            "data": [
                {
                    "type": "scatter",
                    "mode": "markers",
                    "x": numbers,
                    "y": values,
                    "name": t("trial"),
                    "marker": {"color": COLOURS[0]},
                },
                {
                    "type": "scatter",
                    "mode": "lines",
                    "x": numbers,
                    "y": best,
                    "name": t("best so far"),
                    "line": {"color": COLOURS[1], "shape": "hv"},
                },
            ],
            "layout": {
                "xaxis": {"title": {"text": t("trial")}, "automargin": True, "zeroline": False},
                "yaxis": {"title": {"text": objective}, "automargin": True, "zeroline": False},
            },
        },
    )


def _front(study: Mapping[str, Any], suffix: str) -> Figure:
    first, second = study["objectives"][:2]
    done = [trial for trial in study["trials"] if trial["values"]]
    traces = []
    for best, colour in ((False, "#9ecae1"), (True, "#D55E00")):
        shown = [trial for trial in done if (trial["number"] in study["best"]) is best]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [trial["values"][first] for trial in shown],
                "y": [trial["values"][second] for trial in shown],
                "text": [str(trial["number"]) for trial in shown],
                "showlegend": False,
                "marker": {"size": 9, "color": colour, "line": {"color": "#333", "width": 0.5}},
                "hovertemplate": "%{text}: %{x:.4f}, %{y:.4f}<extra></extra>",
            }
        )
    return Figure(
        f"study-front{suffix}",
        text("{first} against {second}", first=first, second=second),
        text("Trials in orange are beaten by no other in all objectives at once."),
        {
            "data": traces,
            "layout": {
                "xaxis": {"title": {"text": first}, "automargin": True, "zeroline": False},
                "yaxis": {"title": {"text": second}, "automargin": True, "zeroline": False},
            },
        },
    )
