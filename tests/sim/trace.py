"""What happened in a simulated world, as lines and as one running hash.

Two runs of one seed must give the same hash; that is how a hidden source of chance (a set's order,
an address, the real clock) is found. The last lines are kept, to be printed when a seed fails.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable

# A failing seed prints these; enough to see what led to it, little enough to be read.
LINES_KEPT = 200


class Trace:
    """Every decision of the world. `now` stamps each line with virtual seconds.

    With `is_full` every line is kept, so that two runs can be compared line by line.
    """

    def __init__(self, now: Callable[[], float], *, is_full: bool = False) -> None:
        self._now = now
        self._hash = hashlib.blake2b(digest_size=16)
        self._lines: deque[str] = deque(maxlen=None if is_full else LINES_KEPT)
        self.count = 0
        self.faults: Counter[str] = Counter()

    def note(self, kind: str, text: str) -> None:
        """Record one decision, such as note("disk", "m1 sync log 0.004")."""
        line = f"{self._now():.6f} {kind} {text}"
        self.count += 1
        self._hash.update(line.encode())
        self._lines.append(line)

    def fault(self, kind: str, text: str) -> None:
        """Record a fault; faults are also counted by kind."""
        self.faults[kind] += 1
        self.note(f"fault:{kind}", text)

    @property
    def digest(self) -> str:
        """The hash of all lines so far."""
        return self._hash.hexdigest()

    def lines(self, last: int = LINES_KEPT) -> list[str]:
        """The newest lines, oldest first."""
        return list(self._lines)[-last:]
