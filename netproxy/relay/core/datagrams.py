"""UDP through the relay: which task a client's datagrams go to, and for how long.

A flow is what comes from one client to one listener, and the answers. Its first datagram picks a
task, and the later ones stick to it, until

- nothing has gone either way for `FLOW_IDLE_S`;
- its task is not named any more: the flow is *retired*. The client's next datagram picks anew,
  while an answer that is under way still finds back to it;
- its task refuses: then the datagram that was refused is given to one other task;
- there are too many flows: the one that was quiet for longest makes room.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Container, Hashable
from typing import Generic, TypeVar

from skep.domain.base import TaskId
from skep.netproxy.relay.core.protocol import Candidate
from skep.netproxy.relay.core.tables import Entry

# Nothing says when a flow is over. Protocols that need theirs kept send something at least every
# 15 to 30 s, since much on the way forgets them no later than that: conntrack's limit is 30 s until
# there was an answer, and 120 s for a flow that goes on. Twice 30 s forgives one keepalive that was
# lost. More would only hold more sockets of clients that asked once and are gone, as all do of DNS;
# and a flow that was forgotten costs its client a new pick, no error.
FLOW_IDLE_S = 60.0
# Of one listener. Each takes a file and, at its task, a port of this node's.
FLOW_LIMIT = 4096
# What all flows together keep of datagrams that may yet be refused. A refusal comes within a round
# trip, so that the newest are what matters.
KEPT_LIMIT_BYTES = 4 * 1024 * 1024

K = TypeVar("K", bound=Hashable)


class Flow(Generic[K]):
    """The datagrams of one client. `is_retried`: its last one was refused by another task before,
    and isn't given to a third."""

    __slots__ = ("candidate", "entry", "is_retired", "is_retried", "key", "last_at")

    def __init__(self, key: K, entry: Entry, candidate: Candidate, now: float) -> None:
        self.key = key
        self.entry = entry
        self.candidate = candidate
        self.last_at = now
        self.is_retried = False
        self.is_retired = False


class Flows(Generic[K]):
    """All flows of one listener, by `K`: what tells its clients apart."""

    def __init__(self, limit: int = FLOW_LIMIT, idle_s: float = FLOW_IDLE_S) -> None:
        self._limit = limit
        self._idle_s = idle_s
        self._by_key: dict[K, Flow[K]] = {}
        # Retired ones too. Whoever was quiet for longest comes first.
        self._by_age: OrderedDict[Flow[K], None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_age)

    def __contains__(self, flow: Flow[K]) -> bool:
        return flow in self._by_age

    def find(self, now: float, key: K) -> Flow[K] | None:
        """Where the next datagram of this client goes; None: it has yet to pick."""
        flow = self._by_key.get(key)
        if flow is not None:
            self.touch(now, flow)
        return flow

    def touch(self, now: float, flow: Flow[K]) -> None:
        """Something went one way or the other."""
        flow.last_at = now
        self._by_age.move_to_end(flow)

    @property
    def is_full(self) -> bool:
        """Whether one must end before another may be opened."""
        return len(self._by_age) >= self._limit

    def oldest(self) -> Flow[K]:
        """The flow that was quiet for longest; there must be one."""
        return next(iter(self._by_age))

    def answered(self, now: float, flow: Flow[K]) -> None:
        """The task is there."""
        self.touch(now, flow)
        flow.entry.balancer.succeed(flow.candidate.task_id)

    def open(self, now: float, key: K, entry: Entry, tried: Container[TaskId]) -> Flow[K] | None:
        """A flow to a task that is not among `tried`; None: there is none left."""
        assert key not in self._by_key, key
        assert not self.is_full, self._limit
        candidate = entry.balancer.pick(now, tried)
        if candidate is None:
            return None
        flow = Flow(key, entry, candidate, now)
        self._by_key[key] = flow
        self._by_age[flow] = None
        return flow

    def end(self, flow: Flow[K]) -> None:
        """Forget it; the caller closes what belongs to it."""
        del self._by_age[flow]
        if not flow.is_retired:
            del self._by_key[flow.key]
        flow.entry.balancer.release(flow.candidate.task_id)

    def refuse(self, now: float, flow: Flow[K]) -> bool:
        """Forget it, since its task refused: that is tried last for a while. Returns whether this
        is news."""
        self.end(flow)
        return flow.entry.balancer.refuse(now, flow.candidate.task_id)

    def retire(self, is_named: Callable[[Flow[K]], bool]) -> None:
        """Send no further datagram to tasks that are not named any more."""
        for key, flow in tuple(self._by_key.items()):
            if not is_named(flow):
                flow.is_retired = True
                del self._by_key[key]

    def expired(self, now: float) -> list[Flow[K]]:
        """The flows that have been idle for too long."""
        found = []
        for flow in self._by_age:
            if now - flow.last_at < self._idle_s:
                break
            found.append(flow)
        return found

    def next_expiry(self) -> float | None:
        """When the first flow will have been idle for too long, if nothing comes."""
        first = next(iter(self._by_age), None)
        return None if first is None else first.last_at + self._idle_s

    def all(self) -> tuple[Flow[K], ...]:
        """Every flow, also retired ones."""
        return tuple(self._by_age)

    def check_invariants(self) -> None:
        """Called by tests after every step."""
        assert len(self._by_age) <= self._limit
        live = [flow for flow in self._by_age if not flow.is_retired]
        assert {flow.key: flow for flow in live} == self._by_key
        assert len(live) == len(self._by_key), "two live flows of one client"
        ages = [flow.last_at for flow in self._by_age]
        assert ages == sorted(ages), ages


class Kept:
    """The last datagram of each flow that has had no answer yet, in case it is refused."""

    def __init__(self, limit_bytes: int = KEPT_LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._data: OrderedDict[object, bytes] = OrderedDict()
        self.size_bytes = 0

    def put(self, flow: object, data: bytes) -> None:
        """Keep this one, in place of the one before. The oldest of other flows make room."""
        self.take(flow)
        self._data[flow] = data
        self.size_bytes += len(data)
        while self.size_bytes > self._limit_bytes:
            _, oldest = self._data.popitem(last=False)
            self.size_bytes -= len(oldest)

    def take(self, flow: object) -> bytes | None:
        """What is kept of a flow, which is kept no longer."""
        data = self._data.pop(flow, None)
        if data is not None:
            self.size_bytes -= len(data)
        return data

    def check_invariants(self) -> None:
        """Called by tests after every step."""
        assert self.size_bytes == sum(map(len, self._data.values())) <= self._limit_bytes
