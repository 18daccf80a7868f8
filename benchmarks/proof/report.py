"""docs/proof.md from the small JSON files: every number in it is read, none is written by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

import numpy as np
from benchmarks.proof.arms import ARMS, BASELINE, ORIGINAL
from benchmarks.proof.base import BATCHES_PER_STEP
from benchmarks.proof.collect import NO_CAMERA, NO_LIDAR, SENSORS
from benchmarks.proof.compare import Comparison
from benchmarks.proof.figures import CLEAN, FAILURES, GROUPS, Difference, figures
from benchmarks.proof.finetune import SCRATCH_BATCHES
from benchmarks.proof.pictures import draw_differences, draw_failures, draw_weights
from benchmarks.proof.plan import (
    CAMERA_DROPOUT,
    FULL,
    LIDAR_DROPOUT,
    OTHER_FAILURES,
    PILOT,
    PLAIN_WORLD,
    SCRATCH,
    TEST,
    conditions,
    name_of,
)

from aqr.data.failures.catalogue import CAMERA, KINDS, LIDAR
from aqr.files import replacing
from aqr.taxonomy import CLASSES

CLEAN_TARGET: Final = -0.003
FAILURE_TARGET: Final = 0.03
SENSOR_TARGET: Final = 0.05
BASE_TARGET: Final = 0.45
ALIVE: Final = "alive"
MOVES: Final = 1.05
"""Factor from which on a change of weights counts."""


def write_report(results: Path, page: Path) -> None:
    """Write the page, and its pictures beside it.

    Args:
        results: folder of the small JSON files.
        page: docs/proof.md.
    """
    comparison = Comparison.read(results)
    chosen = comparison.chosen()
    stem = page.with_suffix("")
    if len(comparison.arms) > 1:
        draw_differences(comparison, chosen, Path(f"{stem}-arms.png"))
        draw_failures(comparison, Path(f"{stem}-failures.png"))
        draw_weights(comparison.weights, shown_weights(comparison, chosen), Path(f"{stem}-weights.png"))
    scratch, plain = Comparison.read(results, SCRATCH), Comparison.read(results / PLAIN_WORLD)
    sections = [
        _question(),
        _answer(comparison, chosen, plain, scratch),
        _method(comparison, scratch),
        _base(comparison),
    ]
    if len(comparison.arms) > 1:
        sections += [_arms(comparison, chosen), _failures(comparison, chosen), _headroom(comparison)]
        sections += [_faults(comparison)]
        sections += [_scratch(scratch), _plain_world(plain), _weights(comparison, chosen)]
    sections += [_limits(comparison), _again()] if comparison.runs else [_again()]
    with replacing(page) as partial:
        partial.write_text("\n".join(section for section in sections if section), encoding="utf-8")


def shown_weights(comparison: Comparison, chosen: str | None) -> list[str]:
    """Arms whose weights are drawn: those with a router of their own kind, and the chosen one."""
    kinds = ("original", "sigmoid", "sigmoid-gated", "centered", "attention", "attention-context", "experts", ALIVE)
    return [arm for arm in comparison.arms if arm in kinds or arm == chosen]


def points(value: float) -> str:
    return f"{100 * value:+.2f}"


def interval(found: Difference | None) -> str:
    if found is None:
        return "–"
    if math.isnan(found.low):
        return f"{points(found.value)} (one seed)"
    return f"{points(found.value)} [{points(found.low)}, {points(found.high)}]"


def _reached(is_so: bool) -> str:
    return "reached" if is_so else "**not reached**"


def _question() -> str:
    return """# Does AQR help, and when a sensor fails?

A router that works leans on the sensor that still works. Here a base detector without AQR is trained on a synthetic
world whose sensors fail, and then fine-tuned with and without AQR, all else being equal: the same weights to start
from, the same samples in the same order with the same augmentation and the same failures, the same number of steps.
What is left is what AQR does. This page is written by `python -m benchmarks.proof report` from the JSON files in
`benchmarks/proof/results`.
"""


def _answer(comparison: Comparison, chosen: str | None, plain: Comparison, scratch: Comparison) -> str:
    if chosen is None:
        return "## Answer\n\nNo arm has been run yet, or none kept its score on clean pilot data.\n"
    clean, failing = comparison.difference(chosen, CLEAN), comparison.difference(chosen, FAILURES)
    if clean is None or failing is None:
        return "## Answer\n\nThe chosen arm shares no seed with the detector without AQR.\n"
    reached = clean.low >= CLEAN_TARGET and failing.value >= FAILURE_TARGET
    better = failing.low > 0
    alone = math.isnan(clean.low)
    verdict = (
        "judged by one seed only, which gives no interval and proves nothing yet"
        if alone
        else "better than the same fine-tuning without AQR under failures, by more than chance"
        if better
        else "not better than the same fine-tuning without AQR under failures by more than chance"
    )
    return f"""## Answer

The arm chosen on the pilot split is **{chosen}** ({ARMS[chosen].says}).
On the test split it is {verdict}:

| against no AQR, mAP points | difference, 95 % interval |
|---|---|
| nothing fails | {interval(clean)} |
| mean over {len(KINDS)} failures | {interval(failing)} |

The aim was a clean mAP whose interval does not fall below {points(CLEAN_TARGET)} and at least
{points(FAILURE_TARGET)} over failures: {_reached(reached)}.
{"" if alone else _consequence(comparison)}{_thinly_seeded(comparison, plain)}{_freshly_trained(scratch)}"""


def _consequence(comparison: Comparison) -> str:
    known = _of_forms(comparison)
    forms = known[CLEAN]
    if any(one.low > 0 for of_arm in known.values() for one in of_arm.values()):
        return ""
    says = {figure: _range(of_arm) for figure, of_arm in known.items()}
    return f"""
None of {len(forms)} forms of AQR that could be used beats the detector without it here by more than chance, clean or
over failures: the differences run from {says[CLEAN]} clean and from {says[FAILURES]} over failures.
{_worse(comparison) or "None is worse by more than chance either."} So the default stays `sigmoid` behind a gate
that starts at zero: it cannot begin worse than the detector that it is put into, and it is the form that the name
stands for. The others are settings (`aqr.parameterisation`, `aqr.target`, `detector.loss.solo`).
"""


def _of_forms(comparison: Comparison) -> dict[str, dict[str, Difference]]:
    """Differences, clean and over failures, of the forms of AQR that could be used."""
    forms = [arm for arm in comparison.arms if ARMS[arm].candidate]
    found = {figure: {arm: comparison.difference(arm, figure) for arm in forms} for figure in (CLEAN, FAILURES)}
    return {figure: {arm: one for arm, one in of_arm.items() if one is not None} for figure, of_arm in found.items()}


def _worse(comparison: Comparison) -> str:
    """Forms of AQR that are worse by more than chance, in words; empty where none is."""
    worse = {
        figure: [f"`{arm}`" for arm, one in of_arm.items() if one.high < 0]
        for figure, of_arm in _of_forms(comparison).items()
    }
    words = {CLEAN: "clean", FAILURES: "over failures"}
    said = [f"{', '.join(arms)} ({words[figure]})" for figure, arms in worse.items() if arms]
    return f"Worse by more than chance: {'; '.join(said)}." if said else ""


def _range(differences: dict[str, Difference]) -> str:
    values = [one.value for one in differences.values()]
    return f"{points(min(values))} to {points(max(values))}"


def _thinly_seeded(comparison: Comparison, plain: Comparison) -> str:
    """What stands behind arms that have not had all their seeds yet."""
    wanting = [arm for arm in comparison.arms if len(comparison.values(arm)) < ARMS[arm].seeds]
    if not wanting:
        return ""
    single = sum(len(comparison.values(arm)) == 1 for arm in wanting)
    text = f"""
{len(wanting)} of {len(comparison.arms)} arms, counting the detector without AQR, have had fewer seeds here than they
should have, {single} of them one. {_scatter("Here", comparison)}
With few degrees of freedom intervals are wide, or far too narrow where the few runs happened to agree.
"""
    if plain.runs:
        known = _of_forms(plain)
        text += f"""
In [a world without look-alikes](#without-look-alikes), with up to three seeds, the same forms differ from no AQR by
{_range(known[CLEAN])} clean and by {_range(known[FAILURES])} over failures.
{_scatter("There", plain)} {_worse(plain)}
"""
    return text


def _scatter(where: str, comparison: Comparison) -> str:
    """How far differences scatter over seeds, in words."""
    freedom = comparison.spread(CLEAN).freedom
    if not freedom:
        return f"{where} no arm has two seeds, so that nothing is known of their spread."
    clean, failing, lidar = (
        f"{100 * comparison.spread(figure).deviation:.2f}" for figure in (CLEAN, FAILURES, GROUPS[(LIDAR,)])
    )
    return f"""{where} the standard deviation of a difference over seeds is {clean} points
clean, {failing} over failures and {lidar} under {GROUPS[(LIDAR,)]} (degrees of freedom: {freedom})."""


def _freshly_trained(scratch: Comparison) -> str:
    said = []
    for arm in scratch.arms:
        clean, failing = (scratch.difference(arm, figure) for figure in (CLEAN, FAILURES))
        if arm != BASELINE and clean is not None and failing is not None:
            said.append(f"`{arm}` differs by {interval(clean)} clean and\nby {interval(failing)} over failures")
    return f"\n[From random weights](#from-random-weights) {'; '.join(said)}.\n" if said else ""


def _method(comparison: Comparison, scratch: Comparison) -> str:
    runs = [*comparison.runs, *scratch.runs, *([comparison.base] if comparison.base else [])]
    devices = sorted({run["device"] for run in runs})
    seconds = sum(run["effort"]["seconds"] for run in runs)
    cost = f"training took {seconds / 3600:.1f} hours summed over processes that shared GPUs ({', '.join(devices)})"
    if comparison.cost:
        cost += (
            f"; in all {comparison.cost['minutes']} minutes on {comparison.cost['gpus']}, "
            f"{comparison.cost['gpu_hours']} GPU hours, {comparison.cost['says']}"
        )
    cost = cost if devices else "nothing has been run yet"
    others = 1 - LIDAR_DROPOUT - CAMERA_DROPOUT - OTHER_FAILURES * (len(KINDS) - 1)
    return f"""## Method

- **Data**: `aqr synth`, {FULL.scenes} scenes of the tiny preset. No scene of training is scored. Of the validation
  scenes {FULL.pilot_scenes} are the pilot split, on which arms and settings are chosen; the others are the test split,
  on which no arm or setting is chosen and to which all figures below belong (only forms of the base were compared
  [there](training.md#the-small-detector-and-the-demo), in a world without look-alikes). One keyframe in {FULL.every} of
  the test split is scored, one in {FULL.pilot_every} of the pilot split.
- **Failures in training**, the same for the base and for every arm: {LIDAR_DROPOUT:.0%} of the samples without LiDAR,
  {CAMERA_DROPOUT:.0%} with black images, {OTHER_FAILURES:.1%} with each of the other [failures](failures.md) at a
  severity drawn at random; {others:.0%} show none.
- **Detector**: the small one of `aqr demo` (images 96 × 256 in cells of 8 pixels that say their depth, BEV 96 × 96, 225
  queries, 3 layers).
- **Same data**: {FULL.cached_steps:,} batches of {FULL.batch_size} are made once and kept; a seed decides which of them
  are seen in which order, the arm does not.
- **Figures**: mAP by `aqr.scoring`. A failure counts as the mean over its severities, "failures" is the mean over the
  {len(KINDS)} failures. Differences pair runs of the same seed. Their 95 % intervals hold both sources of chance: other
  scenes (bootstrap over scenes, the same draws for every arm) and other seeds (spread pooled over all arms).
- **Cost**: {cost}.
"""


def _base(comparison: Comparison) -> str:
    base = comparison.base
    if not base:
        return ""
    split = TEST if TEST in base else PILOT
    scores = base[split]["mAP"]
    clean, no_lidar, no_camera = (scores[name] for name in (CLEAN, NO_LIDAR, NO_CAMERA))
    both = min(clean - no_lidar, clean - no_camera) >= SENSOR_TARGET
    lines = [
        "## The base",
        "",
        f"Random weights, {base['effort']['steps']:,} steps of {BATCHES_PER_STEP * FULL.batch_size} in "
        f"{base['effort']['seconds'] / 60:.1f} minutes, without AQR. "
        f"Scored on the {split} split ({base.get('scored_on', {}).get(split, base['device'])}):",
        "",
        "| sensors | mAP | NDS |",
        "|---|---|---|",
    ]
    for name, says in SENSORS.items():
        lines.append(f"| {says} | {scores[name]:.3f} | {base[split]['NDS'][name]:.3f} |")
    lines += [
        "",
        f"Asked for were {BASE_TARGET} mAP ({_reached(clean >= BASE_TARGET)}) and a loss of at least "
        f"{100 * SENSOR_TARGET:.0f} points without either sensor ({_reached(both)}).",
        "",
        "AP by class:",
        "",
        f"| sensors | {' | '.join(name.replace('_', ' ') for name in CLASSES)} |",
        f"|---|{'---|' * len(CLASSES)}",
    ]
    for name, says in SENSORS.items():
        of_class = base[split]["AP"][name]
        lines.append(f"| {says} | {' | '.join(f'{of_class[one]:.2f}' for one in CLASSES)} |")
    lines.append("")
    return "\n".join(lines)


def _arms(comparison: Comparison, chosen: str | None) -> str:
    steps = " or ".join(sorted({f"{run['effort']['steps']:,}" for run in comparison.runs}))
    before = f" (the base: {comparison.base[TEST]['mAP'][CLEAN]:.3f})" if TEST in comparison.base else ""
    lines = [
        "## The arms",
        "",
        f"Fine-tuned for {steps} steps of {FULL.batch_size} from the base. No AQR: mAP "
        f"{comparison.mean(BASELINE, CLEAN):.3f} clean{before}, "
        f"{comparison.mean(BASELINE, FAILURES):.3f} over failures "
        f"(NDS {comparison.mean(BASELINE, CLEAN, 'NDS'):.3f} and {comparison.mean(BASELINE, FAILURES, 'NDS'):.3f}), "
        f"{len(comparison.values(BASELINE))} seeds.",
        "",
        "![every arm against no AQR](proof-arms.png)",
        "",
        "| arm | what it is | seeds | clean | failures | LiDAR failures | camera failures |",
        "|---|---|---|---|---|---|---|",
    ]
    groups = (GROUPS[(LIDAR,)], GROUPS[(CAMERA,)])
    for arm in comparison.arms:
        if arm == BASELINE:
            continue
        cells = [interval(comparison.difference(arm, figure)) for figure in (CLEAN, FAILURES, *groups)]
        name = f"**{arm}**" if arm == chosen else arm
        lines.append(f"| {name} | {ARMS[arm].says} | {len(comparison.values(arm))} | {' | '.join(cells)} |")
    lines += ["", "mAP points against no AQR. The arm in bold was chosen on the pilot split.", ""]
    beside = [(arm, ARMS[arm].beside) for arm in comparison.arms if ARMS[arm].candidate and ARMS[arm].beside]
    rows = [
        f"| {arm} | {other} | {interval(comparison.difference(arm, CLEAN, other))} "
        f"| {interval(comparison.difference(arm, FAILURES, other))} |"
        for arm, other in beside
        if other is not None
    ]
    if rows:
        lines += [
            "Arms trained in a way that needs no router, beside a detector without one that is trained so as well:",
            "",
            "| arm | against | clean | failures |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    return "\n".join(lines)


def _failures(comparison: Comparison, chosen: str | None) -> str:
    lines = ["## By failure", "", "![every arm under every failure](proof-failures.png)", ""]
    if chosen is not None:
        lines += [f"| failure | no AQR, same seeds, mAP | {chosen} | difference |", "|---|---|---|---|"]
        for name in (CLEAN, *(kind.name for kind in KINDS)):
            lines.append(
                f"| {name} | {comparison.mean(BASELINE, name, beside=chosen):.3f} "
                f"| {comparison.mean(chosen, name, beside=BASELINE):.3f} "
                f"| {interval(comparison.difference(chosen, name))} |"
            )
        lines.append("")
    return "\n".join(lines)


def _headroom(comparison: Comparison) -> str:
    runs = [run[TEST]["mAP"] for run in comparison.runs if run["arm"] == BASELINE]
    both = {name: float(np.mean([run[name] for run in runs])) for name in runs[0]}
    intact = {kind.name: both[NO_LIDAR if kind.needs == (LIDAR,) else NO_CAMERA] for kind in KINDS}
    best = {
        name_of(condition): max(both[name_of(condition)], intact[condition.name] if condition is not None else 0.0)
        for condition in conditions()
    }
    names = list(both)
    reached, possible = (figures(names, np.array([scores[name] for name in names])) for scores in (both, best))
    gains = {kind.name: float(possible[kind.name] - reached[kind.name]) for kind in KINDS}
    listed = ", ".join(f"{points(gain)} under {name}" for name, gain in gains.items() if gain > 0) or "none anywhere"
    gain = float(possible[FAILURES] - reached[FAILURES])
    conclusion = (
        f"""So switching a sensor off by kind and severity of failure cannot bring this detector the
{points(FAILURE_TARGET)} asked for. Choosing"""
        if gain < FAILURE_TARGET
        else "Choosing"
    )
    return f"""## How much choosing a sensor could gain

Without AQR, intact LiDAR alone reaches {both[NO_CAMERA]:.3f} mAP (cameras gone), intact cameras alone
{both[NO_LIDAR]:.3f} (LiDAR gone). Suppose that somebody who knows which failure, at which severity, is at hand hides
the failing sensor (the cameras, where the two are misaligned) from this detector wherever the other one alone does
better than both. The mean over failures would gain {points(gain)} points: {listed}.

Everywhere else the detector that was trained with failures scores at least as well with the failing sensor as without
it. {conclusion} by sample or by object, weights between all and nothing, or a decoder trained for such choices could
gain more; nothing here measures how much.
"""


def _faults(comparison: Comparison) -> str:
    mended = [arm for arm in comparison.arms if ARMS[arm].beside == ORIGINAL]
    if ORIGINAL not in comparison.arms:
        return ""
    clean = comparison.difference(ORIGINAL, CLEAN)
    lines = [
        "## What the original's faults cost",
        "",
        f"The original's behaviour against no AQR: {interval(clean)} mAP points clean, "
        f"{interval(comparison.difference(ORIGINAL, FAILURES))} over failures"
        + ("; in the original's own runs on nuScenes it was −1.78 clean." if clean is not None else "."),
        "",
    ]
    if mended:
        lines += ["What mending one fault alone gives, against the original:", ""]
        lines += ["| mended | seeds | clean | failures |", "|---|---|---|---|"]
        lines += [
            f"| {ARMS[arm].says.removeprefix('the original, but ')} | {len(comparison.values(arm))} "
            f"| {interval(comparison.difference(arm, CLEAN, ORIGINAL))} "
            f"| {interval(comparison.difference(arm, FAILURES, ORIGINAL))} |"
            for arm in mended
        ]
        lines += [
            "",
            "The faults act together, so these gains do not add up, and none is the share of one fault in the loss. A",
            "gate that starts at zero may hide the other faults in so short a training, rather than mend them.",
            "",
        ]
    return "\n".join(lines)


def _scratch(scratch: Comparison) -> str:
    others = [arm for arm in scratch.arms if arm != BASELINE]
    if not others or BASELINE not in scratch.arms:
        return ""
    steps = " or ".join(sorted({f"{run['effort']['steps']:,}" for run in scratch.runs}))
    lines = [
        "## From random weights",
        "",
        f"{steps} steps of {SCRATCH_BATCHES * FULL.batch_size} with the base's learning rates. No AQR: mAP "
        f"{scratch.mean(BASELINE, CLEAN):.3f} clean, {scratch.mean(BASELINE, FAILURES):.3f} over failures, "
        f"{len(scratch.values(BASELINE))} seeds.",
        "",
        "| arm | seeds | clean | failures |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {arm} | {len(scratch.values(arm))} | {interval(scratch.difference(arm, CLEAN))} "
        f"| {interval(scratch.difference(arm, FAILURES))} |"
        for arm in others
    ]
    return "\n".join([*lines, "", "mAP points against no AQR with the same seed.", ""])


def _plain_world(plain: Comparison) -> str:
    """The same experiment in a world where cameras have less to say."""
    others = [arm for arm in plain.arms if arm != BASELINE]
    if not others or TEST not in plain.base:
        return ""
    scores = plain.base[TEST]["mAP"]
    lines = [
        "## Without look-alikes",
        "",
        "Most of what stands in the street can be told by its shape; the [look-alikes](synth.md#look-alikes) cannot.",
        "In a world without them cameras have little to add: the base, trained alike, reaches "
        f"{scores[CLEAN]:.3f} mAP, {scores[NO_LIDAR]:.3f} without LiDAR",
        f"and {scores[NO_CAMERA]:.3f} without cameras "
        f"({plain.base.get('scored_on', {}).get(TEST, plain.base['device'])}).",
        f"The same arms, fine-tuned from it in the same way, against no AQR ({plain.mean(BASELINE, CLEAN):.3f} clean,",
        f"{plain.mean(BASELINE, FAILURES):.3f} over failures):",
        "",
        "| arm | seeds | clean | failures |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {arm} | {len(plain.values(arm))} | {interval(plain.difference(arm, CLEAN))} "
        f"| {interval(plain.difference(arm, FAILURES))} |"
        for arm in others
    ]
    source = f"From `benchmarks/proof/results/{PLAIN_WORLD}`; `aqr synth` as it is does not make that world."
    lines += ["", _worse(plain), source, ""]
    return "\n".join(lines)


def _weights(comparison: Comparison, chosen: str | None) -> str:
    shown = {arm: comparison.weights[arm] for arm in shown_weights(comparison, chosen) if arm in comparison.weights}
    if not shown:
        return ""
    return (
        """## What the weights mean

![LiDAR and camera weights by failure, distance, class and light](proof-weights.png)

Geometric means over the queries of all test samples, one seed. A query counts for a class where an object of that class
stands within 4 m of its reference point. Weights of `sigmoid` arms lie in (0, 1); those of the others are 1 where the
router has no preference. A router that works shows it where a sensor is gone: the other one's weight is the larger.
Only the direction counts below, not the level: a decoder can learn to read past weights that stay the same.
"""
        + _lopsided(comparison, shown)
        + """
What LiDAR weighs for every 1 that the camera weighs; changes of less than 5 % do not count:

| arm | nothing fails | LiDAR gone | cameras gone | moves as it should |
|---|---|---|---|---|
"""
        + "\n".join([*(_leaning(arm, of_arm) for arm, of_arm in shown.items()), ""])
    )


def _lopsided(comparison: Comparison, shown: dict[str, Any]) -> str:
    """What `alive` shows of levels, where it still does: it leans on the weaker sensor and loses nothing by it."""
    clean = comparison.difference(ALIVE, CLEAN)
    if ALIVE not in shown or clean is None or math.isnan(clean.low) or clean.high < 0:
        return ""
    lidar, camera = shown[ALIVE][CLEAN]["all"]["all"]
    _, lidar_alone, camera_alone = _by_sensor(comparison)
    if (lidar < camera) == (lidar_alone < camera_alone):
        return ""
    return f"""`{ALIVE}` is told which sensor is dead, nothing else, and leans on the weaker one when both are well:
{interval(clean)} mAP points clean against no AQR.
"""


def _moves(right: list[str], wrong: list[str]) -> list[str]:
    return [f"{word} with {says}" for word, found in (("yes", right), ("no, the other way", wrong)) for says in found]


def _leaning(arm: str, of_arm: dict[str, Any]) -> str:
    pairs = (of_arm[name]["all"]["all"] for name in (CLEAN, NO_LIDAR, NO_CAMERA))
    clean, no_lidar, no_camera = (lidar / camera for lidar, camera in pairs)
    ratios = {"LiDAR gone": clean / no_lidar, "cameras gone": no_camera / clean}
    right = [says for says, ratio in ratios.items() if ratio > MOVES]
    wrong = [says for says, ratio in ratios.items() if ratio < 1 / MOVES]
    moves = "hardly moves" if not right + wrong else "yes" if len(right) == 2 else f"{'; '.join(_moves(right, wrong))}"
    return f"| {arm} | {clean:.2f} | {no_lidar:.2f} | {no_camera:.2f} | {moves} |"


def _by_sensor(comparison: Comparison) -> list[float]:
    """mAP of the detector without AQR: both sensors, LiDAR alone, cameras alone."""
    runs = [run[TEST]["mAP"] for run in comparison.runs if run["arm"] == BASELINE]
    return [float(np.mean([run[name] for run in runs])) for name in (CLEAN, NO_CAMERA, NO_LIDAR)]


def _limits(comparison: Comparison) -> str:
    both, alone, _ = _by_sensor(comparison)
    worth = ""
    gain = both - alone
    if gain < SENSOR_TARGET:
        worth = f"""- The cameras add only {100 * gain:.1f} points to what LiDAR finds, so there is little to win on the
  camera's side, and camera failures hardly hurt. A world or a detector in which cameras matter more would be a harder
  test.
"""
    best = max(values[CLEAN] for arm in comparison.arms for values in comparison.values(arm).values())
    start = comparison.base.get(TEST, {}).get("mAP", {}).get(CLEAN, math.inf)
    ends = ", and no run ends above the clean mAP of the base that it starts from" if best <= start < math.inf else ""
    return f"""## Limits

{worth}- Fine-tuning is short{ends}.
- All arms start from one base, trained with one seed: intervals say nothing of other bases.
- What cameras add in this world is mostly colour: by that and a little by place [look-alikes](synth.md#look-alikes)
  differ from objects that stand still.
- A synthetic world, a small detector and short trainings: they order methods, and say nothing of nuScenes' figures.
- The failures of the test are of the kinds seen in training, other samples and draws. How well unknown failures are met
  is not asked.
- The pilot split ({FULL.pilot_scenes} scenes) is small, so the choice among close arms is partly chance; the test
  figures of the chosen arm are not biased by it.
- Many arms are compared; one in twenty intervals of arms without effect leaves out 0 by chance.
"""


def _again() -> str:
    return f"""## Again

```console
python -m benchmarks.proof lease-base --out /tmp/raw --home home --seconds 480
python -m benchmarks.proof lease-arms --out /tmp/raw --home home --seconds 530
python -m benchmarks.proof lease-scratch --out /tmp/raw --home home --parallel 6 --seconds 560
python -m benchmarks.proof collect --raw /tmp/raw --out benchmarks/proof/results
python -m benchmarks.proof report --out benchmarks/proof/results --page docs/proof.md
```

The first makes world, batches and failing samples (about 45 GB in `/tmp/proof`, all cores) and trains the base; the
second runs the arms of `benchmarks/proof/arms.py`, several at a time, until all are done or the time is over, and goes
on where it is called again; the third trains some of them from random weights. `--toy` does the same at a size for
CPUs, where scores mean nothing. Run folders lie in `/tmp/raw/runs`:
`aqr analyze /tmp/raw/runs/original-0 --baseline /tmp/raw/runs/none-0 --out report/`. `benchmarks/proof/data.py` says
which scenes are `{PILOT}` and which `{TEST}`.
"""
