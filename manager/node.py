"""One manager, put together from its parts: the same graph in production and in the simulator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from skep.env import Env, Listener, Service, Transport
from skep.manager import execs
from skep.manager.control import watch
from skep.manager.control.actor import Control
from skep.manager.control.watch import Watches
from skep.manager.diagnose.actor import Diagnoses
from skep.manager.endpoints import actor as endpoints
from skep.manager.endpoints.actor import EndpointServer
from skep.manager.execs import Execs
from skep.manager.logs import readers
from skep.manager.logs.readers import LogReaders
from skep.manager.office import ManagerConfig, Office
from skep.manager.raft.node import RaftNode, Settings
from skep.manager.roster import METHOD as REPORT
from skep.manager.roster import Roster, receive_report
from skep.manager.store.actor import Store
from skep.supervisor import Child, Supervisor

SERVICES = (
    "skep.v1.Control",
    "skep.v1.Workers",
    "skep.v1.Endpoints",
    "skep.v1.Managers",
    "skep.v1.Execution",
    "skep.v1.ExecutionWorkers",
)
SESSION = "skep.v1.Workers/Session"


@dataclass(frozen=True)
class Addresses:
    """Where a manager listens, and where the others' Raft does, by raft id."""

    control: str
    raft: str
    raft_peers: dict[int, str]


class ManagerNode:
    """The store, Raft, the office and the API of one manager."""

    def __init__(  # noqa: PLR0913 - the root of one process's object graph
        self,
        env: Env,
        links: Transport,
        config: ManagerConfig,
        addresses: Addresses,
        *,
        settings: Settings | None = None,
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self._env = env
        self._addresses = addresses
        self.store = Store(env)
        self.endpoints = EndpointServer(env, self.store, config.cluster_id)
        self.store.on_restored = self.endpoints.restored
        self.office = Office(env, self.store, config, self.endpoints, on_fatal)
        self.raft = RaftNode(
            env,
            links,
            config.raft_id,
            addresses.raft_peers,
            self.store,
            cluster=config.cluster_id,
            listen=addresses.raft,
            settings=settings,
            on_leadership=self.office.announce,
            on_fatal=on_fatal,
        )
        self.store.attach(self.raft)
        self.control = Control(env, self.store, self.office)
        self._diagnoses = Diagnoses(env, self.store, self.endpoints, addresses.control)
        self._watches = Watches(env, self.store)
        self.logs = LogReaders(env, self.store, self.office, config.cluster_id)
        self.execs = Execs(env, self.store, self.office, config.cluster_id)
        self._roster = Roster(env, self.store, self.office, self.endpoints)
        # Each is built once: these two hold no state that a restart could mend.
        children = (
            Child("office", self.office.mailbox, lambda: self.office),
            Child("roster", self._roster.mailbox, lambda: self._roster),
        )
        self._supervisor = Supervisor(env, "manager", children, on_fatal)
        self._listener: Listener | None = None

    async def start(self) -> None:
        """Recover the database, take part in Raft, and answer calls. Raises OSError, Fatal."""
        await self.raft.start()
        self.endpoints.start()
        self._supervisor.start()
        self._listener = await self._env.transport.listen(self._addresses.control, self._served())

    async def stop(self) -> None:
        """Give up the office, hand leadership over, and end; tasks are left running."""
        if self._listener is not None:
            await self._listener.close()
        await self._supervisor.stop()
        await self.raft.stop()
        await self.control.close()
        await self._diagnoses.close()

    @property
    def address(self) -> str:
        """The control address that was bound."""
        assert self._listener is not None
        return self._listener.address

    def _served(self) -> Service:
        async def report(data: bytes) -> bytes:
            return await receive_report(self.office, data)

        return Service(
            calls={
                **self.control.handlers(),
                **self._diagnoses.handlers(),
                REPORT: report,
            },
            streams={
                SESSION: self.office.serve_session,
                endpoints.METHOD: self.endpoints.serve,
                watch.METHOD: self._watches.serve,
                readers.METHOD: self.logs.serve,
                readers.FORWARDED: self.logs.serve_forwarded,
                readers.PUBLISH: self.logs.serve_publish,
                execs.METHOD: self.execs.serve,
                execs.FORWARDED: self.execs.serve_forwarded,
                execs.RUN: self.execs.serve_run,
            },
        )
