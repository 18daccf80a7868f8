"""Where AQR no longer tells one query from another: empty maps, maps that only damp, gates that turn weights round."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from aqr.analysis.findings import bands
from aqr.analysis.findings.finding import Check, Context, Finding
from aqr.analysis.formula import is_gated
from aqr.analysis.language import Listing, Message, text
from aqr.analysis.run import MAPS, Run, Snapshot

_NAMES: Final[dict[str, Message]] = {"weight_map_bev": text("BEV map"), "weight_map_pers": text("image map")}
_SENSORS: Final[dict[str, Message]] = {"weight_map_bev": text("LiDAR"), "weight_map_pers": text("cameras")}
_WEIGHTS: Final = {"weight_map_bev": "lidar_weights", "weight_map_pers": "camera_weights"}
_GATES: Final[dict[str, Message]] = {"lidar_gate": text("LiDAR"), "camera_gate": text("cameras")}
_GATE_OF: Final = {"weight_map_bev": "lidar_gate", "weight_map_pers": "camera_gate"}
_THRESHOLD: Final = 0.01
"""min_weight_threshold where it is not stated, or 0."""
_EMPTY: Final = 0.95
"""Share of cells near 0 from which a map counts as empty."""
_SLIGHT: Final = 0.1
"""A gate closer to 0 than this hardly changes features, whatever its sign."""
_GIVEN_UP: Final = 0.05
"""A mean weight below this: the router has given the sensor up."""


def share_near_zero(snapshot: Snapshot, group: str, level: float) -> float | None:
    """At least this share of a map's cells is below the level (Markov's inequality; 1 where the maximum is).

    Args:
        snapshot: statistics of a forward pass.
        group: of `aqr.analysis.run.MAPS`.
        level: a weight above 0.

    Returns:
        A fraction; None where the map's mean is not stated.
    """
    mean, top = snapshot.mean(group, "mean"), snapshot.high(group)
    if mean is None:
        return None
    return 1.0 if top is not None and top < level else max(0.0, 1 - mean / level)


def empty(context: Context) -> Iterator[Finding]:
    """Maps that are 0 nearly everywhere: what is left is the residual, the same for every feature.

    Critical where this tells no query from another: on every map, and not because queries that weigh something are few.
    """
    run = context.run
    residual = run.number("residual_weight")
    if not run.snapshots or residual is None or run.text("parameterisation") == "centered":
        return
    last = run.snapshots[-1]
    level = run.number("min_weight_threshold") or _THRESHOLD
    shares = {group: share for group in MAPS if (share := share_near_zero(last, group, level)) is not None}
    found = [group for group, share in shares.items() if share >= _EMPTY]
    if not found:
        return
    yield Finding(
        "maps.empty",
        "critical" if all(_ranks_nothing(last, group, share) for group, share in shares.items()) else "warning",
        text("Weight maps are empty: AQR is all but a constant factor there"),
        text(
            "At forward {forward} {listed}. {constant}{given_up}",
            listed=Listing(tuple(_emptiness(last, group, shares[group], level) for group in found)),
            forward=last.forward,
            constant=_constant(run, last, residual, found),
            given_up=_given_up(last, found),
        ),
        {
            "near_zero_below": level,
            "share_near_zero_at_least": {group: round(shares[group], 6) for group in found},
            "map_mean": {group: last.mean(group, "mean") for group in found},
            "map_max": {group: last.high(group) for group in found},
            "weight_mean": {_WEIGHTS[group]: last.mean(_WEIGHTS[group], "mean") for group in found},
            "relative_change": last.mean("modulation_pers", "relative_change"),
            "residual_weight": residual,
        },
        bands.MARKOV,
        run.name,
    )


def _ranks_nothing(last: Snapshot, group: str, share: float) -> bool:
    weight = last.mean(_WEIGHTS[group], "mean")
    return share == 1 or (share >= _EMPTY and weight is not None and weight < _GIVEN_UP)


def _emptiness(last: Snapshot, group: str, share: float, level: float) -> Message:
    if last.high(group) == 0:
        return text("the {map} is 0 on every cell", map=_NAMES[group])
    return text(
        "the {map} is below {level:g} on at least {share:.0f} % of the cells (mean {mean:.5f})",
        map=_NAMES[group],
        level=level,
        share=np.floor(100 * share),
        mean=last.mean(group, "mean") or 0.0,
    )


def _constant(run: Run, last: Snapshot, residual: float, found: list[str]) -> Message:
    if not is_gated(run):
        return text(
            "There every feature is multiplied by all but the same factor, residual_weight ({residual:g}).",
            residual=residual,
        )
    return text(
        "There the change is (1 − {residual:g}) × gate, all but the same for every feature{seen}.",
        residual=residual,
        seen=_gates_seen(last, residual, found),
    )


def _gates_seen(last: Snapshot, residual: float, found: list[str]) -> Message | str:
    """The gates of the maps as logged, else what the images' change says of theirs."""
    logged = {name: last.gates[name] for group in found if (name := _GATE_OF[group]) in last.gates}
    if logged:
        return text(
            " ({listed})",
            listed=Listing(
                tuple(
                    text("{sensor}: gate {gate:.3f}", sensor=_GATES[name], gate=gate) for name, gate in logged.items()
                )
            ),
        )
    change = last.mean("modulation_pers", "relative_change") if "weight_map_pers" in found else None
    if change is None or residual >= 1:
        return ""
    return text(
        " (images: {change:.1f} %, a gate of {gate:.2f} up or down)", change=100 * change, gate=change / (1 - residual)
    )


def _given_up(last: Snapshot, found: list[str]) -> Message | str:
    means = {group: last.mean(_WEIGHTS[group], "mean") for group in found}
    low = {group: mean for group, mean in means.items() if mean is not None and mean < _GIVEN_UP}
    if not low:
        return ""
    return text(
        " The router has given these sensors up: mean weight {listed}. What falls below min_weight_threshold is set to "
        "0, so that next to nothing of it is left on the map.",
        listed=Listing(
            tuple(text("{sensor} {mean:.4f}", sensor=_SENSORS[group], mean=mean) for group, mean in low.items())
        ),
    )


def damping_only(context: Context) -> Iterator[Finding]:
    """`sigmoid` maps that never exceed 1: the clamp is inert and no feature is raised."""
    run = context.run
    limit, residual = run.number("max_weight_clamp"), run.number("residual_weight")
    if not run.snapshots or limit is None or residual is None or run.text("parameterisation") == "centered":
        return
    if run.text("form") == "additive":
        return
    tops = {
        group: max((top for one in run.snapshots if (top := one.high(group)) is not None), default=None)
        for group in MAPS
    }
    known = {group: top for group, top in tops.items() if top is not None}
    if not known or max(known.values()) >= 1 or limit <= 1:
        return
    yield Finding(
        "maps.clamp-inert",
        "info",
        text("No weight in the maps exceeds 1, so the clamp changes nothing"),
        text(
            "Largest weights: {listed}. A clamp of {limit:g} is never reached, another above 1 would do the same, and "
            "features are only {direction}.",
            listed=Listing(
                tuple(text("{top:.3f} in the {map}", top=top, map=_NAMES[group]) for group, top in known.items())
            ),
            limit=limit,
            direction=text("lowered (raised where a gate is negative)") if is_gated(run) else text("lowered"),
        ),
        {"largest": known, "max_weight_clamp": limit},
        bands.ARITHMETIC,
        run.name,
    )


def gates(context: Context) -> Iterator[Finding]:
    """A gate below 0 turns round what a weight of that sensor means."""
    run = context.run
    logged = [one for one in run.snapshots if one.gates]
    if not logged or run.in_attention:
        return
    last = logged[-1]
    negative = {name: value for name, value in last.gates.items() if value < 0}
    if not negative:
        return
    yield Finding(
        "modulation.gate-negative",
        "warning" if min(negative.values()) < -_SLIGHT else "info",
        text("A gate is negative: high weights mean less there"),
        text(
            "At forward {forward}, {listed}. Features are multiplied by 1 + gate · (m − 1), so with a negative gate "
            "the factor falls as the weight rises: read that sensor's weights the other way round.",
            listed=Listing(
                tuple(
                    text("{sensor}: gate {gate:.3f}", sensor=_GATES[name], gate=gate) for name, gate in negative.items()
                )
            ),
            forward=last.forward,
        ),
        {"forward": last.forward, "gates": dict(last.gates), "snapshots_negative": _negative(logged)},
        bands.DEFINITION,
        run.name,
    )


def _negative(logged: list[Snapshot]) -> dict[str, int]:
    return {name: sum(one.gates.get(name, 0.0) < 0 for one in logged) for name in _GATES}


CHECKS: Final[tuple[Check, ...]] = (empty, gates, damping_only)
