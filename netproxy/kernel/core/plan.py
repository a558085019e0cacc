"""What the managers' word comes to in this node's kernel.

A virtual address leads to the addresses of healthy tasks on its network. A published port leads
to those on the ingress network, unless it speaks the PROXY protocol: a header can only be said by
somebody in user space, so such a port is the relay workers'. These also serve what the kernel's
translation can't: loopback addresses, and IPv6.

A network is there on a node that has a task on it, with an entry for each of its tasks elsewhere,
also for those that don't serve (yet, or any more): they are to be reachable by address. On an
encrypted network, nodes are reached by their addresses in the tunnel alone.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from skep.domain.base import NetworkId, NodeId, ServiceId
from skep.domain.endpoints import Endpoint, MeshNode, NetworkEntry, ServiceEndpoints
from skep.domain.spec import Port, PortMode, ProxyProtocol
from skep.env import Retryable
from skep.netproxy.core.routes import PROXY_VERSIONS
from skep.netproxy.core.world import World
from skep.netproxy.kernel.core.ingress import IngressPort
from skep.netproxy.kernel.core.keys import parse_key
from skep.netproxy.kernel.core.links import Network, Peer
from skep.netproxy.kernel.core.sources import NODE_NUMBER_LIMIT, SourceRoute
from skep.netproxy.kernel.core.tunnel import Tunnel, TunnelPeer
from skep.netproxy.relay.core.protocol import Candidate, Listener

VipKey = tuple[int, str]
"""A network's VXLAN id, and a virtual address on it."""

# Where a relay listens. What comes to the node's own addresses is translated before it gets there,
# unless the port is all the relay's; but a port that something else has is noticed by it.
ANY_HOST = "0.0.0.0"
ANY_HOST_6 = "::"


@dataclass(frozen=True)
class KernelPlan:
    """Everything that must be in force at one version. `peers` are by network id, `vips` lead to
    addresses of tasks. There is a `tunnel` where one of the networks is encrypted. The names are
    those of the services, for whoever counts."""

    version: int = 0
    networks: tuple[Network, ...] = ()
    peers: Mapping[str, tuple[Peer, ...]] = field(default_factory=dict)
    vips: Mapping[VipKey, tuple[str, ...]] = field(default_factory=dict)
    ports: tuple[IngressPort, ...] = ()
    sources: tuple[SourceRoute, ...] = ()
    listeners: tuple[Listener, ...] = ()
    ingress: NetworkEntry | None = None
    ingress_address: str = ""
    tunnel: Tunnel | None = None
    problems: tuple[str, ...] = ()
    vip_names: Mapping[VipKey, str] = field(default_factory=dict)
    port_names: Mapping[tuple[str, int], str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Known:
    """What one service comes to, for as long as its word doesn't change."""

    service: ServiceEndpoints
    peers: tuple[tuple[NetworkId, Peer], ...]
    vips: tuple[tuple[VipKey, tuple[str, ...]], ...]
    ports: tuple[IngressPort, ...]
    listeners: tuple[Listener, ...]
    problems: tuple[str, ...]


class Planner:
    """Makes plans, anew only for services that changed. `key` is this node's public WireGuard key,
    if it has one."""

    def __init__(self, node_id: NodeId, *, has_ipv6: bool = True, key: bytes | None = None) -> None:
        self._node_id = node_id
        self._key = key
        self._hosts = (ANY_HOST, ANY_HOST_6) if has_ipv6 else (ANY_HOST,)
        self._nodes: Mapping[NodeId, MeshNode] = {}
        self._networks: Mapping[NetworkId, NetworkEntry] = {}
        self._known: dict[ServiceId, _Known] = {}

    def plan(self, world: World) -> KernelPlan:
        """The plan of a world."""
        is_same = world.nodes == self._nodes and world.networks == self._networks
        before = self._known if is_same else {}
        self._nodes, self._networks = world.nodes, world.networks
        ingress = next((n for n in world.networks.values() if n.is_ingress), None)
        self._known = {}
        for service_id, service in sorted(world.services.items()):
            known = before.get(service_id)
            if known is None or known.service is not service:
                known = self._understand(service, ingress)
            self._known[service_id] = known
        return self._whole(world, ingress)

    def _whole(self, world: World, ingress: NetworkEntry | None) -> KernelPlan:
        me = world.nodes.get(self._node_id)
        address = me.ingress_address if me is not None and ingress is not None else ""
        wanted = {i for i in world.here if i in world.networks}
        if address and ingress is not None:
            wanted.add(ingress.network_id)
        peers: dict[str, list[Peer]] = {network_id: [] for network_id in sorted(wanted)}
        for known in self._known.values():
            for network_id, peer in known.peers:
                if network_id in peers:
                    peers[network_id].append(peer)
        if ingress is not None and ingress.network_id in peers:
            peers[ingress.network_id] += [
                Peer(node.ingress_address, node.address)
                for node in world.nodes.values()
                if node.node_id != self._node_id and node.ingress_address and node.address
            ]
        ports, listeners, problems = self._claims()
        sources = tuple(_sources(ingress, world.nodes.values()))
        reached = [s for s in sources if s.number <= NODE_NUMBER_LIMIT]
        if len(reached) < len(sources):
            problems += ("some nodes' ingress addresses are too high to answer by them",)
        networks = tuple(_network(world.networks[i]) for i in sorted(wanted))
        tunnel = None
        if any(network.is_encrypted for network in networks) and address and ingress is not None:
            tunnel, unsure = self._tunnel(address, prefix_of(ingress))
            problems += unsure
        return KernelPlan(
            version=world.version,
            networks=networks,
            peers={network_id: tuple(each) for network_id, each in peers.items()},
            vips={key: backends for known in self._known.values() for key, backends in known.vips},
            ports=tuple(port for _, port in ports),
            sources=tuple(reached),
            listeners=listeners,
            ingress=ingress,
            ingress_address=address,
            tunnel=tunnel,
            problems=problems,
            vip_names={
                key: known.service.name for known in self._known.values() for key, _ in known.vips
            },
            port_names={(port.protocol, port.published): name for name, port in ports},
        )

    def _tunnel(self, address: str, prefix_length: int) -> tuple[Tunnel, tuple[str, ...]]:
        """All nodes that can encrypt; and what is wrong with the keys."""
        problems: list[str] = []
        peers: dict[bytes, TunnelPeer] = {}
        names: dict[bytes, str] = {}
        for node in sorted(self._nodes.values(), key=lambda node: node.node_id):
            key, name = parse_key(node.wireguard_key), node.name or node.node_id
            if node.node_id == self._node_id:
                if self._key is not None and key != self._key:
                    problems.append(
                        "encrypted networks: managers don't have this node's WireGuard key, and so "
                        "no other node answers it; restart its agent, which tells them"
                    )
            elif node.wireguard_key and key is None:
                problems.append(
                    f"encrypted networks: node {name} tells a WireGuard key that is none"
                )
            elif key is not None and (key == self._key or key in peers):
                problems.append(
                    f"encrypted networks: node {name} has the WireGuard key of "
                    f"{names.get(key, 'this node')}, and can't be reached; give it a state folder "
                    "of its own"
                )
            elif key is not None and node.ingress_address and node.address:
                names[key] = name
                peers[key] = TunnelPeer(node.ingress_address, node.address)
        return Tunnel(address, prefix_length, peers), tuple(problems)

    def _claims(
        self,
    ) -> tuple[tuple[tuple[str, IngressPort], ...], tuple[Listener, ...], tuple[str, ...]]:
        """All ports, with their services' names, and listeners, each once: for moments two services
        may claim one port, and the one with the smaller id has it."""
        problems: dict[str, None] = {}
        ports: dict[tuple[str, int], tuple[str, IngressPort]] = {}
        listeners: dict[tuple[str, str, int], Listener] = {}
        for known in self._known.values():
            problems.update(dict.fromkeys(known.problems))
            name = known.service.name
            for port in known.ports:
                holder, _ = ports.setdefault((port.protocol, port.published), (name, port))
                if holder != name:
                    problems[f"{name}: port {port.published}: {holder} has it"] = None
            for listener in known.listeners:
                key = (listener.protocol, listener.host, listener.port)
                if listeners.setdefault(key, listener).service_name != name:
                    holder = listeners[key].service_name
                    problems[f"{name}: port {listener.port}: {holder} has it"] = None
        return (
            tuple(ports.values()),
            tuple(listeners.values()),
            tuple(problems),
        )

    # ------------------------------------------------------------------------- one service

    def _understand(self, service: ServiceEndpoints, ingress: NetworkEntry | None) -> _Known:
        problems: dict[str, None] = {}
        vips = []
        for vip in service.vips:
            network = self._networks.get(vip.network_id)
            if network is not None:
                backends = tuple(_addresses(service.endpoints, vip.network_id))
                vips.append(((network.vni, vip.address), backends))
        ports: list[IngressPort] = []
        listeners: list[Listener] = []
        for port in service.ports:
            if port.published is None:
                continue
            if ingress is None:
                problems[f"{service.name}: port {port.published}: no ingress network yet"] = None
                continue
            self._open(service, port, ingress, ports, listeners)
        return _Known(
            service=service,
            peers=tuple(self._peers(service, problems)),
            vips=tuple(vips),
            ports=tuple(ports),
            listeners=tuple(listeners),
            problems=tuple(problems),
        )

    def _open(
        self,
        service: ServiceEndpoints,
        port: Port,
        ingress: NetworkEntry,
        ports: list[IngressPort],
        listeners: list[Listener],
    ) -> None:
        assert port.published is not None
        is_host = port.mode is PortMode.HOST
        endpoints = [e for e in service.endpoints if not is_host or e.node_id == self._node_id]
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
        for host in self._hosts:
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

    def _peers(
        self, service: ServiceEndpoints, problems: dict[str, None]
    ) -> Iterator[tuple[NetworkId, Peer]]:
        for endpoint in (*service.endpoints, *service.others):
            if endpoint.node_id == self._node_id or not endpoint.attachments:
                continue
            node = self._nodes.get(endpoint.node_id)
            if node is None or not node.address:
                problems[
                    f"{service.name}: task {endpoint.task_id} can't be reached: "
                    f"its node {endpoint.node_id} has no address"
                ] = None
                continue
            for attachment in endpoint.attachments:
                network = self._networks.get(attachment.network_id)
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


def _network(entry: NetworkEntry) -> Network:
    # The gateway's address is kept free and given to nobody: a bridge with one on every node would
    # answer for it on each of them.
    return Network(
        network_id=entry.network_id,
        vni=entry.vni,
        subnet=entry.subnet,
        is_internal=entry.is_internal,
        is_encrypted=entry.is_encrypted,
    )


def _sources(ingress: NetworkEntry | None, nodes: Iterable[MeshNode]) -> Iterator[SourceRoute]:
    """The nodes that clients come in by; a node's number is its place in the ingress subnet."""
    if ingress is None:
        return
    base = int(ipaddress.ip_network(ingress.subnet).network_address)
    for node in nodes:
        if node.ingress_address:
            number = int(ipaddress.ip_address(node.ingress_address)) - base
            yield SourceRoute(number, node.ingress_address)


def prefix_of(entry: NetworkEntry) -> int:
    """The prefix length of a network's subnet."""
    return ipaddress.ip_network(entry.subnet).prefixlen


def check_apart(networks: Iterable[NetworkEntry], egress: str, own: str) -> None:
    """What a task reaches on its networks must not be what it reaches by its node's way out (the
    subnet `egress`), nor the node itself, at `own`. Raises Retryable: the cluster may change."""
    for network in networks:
        subnet = ipaddress.ip_network(network.subnet)
        if ipaddress.ip_address(own) in subnet:
            raise Retryable(
                f"network {network.name} ({subnet}) holds this node's own address {own}; "
                "make it anew with another --subnet"
            )
        if subnet.overlaps(ipaddress.ip_network(egress)):
            raise Retryable(
                f"network {network.name} ({subnet}) overlaps with {egress}, by which tasks of this "
                "node reach the world; make it anew with another --subnet, or start netproxy with "
                "another --egress-subnet"
            )
