"""What a task asks of its node, read from the rows of its service and revision."""

from __future__ import annotations

from typing import Any

import pytest

from skep.domain.base import NetworkId, NodeId, ServiceId, replace
from skep.domain.control import WatchAction
from skep.domain.objects import Network, Object, Revision, Task, revision_id
from skep.domain.spec import (
    NetworkSpec,
    NetworkUse,
    Port,
    PortMode,
    Protocol,
    Resources,
    RunSpec,
    TaskSpec,
)
from skep.domain.states import DesiredState, TaskState
from skep.manager.passes import hint_box
from skep.manager.scheduler.actor import Demands, Scheduler, place_pending
from skep.manager.scheduler.core.filters import HostPort
from skep.manager.store.core.command import Change
from skep.manager.store.core.tables import Tables
from skep.manager.store.core.transaction import Transaction
from tests.unit.manager.build import node, service, service_spec, task

HOST = Port(target=80, published=8080, mode=PortMode.HOST)
DYNAMIC = Port(target=81, mode=PortMode.HOST)
INGRESS = Port(target=82, published=8082)
TCP = Protocol.TCP


def asked(of: Task, *rows: Object) -> tuple[tuple[HostPort, ...], bool] | None:
    tables = Tables()
    for row in rows:
        tables.put(row)
    demand = Demands(tables).of(of)
    if demand is None:
        return None
    assert demand.task is of
    return demand.host_ports, demand.lacks_port


def test_a_task_on_an_encrypted_network_asks_for_a_node_that_can() -> None:
    spec = TaskSpec(run=RunSpec(command=("web",)), networks=(NetworkUse(network="back"),))
    web = service(spec=replace(service_spec(), task=spec))
    for is_encrypted in (True, False):
        of = NetworkSpec(name="back", is_encrypted=is_encrypted)
        tables = Tables()
        for row in (web, Network(id=NetworkId("n"), name="back", spec=of)):
            tables.put(row)
        demand = Demands(tables).of(task())
        assert demand is not None
        assert demand.is_encrypted is is_encrypted


def past(number: int, *ports: Port) -> Revision:
    return Revision(
        id=revision_id(ServiceId("s1"), number),
        service_id=ServiceId("s1"),
        number=number,
        spec=service_spec(ports=ports),
    )


def test_host_ports_are_asked_for_and_ingress_ports_are_not() -> None:
    web = service(spec=service_spec(ports=(HOST, INGRESS)))
    assert asked(task(), web) == (((8080, TCP),), False)


def test_a_dynamic_host_port_has_the_number_that_its_service_was_given() -> None:
    web = service(spec=service_spec(ports=(HOST, DYNAMIC)))
    assert asked(task(), web) == (((8080, TCP),), True)
    filled = replace(web, ports=(HOST, replace(DYNAMIC, published=30_007)))
    assert asked(task(), filled) == (((8080, TCP), (30_007, TCP)), False)
    other = replace(web, ports=(HOST, replace(DYNAMIC, published=30_007, mode=PortMode.INGRESS)))
    assert asked(task(), other) == (((8080, TCP),), True)


def test_an_older_task_goes_by_its_own_revision() -> None:
    web = service(spec=service_spec(ports=(HOST,)), revision=3, task_revision=3)
    moved = replace(HOST, published=9090)
    assert asked(task(revision=2), web, past(2, moved)) == (((9090, TCP),), False)
    assert asked(task(revision=3), web, past(3, moved)) == (((8080, TCP),), False)
    assert asked(task(revision=2), web) is None
    assert asked(task(revision=2), past(2, moved)) == (((9090, TCP),), False)


def test_tasks_of_one_revision_are_looked_up_once() -> None:
    web = service(spec=service_spec(ports=(HOST,)))
    tables = Tables()
    tables.put(web)
    demands = Demands(tables)
    first = demands.of(task("a"))
    tables.remove(type(web), web.id)
    second = demands.of(task("b"))
    assert first is not None
    assert second is not None
    assert (second.task.id, second.host_ports) == ("b", first.host_ports)


def decided(*rows: Object) -> dict[str, str]:
    """One pass over these rows: waiting tasks to their nodes, or to what they were told."""
    tables = Tables()
    for row in rows:
        tables.put(row)
    written = place_pending(Transaction(tables, 1), lambda: "new")
    return {placed.task.id: placed.node_id or placed.explanation for placed in written}


def test_a_placed_task_that_lacks_a_port_still_holds_its_resources() -> None:
    big = TaskSpec(run=RunSpec(command=("serve",)), reservations=Resources(cpu_nano=3_000_000_000))
    grown = replace(service_spec(), task=big, ports=(DYNAMIC,))
    first, second = (
        service("s1", "web", spec=grown),
        service("s2", "api", spec=replace(grown, name="api", ports=())),
    )
    running = task("a", TaskState.RUNNING, node_id=NodeId("n1"))
    waits = task("b", TaskState.PENDING, service_id=ServiceId("s2"))
    assert decided(first, second, running, waits, node()) == {
        "b": "no suitable node (insufficient resources on 1 node)"
    }


def test_a_waiting_task_that_is_to_end_is_passed_over_when_a_node_comes() -> None:
    unwanted = task("a", TaskState.PENDING, DesiredState.SHUTDOWN)
    wanted = task("b", TaskState.PENDING, slot=2)
    assert decided(service(), unwanted, wanted, node()) == {"b": "n1"}


def test_two_services_with_one_host_port_share_a_cluster_but_no_node() -> None:
    specs = [service_spec(name, ports=(HOST,)) for name in ("web", "api")]
    services = [service(f"s{n}", spec.name, spec=spec) for n, spec in enumerate(specs, start=1)]
    running = task("a", TaskState.RUNNING, node_id=NodeId("n1"))
    waits = [
        task(id_, TaskState.PENDING, service_id=ServiceId("s2"), slot=slot)
        for slot, id_ in enumerate("bc", start=1)
    ]
    assert decided(*services, running, *waits, node("n1"), node("n2")) == {
        "b": "n2",
        "c": "no suitable node (host-mode port already in use on 2 nodes)",
    }


@pytest.mark.parametrize(
    ("row", "is_looked_at"),
    [
        (task(state=TaskState.NEW), False),
        (task(state=TaskState.PENDING), True),
        (task(state=TaskState.RUNNING), False),
        # It still holds its resources and ports, but is no replica of its node any more.
        (task(state=TaskState.RUNNING, desired=DesiredState.SHUTDOWN), True),
        (task(state=TaskState.FAILED), True),
        (service(), True),
        (node(), True),
        (past(1), False),
    ],
    ids=("new", "waits", "runs", "is stopped", "has ended", "service", "node", "revision"),
)
def test_what_may_make_room_has_the_waiting_looked_at(row: Object, is_looked_at: bool) -> None:
    nothing: Any = None
    scheduler = Scheduler(nothing, hint_box("scheduler"), nothing, 1)
    change = Change(version=2, action=WatchAction.UPDATE, row=row, old=None)
    assert bool(scheduler.hints_of(change)) == is_looked_at
