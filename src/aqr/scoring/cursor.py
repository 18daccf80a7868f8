"""Decode a large JSON file value by value, without holding it as a whole."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

from aqr.errors import InputError

_CHUNK: Final = 1 << 24
_SPACE: Final = re.compile(r"[ \t\n\r]*")


@contextlib.contextmanager
def open_json(path: str | Path) -> Iterator[Cursor]:
    """A cursor at the start of a file.

    Raises:
        InputError: if the file cannot be read.
    """
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(Path(path).open(encoding="latin-1", newline=""))
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); give the path of a results.json") from None
        yield Cursor(file, path)


def utf8(value: str) -> str:
    """What a string says that was decoded as Latin-1 from UTF-8."""
    if value.isascii():
        return value
    try:
        return value.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return value


class Cursor:
    """A cursor in a JSON file that decodes one value at a time.

    Text is decoded as Latin-1, one byte a character whatever the file holds, and turned into what it says where a
    string is kept (`utf8`).
    """

    def __init__(self, file: IO[str], path: str | Path) -> None:
        self.file, self.path = file, path
        self.text, self.at, self.dropped, self.ended = "", 0, 0, False
        self.decode = json.JSONDecoder().raw_decode

    def entries(self) -> Iterator[str]:
        """The keys of the object that begins here; the caller takes the value of each before it asks for the next."""
        self._expect("{", "an object")
        if self._next() == "}":
            self.at += 1
            return
        while True:
            if self._next() != '"':
                raise self._broken("a key in double quotes")
            key = self.value()
            self._expect(":", "a colon")
            yield utf8(key)
            if self._next() == "}":
                self.at += 1
                return
            self._expect(",", "a comma or the end of the object")

    def value(self) -> Any:
        """The value that begins here."""
        self._next()
        while True:
            try:
                value, end = self.decode(self.text, self.at)
            except json.JSONDecodeError as error:
                if self.ended:
                    self.at = error.pos
                    raise self._broken("a value") from None
            except RecursionError:
                raise self._broken("less nesting") from None
            else:
                # A number at the end of the text may go on in the file.
                if end < len(self.text) or self.ended:
                    self.at = end
                    return value
            self._grow()

    def finish(self) -> None:
        """Refuse anything after the last value."""
        if self._next():
            raise self._broken("the end of the file")

    def _next(self) -> str:
        """The next character that is not space, "" at the end of the file."""
        while True:
            match = _SPACE.match(self.text, self.at)
            assert match is not None
            self.at = match.end()
            if self.at < len(self.text):
                return self.text[self.at]
            if self.ended:
                return ""
            self._grow()

    def _expect(self, character: str, what: str) -> None:
        if self._next() != character:
            raise self._broken(what)
        self.at += 1

    def _grow(self) -> None:
        rest = self.text[self.at :]
        more = self.file.read(max(_CHUNK, len(rest)))
        self.ended = not more
        self.dropped += self.at
        self.text, self.at = rest + more, 0

    def _broken(self, wanted: str) -> InputError:
        place = self.dropped + self.at
        found = repr(self.text[self.at]) if self.at < len(self.text) else "the end of the file"
        return InputError(
            f"{self.path}: is not a submission: {wanted} should stand at byte {place}, where {found} is; "
            "write the file again"
        )
