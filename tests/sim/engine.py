"""A fake engine: processes that outlive the agent, start late or never, crash, and ignore signals.

The `EngineHost` is the machine's: what it has begun goes on when the agent dies, as under a shim.
Each agent's life has a `FakeEngine` over it, which implements `skep.worker.engine.protocol.Engine`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from skep.domain.base import SECOND_NS, TaskId
from skep.domain.execution import ExecSpec
from skep.domain.session import Assignment
from skep.domain.spec import HealthCheck
from skep.env import Env, Rejected, Retryable
from skep.worker.engine.network import TaskNetwork
from skep.worker.engine.protocol import (
    Execution,
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
from tests.sim.releases import LATE_S, Bad, badness
from tests.sim.world import EPOCH_NS, World

EXIT_KILLED = 137
CRASH_AFTER_S = 0.05


@dataclass
class EngineTemper:
    """How tasks behave on one machine: probabilities, seconds, crashes per second."""

    prepare_error: float = 0.0
    start_error: float = 0.0
    is_final: float = 0.2  # of the errors: it will never work here
    hang: float = 0.0
    mean_call_s: float = 0.02
    crash_rate: float = 0.0
    ignores_signal: float = 0.0
    sick: float = 0.0


@dataclass
class _Process:
    """What the machine has of one task."""

    assignment: Assignment
    state: HeldState = HeldState.PREPARED
    started: Started | None = None
    exit: Exit | None = None
    is_stopping: bool = False
    sick_at: float | None = None
    ended: list[asyncio.Future[None]] = field(default_factory=list)


@dataclass
class EngineHost:
    """One machine's processes. `on_start` and `on_signal` let checkers look; `has_namespace` says
    whether a task's network is there."""

    world: World
    machine: str
    dice: Random
    on_start: Callable[[Assignment], None]
    on_signal: Callable[[Assignment], None]
    has_namespace: Callable[[TaskId], bool]
    temper: EngineTemper = field(default_factory=EngineTemper)
    _tasks: dict[TaskId, _Process] = field(default_factory=dict)
    _busy: dict[TaskId, float] = field(default_factory=dict)
    _calls: dict[Callable[[], None], bool] = field(default_factory=dict)
    _next_pid: int = 100

    def running(self) -> set[TaskId]:
        """The tasks with a live process."""
        return {id_ for id_, task in self._tasks.items() if task.state is HeldState.RUNNING}

    def assignments(self) -> list[Assignment]:
        """Those of the tasks with a live process."""
        return [self._tasks[task_id].assignment for task_id in sorted(self.running())]

    def all_held(self) -> set[TaskId]:
        """The tasks of which anything is left."""
        return set(self._tasks)

    def agent_died(self, is_power_lost: bool) -> None:
        """Its calls are done or not; with the power, all processes are gone, and files say so."""
        calls, self._calls = list(self._calls), {}
        for call in calls:
            if not is_power_lost and self.dice.random() < 0.5:
                call()
        self._busy.clear()
        if is_power_lost:
            for task_id in sorted(self.running()):
                self._end(task_id, EXIT_KILLED, "the machine went down")

    def held(self) -> list[Held]:
        return [
            Held(task_id=id_, state=task.state, started=task.started, exit=task.exit)
            for id_, task in self._tasks.items()
        ]

    def find(self, task_id: TaskId) -> _Process | None:
        return self._tasks.get(task_id)

    async def call(self, task_id: TaskId, delay_s: float, work: Callable[[], None]) -> None:
        """Do `work` after the delay, and after all that was asked before for this task.

        When whoever asked is cancelled or dies meanwhile, it is done at once, or never.
        """
        at = max(self.world.now(), self._busy.get(task_id, 0.0) + 1e-6) + delay_s
        self._busy[task_id] = at
        done: asyncio.Future[None] = asyncio.Future()

        def run() -> None:
            try:
                work()
            except (Rejected, Retryable) as error:
                if not done.done():
                    done.set_exception(error)
            else:
                if not done.done():
                    done.set_result(None)

        def run_when_due() -> None:
            if self._calls.pop(run, False):
                run()

        self._calls[run] = True
        self.world.after(at - self.world.now(), run_when_due)
        try:
            await done
        except asyncio.CancelledError:
            if self._calls.pop(run, False) and self.dice.random() < 0.5:
                run()
            self._busy[task_id] = self.world.now()
            raise

    # ------------------------------------------------------------------------------- what is done

    def prepare(self, assignment: Assignment) -> None:
        if self.dice.random() < self.temper.prepare_error:
            raise self._error("can't be prepared")
        self.world.trace.note("engine", f"{self.machine} prepares {assignment.task.id}")
        self._tasks.setdefault(assignment.task.id, _Process(assignment))

    def start(self, task_id: TaskId) -> None:
        task = self._tasks.get(task_id)
        if task is None:
            raise Rejected(f"task {task_id} is not prepared")
        if task.started is not None:
            return
        if not self.has_namespace(task_id):
            raise Retryable("its network is gone")
        bad = badness(task.assignment.spec)
        if bad is Bad.START:
            raise Rejected("this release can't be started")
        if self.dice.random() < self.temper.start_error:
            raise self._error("can't be started")
        self.on_start(task.assignment)
        self._next_pid += 1
        task.state = HeldState.RUNNING
        task.started = Started(pid=self._next_pid, started_ns=self._wall_ns())
        self.world.trace.note("engine", f"{self.machine} starts {task_id}")
        self._doom(task_id)
        if bad is not None:
            self._go_wrong(task_id, task, bad)

    def is_sick(self, task_id: TaskId) -> bool:
        """Whether a look at its health finds it ill."""
        task = self._tasks.get(task_id)
        is_ill = task is not None and task.sick_at is not None and task.sick_at <= self.world.now()
        return is_ill or self.dice.random() < self.temper.sick

    def signal(self, task_id: TaskId) -> None:
        """Ask it to end; it does, or is killed when its grace is over."""
        task = self._tasks.get(task_id)
        if task is None or task.state is not HeldState.RUNNING or task.is_stopping:
            return
        task.is_stopping = True
        self.on_signal(task.assignment)
        self.world.trace.note("engine", f"{self.machine} signals {task_id}")
        grace_s = task.assignment.spec.task.run.stop_grace_ns / SECOND_NS
        is_deaf = badness(task.assignment.spec) is Bad.STOP
        if is_deaf or self.dice.random() < self.temper.ignores_signal:
            self.world.after(grace_s, lambda: self._end(task_id, EXIT_KILLED, "killed"))
        else:
            delay_s = min(grace_s, self.dice.expovariate(1.0 / 0.1))
            self.world.after(delay_s, lambda: self._end(task_id, 0, ""))

    def remove(self, task_id: TaskId) -> None:
        task = self._tasks.get(task_id)
        if task is not None and task.state is HeldState.RUNNING:
            raise Retryable(f"task {task_id} still runs")
        if self._tasks.pop(task_id, None) is not None:
            self.world.trace.note("engine", f"{self.machine} removes {task_id}")

    def turn_bad(self, temper: EngineTemper) -> None:
        """From now on tasks behave like this, those that run already, too."""
        self.temper = temper
        for task_id in sorted(self.running()):
            self._doom(task_id)

    def _go_wrong(self, task_id: TaskId, task: _Process, bad: Bad) -> None:
        """What is wrong with a release shows in due time."""
        late_s = self.dice.uniform(*LATE_S)
        if bad is Bad.SICK:
            task.sick_at = self.world.now() + late_s
        elif bad in (Bad.CRASH, Bad.LATE):
            after_s = CRASH_AFTER_S if bad is Bad.CRASH else late_s
            self.world.after(after_s, lambda: self._end(task_id, 1, "a bad release"))

    def _doom(self, task_id: TaskId) -> None:
        if self.temper.crash_rate:
            life_s = self.dice.expovariate(self.temper.crash_rate)
            self.world.after(life_s, lambda: self._crash(task_id))

    def _crash(self, task_id: TaskId) -> None:
        if self.temper.crash_rate and task_id in self.running():
            self.world.trace.fault("task_crash", f"{self.machine} {task_id}")
            self._end(task_id, self.dice.choice((0, 1, 139)), "crashed")

    def _end(self, task_id: TaskId, exit_code: int, reason: str) -> None:
        task = self._tasks.get(task_id)
        if task is None or task.state is not HeldState.RUNNING:
            return
        task.state = HeldState.ENDED
        task.exit = Exit(exit_code=exit_code, ended_ns=self._wall_ns(), reason=reason)
        self.world.trace.note("engine", f"{self.machine} {task_id} ended {exit_code}")
        ended, task.ended = task.ended, []
        for waiter in ended:
            if not waiter.done():
                waiter.set_result(None)

    def _error(self, text: str) -> Exception:
        self.world.trace.fault("engine_error", f"{self.machine} {text}")
        return Rejected(text) if self.dice.random() < self.temper.is_final else Retryable(text)

    def _wall_ns(self) -> int:
        return EPOCH_NS + int(self.world.now() * 1e9)

    def delay_s(self) -> float:
        """How long the next call takes; at times so long that it seems to hang."""
        if self.dice.random() < self.temper.hang:
            self.world.trace.fault("engine_hang", self.machine)
            return self.dice.uniform(1.0, 20.0)
        return self.dice.expovariate(1.0 / self.temper.mean_call_s)


class FakeEngine:
    """One agent's engine; the processes are its host's, and connected as the process engine does
    it."""

    name = "process"

    def __init__(self, host: EngineHost, env: Env, network: TaskNetwork) -> None:
        self._host = host
        self._env = env
        self._network = network
        self._settling: dict[TaskId, asyncio.Task[None]] = {}

    async def prepare(
        self, assignment: Assignment, node: NodeFacts, report: Report = unheard
    ) -> None:
        host, task_id = self._host, assignment.task.id
        try:
            await self._network.attach(assignment)
            await host.call(task_id, host.delay_s(), lambda: host.prepare(assignment))
        except BaseException:
            if host.find(task_id) is None:
                self._env.spawn(f"undo-{task_id}", self._network.detach(task_id))
            raise

    async def start(self, task_id: TaskId) -> Started:
        host = self._host
        await host.call(task_id, host.delay_s(), lambda: host.start(task_id))
        task = host.find(task_id)
        if task is None or task.started is None:
            raise Retryable(f"task {task_id} was removed meanwhile")
        return task.started

    async def wait(self, task_id: TaskId) -> Exit:
        task = self._host.find(task_id)
        if task is None or task.started is None:
            raise Rejected(f"task {task_id} was never started")
        await self._ended(task)
        assert task.exit is not None
        return task.exit

    async def stop(self, task_id: TaskId) -> None:
        host = self._host
        await host.call(task_id, 0.0, lambda: host.signal(task_id))
        task = host.find(task_id)
        if task is not None and task.started is None:
            await self._network.detach(task_id)
        elif task is not None:
            await self._ended(task)

    async def remove(self, task_id: TaskId) -> None:
        host = self._host
        task = host.find(task_id)
        if task is not None and task.state is HeldState.PREPARED:
            await self._network.detach(task_id)
        await host.call(task_id, host.delay_s(), lambda: host.remove(task_id))

    async def probe(self, task_id: TaskId, health: HealthCheck) -> str | None:
        host = self._host
        await host.call(task_id, min(host.delay_s(), health.timeout_ns / 1e9), lambda: None)
        return "sick" if host.is_sick(task_id) else None

    async def held(self) -> list[Held]:
        held = self._host.held()
        ended = [each.task_id for each in held if each.state is HeldState.ENDED]
        await asyncio.gather(*map(self._settled, ended))
        self._network.take_over(each.task_id for each in held if each.task_id not in ended)
        return held

    async def logs(self, task_id: TaskId, query: LogQuery) -> LogReader:
        raise Rejected("tasks of this engine write nothing")

    async def exec(self, task_id: TaskId, spec: ExecSpec) -> Execution:
        raise Rejected("nothing else can be run in tasks of this engine")

    async def close(self) -> None:
        await self._network.close()

    async def _ended(self, task: _Process) -> None:
        while task.state is HeldState.RUNNING:
            waiter: asyncio.Future[None] = asyncio.Future()
            task.ended.append(waiter)
            await waiter
        if task.state is HeldState.ENDED:
            await self._settled(task.assignment.task.id)

    async def _settled(self, task_id: TaskId) -> None:
        """Its address may be another task's once managers have heard that it ended."""
        if task_id not in self._settling:
            work = self._network.detach(task_id)
            self._settling[task_id] = self._env.spawn(f"settle-{task_id}", work)
        await asyncio.shield(self._settling[task_id])
