"""TensorBoard event files: the scalars of a TFRecord stream, read without TensorBoard (whose import takes seconds).

Source of the formats: tensorflow/core/lib/io/record_writer (length, masked CRC32-C, data, masked CRC32-C) and
event.proto, summary.proto, tensor.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from aqr.analysis.language import Message, text
from aqr.analysis.readers.collect import Records, evaluation_of_fields
from aqr.analysis.readers.settings import settings_in_name
from aqr.analysis.run import Evaluation, Run, Training

_FLOAT, _DOUBLE = 1, 2
"""DataType of tensor.proto."""


def is_event_file(path: Path) -> bool:
    return "tfevents" in path.name


def read_events(paths: Iterable[Path], name: str, source: Path) -> Run:
    """Scalars of the event files of one run, in the order of their names (which hold their time)."""
    notes: list[Message] = []
    by_step: dict[int, dict[str, float]] = {}
    for path in sorted(paths, key=lambda one: one.name):
        try:
            data = path.read_bytes()
        except OSError:
            notes.append(text("{path} cannot be read and is left out.", path=str(path)))
            continue
        try:
            for step, tag, value in _scalars(data):
                by_step.setdefault(step, {})[tag] = value
        except (ValueError, struct.error, IndexError):
            notes.append(text("{name} is cut off or damaged; what comes before is read.", name=path.name))
    records = Records()
    evaluations = []
    for step in sorted(by_step):
        fields = by_step[step]
        found = evaluation_of_fields(fields)
        if found is not None:
            evaluations.append(Evaluation(found[0].figures, found[0].per_class, step))
        training = {}
        for tag, value in fields.items():
            if not tag.startswith(("val/", "test/")) and evaluation_of_fields({tag: value}) is None:
                training[tag.removeprefix("train/")] = value
        if training:
            records.add(step, tuple(training), list(training.values()))
    return Run(
        name=name,
        source=source,
        kind="TensorBoard events",
        settings=settings_in_name(name),
        training=Training(records.series()),
        evaluations=tuple(evaluations),
        notes=tuple(notes),
    )


def _scalars(data: bytes) -> Iterator[tuple[int, str, float]]:
    for record in _records(data):
        step = 0
        summaries = []
        for number, value in _fields(record):
            if number == 2 and isinstance(value, int):
                step = value
            elif number == 5 and isinstance(value, bytes):
                summaries.append(value)
        for summary in summaries:
            for number, value in _fields(summary):
                if number == 1 and isinstance(value, bytes):
                    scalar = _scalar(value)
                    if scalar is not None:
                        yield step, *scalar


def _records(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        if at + 12 > len(data):
            raise ValueError("the stream ends within a record's header")
        header = data[at : at + 8]
        (length,) = struct.unpack("<Q", header)
        (header_crc,) = struct.unpack("<I", data[at + 8 : at + 12])
        end = at + 12 + length
        if _masked_crc(header) != header_crc or end + 4 > len(data):
            raise ValueError("the stream is damaged or ends within a record")
        record = data[at + 12 : end]
        if struct.unpack("<I", data[end : end + 4])[0] != _masked_crc(record):
            raise ValueError("a record is damaged")
        yield record
        at = end + 4


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and raw value of each protobuf field; fixed-width values stay bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire == 2:
            length, at = _varint(message, at)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if at + length > len(message):
            raise ValueError("a field is longer than its message")
        yield number, message[at : at + length]
        at += length


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if not byte & 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")


def _scalar(value: bytes) -> tuple[str, float] | None:
    """Tag and number of a Summary.Value; None for images, texts and histograms."""
    tag, number = "", None
    for field, content in _fields(value):
        if not isinstance(content, bytes):
            continue
        if field == 1:
            tag = content.decode("utf-8", "replace")
        elif field == 2 and len(content) == 4:
            number = struct.unpack("<f", content)[0]
        elif field == 8:
            number = _tensor(content)
    return (tag, float(number)) if tag and number is not None else None


def _tensor(content: bytes) -> float | None:
    kind = 0
    for field, value in _fields(content):
        if field == 1 and isinstance(value, int):
            kind = value
        elif isinstance(value, bytes):
            if kind == _FLOAT and field in (4, 5) and len(value) == 4:
                return float(struct.unpack("<f", value)[0])
            if kind == _DOUBLE and field in (4, 6) and len(value) == 8:
                return float(struct.unpack("<d", value)[0])
    return None


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return tuple(table)


_TABLE: Final = _crc_table()


def _masked_crc(data: bytes) -> int:
    """CRC32-C, rotated and offset as in record_writer."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
