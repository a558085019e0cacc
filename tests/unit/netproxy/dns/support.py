"""A small strict reader of DNS messages, and the DNS process on real sockets."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from skep.netproxy.dns.core import protocol
from skep.netproxy.dns.core.protocol import (
    Applied,
    GetStatus,
    Hello,
    Listen,
    Request,
    SetNetworks,
    SetScopes,
    Status,
    Welcome,
)
from skep.netproxy.dns.core.zones import NetworkZone, Record, Scope, merge

DEADLINE_S = 20.0
LOOPBACK = "127.0.0.1"
A, PTR, AAAA, ANY = 1, 12, 28, 255

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
T = TypeVar("T")


def needs(*programs: str) -> pytest.MarkDecorator:
    missing = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


def eventually(condition: Callable[[], T], within_s: float = DEADLINE_S) -> T:
    """Poll until `condition` is true; returns it."""
    until = time.monotonic() + within_s
    while not (result := condition()):
        assert time.monotonic() < until, "it never came true"
        time.sleep(0.01)
    return result


# ------------------------------------------------------------------------------------ messages


def encoded(name: str) -> bytes:
    labels = [label.encode("latin-1") for label in name.split(".")] if name else []
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"


def query(
    name: str, kind: int = A, *, identifier: int = 0x1234, flags: int = 0x0100, udp: int = 0
) -> bytes:
    opt = struct.pack("!xHHIH", 41, udp, 0, 0) if udp else b""
    header = struct.pack("!6H", identifier, flags, 1, 0, 0, 1 if udp else 0)
    return header + encoded(name) + struct.pack("!HH", kind, 1) + opt


@dataclass(frozen=True)
class Message:
    identifier: int
    rcode: int
    is_authoritative: bool
    is_truncated: bool
    question: tuple[str, int, int] | None
    answers: tuple[tuple[str, int, int, str], ...]  # name, type, ttl, value
    has_opt: bool

    @property
    def addresses(self) -> list[str]:
        return [value for _, kind, _, value in self.answers if kind == A]


def read(data: bytes) -> Message:
    """Every byte of a message, accounted for; anything odd fails the test."""
    identifier, flags, questions, answers, authorities, additional = struct.unpack_from("!6H", data)
    assert flags & 0x8000, "no answer"
    assert not flags & 0x0070, "reserved bits"
    assert questions <= 1
    assert authorities == 0
    at = 12
    question = None
    if questions:
        name, at = _read_name(data, at)
        question = (name, *struct.unpack_from("!HH", data, at))
        at += 4
    records = []
    extended, has_opt = 0, False
    for number in range(answers + additional):
        name, at = _read_name(data, at)
        kind, klass, ttl, length = struct.unpack_from("!HHIH", data, at)
        at += 10
        value = data[at : at + length]
        assert len(value) == length
        if number >= answers:
            assert (name, kind) == ("", 41)
            assert klass >= 512
            has_opt, extended = True, ttl >> 24
        else:
            assert klass == 1
            shown = _read_name(data, at)[0] if kind == PTR else socket.inet_ntoa(value)
            records.append((name, kind, ttl, shown))
        at += length
    assert at == len(data), "bytes left over"
    rcode = (flags & 15) | extended << 4
    authoritative, truncated = bool(flags & 0x0400), bool(flags & 0x0200)
    return Message(identifier, rcode, authoritative, truncated, question, tuple(records), has_opt)


def _read_name(data: bytes, at: int) -> tuple[str, int]:
    labels: list[str] = []
    while length := data[at]:
        if length >= 0xC0:
            target = struct.unpack_from("!H", data, at)[0] & 0x3FFF
            assert target < at, "a pointer forwards"
            return ".".join([*labels, _read_name(data, target)[0]]), at + 2
        assert length < 64
        assert len(data) > at + length
        labels.append(data[at + 1 : at + 1 + length].decode("latin-1"))
        at += 1 + length
    return ".".join(labels).removesuffix("."), at + 1


# ----------------------------------------------------------------------------------- the world


def record(name: str, *addresses: str, reverse: bool = True) -> Record:
    return Record(name=name, addresses=addresses, reverse=reverse)


def zone(name: str, *records: Record, subnets: tuple[str, ...] = ()) -> NetworkZone:
    return NetworkZone(network_id=f"{name}-id", name=name, records=merge(records), subnets=subnets)


def scope(
    scope_id: str,
    *networks: str,
    search: tuple[str, ...] = (),
    forwards: bool = False,
    own: tuple[Record, ...] = (),
) -> Scope:
    ids = tuple(f"{name}-id" for name in networks)
    return Scope(scope_id=scope_id, networks=ids, search=search, forwards=forwards, own=own)


class Dns:
    """The DNS process, told by hand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.control = folder / "control.sock"
        self.resolv_conf = folder / "resolv.conf"
        if not self.resolv_conf.exists():
            self.resolv_conf.write_text("")
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "skep.netproxy.dns.main", "--control", str(self.control)),
                *("--state-dir", str(folder / "state"), "--resolv-conf", str(self.resolv_conf)),
            ]
        )
        connected = eventually(self._connect)
        assert connected is not None
        self.socket = connected
        welcome = self.ask(Hello(protocol.FORMAT))
        assert welcome == Welcome(protocol.FORMAT, self.process.pid)

    def _connect(self) -> socket.socket | None:
        assert self.process.poll() is None, "it ended"
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connected.settimeout(DEADLINE_S)
        try:
            connected.connect(str(self.control))
        except OSError:
            connected.close()
            return None
        return connected

    def ask(self, request: Request) -> protocol.Response:
        self.socket.sendall(protocol.encode(request))
        buffer = bytearray()
        while (body := protocol.take_frame(buffer)) is None:
            data = self.socket.recv(1 << 16)
            assert data, "it hung up"
            buffer += data
        return protocol.decode_response(body)

    def set_networks(self, *zones: NetworkZone) -> None:
        changed = tuple(protocol.whole(zone) for zone in zones)
        response = self.ask(SetNetworks(version=1, changed=changed, is_whole=True))
        assert isinstance(response, Applied), response

    def listen(
        self, scope: Scope, address: str = LOOPBACK, port: int = 0, namespace: str | None = None
    ) -> int:
        """Returns the port."""
        wanted = Listen(scope=scope, address=address, port=port, namespace=namespace)
        response = self.ask(SetScopes(listen=(wanted,)))
        assert isinstance(response, Applied)
        assert not response.errors, response
        return self.port(scope.scope_id)

    def status(self) -> Status:
        status = self.ask(GetStatus())
        assert isinstance(status, Status)
        return status

    def port(self, scope_id: str) -> int:
        return next(s.port for s in self.status().scopes if s.scope_id == scope_id)

    def stop(self) -> None:
        self.socket.close()
        self.process.terminate()
        assert self.process.wait(DEADLINE_S) == 0
        assert not self.control.exists()
        assert "level=ERROR" not in (self.folder / "state" / "dns.log").read_text()


@contextlib.contextmanager
def dns_process() -> Iterator[Dns]:
    with tempfile.TemporaryDirectory() as folder:
        dns = Dns(Path(folder))
        try:
            yield dns
            dns.stop()
        finally:
            dns.socket.close()
            dns.process.kill()
            dns.process.wait()


def bound_pair() -> tuple[socket.socket, socket.socket]:
    """UDP, and TCP listening, on one free port of loopback."""
    for _ in range(100):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind((LOOPBACK, 0))
        try:
            return udp, socket.create_server(udp.getsockname())
        except OSError:
            udp.close()
    raise AssertionError("no port is free for both")


def over_udp(port: int, data: bytes, host: str = LOOPBACK, within_s: float = DEADLINE_S) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(within_s)
        asking.connect((host, port))
        asking.send(data)
        return asking.recv(65535)


def over_tcp(port: int, *messages: bytes, host: str = LOOPBACK) -> list[bytes]:
    """One connection, all questions at once, as many answers."""
    with socket.create_connection((host, port), timeout=DEADLINE_S) as asking:
        asking.sendall(b"".join(len(each).to_bytes(2, "big") + each for each in messages))
        with asking.makefile("rb") as reader:
            return [reader.read(int.from_bytes(reader.read(2), "big")) for _ in messages]


def ask(port: int, name: str, kind: int = A, host: str = LOOPBACK) -> Message:
    return read(over_udp(port, query(name, kind), host))
