"""What people may call things by, and what they are shown."""

from __future__ import annotations

from typing import Any

import pytest

from skep.domain.base import NodeId, ServiceId, StackId, replace
from skep.domain.control import (
    ListTasksRequest,
)
from skep.domain.objects import (
    Availability,
    Node,
    NodeState,
    Object,
    Service,
    Stack,
    Task,
)
from skep.domain.spec import (
    Placement,
    Port,
    RunSpec,
    StackSpec,
    TaskSpec,
)
from skep.domain.states import DesiredState, TaskState
from skep.env import CallError, Code
from skep.manager.control.core.find import find
from skep.manager.control.core.views import select_tasks, service_view
from skep.manager.store.core.tables import Tables
from tests.unit.manager.build import node, service, service_spec, task
from tests.unit.manager.control.office import Office

# ---------------------------------------------------------------------------------- finding


FOUND = [
    (Node, "n1", "n1"),
    (Service, "s1", "s1"),
    (Service, "web", "s1"),
    (Service, "abc", "abcdef"),
    (Service, "db", "stacked"),
    (Task, "t1", "t1"),
    (Task, "web.2", "t2"),
]


def crowd() -> Tables:
    office = Office(
        node(),
        service("s1", "web"),
        service("abcdef", "other"),
        service("stacked", "shop_db", stack_id="x"),
        service("abx", "shop_one", stack_id="x"),
        service("aby", "mall_one", stack_id="y"),
        task("t1", TaskState.RUNNING),
        task("t2", slot=2),
        task("t2old", TaskState.FAILED, DesiredState.SHUTDOWN, slot=2),
    )
    return office.tables


@pytest.mark.parametrize(("kind", "ref", "id_"), FOUND)
def test_a_name_an_id_or_a_prefix_finds_it(kind: type[Object], ref: str, id_: str) -> None:
    assert find(crowd(), kind, ref).id == id_


@pytest.mark.parametrize(
    ("kind", "ref", "code", "text"),
    [
        (Service, "ab", Code.INVALID_ARGUMENT, "service 'ab' may be any of"),
        (Service, "one", Code.INVALID_ARGUMENT, "service 'one' may be any of"),
        (Task, "t", Code.INVALID_ARGUMENT, "task 't' may be any of"),
        (Node, "n9", Code.NOT_FOUND, "there is no node 'n9'"),
        (Task, "web.9", Code.NOT_FOUND, "there is no task 'web.9'"),
        (Stack, "", Code.INVALID_ARGUMENT, "name or id is required"),
    ],
)
def test_what_is_not_one_object_is_said_plainly(
    kind: type[Object], ref: str, code: Code, text: str
) -> None:
    with pytest.raises(CallError, match=text) as caught:
        find(crowd(), kind, ref)
    assert caught.value.code is code


# ------------------------------------------------------------------------------------ views


def up(id_: str, slot: int, **changes: Any) -> Task:
    return task(id_, TaskState.RUNNING, slot=slot, **{"node_id": NodeId("n1"), **changes})


SERVICE = service(spec=service_spec(replicas=2), ports=())


def view(*tasks: Task, of: Service = SERVICE, there: Node | None = None) -> tuple[int, bool]:
    office = Office(there or node(), of, *tasks)
    seen = service_view(office.tables, of)
    return seen.running, seen.is_converged


def test_a_service_is_there_when_nothing_is_left_to_do() -> None:
    a, b = up("a", 1), up("b", 2)
    assert view(a, b) == (2, True)
    assert view(a) == (1, False)
    ill = replace(b, status=replace(b.status, is_healthy=False))
    assert view(a, ill) == (1, False)
    assert view(a, b, up("old", 3, desired_state=DesiredState.SHUTDOWN)) == (2, False)
    over = replace(task("old", TaskState.FAILED, DesiredState.SHUTDOWN), node_id=NodeId("n1"))
    assert view(a, b, over) == (2, True)
    # What is on a lost node waits for nobody.
    assert view(a, b, up("lost", 3, node_id=NodeId("n9"), desired_state=DesiredState.SHUTDOWN)) == (
        2,
        True,
    )


def test_a_service_is_not_there_while_something_is_still_to_change() -> None:
    tasks = up("a", 1), up("b", 2)
    for of in (
        replace(SERVICE, task_revision=2),
        replace(SERVICE, ports=None),
        replace(SERVICE, is_removing=True),
        replace(SERVICE, spec=replace(SERVICE.spec, replicas=3)),
        replace(SERVICE, spec=replace(SERVICE.spec, replicas=1)),
        replace(
            SERVICE,
            spec=replace(
                SERVICE.spec,
                task=TaskSpec(
                    run=RunSpec(command=("serve",)),
                    placement=Placement(constraints=("node.labels.disk == ssd",)),
                ),
            ),
        ),
    ):
        assert view(*tasks, of=of)[1] is False, of
    for there in (
        node(availability=Availability.DRAIN),
        node(state=NodeState.DOWN),
    ):
        assert view(*tasks, there=there)[1] is False, there


PORT_CASES = [
    (None, (), False),
    ((), (), True),
    ((Port(target=80, published=1),), (Port(target=80, published=1),), True),
    ((Port(target=80, published=30000),), (Port(target=80),), True),
    ((Port(target=80),), (Port(target=80),), False),
    ((Port(target=80, published=1),), (Port(target=80, published=2),), False),
    ((Port(target=80, published=1),), (Port(target=81, published=1),), False),
    ((Port(target=80, published=1),), (), False),
    ((), (Port(target=80),), False),
]


@pytest.mark.parametrize(("has", "asked", "is_there"), PORT_CASES)
def test_a_service_is_there_with_its_ports_and_no_others(
    has: tuple[Port, ...] | None, asked: tuple[Port, ...], is_there: bool
) -> None:
    of = service(spec=service_spec(replicas=0, ports=asked), ports=has)
    assert view(of=of)[1] is is_there


def test_problems_are_the_newest_word_of_each_slot_that_is_not_well() -> None:
    def failed(id_: str, slot: int, error: str, at: int) -> Task:
        row = task(id_, TaskState.FAILED, DesiredState.SHUTDOWN, slot=slot)
        return replace(row, status=replace(row.status, error=error), created_ns=at)

    office = Office(
        node(),
        SERVICE,
        failed("a", 1, "exit 1", 1),
        up("b", 1, created_ns=2),
        failed("c", 2, "exit 2", 3),
        failed("d", 2, "exit 3", 4),
        task("e", TaskState.PENDING, slot=2, created_ns=5),
    )
    assert service_view(office.tables, SERVICE).problems == ("web.2: exit 3",)


def test_tasks_are_listed_by_service_slot_and_newest_first() -> None:
    rows = [
        task("old", TaskState.FAILED, DesiredState.SHUTDOWN, slot=1),
        up("new", 1),
        up("stopping", 2, desired_state=DesiredState.SHUTDOWN),
        task("db", service_id=ServiceId("s2"), service_name="db"),
    ]
    office = Office(
        node(),
        service(),
        service("s2", "db", stack_id="k"),
        Stack(
            id=StackId("k"),
            name="shop",
            spec=StackSpec(name="shop"),
        ),
        *rows,
    )

    def listed(**request: Any) -> list[str]:
        return [row.id for row in select_tasks(office.tables, ListTasksRequest(**request))]

    assert listed() == ["db", "new", "stopping"]
    assert listed(is_all=True) == ["db", "new", "old", "stopping"]
    assert listed(service="web") == ["new", "stopping"]
    assert listed(node="n1") == ["new", "stopping"]
    assert listed(stack="shop") == ["db"]
