"""Failure by failure: the chosen arm, and what hiding the failing sensor could gain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from benchmarks.proof.arms import BASELINE
from benchmarks.proof.choices import BOTH, CONDITION, CONFIDENCE, NOISE, OBJECT, QUERY, SAMPLE
from benchmarks.proof.collect import NO_CAMERA, NO_LIDAR
from benchmarks.proof.compare import Comparison
from benchmarks.proof.figures import CLEAN, FAILURES, FIGURES, WIDTH, figures_of
from benchmarks.proof.plan import BASE, FAILURE_TARGET, INTACT_BASE, conditions, name_of
from benchmarks.proof.sections.wording import interval, points, table

from aqr.data.failures.catalogue import KINDS, LIDAR

WAYS: Final = {
    CONDITION: "failure and severity",
    SAMPLE: "sample",
    OBJECT: "object",
    QUERY: "object and query",
}
DETECTORS: Final = {BASE: "the base", INTACT_BASE: "a base that has never seen a sensor fail"}


def failures(comparison: Comparison, chosen: str | None) -> str:
    text = "## By failure\n\n![every arm under every failure](proof-failures.png)\n"
    if chosen is None:
        return text
    rows = [
        (
            name,
            f"{comparison.mean(BASELINE, name, beside=chosen):.3f}",
            f"{comparison.mean(chosen, name, beside=BASELINE):.3f}",
            interval(comparison.difference(chosen, name)),
        )
        for name in (CLEAN, *(kind.name for kind in KINDS))
    ]
    return f"{text}\n{table(('failure', 'no AQR, same seeds, mAP', chosen, 'difference'), rows)}\n"


def headroom(comparison: Comparison) -> str:
    both = comparison.scores(BASELINE)
    intact = {kind.name: both[NO_LIDAR if kind.needs == (LIDAR,) else NO_CAMERA] for kind in KINDS}
    best = {name_of(one): max(both[name_of(one)], intact[one.name] if one else 0.0) for one in conditions()}
    reached, possible = figures_of(both), figures_of(best)
    gains = {kind.name: possible[kind.name] - reached[kind.name] for kind in KINDS}
    gain = possible[FAILURES] - reached[FAILURES]
    listed = ", ".join(f"{points(one)} under {name}" for name, one in gains.items() if one > 0) or "none anywhere"
    vain = "So switching a sensor off by kind and severity of failure cannot bring this detector the"
    vain = f"{vain}\n{points(FAILURE_TARGET)} asked for. " if gain < FAILURE_TARGET else ""
    return f"""## How much choosing a sensor could gain

Without AQR, intact LiDAR alone reaches {both[NO_CAMERA]:.3f} mAP (cameras gone), intact cameras alone
{both[NO_LIDAR]:.3f} (LiDAR gone). Suppose that somebody who knows which failure, at which severity, is at hand hides
the failing sensor (the cameras, where the two are misaligned) from this detector wherever the other one alone does
better than both. The mean over failures would gain {points(gain)} points: {listed}.

Everywhere else the detector that was trained with failures scores at least as well with the failing sensor as without
it. {vain}{_more(comparison)}"""


def _more(comparison: Comparison) -> str:
    """What finer choices could gain, for somebody who knows the truth."""
    found = comparison.oracle
    if not found:
        return """\
Choosing by sample or by object, weights between all and nothing, or a decoder trained for such choices could
gain more; nothing here measures how much.
"""
    names = {weights: DETECTORS.get(weights, f"`{weights}`") for weights in found}
    rows = [
        (names[weights], says, *(_gain(one["gain"][figure][way]) for figure in FIGURES), _dead(one, way))
        for weights, one in found.items()
        for way, says in WAYS.items()
    ]
    settings = next(iter(found.values()))
    noise = (
        f"{settings['points_left_out']:.0%} of the points left out, images noisy by {settings['grey_noise']:.0f} of 255"
    )
    follows = "\n".join(_follows(names[weights], one) for weights, one in found.items())
    return f"""Weights between all and nothing, or a decoder trained for such choices, could gain
more; nothing here measures how much.

Finer choices were tried in a world that nothing was trained on: {_samples(found)}, failures at
severity {", ".join(map(str, settings["severities"]))} ({settings["device"]}). A detector without AQR sees every sample
three times: as it is, without LiDAR and without cameras. Somebody who knows the truth chooses among the three: under a
failure the one with the best mAP; for a sample the one with the least training loss; for an object the one that fits it
best, all objects at once, while queries that find none keep both sensors; or those take the one that claims least, too.
Such choices gain whatever the three are, since the truth tells which to believe. So in brackets stands what they gain
among three that all have both sensors and differ by noise alone ({noise}),
and among three that differ by how sure they are alone: answers with both sensors, their class logits moved by as much
as hiding a sensor moves them on average over a sample. Gains are mAP points over both sensors:

{table(("detector", "chosen by", *FIGURES, "a sensor gone"), rows)}

{follows}
The last column is the mean over {NO_LIDAR} and {NO_CAMERA}, where a sensor is gone anyway: there is none to choose, and
what a choice gains there is the truth's doing, not the sensors'. So is what confidence alone gains.
No router knows the truth, so hiding sensors from these detectors gains less. But these are no strict bounds: the last
three choices mind the training loss, still others may give a higher mAP, and no control differs as sensors do. One
world, small detectors.
"""


def _gain(one: Mapping[str, Any]) -> str:
    controls = ", ".join(points(control["gain"]) for control in one["controls"].values())
    return f"{points(one['gain'])} ({controls})"


def _samples(found: Mapping[str, Any]) -> str:
    counts = [f"{one['samples']} samples of {one['scenes']} scenes" for one in found.values()]
    return counts[0] if len(set(counts)) == 1 else " and ".join(counts)


def _dead(one: Mapping[str, Any], way: str) -> str:
    """What a choice gains where a sensor is gone anyway, so that there is none to choose."""
    scores = [one["mAP"][name] for name in (NO_LIDAR, NO_CAMERA) if name in one["mAP"]]
    return points(sum(of[way] - of[BOTH] for of in scores) / len(scores)) if scores else "–"


def _follows(detector: str, one: Mapping[str, Any]) -> str:
    """What choices gain beyond noise, beside what was asked for."""
    said: dict[str, list[str]] = {}
    for way, found in one["gain"][FAILURES].items():
        control = found["controls"][NOISE]
        value, half = found["gain"] - control["gain"], WIDTH * control["error"]
        where = "below" if value + half < FAILURE_TARGET else "above" if value - half > FAILURE_TARGET else "around"
        span = f"{points(value)} [{points(value - half)}, {points(value + half)}]"
        doubt = ", less than by confidence alone" if found["gain"] < found["controls"][CONFIDENCE]["gain"] else ""
        said.setdefault(where, []).append(f"by {WAYS[way]} {span}{doubt}")
    listed = [f"{where} the {points(FAILURE_TARGET)} asked for {', '.join(ways)}" for where, ways in said.items()]
    items = ";\n".join(listed)
    return f"For {detector}, over failures and beyond noise (95 %, other scenes):\n{items}."
