"""Curves of the training: loss and its parts, gradients, time per step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from aqr.analysis.figures.figure import Colours, Figure, Runs, layout_of, line_of, series_of
from aqr.analysis.language import Translator, text

_PANELS: Final = 8


def losses(data: Mapping[str, Any], runs: Runs, colours: Colours, t: Translator) -> Figure | None:
    shown = [run for run in runs if series_of(run, "loss")]
    if not shown:
        return None
    traces = [line_of(run, "loss", colours[run["name"]], run["name"]) for run in shown]
    return Figure(
        "losses",
        text("Loss"),
        text("The whole training loss as logged, one line per run."),
        {"data": traces, "layout": layout_of(t, "iteration", "loss")},
    )


def parts(data: Mapping[str, Any], runs: Runs, colours: Colours, t: Translator) -> Figure | None:
    """Small multiples: one panel per part, one colour per run."""
    logged = dict.fromkeys(name for run in runs for name in run["training"]["series"])
    found = [name for name in logged if "loss" in name and name != "loss"]
    main = [name for name in found if "." not in name][:_PANELS] or found[:_PANELS]
    if not main:
        return None
    traces: list[dict[str, Any]] = []
    layout: dict[str, Any] = {"annotations": []}
    for number, name in enumerate(main):
        suffix = "" if number == 0 else str(number + 1)
        layout[f"xaxis{suffix}"] = {"nticks": 3, "tickangle": 0, "zeroline": False, "anchor": f"y{suffix}"}
        layout[f"yaxis{suffix}"] = {"nticks": 4, "zeroline": False, "anchor": f"x{suffix}"}
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
                "xshift": -40,
                "yshift": 5,
            }
        )
        for run in runs:
            if series_of(run, name):
                once = {"legendgroup": run["name"], "showlegend": not any(one["name"] == run["name"] for one in traces)}
                axes = {"xaxis": f"x{suffix}", "yaxis": f"y{suffix}"}
                traces.append(line_of(run, name, colours[run["name"]], run["name"], **once, **axes))
    return Figure(
        "loss-parts",
        text("Parts of the loss"),
        text("Losses of the last decoder layer and of the denoising queries, by iteration."),
        {"data": traces, "layout": layout, "panels": len(main)},
        wide=True,
    )


def gradients(data: Mapping[str, Any], runs: Runs, colours: Colours, t: Translator) -> Figure | None:
    traces = []
    for run in runs:
        if series_of(run, "grad_norm"):
            traces.append(line_of(run, "grad_norm", colours[run["name"]], run["name"], connectgaps=False))
        if series_of(run, "router_grad_norm"):
            trace = line_of(run, "router_grad_norm", colours[run["name"]], f"{t('router')} · {run['name']}")
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
        {"data": traces, "layout": layout_of(t, "iteration", "grad_norm")},
    )


def _floor(run: Mapping[str, Any]) -> float:
    values = [
        value for value in run["training"]["series"]["grad_norm"]["value"] if value is not None and math.isfinite(value)
    ]
    return min(values, default=0.0)


def timings(data: Mapping[str, Any], runs: Runs, colours: Colours, t: Translator) -> Figure | None:
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
            "layout": layout_of(
                t,
                "seconds",
                "",
                height=130 + 46 * len(names),
                xaxis={"rangemode": "tozero"},
                yaxis={"autorange": "reversed"},
            ),
        },
    )
