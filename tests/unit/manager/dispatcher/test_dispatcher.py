"""The dispatcher over a store: who gets a session, and what becomes of verdicts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from skep.actor import Mailbox
from skep.domain.base import ClusterId, NodeId, RegistryId, pairs, replace
from skep.domain.objects import (
    Node,
    NodeDescription,
    NodeRole,
    NodeState,
    Registry,
    Revision,
    Task,
    TaskStatus,
)
from skep.domain.session import (
    SESSION_FORMAT,
    Heartbeat,
    LeaderMessage,
    StatusBatch,
    TaskReport,
    WorkerHello,
    WorkerMessage,
)
from skep.domain.spec import RunSpec, ServiceSpec, TaskSpec
from skep.domain.states import TaskState
from skep.env import CallError, Code, Env
from skep.manager.dispatcher.actor import Dispatcher, DispatcherStats
from skep.manager.dispatcher.core.liveness import GRACE_S
from skep.manager.dispatcher.core.nodes import ManagerRow
from skep.manager.endpoints.core.feed import EndpointFeed
from skep.manager.raft.core.model import ProposalUnknown
from skep.manager.store.actor import Store
from skep.manager.store.core.transaction import Transaction
from tests.support.simulated import in_simulation
from tests.unit.manager.build import service, task
from tests.unit.manager.raft_stand_in import FakeRaft
from tests.unit.manager.streams import FakeStream

CLUSTER = ClusterId("c1")
M1 = ManagerRow(NodeId("m1"), "m1", "127.0.0.1:7000")


def hello(name: str = "w1", **changes: Any) -> WorkerMessage:
    parts: dict[str, Any] = {
        "format": SESSION_FORMAT,
        "cluster_id": CLUSTER,
        "node_id": NodeId(name),
        "name": name,
        "role": NodeRole.WORKER,
        "description": NodeDescription(hostname=name),
    }
    return WorkerMessage(hello=WorkerHello(**{**parts, **changes}))


class Desk:
    """A leader of term 3."""

    def __init__(self, env: Env) -> None:
        self.env = env
        self.store = Store(env)
        self.raft = FakeRaft(self.store)
        self.raft.term = 3
        self.served: list[asyncio.Task[None]] = []
        self.dispatcher = Dispatcher(
            env,
            Mailbox("dispatcher"),
            store=self.store,
            term=3,
            feed=EndpointFeed(),
            cluster_id=CLUSTER,
            me=M1.node_id,
            managers=(M1,),
            stats=DispatcherStats(),
        )

    def open(self, message: WorkerMessage) -> tuple[FakeStream, asyncio.Task[None]]:
        stream = FakeStream()
        stream.say(message)
        self.served.append(self.env.spawn("serve", self.dispatcher.serve(stream)))
        return stream, self.served[-1]

    async def refused(self, message: WorkerMessage) -> CallError:
        _, served = self.open(message)
        with pytest.raises(CallError) as caught:
            await served
        return caught.value

    def node(self, name: str = "w1") -> Node:
        found = self.store.tables.get(Node, name)
        assert found is not None
        return found


def at_desk(body: Callable[[Desk], Awaitable[None]]) -> None:
    async def run(env: Env) -> None:
        desk = Desk(env)
        actor = env.spawn("dispatcher", desk.dispatcher.run())
        await asyncio.sleep(0.1)
        await body(desk)
        actor.cancel()
        await asyncio.wait((actor,))
        # Every session that is left ends by itself, and says why.
        for ended in await asyncio.gather(*desk.served, return_exceptions=True):
            assert ended is None or isinstance(ended, CallError), ended

    in_simulation(run, range(4))


def test_a_worker_is_put_on_record_welcomed_and_told_what_to_hold() -> None:
    async def body(desk: Desk) -> None:
        stream, _ = desk.open(hello())
        await asyncio.sleep(0.1)
        assert (desk.node().state, desk.node().runs_tasks) == (NodeState.READY, True)
        welcome, first = stream.heard(LeaderMessage)
        assert welcome.welcome is not None
        assert welcome.welcome.term == 3
        assert first.assignments is not None
        assert first.assignments.sequence == 1
        assert desk.dispatcher.session_count == 1
        stream.hang_up()
        await asyncio.sleep(0.1)
        assert desk.dispatcher.session_count == 0

    at_desk(body)


def test_a_node_that_says_nothing_of_encryption_is_what_it_said_before() -> None:
    can = (("network.encryption", "wireguard"), ("network.wireguard-key", "key"))
    silent = (("network.plane", "not known"),)
    can_not = (("network.encryption", "none: why"),)

    async def body(desk: Desk) -> None:
        for told, known in (
            (silent, silent),
            ((*can, *silent), (*can, *silent)),
            (silent, (*can, *silent)),
            (can_not, can_not),
        ):
            description = NodeDescription(hostname="w1", notes=told)
            stream, _ = desk.open(hello(description=description))
            await asyncio.sleep(0.1)
            assert desk.node().description.notes == pairs(known)
            stream.hang_up()
            await asyncio.sleep(0.1)

    at_desk(body)


def test_who_does_not_belong_gets_no_session() -> None:
    async def body(desk: Desk) -> None:
        for message, code in (
            (hello(cluster_id=ClusterId("other")), Code.PERMISSION_DENIED),
            (hello(format=99), Code.FAILED_PRECONDITION),
            (hello(highest_term=4), Code.UNAVAILABLE),
            (WorkerMessage(heartbeat=Heartbeat(number=1)), Code.FAILED_PRECONDITION),
        ):
            assert (await desk.refused(message)).code is code
        assert desk.store.tables.get(Node, "w1") is None
        desk.open(hello("w1"))
        await asyncio.sleep(0.1)
        namesake = await desk.refused(hello("w1", node_id=NodeId("w2")))
        assert namesake.code is Code.ALREADY_EXISTS

    at_desk(body)


def test_a_copied_node_is_refused_and_one_that_lost_its_stream_gets_in_again() -> None:
    async def body(desk: Desk) -> None:
        first, served = desk.open(hello())
        await asyncio.sleep(1.0)
        assert (await desk.refused(hello())).code is Code.ALREADY_EXISTS
        first.say(WorkerMessage(heartbeat=Heartbeat(number=1)))
        await asyncio.sleep(2.0)
        assert (await desk.refused(hello())).code is Code.ALREADY_EXISTS
        await asyncio.sleep(2.0)
        second, _ = desk.open(hello())
        await asyncio.sleep(0.1)
        assert len(second.sent) == 2
        with pytest.raises(CallError, match="took over"):
            await served
        assert desk.node().state is NodeState.READY

    at_desk(body)


def test_a_silent_node_is_down_and_one_that_speaks_again_is_ready() -> None:
    async def body(desk: Desk) -> None:
        stream, _ = desk.open(hello())
        await asyncio.sleep(GRACE_S - 0.2)
        assert desk.node().state is NodeState.READY
        await asyncio.sleep(1.0)
        assert desk.node().state is NodeState.DOWN
        assert desk.node().message.startswith("silent for 6")
        stream.say(WorkerMessage(heartbeat=Heartbeat(number=1)))
        await asyncio.sleep(0.1)
        assert (desk.node().state, desk.node().message) == (NodeState.READY, "")
        assert desk.node("m1").state is NodeState.READY

    at_desk(body)


def test_a_verdict_that_could_not_be_written_is_written_later() -> None:
    async def body(desk: Desk) -> None:
        desk.open(hello())
        await asyncio.sleep(5.0)

        def lost(_: bytes) -> None:
            raise ProposalUnknown("no word in time")

        desk.raft.fates = [lost]
        await asyncio.sleep(3.0)
        assert desk.raft.fates == []
        assert desk.node().state is NodeState.DOWN

    at_desk(body)


def test_a_batch_of_long_words_is_stored_in_parts() -> None:
    async def body(desk: Desk) -> None:
        stream, _ = desk.open(hello())
        await asyncio.sleep(0.1)
        held = [task(f"t{n}", TaskState.ASSIGNED, node_id=NodeId("w1")) for n in range(900)]

        def write(tx: Transaction) -> None:
            for row in held:
                tx.create(row)

        await desk.store.update(write)
        status = TaskStatus(state=TaskState.FAILED, counter=1, error="ä" * 5000, message="€" * 5000)
        reports = tuple(TaskReport(task_id=row.id, status=status) for row in held)
        stream.say(WorkerMessage(statuses=StatusBatch(number=7, reports=reports)))
        await asyncio.sleep(1.0)
        assert {row.status.state for row in desk.store.tables.all(Task)} == {TaskState.FAILED}
        assert stream.heard(LeaderMessage)[-1].stored is not None

    at_desk(body)


def test_a_login_that_changes_reaches_the_nodes_that_need_it_at_once() -> None:
    async def body(desk: Desk) -> None:
        streams = {name: desk.open(hello(name))[0] for name in ("w1", "w2")}
        await asyncio.sleep(0.1)
        run = RunSpec(image="r.io/app:1")
        of = service(spec=ServiceSpec(name="web", task=TaskSpec(run=run, engine="docker")))
        revision = Revision(id="s1.1", service_id=of.id, number=1, spec=of.spec)
        login = Registry(id=RegistryId("r"), name="r.io", username="u", password="old")
        row = task("t1", TaskState.ASSIGNED, node_id=NodeId("w1"))

        def create(tx: Transaction) -> None:
            for each in (of, revision, login, row):
                tx.create(each)

        await desk.store.update(create)
        await asyncio.sleep(0.1)
        await desk.store.update(lambda tx: tx.update(replace(login, password="new")))
        await asyncio.sleep(0.05)
        sets = {
            name: [each.assignments for each in stream.heard(LeaderMessage) if each.assignments]
            for name, stream in streams.items()
        }
        words = [[each.password for each in told.logins] for told in sets["w1"]]
        assert words == [[], ["old"], ["new"]]
        assert [told.sequence for told in sets["w2"]] == [1]

    at_desk(body)
