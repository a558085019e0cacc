"""The allocator: gives new tasks their addresses and services their dynamic ports."""

from __future__ import annotations

import logging
from collections.abc import Hashable

from skep.domain.base import ServiceId, replace
from skep.domain.objects import Cluster, Service, Task
from skep.domain.states import TaskState
from skep.manager.allocator.core.pools import AddressPool, allocated, ports_for
from skep.manager.passes import PASS_CHANGES, Pass
from skep.manager.store.core.command import Change
from skep.manager.store.core.transaction import Transaction

log = logging.getLogger(__name__)

_TASKS = ("tasks",)


class Allocator(Pass):
    """Fills in what tasks and services lack. Keys: a service's id, or `_TASKS` for all tasks."""

    _cursor: int | None = None

    def all_keys(self) -> tuple[Hashable, ...]:
        """Every service, and the new tasks."""
        return (*(service.id for service in self.store.tables.all(Service)), *_TASKS)

    def hints_of(self, change: Change) -> tuple[Hashable, ...]:
        """A service whose ports may lack numbers, or tasks that are new or gone."""
        match change.row:
            case Service(id=service_id):
                return (service_id,)
            case Task() as task:
                is_gone = change.row is change.old
                return _TASKS if is_gone or task.status.state is TaskState.NEW else ()
        return ()

    async def look(self, key: Hashable) -> None:
        """One pass."""
        if key == _TASKS[0]:
            if any(_is_new(task) for task in self.store.tables.all(Task)):
                written = await self.store.update(self._give_addresses, term=self.term)
                if written >= PASS_CHANGES:
                    self.mailbox.tell(key)
        else:
            service_id = ServiceId(str(key))
            probe = Transaction(self.store.tables, self.store.wall_ns)
            self._fill_ports(probe, service_id)
            if not probe.is_empty:
                await self.store.update(lambda tx: self._fill_ports(tx, service_id), term=self.term)

    def _give_addresses(self, tx: Transaction) -> int:
        """Returns how many tasks were changed: `PASS_CHANGES`, and there may be more."""
        cluster = next(iter(tx.all(Cluster)), None)
        if cluster is None:
            return 0
        pool = AddressPool(cluster.block, self._cursor)
        new = []
        for task in tx.all(Task):
            if task.address:
                pool.hold(task.address, task.id)
            elif _is_new(task):
                new.append(task)
        written = 0
        for task in new:
            changed = allocated(task, pool.take(task.id), tx.now_ns)
            if changed is not None:
                tx.update(changed)
                written += 1
            if written == PASS_CHANGES:
                break
        self._cursor = pool.cursor
        return written

    def _fill_ports(self, tx: Transaction, service_id: ServiceId) -> None:
        service = tx.get(Service, service_id)
        if service is None or service.is_removing:
            return
        try:
            ports = ports_for(service, tx.all(Service))
        except LookupError as error:
            log.warning("service=%s why=%s", service.name, error)
            return
        if ports != service.ports:
            tx.update(replace(service, ports=ports))


def _is_new(task: Task) -> bool:
    return task.status.state is TaskState.NEW and task.is_wanted
