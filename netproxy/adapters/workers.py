"""One relay worker as the netproxy sees it: a process, and the socket to it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence

from skep.env import Env
from skep.netproxy.relay.core.protocol import (
    SOCKETS_PER_FRAME,
    Applied,
    Apply,
    Command,
    FrameError,
    Frames,
    Key,
    Opened,
    Report,
    frame,
    read_answer,
)

log = logging.getLogger(__name__)

READ_BYTES = 256 * 1024
# A process that has closed its socket, or was killed, is gone within a moment.
EXIT_POLL_S = 0.005
_LATER = (BlockingIOError, InterruptedError)


class WorkerGone(Exception):
    """The process has ended; it reaches nothing any more."""


class WorkerProcess:
    """A running relay worker, from its start to its end."""

    def __init__(self, env: Env, number: int, on_report: Callable[[Report], None]) -> None:
        """Starts it. Raises OSError."""
        self.number = number
        self._env = env
        self._on_report = on_report
        self._loop = asyncio.get_running_loop()
        self._frames = Frames()
        self._unsent: deque[tuple[memoryview, tuple[socket.socket, ...]]] = deque()
        self._asked: dict[int, asyncio.Future[Applied]] = {}
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self.has_answered = False
        self._is_writing = False
        ours, theirs = socket.socketpair()
        with theirs:
            ours.setblocking(False)
            arguments = ("--control-fd", str(theirs.fileno()), "--name", f"{env.node}.{number}")
            try:
                self._process = subprocess.Popen(
                    (sys.executable, "-m", "skep.netproxy.relay.main", *arguments),
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                )
            except BaseException:
                ours.close()
                raise
        self._connection = ours
        self._loop.add_reader(ours.fileno(), self._readable)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def send(self, command: Command) -> None:
        """Have it done, behind everything that was sent before."""
        self._queue(frame(command), ())

    def send_listeners(self, listeners: Sequence[tuple[Key, socket.socket]]) -> None:
        """Give it these to accept from."""
        for start in range(0, len(listeners), SOCKETS_PER_FRAME):
            part = listeners[start : start + SOCKETS_PER_FRAME]
            opened = Opened(addresses=tuple(address for address, _ in part))
            # Copies, since ours may be closed before they have left.
            copies = tuple(listener.dup() for _, listener in part)
            self._queue(frame(opened), copies)

    def ask(self, command: Apply) -> asyncio.Future[Applied]:
        """Have it applied; see `answered`."""
        answer: asyncio.Future[Applied] = self._loop.create_future()
        self._asked[command.number] = answer
        self.send(command)
        return answer

    async def answered(self, asked: asyncio.Future[Applied], within_s: float) -> Applied:
        """The answer to what was asked. Raises WorkerGone, TimeoutError."""
        await asyncio.wait((asked, self._gone), timeout=within_s, return_when="FIRST_COMPLETED")
        if asked.done():
            return asked.result()
        if self._gone.done():
            raise WorkerGone
        raise TimeoutError

    async def is_gone(self, within_s: float) -> bool:
        """Wait so long for its socket to be closed, and say whether it is."""
        await asyncio.wait((self._gone,), timeout=within_s)
        return self._gone.done()

    async def end_within(self, exit_s: float) -> None:
        """It has been told to end; kill it if it takes longer than this."""
        until = self._env.now() + exit_s
        while self._process.poll() is None:
            if self._env.now() >= until:
                self._process.kill()
                return
            await self._env.clock.sleep(EXIT_POLL_S)

    async def ended(self) -> int:
        """Wait until the process is no more; returns its exit status."""
        await asyncio.wait((self._gone,))
        while (status := self._process.poll()) is None:
            await self._env.clock.sleep(EXIT_POLL_S)
        return status

    def leave(self) -> None:
        """Close the socket, which tells it to end. Idempotent."""
        if not self._gone.done():
            self._loop.remove_reader(self._connection.fileno())
            if self._is_writing:
                self._loop.remove_writer(self._connection.fileno())
            self._connection.close()
            for _, copies in self._unsent:
                _close_all(copies)
            self._unsent.clear()
            self._gone.set_result(None)

    def kill(self) -> None:
        """End it at once, whatever it does."""
        self._process.kill()

    def _readable(self) -> None:
        try:
            data = self._connection.recv(READ_BYTES)
            for body in self._frames.feed(data):
                self._answered(body)
        except _LATER:
            return
        except FrameError as error:
            log.error("relay_worker=%d state=killed why=%r", self.number, str(error))
            self._process.kill()
            data = b""
        except OSError:
            data = b""
        if not data:
            self.leave()

    def _answered(self, body: bytes) -> None:
        answer = read_answer(body)
        self.has_answered = True
        if isinstance(answer, Report):
            self._on_report(answer)
        elif (asked := self._asked.pop(answer.number, None)) is not None and not asked.done():
            asked.set_result(answer)

    def _queue(self, data: bytes, copies: tuple[socket.socket, ...]) -> None:
        if self._gone.done():
            _close_all(copies)
            return
        self._unsent.append((memoryview(data), copies))
        self._flush()

    def _flush(self) -> None:
        try:
            while self._unsent:
                data, copies = self._unsent.popleft()
                try:
                    sent = socket.send_fds(self._connection, [data], [c.fileno() for c in copies])
                except _LATER:
                    self._unsent.appendleft((data, copies))
                    raise
                _close_all(copies)
                if sent < len(data):
                    self._unsent.appendleft((data[sent:], ()))
        except _LATER:
            pass
        except OSError:
            return  # Reading will tell.
        if bool(self._unsent) != self._is_writing:
            self._is_writing = bool(self._unsent)
            if self._is_writing:
                self._loop.add_writer(self._connection.fileno(), self._flush)
            else:
                self._loop.remove_writer(self._connection.fileno())


def _close_all(copies: Sequence[socket.socket]) -> None:
    for copy in copies:
        with contextlib.suppress(OSError):
            copy.close()
