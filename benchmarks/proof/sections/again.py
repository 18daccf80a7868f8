"""How far two runs of the same arm with the same seed are from each other."""

from __future__ import annotations

import numpy as np
from benchmarks.proof.arms import ARMS, BASELINE
from benchmarks.proof.compare import Comparison
from benchmarks.proof.figures import CLEAN, FAILURES
from benchmarks.proof.plan import FIRST_RUN
from benchmarks.proof.sections.wording import table_of_arms


def repeated(comparison: Comparison, first: Comparison) -> str:
    """An earlier run of the same arms: what it says of chance, and arms that were not run again."""
    shared = [
        (arm, seed)
        for arm in comparison.arms
        for seed in sorted(comparison.values(arm).keys() & first.values(arm).keys())
        if arm not in first.changed
    ]
    if not shared:
        return ""
    apart = {
        name: 100
        * np.array([comparison.values(arm)[seed][name] - first.values(arm)[seed][name] for arm, seed in shared])
        for name in (CLEAN, FAILURES)
    }
    root = {name: float(np.sqrt((one**2).mean())) for name, one in apart.items()}
    most = {name: float(abs(one).max()) for name, one in apart.items()}
    arms = len({arm for arm, _ in shared})
    others = [arm for arm in first.others if arm not in comparison.arms]
    rest = f"""
Arms that were run then only:

{table_of_arms(first, ("arm", "what it is"), {arm: (arm, ARMS[arm].says) for arm in others})}
"""
    return f"""## The same again

{len(shared)} of these runs, with {arms} arms, had been made before: the same base, the same seeds, data made
anew, other GPUs of the same kind. mAP of such twins differs by {root[CLEAN]:.2f} points clean (root mean square; at
most {most[CLEAN]:.2f}) and {root[FAILURES]:.2f} over failures (at most {most[FAILURES]:.2f}), though nothing differs
but rounding, in data made anew and in the order in which a GPU adds up. A single run's difference of this size says
nothing; intervals hold this chance as part of the spread over seeds.
{first.note}{rest if others and BASELINE in first.arms else ""}
From `benchmarks/proof/results/{FIRST_RUN}`.
"""
