"""The one error of this package."""

from __future__ import annotations

from typing import NamedTuple

from skep.env import Rejected


class Mark(NamedTuple):
    """A place in a file; both count from 1."""

    line: int
    column: int


class StackFileError(Rejected):
    """The stack file can't be used as it is. The text names the place and what to do."""

    def __init__(self, message: str, *, file: str, mark: Mark, field: str = "") -> None:
        super().__init__(message, field=field)
        self.file = file
        self.line = mark.line
        self.column = mark.column


def at(file: str, mark: Mark) -> str:
    """The place as editors and terminals know it: file:line:column."""
    return f"{file}:{mark.line}:{mark.column}"


def error_at(file: str, mark: Mark, text: str, *, field: str = "") -> StackFileError:
    """An error that begins with its place."""
    return StackFileError(f"{at(file, mark)}: {text}", file=file, mark=mark, field=field)
