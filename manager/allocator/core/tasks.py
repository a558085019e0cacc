"""What a new task is given before it may be placed: all of it at once, or the reason why not."""

from __future__ import annotations

from skep.domain.base import NetworkId, ServiceId, replace
from skep.domain.objects import Attachment, Network, Service, Task
from skep.domain.spec import EndpointMode
from skep.domain.states import TaskState, Writer, check_move
from skep.manager.allocator.core.networks import Hosts, has_ingress, ingress_of
from skep.manager.allocator.core.pools import AddressPool
from skep.manager.revisions import spec_of
from skep.manager.store.core.tables import View

NO_TASK_ADDRESS = "no task address is free: too many tasks are kept in this cluster"
Needs = tuple[tuple[Network, ...], str]


class Equipment:
    """What new tasks need and get, in one pass."""

    def __init__(self, view: View, pool: AddressPool, hosts: Hosts) -> None:
        self._view = view
        self._pool = pool
        self._hosts = hosts
        self._known: dict[tuple[ServiceId, int], Needs] = {}

    def equipped(self, task: Task, now_ns: int) -> Task | None:
        """A new task with its addresses, ready to be placed, or with the reason why it has none;
        None if that is nothing new."""
        networks, problem = self._needs(task)
        problem = problem or next(filter(None, map(self._hosts.why_not, networks)), "")
        address = None if problem else self._pool.take(task.id)
        if address is None:
            return waiting(task, problem or NO_TASK_ADDRESS)
        attachments = tuple(
            Attachment(network_id=row.id, address=self._hosts.take(row.id, task.id))
            for row in networks
        )
        return allocated(task, address, attachments, now_ns)

    def _needs(self, task: Task) -> Needs:
        """The networks of the task's own revision, and why it can't be on them. All tasks of one
        revision need the same."""
        kind = (task.service_id, task.revision)
        if kind not in self._known:
            self._known[kind] = self._look_up(task)
        return self._known[kind]

    def _look_up(self, task: Task) -> Needs:
        view = self._view
        spec = spec_of(view, task.service_id, task.revision)
        service = view.get(Service, task.service_id)
        if spec is None or service is None:
            return (), ""
        found: list[Network] = []
        for use in spec.task.networks:
            network = view.named(Network, use.network)
            if network is None:
                return (), f"there is no network {use.network}"
            found.append(network)
        if has_ingress(spec):
            ingress = ingress_of(view)
            if ingress is None:
                return (), "the ingress network isn't made yet"
            found.append(ingress)
        return tuple(found), self._missing_vip(service, found)

    def _missing_vip(self, service: Service, networks: list[Network]) -> str:
        """A task without the name that others look for it by would run for nobody."""
        if service.spec.endpoint_mode is not EndpointMode.VIP or service.is_removing:
            return ""
        has: set[NetworkId] = {vip.network_id for vip in service.vips}
        named = {use.network for use in service.spec.task.networks}
        for network in networks:
            if network.name in named and network.id not in has:
                why = self._hosts.why_not(network)
                return why or "no virtual address is free: too many services are on networks"
        return ""


def allocated(task: Task, address: str, attachments: tuple[Attachment, ...], now_ns: int) -> Task:
    """A new task with its addresses, ready to be placed."""
    check_move(task.id, task.status.state, TaskState.PENDING, Writer.ALLOCATOR)
    status = replace(
        task.status,
        state=TaskState.PENDING,
        message="waiting for a node",
        error="",
        since_ns=now_ns,
    )
    return replace(task, address=address, attachments=attachments, status=status)


def waiting(task: Task, why: str) -> Task | None:
    """A new task that says what it waits for; None if it says so already."""
    if task.status.error == why:
        return None
    return replace(task, status=replace(task.status, error=why))
