"""What one service's word comes to in a node's kernel; see `plan` for what becomes of it.

A virtual address leads to the addresses of healthy tasks on its network. A published port leads
to those on the ingress network, unless it speaks the PROXY protocol: a header can only be said by
somebody in user space, so such a port is the relay workers'. These also serve what the kernel's
translation can't: loopback addresses, and IPv6.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from skep.domain.base import NetworkId, NodeId
from skep.domain.endpoints import Endpoint, MeshNode, NetworkEntry, ServiceEndpoints
from skep.domain.spec import Port, PortMode, ProxyProtocol
from skep.netproxy.core.routes import PROXY_VERSIONS
from skep.netproxy.kernel.core.ingress import IngressPort
from skep.netproxy.kernel.core.links import Peer
from skep.netproxy.relay.core.protocol import Candidate, Listener

VipKey = tuple[int, str]
"""A network's VXLAN id, and a virtual address on it."""


@dataclass(frozen=True, slots=True)
class Known:
    """What one service comes to, for as long as its word doesn't change. `peers` are by network
    and address."""

    name: str = ""
    peers: Mapping[tuple[NetworkId, str], Peer] = field(default_factory=dict)
    vips: Mapping[VipKey, tuple[str, ...]] = field(default_factory=dict)
    ports: tuple[IngressPort, ...] = ()
    listeners: tuple[Listener, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def claims(self) -> tuple[object, ...]:
        """What may be in the way of another service, or concern a person; () for nothing."""
        claims = (self.ports, self.listeners, self.problems)
        return (self.name, *claims) if any(claims) else ()


NOTHING = Known()
"""What a service that isn't there comes to."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a service's word is understood by: this node, the addresses that its relay listens on
    for published ports, and what there is of nodes and networks."""

    node_id: NodeId
    hosts: tuple[str, ...]
    nodes: Mapping[NodeId, MeshNode]
    networks: Mapping[NetworkId, NetworkEntry]

    @property
    def ingress(self) -> NetworkEntry | None:
        """The ingress network, once there is one."""
        return next((n for n in self.networks.values() if n.is_ingress), None)


def understand(around: Surroundings, service: ServiceEndpoints) -> Known:
    """What a service comes to here."""
    ingress = around.ingress
    problems: dict[str, None] = {}
    vips = {}
    for vip in service.vips:
        network = around.networks.get(vip.network_id)
        if network is not None:
            backends = tuple(_addresses(service.endpoints, vip.network_id))
            vips[network.vni, vip.address] = backends
    ports: list[IngressPort] = []
    listeners: list[Listener] = []
    for port in service.ports:
        if port.published is None:
            continue
        if ingress is None:
            problems[f"{service.name}: port {port.published}: no ingress network yet"] = None
            continue
        _open(around, service, port, ingress, ports, listeners)
    peers = {(i, peer.address): peer for i, peer in _peers_of(around, service, problems)}
    return Known(
        name=service.name,
        peers=peers,
        vips=vips,
        ports=tuple(ports),
        listeners=tuple(listeners),
        problems=tuple(problems),
    )


def _open(  # noqa: PLR0913 - what there is, and what it adds to
    around: Surroundings,
    service: ServiceEndpoints,
    port: Port,
    ingress: NetworkEntry,
    ports: list[IngressPort],
    listeners: list[Listener],
) -> None:
    assert port.published is not None
    is_host = port.mode is PortMode.HOST
    endpoints = [e for e in service.endpoints if not is_host or e.node_id == around.node_id]
    if is_host and not endpoints:
        return
    is_relayed = port.proxy_protocol is not ProxyProtocol.NONE or port.accepts_proxy_protocol
    if not is_relayed:
        ports.append(
            IngressPort(
                protocol=port.protocol.value,
                published=port.published,
                target=port.target,
                backends=tuple(_addresses(endpoints, ingress.network_id)),
                is_host_mode=is_host,
            )
        )
    candidates = tuple(
        Candidate(task_id=e.task_id, address=address)
        for e in endpoints
        for address in _addresses((e,), ingress.network_id)
    )
    for host in around.hosts:
        listeners.append(
            Listener(
                host=host,
                port=port.published,
                protocol=port.protocol.value,
                service_id=service.service_id,
                service_name=service.name,
                target=port.target,
                balance=port.balance,
                candidates=candidates,
                sends_proxy=PROXY_VERSIONS[port.proxy_protocol],
                accepts_proxy=port.accepts_proxy_protocol,
            )
        )


def _peers_of(
    around: Surroundings, service: ServiceEndpoints, problems: dict[str, None]
) -> Iterator[tuple[NetworkId, Peer]]:
    for endpoint in (*service.endpoints, *service.others):
        if endpoint.node_id == around.node_id or not endpoint.attachments:
            continue
        node = around.nodes.get(endpoint.node_id)
        if node is None or not node.address:
            problems[
                f"{service.name}: task {endpoint.task_id} can't be reached: "
                f"its node {endpoint.node_id} has no address"
            ] = None
            continue
        for attachment in endpoint.attachments:
            network = around.networks.get(attachment.network_id)
            if network is None or not network.is_encrypted:
                yield attachment.network_id, Peer(attachment.address, node.address)
            elif node.wireguard_key and node.ingress_address:
                yield attachment.network_id, Peer(attachment.address, node.ingress_address)
            else:
                problems[
                    f"{service.name}: its tasks on node {node.name or node.node_id} can't be "
                    f"reached: network {network.name} is encrypted, and that node has no "
                    "WireGuard key"
                ] = None


def _addresses(endpoints: Iterable[Endpoint], network_id: NetworkId) -> Iterator[str]:
    for endpoint in endpoints:
        for attachment in endpoint.attachments:
            if attachment.network_id == network_id:
                yield attachment.address
