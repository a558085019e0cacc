"""What must come of networks on every machine once all is well: the store's word, worked out here
anew, against what is in force."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import TypeVar

from skep.domain.base import NetworkId, NodeId, TaskId
from skep.domain.endpoints import is_placed, is_serving
from skep.domain.objects import Network, Node, Service, Task
from skep.domain.spec import EndpointMode, PortMode
from skep.manager.store.core.tables import View
from skep.netproxy.dns.core.zones import Names, NetworkChange
from tests.sim.plane import Kernel

K = TypeVar("K", bound=Hashable)

Answers = dict[str, frozenset[str]]
"""Addresses by name."""
Backends = dict[tuple[int | str, int | str], frozenset[str]]
"""Addresses of tasks, by a network's VXLAN id and a virtual address, or by protocol and port."""


def expected_names(view: View) -> dict[NetworkId, Answers]:
    """What every network's names stand for."""
    return {
        network.id: _names_on(view, network)
        for network in view.all(Network)
        if network.vni is not None and not network.is_ingress
    }


def _names_on(view: View, network: Network) -> Answers:
    answers: dict[str, set[str]] = {}
    others: dict[str, set[str]] = {}
    for service in view.all(Service):
        uses = [use for use in service.spec.task.networks if use.network == network.name]
        if service.is_removing or not uses:
            continue
        tasks = {task.name: _address(task, network.id) for task in _serving(view, service)}
        there = {address for address in tasks.values() if address}
        vips = {vip.address for vip in service.vips if vip.network_id == network.id}
        mine = there if service.spec.endpoint_mode is EndpointMode.DNSRR else vips
        answers[service.name] = mine
        answers[f"tasks.{service.name}"] = there
        answers.update((name, {address}) for name, address in tasks.items() if address)
        for alias in uses[0].aliases:
            others.setdefault(alias, set()).update(mine)
            others.setdefault(f"tasks.{alias}", set()).update(there)
    return {name: frozenset(found) for name, found in (others | answers).items()}


def expected_backends(view: View, node_id: NodeId) -> Backends:
    """Where every virtual address and published port of a node leads."""
    found: Backends = {}
    vnis = {network.id: network.vni for network in view.all(Network)}
    ingress = next((network.id for network in view.all(Network) if network.is_ingress), None)
    for service in view.all(Service):
        if service.is_removing:
            continue
        serving = list(_serving(view, service))
        for vip in service.vips:
            # Until its network is there, it leads nowhere.
            if (vni := vnis.get(vip.network_id)) is not None:
                addresses = {_address(task, vip.network_id) for task in serving}
                found[vni, vip.address] = frozenset(addresses - {""})
        for port in service.ports or ():
            is_host = port.mode is PortMode.HOST
            behind = [task for task in serving if not is_host or task.node_id == node_id]
            if ingress is not None and port.published is not None and (behind or not is_host):
                addresses = {_address(task, ingress) for task in behind}
                found[port.protocol.value, port.published] = frozenset(addresses - {""})
    return found


def why_not_connected(view: View, node: Node, kernel: Kernel, running: set[TaskId]) -> list[str]:
    """What is wrong on one machine, which runs these tasks, for a person."""
    alive = {task.id for task in view.all(Task) if is_placed(task) and task.node_id == node.id}
    attached = kernel.attached.keys()
    why = [
        f"{node.name}: {what} {sorted(tasks)}"
        for what, tasks in (
            ("attached are, and should not be,", attached - alive),
            ("not attached are", running - attached),
            ("names are answered for no task at", kernel.listens.keys() - attached),
            ("names are not answered for", running - kernel.listens.keys()),
        )
        if tasks
    ]
    names = {
        network_id: {n: frozenset(r.addresses) for n, r in zone.records.items()}
        for network_id, zone in kernel.zones.items()
    }
    why += _differences(f"{node.name}: names", names, expected_names(view))
    plan = kernel.plan
    backends: Backends = {key: frozenset(each) for key, each in plan.vips.items()}
    backends |= {(p.protocol, p.published): frozenset(p.backends) for p in plan.ports}
    why += _differences(f"{node.name}: leads", backends, expected_backends(view, node.id))
    if not why:
        why += _unreachable(view, node, kernel, running)
        why += _peers(view, node, kernel)
    return why


def _unreachable(view: View, node: Node, kernel: Kernel, running: set[TaskId]) -> Iterator[str]:
    """Every running task finds a healthy task behind the name of each service on its networks."""
    names = Names()
    for zone in kernel.zones.values():
        change = NetworkChange(
            network_id=zone.network_id, name=zone.name, changed=tuple(zone.records.values())
        )
        names.change_networks(1, (change,), (), is_whole=False)
    vnis = {network.id: network.vni for network in view.all(Network)}
    rows = {network.name: network.id for network in view.all(Network)}
    for task_id in sorted(running):
        asker = names.put_scope(kernel.listens[task_id].scope)
        mine = {each.network_id for each in kernel.attached[task_id].attachments}
        for service in view.all(Service):
            shared = mine & {rows.get(use.network) for use in service.spec.task.networks}
            serving = {_address(t, i) for t in _serving(view, service) for i in shared if i} - {""}
            if not serving:
                continue
            _, entry = names.find(asker, service.name)
            reached: set[str] = set()
            for address in entry.record.addresses if entry is not None else ():
                for vni in (vnis[network_id] for network_id in shared if network_id):
                    reached.update(kernel.plan.vips.get((vni or 0, address), (address,)))
            if reached.isdisjoint(serving):
                yield f"{node.name}: {service.name} leads {task_id} to {sorted(reached)}"


def _peers(view: View, node: Node, kernel: Kernel) -> Iterator[str]:
    """Every placed task elsewhere is a neighbour, on the networks that are here."""
    for network_id, found in kernel.plan.peers.items():
        ingress = next((each.id for each in view.all(Network) if each.is_ingress), None)
        wanted = {
            _address(task, NetworkId(network_id))
            for task in view.all(Task)
            if is_placed(task) and task.node_id != node.id
        }
        if network_id == ingress:
            wanted |= {each.ingress_address for each in view.all(Node) if each.id != node.id}
        there = {peer.address for peer in found}
        if there != wanted - {""}:
            yield f"{node.name}: peers on {network_id} are {sorted(there)}, not {sorted(wanted)}"


def _differences(what: str, found: Mapping[K, object], wanted: Mapping[K, object]) -> Iterator[str]:
    for key in sorted(found.keys() | wanted.keys(), key=str):
        if found.get(key) != wanted.get(key):
            yield f"{what} {key}: {found.get(key)} instead of {wanted.get(key)}"


def _serving(view: View, service: Service) -> Iterator[Task]:
    if not service.is_removing:
        yield from (t for t in view.all(Task) if t.service_id == service.id and is_serving(t))


def _address(task: Task, network_id: NetworkId) -> str:
    return next((e.address for e in task.attachments if e.network_id == network_id), "")
