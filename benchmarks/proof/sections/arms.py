"""Arms beside one another: against no AQR, against the original, from random weights, in another world."""

from __future__ import annotations

from benchmarks.proof.arms import ARMS, BASELINE, ORIGINAL
from benchmarks.proof.collect import NO_CAMERA, NO_LIDAR
from benchmarks.proof.compare import Comparison
from benchmarks.proof.figures import CLEAN, FAILURES, GROUPS
from benchmarks.proof.finetune import SCRATCH_BATCHES
from benchmarks.proof.plan import FULL, PLAIN_WORLD, TEST
from benchmarks.proof.sections.wording import interval, table, table_of_arms, worse

from aqr.data.failures.catalogue import CAMERA, LIDAR


def arms(comparison: Comparison, chosen: str | None) -> str:
    base = f" (the base: {comparison.base[TEST]['mAP'][CLEAN]:.3f})" if TEST in comparison.base else ""
    says = {arm: (f"**{arm}**" if arm == chosen else arm, ARMS[arm].says) for arm in comparison.others}
    figures = (CLEAN, FAILURES, GROUPS[(LIDAR,)], GROUPS[(CAMERA,)])
    return f"""## The arms

Fine-tuned for {_steps(comparison)} steps of {FULL.batch_size} from the base. No AQR: \
mAP {_none(comparison, CLEAN)} clean{base}, {_none(comparison, FAILURES)} over failures \
(NDS {_none(comparison, CLEAN, "NDS")} and {_none(comparison, FAILURES, "NDS")}), \
{len(comparison.values(BASELINE))} seeds.

![every arm against no AQR](proof-arms.png)

{table_of_arms(comparison, ("arm", "what it is"), says, figures=figures)}

mAP points against no AQR. The arm in bold was chosen on the pilot split.
{_beside(comparison)}"""


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

The original's behaviour against no AQR: {interval(clean)} mAP points clean, {interval(failing)} over failures\
{"; in the original's own runs on nuScenes it was −1.78 clean." if clean is not None else "."}
{_mended(comparison)}"""


def _mended(comparison: Comparison) -> str:
    mended = [arm for arm in comparison.arms if ARMS[arm].beside == ORIGINAL]
    if not mended:
        return ""
    says = {arm: (ARMS[arm].says.removeprefix("the original, but "),) for arm in mended}
    return f"""
What mending one fault alone gives, against the original:

{table_of_arms(comparison, ("mended",), says, ORIGINAL)}

The faults act together, so these gains do not add up, and none is the share of one fault in the loss. A
gate that starts at zero may hide the other faults in so short a training, rather than mend them.
"""


def scratch(fresh: Comparison) -> str:
    if not fresh.others or BASELINE not in fresh.arms:
        return ""
    return f"""## From random weights

{_steps(fresh)} steps of {SCRATCH_BATCHES * FULL.batch_size} with the base's learning rates. No AQR: \
mAP {_none(fresh, CLEAN)} clean, {_none(fresh, FAILURES)} over failures, {len(fresh.values(BASELINE))} seeds.

{table_of_arms(fresh, ("arm",), {arm: (arm,) for arm in fresh.others})}

mAP points against no AQR with the same seed.
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
The same arms, fine-tuned from it in the same way, against no AQR ({_none(plain, CLEAN)} clean,
{_none(plain, FAILURES)} over failures):

{table_of_arms(plain, ("arm",), {arm: (arm,) for arm in plain.others})}

{worse(plain)}
From `benchmarks/proof/results/{PLAIN_WORLD}`; `aqr synth` as it is does not make that world.
"""


def _steps(comparison: Comparison) -> str:
    return " or ".join(sorted({f"{run['effort']['steps']:,}" for run in comparison.runs}))


def _none(comparison: Comparison, figure: str, metric: str = "mAP") -> str:
    """What the detector without AQR reaches."""
    return f"{comparison.mean(BASELINE, figure, metric):.3f}"
