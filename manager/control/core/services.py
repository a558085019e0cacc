"""Creating, changing and removing services, as transactions."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from skep.domain.base import ServiceId, StackId, replace
from skep.domain.control import (
    CreateServiceRequest,
    RemoveRequest,
    RemoveResponse,
    UpdateServiceRequest,
)
from skep.domain.objects import Revision, Service, Task, revision_id
from skep.domain.spec import Placement, Protocol, RestartPolicy, ServiceSpec, TaskSpec
from skep.domain.states import DesiredState, desired_order
from skep.domain.validate import check_service
from skep.env import CallError, Code, Rejected
from skep.manager.control.core.find import find
from skep.manager.store.core.transaction import Transaction

NewId = Callable[[], str]


def create_service(tx: Transaction, request: CreateServiceRequest, new_id: NewId) -> Service:
    """A new service. Raises Rejected, or CallError when the name is taken."""
    check_service(request.spec)
    check_published(tx, {"spec": request.spec})
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
    check_published(tx, {"spec": request.spec})
    return change_service(tx, service, request.spec)


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
    tx.create(service)
    _add_revision(tx, service)
    return service


def change_service(tx: Transaction, service: Service, spec: ServiceSpec) -> Service:
    """Write a new spec; one that says the same changes nothing."""
    if service.is_removing:
        raise CallError(Code.FAILED_PRECONDITION, f"service {service.name!r} is being removed")
    if spec == service.spec:
        return service
    number = service.revision + 1
    is_same_task = _task_identity(spec.task) == _task_identity(service.spec.task)
    # The ports stay as they are until the allocator has filled in the new ones: dynamic numbers
    # are kept, and nobody is turned away meanwhile.
    changed = replace(
        service,
        spec=spec,
        revision=number,
        task_revision=service.task_revision if is_same_task else number,
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


def check_published(tx: Transaction, specs: Mapping[str, ServiceSpec]) -> None:
    """Refuse specs, by the field they come in, that publish a port of another service. What is
    written together may pass ports on. Raises CallError."""
    named = {spec.name for spec in specs.values()}
    taken: dict[tuple[int, Protocol], str] = {}
    for other in tx.all(Service):
        if other.name not in named:
            taken |= {
                (port.published, port.protocol): other.name
                for port in (*(other.ports or ()), *other.spec.ports)
                if port.published is not None
            }
    for field, spec in specs.items():
        for place, port in enumerate(spec.ports):
            owner = taken.get((port.published or 0, port.protocol))
            if owner is not None:
                where = f"{field}.ports[{place}].published"
                raise CallError(
                    Code.ALREADY_EXISTS,
                    f"{where}: port {port.published}/{port.protocol.value} is already published "
                    f"by service {owner!r}",
                    {"field": where},
                )
