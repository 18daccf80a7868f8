"""The question, the answer that the figures give, and its limits."""

from __future__ import annotations

import math
from typing import Final

from benchmarks.proof.arms import ARMS, BASELINE
from benchmarks.proof.collect import NO_CAMERA
from benchmarks.proof.compare import Comparison
from benchmarks.proof.figures import CLEAN, FAILURES, GROUPS, Difference
from benchmarks.proof.plan import CLEAN_TARGET, FAILURE_TARGET, FULL, SENSOR_TARGET, TEST
from benchmarks.proof.sections.weights import judged, moves_rightly
from benchmarks.proof.sections.wording import count_of_seeds, interval, points, reached, span, table, worse

from aqr.data.failures.catalogue import KINDS, LIDAR

UNTAUGHT: Final = 1.0
"""Mean error of velocities (m/s) from which on NDS gives nothing for them."""
LITTLE: Final = 0.05
"""Relative change of features below which AQR hardly does anything."""


def question() -> str:
    return """# Does AQR help, and when a sensor fails?

A router that works leans on the sensor that still works. Here a base detector without AQR is trained on a synthetic
world whose sensors fail, and then fine-tuned with and without AQR, all else being equal: the same weights to start
from, the same samples in the same order with the same augmentation and the same failures, the same number of steps.
What is left is what AQR does. This page is written by `python -m benchmarks.proof report` from the JSON files in
`benchmarks/proof/results`.
"""


def answer(
    comparison: Comparison,
    chosen: str | None,
    plain: Comparison,
    others: tuple[Comparison, Comparison, Comparison],
) -> str:
    """What follows.

    `others` are runs from a base that never saw a sensor fail, of AQR alone there, and from random weights.
    """
    late, frozen, scratch = others
    if chosen is None:
        return "## Answer\n\nNo arm has been run yet, or none kept its score on clean pilot data.\n"
    clean, failing = comparison.difference(chosen, CLEAN), comparison.difference(chosen, FAILURES)
    if clean is None or failing is None:
        return "## Answer\n\nThe chosen arm shares no seed with the detector without AQR.\n"
    alone = math.isnan(clean.low)
    better = "better than the same fine-tuning without AQR under failures"
    sure = f"{better}, by more than chance" if failing.low > 0 else f"not {better} by more than chance"
    verdict = "judged by one seed only, which gives no interval and proves nothing yet" if alone else sure
    rest = f"{_thinly_seeded(comparison, plain)}{_elsewhere(late, frozen)}{_freshly_trained(scratch)}"
    rest = rest if alone else _consequence(comparison) + rest
    rows = (("nothing fails", interval(clean)), (f"mean over {len(KINDS)} failures", interval(failing)))
    return f"""## Answer

The arm chosen on the pilot split is **{chosen}** ({ARMS[chosen].says}).
On the test split it is {verdict}:

{table(("against no AQR, mAP points", "difference, 95 % interval"), rows)}

The aim was a clean mAP whose interval does not fall below {points(CLEAN_TARGET)} and at least
{points(FAILURE_TARGET)} over failures: {reached(clean.low >= CLEAN_TARGET and failing.value >= FAILURE_TARGET)}.
{rest}"""


def _consequence(comparison: Comparison) -> str:
    clean, failing = comparison.forms(CLEAN), comparison.forms(FAILURES)
    if any(one.low > 0 for one in (*clean.values(), *failing.values())):
        return ""
    return f"""
None of {len(clean)} forms of AQR that could be used beats the same training without it here by more than chance, clean
or over failures: the differences run from {_span(clean)} clean and from {_span(failing)} over failures.
{worse(comparison) or "None is worse by more than chance either."} {_weak(comparison)}So the default stays `sigmoid`
behind a gate that starts at zero: it cannot begin worse than the detector that it is put into, and it is the form that
the name stands for. The others are settings (`aqr.parameterisation`, `aqr.target`, `detector.loss.solo`).
"""


def _weak(comparison: Comparison) -> str:
    """How little most forms do."""
    changes = {arm: comparison.change(arm) for arm in comparison.forms(CLEAN)}
    most = {arm: max(change.values()) for arm, change in changes.items() if any(change.values())}
    little = [value for value in most.values() if value < LITTLE]
    if not little:
        return ""
    from_to = f"{100 * min(little):.1f} to {100 * max(little):.1f} %"
    return f"""That is no test of
strong routing: in so short a training {len(little)} of the {len(most)} forms that change features come to change them
by {from_to} only ([table](#the-arms)). """


def _thinly_seeded(comparison: Comparison, plain: Comparison) -> str:
    """What stands behind arms that have not had all their seeds yet."""
    had = {arm: len(comparison.values(arm)) for arm in comparison.arms}
    wanting = [count for arm, count in had.items() if count < ARMS[arm].seeds]
    if not wanting:
        return ""
    text = f"""
Of {len(had)} arms, counting the detector without AQR, {_seeds(had)}; up to three were planned.
{_scatter("Here", comparison)}
With few degrees of freedom intervals are wide, or far too narrow where the few runs happened to agree.
"""
    if plain.runs:
        text += f"""
In [a world without look-alikes](#without-look-alikes), with up to three seeds, the same forms differ from no AQR by
{_span(plain.forms(CLEAN))} clean and by {_span(plain.forms(FAILURES))} over failures.
{_scatter("There", plain)} {worse(plain)}
"""
    return text


def _seeds(had: dict[str, int]) -> str:
    counts = sorted(set(had.values()))
    said = []
    for count in counts:
        arms = list(had.values()).count(count)
        said.append(f"{arms} {'has' if arms == 1 else 'have'} had {count_of_seeds(count)}")
    return " and ".join([", ".join(said[:-1]), said[-1]] if len(said) > 1 else said)


def _span(differences: dict[str, Difference]) -> str:
    return span(one.value for one in differences.values())


def _scatter(where: str, comparison: Comparison) -> str:
    """How far differences scatter over seeds, in words."""
    freedom = comparison.spread(CLEAN).freedom
    if not freedom:
        return f"{where} no arm has two seeds, so that nothing is known of their spread."
    clean, failing, lidar = (
        f"{100 * comparison.spread(figure).deviation:.2f}" for figure in (CLEAN, FAILURES, GROUPS[(LIDAR,)])
    )
    return f"""{where} the standard deviation of a difference over seeds is {clean} points
clean, {failing} over failures and {lidar} under {GROUPS[(LIDAR,)]} (degrees of freedom: {freedom:.1f})."""


def _elsewhere(late: Comparison, frozen: Comparison) -> str:
    """What other starts give, in a sentence each."""
    text = ""
    clean, failing = late.forms(CLEAN), late.forms(FAILURES)
    if clean:
        better = [f"`{arm}`" for arm in clean if clean[arm].low > 0 or failing[arm].low > 0]
        text += f"""
From [a base that has never seen a sensor fail](#from-a-base-that-has-never-seen-a-sensor-fail), fine-tuned with
failures, {len(clean)} forms differ by {_span(clean)} clean and by {_span(failing)} over failures
({count_of_seeds(min(one.seeds for one in clean.values()))}); better by more than chance: {", ".join(better) or "none"}.
"""
    routers = judged(frozen)
    if routers and BASELINE in frozen.arms:
        moved = [arm for arm, of_arm in routers.items() if moves_rightly(of_arm)]
        best = max(KINDS, key=lambda kind: max(_value(frozen, arm, kind.name) for arm in moved or routers)).name
        text += f"""
Where [AQR alone is trained](#aqr-trained-by-itself) in that base, {len(moved)} of {len(routers)} routers that can be
judged come to lean on the sensor that still works, from the detection loss alone ({_run_with(frozen)}). They gain
most under {best}: {span(_value(frozen, arm, best) for arm in moved or routers)} points.
"""
    return text


def _value(frozen: Comparison, arm: str, figure: str) -> float:
    found = frozen.difference(arm, figure)
    return -math.inf if found is None else found.value


def _run_with(course: Comparison) -> str:
    return count_of_seeds(min(len(course.values(arm)) for arm in course.others))


def _freshly_trained(scratch: Comparison) -> str:
    said = []
    for arm in scratch.others:
        clean, failing = scratch.difference(arm, CLEAN), scratch.difference(arm, FAILURES)
        if clean is not None and failing is not None:
            said.append(f"`{arm}` differs by {interval(clean)} clean and\nby {interval(failing)} over failures")
    return f"\n[From random weights](#from-random-weights) {'; '.join(said)}.\n" if said else ""


def _untaught(comparison: Comparison) -> str:
    errors = comparison.errors(BASELINE)
    if not errors or errors["vel_err"] < UNTAUGHT:
        return ""
    return f"""- Single sweeps show no motion: velocities are off by {errors["vel_err"]:.1f} m/s on average without AQR,
  for which NDS gives 0, and orientations by {errors["orient_err"]:.2f} rad. NDS says little here that mAP does not.
"""


def limits(comparison: Comparison) -> str:
    scores = comparison.scores(BASELINE)
    gain = scores[CLEAN] - scores[NO_CAMERA]
    worth = f"""- The cameras add only {100 * gain:.1f} points to what LiDAR finds, so there is little to win on the
  camera's side, and camera failures hardly hurt. A world or a detector in which cameras matter more would be a harder
  test.
"""
    best = max(values[CLEAN] for arm in comparison.arms for values in comparison.values(arm).values())
    start = comparison.base.get(TEST, {}).get("mAP", {}).get(CLEAN, math.inf)
    ends = ", and no run ends above the clean mAP of the base that it starts from" if best <= start < math.inf else ""
    return f"""## Limits

{worth if gain < SENSOR_TARGET else ""}- Fine-tuning is short{ends}.
- Each base was trained with one seed: intervals say nothing of other bases.
- What cameras add in this world is mostly colour: by that and a little by place [look-alikes](synth.md#look-alikes)
  differ from objects that stand still.
{_untaught(comparison)}- A synthetic world, a small detector and short trainings: they order methods, and say nothing of
  nuScenes' figures.
- The failures of the test are of the kinds seen in training, other samples and draws. How well unknown failures are met
  is not asked.
- The pilot split ({FULL.pilot_scenes} scenes) is small, so the choice among close arms is partly chance; the test
  figures of the chosen arm are not biased by it.
- Many arms are compared; one in twenty intervals of arms without effect leaves out 0 by chance.
"""
