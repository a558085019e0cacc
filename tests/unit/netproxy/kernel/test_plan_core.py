"""What the managers' word comes to in a node's kernel."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from skep.domain.base import NetworkId, NodeId, ServiceId, TaskId, replace
from skep.domain.endpoints import (
    Endpoint,
    MeshNode,
    NetworkEntry,
    NetworkPlace,
    ServiceEndpoints,
)
from skep.domain.objects import Attachment, Vip
from skep.domain.spec import Port, PortMode, Protocol, ProxyProtocol
from skep.env import Retryable
from skep.netproxy.core.world import World
from skep.netproxy.kernel.core.ingress import IngressPort
from skep.netproxy.kernel.core.keys import text_of
from skep.netproxy.kernel.core.links import Network, Peer
from skep.netproxy.kernel.core.plan import KernelPlan, Planner, check_apart
from skep.netproxy.kernel.core.sources import SourceRoute
from skep.netproxy.kernel.core.tunnel import Tunnel, TunnelPeer

HERE, THERE = NodeId("here"), NodeId("there")
APP, INGRESS = NetworkId("app"), NetworkId("ingress")
NETWORKS = {
    APP: NetworkEntry(
        network_id=APP, name="app", vni=4098, subnet="10.0.1.0/24", gateway="10.0.1.1"
    ),
    INGRESS: NetworkEntry(
        network_id=INGRESS, name="ingress", vni=4097, subnet="10.255.0.0/16", is_ingress=True
    ),
}
NODES = {
    node_id: MeshNode(
        node_id=node_id,
        mesh_address=f"192.0.2.{number}:7412",
        address=f"192.0.2.{number}",
        ingress_address=f"10.255.0.{number}",
        plane="kernel",
    )
    for number, node_id in ((2, HERE), (3, THERE))
}


SECRET = NetworkEntry(
    network_id=NetworkId("secret"),
    name="secret",
    vni=4099,
    subnet="10.0.9.0/24",
    is_encrypted=True,
)


def task(number: int, node_id: NodeId) -> Endpoint:
    """Task t<n>, 10.0.1.<n> on the application's network and 10.255.1.<n> on the ingress one."""
    return Endpoint(
        task_id=TaskId(f"t{number}"),
        node_id=node_id,
        address=f"127.32.16.{number}",
        attachments=(
            Attachment(network_id=APP, address=f"10.0.1.{number}"),
            Attachment(network_id=INGRESS, address=f"10.255.1.{number}"),
        ),
        name=f"web.{number}",
    )


WEB = ServiceEndpoints(
    service_id=ServiceId("web"),
    name="web",
    ports=(Port(target=80, published=8080),),
    endpoints=(task(11, HERE), task(12, THERE)),
    networks=(NetworkPlace(network_id=APP),),
    vips=(Vip(network_id=APP, index=1, address="10.0.1.2"),),
)


def plan(*services: ServiceEndpoints, here: tuple[NetworkId, ...] = (APP,)) -> KernelPlan:
    by_id = {each.service_id: each for each in services}
    return Planner(HERE).plan(World(7, by_id, NODES, NETWORKS, frozenset(here)))


def hosts(made: KernelPlan) -> list[tuple[str, int, str]]:
    return [(each.host, each.port, each.protocol) for each in made.listeners]


def test_a_service_in_the_kernel() -> None:
    made = plan(WEB)
    assert made.version == 7
    assert made.problems == ()
    assert made.vips == {(4098, "10.0.1.2"): ("10.0.1.11", "10.0.1.12")}
    assert made.ports == (IngressPort("tcp", 8080, 80, ("10.255.1.11", "10.255.1.12")),)
    assert made.peers == {
        "app": (Peer("10.0.1.12", "192.0.2.3"),),
        "ingress": (Peer("10.255.1.12", "192.0.2.3"), Peer("10.255.0.3", "192.0.2.3")),
    }
    assert made.sources == (SourceRoute(2, "10.255.0.2"), SourceRoute(3, "10.255.0.3"))
    assert made.ingress_address == "10.255.0.2"
    # Loopback and IPv6 are for user space, which also sees whether the port is free.
    assert hosts(made) == [("0.0.0.0", 8080, "tcp"), ("::", 8080, "tcp")]
    assert [c.address for c in made.listeners[0].candidates] == ["10.255.1.11", "10.255.1.12"]
    assert all(c.mesh_address is None for c in made.listeners[0].candidates)


def test_a_network_is_there_when_a_task_of_this_node_is_on_it() -> None:
    assert [n.network_id for n in plan(WEB, here=()).networks] == ["ingress"]
    assert plan(WEB).networks[0] == Network("app", 4098, "10.0.1.0/24")
    assert plan(WEB, here=(NetworkId("gone"),)).networks == plan(WEB, here=()).networks
    # Its virtual addresses cost nothing, and are there before the first task needs them.
    assert plan(WEB, here=()).vips == plan(WEB).vips


def test_tasks_that_do_not_serve_are_reached_by_address_and_nothing_else() -> None:
    draining = replace(WEB, endpoints=(task(11, HERE),), others=(task(12, THERE),))
    made = plan(draining)
    assert made.vips == {(4098, "10.0.1.2"): ("10.0.1.11",)}
    assert made.ports[0].backends == ("10.255.1.11",)
    assert made.peers == plan(WEB).peers
    empty = plan(replace(WEB, endpoints=()))
    assert empty.vips == {(4098, "10.0.1.2"): ()}
    assert empty.ports[0].backends == ()


def test_a_port_that_speaks_the_proxy_protocol_is_the_relay_s() -> None:
    port = replace(WEB.ports[0], proxy_protocol=ProxyProtocol.V2)
    made = plan(replace(WEB, ports=(port,)))
    assert made.ports == ()
    assert hosts(made) == [("0.0.0.0", 8080, "tcp"), ("::", 8080, "tcp")]
    assert {each.sends_proxy for each in made.listeners} == {"v2"}
    taken = plan(replace(WEB, ports=(replace(WEB.ports[0], accepts_proxy_protocol=True),)))
    assert taken.ports == ()
    assert all(each.accepts_proxy for each in taken.listeners)


def test_a_port_in_host_mode_is_for_tasks_of_this_node_alone() -> None:
    port = replace(WEB.ports[0], mode=PortMode.HOST)
    made = plan(replace(WEB, ports=(port,)))
    assert made.ports == (IngressPort("tcp", 8080, 80, ("10.255.1.11",), is_host_mode=True),)
    assert [c.task_id for c in made.listeners[0].candidates] == ["t11"]
    elsewhere = plan(replace(WEB, ports=(port,), endpoints=(task(12, THERE),)))
    assert (elsewhere.ports, elsewhere.listeners) == ((), ())


def test_one_port_number_for_each_protocol() -> None:
    udp = Port(target=53, published=8080, protocol=Protocol.UDP)
    made = plan(replace(WEB, ports=(*WEB.ports, udp)))
    assert [(p.protocol, p.published, p.target) for p in made.ports] == [
        ("tcp", 8080, 80),
        ("udp", 8080, 53),
    ]
    assert made.problems == ()
    other = replace(WEB, service_id=ServiceId("zeb"), name="zeb", vips=())
    both = plan(WEB, other)
    assert both.ports == plan(WEB).ports
    assert both.problems == ("zeb: port 8080: web has it",)


def test_what_is_missing_is_said() -> None:
    lone = {HERE: NODES[HERE]}
    made = Planner(HERE).plan(World(1, {WEB.service_id: WEB}, lone, NETWORKS, frozenset((APP,))))
    assert made.problems == ("web: task t12 can't be reached: its node there has no address",)
    app = {APP: NETWORKS[APP]}
    early = Planner(HERE).plan(World(1, {WEB.service_id: WEB}, NODES, app, frozenset((APP,))))
    assert early.problems == ("web: port 8080: no ingress network yet",)
    assert early.ports == ()
    unnumbered = replace(WEB, ports=(Port(target=80),))
    assert plan(unnumbered).ports == ()


def test_step_by_step_comes_to_the_same_as_at_once() -> None:
    planner = Planner(HERE)
    worlds = [
        World(1, {WEB.service_id: WEB}, NODES, NETWORKS),
        World(2, {WEB.service_id: replace(WEB, endpoints=())}, NODES, NETWORKS),
        World(3, {WEB.service_id: WEB}, {HERE: NODES[HERE]}, NETWORKS),
        World(4, {}, NODES, NETWORKS),
        World(5, {WEB.service_id: WEB}, NODES, {APP: NETWORKS[APP]}),
        World(6, {WEB.service_id: WEB}, NODES, NETWORKS),
    ]
    for world in worlds:
        assert planner.plan(world) == Planner(HERE).plan(world)


# What services say (a version of their word, or nothing), whether the other node is there, and
# whether a task of the application's network is here.
STEPS = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from("abc"), st.integers(0, 4)), st.booleans(), st.booleans()
    ),
    max_size=8,
)


def variant(name: str, number: int) -> ServiceEndpoints:
    """Ports and addresses are claimed by all, but for one variant."""
    service = replace(WEB, service_id=ServiceId(name), name=name)
    return (
        service,
        replace(service, endpoints=WEB.endpoints[:1], others=WEB.endpoints[1:]),
        replace(service, endpoints=(task(ord(name), THERE),)),
        replace(service, vips=(), ports=()),
        replace(service, vips=(Vip(network_id=APP, index=9, address=f"10.0.1.{ord(name)}"),)),
    )[number]


# Of two that have one address, the one that hasn't got it changes.
@example([({"a": 0, "b": 0}, True, True), ({"a": 1, "b": 0}, True, True)])
@given(STEPS)
def test_any_steps_come_to_the_same_as_at_once(
    steps: list[tuple[dict[str, int], bool, bool]],
) -> None:
    planner = Planner(HERE)
    held: dict[tuple[str, int], ServiceEndpoints] = {}
    for version, (said, is_there, has_task) in enumerate(steps):
        services = {
            ServiceId(name): held.setdefault((name, number), variant(name, number))
            for name, number in said.items()
        }
        nodes = NODES if is_there else {HERE: NODES[HERE]}
        here = frozenset((APP,) if has_task else ())
        world = World(version, services, nodes, NETWORKS, here)
        assert planner.plan(world) == Planner(HERE).plan(world)
        planner.check_invariants()


def test_a_part_of_the_plan_that_has_not_changed_is_the_very_same_object() -> None:
    planner = Planner(HERE)
    here = frozenset((APP,))
    first = planner.plan(World(1, {WEB.service_id: WEB}, NODES, NETWORKS, here))
    starts = replace(WEB, endpoints=WEB.endpoints[:1], others=WEB.endpoints[1:])
    second = planner.plan(World(2, {WEB.service_id: starts}, NODES, dict(NETWORKS), here))
    assert second.vips != first.vips
    assert second.peers is first.peers
    assert second.sources is first.sources
    lone = replace(WEB, service_id=ServiceId("lone"), name="lone", ports=(), vips=())
    services = {WEB.service_id: starts, lone.service_id: lone}
    third = planner.plan(World(3, services, NODES, NETWORKS, here))
    assert third.listeners is second.listeners
    assert third.ports is second.ports


def test_without_ipv6_nothing_listens_there() -> None:
    world = World(1, {WEB.service_id: WEB}, NODES, NETWORKS)
    made = Planner(HERE, has_ipv6=False).plan(world)
    assert hosts(made) == [("0.0.0.0", 8080, "tcp")]


def test_a_node_that_cannot_be_answered_by_is_left_out() -> None:
    high = replace(NODES[THERE], ingress_address="10.255.200.1")
    world = World(1, {}, {HERE: NODES[HERE], THERE: high}, NETWORKS)
    made = Planner(HERE).plan(world)
    assert made.sources == (SourceRoute(2, "10.255.0.2"),)
    assert made.problems == ("some nodes' ingress addresses are too high to answer by them",)


def test_a_network_that_is_not_apart_from_the_node_s_own_is_told() -> None:
    check_apart(NETWORKS.values(), "172.29.0.0/16", "192.0.2.2")
    with pytest.raises(Retryable, match=r"network app .* holds .* own address 10\.0\.1\.9"):
        check_apart(NETWORKS.values(), "172.29.0.0/16", "10.0.1.9")
    with pytest.raises(Retryable, match=r"network app .* overlaps with 10\.0\.0\.0/8"):
        check_apart(NETWORKS.values(), "10.0.0.0/8", "192.0.2.2")


# -------------------------------------------------------------------------------- encryption

OWN_KEY, THEIR_KEY = bytes([1]) * 32, bytes([2]) * 32
KEYED = {
    HERE: replace(NODES[HERE], wireguard_key=text_of(OWN_KEY)),
    THERE: replace(NODES[THERE], wireguard_key=text_of(THEIR_KEY), name="n3"),
}
OVER_THERE = Endpoint(
    task_id=TaskId("t12"),
    node_id=THERE,
    address="127.32.16.12",
    attachments=(
        Attachment(network_id=SECRET.network_id, address="10.0.9.12"),
        Attachment(network_id=APP, address="10.0.1.12"),
    ),
)


def secret_plan(
    nodes: Mapping[NodeId, MeshNode] = KEYED, *, here: NetworkId = SECRET.network_id
) -> KernelPlan:
    vault = replace(WEB, service_id=ServiceId("vault"), name="vault", ports=(), vips=())
    vault = replace(vault, endpoints=(OVER_THERE,))
    networks = {**NETWORKS, SECRET.network_id: SECRET}
    services = {vault.service_id: vault}
    world = World(7, services, nodes, networks, frozenset((here, APP)))
    return Planner(HERE, key=OWN_KEY).plan(world)


def test_an_encrypted_network_is_reached_by_the_tunnel() -> None:
    made = secret_plan()
    assert made.problems == ()
    assert made.networks[2] == Network("secret", 4099, "10.0.9.0/24", is_encrypted=True)
    # Its nodes are known by their addresses in the tunnel, and those of others as ever.
    assert made.peers["secret"] == (Peer("10.0.9.12", "10.255.0.3"),)
    assert made.peers["app"] == (Peer("10.0.1.12", "192.0.2.3"),)
    peer = TunnelPeer("10.255.0.3", "192.0.2.3")
    assert made.tunnel == Tunnel("10.255.0.2", 16, {THEIR_KEY: peer})


def test_there_is_a_tunnel_where_an_encrypted_network_is() -> None:
    assert secret_plan(here=APP).tunnel is None
    no_address = {**KEYED, HERE: replace(KEYED[HERE], ingress_address="")}
    assert secret_plan(no_address).tunnel is None


@pytest.mark.parametrize("lacks", ["wireguard_key", "ingress_address"])
def test_a_node_without_a_key_is_never_reached_in_the_clear(lacks: str) -> None:
    made = secret_plan({**KEYED, THERE: replace(KEYED[THERE], **{lacks: ""})})
    assert made.peers["secret"] == ()
    assert made.peers["app"] == (Peer("10.0.1.12", "192.0.2.3"),)
    assert made.tunnel == Tunnel("10.255.0.2", 16, {})
    assert made.problems == (
        "vault: its tasks on node n3 can't be reached: network secret is encrypted, and that node "
        "has no WireGuard key",
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"address": "n3.example"},
        {"address": "fd00::3"},
        {"address": "192.0.2.3:1\nallowed_ip=0.0.0.0/0\nendpoint=192.0.2.3"},
    ],
)
def test_a_node_whose_addresses_are_none_is_left_out_and_named(changes: dict[str, str]) -> None:
    made = secret_plan({**KEYED, THERE: replace(KEYED[THERE], **changes)})
    assert made.tunnel == Tunnel("10.255.0.2", 16, {})
    (problem,) = (text for text in made.problems if "no IPv4 address" in text)
    assert problem.startswith("encrypted networks: node n3 can't be reached: ")
    assert "\n" not in problem


@pytest.mark.parametrize(
    ("ours", "theirs", "problem"),
    [
        (None, THEIR_KEY, "managers don't have this node's WireGuard key"),
        (THEIR_KEY, None, "managers don't have this node's WireGuard key"),
        (OWN_KEY, OWN_KEY, "node n3 has the WireGuard key of this node"),
        (OWN_KEY, b"short", "node n3 tells a WireGuard key that is none"),
    ],
)
def test_keys_that_can_not_be(ours: bytes | None, theirs: bytes | None, problem: str) -> None:
    told = {HERE: ours, THERE: theirs}
    nodes = {
        node_id: replace(KEYED[node_id], wireguard_key="" if key is None else text_of(key))
        for node_id, key in told.items()
    }
    assert any(problem in text for text in secret_plan(nodes).problems)


def test_two_nodes_with_one_key_are_named() -> None:
    twin = replace(KEYED[THERE], node_id=NodeId("twin"), name="n4", ingress_address="10.255.0.4")
    made = secret_plan({**KEYED, twin.node_id: twin})
    assert any("node n4 has the WireGuard key of n3" in text for text in made.problems)
    assert made.tunnel is not None
    assert set(made.tunnel.peers) == {THEIR_KEY}
