"""The benchmark's own measurements: what it compares is the same, and what it counts is countable."""

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from rich.console import Console

from aqr.bench import Results, Row, Section, bench
from aqr.bench.bench import _stages
from aqr.bench.detector import How, added_share, alone_share, detector_config, latency, training_step
from aqr.bench.double_loop import against_the_loop, looped
from aqr.bench.inputs import (
    CHANNELS,
    FIRST_SHAPE,
    SECOND_SHAPE,
    Shape,
    modulation_inputs,
    modulation_module,
    random_batch,
    ring_of_cameras,
)
from aqr.bench.modulation import accuracy, flops, growth, linearity, speed, transferred
from aqr.bench.picture import draw_growth
from aqr.bench.timing import Clock, Rates, Timing
from aqr.errors import InputError
from aqr.geometry import in_image, project

CPU = torch.device("cpu")
SMALL = Shape(batch=1, queries=30, bev=(16, 20), cameras=3, image=(4, 10), windows=(3, 5))


def quick() -> Clock:
    return Clock(CPU, seconds=0.0, fewest=3)


def test_parts_of_a_run_are_timed_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("aqr.bench.timing.time.perf_counter", lambda: now)
    slow = iter([9.0, 0.020, 0.030, 0.070])

    def operation(mark: Callable[[str], None]) -> None:
        nonlocal now
        now += next(slow)
        mark("slow")
        now += 0.001
        mark("fast")

    found = quick().time_parts(operation, ["slow", "fast"], warm_up=1)
    assert found["slow"] == Timing(*(pytest.approx(ms) for ms in (30.0, 20.0, 70.0)), 3)
    assert found["fast"].median == pytest.approx(1.0)
    assert found["whole"].median == pytest.approx(31.0)


def test_floors_count_bytes_and_flops() -> None:
    shape = Shape(batch=2, queries=10, bev=(8, 8), cameras=1, image=(2, 4), windows=(1, 1))
    cells = 2 * (64 + 8)
    maps, positions, windows = cells * CHANNELS * 4, (64 + 16) * CHANNELS * 4, 2 * 10 * 2 * CHANNELS * 4
    assert transferred(shape, CPU, training=False) == 2 * maps + positions + windows
    assert transferred(shape, CPU, training=True) == 5 * maps + 2 * positions + 3 * windows
    assert flops(shape, training=True) == 3 * flops(shape, training=False) > 0
    assert Rates(copy=1e9, matmul=1e12).floor_ms(2e6, 1e9) == pytest.approx(2.0)
    assert Rates(copy=1e12, matmul=1e9).floor_ms(1e6, 3e6) == pytest.approx(3.0)


def test_cameras_see_what_lies_before_them() -> None:
    size = (64, 128)
    matrices = ring_of_cameras(6, size)
    ahead = torch.tensor([[0.0, 20.0, -1.0], [0.0, -20.0, -1.0]])
    pixels, depth = project(ahead, matrices)
    seen = in_image(pixels, depth, size)
    assert seen[0].tolist() == [True, False]
    assert seen.sum(0).tolist() == [1, 1]


def test_the_double_loop_computes_what_aqr_computes() -> None:
    module, inputs = modulation_module(SMALL), modulation_inputs(SMALL)
    output, (bev, images) = inputs.call(module), looped(module, inputs)
    torch.testing.assert_close(output.bev, bev, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(output.images, images, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(output.bev, inputs.bev)
    section = against_the_loop(quick(), SMALL)
    assert [row.what for row in section.rows][:3] == ["AQR", "the double loop", "ratio"]
    assert section.rows[2].value == pytest.approx(section.rows[1].value / section.rows[0].value)
    assert section.rows[3].reached


def test_float32_is_as_exact_as_asked_for() -> None:
    rows = {row.what: row for row in accuracy(CPU, SMALL).rows}
    assert len(rows) == 16
    assert all(row.reached for what, row in rows.items() if what.startswith("float32"))
    # bf16 is no float32 in disguise.
    assert rows["bf16 autocast, BEV map"].value > 1e-4


def test_growth_says_where_time_is_proportional(tmp_path: Path) -> None:
    assert linearity([(1, 2.0, None), (2, 4.0, None), (4, 16.0, None)]).endswith("1 → 2: 1.00, 2 → 4: 2.00")
    clock = Clock(CPU, seconds=0.0, fewest=1)
    section, measured = growth(clock, Shape(batch=1, queries=300, bev=(64, 64), cameras=1))
    assert {axis: [value for value, _, _ in points] for axis, points in measured.items()} == {
        "queries": [300],
        "batch": [1],
        "map side": [64],
        "cameras": [1],
    }
    assert len(section.remarks) == 4
    draw_growth({"queries": [(300, 1.0, 5.0), (600, 2.5, 9.0)]}, tmp_path / "growth.png", "caption")
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")


def test_what_aqr_adds_is_called_noise_where_it_is() -> None:
    apart = added_share(Timing(100.0, 99.0, 100.5, 9), Timing(103.0, 102.0, 104.0, 9))
    assert apart.value == pytest.approx(3.0)
    assert apart.note == ""
    overlapping = added_share(Timing(114.0, 102.0, 117.0, 9), Timing(108.0, 106.0, 112.0, 9))
    assert overlapping.value == pytest.approx(-5.263, abs=1e-3)
    assert overlapping.note.startswith("noise")


class ClockOfAGpu:
    """Says what a clock of a GPU says, without one."""

    device = torch.device("cuda")

    def time(self, operation: object, warm_up: int = 3) -> Timing:
        return Timing(0.5, 0.4, 0.6, 9)

    def time_parts(self, operation: object, names: list[str], warm_up: int) -> dict[str, Timing]:
        return dict.fromkeys([*names, "whole"], self.time(operation))

    def peak_mb(self, operation: object) -> float:
        return 100.0

    def captured(self, operation: object) -> object:
        return operation


def test_each_target_stands_beside_one_way_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(config: object, batch: object, how: How) -> MagicMock:
        graphed = how == "compiled, with CUDA graphs"
        return MagicMock(parts=["optimizer"], graphed=MagicMock() if graphed else None)

    for module, names in (("modulation", ("_training_step", "_inference")), ("detector", ("Detector", "random_batch"))):
        for name in names:
            monkeypatch.setattr(f"aqr.bench.{module}.{name}", MagicMock())
    monkeypatch.setattr("aqr.bench.detector.TrainingStep", step)
    monkeypatch.setattr("aqr.bench.detector.GraphedDetector", MagicMock())
    clock: Any = ClockOfAGpu()
    ways: list[How] = ["plain", "compiled", "compiled, with CUDA graphs"]
    sections = [
        speed(clock, Rates(1e12, 1e15)),
        *(training_step(clock, how, 0.9) for how in ways),
        latency(clock, True),
    ]
    rows = [row for section in sections for row in section.rows]
    assert [(row.what, row.target) for row in rows if row.target is not None] == [
        ("the same compiled, as a CUDA graph", 1.0),
        ("the same compiled, as a CUDA graph", 1.2),
        ("the same compiled, as a CUDA graph", 0.25),
        ("extra peak memory of AQR", 200.0),
        ("training step with AQR, compiled, with CUDA graphs", 50.0),
        ("AQR alone over the training step with it, compiled, with CUDA graphs", 2.0),
        ("inference with AQR, compiled, CUDA graph", 6.0),
    ]
    # A way that fails keeps its target, which then counts as not measured.
    monkeypatch.setattr(clock, "captured", MagicMock(side_effect=RuntimeError("no")))
    monkeypatch.setattr("aqr.bench.detector.GraphedDetector", MagicMock(side_effect=RuntimeError("no")))
    failed = [*speed(clock, Rates(1e12, 1e15)).rows, *latency(clock, True).rows]
    assert [(row.target, row.reached) for row in failed if row.target is not None] == [
        (target, None) for target in (1.0, 1.2, 0.25, 6.0)
    ]


def test_aqr_alone_is_divided_by_a_step_that_runs_alike() -> None:
    step = Timing(50.0, 49.0, 51.0, 9)
    assert alone_share(2.0, step, "plain").value == pytest.approx(4.0)
    missing = alone_share(None, step, "compiled")
    assert missing.value is None
    assert missing.note == "AQR alone was not timed compiled"
    assert missing.target is None


def test_each_way_of_a_step_is_given_aqr_alone_in_that_way(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, float | None] = {}

    def step(clock: Clock, how: How, alone: float | None) -> Section:
        given[how] = alone
        return Section(how)

    monkeypatch.setattr(sys.modules["aqr.bench.bench"], "training_step", step)
    results = Results(None, CPU, "aqr bench", Console(quiet=True))
    times = iter(range(1, 9))
    names = ("the same as a CUDA graph", "the same compiled", "the same compiled, as a CUDA graph")
    shapes = [f"forward + backward, {shape}" for shape in (FIRST_SHAPE, SECOND_SHAPE)]
    results.add("aqr", Section("AQR", [Row(what, next(times)) for shape in shapes for what in (shape, *names)]))
    _stages(quick(), Rates(1.0, 1.0), results, None, compiled=True)["step"]()
    assert given == {"plain": 1, "compiled": 3, "compiled, with CUDA graphs": 4}


def test_a_random_batch_has_the_size_it_says() -> None:
    batch = random_batch(detector_config(reduced=True, aqr=True), 2, boxes=5, points=100)
    assert batch.point_counts == [100, 100]
    assert batch.box_counts == [5, 5]
    assert batch.images.shape == (2, 6, 3, 64, 160)
    assert batch.points.isfinite().all()


def test_results_are_kept_after_every_stage(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    results = Results(out, CPU, "aqr bench", Console(quiet=True))
    results.add("one", Section("One", [Row("fast", 1.0, target=2.0), Row("slow", 3.0, target=2.0), Row("none", None)]))
    results.leave_out("two", "the budget was over")
    kept = json.loads(out.read_text())
    assert [row["reached"] for row in kept["sections"]["one"]["rows"]] == [True, False, None]
    assert kept["not_measured"] == {"two": "the budget was over"}
    assert kept["torch"] == torch.__version__
    assert results.value("one", "slow") == 3.0
    assert Row("ratio", 3.0, target=2.0, more_is_better=True).reached


def test_stages_that_were_not_asked_for_or_came_too_late_are_named(tmp_path: Path) -> None:
    results = bench(["inference", "step"], tmp_path / "bench.json", seconds=0.0, device="cpu")
    assert {"rates", "step", "inference"} == set(results.sections)
    assert set(results.not_measured) == {"aqr", "accuracy", "loop", "growth", "GPU"}
    step = results.value("step", "training step with AQR, plain")
    assert step is not None
    assert math.isfinite(step)
    assert bench(["aqr"], budget_s=0.0, seconds=0.0, device="cpu").not_measured["aqr"].startswith("the 0 s")
    with pytest.raises(InputError, match="no measurement 'speed'"):
        bench(["speed"])
