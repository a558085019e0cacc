"""The socket calls of the relay, all non-blocking.

Every socket is set to be closed by a reset from its first moment (accepted ones inherit it), and is
set back only for an orderly end. So when this process is killed, what it relayed is reset by the
kernel; a plain FIN would make half an answer look like a whole one.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import struct

from skep.domain.address import Address

# As many as the kernel's own default (net.core.somaxconn); a burst waits there, not in Python.
BACKLOG = 4096
UNREAD_LIMIT_BYTES = 4096
_BY_RESET, _ORDERLY = struct.pack("ii", 1, 0), struct.pack("ii", 0, 0)
# Linux gives a bound source address no port until it connects, so that ports don't run out.
_IP_BIND_ADDRESS_NO_PORT = 24
# A peer that is gone without a word is noticed within two minutes. An idle one that is alive
# answers these, so no live connection is ever cut by them.
_KEEPALIVE = (
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
)


def listen(address: Address) -> socket.socket:
    """A listening socket. Its options (`_set_common`) are inherited by what it accepts.

    Never SO_REUSEPORT: two processes would share the port without a word. Raises OSError.
    """
    listener = socket.socket(_family(address), socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _set_common(listener)
        listener.bind(address)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def begin_connect(address: Address, source: str | None = None) -> tuple[socket.socket, bool]:
    """A socket that is connecting, from the address `source` where one is given, and whether it
    is connected already. Raises OSError."""
    connecting = socket.socket(_family(address), socket.SOCK_STREAM)
    try:
        connecting.setblocking(False)
        _set_common(connecting)
        if source is not None:
            connecting.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            connecting.bind((source, 0))
        result = connecting.connect_ex(address)
        if result == errno.EINPROGRESS:
            # On one machine the answer is mostly there by now; asking again tells, and saves a
            # turn of the loop.
            result = connecting.connect_ex(address)
        if result not in (0, errno.EISCONN, errno.EALREADY, errno.EINPROGRESS):
            raise OSError(result, os.strerror(result))
    except BaseException:
        connecting.close()
        raise
    return connecting, result in (0, errno.EISCONN)


async def receive_exactly(
    loop: asyncio.AbstractEventLoop, source: socket.socket, count: int
) -> bytes:
    """That many bytes, and none of those behind them. Raises OSError (also at the end)."""
    data = b""
    while len(data) < count:
        more = await loop.sock_recv(source, count - len(data))
        if not more:
            raise ConnectionResetError(f"closed after {len(data)} of {count} bytes")
        data += more
    return data


def close_by_reset(connected: socket.socket) -> None:
    """Close with RST: nobody may take this for an orderly end. Idempotent."""
    connected.close()


def close_orderly(connected: socket.socket) -> None:
    """Close with FIN, behind everything that was written."""
    with contextlib.suppress(OSError):
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ORDERLY)
    connected.close()


def answer_and_close(connected: socket.socket, answer: bytes) -> None:
    """Send a few bytes, which a fresh socket has room for, and close.

    What the other side has sent meanwhile is read first, up to a header's worth: closing over
    unread bytes would be a reset, which may overtake the answer.
    """
    with contextlib.suppress(OSError):
        connected.send(answer)
        connected.recv(UNREAD_LIMIT_BYTES)
    close_orderly(connected)


def _family(address: Address) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address[0] else socket.AF_INET


def _set_common(of: socket.socket) -> None:
    of.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    of.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _BY_RESET)
    for level, option, value in _KEEPALIVE:
        of.setsockopt(level, option, value)
