"""The only door to the outside world.

Cores never see this module, except for the two seams they may be given (`Random`, `Ids`) and the
three error policies. Actors get an `Env` in their constructor, so that the same actor runs on a
real loop in production and on a simulated one, under virtual time, in tests. Everything here is
either a `Protocol` (what an actor may ask for) or the production implementation of it. The
production `Transport` is in `skep.rpc`, since it needs gRPC.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import enum
import errno
import fcntl
import os
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NewType, Protocol, TypeVar

T = TypeVar("T")

Monotonic = NewType("Monotonic", float)
"""Seconds on this process's own clock. Means nothing in another process; never stored."""

WallNs = NewType("WallNs", int)
"""Nanoseconds since the Unix epoch. May jump; only stored and shown, never waited for."""

Random = random.Random
"""One stream of dice. Each component has its own, so that a new draw never shifts another's."""

ID_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
ID_LENGTH = 25


# ------------------------------------------------------------------------------------- errors


class Retryable(Exception):
    """The world is in the way; the same request may succeed later."""


class Rejected(Exception):
    """The caller's fault. The text is for a person: what, where, and what to do.

    `field` is the path of the offending field ("spec.ports[0].target") where there is one.
    """

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class Fatal(Exception):
    """Ours. The actor that raised it must not go on from its present state."""


class StreamBroken(Retryable):
    """A stream ended without a goodbye; what was under way may or may not have arrived."""


class Code(enum.Enum):
    """How a call can fail; the names are gRPC's."""

    INVALID_ARGUMENT = "invalid_argument"
    NOT_FOUND = "not_found"
    ALREADY_EXISTS = "already_exists"
    FAILED_PRECONDITION = "failed_precondition"
    PERMISSION_DENIED = "permission_denied"
    ABORTED = "aborted"  # the object's version is not the one the caller read
    RESOURCE_EXHAUSTED = "resource_exhausted"
    UNAVAILABLE = "unavailable"  # nothing was done; try again
    UNKNOWN = "unknown"  # it may or may not have been done
    DEADLINE_EXCEEDED = "deadline_exceeded"
    UNIMPLEMENTED = "unimplemented"
    INTERNAL = "internal"


class CallError(Exception):
    """A call that was answered with an error, or not answered at all (UNAVAILABLE, UNKNOWN).

    `details` are small machine-readable facts beside the text, such as the leader's address.
    """

    def __init__(self, code: Code, message: str, details: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = dict(details or {})


# --------------------------------------------------------------------------------------- time


class Timer(Protocol):
    """A pending call; `cancel` is idempotent."""

    def cancel(self) -> None:
        """Don't make the call, if it hasn't been made."""
        ...


class Clock(Protocol):
    """Time, and waiting for it."""

    def now(self) -> Monotonic:
        """Seconds on this process's monotonic clock."""
        ...

    def wall(self) -> WallNs:
        """The time of day, in nanoseconds since the epoch."""
        ...

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Run `callback` on the loop at monotonic time `when`."""
        ...

    async def sleep(self, delay_s: float) -> None:
        """Wait for `delay_s` seconds."""
        ...

    async def within(self, deadline_s: float, awaitable: Awaitable[T]) -> T:
        """The awaitable's result; raises TimeoutError after `deadline_s` and cancels it."""
        ...


class LoopClock:
    """The running loop's clock. On a simulated loop this is virtual time."""

    def now(self) -> Monotonic:
        """See `Clock.now`."""
        return Monotonic(asyncio.get_running_loop().time())

    def wall(self) -> WallNs:
        """See `Clock.wall`."""
        return WallNs(time.time_ns())

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """See `Clock.call_at`."""
        return asyncio.get_running_loop().call_at(when, callback)

    async def sleep(self, delay_s: float) -> None:
        """See `Clock.sleep`."""
        await asyncio.sleep(delay_s)

    async def within(self, deadline_s: float, awaitable: Awaitable[T]) -> T:
        """See `Clock.within`."""
        async with asyncio.timeout(deadline_s):
            return await awaitable


# ---------------------------------------------------------------------------------------- ids


class Ids(Protocol):
    """New names for things; never the same twice."""

    def new_id(self) -> str:
        """25 lower-case characters that carry 128 random bits."""
        ...

    def new_raft_id(self) -> int:
        """A random positive integer below 2**63, never reused."""
        ...


class DiceIds:
    """Ids drawn from a stream of dice: seeded in the simulator, the kernel's in production."""

    def __init__(self, dice: Random) -> None:
        self._dice = dice

    def new_id(self) -> str:
        """See `Ids.new_id`."""
        number = self._dice.getrandbits(128)
        digits = []
        for _ in range(ID_LENGTH):
            number, digit = divmod(number, 36)
            digits.append(ID_ALPHABET[digit])
        return "".join(digits)

    def new_raft_id(self) -> int:
        """See `Ids.new_raft_id`."""
        return self._dice.getrandbits(62) + 1


# ---------------------------------------------------------------------------------- transport


class Stream(Protocol):
    """Frames of bytes both ways: in order, each at most once; it may break at any time."""

    @property
    def peer(self) -> str:
        """Where the other end is, for logs."""
        ...

    async def send(self, frame: bytes) -> None:
        """Hand over one frame; waits while the other side is slow. Raises as `receive`."""
        ...

    async def receive(self) -> bytes | None:
        """The next frame, or None once the other side has closed.

        Raises CallError where the serving side said why it ended the stream, else StreamBroken.
        """
        ...

    async def close(self) -> None:
        """Close both directions; idempotent."""
        ...


CallHandler = Callable[[bytes], Awaitable[bytes]]
"""Answers one request. CallError, Rejected and Retryable become the caller's CallError."""

StreamHandler = Callable[[Stream], Awaitable[None]]
"""Serves one stream; returning closes it, CallError tells the caller why."""


@dataclass(frozen=True)
class Service:
    """What an address serves: full method names ("skep.v1.Control/GetNode") to handlers."""

    calls: Mapping[str, CallHandler] = field(default_factory=dict)
    streams: Mapping[str, StreamHandler] = field(default_factory=dict)


class Listener(Protocol):
    """A served address."""

    @property
    def address(self) -> str:
        """The address that was bound: "127.0.0.1:40123" or "unix:/run/x.sock"."""
        ...

    async def close(self) -> None:
        """Stop listening and cut what is still open."""
        ...


class Channel(Protocol):
    """A way to one address. Making one never waits; using it does."""

    async def call(self, method: str, request: bytes, *, deadline_s: float) -> bytes:
        """One request, one answer. Raises CallError."""
        ...

    async def open(self, method: str, *, deadline_s: float) -> Stream:
        """A new stream; `deadline_s` bounds the connecting only. Raises CallError."""
        ...

    async def close(self) -> None:
        """Give the connection back; idempotent."""
        ...


class Transport(Protocol):
    """Calls and streams of bytes between processes."""

    async def listen(self, address: str, service: Service) -> Listener:
        """Serve `service` at `address`; port 0 picks a free one. Raises OSError."""
        ...

    def channel(self, address: str) -> Channel:
        """A channel to `address`."""
        ...


# --------------------------------------------------------------------------------------- disk


class File(Protocol):
    """One append-only file."""

    def append(self, data: bytes) -> None:
        """Add bytes at the end. Not durable before `sync` has returned. Raises OSError."""
        ...

    async def sync(self) -> None:
        """Make everything appended before the call durable. Raises OSError (then give up)."""
        ...

    def truncate(self, size: int) -> None:
        """Cut the file down to `size` bytes; durable after the next `sync`."""
        ...

    def size(self) -> int:
        """Bytes in the file, durable or not."""
        ...

    def close(self) -> None:
        """Idempotent; does not sync."""
        ...


class Disk(Protocol):
    """A folder of one node. Paths are relative to it, with "/" between their parts."""

    def open(self, path: str) -> File:
        """Open for appending; the file and its folders are made where missing."""
        ...

    def read(self, path: str) -> bytes | None:
        """The whole file, or None where there is none."""
        ...

    async def replace(self, path: str, data: bytes) -> None:
        """Durably replace a whole file: a crash leaves the old one or the new one."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file, or a folder with all that is in it; a missing one is fine."""
        ...

    def list(self, path: str) -> tuple[str, ...]:
        """The sorted names in a folder; empty where there is none."""
        ...


class RealFile:
    """A file of `RealDisk`. Syncing happens in the disk's own thread."""

    def __init__(self, path: Path, executor: concurrent.futures.Executor) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._executor = executor

    def append(self, data: bytes) -> None:
        """See `File.append`."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    async def sync(self) -> None:
        """See `File.sync`."""
        if self._fd < 0:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._executor, os.fdatasync, self._fd)

    def truncate(self, size: int) -> None:
        """See `File.truncate`."""
        os.ftruncate(self._fd, size)

    def size(self) -> int:
        """See `File.size`."""
        return os.fstat(self._fd).st_size

    def close(self) -> None:
        """See `File.close`."""
        if self._fd >= 0:
            # The number goes at once: the system gives it to the next file that is opened.
            fd, self._fd = self._fd, -1
            os.close(fd)


class RealDisk:
    """The folder `root`, held by a lock so that two processes never share one node's folder."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._root = root
        # One thread: syncs of one process are ordered, and nothing but syncs waits here.
        self._executor = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="disk")
        self._lock_fd = os.open(root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock_fd)
            raise Rejected(f"{root} is in use by another process; stop that one first") from None

    def open(self, path: str) -> RealFile:
        """See `Disk.open`."""
        full = self._root / path
        if not full.exists():
            _make_folder(full.parent)
            file = RealFile(full, self._executor)
            _sync_folder(full.parent)
            return file
        return RealFile(full, self._executor)

    def read(self, path: str) -> bytes | None:
        """See `Disk.read`."""
        try:
            return (self._root / path).read_bytes()
        except FileNotFoundError:
            return None

    async def replace(self, path: str, data: bytes) -> None:
        """See `Disk.replace`."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._executor, _replace, self._root / path, data)

    def remove(self, path: str) -> None:
        """See `Disk.remove`."""
        full = self._root / path
        if full.is_dir() and not full.is_symlink():
            for child in full.iterdir():
                self.remove(str(child.relative_to(self._root)))
            full.rmdir()
        else:
            full.unlink(missing_ok=True)

    def list(self, path: str) -> tuple[str, ...]:
        """See `Disk.list`."""
        try:
            # The lock, and what a crash has left of a replacement, are nobody's business.
            return tuple(sorted(n for n in os.listdir(self._root / path) if not _is_private(n)))
        except FileNotFoundError:
            return ()

    def close(self) -> None:
        """Wait for the syncs under way and give the lock back."""
        self._executor.shutdown(wait=True)
        os.close(self._lock_fd)


def _is_private(name: str) -> bool:
    return name == ".lock" or (name.startswith(".") and name.endswith(".new"))


def _make_folder(path: Path) -> None:
    """Make a folder and those above it, each durably in the one that holds it."""
    if not path.is_dir():
        _make_folder(path.parent)
        path.mkdir(exist_ok=True, mode=0o700)
        _sync_folder(path.parent)


def _replace(path: Path, data: bytes) -> None:
    _make_folder(path.parent)
    # One thread per disk calls this, so the temporary name can't be in use twice.
    temporary = path.with_name(f".{path.name}.new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(temporary, path)
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


# ------------------------------------------------------------------------------------ spawning


class Spawn(Protocol):
    """Starts the tasks of one process (one node, in the simulator)."""

    def spawn(self, name: str, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a task that is kept alive and is found by its name in a dump."""
        ...


class LoopSpawn:
    """Tasks on the running loop, held until they end."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, name: str, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """See `Spawn.spawn`."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


# ----------------------------------------------------------------------------------------- env


async def _no_turn() -> None:
    """In production nothing holds an actor back before a message."""


@dataclass(frozen=True)
class Env:
    """Everything a process may use of the outside world.

    `node` names the node for logs. `turn` is awaited by every actor before each message: a
    simulated node can be held there, as a garbage collection or a slow neighbour would hold it.
    """

    node: str
    clock: Clock
    dice: Random
    ids: Ids
    tasks: Spawn
    transport: Transport
    disk: Disk
    turn: Callable[[], Awaitable[None]] = _no_turn

    def now(self) -> Monotonic:
        """Monotonic seconds of this process."""
        return self.clock.now()

    def wall(self) -> WallNs:
        """Nanoseconds since the epoch."""
        return self.clock.wall()

    def spawn(self, name: str, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a task by name; the only way to start one."""
        return self.tasks.spawn(name, work)

    def fork_dice(self, component: str) -> Random:
        """A stream of dice of its own for one component."""
        return random.Random(f"{component}:{self.dice.getrandbits(64)}")


def real_env(node: str, transport: Transport, disk: Disk) -> Env:
    """The production environment of one process."""
    dice = random.SystemRandom()
    return Env(
        node=node,
        clock=LoopClock(),
        dice=dice,
        ids=DiceIds(dice),
        tasks=LoopSpawn(),
        transport=transport,
        disk=disk,
    )
