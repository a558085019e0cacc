"""Somebody who runs services on the simulated cluster, and remembers what was acknowledged.

Every intention is one request, repeated with its id until the cluster gives a definite answer; so
what the cluster must hold at the end is known exactly.
"""

from __future__ import annotations

import contextlib
from random import Random
from typing import TypeVar

from skep.client.calls import Caller
from skep.client.errors import (
    AlreadyExists,
    ClientError,
    Conflict,
    NotFound,
    OutcomeUnknown,
    Refused,
    Unavailable,
)
from skep.domain.base import Struct, replace
from skep.domain.control import (
    CreateServiceRequest,
    DeployStackRequest,
    DeployStackResponse,
    GetRequest,
    ListRevisionsRequest,
    ListRevisionsResponse,
    ListTasksRequest,
    ListTasksResponse,
    RemoveRequest,
    RemoveResponse,
    RollbackServiceRequest,
    ServiceView,
    UpdateNodeRequest,
    UpdateServiceRequest,
)
from skep.domain.objects import Availability, Node, Revision, Service, UpdateState
from skep.domain.spec import FailureAction, ServiceSpec, StackSpec
from skep.env import Env
from tests.sim.networks import STACK_NETWORK, Networks
from tests.sim.releases import (
    REPLICAS_LIMIT,
    Bad,
    draw_placement,
    draw_policy,
    draw_restart,
    draw_spec,
    is_doomed,
    released,
)
from tests.sim.world import World

R = TypeVar("R", bound=Struct)

CALL_DEADLINE_S = 8.0
# Small enough that all of it fits on a single worker, so that the end is always reachable.
SERVICES_LIMIT = 4
STACK = "stack"
LOOK_S = 1.0

ROLLED_BACK = (
    UpdateState.ROLLBACK_STARTED,
    UpdateState.ROLLBACK_PAUSED,
    UpdateState.ROLLBACK_COMPLETED,
)
UNDER_WAY = (UpdateState.UPDATING, UpdateState.ROLLBACK_STARTED)
PAUSED = (UpdateState.PAUSED, UpdateState.ROLLBACK_PAUSED)


class Operator:
    """Creates, scales, updates, rolls back and removes services and networks, and drains nodes.

    `wanted` are the specs that were acknowledged last; an earlier one may be back, see
    `is_as_acknowledged`. `waits_for` is what keeps them busy. Who `is_restless` drains a lot.
    """

    def __init__(self, world: World, addresses: list[str], workers: list[str]) -> None:
        self.wanted: dict[str, ServiceSpec] = {}
        self.acknowledged = 0
        self.waits_for, self.is_restless = "", False
        self._world = world
        self._dice: Random = world.dice("operator")
        self._workers = workers
        self._drained: set[str] = set()
        self._addresses = addresses
        self._serial = 0
        self.networks = Networks(world.dice("networks"), self._insist)

    async def run(self, env: Env, until: float) -> None:
        """Have intentions until then, and see the last ones through."""
        callers = [
            Caller(self._addresses[turn:] + self._addresses[:turn], env, CALL_DEADLINE_S)
            for turn in range(len(self._addresses))
        ]
        pause_s = self._dice.choice((0.3, 1.0, 3.0))
        while self._world.now() < until:
            self.waits_for = "an answer"
            await self._act(self._dice.choice(callers))
            # Whoever waits until all is done must not take the last pause for the end.
            self.waits_for = "a moment to pass"
            await env.clock.sleep(self._dice.expovariate(1.0 / pause_s))
        self.waits_for = "an answer"
        for name in sorted(self._drained):
            await self._set_availability(callers[0], name, Availability.ACTIVE)
        waiting = sorted(self.wanted)
        while waiting:
            waiting = [name for name in waiting if not await self._settle(callers[0], name)]
            self.waits_for = ", ".join(waiting)
            await env.clock.sleep(LOOK_S)
        self.waits_for = ""
        for caller in callers:
            await caller.close()

    async def empty(self, env: Env) -> None:
        """Remove everything there is."""
        caller = Caller(self._addresses, env, CALL_DEADLINE_S)
        if STACK_NETWORK.name in self.networks.wanted:
            request = RemoveRequest(request_id=caller.ids.new_id(), ref=STACK)
            await self._insist(caller, "RemoveStack", request, RemoveResponse)
            del self.networks.wanted[STACK_NETWORK.name]
        for name in sorted(self.wanted):
            request = RemoveRequest(request_id=caller.ids.new_id(), ref=name)
            # Those of the stack may be gone already.
            with contextlib.suppress(NotFound):
                await self._insist(caller, "RemoveService", request, RemoveResponse)
            del self.wanted[name]
        for name in sorted(self.networks.wanted):
            await self.networks.remove(caller, name)
        await caller.close()

    async def _act(self, caller: Caller) -> None:
        if self.networks.is_due():
            await self.networks.act(caller)
            return
        if self.is_restless and self.wanted and self._dice.random() < 0.4:
            await self._drain(caller)
            return
        draw = self._dice.random()
        if not self.wanted or (draw < 0.2 and len(self.wanted) < SERVICES_LIMIT):
            await self._create(caller)
        elif draw < 0.85:
            await self._change(caller, self._dice.choice(sorted(self.wanted)))
        elif draw < 0.88:
            await self._remove(caller)
        elif draw < 0.91:
            await self._give_up_task(caller)
        elif draw < 0.95:
            await self._deploy(caller)
        else:
            await self._drain(caller)

    async def _create(self, caller: Caller) -> None:
        spec = self._new_spec("s")
        request = CreateServiceRequest(request_id=caller.ids.new_id(), spec=spec)
        service = await self._insist(caller, "CreateService", request, Service)
        await self._written(caller, service, spec)

    # ------------------------------------------------------------------------------- changes

    async def _change(self, caller: Caller, name: str) -> None:
        """Change a service as it is now, or at times as it was last written."""
        view = await self._read(caller, name)
        if view is None:
            self._world.problem(f"violation: {name} is lost")
            return
        draw = self._dice.random()
        if draw < 0.1:
            number = None
            if self._dice.random() < 0.5:
                rows = await self._history(caller, name)
                number = self._dice.choice(rows).number
            await self._roll_back(caller, name, number)
            return
        now, version = view.service.spec, None
        if draw < 0.2 and self.networks.has_all(self.wanted[name]):
            now = self.wanted[name]
        elif self._dice.random() < 0.5:
            version = view.service.version
        status = view.service.update
        if status is not None and status.state in PAUSED and self._dice.random() < 0.5:
            spec = now  # Go on.
        else:
            spec = self.networks.changed(self._changed(now))
        await self._update(caller, spec, version)

    def _changed(self, spec: ServiceSpec) -> ServiceSpec:
        draw = self._dice.random()
        if draw < 0.25:
            return replace(spec, replicas=self._dice.randint(0, REPLICAS_LIMIT))
        if draw < 0.85:
            if draw < 0.5:
                spec = replace(
                    spec, update=draw_policy(self._dice), rollback=draw_policy(self._dice)
                )
            bad = self._dice.choice(tuple(Bad)) if self._dice.random() < 0.4 else None
            return released(spec, str(self._dice.randint(1, 1000)), bad)
        if draw < 0.9:
            return replace(spec, task=replace(spec.task, restart=draw_restart(self._dice)))
        if draw < 0.95:
            placement = draw_placement(self._dice, spec, self._workers)
            return replace(spec, task=replace(spec.task, placement=placement))
        return replace(spec, task=replace(spec.task, force_update=spec.task.force_update + 1))

    async def _update(self, caller: Caller, spec: ServiceSpec, version: int | None = None) -> None:
        request = UpdateServiceRequest(
            request_id=caller.ids.new_id(), ref=spec.name, spec=spec, version=version
        )
        try:
            service = await self._insist(caller, "UpdateService", request, Service)
        except Conflict:
            await self._unchanged(caller, spec.name)
        else:
            await self._written(caller, service, spec)

    async def _roll_back(self, caller: Caller, name: str, number: int | None) -> None:
        """Go back, if there is anything to go back to."""
        view, rows = await self._read(caller, name), await self._history(caller, name)
        assert view is not None, name
        to = number if number is not None else view.service.previous_revision
        row = next((row for row in rows if row.number == to), None)
        request = RollbackServiceRequest(
            request_id=caller.ids.new_id(),
            ref=name,
            revision=number,
            # What is read here must be what is rolled back.
            version=view.service.version,
        )
        try:
            service = await self._insist(caller, "RollbackService", request, Service)
        except (Conflict, Refused, NotFound) as error:
            can = row is not None and self.networks.has_all(row.spec)
            if can and row is not None and row.spec != view.service.spec:
                self._expect_conflict(error, name, number)
            await self._unchanged(caller, name)
            return
        if row is None:
            self._world.problem(f"violation: {name} was rolled back to a lost revision {to}")
        else:
            await self._written(caller, service, row.spec)

    def _expect_conflict(self, error: ClientError, name: str, number: int | None) -> None:
        """There is something to go back to, so that only a change meanwhile excuses a refusal."""
        if not isinstance(error, Conflict):
            self._world.problem(f"violation: {name} can't be rolled back to {number}: {error}")

    async def _settle(self, caller: Caller, name: str) -> bool:
        """What a person does who waits until a service is well: the answer. What has failed by
        itself ends by itself, as its policy says; a person decides what that leaves open."""
        view = await self._read(caller, name)
        assert view is not None, name
        spec, status = view.service.spec, view.service.update
        if status is not None and status.state in UNDER_WAY:
            # It fails in every slot, and goes on.
            goes_on = status.policy.failure_action is FailureAction.CONTINUE
            if is_doomed(spec) and goes_on and self._dice.random() < 0.2:
                await self._update(caller, released(spec, "good"))
        elif is_doomed(spec):
            await self._go_back(caller, view)
        elif status is not None and status.state in PAUSED:
            await self._update(caller, spec)
        else:
            return view.is_converged
        return False

    async def _go_back(self, caller: Caller, view: ServiceView) -> None:
        """From a bad release to one that is known to be good, or to a new one."""
        name, previous = view.service.name, view.service.previous_revision
        rows = await self._history(caller, name)
        good = [r for r in rows if not is_doomed(r.spec) and self.networks.has_all(r.spec)]
        if any(row.number == previous for row in good):
            await self._roll_back(caller, name, None)
        elif good:
            await self._roll_back(caller, name, good[0].number)
        else:
            await self._update(caller, released(view.service.spec, "good"))

    async def _history(self, caller: Caller, name: str) -> tuple[Revision, ...]:
        request = ListRevisionsRequest(service=name)
        answer = await self._insist(caller, "ListRevisions", request, ListRevisionsResponse)
        return answer.revisions

    # ---------------------------------------------------------------------------- other intents

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
        had = sorted(name for name in self.wanted if name.startswith(STACK))
        kept = [self.wanted[name] for name in had if self._dice.random() < 0.5]
        kept = [spec for spec in kept if self.networks.has_all(spec)]
        services = (*kept, self._new_spec(f"{STACK}_"))
        request = DeployStackRequest(
            request_id=caller.ids.new_id(),
            spec=StackSpec(name=STACK, services=services, networks=(STACK_NETWORK,)),
            is_prune=True,
        )
        await self._insist(caller, "DeployStack", request, DeployStackResponse)
        self.networks.wanted[STACK_NETWORK.name] = STACK_NETWORK
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
        if view is None or view.service.version < service.version:
            self._world.problem(f"violation: {spec.name} does not read as it was acknowledged")
        elif not is_as_acknowledged(view.service, spec, await self._history(caller, spec.name)):
            self._world.problem(
                f"violation: {spec.name} is read with another spec than was written"
            )

    async def _unchanged(self, caller: Caller, name: str) -> None:
        """What was refused was not done: nobody else writes specs here."""
        view, rows = await self._read(caller, name), await self._history(caller, name)
        if view is None or not is_as_acknowledged(view.service, self.wanted[name], rows):
            self._world.problem(f"violation: {name} was changed by what was refused")

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

    def _new_spec(self, prefix: str) -> ServiceSpec:
        self._serial += 1
        spec = draw_spec(self._dice, f"{prefix}{self._serial}", 8000 + self._serial)
        return self.networks.put_on(spec)


def is_as_acknowledged(
    service: Service, spec: ServiceSpec, revisions: tuple[Revision, ...]
) -> bool:
    """Whether a service has the spec that was acknowledged last, or the one before, by a rollback
    that nobody asked for: it gives up the very revision that was acknowledged."""
    if service.spec == spec:
        return True
    status = service.update
    is_automatic = service.previous_revision is None
    if status is None or status.state not in ROLLED_BACK or not is_automatic:
        return False
    given_up = next((row for row in revisions if row.number == status.revision), None)
    base = next((row for row in revisions if row.number == status.base_revision), None)
    return (
        service.revision == status.revision + 1
        and given_up is not None
        and given_up.spec == spec
        and base is not None
        # What was scaled during the update stays so.
        and base.spec == replace(service.spec, replicas=base.spec.replicas)
    )
