"""One manager's Raft node: what the store proposes to and reads from.

The node is event-driven. A message, a proposal, a finished sync or the timer wakes it; whatever
comes together is one step: the engine ticks, sends what is new, the journal starts to write. No
thread of its own, and no clock but the environment's, so that it runs unchanged under simulation.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from skep.env import Env, Fatal, Rejected, Timer, Transport
from skep.manager.raft.actor.barrier import Barrier
from skep.manager.raft.actor.context import Context
from skep.manager.raft.actor.journal import Journal
from skep.manager.raft.actor.links import Links
from skep.manager.raft.actor.parts import Parts, assemble
from skep.manager.raft.actor.proposals import Proposals
from skep.manager.raft.actor.snapshots import SnapshotStore
from skep.manager.raft.actor.tasks import Tasks
from skep.manager.raft.adapters.engine import PySyncObjEngine
from skep.manager.raft.core.codec import AnyFrame
from skep.manager.raft.core.log import COMMAND, LogEntry
from skep.manager.raft.core.model import (
    Leadership,
    NotLeader,
    ProposalsFull,
    ProposalUnknown,
    Settings,
    StateMachine,
    Stats,
)

__all__ = [
    "Leadership",
    "NotLeader",
    "ProposalUnknown",
    "ProposalsFull",
    "RaftNode",
    "Settings",
    "StateMachine",
    "Stats",
]

# The engine compares times with "later than": a timer must not fire exactly at its deadline.
TIMER_SLACK_S = 0.001
# A clean stop looks this often whether all is committed and leadership is handed over.
STOP_POLL_S = 0.01

logger = logging.getLogger(__name__)


class StateFailed(Fatal):
    """The state machine raised on a committed command."""


class RaftNode:
    """A member of the cluster `cluster`, with the fixed `peers` (raft id to address, others only).

    `on_leadership` is called on the loop whenever term, leader or readiness change; `on_fatal` at
    most once, after which the node does nothing any more and must be replaced by a new process.
    """

    def __init__(  # noqa: PLR0913 - a node has this many neighbours, each given once, in main()
        self,
        env: Env,
        links: Transport,
        me: int,
        peers: Mapping[int, str],
        state: StateMachine,
        *,
        cluster: str,
        listen: str,
        settings: Settings | None = None,
        on_leadership: Callable[[Leadership], None],
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        assert me not in peers, "a node is not its own peer"
        self.stats = Stats()
        self._env = env
        self._me = me
        self._state = state
        self._listen = listen
        self._settings = settings if settings is not None else Settings()
        self._on_leadership = on_leadership
        self._on_fatal = on_fatal
        self._dice = env.fork_dice("raft.engine")
        self._events = _Events(self)
        self._tasks = Tasks(env, self._halt)
        self._context = Context(
            env, cluster, me, tuple(sorted(peers)), self._settings, self.stats, self._tasks
        )
        self._journal = Journal(self._context, self._synced)
        self._snapshots = SnapshotStore(env.disk, state)
        self._links = Links(self._context, links, peers, self._events)
        self._barrier = Barrier(self._journal, self._links)
        self._proposals = Proposals(self._settings)
        self._parts: Parts | None = None
        self._woken = asyncio.Event()
        self._timer: Timer | None = None
        self._timer_at = 0.0
        self._announced = Leadership(0, None, is_leader=False)
        self._office_term: int | None = None
        self._ready_term: int | None = None
        self._sent = (0, 0)
        self._is_halted = False
        self._is_stopping = False

    # ------------------------------------------------------------------------------ life cycle

    async def start(self) -> None:
        """Recover from disk, listen, and take part. Raises Fatal errors and OSError."""
        await self._journal.open()
        self._snapshots.recover(self._journal)
        applied = self._snapshots.index
        engine = PySyncObjEngine(self._context, self._journal, self._events, self._dice, applied)
        self._parts = assemble(self._context, engine, self._journal, self._barrier, self._snapshots)
        await self._links.start(self._listen)
        self._tasks.spawn("raft-journal", self._journal.run)
        self._tasks.spawn("raft-driver", self._drive)
        self._wake()

    async def stop(self) -> None:
        """Hand leadership over, within bounds, make durable what was written, and end."""
        self._is_stopping = True
        if not self._is_halted and self._parts is not None:
            deadline = self._env.now() + self._settings.transfer_deadline_s
            if self.is_leader and self._context.peers:
                await self._hand_over(deadline)
            try:
                bound_s = self._settings.transfer_deadline_s
                await self._env.clock.within(bound_s, self._journal.idle())
            except TimeoutError:
                logger.warning("raft stop node=%s why=the disk is slow", self._env.node)
        self._end("this manager is stopping")
        await self._links.stop()
        self._journal.close()

    async def _hand_over(self, deadline: float) -> None:
        parts = self._running()
        is_sent = False
        while parts.engine.is_leader and self._env.now() < deadline and not self._is_halted:
            if not is_sent and not self._proposals:
                is_sent = parts.engine.transfer()
            await self._env.clock.sleep(STOP_POLL_S)

    def _halt(self, error: BaseException) -> None:
        """Stop dead: whatever went wrong, nothing more may be promised."""
        if self._is_halted or self._is_stopping:
            return
        self._is_halted = True
        logger.error("raft halt node=%s why=%s", self._env.node, error)
        self._end(f"this manager has failed: {error}")
        self._on_fatal(error)

    def _end(self, why: str) -> None:
        self._is_halted = True
        if self._timer is not None:
            self._timer.cancel()
        self._proposals.fail_all(why)
        if self._parts is not None:
            self._parts.reads.fail_all(None)
        self._tasks.cancel_all()

    def _running(self) -> Parts:
        assert self._parts is not None, "not started"
        return self._parts

    # ------------------------------------------------------------------------------- interface

    @property
    def me(self) -> int:
        """This node's raft id."""
        return self._me

    @property
    def address(self) -> str:
        """Where it listens for its peers."""
        return self._links.address

    @property
    def term(self) -> int:
        """The current term."""
        return self._running().engine.term

    @property
    def leader(self) -> int | None:
        """The raft id of the leader, where one is known."""
        return self._running().engine.leader

    @property
    def is_leader(self) -> bool:
        """Whether this node leads and has applied its own first entry."""
        engine = self._running().engine
        return not self._is_halted and engine.is_leader and self._ready_term == engine.term

    @property
    def commit_index(self) -> int:
        """Everything up to here is committed."""
        return self._running().engine.commit_index

    @property
    def applied_index(self) -> int:
        """Everything up to here is applied."""
        return self._running().engine.applied_index

    @property
    def last_index(self) -> int:
        """The newest entry, committed or not."""
        return self._journal.log.last_index

    async def propose(self, command: bytes, *, term: int, deadline_s: float) -> object:
        """Commit a command in exactly `term`, apply it here, and return what applying returns.

        Raises NotLeader and ProposalsFull (nothing was done), ProposalUnknown, Rejected.
        """
        if len(command) > self._settings.command_limit_bytes:
            limit = self._settings.command_limit_bytes
            raise Rejected(f"a command of {len(command)} bytes; the limit is {limit}")
        self._check_office(term)
        self._proposals.check_room(len(command))
        started = self._env.now()
        index = self._running().engine.append(command)
        future = self._proposals.add(index, len(command))
        self._wake()
        try:
            result = await self._env.clock.within(deadline_s, future)
        except TimeoutError:
            raise ProposalUnknown(f"not committed within {deadline_s} s") from None
        self.stats.commits += 1
        self.stats.on_commit_s(self._env.now() - started)
        return result

    async def read_index(self, *, deadline_s: float) -> int:
        """The index up to which state must be applied to see all that was acknowledged by now.

        It is applied here when this returns. Raises NotLeader, also when no majority has answered
        within `deadline_s`.
        """
        self._check_office(self._running().engine.term)
        future = self._running().reads.add()
        self._wake()
        try:
            return await self._env.clock.within(deadline_s, future)
        except TimeoutError:
            raise NotLeader(None, f"no majority has answered within {deadline_s} s") from None

    def _check_office(self, term: int) -> None:
        engine = self._running().engine
        if self._is_stopping or self._is_halted:
            raise NotLeader(None, "this manager is stopping")
        if not engine.is_leader or engine.term != term:
            raise NotLeader(None if engine.leader == self._me else engine.leader)
        if self._ready_term != term:
            raise NotLeader(None, "this manager has only just been elected")

    # ---------------------------------------------------------------------------------- driver

    def _wake(self) -> None:
        self._woken.set()

    async def _drive(self) -> None:
        while True:
            await self._woken.wait()
            self._woken.clear()
            await self._env.turn()
            self._step()

    def _step(self) -> None:
        parts = self._running()
        engine, log = parts.engine, self._journal.log
        self._watch_office()
        parts.elections.before_tick()
        engine.tick()
        parts.elections.after_tick()
        self._watch_office()
        if engine.is_leader:
            news = (log.last_index, engine.commit_index)
            if news != self._sent or parts.receiver.is_resend_due:
                engine.replicate()
                self._sent = news
            parts.receiver.is_resend_due = False
            if self._ready_term == engine.term:
                parts.reads.pump()
        self._journal.kick()
        self._announce()
        parts.snapshots.consider()
        self._set_timer()

    def _watch_office(self) -> None:
        """Whoever waits for an office that is lost must hear of it, before a new one begins."""
        engine = self._running().engine
        if self._office_term is not None and (
            not engine.is_leader or engine.term != self._office_term
        ):
            self._office_term = None
            self._proposals.fail_all(f"leadership of term {self._announced.term} is lost")
            self._running().reads.fail_all(engine.leader)
        if engine.is_leader:
            self._office_term = engine.term

    def _announce(self) -> None:
        engine = self._running().engine
        now = Leadership(engine.term, engine.leader, self.is_leader)
        if now != self._announced:
            self._announced = now
            logger.info("leadership node=%s %s", self._env.node, now)
            self._on_leadership(now)

    def _set_timer(self) -> None:
        """One timer at most; one that rings too early only finds nothing to do."""
        at = max(self._running().engine.next_deadline, self._env.now()) + TIMER_SLACK_S
        if self._timer is not None and self._env.now() < self._timer_at <= at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._env.clock.call_at(at, self._wake)

    # ---------------------------------------------------------------------------------- events

    def _synced(self) -> None:
        self._barrier.release()
        self._wake()

    def _connected(self, peer: int, *, is_connected: bool) -> None:
        parts = self._running()
        if is_connected:
            parts.engine.connected(peer)
            parts.receiver.is_resend_due = True
            self._wake()
        else:
            parts.engine.disconnected(peer)

    def _received(self, peer: int, frame: AnyFrame) -> None:
        if self._is_halted:
            return
        try:
            self._running().receiver.receive(peer, frame)
        except Exception as error:
            # The caller is a link, whose end would not be this node's; but it must be.
            self._halt(error)
            return
        self._journal.kick()
        self._wake()

    def _apply(self, entry: LogEntry) -> None:
        if entry.command[:1] == COMMAND:
            try:
                result = self._state.apply(entry.index, entry.command[1:])
            except Exception as error:
                raise StateFailed(f"applying entry {entry.index} failed: {error!r}") from error
            self._proposals.applied(entry.index, result)
        else:
            engine = self._running().engine
            if engine.is_leader and entry.term == engine.term:
                self._ready_term = entry.term


class _Events:
    """What links and engine tell the node (`LinkHooks`, `EngineHooks`)."""

    def __init__(self, node: RaftNode) -> None:
        self._node = node

    def link_up(self, peer: int) -> None:
        self._node._connected(peer, is_connected=True)

    def link_down(self, peer: int) -> None:
        self._node._connected(peer, is_connected=False)
        self._node._running().snapshots.link_lost(peer)

    def link_full(self, peer: int) -> None:
        self._node._connected(peer, is_connected=False)

    def link_drained(self, peer: int) -> None:
        self._node._connected(peer, is_connected=True)

    def frame_received(self, peer: int, frame: AnyFrame) -> None:
        self._node._received(peer, frame)

    def send(self, peer: int, frame: AnyFrame) -> None:
        self._node._barrier.send(peer, frame)

    def snapshot_wanted(self, peer: int) -> None:
        self._node._running().snapshots.wanted(peer)

    def apply(self, entry: LogEntry) -> None:
        self._node._apply(entry)

    def stood_for_election(self, term: int) -> None:
        self._node.stats.elections += 1
        self._node._running().elections.stood(term)
