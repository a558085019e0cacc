"""The process on real sockets, asked by dig and by hand."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from skep.netproxy.dns.core import protocol
from skep.netproxy.dns.core.protocol import (
    Applied,
    Ask,
    End,
    Hello,
    Listen,
    Refused,
    SetNetworks,
    SetScopes,
    Told,
)
from skep.netproxy.dns.core.wire import Rcode
from skep.netproxy.dns.core.zones import NetworkChange
from tests.unit.netproxy.dns.support import (
    AAAA,
    DEADLINE_S,
    LOOPBACK,
    Dns,
    ask,
    dns_process,
    needs,
    over_tcp,
    over_udp,
    query,
    read,
    record,
    scope,
    zone,
)

MANY = tuple(f"10.0.7.{n}" for n in range(200))
FRONT = zone(
    "front",
    record("web", "10.0.0.2"),
    record("tasks.web", "10.0.0.3", "10.0.0.4", reverse=False),
    record("www", "10.0.0.2", reverse=False),
    record("many", *MANY),
    subnets=("10.0.0.0/16",),
)
BACK = zone("back", record("db", "10.1.0.5"))


@pytest.fixture(scope="module")
def dns() -> Iterator[Dns]:
    with dns_process() as process:
        process.set_networks(FRONT, BACK)
        process.listen(scope("a", "front", search=("stack",)))
        process.listen(scope("b", "back"))
        yield process


def dig(port: int, *arguments: str) -> tuple[str, list[str]]:
    """The status, and the values of the answers."""
    done = subprocess.run(
        ["dig", f"@{LOOPBACK}", "-p", str(port), "+tries=1", "+time=10", *arguments],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    )
    assert "Warning" not in done.stdout, done.stdout
    [status] = [line.split("status: ")[1] for line in done.stdout.splitlines() if "status:" in line]
    lines = [line for line in done.stdout.splitlines() if line and line[0] != ";"]
    return status.split(",")[0], [line.split()[-1] for line in lines]


@needs("dig")
@pytest.mark.parametrize(
    ("arguments", "status", "values"),
    [
        (["web"], "NOERROR", ["10.0.0.2"]),
        (["WEB.Front."], "NOERROR", ["10.0.0.2"]),
        (["web.stack"], "NOERROR", ["10.0.0.2"]),
        (["www"], "NOERROR", ["10.0.0.2"]),
        (["web", "AAAA"], "NOERROR", []),
        (["web", "MX"], "NOERROR", []),
        (["web", "ANY"], "NOERROR", ["10.0.0.2"]),
        (["web", "+noedns"], "NOERROR", ["10.0.0.2"]),
        (["web", "+edns=1", "+noednsnegotiation"], "BADVERS", []),
        (["web", "CH"], "REFUSED", []),
        (["web", "+opcode=4"], "NOTIMP", []),
        (["db"], "NXDOMAIN", []),
        (["nobody"], "NXDOMAIN", []),
        (["example.org"], "NXDOMAIN", []),
        (["-x", "10.0.0.2"], "NOERROR", ["web.front."]),
        (["-x", "10.0.0.99"], "NXDOMAIN", []),
        (["+tcp", "tasks.web", "AAAA"], "NOERROR", []),
    ],
)
def test_dig(dns: Dns, arguments: list[str], status: str, values: list[str]) -> None:
    assert dig(dns.port("a"), *arguments) == (status, values)


@needs("dig")
def test_dig_gets_200_addresses_over_tcp_after_udp(dns: Dns) -> None:
    status, values = dig(dns.port("a"), "many")
    assert status == "NOERROR"
    assert sorted(values) == sorted(MANY)
    # Cut short, it is still good for something.
    short = ask(dns.port("a"), "many")
    assert short.is_truncated
    assert len(short.addresses) == 30


def test_two_scopes_see_their_own(dns: Dns) -> None:
    a, b = dns.port("a"), dns.port("b")
    assert ask(b, "db").addresses == ["10.1.0.5"]
    assert ask(b, "web").rcode == Rcode.NXDOMAIN
    assert ask(a, "db").rcode == Rcode.NXDOMAIN
    told = [dns.ask(Ask(scope_id=key, name="DB.")) for key in "ab"]
    assert told == [Told(outcome="unknown"), Told(outcome="found", addresses=("10.1.0.5",))]
    assert isinstance(dns.ask(Ask(scope_id="c", name="db")), Applied)


def test_the_order_goes_round(dns: Dns) -> None:
    firsts = [ask(dns.port("a"), "tasks.web").addresses[0] for _ in range(10)]
    assert firsts.count("10.0.0.3") == firsts.count("10.0.0.4") == 5


def test_one_tcp_connection_carries_many_queries(dns: Dns) -> None:
    queries = [query("many", identifier=n) for n in range(32)]
    answers = [read(each) for each in over_tcp(dns.port("a"), *queries)]
    assert [each.identifier for each in answers] == list(range(32))
    assert all(len(each.addresses) == 200 and not each.is_truncated for each in answers)


def test_a_query_may_come_byte_by_byte_over_tcp(dns: Dns) -> None:
    data = query("web")
    with socket.create_connection((LOOPBACK, dns.port("a")), timeout=DEADLINE_S) as asking:
        asking.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in len(data).to_bytes(2, "big") + data:
            asking.sendall(bytes((byte,)))
        length = int.from_bytes(asking.recv(2), "big")
        assert read(asking.recv(length, socket.MSG_WAITALL)).addresses == ["10.0.0.2"]


def test_who_sends_nonsense_over_tcp_is_hung_up_on(dns: Dns) -> None:
    with socket.create_connection((LOOPBACK, dns.port("a")), timeout=DEADLINE_S) as asking:
        asking.sendall(b"\xff\xff" + b"x" * 100)
        with contextlib.suppress(ConnectionResetError):
            assert asking.recv(1) == b""
    assert ask(dns.port("a"), "web").addresses == ["10.0.0.2"]


def test_one_scope_can_not_take_all_connections(dns: Dns) -> None:
    port = dns.port("a")
    held = [socket.create_connection((LOOPBACK, port), timeout=DEADLINE_S) for _ in range(65)]
    try:
        assert held[-1].recv(1) == b""
        assert len(over_tcp(dns.port("b"), query("db"))) == 1
    finally:
        for each in held:
            each.close()


def test_noise_is_dropped_or_refused(dns: Dns) -> None:
    port = dns.port("a")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(DEADLINE_S)
        asking.connect((LOOPBACK, port))
        for data in (b"", b"x", query("web", flags=0x8180), query("web")[:20], bytes(5000)):
            asking.send(data)
        # Three are passed over in silence; the last two are told.
        assert [read(asking.recv(512)).rcode for _ in range(2)] == [Rcode.FORMERR] * 2
    assert ask(port, "web").rcode == Rcode.NOERROR


def test_names_change_in_place(dns: Dns) -> None:
    port = dns.port("b")
    change = NetworkChange(
        network_id="back-id", name="back", changed=(record("cache", "10.1.0.6"),)
    )
    assert dns.ask(SetNetworks(version=2, changed=(change,))) == Applied(touched=1)
    assert ask(port, "cache").addresses == ["10.1.0.6"]
    assert ask(port, "db").addresses == ["10.1.0.5"]
    change = NetworkChange(network_id="back-id", name="back", removed=("cache",))
    assert dns.ask(SetNetworks(version=3, changed=(change,))) == Applied(touched=1)
    assert ask(port, "cache").rcode == Rcode.NXDOMAIN
    assert dns.status().version == 3


def test_what_cannot_be_bound_is_told_and_the_rest_is_there(dns: Dns) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as squatter:
        squatter.bind((LOOPBACK, 0))
        taken = squatter.getsockname()[1]
        listens = (
            Listen(scope=scope("taken", "back"), address=LOOPBACK, port=taken),
            Listen(scope=scope("elsewhere", "back"), address="192.0.2.1", port=0),
            Listen(scope=scope("nowhere", "back"), address=LOOPBACK, namespace="/no/such"),
            Listen(scope=scope("fine", "back"), address=LOOPBACK, port=0),
        )
        response = dns.ask(SetScopes(listen=listens))
    assert isinstance(response, Applied)
    assert {error.scope_id for error in response.errors} == {"taken", "elsewhere", "nowhere"}
    assert f"{LOOPBACK}:{taken}" in next(e.why for e in response.errors if e.scope_id == "taken")
    assert ask(dns.port("fine"), "db").addresses == ["10.1.0.5"]
    names = ("taken", "elsewhere", "nowhere", "fine")
    assert dns.ask(SetScopes(unlisten=names)) == Applied(touched=1)
    assert {each.scope_id for each in dns.status().scopes} == {"a", "b"}


def test_sockets_of_a_scope_that_stays_are_left_alone(dns: Dns) -> None:
    port = dns.listen(scope("c", "back"))
    files = set(os.listdir(f"/proc/{dns.process.pid}/fd"))
    with socket.create_connection((LOOPBACK, port), timeout=DEADLINE_S) as held:
        # It sees more by now, and where it is asked is the same.
        assert dns.listen(scope("c", "back", "front")) == port
        data = query("web")
        held.sendall(len(data).to_bytes(2, "big") + data)
        assert read(held.recv(512)[2:]).addresses == ["10.0.0.2"]
        moved = Listen(scope=scope("c", "back"), address="127.0.0.2", port=0)
        assert dns.ask(SetScopes(listen=(moved,))) == Applied(touched=2)
        # Long before it is closed for being idle.
        held.settimeout(5.0)
        assert held.recv(1) == b""
    dns.ask(SetScopes(unlisten=("c",)))
    assert set(os.listdir(f"/proc/{dns.process.pid}/fd")) <= files


def test_the_control_socket_is_ours_alone_and_refuses_noise(dns: Dns) -> None:
    assert stat.S_IMODE(dns.control.stat().st_mode) == 0o600
    for noise in (b"\0\0\0\1\xc1", b"\xff" * 8, b"\0\0\0\0"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
            other.settimeout(DEADLINE_S)
            other.connect(str(dns.control))
            other.sendall(noise)
            buffer = bytearray()
            while data := other.recv(4096):
                buffer += data
            body = protocol.take_frame(buffer)
            assert body is not None
            assert isinstance(protocol.decode_response(body), Refused)
    assert ask(dns.port("a"), "web").rcode == Rcode.NOERROR


def test_a_change_that_makes_no_sense_is_refused(dns: Dns) -> None:
    change = NetworkChange(network_id="x", name="x", changed=(record("web", "10.0.0.999"),))
    response = dns.ask(SetNetworks(version=9, changed=(change,)))
    assert isinstance(response, Refused)
    assert "10.0.0.999" in response.why
    response = dns.ask(
        SetScopes(listen=(Listen(scope=scope("z", own=(record("me", "x"),)), address=LOOPBACK),))
    )
    assert isinstance(response, Applied)
    assert [error.scope_id for error in response.errors] == ["z"]


def test_unknown_names_are_answered_at_once(dns: Dns) -> None:
    port = dns.port("a")
    began = time.monotonic()
    for _ in range(20):
        assert ask(port, "nobody").rcode == Rcode.NXDOMAIN
        assert ask(port, "nobody", AAAA).rcode == Rcode.NXDOMAIN
    assert time.monotonic() - began < DEADLINE_S / 10


def test_it_is_small(dns: Dns) -> None:
    status = Path(f"/proc/{dns.process.pid}/status").read_text()
    [kb] = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")]
    assert kb < 24_000


def test_one_process_per_folder_and_both_ways_to_end(tmp_path: Path) -> None:
    first = Dns(tmp_path)
    command = [sys.executable, "-m", "skep.netproxy.dns.main", "--control", str(tmp_path / "x")]
    command += ["--state-dir", str(tmp_path / "state")]
    second = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)
    assert second.returncode == 3
    assert "in use" in second.stderr
    first.socket.sendall(protocol.encode(End()))
    assert first.process.wait(DEADLINE_S) == 0
    assert not first.control.exists()
    first.socket.close()
    # Killed, it leaves its socket's name behind, which the next one takes over.
    third = Dns(tmp_path)
    third.process.send_signal(signal.SIGKILL)
    third.process.wait()
    third.socket.close()
    assert third.control.exists()
    fourth = Dns(tmp_path)
    fourth.stop()
    assert "state=stopped" in (tmp_path / "state" / "dns.log").read_text()


def test_detached_it_is_there_when_the_command_returns(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "skep.netproxy.dns.main", "--detach"]
    command += ["--control", str(tmp_path / "c"), "--state-dir", str(tmp_path / "state")]
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        subprocess.run(command, check=True, timeout=DEADLINE_S, close_fds=False)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
        control.settimeout(DEADLINE_S)
        control.connect(str(tmp_path / "c"))
        control.sendall(protocol.encode(Hello(99)))
        welcome = protocol.decode_response(control.recv(4096)[4:])
        assert isinstance(welcome, protocol.Welcome)
        assert os.getsid(welcome.pid) == welcome.pid
        # Nothing of what was open here is open there.
        files = (os.readlink(f.path) for f in os.scandir(f"/proc/{welcome.pid}/fd"))
        assert str(tmp_path / "open") not in files
        refused = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)
        assert (refused.returncode, "in use" in refused.stderr) == (3, True)
        control.sendall(protocol.encode(End()))
        assert control.recv(1) == b""


def test_udp_answers_come_from_the_address_that_was_asked(dns: Dns) -> None:
    port = dns.listen(scope("d", "back"), address="127.0.0.9")
    assert read(over_udp(port, query("db"), "127.0.0.9")).addresses == ["10.1.0.5"]
    dns.ask(SetScopes(unlisten=("d",)))
