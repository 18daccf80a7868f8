"""`AQR Debug Info (Forward #1000)` blocks, printed by any number of ranks in any order.

Ranks print without their number and may cut into each other, line by line. A section (`lidar_weights_stats:` and its
values) is used only where it is whole: its statistics in the log's usual order, none twice, no empty section before it.
A rank's own lines follow its header in order, so a section that passes cannot hold another section's values. Where a
launcher put the rank before each line (`[rank3]:`), the ranks are told apart by it.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from aqr.analysis.language import Message, text
from aqr.analysis.run import GROUPS, Snapshot

ANCHOR: Final = re.compile(r"AQR Debug Info \(Forward #(\d+)\)")
RANK: Final = re.compile(r"\[(?:rank|default)?(\d+)\]:")
"""What a launcher puts before each line."""
LINES: Final = re.compile(r"^(?:\[(?:rank|default)?(\d+)\]:)?[ \t]+(\w+):[ \t]*([^\n]*?)[ \t]*$", re.MULTILINE)
"""Rank where given, name, value (empty in a section's header)."""

SECTIONS: Final = {
    "lidar_weights_stats": "lidar_weights",
    "camera_weights_stats": "camera_weights",
    "weight_map_bev_stats": "weight_map_bev",
    "weight_map_pers_stats": "weight_map_pers",
    "modulation_effect_bev": "modulation_bev",
    "modulation_effect_pers": "modulation_pers",
    "FeatureModulator_output_stats": "output",
}
_STATISTICS: Final = frozenset(
    ("mean", "std", "min", "max", "shape", "mean_change", "std_change", "max_change", "relative_change")
)
_NUMBER: Final = re.compile(r"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|nan|inf)")
_SHAPE: Final = re.compile(r"(?:torch\.Size\()?\[(\d+(?:, \d+)*)\]\)?")


@dataclass
class _Section:
    group: str
    block: int
    forward: int
    segment: int
    after_empty: bool
    keys: list[str] = field(default_factory=list)
    values: list[str] = field(default_factory=list)
    at_end: bool = False

    def figures(self) -> dict[str, float] | None:
        """Statistic -> value without the shape; None where a value is none."""
        out = {}
        for key, value in zip(self.keys, self.values, strict=True):
            if key == "shape":
                continue
            if not _NUMBER.fullmatch(value):
                return None
            out[key] = float(value)
        return out

    def shape(self) -> tuple[int, ...] | None:
        match = _SHAPE.fullmatch(self.values[self.keys.index("shape")]) if "shape" in self.keys else None
        return tuple(int(size) for size in match[1].split(", ")) if match else None


@dataclass
class _Stream:
    """Where one rank (or all ranks that cannot be told apart) stands."""

    block: int = 0
    forward: int | None = None
    section: _Section | None = None


@dataclass
class Blocks:
    """Gathers the sections of debug blocks; other lines between them are skipped."""

    sections: list[_Section] = field(default_factory=list)
    output_shapes: dict[int, tuple[int, ...]] = field(default_factory=dict)
    segment: int = 0
    _streams: dict[str, _Stream] = field(default_factory=lambda: defaultdict(_Stream))
    _blocks: int = 0

    def anchor(self, rank: str, forward: int) -> None:
        """A block's first line."""
        stream = self._streams[rank]
        self._close(stream)
        self._blocks += 1
        stream.block, stream.forward = self._blocks, forward

    def lines(self, lines: Iterable[tuple[str, str, str]]) -> None:
        """Lines after it: rank, name, value."""
        for rank, name, value in lines:
            stream = self._streams[rank]
            if not value:
                self._open(stream, name)
            elif stream.section is not None and name in _STATISTICS:
                stream.section.keys.append(name)
                stream.section.values.append(value)
            elif name == "FeatureModulator_output_shape":
                shape = _SHAPE.fullmatch(value)
                if shape:
                    self.output_shapes[stream.block] = tuple(int(size) for size in shape[1].split(", "))

    def _open(self, stream: _Stream, name: str) -> None:
        empty = stream.section is not None and not stream.section.keys
        self._close(stream)
        if name in SECTIONS and stream.forward is not None:
            stream.section = _Section(SECTIONS[name], stream.block, stream.forward, self.segment, empty)

    def _close(self, stream: _Stream) -> None:
        if stream.section is not None:
            self.sections.append(stream.section)
        stream.section = None

    def snapshots(self) -> tuple[tuple[Snapshot, ...], list[Message]]:
        """One snapshot per forward pass, the later one where a run was resumed, and what had to be left out."""
        for stream in self._streams.values():
            if stream.section is not None:
                stream.section.at_end = True
            self._close(stream)
        usual = self._usual_orders()
        whole: dict[tuple[int, int], list[_Section]] = defaultdict(list)
        broken: set[int] = set()
        left_out = 0
        for section in self.sections:
            expected, keys = usual.get(section.group, ()), tuple(section.keys)
            cut = section.at_end and keys == expected[: len(keys)]
            if keys and (keys == expected or cut) and not section.after_empty and section.figures() is not None:
                whole[section.segment, section.forward].append(section)
            else:
                broken.add(section.block)
                left_out += 1
        by_forward: dict[int, Snapshot] = {}
        for (_, forward), sections in sorted(whole.items()):
            by_forward[forward] = self._snapshot(forward, sections, broken)
        notes = []
        if left_out:
            notes.append(
                text(
                    "{count} sections of AQR statistics were cut or mixed up between ranks and are left out.",
                    count=left_out,
                )
            )
        ranks = sorted({one.ranks for one in by_forward.values()})
        if len(ranks) > 1:
            notes.append(
                text(
                    "The AQR snapshots come from different numbers of ranks ({ranks}).",
                    ranks=", ".join(map(str, ranks)),
                )
            )
        return tuple(by_forward[forward] for forward in sorted(by_forward)), notes

    def _usual_orders(self) -> dict[str, tuple[str, ...]]:
        orders: dict[str, Counter[tuple[str, ...]]] = defaultdict(Counter)
        for section in self.sections:
            if section.keys and len(set(section.keys)) == len(section.keys):
                orders[section.group][tuple(section.keys)] += 1
        return {group: max(count, key=lambda keys: (count[keys], len(keys))) for group, count in orders.items()}

    def _snapshot(self, forward: int, sections: list[_Section], broken: set[int]) -> Snapshot:
        samples: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        blocks: dict[int, dict[str, _Section]] = defaultdict(dict)
        queries = []
        for section in sections:
            blocks[section.block][section.group] = section
            if section.group in GROUPS:
                for name, value in (section.figures() or {}).items():
                    samples[section.group][name].append(value)
            shape = section.shape()
            if section.group == "lidar_weights" and shape is not None and len(shape) == 2:
                queries.append(shape[1])
        changes = [self._change(block, groups) for block, groups in blocks.items() if block not in broken]
        return Snapshot(
            forward=forward,
            ranks=max((len(values) for group in samples.values() for values in group.values()), default=0),
            pooled=False,
            samples={group: {name: np.array(v) for name, v in stats.items()} for group, stats in samples.items()},
            queries=tuple(queries),
            changes=tuple(pair for pair in changes if pair is not None),
        )

    def _change(self, block: int, groups: dict[str, _Section]) -> tuple[float, float] | None:
        """Largest |F'| and |F' − F| of the image features, where the block's output is that of the images."""
        if not {"output", "modulation_pers", "weight_map_pers"} <= groups.keys():
            return None
        shape, map_shape = self.output_shapes.get(block), groups["weight_map_pers"].shape()
        if shape is None or map_shape is None or shape[-2:] != map_shape[-2:]:
            return None
        output, change = groups["output"].figures() or {}, groups["modulation_pers"].figures() or {}
        if not {"min", "max"} <= output.keys() or "max_change" not in change:
            return None
        return max(abs(output["min"]), abs(output["max"])), change["max_change"]
