"""Variables in scalars: `$VAR`, `${VAR}` with defaults and demands, `$$` for a dollar.

The grammar is Compose's (compose-spec, 12-interpolation). Only the branch that is taken can fail:
`${A:-${B:?}}` asks for B only when A is empty.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

# Deep enough for every real default inside a default; recursion stays small.
DEPTH_LIMIT = 16

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATORS = (":-", ":?", ":+", "-", "?", "+")


class BadVariable(ValueError):
    """The text can't be interpolated; says what to do. `position` is that of the dollar sign."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.position = position


class Interpolated(NamedTuple):
    """A text with its variables put in. `unset` are the names of those that were not set and have
    no default (they become empty, as in Compose), with the positions of their dollar signs."""

    text: str
    unset: Mapping[str, int]


def interpolate(text: str, environ: Mapping[str, str]) -> Interpolated:
    """Put variables into a text. Raises BadVariable."""
    run = _Run(text, environ)
    result, _ = run.expand(0, depth=0, is_taken=True)
    return Interpolated(result, run.unset)


class _Run:
    def __init__(self, text: str, environ: Mapping[str, str]) -> None:
        self.text = text
        self.environ = environ
        self.unset: dict[str, int] = {}
        self.dollar = 0

    def _bad(self, message: str, dollar: int | None = None) -> BadVariable:
        return BadVariable(message, self.dollar if dollar is None else dollar)

    def expand(self, position: int, *, depth: int, is_taken: bool) -> tuple[str, int]:
        """Text from `position` to the end, or at depth > 0 to the brace that closes it."""
        if depth > DEPTH_LIMIT:
            raise self._bad(f"variables are nested more than {DEPTH_LIMIT} deep")
        out: list[str] = []
        start = self.dollar
        text = self.text
        while position < len(text):
            char = text[position]
            if char == "}" and depth:
                return "".join(out), position
            if char != "$":
                out.append(char)
                position += 1
            elif text.startswith("$$", position):
                out.append("$")
                position += 2
            elif text.startswith("${", position):
                self.dollar = position
                value, position = self._braced(position + 2, depth, is_taken)
                out.append(value)
            else:
                self.dollar = position
                name, position = self._name(position + 1)
                out.append(self._value(name, is_taken, self.dollar))
        if depth:
            raise self._bad("'${' is never closed; add '}', or write '$$' for a dollar sign", start)
        return "".join(out), position

    def _braced(self, position: int, depth: int, is_taken: bool) -> tuple[str, int]:
        dollar = self.dollar
        name, position = self._name(position)
        operator = next((o for o in _OPERATORS if self.text.startswith(o, position)), "")
        value = self.environ.get(name)
        if operator.startswith(":"):
            value = value or None
        kind = operator[-1:]
        wants_word = is_taken and ((value is None) != (kind == "+"))
        word, end = self.expand(
            position + len(operator), depth=depth + 1, is_taken=wants_word and bool(kind)
        )
        if not kind and end != position:
            raise self._bad(
                f"'${{{name}' is followed by {self.text[position]!r}; "
                "write '${NAME}', '${NAME:-default}' or '${NAME:?message}'",
                dollar,
            )
        if not kind:
            return self._value(name, is_taken, dollar), end + 1
        if kind == "+":
            return ("" if value is None else word), end + 1
        if value is not None:
            return value, end + 1
        if kind == "?" and is_taken:
            reason = f": {word}" if word else ""
            raise self._bad(
                f"variable '{name}' must be set{reason}; set it in the environment", dollar
            )
        return word, end + 1

    def _name(self, position: int) -> tuple[str, int]:
        found = _NAME.match(self.text, position)
        if not found:
            raise self._bad(
                "'$' is not followed by a variable's name; write '$$' for a dollar sign"
            )
        return found.group(), found.end()

    def _value(self, name: str, is_taken: bool, dollar: int) -> str:
        value = self.environ.get(name)
        if value is None and is_taken:
            self.unset.setdefault(name, dollar)
        return value or ""
