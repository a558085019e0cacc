"""Raft's receiver rules, as functions that judge a message before the engine sees it.

PySyncObj leaves several of them out (measured: it loses acknowledged writes with nothing but link
resets and elections). Names and sections are those of the Raft paper ("In Search of an
Understandable Consensus Algorithm", figure 2) and of Ongaro's thesis where it goes further.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from skep.env import Fatal
from skep.manager.raft.core.codec import Append, AppendAnswer, VoteRequest
from skep.manager.raft.core.log import Log, LogEntry


class LogBroken(Fatal):
    """Committed history would be lost or has two versions. This node must not go on."""


class TermOf(enum.Enum):
    """How a message's term compares to ours."""

    PAST = "past"
    PRESENT = "present"
    FUTURE = "future"


def term_of(term: int, current: int) -> TermOf:
    """Every message and every answer carries a term, and is judged by it first (section 5.1)."""
    if term < current:
        return TermOf.PAST
    return TermOf.PRESENT if term == current else TermOf.FUTURE


# -------------------------------------------------------------------------------- AppendEntries


@dataclass(frozen=True, slots=True)
class Take:
    """The engine may take these entries behind (prev_index, prev_term).

    Whatever it truncates for them conflicts with them and isn't committed.
    """

    prev_index: int
    prev_term: int
    entries: tuple[LogEntry, ...]
    commit: int


@dataclass(frozen=True, slots=True)
class Present:
    """All of it is here already. The engine hears of a heartbeat only, so nothing is truncated."""

    matched: int
    commit: int


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The log doesn't hold the entry before; the leader should go on from `next_index`."""

    next_index: int


def judge_append(log: Log, commit: int, frame: Append) -> Take | Present | Mismatch:
    """Rules 2 to 5 of AppendEntries. The frame's term is not a past one. Raises LogBroken."""
    prev_index, prev_term = frame.prev_index, frame.prev_term
    entries = [
        LogEntry(entry.command, prev_index + 1 + place, entry.term)
        for place, entry in enumerate(frame.entries)
    ]
    if prev_index < log.first_index:
        # What was cut off is committed, so the leader has the same; go on from there.
        hidden = log.first_index - prev_index
        if len(entries) < hidden:
            return Present(commit, 0)
        if entries[hidden - 1].term != log.first_term:
            raise LogBroken(_two_versions(log, log.first_index, entries[hidden - 1].term))
        prev_index, prev_term, entries = log.first_index, log.first_term, entries[hidden:]
    if prev_index > log.last_index:
        return Mismatch(log.last_index + 1)
    if log.term_at(prev_index) != prev_term:
        if prev_index <= commit:
            raise LogBroken(_two_versions(log, prev_index, prev_term))
        return Mismatch(_start_of_term(log, commit, prev_index))
    known = known_prefix(log, entries)
    matched = prev_index + len(entries)
    if known == len(entries):
        return Present(matched, min(frame.commit, matched))
    if known:
        prev_index, prev_term = entries[known - 1].index, entries[known - 1].term
    if prev_index < log.last_index and prev_index < commit:
        raise LogBroken(_two_versions(log, prev_index + 1, entries[known].term))
    return Take(prev_index, prev_term, tuple(entries[known:]), min(frame.commit, matched))


def known_prefix(log: Log, entries: list[LogEntry]) -> int:
    """How many of these entries the log holds already.

    Rule 3: only a conflict truncates. An old or repeated message must not remove what came later,
    since this node has said that it holds it.
    """
    for place, entry in enumerate(entries):
        if log.term_at(entry.index) != entry.term:
            return place
    return len(entries)


def _start_of_term(log: Log, commit: int, index: int) -> int:
    """Where to go on after a conflict at `index`: one term back per message, not one entry."""
    term = log.term_at(index)
    while index > commit + 1 and log.term_at(index - 1) == term:
        index -= 1
    return max(index, commit + 1)


def _two_versions(log: Log, index: int, term: int) -> str:
    return (
        f"the entry {index} is committed here with term {log.term_at(index)}, and the leader sends"
        f" term {term}: the logs of this cluster have diverged; stop, and restore this manager"
    )


@dataclass(slots=True)
class Backtrack:
    """Keeps a later "too short" from raising the hint that an earlier conflict gave.

    With several appends under way both answers reach the leader in one turn, the last one wins,
    and it would go back and forth between the two for ever.
    """

    _term: int = 0
    _hint: int = 0

    def mismatch(self, term: int, next_index: int) -> int:
        """The hint to answer with."""
        if self._hint and self._term == term:
            next_index = min(next_index, self._hint)
        self._term, self._hint = term, next_index
        return next_index

    def match(self) -> None:
        """The logs have met."""
        self._hint = 0


def judge_append_answer(last_index: int, answer: AppendAnswer) -> AppendAnswer | None:
    """What the leader may believe of an answer of its own term; None: nothing but a sign of life.

    An answer can't know of entries that this leader doesn't have.
    """
    if answer.matched:
        return answer if answer.next_index <= last_index + 1 else None
    if answer.reset:
        next_index = min(max(answer.next_index, 1), last_index + 1)
        return AppendAnswer(answer.term, next_index, matched=False, reset=True)
    return None


# ---------------------------------------------------------------------------------------- votes


def is_up_to_date(log: Log, request: VoteRequest) -> bool:
    """Section 5.4.1: a candidate must hold at least what this node holds."""
    return (request.last_term, request.last_index) >= (log.last_term, log.last_index)


def may_promise_vote(
    log: Log,
    current: int,
    request: VoteRequest,
    *,
    leader_heard_s_ago: float,
    election_min_s: float,
) -> bool:
    """PreVote (thesis, 9.6): nobody is helped to office while the present leader is heard."""
    return (
        request.term > current
        and is_up_to_date(log, request)
        and leader_heard_s_ago >= election_min_s
    )


@dataclass(slots=True)
class Ballot:
    """Votes of one election (or promises of one PreVote round), each voter counted once."""

    term: int = 0
    _voters: set[int] = field(default_factory=set)

    def open(self, term: int) -> None:
        """A new election; what was counted before is void."""
        self.term = term
        self._voters = set()

    def count(self, voter: int, term: int) -> bool:
        """Whether this vote is a new one for the election that is open."""
        if term != self.term or voter in self._voters:
            return False
        self._voters.add(voter)
        return True

    def is_won(self, peers: int) -> bool:
        """Whether the votes and one's own are a majority of `peers` others and oneself."""
        return (len(self._voters) + 1) * 2 > peers + 1


# --------------------------------------------------------------------------------------- commit


def own_entries_counted(log: Log, *, proposed: int, current: int, durable: int, term: int) -> int:
    """The commit index of a leader that doesn't count its own unsynced entries.

    The engine counts the leader as soon as it has appended. So the commit index stops at the last
    durable entry; and since only entries of the leader's own term are committed by counting
    (section 5.4.2), it doesn't move at all where that one is of an older term.
    """
    if proposed <= durable:
        return proposed
    if durable > current and log.term_at(durable) == term:
        return durable
    return current


# ------------------------------------------------------------------------------------ snapshots


def is_covered(log: Log, commit: int, index: int, term: int) -> bool:
    """Whether the snapshot (index, term) brings nothing new; it must replace nothing then (7)."""
    return index <= commit or log.term_at(index) == term
