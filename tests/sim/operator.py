"""Somebody who runs services on the simulated cluster, and remembers what was acknowledged.

Every intention is one request, repeated with its id until the cluster gives a definite answer; so
what the cluster must hold at the end is known exactly.
"""

from __future__ import annotations

import contextlib
from random import Random
from typing import TypeVar

from skep.client.calls import Caller
from skep.client.errors import AlreadyExists, NotFound, OutcomeUnknown, Unavailable
from skep.domain.base import SECOND_NS, Struct, pairs, replace
from skep.domain.control import (
    CreateServiceRequest,
    DeployStackRequest,
    DeployStackResponse,
    GetRequest,
    ListTasksRequest,
    ListTasksResponse,
    RemoveRequest,
    RemoveResponse,
    ServiceView,
    UpdateNodeRequest,
    UpdateServiceRequest,
)
from skep.domain.objects import Availability, Node, Service
from skep.domain.spec import (
    HealthCheck,
    Port,
    Resources,
    RestartPolicy,
    RunSpec,
    ServiceSpec,
    StackSpec,
    TaskSpec,
)
from skep.env import Env
from tests.sim.world import World

R = TypeVar("R", bound=Struct)

CALL_DEADLINE_S = 8.0
# Small enough that all of it fits on a single worker, so that the end is always reachable.
SERVICES_LIMIT = 4
STACK = "stack"
REPLICAS_LIMIT = 5
MILLI_CPU_NANO = 1_000_000


class Operator:
    """Creates, scales, updates and removes services, and drains nodes."""

    def __init__(self, world: World, addresses: list[str], workers: list[str]) -> None:
        self.wanted: dict[str, ServiceSpec] = {}
        self.acknowledged = 0
        self.is_busy = False
        self._world = world
        self._dice: Random = world.dice("operator")
        self._workers = workers
        self._drained: set[str] = set()
        self._addresses = addresses
        self._serial = 0

    async def run(self, env: Env, until: float) -> None:
        """Have intentions until then, and see the last one through."""
        callers = [
            Caller(self._addresses[turn:] + self._addresses[:turn], env, CALL_DEADLINE_S)
            for turn in range(len(self._addresses))
        ]
        pause_s = self._dice.choice((0.3, 1.0, 3.0))
        while self._world.now() < until:
            self.is_busy = True
            await self._act(self._dice.choice(callers))
            self.is_busy = False
            await env.clock.sleep(self._dice.expovariate(1.0 / pause_s))
        self.is_busy = True
        for name in sorted(self._drained):
            await self._set_availability(callers[0], name, Availability.ACTIVE)
        self.is_busy = False
        for caller in callers:
            await caller.close()

    async def _act(self, caller: Caller) -> None:
        draw = self._dice.random()
        if not self.wanted or (draw < 0.3 and len(self.wanted) < SERVICES_LIMIT):
            await self._create(caller)
        elif draw < 0.85:
            await self._update(caller)
        elif draw < 0.89:
            await self._remove(caller)
        elif draw < 0.92:
            await self._give_up_task(caller)
        elif draw < 0.96:
            await self._deploy(caller)
        else:
            await self._drain(caller)

    async def _create(self, caller: Caller) -> None:
        self._serial += 1
        spec = self._spec(f"s{self._serial}")
        request = CreateServiceRequest(request_id=caller.ids.new_id(), spec=spec)
        service = await self._insist(caller, "CreateService", request, Service)
        await self._written(caller, service, spec)

    async def _update(self, caller: Caller) -> None:
        spec = self.wanted[self._dice.choice(sorted(self.wanted))]
        draw = self._dice.random()
        if draw < 0.5:
            spec = replace(spec, replicas=self._dice.randint(0, REPLICAS_LIMIT))
        elif draw < 0.9:
            env = pairs({"RELEASE": str(self._dice.randint(1, 1000))})
            spec = replace(spec, task=replace(spec.task, run=replace(spec.task.run, env=env)))
        else:
            restart = RestartPolicy(delay_ns=self._dice.choice((0, SECOND_NS)))
            spec = replace(spec, task=replace(spec.task, restart=restart))
        request = UpdateServiceRequest(request_id=caller.ids.new_id(), ref=spec.name, spec=spec)
        service = await self._insist(caller, "UpdateService", request, Service)
        await self._written(caller, service, spec)

    async def _remove(self, caller: Caller) -> None:
        name = self._dice.choice(sorted(self.wanted))
        request = RemoveRequest(request_id=caller.ids.new_id(), ref=name)
        await self._insist(caller, "RemoveService", request, RemoveResponse)
        del self.wanted[name]
        self.acknowledged += 1
        view = await self._read(caller, name)
        if view is not None and not view.service.is_removing:
            self._world.problem(f"violation: {name} is read as kept after it was removed")

    async def _give_up_task(self, caller: Caller) -> None:
        """One task is to go; its slot gets another one, so nothing changes in the end."""
        listed = await self._insist(caller, "ListTasks", ListTasksRequest(), ListTasksResponse)
        if listed.tasks:
            task_id = self._dice.choice([task.id for task in listed.tasks])
            request = RemoveRequest(request_id=caller.ids.new_id(), ref=task_id)
            with contextlib.suppress(NotFound):
                await self._insist(caller, "RemoveTask", request, RemoveResponse)

    async def _deploy(self, caller: Caller) -> None:
        """A stack with one new service, some of those it had, and no others."""
        self._serial += 1
        had = sorted(name for name in self.wanted if name.startswith(STACK))
        kept = [self.wanted[name] for name in had if self._dice.random() < 0.5]
        services = (*kept, self._spec(f"{STACK}_{self._serial}"))
        request = DeployStackRequest(
            request_id=caller.ids.new_id(),
            spec=StackSpec(name=STACK, services=services),
            is_prune=True,
        )
        await self._insist(caller, "DeployStack", request, DeployStackResponse)
        for name in had:
            del self.wanted[name]
        self.wanted.update((spec.name, spec) for spec in services)
        self.acknowledged += 1

    async def _drain(self, caller: Caller) -> None:
        name = self._dice.choice(self._workers)
        was_drained = name in self._drained
        choice = Availability.ACTIVE if was_drained else Availability.DRAIN
        if await self._set_availability(caller, name, choice):
            (self._drained.discard if was_drained else self._drained.add)(name)

    async def _set_availability(self, caller: Caller, name: str, choice: Availability) -> bool:
        request = UpdateNodeRequest(request_id=caller.ids.new_id(), ref=name, availability=choice)
        try:
            await self._insist(caller, "UpdateNode", request, Node)
        except NotFound:
            return False  # It has not registered yet.
        return True

    async def _written(self, caller: Caller, service: Service, spec: ServiceSpec) -> None:
        """An acknowledged write is what the next read shows, whichever manager is asked."""
        self.wanted[spec.name] = spec
        self.acknowledged += 1
        self._world.trace.note("operator", f"{spec.name} acked at {service.version}")
        view = await self._read(caller, spec.name)
        if view is None or view.service.spec != spec or view.service.version < service.version:
            self._world.problem(f"violation: {spec.name} does not read as it was acknowledged")

    async def _read(self, caller: Caller, name: str) -> ServiceView | None:
        try:
            return await self._insist(caller, "GetService", GetRequest(ref=name), ServiceView)
        except NotFound:
            return None

    async def _insist(self, caller: Caller, method: str, request: Struct, answer: type[R]) -> R:
        while True:
            try:
                return await caller.call(method, request, answer)
            except (Unavailable, OutcomeUnknown) as error:
                self._world.trace.note("operator", f"{method} again: {error}")
            except AlreadyExists as error:
                self._world.problem(f"violation: {method} was done twice: {error}")
                raise

    def _spec(self, name: str) -> ServiceSpec:
        health = None
        if self._dice.random() < 0.4:
            health = HealthCheck(
                test=("CMD", "true"), interval_ns=2 * SECOND_NS, timeout_ns=SECOND_NS, retries=2
            )
        ports: tuple[Port, ...] = ()
        if self._dice.random() < 0.6:
            published = self._dice.choice((None, 8000 + self._serial))
            ports = (Port(target=80, published=published),)
        run = RunSpec(command=(name,), health=health, stop_grace_ns=2 * SECOND_NS)
        task = TaskSpec(
            run=run,
            reservations=Resources(cpu_nano=self._dice.choice((None, 50 * MILLI_CPU_NANO))),
            restart=RestartPolicy(delay_ns=self._dice.choice((0, SECOND_NS))),
        )
        return ServiceSpec(
            name=name, task=task, ports=ports, replicas=self._dice.randint(1, REPLICAS_LIMIT)
        )
