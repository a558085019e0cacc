"""From an accepted client to a connected task: each candidate at most once, in bounded time.

A client that was promised a service by an open port should not see that one task of several is
down. Until a task has answered, nothing of the client's has been sent anywhere, so that trying the
next one repeats nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from skep.domain.base import TaskId
from skep.netproxy.core.balance import Balancer
from skep.netproxy.core.routes import Candidate

# One lost SYN is sent again after 1 s; a task or node that has not answered then is left alone.
ATTEMPT_S = 2.0
# A client waits no longer than this for all attempts together.
TOTAL_S = 8.0


@dataclass(frozen=True, slots=True)
class Requested:
    """A client has connected."""

    now: float


@dataclass(frozen=True, slots=True)
class Refused:
    """The attempt failed; `why` is for the log."""

    now: float
    why: str


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The candidate was taken away while the attempt was under way."""

    now: float


@dataclass(frozen=True, slots=True)
class Connected:
    """The attempt succeeded."""

    now: float


Event = Requested | Refused | Withdrawn | Connected


@dataclass(frozen=True, slots=True)
class Attempt:
    """Connect to this candidate, for at most `within_s`."""

    candidate: Candidate
    within_s: float


@dataclass(frozen=True, slots=True)
class Established:
    """Relay between the client and this candidate; release it in the balancer afterwards."""

    candidate: Candidate


@dataclass(frozen=True, slots=True)
class GivenUp:
    """Reset the client. `kind` is for the metrics, `why` for the log."""

    kind: str
    why: str


Effect = Attempt | Established | GivenUp


class Dial:
    """One client's way to a task. Every event but the last leads to exactly one effect."""

    def __init__(self, balancer: Balancer) -> None:
        self._balancer = balancer
        self._tried: dict[TaskId, str] = {}
        self._current: Candidate | None = None
        self._gives_up_at = 0.0
        self._is_over = False

    def step(self, event: Event) -> Effect:
        """What to do next."""
        assert not self._is_over, f"{event} after the end; tried {self._tried}"
        match event:
            case Requested(now):
                assert self._current is None
                self._gives_up_at = now + TOTAL_S
                return self._try_next(now)
            case Refused(now, why):
                candidate = self._end_attempt(why)
                self._balancer.refuse(now, candidate.task_id)
                return self._try_next(now)
            case Withdrawn(now):
                self._end_attempt("withdrawn")
                return self._try_next(now)
            case Connected():
                assert self._current is not None
                self._is_over = True
                return Established(self._current)

    def abandon(self) -> None:
        """The client is gone, or we are: give back what is held. Idempotent."""
        if not self._is_over:
            self._is_over = True
            if self._current is not None:
                self._end_attempt("abandoned")

    def _end_attempt(self, why: str) -> Candidate:
        candidate = self._current
        assert candidate is not None
        self._current = None
        self._tried[candidate.task_id] = why
        self._balancer.release(candidate.task_id)
        return candidate

    def _try_next(self, now: float) -> Effect:
        left_s = self._gives_up_at - now
        if left_s <= 0.0:
            return self._give_up("timeout")
        candidate = self._balancer.pick(now, self._tried)
        if candidate is None:
            return self._give_up("refused" if self._tried else "no_endpoints")
        self._current = candidate
        return Attempt(candidate, min(ATTEMPT_S, left_s))

    def _give_up(self, kind: str) -> GivenUp:
        self._is_over = True
        story = ", ".join(f"{task_id} {why}" for task_id, why in self._tried.items())
        return GivenUp(kind, story or "no healthy task")
