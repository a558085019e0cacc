"""The link layer on the real kernel: three nodes, their tasks, and what passes between them."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from skep.netproxy.kernel.core.gateway import gateway_rules
from skep.netproxy.kernel.core.links import Peer
from tests.support.netns import Lab, lab, needs_namespaces, run_in
from tests.unit.netproxy.kernel.support import (
    NO_ANSWER_S,
    Node,
    connect,
    dial,
    do,
    exchange,
    link,
    network,
    ping,
    running,
    serve,
)

pytestmark = needs_namespaces()

A, B = network("net-a", 4097), network("net-b", 4098)


@pytest.fixture
def machine() -> Iterator[Lab]:
    with lab(3) as made:
        yield made


@pytest.fixture
def nodes(machine: Lab, tmp_path: Path) -> Iterator[list[Node]]:
    with running(machine, tmp_path) as made:
        yield made


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Node]:
    """A node alone, for what is its own business."""
    with lab(1) as machine, running(machine, tmp_path) as made:
        yield made[0]


def test_tasks_reach_one_another_on_and_between_nodes(nodes: list[Node]) -> None:
    one, two, three = nodes
    connect(nodes, [A], {"net-a 10.0.1.11": "n1", "net-a 10.0.1.12": "n2", "net-a 10.0.1.13": "n3"})
    first = one.attach("t1", link("net-a", "10.0.1.11"))
    beside = one.attach("t4", link("net-a", "10.0.1.14"))
    second = two.attach("t2", link("net-a", "10.0.1.12"))
    three.attach("t3", link("net-a", "10.0.1.13"))
    for address in ("10.0.1.11", "10.0.1.12", "10.0.1.13", "10.0.1.14"):
        assert ping(first, address) is not None
    assert ping(beside, "10.0.1.12", within_s=NO_ANSWER_S) is None, "the others don't know it"
    with serve(second, "10.0.1.12") as server, dial(first, "10.0.1.12") as client:
        accepted, (source, _) = server.accept()
        with accepted:
            assert source == "10.0.1.11"
            exchange(client, accepted, b"hello")


def test_networks_with_the_same_subnet_are_worlds_of_their_own(nodes: list[Node]) -> None:
    one, two, _ = nodes
    places = {"net-a 10.0.1.11": "n1", "net-a 10.0.1.12": "n2"}
    connect(nodes, [A, B], {**places, "net-b 10.0.1.11": "n1", "net-b 10.0.1.12": "n2"})
    in_a = one.attach("a1", link("net-a", "10.0.1.11"))
    in_b = one.attach("b1", link("net-b", "10.0.1.11"))
    with serve(two.attach("a2", link("net-a", "10.0.1.12")), "10.0.1.12") as of_a:
        assert ping(in_a, "10.0.1.12") is not None
        assert ping(in_b, "10.0.1.12", within_s=NO_ANSWER_S) is None, "there is none in b"
        with serve(two.attach("b2", link("net-b", "10.0.1.12")), "10.0.1.12") as of_b:
            with dial(in_b, "10.0.1.12") as client, of_b.accept()[0] as accepted:
                exchange(client, accepted, b"to b")
            with dial(in_a, "10.0.1.12") as client, of_a.accept()[0] as accepted:
                exchange(client, accepted, b"to a")


def test_a_task_on_two_networks_is_no_way_between_them(one: Node) -> None:
    other = network("net-b", 4098, "10.0.2.0/24")
    connect([one], [A, other], {})
    inside = one.attach("t1", link("net-a", "10.0.1.11"))
    both = one.attach("t2", link("net-a", "10.0.1.12"), link("net-b", "10.0.2.12", "eth1"))
    beyond = one.attach("t3", link("net-b", "10.0.2.13"))
    assert ping(both, "10.0.1.11") is not None
    assert ping(both, "10.0.2.13") is not None
    one.lab.command(inside, "ip", "route", "add", "10.0.2.0/24", "via", "10.0.1.12")
    one.lab.command(beyond, "ip", "route", "add", "10.0.1.0/24", "via", "10.0.2.12")
    assert ping(inside, "10.0.2.13", within_s=NO_ANSWER_S) is None


def send_and_close(client: socket.socket, data: bytes) -> None:
    client.sendall(data)
    client.close()


def test_large_packets_pass_or_are_refused_at_once(nodes: list[Node]) -> None:
    one, two, _ = nodes
    connect(nodes, [A], {"net-a 10.0.1.11": "n1", "net-a 10.0.1.12": "n2"})
    first = one.attach("t1", link("net-a", "10.0.1.11"))
    second = two.attach("t2", link("net-a", "10.0.1.12"))
    assert ping(first, "10.0.1.12", size=1422) is not None
    with pytest.raises(OSError, match="Message too long"):
        ping(first, "10.0.1.12", size=1423)
    data = os.urandom(1 << 20) * 10
    with serve(second, "10.0.1.12") as server, dial(first, "10.0.1.12") as client:
        accepted, _ = server.accept()
        with accepted:
            sender = threading.Thread(target=send_and_close, args=(client, data))
            sender.start()
            digest = hashlib.sha256()
            while chunk := accepted.recv(1 << 16):
                digest.update(chunk)
            sender.join()
    assert digest.digest() == hashlib.sha256(data).digest()


def test_the_overlay_takes_its_mtu_from_the_underlay(tmp_path: Path) -> None:
    with lab(2, mtu=1400) as machine, running(machine, tmp_path) as nodes:
        connect(nodes, [A], {"net-a 10.0.1.11": "n1", "net-a 10.0.1.12": "n2"})
        first = nodes[0].attach("t1", link("net-a", "10.0.1.11"))
        nodes[1].attach("t2", link("net-a", "10.0.1.12"))
        assert ping(first, "10.0.1.12", size=1322) is not None
        with pytest.raises(OSError, match="Message too long"):
            ping(first, "10.0.1.12", size=1323)


def test_peers_come_move_and_go(nodes: list[Node]) -> None:
    one, two, three = nodes
    connect(nodes, [A], {"net-a 10.0.1.11": "n1"})
    first = one.attach("t1", link("net-a", "10.0.1.11"))
    beside = one.attach("t4", link("net-a", "10.0.1.14"))
    two.attach("t2", link("net-a", "10.0.1.12"))
    three.attach("t3", link("net-a", "10.0.1.13"))
    assert ping(beside, "10.0.1.12", within_s=NO_ANSWER_S) is None
    one.peers = {"net-a": [Peer("10.0.1.12", two.address), Peer("10.0.1.13", three.address)]}
    assert one.apply() == ()
    assert ping(first, "10.0.1.12") is not None
    do(two.links.detach("t2"))
    three.attach("t2", link("net-a", "10.0.1.12"))
    one.peers = {"net-a": [Peer("10.0.1.12", three.address)]}
    assert one.apply() == ()
    assert ping(first, "10.0.1.12") is not None
    assert ping(first, "10.0.1.13", within_s=NO_ANSWER_S) is None
    assert do(one.links.observe()).found.overlays["net-a"].peers == {"10.0.1.12": three.address}


def test_the_node_itself_is_on_the_ingress_network(nodes: list[Node]) -> None:
    one, two, _ = nodes
    connect(nodes, [A], {"net-a 10.0.1.1": "n1", "net-a 10.0.1.2": "n2", "net-a 10.0.1.12": "n2"})
    for node, address in ((one, "10.0.1.7"), (one, "10.0.1.1"), (two, "10.0.1.2")):
        do(node.links.ensure_ingress("net-a", address, 24))
    second = two.attach("t2", link("net-a", "10.0.1.12"))
    host = one.place.namespace
    assert host is not None
    assert ping(host, "10.0.1.2") is not None
    assert ping(host, "10.0.1.12") is not None
    assert ping(second, "10.0.1.1") is not None
    assert ping(second, "10.0.1.7", within_s=NO_ANSWER_S) is None, "it has been replaced"


def test_tasks_get_out_by_the_gateway_but_not_to_one_another(
    nodes: list[Node], machine: Lab
) -> None:
    one, two, _ = nodes
    connect(nodes, [network("net-a", 4097, internal=False), B], {})
    first = one.attach("t1", link("net-a", "10.0.1.11"))
    second = one.attach("t2", link("net-a", "10.0.1.12"))
    kept = one.attach("t3", link("net-b", "10.0.1.13"))
    host = one.place.namespace
    assert host is not None
    rules = one.place.folder / "rules.nft"
    rules.write_text(gateway_rules(one.place.node, one.links.gateway))
    for _ in range(2):
        machine.command(host, "nft", "-f", str(rules))
    assert ping(first, two.address) is not None
    assert ping(second, two.address) is not None
    with pytest.raises(OSError, match="unreachable"):
        ping(kept, two.address)
    assert ping(first, "172.29.0.3", within_s=NO_ANSWER_S) is None, "the second task"
    one.restart()
    assert one.apply() == ()
    third = one.attach("t4", link("net-a", "10.0.1.14"))
    assert do(one.links.observe()).found.egress == {
        "t1": "172.29.0.2",
        "t2": "172.29.0.3",
        "t4": "172.29.0.4",
    }
    assert ping(third, two.address) is not None


def test_sandbox_and_tasks_have_their_switches(one: Node) -> None:
    connect([one], [A], {})
    path = one.attach("t1", link("net-a", "10.0.1.11"))

    def switch(name: str) -> str:
        file = Path("/proc/sys/net") / name
        return file.read_text().strip() if file.exists() else "0"

    assert run_in(path, switch, "ipv4/ip_unprivileged_port_start") == "0"
    assert run_in(path, switch, "ipv4/conf/eth0/rp_filter") == "2"
    assert run_in(path, switch, "ipv6/conf/eth0/accept_dad") == "0"
    assert run_in(one.place.sandbox, switch, "bridge/bridge-nf-call-iptables") == "0"
    with run_in(path, socket.socket) as inside:
        cookie = inside.getsockopt(socket.SOL_SOCKET, 71, 8)
    assert int.from_bytes(cookie, "little") == one.tasks["t1"].cookie
