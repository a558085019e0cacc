"""What becomes of a spec that was asked for, as those learn who wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from skep.client import (
    ClientError,
    Cluster,
    GivenUp,
    NotConverged,
    RolledBack,
    Superseded,
    UpdatePaused,
    connect,
    outcome,
)
from skep.client.outcome import Verdict, judge, patience_s
from skep.domain.base import ServiceId, replace
from skep.domain.control import ServiceView
from skep.domain.objects import Availability, Service, UpdateState, UpdateStatus
from skep.domain.spec import (
    FailureAction,
    HealthCheck,
    RestartCondition,
    RestartPolicy,
    RunSpec,
    ServiceSpec,
    TaskSpec,
    UpdatePolicy,
)
from skep.domain.states import DesiredState, TaskState
from tests.unit.client.fake import ADDRESSES, FakeControl, FakeSeams, seams

S = 1_000_000_000
SPEC = ServiceSpec(name="web", task=TaskSpec(run=RunSpec(image="v1", args=("serve",))), replicas=2)
V2 = replace(SPEC, task=TaskSpec(run=RunSpec(image="v2", args=("serve",))))


class World:
    """A service `web` at revision 1, all of it running, and a client that waits for it."""

    def __init__(self) -> None:
        self.seams: FakeSeams = seams()
        self.control: FakeControl = self.seams.transport.control
        self.sights: list[ServiceView] = []
        self.later: dict[int, Callable[[], object]] = {}

    def run(self, script: Callable[[Cluster], Awaitable[None]]) -> None:
        async def go() -> None:
            async with connect(ADDRESSES, seams=self.seams, deadline_s=20.0) as cluster:
                await cluster.services.create(SPEC)
                self.control.is_quick = False
                await script(cluster)

        asyncio.run(go())

    def progress(self, views: tuple[ServiceView, ...]) -> None:
        """With the n-th sight comes what is planned for it."""
        self.sights += views
        self.later.pop(len(self.sights), lambda: None)()

    async def wait(self, cluster: Cluster, service: Service, timeout_s: float = 60.0) -> None:
        await cluster.wait_converged(
            {service.id: service.revision}, timeout_s=timeout_s, progress=self.progress
        )

    async def ends(
        self, cluster: Cluster, service: Service, kind: type[ClientError], timeout_s: float = 60.0
    ) -> str:
        with pytest.raises(kind) as caught:
            await self.wait(cluster, service, timeout_s)
        assert type(caught.value) is kind
        assert [view.service.name for view in caught.value.views] == ["web"]  # type: ignore[attr-defined]
        return str(caught.value)


def test_an_update_is_waited_for_to_its_end_though_all_tasks_run() -> None:
    world = World()

    def all_run() -> None:
        world.control.converge()
        world.control.set_update("web", UpdateState.UPDATING)

    # What runs may be of either revision: the counts are the same all the time.
    world.later = {
        2: all_run,
        4: lambda: world.control.set_update("web", UpdateState.COMPLETED),
    }

    async def script(cluster: Cluster) -> None:
        await world.wait(cluster, await cluster.services.update("web", V2))

    world.run(script)
    assert [view.running for view in world.sights] == [2, 2, 2, 2, 2]


def test_a_rollback_is_told_when_it_is_over_and_never_taken_for_success() -> None:
    world = World()
    world.later = {
        2: lambda: world.control.roll_back("web", 1, "web.1 failed: exit code 1"),
        4: world.control.converge,
    }

    async def script(cluster: Cluster) -> None:
        service = await cluster.services.update("web", V2)
        assert await world.ends(cluster, service, RolledBack) == (
            "web: web.1 failed: exit code 1; revision 2 was given up, and that of 1 runs again"
        )

    world.run(script)
    assert len(world.sights) == 5


def test_a_rollback_that_is_paused_or_takes_too_long_is_told_as_that() -> None:
    world = World()

    async def script(cluster: Cluster) -> None:
        service = await cluster.services.update("web", V2)
        world.control.roll_back("web", 1, "why")
        assert await world.ends(cluster, service, RolledBack, 3.0) == (
            "web: why; revision 2 is being given up for that of 1; not done after 3 s"
        )
        world.control.set_update("web", UpdateState.ROLLBACK_PAUSED, "web.2 failed, too")
        assert await world.ends(cluster, service, RolledBack) == (
            "web: web.2 failed, too; revision 2 was given up, but not all run that of 1 again"
        )

    world.run(script)


def test_a_rollback_that_was_asked_for_is_success_once_it_is_completed() -> None:
    world = World()
    world.later = {3: world.control.converge}

    async def script(cluster: Cluster) -> None:
        await cluster.services.update("web", V2)
        world.control.converge()
        service = await cluster.services.rollback("web")
        assert service.revision == 3
        await world.wait(cluster, service)
        again = await cluster.services.rollback("web", revision=2)
        world.control.set_update("web", UpdateState.ROLLBACK_PAUSED, "web.1 failed")
        assert await world.ends(cluster, again, UpdatePaused) == (
            "web: web.1 failed; 2 of 2 tasks run, of both revisions together"
        )

    world.run(script)


def test_a_pause_is_told_unless_it_is_the_one_that_the_write_ended() -> None:
    world = World()

    async def script(cluster: Cluster) -> None:
        service = await cluster.services.update("web", V2)
        world.control.set_update("web", UpdateState.PAUSED, "web.1 failed")
        assert await world.ends(cluster, service, UpdatePaused) == (
            "web: web.1 failed; 2 of 2 tasks run, of both revisions together"
        )
        # The managers have a moment to see the write before an old pause is believed.
        world.sights = []
        world.later = {
            2: lambda: world.control.set_update("web", UpdateState.UPDATING),
            4: world.control.converge,
        }
        await world.wait(cluster, service)

    world.run(script)


def test_a_newer_spec_of_somebody_else_is_not_waited_for() -> None:
    world = World()

    async def script(cluster: Cluster) -> None:
        service = await cluster.services.update("web", V2)
        await cluster.services.scale("web", 5)
        world.control.converge()
        assert await world.ends(cluster, service, Superseded) == (
            "web: revision 2, which was waited for, was replaced by revision 3 meanwhile"
        )
        scaled = await cluster.services.scale("web", 6)
        await cluster.services.remove("web")
        assert await world.ends(cluster, scaled, Superseded) == "web: it is being removed"

    world.run(script)


def test_an_older_rollback_is_no_news_to_who_scales() -> None:
    world = World()

    async def script(cluster: Cluster) -> None:
        await cluster.services.update("web", V2)
        world.control.roll_back("web", 1, "why")
        world.control.converge()
        scaled = await cluster.services.scale("web", 3)
        world.control.converge()
        await world.wait(cluster, scaled)

    world.run(script)


def test_a_slot_that_was_given_up_is_for_the_update_to_judge_while_there_is_one() -> None:
    world = World()
    world.control.given_up["web"] = 2
    world.later = {30: lambda: world.control.roll_back("web", 1, "why"), 31: world.control.converge}

    async def script(cluster: Cluster) -> None:
        service = await cluster.services.update("web", V2)
        await world.ends(cluster, service, RolledBack)

    world.run(script)


@pytest.mark.parametrize(
    ("condition", "states", "kind"),
    [
        (RestartCondition.NONE, (TaskState.COMPLETE, TaskState.COMPLETE), None),
        (RestartCondition.ON_FAILURE, (TaskState.COMPLETE, TaskState.COMPLETE), None),
        (RestartCondition.NONE, (TaskState.COMPLETE, TaskState.RUNNING), None),
        (RestartCondition.NONE, (TaskState.COMPLETE, TaskState.FAILED), GivenUp),
        (RestartCondition.ON_FAILURE, (TaskState.COMPLETE, TaskState.SHUTDOWN), GivenUp),
        (RestartCondition.ON_FAILURE, (TaskState.COMPLETE, None), NotConverged),
        (RestartCondition.ANY, (TaskState.COMPLETE, TaskState.COMPLETE), GivenUp),
    ],
)
def test_tasks_that_ran_to_their_end_are_as_the_spec_says(
    condition: RestartCondition,
    states: tuple[TaskState | None, ...],
    kind: type[ClientError] | None,
) -> None:
    world = World()
    once = replace(V2, task=replace(V2.task, restart=RestartPolicy(condition=condition)))

    async def script(cluster: Cluster) -> None:
        service = await cluster.services.update("web", once)
        world.control.converge()
        world.control.tasks.clear()
        for slot, state in enumerate(states, 1):
            if state is None:
                continue
            task = world.control.add_task(service, slot)
            if state is not TaskState.RUNNING:
                # An earlier attempt of a slot that failed is not its end.
                world.control.end_task(task, TaskState.FAILED)
                task = world.control.add_task(service, slot)
                task = replace(task, created_ns=5)
                world.control.end_task(task, state)
        for_good = {None, TaskState.RUNNING}
        if condition is not RestartCondition.ANY:
            for_good |= {TaskState.COMPLETE}
        world.control.given_up["web"] = sum(state not in for_good for state in states)
        if kind is None:
            await world.wait(cluster, service)
        else:
            await world.ends(cluster, service, kind, 5.0)

    world.run(script)


def test_what_has_to_stay_so_is_watched_from_the_last_time_that_it_was_not() -> None:
    world = World()

    async def script(cluster: Cluster) -> None:
        kept = dict(world.control.tasks)
        world.later = {11: world.control.tasks.clear, 21: lambda: world.control.tasks.update(kept)}
        await cluster.wait_converged(["web"], timeout_s=60, stable_s=3.0, progress=world.progress)

    world.run(script)
    # Two seconds whole, two without tasks, and three whole.
    assert [view.running for view in world.sights[10:23]] == [2] + 10 * [0] + 2 * [2]
    assert world.seams.clock.time == pytest.approx(1007.2, abs=0.3)


def test_what_runs_only_now_and_then_has_not_converged() -> None:
    world = World()

    async def script(cluster: Cluster) -> None:
        kept = dict(world.control.tasks)
        world.later = dict.fromkeys(range(1, 99, 8), world.control.tasks.clear)
        world.later |= dict.fromkeys(range(5, 99, 8), lambda: world.control.tasks.update(kept))
        world.control.problems["web"] = ("web.1: exit code 2",)
        with pytest.raises(NotConverged) as caught:
            await cluster.wait_converged(
                ["web"], timeout_s=4.4, stable_s=2.0, progress=world.progress
            )
        assert str(caught.value) == "not converged after 4.4 s: web 0/2 (web.1: exit code 2)"
        assert [view.running for view in caught.value.views] == [2]

    world.run(script)


def test_a_time_to_watch_that_is_longer_than_the_wait_is_told() -> None:
    async def script(cluster: Cluster) -> None:
        with pytest.raises(NotConverged, match="not watched for 3 s within 2 s"):
            await cluster.wait_converged(["web"], timeout_s=2, stable_s=3)

    World().run(script)


def test_of_several_ends_the_gravest_counts_and_all_are_told() -> None:
    world = World()
    control = world.control

    async def script(cluster: Cluster) -> None:
        first = await cluster.services.update("web", V2)
        await cluster.services.create(replace(SPEC, name="api"))
        control.converge()
        control.given_up["api"] = 2
        control.tasks.clear()
        control.set_update("web", UpdateState.PAUSED, "why")
        with pytest.raises(UpdatePaused) as caught:
            await cluster.wait_converged({"api": None, "web": first.revision}, timeout_s=60)
        assert str(caught.value) == (
            "api: ended, and its restart policy doesn't start it again, web: why; 0 of 2 tasks "
            "run, of both revisions together"
        )

    world.run(script)


# --------------------------------------------------------------------------- how long


@pytest.mark.parametrize(
    ("replicas", "policy", "expected_s"),
    [
        # Three slots one after the other with 10 s to stop; one that never gets healthy; 5 s.
        (3, UpdatePolicy(), 3 * 40 + 300 + 5),
        (10, UpdatePolicy(parallelism=4, delay_ns=20 * S, monitor_ns=0), 3 * 60 + 300),
        (10, UpdatePolicy(parallelism=0), 40 + 300 + 5),
        (0, UpdatePolicy(healthy_deadline_ns=S), 60),
        (10_000, UpdatePolicy(), 4 * 3600),
        (1, UpdatePolicy(failure_action=FailureAction.ROLLBACK), 2 * (40 + 300 + 5)),
    ],
)
def test_an_update_gets_the_time_that_its_policy_may_take(
    replicas: int, policy: UpdatePolicy, expected_s: float
) -> None:
    assert patience_s(replace(SPEC, replicas=replicas, update=policy)) == expected_s


def test_a_start_period_is_added_and_another_policy_counts_alone() -> None:
    health = HealthCheck(test=("CMD", "x"), start_period_ns=100 * S)
    spec = replace(SPEC, task=replace(SPEC.task, run=replace(SPEC.task.run, health=health)))
    assert patience_s(spec) == 2 * 40 + 400 + 5
    assert patience_s(spec, UpdatePolicy(monitor_ns=0)) == 2 * 40 + 400


# ---------------------------------------------------------------------------- drained nodes


def test_draining_is_waited_for_until_nothing_is_left() -> None:
    world = World()
    control = world.control
    seen: list[list[str]] = []

    def progress(tasks: tuple[object, ...]) -> None:
        left = [task for task in control.tasks.values() if task.node_id == "w1-id"]
        seen.append([task.status.state.value for task in left])
        if len(seen) == 3:
            control.end_task(left[0], TaskState.SHUTDOWN)

    async def script(cluster: Cluster) -> None:
        await cluster.nodes.update("w1", availability=Availability.DRAIN)
        await cluster.wait_drained(["w1", "w3"], timeout_s=60, progress=progress)
        await cluster.wait_drained(["w3"], timeout_s=1)

    world.run(script)
    assert seen == [["running"]] * 3 + [["shutdown"]]


def test_draining_that_takes_too_long_names_what_is_left_and_why() -> None:
    world = World()
    control = world.control

    async def says(cluster: Cluster) -> str:
        with pytest.raises(NotConverged) as caught:
            await cluster.wait_drained(["w1"], timeout_s=2)
        return str(caught.value)

    async def script(cluster: Cluster) -> None:
        begin = "not drained after 2 s: w1: web.1"
        assert await says(cluster) == f"{begin} has no replacement yet"
        row = next(iter(control.services.values()))
        heir = control.add_task(row, 1, TaskState.PENDING)
        status = replace(heir.status, message="no suitable node")
        heir = control.tasks[heir.id] = replace(heir, node_id=None, status=status)
        why = "waits for its replacement (pending: no suitable node)"
        assert await says(cluster) == f"{begin} {why}"
        control.tasks[heir.id] = replace(
            heir, node_id="w2-id", status=replace(status, state=TaskState.STARTING)
        )
        assert await says(cluster) == f"{begin} waits for its replacement (starting)"
        (old,) = [task for task in control.tasks.values() if task.node_id == "w1-id"]
        control.tasks[old.id] = replace(old, desired_state=DesiredState.SHUTDOWN)
        assert await says(cluster) == f"{begin} is stopping"

    world.run(script)


def test_slots_that_failed_and_run_again_are_believed_after_the_monitor() -> None:
    status = UpdateStatus(
        state=UpdateState.COMPLETED,
        revision=2,
        base_revision=1,
        policy=UpdatePolicy(monitor_ns=7 * S),
        started_ns=1,
        failed_slots=(1,),
    )
    service = Service(
        id=ServiceId("s1"), name="web", spec=V2, revision=2, task_revision=2, update=status
    )
    view = ServiceView(service=service, running=2, desired=2, is_converged=True)
    assert judge(view, 2) == Verdict(None, hold_s=7.0)
    for changed in (
        replace(service, update=replace(status, failed_slots=())),
        replace(service, update=replace(status, revision=1)),
        replace(service, update=None),
    ):
        assert judge(replace(view, service=changed), 2) == Verdict(None)


def test_a_wait_goes_on_while_what_failed_has_not_run_for_long_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outcome, "judge", lambda view, asked: Verdict(None, hold_s=3.0))
    world = World()

    async def script(cluster: Cluster) -> None:
        begun = world.seams.clock.now()
        service = await cluster.services.update("web", SPEC)
        await world.wait(cluster, service)
        assert 3.0 <= world.seams.clock.now() - begun < 4.0

    world.run(script)
