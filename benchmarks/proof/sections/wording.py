"""How figures are written, one by one and in tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from benchmarks.proof.arms import BASELINE
from benchmarks.proof.compare import Comparison
from benchmarks.proof.figures import CLEAN, FAILURES, Difference


def points(value: float) -> str:
    return f"{100 * value:+.2f}".replace("-", "−")


def interval(found: Difference | None) -> str:
    if found is None:
        return "–"
    if math.isnan(found.low):
        return f"{points(found.value)} ± {100 * found.scenes:.2f} (one seed)"
    return f"{points(found.value)} [{points(found.low)}, {points(found.high)}]"


def span(values: Iterable[float]) -> str:
    ordered = sorted(values)
    return f"{points(ordered[0])} to {points(ordered[-1])}"


def count_of_seeds(count: int) -> str:
    return {1: "one seed", 2: "two seeds", 3: "three seeds"}.get(count, f"{count} seeds")


def reached(is_so: bool) -> str:
    return "reached" if is_so else "**not reached**"


def worse(comparison: Comparison) -> str:
    """Forms of AQR that are worse by more than chance; empty where none is."""
    said = []
    for figure, where in ((CLEAN, "clean"), (FAILURES, "over failures")):
        arms = [f"`{arm}`" for arm, one in comparison.forms(figure).items() if one.high < 0]
        said += [f"{', '.join(arms)} ({where})"] if arms else []
    return f"Worse by more than chance: {'; '.join(said)}." if said else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    first, *others = (f"| {' | '.join(cells)} |" for cells in (head, *rows))
    return "\n".join([first, f"|{'---|' * len(head)}", *others])


def table_of_arms(
    comparison: Comparison,
    head: Sequence[str],
    arms: Mapping[str, Sequence[str]],
    other: str = BASELINE,
    figures: Sequence[str] = (CLEAN, FAILURES),
) -> str:
    """How far arms are from another one, behind cells that say which they are."""
    rows = (
        (
            *says,
            str(len(comparison.values(arm))),
            *(interval(comparison.difference(arm, one, other)) for one in figures),
        )
        for arm, says in arms.items()
    )
    return table((*head, "seeds", *figures), rows)
