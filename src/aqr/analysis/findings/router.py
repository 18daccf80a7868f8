"""Whether the router learns, what moves, and which sensor it prefers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from aqr.analysis.findings import bands
from aqr.analysis.findings.finding import Check, Context, Finding
from aqr.analysis.language import Listing, Message, text
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
    """Rises and falls: each that is significant, and in one finding those that are noise."""
    run = context.run
    if len(run.snapshots) < 2:
        return
    names = {(group, statistic): name for group, statistic, name in QUANTITIES}
    first, last = run.snapshots[0], run.snapshots[-1]
    tested = {key: found for key, found in trends_of(run).items() if len(first.values(*key)) and len(last.values(*key))}
    still: list[Message] = []
    evidence: dict[str, Any] = {"ranks": last.ranks, "snapshots": len(run.snapshots)}
    for key, (line, p) in tested.items():
        early, late = first.values(*key), last.values(*key)
        lowest, highest = float(late.min() - early.max()), float(late.max() - early.min())
        figures = {
            "change": round(line.change, 6),
            "half_width_95": round(line.half_width, 6),
            "p": round(line.p, 6),
            "p_corrected": round(p, 6),
            "significant": p <= LEVEL,
            "single_rank_range": [round(lowest, 6), round(highest, 6)],
        }
        if p > LEVEL:
            evidence[key[0]] = figures
            still.append(
                text(
                    "{name} {change:+.1f} ± {half:.1f} points (single ranks: {lowest:+.1f} to {highest:+.1f})",
                    name=names[key],
                    change=100 * line.change,
                    half=100 * line.half_width,
                    lowest=100 * lowest,
                    highest=100 * highest,
                )
            )
            continue
        yield Finding(
            f"trends.{key[0].replace('_', '-')}",
            "info",
            text("The {name} moves by {change:+.1f} points", name=names[key], change=100 * line.change),
            text(
                "From forward {start} to {end}, {change:+.2f} ± {half:.2f} points on the line through all ranks (p = "
                "{p:.3f} after correction for {tests} tests).",
                start=first.forward,
                end=last.forward,
                change=100 * line.change,
                half=100 * line.half_width,
                p=p,
                tests=len(tested),
            ),
            figures,
            bands.STUDENT,
            run.name,
        )
    if still:
        yield Finding(
            "trends.noise",
            "info",
            text("No trend beyond the spread between ranks"),
            text(
                "From forward {start} to {end}, on the line through all ranks: {listed}. A rise quoted from one rank "
                "at each end is noise.",
                start=first.forward,
                end=last.forward,
                listed=Listing(tuple(still)),
            ),
            evidence,
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
    if run.snapshots[-1].pooled:
        yield Finding(
            "router.learning-unknown",
            "info",
            text("Whether the router learns is not logged"),
            text(
                "There is no router_grad_norm, and without a spread between ranks nothing tells a weight that moves "
                "from noise."
            ),
            {"router_grad_norm_logged": False, "ranks": run.snapshots[-1].ranks},
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
            "Over {count} snapshots no weight moves beyond the spread between ranks (LiDAR {lidar}, camera {camera} "
            "at the end; an untrained router with bias 1.5 gives {untrained:.2f}), and no gradient norm of the router "
            "is logged. A router that gets no gradient looks like this.",
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
