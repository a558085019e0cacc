"""Datagrams through the relay, on real sockets."""

from __future__ import annotations

import contextlib
import errno
import resource
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skep.domain.base import ClusterId, ServiceId, TaskId, replace
from skep.netproxy.relay.adapters import udp
from skep.netproxy.relay.adapters.datagrams import BUFFER_BYTES
from skep.netproxy.relay.adapters.upstreams import TRIES
from skep.netproxy.relay.core.datagrams import FLOW_IDLE_S
from skep.netproxy.relay.core.mesh import (
    DatagramHeader,
    DatagramKind,
    encode_datagram,
    encode_datagram_header,
    parse_datagram,
)
from skep.netproxy.relay.core.pipe import CLIENT, TASK
from skep.netproxy.relay.core.protocol import Address, Candidate
from tests.unit.netproxy import datagram_support
from tests.unit.netproxy.datagram_support import (
    CLUSTER,
    SERVICE,
    TARGET,
    WEB,
    Node,
    Task,
    World,
    fresh_host,
    here,
    there,
)


@pytest.fixture
def world() -> Iterator[World]:
    with datagram_support.world() as made:
        yield made


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.bind(("::1", 0))
        return True
    return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on the loopback device here")


# -------------------------------------------------------------------------------- on this node


def test_an_answer_comes_back_and_a_client_sticks_to_its_task(world: World) -> None:
    node, one, two = world.node(), world.task("t1"), world.task("t2")
    node.serve(here(one), here(two))
    clients = [world.client(node.ingress) for _ in range(2)]
    for number in range(3):
        answers = [client.ask(b"%d" % number) for client in clients]
        assert answers == [b"t1:%d" % number, b"t2:%d" % number]
    assert node.datagrams.flow_count == 2
    # One socket per flow, from the node's own address.
    assert len(set(one.peers)) == 1
    assert one.peers[0][0] == node.host
    counts = node.counts.of("dns", "ingress_udp")
    assert (counts.connections, counts.active) == (2, 2)
    assert (counts.received[CLIENT], counts.received[TASK]) == (6, 6 * 4)
    assert node.errors() == {}


@pytest.mark.parametrize("size", [0, 1, 1400, 60_000, 65_504])
def test_datagrams_of_every_size(world: World, size: int) -> None:
    node, task = world.node(), world.task("t1")
    node.serve(here(task))
    data = bytes(range(256)) * (size // 256 + 1)
    assert world.client(node.ingress).ask(data[:size]) == b"t1:" + data[:size]


def test_a_task_may_answer_as_often_as_it_likes(world: World) -> None:
    node, task = world.node(), world.task("t1")
    node.serve(here(task))
    client = world.client(node.ingress)
    client.ask(b"hello")
    for number in range(200):
        task.socket.sendto(b"%d" % number, task.peers[0])
    assert [client.receive() for _ in range(200)] == [b"%d" % n for n in range(200)]


def test_a_flood_of_datagrams_is_all_passed_on(world: World) -> None:
    node, task = world.node(), world.task("t1")
    node.serve(here(task))
    client = world.client(node.ingress)
    for number in range(200):
        client.send(b"%d" % number)
    world.loop.until(lambda: len(task.seen) == 200)


@pytest.mark.parametrize("listen", ["::1", "::", "0.0.0.0"])
def test_listeners_of_every_kind(world: World, listen: str) -> None:
    if ":" in listen and not has_ipv6():
        pytest.skip("no IPv6 on the loopback device here")
    node, task = world.node(listen=listen), world.task("t1")
    node.serve(here(task))
    port = node.ingress[1]
    # A client hears its answer from the very address it asked, of the several that reach the port.
    asked = {"::1": ["::1"], "::": ["::1"], "0.0.0.0": [fresh_host(), "127.0.0.1"]}[listen]
    for host in asked:
        assert world.client((host, port)).ask(b"x") == b"t1:x"
    assert node.errors() == {}


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (("10.1.2.3", 5), "10.1.2.3:5"),
        (("::ffff:10.1.2.3", 5, 0, 0), "10.1.2.3:5"),
        (("2001:db8::1", 5, 0, 0), "[2001:db8::1]:5"),
        (("fe80::1%eth0", 5, 0, 2), "[fe80::1]:5"),
    ],
)
def test_how_a_client_is_told(address: udp.SockAddr, shown: str) -> None:
    assert udp.Client(address, ()).shown == shown


@needs_ipv6
def test_an_ipv4_client_of_a_listener_for_both(world: World) -> None:
    node, owner, task = world.node(listen="::"), world.node(), world.task("t1")
    owner.serve(here(task))
    node.serve(there(task, owner))
    host = fresh_host()
    assert world.client((host, node.ingress[1])).ask(b"x") == b"t1:x"


@needs_ipv6
def test_a_task_with_an_ipv6_address(world: World) -> None:
    node = world.node()
    task = world.task("t1", "::1")
    node.serve(here(task))
    assert world.client(node.ingress).ask(b"x") == b"t1:x"


# ------------------------------------------------------------------------------- what ends flows


def test_a_removed_candidate_gets_nothing_more_but_its_answer_still_arrives(world: World) -> None:
    node, old, new = world.node(), world.task("old"), world.task("new")
    old.is_silent = True
    node.serve(here(old))
    client = world.client(node.ingress)
    client.send(b"slow question")
    world.loop.until(lambda: old.seen)
    node.serve(here(new))
    assert client.ask(b"next") == b"new:next"
    assert old.seen == [b"slow question"]
    old.socket.sendto(b"slow answer", old.peers[0])
    assert client.receive() == b"slow answer"
    assert client.ask(b"again") == b"new:again"


def test_clients_of_a_candidate_that_stays_are_not_moved(world: World) -> None:
    node, one, two = world.node(), world.task("t1"), world.task("t2")
    node.serve(here(one), here(two))
    first, second = world.client(node.ingress), world.client(node.ingress)
    assert (first.ask(b"x"), second.ask(b"x")) == (b"t1:x", b"t2:x")
    node.serve(here(two))
    node.serve(here(two), here(one))
    assert second.ask(b"y") == b"t2:y"


def test_a_service_without_tasks_drops_and_counts(world: World) -> None:
    node, task = world.node(), world.task("t1")
    client = world.client(node.ingress)
    client.send(b"x")
    world.loop.settle()
    node.serve()
    client.send(b"y")
    world.loop.settle()
    assert node.errors() == {"no_task": 2}
    node.serve(here(task))
    assert client.ask(b"z") == b"t1:z"


def test_what_a_dead_task_refuses_goes_to_the_next(world: World) -> None:
    node, dead, alive = world.node(), world.task("t1"), world.task("t2")
    dead.close()
    node.serve(here(dead), here(alive))
    client = world.client(node.ingress)
    assert client.ask(b"first") == b"t2:first"
    # It is known by now, so that others don't pay for it.
    assert world.client(node.ingress).ask(b"x") == b"t2:x"
    assert node.errors() == {"task_refused": 1}
    assert node.counts.of("dns", "ingress_udp").ejections == 1
    assert client.ask(b"second") == b"t2:second"
    assert alive.seen == [b"first", b"x", b"second"]


def test_a_task_that_dies_hands_its_clients_on(world: World) -> None:
    node, one, two = world.node(), world.task("t1"), world.task("t2")
    node.serve(here(one), here(two))
    client = world.client(node.ingress)
    assert client.ask(b"1") == b"t1:1"
    one.close()
    # Both arrive before the relay has had a turn to hear of the refusal.
    client.send(b"2")
    client.send(b"3")
    assert [client.receive(), client.receive()] == [b"t2:2", b"t2:3"]


def test_one_other_is_tried_and_no_third(world: World) -> None:
    node, alive = world.node(), world.task("t3")
    dead = [world.task("t1"), world.task("t2")]
    for task in dead:
        task.close()
    node.serve(here(dead[0]), here(dead[1]), here(alive))
    client = world.client(node.ingress)
    client.send(b"lost")
    world.loop.until(lambda: node.errors()["undeliverable"])
    assert node.errors() == {"task_refused": 2, "undeliverable": 1}
    assert client.hears_nothing()
    assert node.datagrams.flow_count == 0
    assert client.ask(b"found") == b"t3:found"


def test_all_refuse_and_then_one_is_back(world: World) -> None:
    node, task = world.node(), world.task("t1")
    task.close()
    node.serve(here(task))
    client = world.client(node.ingress)
    for count in (1, 2, 3):
        client.send(b"x")
        world.loop.settle()
        assert node.errors()["undeliverable"] == count
    world.tasks.append(Task(world, "t1", task.host))
    assert client.ask(b"y") == b"t1:y"


def test_nothing_is_kept_of_what_was_answered_or_has_ended(world: World) -> None:
    node, task = world.node(), world.task("t1")
    node.serve(here(task))
    client = world.client(node.ingress)
    client.ask(bytes(1000))
    assert node.datagrams.buffered_bytes() == BUFFER_BYTES
    task.is_silent = True
    client.send(bytes(1000))
    world.loop.settle()
    assert node.datagrams.buffered_bytes() == BUFFER_BYTES + 1000
    world.loop.advance(FLOW_IDLE_S + 1.5)
    assert node.datagrams.buffered_bytes() == BUFFER_BYTES


@pytest.mark.parametrize("without_route", [2, 10])
def test_tasks_without_a_route_are_passed_over(
    world: World, monkeypatch: pytest.MonkeyPatch, without_route: int
) -> None:
    node, task = world.node(), world.task("last")
    connect = udp.connect

    def fail_to(address: Address, source: str) -> socket.socket:
        if address[0] == "far":
            raise OSError(errno.ENETUNREACH, "no route")
        return connect(address, source)

    monkeypatch.setattr(udp, "connect", fail_to)
    far = [
        Candidate(task_id=TaskId(f"far{number}"), address="far") for number in range(without_route)
    ]
    node.serve(*far, here(task))
    client = world.client(node.ingress)
    if without_route == 2:
        assert client.ask(b"x") == b"last:x"
        assert node.errors() == {"no_socket": 2}
    else:
        client.send(b"x")
        assert client.hears_nothing()
        assert node.errors() == {"no_socket": TRIES, "no_task": 1}


def test_an_idle_flow_ends_and_one_that_is_used_either_way_does_not(world: World) -> None:
    node, task = world.node(), world.task("t1")
    node.serve(here(task))
    idle, asking, told = (world.client(node.ingress) for _ in range(3))
    for client in (idle, asking, told):
        client.ask(b"x")
    for _ in range(3):
        world.loop.advance(FLOW_IDLE_S * 0.4)
        asking.ask(b"y")
        task.socket.sendto(b"news", task.peers[2])
        assert told.receive() == b"news"
    assert node.datagrams.flow_count == 2
    world.loop.advance(FLOW_IDLE_S + 1.5)
    assert node.datagrams.flow_count == 0
    assert node.errors() == {}
    assert idle.ask(b"z") == b"t1:z"


def test_flows_are_bounded_and_the_quietest_makes_room(world: World) -> None:
    node, task = world.node(flow_limit=3), world.task("t1")
    node.serve(here(task))
    clients = [world.client(node.ingress) for _ in range(4)]
    for client in clients[:3]:
        client.ask(b"x")
    clients[0].ask(b"x")
    clients[3].ask(b"x")
    assert node.datagrams.flow_count == 3
    assert node.errors() == {"evicted": 1}
    kept, evicted = task.peers[0], task.peers[1]
    clients[0].ask(b"x")
    clients[1].ask(b"x")
    assert task.peers[-2] == kept
    assert task.peers[-1] != evicted


def test_a_late_answer_to_a_flow_that_ends_in_the_same_turn(world: World) -> None:
    node, task = world.node(flow_limit=1), world.task("t1")
    node.serve(here(task))
    first, second = world.client(node.ingress), world.client(node.ingress)
    first.ask(b"x")
    world.loop.settle()  # so that the loop hears of these two in their order
    second.send(b"y")
    task.socket.sendto(b"late", task.peers[0])
    assert second.receive() == b"t1:y"
    assert first.hears_nothing()


def test_without_files_a_datagram_is_lost_and_room_is_made(world: World) -> None:
    node, task = world.node(), world.task("t1")
    node.serve(here(task))
    first, second = world.client(node.ingress), world.client(node.ingress)
    first.ask(b"x")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as probe:
        lowest_free = probe.fileno()
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, limits[1]))
        second.send(b"lost")
        world.loop.settle()
        assert node.errors() == {"no_socket": 1, "no_task": 1, "evicted": 1}
        assert second.ask(b"y") == b"t1:y"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


# ------------------------------------------------------------------------------- configuration


def test_a_listener_that_is_removed_is_closed_with_its_flows(world: World) -> None:
    node, task = world.node(), world.task("t1")
    node.serve(here(task))
    client = world.client(node.ingress)
    client.ask(b"x")
    node.datagrams.configure({WEB: node.listener}, node.mesh)
    assert node.datagrams.flow_count == 1
    node.datagrams.configure({}, node.mesh)
    assert node.datagrams.flow_count == 0
    assert node.listener.fileno() == -1
    assert node.mesh.fileno() >= 0
    node.listener = datagram_support.bound(*node.ingress)
    node.datagrams.configure({WEB: node.listener}, node.mesh)
    assert client.ask(b"y") == b"t1:y"


# --------------------------------------------------------------------------------- on the mesh


def two_nodes(world: World) -> tuple[Node, Node, Task]:
    origin, owner, task = world.node(), world.node(), world.task("t1")
    owner.serve(here(task))
    origin.serve(there(task, owner))
    return origin, owner, task


@pytest.mark.parametrize("size", [0, 1400, 60_000])
def test_a_task_on_another_node_is_reached_by_its_mesh(world: World, size: int) -> None:
    origin, owner, task = two_nodes(world)
    clients = [world.client(origin.ingress) for _ in range(2)]
    for number, client in enumerate((*clients, *clients)):
        data = bytes([number]) * size
        assert client.ask(data) == b"t1:" + data
    assert (origin.datagrams.flow_count, owner.datagrams.flow_count) == (2, 2)
    # The task is connected to by its own node alone, by one socket for each client.
    assert {host for host, _ in task.peers} == {owner.host}
    assert len(set(task.peers)) == 2
    assert owner.counts.of("dns", "mesh_udp").received[CLIENT] == 4 * size
    assert (origin.errors(), owner.errors()) == ({}, {})


def test_what_does_not_fit_with_a_header_is_dropped_and_counted(world: World) -> None:
    origin, owner, task = two_nodes(world)
    client = world.client(origin.ingress)
    client.ask(b"x")
    header = DatagramHeader(
        kind=DatagramKind.TO_TASK,
        cluster_id=CLUSTER,
        service_id=SERVICE,
        port=TARGET,
        task_id=TaskId("t1"),
        client="{}:{}".format(*client.socket.getsockname()),
    )
    room = 65_507 - len(encode_datagram_header(header))
    task.is_silent = True
    client.send(bytes(room + 1))
    client.send(bytes(room))
    world.loop.until(lambda: len(task.seen) == 2)
    assert len(task.seen[1]) == room
    assert origin.errors() == {"too_large": 1}
    # The same on the way back, whose header has another kind.
    task.socket.sendto(bytes(65_507), task.peers[0])
    world.loop.until(lambda: owner.errors()["too_large"])
    assert client.hears_nothing()


def test_a_task_that_its_owner_does_not_know_is_left_for_another(world: World) -> None:
    origin, owner, gone = two_nodes(world)
    other = world.task("t2")
    origin.serve(there(gone, owner), here(other))
    owner.serve()
    client = world.client(origin.ingress)
    assert client.ask(b"x") == b"t2:x"
    assert gone.seen == []
    assert owner.errors() == {"no_task": 1}
    assert origin.errors() == {"task_refused": 1}


def test_a_dead_task_on_another_node_is_left_for_another(world: World) -> None:
    origin, owner, dead = two_nodes(world)
    other = world.task("t2")
    origin.serve(there(dead, owner), here(other))
    dead.close()
    client = world.client(origin.ingress)
    assert [client.ask(b"x"), client.ask(b"y")] == [b"t2:x", b"t2:y"]
    assert owner.errors() == {"task_refused": 1, "undeliverable": 1}
    assert origin.errors() == {"task_refused": 1}
    assert owner.datagrams.flow_count == 0


def test_two_nodes_whose_tasks_are_dead_end_it(world: World) -> None:
    origin, one, first = two_nodes(world)
    two, second = world.node(), world.task("t2")
    two.serve(here(second))
    origin.serve(there(first, one), there(second, two))
    first.close()
    second.close()
    client = world.client(origin.ingress)
    client.send(b"x")
    world.loop.until(lambda: origin.errors()["undeliverable"])
    world.loop.settle()
    assert origin.errors() == {"task_refused": 2, "undeliverable": 1}
    assert origin.datagrams.flow_count == 0


def test_a_netproxy_that_is_gone_is_left_for_another(world: World) -> None:
    origin, owner, task = two_nodes(world)
    other = world.task("t2")
    origin.serve(there(task, owner), here(other))
    owner.datagrams.close()
    assert world.client(origin.ingress).ask(b"x") == b"t2:x"


def test_a_task_removed_at_its_owner_ends_there(world: World) -> None:
    origin, owner, task = two_nodes(world)
    other = world.task("t2")
    client = world.client(origin.ingress)
    assert client.ask(b"x") == b"t1:x"
    owner.serve()
    # The origin has not heard of it yet.
    origin.tables.listeners[WEB].balancer.update(
        origin.tables.listeners[WEB].listener.balance, (there(task, owner), here(other))
    )
    assert client.ask(b"y") == b"t2:y"
    assert task.seen == [b"x"]


def test_idle_flows_end_at_the_owner_too(world: World) -> None:
    origin, owner, _ = two_nodes(world)
    client = world.client(origin.ingress)
    client.ask(b"x")
    world.loop.advance(FLOW_IDLE_S + 1.5)
    world.loop.advance(FLOW_IDLE_S + 1.5)
    assert (origin.datagrams.flow_count, owner.datagrams.flow_count) == (0, 0)
    assert client.ask(b"y") == b"t1:y"


def test_another_cluster_is_never_answered(world: World) -> None:
    origin, owner, task = two_nodes(world)
    stranger = world.node(cluster_id=ClusterId("other"))
    stranger.serve(there(task, owner))
    client = world.client(stranger.ingress)
    client.send(b"x")
    assert client.hears_nothing()
    assert task.seen == []
    assert owner.errors() == {"wrong_cluster": 1}
    assert origin.errors() == {}


HEADER = DatagramHeader(
    kind=DatagramKind.TO_TASK,
    cluster_id=CLUSTER,
    service_id=SERVICE,
    port=TARGET,
    task_id=TaskId("t1"),
    client="127.0.0.1:5",
)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "malformed"),
        (b"GET / HTTP/1.1\r\n\r\n", "malformed"),
        (encode_datagram(HEADER, b"x")[:20], "malformed"),
        (b"SKPD\x02\x00\x01x", "unknown_version"),
        (encode_datagram(replace(HEADER, kind=DatagramKind.FROM_TASK), b"x"), "malformed"),
        (encode_datagram(replace(HEADER, kind=DatagramKind.REFUSED), b"x"), "malformed"),
    ],
)
def test_nonsense_at_the_mesh_port_is_counted_and_not_answered(
    world: World, data: bytes, kind: str
) -> None:
    _, owner, task = two_nodes(world)
    client = world.client(owner.mesh_address)
    client.send(data)
    assert client.hears_nothing()
    assert owner.errors() == {kind: 1}
    assert task.seen == []


def test_what_an_owner_cannot_deliver_comes_back_whole(world: World) -> None:
    _, owner, _ = two_nodes(world)
    asked = replace(HEADER, service_id=ServiceId("another"))
    answer = world.client(owner.mesh_address).ask(encode_datagram(asked, b"question"))
    header, payload = parse_datagram(answer, CLUSTER)
    assert (header, payload) == (replace(asked, kind=DatagramKind.REFUSED), b"question")


@pytest.mark.parametrize(
    "answer",
    [
        b"no header",
        encode_datagram(replace(HEADER, kind=DatagramKind.FROM_TASK), b"another client's"),
    ],
)
def test_an_owner_that_answers_nonsense_is_not_believed(world: World, answer: bytes) -> None:
    origin = world.node()
    liar = world.task("liar")
    liar.is_silent = True
    address: Address = liar.socket.getsockname()
    origin.serve(replace(here(liar), mesh_address=address))
    client = world.client(origin.ingress)
    client.send(b"x")
    world.loop.until(lambda: liar.seen)
    liar.socket.sendto(answer, liar.peers[0])
    assert client.hears_nothing()
    assert origin.errors() == {"malformed": 1}


mutations = st.lists(
    st.tuples(st.integers(0, 400), st.integers(0, 3), st.binary(max_size=4)), max_size=3
)


@given(st.lists(st.tuples(st.sampled_from(DatagramKind), mutations, st.binary(max_size=30))))
def test_no_datagram_ends_a_relay(
    sent: list[tuple[DatagramKind, list[tuple[int, int, bytes]], bytes]],
) -> None:
    """To the mesh port and, as an owner's answer, to a flow. What a handler raised would end the
    worker's process, and with it all connections of others."""
    with datagram_support.world() as world:
        origin, owner, task = two_nodes(world)
        stranger, client = world.client(owner.mesh_address), world.client(origin.ingress)
        liar = world.task("liar")
        liar.is_silent = True
        origin.serve(replace(here(liar), mesh_address=liar.socket.getsockname()))
        client.send(b"x")
        world.loop.settle()
        for kind, changes, payload in sent:
            data = bytearray(encode_datagram(replace(HEADER, kind=kind), payload))
            for at, count, instead in changes:
                data[at : at + count] = instead
            stranger.send(bytes(data))
            liar.socket.sendto(data, liar.peers[-1])
            world.loop.settle()
        origin.serve(there(task, owner))
        asker = world.client(origin.ingress)
        assert asker.ask(b"still there") == b"t1:still there"
