"""What runs in tasks of network tests: a server that tells who asks it, and a client to be ordered
about, so that names and virtual addresses are used from where they are meant to be used.

    python3 -S netpeer.py PORT [READY_FILE]

On PORT it takes TCP and UDP. A TCP connection begins with its greeting, "NAME.SLOT NODE HOST PORT",
the latter two being the client as it sees it (or, with PROXY_PROTOCOL in its environment, as the
header says). Then the client sends one line that says what to do:

    echo        what comes is sent back; at its end, how much it was and its SHA-256
    sink        the same, but nothing is sent back meanwhile
    source N    N bytes go out, and their end; then what comes is counted as above, for `last`
    last        what the last `source` or `sink` got
    order       lines of JSON, each answered by one: see `Orders`

On SIGTERM it takes no more connections and ends with the last that is open. It uses nothing but
the standard library and starts in a few hundredths of a second.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from typing import IO, Any

CHUNK = 1 << 16
TIMEOUT_S = 10.0
ACCEPT_S = 0.1
V2_MARK = b"\r\n\r\n\0\r\nQUIT\n"


def who() -> str:
    """This task's name, and its node's."""
    env = os.environ
    return f"{env.get('SKEP_SERVICE_NAME')}.{env.get('SKEP_TASK_SLOT')} {env.get('SKEP_NODE_NAME')}"


def pattern(size: int) -> Iterator[bytes]:
    """`size` bytes in chunks, no two of them the same."""
    block = hashlib.sha256(b"netpeer").digest() * (CHUNK // 32)
    sent = 0
    while sent < size:
        chunk = (struct.pack(">Q", sent) + block)[: min(CHUNK, size - sent)]
        sent += len(chunk)
        yield chunk


def digest_of(size: int) -> str:
    """What `pattern` gives, as a server tells it."""
    seen = hashlib.sha256()
    for chunk in pattern(size):
        seen.update(chunk)
    return f"{size} {seen.hexdigest()}"


# --------------------------------------------------------------------------------- server


class Server:
    """One listener and its connections."""

    def __init__(self) -> None:
        self.open: set[socket.socket] = set()
        self.last = ""
        self.orders = Orders()

    def serve(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        try:
            connection.settimeout(None)
            stream = connection.makefile("rb")
            if os.environ.get("PROXY_PROTOCOL"):
                peer = read_header(stream)
            connection.sendall(f"{who()} {peer[0]} {peer[1]}\n".encode())
            words = stream.readline().decode().split()
            if words:
                self.act(connection, stream, words)
        except OSError:
            pass
        finally:
            self.open.discard(connection)
            connection.close()

    def act(self, connection: socket.socket, stream: IO[bytes], words: list[str]) -> None:
        if words[0] == "last":
            connection.sendall(f"{self.last}\n".encode())
        elif words[0] == "order":
            for line in stream:
                answer = self.orders.obey(json.loads(line))
                connection.sendall(json.dumps(answer).encode() + b"\n")
        else:
            if words[0] == "source":
                for chunk in pattern(int(words[1])):
                    connection.sendall(chunk)
                connection.shutdown(socket.SHUT_WR)
            seen, size = hashlib.sha256(), 0
            while chunk := stream.read1(CHUNK):  # type: ignore[attr-defined]
                seen.update(chunk)
                size += len(chunk)
                if words[0] == "echo":
                    connection.sendall(chunk)
            told = f"{size} {seen.hexdigest()}"
            if words[0] != "echo":
                self.last = told
            if words[0] != "source":
                connection.sendall(f"{told}\n".encode())


def read_header(stream: IO[bytes]) -> tuple[str, int]:
    """The client that a PROXY protocol header names, of either version."""
    start = stream.read(12)
    if start != V2_MARK:
        words = (start + stream.readline()).decode().split()
        assert words[0] == "PROXY", words
        return words[2], int(words[4])
    _, family, length = struct.unpack(">BBH", stream.read(4))
    body = stream.read(length)
    size, kind = (4, socket.AF_INET) if family >> 4 == 1 else (16, socket.AF_INET6)
    (port,) = struct.unpack(">H", body[2 * size : 2 * size + 2])
    return socket.inet_ntop(kind, body[:size]), port


def answer_datagrams(udp: socket.socket) -> None:
    while True:
        data, peer = udp.recvfrom(CHUNK)
        with contextlib.suppress(OSError):
            udp.sendto(f"{who()} {peer[0]} {peer[1]} ".encode() + data, peer)


def main(arguments: list[str]) -> None:
    where = (os.environ.get("SKEP_TASK_ADDRESS", "127.0.0.1"), int(arguments[0]))
    listener = socket.create_server(where, backlog=1024)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(where)
    threading.Thread(target=answer_datagrams, args=(udp,), daemon=True).start()
    server, stopping = Server(), list[float]()
    signal.signal(signal.SIGTERM, lambda *_: stopping.append(time.monotonic()))
    for path in arguments[1:]:
        open(path, "w").close()
    listener.settimeout(ACCEPT_S / 2)
    # What the kernel has accepted for us is served, too, however long it takes to get round to it.
    while True:
        try:
            connection, peer = listener.accept()
        except TimeoutError:
            if stopping and time.monotonic() > stopping[0] + ACCEPT_S:
                break
        else:
            server.open.add(connection)
            threading.Thread(target=server.serve, args=(connection, peer), daemon=True).start()
    listener.close()
    while server.open:
        time.sleep(ACCEPT_S / 2)


# --------------------------------------------------------------------------------- client


def hello(connection: socket.socket) -> list[str]:
    """The greeting: name, node, and the address and port that the server sees."""
    line = connection.makefile("rb", buffering=0).readline().decode()
    if not line.endswith("\n"):
        raise ConnectionResetError(f"a greeting cut short: {line!r}")
    return line.split()


def dial(
    host: str, port: int, source: str = "", timeout_s: float = TIMEOUT_S
) -> tuple[socket.socket, list[str]]:
    """A connection and its greeting."""
    connection = socket.create_connection(
        (host, port), timeout=timeout_s, source_address=(source, 0) if source else None
    )
    try:
        return connection, hello(connection)
    except BaseException:
        connection.close()
        raise


def rest(connection: socket.socket) -> bytes:
    """All that comes until the end."""
    with connection.makefile("rb") as stream:
        return stream.read()


def said(connection: socket.socket, text: str) -> str:
    """Have one line sent back."""
    connection.sendall(text.encode() + b"\n")
    got = b""
    while not got.endswith(b"\n"):
        if not (chunk := connection.recv(CHUNK)):
            raise ConnectionResetError(f"closed after {got!r}")
        got += chunk
    return got.decode()[:-1]


def greet(host: str, port: int) -> list[str]:
    """One whole conversation; the greeting."""
    connection, greeting = dial(host, port)
    with connection:
        connection.sendall(b"echo\n")
        if said(connection, "here") != "here":
            raise ConnectionResetError("another echo")
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(CHUNK):
            pass
    return greeting


def ask_udp(
    host: str, port: int, text: str = "here", is_connected: bool = True, timeout_s: float = 2.0
) -> list[str]:
    """The answer to one datagram, as words; the last is its text."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as udp:
        udp.settimeout(timeout_s)
        if is_connected:
            udp.connect((host, port))
            udp.send(text.encode())
        else:
            udp.sendto(text.encode(), (host, port))
        data, peer = udp.recvfrom(CHUNK)
    if peer[:2] != (host, port):
        raise OSError(f"answered by {peer}, not by {host}")
    return data.decode().split()


class Load:
    """New connections without a pause but for the pace, from a few threads."""

    def __init__(self, places: list[tuple[str, int]], per_s: float, threads: int = 4) -> None:
        self.by_name: dict[str, int] = {}
        self.failures: list[str] = []
        self.total = 0
        self._places = places
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._pause_s = threads / per_s
        self._threads = [threading.Thread(target=self._go, args=(n,)) for n in range(threads)]
        for thread in self._threads:
            thread.start()

    def _go(self, number: int) -> None:
        due = time.monotonic() + self._pause_s * number / len(self._threads)
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due = max(due + self._pause_s, time.monotonic() - 1.0)
            host, port = self._places[self.total % len(self._places)]
            began = time.time()
            try:
                name, why = greet(host, port)[0], ""
            except OSError as error:
                name, why = "", f"{began:.3f} {host}:{port} {type(error).__name__}: {error}"
            with self._lock:
                self.total += 1
                if why:
                    self.failures.append(f"{why} after {time.time() - began:.3f} s")
                else:
                    self.by_name[name] = self.by_name.get(name, 0) + 1

    def stop(self) -> dict[str, Any]:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return self.report()

    def report(self) -> dict[str, Any]:
        with self._lock:
            return {
                "total": self.total,
                "failed": len(self.failures),
                "failures": self.failures[:10],
                "by_name": dict(self.by_name),
            }


def name_server() -> tuple[str, int]:
    """Where this task asks for names."""
    if told := os.environ.get("SKEP_DNS"):
        host, _, port = told.rpartition(":") if ":" in told else (told, "", "53")
        return host, int(port)
    with open("/etc/resolv.conf") as lines:
        return next(line.split()[1] for line in lines if line.startswith("nameserver")), 53


def resolve(name: str, kind: int = 1, timeout_s: float = 5.0) -> dict[str, Any]:
    """The response code, the IPv4 addresses, and how many seconds it took."""
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    began = time.monotonic()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.settimeout(timeout_s)
        udp.connect(name_server())
        udp.send(
            struct.pack(">6H", 7, 0x100, 1, 0, 0, 0) + labels + struct.pack(">BHH", 0, kind, 1)
        )
        data = udp.recv(CHUNK)
    took_s = time.monotonic() - began
    _, flags, _, answers, _, _ = struct.unpack(">6H", data[:12])
    at, found = 12 + len(labels) + 5, []
    for _ in range(answers):
        while data[at] and data[at] < 0xC0:
            at += data[at] + 1
        at += 2 if data[at] else 1
        type_, _, _, length = struct.unpack(">HHIH", data[at : at + 10])
        if (type_, length) == (1, 4):
            found.append(socket.inet_ntoa(data[at + 10 : at + 14]))
        at += 10 + length
    return {"rcode": flags & 15, "addresses": found, "took_s": took_s}


class Orders:
    """What the client of `order` may have done: {"do": NAME, ...} with the arguments by name."""

    def __init__(self) -> None:
        self.load: Load | None = None
        self.held: dict[str, socket.socket] = {}

    def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"ok": getattr(self, "do_" + order.pop("do"))(**order)}
        except (OSError, LookupError) as error:
            return {"error": f"{type(error).__name__}: {error}"}

    def do_resolve(self, name: str, kind: int = 1) -> dict[str, Any]:
        return resolve(name, kind)

    def do_look_up(self, name: str) -> list[str]:
        """As programs do it, with whatever /etc/resolv.conf says."""
        found = socket.getaddrinfo(name, 80, socket.AF_INET, socket.SOCK_STREAM)
        return sorted(str(each[4][0]) for each in found)

    def do_greet(self, host: str, port: int, count: int = 1) -> list[list[str]]:
        return [greet(address(host), port) for _ in range(count)]

    def do_touch(self, host: str, port: int, timeout_s: float = 2.0) -> None:
        """Only connect."""
        socket.create_connection((host, port), timeout=timeout_s).close()

    def do_udp(
        self, host: str, port: int, count: int = 1, is_connected: bool = True
    ) -> list[list[str]]:
        place = address(host)
        return [ask_udp(place, port, f"n{n}", is_connected) for n in range(count)]

    def do_send(self, host: str, port: int, size: int) -> tuple[str, str]:
        """Send to a sink; what it says of it, and what it should have said."""
        connection, _ = dial(address(host), port, timeout_s=300)
        with connection:
            connection.sendall(b"sink\n")
            for chunk in pattern(size):
                connection.sendall(chunk)
            connection.shutdown(socket.SHUT_WR)
            return connection.makefile().readline().strip(), digest_of(size)

    def do_hold(self, host: str, port: int, key: str) -> list[str]:
        connection, greeting = dial(address(host), port)
        connection.sendall(b"echo\n")
        self.held[key] = connection
        return greeting

    def do_say(self, key: str, text: str) -> str:
        return said(self.held[key], text)

    def do_load(self, host: str, port: int, per_s: float) -> None:
        self.load = Load([(address(host), port)], per_s)

    def do_report(self) -> dict[str, Any]:
        assert self.load is not None
        return self.load.report()

    def do_stop(self) -> dict[str, Any]:
        assert self.load is not None
        return self.load.stop()


def address(name: str) -> str:
    """An address as it is, a name by this task's server of names."""
    if name.replace(".", "").isdigit():
        return name
    answer = resolve(name)
    if not answer["addresses"]:
        raise OSError(f"{name}: rcode {answer['rcode']}")
    return str(answer["addresses"][0])


if __name__ == "__main__":
    main(sys.argv[1:])
