"""The one error of this package, and how several of them become one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from skep.env import Rejected

T = TypeVar("T")

# Enough to mend a file in one go; a screen of them helps nobody.
SHOWN_LIMIT = 10
# A file may repeat a mistake by aliases; what nobody will see isn't kept.
KEPT_LIMIT = 1000


class Mark(NamedTuple):
    """A place in a file; line and column count from 1."""

    line: int
    column: int
    file: str


class StackFileError(Rejected):
    """The stack file can't be used as it is. The text names the place and what to do; `others`
    are the same for what else is wrong, in the files' order."""

    def __init__(
        self, message: str, *, mark: Mark, field: str = "", others: tuple[str, ...] = ()
    ) -> None:
        super().__init__(message, field=field)
        self.file = mark.file
        self.line = mark.line
        self.column = mark.column
        self.others = others


def at(mark: Mark) -> str:
    """The place as editors and terminals know it: file:line:column."""
    return f"{mark.file}:{mark.line}:{mark.column}"


def error_at(mark: Mark, text: str, *, field: str = "") -> StackFileError:
    """An error that begins with its place."""
    return StackFileError(f"{at(mark)}: {text}", mark=mark, field=field)


class Problems:
    """What is wrong with a stack's files, collected, so that all of it is told at once."""

    def __init__(self) -> None:
        self._found: list[StackFileError] = []
        self.count = 0

    def add(self, error: StackFileError) -> None:
        """Remember one."""
        self.count += 1
        if len(self._found) < KEPT_LIMIT:
            self._found.append(error)

    def attempt(self, how: Callable[[], T], default: T) -> T:
        """What `how` returns; `default` where it finds something wrong."""
        try:
            return how()
        except StackFileError as error:
            self.add(error)
            return default

    def check(self, files: Sequence[str]) -> None:
        """Raise StackFileError if there are any: the first in the files' order, with the others
        behind it."""
        if not self._found:
            return
        ranks = {file: rank for rank, file in enumerate(files)}

        def rank(error: StackFileError) -> tuple[int, int, int]:
            return ranks.get(error.file, len(ranks)), error.line, error.column

        by_text = {str(error): error for error in sorted(self._found, key=rank)}
        first, *rest = by_text.values()
        others = [str(error) for error in rest[: SHOWN_LIMIT - 1]]
        if len(rest) >= SHOWN_LIMIT:
            hidden = len(rest) - SHOWN_LIMIT + 1
            others.append(f"{hidden} more; mend these first")
        first.others = tuple(others)
        raise first
