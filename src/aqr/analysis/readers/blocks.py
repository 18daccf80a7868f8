"""`AQR Debug Info (Forward #1000)` blocks, printed by any number of ranks in any order.

Ranks print without their number and may cut into each other, line by line. A section (`lidar_weights_stats:` and its
values) is used only where it is whole: its statistics in the log's usual order, none twice, no empty section before it.
A rank's own lines follow its header in order, so a section that passes cannot hold another section's values. Where a
launcher put the rank before each line (`[rank3]:`), the ranks are told apart by it.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from aqr.analysis.language import Message, text
from aqr.analysis.readers.columns import Numbers, outline
from aqr.analysis.run import GROUPS, Floats, Ints, Snapshot

ANCHOR: Final = re.compile(r"AQR Debug Info \(Forward #(\d+)\)")
RANK: Final = re.compile(r"\[(?:rank|default)?(\d+)\]:")
"""What a launcher puts before each line."""
_HEADER: Final = re.compile(r"^[ \t]+(\w+):[ \t]*$", re.MULTILINE)
_LINE: Final = re.compile(r"^[ \t]+(\w+): +(\S[^\n]*?)[ \t]*$", re.MULTILINE)
_SIZE: Final = re.compile(r"\d+")

_OUTPUT: Final = "output"
SECTIONS: Final = {
    "lidar_weights_stats": "lidar_weights",
    "camera_weights_stats": "camera_weights",
    "weight_map_bev_stats": "weight_map_bev",
    "weight_map_pers_stats": "weight_map_pers",
    "modulation_effect_bev": "modulation_bev",
    "modulation_effect_pers": "modulation_pers",
    "FeatureModulator_output_stats": _OUTPUT,
}
_STATISTICS: Final = frozenset(
    ("mean", "std", "min", "max", "shape", "mean_change", "std_change", "max_change", "relative_change")
)
_OUTPUT_SHAPE: Final = re.compile(
    r"^[ \t]+FeatureModulator_output_shape: torch\.Size\(\[(\d+(?:, \d+)*)\]\)", re.MULTILINE
)
_SHAPE: Final = re.compile(r"(?:torch\.Size\()?\[(\d+(?:, \d+)*)\]\)?")


@dataclass(frozen=True)
class _Section:
    """A header and the lines up to the next one, in blocks of one outline.

    Attributes:
        lines: statistic and value as printed in the first of these blocks, with the place of the value.
        after_empty: the section before it in the block has no values.
        at_end: the log ends with it.
    """

    group: str
    lines: tuple[tuple[str, str, int], ...]
    after_empty: bool
    at_end: bool

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(name for name, _, _ in self.lines)

    def is_whole(self, usual: tuple[str, ...]) -> bool:
        keys = self.keys
        cut = self.at_end and keys == usual[: len(keys)]
        return bool(keys) and (keys == usual or cut) and not self.after_empty

    def shape(self) -> tuple[int, list[int]] | None:
        """Number of dimensions and the places of the sizes."""
        for name, value, place in self.lines:
            match = _SHAPE.fullmatch(value) if name == "shape" else None
            if match:
                sizes = [place + match.start(1) + size.start() for size in _SIZE.finditer(match[1])]
                return len(sizes), sizes
        return None


@dataclass(slots=True)
class _Block:
    """A block's text, read when it is needed."""

    forward: int
    segment: int
    text: str = ""
    at_end: bool = False


@dataclass
class Blocks:
    """Gathers the text of debug blocks, by rank where the log tells."""

    segment: int = 0
    _blocks: list[_Block] = field(default_factory=list)
    _open: dict[str, _Block] = field(default_factory=dict)

    def anchor(self, rank: str, forward: int) -> None:
        """A block's first line; `rank` is empty where the line does not say."""
        block = _Block(forward, self.segment)
        self._blocks.append(block)
        self._open[rank] = block

    def add(self, text: str) -> None:
        """Text after it."""
        if "" in self._open:
            self._open[""].text += text
        if len(self._open) > ("" in self._open):
            for line in text.split("\n"):
                rank = RANK.match(line)
                if rank and rank[1] in self._open:
                    self._open[rank[1]].text += line[rank.end() :] + "\n"

    def snapshots(self) -> tuple[tuple[Snapshot, ...], list[Message]]:
        """One snapshot per forward pass, the later one where a run was resumed, and what had to be left out."""
        for block in self._open.values():
            block.at_end = True
        latest: dict[int, int] = {}
        for block in self._blocks:
            latest[block.forward] = max(block.segment, latest.get(block.forward, 0))
        alike: dict[tuple[bytes, bool], list[_Block]] = defaultdict(list)
        for block in self._blocks:
            if block.segment == latest[block.forward]:
                block.text = _trimmed(block.text)
                alike[outline(block.text), block.at_end].append(block)
        layouts = {key: _layout(blocks[0]) for key, blocks in alike.items()}
        usual = _usual_orders((layouts[key], len(blocks)) for key, blocks in alike.items())
        samples = _Samples()
        left_out = 0
        for key, blocks in alike.items():
            whole = [one for one in layouts[key] if one.is_whole(usual.get(one.group, ()))]
            left_out += (len(layouts[key]) - len(whole)) * len(blocks)
            left_out += samples.add(blocks, whole, intact=len(whole) == len(layouts[key]))
        snapshots = samples.snapshots()
        notes = []
        if left_out:
            notes.append(
                text(
                    "{count} sections of AQR statistics were cut or mixed up between ranks and are left out.",
                    count=left_out,
                )
            )
        ranks = sorted({one.ranks for one in snapshots})
        if len(ranks) > 1:
            notes.append(
                text(
                    "The AQR snapshots come from different numbers of ranks ({ranks}).",
                    ranks=", ".join(map(str, ranks)),
                )
            )
        return snapshots, notes


@dataclass
class _Samples:
    """Values by group, statistic and forward pass."""

    values: dict[tuple[str, str], list[tuple[Ints, Floats]]] = field(default_factory=lambda: defaultdict(list))
    queries: list[tuple[Ints, Floats]] = field(default_factory=list)
    changes: list[tuple[Ints, Floats]] = field(default_factory=list)

    def add(self, blocks: Sequence[_Block], sections: Sequence[_Section], intact: bool) -> int:
        """Read the whole sections of blocks of one outline.

        Returns:
            Number of sections whose values are no numbers.
        """
        forwards = np.array([block.forward for block in blocks])
        table = Numbers([block.text for block in blocks])
        read: dict[str, dict[str, Floats]] = {}
        left_out = 0
        for section in sections:
            places = [(name, place) for name, _, place in section.lines if name != "shape"]
            values = table.at([place for _, place in places])
            if values is None:
                left_out += len(blocks)
                intact = False
                continue
            read[section.group] = {name: values[:, place] for place, (name, _) in enumerate(places)}
            if section.group in GROUPS:
                for name, column in read[section.group].items():
                    self.values[section.group, name].append((forwards, column))
            shape = section.shape()
            if section.group == "lidar_weights" and shape is not None and shape[0] == 2:
                sizes = table.at(shape[1])
                if sizes is not None:
                    self.queries.append((forwards, sizes[:, 1]))
        if intact and _output_is_images(blocks[0].text, sections):
            output, change = read.get(_OUTPUT, {}), read.get("modulation_pers", {})
            if {"min", "max"} <= output.keys() and "max_change" in change:
                largest = np.maximum(np.abs(output["min"]), np.abs(output["max"]))
                self.changes.append((forwards, np.stack([largest, change["max_change"]], 1)))
        return left_out

    def snapshots(self) -> tuple[Snapshot, ...]:
        by_forward: dict[int, dict[str, dict[str, Floats]]] = defaultdict(dict)
        for (group, name), parts in self.values.items():
            for forward, values in _by_forward(parts).items():
                by_forward[forward].setdefault(group, {})[name] = values
        queries, changes = _by_forward(self.queries), _by_forward(self.changes)
        return tuple(
            Snapshot(
                forward=forward,
                ranks=max(len(values) for stats in by_forward[forward].values() for values in stats.values()),
                pooled=False,
                samples=by_forward[forward],
                queries=tuple(int(count) for count in queries.get(forward, ())),
                changes=tuple((float(largest), float(change)) for largest, change in changes.get(forward, ())),
            )
            for forward in sorted(by_forward)
        )


def _by_forward(parts: Sequence[tuple[Ints, Floats]]) -> dict[int, Floats]:
    """Values of each forward pass, in the order of the log within blocks of one outline."""
    if not parts:
        return {}
    forwards = np.concatenate([part[0] for part in parts])
    values = np.concatenate([part[1] for part in parts])
    order = np.argsort(forwards, kind="stable")
    distinct, starts = np.unique(forwards[order], return_index=True)
    return dict(zip(distinct.tolist(), np.split(values[order], starts[1:]), strict=True))


def _trimmed(text: str) -> str:
    """A block's text up to the last line of its last section, without the noise that follows."""
    at = text.rfind(":\n") + 1
    while at > 0 and text[at + 1 : at + 2] in (" ", "\t"):
        at = text.find("\n", at + 1)
    return text[: at + 1] if at > 0 else text


def _layout(block: _Block) -> list[_Section]:
    headers = list(_HEADER.finditer(block.text))
    layout = []
    after_empty = False
    for header, following in zip(headers, [*headers[1:], None], strict=True):
        end = len(block.text) if following is None else following.start()
        found = [line for line in _LINE.finditer(block.text, header.end(), end) if line[1] in _STATISTICS]
        if header[1] in SECTIONS:
            lines = tuple((line[1], line[2], line.start(2)) for line in found)
            layout.append(_Section(SECTIONS[header[1]], lines, after_empty, block.at_end and following is None))
        after_empty = not found
    return layout


def _usual_orders(layouts: Iterable[tuple[Sequence[_Section], int]]) -> dict[str, tuple[str, ...]]:
    """The commonest order of statistics in each group, among sections that state none twice."""
    orders: dict[str, Counter[tuple[str, ...]]] = defaultdict(Counter)
    for sections, count in layouts:
        for section in sections:
            if section.keys and len(set(section.keys)) == len(section.keys):
                orders[section.group][section.keys] += count
    return {group: max(count, key=lambda keys: (count[keys], len(keys))) for group, count in orders.items()}


def _output_is_images(text: str, sections: Iterable[_Section]) -> bool:
    """Whether the block's output has the size of its image map."""
    output = _OUTPUT_SHAPE.search(text)
    printed = [
        value for one in sections if one.group == "weight_map_pers" for name, value, _ in one.lines if name == "shape"
    ]
    match = _SHAPE.fullmatch(printed[0]) if printed else None
    return bool(output and match and output[1].split(", ")[-2:] == match[1].split(", ")[-2:])
