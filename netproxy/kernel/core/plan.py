"""What the managers' word comes to in this node's kernel: all that services come to (`understood`),
and what there is of networks and nodes.

A network is there on a node that has a task on it, with an entry for each of its tasks elsewhere,
also for those that don't serve (yet, or any more): they are to be reachable by address. On an
encrypted network, nodes are reached by their addresses in the tunnel alone.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from skep.domain.base import NetworkId, NodeId, ServiceId
from skep.domain.endpoints import MeshNode, NetworkEntry, ServiceEndpoints
from skep.env import Retryable
from skep.netproxy.core.steps import Stepped, changed
from skep.netproxy.core.world import World
from skep.netproxy.kernel.core.ingress import IngressPort
from skep.netproxy.kernel.core.keys import parse_key
from skep.netproxy.kernel.core.links import Network, Peer
from skep.netproxy.kernel.core.names import is_address
from skep.netproxy.kernel.core.sources import NODE_NUMBER_LIMIT, SourceRoute
from skep.netproxy.kernel.core.tunnel import Tunnel, TunnelPeer
from skep.netproxy.kernel.core.understood import NOTHING, Known, Surroundings, VipKey, understand
from skep.netproxy.relay.core.protocol import Listener

# Where a relay listens. What comes to the node's own addresses is translated before it gets there,
# unless the port is all the relay's; but a port that something else has is noticed by it.
ANY_HOST = "0.0.0.0"
ANY_HOST_6 = "::"
# Of what should be an address.
ADDRESS_SHOWN = 40


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
class _Claimed:
    """All ports, with their services' names, and listeners, each once."""

    ports: tuple[IngressPort, ...]
    names: Mapping[tuple[str, int], str]
    listeners: tuple[Listener, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Mesh:
    """What there is of nodes, and what is wrong with it. There is a tunnel where one is needed."""

    sources: tuple[SourceRoute, ...]
    tunnel: Tunnel
    tunnel_problems: tuple[str, ...]
    problems: tuple[str, ...]


class Planner:
    """Makes plans, each of the one before: what a service's change costs hardly depends on how many
    others there are. A part that hasn't changed is the very same object in the next plan. `key` is
    this node's public WireGuard key, if it has one."""

    def __init__(self, node_id: NodeId, *, has_ipv6: bool = True, key: bytes | None = None) -> None:
        self._node_id = node_id
        self._key = key
        self._hosts = (ANY_HOST, ANY_HOST_6) if has_ipv6 else (ANY_HOST,)
        self._services: Mapping[ServiceId, ServiceEndpoints] = {}
        self._nodes: Mapping[NodeId, MeshNode] = {}
        self._networks: Mapping[NetworkId, NetworkEntry] = {}
        self._known: dict[ServiceId, Known] = {}
        # Of these services others must know: they are few where most are reached by names alone.
        self._claiming: dict[ServiceId, Known] = {}
        # Parts of the plan; None of what must be made anew of all that is known.
        self._vips: Stepped[VipKey, tuple[str, ...]] | None = None
        self._vip_names: dict[VipKey, str] = {}
        self._moved_vips: dict[VipKey, tuple[str, ...] | None] = {}
        self._has_rivals = False
        self._claimed: _Claimed | None = None
        self._peers: tuple[frozenset[NetworkId], dict[str, tuple[Peer, ...]]] | None = None
        self._mesh: _Mesh | None = None

    def plan(self, world: World) -> KernelPlan:
        """The plan of a world."""
        told: Iterable[ServiceId] = changed(self._services, world.services)
        if world.nodes != self._nodes or world.networks != self._networks:
            told = {**self._services, **world.services}
            self._peers = self._mesh = None
        self._services = world.services
        self._nodes, self._networks = world.nodes, world.networks
        around = Surroundings(self._node_id, self._hosts, world.nodes, world.networks)
        for service_id in told:
            service = world.services.get(service_id)
            now = NOTHING if service is None else understand(around, service)
            self._follow(service_id, self._known.get(service_id, NOTHING), now)
        return self._whole(world, around.ingress)

    def _follow(self, service_id: ServiceId, before: Known, now: Known) -> None:
        """Take what a service comes to in place of what it did before."""
        self._known.pop(service_id, None)
        self._claiming.pop(service_id, None)
        if now is not NOTHING:
            self._known[service_id] = now
        if now.claims:
            self._claiming[service_id] = now
        if now.peers != before.peers:
            self._peers = None
        if now.claims != before.claims:
            self._claimed = None
        if now.vips.keys() != before.vips.keys() or now.name != before.name:
            self._vips = None
        elif now.vips != before.vips:
            self._moved_vips.update(now.vips)

    def _whole(self, world: World, ingress: NetworkEntry | None) -> KernelPlan:
        me = world.nodes.get(self._node_id)
        address = me.ingress_address if me is not None and ingress is not None else ""
        wanted = {i for i in world.here if i in world.networks}
        if address and ingress is not None:
            wanted.add(ingress.network_id)
        networks = tuple(_network(world.networks[i]) for i in sorted(wanted))
        mesh = self._mesh = self._mesh or self._of_nodes(ingress, address)
        claimed = self._claimed = self._claimed or self._claims()
        problems, tunnel = claimed.problems + mesh.problems, None
        if any(network.is_encrypted for network in networks) and address:
            tunnel = mesh.tunnel
            problems += mesh.tunnel_problems
        return KernelPlan(
            version=world.version,
            networks=networks,
            peers=self._peers_on(frozenset(wanted), ingress),
            vips=self._all_vips(),
            ports=claimed.ports,
            sources=mesh.sources,
            listeners=claimed.listeners,
            ingress=ingress,
            ingress_address=address,
            tunnel=tunnel,
            problems=problems,
            vip_names=self._vip_names,
            port_names=claimed.names,
        )

    def _all_vips(self) -> Mapping[VipKey, tuple[str, ...]]:
        """For moments two services may have one address, and the one with the greater id has it."""
        moved, self._moved_vips = self._moved_vips, {}
        if self._vips is not None and not (moved and self._has_rivals):
            self._vips = self._vips.after(moved)
            return self._vips
        vips: dict[VipKey, tuple[str, ...]] = {}
        self._vip_names = {}
        for _, known in sorted(self._known.items(), key=_by_id):
            vips.update(known.vips)
            self._vip_names.update(dict.fromkeys(known.vips, known.name))
        self._has_rivals = sum(len(k.vips) for k in self._known.values()) > len(vips)
        self._vips = Stepped(vips)
        return self._vips

    def _peers_on(
        self, wanted: frozenset[NetworkId], ingress: NetworkEntry | None
    ) -> dict[str, tuple[Peer, ...]]:
        if self._peers is not None and self._peers[0] == wanted:
            return self._peers[1]
        peers: dict[str, list[Peer]] = {network_id: [] for network_id in sorted(wanted)}
        for _, known in sorted(self._known.items(), key=_by_id):
            for (network_id, _), peer in known.peers.items():
                if network_id in peers:
                    peers[network_id].append(peer)
        if ingress is not None and ingress.network_id in peers:
            peers[ingress.network_id] += [
                Peer(node.ingress_address, node.address)
                for node in self._nodes.values()
                if node.node_id != self._node_id and node.ingress_address and node.address
            ]
        made = {network_id: tuple(each) for network_id, each in peers.items()}
        self._peers = wanted, made
        return made

    def _of_nodes(self, ingress: NetworkEntry | None, address: str) -> _Mesh:
        sources = tuple(_sources(ingress, self._nodes.values()))
        reached = tuple(s for s in sources if s.number <= NODE_NUMBER_LIMIT)
        problems: tuple[str, ...] = ()
        if len(reached) < len(sources):
            problems = ("some nodes' ingress addresses are too high to answer by them",)
        prefix_length = prefix_of(ingress) if ingress is not None else 0
        return _Mesh(reached, *self._tunnel(address, prefix_length), problems)

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
                        "no other node answers it; its agent tells them within seconds, if it runs"
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
                if is_address(node.ingress_address) and is_address(node.address):
                    names[key] = name
                    peers[key] = TunnelPeer(node.ingress_address, node.address)
                else:
                    # What a node says of itself; it goes into what WireGuard is told of all nodes.
                    problems.append(
                        f"encrypted networks: node {name} can't be reached: "
                        f"{node.address[:ADDRESS_SHOWN]!r} or "
                        f"{node.ingress_address[:ADDRESS_SHOWN]!r} is no IPv4 address"
                    )
        return Tunnel(address, prefix_length, peers), tuple(problems)

    def _claims(self) -> _Claimed:
        """For moments two services may claim one port, and the one with the smaller id has it."""
        problems: dict[str, None] = {}
        ports: dict[tuple[str, int], tuple[str, IngressPort]] = {}
        listeners: dict[tuple[str, str, int], Listener] = {}
        for _, known in sorted(self._claiming.items(), key=_by_id):
            problems.update(dict.fromkeys(known.problems))
            name = known.name
            for port in known.ports:
                holder, _ = ports.setdefault((port.protocol, port.published), (name, port))
                if holder != name:
                    problems[f"{name}: port {port.published}: {holder} has it"] = None
            for listener in known.listeners:
                key = (listener.protocol, listener.host, listener.port)
                if listeners.setdefault(key, listener).service_name != name:
                    holder = listeners[key].service_name
                    problems[f"{name}: port {listener.port}: {holder} has it"] = None
        return _Claimed(
            ports=tuple(port for _, port in ports.values()),
            names={key: name for key, (name, _) in ports.items()},
            listeners=tuple(listeners.values()),
            problems=tuple(problems),
        )

    def check_invariants(self) -> None:
        """Called by tests after every step."""
        assert self._known.keys() == self._services.keys()
        assert self._vip_names.keys() == (self._vips or {}).keys()
        for service_id, known in self._claiming.items():
            assert self._known[service_id] is known


def _by_id(item: tuple[ServiceId, Known]) -> ServiceId:
    return item[0]


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
