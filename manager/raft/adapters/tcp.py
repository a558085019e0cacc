"""Streams of frames over TCP or unix sockets: `env.Transport` without calls.

On the wire a frame is a length (4 bytes, big-endian), a kind (1 byte) and the data. The client's
first frame names the method; a last frame says goodbye, with an error or without, so that a stream
that merely breaks is told apart from one that was closed. What has come and isn't taken yet is
bounded: beyond, the socket isn't read, and the other side waits.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections import deque
from typing import cast

import msgspec

from skep.env import CallError, Code, Listener, Rejected, Retryable, Service, Stream, StreamBroken

_HEAD = struct.Struct(">IB")
_DATA, _OPEN, _GOODBYE, _ERROR = 0, 1, 2, 3

# Received and not taken yet, per stream.
RECEIVE_LIMIT_BYTES = 8 * 1024 * 1024
# Written and not yet accepted by the kernel; `send` waits beyond.
SEND_LIMIT_BYTES = 1024 * 1024
OPEN_DEADLINE_S = 5.0

logger = logging.getLogger(__name__)


class _Error(msgspec.Struct, frozen=True):
    """Why a stream was ended by its handler."""

    code: Code
    message: str
    details: dict[str, str] = {}


class _Connection(asyncio.Protocol):
    """One socket, cut into frames. Implements `env.Stream`."""

    def __init__(self, frame_limit_bytes: int) -> None:
        self._limit = frame_limit_bytes
        self._buffer = bytearray()
        self._frames: deque[tuple[int, bytes]] = deque()
        self._frames_bytes = 0
        self._transport: asyncio.Transport | None = None
        self._arrived: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._broken: str | None = None
        self._is_closed = False
        self._is_paused = False
        self.peer = "?"
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # ------------------------------------------------------------------------ asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have all of asyncio.Transport but its name.
        transport = self._transport = cast(asyncio.Transport, transport)
        transport.set_write_buffer_limits(high=SEND_LIMIT_BYTES)
        name = transport.get_extra_info("peername") or transport.get_extra_info("sockname")
        self.peer = ":".join(map(str, name[:2])) if isinstance(name, tuple) else f"unix:{name}"

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        start, view = 0, self._buffer
        while len(view) - start >= _HEAD.size:
            length, kind = _HEAD.unpack_from(view, start)
            if length > self._limit:
                self._break(f"a frame of {length} bytes; the limit is {self._limit}")
                return
            end = start + _HEAD.size + length
            if end > len(view):
                break
            self._frames.append((kind, bytes(view[start + _HEAD.size : end])))
            self._frames_bytes += length
            start = end
        if start:
            del self._buffer[:start]
        if self._frames_bytes > RECEIVE_LIMIT_BYTES and not self._is_paused and self._transport:
            self._is_paused = True
            self._transport.pause_reading()
        if self._frames:
            self._notify()

    def eof_received(self) -> None:
        self._break("the connection ended without a goodbye")

    def connection_lost(self, error: Exception | None) -> None:
        self._break(str(error) if error else "the connection is lost")
        if not self.closed.done():
            self.closed.set_result(None)

    def pause_writing(self) -> None:
        if self._writable is None:
            self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    def _notify(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    def _break(self, why: str) -> None:
        if self._broken is None:
            self._broken = why
        self.resume_writing()
        self._notify()
        if self._transport is not None:
            self._transport.close()

    # ------------------------------------------------------------------------------ env.Stream

    async def send(self, frame: bytes) -> None:
        await self.send_kind(_DATA, frame)

    async def send_kind(self, kind: int, frame: bytes) -> None:
        assert len(frame) <= self._limit, f"a frame of {len(frame)} bytes"
        if self._broken is not None or self._is_closed or self._transport is None:
            raise StreamBroken(self._broken or "closed on this side")
        self._transport.write(_HEAD.pack(len(frame), kind) + frame)
        if self._writable is not None:
            await asyncio.shield(self._writable)

    async def receive(self) -> bytes | None:
        kind, data = await self.receive_kind()
        if kind == _GOODBYE:
            return None
        if kind == _ERROR:
            error = msgspec.msgpack.decode(data, type=_Error)
            raise CallError(error.code, error.message, error.details)
        return data

    async def receive_kind(self) -> tuple[int, bytes]:
        while not self._frames:
            if self._broken is not None or self._is_closed:
                raise StreamBroken(self._broken or "closed on this side")
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived
        kind, data = self._frames.popleft()
        self._frames_bytes -= len(data)
        if self._is_paused and self._frames_bytes < RECEIVE_LIMIT_BYTES // 2:
            self._is_paused = False
            if self._transport is not None and self._broken is None:
                self._transport.resume_reading()
        return kind, data

    async def close(self) -> None:
        self.end(_GOODBYE, b"")

    def end(self, kind: int, data: bytes) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        if self._broken is None and self._transport is not None:
            self._transport.write(_HEAD.pack(len(data), kind) + data)
            self._transport.close()
        self._notify()


class _TcpListener:
    """A served address. Implements `env.Listener`."""

    def __init__(self, service: Service, frame_limit_bytes: int) -> None:
        self._service = service
        self._limit = frame_limit_bytes
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.server: asyncio.Server | None = None
        self.address = ""

    def accept(self) -> _Connection:
        """Called by the loop for each new connection."""
        connection = _Connection(self._limit)
        self._connections.add(connection)
        # The transport is an adapter, as the one for gRPC is: its tasks are its own.
        task = asyncio.get_running_loop().create_task(self._serve(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return connection

    async def _serve(self, connection: _Connection) -> None:
        try:
            async with asyncio.timeout(OPEN_DEADLINE_S):
                kind, method = await connection.receive_kind()
            handler = self._service.streams.get(method.decode(errors="replace"))
            if kind != _OPEN or handler is None:
                raise CallError(Code.UNIMPLEMENTED, "no such stream is served here")
            await handler(connection)
        except CallError as error:
            reason = _Error(error.code, error.message, error.details)
            connection.end(_ERROR, msgspec.msgpack.encode(reason))
        except Rejected as error:
            reason = _Error(Code.INVALID_ARGUMENT, str(error))
            connection.end(_ERROR, msgspec.msgpack.encode(reason))
        except (Retryable, TimeoutError) as error:
            logger.debug("stream peer=%s why=%s", connection.peer, error)
        finally:
            await connection.close()
            self._connections.discard(connection)

    async def close(self) -> None:
        """See `env.Listener.close`."""
        if self.server is not None:
            self.server.close()
        for connection in list(self._connections):
            await connection.close()
        for task in list(self._tasks):
            if task is not asyncio.current_task():
                task.cancel()


class _TcpChannel:
    """A way to one address. Implements `env.Channel`."""

    def __init__(self, address: str, frame_limit_bytes: int) -> None:
        self._address = address
        self._limit = frame_limit_bytes

    async def call(self, method: str, request: bytes, *, deadline_s: float) -> bytes:
        """Not here: this transport carries streams."""
        raise CallError(Code.UNIMPLEMENTED, f"{method}: this transport carries streams only")

    async def open(self, method: str, *, deadline_s: float) -> Stream:
        """See `env.Channel.open`."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(deadline_s):
                kind, where = _parse(self._address)
                if kind == "unix":
                    _, connection = await loop.create_unix_connection(self._protocol, where[0])
                else:
                    _, connection = await loop.create_connection(self._protocol, *where)
        except (OSError, TimeoutError) as error:
            raise CallError(Code.UNAVAILABLE, f"{self._address}: {error}") from error
        await connection.send_kind(_OPEN, method.encode())
        return connection

    async def close(self) -> None:
        """See `env.Channel.close`; streams are closed by whoever opened them."""

    def _protocol(self) -> _Connection:
        return _Connection(self._limit)


class TcpTransport:
    """Streams over TCP; addresses are "host:port", "[::1]:port" or "unix:/path"."""

    def __init__(self, frame_limit_bytes: int) -> None:
        self._limit = frame_limit_bytes

    async def listen(self, address: str, service: Service) -> Listener:
        """See `env.Transport.listen`."""
        assert not service.calls, "this transport carries streams only"
        loop = asyncio.get_running_loop()
        listener = _TcpListener(service, self._limit)
        kind, where = _parse(address)
        if kind == "unix":
            listener.server = await loop.create_unix_server(listener.accept, where[0])
            listener.address = address
        else:
            listener.server = await loop.create_server(listener.accept, *where)
            host, port = listener.server.sockets[0].getsockname()[:2]
            listener.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return listener

    def channel(self, address: str) -> _TcpChannel:
        """See `env.Transport.channel`."""
        return _TcpChannel(address, self._limit)


def _parse(address: str) -> tuple[str, tuple[str, int]]:
    if address.startswith("unix:"):
        return "unix", (address.removeprefix("unix:"), 0)
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise Rejected(f"{address!r} is not an address: host:port or unix:/path is expected")
    return "tcp", (host.strip("[]"), int(port))
