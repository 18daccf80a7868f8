"""Arms beside one another: against no AQR, against the original, from random weights, in another world."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from benchmarks.proof.arms import ARMS, BASELINE, ORIGINAL
from benchmarks.proof.collect import NO_CAMERA, NO_LIDAR
from benchmarks.proof.compare import Comparison
from benchmarks.proof.figures import CLEAN, FAILURES, FIGURES
from benchmarks.proof.finetune import SCRATCH_BATCHES
from benchmarks.proof.plan import FULL, PLAIN_WORLD, TEST
from benchmarks.proof.sections.wording import interval, table, table_of_arms, worse

BEHIND_GATE: Final = "mend-start"
EMPTY: Final = 0.0025
"""Mean weight of a map below which nothing is routed."""


def arms(comparison: Comparison, chosen: str | None) -> str:
    base = f" (the base: {comparison.base[TEST]['mAP'][CLEAN]:.3f})" if TEST in comparison.base else ""
    says = {
        arm: (f"**{arm}**" if arm == chosen else arm, ARMS[arm].says, _changed(comparison, arm))
        for arm in comparison.others
    }
    return f"""## The arms

Fine-tuned for {steps(comparison)} steps of {FULL.batch_size} from the base. No AQR: \
mAP {none(comparison, CLEAN)} clean{base}, {none(comparison, FAILURES)} over failures \
(NDS {none(comparison, CLEAN, "NDS")} and {none(comparison, FAILURES, "NDS")}), \
{len(comparison.values(BASELINE))} seeds.

![every arm against no AQR](proof-arms.png)

{table_of_arms(comparison, ("arm", "what it is", "features change, %"), says, figures=FIGURES)}

mAP points against no AQR. The arm in bold was chosen on the pilot split. Features change: mean of |F' − F| / |F| over
image features / BEV features at the end of training; arms whose weights enter attention change none.
{_beyond_chance(comparison, FIGURES[2:])}{_beside(comparison)}"""


def _changed(comparison: Comparison, arm: str) -> str:
    change = comparison.change(arm)
    return " / ".join(f"{100 * value:.1f}" for value in change.values()) if any(change.values()) else "–"


def with_changes(comparison: Comparison, figures: Sequence[str] = (CLEAN, FAILURES)) -> str:
    """Arms against no AQR, and how far they change features."""
    says = {arm: (arm, _changed(comparison, arm)) for arm in comparison.others}
    return table_of_arms(comparison, ("arm", "features change, %"), says, figures=figures)


def _beyond_chance(comparison: Comparison, groups: tuple[str, ...]) -> str:
    """What leaves out 0 beside the two figures that the answer rests on."""
    said = []
    for group in groups:
        found = comparison.forms(group)
        arms = [f"`{arm}` {interval(one)}" for arm, one in found.items() if one.low > 0 or one.high < 0]
        said += [f"{', '.join(arms)} under {group}"] if arms else []
    if not said:
        return ""
    freedom = comparison.spread(groups[0]).freedom
    return f"""
Of the forms that could be used, these intervals leave out 0: {"; ".join(said)}.
With {freedom:.1f} degrees of freedom behind the spread over seeds and so many differences nothing follows from that.
"""


def _beside(comparison: Comparison) -> str:
    rows = [
        (arm, other, *(interval(comparison.difference(arm, figure, other)) for figure in (CLEAN, FAILURES)))
        for arm in comparison.arms
        if ARMS[arm].candidate and (other := ARMS[arm].beside)
    ]
    if not rows:
        return ""
    return f"""
Arms trained in a way that needs no router, beside a detector without one that is trained so as well:

{table(("arm", "against", "clean", "failures"), rows)}
"""


def faults(comparison: Comparison) -> str:
    if ORIGINAL not in comparison.arms:
        return ""
    clean, failing = (comparison.difference(ORIGINAL, figure) for figure in (CLEAN, FAILURES))
    return f"""## What the original's faults cost

The original is AQR as it was first tried, in mmdetection3d on nuScenes; its logs are not public. It lost 1.78 mAP
points there against the same detector without it. Its arm here has its settings, 2.5 + 0.6, and its faults: weights are
cut from the graph and never learn; denoising queries, which sit on noised ground truth, are rendered in training; what
no camera sees is drawn into the first cell of the first camera; features are r·F + W·F, which is larger than F wherever
a map is not small; and nothing lets it begin as the detector that it is put into.

Against no AQR: {interval(clean)} mAP points clean, {interval(failing)} over failures.
{_mended(comparison)}"""


def _mended(comparison: Comparison) -> str:
    mended = [arm for arm in comparison.arms if ARMS[arm].beside == ORIGINAL]
    if not mended:
        return ""
    says = {arm: (ARMS[arm].says.removeprefix("the original, but "),) for arm in mended}
    return f"""
What mending one fault alone gives, against the original:

{table_of_arms(comparison, ("mended",), says, ORIGINAL)}

The faults act together, so these gains do not add up, and none is the share of one fault in the loss.
{_hidden(comparison)}"""


def _hidden(comparison: Comparison) -> str:
    behind, open_ = (sum(comparison.change(arm).values()) for arm in (BEHIND_GATE, ORIGINAL))
    if not behind or not open_:
        return "A gate that starts at zero may hide the other faults in so short a training, rather than mend them.\n"
    return f"""Behind a gate that starts at zero features change by {_changed(comparison, BEHIND_GATE)} % (images / BEV)
in place of {_changed(comparison, ORIGINAL)} %: in so short a training it hides the other faults rather than mends them.
"""


def scratch(fresh: Comparison) -> str:
    if not fresh.others or BASELINE not in fresh.arms:
        return ""
    return f"""## From random weights

{steps(fresh)} steps of {SCRATCH_BATCHES * FULL.batch_size} with the base's learning rates. No AQR: \
mAP {none(fresh, CLEAN)} clean, {none(fresh, FAILURES)} over failures, {len(fresh.values(BASELINE))} seeds.

{with_changes(fresh)}

mAP points against no AQR with the same seed.
{collapsed(fresh)}{fresh.note}"""


def collapsed(comparison: Comparison) -> str:
    """Routers that have switched themselves off."""
    said = []
    for arm in comparison.others:
        found = comparison.emptier(arm)
        empty = sum(one < EMPTY for one in found)
        if empty:
            said.append(f"in {empty} of {len(found)} runs of `{arm}`")
    if not said:
        return ""
    first, *others = said
    where = ", ".join([first[0].upper() + first[1:], *others])
    return f"""{where} the map of one sensor is all but empty in the end
(mean weight below {EMPTY}): its router has let the weights sink below `min_weight_threshold`, and all that is left of
AQR for that sensor is one constant factor. Nothing is routed there.
"""


def plain_world(plain: Comparison) -> str:
    """The same experiment in a world where cameras have less to say."""
    if not plain.others or TEST not in plain.base:
        return ""
    scores = plain.base[TEST]["mAP"]
    return f"""## Without look-alikes

Most of what stands in the street can be told by its shape; the [look-alikes](synth.md#look-alikes) cannot.
In a world without them cameras have little to add: the base, trained alike, reaches \
{scores[CLEAN]:.3f} mAP, {scores[NO_LIDAR]:.3f} without LiDAR
and {scores[NO_CAMERA]:.3f} without cameras ({plain.base_device}).
The same arms, fine-tuned from it in the same way, against no AQR ({none(plain, CLEAN)} clean,
{none(plain, FAILURES)} over failures):

{table_of_arms(plain, ("arm",), {arm: (arm,) for arm in plain.others})}

{worse(plain)}
From `benchmarks/proof/results/{PLAIN_WORLD}`; `aqr synth` as it is does not make that world.
"""


def steps(comparison: Comparison) -> str:
    """How many steps runs were trained for."""
    return " or ".join(sorted({f"{taken:,}" for run in comparison.runs if (taken := run["effort"]["steps"])}))


def none(comparison: Comparison, figure: str, metric: str = "mAP") -> str:
    """What the detector without AQR reaches."""
    return f"{comparison.mean(BASELINE, figure, metric):.3f}"
