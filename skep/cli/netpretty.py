"""`network inspect --pretty`, and what else is told of networks and virtual addresses. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from skep.cli.rows import port_row, ports_of, ports_text
from skep.domain.address import RELAY_VIPS, relay_vip
from skep.domain.base import NodeId
from skep.domain.control import NetworkView, ServiceView
from skep.domain.objects import Node, Task, Vip
from skep.domain.spec import EndpointMode

Line = tuple[int, str, str]
"""How far it is indented, its name, and what it says; empty for a heading."""

KERNEL = "kernel"
RELAY = "relay"
# Of a virtual address that each node has in a form of its own.
NODES_SHOWN = 3
NUMBER_LIMIT = 31


@dataclass(frozen=True)
class Scene:
    """What there is around networks. `block` is that of the cluster's loopback plan."""

    nodes: Sequence[Node] = ()
    services: Sequence[ServiceView] = ()
    tasks: Sequence[Task] = ()
    networks: Sequence[NetworkView] = ()
    block: int = 0

    def network_name(self, network_id: str) -> str:
        """A network's name, or its id where that isn't known."""
        names = {view.network.id: view.network.name for view in self.networks}
        return names.get(network_id, network_id)  # type: ignore[call-overload, no-any-return]

    def node(self, node_id: NodeId | None) -> Node | None:
        """A node by its id."""
        return next((node for node in self.nodes if node.id == node_id), None)


def vip_text(vip: Vip, scene: Scene) -> str:
    """A virtual address as tasks know it: one in the kernel plane, and in the relay plane one of
    each node's own."""
    workers = [node for node in scene.nodes if node.runs_tasks]
    forms = []
    if not workers or any(node.description.plane == KERNEL for node in workers):
        forms.append(vip.address)
    if 0 < vip.index < RELAY_VIPS:
        numbers = {
            node.name: number
            for node in workers
            if node.description.plane == RELAY and (number := _number(node, scene.block))
        }
        forms += [
            f"{relay_vip(scene.block, number, vip.index)} on {name}"
            for name, number in list(numbers.items())[:NODES_SHOWN]
        ]
        if len(numbers) > NODES_SHOWN:
            forms.append(f"and so on {len(numbers) - NODES_SHOWN} more")
    return ", ".join(forms) or vip.address


def _number(node: Node, block: int) -> int:
    """A node's number in the loopback plan; 0 where it isn't in one."""
    prefix, _, last = node.description.address.rpartition(".")
    number = int(last) if prefix == f"127.{block}.0" and last.isdigit() else 0
    return number if number <= NUMBER_LIMIT else 0


def service_lines(view: ServiceView, scene: Scene) -> Iterator[Line]:
    """Where a service is to be found: its networks, its names there, its virtual addresses."""
    service = view.service
    yield 0, "Endpoint Mode", service.spec.endpoint_mode.value
    if not service.spec.task.networks:
        return
    yield 0, "Networks", ""
    vips = {scene.network_name(vip.network_id): vip for vip in service.vips}
    for use in service.spec.task.networks:
        vip = vips.get(use.network)
        at = [vip_text(vip, scene)] if vip else []
        names = [f"as {', '.join(use.aliases)}"] if use.aliases else []
        yield 1, use.network, "; ".join((*at, *names)) or "no address yet"


def network_lines(view: NetworkView, scene: Scene) -> Iterator[Line]:
    """One network, and who is on it."""
    network = view.network
    spec = network.spec
    yield 0, "ID", network.id
    yield 0, "Name", network.name
    yield 0, "Driver", spec.driver
    yield 0, "Subnet", network.subnet or "none yet"
    if network.gateway:
        yield 0, "Gateway", network.gateway
    if network.vni is not None:
        yield 0, "VXLAN id", str(network.vni)
    if network.message:
        yield 0, "Message", network.message
    marks = {
        "for published ports": network.is_ingress,
        "internal": spec.is_internal,
        "attachable": spec.is_attachable,
        "encrypted": spec.is_encrypted,
        "being removed": network.is_removing,
    }
    if any(marks.values()):
        yield 0, "Is", ", ".join(mark for mark, is_so in marks.items() if is_so)
    for name, pairs in (("Labels", spec.labels), ("Options", spec.options)):
        if pairs:
            yield 0, name, ""
            yield from ((1, key, value or '""') for key, value in pairs)
    yield from _users(view, scene)


def _users(view: NetworkView, scene: Scene) -> Iterator[Line]:
    network_id = view.network.id
    services = [each.service for each in scene.services if each.service.name in view.services]
    yield 0, "Services", "" if services else "none"
    for service in services:
        vips = [vip_text(vip, scene) for vip in service.vips if vip.network_id == network_id]
        if view.network.is_ingress:
            vips = [ports_text(port_row(port) for port in ports_of(service))]
        elif service.spec.endpoint_mode is EndpointMode.DNSRR:
            vips = ["the addresses of its tasks (dnsrr)"]
        uses = [use for use in service.spec.task.networks if use.network == view.network.name]
        names = [f"as {', '.join(use.aliases)}" for use in uses if use.aliases]
        yield 1, service.name, "; ".join((*vips, *names)) or "no address yet"
    held = [
        (task, at.address)
        for task in scene.tasks
        if not task.is_terminal
        for at in task.attachments
        if at.network_id == network_id
    ]
    yield 0, "Tasks", "" if held else "none"
    for task, address in held:
        node = scene.node(task.node_id)
        where = f" on {node.name}" if node else ""
        if node and node.description.plane == RELAY and task.address:
            # There is no such address in this plane; names lead to the task's own.
            address = task.address
        yield 1, task.name, f"{address}{where}"
