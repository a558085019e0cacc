"""From a client to the nodes and back, on a simulated network: readers, orders and their ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import pytest

from skep.api import codec
from skep.api.logs import labelled
from skep.client import Unavailable, connect
from skep.domain.base import ClusterId, NodeId, SessionId, TaskId
from skep.domain.control import LogEvent, LogLine, LogStream
from skep.domain.session import (
    LOGS_FORMAT,
    LeaderMessage,
    LogHello,
    LogMessage,
    LogOrder,
    LogPage,
    LogWanted,
)
from skep.domain.states import TaskState
from skep.env import CallError, Code, Env
from skep.env import Service as Served
from skep.manager.logs import readers
from skep.manager.logs.readers import LogReaders
from skep.manager.store.actor import Store
from skep.manager.store.core.transaction import Transaction
from skep.worker.logs import LogPublisher
from skep.worker.orders import ORDERS_LIMIT
from tests.sim.world import World, simulate
from tests.unit.manager.build import node, service, task
from tests.unit.manager.raft_stand_in import FakeRaft
from tests.unit.worker.fakes import FakeEngine, FakeMachine

CLUSTER = ClusterId("c1")
M1, M2 = "127.0.0.1:7000", "127.0.0.2:7000"
SEEDS = range(4)


class Sessions:
    """The leader's sessions: what is told to a node reaches its publisher at once."""

    def __init__(self) -> None:
        self.open: dict[NodeId, tuple[SessionId, LogPublisher]] = {}
        self.address = M1
        self.told: list[LeaderMessage] = []

    def session_of(self, node_id: NodeId) -> SessionId | None:
        return self.open[node_id][0] if node_id in self.open else None

    def tell(self, node_id: NodeId, message: LeaderMessage) -> None:
        self.told.append(message)
        if node_id not in self.open:
            return
        publisher = self.open[node_id][1]
        if message.logs is not None:
            publisher.begin(self.address, message.logs)
        if message.logs_cancelled is not None:
            publisher.cancel(message.logs_cancelled.order_id)


class Office:
    """Who leads."""

    def __init__(self, sessions: Sessions | None) -> None:
        self.dispatcher = sessions
        self.leader_address: str | None = M1

    @property
    def is_leader(self) -> bool:
        return self.dispatcher is not None


class Stage:
    """Managers m1 (leading) and m2, workers w1 and w2, and a service with a task on each."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.sessions = Sessions()
        self.offices = [Office(self.sessions), Office(None)]
        self.readers: list[LogReaders] = []
        self.stores: list[Store] = []
        self.machines = {NodeId(name): FakeMachine() for name in ("w1", "w2")}
        self.publishers: dict[NodeId, LogPublisher] = {}
        self.env = world.node("client").boot()

    async def begin(self) -> None:
        for place, address in enumerate((M1, M2)):
            env = self.world.node(f"m{place + 1}").boot()
            store = Store(env)
            FakeRaft(store)
            await store.update(self._rows)
            found = LogReaders(env, store, self.offices[place], CLUSTER)
            streams = {
                readers.METHOD: found.serve,
                readers.FORWARDED: found.serve_forwarded,
                readers.PUBLISH: found.serve_publish,
            }
            await env.transport.listen(address, Served(streams=streams))
            self.readers.append(found)
            self.stores.append(store)
        for node_id, machine in self.machines.items():
            self.open_session(node_id, self.world.node(node_id).boot())
            machine.write(f"t-{node_id}", 1, f"first of {node_id}")

    def _rows(self, tx: Transaction) -> None:
        tx.create(service("s1", "web"))
        for number, node_id in enumerate(self.machines):
            tx.create(node(node_id))
            tx.create(task(f"t-{node_id}", TaskState.RUNNING, node_id=node_id, slot=number + 1))

    def open_session(self, node_id: NodeId, env: Env) -> None:
        engines = {"process": FakeEngine(self.machines[node_id], env)}
        publisher = LogPublisher(env, CLUSTER, node_id, engines)
        self.publishers[node_id] = publisher
        self.sessions.open[node_id] = (SessionId(env.ids.new_id()), publisher)

    def close_session(self, node_id: NodeId) -> None:
        del self.sessions.open[node_id]
        self.publishers[node_id].cancel_all()

    async def update(self, fn: Callable[[Transaction], Any]) -> None:
        for store in self.stores:
            await store.update(fn)

    async def read(
        self, into: list[str], *, addresses: tuple[str, ...] = (M1,), **query: Any
    ) -> None:
        """Read with the client, as a person would: lines, and problems in brackets."""
        async with (
            connect(addresses, seams=self.env, deadline_s=20.0) as cluster,
            aclosing(cluster.logs(["web"], **query)) as events,
        ):
            async for event in events:
                into += [line.text.decode() for line in event.lines]
                into += [f"[{event.problem}]"] if event.problem else []

    def follow(self, into: list[str], **query: Any) -> asyncio.Task[None]:
        return self.env.spawn("reader", self.read(into, is_follow=True, **query))

    async def until(self, what: str, holds: Callable[[], bool], within_s: float = 20.0) -> float:
        return await self.world.eventually(what, holds, within_s=within_s)

    def is_idle(self) -> bool:
        """Whether nobody reads, and nobody sends."""
        left = [each.reader_count + each.order_count for each in self.readers]
        left += [publisher.open_orders for publisher in self.publishers.values()]
        left += [len(machine.readers) for machine in self.machines.values()]
        return not any(left)


def on_stage(body: Callable[[Stage], Awaitable[None]], seeds: range = SEEDS) -> None:
    async def scenario(world: World) -> None:
        stage = Stage(world)
        await stage.begin()
        await body(stage)
        await stage.until("nothing leaks", stage.is_idle)

    for seed in seeds:
        simulate("logs", scenario, seed)


@pytest.mark.parametrize("address", [M1, M2])
def test_all_lines_of_all_nodes_by_any_manager(address: str) -> None:
    async def body(stage: Stage) -> None:
        for number in range(2, 42):
            name = "w1" if number % 2 else "w2"
            stage.machines[NodeId(name)].write(f"t-{name}", number * 10, str(number))
        seen: list[str] = []
        await stage.read(seen, addresses=(address,))
        assert {"first of w1", "first of w2"} == {text for text in seen if not text.isdigit()}
        numbers = [int(text) for text in seen if text.isdigit()]
        assert sorted(numbers) == list(range(2, 42))
        # Pages hold three lines: nothing is further from its place than a page or two.
        assert all(abs(number - place) < 10 for place, number in enumerate(numbers, 2))
        seen.clear()
        await stage.read(seen, addresses=(address,), tail=1)
        assert seen == ["40", "41"]

    on_stage(body)


def test_a_follower_gets_what_comes_and_new_tasks_until_it_leaves() -> None:
    async def body(stage: Stage) -> None:
        seen: list[str] = []
        reading = stage.follow(seen, addresses=(M2,))
        await stage.until("history", lambda: len(seen) == 2)
        stage.machines[NodeId("w1")].write("t-w1", 5, "second")
        await stage.until("a new line", lambda: seen[2:] == ["second"], within_s=1)
        stage.machines[NodeId("w2")].write("new", 6, "of a new task")
        row = task("new", TaskState.RUNNING, node_id=NodeId("w2"), slot=3)
        await stage.update(lambda tx: tx.create(row))
        await stage.until("a new task", lambda: seen[3:] == ["of a new task"], within_s=2)
        reading.cancel()
        # Those who send hear of it at once, not by a timeout.
        await stage.until("all have stopped", stage.is_idle, within_s=1)
        told = stage.sessions.told
        orders = {each.logs.order_id for each in told if each.logs}
        assert orders == {each.logs_cancelled.order_id for each in told if each.logs_cancelled}

    on_stage(body)


def test_a_node_with_several_tasks_sends_them_in_order() -> None:
    async def body(stage: Stage) -> None:
        machine = stage.machines[NodeId("w1")]
        for number in range(10, 40):
            machine.write("t-w1" if number % 3 else "more", number, str(number))
        row = task("more", TaskState.RUNNING, node_id=NodeId("w1"), slot=3)
        await stage.update(lambda tx: tx.create(row))
        seen: list[str] = []
        await stage.read(seen)
        numbers = [int(text) for text in seen if text.isdigit()]
        assert sorted(numbers) == list(range(10, 40))
        assert all(abs(number - place) < 8 for place, number in enumerate(numbers, 10))

    on_stage(body, range(2))


def test_a_node_that_was_gone_goes_on_where_it_ended() -> None:
    async def body(stage: Stage) -> None:
        seen: list[str] = []
        reading = stage.follow(seen)
        await stage.until("history", lambda: len(seen) == 2)
        stage.close_session(NodeId("w1"))
        stage.machines[NodeId("w1")].write("t-w1", 5, "meanwhile")
        await asyncio.sleep(2)
        stage.open_session(NodeId("w1"), stage.world.nodes["w1"].env)
        await stage.until("the rest", lambda: seen[2:] == ["meanwhile"], within_s=3)
        reading.cancel()

    on_stage(body)


def test_a_new_leader_goes_on_where_the_old_one_ended() -> None:
    async def body(stage: Stage) -> None:
        seen: list[str] = []
        reading = stage.follow(seen, addresses=(M1, M2), tail=1)
        await stage.until("history", lambda: len(seen) == 2)
        stage.machines[NodeId("w1")].write("t-w1", 5, "before")
        await stage.until("a line", lambda: len(seen) == 3)
        old, new = stage.offices
        old.dispatcher, new.dispatcher = None, stage.sessions
        old.leader_address = new.leader_address = M2
        stage.sessions.address = M2
        for number in range(5):
            stage.machines[NodeId("w2")].write("t-w2", 6 + number, f"{number}")
        await stage.until("the rest", lambda: len(seen) == 8, within_s=5)
        assert seen[2:] == ["before", "0", "1", "2", "3", "4"]
        await stage.until("the old one stops", lambda: stage.readers[0].reader_count == 0)
        await stage.until("the new one reads", lambda: stage.readers[1].reader_count == 1)
        stage.machines[NodeId("w2")].write("t-w2", 20, "after")
        await stage.until("a line of the new one", lambda: seen[8:] == ["after"], within_s=2)
        reading.cancel()

    on_stage(body)


def test_a_node_that_is_lost_meanwhile_is_told_of_and_the_others_are_read() -> None:
    async def body(stage: Stage) -> None:
        stage.publishers[NodeId("w2")]._engines = {"process": Stuck()}  # type: ignore[dict-item]
        seen: list[str] = []
        await asyncio.wait_for(stage.read(seen), 10)
        assert seen == [
            "[node w2 broke off: the output of web.2.t-w2 can't be had]",
            "first of w1",
        ]

    on_stage(body)


class Stuck:
    """An engine that never answers."""

    async def logs(self, *_: object) -> None:
        await asyncio.Event().wait()


def test_a_slow_reader_makes_senders_wait_and_nobody_hold_much() -> None:
    async def body(stage: Stage) -> None:
        machine = stage.machines[NodeId("w1")]
        for number in range(3000):
            machine.write("t-w1", number + 2, str(number))
        async with (
            connect((M1,), seams=stage.env, deadline_s=20.0) as cluster,
            aclosing(cluster.logs(["web"])) as events,
        ):
            first = await anext(events)
            await asyncio.sleep(60)
            # A thousand pages are to come; most of it waits where it was written.
            left = [len(each._task.lines) - each._at for each in machine.readers]
            assert sum(left) > 2500
            count = len(first.lines)
            problems = []
            async for event in events:
                count += len(event.lines)
                problems += [event.problem] if event.problem else []
        assert (count, problems) == (3002, [])

    on_stage(body, range(2))


def order_of(stage: Stage) -> str:
    [order_id] = [
        order_id
        for order_id, opened in stage.readers[0]._opened.items()
        if opened.order.node_id == "w1"
    ]
    return order_id


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"order_id": "nobodys"}, Code.NOT_FOUND),
        ({"node_id": NodeId("w2")}, Code.PERMISSION_DENIED),
        ({"cluster_id": ClusterId("other")}, Code.PERMISSION_DENIED),
        ({"format": 99}, Code.FAILED_PRECONDITION),
        ({}, Code.PERMISSION_DENIED),
    ],
)
def test_lines_that_were_not_ordered_are_refused(changes: dict[str, Any], code: Code) -> None:
    async def body(stage: Stage) -> None:
        # The node itself is silent; somebody else, or the node for another's task, speaks.
        stage.publishers[NodeId("w1")].begin = lambda address, order: None  # type: ignore[method-assign]
        seen: list[str] = []
        reading = stage.follow(seen)
        await stage.until("orders", lambda: stage.readers[0].order_count == 2)
        parts = {
            "format": LOGS_FORMAT,
            "cluster_id": CLUSTER,
            "node_id": NodeId("w1"),
            "order_id": order_of(stage),
        }
        stream = await stage.env.transport.channel(M1).open(readers.PUBLISH, deadline_s=1)
        await stream.send(codec.encode(LogMessage(hello=LogHello(**{**parts, **changes}))))
        forged = LogLine(time_ns=1, stream=LogStream.STDOUT, text=b"forged")
        page = LogPage(task_id=TaskId("t-w2"), lines=codec.encode(LogEvent(lines=(forged,))))
        await stream.send(codec.encode(LogMessage(page=page)))
        with pytest.raises(CallError) as caught:
            await stream.receive()
        assert caught.value.code is code
        await asyncio.sleep(1)
        assert seen == ["first of w2"]
        reading.cancel()

    on_stage(body, range(2))


def test_a_node_cannot_say_whose_lines_its_lines_are() -> None:
    event = LogEvent(
        task_id=TaskId("mine"),
        node_name="w9",
        problem="boo",
        lines=(LogLine(time_ns=1, stream=LogStream.STDERR, text=b"\xff"),),
    )
    label = LogEvent(task_id=TaskId("t"), task_name="web.1", node_name="w1", position="7")
    got = codec.decode(LogEvent, labelled(codec.encode(event), label))
    assert (got.task_id, got.task_name, got.node_name) == ("t", "web.1", "w1")
    assert (got.problem, got.position, got.lines) == ("", "7", event.lines)


def test_readers_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "READERS_LIMIT", 2)

    async def body(stage: Stage) -> None:
        reading = [stage.follow([]) for _ in range(2)]
        await stage.until("two", lambda: stage.readers[0].reader_count == 2)
        with pytest.raises(Unavailable, match="2 others are reading"):
            await stage.read([])
        for each in reading:
            each.cancel()

    on_stage(body, range(2))


def test_streams_of_one_node_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "ORDERS_OF_NODE_LIMIT", 1)

    async def body(stage: Stage) -> None:
        reading = stage.follow([])
        await stage.until("one each", lambda: stage.readers[0].order_count == 2)
        with pytest.raises(Unavailable, match="come from node w1 already"):
            await stage.read([])
        reading.cancel()

    on_stage(body, range(2))


def test_a_worker_takes_no_more_orders_than_it_can_carry() -> None:
    async def body(stage: Stage) -> None:
        publisher = stage.publishers[NodeId("w1")]
        for number in range(ORDERS_LIMIT + 10):
            wanted = (LogWanted(task_id=TaskId("t-w1")),)
            publisher.begin("127.0.0.9:1", LogOrder(order_id=str(number), tasks=wanted))
        assert publisher.open_orders == ORDERS_LIMIT
        publisher.cancel_all()

    on_stage(body, range(1))


def test_who_does_not_lead_passes_a_reader_on_once() -> None:
    async def body(stage: Stage) -> None:
        # Each believes that the other one leads.
        stage.offices[0].dispatcher = None
        stage.offices[0].leader_address = M2
        stream = await stage.env.transport.channel(M1).open(readers.METHOD, deadline_s=1)
        await stream.send(b"")
        with pytest.raises(CallError) as caught:
            await stream.receive()
        assert caught.value.code is Code.UNAVAILABLE

    on_stage(body)
