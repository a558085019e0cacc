"""Names of the world outside, asked for at servers of the test's own."""

from __future__ import annotations

import itertools
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from skep.netproxy.dns.core.protocol import SetScopes
from skep.netproxy.dns.core.wire import Rcode, a_record
from tests.unit.netproxy.dns.support import (
    DEADLINE_S,
    LOOPBACK,
    A,
    Dns,
    ask,
    bound_pair,
    dns_process,
    eventually,
    over_tcp,
    over_udp,
    query,
    read,
    record,
    scope,
    zone,
)

Answers = Callable[[bytes, bool], list[bytes]]


def reply(data: bytes, *records: bytes, flags: int = 0x8180) -> bytes:
    """An answer to a query without EDNS."""
    header = data[:2] + struct.pack("!5H", flags, 1, len(records), 0, 0)
    return header + data[12:] + b"".join(records)


def good(data: bytes, is_tcp: bool) -> list[bytes]:
    return [reply(data, a_record(bytes((192, 0, 2, 2 if is_tcp else 1))))]


def silent(data: bytes, is_tcp: bool) -> list[bytes]:
    return []


def truncating(data: bytes, is_tcp: bool) -> list[bytes]:
    return good(data, True) if is_tcp else [reply(data, flags=0x8380)]


def lying(data: bytes, is_tcp: bool) -> list[bytes]:
    """Wrong ids, another's question, noise, and at last the truth."""
    wrong = a_record(bytes((6, 6, 6, 6)))
    forged = reply(data, wrong)
    other_id = bytes((data[0] ^ 1, data[1])) + forged[2:]
    other_name = reply(query("other.example", identifier=int.from_bytes(data[:2], "big")), wrong)
    return [b"", b"noise", other_id, other_name, data, *good(data, is_tcp)]


def failing(data: bytes, is_tcp: bool) -> list[bytes]:
    return [reply(data, flags=0x8182)]


class Upstream:
    """A name server on a port of loopback; what it does may be changed while it runs."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.heard: list[tuple[int, int, bytes]] = []  # the client's port, id, message
        self.udp, self.tcp = bound_pair()
        self.port = self.udp.getsockname()[1]
        self.threads = [threading.Thread(target=each) for each in (self._udp, self._tcp)]
        for thread in self.threads:
            thread.start()

    @property
    def line(self) -> str:
        return f"nameserver [{LOOPBACK}]:{self.port}\n"

    def _udp(self) -> None:
        while True:
            data, client = self.udp.recvfrom(65535)
            if data == b"stop":
                return
            self.heard.append((client[1], int.from_bytes(data[:2], "big"), data))
            for answer in self.answers(data, False):
                self.udp.sendto(answer, client)

    def _tcp(self) -> None:
        while True:
            client, _ = self.tcp.accept()
            with client, client.makefile("rb") as reader:
                length = int.from_bytes(reader.read(2), "big")
                if not length:
                    return
                for answer in self.answers(reader.read(length), True):
                    client.sendall(len(answer).to_bytes(2, "big") + answer)

    def stop(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"stop", (LOOPBACK, self.port))
        with socket.create_connection((LOOPBACK, self.port)) as connection:
            connection.sendall(b"\0\0")
            for thread in self.threads:
                thread.join(DEADLINE_S)
        self.udp.close()
        self.tcp.close()


@pytest.fixture(scope="module")
def dns() -> Iterator[Dns]:
    with dns_process() as process:
        process.set_networks(zone("net", record("web", "10.0.0.2"), subnets=("10.0.0.0/16",)))
        process.listen(scope("s", "net", search=("stack",), forwards=True))
        process.listen(scope("inside", "net"))
        yield process


@pytest.fixture
def upstreams(dns: Dns) -> Iterator[Callable[..., list[Upstream]]]:
    """Makes servers that behave so, and names them in the node's resolv.conf."""
    made: list[Upstream] = []

    def make(*answers: Answers) -> list[Upstream]:
        made.extend(map(Upstream, answers))
        dns.resolv_conf.write_text("".join(each.line for each in made))
        return made

    yield make
    for each in made:
        each.stop()


Make = Callable[..., list[Upstream]]


def test_other_names_are_asked_for_outside(dns: Dns, upstreams: Make) -> None:
    [server] = upstreams(good)
    message = ask(dns.port("s"), "example.org")
    assert (message.identifier, message.addresses) == (0x1234, ["192.0.2.1"])
    assert not message.is_authoritative
    # What leaves is what came, but for its id.
    assert server.heard[0][2][2:] == query("example.org")[2:]


def test_what_is_ours_never_leaves(dns: Dns, upstreams: Make) -> None:
    [server] = upstreams(good)
    for name in ("web", "nobody", "web.net", "web.stack", "nobody.stack", "example.org.stack"):
        ask(dns.port("s"), name)
    assert ask(dns.port("s"), "9.0.0.10.in-addr.arpa", 12).rcode == Rcode.NXDOMAIN
    assert ask(dns.port("inside"), "example.org").rcode == Rcode.NXDOMAIN
    assert not server.heard


def test_ids_and_ports_are_not_to_be_guessed(dns: Dns, upstreams: Make) -> None:
    [server] = upstreams(good)
    for _ in range(30):
        ask(dns.port("s"), "example.org")
    ports, ids = zip(*((port, identifier) for port, identifier, _ in server.heard), strict=True)
    assert min(len(set(ports)), len(set(ids))) > 15
    steps = {after - before for before, after in itertools.pairwise(ids)}
    assert len(steps) > 15


def test_a_forged_answer_is_passed_over(dns: Dns, upstreams: Make) -> None:
    upstreams(lying)
    assert ask(dns.port("s"), "example.org").addresses == ["192.0.2.1"]


def test_over_tcp_a_truncated_answer_is_completed(dns: Dns, upstreams: Make) -> None:
    upstreams(truncating)
    assert ask(dns.port("s"), "example.org").is_truncated
    [answer] = over_tcp(dns.port("s"), query("example.org"))
    assert read(answer).addresses == ["192.0.2.2"]


def test_one_that_is_silent_is_passed_over_for_the_next(dns: Dns, upstreams: Make) -> None:
    upstreams(silent, good)
    began = time.monotonic()
    assert ask(dns.port("s"), "example.org").addresses == ["192.0.2.1"]
    assert time.monotonic() - began >= 0.9


def test_one_that_is_not_there_or_fails_costs_no_time(dns: Dns, upstreams: Make) -> None:
    [bad, fine] = upstreams(failing, good)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind((LOOPBACK, 0))
        port = closed.getsockname()[1]
    dns.resolv_conf.write_text(f"nameserver [{LOOPBACK}]:{port}\n{bad.line}{fine.line}")
    began = time.monotonic()
    assert ask(dns.port("s"), "example.org").addresses == ["192.0.2.1"]
    # A try of three servers waits two thirds of a second for each that is silent.
    assert time.monotonic() - began < 0.6
    assert len(bad.heard) == 1


def test_when_all_are_silent_it_is_a_failure_before_clients_give_up(
    dns: Dns, upstreams: Make
) -> None:
    [server] = upstreams(silent)
    began = time.monotonic()
    assert ask(dns.port("s"), "example.org").rcode == Rcode.SERVFAIL
    assert 3.9 <= time.monotonic() - began < DEADLINE_S / 2
    assert len(server.heard) == 2
    assert dns.status().outstanding == 0


def test_without_a_resolver_it_is_a_failure_at_once(dns: Dns) -> None:
    for text in ("", "search example.org\n", None):
        if text is None:
            dns.resolv_conf.unlink()
        else:
            dns.resolv_conf.write_text(text)
        began = time.monotonic()
        assert ask(dns.port("s"), "example.org").rcode == Rcode.SERVFAIL
        assert time.monotonic() - began < 1.0


def test_resolv_conf_is_read_again_when_it_changes(dns: Dns, upstreams: Make) -> None:
    [first] = upstreams(good)
    assert ask(dns.port("s"), "example.org").addresses
    second = Upstream(good)
    try:
        replacement = dns.folder / "resolv.conf.new"
        replacement.write_text(second.line)
        replacement.rename(dns.resolv_conf)
        heard = len(first.heard)
        assert ask(dns.port("s"), "example.org").addresses
        assert (len(first.heard), len(second.heard)) == (heard, 1)
    finally:
        second.stop()


def test_a_client_that_hangs_up_leaves_nothing_behind(dns: Dns, upstreams: Make) -> None:
    upstreams(silent)
    data = query("example.org")
    with socket.create_connection((LOOPBACK, dns.port("s")), timeout=DEADLINE_S) as asking:
        asking.sendall((len(data).to_bytes(2, "big") + data) * 3)
        eventually(lambda: dns.status().outstanding == 3)
    eventually(lambda: dns.status().outstanding == 0, within_s=2.0)


def test_a_scope_may_close_with_queries_under_way(dns: Dns, upstreams: Make) -> None:
    [server] = upstreams(silent)
    port = dns.listen(scope("brief", "net", forwards=True))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.sendto(query("example.org"), (LOOPBACK, port))
        eventually(lambda: dns.status().outstanding == 1)
        dns.ask(SetScopes(unlisten=("brief",)))
        server.answers = good
        eventually(lambda: dns.status().outstanding == 0)
    assert ask(dns.port("s"), "example.org", A).addresses == ["192.0.2.1"]


def test_a_long_answer_over_udp_is_left_to_tcp(dns: Dns, upstreams: Make) -> None:
    def long(data: bytes, is_tcp: bool) -> list[bytes]:
        return [reply(data, *(a_record(bytes((192, 0, 2, n))) for n in range(100)))]

    upstreams(long)
    assert read(over_udp(dns.port("s"), query("example.org"))).is_truncated
    [answer] = over_tcp(dns.port("s"), query("example.org"))
    assert len(read(answer).addresses) == 100


def test_others_are_answered_meanwhile(dns: Dns, upstreams: Make) -> None:
    upstreams(silent)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for number in range(300):
            asking.sendto(query(f"n{number}.example"), (LOOPBACK, dns.port("s")))
        # One scope may have 256 under way; the others are told that it is too much.
        asking.settimeout(DEADLINE_S)
        told = [read(asking.recv(512)).rcode for _ in range(300 - 256)]
        assert set(told) == {Rcode.SERVFAIL}
        assert dns.status().outstanding == 256
        assert ask(dns.port("s"), "web").addresses == ["10.0.0.2"]
    # The process ends with them under way.
