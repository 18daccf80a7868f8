"""Numbers of many texts that are alike but for their digits, read as one table."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Final

import numpy as np

from aqr.analysis.run import Floats

_DIGITS: Final = b"0123456789"
_KEPT: Final = frozenset(b"0123456789.+-E")
_TO_SPACE: Final = bytes(byte if byte in _KEPT else 32 for byte in range(256))
_WORD: Final = re.compile(r"[^\s\[\](),:]+")
_TOKEN: Final = re.compile(rb"\S+")
_NUMBER: Final = re.compile(rb"[-+]?(?:\d+\.?\d*|\.\d+)(?:E[-+]\d+)?")


def outline(text: str) -> bytes:
    """What is left of a text without its digits."""
    return text.encode().translate(None, _DIGITS)


class Numbers:
    """The numbers of texts of one outline, by their place in the first text."""

    def __init__(self, texts: Sequence[str]) -> None:
        """Args:
        texts: [N], of one outline.
        """
        self._texts = texts
        self._columns: dict[int, int] = {}
        self._table = self._parsed()

    def at(self, starts: Sequence[int]) -> Floats | None:
        """The numbers that begin at these places of the first text, [N, M]; None where one is no number."""
        if self._table is None or not self._columns.keys() >= set(starts):
            return self._one_by_one(starts)
        chosen: Floats = self._table[:, [self._columns[start] for start in starts]]
        return chosen

    def _parsed(self) -> Floats | None:
        """All numbers at once: everything else becomes spaces, and one call of NumPy parses the rest.

        Numbers within names (d0.loss) come along and are left out by their column. Where NaN stands among the numbers,
        or a full stop within a name, this fails and `_one_by_one` takes over.
        """
        if not self._texts[0].isascii():
            return None
        tokens = list(_TOKEN.finditer(_blank(self._texts[0])))
        if not tokens or not all(_NUMBER.fullmatch(token[0]) for token in tokens):
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                values = np.fromstring(_blank("\n".join(self._texts)), sep=" ")
            except (ValueError, DeprecationWarning):
                return None
        if len(values) != len(tokens) * len(self._texts):
            return None
        self._columns = {token.start(): column for column, token in enumerate(tokens)}
        return values.reshape(len(self._texts), len(tokens))

    def _one_by_one(self, starts: Sequence[int]) -> Floats | None:
        places = {match.start(): place for place, match in enumerate(_WORD.finditer(self._texts[0]))}
        if not places.keys() >= set(starts):
            return None
        columns = [places[start] for start in starts]
        try:
            rows = [[float(words[column]) for column in columns] for words in map(_WORD.findall, self._texts)]
        except (ValueError, IndexError):
            return None
        return np.array(rows, dtype=np.float64).reshape(len(rows), len(columns))


def _blank(text: str) -> bytes:
    raw = text.encode().replace(b"e-", b"E-").replace(b"e+", b"E+").replace(b"torch.Size", b"          ")
    return raw.translate(_TO_SPACE)
