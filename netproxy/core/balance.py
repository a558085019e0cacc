"""Which task gets the next connection.

Local and remote tasks count alike: a preference for local ones would overload the tasks of the
node that happens to get the most traffic.
"""

from __future__ import annotations

from collections.abc import Container, Iterator

from skep.domain.base import TaskId
from skep.domain.spec import Balance
from skep.netproxy.core.routes import Candidate

# A task that has just refused is tried last for this long: enough for its end to be reported and
# come back as an update, and short enough for one that is merely restarting its listener.
REFUSED_FOR_S = 2.0


class Balancer:
    """The state behind one published port. Outlives changes of its candidates."""

    def __init__(self, balance: Balance, candidates: tuple[Candidate, ...] = ()) -> None:
        self._balance = balance
        self._candidates = candidates
        self._next = 0
        self._active: dict[TaskId, int] = {}
        self._refused_at: dict[TaskId, float] = {}

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The present candidates."""
        return self._candidates

    def update(self, balance: Balance, candidates: tuple[Candidate, ...]) -> None:
        """Replace the candidates. Connections that are open still count where they are."""
        self._balance = balance
        self._candidates = candidates
        present = {candidate.task_id for candidate in candidates}
        self._refused_at = {t: at for t, at in self._refused_at.items() if t in present}

    def pick(self, now: float, tried: Container[TaskId]) -> Candidate | None:
        """The candidate for one more connection, not among `tried`; None when none is left.

        The caller gives it back by `release` when the connection has ended or was not made.
        """
        best: tuple[bool, int] | None = None
        chosen, place = None, 0
        for at, candidate in self._from_next():
            if candidate.task_id in tried:
                continue
            # In round robin the turn alone decides, so that the first one found is the best.
            load = 0
            if self._balance is Balance.LEAST_CONNECTIONS:
                load = self._active.get(candidate.task_id, 0)
            rank = (self._was_refused(now, candidate.task_id), load)
            if best is None or rank < best:
                best, chosen, place = rank, candidate, at
                if rank == (False, 0):
                    break
        if chosen is None:
            return None
        self._next = (place + 1) % len(self._candidates)
        self._active[chosen.task_id] = self._active.get(chosen.task_id, 0) + 1
        return chosen

    def release(self, task_id: TaskId) -> None:
        """One connection fewer."""
        left = self._active[task_id] - 1
        if left:
            self._active[task_id] = left
        else:
            del self._active[task_id]

    def refuse(self, now: float, task_id: TaskId) -> None:
        """A connection to this task was refused, or not answered in time."""
        if any(candidate.task_id == task_id for candidate in self._candidates):
            self._refused_at[task_id] = now

    def active(self, task_id: TaskId) -> int:
        """Connections that are open or being made."""
        return self._active.get(task_id, 0)

    def _from_next(self) -> Iterator[tuple[int, Candidate]]:
        count = len(self._candidates)
        for offset in range(count):
            at = (self._next + offset) % count
            yield at, self._candidates[at]

    def _was_refused(self, now: float, task_id: TaskId) -> bool:
        at = self._refused_at.get(task_id)
        if at is None:
            return False
        if now - at < REFUSED_FOR_S:
            return True
        del self._refused_at[task_id]
        return False

    def check_invariants(self) -> None:
        """Called by tests after every step."""
        present = {candidate.task_id for candidate in self._candidates}
        assert len(present) == len(self._candidates), "a task stands twice"
        assert set(self._refused_at) <= present, (self._refused_at, present)
        assert all(count > 0 for count in self._active.values()), self._active
