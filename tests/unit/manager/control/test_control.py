"""The API round the cores: request ids, forwarding, and errors that say what was done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

import pytest

from skep.api import codec
from skep.domain.base import NodeId, ServiceId, Struct
from skep.domain.base import replace as replace_row
from skep.domain.control import (
    CreateServiceRequest,
    DeployStackRequest,
    DeployStackResponse,
    GetRequest,
    ListServicesRequest,
    ListServicesResponse,
    RemoveRequest,
    RemoveResponse,
    ServiceView,
)
from skep.domain.objects import Request, Service
from skep.domain.spec import StackSpec
from skep.env import CallError, Channel, Code, Env, Rejected, Transport
from skep.manager.control.actor import FORWARDED, Control
from skep.manager.raft.core.model import NotLeader, ProposalsFull, ProposalUnknown
from skep.manager.store.actor import Store
from tests.support.simulated import in_simulation
from tests.unit.manager.build import service_spec
from tests.unit.manager.raft_stand_in import FakeRaft

A = TypeVar("A", bound=Struct)
CREATE, GET, LIST = "CreateService", "GetService", "ListServices"


@dataclass
class Leader:
    """Who leads, as the test says."""

    is_leader: bool = True
    leader_id: NodeId | None = None
    leader_address: str | None = None
    term: int = 1
    applied_everywhere: bool = True
    cannot_open: tuple[str, ...] = ()

    def is_applied_everywhere(self, service_id: ServiceId) -> bool:
        return self.applied_everywhere

    def ingress_problems(self, service_name: str) -> tuple[str, ...]:
        return self.cannot_open


@dataclass
class OtherManager:
    """The transport to the leader, and the leader's answers."""

    answer: bytes = b""
    asked: list[tuple[str, str, bytes]] = field(default_factory=list)
    address: str = ""
    is_closed: bool = False

    def channel(self, address: str) -> Channel:
        self.address = address
        return cast("Channel", self)

    async def call(self, method: str, request: bytes, *, deadline_s: float) -> bytes:
        self.asked.append((self.address, method, request))
        return self.answer

    async def close(self) -> None:
        self.is_closed = True


class Desk:
    """One manager's API."""

    def __init__(self, env: Env) -> None:
        self.other = OtherManager()
        self.leader = Leader()
        self.store = Store(env)
        self.raft = FakeRaft(self.store)
        there = replace(env, transport=cast("Transport", self.other))
        self.control = Control(there, self.store, self.leader)
        self.handlers = self.control.handlers()

    async def ask(self, name: str, request: Struct, kind: type[A], *, prefix: str = "") -> A:
        data = await self.handlers[f"{prefix}skep.v1.Control/{name}"](codec.encode(request))
        return codec.decode(kind, data)

    async def create(self, request_id: str, **spec: Any) -> Service:
        request = CreateServiceRequest(request_id=request_id, spec=service_spec(**spec))
        return await self.ask(CREATE, request, Service)


def at_desk(body: Callable[[Desk], Awaitable[None]]) -> None:
    async def run(env: Env) -> None:
        await body(Desk(env))

    in_simulation(run)


def test_a_mutation_answers_with_the_object_as_it_was_committed() -> None:
    async def body(desk: Desk) -> None:
        of = await desk.create("r1")
        [row] = desk.store.tables.all(Service)
        # The wire can't tell ports that aren't there yet from no ports.
        assert of == with_ports(row)
        assert of.version == 1

    at_desk(body)


def test_a_retry_gets_the_same_answer_and_does_nothing_twice() -> None:
    async def body(desk: Desk) -> None:
        first = await desk.create("r1")
        assert await desk.create("r1") == first
        request = DeployStackRequest(
            request_id="r2", spec=StackSpec(name="shop", services=(service_spec("shop_a"),))
        )
        done = [await desk.ask("DeployStack", request, DeployStackResponse) for _ in range(2)]
        assert done[0] == done[1]
        assert done[0].created == ("shop_a",)
        gone = [
            await desk.ask(
                "RemoveService", RemoveRequest(request_id="r3", ref="web"), RemoveResponse
            )
            for _ in range(2)
        ]
        assert gone[0] == gone[1]
        assert len(desk.raft.commands) == 3
        assert desk.store.tables.count(Request) == 3

    at_desk(body)


def test_a_retry_after_an_unknown_outcome_finds_out() -> None:
    async def body(desk: Desk) -> None:
        late: list[bytes] = []

        def lost_sight_of(command: bytes) -> None:
            late.append(command)
            raise ProposalUnknown("no word in time")

        def find_it(_: bytes) -> None:
            desk.raft.commit(late.pop())

        desk.raft.fates = [lost_sight_of, find_it]
        with pytest.raises(CallError) as caught:
            await desk.create("r1")
        assert caught.value.code is Code.UNKNOWN
        assert (await desk.create("r1")).version == 1
        assert desk.store.tables.count(Service) == 1

    at_desk(body)


def test_an_error_is_not_kept_so_a_retry_may_succeed() -> None:
    async def body(desk: Desk) -> None:
        with pytest.raises(Rejected):
            await desk.create("r1", replicas=-1)
        await desk.create("r1")

    at_desk(body)


def test_a_request_id_belongs_to_one_intention() -> None:
    async def body(desk: Desk) -> None:
        await desk.create("r1")
        with pytest.raises(Rejected, match="was used for") as caught:
            await desk.ask(
                "RemoveService", RemoveRequest(request_id="r1", ref="web"), RemoveResponse
            )
        assert caught.value.field == "request_id"
        with pytest.raises(Rejected, match="request_id: required"):
            await desk.create("")

    at_desk(body)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotLeader(None), Code.UNAVAILABLE),
        (ProposalUnknown("?"), Code.UNKNOWN),
        (ProposalsFull("full"), Code.RESOURCE_EXHAUSTED),
    ],
)
def test_what_raft_says_has_a_code_of_its_own(error: Exception, code: Code) -> None:
    async def body(desk: Desk) -> None:
        def fail(_: bytes) -> None:
            raise error

        desk.raft.fates = [fail]
        with pytest.raises(CallError) as caught:
            await desk.create("r1")
        assert caught.value.code is code
        assert ("retry-after-ms" in caught.value.details) == (code is Code.RESOURCE_EXHAUSTED)

    at_desk(body)


def test_a_follower_passes_calls_on_once_and_unchanged() -> None:
    async def body(desk: Desk) -> None:
        desk.leader.is_leader = False
        desk.leader.leader_address = "127.0.0.2:1"
        of = _on_another()
        desk.other.answer = codec.encode(of)
        request = CreateServiceRequest(request_id="r1", spec=service_spec())
        assert await desk.ask(CREATE, request, Service) == of
        assert desk.other.asked == [
            ("127.0.0.2:1", "forwarded/skep.v1.Control/CreateService", codec.encode(request))
        ]
        # A call that was passed on is never passed on again.
        with pytest.raises(CallError) as caught:
            await desk.ask(CREATE, request, Service, prefix=FORWARDED)
        assert caught.value.code is Code.UNAVAILABLE
        assert len(desk.other.asked) == 1
        await desk.control.close()
        assert desk.other.is_closed

    at_desk(body)


def _on_another() -> Service:
    return Service(id=ServiceId("s9"), name="web", spec=service_spec(), version=4, ports=())


def test_without_a_leader_only_stale_reads_are_answered() -> None:
    async def body(desk: Desk) -> None:
        await desk.create("r1")
        desk.leader.is_leader = False
        with pytest.raises(CallError) as caught:
            await desk.ask(GET, GetRequest(ref="web"), ServiceView)
        assert caught.value.code is Code.UNAVAILABLE
        seen = await desk.ask(GET, GetRequest(ref="web", is_stale=True), ServiceView)
        assert seen.service.name == "web"

    at_desk(body)


def test_a_read_without_a_quorum_is_no_answer() -> None:
    async def body(desk: Desk) -> None:
        async def no_majority(*, deadline_s: float) -> int:
            raise NotLeader(None, "no majority has answered")

        desk.raft.read_index = no_majority  # type: ignore[method-assign]
        with pytest.raises(CallError, match="no quorum"):
            await desk.ask(LIST, ListServicesRequest(), ListServicesResponse)

    at_desk(body)


def test_services_are_there_once_every_netproxy_knows() -> None:
    async def body(desk: Desk) -> None:
        of = await desk.create("r1", replicas=0)
        filled = with_ports(of)
        await desk.store.update(lambda tx: tx.update(filled))
        for is_known in (False, True):
            desk.leader.applied_everywhere = is_known
            seen = await desk.ask(LIST, ListServicesRequest(), ListServicesResponse)
            assert [each.is_converged for each in seen.services] == [is_known]

    at_desk(body)


def test_a_port_that_a_node_cannot_open_is_a_problem_of_its_service() -> None:
    async def body(desk: Desk) -> None:
        of = await desk.create("r1", replicas=0)
        filled = with_ports(of)
        await desk.store.update(lambda tx: tx.update(filled))
        desk.leader.cannot_open = ("w2: port 80: Address already in use",)
        (view,) = (await desk.ask(LIST, ListServicesRequest(), ListServicesResponse)).services
        assert not view.is_converged
        assert view.problems == ("w2: port 80: Address already in use",)

    at_desk(body)


def with_ports(of: Service) -> Service:
    return replace_row(of, ports=())


def test_every_method_has_its_forwarded_twin() -> None:
    async def body(desk: Desk) -> None:
        plain = {name for name in desk.handlers if not name.startswith(FORWARDED)}
        assert desk.handlers.keys() - plain == {FORWARDED + name for name in plain}
        assert len(plain) == 37

    at_desk(body)


def test_bytes_that_are_no_request_are_refused() -> None:
    async def body(desk: Desk) -> None:
        for handler in desk.handlers.values():
            with pytest.raises(Rejected, match="not a "):
                await handler(b"\xff\xff")

    at_desk(body)
