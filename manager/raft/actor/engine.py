"""What the actors ask of the consensus engine, and what it asks of them.

The engine itself is an adapter; nothing else in this component knows PySyncObj.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from skep.manager.raft.core.codec import AnyFrame
from skep.manager.raft.core.log import LogEntry


class Engine(Protocol):
    """Elections, replication and commitment, stepped from outside."""

    @property
    def term(self) -> int:
        """The current term."""
        ...

    @property
    def leader(self) -> int | None:
        """Who leads it, as far as known."""
        ...

    @property
    def is_leader(self) -> bool:
        """Whether this node holds the office, ready or not."""
        ...

    @property
    def commit_index(self) -> int:
        """Everything up to here is committed."""
        ...

    @property
    def applied_index(self) -> int:
        """Everything up to here is applied."""
        ...

    @property
    def next_deadline(self) -> float:
        """When `tick` has something to do even if nothing happens."""
        ...

    @property
    def election_is_due(self) -> bool:
        """Whether the next `tick` would stand for election."""
        ...

    @property
    def was_told_to_lead(self) -> bool:
        """Whether the leader has handed over to this node."""
        ...

    def tick(self) -> None:
        """Let time pass: elections, commitment, applying, heartbeats."""
        ...

    def replicate(self) -> None:
        """Send every peer what it lacks, now."""
        ...

    def append(self, command: bytes) -> int:
        """Append a command as the leader; returns its index."""
        ...

    def postpone_election(self) -> None:
        """Start the election timeout anew."""
        ...

    def stand_for_election(self) -> None:
        """Make the next `tick` stand for election."""
        ...

    def transfer(self) -> bool:
        """Hand leadership to the peer that is furthest; False if none has caught up."""
        ...

    def connected(self, peer: int) -> None:
        """Messages to `peer` may be sent."""
        ...

    def disconnected(self, peer: int) -> None:
        """Hold back messages to `peer`."""
        ...

    def hear_append(
        self, peer: int, term: int, commit: int, prev: tuple[int, int], entries: Sequence[LogEntry]
    ) -> None:
        """Take entries behind `prev`; the guard has judged them."""
        ...

    def hear_heartbeat(self, peer: int, term: int, commit: int) -> None:
        """The leader lives; `commit` is 0 where nothing is known of it."""
        ...

    def hear_append_answer(self, peer: int, next_index: int, *, matched: bool, reset: bool) -> None:
        """A follower has answered, in this term."""
        ...

    def hear_vote_request(self, peer: int, term: int, last: tuple[int, int]) -> None:
        """A candidate whose last entry is `last` (index, term) asks."""
        ...

    def hear_vote(self, peer: int, term: int) -> None:
        """A vote that hasn't been counted yet."""
        ...

    def hear_term(self, peer: int, term: int) -> None:
        """A higher term exists: adopt it, and step down."""
        ...

    def hear_timeout_now(self, peer: int, term: int) -> None:
        """The leader hands over."""
        ...

    def install(self, index: int) -> None:
        """The state is as of `index` now, which a snapshot brought."""
        ...


class EngineHooks(Protocol):
    """What the engine asks of its surroundings."""

    def send(self, peer: int, frame: AnyFrame) -> None:
        """Send a frame, once what it promises is durable."""
        ...

    def snapshot_wanted(self, peer: int) -> None:
        """A peer needs entries that this log doesn't hold any more."""
        ...

    def apply(self, entry: LogEntry) -> None:
        """The next committed entry."""
        ...

    def stood_for_election(self, term: int) -> None:
        """This node stands for election in `term`."""
        ...
