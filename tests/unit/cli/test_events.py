"""What happens in a cluster, told in words, and shown as objects."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import pytest

from skep.cli.changes import Change, Sight, fits
from skep.cli.commands.events import line
from skep.domain.base import NodeId, ServiceId, StackId, TaskId, replace
from skep.domain.control import WatchAction, WatchEvent
from skep.domain.objects import (
    Availability,
    Node,
    NodeDescription,
    NodeRole,
    NodeState,
    Service,
    Stack,
    Task,
    TaskStatus,
    UpdateState,
    UpdateStatus,
)
from skep.domain.spec import Port, RunSpec, ServiceSpec, StackSpec, TaskSpec, UpdatePolicy
from skep.domain.states import DesiredState, TaskState
from tests.unit.cli.shell import Shell
from tests.unit.client.fake import FakeStream

SPEC = ServiceSpec(name="shop_web", task=TaskSpec(run=RunSpec(command=("serve",), image="v1")))
WEB = Service(
    id=ServiceId("web-id"), name="shop_web", spec=SPEC, stack_id=StackId("shop-id"), version=5
)
SHOP = Stack(id=StackId("shop-id"), name="shop", spec=StackSpec(name="shop"), version=4)
W1 = Node(
    id=NodeId("w1-id"),
    name="w1",
    role=NodeRole.WORKER,
    description=NodeDescription(hostname="w1"),
    state=NodeState.READY,
    version=3,
)
TASK = Task(
    id=TaskId("abcdefghijklmnop"),
    service_id=WEB.id,
    service_name="shop_web",
    revision=1,
    slot=2,
    node_id=W1.id,
    status=TaskStatus(state=TaskState.RUNNING),
    version=6,
)
CREATE, UPDATE, REMOVE = WatchAction.CREATE, WatchAction.UPDATE, WatchAction.REMOVE
FIELDS = {Node: "node", Service: "service", Task: "task", Stack: "stack"}


def event(
    version: int, row: Node | Service | Task | Stack, action: WatchAction = UPDATE
) -> WatchEvent:
    at_ns = version * 10**9
    stamped = row if action is REMOVE else replace(row, version=version, updated_ns=at_ns)
    return WatchEvent(version=version, action=action, **{FIELDS[type(row)]: stamped})  # type: ignore[arg-type]


def told(sight: Sight, events: Sequence[WatchEvent]) -> list[str]:
    changes = [sight.take(each) for each in events]
    return [f"{each.subject}: {each.what}" for each in changes if each is not None]


def sight() -> Sight:
    return Sight([W1, SHOP, WEB, TASK])


def status(**fields: object) -> Task:
    return replace(TASK, status=replace(TASK.status, **fields))


FAILED = status(state=TaskState.FAILED, error="task: non-zero exit (1)", exit_code=1)
PENDING = replace(status(state=TaskState.PENDING), node_id=None)
UPDATING = UpdateStatus(
    state=UpdateState.UPDATING, revision=4, base_revision=3, policy=UpdatePolicy(), started_ns=1
)
PAUSED = replace(UPDATING, state=UpdateState.PAUSED, message="1 of 3 slots failed")
GOING_BACK = replace(
    UPDATING,
    state=UpdateState.ROLLBACK_STARTED,
    message="update rolled back due to failure or early termination of task a.1: exit 1",
)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (
            FAILED,
            "task shop_web.2 (abcdefghijkl) on w1: running -> failed: task: non-zero exit (1)",
        ),
        (
            status(state=TaskState.FAILED, error="killed", exit_code=137),
            "task shop_web.2 (abcdefghijkl) on w1: running -> failed: killed (exit 137)",
        ),
        (
            status(state=TaskState.COMPLETE, exit_code=0),
            "task shop_web.2 (abcdefghijkl) on w1: running -> complete: exit 0",
        ),
        (status(is_healthy=False), "task shop_web.2 (abcdefghijkl) on w1: unhealthy"),
        (
            replace(TASK, desired_state=DesiredState.SHUTDOWN),
            "task shop_web.2 (abcdefghijkl) on w1: is to be stopped",
        ),
        (replace(TASK, healthy_ns=7), None),
        (replace(FAILED, status=TASK.status, healthy_ns=7), None),
        (
            replace(WEB, revision=4, spec=replace(SPEC, replicas=5)),
            "service shop_web: revision 4, scaled 1 -> 5",
        ),
        (
            replace(
                WEB,
                revision=2,
                spec=replace(
                    SPEC, task=TaskSpec(run=RunSpec(command=("serve",), image="v2"), force_update=1)
                ),
            ),
            "service shop_web: revision 2, image v1 -> v2, forced",
        ),
        (
            replace(WEB, revision=2, spec=replace(SPEC, labels=(("a", "b"),))),
            "service shop_web: revision 2, spec changed",
        ),
        (replace(WEB, is_removing=True), "service shop_web: is being removed"),
        (
            replace(WEB, ports=(Port(target=80, published=8080),)),
            "service shop_web: published 8080->80/tcp",
        ),
        (replace(WEB, update=UPDATING), "service shop_web: update to revision 4 started"),
        (
            replace(WEB, update=PAUSED),
            "service shop_web: update to revision 4 paused: 1 of 3 slots failed",
        ),
        (
            replace(W1, state=NodeState.DOWN, message="3 heartbeats missed"),
            "node w1: ready -> down: 3 heartbeats missed",
        ),
        (
            replace(W1, availability=Availability.DRAIN, labels=(("disk", "ssd"),)),
            "node w1: availability active -> drain; label disk=ssd",
        ),
        (replace(SHOP, revision=2), "stack shop: revision 2, 0 services"),
        (replace(SHOP, updated_ns=9), None),
    ],
)
def test_a_change_is_told(row: Node | Service | Task | Stack, words: str | None) -> None:
    assert told(sight(), [event(9, row)]) == ([words] if words else [])


def test_slots_that_fail_in_an_update_are_told_once() -> None:
    failing = replace(UPDATING, failed_slots=(2,), message="slot 2: exit code 1")
    events = [event(7 + n, replace(WEB, update=u)) for n, u in enumerate((UPDATING, failing))]
    again = event(9, replace(WEB, update=failing))
    assert told(sight(), [*events, again]) == [
        "service shop_web: update to revision 4 started",
        "service shop_web: slot 2 failed in the update: slot 2: exit code 1",
    ]


def test_why_an_update_was_rolled_back_is_told_once() -> None:
    over = replace(
        GOING_BACK,
        state=UpdateState.ROLLBACK_COMPLETED,
        message=f"rollback completed ({GOING_BACK.message})",
    )
    updates = [replace(UPDATING, message="update in progress"), GOING_BACK, over]
    events = [event(7 + place, replace(WEB, update=of)) for place, of in enumerate(updates)]
    why = "failure or early termination of task a.1: exit 1"
    assert told(sight(), events) == [
        "service shop_web: update to revision 4 started",
        f"service shop_web: rollback from revision 4 started: {why}",
        "service shop_web: rollback from revision 4 completed",
    ]
    # Who has seen nothing before is told all of it, once.
    assert told(sight(), events[2:]) == [
        f"service shop_web: rollback from revision 4 completed: {why}"
    ]


def test_slots_that_failed_on_the_way_back_are_told() -> None:
    updates = [
        replace(GOING_BACK, failed_slots=(2,)),
        replace(
            GOING_BACK,
            state=UpdateState.ROLLBACK_COMPLETED,
            failed_slots=(2,),
            message=f"rollback completed ({GOING_BACK.message}); slots that failed: 2",
        ),
    ]
    events = [event(7 + place, replace(WEB, update=of)) for place, of in enumerate(updates)]
    assert told(sight(), events)[1] == (
        "service shop_web: rollback from revision 4 completed: slots that failed: 2"
    )


def test_the_stream_tells_the_old_state_and_the_reading_only_where_it_is_older() -> None:
    newer = replace(TASK, version=9)
    seen = Sight([W1, replace(newer, status=FAILED.status)])
    events = [event(7, PENDING, CREATE), event(8, TASK), event(9, FAILED), event(10, FAILED)]
    assert told(seen, events) == [
        "task shop_web.2 (abcdefghijkl): pending",
        "task shop_web.2 (abcdefghijkl) on w1: pending -> running",
        "task shop_web.2 (abcdefghijkl) on w1: running -> failed: task: non-zero exit (1)",
    ]


def test_what_is_known_does_not_go_back_with_an_old_change() -> None:
    seen = Sight([W1, replace(FAILED, version=9)])
    told(seen, [event(8, TASK)])
    assert [task.status.state for task in seen.all(Task)] == [TaskState.FAILED]
    told(seen, [event(7, TASK, REMOVE)])
    assert len(seen.all(Task)) == 1


def test_a_removal_has_the_time_of_what_came_before_it() -> None:
    seen = sight()
    seen.take(event(8, W1, CREATE))
    removal = seen.take(event(9, FAILED, REMOVE))
    assert removal is not None
    assert (removal.time, removal.what) == (8.0, "forgotten")
    assert seen.all(Task) == []


def test_what_is_known_follows_the_changes() -> None:
    seen = sight()
    told(seen, [event(9, FAILED), event(10, replace(W1, id=NodeId("w2-id"), name="w2"), CREATE)])
    assert [task.status.state for task in seen.all(Task)] == [TaskState.FAILED]
    assert [node.name for node in seen.all(Node)] == ["w1", "w2"]
    assert told(seen, [event(11, replace(FAILED, node_id=NodeId("w2-id")), REMOVE)]) == [
        "task shop_web.2 (abcdefghijkl) on w2: forgotten"
    ]


def test_without_its_steps_a_task_is_new_and_then_runs() -> None:
    new = replace(PENDING, status=TaskStatus(state=TaskState.NEW))
    stuck = replace(PENDING, status=TaskStatus(state=TaskState.PENDING, error="no suitable node"))
    gone = replace(FAILED, desired_state=DesiredState.SHUTDOWN)
    events = [
        event(7, replace(new, desired_state=DesiredState.READY), CREATE),
        event(8, PENDING),
        event(9, stuck),
        event(10, status(state=TaskState.PREPARING)),
        event(11, status(state=TaskState.STARTING)),
        event(12, TASK),
        event(13, replace(TASK, desired_state=DesiredState.REMOVE)),
        event(14, gone),
        event(15, gone, REMOVE),
        event(16, replace(W1, availability=Availability.DRAIN)),
    ]
    seen = Sight([W1, SHOP, WEB])
    changes = [seen.take(each, has_steps=False) for each in events]
    assert [change.what for change in changes if change] == [
        "new; waits for its turn to start",
        "pending: no suitable node",
        "starting -> running",
        "is to be stopped and removed",
        "running -> failed: task: non-zero exit (1)",
        "forgotten",
        "availability active -> drain",
    ]


def test_a_resync_is_told_and_passes_every_filter() -> None:
    lost = sight().take(WatchEvent(version=90, is_resync=True))
    assert lost is not None
    assert "up to version 90" in lost.what
    assert fits(lost, {"service": ["other"]})


@pytest.mark.parametrize(
    ("filters", "is_shown"),
    [
        ({}, True),
        ({"service": ["web"]}, True),
        ({"service": ["shop_web"], "node": ["w1"], "stack": ["shop"]}, True),
        ({"service": ["other", "web"], "kind": ["task"]}, True),
        ({"service": ["web"], "kind": ["node"]}, False),
        ({"service": ["b"]}, False),
        ({"stack": ["other"]}, False),
    ],
)
def test_filters(filters: dict[str, list[str]], is_shown: bool) -> None:
    change = sight().take(event(9, FAILED))
    assert change is not None
    assert fits(change, filters) is is_shown


def test_what_a_program_wrote_can_not_move_the_cursor() -> None:
    change = Change(version=1, time=0.0, kind="task", id="x", name="a.1", what="bad\x1b[2J\n!")
    assert line(change).endswith("task a.1 (x): bad [2J !")


# ------------------------------------------------------------------------- the commands


class Script:
    """A control API that tells a few events to whoever watches."""

    def __init__(
        self, shell: Shell, monkeypatch: pytest.MonkeyPatch, events: list[WatchEvent]
    ) -> None:
        control = shell.control
        control.services[WEB.id], control.tasks[TASK.id] = WEB, TASK
        self.asked: list[bytes] = []
        sent = FakeStream.send

        async def send(stream: FakeStream, frame: bytes) -> None:
            await sent(stream, frame)
            self.asked.append(frame)
            for each in events:
                control.tell(stream, each)
            await asyncio.sleep(0)

        monkeypatch.setattr(FakeStream, "send", send)


MARK = WatchEvent(version=12)


def test_events_end_by_themselves(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    Script(shell, monkeypatch, [event(11, FAILED), event(12, W1), MARK, event(13, TASK)])
    assert shell.skep("events --until 12") == 0
    assert [each[21:] for each in shell.out.splitlines()] == [
        "task shop_web.2 (abcdefghijkl) on w1: running -> failed: task: non-zero exit (1)",
        "node w1: describes itself anew",
    ]
    assert "so far is version 12; go on with --since" in shell.err
    assert shell.skep("events --until 12 --format json --filter service=web") == 0
    (row,) = map(json.loads, shell.out.splitlines())
    assert (row["version"], row["kind"], row["name"]) == (11, "task", "shop_web.2")
    assert row["what"] == "running -> failed: task: non-zero exit (1)"
    assert shell.skep("events --until 12 --filter service=nope") == 0
    assert shell.out == ""


def test_a_change_beyond_the_end_is_not_shown(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    Script(shell, monkeypatch, [event(11, FAILED), event(13, TASK)])
    assert shell.skep("events --until 12 --for 10s") == 0
    assert len(shell.out.splitlines()) == 1
    assert "so far is version 12;" in shell.err


def test_a_part_of_a_commit_is_not_all_of_it(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    Script(shell, monkeypatch, [event(11, W1), event(12, FAILED)])
    assert shell.skep("events --for 0.2s") == 0
    assert "so far is version 11;" in shell.err


def test_watch_shows_objects_that_a_script_can_resume_from(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = WatchEvent(version=11, is_resync=True)
    mark = WatchEvent(version=10)
    Script(shell, monkeypatch, [mark, lost, event(12, FAILED), MARK, WatchEvent(version=14)])
    assert shell.skep("watch --until 14") == 0
    resync, change, end = map(json.loads, shell.out.splitlines())
    assert resync == {"version": 11, "resync": True, "lost": "11-11"}
    assert (change["version"], change["action"], change["kind"]) == (12, "update", "task")
    assert change["object"]["status"]["exit_code"] == 1
    assert end == {"version": 14}


def test_a_stream_that_its_user_ends_is_no_failure(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def interrupted(stream: FakeStream, frame: bytes) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(FakeStream, "send", interrupted)
    assert shell.skep("watch") == 0
    assert shell.skep("events") == 0


def test_unknown_filters_are_refused(shell: Shell) -> None:
    for wrong in ("web", "colour=red", "service="):
        assert shell.skep(f"events --filter {wrong}") == 2
        assert "write one of service=, node=, stack=, kind=" in shell.err
