"""Creating, changing and removing services, as transactions."""

from __future__ import annotations

from collections.abc import Callable

from skep.domain.base import ServiceId, StackId, replace
from skep.domain.control import (
    CreateServiceRequest,
    RemoveRequest,
    RemoveResponse,
    UpdateServiceRequest,
)
from skep.domain.objects import Revision, Service, Task, revision_id
from skep.domain.spec import Placement, Port, Protocol, RestartPolicy, ServiceSpec, TaskSpec
from skep.domain.states import DesiredState
from skep.domain.validate import check_service
from skep.env import CallError, Code, Rejected
from skep.manager.control.core.find import find
from skep.manager.store.core.transaction import Transaction

NewId = Callable[[], str]


def create_service(tx: Transaction, request: CreateServiceRequest, new_id: NewId) -> Service:
    """A new service. Raises Rejected, or CallError when the name is taken."""
    check_service(request.spec)
    return add_service(tx, request.spec, new_id, None, "spec")


def update_service(tx: Transaction, request: UpdateServiceRequest) -> Service:
    """A new spec for a service. Raises Rejected, or CallError for a conflict."""
    check_service(request.spec)
    service = find(tx, Service, request.ref)
    if request.version is not None and request.version != service.version:
        raise CallError(
            Code.ABORTED,
            f"service {service.name!r} was changed meanwhile (it is at version {service.version}, "
            f"not {request.version}); read it again and repeat the change",
        )
    if request.spec.name != service.name:
        raise Rejected(
            f"spec.name: a service can't be renamed (it is {service.name!r})", field="spec.name"
        )
    return change_service(tx, service, request.spec, "spec")


def remove_service(tx: Transaction, request: RemoveRequest) -> RemoveResponse:
    """Mark a service: its tasks are stopped first, and then it is deleted."""
    service = find(tx, Service, request.ref)
    mark_removed(tx, service)
    return RemoveResponse(id=service.id, name=service.name)


def remove_task(tx: Transaction, request: RemoveRequest) -> RemoveResponse:
    """Give up one task; its slot gets a new one."""
    task = find(tx, Task, request.ref)
    if task.desired_state is not DesiredState.REMOVE:
        tx.update(replace(task, desired_state=DesiredState.REMOVE))
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
    _check_published(tx, spec, None, field)
    service = Service(id=ServiceId(new_id()), name=spec.name, spec=spec, stack_id=stack_id)
    tx.create(service)
    _add_revision(tx, service)
    return service


def change_service(tx: Transaction, service: Service, spec: ServiceSpec, field: str) -> Service:
    """Write a new spec; one that says the same changes nothing."""
    if service.is_removing:
        raise CallError(Code.FAILED_PRECONDITION, f"service {service.name!r} is being removed")
    if spec == service.spec:
        return service
    _check_published(tx, spec, service, field)
    number = service.revision + 1
    is_same_task = _task_identity(spec.task) == _task_identity(service.spec.task)
    changed = replace(
        service,
        spec=spec,
        revision=number,
        task_revision=service.task_revision if is_same_task else number,
        ports=None if spec.ports != service.spec.ports else service.ports,
    )
    tx.update(changed)
    _add_revision(tx, changed)
    return changed


def mark_removed(tx: Transaction, service: Service) -> None:
    """Say that a service is to go."""
    if not service.is_removing:
        tx.update(replace(service, is_removing=True))


def _task_identity(task: TaskSpec) -> TaskSpec:
    """What makes a running task outdated when it changes. Where tasks may run and when they are
    restarted is judged anew at each event, and needs no new task."""
    return replace(task, placement=Placement(), restart=RestartPolicy())


def _add_revision(tx: Transaction, service: Service) -> None:
    tx.create(
        Revision(
            id=revision_id(service.id, service.revision),
            service_id=service.id,
            number=service.revision,
            spec=service.spec,
        )
    )


def _check_published(tx: Transaction, spec: ServiceSpec, own: Service | None, field: str) -> None:
    taken: dict[tuple[int, Protocol], str] = {}
    for other in tx.all(Service):
        if own is not None and other.id == own.id:
            continue
        for port in _all_ports(other):
            if port.published is not None:
                taken[(port.published, port.protocol)] = other.name
    for place, port in enumerate(spec.ports):
        owner = taken.get((port.published or 0, port.protocol))
        if owner is not None:
            where = f"{field}.ports[{place}].published"
            raise CallError(
                Code.INVALID_ARGUMENT,
                f"{where}: port {port.published}/{port.protocol.value} is already published by "
                f"service {owner!r}",
                {"field": where},
            )


def _all_ports(service: Service) -> tuple[Port, ...]:
    return (*(service.ports or ()), *service.spec.ports)
