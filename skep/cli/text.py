"""Text on a terminal: what may be printed, and how many columns it takes. Pure."""

from __future__ import annotations

import time
import unicodedata

NS_PER_S = 1_000_000_000


def plain(text: str) -> str:
    """One line without anything that moves a cursor: what programs wrote into an error is shown to
    people who didn't start them."""
    return "".join(char if char.isprintable() else " " for char in text)


def width(text: str) -> int:
    """The columns that a plain text takes."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def fit(text: str, room: int) -> str:
    """A plain text in at most `room` columns; what is cut off leaves an ellipsis."""
    if width(text) <= room:
        return text
    taken, kept = 0, ""
    for char in text:
        taken += _columns(char)
        if taken > room - 1:
            break
        kept += char
    return kept + "…" if room > 0 else ""


def pad(text: str, room: int) -> str:
    """A plain text in exactly `room` columns."""
    shown = fit(text, room)
    return shown + " " * (room - width(shown))


def clock(time_ns: int) -> str:
    """A wall time as the person's own clock shows it."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time_ns / NS_PER_S))


def span(duration_ns: int) -> str:
    """A duration, short: "0.4 s", "12 s", "3 min", "2 h", "4 days"."""
    seconds = max(0, duration_ns) / NS_PER_S
    if seconds < 1:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds // 60:.0f} min"
    if seconds < 2 * 86400:
        return f"{seconds // 3600:.0f} h"
    return f"{seconds // 86400:.0f} days"


def counted(number: int, noun: str) -> str:
    """Such as "1 task" or "3 tasks"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _columns(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
