"""docs/proof.md from the small JSON files: every number in it is read, none is written by hand."""

from __future__ import annotations

from pathlib import Path

from benchmarks.proof.compare import Comparison
from benchmarks.proof.pictures import draw_differences, draw_failures, draw_weights
from benchmarks.proof.plan import LATE, NEVER, PLAIN_WORLD, SCRATCH
from benchmarks.proof.sections.answer import answer, limits, question
from benchmarks.proof.sections.arms import arms, faults, intact, plain_world, scratch
from benchmarks.proof.sections.failures import failures, headroom
from benchmarks.proof.sections.setting import again, base, method
from benchmarks.proof.sections.weights import shown_weights, weights

from aqr.files import replacing


def write_report(results: Path, page: Path) -> None:
    """Write the page, and its pictures beside it.

    Args:
        results: folder of the small JSON files.
        page: docs/proof.md.
    """
    comparison = Comparison.read(results)
    fresh, late, never = (Comparison.read(results, course) for course in (SCRATCH, LATE, NEVER))
    plain = Comparison.read(results / PLAIN_WORLD)
    chosen = comparison.chosen()
    sections = [question(), answer(comparison, chosen, plain, fresh), method(comparison, fresh), base(comparison)]
    if len(comparison.arms) > 1:
        draw_differences(comparison, chosen, page.with_name(f"{page.stem}-arms.png"))
        draw_failures(comparison, page.with_name(f"{page.stem}-failures.png"))
        draw_weights(shown_weights(comparison, chosen), page.with_name(f"{page.stem}-weights.png"))
        sections += [arms(comparison, chosen), failures(comparison, chosen), headroom(comparison), faults(comparison)]
        sections += [scratch(fresh), intact(late, never), plain_world(plain), weights(comparison, chosen)]
    if comparison.runs:
        sections.append(limits(comparison))
    with replacing(page) as partial:
        partial.write_text("\n".join(section for section in [*sections, again()] if section), encoding="utf-8")
