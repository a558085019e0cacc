"""A node's disk that outlives its processes, and forgets what was not synced when power fails.

A power cut keeps, of each file, what was synced and a drawn prefix of what was not; the write at
its end may be torn, and the torn part may be there as zeros, as on real file systems. What is
removed may come back unless its folder was synced since. A process that is merely killed loses
nothing. What was handed to the disk's thread is done even if nobody waits for it any more.
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from tests.sim.connection import IncarnationDead
from tests.sim.loop import Owner
from tests.sim.trace import Trace


@dataclass
class DiskTemper:
    """How the disk behaves: seconds and probabilities, drawn per seed and by faults."""

    mean_sync_s: float = 0.002
    slowness: float = 1.0
    sync_error: float = 0.0
    is_full: bool = False
    zero_tail: float = 0.2


@dataclass
class _Write:
    """One append (data) or truncate (size) that has not been synced."""

    data: bytes | None = None
    size: int = 0
    is_lost: bool = False


@dataclass
class _Content:
    """A file: what is surely on the platter, what is pending, and what readers see."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[_Write] = field(default_factory=list)
    visible: bytearray = field(default_factory=bytearray)
    settled: int = 0

    @property
    def written(self) -> int:
        """How many writes this file has seen, durable or not."""
        return self.settled + len(self.pending)

    def settle(self, upto: int) -> None:
        """All writes before number `upto` are durable now."""
        count = max(0, upto - self.settled)
        for write in self.pending[:count]:
            _apply(self.durable, write)
        del self.pending[:count]
        self.settled += count

    def lose(self, upto: int) -> None:
        """A failed sync: the kernel drops these pages, though readers still see them."""
        for write in self.pending[: max(0, upto - self.settled)]:
            write.is_lost = True


def _apply(to: bytearray, write: _Write) -> None:
    if write.data is None:
        del to[write.size :]
    else:
        to += bytes(len(write.data)) if write.is_lost else write.data


class SimDisk:
    """The platter. Processes use it by way of `view`."""

    def __init__(self, name: str, dice: Random, trace: Trace) -> None:
        self.name = name
        self.temper = DiskTemper()
        self._dice = dice
        self._trace = trace
        self._files: dict[str, _Content] = {}
        self._removed: dict[str, bytes] = {}
        self._replacing: dict[str, bytes] = {}
        self._busy_until = 0.0
        self._life = 0

    def view(self, owner: Owner) -> DiskView:
        """The disk as one process has it; it dies with the process."""
        return DiskView(self, owner)

    # ----------------------------------------------------------------------------------- faults

    def process_died(self) -> None:
        """The kernel lives on: nothing is lost, and what was being replaced is old or new."""
        for path, data in sorted(self._replacing.items()):
            if self._dice.random() < 0.5:
                self._files[path] = _Content(bytearray(data), [], bytearray(data))
                self._trace.note("disk", f"{self.name} killed while replacing {path}: new")
        self._replacing.clear()
        self._busy_until = 0.0
        self._life += 1

    def power_lost(self) -> None:
        """Keep what was synced, and by chance some of what was not."""
        self.process_died()
        for path, durable in sorted(self._removed.items()):
            if path not in self._files and self._dice.random() < 0.3:
                self._files[path] = _Content(bytearray(durable), [], bytearray(durable))
                self._trace.note("disk", f"{self.name} {path} is back from removal")
        self._removed.clear()
        for path, content in sorted(self._files.items()):
            if content.pending:
                self._tear(path, content)
            content.visible = bytearray(content.durable)

    def _tear(self, path: str, content: _Content) -> None:
        pending = len(content.pending)
        kept = self._dice.randint(0, pending)
        content.settle(content.settled + kept)
        torn = b""
        if content.pending and content.pending[0].data:
            data = content.pending[0].data
            torn = data[: self._dice.randint(0, len(data) - 1)]
            if self._dice.random() < self.temper.zero_tail:
                torn += bytes(self._dice.randint(1, len(data) - len(torn)))
        content.durable += torn
        content.pending.clear()
        self._trace.note("disk", f"{self.name} {path} keeps {kept}/{pending} writes +{len(torn)}")

    # ----------------------------------------------------------------- what the views pass on

    def names(self) -> list[str]:
        """All paths, sorted."""
        return sorted(self._files)

    def content(self, path: str) -> _Content | None:
        """A file, if it is there."""
        return self._files.get(path)

    def create(self, path: str) -> _Content:
        """Make a file durably, as the real disk does; its folder is synced by that."""
        self._folder_synced(path)
        return self._files.setdefault(path, _Content())

    def remove(self, path: str) -> None:
        """Remove a file or all files in a folder; durable only once its folder is synced."""
        for name in [n for n in self._files if n == path or n.startswith(f"{path}/")]:
            self._removed[name] = bytes(self._files.pop(name).durable)

    async def sync(self, path: str, content: _Content) -> None:
        """Make durable what was written before. Raises OSError where the seed says so."""
        upto = content.written

        def finish() -> None:
            if self._fails(path):
                content.lose(upto)
                raise OSError(errno.EIO, f"simulated failure to sync {path}")
            content.settle(upto)
            self._trace.note("disk", f"{self.name} synced {path} up to {upto}")

        await self._in_turn(finish)

    async def replace(self, path: str, data: bytes) -> None:
        """Replace a file; what a crash on the way leaves is the old one or the new one."""
        self.check_room(path)
        self._replacing[path] = data

        def finish() -> None:
            self._replacing.pop(path, None)
            if self._fails(path):
                raise OSError(errno.EIO, f"simulated failure to replace {path}")
            self._folder_synced(path)
            self._files[path] = _Content(bytearray(data), [], bytearray(data))
            self._trace.note("disk", f"{self.name} replaced {path} {len(data)}B")

        await self._in_turn(finish)

    def check_room(self, path: str) -> None:
        """Raise OSError on a full disk."""
        if self.temper.is_full:
            raise OSError(errno.ENOSPC, f"simulated full disk: {path}")

    def _fails(self, path: str) -> bool:
        fails = self._dice.random() < self.temper.sync_error
        if fails:
            self._trace.fault("sync_error", f"{self.name} {path}")
        return fails

    async def _in_turn(self, work: Callable[[], None]) -> None:
        """One thread does all that waits on a disk, in order, whoever still waits for it."""
        loop = asyncio.get_running_loop()
        latency_s = self._dice.expovariate(1.0 / self.temper.mean_sync_s) * self.temper.slowness
        # Later than what was asked before, if only just: the loop's dice must not change places.
        self._busy_until = max(loop.time(), self._busy_until + 1e-6) + latency_s
        done: asyncio.Future[None] = asyncio.Future()
        life = self._life

        def finish() -> None:
            if self._life != life:
                return
            try:
                work()
            except OSError as error:
                if not done.done():
                    done.set_exception(error)
            else:
                if not done.done():
                    done.set_result(None)

        loop.call_at(self._busy_until, finish, context=contextvars.Context())
        await done

    def _folder_synced(self, path: str) -> None:
        folder = path.rpartition("/")[0]
        for name in [n for n in self._removed if n.rpartition("/")[0] == folder]:
            del self._removed[name]


class DiskView:
    """One process's `skep.env.Disk`."""

    def __init__(self, disk: SimDisk, owner: Owner) -> None:
        self._disk = disk
        self._owner = owner

    def open(self, path: str) -> SimFile:
        self._must_live()
        content = self._disk.content(path)
        if content is None:
            self._disk.check_room(path)
            content = self._disk.create(path)
        return SimFile(self._disk, self._owner, path, content)

    def read(self, path: str) -> bytes | None:
        self._must_live()
        content = self._disk.content(path)
        return None if content is None else bytes(content.visible)

    async def replace(self, path: str, data: bytes) -> None:
        self._must_live()
        await self._disk.replace(path, bytes(data))

    def remove(self, path: str) -> None:
        self._must_live()
        self._disk.remove(path)

    def list(self, path: str) -> tuple[str, ...]:
        self._must_live()
        prefix = f"{path}/" if path not in ("", ".") else ""
        inside = [n.removeprefix(prefix) for n in self._disk.names() if n.startswith(prefix)]
        return tuple(sorted({name.partition("/")[0] for name in inside}))

    def _must_live(self) -> None:
        if self._owner.is_dead:
            raise IncarnationDead(self._owner.name)


class SimFile:
    """One process's handle on a file."""

    def __init__(self, disk: SimDisk, owner: Owner, path: str, content: _Content) -> None:
        self._disk = disk
        self._owner = owner
        self._path = path
        self._content = content
        self._is_open = True

    def append(self, data: bytes) -> None:
        self._must_be_open()
        self._disk.check_room(self._path)
        if data:
            write = _Write(data=bytes(data))
            self._content.pending.append(write)
            _apply(self._content.visible, write)

    async def sync(self) -> None:
        self._must_be_open()
        await self._disk.sync(self._path, self._content)

    def truncate(self, size: int) -> None:
        self._must_be_open()
        assert size <= len(self._content.visible), "truncating is for making a file shorter"
        write = _Write(size=size)
        self._content.pending.append(write)
        _apply(self._content.visible, write)

    def size(self) -> int:
        self._must_be_open()
        return len(self._content.visible)

    def close(self) -> None:
        self._is_open = False

    def _must_be_open(self) -> None:
        if self._owner.is_dead:
            raise IncarnationDead(self._owner.name)
        if not self._is_open:
            raise OSError(errno.EBADF, f"{self._path} is closed")
