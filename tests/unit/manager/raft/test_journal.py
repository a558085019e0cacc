"""The journal on a disk that says what happens when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from skep.env import File, LoopClock
from skep.manager.raft.actor.barrier import Barrier
from skep.manager.raft.actor.context import Context
from skep.manager.raft.actor.journal import PATH, Journal, JournalFailed
from skep.manager.raft.core import records
from skep.manager.raft.core.codec import AnyFrame, AppendAnswer, Heartbeat
from skep.manager.raft.core.log import LogEntry
from skep.manager.raft.core.model import Settings, Stats


class SlowFile:
    """A file whose syncs end when the test says so."""

    def __init__(self, disk: SlowDisk, path: str) -> None:
        self._disk = disk
        self._path = path

    def append(self, data: bytes) -> None:
        self._disk.files[self._path] += data

    async def sync(self) -> None:
        self._disk.syncs += 1
        await self._disk.gate.acquire()
        if self._disk.error is not None:
            raise self._disk.error

    def truncate(self, size: int) -> None:
        raise AssertionError("a journal is never cut in place")

    def size(self) -> int:
        return len(self._disk.files[self._path])

    def close(self) -> None: ...


class SlowDisk:
    """A disk in memory."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.gate = asyncio.Semaphore(0)
        self.syncs = 0
        self.error: OSError | None = None

    def open(self, path: str) -> File:
        self.files.setdefault(path, b"")
        return SlowFile(self, path)

    def read(self, path: str) -> bytes | None:
        return self.files.get(path)

    async def replace(self, path: str, data: bytes) -> None:
        self.files[path] = data


class FakeEnv:
    """As much of an environment as a journal uses."""

    node = "m1"

    def __init__(self, disk: SlowDisk) -> None:
        self.disk = disk
        self.clock = LoopClock()

    def now(self) -> float:
        return self.clock.now()

    async def turn(self) -> None: ...


class Desk:
    """An open journal, its writer, and what it was allowed to send."""

    def __init__(self, disk: SlowDisk) -> None:
        self.disk = disk
        self.sent: list[tuple[int, AnyFrame]] = []
        env: Any = FakeEnv(disk)
        tasks: Any = None
        context = Context(env, "c", 7, (), Settings(), Stats(), tasks)
        self.journal = Journal(context, lambda: self.barrier.release())
        links: Any = self
        self.barrier = Barrier(self.journal, links)
        self.writer: asyncio.Task[None] | None = None

    def send(self, peer: int, frame: AnyFrame) -> None:
        """As links do."""
        self.sent.append((peer, frame))

    async def open(self) -> Desk:
        await self.journal.open()
        self.writer = asyncio.create_task(self.journal.run())
        return self

    def add(self, index: int, term: int) -> None:
        self.journal.add(LogEntry(b"%d" % index, index, term))
        self.journal.kick()

    def replayed(self) -> records.Replayed:
        return records.replay(self.disk.files[PATH])


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def with_desk(test: Callable[[Desk], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        desk = await Desk(SlowDisk()).open()
        await test(desk)
        assert desk.writer is not None
        desk.writer.cancel()

    asyncio.run(main())


def answer(next_index: int) -> AppendAnswer:
    return AppendAnswer(1, next_index, matched=True, reset=False)


def test_nothing_is_promised_before_it_is_durable() -> None:
    async def test(desk: Desk) -> None:
        desk.add(2, 1)
        desk.barrier.send(9, answer(3))
        desk.barrier.send(9, Heartbeat(1))
        await settle()
        assert desk.sent == [(9, Heartbeat(1))]
        assert desk.journal.durable_index == 1
        desk.disk.gate.release()
        await settle()
        assert desk.sent == [(9, Heartbeat(1)), (9, answer(3))]
        assert desk.journal.durable_index == 2
        desk.barrier.send(9, answer(3))
        assert len(desk.sent) == 3

    with_desk(test)


def test_what_gathers_during_a_sync_goes_out_as_one() -> None:
    async def test(desk: Desk) -> None:
        desk.add(2, 1)
        await settle()
        for index in range(3, 50):
            desk.add(index, 1)
            desk.barrier.send(9, answer(index + 1))
        await settle()
        assert desk.disk.syncs == 1
        desk.disk.gate.release()
        await settle()
        assert (desk.disk.syncs, desk.journal.durable_index, desk.sent) == (2, 2, [])
        desk.disk.gate.release()
        await settle()
        assert (desk.disk.syncs, desk.journal.durable_index) == (2, 49)
        assert len(desk.sent) == 47

    with_desk(test)


def test_an_entry_that_was_replaced_while_it_was_written_is_not_durable() -> None:
    async def test(desk: Desk) -> None:
        desk.add(2, 1)
        desk.add(3, 1)
        await settle()
        desk.journal.truncate(3)
        desk.add(3, 2)
        desk.disk.gate.release()
        await settle()
        assert desk.journal.durable_index == 2
        desk.disk.gate.release()
        await settle()
        assert desk.journal.durable_index == 3
        assert [entry.term for entry in desk.replayed().log.entries] == [0, 1, 2]

    with_desk(test)


def test_compaction_loses_nothing_that_is_recorded_meanwhile() -> None:
    async def test(desk: Desk) -> None:
        desk.journal.set_hard_state(3, 7)
        for index in range(2, 20):
            desk.add(index, 3)
        desk.disk.gate.release()
        await settle()
        desk.add(20, 3)
        desk.journal.compact(10)
        desk.journal.kick()
        await settle()
        desk.add(21, 3)
        desk.disk.gate.release()
        desk.disk.gate.release()
        await settle()
        replayed = desk.replayed()
        assert (replayed.log.first_index, replayed.log.last_index) == (10, 21)
        assert (replayed.term, replayed.voted_for) == (3, 7)
        assert desk.journal.durable_index == 21

    with_desk(test)


def test_a_restart_finds_everything() -> None:
    async def test(desk: Desk) -> None:
        desk.journal.set_hard_state(4, None)
        desk.add(2, 4)
        desk.disk.gate.release()
        await settle()
        again = (await Desk(desk.disk).open()).journal
        assert (again.term, again.voted_for, again.log.last_index) == (4, None, 2)
        assert again.durable_index == 2

    with_desk(test)


def test_a_torn_tail_is_gone_after_a_restart() -> None:
    async def test(desk: Desk) -> None:
        sound = desk.disk.files[PATH]
        desk.disk.files[PATH] = sound + b"\xf5SKj and then the lights went out"
        again = await Desk(desk.disk).open()
        assert desk.disk.files[PATH] == sound
        again.add(2, 1)
        desk.disk.gate.release()
        await settle()
        assert again.replayed().log.last_index == 2

    with_desk(test)


def test_a_failed_sync_is_fatal_and_never_repeated() -> None:
    async def test(desk: Desk) -> None:
        desk.disk.error = OSError(5, "Input/output error")
        desk.add(2, 1)
        desk.barrier.send(9, answer(3))
        desk.disk.gate.release()
        assert desk.writer is not None
        with pytest.raises(JournalFailed, match="Input/output error"):
            await desk.writer
        assert (desk.sent, desk.disk.syncs) == ([], 1)

    with_desk(test)
