"""A terminal taken over for a while, and given back as it was, however that ends."""

from __future__ import annotations

import os
import sys
import termios
import tty
from collections.abc import Sequence
from types import TracebackType
from typing import Any

# The other screen, no cursor, and no wrapping of a line that a terminal takes for a wider one.
_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l"
_LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"


class Screen:
    """The terminal at stdout; keys come from stdin, where that is one too."""

    def __init__(self) -> None:
        self._settings: list[Any] | None = None
        self.has_keys = sys.stdin is not None and sys.stdin.isatty()

    def __enter__(self) -> Screen:
        self.enter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.leave()

    def enter(self) -> None:
        """Take it over."""
        if self.has_keys:
            self._settings = termios.tcgetattr(sys.stdin.fileno())
            tty.setcbreak(sys.stdin.fileno())
        self._write(_ENTER)

    def leave(self) -> None:
        """Give it back."""
        try:
            self._write(_LEAVE)
        finally:
            if self._settings is not None:
                termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, self._settings)
                self._settings = None

    def size(self) -> tuple[int, int]:
        """Columns and lines, as they are now."""
        found = os.get_terminal_size(sys.stdout.fileno())
        # Some terminals have no size, and say zero.
        return found.columns or 80, found.lines or 24

    def draw(self, lines: Sequence[str]) -> None:
        """Show these lines and nothing else, in one write, which doesn't flicker."""
        # Each line is cleared before it is written: after a full one, the cursor still stands on
        # its last character, which clearing would take away.
        self._write("\x1b[H" + "\r\n".join(f"\x1b[K{line}" for line in lines) + "\x1b[0m")

    def keys(self) -> bytes:
        """What was typed; b"" at the end."""
        return os.read(sys.stdin.fileno(), 64)

    def _write(self, text: str) -> None:
        # A character that the terminal can't show must still take one column.
        encoding = sys.stdout.encoding or "ascii"
        sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
        sys.stdout.flush()
