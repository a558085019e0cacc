"""Which task gets the next connection.

Local and remote tasks count alike: a preference for local ones would overload the tasks of the
node that happens to get the most traffic.

A task that refuses, or doesn't answer in time, is *ejected*: while others are left it gets no
connection for a while, which grows as long as it goes on failing. So a client rarely pays for a
task that is known to be down, and one that is back is found again without a health check.
"""

from __future__ import annotations

from collections.abc import Container

from skep.domain.base import TaskId
from skep.domain.spec import Balance
from skep.netproxy.relay.core.protocol import Candidate

# The first time is enough for its end to be reported and come back as an update, and short enough
# for one that is merely restarting its listener.
FIRST_EJECTION_S = 2.0
# What is longer than this is for the managers to see: health checks take it out of the endpoints.
LONGEST_EJECTION_S = 30.0


class _Ejection:
    """Until when, and for how long it was."""

    __slots__ = ("for_s", "until")

    def __init__(self, until: float, for_s: float) -> None:
        self.until = until
        self.for_s = for_s


class Balancer:
    """The state behind one listener. Outlives changes of its candidates."""

    __slots__ = ("_active", "_balance", "_candidates", "_ejected", "_next")

    def __init__(self, balance: Balance, candidates: tuple[Candidate, ...] = ()) -> None:
        self._balance = balance
        self._candidates = candidates
        self._next = 0
        self._active: dict[TaskId, int] = {}
        self._ejected: dict[TaskId, _Ejection] = {}

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The present candidates."""
        return self._candidates

    def update(self, balance: Balance, candidates: tuple[Candidate, ...]) -> None:
        """Replace the candidates. Connections that are open still count where they are."""
        self._balance = balance
        self._candidates = candidates
        if self._ejected:
            present = {candidate.task_id for candidate in candidates}
            self._ejected = {t: each for t, each in self._ejected.items() if t in present}

    def pick(self, now: float, tried: Container[TaskId]) -> Candidate | None:
        """The candidate for one more connection, not among `tried`; None when none is left. An
        ejected one is taken when there is no other.

        The caller gives it back by `release` when the connection has ended or was not made.
        """
        candidates, active = self._candidates, self._active
        by_load = self._balance is Balance.LEAST_CONNECTIONS
        count = len(candidates)
        best, chosen, place = (True, -1), None, 0
        for offset in range(count):
            at = (self._next + offset) % count
            candidate = candidates[at]
            if candidate.task_id in tried:
                continue
            # In round robin the turn alone decides, so that the first one found is the best.
            load = active.get(candidate.task_id, 0) if by_load else 0
            rank = (bool(self._ejected) and self._is_ejected(now, candidate.task_id), load)
            if chosen is None or rank < best:
                best, chosen, place = rank, candidate, at
                if rank == (False, 0):
                    break
        if chosen is not None:
            self._next = place + 1
            active[chosen.task_id] = active.get(chosen.task_id, 0) + 1
        return chosen

    def release(self, task_id: TaskId) -> None:
        """One connection fewer."""
        left = self._active[task_id] - 1
        if left:
            self._active[task_id] = left
        else:
            del self._active[task_id]

    def refuse(self, now: float, task_id: TaskId) -> bool:
        """A connection to this task was refused, or not answered in time. Returns whether it is
        ejected for that: the only one there is never is."""
        present = [candidate.task_id for candidate in self._candidates]
        if len(present) < 2 or task_id not in present:
            return False
        before = self._ejected.get(task_id)
        if before is None:
            for_s = FIRST_EJECTION_S
        elif now < before.until:
            return False  # Tried for want of another, or begun before: that is no news.
        else:
            for_s = min(2 * before.for_s, LONGEST_EJECTION_S)
        self._ejected[task_id] = _Ejection(now + for_s, for_s)
        return True

    def succeed(self, task_id: TaskId) -> None:
        """A connection to this task was made: whatever was held against it is forgotten."""
        if self._ejected:
            self._ejected.pop(task_id, None)

    def active(self, task_id: TaskId) -> int:
        """Connections that are open or being made."""
        return self._active.get(task_id, 0)

    def _is_ejected(self, now: float, task_id: TaskId) -> bool:
        ejection = self._ejected.get(task_id)
        return ejection is not None and now < ejection.until

    def check_invariants(self) -> None:
        """Called by tests after every step."""
        present = {candidate.task_id for candidate in self._candidates}
        assert len(present) == len(self._candidates), "a task stands twice"
        assert set(self._ejected) <= present, (self._ejected, present)
        for ejection in self._ejected.values():
            assert FIRST_EJECTION_S <= ejection.for_s <= LONGEST_EJECTION_S
        assert all(count > 0 for count in self._active.values()), self._active
