"""Texts of the report: English templates, translated through gettext catalogues.

A text is a `Message`, a template and its values, so that one finding can be shown in any language. Catalogues are
`locale/<language>/LC_MESSAGES/aqr.po`; they are compiled in memory, so none has to be built or shipped twice.
"""

from __future__ import annotations

import gettext
import io
import re
import string
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

from aqr.errors import InputError

LANGUAGES: Final = {"en": "en", "zh": "zh_CN"}
LOCALE: Final = Path(__file__).parent / "locale"

Value = str | int | float


@dataclass(frozen=True)
class Message:
    """A text to be shown.

    Attributes:
        template: English, with `{name}` or `{name:format}` for the values; the key in the catalogues.
        values: numbers, names, or messages that are translated themselves.
    """

    template: str
    values: Mapping[str, Value | Message | Listing] = field(default_factory=dict)

    def __str__(self) -> str:
        return Translator("en").show(self)


@dataclass(frozen=True)
class Listing:
    """Messages in a row."""

    items: tuple[Message, ...]


def text(template: str, **values: Value | Message | Listing) -> Message:
    """A message; the template is what the catalogues translate."""
    return Message(template, values)


class _Formatter(string.Formatter):
    """Writes negative numbers with a minus sign instead of a hyphen."""

    def format_field(self, value: object, format_spec: str) -> str:
        shown = str(super().format_field(value, format_spec))
        return f"−{shown[1:]}" if isinstance(value, int | float) and shown.startswith("-") else shown


_FORMATTER: Final = _Formatter()


class Translator:
    """Shows messages in one language."""

    def __init__(self, language: str) -> None:
        if language not in LANGUAGES:
            raise InputError(f"language {language!r} is not known; use one of {', '.join(LANGUAGES)}")
        self.language = language
        self._catalogue = _catalogue(LANGUAGES[language])

    def show(self, message: Message) -> str:
        shown = {name: self._shown(value) for name, value in message.values.items()}
        return _FORMATTER.vformat(self._catalogue.gettext(message.template), (), shown)

    def _shown(self, value: Value | Message | Listing) -> Value:
        if isinstance(value, Message):
            return self.show(value)
        if isinstance(value, Listing):
            return self("; ").join(self.show(item) for item in value.items)
        return value

    def __call__(self, template: str) -> str:
        return self._catalogue.gettext(template) if template else ""

    def sentences(self, shown: Sequence[str]) -> str:
        """Sentences in a row, as the language sets them."""
        return ("" if self.language == "zh" else " ").join(shown)


@cache
def _catalogue(locale: str) -> gettext.NullTranslations:
    path = LOCALE / locale / "LC_MESSAGES" / "aqr.po"
    if locale == "en":
        return gettext.NullTranslations()
    return gettext.GNUTranslations(io.BytesIO(compile_catalogue(parse_catalogue(path.read_text(encoding="utf-8")))))


def parse_catalogue(source: str) -> dict[str, str]:
    """msgid -> msgstr of a .po file without plural forms; entries without a translation are left out."""
    entries: dict[str, str] = {}
    parts: dict[str, list[str]] = {}
    current: list[str] | None = None

    def close() -> None:
        key, value = "".join(parts.get("msgid", [])), "".join(parts.get("msgstr", []))
        if "msgstr" in parts and value:
            entries[key] = value
        parts.clear()

    for line in source.splitlines():
        match = re.fullmatch(r'(?:(msgid|msgstr)\s+)?"(.*)"', line.strip())
        if match is None:
            continue
        if match[1]:
            if match[1] == "msgid":
                close()
            current = parts.setdefault(match[1], [])
        if current is not None:
            current.append(_unescape(match[2]))
    close()
    return entries


def _unescape(quoted: str) -> str:
    return re.sub(r"\\(.)", lambda found: {"n": "\n", "t": "\t"}.get(found[1], found[1]), quoted)


def compile_catalogue(entries: Mapping[str, str]) -> bytes:
    """The binary form that gettext reads (GNU .mo, version 0, little endian)."""
    keys = sorted(entries, key=lambda key: key.encode())
    pairs = [(key.encode(), entries[key].encode()) for key in keys]
    table_size = 8 * len(pairs)
    start = 28 + 2 * table_size
    originals: list[int] = []
    translations: list[int] = []
    pool = b""
    for column, table in ((0, originals), (1, translations)):
        for pair in pairs:
            table += [len(pair[column]), start + len(pool)]
            pool += pair[column] + b"\0"
    header = struct.pack("<7I", 0x950412DE, 0, len(pairs), 28, 28 + table_size, 0, start)
    return header + struct.pack(f"<{4 * len(pairs)}I", *originals, *translations) + pool
