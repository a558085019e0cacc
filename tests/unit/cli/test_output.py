"""What is written while a command waits: on a terminal, and where there is none."""

from __future__ import annotations

import io
import os
import re
import sys

import pytest

from skep.cli.output import Progress


class Screen(io.StringIO):
    """A terminal of ten columns and four lines; `rows` is what a person sees on it."""

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return 2

    @property
    def rows(self) -> list[str]:
        lines, at = [""], 0
        for part in re.findall("\x1b\\[[0-9]*[AJm]|\r|\n|[^\x1b\r\n]+", self.getvalue()):
            if part == "\n":
                at += 1
                lines += [""] * (at - len(lines) + 1)
            elif part.endswith("A") and part.startswith("\x1b"):
                at -= int(part[2:-1])
                assert at >= 0, "above the first line"
            elif part == "\x1b[J":
                lines[at:] = [""]
            elif not part.startswith("\x1b") and part != "\r":
                lines[at] += part
        return lines


def terminal(monkeypatch: pytest.MonkeyPatch) -> Screen:
    # Not as a fixture: pytest puts its own stderr back between those and the test.
    found = Screen()
    monkeypatch.setattr(sys, "stderr", found)
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((10, 4)))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return found


def test_lines_are_rewritten_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    progress = Progress()
    progress.lines(["a 1/3", "b 0/1"])
    progress.lines(["a 2/3", "b 0/1"])
    assert screen.rows == ["a 2/3", "b 0/1"]
    progress.lines(["a 3/3"])
    assert screen.rows == ["a 3/3"]
    progress.keep()
    progress.done("well")
    assert screen.rows == ["a 3/3", "well", ""]
    assert "\x1b[32mwell\x1b[0m" in screen.getvalue()


def test_what_was_said_gives_way_to_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    progress = Progress()
    progress.say("a")
    progress.say("b")
    progress.done("c")
    assert screen.rows == ["c", ""]
    progress.done()
    assert screen.rows == ["c", ""]


def test_what_is_too_wide_or_too_much_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    progress = Progress()
    progress.lines(["0123456789", "b", "c", "d", "e"])
    assert screen.rows == ["01234567…", "b", "... and …"]


def test_the_same_again_is_not_written_again(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    progress = Progress()
    progress.lines(["a"])
    before = screen.getvalue()
    progress.lines(["a"])
    assert screen.getvalue() == before


def test_no_colour_where_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    monkeypatch.setenv("NO_COLOR", "1")
    Progress().done("well")
    assert screen.getvalue() == "well\n"


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    monkeypatch.setenv("TERM", "dumb")
    progress = Progress()
    progress.lines(["a 1/3", "b 0/1"])
    progress.lines(["a 1/3", "b 1/1"])
    progress.keep()
    progress.done("well")
    assert screen.getvalue() == "a 1/3\nb 0/1\nb 1/1\nwell\n"


def test_quiet_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    progress = Progress(is_quiet=True)
    progress.lines(["a"])
    progress.keep()
    progress.done("well")
    assert screen.getvalue() == ""
