"""Moves bulk data between two sockets without copying it: through a pipe of the kernel.

Measured on loopback, that takes a third less of this process's time per byte than reading and
sending. It is no use for small messages, and takes two more files, so that only a direction that
has moved much in large pieces gets a conduit.
"""

from __future__ import annotations

import contextlib
import fcntl
import os

from skep.netproxy.relay.core.pipe import CHUNK_BYTES

_FLAGS = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE
# Pipes that are kept for the next one. Making one costs as much as moving 100 KB.
SPARE_LIMIT = 16


class Conduit:
    """One pipe. `held` bytes are in it. It is only filled when it is empty, so that a socket that
    gives nothing is known to be empty itself."""

    __slots__ = ("_in", "_out", "held")

    def __init__(self) -> None:
        """Raises OSError where no more files may be open."""
        self._out, self._in = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.held = 0
        # Users other than root may have a limited number of large ones.
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._in, fcntl.F_SETPIPE_SZ, CHUNK_BYTES)

    def fill(self, source: int) -> int:
        """Take what the socket has; returns how much, 0 at its end. Raises OSError,
        BlockingIOError where it has nothing."""
        assert not self.held
        self.held = os.splice(source, self._in, CHUNK_BYTES, flags=_FLAGS)
        return self.held

    def drain(self, sink: int) -> bool:
        """Give it to the socket; returns whether that took all. Raises OSError."""
        try:
            self.held -= os.splice(self._out, sink, self.held, flags=_FLAGS)
        except BlockingIOError:
            return False
        return not self.held

    def close(self) -> None:
        """Drop what it holds."""
        os.close(self._in)
        os.close(self._out)


class Conduits:
    """Those of a process that are not in use."""

    def __init__(self) -> None:
        self._spare: list[Conduit] = []

    def take(self) -> Conduit | None:
        """An empty one; None where no more files may be open."""
        if self._spare:
            return self._spare.pop()
        try:
            return Conduit()
        except OSError:
            return None

    def give_back(self, conduit: Conduit) -> None:
        """It is no longer used."""
        if conduit.held or len(self._spare) >= SPARE_LIMIT:
            conduit.close()
        else:
            self._spare.append(conduit)
