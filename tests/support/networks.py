"""What must hold of networks in any state of the database."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from skep.domain.base import NetworkId
from skep.domain.objects import Network, Node, Service, Task
from skep.domain.states import TaskState, order
from skep.manager.revisions import spec_of
from skep.manager.store.core.tables import View


def faults(view: View) -> list[str]:
    """What is wrong, for a person."""
    return [*_ranges(view), *_addresses(view), *_unequipped(view)]


def is_network_row(row: object) -> bool:
    """Whether `faults` may look at this row."""
    if isinstance(row, Task):
        return bool(row.attachments)
    if isinstance(row, Service):
        return bool(row.vips or row.spec.task.networks)
    return isinstance(row, Network | Node)


def _ranges(view: View) -> Iterator[str]:
    networks = [row for row in view.all(Network) if row.vni is not None]
    vnis = [row.vni for row in networks]
    if len(set(vnis)) < len(vnis):
        yield f"a VXLAN id is given twice: {sorted(map(str, vnis))}"
    if sum(row.is_ingress for row in view.all(Network)) > 1:
        yield "there are two ingress networks"
    nets = [ipaddress.IPv4Network(row.subnet) for row in networks]
    for place, (row, net) in enumerate(zip(networks, nets, strict=True)):
        if ipaddress.IPv4Address(row.gateway) not in net:
            yield f"the gateway of {row.name} is {row.gateway}, outside of {net}"
        for other, its in zip(networks[:place], nets, strict=False):
            are_asked = bool(row.spec.subnet and other.spec.subnet)
            # What is asked for later may lie over what was given out before.
            if not are_asked and net.overlaps(its) and not row.spec.subnet:
                yield f"{row.name} ({net}) overlaps with {other.name} ({its})"


def _addresses(view: View) -> Iterator[str]:
    nets = {
        row.id: (row.name, ipaddress.IPv4Network(row.subnet))
        for row in view.all(Network)
        if row.vni is not None
    }
    owners: dict[tuple[NetworkId, str], str] = {}
    for network_id, address, owner in _held(view):
        if network_id not in nets:
            yield f"{owner} has {address} on a network that is gone"
            continue
        name, net = nets[network_id]
        number = ipaddress.IPv4Address(address)
        if number not in net or number in (net[0], net[-1]):
            yield f"{owner} has {address} on {name}, which is {net}"
        other = owners.setdefault((network_id, address), owner)
        if other != owner:
            yield f"{address} on {name} is that of {other} and of {owner}"
    indexes = [vip.index for service in view.all(Service) for vip in service.vips]
    if len(set(indexes)) < len(indexes):
        yield f"a virtual address has another one's index: {sorted(indexes)}"


def _held(view: View) -> Iterator[tuple[NetworkId, str, str]]:
    for network in view.all(Network):
        if network.vni is not None:
            yield network.id, network.gateway, f"gateway of {network.name}"
    for service in view.all(Service):
        for vip in service.vips:
            yield vip.network_id, vip.address, f"service {service.name}"
    for task in view.all(Task):
        if not task.is_terminal:
            for attachment in task.attachments:
                yield attachment.network_id, attachment.address, f"task {task.id}"
    ingress = next((row for row in view.all(Network) if row.is_ingress), None)
    for node in view.all(Node):
        if node.ingress_address:
            assert ingress is not None
            yield ingress.id, node.ingress_address, f"node {node.name}"


def _unequipped(view: View) -> Iterator[str]:
    """A task that may be placed is on all networks of its own revision, and on no others."""
    for task in view.all(Task):
        is_placeable = order(TaskState.PENDING) <= order(task.status.state)
        spec = spec_of(view, task.service_id, task.revision)
        if not is_placeable or task.is_terminal or spec is None:
            continue
        names = {use.network for use in spec.task.networks}
        if spec.ports:
            # Also in host mode: it is the way from a node's own namespace to its tasks'.
            names.add("ingress")
        rows = (view.get(Network, attachment.network_id) for attachment in task.attachments)
        has = {row.name if row is not None else "?" for row in rows}
        if has != names:
            yield f"task {task.id} is on {sorted(has)}, its spec says {sorted(names)}"
