"""An engine and a leader for the agent to work with, both in memory, both obeying the test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from skep.api import codec
from skep.domain.base import (
    SECOND_NS,
    ClusterId,
    NodeId,
    ServiceId,
    SessionId,
    TaskId,
    replace,
)
from skep.domain.control import LogLine, LogStream
from skep.domain.execution import ExecSpec
from skep.domain.objects import NodeDescription, Task, TaskStatus
from skep.domain.session import (
    SESSION_FORMAT,
    Assignment,
    AssignmentKind,
    AssignmentSet,
    Drained,
    GivenFile,
    GivenLogin,
    LeaderMessage,
    SessionWelcome,
    StatusesStored,
    WorkerHello,
    WorkerMessage,
)
from skep.domain.spec import HealthCheck, Port, RunSpec, ServiceSpec, TaskSpec
from skep.domain.states import DesiredState, TaskState, desired_order
from skep.env import (
    CallError,
    Code,
    Env,
    Listener,
    Rejected,
    Service,
    Stream,
    StreamBroken,
    StreamHandler,
)
from skep.worker.agent import Agent, AgentConfig, Equipment
from skep.worker.core.agent import AgentCore
from skep.worker.engine.protocol import (
    Execution,
    Exit,
    Held,
    HeldState,
    LogChunk,
    LogQuery,
    NodeFacts,
    Report,
    Started,
    unheard,
)
from skep.worker.supplies import Supplies

CLUSTER = ClusterId("cluster")
HEARTBEAT_S = 2.0
HEALTH = HealthCheck(test=("CMD", "check"), interval_ns=SECOND_NS, timeout_ns=SECOND_NS, retries=2)


def assignment(
    task_id: str = "t1",
    *,
    desired: DesiredState = DesiredState.RUNNING,
    state: TaskState = TaskState.ASSIGNED,
    health: HealthCheck | None = None,
    is_published: bool = False,
) -> Assignment:
    """A task as the scheduler leaves it, and its spec."""
    task = Task(
        id=TaskId(task_id),
        service_id=ServiceId("s1"),
        service_name="web",
        revision=1,
        slot=1,
        desired_state=desired,
        status=TaskStatus(state=state),
        node_id=NodeId("w1"),
    )
    run = RunSpec(command=("serve",), health=health)
    ports = (Port(target=80),) if is_published else ()
    return Assignment(task=task, spec=ServiceSpec(name="web", task=TaskSpec(run=run), ports=ports))


# ------------------------------------------------------------------------------------- engine


@dataclass
class FakeTask:
    """What the machine has of one task."""

    started: Started | None = None
    exit: Exit | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    lines: list[LogLine] = field(default_factory=list)


@dataclass
class FakeMachine:
    """What outlives the agent: tasks and their processes, and how they behave."""

    tasks: dict[str, FakeTask] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    reports: dict[str, list[str]] = field(default_factory=dict)
    prepare_errors: dict[str, list[Exception]] = field(default_factory=dict)
    start_errors: dict[str, list[Exception]] = field(default_factory=dict)
    complaints: dict[str, str] = field(default_factory=dict)
    starts: dict[str, int] = field(default_factory=dict)
    call_takes_s: float = 0.01
    stop_takes_s: float = 0.1
    next_pid: int = 100
    readers: list[FakeLogReader] = field(default_factory=list)
    on_prepare: Callable[[Assignment], None] = lambda assignment: None

    def write(self, task_id: str, time_ns: int, text: str) -> None:
        """A task writes a line."""
        task = self.tasks.setdefault(task_id, FakeTask())
        task.lines.append(LogLine(time_ns=time_ns, stream=LogStream.STDOUT, text=text.encode()))
        self._changed()

    def _changed(self) -> None:
        for reader in self.readers:
            reader.changed.set()

    @property
    def running(self) -> set[str]:
        """The tasks that have a live process."""
        return {name for name, task in self.tasks.items() if task.started and not task.exit}

    def end(self, task_id: str, exit_code: int, reason: str = "") -> None:
        """A process ends by itself."""
        task = self.tasks[task_id]
        assert task.started is not None
        task.exit = Exit(exit_code=exit_code, ended_ns=0, reason=reason)
        task.ended.set()
        self._changed()


class FakeLogReader:
    """Reads a fake task's lines, three at a time; its position is how many were read."""

    def __init__(self, machine: FakeMachine, task_id: str, query: LogQuery) -> None:
        self._machine = machine
        self._task = machine.tasks[task_id]
        self._query = query
        count = len(self._task.lines)
        tail = count if query.tail is None else query.tail
        self._at = int(query.position) if query.position else max(0, count - tail)
        self.changed = asyncio.Event()

    @property
    def position(self) -> str:
        return str(self._at)

    async def read(self) -> LogChunk:
        self.changed.clear()
        lines = tuple(self._task.lines[self._at : self._at + 3])
        self._at += len(lines)
        is_over = self._task.exit is not None or not self._query.is_follow
        return LogChunk(lines=lines, position=self.position, is_end=is_over and not lines)

    async def more(self) -> None:
        await self.changed.wait()

    def close(self) -> None:
        if self in self._machine.readers:
            self._machine.readers.remove(self)


class FakeEngine:
    """One life's view of a machine; implements `Engine`."""

    name = "process"

    def __init__(self, machine: FakeMachine, env: Env) -> None:
        self._machine = machine
        self._env = env

    async def prepare(
        self, assignment: Assignment, node: NodeFacts, report: Report = unheard
    ) -> None:
        task_id = assignment.task.id
        await self._begin("prepare", task_id)
        self._machine.on_prepare(assignment)
        for words in self._machine.reports.get(task_id, ()):
            report(words)
            await self._env.clock.sleep(self._machine.call_takes_s)
        if errors := self._machine.prepare_errors.get(task_id):
            raise errors.pop(0)
        self._machine.tasks.setdefault(task_id, FakeTask())

    async def start(self, task_id: TaskId) -> Started:
        await self._begin("start", task_id)
        if errors := self._machine.start_errors.get(task_id):
            raise errors.pop(0)
        task = self._machine.tasks[task_id]
        if task.started is None:
            self._machine.next_pid += 1
            self._machine.starts[task_id] = self._machine.starts.get(task_id, 0) + 1
            task.started = Started(pid=self._machine.next_pid, started_ns=self._env.wall())
        return task.started

    async def wait(self, task_id: TaskId) -> Exit:
        if task_id not in self._machine.tasks:
            raise Rejected(f"{task_id} is unknown")
        task = self._machine.tasks[task_id]
        await task.ended.wait()
        assert task.exit is not None
        return task.exit

    async def stop(self, task_id: TaskId) -> None:
        await self._begin("stop", task_id)
        if task_id in self._machine.running:
            await self._env.clock.sleep(self._machine.stop_takes_s)
        if task_id in self._machine.running:
            self._machine.end(task_id, 143)

    async def remove(self, task_id: TaskId) -> None:
        await self._begin("remove", task_id)
        if task_id in self._machine.running:
            raise Rejected(f"{task_id} is running")
        self._machine.tasks.pop(task_id, None)

    async def probe(self, task_id: TaskId, health: HealthCheck) -> str | None:
        await self._begin("probe", task_id)
        return self._machine.complaints.get(task_id)

    async def held(self) -> Sequence[Held]:
        return [
            Held(
                task_id=TaskId(name),
                state=(
                    HeldState.ENDED
                    if task.exit
                    else HeldState.RUNNING
                    if task.started
                    else HeldState.PREPARED
                ),
                started=task.started,
                exit=task.exit,
            )
            for name, task in self._machine.tasks.items()
        ]

    async def logs(self, task_id: TaskId, query: LogQuery) -> FakeLogReader:
        if task_id not in self._machine.tasks:
            raise Rejected(f"task {task_id} was never prepared on this node")
        reader = FakeLogReader(self._machine, task_id, query)
        self._machine.readers.append(reader)
        return reader

    async def exec(self, task_id: TaskId, spec: ExecSpec) -> Execution:
        raise Rejected("nothing else can be run in tasks of this engine")

    async def close(self) -> None:
        pass

    async def _begin(self, call: str, task_id: str) -> None:
        self._machine.calls.append(f"{call} {task_id}")
        await self._env.clock.sleep(self._machine.call_takes_s)


# ------------------------------------------------------------------------------------- leader


@dataclass
class FakeLeader:
    """A manager that does what the test says. Its store is `stored`, by the store's own rules."""

    env: Env
    address: str
    term: int = 1
    is_leading: bool = True
    leader_hint: str = ""
    is_acknowledging: bool = True
    is_answering: bool = True
    assignments: dict[TaskId, Assignment] = field(default_factory=dict)
    stored: dict[TaskId, TaskStatus] = field(default_factory=dict)
    hellos: list[WorkerHello] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    batches: int = 0
    files: dict[str, GivenFile] = field(default_factory=dict)
    logins: tuple[GivenLogin, ...] = ()
    extra_streams: dict[str, StreamHandler] = field(default_factory=dict)
    _sequence: int = 0
    _stream: Stream | None = None
    _listener: Listener | None = None
    _sending: asyncio.Lock = field(default_factory=asyncio.Lock)
    _registered: bool = False
    _serving: asyncio.Event | None = None
    history: dict[tuple[TaskId, int], TaskStatus] = field(default_factory=dict)

    async def serve(self) -> Listener:
        """Listen for workers."""

        async def publish(stream: Stream) -> None:
            await self.extra_streams["skep.v1.Workers/PublishLogs"](stream)

        streams = {"skep.v1.Workers/Session": self._session, "skep.v1.Workers/PublishLogs": publish}
        self._listener = await self.env.transport.listen(self.address, Service(streams=streams))
        return self._listener

    async def hang_up(self) -> None:
        """End the session, telling the worker that nobody leads here."""
        if self._serving is not None:
            self._serving.set()

    @property
    def has_session(self) -> bool:
        """Whether the worker is registered here."""
        return self._registered

    def state(self, task_id: str) -> TaskState | None:
        """The stored state of a task."""
        status = self.stored.get(TaskId(task_id))
        return status.state if status else None

    def is_in(self, task_id: str, state: TaskState) -> bool:
        """Whether this is the stored state of a task."""
        return self.state(task_id) is state

    async def assign(self, *assignments: Assignment) -> None:
        """Add or change tasks, in one increment."""
        for each in assignments:
            self.assignments[each.task.id] = each
        await self._increment(assignments, ())

    async def want(self, task_id: str, desired: DesiredState) -> None:
        """Change what is wanted of one task."""
        of = self.assignments[TaskId(task_id)]
        assert desired_order(desired) >= desired_order(of.task.desired_state)
        await self.assign(replace(of, task=replace(of.task, desired_state=desired)))

    async def unassign(self, task_id: str) -> None:
        """Take a task away."""
        self.assignments.pop(TaskId(task_id), None)
        await self._increment((), (TaskId(task_id),))

    async def supply(self, *, removed: Sequence[str] = (), logins: Sequence[GivenLogin]) -> None:
        """Take files away, and say all logins, in one increment."""
        for id_ in removed:
            del self.files[id_]
        self.logins = tuple(logins)
        self._sequence += 1
        change = AssignmentSet(
            kind=AssignmentKind.INCREMENT,
            sequence=self._sequence,
            files_removed=tuple(removed),
            logins=self.logins,
            has_logins=True,
        )
        await self.send(LeaderMessage(assignments=change))

    async def say_drained(self, *task_ids: str) -> None:
        """Tell that no netproxy sends them anything new."""
        await self.send(LeaderMessage(drained=Drained(task_ids=tuple(map(TaskId, task_ids)))))

    async def send(self, message: LeaderMessage) -> None:
        """Send one frame, if there is a session."""
        # One write at a time, as gRPC wants it.
        async with self._sending:
            if self._stream is not None:
                await self._stream.send(codec.encode(message))

    async def _increment(
        self, assignments: Sequence[Assignment], removed: tuple[TaskId, ...]
    ) -> None:
        if not self._registered:
            return  # The complete set will have it.
        self._sequence += 1
        change = AssignmentSet(
            kind=AssignmentKind.INCREMENT,
            sequence=self._sequence,
            assignments=tuple(assignments),
            removed=removed,
        )
        await self.send(LeaderMessage(assignments=change))

    async def _session(self, stream: Stream) -> None:
        frame = await stream.receive()
        if frame is None:
            return
        hello = codec.decode(WorkerMessage, frame).hello
        assert hello is not None
        self.hellos.append(hello)
        if not self.is_leading:
            details = {"leader": self.leader_hint} if self.leader_hint else {}
            raise CallError(Code.FAILED_PRECONDITION, "not the leader", details)
        self._stream = stream
        session_id = SessionId(self.env.ids.new_id())
        try:
            await self._welcome(session_id)
            self._registered = True
            self._serving = asyncio.Event()
            reading = self.env.spawn("session", self._read(session_id, stream, self._serving))
            await self._serving.wait()
            reading.cancel()
        except StreamBroken:
            pass
        finally:
            if self._stream is stream:
                self._stream, self._registered = None, False

    async def _read(self, session_id: SessionId, stream: Stream, ended: asyncio.Event) -> None:
        try:
            while (frame := await stream.receive()) is not None:
                await self._take(session_id, codec.decode(WorkerMessage, frame))
        except StreamBroken:
            pass
        finally:
            ended.set()

    async def _welcome(self, session_id: SessionId) -> None:
        welcome = SessionWelcome(
            format=SESSION_FORMAT,
            session_id=session_id,
            term=self.term,
            heartbeat_period_ns=int(HEARTBEAT_S * SECOND_NS),
        )
        await self.send(LeaderMessage(welcome=welcome))
        self._sequence = 1
        # The stored status travels with the task, as the dispatcher has it.
        whole = AssignmentSet(
            kind=AssignmentKind.COMPLETE,
            sequence=1,
            assignments=tuple(
                replace(
                    each,
                    task=replace(each.task, status=self.stored.get(task_id, each.task.status)),
                )
                for task_id, each in self.assignments.items()
            ),
            files=tuple(self.files.values()),
            logins=self.logins,
            has_logins=bool(self.logins),
        )
        await self.send(LeaderMessage(assignments=whole))

    async def _take(self, session_id: SessionId, message: WorkerMessage) -> None:
        if message.heartbeat is not None and self.is_answering:
            await self.send(LeaderMessage(heartbeat=message.heartbeat))
        if message.statuses is None:
            return
        self.batches += 1
        for report in message.statuses.reports:
            if report.status.session_id != session_id:
                self.problems.append(f"{report} is of another session")
            self._store(report.task_id, replace(report.status, session_id=None))
        if self.is_acknowledging:
            stored = StatusesStored(number=message.statuses.number)
            await self.send(LeaderMessage(stored=stored))

    def _store(self, task_id: TaskId, status: TaskStatus) -> None:
        known = self.history.setdefault((task_id, status.counter), status)
        if known != status:
            self.problems.append(f"{task_id}: counter used twice: {known} {status}")
        before = self.stored.get(task_id)
        if before is None or status.counter > before.counter:
            self.stored[task_id] = status
            self.seen.append(f"{task_id} {status.state.value}")


def agent(
    env: Env,
    machine: FakeMachine,
    managers: tuple[str, ...],
    problems: list[str] | None = None,
    supplies: Supplies | None = None,
) -> Agent:
    """An agent whose core is checked after every step."""

    def check(core: AgentCore) -> None:
        core.check_invariants()

    def escalate(error: BaseException) -> None:
        if problems is not None:
            problems.append(f"escalated: {error!r}")

    config = AgentConfig(
        name="w1",
        node_id=NodeId("w1"),
        cluster_id=CLUSTER,
        description=NodeDescription(hostname="w1", address="127.0.0.4", engines=("process",)),
        managers=managers,
    )
    equipment = Equipment({"process": FakeEngine(machine, env)}, supplies or Supplies())
    return Agent(env, config, equipment, escalate, on_step=check)
