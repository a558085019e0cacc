"""The allocator: gives networks, services, nodes and new tasks their addresses, and services
their dynamic ports."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterator

from skep.actor import Mailbox
from skep.domain.base import NetworkId, ServiceId, replace
from skep.domain.control import WatchAction
from skep.domain.objects import Cluster, Network, Node, Object, Service, Task
from skep.domain.states import TaskState
from skep.env import Env
from skep.manager.allocator.core.networks import (
    Cursors,
    Hosts,
    filled_networks,
    filled_vips,
    ingress_of,
    is_anything_due,
    is_vip_due,
    needs_ingress_address,
    new_ingress,
    unused_networks,
    vip_indexes,
)
from skep.manager.allocator.core.pools import AddressPool, ports_for
from skep.manager.allocator.core.taken import Taken, holds_addresses, is_new
from skep.manager.allocator.core.tasks import Equipment
from skep.manager.passes import PASS_CHANGES, Pass
from skep.manager.store.actor import Store
from skep.manager.store.core.command import Change
from skep.manager.store.core.transaction import Transaction

log = logging.getLogger(__name__)

_ADDRESSES = ("addresses",)


class Allocator(Pass):
    """Fills in what rows lack. Keys: a service's id, for its ports, or `_ADDRESSES` for all that
    is given out of ranges that are everybody's."""

    def __init__(self, env: Env, mailbox: Mailbox[Hashable], store: Store, term: int) -> None:
        super().__init__(env, mailbox, store, term)
        self._cursors = Cursors()

    def all_keys(self) -> tuple[Hashable, ...]:
        """Every service, and what is everybody's."""
        return (*(service.id for service in self.store.tables.all(Service)), *_ADDRESSES)

    def hints_of(self, change: Change) -> tuple[Hashable, ...]:
        """Who may lack something, and who has given something back."""
        is_gone = change.action is WatchAction.REMOVE
        match change.row:
            case Service(id=service_id):
                is_on_networks = _is_on_networks(change.row) or _is_on_networks(change.old)
                return (service_id, *_ADDRESSES) if is_on_networks else (service_id,)
            case Task() as task:
                has_ended = bool(task.attachments) and not holds_addresses(task)
                is_fresh = task.status.state is TaskState.NEW
                return _ADDRESSES if is_gone or is_fresh or has_ended else ()
            case Node() as node:
                return _ADDRESSES if is_gone or needs_ingress_address(node) else ()
            case Network() | Cluster():
                return _ADDRESSES
        return ()

    async def look(self, key: Hashable) -> None:
        """One pass."""
        if key == _ADDRESSES[0]:
            tables = self.store.tables
            if is_anything_due(tables) or any(is_new(task) for task in tables.all(Task)):
                written = await self.store.update(self._give, term=self.term)
                if written >= PASS_CHANGES:
                    self.mailbox.tell(key)
        else:
            service_id = ServiceId(str(key))
            probe = Transaction(self.store.tables, self.store.wall_ns)
            self._fill_ports(probe, service_id)
            if not probe.is_empty:
                await self.store.update(lambda tx: self._fill_ports(tx, service_id), term=self.term)

    def _give(self, tx: Transaction) -> int:
        """Returns how many rows were written: `PASS_CHANGES`, and there may be more."""
        cluster = next(iter(tx.all(Cluster)), None)
        if cluster is None:
            return 0
        if ingress_of(tx) is None:
            tx.create(new_ingress(tx, cluster, NetworkId(self.env.ids.new_id())))
        for network in unused_networks(tx):
            tx.remove(Network, network.id)
            self._cursors.hosts.pop(network.id, None)
        written = 0
        for row in self._filled(tx, cluster):
            tx.update(row)
            written += 1
            if written >= PASS_CHANGES:
                break
        return written

    def _filled(self, tx: Transaction, cluster: Cluster) -> Iterator[Object]:
        """Rows with what they lacked. Each step sees what those before it wrote: networks come
        first, then those who are there to stay, then tasks."""
        yield from filled_networks(tx, cluster, self._cursors)
        taken = Taken(tx.all(Task))
        hosts = Hosts(tx, self._cursors, taken)
        due = [service for service in tx.all(Service) if is_vip_due(tx, service)]
        if due:
            indexes = vip_indexes(tx, self._cursors)
            for service in due:
                vips = filled_vips(tx, service, hosts, indexes)
                self._cursors.vip = indexes.cursor
                if vips != service.vips:
                    yield replace(service, vips=vips)
        ingress = ingress_of(tx)
        for node in tx.all(Node):
            if needs_ingress_address(node) and ingress is not None and not hosts.why_not(ingress):
                yield replace(node, ingress_address=hosts.take_for_node(ingress.id, node.id))
        if taken.new:
            pool = AddressPool(cluster.block, self._cursors.task)
            pool.hold_all(taken.relay)
            equipment = Equipment(tx, pool, hosts)
            for task in taken.new:
                changed = equipment.equipped(task, tx.now_ns)
                self._cursors.task = pool.cursor
                if changed is not None:
                    yield changed

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


def _is_on_networks(row: Object | None) -> bool:
    return isinstance(row, Service) and bool(row.vips or row.spec.task.networks)
