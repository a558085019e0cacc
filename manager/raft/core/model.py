"""What the store and the Raft node say to each other: settings, errors, leadership, figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from skep.env import Retryable

KIB = 1024
MIB = 1024 * KIB


class NotLeader(Retryable):
    """Nothing was done: this manager is not the leader, or not of the term that was asked for.

    `leader` is the raft id of the leader where one is known.
    """

    def __init__(self, leader: int | None, why: str = "this manager is not the leader") -> None:
        super().__init__(why)
        self.leader = leader


class ProposalUnknown(Retryable):
    """The command may or may not be applied: leadership or time ran out while it was on its way."""


class ProposalsFull(Retryable):
    """Nothing was done: too many commands are waiting to be committed. Slow down."""


@dataclass(frozen=True, slots=True)
class Leadership:
    """Who leads. `is_leader` is true once this node has applied its own first entry of `term`."""

    term: int
    leader: int | None
    is_leader: bool


class StateMachine(Protocol):
    """What the log is replicated for. All three are called on the loop and must not wait."""

    def apply(self, index: int, command: bytes) -> object:
        """Apply a committed command. Never raises by contract; a node whose state does is fatal."""
        ...

    def snapshot(self) -> bytes:
        """The whole state, as of the last command applied."""
        ...

    def restore(self, index: int, data: bytes) -> None:
        """Become the state that `snapshot` returned elsewhere, as of `index`."""
        ...


@dataclass(frozen=True, slots=True)
class Settings:
    """Times and bounds of one node. Every node of a cluster should have the same."""

    # Measured on two shared cores: a killed leader is replaced within 0.9 s, and pauses of half a
    # second don't cost an election. Slow machines want twice as much.
    election_min_s: float = 0.5
    election_max_s: float = 1.0
    heartbeat_s: float = 0.1
    # A leader that hasn't heard from a majority for this long steps down, so that a partitioned
    # one doesn't hold its callers until their deadlines.
    leader_fallback_s: float = 1.0
    # A clean stop hands leadership over first, but never waits longer than this for it.
    transfer_deadline_s: float = 1.0

    # The store splits bigger work; the limit is SwarmKit's MaxTransactionBytes.
    command_limit_bytes: int = 1536 * KIB
    # Seconds of work for the disk; more waiting commands would only wait longer.
    proposals_limit: int = 4096
    proposals_limit_bytes: int = 16 * MIB

    # A snapshot costs a whole copy of the state: take one when replaying would cost as much.
    snapshot_entries: int = 10_000
    snapshot_bytes: int = 64 * MIB
    # Kept behind a snapshot, so that a follower a few seconds behind needs no snapshot.
    retained_entries: int = 1_000
    snapshot_limit_bytes: int = 1024 * MIB
    chunk_bytes: int = 256 * KIB
    # One attempt at bringing a follower up with a snapshot.
    snapshot_deadline_s: float = 60.0

    # An idle link is pinged; one that has been silent for `link_silence_s` is cut and redialled.
    ping_s: float = 1.0
    link_silence_s: float = 3.0
    dial_deadline_s: float = 1.0
    redial_s: float = 0.2
    # Above this many bytes under way to one peer, the engine is told to hold back.
    link_limit_bytes: int = 8 * MIB


def _ignore(_seconds: float) -> None:
    """Where nobody measures."""


@dataclass(slots=True)
class Stats:
    """Figures of one node since its start. The hooks are called on the loop and must not raise."""

    commits: int = 0
    elections: int = 0
    snapshots_taken: int = 0
    snapshots_sent: int = 0
    snapshots_installed: int = 0
    on_commit_s: Callable[[float], None] = _ignore
    on_fsync_s: Callable[[float], None] = _ignore
