"""The leader's office: the actors that only a leader runs, from its first day to its last.

Raft says who leads. The office starts the leader's actors once this manager has applied its own
first entry of the term, and stops them all when it loses the office. One change at a time, the
newest one winning: what was announced and has passed meanwhile is skipped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from skep.actor import Actor, Mailbox, Overflow
from skep.domain.base import ClusterId, NodeId, ServiceId
from skep.domain.control import NetproxyProgress
from skep.domain.objects import DEFAULT_SUBNET_PREFIX, Cluster
from skep.domain.spec import PROCESS
from skep.env import CallError, Code, Env, Retryable, Stream
from skep.manager.allocator.actor import Allocator
from skep.manager.dispatcher.actor import Dispatcher, DispatcherStats
from skep.manager.dispatcher.core.nodes import ManagerRow
from skep.manager.endpoints.actor import EndpointServer
from skep.manager.orchestrator.actor import Orchestrator, Reaper
from skep.manager.passes import hint_box
from skep.manager.raft.core.model import Leadership
from skep.manager.scheduler.actor import Scheduler
from skep.manager.store.actor import OutcomeUnknown, Store
from skep.manager.store.core.transaction import Transaction
from skep.supervisor import Child, Supervisor

log = logging.getLogger(__name__)

RETRY_S = 0.2


@dataclass(frozen=True)
class ManagerConfig:
    """Who this manager is, and who the others are. `managers` are all, by raft id. The rest is
    what a cluster is founded with, and of no effect on one that is there; see `Cluster`."""

    cluster_id: ClusterId
    node_id: NodeId
    block: int
    raft_id: int
    managers: Mapping[int, ManagerRow]
    address_pools: tuple[str, ...] = ()
    default_engine: str = PROCESS
    subnet_prefix: int = DEFAULT_SUBNET_PREFIX


class Office(Actor[Leadership]):
    """Starts and stops the leader's actors."""

    def __init__(
        self,
        env: Env,
        store: Store,
        config: ManagerConfig,
        endpoints: EndpointServer,
        on_escalate: Callable[[BaseException], None],
    ) -> None:
        mailbox: Mailbox[Leadership] = Mailbox(
            "office", 2, Overflow.COALESCE, key=lambda message: "leadership"
        )
        super().__init__(env, mailbox)
        self.config = config
        self.dispatcher_stats = DispatcherStats()
        self._store = store
        self._endpoints = endpoints
        self._on_escalate = on_escalate
        self._known = Leadership(0, None, False)
        self._held: Leadership | None = None
        self._supervisor: Supervisor | None = None
        self._dispatcher: Dispatcher | None = None

    # ------------------------------------------------------------------- what others ask

    @property
    def is_leader(self) -> bool:
        """Whether this manager leads, by Raft's newest word."""
        return self._known.is_leader

    @property
    def term(self) -> int:
        """The present term."""
        return self._known.term

    @property
    def leader_id(self) -> NodeId | None:
        """The leading manager's node, if known."""
        row = self.config.managers.get(self._known.leader or 0)
        return None if row is None else row.node_id

    @property
    def leader_address(self) -> str | None:
        """Where the leader's control API is, if known."""
        row = self.config.managers.get(self._known.leader or 0)
        return None if row is None else row.control_address

    @property
    def dispatcher(self) -> Dispatcher | None:
        """The dispatcher of the present term, where this manager leads."""
        return self._dispatcher

    @property
    def mailboxes(self) -> tuple[Mailbox[Any], ...]:
        """Every actor's inbox, for metrics."""
        own: tuple[Mailbox[Any], ...] = (self.mailbox,)
        return own if self._supervisor is None else (*own, *self._supervisor.mailboxes)

    @property
    def restarts(self) -> Mapping[str, int]:
        """How often each of the leader's actors was restarted in this term."""
        return {} if self._supervisor is None else self._supervisor.restarts

    def is_applied_everywhere(self, service_id: ServiceId) -> bool:
        """Whether all netproxies have a service's endpoints; True where this isn't known."""
        return self._dispatcher is None or self._dispatcher.is_applied_everywhere(service_id)

    def ingress_problems(self, service_name: str) -> tuple[str, ...]:
        """What netproxies can't put in force of a service; empty where this isn't known."""
        return () if self._dispatcher is None else self._dispatcher.ingress_problems(service_name)

    def netproxies_changed(self, progress: tuple[NetproxyProgress, ...]) -> None:
        """A netproxy that follows this very manager has moved on."""
        if self._dispatcher is not None:
            self._dispatcher.netproxies_reported(self.config.node_id, progress)

    async def serve_session(self, stream: Stream) -> None:
        """A worker wants a session: only the leader gives it one."""
        if self._dispatcher is None or not self.is_leader:
            details = {"leader": self.leader_address} if self.leader_address else {}
            raise CallError(Code.FAILED_PRECONDITION, "this manager does not lead", details)
        await self._dispatcher.serve(stream)

    # ------------------------------------------------------------------------ changes

    def announce(self, leadership: Leadership) -> None:
        """Raft's word; may be called at any time."""
        self._known = leadership
        self.mailbox.tell(leadership)

    async def handle(self, message: Leadership) -> None:
        """Take or leave office."""
        if self._held is not None and (not message.is_leader or message.term != self._held.term):
            await self._leave()
        if message.is_leader and self._held is None:
            await self._take(message)

    async def stopped(self) -> None:
        """The manager ends."""
        await self._leave()

    async def _take(self, leadership: Leadership) -> None:
        log.info("office term=%d taken", leadership.term)
        try:
            await self._store.update(self._found_cluster, term=leadership.term)
        except (Retryable, OutcomeUnknown) as error:
            log.warning("office term=%d not taken yet why=%s", leadership.term, error)
            await self.env.clock.sleep(RETRY_S)
            if self._known == leadership:
                self.mailbox.tell(leadership)
            return
        self._held = leadership
        self._supervisor = Supervisor(
            self.env, "leader", self._children(leadership.term), self._on_escalate
        )
        self._supervisor.start()

    async def _leave(self) -> None:
        if self._held is not None:
            log.info("office term=%d left", self._held.term)
        self._held = None
        self._dispatcher = None
        if self._supervisor is not None:
            await self._supervisor.stop()
            self._supervisor = None

    def _children(self, term: int) -> tuple[Child, ...]:
        ticks: Mailbox[Any] = Mailbox("dispatcher")
        passes: dict[str, type[Orchestrator | Reaper | Allocator | Scheduler]] = {
            "orchestrator": Orchestrator,
            "reaper": Reaper,
            "allocator": Allocator,
            "scheduler": Scheduler,
        }
        children = [Child("dispatcher", ticks, lambda: self._new_dispatcher(ticks, term))]
        for name, kind in passes.items():
            box = hint_box(name)
            children.append(Child(name, box, _maker(kind, self.env, box, self._store, term)))
        return tuple(children)

    def _new_dispatcher(self, ticks: Mailbox[Any], term: int) -> Dispatcher:
        self._dispatcher = Dispatcher(
            self.env,
            ticks,
            store=self._store,
            term=term,
            feed=self._endpoints.feed,
            cluster_id=self.config.cluster_id,
            me=self.config.node_id,
            managers=tuple(self.config.managers.values()),
            stats=self.dispatcher_stats,
        )
        return self._dispatcher

    def _found_cluster(self, tx: Transaction) -> None:
        """The first leader puts the cluster itself on record."""
        if tx.get(Cluster, self.config.cluster_id) is None:
            tx.create(
                Cluster(
                    id=self.config.cluster_id,
                    block=self.config.block,
                    address_pools=self.config.address_pools,
                    default_engine=self.config.default_engine,
                    subnet_prefix=self.config.subnet_prefix,
                )
            )


def _maker(
    kind: type[Orchestrator | Reaper | Allocator | Scheduler],
    env: Env,
    box: Mailbox[Any],
    store: Store,
    term: int,
) -> Callable[[], Actor[Any]]:
    return lambda: kind(env, box, store, term)
