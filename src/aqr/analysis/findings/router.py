"""Whether the router learns, what moves, and which sensor it prefers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import numpy as np

from aqr.analysis.findings import bands
from aqr.analysis.findings.finding import Check, Context, Finding
from aqr.analysis.language import Message, text
from aqr.analysis.run import Run
from aqr.analysis.statistics import LEVEL, Trend, half_width, holm, trend

QUANTITIES: Final[tuple[tuple[str, str, Message], ...]] = (
    ("lidar_weights", "mean", text("LiDAR weight")),
    ("camera_weights", "mean", text("camera weight")),
    ("modulation_bev", "relative_change", text("BEV modulation")),
    ("modulation_pers", "relative_change", text("image modulation")),
)
UNTRAINED: Final = 1 / (1 + math.exp(-1.5))
"""A sigmoid weight before training: the logits' bias starts at 1.5."""


def trends_of(run: Run) -> dict[tuple[str, str], tuple[Trend, float]]:
    """Line and corrected probability of each quantity, over all ranks and snapshots."""
    found = {}
    for group, statistic, _ in QUANTITIES:
        pairs = [
            (snapshot.forward, value)
            for snapshot in run.snapshots
            if not snapshot.pooled
            for value in snapshot.values(group, statistic)
        ]
        if not pairs:
            continue
        times, values = np.array(pairs, dtype=np.float64).T
        line = trend(times, values)
        if line is not None:
            found[group, statistic] = line
    corrected = holm([line.p for line in found.values()])
    return {key: (line, p) for (key, line), p in zip(found.items(), corrected, strict=True)}


def trends(context: Context) -> Iterator[Finding]:
    """Rises and falls, each either significant or called noise, and what quoting single ranks could show instead."""
    run = context.run
    tested = trends_of(run)
    if not tested or len(run.snapshots) < 2:
        return
    names = {(group, statistic): name for group, statistic, name in QUANTITIES}
    first, last = run.snapshots[0], run.snapshots[-1]
    for key, (line, p) in tested.items():
        early, late = first.values(*key), last.values(*key)
        if not len(early) or not len(late):
            continue
        real = p <= LEVEL
        yield Finding(
            f"trends.{key[0].replace('_', '-')}-{'moves' if real else 'noise'}",
            "info",
            text("{name}: {change:+.2f} points, a trend", name=names[key], change=100 * line.change)
            if real
            else text("{name}: no trend, only spread between ranks", name=names[key]),
            text(
                "From forward {start} to {end} the line through all ranks moves by {change:+.2f} ± {half:.2f} points "
                "(p = {p:.2f} after correction for {tests} tests). Quoting one rank at each end could show anything from "
                "{lowest:+.1f} to {highest:+.1f}.",
                start=first.forward,
                end=last.forward,
                change=100 * line.change,
                half=100 * line.half_width,
                p=p,
                tests=len(tested),
                lowest=100 * float(late.min() - early.max()),
                highest=100 * float(late.max() - early.min()),
            ),
            {
                "change": round(line.change, 6),
                "half_width_95": round(line.half_width, 6),
                "p": round(line.p, 6),
                "p_corrected": round(p, 6),
                "significant": real,
                "single_rank_range": [
                    round(float(late.min() - early.max()), 6),
                    round(float(late.max() - early.min()), 6),
                ],
                "ranks": last.ranks,
                "snapshots": len(run.snapshots),
            },
            bands.STUDENT,
            run.name,
        )


def learning(context: Context) -> Iterator[Finding]:
    """A router whose gradients are zero, or whose weights stay where they began."""
    run = context.run
    if run.uses_aqr is not True or not run.snapshots:
        return
    gradients = run.training.series.get("router_grad_norm")
    if gradients is not None and len(gradients):
        values = gradients.finite().value[1:]
        if len(values) and float(values.max()) == 0.0:
            yield Finding(
                "router.no-gradient",
                "critical",
                text("The router gets no gradient"),
                text(
                    "router_grad_norm is 0 on all {count} log lines after the first: its weights cannot learn.",
                    count=len(values),
                ),
                {"log_lines": len(values), "largest": 0.0},
                bands.DEFINITION,
                run.name,
            )
        return
    tested = trends_of(run)
    weights = {key: line for key, (line, p) in tested.items() if key[0].endswith("weights") and p > LEVEL}
    moving = [key for key, (_, p) in tested.items() if key[0].endswith("weights") and p <= LEVEL]
    if not weights or moving or len(run.snapshots) < 3:
        return
    last = run.snapshots[-1]
    means = {key[0]: last.mean(*key) for key in weights}
    yield Finding(
        "router.not-learning",
        "warning",
        text("Nothing shows that the router learns"),
        text(
            "Over {count} snapshots no weight moves beyond the spread between ranks ({lidar} LiDAR, {camera} camera at "
            "the end; an untrained router with bias 1.5 gives {untrained:.2f}), and the log holds no gradient norm of the "
            "router. A router that gets no gradient looks like this.",
            count=len(run.snapshots),
            lidar=_shown(means.get("lidar_weights")),
            camera=_shown(means.get("camera_weights")),
            untrained=UNTRAINED,
        ),
        {
            "change": {key[0]: round(line.change, 6) for key, line in weights.items()},
            "half_width_95": {key[0]: round(line.half_width, 6) for key, line in weights.items()},
            "router_grad_norm_logged": False,
            "untrained_weight": round(UNTRAINED, 4),
        },
        bands.STUDENT,
        run.name,
    )


def balance(context: Context) -> Iterator[Finding]:
    """LiDAR against camera weight."""
    run = context.run
    if not run.snapshots:
        return
    last = run.snapshots[-1]
    lidar, camera = last.values("lidar_weights", "mean"), last.values("camera_weights", "mean")
    if not len(lidar) or not len(camera):
        return
    gap = float(camera.mean() - lidar.mean())
    half = None
    if not last.pooled and (a := half_width(camera)) is not None and (b := half_width(lidar)) is not None:
        half = math.hypot(a, b)
    if abs(gap) < 0.05 or (half is not None and abs(gap) <= half):
        return
    yield Finding(
        "sensors.imbalance",
        "info",
        text("Cameras weigh more than LiDAR") if gap > 0 else text("LiDAR weighs more than the cameras"),
        text(
            "Camera {camera:.3f}, LiDAR {lidar:.3f} at forward {forward}: {gap:+.3f}{half}.",
            camera=float(camera.mean()),
            lidar=float(lidar.mean()),
            forward=last.forward,
            gap=gap,
            half=text(" ± {half:.3f} over ranks", half=half) if half is not None else "",
        ),
        {
            "camera": round(float(camera.mean()), 6),
            "lidar": round(float(lidar.mean()), 6),
            "gap": round(gap, 6),
            "half_width_95": half,
        },
        bands.HABIT,
        run.name,
    )


def _shown(value: float | None) -> str | Message:
    return text("unknown") if value is None else f"{value:.2f}"


CHECKS: Final[tuple[Check, ...]] = (learning, trends, balance)
