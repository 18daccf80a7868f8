"""Findings, and the order in which they are looked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from aqr.analysis.comparison import Comparison
from aqr.analysis.language import Message
from aqr.analysis.run import Run

Severity = Literal["critical", "warning", "info"]
SEVERITIES: Final[tuple[Severity, ...]] = ("critical", "warning", "info")


@dataclass(frozen=True)
class Finding:
    """Something the data say.

    Attributes:
        id: stable name, `<part>.<what>`.
        run: the run it is about; None where it is about all.
        evidence: the figures behind it, ready for JSON.
        source: where its threshold comes from.
    """

    id: str
    severity: Severity
    title: Message
    detail: Message
    evidence: Mapping[str, Any]
    source: Message
    run: str | None = None


@dataclass(frozen=True)
class Context:
    """What a check may look at.

    Attributes:
        run: the run that it is about.
        baseline: its baseline, where there is one that is not the run itself.
        comparison: of the two.
        reference: metrics of some other model that the user compares with.
    """

    run: Run
    baseline: Run | None = None
    comparison: Comparison | None = None
    reference: Mapping[str, float] = field(default_factory=dict)


Check = Callable[[Context], Iterable[Finding]]


def find_all(context: Context) -> Iterator[Finding]:
    """Every finding about one run, the most severe first."""
    from aqr.analysis.findings import adaptation, collapse, cost, leak, maps, modulation, router, scores, training

    checks: tuple[Check, ...] = (
        *scores.CHECKS,
        *modulation.CHECKS,
        *adaptation.CHECKS,
        *router.CHECKS,
        *maps.CHECKS,
        *collapse.CHECKS,
        *leak.CHECKS,
        *training.CHECKS,
        *cost.CHECKS,
    )
    found = [finding for check in checks for finding in check(context)]
    yield from sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))
