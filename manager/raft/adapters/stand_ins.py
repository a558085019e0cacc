"""What the engine is given in place of its own journal, poller, serializer and pickle.

Nothing here knows PySyncObj; `engine` puts these where its own were.
"""

# What the engine calls has the engine's names.
# ruff: noqa: D102, N802

from __future__ import annotations

from typing import Any

from skep.manager.raft.actor.engine import EngineHooks
from skep.manager.raft.actor.journal import Journal
from skep.manager.raft.core.log import LogEntry


class JournalForEngine:
    """The journal, as the engine expects one."""

    def __init__(self, journal: Journal, hooks: EngineHooks, me: int, commit_index: int) -> None:
        self._journal = journal
        self._hooks = hooks
        self._me = me
        self._commit_index = commit_index

    def __len__(self) -> int:
        return len(self._journal.log)

    def __getitem__(self, place: Any) -> Any:
        return self._journal.log.entries[place]

    def add(self, command: bytes, index: int, term: int) -> None:
        self._journal.add(LogEntry(command, index, term))

    def deleteEntriesFrom(self, place: int) -> None:
        self._journal.truncate(self._journal.log.first_index + place)

    def setCurrentTerm(self, term: int, voted_for: int | None) -> None:
        # A node votes for itself exactly when it stands for election.
        if voted_for == self._me:
            self._hooks.stood_for_election(term)
        self._journal.set_hard_state(term, voted_for)

    def getCurrentTerm(self) -> int:
        return self._journal.term

    def getVotedForNodeId(self) -> int | None:
        return self._journal.voted_for

    def setRaftCommitIndex(self, index: int) -> None:
        """Not stored: after a restart the leader tells, or the next election."""

    def getRaftCommitIndex(self) -> int:
        return self._commit_index

    def onOneSecondTimer(self) -> None:
        """Nothing to do once a second."""


class NoPoller:
    """The engine has no sockets to poll."""

    def poll(self, _timeout: float) -> None:
        """Return at once."""


class NoSerializer:
    """The engine takes and sends no snapshots; the node does."""

    def __init__(self, busy: int) -> None:
        self._busy = busy

    def checkSerializing(self) -> tuple[int, None]:
        """For ever busy, so that the engine never starts one."""
        return self._busy, None

    def getTransmissionData(self, _node: object) -> None:
        """Nothing yet: the engine sends a heartbeat, which says who needs a snapshot."""
        return

    def cancelTransmisstion(self, _node: object) -> None:
        """Nothing under way."""


class NoPickle:
    """Whatever would pickle or unpickle fails."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"pickle.{name} must never be reached")
