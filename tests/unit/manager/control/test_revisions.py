"""A service's specs one after the other: which revision is right, and where back leads."""

from __future__ import annotations

from typing import Any

import pytest

from skep.domain.base import replace
from skep.domain.control import RollbackServiceRequest
from skep.domain.objects import Service, UpdateState, UpdateStatus
from skep.domain.spec import (
    Placement,
    Platform,
    Port,
    PortMode,
    RestartPolicy,
    ServiceSpec,
    UpdatePolicy,
)
from skep.env import CallError, Code
from skep.manager.control.core.services import rollback_service
from skep.manager.revisions import base_of
from tests.unit.manager.build import service_spec
from tests.unit.manager.control.office import Office


def release(image: str, **changes: Any) -> ServiceSpec:
    of = service_spec(**changes)
    return replace(of, task=replace(of.task, run=replace(of.task.run, image=image)))


def placed(of: ServiceSpec, **placement: Any) -> ServiceSpec:
    return replace(of, task=replace(of.task, placement=Placement(**placement)))


def roll_back(office: Office, revision: int | None = None, **more: Any) -> Service:
    request = RollbackServiceRequest(request_id="r", ref="web", revision=revision, **more)
    return office.do(lambda tx: rollback_service(tx, request))


def set_state(office: Office, state: UpdateState) -> UpdateStatus:
    """The orchestrator's word on how the update goes."""
    service = office.service()
    assert service.update is not None
    status = replace(service.update, state=state)
    office.do(lambda tx: tx.update(replace(office.service(), update=status)))
    return status


def status_of(office: Office) -> UpdateStatus:
    status = office.service().update
    assert status is not None
    return status


HOST_PORT = Port(target=80, published=8080, mode=PortMode.HOST)
V1 = release("v1")


@pytest.mark.parametrize(
    ("new", "is_rolled_out"),
    [
        (release("v2"), True),
        (release("v1", replicas=9), False),
        (release("v1", labels=(("a", "b"),)), False),
        (release("v1", update=UpdatePolicy(parallelism=7)), False),
        (release("v1", ports=(Port(target=80, published=8080),)), True),
        (release("v1", ports=(HOST_PORT,)), True),
        (replace(V1, task=replace(V1.task, restart=RestartPolicy(delay_ns=1))), False),
        (replace(V1, task=replace(V1.task, force_update=1)), True),
        (placed(V1, constraints=("node.role == worker",)), False),
        (placed(V1, max_replicas_per_node=2), False),
        (placed(V1, preferences=("node.labels.zone",)), True),
        (placed(V1, platforms=(Platform(os="linux"),)), True),
    ],
)
def test_what_needs_new_tasks_begins_an_update(new: ServiceSpec, is_rolled_out: bool) -> None:
    office = Office()
    office.create(V1)
    service = office.update(new)
    assert service.revision == 2
    assert service.task_revision == (2 if is_rolled_out else 1)
    assert (service.update is not None) == is_rolled_out
    assert service.previous_revision == 1


def test_an_earlier_release_is_known_again() -> None:
    """Tasks that still run from then are right: they need no successors."""
    office = Office()
    office.create(V1)
    office.update(release("v2"))
    office.update(release("v1", replicas=5))
    service = office.service()
    assert (service.revision, service.task_revision) == (3, 1)


def test_an_update_goes_back_to_the_last_spec_that_was_not_on_trial() -> None:
    office = Office()
    office.create(V1)
    for image in ("v2", "v3"):
        office.update(release(image))
    assert (status_of(office).revision, status_of(office).base_revision) == (3, 1)
    set_state(office, UpdateState.PAUSED)
    office.update(release("v4"))
    assert status_of(office).base_revision == 1
    set_state(office, UpdateState.COMPLETED)
    office.update(release("v5"))
    assert (status_of(office).revision, status_of(office).base_revision) == (5, 4)


def test_there_is_nothing_to_go_back_to_when_the_tasks_are_the_same() -> None:
    office = Office()
    office.create(V1)
    assert office.do(lambda tx: base_of(tx, office.service())) is None
    office.update(release("v2"))
    base = office.do(lambda tx: base_of(tx, office.service()))
    assert base is not None
    assert base.number == 1
    office.update(V1)
    assert office.do(lambda tx: base_of(tx, office.service())) is None


def test_scaling_lets_an_update_be_as_it_is() -> None:
    office = Office()
    office.create(V1)
    office.update(release("v2"))
    began = status_of(office)
    office.update(release("v2", replicas=5))
    assert status_of(office) == replace(began, revision=3)
    paused = set_state(office, UpdateState.PAUSED)
    office.update(release("v2", replicas=6))
    assert status_of(office) == replace(paused, revision=4)


@pytest.mark.parametrize("state", [UpdateState.PAUSED, UpdateState.ROLLBACK_PAUSED])
def test_saying_the_same_again_resumes_what_is_paused(state: UpdateState) -> None:
    office = Office()
    office.create(V1)
    office.update(release("v2"))
    paused = set_state(office, state)
    service = office.update(release("v2"))
    assert service.revision == 2
    assert status_of(office).state is UpdateState.UPDATING
    assert status_of(office).started_ns > paused.started_ns
    # Anything but the number of replicas is a word on it, too.
    set_state(office, state)
    office.update(release("v2", labels=(("a", "b"),)))
    assert status_of(office).state is UpdateState.UPDATING


def test_going_back_by_hand_swaps_the_present_spec_and_the_one_before() -> None:
    office = Office()
    office.create(V1)
    office.update(release("v2", rollback=UpdatePolicy(parallelism=3)))
    back = roll_back(office)
    assert (back.spec, back.revision, back.task_revision) == (V1, 3, 1)
    assert back.previous_revision == 2
    assert status_of(office) == UpdateStatus(
        state=UpdateState.ROLLBACK_STARTED,
        revision=2,
        base_revision=1,
        # That of the spec that is given up.
        policy=UpdatePolicy(parallelism=3),
        started_ns=status_of(office).started_ns,
        message="manually requested rollback",
    )
    assert roll_back(office).spec == release("v2", rollback=UpdatePolicy(parallelism=3))


def test_a_rollback_that_can_not_be_is_refused_and_changes_nothing() -> None:
    office = Office()
    office.create(release("v1", ports=(Port(target=80, published=8080),)))
    refusals: list[tuple[int | None, dict[str, Any], Code, str]] = [
        (None, {}, Code.FAILED_PRECONDITION, "no spec before the present one"),
        (7, {}, Code.NOT_FOUND, "no revision 7; kept are 1"),
        (1, {}, Code.FAILED_PRECONDITION, "says what the present one says"),
    ]
    for revision, more, code, text in refusals:
        with pytest.raises(CallError, match=text) as caught:
            roll_back(office, revision, **more)
        assert caught.value.code is code
    office.update(release("v2"))
    with pytest.raises(CallError, match="changed meanwhile") as caught:
        roll_back(office, version=1)
    assert caught.value.code is Code.ABORTED
    office.create(service_spec("other", ports=(Port(target=80, published=8080),)))
    with pytest.raises(CallError, match="8080/tcp is already published by service 'other'"):
        roll_back(office)
    assert office.service().revision == 2


@pytest.mark.parametrize(
    ("mine", "theirs", "is_refused"),
    [
        (PortMode.INGRESS, PortMode.INGRESS, True),
        (PortMode.INGRESS, PortMode.HOST, True),
        (PortMode.HOST, PortMode.INGRESS, True),
        # The scheduler keeps their tasks on different nodes.
        (PortMode.HOST, PortMode.HOST, False),
    ],
)
def test_two_services_may_share_a_port_of_their_nodes_only(
    mine: PortMode, theirs: PortMode, is_refused: bool
) -> None:
    office = Office()
    office.create(service_spec("other", ports=(Port(target=1, published=8080, mode=theirs),)))
    spec = service_spec(ports=(Port(target=2, published=8080, mode=mine),))
    if is_refused:
        with pytest.raises(CallError, match="already published by service 'other'"):
            office.create(spec)
    else:
        office.create(spec)
