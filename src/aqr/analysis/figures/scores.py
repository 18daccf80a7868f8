"""AP by class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from aqr.analysis.figures.figure import Colours, Figure, Runs, layout_of
from aqr.analysis.findings.scores import SMALL
from aqr.analysis.language import Translator, text
from aqr.analysis.tables import shown_number

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


def classes(data: Mapping[str, Any], runs: Runs, colours: Colours, t: Translator) -> Figure | None:
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
                    "text": [shown_number(100 * deltas[name], 1, sign=True) for name in names],
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
        # Room for the figures beside the bars, on a phone too.
        room = [0.9 * reach if any(sign * point > 0 for point in points) else 0.1 * reach for sign in (-1, 1)]
        span = [min(min(points), 0) - room[0], max(max(points), 0) + room[1]]
        return Figure(
            "classes",
            text("AP by class against the baseline"),
            text("Points of AP, small classes (full colour) at the top. One run each: no spread known."),
            {
                "data": traces,
                "layout": layout_of(
                    t,
                    "AP, points",
                    "",
                    yaxis={"autorange": "reversed"},
                    xaxis={"zeroline": True, "range": span, "nticks": 6, "tickangle": 0},
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
        {
            "data": traces,
            "layout": layout_of(t, "AP", "", yaxis={"autorange": "reversed"}, barmode="group", height=430),
        },
    )


def _by_size(names: Mapping[str, Any]) -> list[str]:
    known = [name for name in _CLASSES_BY_SIZE if name in names]
    return known + [name for name in names if name not in known]
