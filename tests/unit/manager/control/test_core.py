"""What each mutation does to the database, and what each read shows of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from skep.domain.base import NodeId, ServiceId, StackId, replace
from skep.domain.control import (
    CreateServiceRequest,
    DeployStackRequest,
    ListTasksRequest,
    RemoveRequest,
    UpdateNodeRequest,
    UpdateServiceRequest,
)
from skep.domain.objects import (
    Availability,
    Node,
    NodeRole,
    NodeState,
    Object,
    Revision,
    Service,
    Stack,
    Task,
    TaskStatus,
)
from skep.domain.spec import (
    Placement,
    Port,
    Resources,
    RestartPolicy,
    RunSpec,
    ServiceSpec,
    StackSpec,
    TaskSpec,
)
from skep.domain.states import DesiredState, TaskState
from skep.env import CallError, Code, Rejected
from skep.manager.control.core.find import find
from skep.manager.control.core.nodes import remove_node, update_node
from skep.manager.control.core.services import (
    create_service,
    remove_service,
    remove_task,
    update_service,
)
from skep.manager.control.core.stacks import deploy_stack, remove_stack
from skep.manager.control.core.views import select_tasks, service_view
from skep.manager.store.core.command import Database, encode_command
from skep.manager.store.core.tables import Tables
from skep.manager.store.core.transaction import Transaction
from tests.unit.manager.build import node, service, service_spec, task

T = TypeVar("T")


class Office:
    """A database, and whoever asks things of it."""

    def __init__(self, *rows: Object) -> None:
        self.database = Database()
        self._ids = 0
        for row in rows:
            self.do(lambda tx, row=row: tx.create(row))

    @property
    def tables(self) -> Tables:
        return self.database.tables

    def do(self, fn: Callable[..., T]) -> T:
        version = self.database.version + 1
        tx = Transaction(self.tables, version * 10)
        result = fn(tx)
        if not tx.is_empty:
            self.database.apply(version, encode_command(version * 10, tx.changes()))
            self.tables.check_invariants()
        return result

    def new_id(self) -> str:
        self._ids += 1
        return f"id{self._ids}"

    def create(self, spec: ServiceSpec) -> Service:
        request = CreateServiceRequest(request_id="r", spec=spec)
        return self.do(lambda tx: create_service(tx, request, self.new_id))

    def update(self, spec: ServiceSpec, **more: Any) -> Service:
        request = UpdateServiceRequest(request_id="r", **{"ref": spec.name, "spec": spec, **more})
        return self.do(lambda tx: update_service(tx, request))

    def deploy(self, *specs: ServiceSpec, name: str = "shop", is_prune: bool = False) -> Any:
        stack = StackSpec(name=name, services=specs)
        request = DeployStackRequest(request_id="r", spec=stack, is_prune=is_prune)
        return self.do(lambda tx: deploy_stack(tx, request, self.new_id))

    def remove(self, how: Callable[..., Any], ref: str) -> Any:
        return self.do(lambda tx: how(tx, RemoveRequest(request_id="r", ref=ref)))

    def service(self, name: str = "web") -> Service:
        found = self.tables.named(Service, name)
        assert found is not None
        return found

    def content(self) -> list[Object]:
        kinds: tuple[type[Object], ...] = (Node, Service, Revision, Task, Stack)
        return [row for kind in kinds for row in self.tables.all(kind)]


def spec_with(**task_changes: Any) -> ServiceSpec:
    of = replace(service_spec().task, **task_changes)
    return replace(service_spec(), task=of)


# -------------------------------------------------------------------------------- services


def test_a_service_begins_with_its_first_revision() -> None:
    office = Office()
    office.create(service_spec(replicas=3))
    [of, revision] = office.content()
    assert of == service(
        "id1", spec=service_spec(replicas=3), version=1, created_ns=10, updated_ns=10
    )
    assert isinstance(revision, Revision)
    assert (revision.id, revision.number, revision.spec) == ("id1.1", 1, of.spec)


def test_a_name_is_taken_until_its_service_is_gone() -> None:
    office = Office()
    office.create(service_spec())
    with pytest.raises(CallError, match="choose another name") as caught:
        office.create(service_spec())
    assert (caught.value.code, caught.value.details) == (
        Code.ALREADY_EXISTS,
        {"field": "spec.name"},
    )
    office.remove(remove_service, "web")
    with pytest.raises(CallError, match="still being removed"):
        office.create(service_spec())


CHANGES = [
    (service_spec(replicas=9), False),
    (service_spec(ports=(Port(target=80),)), False),
    (service_spec(labels=(("a", "b"),)), False),
    (spec_with(placement=Placement(constraints=("node.id == x",))), False),
    (spec_with(restart=RestartPolicy(delay_ns=0)), False),
    (spec_with(force_update=1), True),
    (spec_with(reservations=Resources(memory_bytes=1 << 30)), True),
    (spec_with(run=RunSpec(command=("serve", "--fast"))), True),
]


@pytest.mark.parametrize(("changed", "is_rolled_out"), CHANGES)
def test_only_what_makes_a_task_another_one_is_rolled_out(
    changed: ServiceSpec, is_rolled_out: bool
) -> None:
    office = Office()
    office.create(service_spec())
    office.update(changed)
    assert (office.service().revision, office.service().task_revision) == (
        2,
        2 if is_rolled_out else 1,
    )
    assert [row.id for row in office.tables.all(Revision)] == ["id1.1", "id1.2"]


def test_saying_the_same_again_changes_nothing() -> None:
    office = Office()
    office.create(service_spec())
    office.update(service_spec())
    assert (office.service().revision, office.service().version) == (1, 1)


def test_who_has_read_an_older_version_is_told_of_the_conflict() -> None:
    office = Office()
    office.create(service_spec())
    office.update(service_spec(replicas=2), version=1)
    with pytest.raises(CallError, match=r"is at version 2, not 1\)") as caught:
        office.update(service_spec(replicas=3), version=1)
    assert caught.value.code is Code.ABORTED
    office.update(service_spec(replicas=3), version=2)


def test_a_service_can_not_be_renamed_or_changed_while_it_goes() -> None:
    office = Office()
    office.create(service_spec())
    with pytest.raises(Rejected, match="can't be renamed") as caught:
        office.update(service_spec("shop"), ref="web")
    assert caught.value.field == "spec.name"
    office.remove(remove_service, "web")
    with pytest.raises(CallError, match="is being removed"):
        office.update(service_spec(replicas=2))
    # Removing it twice is no more than once.
    version = office.service().version
    office.remove(remove_service, "web")
    assert office.service().version == version


def test_a_published_port_has_one_owner_given_or_asked_for() -> None:
    office = Office()
    office.create(service_spec("a", ports=(Port(target=80, published=8080),)))
    office.create(service_spec("b", ports=(Port(target=80),)))
    given = replace(office.service("b"), ports=(Port(target=80, published=30000),))
    office.do(lambda tx: tx.update(given))
    for number, owner in ((8080, "a"), (30000, "b")):
        ports = (Port(target=1), Port(target=80, published=number))
        with pytest.raises(CallError, match=f"already published by service '{owner}'") as caught:
            office.create(service_spec("c", ports=ports))
        assert caught.value.details == {"field": "spec.ports[1].published"}
    office.update(service_spec("a", ports=(Port(target=81, published=8080),)))


def test_an_update_of_the_ports_leaves_the_old_ones_until_they_are_filled_in() -> None:
    office = Office()
    office.create(service_spec(ports=(Port(target=80),)))
    has = (Port(target=80, published=30007),)
    office.do(lambda tx: tx.update(replace(office.service(), ports=has)))
    office.update(service_spec(ports=(Port(target=80), Port(target=81))))
    assert office.service().ports == has
    assert not service_view(office.tables, office.service()).is_converged


# ----------------------------------------------------------------------------------- tasks


@pytest.mark.parametrize(
    ("state", "desired", "after"),
    [
        (TaskState.RUNNING, DesiredState.RUNNING, DesiredState.SHUTDOWN),
        (TaskState.READY, DesiredState.READY, DesiredState.SHUTDOWN),
        (TaskState.RUNNING, DesiredState.SHUTDOWN, DesiredState.SHUTDOWN),
        (TaskState.RUNNING, DesiredState.REMOVE, DesiredState.REMOVE),
        (TaskState.FAILED, DesiredState.SHUTDOWN, DesiredState.REMOVE),
        # Its end is looked at first; a removed row could not tell of it.
        (TaskState.FAILED, DesiredState.RUNNING, DesiredState.RUNNING),
        (TaskState.PENDING, DesiredState.RUNNING, DesiredState.REMOVE),
    ],
)
def test_removing_a_task(state: TaskState, desired: DesiredState, after: DesiredState) -> None:
    placed = None if state is TaskState.PENDING else NodeId("n1")
    office = Office(task("t1", state, desired, node_id=placed))
    assert office.remove(remove_task, "t1").name == "web.1"
    assert [row.desired_state for row in office.tables.all(Task)] == [after]


# ----------------------------------------------------------------------------------- nodes


def change(office: Office, **changes: Any) -> Node:
    request = UpdateNodeRequest(request_id="r", ref="n1", **changes)
    return office.do(lambda tx: update_node(tx, request))


def test_labels_and_availability_change_and_what_is_absent_stays() -> None:
    office = Office(node(labels=(("disk", "ssd"), ("zone", "a"))))
    change(office, labels_set=(("disk", "tape"), ("b", "c")), labels_removed=("zone", "none"))
    [after] = office.tables.all(Node)
    assert after.labels == (("b", "c"), ("disk", "tape"))
    assert after.availability is Availability.ACTIVE
    change(office, availability=Availability.DRAIN)
    [after] = office.tables.all(Node)
    assert (after.availability, len(after.labels)) == (Availability.DRAIN, 2)
    version = after.version
    change(office, availability=Availability.DRAIN)
    assert [row.version for row in office.tables.all(Node)] == [version]


def test_too_many_labels_and_stale_versions_are_refused() -> None:
    office = Office(node())
    with pytest.raises(Rejected, match="65 labels, the limit is 64") as refused:
        change(office, labels_set=tuple((f"k{n:02}", "") for n in range(65)))
    assert refused.value.field == "labels_set"
    with pytest.raises(CallError) as conflict:
        change(office, availability=Availability.PAUSE, version=99)
    assert conflict.value.code is Code.ABORTED


def test_a_node_is_removed_once_it_is_down_and_its_tasks_are_lost() -> None:
    ended = replace(task("t2", node_id=NodeId("n1")), status=TaskStatus(state=TaskState.COMPLETE))
    office = Office(node(), task("t1", TaskState.RUNNING, node_id=NodeId("n1")), ended, task("t3"))
    with pytest.raises(CallError, match="is ready; stop it first"):
        office.remove(remove_node, "n1")
    down = replace(office.content()[0], state=NodeState.DOWN)
    office.do(lambda tx: tx.update(down))
    assert office.remove(remove_node, "n1").name == "n1"
    assert {row.id: row.status.state for row in office.tables.all(Task)} == {
        "t1": TaskState.ORPHANED,
        "t2": TaskState.COMPLETE,
        "t3": TaskState.NEW,
    }
    assert list(office.tables.all(Node)) == []


def test_a_manager_is_not_removed_this_way() -> None:
    office = Office(node(role=NodeRole.MANAGER, state=NodeState.DOWN))
    with pytest.raises(CallError, match="is a manager") as caught:
        office.remove(remove_node, "n1")
    assert caught.value.code is Code.FAILED_PRECONDITION


# ---------------------------------------------------------------------------------- stacks


def test_a_deploy_says_what_it_did() -> None:
    office = Office()
    first = office.deploy(service_spec("a"), service_spec("b"))
    assert (first.created, first.stack.revision) == (("a", "b"), 1)
    second = office.deploy(service_spec("a"), service_spec("c", replicas=2))
    assert second.created == ("c",)
    assert second.unchanged == ("a",)
    assert (second.kept, second.removed, second.stack.revision) == (("b",), (), 2)
    third = office.deploy(service_spec("a", replicas=5), service_spec("c"), is_prune=True)
    assert (third.updated, third.removed, third.kept) == (("a", "c"), ("b",), ())
    assert office.service("b").is_removing
    assert {row.stack_id for row in office.tables.all(Service)} == {"id1"}


def test_deploying_the_same_again_changes_nothing() -> None:
    office = Office()
    office.deploy(service_spec("a"))
    before = office.content()
    assert office.deploy(service_spec("a")).unchanged == ("a",)
    assert office.content() == before


BAD_STACKS: list[tuple[ServiceSpec, str]] = [
    (service_spec("c", replicas=-1), "spec.services[1].replicas"),
    (service_spec("ok"), "spec.services[1].name"),
    (service_spec("alone"), "spec.services[1].name"),
    (
        service_spec("c", ports=(Port(target=1, published=99),)),
        "spec.services[1].ports[0].published",
    ),
]


@pytest.mark.parametrize(("bad", "field"), BAD_STACKS)
def test_a_deploy_is_all_or_nothing_and_names_the_field(bad: ServiceSpec, field: str) -> None:
    office = Office()
    office.create(service_spec("alone", ports=(Port(target=1, published=99),)))
    before = office.content()
    with pytest.raises((Rejected, CallError)) as caught:
        office.deploy(service_spec("ok"), bad)
    error: Any = caught.value
    assert (error.field if isinstance(error, Rejected) else error.details["field"]) == field
    assert field in str(error)
    assert office.content() == before


@pytest.mark.parametrize("is_reversed", [False, True])
def test_services_of_a_stack_may_pass_a_port_on(is_reversed: bool) -> None:
    office = Office()
    port = (Port(target=80, published=8080),)
    office.deploy(service_spec("a", ports=port), service_spec("b"))
    specs = [service_spec("a"), service_spec("b", ports=port)]
    done = office.deploy(*(reversed(specs) if is_reversed else specs))
    assert sorted(done.updated) == ["a", "b"]


def test_a_service_that_still_goes_holds_up_its_name() -> None:
    office = Office()
    office.deploy(service_spec("a"))
    office.remove(remove_stack, "shop")
    assert list(office.tables.all(Stack)) == []
    assert office.service("a").is_removing
    with pytest.raises(CallError, match="try again shortly") as caught:
        office.deploy(service_spec("a"))
    assert caught.value.code is Code.FAILED_PRECONDITION


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
        (Service, "ab", Code.INVALID_ARGUMENT, "service 'ab' fits 3 of them"),
        (Service, "one", Code.INVALID_ARGUMENT, "service 'one' fits 2 of them"),
        (Task, "t", Code.INVALID_ARGUMENT, "task 't' fits 3 of them"),
        (Node, "n9", Code.NOT_FOUND, "there is no node 'n9'"),
        (Task, "web.9", Code.NOT_FOUND, "there is no task 'web.9'"),
        (Stack, "", Code.INVALID_ARGUMENT, "a name or id is required"),
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
