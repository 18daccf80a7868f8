"""results.json: what is written is read back, and what the devkit refuses is refused."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nuscenes.eval.common.loaders import load_prediction
from nuscenes.eval.detection.data_classes import DetectionBox
from tests.scoring import devkit
from tests.scoring.worlds import random_world

from aqr.errors import InputError
from aqr.scoring import Predictions, cursor, read_submission, write_submission
from aqr.scoring.submission import MODALITIES

TOKENS = ("first", "second", "third")


def assert_equal(a: Predictions, b: Predictions) -> None:
    for field in dataclasses.fields(Predictions):
        x, y = getattr(a, field.name), getattr(b, field.name)
        assert (x is None) == (y is None), field.name
        if x is not None:
            np.testing.assert_array_equal(x, y, err_msg=field.name)


def box(token: str = "first", **changes: Any) -> dict[str, Any]:
    return {
        "sample_token": token,
        "translation": [1.0, 2.0, 0.5],
        "size": [2.0, 4.5, 1.5],
        "rotation": [1.0, 0.0, 0.0, 0.0],
        "velocity": [0.5, 0.0],
        "detection_name": "car",
        "detection_score": 0.5,
        "attribute_name": "vehicle.parked",
    } | changes


def written(folder: Path, first: Any, **changes: Any) -> Path:
    content = {"meta": {"use_lidar": True}, "results": {"first": first, "second": [], "third": []}} | changes
    path = folder / "results.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_written_numbers_come_back_bit_by_bit(tmp_path: Path) -> None:
    truth, predictions = random_world(20, samples=5)
    predictions = dataclasses.replace(
        predictions, velocity=np.where(np.arange(len(predictions))[:, None] % 7 == 0, np.nan, predictions.velocity)
    )
    path = tmp_path / "new" / "results.json"
    write_submission(path, truth.samples.tokens, predictions, {"use_camera": True})
    again, meta = read_submission(path, truth.samples.tokens)
    assert_equal(again, predictions)
    assert meta == dict.fromkeys(MODALITIES, False) | {"use_camera": True}
    assert [p.name for p in path.parent.iterdir()] == ["results.json"]


def test_the_devkit_reads_what_is_written(tmp_path: Path) -> None:
    truth, predictions = random_world(21, samples=3)
    one = truth.samples.tokens[1]
    predictions = predictions.take(predictions.sample != 1)
    path = tmp_path / "results.json"
    write_submission(path, truth.samples.tokens, predictions)
    boxes, meta = load_prediction(str(path), 500, DetectionBox)
    expected = devkit.eval_boxes(predictions, truth.samples.tokens)
    assert boxes == expected
    assert boxes.sample_tokens == expected.sample_tokens
    assert boxes[one] == []
    assert set(meta) == set(MODALITIES)


@settings(max_examples=60, deadline=None)
@given(
    chunk=st.integers(1, 400),
    indent=st.sampled_from([None, 1, 4]),
    late_meta=st.booleans(),
    extra=st.sampled_from([None, 12345, "text", [1, {"a": []}]]),
)
def test_any_layout_reads_the_same(
    tmp_path_factory: pytest.TempPathFactory, chunk: int, indent: int | None, late_meta: bool, extra: Any
) -> None:
    folder = tmp_path_factory.mktemp("layout")
    results = {"first": [box(), box(velocity=[float("nan"), 1])], "second": [], "third": [box("third")]}
    meta = {"use_lidar": True, "method": "AQR – größer"}
    content: dict[str, Any] = {"results": results, "meta": meta} if late_meta else {"meta": meta, "results": results}
    if extra is not None:
        content = {"version": extra} | content | {"last": extra}
    path = folder / "results.json"
    path.write_text(json.dumps(content, indent=indent, ensure_ascii=False), encoding="utf-8")
    whole, _ = read_submission(path, TOKENS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cursor, "_CHUNK", chunk)
        predictions, read_meta = read_submission(path, TOKENS)
    assert_equal(predictions, whole)
    assert predictions.sample.tolist() == [0, 0, 2]
    assert predictions.size.tolist() == [[4.5, 2.0, 1.5]] * 3
    assert read_meta == meta


def test_samples_keep_the_order_of_the_file(tmp_path: Path) -> None:
    results = {"third": [box("third")], "first": [box(), box()], "second": []}
    path = written(tmp_path, [], results=results)
    assert read_submission(path, TOKENS)[0].sample.tolist() == [2, 0, 0]


def test_points_that_a_submission_states_are_read(tmp_path: Path) -> None:
    path = written(tmp_path, [box(num_pts=0), box(num_pts=7), box()])
    predictions, _ = read_submission(path, TOKENS)
    assert predictions.num_points is not None
    assert predictions.num_points.tolist() == [0, 7, -1]


REFUSED_BY_BOTH: dict[str, tuple[Any, str]] = {
    "501 boxes": ([box()] * 501, "sample first has 501 boxes, nuScenes allows 500"),
    "unknown class": ([box(), box(detection_name="tram")], "sample first, box 1: unknown class 'tram'"),
    "unknown attribute": ([box(attribute_name="parked")], "sample first, box 0: unknown attribute 'parked'"),
    "no attribute": (
        [{k: v for k, v in box().items() if k != "attribute_name"}],
        "sample first, box 0: has no attribute_name",
    ),
    "NaN size": ([box(size=[1, float("nan"), 1])], "box 0 of sample first has a size that is not finite and positive"),
    "NaN position": ([box(translation=[1, 2, float("nan")])], "box 0 of sample first has a translation"),
    "NaN rotation": ([box(rotation=[1, 0, 0, float("nan")])], "box 0 of sample first has a rotation"),
    "NaN score": ([box(), box(detection_score=float("nan"))], "box 1 of sample first has a score"),
    "two coordinates": ([box(translation=[1, 2])], "sample first, box 0: translation must be 3 numbers, is \\[1, 2\\]"),
    "three quaternion parts": ([box(), box(rotation=[1, 0, 0])], "sample first, box 1: rotation must be 4 numbers"),
    "text for a number": ([box(size=["a", 1, 1])], "sample first, box 0: size must be 3 numbers"),
    "null": ([box(translation=[None, 1, 1])], "sample first, box 0: translation must be 3 numbers"),
    "no list": ({"a": 1}, "sample first: must hold a list of boxes"),
    "no object": ([3], "sample first, box 0: must be an object, is 3"),
}


@pytest.mark.parametrize("case", REFUSED_BY_BOTH)
def test_what_the_devkit_refuses_is_refused(case: str, tmp_path: Path) -> None:
    content, words = REFUSED_BY_BOTH[case]
    path = written(tmp_path, content)
    with pytest.raises(Exception):  # noqa: B017, PT011 - the devkit raises whatever happens to fail
        load_prediction(str(path), 500, DetectionBox)
    with pytest.raises(InputError, match=words) as caught:
        read_submission(path, TOKENS)
    assert str(path) in str(caught.value)


STRICTER: dict[str, tuple[Any, str]] = {
    "negative size": ([box(size=[1, -2, 1])], "box 0 of sample first has a size that is not finite and positive"),
    "infinite position": ([box(translation=[1, float("inf"), 1])], "box 0 of sample first has a translation"),
    "negative score": ([box(detection_score=-0.1)], "box 0 of sample first has a score"),
    "another sample's box": ([box("second")], "sample first, box 0: its sample_token is 'second'"),
    "number as text": ([box(detection_score="0.5")], "sample first, box 0: detection_score must be a number, is '0.5'"),
    "no score": ([{k: v for k, v in box().items() if k != "detection_score"}], "box 0: has no detection_score"),
    "odd points": ([box(num_pts="many")], "sample first, box 0: num_pts must be an integer"),
}


@pytest.mark.parametrize("case", STRICTER)
def test_what_makes_no_sense_is_refused_too(case: str, tmp_path: Path) -> None:
    content, words = STRICTER[case]
    with pytest.raises(InputError, match=words):
        read_submission(written(tmp_path, content), TOKENS)


WHOLE_FILES = {
    "": "an object should stand at byte 0, where the end of the file is",
    "[]": "an object should stand at byte 0",
    "{}": "has no 'results'",
    '{"results": {"first": [], "second": [], "third": []}}': "has no 'meta'",
    '{"meta": {}, "results": []}': "an object should stand at byte 24",
    '{"meta": [], "results": {}}': "'meta' must be an object",
    '{"meta": {}, "results": {"first": [], "third": []}}': r"sample second of the split is missing \(1 of 3 are\)",
    '{"meta": {}, "results": {"fourth": []}}': "sample fourth is not in this split",
    '{"meta": {}, "results": {"first": [], "first": []}}': "sample first stands twice",
    '{"meta": {}, "results": {"first": [], "second": [{"siz': "a value should stand at byte",
    '{"meta": {}, "results": {"first": [], "second" []}}': "a colon should stand at byte 47",
    '{"meta": {}, "results": {"first": [], "second": [] "third"': "a comma or the end",
    '{"meta": {}, "results": {"first": [], "second": [], "third": []}} x': "the end of the file should",
    '{"meta": {}, "results": {"first": ' + "[" * 100_000: "less nesting",
}


@pytest.mark.parametrize("text", WHOLE_FILES, ids=range(len(WHOLE_FILES)))
def test_a_broken_file_is_named_with_the_place(text: str, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=WHOLE_FILES[text]) as caught:
        read_submission(path, TOKENS)
    assert str(caught.value).startswith(str(path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.json: cannot be read"):
        read_submission(tmp_path / "nothing.json", TOKENS)


def test_a_refused_submission_leaves_the_old_file(tmp_path: Path) -> None:
    truth, predictions = random_world(22, samples=2)
    path = tmp_path / "results.json"
    path.write_text("old")
    bad = dataclasses.replace(predictions, size=-predictions.size)
    with pytest.raises(InputError, match="size"):
        write_submission(path, truth.samples.tokens, bad)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]
