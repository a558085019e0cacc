"""One connection of the control process to the DNS process (asyncio)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
from collections import deque
from pathlib import Path
from typing import TypeVar

from skep.env import Env, Fatal, Retryable
from skep.netproxy.dns.core import protocol
from skep.netproxy.dns.core.protocol import (
    Applied,
    End,
    Hello,
    ProtocolBroken,
    Refused,
    Request,
    Response,
    Status,
    Told,
    Welcome,
)

# Everything is carried out at once; the largest, a thousand namespaces, takes half a second.
REQUEST_DEADLINE_S = 10.0

R = TypeVar("R", Welcome, Applied, Told, Status)
_CREDENTIALS = struct.Struct("3i")


class Silent(Retryable):
    """The process is there and does not answer."""


class Link:
    """Requests and their answers, in order. Once it has failed it stays so: open another."""

    def __init__(
        self, env: Env, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._env = env
        self._reader = reader
        self._writer = writer
        self._waiting: deque[asyncio.Future[Response]] = deque()
        self.lost = asyncio.Event()
        connected: socket.socket = writer.get_extra_info("socket")
        raw = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        self.pid: int = _CREDENTIALS.unpack(raw)[0]  # of the process that listens
        self._receiving = env.spawn("dns link", self._receive())

    @staticmethod
    async def open(env: Env, path: Path) -> Link:
        """Connect. Raises OSError where nobody listens."""
        reader, writer = await asyncio.open_unix_connection(str(path))
        return Link(env, reader, writer)

    async def ask(self, request: Request, kind: type[R]) -> R:
        """The answer. Raises Retryable where there is none, and Fatal where it makes no sense."""
        if self.lost.is_set():
            raise Retryable("the DNS process is gone")
        waiting: asyncio.Future[Response] = asyncio.Future()
        self._waiting.append(waiting)
        try:
            self._writer.write(protocol.encode(request))
            response = await self._env.clock.within(REQUEST_DEADLINE_S, waiting)
        except TimeoutError:
            await self.close()
            raise Silent(f"the DNS process is silent for {REQUEST_DEADLINE_S:g} s") from None
        except OSError as error:
            await self.close()
            raise Retryable(f"the DNS process is gone: {error}") from None
        if isinstance(response, kind):
            return response
        raise Fatal(f"{type(request).__name__} was answered by {response!r}")

    async def hello(self) -> Welcome:
        """Who is there. Raises Retryable."""
        return await self.ask(Hello(protocol.FORMAT), Welcome)

    async def end_process(self, deadline_s: float) -> None:
        """Tell the process to end, and wait until it has let go. Raises Retryable."""
        with contextlib.suppress(OSError):
            self._writer.write(protocol.encode(End()))
        try:
            await self._env.clock.within(deadline_s, self.lost.wait())
        except TimeoutError:
            raise Retryable("the DNS process does not end") from None
        finally:
            await self.close()

    def kill_process(self) -> None:
        """Kill it, when it is silent: that it has not closed the connection shows that it is
        still the one that the kernel named."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    async def close(self) -> None:
        """Close; the process goes on. Idempotent."""
        self._receiving.cancel()
        self._lose()
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    def _lose(self) -> None:
        self.lost.set()
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_exception(ConnectionResetError("closed"))

    async def _receive(self) -> None:
        try:
            while True:
                prefix = await self._reader.readexactly(protocol.LENGTH_BYTES)
                body = await self._reader.readexactly(protocol.read_length(prefix))
                response = protocol.decode_response(body)
                if not self._waiting:
                    raise ProtocolBroken("an answer that nobody asked for")
                waiting = self._waiting.popleft()
                if not waiting.done():
                    waiting.set_result(response)
                if isinstance(response, Refused):
                    return
        except (asyncio.IncompleteReadError, OSError, ProtocolBroken):
            return
        finally:
            self._lose()
