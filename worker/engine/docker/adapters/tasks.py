"""The tasks that the engine knows, and what becomes of their containers.

It is told by the engine's events and listings, and asks once for each container that has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from skep.domain.base import TaskId, replace
from skep.env import Env, Rejected, Retryable
from skep.worker.engine.adapters.work import Work
from skep.worker.engine.docker.adapters.api import Api
from skep.worker.engine.docker.adapters.files import Files
from skep.worker.engine.docker.core.errors import ApiError, refusal
from skep.worker.engine.docker.core.records import (
    NODE_LABEL,
    RECORD_LABEL,
    ContainerRecord,
    decode_record,
)
from skep.worker.engine.docker.core.state import (
    LIVE,
    WHILE_AWAY,
    by_others,
    exit_of,
    is_live,
    out_of_memory,
    started_of,
    taken_away,
)
from skep.worker.engine.network import TaskNetwork
from skep.worker.engine.protocol import Exit

log = logging.getLogger(__name__)

SIGKILL = 9
# A signal from somebody else explains an end that follows it within this: dockerd itself waits 15 s
# for its containers when it ends.
OTHERS_SIGNAL_S = 30.0


@dataclass
class KnownTask:
    """What the engine knows of one task. `may_run` says that somebody may have started it;
    `has_died`, with an exit code, that the engine said so; `others_signal` is the last signal that
    wasn't from here, and when that was."""

    record: ContainerRecord
    may_run: bool = True
    has_died: bool = False
    died_with: int | None = None
    is_stop_asked: bool = False
    is_out_of_memory: bool = False
    others_signal: tuple[str, float] | None = None
    stopping: asyncio.Task[None] | None = None
    change: asyncio.Lock = field(default_factory=asyncio.Lock)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_running(self) -> bool:
        """Whether it was started and isn't known to have ended."""
        return self.record.started is not None and self.record.exit is None


@dataclass(frozen=True)
class Parts:
    """What the engine is made of; `node_id` is whose containers these are."""

    env: Env
    api: Api
    files: Files
    network: TaskNetwork
    work: Work
    node_id: str


class Tasks:
    """See the module."""

    def __init__(self, parts: Parts) -> None:
        self._env = parts.env
        self._api = parts.api
        self._files = parts.files
        self._network = parts.network
        self._work = parts.work
        self._node_id = parts.node_id
        self._tasks: dict[TaskId, KnownTask] = {}
        self._by_container: dict[str, KnownTask] = {}
        self.preparing: set[TaskId] = set()
        """Their containers are being made; whoever does so will know them."""
        self.listed = asyncio.Event()
        """The engine has said what there is, and all of that is known."""

    def __iter__(self) -> Iterator[KnownTask]:
        return iter(tuple(self._tasks.values()))

    def ids(self) -> set[TaskId] | None:
        """The tasks that are known; None while there may be some that aren't as yet."""
        return {*self._tasks, *self.preparing} if self.listed.is_set() else None

    def find(self, task_id: TaskId) -> KnownTask | None:
        """The task, if it is known."""
        return self._tasks.get(task_id)

    def add(self, task: KnownTask) -> None:
        """Know this task, in place of what was known of it."""
        before = self._tasks.get(task.record.task_id)
        if before is not None:
            self._by_container.pop(before.record.container_id, None)
        self._tasks[task.record.task_id] = task
        if task.record.container_id:
            self._by_container[task.record.container_id] = task
        if task.record.exit is not None:
            task.ended.set()

    def forget(self, task: KnownTask) -> None:
        """Know nothing of it any more; whoever waits for its end waits no longer."""
        self._tasks.pop(task.record.task_id, None)
        self._by_container.pop(task.record.container_id, None)
        task.ended.set()

    # -------------------------------------------------------------------- what the engine says

    async def on_listing(self, listing: Sequence[Mapping[str, Any]]) -> None:
        """What there is now. All that has ended unseen is settled before anything else."""
        why = WHILE_AWAY if self.listed.is_set() else ""
        work = []
        there = {str(each["Id"]): str(each["State"]) for each in listing}
        for each in listing:
            if not self.listed.is_set() and each["Id"] not in self._by_container:
                work.append(self._adopt(each))
        for task in self._tasks.values():
            state = there.get(task.record.container_id)
            if task.is_running and state not in LIVE:
                task.has_died = True
                work.append(self.settle(task, why if state else ""))
            elif task.record.started is None and task.may_run and state != "created":
                work.append(self._adopt_whole(task, is_there=state is not None))
            elif task.record.exit is not None and state in LIVE:
                work.append(self._put_down(task))
        await self._work.all("docker-listed", work)
        self.listed.set()

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Something has happened to a container."""
        actor = event.get("Actor") or {}
        task, more = self._by_container.get(actor.get("ID", "")), actor.get("Attributes") or {}
        if task is None:
            return
        match event.get("Action"):
            case "kill" if not task.is_stop_asked:
                task.others_signal = (str(more.get("signal", "")), self._env.now())
            case "oom":
                task.is_out_of_memory = True
            case "die":
                task.has_died, task.died_with = True, int(more.get("exitCode") or 0)
                self._work.keep(f"docker-end-{task.record.task_id}", self.settle(task, ""))
            case "start" if task.record.exit is not None:
                self._work.keep(f"docker-again-{task.record.task_id}", self._put_down(task))
            case "destroy" if task.is_running:
                task.has_died = True
                self._work.keep(f"docker-end-{task.record.task_id}", self.settle(task, ""))

    async def _put_down(self, task: KnownTask) -> None:
        """Somebody has started a container again whose task has ended: managers have long replaced
        it, and nobody would ever stop it."""
        log.warning("task=%s why=it has ended, and was started again: killed", task.record.task_id)
        with contextlib.suppress(Retryable, ApiError):
            await self._api.kill(task.record.container_id, str(SIGKILL))

    async def _adopt(self, listed: Mapping[str, Any]) -> None:
        """Take up a container of which the record is in its label alone, or is older than it."""
        record = decode_record((listed.get("Labels") or {}).get(RECORD_LABEL, ""))
        if record is None:
            log.warning("container=%s why=its label can't be read: left alone", listed["Id"])
            return
        known = self._tasks.get(record.task_id)
        is_known = known is not None and known.record.container_id
        if is_known or record.task_id in self.preparing:
            return
        task = KnownTask(replace(record, container_id=str(listed["Id"])))
        self.add(task)
        await self._adopt_whole(task)

    async def _adopt_whole(self, task: KnownTask, *, is_there: bool = True) -> None:
        with contextlib.suppress(Retryable, Rejected):
            async with task.change:
                await self.adopt_state(task)
        if not is_there and task.record.started is None:
            # An attempt that was cut off has made no container: it is to be prepared anew.
            self.forget(task)
            await self._work.in_thread(self._files.forget, task.record.task_id)
        await self.settle(task, "")

    async def adopt_state(self, task: KnownTask) -> None:
        """Find out whether a container that we may not have started was. Raises Retryable,
        Rejected."""
        found = await self.inspect(task.record.container_id or task.record.name)
        if task.record.started is not None or found is None or not self._is_ours(found):
            return
        started = started_of(found["State"], task.record.health)
        record = replace(task.record, container_id=found["Id"], started=started)
        await self._work.in_thread(self._files.write, record)
        task.record = record
        if self._tasks.get(record.task_id) is task:
            self._by_container[record.container_id] = task

    def _is_ours(self, inspected: Mapping[str, Any]) -> bool:
        labels = inspected["Config"].get("Labels") or {}
        return bool(labels.get(NODE_LABEL) == self._node_id)

    async def inspect(self, container: str) -> dict[str, Any] | None:
        """All there is to know of a container, if there is one. Raises Rejected, Retryable."""
        try:
            return await self._api.inspect(container)
        except ApiError as error:
            raise refusal(error, "its state can't be told") from error

    # ------------------------------------------------------------------------- what came of it

    async def settle(self, task: KnownTask, why: str) -> None:
        """A container has ended, or is gone: find out how, and tell."""
        async with task.change:
            if not task.is_running:
                return
            try:
                found = await self.inspect(task.record.container_id)
            except (Retryable, Rejected) as error:
                # It is in the next listing, as ended as now.
                log.info("task=%s state=ended why=%r", task.record.task_id, str(error))
                return
            if found is not None and is_live(found["State"]):
                return
            exit_ = self._exit(task, found["State"] if found else None, why)
            await self.leave(task.record.task_id)
            await self._work.in_thread(self._files.unlink, task.record.container_id)
            record = replace(task.record, exit=exit_)
            try:
                await self._work.in_thread(self._files.write, record)
            except Retryable as error:
                log.warning("task=%s exit=unsaved why=%s", record.task_id, error)
            task.record = record
            task.ended.set()

    def _exit(self, task: KnownTask, state: Mapping[str, Any] | None, why: str) -> Exit:
        now = self._env.wall()
        if task.others_signal is not None and not task.is_stop_asked:
            signal, at = task.others_signal
            if self._env.now() - at < OTHERS_SIGNAL_S:
                why = why or by_others(signal)
        if state is None:
            exit_ = taken_away(now)
            code = exit_.exit_code if task.died_with is None else task.died_with
            return replace(exit_, exit_code=code)
        exit_ = exit_of(state, task.record, now, why)
        if task.is_out_of_memory and not state.get("OOMKilled"):
            reason = out_of_memory(exit_.exit_code, task.record.memory_bytes)
            return replace(exit_, reason=reason)
        return exit_

    async def leave(self, task_id: TaskId) -> None:
        """It runs no more: its address may be another task's, and its secrets are nobody's."""
        await self._work.in_thread(self._files.forget_secrets, task_id)
        await self._network.detach(task_id)
