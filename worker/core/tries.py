"""How often a call to an engine is made, and how long is waited before it is made again."""

from __future__ import annotations

from skep.worker.core.events import Call

# What is in the way for 15 s (0.5 + 1 + 2 + 4 + 8) will not go away by itself: the managers, who
# can try another node, must hear of it.
TRIES_LIMIT = 6
FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0

_MUST_SUCCEED = (Call.STOP, Call.REMOVE)


class Tries:
    """The failures in a row of each call of one task."""

    def __init__(self) -> None:
        self._failures: dict[Call, int] = {}

    def count(self, call: Call) -> int:
        """How many there were."""
        return self._failures.get(call, 0)

    def succeeded(self, call: Call) -> None:
        """The next failure is a first one."""
        self._failures.pop(call, None)

    def failed(self, call: Call, *, is_retryable: bool) -> float | None:
        """Count a failure: after how many seconds to try again; None to give up."""
        tries = self._failures[call] = self.count(call) + 1
        may_go_on = is_retryable and (tries < TRIES_LIMIT or call is Call.WAIT)
        if call not in _MUST_SUCCEED and not may_go_on:
            return None
        return float(min(FIRST_DELAY_S * 2.0 ** min(tries - 1, 10), LONGEST_DELAY_S))
