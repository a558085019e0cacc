"""Encrypted networks between two nodes of a lab, by real WireGuard and real VXLAN."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import os
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from skep.env import RealDisk, Retryable, real_env
from skep.netproxy.kernel.adapters import leftovers, messages, netns, wireguard
from skep.netproxy.kernel.adapters.links import Links
from skep.netproxy.kernel.adapters.netlink import Netlink
from skep.netproxy.kernel.adapters.sandbox import Sandbox
from skep.netproxy.kernel.adapters.wireguard import KEY_FILE, Encryption, prepared
from skep.netproxy.kernel.adapters.wireguard_go import PROGRAM, SOCKETS, ProgramDriver
from skep.netproxy.kernel.core.keys import public_key, text_of
from skep.netproxy.kernel.core.links import Network, Peer, Vxlan
from skep.netproxy.kernel.core.names import BRIDGE, VXLAN, WIREGUARD, interface_name, tag
from skep.netproxy.kernel.core.tunnel import Change, Tunnel, TunnelPeer
from skep.rpc import GrpcTransport
from tests.support.netns import Lab, lab, needs_namespaces, run_in
from tests.support.packets import VNI, Wire, packet_socket
from tests.unit.netproxy.kernel.support import (
    NO_ANSWER_S,
    Node,
    checksum,
    dial,
    do,
    exchange,
    interfaces,
    link,
    ping,
    serve,
)

DRIVER, WHY_NOT = wireguard.tried() if os.geteuid() == 0 else (None, "it needs root")
pytestmark = [
    pytest.mark.process,
    needs_namespaces(),
    pytest.mark.skipif(DRIVER is None, reason=WHY_NOT),
]
needs_program = pytest.mark.skipif(
    not isinstance(DRIVER, ProgramDriver), reason="the kernel's WireGuard is used here"
)

SECRET = b"nobody else may read this"
FIRST, SECOND = "10.0.1.2", "10.0.1.3"
CLEAR = 5002
DEADLINE_S = 15.0


def eventually(is_so: Callable[[], bool], within_s: float = DEADLINE_S) -> None:
    ends = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < ends


def _make_device(name: str, vxlan: Vxlan, namespace_fd: int) -> None:
    """A VXLAN device whose packets are those of the calling thread's namespace."""
    netlink = Netlink()
    try:
        netlink.ask(messages.make_vxlan(name, vxlan, namespace_fd))
    finally:
        netlink.close()


def _move(name: str, namespace_fd: int) -> None:
    netlink = Netlink()
    try:
        netlink.ask([messages.move_link(messages.index_named(netlink, name), namespace_fd)])
    finally:
        netlink.close()


def _send(address: str, data: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(data, (address, 4789))


def _broadcast(text: bytes) -> bytes:
    """A frame for everybody on a network, of no protocol."""
    return b"\xff" * 6 + b"\x02\x42\x0a\0\1\x63" + b"\x88\xb5" + text * 16


def _udp(source: str, target: str, data: bytes) -> bytes:
    """A packet to the VXLAN port."""
    ends = socket.inet_aton(source) + socket.inet_aton(target)
    header = struct.pack("!BBHHHBBH", 0x45, 0, 28 + len(data), 7, 0, 64, 17, 0) + ends
    checked = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    return checked + struct.pack("!HHHH", 9999, 4789, 8 + len(data), 0) + data


def _in_vxlan(vni: int, frame: bytes) -> bytes:
    return b"\x08\0\0\0" + vni.to_bytes(3, "big") + b"\0" + frame


def in_sandbox(two: Two, *command: str) -> str:
    """What it prints in the sandbox of n1."""
    return two.nodes[0].lab.command(two.nodes[0].place.sandbox, *command)


def in_tunnel(two: Two, *command: str) -> str:
    """What it prints in the tunnel of n1."""
    return two.nodes[0].lab.command(two.nodes[0].place.tunnel, *command)


class Two:
    """Two nodes with one encrypted network, a task on each, and what is on the wire."""

    def __init__(self, machine: Lab, folder: Path) -> None:
        assert DRIVER is not None
        self.keys = [bytes([number]) * 31 + b"\x40" for number in (8, 16)]
        self.nodes = [
            Node(machine, name, folder, Encryption(DRIVER, key))
            for name, key in zip(machine.nodes[:2], self.keys, strict=True)
        ]
        self.paths: list[Path] = []
        self.wire = Wire(machine.path("n1"), "eth0")

    def start(self) -> None:
        secret = Network("secret", 5001, "10.0.1.0/24", is_internal=True, is_encrypted=True)
        for number, node in enumerate(self.nodes):
            other = 1 - number
            node.networks = [secret]
            node.peers = {"secret": [Peer((FIRST, SECOND)[other], f"10.255.0.{other + 2}")]}
            node.tunnel = self.tunnel(number)
            assert node.apply() == ()
            self.paths.append(node.attach(f"t{number}", link("secret", (FIRST, SECOND)[number])))

    def tunnel(self, number: int, *, knows: bool = True) -> Tunnel:
        other = 1 - number
        peer = TunnelPeer(f"10.255.0.{other + 2}", self.nodes[other].address)
        peers = {public_key(self.keys[other]): peer} if knows else {}
        return Tunnel(f"10.255.0.{number + 2}", 16, peers)

    def device(self, number: int) -> str:
        return interface_name(WIREGUARD, self.nodes[number].place.node)

    def pid(self, number: int) -> int:
        """That of a node's wireguard-go, of which there is one at most."""
        wanted = self.device(number).encode()
        found = []
        for entry in os.listdir("/proc"):
            with contextlib.suppress(OSError):
                if entry.isdigit():
                    command = Path("/proc", entry, "cmdline").read_bytes().split(b"\0")
                    if command[1:2] == [wanted]:
                        found.append(int(entry))
        assert len(found) < 2
        return found[0] if found else 0

    def add_clear(self) -> list[Path]:
        """Have a network that isn't encrypted, too, with a task on each node."""
        clear = Network("clear", CLEAR, "10.0.2.0/24", is_internal=True)
        paths = []
        for number, node in enumerate(self.nodes):
            node.networks = [*node.networks, clear]
            node.peers["clear"] = [Peer(f"10.0.2.{3 - number}", self.nodes[1 - number].address)]
            assert node.apply() == ()
            paths.append(node.attach(f"c{number}", link("clear", f"10.0.2.{number + 2}")))
        return paths

    def can_talk(self) -> bool:
        return ping(self.paths[0], SECOND, within_s=NO_ANSWER_S) is not None

    def remove(self) -> None:
        self.wire.close()
        for node in self.nodes:
            node.remove()
        eventually(lambda: not self.pid(0) and not self.pid(1))


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Two]:
    # The third is no node of theirs.
    with lab(3) as machine:
        made = Two(machine, tmp_path)
        try:
            made.start()
            yield made
        finally:
            made.remove()


def test_what_goes_from_node_to_node_is_encrypted(two: Two) -> None:
    eventually(two.can_talk)
    with serve(two.paths[1], SECOND) as server, dial(two.paths[0], SECOND) as client:
        accepted, _ = server.accept()
        with accepted:
            exchange(client, accepted, SECRET)
            # As much as fits into one packet, and no more, without being fragmented on the way.
            client.sendall(SECRET * 4000)
            left = len(SECRET) * 4000
            while left:
                left -= len(accepted.recv(left))
    assert ping(two.paths[0], SECOND, 1375 - 28) is not None
    with pytest.raises(OSError, match="too long"):
        ping(two.paths[0], SECOND, 1375 - 27)
    frames = two.wire.read()
    assert not two.wire.has(SECRET)
    assert not two.wire.has(SECRET.upper())
    assert two.wire.udp(4789) == []
    assert len(two.wire.udp(51820)) > 10
    # Nothing of it is in pieces.
    packets = [frame for frame in frames if frame[12:14] == b"\x08\x00"]
    assert not any(int.from_bytes(packet[20:22]) & 0x3FFF for packet in packets)
    assert two.nodes[0].differences() == ()


def test_without_the_other_s_key_nothing_goes_out(two: Two) -> None:
    eventually(two.can_talk)
    two.nodes[0].tunnel = two.tunnel(0, knows=False)
    assert two.nodes[0].apply() == ()
    two.wire.forget()
    assert not two.can_talk()
    assert two.wire.udp(4789) == two.wire.udp(51820) == []
    two.nodes[0].tunnel = two.tunnel(0)
    assert two.nodes[0].apply() == ()
    eventually(two.can_talk)


def test_what_comes_in_the_clear_is_not_taken(two: Two) -> None:
    """Whoever can send to a node's VXLAN port is on all networks but the encrypted ones."""
    eventually(two.can_talk)
    two.wire.forget()
    paths = two.add_clear()
    assert ping(paths[0], "10.0.2.3") is not None
    sent = next(f for f in two.wire.udp(4789) if f[VNI] == CLEAR.to_bytes(3, "big"))
    # The same with the id of the encrypted network, and for one that listens there.
    with Wire(two.nodes[1].place.sandbox) as heard:
        for number in (CLEAR, 5001):
            forged = sent[42:46] + number.to_bytes(3, "big") + sent[49:50]
            forged += _broadcast(number.to_bytes(4, "big"))
            two.nodes[0].lab.run("n1", _send, two.nodes[1].address, forged)
        eventually(lambda: heard.has(CLEAR.to_bytes(4, "big") * 16))
        assert not heard.has((5001).to_bytes(4, "big") * 16)


def test_what_a_task_sends_to_its_node_s_own_end_is_not_taken(two: Two) -> None:
    """A task may speak to the bridge of its network."""
    bridge = interface_name(BRIDGE, "secret")
    told = in_sandbox(two, "ip", "-o", "link", "show", bridge)
    mac = bytes.fromhex(told.partition("link/ether ")[2].split()[0].replace(":", ""))
    own = b"\x02\x42\x0a\0\1\2"
    for source in (FIRST, "10.255.0.3", "192.0.2.1"):
        marker = socket.inet_aton(source)
        packet = _udp(source, "10.255.0.2", _in_vxlan(5001, _broadcast(marker)))
        frame = mac + own + b"\x08\0" + packet
        with Wire(two.nodes[0].place.sandbox) as heard:
            sender = run_in(two.paths[0], packet_socket, "eth0")
            with sender:
                sender.send(frame)
            eventually(functools.partial(heard.has, frame))
            assert not any(each[12:14] == b"\x88\xb5" for each in heard.read())


EVERYBODY = [
    pytest.param(source, target, mac, id=f"{source} to {target}")
    for source in ("0.0.0.0", "10.255.0.3")
    for target, mac in (
        ("255.255.255.255", b"\xff" * 6),
        ("224.0.0.1", b"\x01\0\x5e\0\0\1"),
    )
]


@pytest.mark.parametrize("sender", ["a task of the node", "a machine that is no node"])
@pytest.mark.parametrize(("source", "target", "mac"), EVERYBODY)
def test_what_is_sent_to_everybody_on_another_network_is_not_taken(
    two: Two, sender: str, source: str, target: str, mac: bytes
) -> None:
    """Bridges hand it to the namespace that they are in, whatever address it is said to be from."""
    eventually(two.can_talk)
    task, node = two.add_clear()[0], two.nodes[0]
    forged = _udp(source, target, _in_vxlan(5001, _broadcast(b"forged")))
    frame = mac + b"\x02\x42\x0a\0\2\3" + b"\x08\0" + forged

    def send(what: bytes) -> None:
        if sender == "a task of the node":
            with run_in(task, packet_socket, "eth0") as sock:
                sock.send(what)
        else:
            node.lab.run("n3", _send, node.address, _in_vxlan(CLEAR, what))

    with Wire(two.paths[0], "eth0") as heard, Wire(node.place.sandbox) as sandbox:
        send(frame)
        eventually(functools.partial(sandbox.has, frame))
        # What comes after it by the same way has arrived, and so has what the network's own say.
        send(_broadcast(b"after"))
        eventually(lambda: sandbox.has(b"after" * 16))
        with run_in(two.paths[1], packet_socket, "eth0") as other:
            other.send(b"\x02\x42\x0a\0\1\2\x02\x42\x0a\0\1\3\x88\xb5" + b"honest" * 16)
        eventually(lambda: heard.has(b"honest" * 16))
        assert not heard.has(b"forged" * 16)
        assert not any(b"forged" in each for each in sandbox.read() if each[12:14] == b"\x88\xb5")


def test_nothing_takes_packets_in_the_sandbox_and_only_wireguard_leads_to_the_tunnel(
    two: Two,
) -> None:
    two.add_clear()
    assert in_sandbox(two, "ss", "-Hlnu") == ""
    assert ":4789 " in in_tunnel(two, "ss", "-Hlnu")
    assert interfaces(two.nodes[0].place.tunnel) == {"lo", two.device(0)}


@pytest.mark.parametrize("where", ["sandbox", "node"])
def test_an_encrypted_network_s_device_is_replaced_where_its_packets_begin_elsewhere(
    two: Two, where: str
) -> None:
    eventually(two.can_talk)
    node, name = two.nodes[0], interface_name(VXLAN, "secret")
    begins = node.place.sandbox if where == "sandbox" else node.lab.path("n1")
    wrong = Vxlan(5001, "10.255.0.2", 4789, 1375, is_encrypted=True)
    in_sandbox(two, "ip", "link", "delete", name)
    with netns.opened(node.place.sandbox) as fd:
        run_in(begins, _make_device, name, wrong, fd)
    in_sandbox(two, "ip", "link", "set", name, "alias", tag(node.place.node, net="secret"))
    in_sandbox(two, "ip", "link", "set", name, "master", interface_name(BRIDGE, "secret"), "up")
    two.wire.forget()
    assert not two.can_talk()
    assert two.wire.udp(4789) == []
    assert "network secret: its VXLAN device is in the way" in node.differences()
    assert node.apply() == ()
    assert node.differences() == ()
    eventually(two.can_talk)


def test_a_tunnel_that_is_gone_is_made_anew(two: Two) -> None:
    eventually(two.can_talk)
    node = two.nodes[0]
    run_in(node.lab.path("n1"), netns.remove, node.place.tunnel)
    eventually(lambda: "WireGuard: its device is gone" in node.differences())
    # The kernel takes its time with a namespace that nobody holds any more.
    eventually(lambda: not two.can_talk())
    assert two.wire.udp(4789) == []
    assert node.apply() == ()
    eventually(two.can_talk)
    assert node.differences() == ()


@needs_program
def test_a_dead_program_is_noticed_and_started_anew(two: Two) -> None:
    eventually(two.can_talk)
    os.kill(two.pid(0), signal.SIGKILL)
    eventually(lambda: two.nodes[0].differences() == ("WireGuard: its device is gone",))
    two.wire.forget()
    assert not two.can_talk()
    assert two.wire.udp(4789) == []
    assert two.nodes[0].apply() == ()
    eventually(two.can_talk)
    assert two.nodes[0].differences() == ()


def is_unanswered(text: str) -> bool:
    return "does not answer" in text


@needs_program
def test_a_hung_program_is_replaced_in_little_time(two: Two) -> None:
    eventually(two.can_talk)
    node, pid = two.nodes[0], two.pid(0)
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    assert any(map(is_unanswered, node.differences()))
    assert node.apply() == ()
    # A second to ask in each, half a one to end, and the rest is for a busy machine.
    assert time.monotonic() - began < 6
    assert two.pid(0) not in (0, pid)
    eventually(two.can_talk)
    assert node.differences() == ()


@needs_program
def test_a_program_whose_socket_is_gone_is_replaced(two: Two) -> None:
    eventually(two.can_talk)
    node, pid = two.nodes[0], two.pid(0)
    os.kill(pid, signal.SIGSTOP)
    (SOCKETS / f"{two.device(0)}.sock").unlink()
    assert any(map(is_unanswered, node.differences()))
    assert node.apply() == ()
    assert two.pid(0) not in (0, pid)
    eventually(two.can_talk)


@needs_program
def test_a_hung_program_is_cleaned_up(two: Two) -> None:
    node, pid = two.nodes[0], two.pid(0)
    os.kill(pid, signal.SIGSTOP)
    do(node.links.clean())
    assert not two.pid(0)
    assert not (SOCKETS / f"{two.device(0)}.sock").exists()
    two.paths.clear()
    node.links = do(Links.open(node.place, node.encryption))


@needs_program
@pytest.mark.parametrize("where", ["node", "sandbox"])
def test_a_device_that_stayed_behind_goes_when_nobody_wants_it(two: Two, where: str) -> None:
    """Of a netproxy that died before it could move it, or of an earlier release."""
    node, name = two.nodes[0], two.device(0)
    do(node.links.detach("t0"))
    node.networks, node.peers, node.tunnel = [], {}, None
    assert node.apply() == ()
    node.lab.command(node.lab.path("n1"), PROGRAM, name)
    if where == "sandbox":
        with netns.opened(node.place.sandbox) as fd:
            node.lab.run("n1", _move, name, fd)
    node.restart()
    assert node.apply() == ()
    assert name not in node.interfaces() | node.sandbox()
    assert not two.pid(0)


@needs_program
@pytest.mark.parametrize("where", ["node", "sandbox"])
def test_a_device_that_stayed_behind_is_not_in_the_way(two: Two, where: str) -> None:
    node, name = two.nodes[0], two.device(0)
    source = node.place.tunnel
    with netns.opened(node.place.sandbox if where == "sandbox" else node.lab.path("n1")) as fd:
        run_in(source, _move, name, fd)
    node.restart()
    assert node.apply() == ()
    assert name not in node.interfaces() | node.sandbox()
    eventually(two.can_talk)
    assert node.differences() == ()


def test_a_device_that_can_not_be_finished_is_dropped(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    eventually(two.can_talk)
    node = two.nodes[0]
    in_tunnel(two, "ip", "link", "delete", two.device(0))
    assert "WireGuard: its device is gone" in node.differences()

    def fail(sandbox: Sandbox, name: str) -> None:
        if isinstance(DRIVER, ProgramDriver):
            node.lab.command(node.lab.path("n1"), PROGRAM, name)
        raise OSError("no more of it")

    with monkeypatch.context() as patch:
        patch.setattr(type(DRIVER), "make", lambda _, *given: fail(*given))
        assert any("no more of it" in text for text in node.apply())
    assert two.device(0) not in node.interfaces()
    assert not two.pid(0)
    assert node.apply() == ()
    eventually(two.can_talk)


@needs_program
def test_the_program_starts_whatever_is_in_our_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With LOG_LEVEL it keeps the output that it is given, and says there what it does."""
    monkeypatch.setenv("LOG_LEVEL", "debug")
    monkeypatch.setenv("WG_PROCESS_FOREGROUND", "1")
    with lab(2) as machine:
        made = Two(machine, tmp_path)
        try:
            made.start()
            eventually(made.can_talk)
        finally:
            made.remove()


@needs_program
def test_the_program_outlives_whoever_started_it(two: Two) -> None:
    eventually(two.can_talk)
    pid = two.pid(0)
    two.nodes[0].restart()
    assert two.can_talk()
    assert two.nodes[0].apply() == ()
    assert two.can_talk()
    assert two.pid(0) == pid
    assert os.getsid(pid) not in (os.getsid(0), 0)


def test_what_others_do_to_the_device_is_noticed_and_put_right(two: Two) -> None:
    eventually(two.can_talk)
    node, key = two.nodes[0], public_key(two.keys[1])
    stranger = public_key(b"\x08" * 31 + b"\x41")
    driver, sandbox = DRIVER, node.links._parts[0]
    assert driver is not None
    step = Change(port=1, removed=(key,), peers={stranger: TunnelPeer("10.255.0.9", "10.200.0.9")})
    driver.tell(sandbox, two.device(0), step)
    told = node.differences()
    assert f"WireGuard: {text_of(stranger)} is no node's key" in told
    assert "WireGuard: its port is 1, not 51820" in told
    assert any("the node at 10.200.0.2 is missing" in text for text in told)
    in_tunnel(two, "ip", "link", "set", two.device(0), "mtu", "1300")
    assert any("should be up with MTU 1425" in text for text in node.differences())
    in_tunnel(two, "ip", "addr", "flush", "dev", two.device(0))
    assert any("and address 10.255.0.2" in text for text in node.differences())
    assert node.apply() == ()
    assert node.differences() == ()
    eventually(two.can_talk)


def test_a_node_s_address_in_the_tunnel_may_change(two: Two) -> None:
    eventually(two.can_talk)
    first, second = two.nodes
    own, theirs = two.tunnel(0), two.tunnel(1)
    first.tunnel = dataclasses.replace(own, address="10.255.0.9")
    (peer,) = theirs.peers.values()
    moved = dataclasses.replace(peer, address="10.255.0.9")
    second.tunnel = dataclasses.replace(theirs, peers={public_key(two.keys[0]): moved})
    second.peers = {"secret": [Peer(FIRST, "10.255.0.9")]}
    for node in two.nodes:
        assert node.apply() == ()
        assert node.differences() == ()
    eventually(two.can_talk)


def test_it_goes_with_the_last_encrypted_network(two: Two) -> None:
    node = two.nodes[0]
    assert two.device(0) in interfaces(node.place.tunnel)
    do(node.links.detach("t0"))
    node.networks, node.peers, node.tunnel = [], {}, None
    assert node.apply() == ()
    assert interfaces(node.place.tunnel) == {"lo"}
    eventually(lambda: not two.pid(0) and not (SOCKETS / f"{two.device(0)}.sock").exists())


def test_cleaning_up_names_the_device_and_removes_it(two: Two) -> None:
    node = two.nodes[0]
    there = node.lab.run("n1", leftovers.look, node.place)
    assert f"network namespace {node.place.tunnel} (1 WireGuard device" in there[1]
    two.paths.clear()
    do(node.links.clean())
    assert node.lab.run("n1", leftovers.look, node.place) == ()
    assert not node.place.tunnel.exists()
    eventually(lambda: not two.pid(0))
    node.links = do(Links.open(node.place, node.encryption))


def test_a_node_that_can_not_encrypt_has_no_part_in_it(two: Two) -> None:
    node = two.nodes[0]
    do(node.links.close())
    can_not = Encryption(hindrance="it has no means")
    node.links = do(Links.open(node.place, can_not))
    node.networks = [*node.networks, Network("other", 5003, "10.0.3.0/24", is_encrypted=True)]
    why = "it is encrypted, which this node can't: it has no means"
    assert node.apply() == (f"network secret: {why}", f"network other: {why}")
    # The one that is there is left: its tasks go on, by what there is.
    assert two.can_talk()
    with pytest.raises(Retryable):
        node.attach("late", link("other", "10.0.3.2"))


def test_a_key_is_made_once_and_nobody_else_may_read_it(tmp_path: Path) -> None:
    async def prepare() -> Encryption:
        disk = RealDisk(tmp_path)
        try:
            return await prepared(real_env("n1", GrpcTransport(), disk))
        finally:
            disk.close()

    first, second = asyncio.run(prepare()), asyncio.run(prepare())
    assert first.private_key == second.private_key
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert first.public_key is not None
    assert dict(first.notes()) == {
        "network.encryption": f"wireguard by {first.driver.means if first.driver else ''}",
        "network.wireguard-key": text_of(first.public_key),
    }
    (tmp_path / KEY_FILE).write_bytes(b"torn")
    assert asyncio.run(prepare()).private_key != first.private_key
