"""What networks, and services on them, are given: ids, ranges, and virtual addresses.

A virtual address is a service's for as long as its spec names the network, and beyond that until
its last task there has ended: clients that know it are served to the end of an update, and when
the update is taken back it is the same one again. None is given out on the ingress network, where
Swarm has one: what is published is reached by port, and leads straight to tasks.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from skep.domain.address import RELAY_VIPS
from skep.domain.base import NetworkId, replace
from skep.domain.objects import (
    DEFAULT_ADDRESS_POOLS,
    Cluster,
    Network,
    Node,
    Service,
    Task,
    Vip,
)
from skep.domain.spec import EndpointMode, NetworkSpec, ServiceSpec
from skep.domain.validate import INGRESS_NETWORK
from skep.manager.allocator.core.numbers import (
    HostAddresses,
    Numbers,
    Subnets,
    address_text,
    span_of,
)
from skep.manager.allocator.core.taken import Taken, holds_addresses
from skep.manager.store.core.tables import View

# Docker Swarm's first one too; below it are the ids that people choose by hand.
FIRST_VNI = 4097
LAST_VNI = (1 << 24) - 1

# Far from where ranges are first given out, and wide: every task that publishes a port is on it.
INGRESS_SUBNET = "10.255.0.0/16"
INGRESS_PREFIX = 16
# Of pools that don't hold that range the ingress network gets a sixteenth at most.
INGRESS_SHARE_BITS = 4


@dataclass
class Cursors:
    """Where to go on giving out, from pass to pass: all that an allocator remembers."""

    task: int | None = None
    vni: int | None = None
    subnet: int | None = None
    vip: int | None = None
    hosts: dict[NetworkId, int] = field(default_factory=dict)


def has_ingress(spec: ServiceSpec) -> bool:
    """Whether tasks are reached by the ingress network. Ports in host mode are no exception: it is
    the way from a node's own namespace to those of its tasks."""
    return bool(spec.ports)


def ingress_of(view: View) -> Network | None:
    """The ingress network's row."""
    return next((row for row in view.all(Network) if row.is_ingress), None)


def new_ingress(view: View, cluster: Cluster, network_id: NetworkId) -> Network:
    """The ingress network of a cluster that has none."""
    subnets = _subnets(view, cluster, None)
    subnet = INGRESS_SUBNET
    if not subnets.is_free(subnet):
        widths = [int(pool.partition("/")[2]) for pool in _pools(cluster)]
        prefix = max(INGRESS_PREFIX, min(widths) + INGRESS_SHARE_BITS)
        subnet = subnets.take(min(prefix, cluster.subnet_prefix)) or ""
    spec = NetworkSpec(name=INGRESS_NETWORK, subnet=subnet)
    return Network(id=network_id, name=INGRESS_NETWORK, spec=spec, is_ingress=True)


def filled_networks(view: View, cluster: Cluster, cursors: Cursors) -> list[Network]:
    """The networks that lack something, with all of it, or with the reason why they can't have
    it; those that can be told nothing new are left out."""
    lacking = [row for row in view.all(Network) if row.vni is None and not row.is_removing]
    if not lacking:
        return []
    vnis = Numbers(FIRST_VNI, LAST_VNI, cursors.vni)
    for row in view.all(Network):
        if row.vni is not None:
            vnis.hold(row.vni, f"network {row.name}")
    subnets = _subnets(view, cluster, cursors.subnet)
    filled = []
    for row in lacking:
        subnet = row.spec.subnet or subnets.take(cluster.subnet_prefix)
        vni = None if subnet is None else vnis.take()
        if subnet is None:
            changed = replace(row, message=_no_subnet(cluster))
        elif vni is None:
            changed = replace(row, message="no VXLAN id is free: remove networks")
        else:
            gateway = row.spec.gateway or address_text(span_of(subnet)[0] + 1)
            changed = replace(row, vni=vni, subnet=subnet, gateway=gateway, message="")
        if changed != row:
            filled.append(changed)
    cursors.vni, cursors.subnet = vnis.cursor, subnets.cursor
    return filled


def _no_subnet(cluster: Cluster) -> str:
    pools = ", ".join(_pools(cluster))
    return (
        f"no range of /{cluster.subnet_prefix} is free in {pools}: remove networks, or create it "
        "with a subnet of your own"
    )


def _pools(cluster: Cluster) -> tuple[str, ...]:
    return cluster.address_pools or DEFAULT_ADDRESS_POOLS


def _subnets(view: View, cluster: Cluster, cursor: int | None) -> Subnets:
    subnets = Subnets(_pools(cluster), cursor)
    for row in view.all(Network):
        if row.subnet or row.spec.subnet:
            subnets.hold(row.subnet or row.spec.subnet, is_asked=bool(row.spec.subnet))
    return subnets


class Hosts:
    """The addresses of every network, as they are in this very state."""

    def __init__(self, view: View, cursors: Cursors, taken: Taken) -> None:
        self._cursors = cursors
        self._pools: dict[NetworkId, HostAddresses] = {}
        for row in view.all(Network):
            if row.vni is not None:
                pool = HostAddresses(row.subnet, row.gateway, cursors.hosts.get(row.id))
                pool.hold_all(taken.hosts.get(row.id, {}))
                self._pools[row.id] = pool
        assert taken.hosts.keys() <= self._pools.keys(), "tasks are on networks that are gone"
        for service in view.all(Service):
            for vip in service.vips:
                self._pools[vip.network_id].hold(vip.address, service.id)
        ingress = ingress_of(view)
        for node in view.all(Node):
            if node.ingress_address and ingress is not None:
                self._pools[ingress.id].hold(node.ingress_address, node.id)

    def is_full(self, network_id: NetworkId) -> bool:
        """Whether a network has no free address."""
        return self._pools[network_id].is_full

    def take(self, network_id: NetworkId, owner: str) -> str:
        """The next free address of a network that has one."""
        pool = self._pools[network_id]
        address = pool.take(owner)
        self._cursors.hosts[network_id] = pool.cursor
        return address

    def take_for_node(self, network_id: NetworkId, node_id: str) -> str:
        """The lowest free address. Nodes number their routing tables by it, of which there are
        fewer than a busy cluster's tasks have addresses in turn."""
        return self._pools[network_id].take_lowest(node_id)

    def why_not(self, network: Network) -> str:
        """Why a network gives no address; empty if it does."""
        if network.is_removing:
            return f"network {network.name} is being removed"
        if network.vni is None:
            why = network.message or "it is being made"
            return f"network {network.name} has no addresses yet: {why}"
        if not self.is_full(network.id):
            return ""
        count = self._pools[network.id].size
        text = f"all {count} of {network.subnet} are in use"
        return f"network {network.name} has no free address: {text}"


def vip_networks(view: View, service: Service) -> list[Network]:
    """The networks that a service is to have a virtual address on, in the order of its spec."""
    if service.is_removing or service.spec.endpoint_mode is not EndpointMode.VIP:
        return []
    rows = (view.named(Network, use.network) for use in service.spec.task.networks)
    return [row for row in rows if row is not None and not row.is_removing]


def is_vip_due(view: View, service: Service) -> bool:
    """Whether a service's virtual addresses may have to change."""
    if service.is_removing or not (service.vips or service.spec.task.networks):
        return False
    due = {network.id for network in vip_networks(view, service)}
    return due != {vip.network_id for vip in service.vips}


def filled_vips(view: View, service: Service, hosts: Hosts, indexes: Numbers) -> tuple[Vip, ...]:
    """A service's virtual addresses as they should be, as far as there are any to be had."""
    if service.is_removing:
        return service.vips
    had = {vip.network_id: vip for vip in service.vips}
    filled = []
    for network in vip_networks(view, service):
        vip = had.pop(network.id, None)
        if vip is None and not hosts.why_not(network):
            index = indexes.take()
            if index is not None:
                address = hosts.take(network.id, service.id)
                vip = Vip(network_id=network.id, index=index, address=address)
        if vip is not None:
            filled.append(vip)
    if service.spec.endpoint_mode is EndpointMode.VIP:
        filled += [vip for vip in had.values() if _has_live_task(view, service, vip.network_id)]
    return tuple(filled)


def vip_indexes(view: View, cursors: Cursors) -> Numbers:
    """The numbers of virtual addresses, of which the cluster has one plan for all networks."""
    indexes = Numbers(1, RELAY_VIPS - 1, cursors.vip)
    for service in view.all(Service):
        for vip in service.vips:
            indexes.hold(vip.index, f"service {service.name}")
    return indexes


def _has_live_task(view: View, service: Service, network_id: NetworkId) -> bool:
    return any(
        holds_addresses(task) and any(at.network_id == network_id for at in task.attachments)
        for task in view.tasks_of_service(service.id)
    )


def unused_networks(view: View) -> list[Network]:
    """Of the networks that are to go, those that nobody is on any more."""
    going = {row.id: row for row in view.all(Network) if row.is_removing}
    if not going:
        return []
    for service in view.all(Service):
        for vip in service.vips:
            going.pop(vip.network_id, None)
        for use in service.spec.task.networks:
            row = view.named(Network, use.network)
            going.pop(row.id if row is not None else NetworkId(""), None)
    for task in view.all(Task):
        if task.attachments and holds_addresses(task):
            for attachment in task.attachments:
                going.pop(attachment.network_id, None)
    return list(going.values())


def needs_ingress_address(node: Node) -> bool:
    """Whether a node lacks its address on the ingress network: a netproxy of it opens ports."""
    return bool(node.description.mesh_address) and not node.ingress_address


def is_anything_due(view: View) -> bool:
    """Whether networks, services or nodes may lack something; cheap, and asked often."""
    return (
        ingress_of(view) is None
        or any(row.vni is None or row.is_removing for row in view.all(Network))
        or any(is_vip_due(view, service) for service in view.all(Service))
        or any(needs_ingress_address(node) for node in view.all(Node))
    )
