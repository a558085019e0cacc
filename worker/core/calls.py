"""The calls of one task to its engine: which are under way, which are put off, and how often one is
made again that has failed."""

from __future__ import annotations

from skep.worker.core.events import Call

# What is in the way for 15 s (0.5 + 1 + 2 + 4 + 8) will not go away by itself: the managers, who
# can try another node, must hear of it.
TRIES_LIMIT = 6
FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0

_MUST_SUCCEED = frozenset({Call.STOP, Call.REMOVE})
# The runner cancels these when one of the others begins; their answers don't come any more.
_CANCELLED = frozenset({Call.PREPARE, Call.START, Call.PROBE})


class Calls:
    """See the module. `busy` are those under way; `due` is when those that are put off are due."""

    def __init__(self) -> None:
        self.busy: set[Call] = set()
        self.due: dict[Call, float] = {}
        self._failures: dict[Call, int] = {}

    @property
    def are_pending(self) -> bool:
        """Whether any is under way or put off."""
        return bool(self.busy or self.due)

    def begin(self, call: Call) -> bool:
        """Whether it is to be made: one that is under way is not made twice."""
        if call in self.busy:
            return False
        if call in _MUST_SUCCEED:
            self.busy -= _CANCELLED
            for put_off in (*_CANCELLED, call):
                self.due.pop(put_off, None)
        self.busy.add(call)
        return True

    def is_due(self, call: Call, now: float) -> bool:
        """Whether its time has come; it is then no longer put off. A timer that was overtaken by
        another is only a hint."""
        due = self.due.get(call)
        if due is None or now < due:
            return False
        del self.due[call]
        return True

    def end(self) -> None:
        """The task is over: the last answers may still come in, and nobody waits for them."""
        self.due.clear()
        self.busy &= _MUST_SUCCEED

    def tries(self, call: Call) -> int:
        """How often it has failed in a row."""
        return self._failures.get(call, 0)

    def succeeded(self, call: Call) -> None:
        """It is done; its next failure is a first one."""
        self.busy.discard(call)
        self._failures.pop(call, None)

    def failed(self, call: Call, *, is_retryable: bool) -> float | None:
        """Count a failure: after how many seconds to try again; None to give up."""
        tries = self._failures[call] = self.tries(call) + 1
        may_go_on = is_retryable and (tries < TRIES_LIMIT or call is Call.WAIT)
        if call not in _MUST_SUCCEED and not may_go_on:
            return None
        return float(min(FIRST_DELAY_S * 2.0 ** min(tries - 1, 10), LONGEST_DELAY_S))
