"""Looks after tasks' output: rotates it, and notes when it grew.

All that is done with these files is done in one thread of its own, one thing after the other. So
nothing reads a file while it is rotated, and whoever reads logs holds up neither the loop nor the
engine's other work.

A running task's files are looked at ten times a second, all of them in one go: two stat calls a
task, 0.4 % of a core for a handful of tasks and 2 % for two hundred. inotify would save that, at
the price of the kernel's limits on watches, which are shared with everything else of that user.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from skep.domain.base import TaskId
from skep.domain.spec import LogPolicy
from skep.env import Env
from skep.worker.engine.adapters import logs
from skep.worker.engine.core import timeline
from skep.worker.engine.core.timeline import Note, Timeline, Tracker

log = logging.getLogger(__name__)
T = TypeVar("T")

# Lines are dated to this, and come to those who follow them this late.
LOOK_PERIOD_S = 0.1
TIMES_SUFFIX = ".times"


class StreamFiles:
    """One stream of one task: its files, and the notes beside them. Only the keeper's thread
    calls this. `listeners` are told each note."""

    def __init__(self, live: Path, policy: LogPolicy) -> None:
        self.live = live
        self.policy = policy
        self.listeners: list[Callable[[Note], None]] = []
        self._times = live.with_name(live.name + TIMES_SUFFIX)
        self._times_bytes = 0
        self._is_failing = False
        line = self.load()
        self.tracker: Tracker = timeline.tracker(line)

    def load(self) -> Timeline:
        """The stream's timeline, from disk. A missing one begins with the oldest byte kept."""
        data = b""
        try:
            with logs.opened(self._times) as fd:
                # Somebody else's file in its place is not read to its end.
                data = os.pread(fd, 2 * timeline.TIMELINE_LIMIT_BYTES, 0)
        except OSError:
            pass
        line = timeline.decode(data)
        is_whole = line is not None and len(data) % timeline.RECORD_BYTES == 0
        # What is torn is written anew before anything is appended to it.
        self._times_bytes = len(data) if is_whole else 0
        if line is None:
            older_bytes = sum(size for _, size in self.older())
            line = Timeline(base=older_bytes, moved=older_bytes)
        return line

    def older(self) -> list[tuple[Path, int]]:
        """The older files with their sizes, newest first."""
        found = []
        for number in range(1, self.policy.max_files):
            path = logs.older(self.live, number)
            status = logs.look(path)
            if status is None:
                break
            found.append((path, status.st_size))
        return found

    def look(self) -> bool:
        """Note what has become of the live file, and rotate it when it is due. Whether it has
        changed since the last look."""
        status = logs.look(self.live)
        if status is None:
            return False
        tracker = self.tracker
        if (status.st_size, status.st_mtime_ns) == (tracker.size, tracker.changed_ns):
            return False
        try:
            notes = self._looked()
        except OSError:
            return False
        self._keep(notes)
        if logs.is_over_limit(status, self.policy):
            rotated = logs.rotate(self.live, self.policy)
            if rotated is not None:
                self._keep(tracker.rotated(rotated.moved, rotated.removed))
        return bool(notes)

    def _looked(self) -> list[Note]:
        tracker = self.tracker
        with logs.opened(self.live) as fd:
            status = os.fstat(fd)
            known = len(tracker.tail)
            is_same = os.pread(fd, known, tracker.size - known) == tracker.tail
            notes = tracker.looked(
                status.st_size, status.st_mtime_ns, time.time_ns(), is_same=is_same
            )
            kept = min(status.st_size, timeline.TAIL_BYTES)
            tracker.tail = os.pread(fd, kept, status.st_size - kept)
        return notes

    def _keep(self, notes: list[Note]) -> None:
        if not notes:
            return
        for tell in self.listeners:
            for note in notes:
                tell(note)
        try:
            self._append(notes)
            self._is_failing = False
        except OSError as error:
            # Times are worth less than output: on a full disk both go on as well as they can.
            if not self._is_failing:
                log.warning("file=%s why=%s: lines will have coarse times", self._times, error)
            self._is_failing = True
            self._times_bytes = 0

    def _append(self, notes: list[Note]) -> None:
        if not 0 < self._times_bytes <= timeline.TIMELINE_LIMIT_BYTES:
            self._rewrite(notes)
            return
        data = timeline.encode(notes)
        with logs.opened(self._times, os.O_WRONLY | os.O_APPEND) as fd:
            self._times_bytes += os.write(fd, data)

    def _rewrite(self, notes: list[Note]) -> None:
        """A new file, with no more marks than there is room for, and none for bytes that are
        dropped."""
        line = self.load()
        for note in notes:
            line.add(note)
        line.forget_before(line.moved - sum(size for _, size in self.older()))
        room = timeline.TIMELINE_LIMIT_BYTES * 3 // 4 // timeline.RECORD_BYTES
        while len(line.walls) > room:
            line.thin()
        data = timeline.header() + timeline.encode(line.notes())
        temporary = self._times.with_name(self._times.name + ".new")
        with logs.opened(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as fd:
            written = os.write(fd, data)
        temporary.rename(self._times)
        self._times_bytes = written if written == len(data) else 0


@dataclass(eq=False)
class TaskFiles:
    """Both streams of one task, and whether it was removed. `changed` are those who wait for more
    of it."""

    streams: tuple[StreamFiles, ...]
    is_gone: bool = False
    changed: set[asyncio.Event] = field(default_factory=set)

    def wake(self) -> None:
        """Tell those who wait; on the loop."""
        for event in self.changed:
            event.set()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a task's output is, and how much of it is kept."""

    folder: Path
    policy: LogPolicy


class LogKeeper:
    """See the module. Tasks that have ended are known from the first time they are read."""

    def __init__(self, env: Env) -> None:
        self._env = env
        self._running: dict[TaskId, Place] = {}
        self._tasks: dict[TaskId, TaskFiles] = {}
        self._keeping: asyncio.Task[None] | None = None
        self._executor = concurrent.futures.ThreadPoolExecutor(1, "process-logs")

    def watch(self, task_id: TaskId, place: Place) -> None:
        """This task runs: look after its output until it has ended."""
        self._running[task_id] = place
        if self._keeping is None:
            self._keeping = self._env.spawn("engine-logs", self._keep())

    def is_running(self, task_id: TaskId) -> bool:
        """Whether more of this task's output may come."""
        return task_id in self._running

    async def ended(self, task_id: TaskId) -> None:
        """This task has ended: have a last look at its output."""
        place = self._running.get(task_id)
        if place is not None:
            task = await self.task(task_id, place)
            # Only now: who reads until a task's end must see all that the last look has seen.
            self._running.pop(task_id, None)
            task.wake()

    async def forget(self, task_id: TaskId) -> None:
        """This task's files are about to go."""
        self._running.pop(task_id, None)
        task = self._tasks.pop(task_id, None)
        if task is not None:
            task.is_gone = True
            task.wake()
        # Whatever the thread is at with these files is over then.
        await self.run(int)

    async def task(self, task_id: TaskId, place: Place) -> TaskFiles:
        """A task's output, looked at just now."""
        if task_id not in self._tasks:
            loaded = await self.run(_load, place)
            self._tasks.setdefault(task_id, loaded)
        task = self._tasks[task_id]
        await self._look([task])
        return task

    async def run(self, work: Callable[..., T], *args: Any) -> T:
        """Do something in the keeper's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, work, *args)

    def run_later(self, work: Callable[[], None]) -> None:
        """Have something done in the keeper's thread, after all that it is at."""
        with contextlib.suppress(RuntimeError):  # It is closed: nothing is looked after any more.
            self._executor.submit(work)

    def close(self) -> None:
        """Look no more."""
        if self._keeping is not None:
            self._keeping.cancel()
        self._executor.shutdown(wait=False)

    async def _keep(self) -> None:
        while True:
            await self._env.clock.sleep(LOOK_PERIOD_S)
            for task_id, place in tuple(self._running.items()):
                if task_id not in self._tasks:
                    await self.task(task_id, place)
            running = [self._tasks[task_id] for task_id in self._running if task_id in self._tasks]
            if running:
                await self._look(running)

    async def _look(self, tasks: list[TaskFiles]) -> None:
        for task in await self.run(_look, tasks):
            task.wake()


def _load(place: Place) -> TaskFiles:
    return TaskFiles(tuple(StreamFiles(place.folder / name, place.policy) for name in logs.STREAMS))


def _look(tasks: list[TaskFiles]) -> list[TaskFiles]:
    """Look at some tasks' files; those that have grown."""
    # A list: both streams of a task are looked at, whatever the first one tells.
    return [task for task in tasks if any([stream.look() for stream in task.streams])]
