"""The socket calls of the relay workers.

Every socket is set to be closed by a reset from its first moment (accepted ones inherit it), and is
set back only for an orderly end. So when this process is killed, what it relayed is reset by the
kernel; a plain FIN would make half an answer look like a whole one.

Sockets here are those of `_socket`, without the wrapper that the standard library puts round them:
a connection takes about twenty system calls, and each one counts. Accepted ones are in blocking
mode, which saves one more; every call to read or write says by itself not to wait.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import struct

from skep.netproxy.relay.core.protocol import Address

DONT_WAIT = socket.MSG_DONTWAIT
# As many as the kernel's own default (net.core.somaxconn); a burst waits there, not in Python.
BACKLOG = 4096
UNREAD_LIMIT_BYTES = 4096
_Socket = socket.SocketType
_BY_RESET = struct.pack("ii", 1, 0)
# The standard library's setsockopt takes three times as long for a structure as for a number, since
# it tries the numbers first; that is a twentieth of what a connection costs. So this one is called
# by ctypes, which needs no more than the addresses of two structures that live as long as it does.
_libc_setsockopt = ctypes.PyDLL(None).setsockopt
_LINGERS = (ctypes.create_string_buffer(_BY_RESET, 8), ctypes.create_string_buffer(8))
_RESET_AT, _ORDERLY_AT = (ctypes.c_void_p(ctypes.addressof(each)) for each in _LINGERS)
_CONNECTING = int(socket.SOCK_STREAM) | int(socket.SOCK_NONBLOCK) | int(socket.SOCK_CLOEXEC)
_STREAM = int(socket.SOCK_STREAM)
_INET, _INET6 = int(socket.AF_INET), int(socket.AF_INET6)
_TCP, _IP, _SOL = int(socket.IPPROTO_TCP), int(socket.IPPROTO_IP), int(socket.SOL_SOCKET)
_NODELAY, _LINGER = int(socket.TCP_NODELAY), int(socket.SO_LINGER)
_QUICKACK = int(socket.TCP_QUICKACK)
# Linux gives a bound source address no port until it connects, so that ports don't run out.
_IP_BIND_ADDRESS_NO_PORT = 24
_IN_PROGRESS, _IS_CONNECTED = errno.EINPROGRESS, errno.EISCONN
_MAY_CONNECT = frozenset((0, errno.EISCONN, errno.EALREADY, errno.EINPROGRESS))
# A peer that is gone without a word is noticed within two minutes. An idle one that is alive
# answers these, so no live connection is ever cut by them.
KEEPALIVE_IDLE_S = 60
_KEEPALIVE = (
    (_TCP, int(socket.TCP_KEEPIDLE), KEEPALIVE_IDLE_S),
    (_TCP, int(socket.TCP_KEEPINTVL), 15),
    (_TCP, int(socket.TCP_KEEPCNT), 4),
    (_SOL, int(socket.SO_KEEPALIVE), 1),
)


def set_inherited(listener: socket.SocketType) -> None:
    """Set what the sockets that this one accepts shall have."""
    listener.setsockopt(_TCP, _NODELAY, 1)
    listener.setsockopt(_SOL, _LINGER, _BY_RESET)
    set_keepalive(listener)


def set_keepalive(of: socket.SocketType) -> None:
    """Notice a peer that is gone without a word."""
    for level, option, value in _KEEPALIVE:
        of.setsockopt(level, option, value)


def accept(listener: socket.SocketType) -> tuple[socket.SocketType, Address]:
    """A client, in blocking mode. Raises OSError."""
    fd, peer = listener._accept()  # type: ignore[attr-defined]
    return _Socket(_INET if len(peer) == 2 else _INET6, _STREAM, 0, fd), peer[:2]


def begin_connect(address: Address, source: str) -> tuple[socket.SocketType, bool]:
    """A socket that is connecting, and whether it is connected already. `set_keepalive` is for
    later, when it has lived for a while. Raises OSError."""
    connecting = _fresh(address)
    try:
        result = _connect(connecting, address, source)
        if result == _IN_PROGRESS:
            # On one machine the answer is mostly there by now; asking again tells, and saves a
            # turn of the loop.
            result = connecting.connect_ex(address)
        _check(result)
    except BaseException:
        connecting.close()
        raise
    return connecting, result == 0 or result == _IS_CONNECTED


def connect_with(
    address: Address, source: str, first: bytes
) -> tuple[socket.SocketType, int | None]:
    """Like `begin_connect`, and how much was sent of `first`; None: it isn't connected yet.

    Call it only if `first` will be sent as soon as it is connected, since the packet that ends
    the handshake waits for that.
    """
    connecting = _fresh(address)
    try:
        connecting.setsockopt(_TCP, _QUICKACK, 0)
        _check(_connect(connecting, address, source))
        try:
            return connecting, connecting.send(first, DONT_WAIT)
        except BlockingIOError:
            return connecting, None
    except BaseException:
        connecting.close()
        raise


def is_connected(connecting: socket.SocketType, address: Address) -> bool:
    """Whether what `begin_connect` began has come about. Raises OSError where it has failed."""
    result = connecting.connect_ex(address)
    _check(result)
    return result == 0 or result == _IS_CONNECTED


def push(connected: socket.SocketType) -> None:
    """Send what was kept back for more to follow. Whether it is gone, its next use will tell."""
    with contextlib.suppress(OSError):
        connected.setsockopt(_TCP, _NODELAY, 1)


def close_orderly(connected: socket.SocketType) -> None:
    """Close with FIN, behind everything that was written."""
    _libc_setsockopt(connected.fileno(), _SOL, _LINGER, _ORDERLY_AT, 8)
    connected.close()


def answer_and_close(connected: socket.SocketType, answer: bytes) -> None:
    """Send a few bytes, which a fresh socket has room for, and close.

    What the other side has sent meanwhile is read first, up to a header's worth: closing over
    unread bytes would be a reset, which may overtake the answer.
    """
    try:
        connected.send(answer, DONT_WAIT)
        connected.recv(UNREAD_LIMIT_BYTES, DONT_WAIT)
    except OSError:
        pass  # Nobody waits for it.
    close_orderly(connected)


def _fresh(address: Address) -> socket.SocketType:
    connecting = _Socket(_INET6 if ":" in address[0] else _INET, _CONNECTING)
    connecting.setsockopt(_TCP, _NODELAY, 1)
    _libc_setsockopt(connecting.fileno(), _SOL, _LINGER, _RESET_AT, 8)
    return connecting


def _connect(connecting: socket.SocketType, address: Address, source: str) -> int:
    if _must_bind(source, address[0]):
        connecting.setsockopt(_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        connecting.bind((source, 0))
    return connecting.connect_ex(address)


def _check(result: int) -> None:
    if result not in _MAY_CONNECT:
        raise OSError(result, os.strerror(result))


def _must_bind(source: str, host: str) -> bool:
    """Connections come from this node's own address, so that a task (and a test) can tell which
    netproxy they are from; but loopback and the world outside don't mix. Where the kernel takes
    that address by itself, two calls are saved."""
    if source.startswith("127."):
        return host.startswith("127.") and source != "127.0.0.1"
    return source != host and ":" not in source and not host.startswith("127.")
