"""The embedded engine: runs tasks as plain processes, without a daemon and without root.

Every task runs under a shim (worker/engine/core/launch.py) that outlives this process, and has a
folder (worker/engine/core/records.py) from which a later engine knows all that this one knew. An
end is noticed by a pidfd of the shim, at once, whoever its parent is.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from skep.domain.base import SECOND_NS, Pairs, TaskId
from skep.domain.execution import ExecSpec
from skep.domain.session import Assignment
from skep.domain.spec import PROCESS, HealthCheck
from skep.domain.templates import expand_health
from skep.env import Env, Fatal, Rejected, Retryable
from skep.worker.engine.adapters import cgroup, execution, files, host, probe, proc, shim
from skep.worker.engine.adapters.logkeeper import LogKeeper, Place
from skep.worker.engine.adapters.logread import TaskReader
from skep.worker.engine.adapters.prepare import Prepare
from skep.worker.engine.adapters.sweep import Sweeper
from skep.worker.engine.adapters.task import KnownTask
from skep.worker.engine.adapters.work import Work
from skep.worker.engine.core.launch import probe_line
from skep.worker.engine.core.records import (
    EXIT_KILLED,
    SHIM_LOG_FILE,
    ExitRecord,
)
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

log = logging.getLogger(__name__)

# Two can spawn while others sync or look through /proc; more would only compete.
THREADS = 4
# A shim gives word within milliseconds; a machine that needs longer is no place to start tasks.
ANNOUNCE_DEADLINE_S = 20.0
ANNOUNCE_LOOK_S = 0.02
# How long after a kill we wait for the shim to write the end down, before we do it for it.
SETTLE_DEADLINE_S = 5.0
CLOSE_DEADLINE_S = 5.0


class ProcessEngine:
    """See `skep.worker.engine.protocol.Engine`.

    `root` is this engine's own folder; `cgroup_name` names the node's control groups, and must be
    no other node's on this machine. `network` connects tasks; None does nothing of the kind.
    """

    def __init__(
        self, root: Path, env: Env, cgroup_name: str, network: TaskNetwork | None = None
    ) -> None:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._root = root.absolute()
        self._env = env
        self._boot_id = proc.read_boot_id()
        self._tools = host.find_tools()
        self._cgroups = cgroup.detect(cgroup_name)
        self._network = network or TaskNetwork(env)
        self._prepare = Prepare(self._tools, self._cgroups, env.node)
        self._tasks: dict[TaskId, KnownTask] = {}
        self._loading: dict[TaskId, asyncio.Task[KnownTask | None]] = {}
        self._work = Work(env, "process-engine", THREADS)
        self._sweeper = Sweeper(env, self._work.in_thread)
        self._logs = LogKeeper(env)
        self._is_closed = False

    @property
    def name(self) -> str:
        """See `Engine.name`."""
        return PROCESS

    @property
    def notes(self) -> Pairs:
        """What this engine can hold tasks to on this node, for the node's description."""
        return host.notes(self._cgroups.note if self._cgroups is not None else "")

    async def prepare(
        self, assignment: Assignment, node: NodeFacts, report: Report = unheard
    ) -> None:
        """See `Engine.prepare`. A task that has been started is left as it is."""
        task_id = TaskId(assignment.task.id)
        known = await self._find(task_id)
        if known is not None and known.started is not None:
            return
        folder = self._folder(task_id)
        try:
            joined = await self._network.attach(assignment)
            record = await self._work.in_thread(
                self._prepare.write, folder, assignment, node, joined
            )
        except BaseException:
            # What nobody knows of is never removed; it is attached anew by the next attempt.
            self._work.keep(f"engine-undo-{task_id}", self._network.detach(task_id))
            raise
        self._tasks.setdefault(task_id, KnownTask(record, folder)).record = record

    async def start(self, task_id: TaskId) -> Started:
        """See `Engine.start`. A task is started once in its life: one that has ended is not
        started again, and `wait` says how it ended."""
        task = await self._get(task_id)
        if task.started is None:
            await self._work.whole(f"engine-start-{task_id}", self._start(task))
        assert task.started is not None
        return task.started

    async def wait(self, task_id: TaskId) -> Exit:
        """See `Engine.wait`."""
        task = await self._get(task_id)
        await task.ended.wait()
        if task.exit is None:
            raise Rejected(f"task {task_id} was removed before it was ever started")
        return task.exit

    async def stop(self, task_id: TaskId) -> None:
        """See `Engine.stop`. The signal goes to the task's own process, as with Docker."""
        task = await self._find(task_id)
        if task is None:
            return
        async with task.change:
            if task.started is None:
                await self._network.detach(task_id)
            if not task.is_running:
                return
            if task.stopping is None:
                task.stopping = self._work.keep(f"engine-stop-{task_id}", self._stop(task))
        await asyncio.shield(task.stopping)

    async def remove(self, task_id: TaskId) -> None:
        """See `Engine.remove`. Raises Rejected for a running task."""
        task = await self._find(task_id)
        if task is None:
            await self._work.in_thread(files.remove_task, self._folder(task_id))
            return
        await self._work.whole(f"engine-remove-{task_id}", self._remove(task_id, task))

    async def probe(self, task_id: TaskId, health: HealthCheck) -> str | None:
        """See `Engine.probe`. The test runs as the task does: its environment, user, folder and
        limits."""
        if health.test[:1] in ((), ("NONE",)):
            return None
        task = await self._get(task_id)
        if not task.is_running:
            return "the task is not running"
        test = expand_health(health, task.record.values).test
        argv = probe_line(task.record, str(task.folder), self._tools, test)
        env = dict(task.record.env)
        work = self._work.in_thread(probe.spawn, argv, env, task.record.working_dir)
        spawning = self._work.keep(f"engine-probe-{task_id}", work)
        try:
            running = await asyncio.shield(spawning)
        except OSError as error:
            return f"{argv[0]}: {error.strerror}"
        except asyncio.CancelledError:
            spawning.add_done_callback(probe.abandon)
            raise
        return await probe.judge(running, self._env.clock, health.timeout_ns / SECOND_NS)

    async def exec(self, task_id: TaskId, spec: ExecSpec) -> execution.ProcessExecution:
        """See `Engine.exec`."""
        task = await self._get(task_id)
        if not task.is_running:
            raise Rejected(f"task {task_id} is not running")
        return await execution.start(self._env, task, self._tools, spec)

    async def held(self) -> Sequence[Held]:
        """See `Engine.held`."""
        found = []
        task_ids = await self._work.in_thread(files.list_tasks, self._root)
        tasks = await asyncio.gather(*map(self._find, task_ids))
        for task_id, task in zip(task_ids, tasks, strict=True):
            if task is None:
                log.warning("task=%s folder=%s why=no record: removed", task_id, self._root)
                await self._work.in_thread(files.remove_task, self._folder(task_id))
            elif task.started is None:
                found.append(Held(task_id=task_id, state=HeldState.PREPARED))
            else:
                state = HeldState.RUNNING if task.exit is None else HeldState.ENDED
                found.append(
                    Held(task_id=task_id, state=state, started=task.started, exit=task.exit)
                )
        if self._cgroups is not None:
            await self._work.in_thread(self._cgroups.clean, self._tasks.__contains__)
        live = (task_id for task_id, task in self._tasks.items() if task.exit is None)
        self._network.take_over(live)
        return found

    async def logs(self, task_id: TaskId, query: LogQuery) -> LogReader:
        """See `Engine.logs`."""
        task = await self._get(task_id)

        def has_ended() -> bool:
            return task.started is not None and not self._logs.is_running(task_id)

        reader = TaskReader(self._logs, task_id, query, has_ended)
        await reader.open(Place(task.folder, task.record.log))
        return reader

    async def close(self) -> None:
        """See `Engine.close`."""
        if self._is_closed:
            return
        self._is_closed = True
        stops = {task.stopping for task in self._tasks.values() if task.stopping is not None}
        for stop in stops:
            stop.cancel()
        await self._work.close(CLOSE_DEADLINE_S)
        for task in self._tasks.values():
            self._unwatch(task)
        self._logs.close()
        await self._network.close()

    # ------------------------------------------------------------------------ finding tasks

    def _folder(self, task_id: TaskId) -> Path:
        if not task_id.isalnum():
            raise Rejected(f'"{task_id}" is no task id')
        return self._root / task_id

    async def _get(self, task_id: TaskId) -> KnownTask:
        task = await self._find(task_id)
        if task is None:
            raise Rejected(f"task {task_id} was never prepared on this node")
        return task

    async def _find(self, task_id: TaskId) -> KnownTask | None:
        """The task, known already or adopted from its folder."""
        if self._is_closed:
            raise Fatal("the process engine is closed")
        if task_id in self._tasks:
            return self._tasks[task_id]
        loading = self._loading.get(task_id)
        if loading is None:
            loading = self._work.keep(f"engine-adopt-{task_id}", self._adopt(task_id))
            self._loading[task_id] = loading
            loading.add_done_callback(lambda _: self._loading.pop(task_id))
        return await asyncio.shield(loading)

    async def _adopt(self, task_id: TaskId) -> KnownTask | None:
        folder = self._folder(task_id)
        record = await self._work.in_thread(files.read_record, folder)
        if record is None:
            return None
        task = KnownTask(record, folder)
        await self._recognise(task)
        return self._tasks.setdefault(task_id, task)

    async def _recognise(self, task: KnownTask) -> None:
        """Find out from its folder whether a task was started, and watch or settle it."""
        found = await self._work.in_thread(files.read_main, task.folder)
        deadline = self._env.now() + ANNOUNCE_DEADLINE_S
        while found is None and await self._work.in_thread(shim.is_locked, task.folder):
            # An engine that died a moment ago has left a shim that is still on its way.
            if self._env.now() > deadline:
                raise Retryable(f"task {task.record.task_id}: its shim doesn't come to start it")
            await self._env.clock.sleep(ANNOUNCE_LOOK_S)
            found = await self._work.in_thread(files.read_main, task.folder)
        found = found or await self._work.in_thread(files.read_main, task.folder)
        if found is None:
            return
        task.main, started_ns = found
        task.started = Started(pid=task.main.pid, started_ns=started_ns)
        is_old = task.main.boot_id != self._boot_id
        task.shim_fd = None if is_old else proc.open_shim(task.main)
        if task.shim_fd is None:
            await self._settle(task)
        else:
            self._watch(task, task.shim_fd)

    # ---------------------------------------------------------------------- starting tasks

    async def _start(self, task: KnownTask) -> None:
        async with task.change:
            if task.started is not None:
                return
            limits = task.record.limits
            try:
                if self._cgroups is not None and task.record.cgroups:
                    await self._work.in_thread(self._cgroups.create, task.record.task_id, limits)
                launched = await self._work.in_thread(
                    shim.launch, task.folder, task.record, self._boot_id
                )
            except OSError as error:
                raise Retryable(f"task {task.record.task_id} can't be started: {error}") from error
            if launched is not None:
                await shim.announced(launched, self._env.clock, ANNOUNCE_DEADLINE_S)
            await self._recognise(task)
            if task.started is None:
                if launched is not None:
                    proc.reap(launched.pid)
                words = files.last_line(task.folder / SHIM_LOG_FILE)
                raise Retryable(f"task {task.record.task_id}: its shim ended early: {words}")

    def _watch(self, task: KnownTask, shim_fd: int) -> None:
        def end() -> None:
            self._unwatch(task)
            self._work.keep(f"engine-end-{task.record.task_id}", self._settle(task))

        asyncio.get_running_loop().add_reader(shim_fd, end)
        self._logs.watch(task.record.task_id, Place(task.folder, task.record.log))

    def _unwatch(self, task: KnownTask) -> None:
        if task.shim_fd is not None:
            asyncio.get_running_loop().remove_reader(task.shim_fd)
            os.close(task.shim_fd)
            task.shim_fd = None

    # ------------------------------------------------------------------------ ending tasks

    async def _settle(self, task: KnownTask) -> None:
        """The shim has ended: see to it that everything of the task has, and say how."""
        main, record = task.main, task.record
        assert main is not None
        own_exit = None
        if main.boot_id == self._boot_id:
            own_exit = proc.reap(main.shim_pid)
            await self._sweep(task)
        is_oom = self._cgroups is not None and self._cgroups.was_out_of_memory(record.task_id)
        try:
            found = await self._work.in_thread(
                shim.settle, task.folder, main, self._boot_id, own_exit
            )
            keep = functools.partial(shim.keep, task.folder, record, found, is_oom=is_oom)
            kept = await self._work.in_thread(keep)
        except OSError as error:
            kept = ExitRecord(exit_code=EXIT_KILLED, reason=f"how it ended is unknown: {error}")
        await self._logs.ended(record.task_id)
        # Its address may be another task's once managers have heard that it ended.
        await self._network.detach(record.task_id)
        ended_ns = self._env.wall() if kept.ended_ns is None else kept.ended_ns
        task.exit = Exit(exit_code=kept.exit_code, ended_ns=ended_ns, reason=kept.reason)
        task.ended.set()

    async def _stop(self, task: KnownTask) -> None:
        assert task.main is not None
        record = task.record
        if record.stop_grace_ns > 0:
            proc.signal_main(task.main, record.stop_signal)
            if await self._has_ended(task, record.stop_grace_ns / SECOND_NS):
                return
        log.info("task=%s why=grace of %s ns is over: killed", record.task_id, record.stop_grace_ns)
        while True:
            # Its own process first, which the shim waits for: the shim then writes its end down.
            proc.signal_main(task.main, 9)
            if await self._has_ended(task, SETTLE_DEADLINE_S):
                return
            await self._sweep(task)
            await self._work.in_thread(proc.kill_silent_shim, task.main)

    async def _has_ended(self, task: KnownTask, within_s: float) -> bool:
        try:
            await self._env.clock.within(within_s, task.ended.wait())
        except TimeoutError:
            return False
        return True

    async def _sweep(self, task: KnownTask) -> None:
        """Kill what is left of a task in its session and its control groups."""
        assert task.main is not None
        if task.record.cgroups:
            with contextlib.suppress(TimeoutError):
                await self._work.in_thread(cgroup.kill_all, task.record.cgroups)
        await self._sweeper.sweep(task.main)

    async def _remove(self, task_id: TaskId, task: KnownTask) -> None:
        async with task.change:
            if task.is_running:
                raise Rejected(f"task {task_id} is running: stop it first")
            if self._cgroups is not None and task.record.cgroups:
                await self._work.in_thread(self._cgroups.remove, task_id)
            await self._logs.forget(task_id)
            if task.exit is None:
                await self._network.detach(task_id)
            await self._work.in_thread(files.remove_task, task.folder)
            self._tasks.pop(task_id, None)
            task.ended.set()
