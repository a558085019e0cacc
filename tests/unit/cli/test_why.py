"""Why a service isn't as asked, as a person would explain it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from skep.cli.why import Scene, explain, lines
from skep.cli.whyslot import verdict
from skep.domain.base import NodeId, ServiceId, TaskId, replace
from skep.domain.control import ListRevisionsRequest, ListRevisionsResponse, ServiceView
from skep.domain.objects import (
    Availability,
    Node,
    NodeDescription,
    NodeRole,
    NodeState,
    Revision,
    Service,
    Task,
    TaskStatus,
    UpdateState,
    UpdateStatus,
)
from skep.domain.spec import (
    FailureAction,
    HealthCheck,
    Placement,
    Platform,
    Port,
    Resources,
    RestartCondition,
    RestartPolicy,
    RunSpec,
    ServiceSpec,
    TaskSpec,
    UpdatePolicy,
)
from skep.domain.states import DesiredState, TaskState
from tests.unit.cli.shell import Shell
from tests.unit.client.fake import FakeControl

S = 10**9
NOW = 1000 * S


def node(name: str, **fields: object) -> Node:
    at = {"updated_ns": NOW - 300 * S, "state": NodeState.READY, **fields}
    return Node(
        id=NodeId(f"{name}-id"),
        name=name,
        role=NodeRole.WORKER,
        description=NodeDescription(hostname=name),
        **at,  # type: ignore[arg-type]
    )


W1, W2 = node("w1"), node("w2")
SPEC = ServiceSpec(name="web", task=TaskSpec(run=RunSpec(command=("serve",))), replicas=1)
WEB = Service(id=ServiceId("web-id"), name="web", spec=SPEC, revision=4, task_revision=4, ports=())


def task(slot: int = 1, age_s: int = 100, **fields: Any) -> Task:
    """A task of the present spec that runs on w1, unless told otherwise; `status` as fields."""
    born = NOW - age_s * S
    status = {"state": TaskState.RUNNING, "since_ns": born, **fields.pop("status", {})}
    row = {"revision": 4, "node_id": W1.id, "created_ns": born, "updated_ns": born, **fields}
    return Task(
        id=TaskId(f"task{slot}-{age_s:03}-xyz"),
        service_id=WEB.id,
        service_name="web",
        slot=slot,
        status=TaskStatus(**status),
        **row,
    )


def failed(age_s: int, **fields: Any) -> Task:
    status = {
        "state": TaskState.FAILED,
        "error": "exit code 3",
        "exit_code": 3,
        "since_ns": NOW - (age_s - 1) * S,
    }
    at = {"ended_ns": NOW - (age_s - 1) * S, "desired_state": DesiredState.SHUTDOWN, **fields}
    return task(age_s=age_s, status=status, **at)


PENDING = {"state": TaskState.PENDING, "message": "waiting for a node"}


def pending(reason: str) -> Task:
    return task(node_id=None, status={**PENDING, "error": reason})


def told(
    tasks: list[Task],
    service: Service = WEB,
    *,
    nodes: tuple[Node, ...] = (W1, W2),
    problems: tuple[str, ...] = (),
    revisions: tuple[Revision, ...] = (),
) -> list[str]:
    """What is said of a service, each finding in one line, the advice after "->"."""
    up = [t for t in tasks if t.status.state is TaskState.RUNNING and t.status.is_healthy]
    desired = service.spec.replicas
    view = ServiceView(
        service=service,
        running=len(up),
        desired=desired,
        is_converged=len(up) == desired == len(tasks) and not problems,
        problems=problems,
    )
    scene = Scene(view=view, tasks=tasks, nodes=nodes, revisions=revisions, now_ns=NOW)
    story = explain(scene)
    assert story.is_well == (not story.findings)
    found = [story.summary]
    for each in story.findings:
        found.append(f"{each.about}: {each.what}" + (f" -> {each.advice}" if each.advice else ""))
    return found


# -------------------------------------------------------------------------------- slots


def test_all_is_well_in_one_line() -> None:
    assert told([task()]) == ["web: 1 of 1 run, revision 4; all is as asked"]
    done = UpdateStatus(
        state=UpdateState.COMPLETED,
        revision=4,
        base_revision=3,
        policy=UpdatePolicy(),
        started_ns=NOW - 200 * S,
        ended_ns=NOW - 180 * S,
    )
    assert told([task()], replace(WEB, update=done)) == [
        "web: 1 of 1 run, revision 4, complete for 3 min; all is as asked"
    ]
    assert told([], replace(WEB, spec=replace(SPEC, replicas=0))) == [
        "web: scaled to 0, revision 4; all is as asked"
    ]


LOGS = "what it wrote: skep service logs web"
FORCE = f"to run it once more: skep service update web --force; {LOGS}"


@pytest.mark.parametrize(
    ("tasks", "says"),
    [
        pytest.param(
            [
                failed(20),
                failed(10),
                task(
                    age_s=9,
                    attempt=7,
                    desired_state=DesiredState.READY,
                    start_at_ns=NOW + 4 * S,
                    status={"state": TaskState.READY},
                ),
            ],
            "restart delay: the next attempt starts in 4 s; failed 7 times, the last 2 within "
            f"19 s, last: exit code 3 -> {LOGS}",
            id="crashes again and again",
        ),
        pytest.param(
            [failed(5, desired_state=DesiredState.RUNNING)],
            f"ended 4 s ago (exit code 3); a new task follows; failed once, last: exit code 3 -> "
            f"{LOGS}",
            id="just crashed",
        ),
        pytest.param(
            [failed(9), task(age_s=3, attempt=1, status={"state": TaskState.STARTING})],
            f"task task1-003-xy on w1 is starting since 3 s; failed once, last: exit code 3 -> "
            f"{LOGS}",
            id="is started again",
        ),
        pytest.param(
            [failed(9, revision=3), task(age_s=3, status={"state": TaskState.PREPARING})],
            "task task1-003-xy on w1 is preparing since 3 s",
            id="what failed was another spec",
        ),
        pytest.param(
            [
                task(
                    age_s=3,
                    status={"state": TaskState.PREPARING, "message": "networks: no netproxy"},
                )
            ],
            "task task1-003-xy on w1 is preparing since 3 s: networks: no netproxy",
            id="can't be prepared at the moment",
        ),
        pytest.param([failed(9, slot=1)], f"given up 8 s ago: exit code 3; its restart policy "
            f"tries no more -> {FORCE}", id="given up"),
        pytest.param(
            [task(status={"is_healthy": False})],
            "task task1-100-xy on w1 is unhealthy: its health check fails (it runs for 100 s); it "
            f"is being replaced -> {LOGS}",
            id="unhealthy",
        ),
        pytest.param(
            [
                task(age_s=90, desired_state=DesiredState.SHUTDOWN, updated_ns=NOW - 5 * S),
                task(
                    age_s=5,
                    node_id=W2.id,
                    desired_state=DesiredState.READY,
                    status={"state": TaskState.READY},
                ),
            ],
            "waits until task task1-090-xy on w1 has stopped: told so 5 s ago; connections are let "
            "go first, then it has 10 s of stop grace -> if it ignores its stop signal, a shorter "
            "--stop-grace-period helps",
            id="waits for its predecessor",
        ),
        pytest.param(
            [task(desired_state=DesiredState.SHUTDOWN)],
            "task task1-100-xy on w1 is stopping; a new one follows",
            id="stopping",
        ),
        pytest.param(
            [task(revision=3)],
            "runs the spec of revision 3; its turn in the update comes",
            id="not yet updated",
        ),
        pytest.param(
            [task(node_id=None, status={"state": TaskState.NEW})],
            "waits for addresses and ports for 100 s: the managers haven't come to it yet",
            id="new",
        ),
        pytest.param(
            [pending("")], "waits for a node for 100 s: waiting for a node", id="pending"
        ),
    ],
)  # fmt: skip
def test_a_slot_that_is_not_well(tasks: list[Task], says: str) -> None:
    # Not well it is, also where it runs.
    _, *found = told(tasks, problems=("web.1: something",))
    assert found == [f"web.1: {says}"]


@pytest.mark.parametrize(
    ("state", "exit_code", "policy", "says"),
    [
        (
            TaskState.COMPLETE,
            0,
            RestartPolicy(condition=RestartCondition.NONE),
            "done: it ended by itself 9 s ago (exit code 0); its restart condition is none",
        ),
        (
            TaskState.COMPLETE,
            0,
            RestartPolicy(condition=RestartCondition.ON_FAILURE),
            "done: it ended by itself 9 s ago (exit code 0); its restart condition is on-failure",
        ),
        (
            TaskState.FAILED,
            137,
            RestartPolicy(max_attempts=3),
            "given up 9 s ago: exit code 137; its restart policy allows 3 attempts",
        ),
    ],
)
def test_why_nothing_follows(
    state: TaskState, exit_code: int, policy: RestartPolicy, says: str
) -> None:
    service = replace(WEB, spec=replace(SPEC, task=replace(SPEC.task, restart=policy)))
    last = task(
        desired_state=DesiredState.SHUTDOWN,
        ended_ns=NOW - 9 * S,
        status={"state": state, "exit_code": exit_code},
    )
    assert told([last], service)[1] == f"web.1: {says} -> {FORCE}"


def test_a_slot_in_which_an_older_task_serves_is_well() -> None:
    # A start-first update to revision 5 that was rolled back.
    service = replace(WEB, revision=6)
    nodes = {W1.id: W1, W2.id: W2}
    assert verdict([task(age_s=90), failed(20, revision=5)], service, nodes, NOW) is None
    # Its successor on another node is not there yet.
    moving = task(age_s=3, node_id=W2.id, status={"state": TaskState.STARTING})
    assert verdict([task(age_s=90), moving], WEB, nodes, NOW) is None
    # What the managers say of it is told all the same.
    assert told([task(age_s=90), moving], problems=("web.1: is being moved",))[1:] == [
        "service: web.1: is being moved"
    ]


def test_the_leading_task_tells_of_its_slot() -> None:
    tried = failed(20, revision=5)
    sick = task(age_s=90, status={"is_healthy": False})
    assert told([sick, tried])[1].startswith("web.1: task task1-090-xy on w1 is unhealthy")
    gone = failed(90)
    assert told([gone, tried])[1].startswith("web.1: given up 89 s ago: exit code 3; its restart")
    back = replace(UPDATING, state=UpdateState.ROLLBACK_STARTED, revision=5)
    found = told([gone, tried], replace(WEB, revision=6, update=back))
    assert found[1].startswith("web.1: ended 89 s ago (exit code 3); a new task follows")


def test_a_slot_whose_update_failed_is_promised_nothing() -> None:
    over = replace(UPDATING, state=UpdateState.COMPLETED, failed_slots=(1,))
    assert told([task(revision=3), failed(9)], replace(WEB, update=over))[1] == (
        f"web.1: runs the spec of revision 3: the update failed in this slot -> {LOGS}"
    )


PLACED = TaskSpec(
    run=SPEC.task.run,
    reservations=Resources(cpu_nano=1_500_000_000, memory_bytes=2**31),
    placement=Placement(
        constraints=("node.labels.disk == ssd",),
        max_replicas_per_node=1,
        platforms=(Platform(os="linux"),),
    ),
)


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        (
            "no suitable node (2 nodes not available for new tasks)",
            "start nodes that are down, or make drained and paused ones active",
        ),
        (
            "no suitable node (insufficient resources on 2 nodes)",
            "each task reserves 1.5 CPUs and 2.0 GiB: reserve less, scale down, or add a node",
        ),
        (
            "no suitable node (engine missing on 2 nodes)",
            "no other node has the engine 'process'",
        ),
        (
            "no suitable node (a network is encrypted, which 2 nodes can't)",
            "install wireguard-go where the kernel has no WireGuard; each node says what it lacks: "
            "skep node inspect NODE --pretty",
        ),
        (
            "no suitable node (scheduling constraints not satisfied on 2 nodes)",
            "its constraints are node.labels.disk == ssd: change them, or a node's labels: "
            "skep node update NODE --label-add KEY=VALUE",
        ),
        (
            "no suitable node (max replicas per node limit exceed; 1 node not available for new "
            "tasks)",
            "start nodes that are down, or make drained and paused ones active; at most 1 may run "
            "on one node: allow more, or add a node",
        ),
        (
            "no suitable node (unsupported platform on 2 nodes)",
            "its platforms: linux/any",
        ),
        (
            "no suitable node (host-mode port already in use on 2 nodes)",
            "a port in mode host is taken on the others: one task per node is all it allows",
        ),
    ],
)
def test_each_reason_of_the_scheduler_has_its_advice(reason: str, advice: str) -> None:
    service = replace(WEB, spec=replace(SPEC, task=PLACED))
    _, *found = told([pending(reason)], service)
    assert found == [f"web.1: waits for a node for 100 s: {reason} -> {advice}"]


def test_a_health_check_that_has_not_succeeded_yet() -> None:
    run = replace(SPEC.task.run, health=HealthCheck(test=("CMD", "x")))
    service = replace(WEB, spec=replace(SPEC, task=replace(SPEC.task, run=run)))
    _, found = told([task(age_s=3, status={"state": TaskState.STARTING})], service)
    assert (
        found == "web.1: task task1-003-xy on w1 has been started 3 s ago, and is not healthy yet"
    )


def test_a_task_that_is_to_go_says_nothing_of_its_slot() -> None:
    gone = task(age_s=3, desired_state=DesiredState.REMOVE, status={"state": TaskState.FAILED})
    view = ServiceView(service=WEB, running=1, desired=1, is_converged=True)
    story = explain(Scene(view=view, tasks=[task(), gone], nodes=[W1], now_ns=NOW))
    assert story.is_well


def test_slots_of_which_the_same_is_to_be_said_are_one() -> None:
    service = replace(WEB, spec=replace(SPEC, replicas=9))
    waiting = [replace(pending("no suitable node"), slot=slot) for slot in range(1, 9)]
    summary, slots, missing = told(waiting, service)
    assert summary == "web: 0 of 9 run, revision 4; not as asked"
    assert slots.startswith("web.1, web.2, web.3, web.4, web.5, web.6 and 2 more: waits for a")
    assert missing.startswith("slots: 1 task not made yet -> if this stays so, the managers' logs")


def test_more_than_a_person_reads_is_counted() -> None:
    service = replace(WEB, spec=replace(SPEC, replicas=20))
    waiting = [replace(pending(f"reason {slot}"), slot=slot) for slot in range(1, 21)]
    found = told(waiting, service)
    assert len(found) == 14
    assert found[-1] == "…: and 8 more -> skep service ps web"


def test_a_spec_that_never_ran_can_be_undone() -> None:
    service = replace(WEB, previous_revision=3)
    (_, finding) = told([failed(9, desired_state=DesiredState.RUNNING)], service)
    assert finding.endswith("; back to revision 3: skep service rollback web")
    ran = failed(9, desired_state=DesiredState.RUNNING, healthy_ns=NOW - 8 * S)
    assert "rollback" not in told([ran], service)[1]


# ------------------------------------------------------------------------------- update

POLICY = UpdatePolicy(failure_action=FailureAction.ROLLBACK, max_failure_ratio=0.25)
UPDATING = UpdateStatus(
    state=UpdateState.UPDATING,
    revision=4,
    base_revision=3,
    policy=POLICY,
    started_ns=NOW - 30 * S,
)


def revision(number: int, image: str) -> Revision:
    spec = replace(SPEC, task=replace(SPEC.task, run=replace(SPEC.task.run, image=image)))
    return Revision(id=f"web-id.{number}", service_id=WEB.id, number=number, spec=spec)


PAUSED = {
    "state": UpdateState.PAUSED,
    "ended_ns": NOW - 20 * S,
    "message": "1 of 1 slots failed",
    "failed_slots": (1,),
}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (
            {},
            "to revision 4 (v4) for 30 s (1 at a time, stop first): 0 of 1 slots have a healthy "
            "new task -> if more than 25% of the slots fail, it goes back to revision 3 (v3); to "
            "go back now: skep service rollback web",
        ),
        (
            {"policy": UpdatePolicy(parallelism=0), "failed_slots": (1, 2)},
            "to revision 4 (v4) for 30 s (all at once, stop first): 0 of 1 slots have a healthy "
            "new task, slots 1, 2 failed -> if more than 0% of the slots fail, it pauses; to go "
            "back now: skep service rollback web",
        ),
        (
            PAUSED,
            "to revision 4 (v4) paused 20 s ago, slot 1 failed: 1 of 1 slots failed; it waits for "
            "a person -> to go on: skep service update web; to undo: skep service rollback web; or "
            "update it to a spec that works",
        ),
        (
            {**PAUSED, "state": UpdateState.ROLLBACK_STARTED},
            "revision 4 (v4) was given up; going back to revision 3 (v3) for 30 s, slot 1 failed: "
            "1 of 1 slots failed -> nothing is to be done; to see what was given up: skep service "
            "logs web",
        ),
        (
            {**PAUSED, "state": UpdateState.ROLLBACK_PAUSED},
            "going back from revision 4 to 3 failed as well, and paused 20 s ago, slot 1 failed: "
            "1 of 1 slots failed -> update it to a spec that works: skep service update web ...; "
            "what it has had: skep service history web",
        ),
        (
            {**PAUSED, "state": UpdateState.ROLLBACK_COMPLETED},
            "revision 4 (v4), the last one asked for, was given up 20 s ago: 1 of 1 slots failed; "
            "the spec of revision 3 (v3) runs again -> update it to a spec that works; what was "
            "asked for: skep service history web; what it wrote: skep service logs web",
        ),
    ],
)
def test_an_update_is_explained(fields: dict[str, object], says: str) -> None:
    service = replace(WEB, update=replace(UPDATING, **fields))
    if fields.get("state") is UpdateState.ROLLBACK_COMPLETED:
        service = replace(service, revision=5)
    revisions = (revision(4, "v4"), revision(3, "v3"))
    assert told([task()], service, revisions=revisions)[1:] == [f"update: {says}"]


def test_a_rollback_is_not_what_was_asked_for() -> None:
    given_up = replace(
        UPDATING,
        state=UpdateState.ROLLBACK_COMPLETED,
        ended_ns=NOW - S,
        message="rollback completed (update rolled back due to failure of task web.1: exit 1)",
    )
    service = replace(WEB, revision=5, update=given_up)
    summary, finding = told([task()], service)
    assert summary == "web: 1 of 1 run, revision 5; but:"
    # Each thing is said once.
    assert "was given up 1 s ago: failure of task web.1: exit 1; the spec of" in finding
    # It was scaled or changed since: that has been done.
    assert told([task()], replace(service, revision=6)) == [
        "web: 1 of 1 run, revision 6; all is as asked"
    ]


def test_a_rollback_by_hand_is_what_was_asked_for() -> None:
    done = replace(
        UPDATING,
        state=UpdateState.ROLLBACK_COMPLETED,
        base_revision=1,
        ended_ns=NOW - 180 * S,
        message="rollback completed (manually requested rollback)",
    )
    assert told([task()], replace(WEB, revision=5, update=done)) == [
        "web: 1 of 1 run, revision 5, back at the spec of revision 1 for 3 min; all is as asked"
    ]


def test_an_old_task_of_a_paused_update_says_so() -> None:
    service = replace(WEB, update=replace(UPDATING, **PAUSED))
    assert told([task(revision=3)], service)[1] == (
        "web.1: runs the spec of revision 3; the update is paused"
    )


# ---------------------------------------------------------------------- ports and nodes


@pytest.mark.parametrize(
    ("port", "says"),
    [
        (
            Port(target=80, published=8080),
            "publish another port, such as 8081: skep service update web --publish-rm 8080:80/tcp "
            "--publish-add 8081:80/tcp",
        ),
        (
            Port(target=80, published=65535),
            "publish another port, such as 65534: skep service update web --publish-rm "
            "65535:80/tcp --publish-add 65534:80/tcp",
        ),
    ],
)
def test_a_taken_port_can_be_changed_by_a_whole_command(port: Port, says: str) -> None:
    other = Port(target=90, published=9090)
    service = replace(WEB, spec=replace(SPEC, ports=(other, port)), ports=(other, port))
    problem = f"w1: port {port.published} is taken"
    (_, finding) = told([task()], service, problems=(problem,))
    assert finding.endswith(says)


NO_PROGRAM = '"nope" is no program on this node in PATH (/bin)'


def test_what_never_wrote_anything_has_no_logs_to_look_at() -> None:
    mend = "name a program that its nodes have: skep service update web -- COMMAND"
    status = {"state": TaskState.REJECTED, "error": NO_PROGRAM}
    trying = task(status=status, desired_state=DesiredState.RUNNING)
    assert told([trying])[1].endswith(f"-> {mend}")
    ended = replace(trying, desired_state=DesiredState.SHUTDOWN)
    assert told([ended])[1].endswith(f"-> {mend}")
    message = f"update rolled back due to failure of task web.1: {NO_PROGRAM}"
    back = replace(UPDATING, state=UpdateState.ROLLBACK_COMPLETED, message=message)
    (_, finding) = told([task()], replace(WEB, revision=5, update=back))
    assert finding.endswith(f"-> {mend}; what was asked for: skep service history web")
    paused = replace(back, state=UpdateState.PAUSED)
    assert told([task()], replace(WEB, update=paused))[1].endswith(f"or {mend}")


def test_ports_that_can_not_be_served() -> None:
    service = replace(WEB, ports=None, spec=replace(SPEC, ports=(Port(target=80),)))
    assert told([task()], service, problems=("w1: port 8080 is taken", "web.1: x"))[1:] == [
        "port on w1: port 8080 is taken -> if another program holds it, stop that one, or publish "
        "another port",
        "port 80: no published port was picked yet",
    ]


DOWN = node("w2", state=NodeState.DOWN, message="3 heartbeats missed")


def test_nodes_are_told_of_where_they_matter() -> None:
    drained = node("w1", availability=Availability.DRAIN)
    waiting = pending("no suitable node (2 nodes not available for new tasks)")
    assert told([waiting], nodes=(drained, DOWN, node("m1", runs_tasks=False)))[2:] == [
        "node w1: drained; it gets no tasks -> to use it again: skep node update w1 "
        "--availability active",
        "node w2: down since 5 min: 3 heartbeats missed; it gets no tasks -> start it, or forget "
        "it: skep node rm w2",
    ]
    assert len(told([failed(9)], nodes=(drained, DOWN))) == 2
    assert told([task()], nodes=(W1, DOWN)) == ["web: 1 of 1 run, revision 4; all is as asked"]


def test_a_node_that_was_silent_is_down_since_then() -> None:
    silent = replace(DOWN, message="silent for 6.1 s")
    assert told([task(node_id=DOWN.id)], nodes=(W1, silent))[2].startswith(
        "node w2: down since 5 min: it was silent for 6.1 s; 1 task of it there"
    )


def test_a_task_on_a_lost_or_drained_node() -> None:
    lost = task(node_id=DOWN.id)
    assert told([lost], nodes=(W1, DOWN))[1:] == [
        "web.1: its node w2 is down; it is being replaced",
        "node w2: down since 5 min: 3 heartbeats missed; 1 task of it there -> start it, or forget "
        "it: skep node rm w2",
    ]
    drained = node("w1", availability=Availability.DRAIN)
    assert told([task()], nodes=(drained, W2))[1] == (
        "web.1: its node w1 is drained; it is being moved"
    )
    waits = [
        replace(lost, desired_state=DesiredState.SHUTDOWN),
        task(age_s=5, desired_state=DesiredState.READY, status={"state": TaskState.READY}),
    ]
    assert told(waits, nodes=(W1, DOWN))[1] == (
        "web.1: waits a while for task task1-100-xy on w2, whose node is down"
    )


def test_a_service_on_its_way_out() -> None:
    assert told([task()], replace(WEB, is_removing=True)) == [
        "web: is being removed",
        "removal: 1 task still to stop on w1 -> nothing is to be done; it goes when they have "
        "stopped",
    ]


# ------------------------------------------------------------------------ the command


def no_revisions(control: FakeControl, q: ListRevisionsRequest) -> ListRevisionsResponse:
    return ListRevisionsResponse()


def test_the_command(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeControl, "on_ListRevisions", no_revisions, raising=False)
    shell.skep("service create -q --name web --replicas 2 -- serve")
    assert shell.skep("service why web") == 0
    assert shell.out == "web: 2 of 2 run, revision 1; all is as asked\n"
    first = next(iter(shell.control.tasks.values()))
    shell.control.tasks[first.id] = replace(
        first, status=replace(first.status, state=TaskState.PENDING, error="no node\x1b[2J")
    )
    assert shell.skep("service why web") == 0
    assert "web.1  waits for a node" in shell.out
    assert "\x1b" not in shell.out
    (story,) = shell.rows("service why web")
    assert story["is_well"] is False
    assert json.dumps(story["findings"]).count("no node") == 1


def test_commands_in_an_advice_are_about_the_same_cluster() -> None:
    view = ServiceView(service=WEB, running=0, desired=1)
    story = explain(Scene(view=view, tasks=[failed(9)], nodes=[W1], now_ns=NOW, at=" --context a"))
    assert story.findings[0].advice == (
        "to run it once more: skep service update web --force --context a; "
        "what it wrote: skep service logs web --context a"
    )


def test_advice_stands_below_what_it_is_about() -> None:
    view = ServiceView(service=WEB, running=0, desired=1)
    story = explain(Scene(view=view, tasks=[failed(9)], nodes=[W1], now_ns=NOW))
    assert lines(story)[1:] == [
        "  web.1  given up 8 s ago: exit code 3; its restart policy tries no more",
        f"         -> {FORCE}",
    ]
