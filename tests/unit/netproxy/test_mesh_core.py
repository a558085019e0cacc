"""The header between netproxies, routes, and addresses: what is read and what is refused."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skep.domain.address import parse_address, refuse_open_listener, show_address
from skep.domain.base import ClusterId, NodeId, ServiceId, TaskId, replace
from skep.domain.endpoints import Endpoint, MeshNode, ServiceEndpoints
from skep.domain.spec import Balance, Port, PortMode
from skep.env import Rejected
from skep.netproxy.core.routes import Candidate, Desired, Route, Routing, build
from skep.netproxy.relay.core import mesh, protocol
from skep.netproxy.relay.core.mesh import (
    HEADER_LIMIT_BYTES,
    MAGIC,
    PREFIX_BYTES,
    VERSION,
    MeshHeader,
    MeshRefused,
    MeshStatus,
    encode_header,
    read_body,
    read_prefix,
    read_status,
)
from skep.netproxy.relay.core.protocol import Address, Key, Listener
from skep.netproxy.relay.core.tables import Tables

CLUSTER = ClusterId("c")


def header(task_id: str | None = "t1", cluster: str = "c") -> MeshHeader:
    return MeshHeader(
        cluster_id=ClusterId(cluster),
        service_id=ServiceId("s"),
        port=80,
        task_id=None if task_id is None else TaskId(task_id),
        client="127.0.0.1:5",
    )


def read(data: bytes) -> MeshHeader:
    assert read_prefix(data[:PREFIX_BYTES]) == len(data) - PREFIX_BYTES
    return read_body(data[PREFIX_BYTES:], CLUSTER)


@pytest.mark.parametrize("task_id", ["t1", None])
def test_a_header_survives_the_journey(task_id: str | None) -> None:
    assert read(encode_header(header(task_id))) == header(task_id)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / H", MeshStatus.MALFORMED),
        (MAGIC + bytes((VERSION + 1, 0, 9)), MeshStatus.UNKNOWN_VERSION),
        (MAGIC + bytes((VERSION, 0, 0)), MeshStatus.MALFORMED),
        (
            MAGIC + bytes((VERSION,)) + (HEADER_LIMIT_BYTES + 1).to_bytes(2, "big"),
            MeshStatus.MALFORMED,
        ),
    ],
)
def test_a_prefix_that_is_refused(data: bytes, status: MeshStatus) -> None:
    with pytest.raises(MeshRefused) as refused:
        read_prefix(data)
    assert refused.value.status is status


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (msgspec.msgpack.encode(header(cluster="other")), MeshStatus.WRONG_CLUSTER),
        (msgspec.msgpack.encode({"cluster_id": "c"}), MeshStatus.MALFORMED),
        (b"\xc1", MeshStatus.MALFORMED),
    ],
)
def test_a_body_that_is_refused(body: bytes, status: MeshStatus) -> None:
    with pytest.raises(MeshRefused) as refused:
        read_body(body, CLUSTER)
    assert refused.value.status is status


def test_a_field_of_a_later_release_is_passed_over() -> None:
    body = msgspec.msgpack.encode({**msgspec.to_builtins(header()), "tls": True})
    assert read_body(body, CLUSTER) == header()


@given(st.binary(max_size=200))
def test_no_bytes_do_worse_than_be_refused(data: bytes) -> None:
    try:
        read_prefix(data[:PREFIX_BYTES].ljust(PREFIX_BYTES, b"\0"))
        read_body(data, CLUSTER)
    except MeshRefused:
        pass
    read_status(data[:1])


def test_an_owner_that_closes_without_a_word_has_refused() -> None:
    assert read_status(b"") is MeshStatus.REFUSED
    assert read_status(b"\x01") is MeshStatus.CONNECTED
    assert read_status(b"\xff") is MeshStatus.MALFORMED


# ---------------------------------------------------------------------------------------- routes


def web(name: str = "web", published: int | None = 80, **where: str) -> ServiceEndpoints:
    return ServiceEndpoints(
        service_id=ServiceId(name),
        name=name,
        ports=(Port(target=8080, published=published),),
        endpoints=tuple(
            Endpoint(task_id=TaskId(t), node_id=NodeId(n), address="127.0.16.1")
            for t, n in where.items()
        ),
    )


MESH = {NodeId("there"): MeshNode(node_id=NodeId("there"), mesh_address="127.0.0.2:7946")}
MOVED = {NodeId("there"): MeshNode(node_id=NodeId("there"), mesh_address="127.0.0.9:7946")}


def by_id(*services: ServiceEndpoints) -> dict[ServiceId, ServiceEndpoints]:
    return {each.service_id: each for each in services}


def route(name: str = "web", published: int = 80, **where: str) -> Route:
    return Route(
        service_id=ServiceId(name),
        service_name=name,
        published=published,
        target=8080,
        balance=Balance.ROUND_ROBIN,
        candidates=tuple(
            Candidate(
                task_id=TaskId(t),
                address="127.0.16.1",
                mesh_address=None if n == "here" else "127.0.0.2:7946",
            )
            for t, n in where.items()
        ),
    )


def test_tasks_of_other_nodes_go_by_their_mesh() -> None:
    assert build(NodeId("here"), 5, (web(t1="here", t2="there"),), MESH) == Desired(
        version=5, routes=(route(t1="here", t2="there"),)
    )


def test_a_task_whose_node_has_no_mesh_is_a_problem_and_no_candidate() -> None:
    assert build(NodeId("here"), 5, (web(t1="nowhere", t2="there"),), MESH) == Desired(
        version=5,
        routes=(route(t2="there"),),
        problems=("web: task t1 can't be reached: its node nowhere has no mesh address",),
    )


def test_a_port_not_yet_allocated_has_no_route_and_one_taken_twice_is_a_problem() -> None:
    services = (web("b", t1="here"), web("a", t2="here"), web("c", published=None))
    assert build(NodeId("here"), 5, services, {}) == Desired(
        version=5,
        routes=(route("a", t2="here"),),
        problems=("b: port 80: a has it",),
    )


HOST = Port(target=8080, published=80, mode=PortMode.HOST)


def test_a_host_port_leads_to_tasks_of_this_node_alone() -> None:
    service = replace(web(t1="here", t2="there", t3="here"), ports=(HOST,))
    assert build(NodeId("here"), 5, (service,), MESH) == Desired(
        version=5, routes=(route(t1="here", t3="here"),)
    )


def test_a_host_port_is_not_there_without_a_task_and_other_nodes_are_no_concern() -> None:
    service = replace(web(t1="nowhere", t2="there"), ports=(HOST,))
    assert build(NodeId("here"), 5, (service,), MESH) == Desired(version=5)


def test_a_host_port_without_a_number_is_not_there() -> None:
    service = replace(web(t1="here"), ports=(replace(HOST, published=None),))
    assert build(NodeId("here"), 5, (service,), MESH) == Desired(version=5)


def test_a_task_that_can_not_be_reached_opens_no_host_port() -> None:
    [endpoint] = web(t1="here").endpoints
    nameless = replace(web(), ports=(HOST,), endpoints=(replace(endpoint, address="somewhere"),))
    desired = build(NodeId("here"), 5, (nameless,), MESH)
    assert desired.routes == ()
    assert len(desired.problems) == 1
    assert desired.problems[0].startswith("web: task t1 can't be reached")


def test_an_ingress_port_beside_a_host_port_leads_everywhere() -> None:
    ports = (HOST, Port(target=8080, published=81))
    service = replace(web(t1="here", t2="there"), ports=ports)
    assert build(NodeId("here"), 5, (service,), MESH) == Desired(
        version=5, routes=(route(t1="here"), route(published=81, t1="here", t2="there"))
    )
    alone = replace(service, endpoints=service.endpoints[1:])
    assert build(NodeId("here"), 5, (alone,), MESH) == Desired(
        version=5, routes=(route(published=81, t2="there"),)
    )


def test_two_services_may_have_one_host_port_on_nodes_of_their_own() -> None:
    services = (
        replace(web("a", t1="here"), ports=(HOST,)),
        replace(web("b", t2="there"), ports=(HOST,)),
    )
    assert build(NodeId("here"), 5, services, MESH) == Desired(
        version=5, routes=(route("a", t1="here"),)
    )
    assert [each.service_name for each in build(NodeId("there"), 5, services, MESH).routes] == ["b"]


def test_two_services_with_one_host_port_on_one_node_are_a_problem_until_one_leaves() -> None:
    routing = Routing(NodeId("here"))
    leaves = replace(web("a", ta="here"), ports=(HOST,))
    comes = replace(web("b", tb="here"), ports=(HOST,))
    both = routing.build(5, by_id(leaves, comes), MESH)
    assert both.problems == ("b: port 80: a has it",)
    left = replace(leaves, endpoints=())
    assert routing.build(6, by_id(left, comes), MESH) == Desired(
        version=6, routes=(route("b", tb="here"),)
    )


def test_whoever_has_a_port_keeps_it_from_a_service_that_comes() -> None:
    routing = Routing(NodeId("here"))
    holder = replace(web("b", tb="here"), ports=(HOST,))
    comes = replace(web("a", ta="here"), ports=(HOST,))
    routing.build(5, by_id(holder), MESH)
    for version in (6, 7):
        both = routing.build(version, by_id(holder, comes), MESH)
        assert both == Desired(
            version=version, routes=(route("b", tb="here"),), problems=("a: port 80: b has it",)
        )
    assert routing.build(8, by_id(comes), MESH).routes == (route("a", ta="here"),)


# A node's mesh address, and what services say: ports, whether in host mode, and where tasks are.
STEPS = st.lists(
    st.tuples(
        st.booleans(),
        st.dictionaries(
            st.sampled_from("abc"),
            st.tuples(
                st.sets(st.integers(80, 82), max_size=2),
                st.booleans(),
                st.dictionaries(
                    st.sampled_from(["t1", "t2"]), st.sampled_from(["here", "there", "nowhere"])
                ),
            ),
        ),
    ),
    max_size=8,
)


@given(STEPS)
def test_what_is_built_step_by_step_is_what_would_be_built_at_once(
    steps: list[tuple[bool, dict[str, tuple[set[int], bool, dict[str, str]]]]],
) -> None:
    routing = Routing(NodeId("here"))
    held: dict[ServiceId, ServiceEndpoints] = {}
    for version, (has_moved, said) in enumerate(steps, 1):
        services = {}
        for name, (ports, is_host, tasks) in said.items():
            mode = PortMode.HOST if is_host else PortMode.INGRESS
            service = replace(
                web(name, None, **tasks),
                ports=tuple(Port(target=8080, published=p, mode=mode) for p in sorted(ports)),
            )
            old = held.get(service.service_id)
            services[service.service_id] = old if old is not None and old == service else service
        nodes = MOVED if has_moved else MESH
        built = routing.build(version, services, nodes)
        routing.check_invariants()
        held = services
        at_once = build(NodeId("here"), version, services.values(), nodes)
        claims = {each.published: each for each in at_once.routes}
        assert [each.published for each in built.routes] == list(claims)
        assert len(built.problems) == len(at_once.problems)
        if not any("has it" in each for each in built.problems):
            # Who of several has a port is also a matter of who had it.
            assert built == at_once


def test_what_a_step_does_not_change_is_the_very_same_object() -> None:
    routing = Routing(NodeId("here"))
    stays = web("a", 80, t1="there")
    first = routing.build(1, by_id(stays, web("b", 81, t2="here")), MESH)
    last = routing.build(2, by_id(stays, web("b", 81)), MESH)
    assert last.routes[0] is first.routes[0]
    assert last.routes[1].candidates == ()
    elsewhere = routing.build(3, by_id(stays), MOVED)
    assert elsewhere.routes[0].candidates[0].mesh_address == "127.0.0.9:7946"


def listener(service: str = "web", port: int = 80, **where: str) -> Listener:
    """Tasks by where they are: "here", or the host of their node."""
    return Listener(
        host="127.0.0.1",
        port=port,
        service_id=ServiceId(service),
        service_name=service,
        target=8080,
        candidates=tuple(
            protocol.Candidate(
                task_id=TaskId(task_id),
                address="127.0.16.1",
                mesh_address=None if host == "here" else (host, 7946),
            )
            for task_id, host in where.items()
        ),
    )


def updated(tables: Tables, *changed: Listener, removed: tuple[Key, ...] = ()) -> Tables:
    tables.update(changed, removed)
    tables.check_invariants()
    return tables


def test_the_mesh_reaches_tasks_of_this_node_alone() -> None:
    tables = updated(Tables(), listener(t1="here", t2="127.0.0.2"))
    service_id = ServiceId("web")
    named = tables.here(service_id, 8080, TaskId("t1"))
    assert named is not None
    assert [c.task_id for c in named.balancer.candidates] == ["t1"]
    any_of_them = tables.here(service_id, 8080, None)
    assert any_of_them is not None
    assert [c.task_id for c in any_of_them.balancer.candidates] == ["t1"]
    assert tables.here(service_id, 8080, TaskId("t2")) is None
    assert tables.here(service_id, 9999, TaskId("t1")) is None
    assert tables.here(ServiceId("x"), 8080, None) is None


def test_a_balancer_stays_with_its_service_and_is_emptied_when_removed() -> None:
    key = Key("127.0.0.1", 80)
    tables = updated(Tables(), listener(t1="here", t2="127.0.0.2"))
    before = tables.at(key)
    assert before is not None
    updated(tables, listener(t2="127.0.0.2"))
    after = tables.at(key)
    assert after is not None
    assert after.balancer is before.balancer
    assert not tables.names(ServiceId("web"), 8080, before.listener.candidates[0])
    assert tables.names(ServiceId("web"), 8080, before.listener.candidates[1])
    updated(tables, listener("other", t3="here"))
    assert before.balancer.candidates == ()
    assert tables.here(ServiceId("web"), 8080, None) is None
    updated(tables, removed=(key,))
    assert tables.at(key) is None
    assert tables.service_names() == frozenset()


def test_listeners_of_one_service_are_one_by_the_mesh() -> None:
    tables = updated(Tables(), listener(t1="here"), listener(port=81, t2="here", t3="127.0.0.2"))
    service_id = ServiceId("web")
    assert tables.here(service_id, 8080, TaskId("t1")) is not None
    assert tables.here(service_id, 8080, TaskId("t2")) is not None
    updated(tables, removed=(Key("127.0.0.1", 81),))
    assert tables.here(service_id, 8080, TaskId("t1")) is not None
    assert tables.here(service_id, 8080, TaskId("t2")) is None


@pytest.mark.parametrize("address", [("127.0.0.1", 5), ("::1", 65535)])
def test_an_address_in_a_header_survives_the_journey(address: Address) -> None:
    assert mesh.read_address(mesh.show_address(address)) == address


@pytest.mark.parametrize("text", ["", "127.0.0.1", ":80", "127.0.0.1:x"])
def test_what_is_no_address_in_a_header_is_none(text: str) -> None:
    assert mesh.read_address(text) is None


# ------------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize("text", ["127.0.0.1:80", "[::1]:65535"])
def test_an_address_survives_the_journey(text: str) -> None:
    assert show_address(parse_address(text)) == text


@pytest.mark.parametrize(
    "text", ["", "127.0.0.1", "localhost:80", "127.0.0.1:x", "127.0.0.1:70000"]
)
def test_an_address_that_is_refused(text: str) -> None:
    with pytest.raises(Rejected):
        parse_address(text)


def test_a_listener_open_to_strangers_is_refused_unless_allowed() -> None:
    assert refuse_open_listener("127.9.9.9", (), "--mesh") is False
    assert refuse_open_listener("10.1.2.3", ("10.0.0.0/8",), "--mesh") is True
    for allowed in ((), ("10.2.0.0/16",)):
        with pytest.raises(Rejected, match="not a loopback address"):
            refuse_open_listener("10.1.2.3", allowed, "--mesh")
    with pytest.raises(Rejected, match="insecure-listen"):
        refuse_open_listener("10.1.2.3", ("x",), "--mesh")
