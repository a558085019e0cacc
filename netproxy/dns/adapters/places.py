"""Opening the sockets of a scope, in its network namespace.

A thread can be moved into another network namespace, and what it opens there stays there whoever
uses it. The thread is thrown away afterwards: one that came back from a pool would still be there.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from skep.netproxy.dns.core.protocol import Listen
from skep.netproxy.dns.core.resolv import DNS_PORT

_CLONE_NEWNET = 0x40000000
# What 16 askers of one scope, and many more, have under way at once fits in there.
RECEIVE_BUFFER_BYTES = 1 << 20
BACKLOG = 64
# With port 0: how often a port that UDP has and TCP can't get is given back.
PORT_TRIES = 16


@dataclass(frozen=True, slots=True)
class Sockets:
    """The sockets of one scope, and which namespace (device, inode) they are in."""

    udp: socket.socket
    tcp: socket.socket
    namespace: tuple[int, int] | None

    def close(self) -> None:
        """Close both; idempotent."""
        self.udp.close()
        self.tcp.close()


def namespace_at(path: str) -> tuple[int, int] | None:
    """Which namespace a file stands for; None where there is no such file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def open_all(listens: Sequence[Listen]) -> list[Sockets | OSError]:
    """The sockets of each place, or why there are none."""
    opened: list[Sockets | OSError] = []

    def work() -> None:
        # Those of our own namespace come first, since there is no way back.
        for listen in listens:
            try:
                opened.append(_open(listen))
            except OSError as error:
                opened.append(error)

    if all(listen.namespace is None for listen in listens):
        work()
        return opened
    assert all(listen.namespace is not None for listen in listens), "a mixed batch"
    thread = threading.Thread(target=work, name="namespaces")
    thread.start()
    thread.join()
    return opened


def _open(listen: Listen) -> Sockets:
    namespace = None if listen.namespace is None else _enter(listen.namespace)
    family = socket.AF_INET6 if ":" in listen.address else socket.AF_INET
    _check_route(family, listen.address)
    for _ in range(PORT_TRIES):
        udp = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        tcp = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            udp.bind((listen.address, listen.port))
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tcp.bind((listen.address, udp.getsockname()[1]))
            tcp.listen(BACKLOG)
        except OSError as error:
            udp.close()
            tcp.close()
            if listen.port or error.errno != errno.EADDRINUSE:
                raise
        else:
            return Sockets(udp, tcp, namespace)
    raise OSError(errno.EADDRINUSE, f"no port is free on {listen.address} for UDP and TCP")


def _check_route(family: socket.AddressFamily, address: str) -> None:
    """Raises OSError where the address can't be reached, such as while loopback is down.

    In a namespace without any route Linux binds whatever address it is asked to, and then answers
    from another one for ever, which clients don't accept.
    """
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((address, DNS_PORT))  # sends nothing


def _enter(path: str) -> tuple[int, int]:
    """Move this thread into a namespace; says which it is. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(fd, _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"{path}: {os.strerror(number)}")
        found = os.fstat(fd)
        return found.st_dev, found.st_ino
    finally:
        os.close(fd)
