"""A process that stands for a task: it joins a cgroup, and does what it is told on its stdin.

Run as `python task.py CGROUP` in a network namespace. Each line is a JSON list, a name and its
arguments; each answer is a line of JSON. Knows nothing of Skep, so that it starts quickly.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import sys
import threading
import time
from typing import Any

TIMEOUT_S = 5

sockets: dict[str | int, socket.socket] = {}
connected: set[str] = set()
kept: list[socket.socket] = []


def cookie() -> int:
    """Of this network namespace."""
    with socket.socket() as any_socket:
        return int.from_bytes(any_socket.getsockopt(socket.SOL_SOCKET, 71, 8), "little")


def serve(addresses: list[str], port: int) -> None:
    """Answer every connection and datagram with the address it has reached, and lines with ok."""
    listeners: dict[int, str] = {}
    for address in addresses:
        tcp, udp = socket.create_server((address, port), backlog=4096), socket.socket(type=2)
        udp.bind((address, port))
        tcp.setblocking(False)
        udp.setblocking(False)
        listeners[tcp.fileno()] = listeners[udp.fileno()] = address
        sockets.update({tcp.fileno(): tcp, udp.fileno(): udp})
    threading.Thread(target=_serve, args=(listeners,), daemon=True).start()


def _serve(listeners: dict[int, str]) -> None:
    poll, open_ones = select.epoll(), dict[int, socket.socket]()
    for fd in listeners:
        poll.register(fd, select.EPOLLIN)
    while True:
        for fd, _ in poll.poll():
            try:
                if fd in open_ones:
                    _answer(open_ones, fd)
                elif sockets[fd].type == socket.SOCK_DGRAM:
                    _, peer = sockets[fd].recvfrom(100)
                    sockets[fd].sendto(listeners[fd].encode(), peer)
                else:
                    accepted, _ = sockets[fd].accept()
                    open_ones[accepted.fileno()] = accepted
                    poll.register(accepted.fileno(), select.EPOLLIN)
                    accepted.sendall(listeners[fd].encode())
            except OSError:
                pass  # the other side has gone away in the middle


def _answer(open_ones: dict[int, socket.socket], fd: int) -> None:
    try:
        data = open_ones[fd].recv(100)
    except OSError:
        data = b""
    if data:
        open_ones[fd].sendall(b"ok")
    else:
        open_ones.pop(fd).close()


def connect(address: str, port: int, times: int = 1, family: int = socket.AF_INET) -> list[Any]:
    """Connect and close; per time [who has answered, what getpeername says], or an error's name."""
    results = []
    for _ in range(times):
        with socket.socket(family) as one:
            results.append(_connected(one, address, port))
    return results


def _connected(one: socket.socket, address: str, port: int) -> list[str] | str:
    one.settimeout(TIMEOUT_S)
    try:
        one.connect((address, port))
        return [one.recv(100).decode(), one.getpeername()[0]]
    except OSError as error:
        return type(error).__name__


def probe(address: str, port: int) -> str:
    """What connect says within a moment."""
    with socket.socket() as one:
        one.setblocking(False)
        try:
            one.connect((address, port))
        except OSError as error:
            return type(error).__name__
    return ""


def keep(address: str, port: int) -> str:
    """Connect and keep the connection, for `talk`."""
    kept.append(socket.create_connection((address, port), TIMEOUT_S))
    return kept[-1].recv(100).decode()


def talk() -> list[str]:
    """Whether every connection kept is alive."""
    for one in kept:
        one.sendall(b"?")
    return [one.recv(100).decode() for one in kept]


def loop(address: str, port: int, times: int) -> list[list[Any]]:
    """As `connect`, but per time [begun, ended, who], on the machine's clock."""
    results: list[list[Any]] = []
    for _ in range(times):
        begun = time.monotonic_ns()
        with socket.socket() as one:
            # Ports would run out in TIME_WAIT.
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            answer = _connected(one, address, port)
        who = answer if isinstance(answer, str) else answer[0]
        results.append([begun, time.monotonic_ns(), who])
        if who == answer:
            break  # an error, and one is enough
    return results


def udp(
    name: str, address: str, port: int, is_connected: bool = False, family: int = socket.AF_INET
) -> list[str] | str:
    """Send a datagram from the socket of this name; [who has answered, source of the answer]."""
    if name not in sockets:
        sockets[name] = socket.socket(family, socket.SOCK_DGRAM)
        sockets[name].settimeout(TIMEOUT_S)
    one = sockets[name]
    try:
        if is_connected and name not in connected:
            one.connect((address, port))
            connected.add(name)
        if is_connected:
            one.send(b"?")
        else:
            one.sendto(b"?", (address, port))
        data, source = one.recvfrom(100)
        return [data.decode(), source[0]]
    except OSError as error:
        return type(error).__name__


def main() -> None:
    """Join the cgroup, then serve stdin."""
    if len(sys.argv) > 1:
        with open(os.path.join(sys.argv[1], "cgroup.procs"), "w") as procs:
            procs.write(str(os.getpid()))
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        print(json.dumps(globals()[name](*arguments)), flush=True)


if __name__ == "__main__":
    main()
