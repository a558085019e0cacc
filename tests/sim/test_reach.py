"""The simulator's own judges of networks: each must see what it is there for."""

from __future__ import annotations

from random import Random

import pytest

from skep.domain.attach import AttachRequest
from skep.domain.base import NetworkId, NodeId, ServiceId, TaskId, replace
from skep.domain.control import WatchAction
from skep.domain.endpoints import Endpoint, NetworkEntry, NetworkPlace, ServiceEndpoints
from skep.domain.objects import (
    Attachment,
    Network,
    Node,
    NodeDescription,
    NodeRole,
    Service,
    Task,
    TaskStatus,
    Vip,
)
from skep.domain.spec import NetworkSpec, NetworkUse, RunSpec, ServiceSpec, TaskSpec
from skep.domain.states import DesiredState, TaskState
from skep.manager.store.core.command import Change
from skep.manager.store.core.tables import Tables
from skep.netproxy.core.forms import KernelForms
from skep.netproxy.core.names import Names
from skep.netproxy.core.world import World
from skep.netproxy.dns.core.protocol import Listen
from skep.netproxy.dns.core.zones import Scope
from skep.netproxy.kernel.core.plan import Planner
from tests.sim.connected import why_not_connected
from tests.sim.plane import FakePlane, Kernel, PlaneTemper
from tests.sim.reach import BEHIND_S, Reach, Sight, shared_addresses

APP, WEB, HERE = NetworkId("app"), ServiceId("web"), NodeId("w1")
T1, T2 = TaskId("t1"), TaskId("t2")
ON_APP = {each: Attachment(network_id=APP, address=f"10.0.0.{n}") for n, each in ((3, T1), (4, T2))}


def task(task_id: TaskId, state: TaskState = TaskState.RUNNING) -> Task:
    wanted = DesiredState.RUNNING if state is TaskState.RUNNING else DesiredState.SHUTDOWN
    return Task(
        id=task_id,
        service_id=WEB,
        service_name="web",
        revision=1,
        slot=1 if task_id == T1 else 2,
        desired_state=wanted,
        status=TaskStatus(state=state),
        node_id=HERE,
        attachments=(ON_APP[task_id],),
    )


class Machine:
    """A store and one machine, both as they should be; tests then break one of them."""

    def __init__(self) -> None:
        uses = (NetworkUse(network="app", aliases=("also",)),)
        spec = ServiceSpec(name="web", task=TaskSpec(run=RunSpec(command=("x",)), networks=uses))
        vip = Vip(network_id=APP, index=1, address="10.0.0.2")
        self.service = Service(
            id=WEB, name="web", spec=spec, vips=(vip,), revision=1, task_revision=1
        )
        self.node = Node(
            id=HERE, name=HERE, role=NodeRole.WORKER, description=NodeDescription(hostname=HERE)
        )
        network = Network(
            id=APP, name="app", spec=NetworkSpec(name="app"), vni=4097, subnet="10.0.0.0/24"
        )
        self.tables, self.faults = Tables(), list[str]()
        self.reach = Reach(self.faults.append)
        self.kernel = Kernel()
        self.plane = FakePlane(self.kernel, HERE, PlaneTemper(), Random(0))
        self.version = 0
        for row in (network, self.node, self.service, task(T1), task(T2)):
            self.commit(row, at=0.0)
        self.put_in_force(T1, T2)

    def commit(self, row: Network | Node | Service | Task, at: float) -> None:
        self.version += 1
        self.tables.put(row)
        change = Change(self.version, WatchAction.UPDATE, row, None)
        self.reach.applied([change], self.tables, at, self.version)

    def put_in_force(self, *serving: TaskId) -> None:
        """What a netproxy makes of the managers' word, with these tasks behind the service."""
        entry = NetworkEntry(network_id=APP, name="app", vni=4097, subnet="10.0.0.0/24")
        endpoints = tuple(
            Endpoint(
                task_id=each, node_id=HERE, address="", attachments=(ON_APP[each],),
                name=task(each).name,
            )
            for each in serving
        )  # fmt: skip
        word = ServiceEndpoints(
            service_id=WEB,
            name="web",
            endpoints=endpoints,
            networks=(NetworkPlace(network_id=APP, aliases=("also",)),),
            vips=self.service.vips,
        )
        world = World(self.version, {WEB: word}, {}, {APP: entry}, frozenset({APP}))
        kernel = self.kernel
        kernel.zones = Names(KernelForms()).zones(world)
        kernel.plan = kernel.before = Planner(HERE).plan(world)
        kernel.attached = {
            each: AttachRequest(
                task_id=each, service_id=WEB, service_name="web", attachments=(ON_APP[each],)
            )
            for each in serving
        }
        scopes = {each: Scope(scope_id=each, networks=(APP,)) for each in serving}
        kernel.listens = {
            each: Listen(scope=scope, address="127.0.0.11", port=53)
            for each, scope in scopes.items()
        }

    def look(self, now: float, *, applied: int = 0, quiet_since: float = 0.0) -> list[str]:
        self.reach.look([Sight("w1", self.kernel, self.plane, applied, quiet_since)], now)
        return self.faults

    def why(self, *running: TaskId) -> list[str]:
        return why_not_connected(self.tables, self.node, self.kernel, set(running))


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_who_has_left_may_be_reached_for_as_long_as_a_netproxy_may_be_behind(
    machine: Machine,
) -> None:
    machine.commit(task(T2, TaskState.SHUTDOWN), at=10.0)
    assert machine.look(10.0 + BEHIND_S) == []
    [fault] = machine.look(10.1 + BEHIND_S)
    assert "w1 has been quiet since 0.000, and leads by" in fault
    assert "to t2, which left at 10.000 by 6" in fault


def test_a_netproxy_that_something_kept_from_hearing_has_as_long_from_then(
    machine: Machine,
) -> None:
    machine.commit(task(T2, TaskState.SHUTDOWN), at=10.0)
    assert machine.look(100.0, quiet_since=90.0) == []
    assert machine.look(90.1 + BEHIND_S, quiet_since=90.0) != []


def test_what_is_acknowledged_is_so_at_once(machine: Machine) -> None:
    machine.commit(task(T2, TaskState.SHUTDOWN), at=10.0)
    assert machine.look(10.0, applied=5) == []
    [fault] = machine.look(10.0, applied=6)
    assert "w1 acknowledged 6, and leads by" in fault
    machine.faults.clear()
    machine.put_in_force(T1)
    assert machine.look(100.0, applied=6) == []


def test_names_alone_and_virtual_addresses_alone_lead_to_a_task(machine: Machine) -> None:
    sight = Sight("w1", machine.kernel, machine.plane, 0, 0.0)
    machine.kernel.plan = machine.kernel.before = Kernel().plan
    assert machine.reach.ways_to(task(T2), sight) == ["a name"]
    machine.put_in_force(T1, T2)
    machine.kernel.zones = {}
    ways = machine.reach.ways_to(task(T2), sight)
    assert ways == ["a virtual address or an ingress port"]
    machine.put_in_force(T1)
    assert machine.reach.ways_to(task(T2), sight) == []


def test_an_address_that_is_given_to_another_is_the_others(machine: Machine) -> None:
    machine.commit(task(T2, TaskState.SHUTDOWN), at=10.0)
    vip = replace(machine.service.vips[0], address=ON_APP[T2].address)
    machine.commit(replace(machine.service, vips=(vip,)), at=20.0)
    assert machine.look(100.0, applied=10) == []


def test_a_machine_as_it_should_be_has_no_fault(machine: Machine) -> None:
    assert machine.why(T1, T2) == []


def test_what_is_wrong_with_a_machine_is_seen(machine: Machine) -> None:
    kernel = machine.kernel
    del kernel.attached[T2]
    assert machine.why(T1, T2) == [
        "w1: not attached are ['t2']",
        "w1: names are answered for no task at ['t2']",
    ]
    machine.put_in_force(T1, T2)
    del kernel.listens[T1]
    assert machine.why(T1, T2) == ["w1: names are not answered for ['t1']"]
    machine.put_in_force(T1)
    [names, leads] = machine.why(T1)
    assert names.startswith("w1: names app:")
    assert leads.startswith("w1: leads (4097, '10.0.0.2'):")
    machine.put_in_force(T1, T2)
    machine.commit(task(T2, TaskState.SHUTDOWN), at=1.0)
    assert "w1: attached are, and should not be, ['t2']" in machine.why(T1)


def test_a_scope_without_its_network_finds_nobody(machine: Machine) -> None:
    listen = machine.kernel.listens[T1]
    machine.kernel.listens[T1] = replace(listen, scope=Scope(scope_id=T1))
    assert machine.why(T1, T2) == ["w1: web leads t1 to []"]


def test_two_tasks_with_one_address_are_seen(machine: Machine) -> None:
    attached = machine.kernel.attached
    heir = replace(attached[T1], task_id=TaskId("t3"))
    assert shared_addresses(attached, heir) == [T1]
    assert shared_addresses(attached, attached[T1]) == []
