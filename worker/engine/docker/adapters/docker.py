"""The Docker engine: runs tasks as containers, which outlive it, as they do dockerd if that has
live-restore.

What a container's end, removal or health means is decided in `core`; here it is asked for, kept in
the task's record, and told to whoever waits. A container that isn't labelled with this node's id
is never touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from skep.domain.base import SECOND_NS, Pairs, TaskId, replace
from skep.domain.execution import ExecSpec
from skep.domain.session import Assignment
from skep.domain.signals import parse_signal
from skep.domain.spec import DOCKER, HealthCheck
from skep.env import Env, Fatal, Rejected, Retryable
from skep.worker.engine.adapters.work import Work
from skep.worker.engine.docker.adapters import cgroups, execution, probe
from skep.worker.engine.docker.adapters.api import Api
from skep.worker.engine.docker.adapters.cleanup import Cleaner, OwnLabel
from skep.worker.engine.docker.adapters.files import Files, Places, let_go_of_memory
from skep.worker.engine.docker.adapters.images import Images
from skep.worker.engine.docker.adapters.logs import open_log
from skep.worker.engine.docker.adapters.prepare import Preparer
from skep.worker.engine.docker.adapters.tasks import KnownTask, Parts, Tasks
from skep.worker.engine.docker.adapters.watch import Watch
from skep.worker.engine.docker.core.cleanup import CleanupPolicy
from skep.worker.engine.docker.core.create import Owner
from skep.worker.engine.docker.core.errors import ApiError, refusal
from skep.worker.engine.docker.core.notes import notes_of
from skep.worker.engine.docker.core.records import NODE_LABEL, TASK_LABEL, ContainerRecord
from skep.worker.engine.docker.core.state import is_live, started_of
from skep.worker.engine.network import TaskNetwork
from skep.worker.engine.protocol import (
    Exit,
    Held,
    HeldState,
    LogQuery,
    LogReader,
    NodeFacts,
    Report,
    Started,
    unheard,
)
from skep.worker.supplies import Supplies

log = logging.getLogger(__name__)

# Without an answer the records tell what there is, and the agent has other tasks to look after.
FIRST_LISTING_DEADLINE_S = 5.0
# A kill takes milliseconds; after this one asks how it is.
KILL_DEADLINE_S = 5.0
CLOSE_DEADLINE_S = 5.0
# Files on a disk and in memory, nothing slow.
THREADS = 2


@dataclass(frozen=True)
class Setting:
    """Whose containers these are, where their files are, and what their tasks are given. Without a
    policy for its `cleanup` nothing is cleaned up."""

    owner: Owner
    places: Places
    network: TaskNetwork
    supplies: Supplies
    cleanup: CleanupPolicy | None = None


class DockerEngine:
    """See the module. Must be made, used and closed on one loop."""

    def __init__(self, env: Env, api: Api, setting: Setting) -> None:
        self._env = env
        self._api = api
        self._setting = setting
        self._network = setting.network
        self._files = Files(setting.places)
        self._work = Work(env, "docker-engine", THREADS)
        node_id = setting.owner.node_id
        self._tasks = Tasks(Parts(env, api, self._files, setting.network, self._work, node_id))
        self._cleaner: Cleaner | None = None
        if setting.cleanup is not None:
            label = OwnLabel(NODE_LABEL, node_id, self._tasks.ids)
            self._cleaner = Cleaner(api.docker, env, label, setting.cleanup)
        self.images = Images(api.docker, env, self._cleaner)
        self.watch = Watch(api, env, f"{NODE_LABEL}={node_id}")
        self._preparer = Preparer(
            api,
            self.images,
            self._files,
            setting.owner,
            setting.network,
            setting.supplies,
            self._work.in_thread,
        )
        self._watching: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def name(self) -> str:
        """See `Engine.name`."""
        return DOCKER

    async def notes(self) -> Pairs:
        """What is to be known of it on this node. Raises Retryable where it doesn't answer."""
        try:
            info, version = await self._api.get("info"), await self._api.get("version")
        except ApiError as error:
            raise Retryable(f"the Docker engine doesn't tell what it is: {error}") from error
        return notes_of(info, version)

    async def prepare(
        self, assignment: Assignment, node: NodeFacts, report: Report = unheard
    ) -> None:
        """See `Engine.prepare`. A task that has been started is left as it is."""
        self._begin_watching()
        task_id = assignment.task.id
        known = self._tasks.find(task_id)
        if known is not None and (known.record.started or known.record.exit):
            return
        self._tasks.preparing.add(task_id)
        try:
            joined = await self._preparer.join(assignment)
            record = await self._preparer.make(assignment, node, joined, report)
        except BaseException:
            # What nobody knows of is never removed; it is attached anew by the next attempt.
            self._work.keep(f"docker-undo-{task_id}", self._tasks.leave(task_id))
            raise
        finally:
            self._tasks.preparing.discard(task_id)
        self._tasks.add(KnownTask(record, may_run=False))

    async def start(self, task_id: TaskId) -> Started:
        """See `Engine.start`. A task is started once in its life: one that has ended is not
        started again, and `wait` says how it ended."""
        task = self._get(task_id)
        if task.record.started is None:
            await self._work.whole(f"docker-start-{task_id}", self._start(task))
        assert task.record.started is not None
        return task.record.started

    async def wait(self, task_id: TaskId) -> Exit:
        """See `Engine.wait`. An engine that doesn't answer is waited for, too."""
        task = self._get(task_id)
        await task.ended.wait()
        if task.record.exit is None:
            raise Rejected(f"task {task_id} was removed before it was ever started")
        return task.record.exit

    async def stop(self, task_id: TaskId) -> None:
        """See `Engine.stop`. The signal goes to the container's first process."""
        task = self._tasks.find(task_id)
        if task is None:
            return
        async with task.change:
            if task.record.started is None and task.may_run:
                await self._tasks.adopt_state(task)
            if task.record.started is None:
                await self._tasks.leave(task_id)
            if not task.is_running:
                return
            if task.stopping is None or task.stopping.done():
                task.is_stop_asked = True
                task.stopping = self._work.keep(f"docker-stop-{task_id}", self._stop(task))
        await asyncio.shield(task.stopping)

    async def remove(self, task_id: TaskId) -> None:
        """See `Engine.remove`. Raises Rejected for a running task."""
        await self._work.whole(f"docker-remove-{task_id}", self._remove(task_id))

    async def probe(self, task_id: TaskId, health: HealthCheck) -> str | None:
        """See `Engine.probe`. Raises Retryable where the engine can't be asked."""
        task = self._get(task_id)
        wanted = task.record.health or health
        if wanted.test[:1] in ((), ("NONE",)):
            return None
        if not task.is_running:
            return probe.NOT_RUNNING
        container_id, timeout_s = task.record.container_id, wanted.timeout_ns / SECOND_NS
        return await probe.run(self._api, self._env, container_id, wanted.test, timeout_s)

    async def held(self) -> Sequence[Held]:
        """See `Engine.held`. Where the engine doesn't answer, the records tell what there was; its
        next listing then tells what became of it."""
        for record in await self._work.in_thread(self._files.records):
            if self._tasks.find(record.task_id) is None:
                self._tasks.add(KnownTask(record))
        self._begin_watching()
        with contextlib.suppress(TimeoutError):
            await self._env.clock.within(FIRST_LISTING_DEADLINE_S, self.watch.asked.wait())
        found = [_held(task.record) for task in self._tasks]
        live = [each.task_id for each in found if each.state is not HeldState.ENDED]
        self._network.take_over(live, DOCKER)
        return found

    async def logs(self, task_id: TaskId, query: LogQuery) -> LogReader:
        """See `Engine.logs`."""
        record = self._get(task_id).record
        return await open_log(
            self._api.docker, self._env, record.container_id or record.name, query
        )

    async def exec(self, task_id: TaskId, spec: ExecSpec) -> execution.ContainerExecution:
        """See `Engine.exec`."""
        task = self._get(task_id)
        if not task.is_running:
            raise Rejected(f"task {task_id} is not running")
        return await execution.start(self._api, self._env, task.record.container_id, spec)

    def let_go_of_memory(self) -> None:
        """Take away the tmpfs of secrets: there will be no more tasks."""
        let_go_of_memory(self._setting.places.secrets)

    async def close(self) -> None:
        """See `Engine.close`."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._cleaner is not None:
            await self._cleaner.close()
        endless = [task.stopping for task in self._tasks] + [self._watching]
        for each in endless:
            if each is not None:
                each.cancel()
        await self.images.close()
        await self._work.close(CLOSE_DEADLINE_S)
        await self._api.close()

    # ------------------------------------------------------------------------ finding tasks

    def _get(self, task_id: TaskId) -> KnownTask:
        if self._is_closed:
            raise Fatal("the Docker engine is closed")
        task = self._tasks.find(task_id)
        if task is None:
            raise Rejected(f"task {task_id} was never prepared on this node")
        return task

    def _begin_watching(self) -> None:
        if self._watching is None and not self._is_closed:
            following = self.watch.run(self._tasks.on_listing, self._tasks.on_event)
            self._watching = self._work.keep("docker-watch", following)
            if self._cleaner is not None:
                self._cleaner.start()

    # ------------------------------------------------------------------ starting and ending

    async def _start(self, task: KnownTask) -> None:
        async with task.change:
            record = task.record
            if record.started is not None:
                return
            task.may_run = True
            try:
                await self._work.in_thread(self._files.link, record.container_id, record.namespace)
                await self._api.start(record.container_id)
            except ApiError as error:
                raise refusal(error, "its container can't be started") from error
            found = await self._tasks.inspect(record.container_id)
            state = found["State"] if found is not None else {}
            started = started_of(state, record.health)
            if started is None:
                # Nobody but who has removed it knows when.
                started = Started(pid=0, started_ns=self._env.wall(), health=record.health)
            task.record = replace(record, started=started)
            await self._work.in_thread(self._files.write, task.record)
            if task.has_died or not is_live(state):
                self._work.keep(f"docker-end-{record.task_id}", self._tasks.settle(task, ""))

    async def _stop(self, task: KnownTask) -> None:
        record = task.record
        try:
            if record.stop_grace_ns > 0:
                number = parse_signal(record.stop_signal, "stop_signal")
                await self._api.kill(record.container_id, str(number))
                if await self._has_ended(task, record.stop_grace_ns / SECOND_NS):
                    return
            log.info("task=%s why=grace of %s ns is over", record.task_id, record.stop_grace_ns)
            while True:
                await self._api.kill(record.container_id, "9")
                if await self._has_ended(task, KILL_DEADLINE_S):
                    return
                await self._tasks.settle(task, "")
        except ApiError as error:
            raise refusal(error, "its container can't be stopped") from error

    async def _has_ended(self, task: KnownTask, within_s: float) -> bool:
        try:
            await self._env.clock.within(within_s, task.ended.wait())
        except TimeoutError:
            return False
        return True

    async def _remove(self, task_id: TaskId) -> None:
        task = self._tasks.find(task_id)
        try:
            if task is None:
                await self._remove_containers(task_id)
                await self._work.in_thread(self._files.forget, task_id)
                return
            async with task.change:
                if task.is_running:
                    raise Rejected(f"task {task_id} is running: stop it first")
                await self._remove_containers(task_id)
                if task.record.exit is None:
                    await self._network.detach(task_id)
                await self._work.in_thread(self._files.unlink, task.record.container_id)
                await self._work.in_thread(cgroups.prune, task.record.cgroup_parent)
                await self._work.in_thread(self._files.forget, task_id)
                self._tasks.forget(task)
        except ApiError as error:
            raise refusal(error, "its container can't be removed") from error

    async def _remove_containers(self, task_id: TaskId) -> None:
        """All that were ever made for a task: an attempt that was cut off may have made one."""
        label = f"{TASK_LABEL}={task_id}"
        for each in await self._api.containers(label):
            if each["Labels"].get(NODE_LABEL) == self._setting.owner.node_id:
                await self._api.remove(each["Id"])


def _held(record: ContainerRecord) -> Held:
    if record.started is None:
        return Held(task_id=record.task_id, state=HeldState.PREPARED)
    state = HeldState.RUNNING if record.exit is None else HeldState.ENDED
    return Held(task_id=record.task_id, state=state, started=record.started, exit=record.exit)
