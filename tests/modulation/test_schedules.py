"""Schedules against their formulae, and their ends."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aqr.modulation.schedules import Schedule, ScheduleKind

KINDS: tuple[ScheduleKind, ...] = ("constant", "linear", "cosine", "warmup")


@pytest.mark.parametrize("kind", KINDS)
@given(start=st.floats(0, 3), end=st.floats(0, 3), until=st.floats(0.01, 1), progress=st.floats(0, 1))
def test_values_stay_between_the_ends_and_arrive(
    kind: ScheduleKind, start: float, end: float, until: float, progress: float
) -> None:
    schedule = Schedule(kind, start, end, until)
    assert schedule.value(1.0) == end
    assert schedule.value(0.0) == (end if kind == "constant" else pytest.approx(start, abs=1e-12))
    assert min(start, end) - 1e-12 <= schedule.value(progress) <= max(start, end) + 1e-12
    later = schedule.value(min(progress + 0.1, 1.0))
    assert abs(end - later) <= abs(end - schedule.value(progress)) + 1e-12


@pytest.mark.parametrize(
    ("kind", "progress", "expected"),
    [
        ("constant", 0.3, 2.5),
        ("linear", 0.3, 1 + 1.5 * 0.3),
        ("cosine", 0.3, 1 + 1.5 * (1 - math.cos(0.3 * math.pi)) / 2),
        ("cosine", 0.5, 1.75),
        ("warmup", 0.3, 1 + 1.5 * 0.75),
        ("warmup", 0.41, 2.5),
    ],
)
def test_values(kind: ScheduleKind, progress: float, expected: float) -> None:
    assert Schedule(kind, 1.0, 2.5, 0.4).value(progress) == pytest.approx(expected, rel=1e-12)
