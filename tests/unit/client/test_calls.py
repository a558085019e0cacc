"""What becomes of one call when managers fail."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from skep.client import (
    AlreadyExists,
    Cluster,
    Conflict,
    InvalidArgument,
    NotFound,
    OutcomeUnknown,
    Refused,
    Unavailable,
    connect,
)
from skep.domain.base import replace
from skep.domain.objects import Availability, UpdateState
from skep.domain.spec import RunSpec, ServiceSpec, TaskSpec
from skep.env import CallError, Code
from tests.unit.client.fake import ADDRESSES, M1, M2, M3, FakeControl, FakeSeams, seams

SPEC = ServiceSpec(name="web", task=TaskSpec(run=RunSpec(command=("serve",))), replicas=2)


def run(world: FakeSeams, script: Callable[[Cluster], Awaitable[None]]) -> None:
    async def go() -> None:
        async with connect(ADDRESSES, seams=world, deadline_s=20.0) as cluster:
            await script(cluster)

    asyncio.run(go())


def test_a_service_from_birth_to_death() -> None:
    async def script(cluster: Cluster) -> None:
        service = await cluster.services.create(SPEC)
        assert (await cluster.services.get("web")).running == 2
        await cluster.services.scale("web", 3)
        assert len(await cluster.tasks.list(service="web")) == 3
        assert [view.service.id for view in await cluster.services.list()] == [service.id]
        removed = await cluster.services.remove(service.id)
        assert removed.name == "web"
        await cluster.wait_removed(["web"], timeout_s=5)
        with pytest.raises(NotFound):
            await cluster.services.get("web")

    run(seams(), script)


def test_dead_managers_are_passed_over_without_delay_and_the_live_one_is_kept() -> None:
    world = seams()
    world.transport.down = {M1, M2}

    async def script(cluster: Cluster) -> None:
        await cluster.nodes.list()
        await cluster.nodes.list()

    run(world, script)
    assert [address for address, _, _ in world.transport.calls] == [M1, M2, M3, M3]
    assert world.clock.time == 1000.0


def test_no_manager_at_all_is_unavailable_after_the_deadline() -> None:
    world = seams()
    world.transport.down = set(ADDRESSES)

    async def script(cluster: Cluster) -> None:
        with pytest.raises(Unavailable, match=f"{M1}, .* within 20 s .*failed to connect"):
            await cluster.services.create(SPEC)

    run(world, script)
    assert world.clock.time == pytest.approx(1020.0)
    assert len(world.transport.calls) < 100


NO_LEADER = "no manager leads at the moment; try again"


@pytest.mark.parametrize(
    ("down", "words", "says"),
    [
        (
            {M1, M2},
            NO_LEADER,
            f"{M3} answers, but no manager leads at the moment; 2 of 3 managers can't be reached "
            f"({M1}, {M2}): a majority is needed",
        ),
        (set(), NO_LEADER, f"{M3} answers, but no manager leads at the moment"),
        (
            {M1},
            f"{M1}: failed to connect",
            f"{M3} answers, but can't reach {M1}, which led; "
            f"1 of 3 managers can't be reached ({M1})",
        ),
    ],
)
def test_what_a_manager_says_counts_more_than_a_refused_connection(
    down: set[str], words: str, says: str
) -> None:
    world = seams()
    world.transport.down = down
    world.transport.leaderless = dict.fromkeys(ADDRESSES, words)

    async def script(cluster: Cluster) -> None:
        with pytest.raises(Unavailable) as caught:
            await cluster.nodes.list()
        assert str(caught.value) == says

    run(world, script)


def test_one_address_of_many_says_nothing_of_a_majority() -> None:
    world = seams()
    world.transport.leaderless = {M1: NO_LEADER}

    async def go() -> None:
        async with connect([M1], seams=world, deadline_s=1.0) as cluster:
            with pytest.raises(Unavailable) as caught:
                await cluster.nodes.list()
        assert str(caught.value) == f"{M1} answers, but no manager leads at the moment"

    asyncio.run(go())


def test_a_lost_answer_is_asked_for_again_under_the_same_request_id() -> None:
    world = seams()
    world.transport.losing = {M1}

    async def script(cluster: Cluster) -> None:
        assert (await cluster.services.create(SPEC)).name == "web"

    run(world, script)
    (first, _, one), (second, _, other) = world.transport.calls
    assert (first, second) == (M1, M2)
    assert one == other
    assert len(world.transport.control.services) == 1


def test_two_mutations_have_two_request_ids() -> None:
    world = seams()

    async def script(cluster: Cluster) -> None:
        await cluster.services.create(SPEC)
        await cluster.services.create(replace(SPEC, name="api"))

    run(world, script)
    assert len(world.transport.control.answers) == 2


def test_an_outcome_that_stays_unknown_is_told_apart() -> None:
    world = seams()
    world.transport.losing = {M1}
    world.transport.down = {M2, M3}

    async def script(cluster: Cluster) -> None:
        with pytest.raises(OutcomeUnknown, match="whether it was done"):
            await cluster.services.create(SPEC)

    run(world, script)


def test_a_hung_manager_does_not_eat_the_whole_deadline() -> None:
    world = seams()
    world.transport.hung = {M1}

    async def script(cluster: Cluster) -> None:
        assert len(await cluster.nodes.list()) == 6

    run(world, script)
    assert world.clock.time == pytest.approx(1004.0)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (Code.INVALID_ARGUMENT, InvalidArgument),
        (Code.NOT_FOUND, NotFound),
        (Code.ALREADY_EXISTS, AlreadyExists),
        (Code.FAILED_PRECONDITION, Refused),
        (Code.ABORTED, Conflict),
        (Code.RESOURCE_EXHAUSTED, Unavailable),
    ],
)
def test_every_code_has_its_type(code: Code, kind: type[Exception]) -> None:
    world = seams()

    def fail(method: str, data: bytes) -> bytes:
        raise CallError(code, "why", {"field": "spec.x"})

    world.transport.control.serve = fail  # type: ignore[method-assign]

    async def script(cluster: Cluster) -> None:
        with pytest.raises(kind, match="why") as caught:
            await cluster.services.create(SPEC)
        assert type(caught.value) is kind

    run(world, script)


def test_the_field_at_fault_is_named() -> None:
    async def script(cluster: Cluster) -> None:
        with pytest.raises(InvalidArgument) as caught:
            await cluster.services.create(ServiceSpec(name="x", task=TaskSpec(run=RunSpec())))
        assert caught.value.field == "spec.task.run"
        with pytest.raises(InvalidArgument, match="can't be sent"):
            await cluster.services.create(replace(SPEC, replicas=2**70))

    run(seams(), script)


def test_a_change_starts_again_when_somebody_was_faster() -> None:
    world = seams()
    control = world.transport.control

    async def script(cluster: Cluster) -> None:
        service = await cluster.services.create(SPEC)
        rivals = [7, 8]

        def edit(spec: ServiceSpec) -> ServiceSpec:
            if rivals:
                row = control.services[service.id]
                changed = replace(row, spec=replace(row.spec, replicas=rivals.pop()))
                control.services[service.id] = control.stamped(changed)
            return replace(spec, replicas=spec.replicas + 1)

        assert (await cluster.services.change("web", edit)).spec.replicas == 8

    run(world, script)


def test_a_change_that_changes_nothing_writes_nothing() -> None:
    world = seams()

    async def script(cluster: Cluster) -> None:
        await cluster.services.create(SPEC)
        await cluster.services.scale("web", 2)

    run(world, script)
    assert [method for _, method, _ in world.transport.calls][-1].endswith("GetService")


def test_nodes_are_updated() -> None:
    async def script(cluster: Cluster) -> None:
        node = await cluster.nodes.update(
            "w1", availability=Availability.DRAIN, labels_set={"disk": "ssd"}
        )
        assert (node.availability, node.labels) == (Availability.DRAIN, (("disk", "ssd"),))
        assert (await cluster.nodes.update("w1", labels_removed=("disk",))).labels == ()
        with pytest.raises(Refused, match="not down"):
            await cluster.nodes.remove("w1")
        assert (await cluster.info()).leader_id == "m1-id"

    run(seams(), script)


def test_an_address_is_needed() -> None:
    with pytest.raises(ValueError, match="at least one"):
        connect([], seams=seams())


def test_a_change_of_nothing_resumes_an_update_that_is_paused() -> None:
    world = seams(FakeControl(is_quick=False))
    control = world.transport.control

    async def script(cluster: Cluster) -> None:
        await cluster.services.create(SPEC)
        other = replace(SPEC, task=TaskSpec(run=RunSpec(command=("other",))))
        await cluster.services.update("web", other)
        for state in (UpdateState.PAUSED, UpdateState.ROLLBACK_PAUSED):
            control.set_update("web", state)
            service = await cluster.services.change("web", lambda spec: spec)
            assert service.update is not None
            assert service.update.state is UpdateState.UPDATING
            assert service.revision == 2
        calls = len(world.transport.calls)
        await cluster.services.change("web", lambda spec: spec)
        assert len(world.transport.calls) == calls + 1

    run(world, script)
