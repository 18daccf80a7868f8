"""docs/proof.md from the small JSON files: every number in it is read, none is written by hand."""

from __future__ import annotations

from pathlib import Path

from benchmarks.proof.compare import Comparison
from benchmarks.proof.pictures import draw_differences, draw_failures, draw_weights
from benchmarks.proof.plan import (
    COURSES,
    FIRST_RUN,
    FROM_BASE,
    FROZEN,
    LATE,
    NEVER,
    PLAIN_WORLD,
    SCRATCH,
    TAUGHT,
    TAUGHT_LATE,
)
from benchmarks.proof.sections.again import repeated
from benchmarks.proof.sections.answer import answer, limits, question
from benchmarks.proof.sections.arms import arms, faults, plain_world, scratch
from benchmarks.proof.sections.bases import intact, taught
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
    courses = {course: Comparison.read(results, course) for course in COURSES.values()}
    comparison, fresh, late, frozen = (courses[course] for course in (FROM_BASE, SCRATCH, LATE, FROZEN))
    never, alone, taught_late = (courses[course] for course in (NEVER, TAUGHT, TAUGHT_LATE))
    plain, first = (Comparison.read(results / folder) for folder in (PLAIN_WORLD, FIRST_RUN))
    chosen = comparison.chosen()
    sections = [question(), answer(comparison, chosen, plain, (late, frozen, fresh))]
    sections += [method(list(courses.values())), base(comparison)]
    if len(comparison.arms) > 1:
        draw_differences(comparison, chosen, page.with_name(f"{page.stem}-arms.png"))
        draw_failures(comparison, page.with_name(f"{page.stem}-failures.png"))
        draw_weights(shown_weights(comparison, chosen), page.with_name(f"{page.stem}-weights.png"))
        draw_weights(frozen.weights, page.with_name(f"{page.stem}-frozen.png"))
        draw_weights(alone.weights, page.with_name(f"{page.stem}-taught.png"))
        sections += [arms(comparison, chosen), failures(comparison, chosen), headroom(comparison), faults(comparison)]
        sections += [weights(comparison, chosen), intact(comparison, late, frozen, never), taught(alone, taught_late)]
        sections += [scratch(fresh), plain_world(plain), repeated(comparison, first)]
    if comparison.runs:
        sections.append(limits(comparison))
    unrun = [course.name for course, of_course in courses.items() if not of_course.runs]
    with replacing(page) as partial:
        partial.write_text("\n".join(section for section in [*sections, again(unrun)] if section), encoding="utf-8")
