"""PySyncObj, and the only file that knows it.

Skep uses its elections, replication and commit rule, and replaces what surrounds them: journal,
transport, snapshots, clock, dice. That needs private names, so the version is pinned exactly, the
names are listed here, and the node refuses to start where the installed sources differ.

Each node executes the module `pysyncobj.syncobj` into a private copy of its own and puts its own
clock, dice and journal where the module's globals were. So several nodes live in one process, with
clocks of their own, and no module that others may use is patched.
"""

# What the engine calls has the engine's names, and what it implements is said in actor/engine.py.
# ruff: noqa: D102, N802

from __future__ import annotations

import hashlib
import importlib.util
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pysyncobj
from pysyncobj.config import SERIALIZER_STATE, SyncObjConf
from pysyncobj.node import Node
from pysyncobj.transport import Transport
from pysyncobj.version import VERSION

from skep.env import Fatal, Random
from skep.manager.raft.actor.context import Context
from skep.manager.raft.actor.engine import EngineHooks
from skep.manager.raft.actor.journal import Journal
from skep.manager.raft.adapters.stand_ins import (
    JournalForEngine,
    NoPickle,
    NoPoller,
    NoSerializer,
)
from skep.manager.raft.core import codec, guard
from skep.manager.raft.core.log import COMMAND, LogEntry
from skep.manager.raft.core.model import Settings

PINNED_VERSION = "0.3.17"
PINNED_SOURCES = {
    "syncobj.py": "e8bdf06797085d734df86e24ab4802fe87893dff77268565ec036f7ad4a1cfe4",
    "config.py": "fbbc7ff9f18e4d15a7fd563376e42f5bd192956879d4b810b056d5248b955698",
    "node.py": "e4a3f027cd8291f558334bb9c977e952f6b6989e7e1fa1588d3005ef0b990e2c",
    "transport.py": "0c9d89f9c4781ec9772df8011d7975a1a4a1a5f541357e12eae85a813e92b50b",
}
MODULE_GLOBALS = (
    "SyncObj",
    "monotonicTime",
    "random",
    "createJournal",
    "createPoller",
    "Serializer",
    "pickle",
)
PRIVATE_METHODS = (
    "_SyncObj__doApplyCommand",  # overridden: applies our commands, and never unpickles
    "_SyncObj__sendAppendEntries",  # called: replicate at once, not at the next heartbeat
    "_SyncObj__generateRaftTimeout",  # called: a new election timeout
    "_isLeader",
    "_getLeader",
)
PRIVATE_ATTRIBUTES = (
    "_SyncObj__raftCommitIndex",  # overridden by a property: the leader's own unsynced entries
    "_SyncObj__raftLastApplied",  # written after a snapshot
    "_SyncObj__raftElectionDeadline",  # read and written: PreVote and the timer
    "_SyncObj__newAppendEntriesTime",  # read: the timer
    "_SyncObj__raftNextIndex",  # read and written: undoes a rewind
    "_SyncObj__transferInProgress",  # read
)

# Above the biggest command, so that the engine's own way of cutting one up (by pickle) never runs.
APPEND_BYTES = 2 * 1024 * 1024

_NEVER = 10**9


class EngineMismatch(Fatal):
    """The installed PySyncObj is not the one this program was made for."""


def self_check() -> None:
    """Refuse to run on any other PySyncObj than the pinned one. Raises EngineMismatch."""
    if VERSION != PINNED_VERSION:
        raise EngineMismatch(f"PySyncObj is {VERSION}; only {PINNED_VERSION} is known to be safe")
    folder = Path(pysyncobj.__file__).parent
    for name, expected in PINNED_SOURCES.items():
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != expected:
            raise EngineMismatch(f"PySyncObj's {name} is not that of release {PINNED_VERSION}")
    module = _private_copy()
    missing = [name for name in MODULE_GLOBALS if not hasattr(module, name)]
    missing += [name for name in PRIVATE_METHODS if not hasattr(module.SyncObj, name)]
    if missing:
        raise EngineMismatch(f"PySyncObj lacks {', '.join(missing)}")


def _private_copy() -> types.ModuleType:
    spec = importlib.util.find_spec("pysyncobj.syncobj")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _Outlet(Transport):  # type: ignore[misc]
    """Takes the engine's messages and makes frames of them."""

    def __init__(self, hooks: EngineHooks) -> None:
        super().__init__(None, None, None)
        self._hooks = hooks
        self._connected: set[Any] = set()
        self._waiting: set[Any] = set()
        self.term: Callable[[], int] = lambda: 0

    def send(self, node: Any, message: dict[str, Any]) -> bool:
        """Pass on one of the engine's messages."""
        match message["type"]:
            case "append_entries":
                self._send_append(node, message)
            case "next_node_idx":
                answer = codec.AppendAnswer(
                    self.term(), message["next_node_idx"], message["success"], message["reset"]
                )
                self._hooks.send(node.id, answer)
            case "request_vote":
                last_index, last_term = message["last_log_index"], message["last_log_term"]
                request = codec.VoteRequest(message["term"], last_index, last_term, pre=False)
                self._hooks.send(node.id, request)
            case "response_vote":
                self._hooks.send(node.id, codec.VoteAnswer(message["term"], pre=False))
            case "timeout_now":
                self._hooks.send(node.id, codec.TimeoutNow(message["term"]))
            case kind:
                raise AssertionError(f"the engine sends {kind}, which it never should")
        return True

    def connected(self, node: Any) -> None:
        """The engine may send to a node."""
        self._connected.add(node)
        self._onNodeConnected(node)

    def disconnected(self, node: Any) -> None:
        """The engine must not send to a node."""
        self._connected.discard(node)
        self._onNodeDisconnected(node)

    def sent_all(self) -> None:
        """The engine has sent what it had; see `_send_append`."""
        while self._waiting:
            node = self._waiting.pop()
            if node in self._connected:
                self._onNodeConnected(node)

    def _send_append(self, node: Any, message: dict[str, Any]) -> None:
        peer, term, commit = node.id, message["term"], message["commit_index"]
        if "serialized" in message:
            self._hooks.send(peer, codec.Heartbeat(term))
            self._hooks.snapshot_wanted(peer)
            # Without a snapshot to send, the engine would repeat this for a heartbeat's time; it
            # stops for a node that is not connected.
            self._waiting.add(node)
            self._onNodeDisconnected(node)
            return
        prev_index, prev_term = message["prevLogIdx"], message["prevLogTerm"]
        entries = message["entries"]
        # At least one frame, since an empty one is the heartbeat.
        for start in range(0, max(len(entries), 1), codec.ENTRIES_LIMIT):
            part = entries[start : start + codec.ENTRIES_LIMIT]
            frame_entries = tuple(codec.Entry(entry.term, entry.command) for entry in part)
            frame = codec.Append(term, commit, prev_index, prev_term, frame_entries)
            self._hooks.send(peer, frame)
            if part:
                prev_index, prev_term = part[-1].index, part[-1].term


def _engine_class(module: types.ModuleType, journal: Journal, hooks: EngineHooks) -> type[Any]:
    """A subclass of this copy's SyncObj, with what is overridden in it."""

    class Overridden(module.SyncObj):  # type: ignore[misc, name-defined]
        _commit_index = 1

        @property
        def _SyncObj__raftCommitIndex(self) -> int:
            return self._commit_index

        @_SyncObj__raftCommitIndex.setter
        def _SyncObj__raftCommitIndex(self, proposed: int) -> None:
            if self._isLeader():
                proposed = guard.own_entries_counted(
                    journal.log,
                    proposed=proposed,
                    current=self._commit_index,
                    durable=journal.durable_index,
                    term=self.raftCurrentTerm,
                )
            self._commit_index = proposed

        def _SyncObj__doApplyCommand(self, _command: bytes) -> None:
            place = self.raftLastApplied + 1 - journal.log.first_index
            hooks.apply(journal.log.entries[place])

    return Overridden


class PySyncObjEngine:
    """One node's engine; see `actor.engine.Engine` for what each member means."""

    def __init__(
        self,
        context: Context,
        journal: Journal,
        hooks: EngineHooks,
        dice: Random,
        applied_index: int,
    ) -> None:
        self_check()
        module = _private_copy()
        module.monotonicTime = context.env.now  # type: ignore[attr-defined]
        module.random = dice  # type: ignore[attr-defined]
        module.pickle = NoPickle()  # type: ignore[attr-defined]
        module.Serializer = lambda *_: NoSerializer(SERIALIZER_STATE.SERIALIZING)  # type: ignore[attr-defined]
        module.createPoller = lambda _kind: NoPoller()  # type: ignore[attr-defined]
        for_engine = JournalForEngine(journal, hooks, context.me, applied_index)
        module.createJournal = lambda _file: for_engine  # type: ignore[attr-defined]
        self._clock = context.env.now
        self._journal = journal
        self._outlet = _Outlet(hooks)
        # Ids are integers: sets of nodes then have an order that no hash seed changes.
        self._nodes = {peer: Node(peer) for peer in context.peers}
        self._states = module._RAFT_STATE
        self._raft = _engine_class(module, journal, hooks)(
            Node(context.me),
            list(self._nodes.values()),
            self._configuration(context.settings),
            nodeClass=Node,
            transport=self._outlet,
        )
        assert self._raft._SyncObj__raftLog is for_engine
        missing = [name for name in PRIVATE_ATTRIBUTES if not hasattr(self._raft, name)]
        if missing:
            raise EngineMismatch(f"PySyncObj lacks {', '.join(missing)}")
        self._outlet.term = lambda: self.term
        self._raft._SyncObj__raftLastApplied = applied_index

    def _configuration(self, settings: Settings) -> Any:
        return SyncObjConf(
            autoTick=False,
            commandsWaitLeader=False,
            appendEntriesUseBatch=True,
            appendEntriesPeriod=settings.heartbeat_s,
            appendEntriesBatchSizeBytes=APPEND_BYTES,
            raftMinTimeout=settings.election_min_s,
            raftMaxTimeout=settings.election_max_s,
            leaderFallbackTimeout=settings.leader_fallback_s,
            connectionTimeout=settings.election_max_s + settings.link_silence_s,
            logCompactionMinEntries=_NEVER,
            logCompactionMinTime=_NEVER,
            useFork=False,
            dynamicMembershipChange=False,
            onStateChanged=self._state_changed,
        )

    def _state_changed(self, old: int, _new: int) -> None:
        if old == self._states.LEADER:
            # The deadline is as old as the office; without a new one it would stand again at once.
            self.postpone_election()

    # ----------------------------------------------------------------------------------- state

    @property
    def term(self) -> int:
        return int(self._raft.raftCurrentTerm)

    @property
    def leader(self) -> int | None:
        node = self._raft._getLeader()
        return None if node is None else int(node.id)

    @property
    def is_leader(self) -> bool:
        return bool(self._raft._isLeader())

    @property
    def commit_index(self) -> int:
        return int(self._raft.raftCommitIndex)

    @property
    def applied_index(self) -> int:
        return int(self._raft.raftLastApplied)

    @property
    def next_deadline(self) -> float:
        if self.is_leader:
            return float(self._raft._SyncObj__newAppendEntriesTime)
        return float(self._raft._SyncObj__raftElectionDeadline)

    @property
    def election_is_due(self) -> bool:
        return not self.is_leader and self._clock() > self._raft._SyncObj__raftElectionDeadline

    @property
    def was_told_to_lead(self) -> bool:
        return bool(self._raft._SyncObj__transferInProgress)

    # --------------------------------------------------------------------------------- actions

    def tick(self) -> None:
        self._raft.doTick(0.0)
        self._outlet.sent_all()

    def replicate(self) -> None:
        self._raft._SyncObj__sendAppendEntries()
        self._outlet.sent_all()

    def append(self, command: bytes) -> int:
        assert self.is_leader
        index = self._journal.log.last_index + 1
        self._journal.add(LogEntry(COMMAND + command, index, self.term))
        return index

    def postpone_election(self) -> None:
        timeout_s = self._raft._SyncObj__generateRaftTimeout()
        self._raft._SyncObj__raftElectionDeadline = self._clock() + timeout_s

    def stand_for_election(self) -> None:
        self._raft._SyncObj__raftElectionDeadline = float("-inf")

    def transfer(self) -> bool:
        answers: list[int] = []
        self._raft.transferLeadership(callback=lambda _result, error: answers.append(error))
        return answers == [0]

    def connected(self, peer: int) -> None:
        self._outlet.connected(self._nodes[peer])

    def disconnected(self, peer: int) -> None:
        self._outlet.disconnected(self._nodes[peer])

    def install(self, index: int) -> None:
        self._raft._commit_index = index
        self._raft._SyncObj__raftLastApplied = index

    # -------------------------------------------------------------------------------- messages

    def hear_append(
        self, peer: int, term: int, commit: int, prev: tuple[int, int], entries: Sequence[LogEntry]
    ) -> None:
        self._hear(
            peer,
            type="append_entries",
            term=term,
            commit_index=commit,
            prevLogIdx=prev[0],
            prevLogTerm=prev[1],
            entries=entries,
        )

    def hear_heartbeat(self, peer: int, term: int, commit: int) -> None:
        self._hear(peer, type="append_entries", term=term, commit_index=commit)

    def hear_append_answer(self, peer: int, next_index: int, *, matched: bool, reset: bool) -> None:
        next_indexes, node = self._raft._SyncObj__raftNextIndex, self._nodes[peer]
        under_way = next_indexes.get(node, 0)
        self._hear(
            peer, type="next_node_idx", next_node_idx=next_index, success=matched, reset=reset
        )
        # The engine goes back to what was just acknowledged, and would send again all that is
        # under way behind it.
        if matched and not reset and self.is_leader:
            next_indexes[node] = max(next_indexes[node], under_way)

    def hear_vote_request(self, peer: int, term: int, last: tuple[int, int]) -> None:
        self._hear(
            peer, type="request_vote", term=term, last_log_index=last[0], last_log_term=last[1]
        )

    def hear_vote(self, peer: int, term: int) -> None:
        self._hear(peer, type="response_vote", term=term)

    def hear_term(self, peer: int, term: int) -> None:
        # A request for votes by somebody with an empty log: adopted, and never granted.
        self.hear_vote_request(peer, term, (-1, -1))

    def hear_timeout_now(self, peer: int, term: int) -> None:
        self._hear(peer, type="timeout_now", term=term)

    def _hear(self, peer: int, **message: Any) -> None:
        self._outlet._onMessageReceived(self._nodes[peer], message)
