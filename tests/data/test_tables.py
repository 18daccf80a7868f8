import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aqr.data import tables
from aqr.errors import InputError

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    records=st.lists(st.dictionaries(st.text(), values, max_size=4), max_size=30),
    indent=st.sampled_from([None, 0, 2]),
    escape=st.booleans(),
)
def test_a_sliding_window_reads_what_json_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, records: list[Any], indent: int | None, escape: bool
) -> None:
    monkeypatch.setattr(tables, "_WINDOW", 4096)
    monkeypatch.setattr(tables, "_LONGEST_RECORD", 2048)
    path = write(tmp_path / "t.json", json.dumps(records * 20, indent=indent, ensure_ascii=escape))
    assert list(tables.records(path)) == json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('[\n{"token": "a"},\n{"token": }\n]', 3),
        ('[\n{"token": "a"},\n{"token": "b"', 3),
        ('[\n{"token": "a"},\n{"token": "b"}\n', 4),
        ('[\n{"token": "a"}\n{"token": "b"}\n]', 3),
        ('[\n{"token": "a"},\n]', 3),
        ("[\n7]", 2),
        ('{"token": "a"}', 1),
        ("", 1),
    ],
)
def test_broken_json_is_refused_with_file_and_line(tmp_path: Path, content: str, line: int) -> None:
    path = write(tmp_path / "scene.json", content)
    with pytest.raises(InputError, match=f"scene.json: .* line {line}; "):
        list(tables.records(path))


def test_line_is_right_beyond_the_first_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_WINDOW", 256)
    monkeypatch.setattr(tables, "_LONGEST_RECORD", 128)
    path = write(tmp_path / "t.json", "[\n" + '{"token": "a"},\n' * 99 + '{"token": a}]')
    with pytest.raises(InputError, match="line 101;"):
        list(tables.records(path))


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_bytes(b"\xff\xfe[")
    with pytest.raises(InputError, match=r"t.json: is not UTF-8"):
        list(tables.records(path))


def test_columns_hold_the_kept_records_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_BLOCK", 7)
    records = [
        {"token": "ä" * (n % 5), "n": n, "ok": n % 3 == 0, "at": [n, 0.5, -n], "k": [] if n % 2 else np.eye(3).tolist()}
        for n in range(40)
    ]
    write(tmp_path / "t.json", records)
    columns = {
        "token": tables.text,
        "n": tables.integers,
        "ok": tables.flags,
        "at": tables.vectors(3),
        "k": tables.matrices,
    }
    read = tables.read(tmp_path, "t", columns, lambda record: record["n"] != 5)
    kept = [record for record in records if record["n"] != 5]
    assert [token.decode() for token in read["token"]] == [record["token"] for record in kept]
    for field in ("n", "ok", "at"):
        assert read[field].tolist() == [record[field] for record in kept]
    assert (np.isnan(read["k"]).all(axis=(1, 2)) == [record["n"] % 2 == 1 for record in kept]).all()


def test_an_empty_table_keeps_types_and_shapes(tmp_path: Path) -> None:
    write(tmp_path / "t.json", "[ ]")
    columns = {"a": tables.text, "b": tables.integers, "c": tables.flags, "d": tables.vectors(4), "e": tables.matrices}
    read = tables.read(tmp_path, "t", columns)
    assert [(column.dtype.kind, column.shape) for column in read.values()] == [
        ("S", (0,)),
        ("i", (0,)),
        ("b", (0,)),
        ("f", (0, 4)),
        ("f", (0, 3, 3)),
    ]


@pytest.mark.parametrize(
    ("convert", "value"),
    [
        (tables.text, 3),
        (tables.text, None),
        (tables.integers, "7"),
        (tables.integers, 1.5),
        (tables.integers, None),
        (tables.integers, [1]),
        (tables.integers, float("nan")),
        (tables.flags, 1),
        (tables.vectors(3), [1, 2]),
        (tables.vectors(3), [1, 2, float("nan")]),
        (tables.vectors(3), [1, 2, None]),
        (tables.vectors(3), 5),
        (tables.matrices, [[1, 2], [3, 4]]),
        (tables.tokens, 3),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_with_record_and_field(
    tmp_path: Path, convert: tables.Convert, value: Any
) -> None:
    fine = {
        tables.text: "x",
        tables.integers: 1,
        tables.flags: True,
        tables.matrices: [],
        tables.tokens: ["x"],
    }.get(convert, [0, 0, 0])
    write(tmp_path / "t.json", [{"token": "good", "field": fine}, {"token": "bad", "field": value}])
    with pytest.raises(InputError, match=r"t.json: record 'bad': field is "):
        tables.read(tmp_path, "t", {"field": convert})


def test_a_missing_field_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "t.json", [{"token": "good", "field": "x"}, {"token": "bad"}])
    with pytest.raises(InputError, match=r"t.json: record 'bad' has no field 'field'"):
        tables.read(tmp_path, "t", {"field": tables.text})
