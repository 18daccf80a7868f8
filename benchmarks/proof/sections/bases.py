"""The same arms from bases that have never seen a sensor fail."""

from __future__ import annotations

from typing import Final

from benchmarks.proof.arms import ARMS, BASELINE
from benchmarks.proof.collect import NO_CAMERA, NO_LIDAR
from benchmarks.proof.compare import Comparison
from benchmarks.proof.figures import CLEAN, FAILURES, GROUPS, figures_of
from benchmarks.proof.plan import TEST
from benchmarks.proof.sections.arms import none, steps, with_changes
from benchmarks.proof.sections.weights import leaning_table, moves_rightly
from benchmarks.proof.sections.wording import count_of_seeds, interval, points, table

from aqr.data.failures.catalogue import CAMERA, KINDS, LIDAR

BLIND: Final = 0.02
"""mAP with one sensor below which a detector cannot see with it alone."""
FIGURES: Final = (CLEAN, FAILURES, GROUPS[(LIDAR,)], GROUPS[(CAMERA,)])


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
    if late.others and BASELINE in late.arms:
        parts.append(f"""### Fine-tuned with failures

All weights, {steps(late)} steps, sensors fail as above. No AQR: {none(late, CLEAN)} clean, {none(late, FAILURES)} over
failures, {count_of_seeds(len(late.values(BASELINE)))}.

{with_changes(late, FIGURES)}

mAP points against no AQR with the same seed.
""")
    if frozen.others and BASELINE in frozen.arms:
        parts.append(_alone(frozen))
    if never.others and BASELINE in never.arms:
        parts.append(f"""### Fine-tuned without failures

No sensor ever fails in training. No AQR: {none(never, CLEAN)} clean, {none(never, FAILURES)} over failures,
{count_of_seeds(len(never.values(BASELINE)))}.

{with_changes(never, FIGURES)}
""")
    return "\n".join(parts)


def taught(alone: Comparison, late: Comparison) -> str:
    """From a base that can see with either sensor alone."""
    if TEST not in alone.base or not alone.others:
        return ""
    scores = alone.base[TEST]["mAP"]
    text = f"""## From a base that was taught to see with either sensor alone

Trained without failures, but with queries that read one sensor alone (`detector.loss.solo`): {scores[CLEAN]:.3f} mAP,
{scores[NO_LIDAR]:.3f} without LiDAR and {scores[NO_CAMERA]:.3f} without cameras.

{_alone(alone)}"""
    if late.others and BASELINE in late.arms:
        text += f"""
### All weights fine-tuned with failures

No AQR: {none(late, CLEAN)} clean, {none(late, FAILURES)} over failures.

{with_changes(late, FIGURES)}
"""
    return text


def _without_aqr(comparison: Comparison, late: Comparison) -> str:
    """What training with failures does where nothing routes."""
    found = [("never saw a sensor fail", figures_of(late.base[TEST]["mAP"]))]
    if BASELINE in late.arms:
        mean = {name: late.mean(BASELINE, name) for name in FIGURES}
        found.append((f"the same, fine-tuned with failures for {steps(late)} steps", mean))
    trained = ""
    if TEST in comparison.base:
        found.append(("trained with failures, the base above", figures_of(comparison.base[TEST]["mAP"])))
        gain = {name: found[-1][1][name] - found[0][1][name] for name in FIGURES}
        counts = " and ".join(f"{one.base['effort']['steps']:,}" for one in (comparison, late))
        trained = f"""
Training with failures from the start, which needs no router, changes mAP by {points(gain[FAILURES])} points over
failures and by {points(gain[CLEAN])} clean (one base each, {counts} steps)."""
    rows = [(says, *(f"{values[name]:.3f}" for name in FIGURES)) for says, values in found]
    return f"""{table(("mAP without AQR", *FIGURES), rows)}
{trained}"""


def _alone(frozen: Comparison) -> str:
    """AQR trained in a detector that stays as it is."""
    runs = {run["arm"]: run for run in frozen.runs}
    of_aqr = sorted({run["trained"] for run in runs.values() if run["trained"]})
    share = f"{of_aqr[0]:,} to {of_aqr[-1]:,} of {runs[BASELINE]['parameters']:,} weights"
    return f"""### AQR trained by itself

The detector stays as it is; AQR alone ({share}) learns from {steps(frozen)} steps in which sensors fail.
No AQR is then the base itself: {none(frozen, CLEAN)} clean, {none(frozen, FAILURES)} over failures.

{with_changes(frozen, FIGURES)}

mAP points against the base; ± is for other scenes alone where there is one seed.

{_most(frozen)}
{leaning_table(frozen)}
{_unskilled(frozen)}"""


def _unskilled(frozen: Comparison) -> str:
    """Why leaning on a sensor may gain nothing."""
    blind = frozen.base[TEST]["mAP"][NO_LIDAR]
    names = ", ".join(f"`{arm}`" for arm, of_arm in frozen.weights.items() if moves_rightly(of_arm))
    if blind > BLIND or not names:
        return ""
    return f"""
So a router finds out by itself which sensor to trust ({names}). But a detector that never had to see
with cameras alone cannot ({blind:.3f} mAP without LiDAR), and turning towards them does not teach it.
"""


def _most(frozen: Comparison) -> str:
    """Where each arm gains most."""
    rows = []
    for arm in frozen.others:
        found = {kind.name: frozen.difference(arm, kind.name) for kind in KINDS}
        known = {name: one for name, one in found.items() if one is not None}
        best = max(known, key=lambda name: known[name].value)
        least = min(known, key=lambda name: known[name].value)
        rows.append((arm, ARMS[arm].says, f"{best} {interval(known[best])}", f"{least} {interval(known[least])}"))
    return table(("arm", "what it is", "most gained under", "least under"), rows) + "\n"
