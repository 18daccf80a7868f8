"""The same arms from bases that have never seen a sensor fail."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from benchmarks.proof.arms import BASELINE
from benchmarks.proof.collect import NO_CAMERA, NO_LIDAR
from benchmarks.proof.compare import Comparison
from benchmarks.proof.figures import CLEAN, FAILURES, FIGURES, figures_of
from benchmarks.proof.plan import TEST
from benchmarks.proof.sections.arms import collapsed, none, steps, with_changes
from benchmarks.proof.sections.weights import judged, leaning_table, moves_rightly
from benchmarks.proof.sections.wording import count_of_seeds, points, span, table

from aqr.data.failures.catalogue import KINDS

CAMERAS_MISSING: Final = "missing_camera"
LIDAR_MISSING: Final = "lidar_drop"


def intact(comparison: Comparison, late: Comparison, frozen: Comparison, never: Comparison) -> str:
    """From a base that was trained as most published detectors are."""
    if TEST not in late.base:
        return ""
    scores = late.base[TEST]["mAP"]
    effort = late.base["effort"]
    parts = [
        f"""## From a base that has never seen a sensor fail

Most published detectors are trained with sensors that all work. A base trained so, on the same samples, for \
{effort["steps"]:,} steps
in {effort["seconds"] / 60:.1f} minutes, reaches {scores[CLEAN]:.3f} mAP, {scores[NO_LIDAR]:.3f} without LiDAR and \
{scores[NO_CAMERA]:.3f} without cameras.

{_without_aqr(comparison, late)}
"""
    ]
    if _ran(late):
        parts.append(f"""### Fine-tuned with failures

All weights, {steps(late)} steps, sensors fail as above. No AQR: {none(late, CLEAN)} clean, {none(late, FAILURES)} over
failures, {count_of_seeds(len(late.values(BASELINE)))}.

{with_changes(late, FIGURES)}

mAP points against no AQR with the same seed.
{collapsed(late)}
{leaning_table(late)}
""")
    if _ran(frozen):
        parts.append(_alone(frozen, late, "AQR trained by itself", "proof-frozen.png"))
    if _ran(never):
        parts.append(f"""### Fine-tuned without failures

No sensor ever fails in training. No AQR: {none(never, CLEAN)} clean, {none(never, FAILURES)} over failures,
{count_of_seeds(len(never.values(BASELINE)))}.

{with_changes(never, FIGURES)}
""")
    return "\n".join(parts)


def taught(alone: Comparison, late: Comparison) -> str:
    """From a base that can see with either sensor alone."""
    if TEST not in alone.base or not (_ran(alone) or _ran(late)):
        return ""
    scores = alone.base[TEST]["mAP"]
    parts = [
        f"""## From a base that was taught to see with either sensor alone

Trained without failures, but with queries that read one sensor alone (`detector.loss.solo`): {scores[CLEAN]:.3f} mAP,
{scores[NO_LIDAR]:.3f} without LiDAR and {scores[NO_CAMERA]:.3f} without cameras.
"""
    ]
    if _ran(alone):
        parts.append(_alone(alone, late, "AQR trained by itself in it", "proof-taught.png"))
    if _ran(late):
        parts.append(f"""### All its weights fine-tuned with failures

No AQR: {none(late, CLEAN)} clean, {none(late, FAILURES)} over failures.

{with_changes(late, FIGURES)}
""")
    return "\n".join(parts)


def _ran(course: Comparison) -> bool:
    return bool(course.others) and BASELINE in course.arms


def _without_aqr(comparison: Comparison, late: Comparison) -> str:
    """What training with failures does where nothing routes."""
    found = [(f"never saw a sensor fail, {_base_steps(late)} steps", figures_of(late.base[TEST]["mAP"]))]
    if BASELINE in late.arms:
        mean = {name: late.mean(BASELINE, name) for name in FIGURES}
        found.append((f"the same, fine-tuned with failures for {steps(late)} steps", mean))
    trained = ""
    if TEST in comparison.base:
        says = f"trained with failures, {_base_steps(comparison)} steps: the base above"
        found.append((says, figures_of(comparison.base[TEST]["mAP"])))
        trained = f"""
Trained with failures of the kinds that are tested, a detector without any router keeps {_kept(found[-1][1])} of its
clean mAP under failures in place of {_kept(found[0][1])} (one base each).
"""
    rows = [(says, *(f"{values[name]:.3f}" for name in FIGURES), _kept(values)) for says, values in found]
    return f"""{table(("mAP without AQR", *FIGURES, "kept under failures"), rows)}
{trained}"""


def _kept(values: Mapping[str, float]) -> str:
    return f"{100 * values[FAILURES] / values[CLEAN]:.0f} %"


def _base_steps(comparison: Comparison) -> str:
    return f"{comparison.base['effort']['steps']:,}"


def _alone(frozen: Comparison, late: Comparison, title: str, picture: str) -> str:
    """AQR trained in a detector that stays as it is, beside what fine-tuning all of it gives."""
    shown = (
        f"\n![LiDAR and camera weights by failure, distance, class and light]({picture})\n" if frozen.weights else ""
    )
    of_aqr = sorted({run["trained"] for run in frozen.runs if run["trained"]})
    stay = next(run["parameters"] for run in frozen.runs if run["arm"] == BASELINE)
    return f"""### {title}

The detector stays as it is; AQR alone ({of_aqr[0]:,} to {of_aqr[-1]:,} weights beside {stay:,} that stay) learns from
{steps(frozen)} steps in which sensors fail. No AQR is then the base itself: {none(frozen, CLEAN)} clean,
{none(frozen, FAILURES)} over failures.

{with_changes(frozen, FIGURES)}

mAP points against the base; ± is for other scenes alone where there is one seed.
{collapsed(frozen)}
{_by_failure(frozen, late)}

{leaning_table(frozen)}
{shown}
The decoder is frozen too and cannot learn to read past a weight: here levels count as well.
{_worth(frozen, late)}"""


def _by_failure(frozen: Comparison, late: Comparison) -> str:
    """Every failure: AQR alone, and all weights without AQR."""
    head = ["failure", "the base, mAP", *frozen.others]
    tuned = BASELINE in late.arms
    if tuned:
        head.append("all weights fine-tuned, no AQR")
    rows = []
    for name in (CLEAN, *(kind.name for kind in KINDS)):
        row = [name, f"{frozen.mean(BASELINE, name):.3f}"]
        for arm in frozen.others:
            found = frozen.difference(arm, name)
            row.append("–" if found is None else f"{points(found.value)} ± {100 * found.scenes:.2f}")
        if tuned:
            row.append(_all_weights(frozen, late, name))
        rows.append(row)
    return table(head, rows)


def _worth(frozen: Comparison, late: Comparison) -> str:
    """What leaning on the sensor that works is worth in this detector."""
    arms = [arm for arm, of_arm in judged(frozen).items() if moves_rightly(of_arm)]
    if not arms:
        return ""
    scores = frozen.base[TEST]["mAP"]
    names = ", ".join(f"`{arm}`" for arm in arms)
    alone = f"{scores[NO_CAMERA]:.3f} mAP with LiDAR alone, {scores[NO_LIDAR]:.3f} with cameras alone"
    beside = ""
    if BASELINE in late.arms:
        beside = f""" Fine-tuning all weights without AQR changes
the two by {_all_weights(frozen, late, CAMERAS_MISSING)} and {_all_weights(frozen, late, CLEAN)}."""
    return f"""
So {names} find out by themselves, from the detection loss, which sensor
to trust. What that is worth depends on what the detector can do with one sensor: {alone}.
Under {CAMERAS_MISSING} they gain {_span(frozen, arms, CAMERAS_MISSING)} points and change clean mAP by \
{_span(frozen, arms, CLEAN)}.{beside}
Under {LIDAR_MISSING} they gain {_span(frozen, arms, LIDAR_MISSING)}.
"""


def _span(frozen: Comparison, arms: list[str], figure: str) -> str:
    return span(one.value for arm in arms if (one := frozen.difference(arm, figure)) is not None)


def _all_weights(frozen: Comparison, late: Comparison, figure: str) -> str:
    """What fine-tuning all weights without AQR changes of the base."""
    return points(late.mean(BASELINE, figure) - frozen.mean(BASELINE, figure))
