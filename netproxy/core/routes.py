"""From what the managers say to what this node must do: which ports, and what is behind each.

A task on this node is reached directly. A task on another node is only ever reached by way of that
node's mesh address: `Candidate.mesh_address` being set is the one thing that decides this.

A port in host mode is there only on nodes with a task behind it, and leads to none but these.

Where virtual addresses are this node's own loopback addresses, a service's is listened on at the
service's ports, published and exposed, and leads to all of its tasks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from skep.domain.address import parse_address, parse_host
from skep.domain.base import NetworkId, NodeId, ServiceId, Struct, TaskId, replace
from skep.domain.endpoints import Endpoint, MeshNode, NetworkEntry, ServiceEndpoints
from skep.domain.objects import Vip
from skep.domain.spec import Balance, Port, PortMode, Protocol, ProxyProtocol
from skep.env import Rejected
from skep.netproxy.core.steps import changed
from skep.netproxy.core.world import World

VipForm = Callable[[Vip], str]
"""Where a virtual address is on this node."""
ProxyVersion = Literal["", "v1", "v2"]
PROXY_VERSIONS: Mapping[ProxyProtocol, ProxyVersion] = {
    ProxyProtocol.NONE: "",
    ProxyProtocol.V1: "v1",
    ProxyProtocol.V2: "v2",
}
# More than a cluster has tasks; some 200 bytes each.
_HOSTS_REMEMBERED = 1 << 17
NO_NETWORKS: Mapping[NetworkId, NetworkEntry] = {}


class Candidate(Struct, frozen=True, kw_only=True):
    """A task that may be given a connection. `mesh_address` None: it is on this node."""

    task_id: TaskId
    address: str
    mesh_address: str | None = None


class Route(Struct, frozen=True, kw_only=True):
    """One port that this node listens on, and the tasks behind it, by task id. `host` "" is the
    node's own address, and the port a published one; else it is a virtual address."""

    service_id: ServiceId
    service_name: str
    published: int
    target: int
    protocol: str = "tcp"
    balance: Balance
    candidates: tuple[Candidate, ...] = ()
    host: str = ""
    sends_proxy: ProxyVersion = ""
    accepts_proxy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """Everything that must be in force at `version`: `world`, and what it comes to by published
    port. `problems` are what in the managers' word can't be put in force, for the report to
    them."""

    version: int
    routes: tuple[Route, ...] = ()
    problems: tuple[str, ...] = ()
    # Not compared: routes and problems are made of it.
    world: World = field(default_factory=World, compare=False)


_Port = tuple[str, int, str]


def _port(route: Route) -> _Port:
    """What only one service may have: TCP and UDP have ports of their own."""
    return route.host, route.published, route.protocol


class Routing:
    """Builds what a node must do, anew only for services that changed: a cluster has thousands of
    endpoints, and an update is mostly about one service."""

    def __init__(self, node_id: NodeId, vip_form: VipForm | None = None) -> None:
        self._node_id = node_id
        self._vip_form = vip_form
        self._services: Mapping[ServiceId, ServiceEndpoints] = {}
        self._nodes: Mapping[NodeId, MeshNode] = {}
        # What each service comes to on this node, and what of its word can't be put in force.
        self._routes_of: dict[ServiceId, tuple[Route, ...]] = {}
        self._problems_of: dict[ServiceId, tuple[str, ...]] = {}
        self._claims: dict[_Port, dict[ServiceId, Route]] = {}
        # Who has each port, by port; and what those are told who want it too.
        self._settled: dict[_Port, Route] = {}
        self._refusals: dict[_Port, tuple[str, ...]] = {}

    def build(
        self,
        version: int,
        services: Mapping[ServiceId, ServiceEndpoints],
        nodes: Mapping[NodeId, MeshNode],
        networks: Mapping[NetworkId, NetworkEntry] = NO_NETWORKS,
    ) -> Desired:
        """What must be in force at `version`."""
        is_same_mesh = nodes is self._nodes or nodes == self._nodes
        told = changed(self._services, services)
        if not is_same_mesh:
            told = {**self._services, **services}
        self._services, self._nodes = services, nodes
        ports: set[_Port] = set()
        for service_id in told:
            ports |= self._follow(service_id, services.get(service_id))
        self._settle(ports)
        by_service, by_port = sorted(self._problems_of.items()), sorted(self._refusals.items())
        texts_of = (each for _, texts in (*by_service, *by_port) for each in texts)
        return Desired(
            version=version,
            routes=tuple(self._settled.values()),
            problems=tuple(dict.fromkeys(texts_of)),
            world=World(version, services, nodes, networks),
        )

    def _follow(self, service_id: ServiceId, service: ServiceEndpoints | None) -> set[_Port]:
        """Take a service's word in place of its former one; the ports that either speaks of."""
        self._problems_of.pop(service_id, None)
        before = {_port(route) for route in self._routes_of.pop(service_id, ())}
        for port in before:
            del self._claims[port][service_id]
        if service is None:
            return before
        routes, problems = _understand(self._node_id, service, self._nodes, self._vip_form)
        if problems:
            self._problems_of[service_id] = problems
        if routes:
            self._routes_of[service_id] = routes
        for route in routes:
            self._claims.setdefault(_port(route), {})[service_id] = route
        return before | {_port(route) for route in routes}

    def _settle(self, ports: Iterable[_Port]) -> None:
        """Who of those that want a port has it. That is one service but for moments, such as
        between a change of a service's host port and the end of its old tasks: then whoever has
        the port keeps it, and no client is led to a stranger."""
        has_new = False
        for port in ports:
            self._refusals.pop(port, None)
            claims = [route for _, route in sorted(self._claims[port].items())]
            if not claims:
                del self._claims[port]
                self._settled.pop(port, None)
                continue
            before = self._settled.get(port)
            has_new |= before is None
            holder = claims[0]
            if before is not None:
                known = (each for each in claims if each.service_id == before.service_id)
                holder = next(known, holder)
            self._settled[port] = holder
            if len(claims) > 1:
                self._refusals[port] = tuple(
                    f"{each.service_name}: port {each.published}: {holder.service_name} has it"
                    for each in claims
                    if each is not holder
                )
        if has_new:
            self._settled = dict(sorted(self._settled.items()))

    def check_invariants(self) -> None:
        """Called by tests after every step."""
        assert list(self._settled) == sorted(self._claims)
        assert self._refusals.keys() == {p for p, each in self._claims.items() if len(each) > 1}
        for port, route in self._settled.items():
            assert self._claims[port][route.service_id] is route
        claimed = {id(route) for each in self._claims.values() for route in each.values()}
        assert claimed == {id(route) for each in self._routes_of.values() for route in each}
        assert self._routes_of.keys() | self._problems_of.keys() <= self._services.keys()


def build(
    node_id: NodeId,
    version: int,
    services: Iterable[ServiceEndpoints],
    nodes: Mapping[NodeId, MeshNode],
) -> Desired:
    """What node `node_id` must do."""
    return Routing(node_id).build(version, {s.service_id: s for s in services}, nodes)


def _understand(
    node_id: NodeId,
    service: ServiceEndpoints,
    nodes: Mapping[NodeId, MeshNode],
    vip_form: VipForm | None,
) -> tuple[tuple[Route, ...], tuple[str, ...]]:
    """What one service's word comes to on this node, and what of it can't be put in force."""
    problems: dict[str, None] = {}
    here = tuple(each for each in service.endpoints if each.node_id == node_id)
    vips = [vip_form(vip) for vip in service.vips] if vip_form is not None else []
    is_for_all = bool(vips) or any(port.mode is PortMode.INGRESS for port in service.ports)
    endpoints = service.endpoints if is_for_all else here
    candidates = tuple(_candidates(node_id, service, endpoints, nodes, problems))
    local = tuple(each for each in candidates if each.mesh_address is None)
    routes = []
    for port in service.ports:
        behind = candidates if port.mode is PortMode.INGRESS else local
        # Without a number, the allocator has not picked one yet.
        if port.published is not None and (local or port.mode is PortMode.INGRESS):
            routes.append(_route(service, port, "", port.published, behind))
    for vip in vips:
        routes += [_route(service, p, vip, p.target, candidates) for p in inside(service)]
    return tuple(routes), tuple(problems)


def inside(service: ServiceEndpoints) -> tuple[Port, ...]:
    """The ports by which other services reach a service, each once. A header for the world's
    clients is not for them: they come without a proxy between."""
    found: dict[tuple[int, Protocol], Port] = {}
    for port in service.exposed:
        found[port.target, port.protocol] = Port(target=port.target, protocol=port.protocol)
    for each in service.ports:
        plain = replace(each, proxy_protocol=ProxyProtocol.NONE, accepts_proxy_protocol=False)
        found[each.target, each.protocol] = plain
    return tuple(found.values())


def _route(
    service: ServiceEndpoints,
    port: Port,
    host: str,
    number: int,
    candidates: tuple[Candidate, ...],
) -> Route:
    return Route(
        service_id=service.service_id,
        service_name=service.name,
        published=number,
        target=port.target,
        protocol=port.protocol.value,
        balance=port.balance,
        candidates=candidates,
        host=host,
        sends_proxy=PROXY_VERSIONS[port.proxy_protocol],
        accepts_proxy=port.accepts_proxy_protocol,
    )


# All tasks of a service are looked at when one of them comes or goes.
_parse_host = functools.lru_cache(_HOSTS_REMEMBERED)(parse_host)


def _candidates(
    node_id: NodeId,
    service: ServiceEndpoints,
    endpoints: Iterable[Endpoint],
    nodes: Mapping[NodeId, MeshNode],
    problems: dict[str, None],
) -> Iterator[Candidate]:
    for endpoint in sorted(endpoints, key=lambda e: e.task_id):
        mesh_address = None
        try:
            address = _parse_host(endpoint.address)
            if endpoint.node_id != node_id:
                node = nodes.get(endpoint.node_id)
                if node is None:
                    raise Rejected(f"its node {endpoint.node_id} has no mesh address")
                parse_address(node.mesh_address)
                mesh_address = node.mesh_address
        except Rejected as error:
            problems[f"{service.name}: task {endpoint.task_id} can't be reached: {error}"] = None
            continue
        yield Candidate(task_id=endpoint.task_id, address=address, mesh_address=mesh_address)
