"""The agent in a simulated world: a leader, an engine, a disk, and what goes wrong with them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from skep.api import codec
from skep.domain.base import TaskId
from skep.domain.control import LogEvent
from skep.domain.objects import NodeDescription
from skep.domain.session import LeaderMessage, LogMessage, LogOrder, LogsCancelled, LogWanted
from skep.domain.states import DesiredState, TaskState
from skep.env import Env, Rejected, Retryable, Stream
from skep.worker.agent import Agent
from skep.worker.engine.protocol import NodeFacts
from tests.sim.world import SimNode, World, simulate
from tests.unit.worker.fakes import (
    HEALTH,
    FakeEngine,
    FakeLeader,
    FakeMachine,
    agent,
    assignment,
)

SEEDS = range(5)
M1, M2 = "127.0.0.1:7000", "127.0.0.2:7000"


@dataclass
class Stage:
    """One worker, one machine under it, and managers m1 (leading) and m2."""

    world: World
    machine: FakeMachine
    worker: SimNode
    m1: FakeLeader
    m2: FakeLeader
    agents: list[Agent]

    async def until(self, what: str, is_true: Callable[[], bool], within_s: float = 20.0) -> float:
        return await self.world.eventually(what, is_true, within_s=within_s)

    async def until_state(self, task_id: str, state: TaskState) -> float:
        return await self.until(
            f"{task_id} is {state.value}", lambda: self.m1.state(task_id) is state
        )


def on_stage(body: Callable[[Stage], Awaitable[None]], seeds: range = SEEDS) -> None:
    async def scenario(world: World) -> None:
        machine = FakeMachine()
        agents: list[Agent] = []
        problems: list[str] = []

        async def main(env: Env) -> None:
            agents.append(agent(env, machine, (M1, M2), problems))
            agents[-1].start()
            await asyncio.Event().wait()

        leaders = []
        for name, address in (("m1", M1), ("m2", M2)):
            node = world.node(name)
            leader = FakeLeader(node.boot(), address)
            node.env.spawn("serve", leader.serve())
            leaders.append(leader)
        m1, m2 = leaders
        m2.is_leading, m2.leader_hint = False, M1
        worker = world.node("w1", main)
        worker.boot()
        await body(Stage(world, machine, worker, m1, m2, agents))
        for problem in [*m1.problems, *m2.problems, *problems]:
            world.problem(problem)

    for seed in seeds:
        simulate("worker", scenario, seed)


def test_a_task_runs_and_is_reported() -> None:
    async def body(stage: Stage) -> None:
        stage.m1.assignments[TaskId("t1")] = assignment()
        await stage.until_state("t1", TaskState.RUNNING)
        assert stage.machine.running == {"t1"}
        assert stage.m1.stored[TaskId("t1")].pid == 101

    on_stage(body)


def test_how_far_a_preparation_is_reaches_the_leader() -> None:
    async def body(stage: Stage) -> None:
        stage.machine.reports["t1"] = ["pulling web"]
        stage.machine.call_takes_s = 1.0
        stage.m1.assignments[TaskId("t1")] = assignment()
        await stage.until(
            "it is told",
            lambda: (
                TaskId("t1") in stage.m1.stored
                and stage.m1.stored[TaskId("t1")].message == "pulling web"
            ),
        )
        await stage.until_state("t1", TaskState.RUNNING)

    on_stage(body)


def test_a_burst_is_few_writes_and_few_frames() -> None:
    async def body(stage: Stage) -> None:
        names = [f"t{number}" for number in range(50)]
        await stage.until("a session", lambda: stage.m1.has_session)
        await stage.m1.assign(*[assignment(name) for name in names])
        await stage.until(
            "all run", lambda: all(stage.m1.state(n) is TaskState.RUNNING for n in names)
        )
        assert stage.agents[0].view.saves <= 10
        assert stage.m1.batches <= 10

    on_stage(body)


def test_a_stop_is_a_shutdown_with_its_exit_code() -> None:
    async def body(stage: Stage) -> None:
        stage.m1.assignments[TaskId("t1")] = assignment()
        await stage.until_state("t1", TaskState.RUNNING)
        await stage.m1.want("t1", DesiredState.SHUTDOWN)
        await stage.until_state("t1", TaskState.SHUTDOWN)
        assert stage.m1.stored[TaskId("t1")].exit_code == 143
        assert "t1" in stage.machine.tasks
        await stage.m1.want("t1", DesiredState.REMOVE)
        await stage.until("removed", lambda: "t1" not in stage.machine.tasks)

    on_stage(body)


@pytest.mark.parametrize(
    ("code", "state", "error"),
    [(0, TaskState.COMPLETE, ""), (3, TaskState.FAILED, "task: non-zero exit (3): it broke")],
)
def test_an_end_by_itself(code: int, state: TaskState, error: str) -> None:
    async def body(stage: Stage) -> None:
        stage.m1.assignments[TaskId("t1")] = assignment()
        await stage.until_state("t1", TaskState.RUNNING)
        stage.machine.end("t1", code, "it broke")
        await stage.until_state("t1", state)
        assert stage.m1.stored[TaskId("t1")].exit_code == code
        assert stage.m1.stored[TaskId("t1")].error == error

    on_stage(body)


def test_ready_waits_for_running() -> None:
    async def body(stage: Stage) -> None:
        stage.m1.assignments[TaskId("t1")] = assignment(desired=DesiredState.READY)
        await stage.until_state("t1", TaskState.READY)
        await asyncio.sleep(5.0)
        assert not stage.machine.running
        await stage.m1.want("t1", DesiredState.RUNNING)
        await stage.until_state("t1", TaskState.RUNNING)

    on_stage(body)


def test_what_can_never_be_prepared_is_rejected_and_what_may_later_is_tried_again() -> None:
    async def body(stage: Stage) -> None:
        stage.machine.prepare_errors["t1"] = [Rejected("no such user")]
        stage.machine.prepare_errors["t2"] = [Retryable("busy"), Retryable("busy")]
        stage.machine.start_errors["t3"] = [Rejected("no such program")]
        for name in ("t1", "t2", "t3"):
            stage.m1.assignments[TaskId(name)] = assignment(name)
        await stage.until_state("t1", TaskState.REJECTED)
        await stage.until_state("t2", TaskState.RUNNING)
        await stage.until_state("t3", TaskState.FAILED)
        assert stage.m1.stored[TaskId("t1")].error == "no such user"
        assert stage.m1.stored[TaskId("t3")].error == "no such program"

    on_stage(body)


def test_health_decides_over_running_and_over_the_end() -> None:
    async def body(stage: Stage) -> None:
        stage.machine.complaints["t1"] = "not yet"
        stage.m1.assignments[TaskId("t1")] = assignment(health=HEALTH)
        await stage.until_state("t1", TaskState.STARTING)
        await asyncio.sleep(1.5)
        del stage.machine.complaints["t1"]
        await stage.until_state("t1", TaskState.RUNNING)
        stage.machine.complaints["t1"] = "connection refused"
        await stage.until_state("t1", TaskState.FAILED)
        assert stage.m1.stored[TaskId("t1")].error == "unhealthy: connection refused"
        assert stage.m1.stored[TaskId("t1")].exit_code == 143
        assert not stage.machine.running

    on_stage(body)


def test_a_published_task_is_held_until_it_is_drained() -> None:
    async def body(stage: Stage) -> None:
        stage.m1.assignments[TaskId("t1")] = assignment(is_published=True)
        stage.m1.assignments[TaskId("t2")] = assignment("t2", is_published=True)
        for name in ("t1", "t2"):
            await stage.until_state(name, TaskState.RUNNING)
            await stage.m1.want(name, DesiredState.SHUTDOWN)
        await asyncio.sleep(1.0)
        assert stage.machine.running == {"t1", "t2"}
        await stage.m1.say_drained("t1")
        await stage.until_state("t1", TaskState.SHUTDOWN)
        assert stage.machine.running == {"t2"}
        assert 3.0 < await stage.until_state("t2", TaskState.SHUTDOWN) < 5.0

    on_stage(body)


def test_the_worker_is_sent_on_to_the_leader_and_follows_a_new_one() -> None:
    async def body(stage: Stage) -> None:
        stage.m1.is_leading = False
        stage.m2.is_leading, stage.m2.term = True, 2
        stage.m1.leader_hint = M2
        stage.m2.assignments[TaskId("t1")] = assignment()
        await stage.until("m2 leads", lambda: stage.m2.state("t1") is TaskState.RUNNING)
        stage.m1.is_leading, stage.m1.term = True, 3
        stage.m2.is_leading, stage.m2.leader_hint = False, M1
        stage.m1.assignments, stage.m1.stored = stage.m2.assignments, stage.m2.stored
        stage.world.network.reset("m2", "w1")
        await stage.until("m1 leads", lambda: stage.m1.has_session, within_s=30.0)
        await asyncio.sleep(1.0)
        assert stage.machine.starts == {"t1": 1}
        assert stage.m1.hellos[-1].highest_term == 2

    on_stage(body)


def test_what_is_new_of_the_node_is_told_and_its_tasks_go_on() -> None:
    news = NodeDescription(hostname="w1", notes=(("network.encryption", "wireguard"),))

    async def body(stage: Stage) -> None:
        await stage.until("a session", lambda: stage.m1.has_session)
        await stage.m1.assign(assignment())
        await stage.until_state("t1", TaskState.RUNNING)
        stage.agents[-1].describe(news)
        await stage.until("news", lambda: stage.m1.hellos[-1].description == news)
        await stage.until("a session", lambda: stage.m1.has_session)
        await asyncio.sleep(1.0)
        assert stage.machine.starts == {"t1": 1}
        assert stage.m1.is_in("t1", TaskState.RUNNING)

    on_stage(body)


def test_an_old_leader_is_refused() -> None:
    async def body(stage: Stage) -> None:
        stage.m1.term = 5
        await stage.until("a session", lambda: stage.m1.has_session)
        await asyncio.sleep(1.0)
        stage.m1.is_leading, stage.m1.leader_hint = False, M2
        stage.m2.is_leading, stage.m2.term = True, 4
        stage.m2.assignments[TaskId("t1")] = assignment()
        stage.world.network.reset("m1", "w1")
        await asyncio.sleep(20.0)
        assert stage.m2.hellos
        assert stage.machine.calls == []

    on_stage(body)


def test_a_silent_leader_is_left_after_three_periods() -> None:
    async def body(stage: Stage) -> None:
        await stage.until("a session", lambda: stage.m1.has_session)
        stage.m1.is_answering = False
        hellos = len(stage.m1.hellos)
        took = await stage.until("again", lambda: len(stage.m1.hellos) > hellos)
        assert 4.0 < took < 9.0

    on_stage(body)


def test_without_managers_tasks_go_on_and_the_dead_stay_dead() -> None:
    async def body(stage: Stage) -> None:
        for name in ("t1", "t2"):
            stage.m1.assignments[TaskId(name)] = assignment(name)
        await stage.until_state("t2", TaskState.RUNNING)
        stage.world.nodes["m1"].crash()
        stage.world.nodes["m2"].crash()
        await asyncio.sleep(10.0)
        stage.machine.end("t1", 1)
        await asyncio.sleep(60.0)
        assert stage.machine.running == {"t2"}
        node = stage.world.nodes["m1"]
        stage.m1.env = node.boot()
        stage.m1.term = 2
        node.env.spawn("serve", stage.m1.serve())
        await stage.until_state("t1", TaskState.FAILED)
        assert stage.machine.starts == {"t1": 1, "t2": 1}

    on_stage(body)


@pytest.mark.parametrize("is_power_lost", [False, True])
def test_a_killed_agent_adopts_what_runs_and_reports_what_ended(is_power_lost: bool) -> None:
    async def body(stage: Stage) -> None:
        for name in ("t1", "t2"):
            stage.m1.assignments[TaskId(name)] = assignment(name, health=HEALTH)
        await stage.until_state("t1", TaskState.RUNNING)
        await stage.until_state("t2", TaskState.RUNNING)
        pid = stage.m1.stored[TaskId("t1")].pid
        counter = stage.m1.stored[TaskId("t1")].counter
        stage.worker.crash(is_power_lost=is_power_lost)
        await asyncio.sleep(1.0)
        stage.machine.end("t2", 7)
        stage.worker.boot()
        await stage.until_state("t2", TaskState.FAILED)
        assert stage.m1.stored[TaskId("t2")].exit_code == 7
        await asyncio.sleep(5.0)
        assert stage.m1.stored[TaskId("t1")].pid == pid
        assert stage.m1.stored[TaskId("t1")].counter == counter
        assert stage.machine.starts == {"t1": 1, "t2": 1}
        stage.machine.end("t1", 8)
        await stage.until_state("t1", TaskState.FAILED)

    on_stage(body)


def test_what_is_no_longer_assigned_is_stopped_and_forgotten() -> None:
    async def body(stage: Stage) -> None:
        for name in ("t1", "t2", "t3"):
            stage.m1.assignments[TaskId(name)] = assignment(name)
        await stage.until_state("t3", TaskState.RUNNING)
        await stage.m1.unassign("t1")
        await stage.until("t1 is gone", lambda: "t1" not in stage.machine.tasks)
        stage.worker.crash()
        del stage.m1.assignments[TaskId("t2")]
        await stage.until("noticed", lambda: not stage.m1.has_session)
        stage.worker.boot()
        await stage.until("t2 is gone", lambda: set(stage.machine.tasks) == {"t3"})
        assert stage.machine.running == {"t3"}
        # Nothing comes back from the disk, either.
        await asyncio.sleep(1.0)
        stage.worker.crash(is_power_lost=True)
        stage.worker.boot()
        await asyncio.sleep(10.0)
        assert set(stage.machine.tasks) == {"t3"}

    on_stage(body)


def test_what_only_the_engine_knows_waits_for_a_leader_and_is_then_put_away() -> None:
    async def body(stage: Stage) -> None:
        stage.m1.is_leading = False
        stage.worker.crash()
        helper = stage.world.node("helper").boot()
        engine = FakeEngine(stage.machine, helper)
        for name in ("old", "new"):
            await engine.prepare(assignment(name), NodeFacts(node_id="w1", hostname="w1"))
            await engine.start(assignment(name).task.id)
        stage.worker.boot()
        await asyncio.sleep(30.0)
        assert stage.machine.running == {"old", "new"}
        stage.m1.assignments[TaskId("new")] = assignment("new")
        stage.m1.is_leading = True
        await stage.until("old is gone", lambda: set(stage.machine.tasks) == {"new"})
        await stage.until_state("new", TaskState.RUNNING)
        assert stage.machine.starts == {"old": 1, "new": 1}

    on_stage(body)


def test_logs_are_sent_by_a_stream_of_their_own_until_they_are_cancelled() -> None:
    async def body(stage: Stage) -> None:
        pages: list[str] = []

        async def publish(stream: Stream) -> None:
            while (frame := await stream.receive()) is not None:
                message = codec.decode(LogMessage, frame)
                if message.hello is not None:
                    pages.append(f"{message.hello.node_id} {message.hello.order_id}")
                if message.page is not None and message.page.lines:
                    lines = codec.decode(LogEvent, message.page.lines).lines
                    pages.extend(line.text.decode() for line in lines)

        stage.m1.extra_streams["skep.v1.Workers/PublishLogs"] = publish
        await stage.until("a session", lambda: stage.m1.has_session)
        stage.machine.write("t1", 1, "one")
        wanted = (LogWanted(task_id=TaskId("t1")),)
        for order_id in ("o1", "o2"):
            order = LogOrder(order_id=order_id, tasks=wanted, is_follow=True)
            await stage.m1.send(LeaderMessage(logs=order))
        await stage.until("both", lambda: pages.count("one") == 2)
        assert {"w1 o1", "w1 o2"} <= set(pages)
        await stage.m1.send(LeaderMessage(logs_cancelled=LogsCancelled(order_id="o1")))
        await stage.until("one is left", lambda: len(stage.machine.readers) == 1)
        stage.machine.write("t1", 2, "two")
        await stage.until("the other goes on", lambda: pages.count("two") == 1)
        # The session ends, and with it all that was ordered by it.
        stage.m1.is_leading = False
        await stage.m1.hang_up()
        await stage.until("none is left", lambda: not stage.machine.readers)
        assert stage.agents[0].logs.open_orders == 0

    on_stage(body)
