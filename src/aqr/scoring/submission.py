"""Submissions: nuScenes' results.json, read into arrays and written from them.

    {"meta": {"use_camera": …, …}, "results": {sample_token: [{"sample_token", "translation", "size", "rotation",
     "velocity", "detection_name", "detection_score", "attribute_name"}, …], …}}

The file is read sample by sample: one of a gigabyte is never held as text or as Python objects as a whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from aqr.errors import InputError
from aqr.files import replacing
from aqr.scoring.boxes import NO_ATTRIBUTE, Predictions, check
from aqr.scoring.cursor import open_json, utf8
from aqr.taxonomy import ATTRIBUTES, CLASSES, LABEL_OF

Array = npt.NDArray[Any]

ATTRIBUTE_OF: Final = {"": NO_ATTRIBUTE} | {name: number for number, name in enumerate(ATTRIBUTES)}
MODALITIES: Final = ("use_camera", "use_lidar", "use_radar", "use_map", "use_external")
"""Keys of `meta` that nuScenes asks for, each true or false."""

_NUMBERS: Final = {"translation": 3, "size": 3, "rotation": 4, "velocity": 2}


def read_submission(path: str | Path, tokens: Sequence[str]) -> tuple[Predictions, dict[str, Any]]:
    """Read and check a submission.

    Args:
        path: results.json.
        tokens: the samples of the split, all of which the submission must name and no other.

    Returns:
        the detections, in the order of the file, and its `meta`.

    Raises:
        InputError: naming file and sample, for what the devkit refuses (no JSON; a missing, unknown or repeated
            sample; more than 500 boxes; an unknown class or attribute; numbers missing, NaN or not as many as needed;
            a size that is not positive) and for what it lets pass or trips over: infinite numbers, a score below 0, a
            box whose sample_token is another sample's.
    """
    number_of = {token: number for number, token in enumerate(tokens)}
    meta: dict[str, Any] | None = None
    has_results = False
    counts: dict[str, int] = {}
    parts: list[tuple[Array, ...]] = []
    with open_json(path) as reader:
        for key in reader.entries():
            if key == "meta":
                meta = _meta(reader.value(), path)
            elif key == "results":
                has_results = True
                for name in reader.entries():
                    if name in counts:
                        raise InputError(f"{path}: sample {name} stands twice; keep one list of boxes for it")
                    if name not in number_of:
                        raise InputError(
                            f"{path}: sample {name} is not in this split; name the split that was predicted"
                        )
                    records = reader.value()
                    parts.append(_columns(records, name, path))
                    counts[name] = len(records)
            else:
                reader.value()
        reader.finish()
    if not has_results:
        raise InputError(f"{path}: has no 'results'; a submission is {{'meta': …, 'results': …}}")
    if meta is None:
        raise InputError(f"{path}: has no 'meta'; nuScenes asks for {', '.join(MODALITIES)}")
    missing = next((token for token in tokens if token not in counts), None)
    if missing is not None:
        raise InputError(
            f"{path}: sample {missing} of the split is missing ({len(tokens) - len(counts)} of {len(tokens)} are); "
            "a sample without detections needs an empty list"
        )
    predictions = _join(parts, [number_of[name] for name in counts], list(counts.values()))
    check(predictions, tokens, str(path))
    return predictions, meta


def write_submission(
    path: str | Path, tokens: Sequence[str], predictions: Predictions, meta: Mapping[str, Any] | None = None
) -> None:
    """Write a submission; the file appears whole or not at all.

    Numbers are written so that reading gives the same ones bit by bit. Samples follow in the order of their first
    row, those without detections last, so that the order among equal scores is that of the rows.

    Args:
        path: results.json; its folder is made.
        tokens: all samples of the split.
        predictions: detections, `sample` pointing into `tokens`; at most 500 a sample.
        meta: `use_camera`, `use_lidar`, …; what is not stated is false.

    Raises:
        InputError: naming the sample of a box that nuScenes would refuse.
    """
    path = Path(path)
    check(predictions, tokens, str(path))
    stated = dict.fromkeys(MODALITIES, False) | dict(meta or {})
    order = np.argsort(predictions.sample, kind="stable")
    numbers, first, counts = np.unique(predictions.sample[order], return_index=True, return_counts=True)
    by_first_row = np.argsort(order[first])
    named = set(numbers.tolist())
    with replacing(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.write(f'{{"meta": {json.dumps(stated)}, "results": {{')
        separator = ""
        for place in by_first_row:
            rows = order[first[place] : first[place] + counts[place]]
            token = json.dumps(tokens[int(numbers[place])])
            file.write(f"{separator}{token}: [{_records(predictions.take(rows), token)}]")
            separator = ",\n"
        for number, token in enumerate(tokens):
            if number not in named:
                file.write(f"{separator}{json.dumps(token)}: []")
                separator = ",\n"
        file.write("}}\n")


def _meta(value: object, path: str | Path) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{path}: 'meta' must be an object that says {', '.join(MODALITIES)}; mend it there")
    meta: dict[str, Any] = json.loads(utf8(json.dumps(value, ensure_ascii=False)))
    return meta


def _columns(records: Any, token: str, path: str | Path) -> tuple[Array, ...]:
    """Arrays of the boxes of one sample: the four of `_NUMBERS`, score, label, attribute, number of points."""
    try:
        columns = (
            *(_numbers([record[name] for record in records], width) for name, width in _NUMBERS.items()),
            _numbers([record["detection_score"] for record in records], 0),
            np.array([LABEL_OF[record["detection_name"]] for record in records], dtype=np.int8),
            np.array([ATTRIBUTE_OF[record["attribute_name"]] for record in records], dtype=np.int8),
            np.array([int(record.get("num_pts", -1)) for record in records], dtype=np.int64),
        )
        if all([record["sample_token"] == token for record in records]):  # noqa: C419 - a list is faster
            return columns
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        pass
    raise _complaint(records, token, path)


def _numbers(values: list[Any], width: int) -> Array:
    """[N, width] float64, [N] for width 0. Raises ValueError for anything else."""
    array = np.array(values) if values else np.zeros((0, width) if width else 0)
    if array.dtype.kind not in "fiu" or array.shape != ((len(values), width) if width else (len(values),)):
        raise ValueError
    return array.astype(np.float64, copy=False)


def _complaint(records: Any, token: str, path: str | Path) -> InputError:
    """The sentence about the first thing that is wrong with the boxes of a sample."""
    if not isinstance(records, list):
        return InputError(f"{path}: sample {token}: must hold a list of boxes, is {_shown(records)}; mend it there")
    for place, record in enumerate(records):
        where = f"{path}: sample {token}, box {place}"
        if not isinstance(record, dict):
            return InputError(f"{where}: must be an object, is {_shown(record)}; mend it there")
        for name in (*_NUMBERS, "detection_score", "detection_name", "attribute_name", "sample_token"):
            if name not in record:
                return InputError(f"{where}: has no {name}; add it to every box")
        for name, width in (*_NUMBERS.items(), ("detection_score", 0)):
            try:
                _numbers([record[name]], width)
            except (ValueError, OverflowError):
                wanted = f"{width} numbers" if width else "a number"
                return InputError(f"{where}: {name} must be {wanted}, is {_shown(record[name])}; mend it there")
        if not _known(record["detection_name"], LABEL_OF):
            names = ", ".join(CLASSES)
            return InputError(
                f"{where}: unknown class {_shown(record['detection_name'])}; the classes of nuScenes are {names}"
            )
        if not _known(record["attribute_name"], ATTRIBUTE_OF):
            names = ", ".join(ATTRIBUTES)
            return InputError(
                f"{where}: unknown attribute {_shown(record['attribute_name'])}; leave it empty or name one of {names}"
            )
        if record["sample_token"] != token:
            return InputError(
                f"{where}: its sample_token is {_shown(record['sample_token'])}; a box stands under its own sample"
            )
        if not isinstance(record.get("num_pts", -1), int):
            return InputError(f"{where}: num_pts must be an integer, is {_shown(record['num_pts'])}; drop it")
    return InputError(f"{path}: sample {token}: numbers are too large or of mixed kinds; write them as decimals")


def _known(name: object, names: Mapping[str, int]) -> bool:
    return isinstance(name, str) and name in names


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _join(parts: list[tuple[Array, ...]], numbers: list[int], counts: list[int]) -> Predictions:
    if not sum(counts):
        return Predictions.empty()
    translation, size, rotation, velocity, score, label, attribute, points = (
        np.concatenate(column) for column in zip(*parts, strict=True)
    )
    return Predictions(
        sample=np.repeat(np.array(numbers, dtype=np.int32), counts),
        translation=translation,
        size=size[:, [1, 0, 2]],
        rotation=rotation,
        velocity=velocity,
        label=label,
        attribute=attribute,
        score=score,
        num_points=points if (points != -1).any() else None,
    )


def _records(boxes: Predictions, token: str) -> str:
    """The boxes of one sample as JSON; `token` in quotes."""
    numbers = np.column_stack(
        [boxes.translation, boxes.size[:, [1, 0, 2]], boxes.rotation, boxes.velocity, boxes.score]
    ).tolist()
    classes = [_QUOTED_CLASSES[label] for label in boxes.label.tolist()]
    attributes = [_QUOTED_ATTRIBUTES[attribute] for attribute in boxes.attribute.tolist()]
    rows = zip(numbers, classes, attributes, strict=True)
    text = ",\n".join([_BOX % (token, *values, name, attribute) for values, name, attribute in rows])
    return text if np.isfinite(boxes.velocity).all() else _JSON_NUMBERS.sub(_json_number, text)


def _json_number(match: re.Match[str]) -> str:
    return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[match[0]]


_BOX: Final = (
    '{"sample_token": %s, "translation": [%r, %r, %r], "size": [%r, %r, %r], "rotation": [%r, %r, %r, %r], '
    '"velocity": [%r, %r], "detection_score": %r, "detection_name": %s, "attribute_name": %s}'
)
_JSON_NUMBERS: Final = re.compile(r"(?<=[\[ ])(?:nan|-?inf)(?=[\],])")
_QUOTED_CLASSES: Final = [json.dumps(name) for name in CLASSES]
_QUOTED_ATTRIBUTES: Final = [*(json.dumps(name) for name in ATTRIBUTES), '""']
