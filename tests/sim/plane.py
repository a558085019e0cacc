"""A machine's network as one netproxy after another puts it in force, and a fake plane over it.

What is in the kernel, and what answers names, stays when a netproxy dies, and is gone with the
power. The plane takes its time and fails at times; the plans that it puts in force are real ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random

from skep.domain.attach import AttachRequest
from skep.domain.base import NetworkId, NodeId, TaskId
from skep.env import Env, Retryable
from skep.netproxy.core.forms import KernelForms
from skep.netproxy.core.routes import Desired
from skep.netproxy.core.world import World
from skep.netproxy.dataplane import Joined, Observed
from skep.netproxy.dns.core.protocol import Listen
from skep.netproxy.dns.core.zones import NetworkZone
from skep.netproxy.kernel.core.plan import KernelPlan, Planner

# Telling the process that answers names takes a millisecond; one that died is begun anew.
MEAN_TELL_S = 0.001
NAMES_RESTART_S = 0.5


@dataclass
class PlaneTemper:
    """Seconds, and the probability that something can't be put in force."""

    mean_apply_s: float = 0.005
    error: float = 0.0

    def is_calm(self) -> bool:
        """Whether everything is put in force at once."""
        return self.mean_apply_s < 0.1


@dataclass
class Kernel:
    """What one machine has in force: `before` is the plan that `plan` may still be replacing."""

    attached: dict[TaskId, AttachRequest] = field(default_factory=dict)
    plan: KernelPlan = field(default_factory=KernelPlan)
    before: KernelPlan = field(default_factory=KernelPlan)
    zones: dict[NetworkId, NetworkZone] = field(default_factory=dict)
    listens: dict[str, Listen] = field(default_factory=dict)
    on_attach: Callable[[AttachRequest], None] = lambda request: None

    def power_lost(self) -> None:
        """Nothing of it outlives that."""
        self.attached = {}
        self.plan = self.before = KernelPlan()
        self.names_lost()

    def names_lost(self) -> None:
        """Nobody answers names any more."""
        self.zones, self.listens = {}, {}


class FakePlane:
    """One netproxy life's data plane; implements `skep.netproxy.dataplane.Dataplane`. Routes are
    its relay's, and end with it."""

    name = "kernel"

    def __init__(self, kernel: Kernel, node_id: NodeId, temper: PlaneTemper, dice: Random) -> None:
        self.desired = self.before = Desired(version=0)
        self.forms = KernelForms()
        self._kernel = kernel
        self._temper = temper
        self._dice = dice
        self._planner = Planner(node_id)

    async def apply(self, desired: Desired) -> tuple[str, ...]:
        kernel = self._kernel
        # Until this returns, connections may still go where they went before.
        self.before, self.desired = self.desired, desired
        plan = self._planner.plan(desired.world)
        kernel.before, kernel.plan = kernel.plan, plan
        await self._take_time()
        is_wrong = self._dice.random() < self._temper.error
        if is_wrong and self._dice.random() < 0.5:
            raise Retryable("the rules can't be written")
        self.before, kernel.before = desired, plan
        return ("a port is taken",) if is_wrong else ()

    async def attach(self, request: AttachRequest, world: World) -> Joined:
        await self._take_time()
        if self._dice.random() < self._temper.error:
            raise Retryable("no link can be made")
        kernel = self._kernel
        if request.task_id not in kernel.attached:
            kernel.on_attach(request)
        kernel.attached[request.task_id] = request
        wanted = {each.network_id for each in request.attachments}
        if not wanted <= {network.network_id for network in kernel.plan.networks}:
            kernel.plan = self._planner.plan(world)
        return Joined(f"/run/{request.task_id}", "/tasks")

    async def detach(self, task_ids: Iterable[TaskId]) -> None:
        for task_id in task_ids:
            if self._dice.random() < self._temper.error:
                raise Retryable(f"the namespace of {task_id} is busy")
            self._kernel.attached.pop(task_id, None)

    async def attached(self) -> frozenset[TaskId]:
        return frozenset(self._kernel.attached)

    async def probe(self, task_id: TaskId, address: str, port: int, deadline_s: float) -> int:
        return 1

    async def differences(self) -> tuple[str, ...]:
        return ()

    def facts(self) -> tuple[str, ...]:
        return ()

    def observed(self) -> Observed:
        listeners = tuple(str(route.published) for route in self.desired.routes)
        return Observed(self.desired.version, listeners, 0)

    async def close(self, drain_s: float) -> None:
        """Nothing is open."""

    async def _take_time(self) -> None:
        await asyncio.sleep(self._dice.expovariate(1.0 / self._temper.mean_apply_s))


class FakeNames:
    """One netproxy life's way to the process that answers names; implements
    `skep.netproxy.network.NameServer`. A process that dies is begun anew and told what is wanted,
    as the real one's keeper does."""

    def __init__(self, env: Env, kernel: Kernel, temper: PlaneTemper, dice: Random) -> None:
        self._env = env
        self._kernel = kernel
        self._temper = temper
        self._dice = dice
        self._wanted: tuple[dict[NetworkId, NetworkZone], tuple[Listen, ...]] = ({}, ())
        self._keeper: asyncio.Task[None] | None = None

    async def apply(
        self, zones: dict[NetworkId, NetworkZone], listens: tuple[Listen, ...]
    ) -> dict[str, str]:
        self._wanted = (zones, listens)
        await asyncio.sleep(self._dice.expovariate(1.0 / MEAN_TELL_S))
        if self._dice.random() < self._temper.error:
            if self._dice.random() < 0.5:
                self._kernel.names_lost()
            if self._keeper is None or self._keeper.done():
                self._keeper = self._env.spawn("names", self._keep())
            raise Retryable("names: the process is gone, or says nothing")
        self._tell()
        return {}

    async def _keep(self) -> None:
        await self._env.clock.sleep(NAMES_RESTART_S)
        self._tell()

    def _tell(self) -> None:
        zones, listens = self._wanted
        self._kernel.zones = zones
        self._kernel.listens = {listen.scope.scope_id: listen for listen in listens}


def targets(desired: Desired) -> set[TaskId]:
    """Every task that some port leads to."""
    return {candidate.task_id for route in desired.routes for candidate in route.candidates}
