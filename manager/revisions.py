"""A service's specs, one after the other: changing them, and going back.

What makes running tasks outdated is decided here, and where a change begins and ends: the API
writes new specs by these rules, and the orchestrator goes back by them when an update has failed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from skep.domain.base import replace
from skep.domain.objects import (
    Config,
    Network,
    Revision,
    Secret,
    Service,
    UpdateState,
    UpdateStatus,
    revision_id,
)
from skep.domain.spec import (
    NetworkUse,
    Placement,
    Port,
    PortMode,
    Protocol,
    RestartPolicy,
    ServiceSpec,
    TaskSpec,
    UpdatePolicy,
)
from skep.domain.storage import FileUse
from skep.manager.store.core.tables import KINDS, View
from skep.manager.store.core.transaction import Transaction


@dataclass(frozen=True)
class Clash:
    """A port that another service publishes."""

    place: int
    port: Port
    owner: str


def first(tx: Transaction, service: Service) -> None:
    """Write a new service with its first revision."""
    tx.create(service)
    _add_revision(tx, service, "created")


def change(tx: Transaction, service: Service, spec: ServiceSpec) -> Service:
    """Give a service a new spec. One that says the same changes nothing, but for a paused change
    of its tasks: that goes on."""
    status = service.update
    if spec == service.spec:
        if status is None or not status.state.is_paused:
            return service
        resumed = replace(service, update=_begun(tx, service, spec.update))
        tx.update(resumed)
        return resumed
    number = service.revision + 1
    # The ports stay as they are until the allocator has filled in the new ones: dynamic numbers
    # are kept, and nobody is turned away meanwhile.
    changed = replace(
        service,
        spec=spec,
        revision=number,
        task_revision=_task_revision(tx, service, spec, number),
        previous_revision=service.revision,
    )
    changed = replace(changed, update=_status_after(tx, service, changed))
    tx.update(changed)
    _add_revision(tx, changed, _note(service, changed))
    return changed


def spec_of(view: View, service_id: str, task_revision: int) -> ServiceSpec | None:
    """The spec that tasks of a task revision go by. Where they may run and when they are restarted
    may be changed without new tasks, so it is the newest of the specs that say of tasks what this
    revision says; None when all of those are forgotten."""
    service = view.get(Service, service_id)
    if service is not None and service.task_revision == task_revision:
        return service.spec
    row = newest_of(view, service_id, task_revision)
    return None if row is None else row.spec


def newest_of(view: View, service_id: str, task_revision: int) -> Revision | None:
    """The newest revision that has this task revision; of one that doesn't say, it is its own."""
    rows = [
        row
        for row in view.revisions_of(service_id)
        if (row.task_revision or row.number) == task_revision
    ]
    return max(rows, key=lambda row: row.number, default=None)


def roll_back(
    tx: Transaction, service: Service, to: Revision, why: str, *, is_automatic: bool
) -> Service:
    """Give a service the spec of an earlier revision, under the rollback policy of the spec that
    is given up. What an automatic rollback has left is not where one by hand goes, and what was
    scaled during the update stays as it was scaled."""
    number = service.revision + 1
    spec = to.spec
    if is_automatic and _was_scaled(tx, service):
        spec = replace(spec, replicas=service.spec.replicas)
    status = UpdateStatus(
        state=UpdateState.ROLLBACK_STARTED,
        revision=service.revision,
        base_revision=to.number,
        policy=service.spec.rollback,
        started_ns=tx.now_ns,
        message=why,
    )
    back = replace(
        service,
        spec=spec,
        revision=number,
        task_revision=_task_revision(tx, service, spec, number),
        previous_revision=None if is_automatic else service.revision,
        update=status,
    )
    tx.update(back)
    _add_revision(tx, back, f"{'automatic ' if is_automatic else ''}rollback to {to.number}")
    return back


def _was_scaled(tx: Transaction, service: Service) -> bool:
    """Whether the number of replicas was changed since the update began."""
    row = tx.get(Revision, revision_id(service.id, service.task_revision))
    return row is not None and row.spec.replicas != service.spec.replicas


def base_of(tx: Transaction, service: Service) -> Revision | None:
    """Where an automatic rollback of the present update goes; None where there is nothing to go
    back to, because the spec before it is forgotten or its tasks are the same."""
    status = service.update
    if status is None:
        return None
    row = tx.get(Revision, revision_id(service.id, status.base_revision))
    is_same = row is None or _identity(row.spec) == _identity(service.spec)
    return None if is_same else row


def published_clash(
    tx: Transaction, spec: ServiceSpec, besides: Iterable[str] = ()
) -> Clash | None:
    """A port of the spec that a service other than itself, and `besides`, publishes. Host ports
    may be shared: the scheduler keeps their tasks on different nodes."""
    named = {spec.name, *besides}
    taken: dict[tuple[int, Protocol], tuple[str, PortMode]] = {}
    for other in tx.all(Service):
        if other.name in named:
            continue
        for port in (*(other.ports or ()), *other.spec.ports):
            if port.published is not None:
                key = (port.published, port.protocol)
                if key not in taken or port.mode is PortMode.INGRESS:
                    taken[key] = (other.name, port.mode)
    for place, port in enumerate(spec.ports):
        owner, mode = taken.get((port.published or 0, port.protocol), ("", PortMode.HOST))
        if owner and PortMode.INGRESS in (mode, port.mode):
            return Clash(place, port, owner)
    return None


def missing_network(view: View, spec: ServiceSpec) -> tuple[int, str] | None:
    """The first network of a spec that tasks can't be on, by its place, and why."""
    for place, use in enumerate(spec.task.networks):
        network = view.named(Network, use.network)
        if network is None:
            return place, f"there is no network {use.network!r}"
        if network.is_removing:
            return place, f"network {use.network!r} is being removed"
    return None


def networks_needed(view: View, service: Service) -> Iterator[tuple[str, bool]]:
    """The networks, by name, that a service's tasks may be put on without anybody asking: those of
    its spec, and (True) of the one that its update goes back to by itself."""
    for use in service.spec.task.networks:
        yield use.network, False
    base = _base_on_trial(view, service)
    if base is not None:
        yield from ((use.network, True) for use in base.spec.task.networks)


def files_of(spec: ServiceSpec) -> Iterator[tuple[type[Config] | type[Secret], FileUse]]:
    """The configs and secrets that a spec uses."""
    for use in spec.task.run.configs:
        yield Config, use
    for use in spec.task.run.secrets:
        yield Secret, use


def missing_file(view: View, spec: ServiceSpec) -> str:
    """The first config or secret of a spec from before that is gone, in words; empty if none is.
    Another one that has its name now is not what the spec says."""
    for kind, use in files_of(spec):
        if view.get(kind, use.id) is None:
            return f"{KINDS[kind]} {use.name!r} of that time is gone"
    return ""


def files_needed(view: View, service: Service) -> Iterator[tuple[str, bool]]:
    """The configs and secrets, by id, that a service's tasks may be given without anybody asking:
    those of its spec, and (True) of the one that its update goes back to by itself."""
    for _, use in files_of(service.spec):
        yield use.id, False
    base = _base_on_trial(view, service)
    if base is not None:
        yield from ((use.id, True) for _, use in files_of(base.spec))


def _base_on_trial(view: View, service: Service) -> Revision | None:
    """The revision that an update which is under way goes back to by itself."""
    status = service.update
    if status is None or not status.state.is_on_trial:
        return None
    return view.get(Revision, revision_id(service.id, status.base_revision))


# ------------------------------------------------------------------------- what a spec says


def _identity(spec: ServiceSpec) -> tuple[TaskSpec, tuple[Port, ...], bool]:
    """What makes a running task outdated when it changes. Which nodes may run it, when it is
    restarted and what its service is called on its networks is judged anew at each event, and
    needs no new task; what tasks are spread over, which networks they are on and the ports of
    their nodes do. So does the first published port, since it puts them on the ingress network."""
    placement = Placement(
        preferences=spec.task.placement.preferences, platforms=spec.task.placement.platforms
    )
    networks = tuple(sorted({use.network for use in spec.task.networks}))
    task = replace(
        spec.task,
        placement=placement,
        restart=RestartPolicy(),
        networks=tuple(NetworkUse(network=name) for name in networks),
        run=replace(
            spec.task.run,
            configs=_in_order(spec.task.run.configs),
            secrets=_in_order(spec.task.run.secrets),
        ),
    )
    host_ports = tuple(port for port in spec.ports if port.mode is PortMode.HOST)
    return task, host_ports, bool(spec.ports)


def _in_order(uses: Iterable[FileUse]) -> tuple[FileUse, ...]:
    """Files in an order of their own: a stack file may name them in any."""
    return tuple(sorted(uses, key=lambda use: (use.target, use.name, use.id)))


def _task_revision(tx: Transaction, service: Service, spec: ServiceSpec, number: int) -> int:
    """The revision whose tasks are right under a spec: the present one if nothing of the tasks
    changes, else an earlier one that said the same of them, else the new one."""
    identity = _identity(spec)
    if identity == _identity(service.spec):
        return service.task_revision
    for row in sorted(tx.revisions_of(service.id), key=lambda row: row.number, reverse=True):
        is_kept = tx.get(Revision, revision_id(service.id, row.task_revision)) is not None
        if is_kept and _identity(row.spec) == identity:
            return row.task_revision
    return number


def _status_after(tx: Transaction, old: Service, new: Service) -> UpdateStatus | None:
    """The update status that goes with a new spec."""
    status = old.update
    if new.task_revision != old.task_revision:
        return _begun(tx, new, new.spec.update, before=old)
    if status is None or not (status.state.is_on_trial or status.state.is_paused):
        return status
    if status.state.is_paused and replace(old.spec, replicas=new.spec.replicas) != new.spec:
        return _begun(tx, new, new.spec.update, before=old)
    if status.state.is_on_trial:
        # The same tasks, and perhaps more of them: what is under way goes on.
        return replace(status, revision=new.revision, policy=new.spec.update)
    return status


def _begun(
    tx: Transaction, service: Service, policy: UpdatePolicy, before: Service | None = None
) -> UpdateStatus:
    """An update from now on. It goes back to the last spec that was not itself on trial."""
    before = before or service
    status = before.update
    on_trial = status is not None and status.state.is_on_trial
    return UpdateStatus(
        state=UpdateState.UPDATING,
        revision=service.revision,
        base_revision=status.base_revision if status and on_trial else before.revision,
        policy=policy,
        started_ns=tx.now_ns,
        message="update in progress",
    )


def _note(old: Service, new: Service) -> str:
    if replace(old.spec, replicas=new.spec.replicas) == new.spec:
        return f"scaled from {old.spec.replicas} to {new.spec.replicas}"
    return "updated"


def _add_revision(tx: Transaction, service: Service, note: str) -> None:
    tx.create(
        Revision(
            id=revision_id(service.id, service.revision),
            service_id=service.id,
            number=service.revision,
            spec=service.spec,
            task_revision=service.task_revision,
            note=note,
        )
    )
