"""The comparison of arms: read from the small JSON files, and the same wherever it is shown."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from benchmarks.proof.arms import ARMS, BASELINE
from benchmarks.proof.collect import COST, ORACLE, weights_file
from benchmarks.proof.figures import CLEAN, FAILURES, Difference, Spread, difference, figures_of, spread
from benchmarks.proof.plan import FROM_BASE, PILOT, TEST, Course, conditions, name_of

ALLOWED_LOSS: Final = 0.005
"""mAP on clean pilot data that an arm may lose and still be chosen."""


@dataclass(frozen=True)
class Comparison:
    """All runs.

    Attributes:
        runs: of `arms.json`, or of another course.
        scene_error: likewise.
        base: what they start from; empty where there is none.
        weights: what routers said, of `collect.weights_file`.
        cost: of `cost.json`, which whoever ran it writes: gpus, minutes, gpu_hours, says; empty where there is none.
        oracle: of `oracle.json`, by name of the weights; empty where there is none.
    """

    runs: list[dict[str, Any]]
    scene_error: dict[str, Any]
    base: dict[str, Any]
    weights: dict[str, Any]
    cost: dict[str, Any] = field(default_factory=dict)
    note: str = ""
    """What readers of the runs have to know."""
    changed: tuple[str, ...] = ()
    """Arms whose code was another one then."""
    oracle: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, results: Path, course: Course = FROM_BASE) -> Comparison:
        """From the folder of the small JSON files."""

        def read(name: str) -> dict[str, Any]:
            path = results / name
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            return found

        arms = read(f"{course.name}.json")
        return cls(
            arms.get("runs", []),
            arms.get("scene_error", {}),
            {} if course.base is None else read(f"{course.base}.json"),
            read(weights_file(course)),
            read(COST),
            arms.get("note", ""),
            tuple(arms.get("changed", ())),
            read(ORACLE) if course == FROM_BASE else {},
        )

    @cached_property
    def arms(self) -> list[str]:
        """Those that were run, in the order in which they are stated."""
        return [name for name in ARMS if any(run["arm"] == name for run in self.runs)]

    @property
    def others(self) -> list[str]:
        """Those of them that are not the baseline."""
        return [name for name in self.arms if name != BASELINE]

    @property
    def base_split(self) -> str:
        """What the base is judged on: the test split as soon as it was scored there."""
        return TEST if TEST in self.base else PILOT

    @property
    def base_device(self) -> str:
        """Where it was scored."""
        return str(self.base.get("scored_on", {}).get(self.base_split, self.base["device"]))

    def scores(self, arm: str) -> dict[str, float]:
        """mAP on the test split under every condition, mean over the seeds."""
        runs = [run[TEST]["mAP"] for run in self.runs if run["arm"] == arm]
        return {name: float(np.mean([run[name] for run in runs])) for name in map(name_of, conditions())}

    def values(self, arm: str, metric: str = "mAP", split: str = TEST) -> dict[int, dict[str, float]]:
        """Figures of each seed."""
        return {run["seed"]: figures_of(run[split][metric]) for run in self.runs if run["arm"] == arm}

    def mean(self, arm: str, figure: str, metric: str = "mAP", beside: str | None = None) -> float:
        """Mean of a figure over the seeds; where another arm is named, over those that it was run with, too."""
        found = self.values(arm, metric)
        shared = found.keys() & self.values(beside or arm, metric).keys()
        return float(np.mean([found[seed][figure] for seed in shared]))

    def differences(self, arm: str, other: str, figure: str, metric: str = "mAP", split: str = TEST) -> list[float]:
        """Arm minus other, for every seed that both have."""
        ours, theirs = self.values(arm, metric, split), self.values(other, metric, split)
        return [ours[seed][figure] - theirs[seed][figure] for seed in sorted(ours.keys() & theirs.keys())]

    def difference(self, arm: str, figure: str, other: str = BASELINE, metric: str = "mAP") -> Difference | None:
        """Arm minus other with an interval; None where they have no seed in common."""
        own = self.differences(arm, other, figure, metric)
        if not own or other not in self.scene_error.get(arm, {}):
            return None
        return difference(own, self.scene_error[arm][other][metric][figure], self.spread(figure, metric))

    def change(self, arm: str) -> dict[str, float]:
        """How far AQR changes image and BEV features in the end, relative, mean over the seeds; empty where unknown."""
        return self._means(arm, "change")

    def without(self, arm: str) -> str:
        """The arm that is trained as this one, but without AQR."""
        beside = ARMS[arm].beside
        return beside if beside is not None and ARMS[arm].candidate and beside in self.arms else BASELINE

    def emptier(self, arm: str) -> list[float]:
        """The mean weight of the emptier of the two maps in the end, of each run that states both."""
        return [min(run["map"].values()) for run in self.runs if run["arm"] == arm and run.get("map")]

    def errors(self, arm: str) -> dict[str, float]:
        """Mean true-positive errors where nothing fails, by the devkit's names; empty where unknown."""
        return self._means(arm, "TP")

    def _means(self, arm: str, key: str) -> dict[str, float]:
        known = [run[key] for run in self.runs if run["arm"] == arm and key in run]
        return {name: float(np.mean([one[name] for one in known])) for name in (known[0] if known else ())}

    def forms(self, figure: str) -> dict[str, Difference]:
        """How far the forms of AQR that could be used are from the same training without it, where seeds are shared."""
        found = {arm: self.difference(arm, figure, self.without(arm)) for arm in self.arms if ARMS[arm].candidate}
        return {arm: one for arm, one in found.items() if one is not None}

    def spread(self, figure: str, metric: str = "mAP") -> Spread:
        """How far differences from the baseline scatter over seeds, pooled over all arms."""
        return spread([self.differences(name, BASELINE, figure, metric) for name in self.others])

    def chosen(self) -> str | None:
        """The candidate that is best under failures on the pilot, of those that lose at most 0.5 mAP clean."""
        best: tuple[float, str] | None = None
        for arm in self.arms:
            clean = self.differences(arm, BASELINE, CLEAN, split=PILOT)
            if not ARMS[arm].candidate or not clean or np.mean(clean) < -ALLOWED_LOSS:
                continue
            failing = float(np.mean(self.differences(arm, BASELINE, FAILURES, split=PILOT)))
            best = max(best, (failing, arm)) if best is not None else (failing, arm)
        return None if best is None else best[1]
