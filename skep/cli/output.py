"""Writing results: tables for people, JSON and YAML for programs, ids alone for pipes."""

from __future__ import annotations

import codecs
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

ID_SHOWN = 12

R = TypeVar("R", bound=msgspec.Struct)
Columns = Sequence[tuple[str, Callable[[R], str]]]


def show(rows: Sequence[R], columns: Columns[R], *, shape: str, key: str | None) -> None:
    """Write rows to stdout. With `key` (for -q) that field alone, a row a line."""
    if key is not None:
        for row in rows:
            print(getattr(row, key))
    elif shape == "table":
        cells = [[_cell(read(row)) for _, read in columns] for row in rows]
        print(table([name for name, _ in columns], cells))
    else:
        write(msgspec.to_builtins(list(rows)), shape=shape)


def write(value: Any, *, shape: str) -> None:
    """Write a value of plain types as JSON or YAML: programs must be able to read it back, also
    where the terminal can't show all characters."""
    shows_all = codecs.lookup(sys.stdout.encoding or "ascii").name.startswith("utf")
    if shape == "yaml":
        import yaml

        print(yaml.safe_dump(value, sort_keys=False, allow_unicode=shows_all), end="")
    elif not shows_all:
        print(json.dumps(value, indent=2))
    else:
        print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


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


def _cell(text: str) -> str:
    # What a program wrote into an error must not move the cursor of whoever reads it.
    return "".join(char if char.isprintable() else " " for char in text)


def note(text: str) -> None:
    """A line for the person at the terminal; stdout stays clean for results."""
    print(text, file=sys.stderr, flush=True)


class Progress:
    """How far something has come: one line that is rewritten on a terminal, a line per change
    elsewhere. Colours only on a terminal, and never with NO_COLOR."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._is_coloured = self._is_terminal and not os.environ.get("NO_COLOR")
        self._last = ""

    def say(self, text: str) -> None:
        """What is true now."""
        if text == self._last:
            return
        self._last = text
        if self._is_terminal:
            width = os.get_terminal_size(sys.stderr.fileno()).columns - 1
            shown = text if len(text) <= width else text[: max(0, width - 1)] + "…"
            print(f"\r\x1b[2K{shown}", end="", file=sys.stderr, flush=True)
        else:
            note(text)

    def done(self, text: str = "") -> None:
        """The last word; nothing if there is none."""
        if self._is_terminal and self._last:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)
        self._last = ""
        if text:
            note(f"\x1b[32m{text}\x1b[0m" if self._is_coloured else text)
