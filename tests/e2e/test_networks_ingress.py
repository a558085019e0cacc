"""Published ports, in both data planes: from every node, over every way, to the end."""

from __future__ import annotations

import os
import socket
from contextlib import closing

import pytest

from skep.domain.base import replace
from skep.domain.spec import PortMode, Protocol, ProxyProtocol
from tests.support import netpeer
from tests.support.local_cluster import eventually
from tests.support.netcluster import TARGET, Net, ingress

pytestmark = pytest.mark.process

NOTICED_S = 10.0
MIB = 1 << 20
SIZE = (1024 if os.environ.get("SKEP_NET_LONG") else 100) * MIB


def test_every_node_takes_connections_for_every_replica(net: Net) -> None:
    port = net.port()
    echo = net.peers("echo", replicas=2, publish=[ingress(port), ingress(port, Protocol.UDP)])
    names = {f"{echo}.1", f"{echo}.2"}
    assert len(net.nodes_of(echo)) == 2, "a node must be without a replica"
    for node in net.workers:
        at = net.addresses[node]
        assert {netpeer.greet(at, port)[0] for _ in range(8)} == names
        told = [netpeer.ask_udp(at, port, f"n{n}") for n in range(12)]
        assert [words[-1] for words in told] == [f"n{n}" for n in range(12)]
        assert {words[0] for words in told} == names
        # One who talks on stays with one replica.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.settimeout(5.0)
            udp.connect((at, port))
            partners = set()
            for _ in range(6):
                udp.send(b"again")
                partners.add(udp.recv(1024).split()[0])
            assert len(partners) == 1


def test_a_node_reaches_published_ports_of_its_own_and_of_others(net: Net) -> None:
    port = net.port()
    publish = [ingress(port), ingress(port, Protocol.UDP)]
    echo = net.peers("echo", replicas=1, node="w1", publish=publish)
    for node in ("w1", "w3"):
        for at in (net.addresses[node], net.addresses["w2"]):
            told = net.peer_on(node, f"greet({at!r}, {port})")
            assert told[0] == f"{echo}.1"
            assert net.peer_on(node, f"ask_udp({at!r}, {port})")[0] == f"{echo}.1"


def test_localhost_of_a_node_is_the_node(net: Net) -> None:
    if not net.is_kernel:
        pytest.skip("nodes of a relay cluster have addresses of their own for localhost")
    port = net.port()
    publish = [ingress(port), ingress(port, Protocol.UDP)]
    echo = net.peers("echo", node="w1", publish=publish)
    for node in net.workers:
        assert net.peer_on(node, f"greet('127.0.0.1', {port})")[0] == f"{echo}.1"
        assert net.peer_on(node, f"ask_udp('127.0.0.1', {port})")[0] == f"{echo}.1"


def test_published_ports_answer_on_ipv6(net: Net) -> None:
    if not net.is_kernel:
        pytest.skip("a local cluster's relays have no IPv6 addresses of their own")
    port = net.port()
    publish = [ingress(port), ingress(port, Protocol.UDP)]
    echo = net.peers("echo", replicas=2, publish=publish)
    names = {f"{echo}.1", f"{echo}.2"}
    for number, node in enumerate(net.workers, 1):
        own = f"fd00:5e9::{number}"
        done = net.on(node, "ip", "addr", "replace", f"{own}/64", "dev", "eth0", "nodad")
        assert done.returncode == 0, done.stderr
        for at in ("::1", own):
            told = net.peer_on(node, f"[greet({at!r}, {port}) for _ in range(6)]")
            assert {words[0] for words in told} == names, at


def test_a_removed_replica_serves_its_connections_to_their_end(net: Net) -> None:
    port = net.port()
    echo = net.peers("echo", replicas=2, publish=[ingress(port)])
    opened = [netpeer.dial(net.addresses[node], port) for node in net.workers for _ in range(2)]
    for connection, _ in opened:
        connection.sendall(b"echo\n")
        assert netpeer.said(connection, "before") == "before"
    assert {words[0] for _, words in opened} == {f"{echo}.1", f"{echo}.2"}

    service = net.sdk.services.scale(echo, 1)
    eventually(lambda: len(net.pids(echo)) == 1, NOTICED_S, "one replica is wanted")
    (left,) = net.pids(echo)
    for node in net.workers:
        at = net.addresses[node]
        eventually(
            lambda at=at: {netpeer.greet(at, port)[0] for _ in range(4)} == {left},  # type: ignore[misc]
            NOTICED_S,
            f"{at} asks the one that is left",
        )
    for connection, _ in opened:
        assert netpeer.said(connection, "after") == "after"
        connection.close()
    net.sdk.wait_converged({service.id: service.revision}, timeout_s=60.0)


def test_either_side_may_end_its_half_first(net: Net) -> None:
    port = net.port()
    net.peers("echo", node="w1", publish=[ingress(port)])
    for node in net.workers:
        at = net.addresses[node]
        for words in ("sink", f"source {MIB}"):
            connection, _ = netpeer.dial(at, port)
            with connection:
                connection.sendall(f"{words}\n".encode())
                if words.startswith("source"):
                    assert len(netpeer.rest(connection)) == MIB
                for chunk in netpeer.pattern(MIB):
                    connection.sendall(chunk)
                connection.shutdown(socket.SHUT_WR)
                rest = netpeer.rest(connection)
            with closing(netpeer.dial(at, port)[0]) as asking:
                asking.sendall(b"last\n")
                counted = asking.makefile().readline().strip()
            assert counted == netpeer.digest_of(MIB), words
            assert rest.decode().strip() == (counted if words == "sink" else "")


def test_much_comes_through_as_it_was(net: Net) -> None:
    port, front = net.port(), net.network()
    echo = net.peers("echo", on=[front], node="w1", publish=[ingress(port)])
    agent = net.agent(front, node="w3")
    told, expected = agent.do("send", host=echo, port=TARGET, size=SIZE, within_s=600.0)
    assert told == expected
    # And back, through a node without a replica.
    connection, _ = netpeer.dial(net.addresses["w2"], port, timeout_s=60.0)
    with connection:
        connection.sendall(f"source {SIZE}\n".encode())
        for chunk in netpeer.pattern(SIZE):
            got = bytearray()
            while len(got) < len(chunk):
                part = connection.recv(len(chunk) - len(got))
                assert part
                got += part
            assert got == chunk
        assert connection.recv(1) == b""


# ----------------------------------------------------------------------- who the client is


def test_tasks_see_their_clients_where_the_kernel_forwards(net: Net) -> None:
    if not net.is_kernel:
        pytest.skip("the relay plane names clients by the PROXY protocol only")
    port = net.port()
    publish = [ingress(port), ingress(port, Protocol.UDP)]
    net.peers("echo", replicas=2, publish=publish)
    for node in net.workers:
        for _ in range(4):
            connection, words = netpeer.dial(net.addresses[node], port)
            with connection:
                assert words[2:] == [str(part) for part in connection.getsockname()]
        assert netpeer.ask_udp(net.addresses[node], port)[2] == net.own_address


@pytest.mark.parametrize("version", [ProxyProtocol.V1, ProxyProtocol.V2])
def test_the_proxy_protocol_names_the_client(net: Net, version: ProxyProtocol) -> None:
    port = net.port()
    publish = [ingress(port, proxy_protocol=version)]
    echo = net.peers("echo", replicas=2, publish=publish, env={"PROXY_PROTOCOL": "1"})
    for node in net.workers:
        seen = set()
        for _ in range(4):
            connection, words = netpeer.dial(net.addresses[node], port)
            with connection:
                assert words[2:] == [str(part) for part in connection.getsockname()]
            seen.add(words[0])
        assert seen == {f"{echo}.1", f"{echo}.2"}


def test_one_port_of_a_client_may_be_used_by_two_nodes(net: Net) -> None:
    port = net.port()
    net.peers("echo", node="w1", publish=[ingress(port)])
    opened: list[socket.socket] = []
    own_port = 0
    try:
        for node in net.workers:
            connection = socket.socket()
            opened.append(connection)
            connection.settimeout(10.0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            connection.bind(("", own_port))
            own_port = connection.getsockname()[1]
            connection.connect((net.addresses[node], port))
            told = netpeer.hello(connection)
            if net.is_kernel:
                assert told[2] == net.own_address
            connection.sendall(b"echo\n")
        for number, connection in enumerate(opened):
            assert netpeer.said(connection, f"n{number}") == f"n{number}"
    finally:
        for connection in opened:
            connection.close()


def test_a_load_balancer_s_word_on_the_client_is_passed_on(net: Net) -> None:
    port = net.port()
    publish = [ingress(port, proxy_protocol=ProxyProtocol.V2, accepts_proxy_protocol=True)]
    net.peers("echo", publish=publish, env={"PROXY_PROTOCOL": "1"})
    for node in net.workers:
        place = (net.addresses[node], port)
        with socket.create_connection(place, timeout=10.0) as connection:
            connection.sendall(b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 80\r\n")
            assert netpeer.hello(connection)[2:] == ["203.0.113.7", "4711"]
        # Who says nothing of a client can't be one.
        with socket.create_connection(place, timeout=10.0) as connection:
            connection.sendall(b"echo\n")
            with pytest.raises(ConnectionResetError):
                netpeer.hello(connection)


# ------------------------------------------------------------------------- kinds of ports


def test_a_port_of_host_mode_is_open_where_a_task_is(net: Net) -> None:
    port = net.port()
    publish = [
        replace(ingress(port, protocol), mode=PortMode.HOST)
        for protocol in (Protocol.TCP, Protocol.UDP)
    ]
    echo = net.peers("echo", replicas=2, publish=publish)
    nodes = net.nodes_of(echo)
    for node in net.workers:
        at = net.addresses[node]
        if node in nodes:
            assert {netpeer.greet(at, port)[1] for _ in range(3)} == {node}
            assert netpeer.ask_udp(at, port)[1] == node
        else:
            with pytest.raises(ConnectionRefusedError):
                netpeer.greet(at, port)


def test_one_number_is_two_ports(net: Net) -> None:
    port = net.port()
    over_tcp, over_udp = net.start(
        net.spec("tcp", publish=[ingress(port)]),
        net.spec("udp", publish=[ingress(port, Protocol.UDP)]),
    )
    for node in net.workers:
        assert netpeer.greet(net.addresses[node], port)[0] == f"{over_tcp}.1"
        assert netpeer.ask_udp(net.addresses[node], port)[0] == f"{over_udp}.1"


def test_closed_ports_are_closed_and_removed_ones_are_closed_again(net: Net) -> None:
    port = net.port()
    echo = net.peers("echo", publish=[ingress(port)])
    assert netpeer.greet(net.addresses["w3"], port)[0] == f"{echo}.1"
    net.remove(echo)
    net.settle()
    for node in net.workers:
        with pytest.raises(ConnectionRefusedError):
            netpeer.greet(net.addresses[node], port)


def test_many_ask_at_once(net: Net) -> None:
    port = net.port()
    echo = net.peers("echo", replicas=3, publish=[ingress(port)])
    places = [(net.addresses[node], port) for node in net.workers]
    load = netpeer.Load(places, per_s=1000.0, threads=16)
    eventually(lambda: load.report()["total"] >= 500, 30.0, "500 connections")
    report = load.stop()
    assert report["failures"] == []
    assert set(report["by_name"]) == {f"{echo}.{n}" for n in (1, 2, 3)}
