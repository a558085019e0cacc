"""From a client to a task's node and back, on a simulated network: who may speak to whom."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from skep.api import codec
from skep.client import ClientError, NotFound, OutcomeUnknown, Refused, Unavailable, connect
from skep.domain.base import ClusterId, NodeId, SessionId, TaskId
from skep.domain.control import LogStream
from skep.domain.execution import (
    EXEC_FORMAT,
    ExecAnswer,
    ExecHello,
    ExecOrder,
    ExecOutput,
    ExecSpec,
    TerminalSize,
)
from skep.domain.session import LeaderMessage
from skep.domain.states import TaskState
from skep.env import CallError, Code, Env, Rejected
from skep.env import Service as Served
from skep.manager import execs
from skep.manager.execs import Execs
from skep.manager.store.actor import Store
from skep.manager.store.core.transaction import Transaction
from skep.worker.execs import ExecRunner
from tests.sim.world import World, simulate
from tests.unit.manager.build import node, service, task
from tests.unit.manager.raft_stand_in import FakeRaft
from tests.unit.worker.fakes import FakeEngine, FakeMachine

CLUSTER = ClusterId("c1")
M1, M2 = "127.0.0.1:7000", "127.0.0.2:7000"
SEEDS = range(4)


class Echo:
    """A program that says what it is told, and ends with its input."""

    def __init__(self) -> None:
        self._said: asyncio.Queue[ExecOutput] = asyncio.Queue()
        self.sizes: list[TerminalSize] = []
        self.is_closed = False

    async def send(self, data: bytes) -> None:
        await self._said.put(ExecOutput(stream=LogStream.STDERR, data=data))

    async def end_input(self) -> None:
        await self._said.put(ExecOutput(exit_code=3))

    async def resize(self, size: TerminalSize) -> None:
        self.sizes.append(size)

    async def receive(self) -> ExecOutput:
        return await self._said.get()

    async def close(self) -> None:
        self.is_closed = True


class Engine(FakeEngine):
    """Runs nothing but echoes."""

    def __init__(self, env: Env) -> None:
        super().__init__(FakeMachine(), env)
        self.echoes: list[Echo] = []

    async def exec(self, task_id: TaskId, spec: ExecSpec) -> Echo:
        if spec.argv != ("echo",):
            raise Rejected(f"{spec.argv[0]} can't be run")
        self.echoes.append(Echo())
        return self.echoes[-1]


class Stage:
    """Managers m1 (leading) and m2, a worker w1, a task that runs there and one that has ended."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.dispatcher: Stage | None = self
        self.leader_address: str | None = M1
        self.execs: list[Execs] = []
        self.orders: list[ExecOrder] = []
        self.is_deaf = False
        self.env = world.node("client").boot()
        self.worker = world.node("w1").boot()
        self.engine = Engine(self.worker)
        self.runner = ExecRunner(self.worker, CLUSTER, NodeId("w1"), {"process": self.engine})

    is_leader = True

    def session_of(self, node_id: NodeId) -> SessionId | None:
        return SessionId("s1") if node_id == "w1" else None

    def tell(self, node_id: NodeId, message: LeaderMessage) -> None:
        assert message.exec is not None
        self.orders.append(message.exec)
        if not self.is_deaf:
            self.runner.begin(M1, message.exec)

    async def begin(self) -> None:
        for address, office in ((M1, self), (M2, Follower())):
            env = self.world.node(f"m{len(self.execs) + 1}").boot()
            store = Store(env)
            FakeRaft(store)
            await store.update(_rows)
            found = Execs(env, store, office, CLUSTER)
            streams = {
                execs.METHOD: found.serve,
                execs.FORWARDED: found.serve_forwarded,
                execs.RUN: found.serve_run,
            }
            await env.transport.listen(address, Served(streams=streams))
            self.execs.append(found)

    def is_idle(self) -> bool:
        left = [each.open_count for each in self.execs] + [self.runner.open_orders]
        return not any(left) and all(echo.is_closed for echo in self.engine.echoes)


class Follower:
    """The office of a manager that doesn't lead."""

    dispatcher = None
    is_leader = False
    leader_address = M1


def _rows(tx: Transaction) -> None:
    tx.create(service("s1", "web"))
    for name in ("w1", "w2"):
        tx.create(node(name))
    tx.create(task("t1", TaskState.RUNNING, node_id="w1", slot=1))
    tx.create(task("t2", TaskState.COMPLETE, node_id="w1", slot=2))
    tx.create(task("t3", TaskState.RUNNING, node_id="w2", slot=3))


def on_stage(body: Callable[[Stage], Awaitable[None]]) -> None:
    async def scenario(world: World) -> None:
        stage = Stage(world)
        await stage.begin()
        await body(stage)
        await world.eventually("nothing leaks", stage.is_idle, within_s=20.0)

    for seed in SEEDS:
        simulate("exec", scenario, seed)


@pytest.mark.parametrize("address", [M1, M2])
def test_what_is_said_comes_back_in_order_and_then_the_end(address: str) -> None:
    async def body(stage: Stage) -> None:
        async with connect([address], seams=stage.env) as cluster:
            running = await cluster.tasks.start_exec("t1", ExecSpec(argv=("echo",), has_input=True))
            words = [str(number).encode() for number in range(50)]
            for word in words:
                await running.send(word)
            await running.resize(4, 5)
            await running.end_input()
            seen = []
            while (told := await running.receive()) is not None:
                seen.append((told.stream, told.data))
            assert seen == [(LogStream.STDERR, word) for word in words]
            assert running.exit_code == 3
            assert stage.engine.echoes[0].sizes == [TerminalSize(rows=4, columns=5)]
            await running.close()

    on_stage(body)


def test_a_client_that_goes_takes_its_program_along() -> None:
    async def body(stage: Stage) -> None:
        async with connect([M2], seams=stage.env) as cluster:
            running = await cluster.tasks.start_exec("t1", ExecSpec(argv=("echo",), has_input=True))
            await running.send(b"here")
            assert await running.receive() is not None
            await running.close()
            (echo,) = stage.engine.echoes
            await stage.world.eventually("closed", lambda: echo.is_closed, within_s=5.0)

    on_stage(body)


@pytest.mark.parametrize(
    ("ref", "argv", "kind", "told"),
    [
        ("t9", "echo", NotFound, "no task 't9'"),
        ("t2", "echo", Refused, "is complete"),
        ("t3", "echo", Refused, "node w2 is not connected"),
        ("t1", "vi", Refused, "vi can't be run"),
    ],
)
def test_what_can_t_be_done_is_told(
    ref: str, argv: str, kind: type[ClientError], told: str
) -> None:
    async def body(stage: Stage) -> None:
        async with connect([M2], seams=stage.env) as cluster:
            with pytest.raises(kind, match=told):
                await cluster.tasks.exec(ref, ExecSpec(argv=(argv,)))

    on_stage(body)


def test_a_node_that_doesn_t_answer_is_told_and_nothing_is_run_later() -> None:
    async def body(stage: Stage) -> None:
        stage.is_deaf = True
        async with connect([M1], seams=stage.env, deadline_s=3.0) as cluster:
            with pytest.raises(Unavailable, match="does not answer"):
                await cluster.tasks.exec("t1", ExecSpec(argv=("echo",)))
        for order in stage.orders:
            stage.runner.begin(M1, order)
        await stage.world.eventually("given up", stage.is_idle, within_s=20.0)
        assert stage.engine.echoes == []

    on_stage(body)


def test_an_order_is_its_own_node_s() -> None:
    async def body(stage: Stage) -> None:
        stage.is_deaf = True
        client = connect([M1], seams=stage.env)
        waiting = stage.env.spawn("run", client.tasks.exec("t1", ExecSpec(argv=("echo",))))
        await stage.world.eventually("ordered", lambda: bool(stage.orders), within_s=5.0)
        channel = stage.env.transport.channel(M1)
        stream = await channel.open(execs.RUN, deadline_s=5.0)
        hello = ExecHello(
            format=EXEC_FORMAT,
            cluster_id=CLUSTER,
            node_id=NodeId("w2"),
            order_id=stage.orders[0].order_id,
        )
        await stream.send(codec.encode(ExecAnswer(hello=hello)))
        with pytest.raises(CallError) as refused:
            await stream.receive()
        assert refused.value.code is Code.PERMISSION_DENIED
        waiting.cancel()
        await asyncio.wait((waiting,))
        await client.close()
        await channel.close()

    on_stage(body)


def test_a_program_whose_node_dies_has_no_end() -> None:
    async def body(stage: Stage) -> None:
        async with connect([M1], seams=stage.env) as cluster:
            running = await cluster.tasks.start_exec("t1", ExecSpec(argv=("echo",), has_input=True))
            stage.runner.cancel_all()
            with pytest.raises(OutcomeUnknown):
                await running.receive()
            await running.close()

    on_stage(body)
