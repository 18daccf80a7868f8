"""Damaged logs: never a traceback, never a number that the undamaged log does not hold."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.analysis.logs import TABLE, debug_block, small_log, train_line

from aqr.analysis import analyze
from aqr.analysis.readers.json_log import looks_like_json_log, read_json_log
from aqr.analysis.readers.run_folder import read_run_folder
from aqr.analysis.readers.tensorboard import read_events
from aqr.analysis.readers.text_log import TextLog, read_text_log
from aqr.errors import InputError

FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def facts(log: TextLog) -> set[tuple[object, ...]]:
    """Every number of a log with what it says it is."""
    found: set[tuple[object, ...]] = set()
    for name, series in log.training.series.items():
        found |= {(name, int(at), repr(float(value))) for at, value in zip(series.iteration, series.value, strict=True)}
    for snapshot in log.snapshots:
        for group, stats in snapshot.samples.items():
            for name, values in stats.items():
                found |= {(snapshot.forward, group, name, repr(value)) for value in values.tolist()}
        found |= {(snapshot.forward, "queries", count) for count in snapshot.queries}
    for evaluation in log.evaluations:
        found |= {(name, repr(value)) for name, value in evaluation.figures.items()}
        for label, result in evaluation.per_class.items():
            found |= {(label, name, repr(value)) for name, value in result.figures.items()}
            found |= {(label, at, repr(value)) for at, value in result.ap_by_distance.items()}
    return found


SMALL = small_log().encode()
WHOLE = facts(read_text_log(SMALL)) | facts(read_text_log(SMALL.replace(TABLE.encode(), b"")))
"""The table's errors have three decimals, the list's four; either may be what is left."""


def test_facts_are_many() -> None:
    assert len(WHOLE) > 200


@given(end=st.integers(0, len(SMALL)))
@settings(max_examples=400, deadline=None)
def test_cut_anywhere_adds_nothing(end: int) -> None:
    assert facts(read_text_log(SMALL[:end])) <= WHOLE


@given(start=st.integers(0, len(SMALL)))
@settings(max_examples=200, deadline=None)
def test_beginning_lost(start: int) -> None:
    """A value's field may be lost with the beginning, but what is read of whole lines is right."""
    start = SMALL.rfind(b"\n", 0, start) + 1
    assert facts(read_text_log(SMALL[start:])) <= WHOLE


@given(data=st.data())
@FEW
def test_lines_lost(data: st.DataObject) -> None:
    lines = SMALL.split(b"\n")
    lost = data.draw(st.sets(st.integers(0, len(lines) - 1), max_size=40))
    kept = b"\n".join(line for number, line in enumerate(lines) if number not in lost)
    # A section without its header could be taken for more of the section before: one that is not whole is left out.
    assert facts(read_text_log(kept)) <= WHOLE


@given(order=st.permutations(range(5)))
@FEW
def test_ranks_in_any_order(order: list[int]) -> None:
    blocks = [debug_block(1000, rank) for rank in range(5)]
    straight = facts(read_text_log("".join(blocks).encode()))
    assert facts(read_text_log("".join(blocks[place] for place in order).encode())) == straight


@given(choices=st.lists(st.integers(0, 2), min_size=110, max_size=130), whole=st.integers(2, 5))
@FEW
def test_ranks_mixed_line_by_line(choices: list[int], whole: int) -> None:
    """Three ranks print at once; each keeps its own order, lines fall as they may."""
    apart = [debug_block(1000, rank) for rank in range(3 + whole)]
    queues = [block.strip("\n").split("\n") for block in apart[:3]]
    mixed = [queues[choice].pop(0) for choice in choices if queues[choice]]
    mixed += [line for queue in queues for line in queue]
    text = "\n".join(mixed) + "\n" + "".join(apart[3:])
    assert facts(read_text_log(text.encode())) <= facts(read_text_log("".join(apart).encode()))


@given(noise=st.lists(st.binary(max_size=60), max_size=12), data=st.data())
@FEW
def test_noise_between_lines(noise: list[bytes], data: st.DataObject) -> None:
    lines = SMALL.split(b"\n")
    for piece in noise:
        if not piece.lstrip().startswith((b"mA", b"NDS")):
            lines.insert(data.draw(st.integers(0, len(lines))), piece.replace(b"\n", b" ").replace(b":", b";"))
    assert facts(read_text_log(b"\n".join(lines))) <= WHOLE


@given(raw=st.binary(max_size=3000))
@FEW
def test_any_bytes(raw: bytes) -> None:
    log = read_text_log(raw)
    assert isinstance(log, TextLog)
    if looks_like_json_log(raw):
        read_json_log(raw, "x", Path("x"), [])


@given(changes=st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 255)), max_size=30))
@settings(max_examples=150, deadline=None)
def test_any_byte_changed(changes: list[tuple[int, int]]) -> None:
    raw = bytearray(SMALL)
    for place, value in changes:
        raw[place] = value
    read_text_log(bytes(raw))


@pytest.mark.parametrize("which", ["aqr_log", "no_aqr_log"])
def test_real_logs_cut_anywhere(which: str, request: pytest.FixtureRequest) -> None:
    raw = request.getfixturevalue(which).read_bytes()
    whole = facts(read_text_log(raw))
    for end in np.random.default_rng(0).integers(0, len(raw), 60):
        assert facts(read_text_log(raw[: int(end)])) <= whole


@pytest.mark.parametrize("which", ["aqr_log", "no_aqr_log"])
def test_real_logs_with_bytes_changed_make_a_report(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    raw = request.getfixturevalue(which).read_bytes()
    rng = np.random.default_rng(1)
    for number in range(12):
        damaged = bytearray(raw)
        for place in rng.integers(0, len(raw), 3000):
            damaged[place] = rng.integers(0, 256)
        path = tmp_path / f"{number}.log"
        path.write_bytes(damaged[: int(rng.integers(1, len(raw)))])
        try:
            report = analyze([path], out=tmp_path / "report")
        except InputError:
            continue
        json.dumps(report.data, allow_nan=False)


@given(raw=st.one_of(st.binary(max_size=400), st.text(max_size=200).map(str.encode)), which=st.integers(0, 3))
@FEW
def test_run_folders_with_anything_in_them(raw: bytes, which: int, tmp_path: Path) -> None:
    names = ("metrics.jsonl", "aqr_stats.jsonl", "config.yaml", "eval/val/metrics.json")
    (tmp_path / "eval" / "val").mkdir(parents=True, exist_ok=True)
    for name in names:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / names[which]).write_bytes(raw)
    read_run_folder(tmp_path)


JSON_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=8,
)


KEYS = [
    "iteration",
    "loss",
    "grad_norm",
    "forward",
    "ranks",
    "lidar_weights",
    "modulation_pers",
    "step",
    "epoch",
    "iter",
    "mode",
    "config",
    "seed",
    "NDS",
    "mAP",
    "car_AP_dist_0.5",
    "mean_ap",
    "label_aps",
    "tp_errors",
]


@given(lines=st.lists(st.dictionaries(st.sampled_from(KEYS), JSON_VALUES, max_size=8), min_size=1, max_size=6))
@example(lines=[dict.fromkeys(("iteration", "loss", "grad_norm", "forward")) | {"seed": "\U00010000"}])
@FEW
def test_json_of_any_shape(lines: list[dict[str, object]], tmp_path: Path) -> None:
    text = "\n".join(map(json.dumps, lines)) + "\n"
    read_json_log(text.encode(), "x", Path("x.json"), [])
    (tmp_path / "eval" / "val").mkdir(parents=True, exist_ok=True)
    (tmp_path / "eval" / "val" / "metrics.json").write_text(json.dumps(lines[0]))
    for name in ("metrics.jsonl", "aqr_stats.jsonl"):
        (tmp_path / name).write_text(text)
    (tmp_path / "config.yaml").write_text(json.dumps(lines[0]))
    run = read_run_folder(tmp_path)
    if run.training.series or run.evaluations or run.snapshots:
        json.dumps(analyze([tmp_path], out=tmp_path / "report").data, allow_nan=False)


@given(raw=st.binary(max_size=500))
@FEW
def test_event_files_of_any_bytes(raw: bytes, tmp_path: Path) -> None:
    path = tmp_path / "events.out.tfevents.1"
    path.write_bytes(raw)
    assert read_events([path], "x", path).training.series == {}


def test_a_line_longer_than_any_sane_one() -> None:
    line = train_line(1, 50, 99).strip() + ", " + ", ".join(f"x{n}: {n}.5" for n in range(20_000)) + "\n"
    assert len(read_text_log(line.encode()).training.series) > 20_000
