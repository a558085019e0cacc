"""The worker's end of the socket to its netproxy."""

from __future__ import annotations

import logging
import socket
from collections import deque
from collections.abc import Callable

from skep.netproxy.relay.adapters.loop import READABLE, WRITABLE, Loop
from skep.netproxy.relay.adapters.worker import Worker
from skep.netproxy.relay.core.protocol import (
    SOCKETS_PER_FRAME,
    Answer,
    Apply,
    Command,
    Drain,
    FrameError,
    Frames,
    Opened,
    Report,
    Start,
    frame,
    read_command,
)

log = logging.getLogger("skep.netproxy.relay")

READ_BYTES = 256 * 1024


class Control:
    """Does what comes, and answers. The loop is stopped when the netproxy has closed its end."""

    def __init__(
        self, loop: Loop, connection: socket.socket, on_start: Callable[[Start], Worker]
    ) -> None:
        self._loop = loop
        self._connection = connection
        self._on_start = on_start
        self._frames = Frames()
        self._sockets: deque[socket.socket] = deque()
        self._worker: Worker | None = None
        self._report_period_s = 0.0
        self._reported: Report | None = None
        self._unsent = bytearray()
        self._mask = READABLE
        loop.attach(connection.fileno(), self._event, READABLE)

    def _event(self, events: int) -> None:
        if events & WRITABLE:
            self._flush()
        if events & ~WRITABLE:
            self._readable()

    def _readable(self) -> None:
        try:
            data, files, flags, _ = socket.recv_fds(
                self._connection, READ_BYTES, SOCKETS_PER_FRAME, socket.MSG_CMSG_CLOEXEC
            )
            self._sockets.extend(socket.socket(fileno=fd) for fd in files)
            if flags & socket.MSG_CTRUNC:
                raise FrameError("sockets got lost on their way: no more files may be open")
            if not data:
                log.info("worker=ending why='the netproxy is gone'")
                self._loop.stop()
                return
            for body in self._frames.feed(data):
                self._do(read_command(body))
        except BlockingIOError:
            return
        except (OSError, FrameError) as error:
            # Nothing is certain any more; the netproxy starts another.
            log.error("worker=ending why=%r", str(error))
            self._loop.stop()

    def _do(self, command: Command) -> None:
        if isinstance(command, Start):
            self._worker = self._on_start(command)
            self._report_period_s = command.report_period_s
            self._report_regularly()
            return
        worker = self._worker
        if worker is None:
            raise FrameError(f"{type(command).__name__} before Start")
        match command:
            case Opened(addresses=addresses):
                if len(addresses) > len(self._sockets):
                    raise FrameError(f"{len(addresses)} addresses, {len(self._sockets)} sockets")
                for address in addresses:
                    worker.opened(address, self._sockets.popleft())
            case Apply():
                applied = worker.apply(command)
                # In this order: whoever waits for the answer then knows the counts, too.
                self._report()
                self._send(applied)
            case Drain():
                worker.drain()
                self._report()

    def _report_regularly(self) -> None:
        self._report()
        self._loop.call_later(self._report_period_s, self._report_regularly)

    def _report(self) -> None:
        assert self._worker is not None
        if self._unsent:
            return  # The netproxy is behind; counts are absolute, so that the next report will do.
        report = self._worker.report()
        if report != self._reported:
            self._reported = report
            self._send(report)

    def _send(self, answer: Answer) -> None:
        self._unsent += frame(answer)
        self._flush()

    def _flush(self) -> None:
        """Never waits: a netproxy that is stuck must not stop what is relayed."""
        try:
            while self._unsent:
                sent = self._connection.send(self._unsent)
                del self._unsent[:sent]
        except BlockingIOError:
            pass
        except OSError:
            return  # Reading will tell.
        mask = READABLE | WRITABLE if self._unsent else READABLE
        if mask != self._mask:
            self._mask = mask
            self._loop.modify(self._connection.fileno(), mask)
