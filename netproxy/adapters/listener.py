"""One listening socket and its accept loop."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

from skep.domain.address import Address, show_address
from skep.netproxy.adapters import sockets

log = logging.getLogger(__name__)

# Accepted per turn of the loop, so that a flood of clients doesn't starve open connections.
ACCEPTS_PER_TURN = 64
# After an accept that failed for want of files or memory; the clients wait in the kernel.
ACCEPT_PAUSE_S = 0.1


class Acceptor:
    """Hands each accepted client (non-blocking) to `on_client`, until closed."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        address: Address,
        on_client: Callable[[socket.socket, Address], None],
    ) -> None:
        """Raises OSError where the address can't be bound."""
        self._loop = loop
        self._on_client = on_client
        self._socket = sockets.listen(address)
        host, port = self._socket.getsockname()[:2]
        self.address: Address = (host, port)
        self._pause: asyncio.TimerHandle | None = None
        loop.add_reader(self._socket.fileno(), self._acceptable)

    def close(self) -> None:
        """Stop listening; idempotent."""
        if self._socket.fileno() >= 0:
            if self._pause is not None:
                self._pause.cancel()
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()

    def _acceptable(self) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                client, peer = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause_accepting(error)
                return
            client.setblocking(False)
            self._on_client(client, (peer[0], peer[1]))

    def _pause_accepting(self, error: OSError) -> None:
        log.error("listener=%s accepting=paused why=%r", show_address(self.address), str(error))
        self._loop.remove_reader(self._socket.fileno())
        self._pause = self._loop.call_later(ACCEPT_PAUSE_S, self._go_on)

    def _go_on(self) -> None:
        self._pause = None
        self._loop.add_reader(self._socket.fileno(), self._acceptable)
