"""The results in docs/adaptive.md, from the small JSON files: every number there is read, none written by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Final

import numpy as np
from benchmarks.adaptive.arms import NAMED_A, SMALL, STRONG, Arm, arms
from benchmarks.adaptive.collect import CURVES, RUNS
from benchmarks.adaptive.pictures import draw_classes, draw_curves, draw_surface
from benchmarks.proof.base import KEY_CONDITIONS
from benchmarks.proof.figures import Difference, Spread, difference, spread
from benchmarks.proof.plan import FULL, PILOT, TEST
from benchmarks.proof.sections.wording import interval

from aqr.analysis.findings.study import shown_settings
from aqr.analysis.readers.study import read_study
from aqr.analysis.studied import Studied, examine
from aqr.files import replacing

BEGIN: Final = "<!-- results: written by python -m benchmarks.adaptive report -->"
END: Final = "<!-- end of results -->"
DEMO: Final = "demo-curve.json"
SCHEDULED: Final = ("warm-up", "cosine")
MOVING: Final = ("controlled", "controlled-far", "controlled-low", "out-of-reach", *SCHEDULED)
BY_CLASS: Final = ("by-class-alike", "by-class-careful", "by-class-bold")
BAND: Final = {
    "demo": (0.25, 0.30),
    "controlled": (0.25, 0.30),
    "controlled-far": (0.25, 0.30),
    "controlled-low": (0.10, 0.15),
    "out-of-reach": (0.60, 0.70),
}


class Results:
    """All runs, and what they differ by."""

    def __init__(self, folder: Path) -> None:
        content = json.loads((folder / RUNS).read_text(encoding="utf-8"))
        self.runs: list[dict[str, Any]] = content["runs"]
        self.scene_error: dict[str, dict[str, float]] = content["scene_error"]
        self.curves: dict[str, Any] = json.loads((folder / CURVES).read_text(encoding="utf-8"))
        self.arms: dict[str, Arm] = {
            name: arm for name, arm in arms(1).items() if any(run["arm"] == name for run in self.runs)
        }

    def value(self, arm: str, figure: str, split: str = TEST) -> dict[int, float]:
        """mAP or the AP of a class, by seed."""
        return {
            run["seed"]: float(run[split]["mAP"]["clean"] if figure == "mAP" else run[split]["AP"][figure])
            for run in self.runs
            if run["arm"] == arm
        }

    def mean(self, arm: str, figure: str) -> float:
        return float(np.mean(list(self.value(arm, figure).values())))

    def pairs(self, arm: str, figure: str) -> list[float]:
        """Arm minus the arm beside it, for every seed that both have."""
        beside = self.arms[arm].beside
        if beside is None:
            return []
        ours, theirs = self.value(arm, figure), self.value(beside, figure)
        return [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]

    def difference(self, arm: str, figure: str) -> Difference | None:
        """With a 95 % interval for other seeds and other scenes; None where the arm stands alone."""
        own = self.pairs(arm, figure)
        if not own or arm not in self.scene_error:
            return None
        pooled: Spread = spread([self.pairs(name, figure) for name in self.arms])
        return difference(own, self.scene_error[arm][figure], pooled)

    def seconds(self) -> float:
        return float(sum(run["effort"]["seconds"] for run in self.runs))


def write_report(results: Path, page: Path) -> None:
    """Put tables and pictures into the page, between its marks.

    Args:
        results: folder of the small files.
        page: docs/adaptive.md.
    """
    found = Results(results)
    stem = page.with_suffix("")
    studies = {name: results / name for name in ("study", "study-test") if (results / name / "study.json").is_file()}
    studied = {name: examine(read_study(folder)) for name, folder in studies.items()}
    parts = [_setting(found), _verdict(found, studied.get("study-test")), _moving(found), _classes(found)]
    demo = results / DEMO
    if demo.is_file():
        draw_curves(json.loads(demo.read_text(encoding="utf-8")), BAND, Path(f"{stem}-demo.png"))
    if found.curves:
        draw_curves(found.curves, BAND, Path(f"{stem}-controller.png"))
    if any(name in found.arms for name in BY_CLASS):
        rows: dict[str, dict[str, Difference | None]] = {
            name: {figure: found.difference(name, figure) for figure in SMALL}
            for name in BY_CLASS
            if name in found.arms
        }
        draw_classes(rows, Path(f"{stem}-classes.png"))
    for folder, says in (
        ("study", f"the {PILOT} split, which the search saw"),
        ("study-test", f"the {TEST} split, which it did not"),
    ):
        if folder in studied:
            parts.append(_study(studied[folder], says))
            if folder == "study" and any(surface and surface.explains for surface in studied[folder].surfaces.values()):
                draw_surface(studied[folder], Path(f"{stem}-surface.png"))
                parts.append("![response surface](adaptive-surface.png)\n")
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    with replacing(page) as partial:
        partial.write_text(before + BEGIN + "\n\n" + "\n".join(parts) + "\n" + END + after, encoding="utf-8")


def _setting(found: Results) -> str:
    devices = ", ".join(sorted({run["device"] for run in found.runs}))
    steps = max(run["effort"]["steps"] for run in found.runs)
    return (
        f"{len(found.runs)} fine-tunings of {steps} steps × {FULL.batch_size} from the base detector of "
        f"[proof.md](proof.md), on {devices}, {found.seconds() / 3600:.2f} hours of training over all processes that "
        "shared it, without the trials of the search. Scores are mAP points on the test split with nothing failing; "
        "intervals are 95 % for other seeds and other scenes.\n"
    )


def _verdict(found: Results, tested: Studied | None) -> str:
    """Whether each of them helps, by the intervals alone."""
    lines = ["### Do they help?", ""]
    controlled = found.difference("controlled", "mAP") if "controlled" in found.arms else None
    if controlled is not None:
        _, inside, turns, _ = _course(found, "controlled")
        lines.append(
            f"- **Controller**: it holds the change inside its band ({inside} of the second half, turns of the "
            f"residual: {turns}). {_helps(controlled.low, controlled.high)}: {interval(controlled)} mAP points "
            f"against the fixed setting that it starts from ({controlled.seeds} seed{'s' * (controlled.seeds != 1)})."
        )
    if not any(name in found.arms for name in SCHEDULED):
        lines.append("- **Schedule**: not measured.")
    by_class = [found.difference(name, figure) for name in BY_CLASS if name in found.arms for figure in SMALL]
    known = [one for one in by_class if one is not None and not math.isnan(one.low)]
    if known:
        better, worse = sum(one.low > 0 for one in known), sum(one.high < 0 for one in known)
        lines.append(
            f"- **Residual by class**: of {len(known)} comparisons of a small class with the uniform residual {better} "
            f"are better and {worse} worse by more than chance."
        )
    if tested is not None:
        for objective, surface in tested.surfaces.items():
            if surface is None or not surface.explains:
                continue
            if surface.extrapolated:
                lines.append(
                    f"- **Search**: scored anew on the {TEST} split, which the search did not see, {objective} is "
                    "highest where no trial was, an extrapolation that says nothing against A, B and C."
                )
                continue
            sure = [one for one in tested.versus[objective] if one.interval is not None]
            beaten = [one.name for one in sure if one.interval is not None and one.interval[0] > 0]
            says = " and ".join(beaten) if beaten else f"none of {', '.join(one.name for one in sure)}"
            lines.append(
                f"- **Search**: scored anew on the {TEST} split, which the search did not see, even the best place of "
                f"the surface through those scores beats {says} in {objective} by more than chance."
            )
    return "\n".join([*lines, "", "What does not help stays off by default.", ""])


def _helps(low: float, high: float) -> str:
    if math.isnan(low):
        return "One seed says nothing of whether it helps"
    return "It helps" if low > 0 else "It harms" if high < 0 else "Whether it helps cannot be told from chance"


def _moving(found: Results) -> str:
    names = [name for name in ("none", STRONG, NAMED_A, *MOVING) if name in found.arms]
    if not names:
        return ""
    head = "| arm | seeds | mAP | against | difference | image change, 2nd half | in band | turns | last r, clamp |\n"
    rows = [head, "|---|---:|---:|---|---:|---:|---:|---:|---|\n"]
    for name in names:
        arm = found.arms[name]
        change, inside, turns, last = _course(found, name)
        rows.append(
            f"| {name}: {arm.says} | {len(found.value(name, 'mAP'))} | {100 * found.mean(name, 'mAP'):.2f} | "
            f"{arm.beside or '–'} | {interval(found.difference(name, 'mAP'))} | "
            f"{change} | {inside} | {turns} | {last} |\n"
        )
    paired = (
        "\nA difference pairs seeds: it is the mean over the seeds that both arms have, so it need not be the "
        "difference of the two means in the table, which are over all seeds of each arm.\n"
    )
    return (
        "### Settings that move\n\n"
        + "".join(rows)
        + paired
        + "\n![change of image features, and the settings that moved](adaptive-controller.png)\n"
    )


def _course(found: Results, name: str) -> tuple[str, str, str, str]:
    """Mean change, share in the band, turns of the residual, and last settings over the seeds of an arm."""
    curves = [curve for run, curve in found.curves.items() if run.rpartition("-")[0] == name]
    if not curves:
        return "–", "–", "–", "–"
    halves = [np.array(curve["change"][len(curve["change"]) // 2 :]) for curve in curves]
    change = f"{100 * np.mean([half.mean() for half in halves]):.1f} %"
    inside = "–"
    if name in BAND:
        low, high = BAND[name]
        inside = f"{100 * np.mean([((half >= low) & (half <= high)).mean() for half in halves]):.0f} %"
    turns = ", ".join(str(_turns(curve["residual_weight"])) for curve in curves)
    last = ", ".join(f"{curve['residual_weight'][-1]:.2f}, {curve['max_weight_clamp'][-1]:.2f}" for curve in curves[:1])
    stopped = " (gave up)" if any(curve["stopped"][-1] for curve in curves) else ""
    return change, inside, turns, last + stopped


def _turns(path: list[float]) -> int:
    moves = np.diff(path)
    moves = moves[np.abs(moves) > 1e-6]
    return int((np.diff(np.sign(moves)) != 0).sum())


def _classes(found: Results) -> str:
    names = [name for name in BY_CLASS if name in found.arms]
    if not names:
        return ""
    shown = ("mAP", *SMALL)
    rows = [
        "| arm | seeds | " + " | ".join(shown) + " |\n",
        "|---|---:|" + "---:|" * len(shown) + "\n",
        f"| {NAMED_A} | {len(found.value(NAMED_A, 'mAP'))} | "
        + " | ".join(f"{100 * found.mean(NAMED_A, figure):.2f}" for figure in shown)
        + " |\n",
    ]
    rows += [
        f"| {name}: {found.arms[name].says} | {len(found.pairs(name, 'mAP'))} | "
        + " | ".join(interval(found.difference(name, figure)) for figure in shown)
        + " |\n"
        for name in names
    ]
    return (
        "### Residual by class\n\nThe first row is the uniform residual, the others their differences from it.\n\n"
        + "".join(rows)
        + "\n![small classes](adaptive-classes.png)\n"
    )


def _study(studied: Studied, says: str) -> str:
    study = studied.study
    steps = study.config["train"]["steps"]
    failing = ", ".join(str(condition) for condition in KEY_CONDITIONS if condition is not None)
    failed = study.failed
    numbers = ", ".join(str(trial.number) for trial in failed)
    lost = (
        f", and {len(failed)} that failed{'' if any(one.error for one in failed) else ' without a message'} ({numbers})"
        if failed
        else ""
    )
    lines = [
        f"### The study, scored on {says}\n\n{len(study.complete)} complete trials of {steps} steps{lost}. "
        f"`resistance` is here the mean NDS under {failing}, over the NDS with nothing failing.\n"
    ]
    for objective, surface in studied.surfaces.items():
        if surface is None:
            lines.append(f"- {objective}: too few trials for a response surface.")
            continue
        explained = "–" if surface.explained is None else f"{surface.explained:.2f}"
        if not surface.explains:
            lines.append(
                f"- **{objective}**: its response surface predicts a trial from the others no better than their mean "
                f"does (leave-one-out R² {explained}), so it has no optimum worth naming. Trials lie between "
                f"{min(trial.values[objective] for trial in study.complete):.4f} and "
                f"{max(trial.values[objective] for trial in study.complete):.4f}."
            )
            continue
        weights = ", ".join(
            f"{key.rpartition('.')[2]} {100 * share:.0f} %"
            for key, share in sorted(surface.importance.items(), key=lambda pair: -pair[1])
        )
        if surface.extrapolated:
            best = max(study.complete, key=lambda trial: trial.values[objective])
            lines.append(
                f"- **{objective}**: the surface peaks at {shown_settings(surface.optimum)} with {surface.value:.4f}, "
                "but that is **extrapolated**: it lies beyond what the trials show, so no interval and no advantage "
                f"over A, B and C is given. The best trial is number {best.number} with {surface.best:.4f} "
                f"({shown_settings(best.params)}). Leave-one-out R² {explained}; single trials scatter by "
                f"{surface.noise:.4f}. What matters: {weights}."
            )
            continue
        places = "; ".join(
            f"{key.rpartition('.')[2]} {where[0]:.3g} to {where[1]:.3g}"
            for key, where in surface.intervals.items()
            if isinstance(where, tuple)
        )
        versus = "; ".join(
            f"{one.name} {one.advantage:+.4f} ({one.interval[0]:+.4f} to {one.interval[1]:+.4f})"
            for one in studied.versus[objective]
            if one.advantage is not None and one.interval is not None
        ).replace("-", "−")
        lines.append(
            f"- **{objective}** is highest at {shown_settings(surface.optimum)} (height {surface.value:.4f}); 95 % of "
            f"the resampled optima lie at {places}. Leave-one-out R² {explained}; single trials scatter by "
            f"{surface.noise:.4f}. What matters: {weights}. Advantage of the optimum over the "
            f"clamps and residuals of {versus}, the gains as at the optimum, which was picked from the same scores."
        )
    return "\n".join(lines) + "\n"
