"""`AQR Debug Info (Forward #1000)` blocks, printed by any number of ranks in any order.

Ranks print without their number and may cut into each other, line by line. The first line of a block closes the block
before it, so a block that another rank cut into lacks lines, and what it lacks is a surplus in a later block of the
same forward pass. Where no block has a surplus, no rank cut into another, and every section (`lidar_weights_stats:`
and its values) that is whole is used. Where one has, the blocks before the first incomplete one are used and no others.
Where a launcher put the rank before each line (`[rank3]:`), the ranks are told apart by it.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import numpy as np

from aqr.analysis.language import Message, text
from aqr.analysis.readers.columns import Numbers, outline
from aqr.analysis.run import GROUPS, MODULATION, Floats, Ints, Snapshot

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
_OF_VALUES: Final = ("mean", "std", "min", "max", "shape")
_OF_CHANGES: Final = ("mean_change", "std_change", "max_change", "relative_change")
_STATISTICS: Final = _OF_VALUES + _OF_CHANGES
"""In the order in which they are printed."""
_OUTPUT_SHAPE: Final = re.compile(
    r"^[ \t]+FeatureModulator_output_shape: torch\.Size\(\[(\d+(?:, \d+)*)\]\)", re.MULTILINE
)
_SHAPE: Final = re.compile(r"(?:torch\.Size\()?\[(\d+(?:, \d+)*)\]\)?")


@dataclass(frozen=True)
class _Section:
    """A header and the statistics up to the next one, in blocks of one outline.

    Attributes:
        lines: statistic and value as printed in the first of these blocks, with the place of the value.
    """

    group: str
    lines: tuple[tuple[str, str, int], ...]

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(name for name, _, _ in self.lines)

    @property
    def in_order(self) -> bool:
        """Whether its statistics are its own, none twice or out of order."""
        own = _OF_CHANGES if self.group in MODULATION else _OF_VALUES
        places = [own.index(name) if name in own else -1 for name in self.keys]
        return -1 not in places and all(one < other for one, other in pairwise(places))

    def shape(self) -> tuple[int, list[int]] | None:
        """Number of dimensions and the places of the sizes."""
        for name, value, place in self.lines:
            match = _SHAPE.fullmatch(value) if name == "shape" else None
            if match:
                sizes = [place + match.start(1) + size.start() for size in _SIZE.finditer(match[1])]
                return len(sizes), sizes
        return None


@dataclass(frozen=True)
class _Layout:
    """What stands where in blocks of one outline.

    Attributes:
        stray: statistics stand before the first header.
        at_end: the log ends with the block, whose last section may be cut.
    """

    sections: tuple[_Section, ...]
    stray: bool
    at_end: bool

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(section.group for section in self.sections)

    def whole(self, usual: Mapping[str, tuple[str, ...]]) -> list[_Section]:
        """Sections with all their statistics; the last one as far as the log reaches."""
        last = len(self.sections) - 1 if self.at_end else -1
        return [
            section
            for number, section in enumerate(self.sections)
            if section.keys
            and (
                section.keys == usual.get(section.group)
                or (number == last and section.keys == usual.get(section.group, ())[: len(section.keys)])
            )
        ]

    def has_surplus(self, order: tuple[str, ...]) -> bool:
        """Whether it holds more than one rank's lines."""
        places = [order.index(group) for group in self.groups if group in order]
        repeated = len(set(self.groups)) < len(self.groups) or any(one > other for one, other in pairwise(places))
        return self.stray or repeated or not all(section.in_order for section in self.sections)


@dataclass(slots=True)
class _Block:
    """A block's text, read when it is needed."""

    rank: str
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
        block = _Block(rank, forward, self.segment)
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
        current = [block for block in self._blocks if block.segment == latest[block.forward]]
        samples = _Samples()
        left_out = _gather(current, samples)
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


def _gather(blocks: Sequence[_Block], samples: _Samples) -> int:
    """Read what can be trusted; blocks alike but for their digits are read together.

    Returns:
        Number of sections left out.
    """
    keys = []
    first: dict[tuple[bytes, bool], _Block] = {}
    for block in blocks:
        block.text = _trimmed(block.text)
        keys.append((outline(block.text), block.at_end))
        first.setdefault(keys[-1], block)
    layouts = {key: _layout(block) for key, block in first.items()}
    counts = Counter(keys)
    usual = _usual_statistics((layouts[key], count) for key, count in counts.items())
    whole = {key: layout.whole(usual) for key, layout in layouts.items()}
    sound = {key for key, layout in layouts.items() if len(whole[key]) == len(layout.sections) and not layout.stray}
    orders = Counter({key: count for key, count in counts.items() if key in sound})
    order = layouts[max(orders, key=lambda key: (len(layouts[key].sections), orders[key]))].groups if orders else ()
    surplus = {key for key, layout in layouts.items() if layout.has_surplus(order)}
    complete = {key for key in sound - surplus if layouts[key].groups == order}

    passes: dict[tuple[str, int], list[int]] = defaultdict(list)
    for number, block in enumerate(blocks):
        passes[block.rank, block.forward].append(number)
    kept: dict[tuple[bytes, bool], list[_Block]] = defaultdict(list)
    left_out = 0
    for numbers in passes.values():
        mixed = any(keys[number] in surplus for number in numbers)
        trusted = True
        for number in numbers:
            key = keys[number]
            trusted = trusted and not (mixed and key not in complete)
            if trusted:
                kept[key].append(blocks[number])
                left_out += len(layouts[key].sections) - len(whole[key])
            else:
                left_out += len(layouts[key].sections)
    for key, alike in kept.items():
        left_out += samples.add(alike, whole[key], intact=key in complete)
    return left_out


def _trimmed(text: str) -> str:
    """A block's text up to its last statistic, without the noise that follows."""
    last = max(text.rfind(f" {name}: ") for name in _STATISTICS)
    end = text.find("\n", last)
    return text if last < 0 or end < 0 else text[: end + 1]


def _layout(block: _Block) -> _Layout:
    headers = list(_HEADER.finditer(block.text))
    sections = []
    for header, following in zip(headers, [*headers[1:], None], strict=False):
        end = len(block.text) if following is None else following.start()
        if header[1] in SECTIONS:
            sections.append(_Section(SECTIONS[header[1]], _lines(block.text, header.end(), end)))
    before = headers[0].start() if headers else len(block.text)
    return _Layout(tuple(sections), bool(_lines(block.text, 0, before)), block.at_end)


def _lines(text: str, start: int, end: int) -> tuple[tuple[str, str, int], ...]:
    found = (line for line in _LINE.finditer(text, start, end) if line[1] in _STATISTICS)
    return tuple((line[1], line[2], line.start(2)) for line in found)


def _usual_statistics(layouts: Iterable[tuple[_Layout, int]]) -> dict[str, tuple[str, ...]]:
    """The commonest statistics of each group, among sections that state them in order."""
    counts: dict[str, Counter[tuple[str, ...]]] = defaultdict(Counter)
    for layout, count in layouts:
        for section in layout.sections:
            if section.keys and section.in_order:
                counts[section.group][section.keys] += count
    return {group: max(count, key=lambda keys: (count[keys], len(keys))) for group, count in counts.items()}


def _output_is_images(text: str, sections: Iterable[_Section]) -> bool:
    """Whether the block's output has the size of its image map."""
    output = _OUTPUT_SHAPE.search(text)
    printed = [
        value for one in sections if one.group == "weight_map_pers" for name, value, _ in one.lines if name == "shape"
    ]
    match = _SHAPE.fullmatch(printed[0]) if printed else None
    return bool(output and match and output[1].split(", ")[-2:] == match[1].split(", ")[-2:])
