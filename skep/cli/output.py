"""Writing results: tables for people, JSON and YAML for programs, ids alone for pipes."""

from __future__ import annotations

import codecs
import itertools
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

ID_SHOWN = 12
# Ends of lines in Unicode that PyYAML, which leaves them as they are, folds when it reads them.
LINE_SIGNS = ("\x85", "\u2028", "\u2029")

R = TypeVar("R", bound=msgspec.Struct)
Reader = Callable[[R], str]
Columns = Sequence[tuple[str, Reader[R]]]


def show(rows: Sequence[R], columns: Columns[R], *, shape: str, key: str | None) -> None:
    """Write rows to stdout. With `key` (for -q) that field alone, a row a line."""
    if key is not None:
        for row in rows:
            print(getattr(row, key))
    elif shape == "table":
        cells = [[printable(read(row)) for _, read in columns] for row in rows]
        print(table([name for name, _ in columns], cells))
    else:
        write(msgspec.to_builtins(list(rows)), shape=shape)


def write(value: Any, *, shape: str) -> None:
    """Write a value of plain types as JSON or YAML: programs must be able to read it back, also
    where the terminal can't show all characters."""
    shows_all = codecs.lookup(sys.stdout.encoding or "ascii").name.startswith("utf")
    if shape == "yaml":
        print(to_yaml(value, shows_all=shows_all), end="")
    elif not shows_all:
        print(json.dumps(value, indent=2))
    else:
        print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def to_yaml(value: Any, *, shows_all: bool) -> str:
    """Plain types as YAML, in ASCII unless all characters can be shown."""
    import yaml

    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=shows_all)
    if any(sign in text for sign in LINE_SIGNS):
        return to_yaml(value, shows_all=False)
    return text


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns, three spaces apart, as Docker has them."""
    widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
    lines = []
    for row in (headers, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines.append("   ".join(cells).rstrip())
    return "\n".join(lines)


def short_id(of: str) -> str:
    """As much of an id as tells it from others."""
    return of[:ID_SHOWN]


def printable(text: str) -> str:
    """What a program wrote into an error must not move the cursor of whoever reads it."""
    return "".join(char if char.isprintable() else " " for char in text)


def note(text: str) -> None:
    """A line for the person at the terminal; stdout stays clean for results."""
    print(text, file=sys.stderr, flush=True)


class Progress:
    """How far something has come: lines that are rewritten on a terminal, and elsewhere a line for
    each that has changed. Colours only on a terminal, and never with NO_COLOR."""

    def __init__(self, *, is_quiet: bool = False) -> None:
        self._is_quiet = is_quiet
        self._is_terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._is_coloured = self._is_terminal and not os.environ.get("NO_COLOR")
        self._last: list[str] = []
        self._drawn = 0

    def say(self, text: str) -> None:
        """What is true now."""
        self.lines([text])

    def lines(self, texts: Sequence[str]) -> None:
        """What is true now, of several things, in the same order each time."""
        before, self._last = self._last, list(texts)
        if self._is_quiet or before == self._last:
            return
        if self._is_terminal:
            self._draw()
            return
        for new, old in itertools.zip_longest(self._last, before):
            if new is not None and new != old:
                note(new)

    def keep(self) -> None:
        """What was said last stays on the screen, and other words may follow."""
        if self._drawn:
            print(file=sys.stderr, flush=True)
        self._drawn, self._last = 0, []

    def done(self, text: str = "") -> None:
        """The last word instead of what was said; nothing if there is none."""
        if self._drawn:
            print(self._to_top(), end="", file=sys.stderr, flush=True)
        self._drawn, self._last = 0, []
        if text and not self._is_quiet:
            note(f"\x1b[32m{text}\x1b[0m" if self._is_coloured else text)

    def _draw(self) -> None:
        size = os.get_terminal_size(sys.stderr.fileno())
        # Some terminals don't say how large they are.
        columns, room = size.columns or 80, max(1, (size.lines or 24) - 1)
        # More than fits can't be rewritten: what has scrolled away stays.
        shown = self._last
        if len(shown) > room:
            shown = [*shown[: room - 1], f"... and {len(shown) - room + 1} more"]
        text = "\n".join(_fitted(line, columns - 1) for line in shown)
        print(f"{self._to_top()}{text}", end="", file=sys.stderr, flush=True)
        self._drawn = len(shown)

    def _to_top(self) -> str:
        """Go to the first line that was drawn, and erase all of them."""
        up = f"\x1b[{self._drawn - 1}A" if self._drawn > 1 else ""
        return f"\r{up}\x1b[J"


def _fitted(text: str, columns: int) -> str:
    return text if len(text) <= columns else text[: max(0, columns - 1)] + "…"
