"""The dispatcher: the leader's end of every worker's session, and the judge of who is alive.

It lives for one term. What it keeps in memory (sessions, who was heard when, how far netproxies
are) is rebuilt by the workers and managers that turn to the next leader.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from skep.actor import Actor, Mailbox
from skep.api import codec
from skep.domain.base import SECOND_NS, ClusterId, NodeId, ServiceId, SessionId, TaskId, replace
from skep.domain.control import ManagerReport, NetproxyProgress
from skep.domain.objects import (
    Node,
    NodeState,
    Registry,
    Task,
)
from skep.domain.session import (
    SESSION_FORMAT,
    AssignmentSet,
    LeaderMessage,
    SessionWelcome,
    StatusBatch,
    WorkerHello,
    WorkerMessage,
)
from skep.domain.states import DesiredState, TaskState
from skep.env import CallError, Code, Env, Retryable, Stream, StreamBroken, Timer
from skep.manager.dispatcher.core.assignments import WorkerSet
from skep.manager.dispatcher.core.drain import DrainWatch
from skep.manager.dispatcher.core.liveness import PERIOD_S, Liveness, NodeUp, Verdict
from skep.manager.dispatcher.core.nodes import ManagerRow, manager_node, register, set_state
from skep.manager.dispatcher.core.statuses import accepted
from skep.manager.dispatcher.core.stock import Stock
from skep.manager.dispatcher.session import Session, SessionHooks
from skep.manager.endpoints.core.feed import EndpointFeed
from skep.manager.hello import receive_hello
from skep.manager.store.actor import OutcomeUnknown, Store
from skep.manager.store.core.command import Change
from skep.manager.store.core.transaction import Transaction

log = logging.getLogger(__name__)

# How late a verdict may be on top of the grace; also how often drains are looked at again.
TICK_S = 0.5
# A living worker is heard of every period. Below the grace, so that nobody is lost by waiting.
TWIN_SILENCE_S = 1.5 * PERIOD_S

# Rows of tasks whose texts are as long as they may be; more of them might not fit a command.
REPORTS_AT_ONCE = 150


@dataclass(frozen=True, slots=True)
class Tick:
    """Time to look who is silent."""


@dataclass
class DispatcherStats:
    """What metrics show. `on_scheduled_s` gets each task's time from creation to running."""

    on_scheduled_s: Callable[[float], None] = lambda seconds: None


class Dispatcher(Actor[Tick]):
    """Sessions, liveness and drain of one leader."""

    def __init__(  # noqa: PLR0913 - built once, in one place
        self,
        env: Env,
        mailbox: Mailbox[Tick],
        *,
        store: Store,
        term: int,
        feed: EndpointFeed,
        cluster_id: ClusterId,
        me: NodeId,
        managers: tuple[ManagerRow, ...],
        stats: DispatcherStats,
    ) -> None:
        super().__init__(env, mailbox)
        self._store = store
        self._term = term
        self._feed = feed
        self._cluster_id = cluster_id
        self._me = me
        self._managers = managers
        self._stats = stats
        self._liveness = Liveness()
        self._drain = DrainWatch(env.now())
        self._sessions: dict[NodeId, Session] = {}
        self._timer: Timer | None = None
        self._unsubscribe: Callable[[], object] = lambda: None

    # ------------------------------------------------------------------------- life cycle

    async def started(self) -> None:
        """Put the managers on record and give every node a whole grace."""
        self._unsubscribe = self._store.subscribe(self._changed)
        await self._store.update(self._register_managers, term=self._term)
        for node in self._store.tables.all(Node):
            self._liveness.expect(self.env.now(), node.id)
        self._tick_later()

    async def stopped(self) -> None:
        """Send every worker to look for the next leader."""
        self._unsubscribe()
        if self._timer is not None:
            self._timer.cancel()
        for session in tuple(self._sessions.values()):
            session.end(CallError(Code.UNAVAILABLE, "this manager no longer leads"))

    @property
    def session_count(self) -> int:
        """Workers with a session."""
        return len(self._sessions)

    async def handle(self, message: Tick) -> None:
        """Judge who is silent."""
        self._tick_later()
        now = self.env.now()
        verdicts = self._liveness.heard(now, self._me) + self._liveness.judge(now)
        for verdict in verdicts:
            await self._record(verdict)
        self._look_at_drains()

    def _tick_later(self) -> None:
        at = self.env.now() + TICK_S
        self._timer = self.env.clock.call_at(at, lambda: self.mailbox.tell(Tick()))

    async def _record(self, verdict: Verdict) -> None:
        state = NodeState.READY if isinstance(verdict, NodeUp) else NodeState.DOWN
        try:
            await self._store.update(
                lambda tx: set_state(tx, verdict.node_id, state, verdict.why), term=self._term
            )
        except (Retryable, OutcomeUnknown) as error:
            # A leader that stays in office has to say it again: nothing else would.
            self._liveness.unrecorded(verdict.node_id)
            log.warning("node=%s to=%s unwritten why=%s", verdict.node_id, state.value, error)
            return
        log.info("node=%s to=%s why=%s", verdict.node_id, state.value, verdict.why)

    # --------------------------------------------------------------------- managers' reports

    async def manager_reported(self, report: ManagerReport) -> None:
        """A manager lives, and so far are the netproxies on it."""
        now = self.env.now()
        self.netproxies_reported(report.node_id, report.netproxies)
        for verdict in self._liveness.heard(now, report.node_id):
            await self._record(verdict)

    def netproxies_reported(
        self, manager_id: NodeId, netproxies: tuple[NetproxyProgress, ...]
    ) -> None:
        """How far the netproxies on one manager are."""
        self._drain.reported(self.env.now(), manager_id, netproxies)
        self._look_at_drains()

    def _look_at_drains(self) -> None:
        for session in self._sessions.values():
            session.changed()

    def _register_managers(self, tx: Transaction) -> None:
        for manager in self._managers:
            node = tx.get(Node, manager.node_id)
            if node is None:
                tx.create(manager_node(manager))
            elif node.control_address != manager.control_address:
                tx.update(replace(node, control_address=manager.control_address))

    # ----------------------------------------------------------------------------- sessions

    async def serve(self, stream: Stream) -> None:
        """One worker's stream, until it goes away."""
        hello = await self._hello(stream)
        self._refuse_twin(hello.node_id)
        session_id = SessionId(self.env.ids.new_id())
        # Before it is written down: a write that takes long is not the node's silence.
        self._heard(hello.node_id)
        await self._store.update(lambda tx: register(tx, hello), term=self._term)
        session = Session(
            self.env,
            hello.node_id,
            session_id,
            stream,
            self._hooks(hello.node_id, session_id),
            heard_at=self.env.now(),
        )
        old = self._sessions.get(hello.node_id)
        if old is not None:
            old.end(CallError(Code.ABORTED, "another session of this node took over"))
        self._sessions[hello.node_id] = session
        log.info("node=%s session=%s opened", hello.node_id, session_id)
        try:
            welcome = SessionWelcome(
                format=SESSION_FORMAT,
                session_id=session_id,
                term=self._term,
                heartbeat_period_ns=int(PERIOD_S * SECOND_NS),
            )
            await stream.send(codec.encode(LeaderMessage(welcome=welcome)))
            session.changed()
            await session.run()
        except StreamBroken as error:
            log.info("node=%s session=%s broke why=%s", hello.node_id, session_id, error)
        finally:
            if self._sessions.get(hello.node_id) is session:
                del self._sessions[hello.node_id]
            log.info("node=%s session=%s closed", hello.node_id, session_id)

    async def _hello(self, stream: Stream) -> WorkerHello:
        hello = await receive_hello(
            self.env,
            stream,
            lambda frame: codec.decode(WorkerMessage, frame).hello,
            SESSION_FORMAT,
            self._cluster_id,
        )
        if hello.highest_term > self._term:
            raise CallError(
                Code.UNAVAILABLE, f"term {self._term} is over; {hello.highest_term} was seen"
            )
        return hello

    def session_of(self, node_id: NodeId) -> SessionId | None:
        """The session of a node, if it has one."""
        session = self._sessions.get(node_id)
        return None if session is None else session.session_id

    def tell(self, node_id: NodeId, message: LeaderMessage) -> None:
        """Send a message in a node's session; lost where there is none."""
        session = self._sessions.get(node_id)
        if session is not None:
            session.tell(message)

    def is_applied_everywhere(self, service_id: ServiceId) -> bool:
        """Whether every netproxy that is alive has a service's present endpoints."""
        version = self._feed.changed_at(service_id)
        return self._drain.applied_everywhere(self.env.now(), self._netproxy_nodes(), version)

    def ingress_problems(self, service_name: str) -> tuple[str, ...]:
        """What netproxies can't put in force of a service, each with its node's name."""
        found = []
        for node_id, errors in self._drain.errors_about(self.env.now(), service_name).items():
            node = self._store.tables.get(Node, node_id)
            name = node_id if node is None else node.name
            found += [f"{name}: {error}" for error in errors]
        return tuple(sorted(found))

    def _netproxy_nodes(self) -> list[NodeId]:
        return [
            node.id
            for node in self._store.tables.all(Node)
            if node.state is NodeState.READY and node.description.mesh_address
        ]

    def _hooks(self, node_id: NodeId, session_id: SessionId) -> SessionHooks:
        async def store(batch: StatusBatch) -> None:
            await self._store_statuses(node_id, session_id, batch)

        return SessionHooks(
            heard=lambda: self._heard(node_id),
            store=store,
            sets=lambda told: self._sets(node_id, told),
            drained=lambda known: self._drained(node_id, known),
        )

    def _refuse_twin(self, node_id: NodeId) -> None:
        """A session that is open and was heard of within its heartbeats belongs to a worker that
        lives: a second one with the same id is a copy of its folder. A worker that lost its
        stream, and whose old one hangs, gets in once that has been silent."""
        old = self._sessions.get(node_id)
        if old is not None and self.env.now() - old.heard_at < TWIN_SILENCE_S:
            log.warning("node=%s a second session was refused", node_id)
            raise CallError(
                Code.ALREADY_EXISTS,
                f"node {node_id} has a live session; if its folder was copied to another machine, "
                "give the copy an id of its own",
            )

    def _heard(self, node_id: NodeId) -> None:
        if node_id in self._sessions:
            self._sessions[node_id].heard_at = self.env.now()
        for verdict in self._liveness.heard(self.env.now(), node_id):
            self.env.spawn(f"node-up/{node_id}", self._record(verdict))

    async def _store_statuses(
        self, node_id: NodeId, session_id: SessionId, batch: StatusBatch
    ) -> None:
        before: list[Task] = []
        for start in range(0, len(batch.reports), REPORTS_AT_ONCE):
            reports = batch.reports[start : start + REPORTS_AT_ONCE]
            before += await self._store.update(
                partial(accepted, node_id=node_id, session_id=session_id, reports=reports),
                term=self._term,
            )
        for old in before:
            new = self._store.tables.get(Task, old.id)
            if new is None:
                continue
            log.info(
                "task=%s slot=%s from=%s to=%s why=%s",
                new.id,
                new.name,
                old.status.state.value,
                new.status.state.value,
                new.status.error or new.status.message,
            )
            is_first = old.status.state is not TaskState.RUNNING
            if is_first and new.status.state is TaskState.RUNNING:
                self._stats.on_scheduled_s((self._store.wall_ns - new.created_ns) / SECOND_NS)

    def _sets(self, node_id: NodeId, told: WorkerSet) -> list[AssignmentSet]:
        tasks = self._store.tables.tasks_of_node(node_id)
        fill = told.increment if told.sequence else told.complete
        return fill(tasks, Stock(self._store.tables))

    def _drained(self, node_id: NodeId, known: set[TaskId]) -> tuple[TaskId, ...]:
        nodes = self._netproxy_nodes()
        return tuple(
            task.id
            for task in self._store.tables.tasks_of_node(node_id)
            if task.id not in known
            and task.desired_state in (DesiredState.SHUTDOWN, DesiredState.REMOVE)
            and not task.is_terminal
            and not self._feed.serves(task)
            and self._drain.applied_everywhere(
                self.env.now(), nodes, self._feed.changed_at(task.service_id)
            )
        )

    def _changed(self, changes: list[Change]) -> None:
        for change in changes:
            match change.row:
                case Task(node_id=node_id) if node_id in self._sessions:
                    self._sessions[node_id].changed()
                case Node() as node if change.row is change.old:
                    self._removed(node)
                case Node() as node if change.old is None:
                    self._liveness.expect(self.env.now(), node.id)
                case Registry():
                    # A task may be waiting for the very login that its node lacks.
                    for session in self._sessions.values():
                        session.changed()

    def _removed(self, node: Node) -> None:
        self._liveness.forget(node.id)
        session = self._sessions.get(node.id)
        if session is not None:
            session.end(CallError(Code.PERMISSION_DENIED, "this node was removed"))
