"""A machine that runs tasks: its two processes, what they leave running, and its network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from random import Random

from skep.domain.attach import AttachRequest
from skep.domain.base import ClusterId, NodeId
from skep.domain.endpoints import NetworkQuestion
from skep.domain.objects import NodeDescription
from skep.domain.session import Assignment
from skep.env import Env
from skep.netproxy.actor import FollowActor, Identity, Progress, make_mailbox
from skep.netproxy.core.routes import Desired
from skep.netproxy.dataplane import Look
from skep.netproxy.network import NodeNetwork
from skep.supervisor import Child, Supervisor
from skep.worker.actor import AgentView
from skep.worker.agent import Agent, AgentConfig, Equipment
from skep.worker.engine.network import KERNEL, TaskNetwork
from tests.sim.engine import EngineHost, FakeEngine
from tests.sim.plane import FakeNames, FakePlane, Kernel, PlaneTemper
from tests.sim.reach import Sight, shared_addresses
from tests.sim.world import SimNode, World

CLUSTER = ClusterId("simulated")
BLOCK = 32
GIB = 1024**3
ATTACH = "unix:/run/attach.sock"


class Watched:
    """The node's network, as the follower drives it, and what is being put in force."""

    def __init__(self, network: NodeNetwork) -> None:
        self.network = network
        self.applying: int | None = None

    async def apply(self, desired: Desired) -> tuple[str, ...]:
        self.applying = desired.version
        try:
            return await self.network.apply(desired)
        finally:
            self.applying = None

    async def diagnose(self, question: NetworkQuestion) -> Look:
        return await self.network.diagnose(question)


class Worker:
    """See the module. `plane`, `network`, `view` and `progress` are those of the present lives."""

    def __init__(
        self,
        world: World,
        name: str,
        managers: Sequence[str],
        on_start: Callable[[Worker, Assignment], None],
        on_signal: Callable[[Worker, Assignment], None],
    ) -> None:
        self.world = world
        self.name = name
        self.managers = tuple(managers)
        self.kernel = Kernel(on_attach=self._attaching)
        self.plane_temper = PlaneTemper()
        self.host = EngineHost(
            world,
            name,
            world.dice(f"engine:{name}"),
            lambda assignment: on_start(self, assignment),
            lambda assignment: on_signal(self, assignment),
            lambda task_id: task_id in self.kernel.attached,
        )
        self.agent: SimNode = world.node(name, self._agent, machine=name)
        self.proxy: SimNode = world.node(f"{name}-net", self._proxy, machine=name)
        self.agent.on_death = self.host.agent_died
        self.proxy.on_death = self._proxy_died
        self.plane = self._plane(world.dice(f"{name}:no plane"))
        self.network: Watched | None = None
        self.view: AgentView | None = None
        self.progress = Progress()
        self.quiet_since = world.now()

    def sight(self) -> Sight:
        """The machine's network as it is now."""
        version = self.progress.applied_version
        applying = self.network.applying if self.network is not None else None
        # A netproxy may go back; then what it was at before is no longer its word.
        is_sure = self.proxy.is_up and (applying is None or applying >= version)
        return Sight(
            self.name, self.kernel, self.plane, version if is_sure else 0, self.quiet_since
        )

    async def _agent(self, env: Env) -> None:
        died: asyncio.Future[BaseException] = asyncio.Future()
        number = int(self.name[1:])
        config = AgentConfig(
            name=self.name,
            node_id=NodeId(self.name),
            cluster_id=CLUSTER,
            description=NodeDescription(
                hostname=self.name,
                address=f"127.{BLOCK}.0.{number}",
                mesh_address=f"127.{BLOCK}.0.{number}:7946",
                cpu_nano=4_000_000_000,
                memory_bytes=8 * GIB,
                engines=("process",),
                plane=KERNEL,
            ),
            managers=self.managers,
        )
        agent = Agent(
            env,
            config,
            Equipment({"process": FakeEngine(self.host, env, TaskNetwork(env, ATTACH, KERNEL))}),
            first_of(died),
            on_step=lambda core: core.check_invariants(),
        )
        self.view = agent.view
        agent.start()
        raise await died

    async def _proxy(self, env: Env) -> None:
        died: asyncio.Future[BaseException] = asyncio.Future()
        own = (CLUSTER, NodeId(self.name))
        plane = self.plane = self._plane(env.fork_dice("plane"))
        names = FakeNames(env, self.kernel, self.plane_temper, env.fork_dice("names"))
        node = NodeNetwork(env, own, plane, names, None)
        network = self.network = Watched(node)
        progress = self.progress = Progress()
        identity = Identity(*own, self.managers)
        mailbox = make_mailbox()
        follower = Child(
            "follow", mailbox, lambda: FollowActor(env, mailbox, identity, network, progress)
        )
        supervisor = Supervisor(env, "netproxy", (follower,), first_of(died))
        supervisor.start()
        env.spawn("audit", node.audit())
        await env.transport.listen(ATTACH, node.service())
        raise await died

    def _plane(self, dice: Random) -> FakePlane:
        return FakePlane(self.kernel, NodeId(self.name), self.plane_temper, dice)

    def _proxy_died(self, is_power_lost: bool) -> None:
        self.network = None
        if is_power_lost:
            self.kernel.power_lost()

    def _attaching(self, request: AttachRequest) -> None:
        for other in shared_addresses(self.kernel.attached, request):
            self.world.problem(
                f"violation: {self.name} attaches {request.task_id} with an address that "
                f"{other} still has there"
            )


def is_troubled(world: World, worker: Worker, managers: Sequence[SimNode]) -> bool:
    """Whether anything keeps this machine's netproxy from being up to date, or the managers from
    telling it."""
    if not worker.plane_temper.is_calm():
        return True
    processes = [*managers, worker.proxy]
    if not all(process.is_up and not process.is_paused for process in processes):
        return True
    if any(p.disk.temper.slowness > 1.0 or p.disk.temper.is_full for p in processes):
        return True
    return world.network.is_troubled([process.machine for process in processes])


def first_of(died: asyncio.Future[BaseException]) -> Callable[[BaseException], None]:
    """What a process dies of is the first error that it is told."""

    def tell(error: BaseException) -> None:
        if not died.done():
            died.set_result(error)

    return tell
