"""What each mutation does to the database."""

from __future__ import annotations

from typing import Any

import pytest

from skep.domain.base import NodeId, replace
from skep.domain.control import (
    UpdateNodeRequest,
)
from skep.domain.objects import (
    Availability,
    Node,
    NodeRole,
    NodeState,
    Revision,
    Service,
    Stack,
    Task,
    TaskStatus,
)
from skep.domain.spec import (
    EndpointMode,
    ExposedPort,
    Placement,
    Port,
    Protocol,
    Resources,
    RestartPolicy,
    RunSpec,
    ServiceSpec,
)
from skep.domain.states import DesiredState, TaskState
from skep.env import CallError, Code, Rejected
from skep.manager.control.core.nodes import remove_node, update_node
from skep.manager.control.core.services import (
    remove_service,
    remove_task,
)
from skep.manager.control.core.stacks import remove_stack
from skep.manager.control.core.views import service_view
from tests.unit.manager.build import node, service, service_spec, task
from tests.unit.manager.control.office import Office


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
    (service_spec(exposed=(ExposedPort(target=80),)), False),
    (service_spec(endpoint_mode=EndpointMode.DNSRR), False),
    # It puts the tasks on the ingress network.
    (service_spec(ports=(Port(target=80),)), True),
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
    # The number is free for the other protocol.
    udp = Port(target=80, published=8080, protocol=Protocol.UDP)
    office.create(service_spec("d", ports=(udp,)))
    with pytest.raises(CallError, match="port 8080/udp is already published by service 'd'"):
        office.create(service_spec("e", ports=(udp,)))


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
