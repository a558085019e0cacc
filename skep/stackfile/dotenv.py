"""Files of variables (`.env`), as Compose reads them.

`NAME=value` lines, perhaps after `export`; `#` begins a comment at a line's start or after a space.
In single quotes a value is taken as it is, but for an escaped quote; in double quotes it may have
escapes; quoted values may go over several lines. Variables are put in but for single quotes.
"""

from __future__ import annotations

import bisect
import re
from collections import ChainMap
from collections.abc import Callable, Mapping

from skep.domain.control import STACK_FILE_LIMIT_BYTES
from skep.stackfile.errors import Mark, StackFileError, at, error_at
from skep.stackfile.interpolate import BadVariable, interpolate

_START = re.compile(r"[ \t]*(?:export[ \t]+)?(?P<name>[A-Za-z_][A-Za-z0-9_.-]*)[ \t]*")
_BLANK = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\n|\Z)")
_SINGLE = re.compile(r"'(?P<value>(?:[^'\\]|\\.)*)'", re.DOTALL)
_DOUBLE = re.compile(r'"(?P<value>(?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "$": "$$"}


def read_dotenv(
    text: str, *, file: str, environ: Mapping[str, str], warn: Callable[[str], None]
) -> dict[str, str]:
    """The variables of a file. Values may name those of `environ`, which win, and earlier ones.
    A name without "=" is left out: its value is the environment's. Raises StackFileError."""
    run = _Run(text.replace("\r\n", "\n"), file, environ, warn)
    if len(text) > STACK_FILE_LIMIT_BYTES:
        raise run.error(0, f"more than {STACK_FILE_LIMIT_BYTES} characters; use fewer variables")
    position = 0
    while position < len(run.text):
        position = run.line(position)
    return run.found


class _Run:
    def __init__(
        self, text: str, file: str, environ: Mapping[str, str], warn: Callable[[str], None]
    ) -> None:
        self.text = text
        self.found: dict[str, str] = {}
        self._file = file
        self._known = ChainMap(dict(environ), self.found)
        self._breaks = [found.start() for found in re.finditer("\n", self.text)]
        self._warn = warn
        self._told: set[str] = set()

    def error(self, position: int, message: str) -> StackFileError:
        return error_at(self._mark(position), message)

    def _mark(self, position: int) -> Mark:
        line = bisect.bisect_left(self._breaks, position)
        return Mark(line + 1, position - (self._breaks[line - 1] if line else -1), self._file)

    def line(self, position: int) -> int:
        """Read one variable, or a line without any; returns where the next line begins."""
        blank = _BLANK.match(self.text, position)
        if blank:
            return blank.end()
        start = _START.match(self.text, position)
        if start is None:
            raise self.error(position, "no variable; write NAME=value, or '#' before a comment")
        position = start.end()
        if self.text[position : position + 1] not in ("=", ":"):
            blank = _BLANK.match(self.text, position)
            if blank:
                return blank.end()
            raise self.error(position, f"'=' is missing after '{start['name'][:60]}'")
        position += 1
        while self.text[position : position + 1] in (" ", "\t"):
            position += 1
        value, position = self._value(position)
        self.found[start["name"]] = value
        return position

    def _value(self, position: int) -> tuple[str, int]:
        text = self.text
        quote = text[position : position + 1]
        if quote not in ("'", '"'):
            end = text.find("\n", position)
            end = len(text) if end < 0 else end
            raw = re.split(r"(?:^|[ \t])#", text[position:end], maxsplit=1)[0].rstrip()
            return self._interpolated(raw, position), end + 1
        found = (_SINGLE if quote == "'" else _DOUBLE).match(text, position)
        if found is None:
            raise self.error(position, f"the quote {quote} is never closed; add another")
        blank = _BLANK.match(text, found.end())
        if blank is None:
            raise self.error(found.end(), "something follows the closing quote; remove it")
        if quote == "'":
            return found["value"].replace("\\'", "'"), blank.end()
        raw = _ESCAPE.sub(lambda escape: _ESCAPES.get(escape[1], escape[1]), found["value"])
        return self._interpolated(raw, position), blank.end()

    def _interpolated(self, raw: str, position: int) -> str:
        if "$" not in raw:
            return raw
        try:
            value, unset = interpolate(raw, self._known)
        except BadVariable as error:
            raise self.error(position, str(error)) from None
        for name in unset:
            if name not in self._told:
                self._told.add(name)
                where = at(self._mark(position))
                self._warn(f"{where}: variable '{name}' is not set; it becomes empty")
        return value
