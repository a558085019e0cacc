"""From a client to a connected task: each candidate at most once, in bounded time.

A client that was promised a service by an open port should not see that one task of several is
down. Until a task has answered, nothing of the client's has been sent anywhere, so that trying the
next one repeats nothing.

    idle -> connecting -> (asking, where another node's netproxy must answer first) -> done
               ^  each refusal leads to the next candidate  |                  given up

The answers are small integers, since this is on the way of every connection.
"""

from __future__ import annotations

from typing import Final

from skep.domain.base import TaskId
from skep.netproxy.relay.core.balance import Balancer
from skep.netproxy.relay.core.protocol import Candidate

# One lost SYN is sent again after 1 s; a task or node that has not answered then is left alone.
ATTEMPT_S = 2.0
# A client waits no longer than this for all attempts together.
TOTAL_S = 8.0

# What follows an event.
CONNECT: Final = 1  # to `candidate`, for at most `within_s`
ASK: Final = 2  # send the owner the header, and wait for its answer in what is left of the time
FLOW: Final = 3  # relay; release the candidate in the balancer afterwards
GIVE_UP: Final = 4  # for the reason `kind` (for the metrics), told by `why()`

_IDLE, _CONNECTING, _ASKING, _OVER = range(4)
_STATES = ("idle", "connecting", "asking", "over")


class Dial:
    """One client's way to a task."""

    __slots__ = (
        "_balancer",
        "_gives_up_at",
        "_state",
        "_tried",
        "candidate",
        "ejections",
        "kind",
        "within_s",
    )

    def __init__(self, balancer: Balancer) -> None:
        self._balancer = balancer
        self._state = _IDLE
        self._tried: dict[TaskId, str] = {}
        self._gives_up_at = 0.0
        self.candidate: Candidate | None = None
        self.within_s = ATTEMPT_S
        self.ejections = 0  # of tasks, by refusals to this client
        self.kind = ""

    def begin(self, now: float) -> int:
        """A client is there. CONNECT or GIVE_UP."""
        assert self._state == _IDLE, self._story()
        self._gives_up_at = now + TOTAL_S
        return self._try_next(now)

    def connected(self) -> int:
        """The candidate took the connection. ASK or FLOW."""
        candidate = self.candidate
        assert self._state == _CONNECTING, self._story()
        assert candidate is not None
        if candidate.mesh_address is not None:
            self._state = _ASKING
            return ASK
        self._state = _OVER
        self._balancer.succeed(candidate.task_id)
        return FLOW

    def accepted(self) -> int:
        """The owner has connected us to the task. FLOW."""
        candidate = self.candidate
        assert self._state == _ASKING, self._story()
        assert candidate is not None
        self._state = _OVER
        self._balancer.succeed(candidate.task_id)
        return FLOW

    def refused(self, now: float, why: str) -> int:
        """The attempt failed; `why` is for the log. CONNECT or GIVE_UP."""
        candidate = self._end_attempt(why)
        self.ejections += self._balancer.refuse(now, candidate.task_id)
        return self._try_next(now)

    def withdrawn(self, now: float) -> int:
        """The candidate was taken away during the attempt. CONNECT or GIVE_UP."""
        self._end_attempt("withdrawn")
        return self._try_next(now)

    def abandon(self) -> None:
        """The client is gone, or we are: give back what is held. Idempotent."""
        if self._state in (_CONNECTING, _ASKING):
            self._end_attempt("abandoned")
        self._state = _OVER

    @property
    def is_asking(self) -> bool:
        """Whether the owner's answer is waited for."""
        return self._state == _ASKING

    def why(self) -> str:
        """What has been tried, for the log."""
        story = ", ".join(f"{task_id} {why}" for task_id, why in self._tried.items())
        return story or "no healthy task"

    def _end_attempt(self, why: str) -> Candidate:
        candidate = self.candidate
        assert self._state in (_CONNECTING, _ASKING), self._story()
        assert candidate is not None
        self._state = _IDLE
        self.candidate = None
        self._tried[candidate.task_id] = why
        self._balancer.release(candidate.task_id)
        return candidate

    def _try_next(self, now: float) -> int:
        left_s = self._gives_up_at - now
        if left_s <= 0.0:
            return self._give_up("timeout")
        candidate = self._balancer.pick(now, self._tried)
        if candidate is None:
            return self._give_up("refused" if self._tried else "no_endpoints")
        self._state = _CONNECTING
        self.candidate = candidate
        self.within_s = left_s if left_s < ATTEMPT_S else ATTEMPT_S
        return CONNECT

    def _give_up(self, kind: str) -> int:
        self._state = _OVER
        self.kind = kind
        return GIVE_UP

    def _story(self) -> str:
        return f"{_STATES[self._state]}; tried {self._tried}; now {self.candidate}"
