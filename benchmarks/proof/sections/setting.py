"""How the experiment was done, the base that it starts from, and how to do it again."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.proof.base import BATCHES_PER_STEP
from benchmarks.proof.collect import NO_CAMERA, NO_LIDAR, SENSORS
from benchmarks.proof.compare import Comparison
from benchmarks.proof.figures import CLEAN
from benchmarks.proof.plan import BASE_TARGET, CAMERA_DROPOUT, FULL, LIDAR_DROPOUT, OTHER_FAILURES, SENSOR_TARGET
from benchmarks.proof.sections.wording import reached, table

from aqr.data.failures.catalogue import KINDS
from aqr.taxonomy import CLASSES


def method(courses: Sequence[Comparison]) -> str:
    comparison = courses[0]
    bases = [one.base for one in courses if one.base]
    bases = [base for number, base in enumerate(bases) if base not in bases[:number]]
    runs = [*(run for one in courses for run in one.runs), *bases]
    devices = sorted({run["device"] for run in runs})
    seconds = sum(run["effort"]["seconds"] for run in runs)
    cost = f"training took {seconds / 3600:.1f} hours summed over processes that shared GPUs ({', '.join(devices)})"
    if comparison.cost:
        cost += "; in all {minutes} minutes on {gpus}, {gpu_hours} GPU hours, {says}".format_map(comparison.cost)
    others = 1 - LIDAR_DROPOUT - CAMERA_DROPOUT - OTHER_FAILURES * (len(KINDS) - 1)
    return f"""## Method

- **Data**: `aqr synth`, {FULL.scenes} scenes of the tiny preset. No scene of training is scored. Of the validation
  scenes {FULL.pilot_scenes} are the pilot split, on which arms and settings are chosen; the others are the test split,
  on which no arm or setting is chosen and to which all figures below belong (only forms of the base were compared
  [there](training.md#the-small-detector-and-the-demo), in a world without look-alikes). One keyframe in {FULL.every} of
  the test split is scored, one in {FULL.pilot_every} of the pilot split.
- **Failures in training**, the same for the base and for every arm (but where a section says that no sensor fails):
  {LIDAR_DROPOUT:.0%} of the samples without LiDAR, {CAMERA_DROPOUT:.0%} with black images, {OTHER_FAILURES:.1%} with
  each of the other [failures](failures.md) at a severity drawn at random; {others:.0%} show none.
- **Detector**: the small one of `aqr demo` (images 96 × 256 in cells of 8 pixels that say their depth, BEV 96 × 96, 225
  queries, 3 layers).
- **Same data**: {FULL.cached_steps:,} batches of {FULL.batch_size} are made once and kept; a seed decides which of them
  are seen and in which order, whatever the arm.
- **Figures**: mAP by `aqr.scoring`. A failure counts as the mean over its severities, "failures" is the mean over the
  {len(KINDS)} failures. Differences pair runs of the same seed. Their 95 % intervals hold both sources of chance: other
  scenes (bootstrap over scenes, the same draws for every arm) and other seeds (spread pooled over all arms).
- **Cost**: {cost if devices else "nothing has been run yet"}.
"""


def base(comparison: Comparison) -> str:
    found, split = comparison.base, comparison.base_split
    if not found:
        return ""
    scores, nds, ap = (found[split][metric] for metric in ("mAP", "NDS", "AP"))
    least = scores[CLEAN] - max(scores[NO_LIDAR], scores[NO_CAMERA])
    by_sensor = [(says, f"{scores[name]:.3f}", f"{nds[name]:.3f}") for name, says in SENSORS.items()]
    by_class = [(says, *(f"{ap[name][one]:.2f}" for one in CLASSES)) for name, says in SENSORS.items()]
    return f"""## The base

Random weights, {found["effort"]["steps"]:,} steps of {BATCHES_PER_STEP * FULL.batch_size} in \
{found["effort"]["seconds"] / 60:.1f} minutes, without AQR. \
Scored on the {split} split ({comparison.base_device}):

{table(("sensors", "mAP", "NDS"), by_sensor)}

Asked for were {BASE_TARGET} mAP ({reached(scores[CLEAN] >= BASE_TARGET)}) and a loss of at least \
{100 * SENSOR_TARGET:.0f} points without either sensor ({reached(least >= SENSOR_TARGET)}).

AP by class:

{table(("sensors", *(name.replace("_", " ") for name in CLASSES)), by_class)}
"""


def again(unrun: Sequence[str]) -> str:
    """How to do it again; `unrun` are courses without results."""
    return f"""## Again

```console
python -m benchmarks.proof lease --of base base-intact --out /tmp/raw --home home --seconds 480
python -m benchmarks.proof lease --of arms late frozen never --out /tmp/raw --home home --seconds 1500
python -m benchmarks.proof lease --of base-taught taught taught-late --out /tmp/raw --home home --seconds 900
python -m benchmarks.proof lease --of scratch --out /tmp/raw --home home --parallel 3 --seconds 560
python -m benchmarks.proof oracle --out benchmarks/proof/results --severities 3
python -m benchmarks.proof oracle --out benchmarks/proof/results --severities 3 --base home/base-intact.safetensors
python -m benchmarks.proof collect --raw /tmp/raw --out benchmarks/proof/results
python -m benchmarks.proof report --out benchmarks/proof/results --page docs/proof.md
```

The first makes world, batches and failing samples (about 45 GB in `/tmp/proof`, all cores) and trains two bases, each
on a GPU of its own; without it the others start from the bases in the repository, which the figures here are of. The
second runs the arms of `benchmarks/proof/arms.py` on all GPUs, several at a time; those of `late`, `frozen` and `never`
start from the base whose sensors never fail. The third trains a base with queries that read one sensor alone, and arms
from it; the fourth trains arms from random weights. Each goes on where it is called again, until all is done or the
time is over. `--toy` does the same at a size for CPUs, where scores mean nothing. Run folders lie in `/tmp/raw/runs`:
`aqr analyze /tmp/raw/runs/original-0 --baseline /tmp/raw/runs/none-0 --out report/`. `benchmarks/proof/data.py` says
which scenes are `pilot` and which `test`.
{f"Not run yet at full size: {', '.join(unrun)}." if unrun else ""}
"""
