"""One session on a stream that the test holds the other end of."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from skep.domain.base import NodeId, SessionId, TaskId, replace
from skep.domain.objects import Task, TaskStatus
from skep.domain.session import (
    AssignmentKind,
    AssignmentSet,
    Heartbeat,
    LeaderMessage,
    StatusBatch,
    TaskReport,
    WorkerMessage,
)
from skep.domain.states import DesiredState, TaskState
from skep.env import CallError, Code, Env, Rejected, StreamBroken
from skep.manager.dispatcher.core.assignments import WorkerSet
from skep.manager.dispatcher.session import ANSWERS_LIMIT, Session, SessionHooks
from tests.support.simulated import in_simulation
from tests.unit.manager.build import task
from tests.unit.manager.dispatcher.support import DESK
from tests.unit.manager.streams import FakeStream


@dataclass
class Desk:
    """What the dispatcher knows, and what it was told."""

    env: Env
    stream: FakeStream = field(default_factory=FakeStream)
    tasks: list[Task] = field(default_factory=list)
    drained: set[TaskId] = field(default_factory=set)
    batches: list[StatusBatch] = field(default_factory=list)
    signs_of_life: int = 0
    is_storing: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.is_storing.set()
        hooks = SessionHooks(
            heard=self._heard,
            store=self._store,
            sets=self._sets,
            drained=lambda known: tuple(sorted(self.drained - known)),
        )
        self.session = Session(
            self.env, NodeId("n1"), SessionId("s"), self.stream, hooks, heard_at=self.env.now()
        )

    def _heard(self) -> None:
        self.signs_of_life += 1

    async def _store(self, batch: StatusBatch) -> None:
        await self.is_storing.wait()
        self.batches.append(batch)

    def _sets(self, told: WorkerSet) -> list[AssignmentSet]:
        fill = told.increment if told.sequence else told.complete
        return fill(self.tasks, DESK)

    def changed(self, *tasks: Task) -> None:
        self.tasks = list(tasks)
        self.session.changed()

    def told(self) -> list[str]:
        return [_words(message) for message in self.stream.heard(LeaderMessage)]


def _words(message: LeaderMessage) -> str:
    if message.heartbeat is not None:
        return f"heartbeat {message.heartbeat.number}"
    if message.stored is not None:
        return f"stored {message.stored.number}"
    if message.drained is not None:
        return f"drained {' '.join(message.drained.task_ids)}"
    of = message.assignments
    assert of is not None
    held = [f"{each.task.id}={each.task.desired_state.value}" for each in of.assignments]
    gone = [f"-{task_id}" for task_id in of.removed]
    return " ".join([of.kind.value, str(of.sequence), *held, *gone])


def at_desk(body: Callable[[Desk, asyncio.Task[None]], Awaitable[None]]) -> None:
    async def run(env: Env) -> None:
        desk = Desk(env)
        session = env.spawn("session", desk.session.run())
        await body(desk, session)
        session.cancel()
        await asyncio.wait((session,))

    in_simulation(run)


A = task("a", TaskState.ASSIGNED)
B = task("b", TaskState.ASSIGNED)
STOPPED = replace(A, desired_state=DesiredState.SHUTDOWN)


def batch(number: int) -> StatusBatch:
    status = TaskStatus(state=TaskState.RUNNING, counter=number)
    return StatusBatch(number=number, reports=(TaskReport(task_id=A.id, status=status),))


def test_a_worker_is_told_everything_once_and_then_what_changes() -> None:
    async def body(desk: Desk, session: asyncio.Task[None]) -> None:
        desk.changed(A)
        await asyncio.sleep(0.1)
        desk.changed(STOPPED, B)
        await asyncio.sleep(0.1)
        desk.changed(B)
        await asyncio.sleep(0.1)
        desk.changed(B)
        await asyncio.sleep(0.1)
        assert desk.told() == [
            "complete 1 a=running",
            "increment 2 a=shutdown b=running",
            "increment 3 -a",
        ]

    at_desk(body)


def test_a_burst_of_changes_is_one_set_and_what_came_and_went_is_never_told() -> None:
    async def body(desk: Desk, session: asyncio.Task[None]) -> None:
        desk.changed()
        await asyncio.sleep(0.1)
        for tasks in ((A,), (A, B), (STOPPED, B), (B,)):
            desk.changed(*tasks)
        await asyncio.sleep(0.1)
        assert desk.told() == ["complete 1", "increment 2 b=running"]

    at_desk(body)


def test_a_heartbeat_is_a_sign_of_life_and_is_answered() -> None:
    async def body(desk: Desk, session: asyncio.Task[None]) -> None:
        desk.stream.say(WorkerMessage(heartbeat=Heartbeat(number=7)))
        await asyncio.sleep(0.1)
        assert (desk.told(), desk.signs_of_life) == (["heartbeat 7"], 1)

    at_desk(body)


def test_statuses_are_acknowledged_once_they_are_stored_and_not_before() -> None:
    async def body(desk: Desk, session: asyncio.Task[None]) -> None:
        desk.is_storing.clear()
        desk.stream.say(WorkerMessage(statuses=batch(1)))
        desk.stream.say(WorkerMessage(statuses=batch(2)))
        await asyncio.sleep(1.0)
        assert (desk.told(), desk.batches) == ([], [])
        desk.is_storing.set()
        await asyncio.sleep(0.1)
        assert desk.told() == ["stored 1", "stored 2"]
        assert desk.batches == [batch(1), batch(2)]

    at_desk(body)


def test_each_drained_task_is_told_once() -> None:
    async def body(desk: Desk, session: asyncio.Task[None]) -> None:
        desk.changed(STOPPED)
        await asyncio.sleep(0.1)
        desk.drained = {A.id}
        for _ in range(3):
            desk.session.changed()
            await asyncio.sleep(0.1)
        assert desk.told() == ["complete 1 a=shutdown", "drained a"]

    at_desk(body)


@pytest.mark.parametrize("is_broken", [False, True])
def test_it_ends_when_the_worker_goes(is_broken: bool) -> None:
    async def body(desk: Desk, session: asyncio.Task[None]) -> None:
        desk.stream.hang_up(is_broken=is_broken)
        if is_broken:
            with pytest.raises(StreamBroken):
                await session
        else:
            await session

    at_desk(body)


def test_it_ends_with_the_reason_it_is_given() -> None:
    async def body(desk: Desk, session: asyncio.Task[None]) -> None:
        await asyncio.sleep(0.1)
        desk.session.end(CallError(Code.ABORTED, "another session took over"))
        with pytest.raises(CallError, match="another session took over"):
            await session

    at_desk(body)


def test_bytes_that_are_no_message_end_it_with_the_reason() -> None:
    async def body(desk: Desk, session: asyncio.Task[None]) -> None:
        desk.stream._inbox.put_nowait(b"\xff\xff\xff")
        with pytest.raises(Rejected, match="WorkerMessage"):
            await session

    at_desk(body)


def test_a_worker_that_never_reads_is_let_go_and_nothing_piles_up() -> None:
    async def body(desk: Desk, session: asyncio.Task[None]) -> None:
        desk.stream.is_stuck = True
        for number in range(ANSWERS_LIMIT + 10):
            desk.stream.say(WorkerMessage(heartbeat=Heartbeat(number=number)))
        await asyncio.sleep(5.0)
        assert desk.stream.sent == []
        assert len(desk.session._answers) <= ANSWERS_LIMIT
        # Whoever reads no answers has stopped being heard of, too.
        assert desk.signs_of_life <= ANSWERS_LIMIT + 2

    at_desk(body)


def test_sets_are_of_the_kinds_the_worker_expects() -> None:
    told = WorkerSet()
    assert [frame.kind for frame in told.complete([], DESK)] == [AssignmentKind.COMPLETE]
