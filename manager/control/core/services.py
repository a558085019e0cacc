"""Creating, changing and removing services, as transactions."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from skep.domain.base import ServiceId, StackId, replace
from skep.domain.control import (
    CreateServiceRequest,
    RemoveRequest,
    RemoveResponse,
    RollbackServiceRequest,
    UpdateServiceRequest,
)
from skep.domain.objects import Revision, Service, Task, revision_id
from skep.domain.spec import ServiceSpec
from skep.domain.states import DesiredState, desired_order
from skep.domain.validate import check_service
from skep.env import CallError, Code, Rejected
from skep.manager import revisions
from skep.manager.control.core.files import check_files, with_ids
from skep.manager.control.core.find import find
from skep.manager.control.core.networks import check_uses
from skep.manager.store.core.transaction import Transaction

NewId = Callable[[], str]


def create_service(tx: Transaction, request: CreateServiceRequest, new_id: NewId) -> Service:
    """A new service. Raises Rejected, or CallError when the name is taken."""
    check_service(request.spec)
    check_uses(tx, {"spec": request.spec})
    check_published(tx, {"spec": request.spec})
    return add_service(tx, with_ids(tx, request.spec, "spec"), new_id, None, "spec")


def update_service(tx: Transaction, request: UpdateServiceRequest) -> Service:
    """A new spec for a service. Raises Rejected, or CallError for a conflict."""
    check_service(request.spec)
    service = find(tx, Service, request.ref)
    _check_version(service, request.version)
    if request.spec.name != service.name:
        raise Rejected(
            f"spec.name: a service can't be renamed (it is {service.name!r})", field="spec.name"
        )
    check_uses(tx, {"spec": request.spec})
    check_published(tx, {"spec": request.spec})
    return change_service(tx, service, with_ids(tx, request.spec, "spec"))


def remove_service(tx: Transaction, request: RemoveRequest) -> RemoveResponse:
    """Mark a service: its tasks are stopped first, and then it is deleted."""
    service = find(tx, Service, request.ref)
    mark_removed(tx, service)
    return RemoveResponse(id=service.id, name=service.name)


def remove_task(tx: Transaction, request: RemoveRequest) -> RemoveResponse:
    """Give up one task; its slot gets a new one. Of an ended task it is the row that goes, unless
    nobody has looked at its end yet."""
    task = find(tx, Task, request.ref)
    is_live = task.node_id is not None and not task.is_terminal
    # A live one stays in its slot's story until it has stopped, so that the next one waits for it.
    wanted = DesiredState.SHUTDOWN if is_live else DesiredState.REMOVE
    is_done = task.is_terminal and task.is_wanted
    if not is_done and desired_order(task.desired_state) < desired_order(wanted):
        tx.update(replace(task, desired_state=wanted))
    return RemoveResponse(id=task.id, name=task.name)


def add_service(
    tx: Transaction, spec: ServiceSpec, new_id: NewId, stack_id: StackId | None, field: str
) -> Service:
    """Write a service that does not exist yet."""
    twin = tx.named(Service, spec.name)
    if twin is not None:
        why = "it is still being removed" if twin.is_removing else "choose another name"
        raise CallError(
            Code.ALREADY_EXISTS,
            f"{field}.name: a service called {spec.name!r} exists; {why}",
            {"field": f"{field}.name"},
        )
    service = Service(id=ServiceId(new_id()), name=spec.name, spec=spec, stack_id=stack_id)
    revisions.first(tx, service)
    return service


def change_service(tx: Transaction, service: Service, spec: ServiceSpec) -> Service:
    """Write a new spec; one that says the same changes nothing, or resumes a paused update."""
    if service.is_removing:
        raise CallError(Code.FAILED_PRECONDITION, f"service {service.name!r} is being removed")
    return revisions.change(tx, service, spec)


def rollback_service(tx: Transaction, request: RollbackServiceRequest) -> Service:
    """Go back to the spec of an earlier revision. Raises CallError when there is none, or when
    what it publishes is another's by now, or a network, config or secret of it is gone."""
    service = find(tx, Service, request.ref)
    _check_version(service, request.version)
    if service.is_removing:
        raise CallError(Code.FAILED_PRECONDITION, f"service {service.name!r} is being removed")
    number = request.revision
    if number is None:
        number = service.previous_revision
    if number is None:
        raise CallError(
            Code.FAILED_PRECONDITION,
            f"service {service.name!r} has no spec before the present one to go back to; its "
            "history lists those that are kept: name one of them",
        )
    row = tx.get(Revision, revision_id(service.id, number))
    if row is None:
        kept = sorted(each.number for each in tx.revisions_of(service.id))
        raise CallError(
            Code.NOT_FOUND,
            f"service {service.name!r} has no revision {number}; kept are "
            f"{', '.join(map(str, kept))}",
            {"field": "revision"},
        )
    if row.spec == service.spec:
        raise CallError(
            Code.FAILED_PRECONDITION,
            f"revision {number} of service {service.name!r} says what the present one says",
        )
    check_uses(tx, {"revision": row.spec})
    check_files(tx, {"revision": row.spec})
    check_published(tx, {"revision": row.spec})
    return revisions.roll_back(tx, service, row, "manually requested rollback", is_automatic=False)


def mark_removed(tx: Transaction, service: Service) -> None:
    """Say that a service is to go."""
    if not service.is_removing:
        tx.update(replace(service, is_removing=True))


def check_published(tx: Transaction, specs: Mapping[str, ServiceSpec]) -> None:
    """Refuse specs, by the field they come in, that publish a port of another service. What is
    written together may pass ports on. Raises CallError."""
    named = {spec.name for spec in specs.values()}
    for field, spec in specs.items():
        clash = revisions.published_clash(tx, spec, named)
        if clash is not None:
            where = f"{field}.ports[{clash.place}].published"
            raise CallError(
                Code.ALREADY_EXISTS,
                f"{where}: port {clash.port.published}/{clash.port.protocol.value} is already "
                f"published by service {clash.owner!r}",
                {"field": where},
            )


def _check_version(service: Service, version: int | None) -> None:
    if version is not None and version != service.version:
        raise CallError(
            Code.ABORTED,
            f"service {service.name!r} was changed meanwhile (it is at version {service.version}, "
            f"not {version}); read it again and repeat the change",
        )
