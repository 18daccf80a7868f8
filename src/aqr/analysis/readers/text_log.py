"""mmcv 1.x and mmengine text logs.

A log of 100 MB may be mostly noise, so lines are not walked one by one: the few that matter are found by the words they
must hold, in the raw bytes, and only those are decoded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from aqr.analysis.language import Message, text
from aqr.analysis.readers.blocks import ANCHOR, RANK, Blocks
from aqr.analysis.readers.collect import (
    NOT_SERIES,
    Records,
    evaluation_of_fields,
    merge_evaluations,
    restart_notes,
)
from aqr.analysis.readers.columns import Numbers, outline
from aqr.analysis.readers.settings import printed_settings
from aqr.analysis.run import ClassResult, Evaluation, Kind, Setting, Snapshot, Training

_HEAD: Final = 8_000_000
"""Bytes before the first training line that are searched for a printed configuration."""
_BLOCK: Final = 40_000
"""Bytes after the first line of an AQR block in which its sections are looked for."""
_TABLE: Final = 20_000
"""Bytes after the first line of an evaluation table in which its rows are looked for."""

_TRAIN: Final = re.compile(
    r"(?:Epoch(?:\(train\))?\s*\[(?P<epoch>\d+)\]\s*\[\s*(?P<inner>\d+)/(?P<length>\d+)\]"
    r"|Iter(?:\(train\))?\s*\[\s*(?P<iteration>\d+)/(?P<total>\d+)\])[ \t]+(?P<fields>.*)"
)
_VAL: Final = re.compile(
    r"(?P<unit>Epoch|Iter)\(val\)\s*\[\s*(?P<at>\d+)(?:/\d+)?\](?:\[\s*\d+(?:/\d+)?\])?[ \t]+(?P<fields>.*)"
)
_FIELD: Final = re.compile(r"([A-Za-z_][\w./-]*): +([^\s,]+)")
_SUMMARY: Final = re.compile(r"(?<![\w/])(mAP|mATE|mASE|mAOE|mAVE|mAAE|NDS): (\d+\.\d+)(?=\s)")
_HEADER: Final = re.compile(r"Object Class\s+((?:AP|ATE|ASE|AOE|AVE|AAE)(?:\s+(?:AP|ATE|ASE|AOE|AVE|AAE))*)\s*$")
_ROW: Final = re.compile(r"\s*([A-Za-z_]\w*)((?:[ \t]+(?:\d+\.\d+|nan))+)\s*")
_MAX_EPOCHS: Final = re.compile(r"max: (\d+) epochs")
_CHECKPOINT: Final = re.compile(r"Saving checkpoint at (\d+) (epochs|iterations)")
_WORDS: Final = (
    b"Epoch",
    b"Iter",
    b"AQR Debug Info",
    b"mAP: ",
    b"Object Class",
    b"Saving checkpoint at ",
    b"workflow: ",
)


@dataclass
class TextLog:
    """What a text log says."""

    kind: Kind = "unknown"
    settings: dict[str, Setting] = field(default_factory=dict)
    training: Training = field(default_factory=Training)
    evaluations: tuple[Evaluation, ...] = ()
    snapshots: tuple[Snapshot, ...] = ()
    notes: list[Message] = field(default_factory=list)


def read_text_log(data: bytes) -> TextLog:
    """Read a text log that may be cut off anywhere, hold noise, or be written by several ranks at once.

    Args:
        data: the file, decompressed, UTF-8 or mostly so.
    """
    notes: list[Message] = []
    if data and not data.endswith((b"\n", b"\r")):
        end = max(data.rfind(separator) for separator in (b"\n", b"\r", b" ", b"\t", b","))
        data = data[: end + 1] + b"\n"
        notes.append(text("The log ends in the middle of a line; the value it ends with is left out."))
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return _Reader(data, notes).read()


class _Reader:
    def __init__(self, data: bytes, notes: list[Message]) -> None:
        self.data = data
        self.notes = notes
        self.records = Records()
        self.blocks = Blocks()
        self.evaluations: list[Evaluation] = []
        self.table: Evaluation | None = None
        self.kind: Kind = "unknown"
        self.first_train: int | None = None
        self.epoch_length: int | None = None
        self.planned: int | None = None
        self.completed = 0
        self.several_sets = False
        self.unreadable = 0
        self.lines: dict[bytes, tuple[list[int], list[str]]] = {}

    def read(self) -> TextLog:
        block_until = -1
        for start, stop, following in self._places():
            line = self.data[start:stop].decode("utf-8", "replace")
            anchor = ANCHOR.search(line)
            if anchor:
                rank = RANK.match(line)
                self.blocks.anchor(rank[1] if rank else "", int(anchor[1]))
                block_until = stop + _BLOCK
            else:
                self._line(start, stop, line)
            if stop < block_until:
                chunk = self.data[stop : min(following, block_until)].decode("utf-8", "replace")
                self.blocks.add(chunk)
        return self._result()

    def _places(self) -> Iterator[tuple[int, int, int]]:
        """Start and end of each line that may matter, and the start of the next such line, in order."""
        data, found = self.data, set()
        for word in _WORDS:
            at = data.find(word)
            while at >= 0:
                found.add(data.rfind(b"\n", 0, at) + 1)
                stop = data.find(b"\n", at)
                at = data.find(word, stop) if stop >= 0 else -1
        places = sorted(found)
        for start, following in zip(places, [*places[1:], len(data)], strict=False):
            stop = data.find(b"\n", start)
            yield start, len(data) if stop < 0 else stop, following

    def _line(self, start: int, stop: int, line: str) -> None:
        if match := _TRAIN.search(line):
            self._train(start, match)
        elif match := _VAL.search(line):
            self._val(match)
        elif match := _HEADER.search(line):
            self._table(stop, match[1].split())
        elif match := _SUMMARY.search(line):
            self._summary(start + len(line[: match.start()].encode()))
        elif match := _CHECKPOINT.search(line):
            done = int(match[1])
            if match[2] == "iterations":
                self.completed = max(self.completed, done)
            elif self.epoch_length is not None:
                self.completed = max(self.completed, done * self.epoch_length)

    def _train(self, start: int, match: re.Match[str]) -> None:
        if self.first_train is None:
            self.first_train = start
            self.kind = "mmengine text log" if "(train)" in match[0] else "mmcv text log"
        self._close_table()
        if match["iteration"]:
            iteration, self.planned = int(match["iteration"]), int(match["total"])
        else:
            self.epoch_length = int(match["length"])
            iteration = (int(match["epoch"]) - 1) * self.epoch_length + int(match["inner"])
        restarts = self.records.restarts
        number = self.records.place(iteration)
        self.blocks.segment += self.records.restarts - restarts
        fields = match["fields"]
        lines = self.lines.setdefault(outline(fields), ([], []))
        lines[0].append(number)
        lines[1].append(fields)

    def _columns(self) -> None:
        """Turn the training lines into numbers; lines alike but for their digits are split at the same places."""
        for places, lines in self.lines.values():
            columns = [found for found in _FIELD.finditer(lines[0]) if found[1] not in NOT_SERIES]
            names = tuple(found[1] for found in columns)
            open_end = bool(columns) and columns[-1].end() == len(lines[0].rstrip())
            table = None
            if len(set(names)) == len(names):
                table = Numbers(lines).at([found.start(2) for found in columns])
            if table is not None:
                self.records.extend(places, names, table, open_end=open_end)
                continue
            for place, line in zip(places, lines, strict=True):
                fields = self._fields(line)
                table = np.array([list(fields.values())])
                self.records.extend([place], tuple(fields), table, open_end=open_end)

    def _fields(self, line: str) -> dict[str, float]:
        """Fields of a line unlike the others."""
        found: dict[str, float] = {}
        for name, value in _FIELD.findall(line):
            if name in NOT_SERIES:
                continue
            number = _number(value)
            if number is None:
                self.unreadable += 1
            else:
                found[name] = number
        return found

    def _val(self, match: re.Match[str]) -> None:
        fields = {
            name: number for name, value in _FIELD.findall(match["fields"]) if (number := _number(value)) is not None
        }
        found = evaluation_of_fields(fields)
        if found is None:
            return
        evaluation, sets = found
        self.several_sets |= sets > 1
        iteration = self.records.last
        if match["unit"] == "Epoch" and self.epoch_length is not None:
            iteration = int(match["at"]) * self.epoch_length
            self.completed = max(self.completed, iteration)
        evaluation = Evaluation(evaluation.figures, evaluation.per_class, iteration)
        if self.table is not None:
            merged = merge_evaluations(self.table, evaluation)
            if merged is not None:
                self.evaluations.append(merged)
                self.table = None
                return
        self._close_table()
        self.evaluations.append(evaluation)

    def _summary(self, start: int) -> None:
        """The overall figures that begin at `start`; a second set begins another evaluation."""
        if self.table is not None and self.table.figures:
            self._close_table()
        figures: dict[str, float] = {}
        for match in _SUMMARY.finditer(self.data[start : start + 400].decode("utf-8", "replace")):
            if match[1] in figures:
                break
            figures[match[1]] = float(match[2])
        before = self.table.per_class if self.table is not None else {}
        self.table = Evaluation(figures, before, self.records.last)

    def _table(self, start: int, columns: list[str]) -> None:
        classes: dict[str, ClassResult] = {}
        for line in self.data[start + 1 : start + _TABLE].decode("utf-8", "replace").split("\n"):
            match = _ROW.fullmatch(line)
            if match is None:
                if classes:
                    break
                continue
            values = [float(value) for value in match[2].split()]
            classes[match[1]] = ClassResult(dict(zip(columns, values, strict=False)))
        if self.table is not None and self.table.per_class:
            self._close_table()
        figures = self.table.figures if self.table is not None else {}
        self.table = Evaluation(figures, classes, self.records.last)

    def _close_table(self) -> None:
        if self.table is not None and (self.table.figures or self.table.per_class):
            self.evaluations.append(self.table)
        self.table = None

    def _result(self) -> TextLog:
        self._close_table()
        self._columns()
        cut = self.records.drop_cut_values()
        if cut:
            self.notes.append(
                text("{count} training lines break off; the value that each ends with is left out.", count=cut)
            )
        if self.unreadable:
            self.notes.append(
                text("{count} values in training lines are no numbers and are left out.", count=self.unreadable)
            )
        if self.several_sets:
            self.notes.append(text("An evaluation lists several sets of results; the fullest one is used."))
        self.notes += restart_notes(self.records)
        snapshots, block_notes = self.blocks.snapshots()
        end = len(self.data) if self.first_train is None else self.first_train
        head = self.data[max(0, end - _HEAD) : end].decode("utf-8", "replace")
        settings, setting_notes = printed_settings(head)
        if self.planned is None and self.epoch_length is not None:
            epochs = _MAX_EPOCHS.search(head)
            if epochs:
                self.planned = int(epochs[1]) * self.epoch_length
            elif "epochs" in settings:
                self.planned = int(settings["epochs"].value) * self.epoch_length
        return TextLog(
            kind=self.kind,
            settings=settings,
            training=Training(self.records.series(), self.planned, self.completed or None, self.epoch_length),
            evaluations=tuple(self.evaluations),
            snapshots=snapshots,
            notes=self.notes + block_notes + setting_notes,
        )


def _number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None
