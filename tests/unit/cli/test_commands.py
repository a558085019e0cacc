"""The command as its users call it, against a control API in memory."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator

import pytest
import yaml

from skep.domain.base import NodeId, replace
from skep.domain.control import (
    ListRevisionsRequest,
    ListRevisionsResponse,
    ListTasksRequest,
    ListTasksResponse,
)
from skep.domain.objects import NodeState, Task, TaskStatus, UpdateState
from skep.domain.states import DesiredState, TaskState
from skep.env import CallError, Code
from tests.unit.cli.shell import STACK, Shell, columns

# ------------------------------------------------------------------------------- nodes


def test_nodes_are_listed(shell: Shell) -> None:
    assert shell.skep("node ls") == 0
    lines = shell.out.splitlines()
    assert columns(lines[0])[1:4] == ["NAME", "ADDRESS", "ROLE"]
    assert columns(lines[1]) == [
        "m1-id",
        "m1",
        "127.32.0.1",
        "manager",
        "Ready",
        "Active",
        "Leader",
    ]
    assert columns(lines[4])[:2] == ["w1-id", "w1"]
    (row, *_) = shell.rows("node ls")
    assert row == {
        "id": "m1-id",
        "name": "m1",
        "address": "127.32.0.1",
        "role": "manager",
        "status": "ready",
        "availability": "active",
        "leader": True,
        "labels": {},
        "message": "",
    }
    assert shell.skep("node ls -q") == 0
    assert shell.out.split() == ["m1-id", "m2-id", "m3-id", "w1-id", "w2-id", "w3-id"]
    assert shell.skep("node ls --format yaml") == 0
    assert yaml.safe_load(shell.out)[5]["name"] == "w3"


def test_nodes_are_changed(shell: Shell) -> None:
    line = "node update w1 w2 --availability drain --label-add disk=ssd"
    assert shell.skep(line) == 0
    assert shell.out == "w1\nw2\n"
    assert shell.control.nodes["w2-id"].labels == (("disk", "ssd"),)
    assert shell.skep("node update w1") == 2
    assert shell.skep("node update w1 --label-add disk") == 2
    assert "write KEY=VALUE" in shell.err
    assert shell.skep("node inspect w1") == 0
    assert json.loads(shell.out)[0]["availability"] == "drain"


def test_a_label_that_is_not_there_changes_no_node(shell: Shell) -> None:
    shell.skep("node update w1 --label-add disk=ssd")
    assert shell.skep("node update w1 w2 --label-rm disk --availability pause") == 2
    assert shell.err == "skep: error: --label-rm: there is no 'disk'; w2 has none\n"
    assert shell.control.nodes["w1-id"].labels == (("disk", "ssd"),)
    assert shell.skep("node update w1 --label-rm disk") == 0
    assert not dict(shell.control.nodes["w1-id"].labels)


def test_draining_waits_until_nothing_is_left(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell.skep("service create --name web --replicas 2 -- serve")
    control = shell.control
    row = next(iter(control.services.values()))
    plan: Iterator[Callable[[], object]] = iter(
        [
            lambda: None,
            lambda: place(control.add_task(row, 1, TaskState.STARTING)),
            lambda: control.end_task(old(), TaskState.SHUTDOWN),
        ]
    )

    def old() -> Task:
        return next(task for task in control.tasks.values() if task.node_id == "w1-id")

    def place(task: Task) -> None:
        control.tasks[task.id] = replace(task, node_id=NodeId("w2-id"))

    listed = control.on_ListTasks

    def list_tasks(q: ListTasksRequest) -> ListTasksResponse:
        next(plan, lambda: None)()
        return listed(q)

    monkeypatch.setattr(control, "on_ListTasks", list_tasks)
    assert shell.skep("node update w1 --availability drain --wait") == 0
    assert shell.out == "w1\n"
    assert shell.err.splitlines() == [
        "w1: 1 task left: web.1 has no replacement yet",
        "w1: 1 task left: web.1 waits for its replacement (starting)",
        "w1: no tasks left",
        "verify: w1 drained",
    ]


def test_draining_has_an_end_that_names_what_is_left(shell: Shell) -> None:
    shell.skep("service create --name web --replicas 4 -- serve")
    assert shell.skep("node update w1 --availability drain --wait --timeout 2s") == 3
    assert shell.err.splitlines() == [
        "w1: 2 tasks left: web.1 has no replacement yet; web.4 has no replacement yet",
        "skep: error: not drained after 2 s: w1: web.1 has no replacement yet; w1: web.4 has no "
        "replacement yet",
        "what next:",
        "  skep node ps w1   lists what is left",
        "  skep service ls   shows which services have trouble elsewhere",
    ]
    for flags, says in (
        ("--availability pause --wait", "--wait is for --availability drain"),
        ("--availability drain --timeout 3s", "--timeout is for --wait"),
        ("--availability drain --wait --timeout 0", "leaves no time to wait"),
    ):
        assert shell.skep(f"node update w1 {flags}") == 2
        assert says in shell.err


def test_a_node_is_forgotten_only_when_it_is_down(shell: Shell) -> None:
    assert shell.skep("node rm w1") == 5
    assert shell.err == "skep: error: node 'w1' is not down; stop it\n"
    node = shell.control.nodes["w1-id"]
    shell.control.nodes["w1-id"] = replace(node, state=NodeState.DOWN)
    assert shell.skep("node rm w1") == 0
    assert shell.out == "w1\n"


# ---------------------------------------------------------------------------- services


def test_a_service_from_birth_to_death(shell: Shell) -> None:
    assert shell.skep("service create --name web --replicas 2 -p 8080:80 -- serve -v") == 0
    assert re.fullmatch("[0-9a-z]{25}\n", shell.out)
    assert shell.err == (
        "web 2/2: running, watching 5 s (monitor)\nverify: service web converged\n"
    )
    (row,) = shell.rows("service ls")
    assert (row["name"], row["mode"], row["running"], row["desired"]) == ("web", "replicated", 2, 2)
    assert row["ports"] == [
        {
            "published": 8080,
            "target": 80,
            "protocol": "tcp",
            "mode": "ingress",
            "proxy_protocol": "none",
            "accepts_proxy_protocol": False,
        }
    ]
    assert shell.skep("service ls") == 0
    assert columns(shell.out.splitlines()[1])[1:] == [
        "web", "replicated", "2/2", "*:8080->80/tcp", "Converged",
    ]  # fmt: skip
    assert shell.skep("service update web --image v2") == 0
    assert shell.out == "web\n"
    assert shell.skep("service inspect web") == 0
    (view,) = json.loads(shell.out)
    assert view["service"]["spec"]["task"]["run"]["image"] == "v2"
    assert view["service"]["spec"]["task"]["restart"]["delay_ns"] == 5_000_000_000
    assert shell.skep("service rm web") == 0
    assert shell.out == "web\n"
    assert shell.rows("service ls") == []


def test_several_services_are_scaled_at_once(shell: Shell) -> None:
    shell.skep("service create -q --name a -- x")
    shell.skep("service create -q --name b -- x")
    assert shell.skep("service scale a=3 b=0") == 0
    assert shell.out == "a scaled to 3\nb scaled to 0\n"
    assert shell.err.endswith("verify: 2 services converged: a 3/3, b 0/0\n")
    assert shell.skep("service scale a=1 nope=1") == 1
    assert [row["running"] for row in shell.rows("service ls")] == [3, 0]
    shell.skep("service scale a=1 -d")
    assert shell.skep("service scale a=5 b=2 a=4") == 2
    assert "'a=5': this service is named twice" in shell.err
    assert [row["running"] for row in shell.rows("service ls")] == [1, 0]
    for wrong in ("a", "a=", "a=x", "=1", "a=-1"):
        assert shell.skep(f"service scale {wrong}") == 2
        assert "write SERVICE=REPLICAS" in shell.err


def test_history_is_shown_newest_first_with_how_it_ended(shell: Shell) -> None:
    shell.skep("service create --name web --replicas 2 --image v1 -- serve")
    control = shell.control
    row = next(iter(control.services.values()))
    first = control.add_task(row, 1, TaskState.FAILED)
    ended = TaskStatus(
        state=TaskState.FAILED,
        since_ns=time.time_ns() - 5_500_000_000,
        error="task: non-zero exit (137)\x1b[2J",
        exit_code=137,
    )
    control.tasks[first.id] = replace(
        first, status=ended, version=1, desired_state=DesiredState.SHUTDOWN
    )
    assert shell.skep("service ps web") == 0
    head, one, old, two = shell.out.splitlines()
    assert columns(head) == [
        "ID", "NAME", "IMAGE", "NODE", "DESIRED STATE", "CURRENT STATE", "ADDRESS", "PID", "ERROR",
    ]  # fmt: skip
    assert columns(one)[1:5] == ["web.1", "v1", "w1", "Running"]
    assert columns(old)[1:] == [
        "\\_ web.1", "v1", "w1", "Shutdown", "Failed 5 seconds ago",
        "127.32.16.1", "task: non-zero exit (137) [2J",
    ]  # fmt: skip
    assert "\x1b" not in shell.out
    assert columns(two)[1] == "web.2"
    assert "4002" in two
    rows = shell.rows("service ps web")
    assert [(row["slot"], row["state"], row["exit_code"]) for row in rows] == [
        (1, "running", None), (1, "failed", 137), (2, "running", None),
    ]  # fmt: skip
    assert rows[0]["pid"] == 4001
    assert rows[0]["node"] == "w1"
    assert {"id", "service", "desired_state", "error", "address"} <= rows[0].keys()
    assert [row["name"] for row in shell.rows("node ps w2")] == ["web.2"]
    assert len(shell.rows("node ps -a w1")) == 2


def test_a_long_error_is_cut_unless_it_is_wanted_whole(shell: Shell) -> None:
    shell.skep("service create --name web -- serve")
    (task,) = shell.control.tasks.values()
    error = f"unhealthy: {'x' * 90}"
    shell.control.tasks[task.id] = replace(task, status=replace(task.status, error=error))
    assert shell.skep("service ps web") == 0
    assert shell.out.splitlines()[1].endswith(f"   {error[:59]}…")
    assert shell.skep("service ps --no-trunc web") == 0
    assert shell.out.splitlines()[1].endswith(f"   {error}")
    assert shell.rows("service ps web")[0]["error"] == error


def test_a_task_that_can_not_be_prepared_at_the_moment_says_why(shell: Shell) -> None:
    shell.skep("service create --name web -- serve")
    (task,) = shell.control.tasks.values()
    for message, shown in (("preparing", ""), ("networks: no netproxy", "networks: no netproxy")):
        status = replace(task.status, state=TaskState.PREPARING, message=message)
        shell.control.tasks[task.id] = replace(task, status=status)
        assert shell.skep("service ps web") == 0
        assert shell.out.splitlines()[1].endswith(f"   {shown}".rstrip())
        assert (message in shell.out) is bool(shown)


def test_a_task_is_shown_with_its_own_release_and_its_ports_on_the_node(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell.skep(
        "service create --name web --image v1 --publish published=80,target=8080,mode=host -- serve"
    )
    shell.skep("service update web --image v2 -d")
    assert shell.skep("service ps web") == 0
    head, new, old = shell.out.splitlines()
    assert columns(head)[6:] == ["PORTS", "ADDRESS", "PID", "ERROR"]
    assert columns(new)[2] == "v2"
    assert columns(new)[6] == "*:80->8080/tcp (host)"
    assert columns(old)[1:3] == ["\\_ web.1", "v1"]
    assert "(host)" not in old
    assert [row["image"] for row in shell.rows("service ps web")] == ["v2", "v1"]
    # A cluster that keeps no revisions has no releases to show, and everything else.

    def unknown(q: ListRevisionsRequest) -> ListRevisionsResponse:
        raise CallError(Code.UNIMPLEMENTED, "no such call")

    monkeypatch.setattr(shell.control, "on_ListRevisions", unknown)
    assert [row["image"] for row in shell.rows("node ps w1")] == [""]
    assert shell.skep(f"stack deploy -c {shell.file('services: {a: {command: x}}')}") == 0


def test_waiting_has_an_end_and_detaching_has_none(shell: Shell) -> None:
    shell.control.is_quick = False
    shell.control.problems["web"] = ("no suitable node",)
    assert shell.skep("service create --name web --timeout 3s -- serve") == 3
    assert shell.err.splitlines() == [
        "web 0/1: starting (no suitable node)",
        "skep: error: not converged after 3 s: web 0/1 (no suitable node)",
        "what next:",
        "  skep service why web   explains it, slot by slot",
        "  skep service ps web    lists its tasks",
    ]
    assert shell.skep("service update web --replicas 2 -d") == 0
    assert shell.skep("service rm web --timeout 2") == 3
    assert "not removed after 2 s: web" in shell.err


@pytest.mark.parametrize(
    ("problem", "step"),
    [
        (
            'web.1: "nope" is no program on this node in PATH (/bin)',
            "skep service update web -- COMMAND   gives it a program",
        ),
        (
            "no suitable node (scheduling constraints not satisfied on 2 nodes)",
            "skep service update web --constraint-rm node.labels.disk==ssd   lets it run",
        ),
        (
            "no suitable node (insufficient resources on 2 nodes)",
            "skep service update web --reserve-cpu CPUS --reserve-memory SIZE   reserves less",
        ),
        ("no suitable node (2 nodes not available for new tasks)", "skep node ls "),
    ],
)
def test_what_can_not_run_is_to_be_changed(shell: Shell, problem: str, step: str) -> None:
    shell.control.is_quick = False
    shell.control.problems["web"] = (problem,)
    assert shell.skep(
        "service create --name web --timeout 3s --constraint node.labels.disk==ssd -- nope"
    )
    lines = shell.err.splitlines()
    assert lines[lines.index("what next:") + 1].startswith(f"  {step}")
    assert "service logs" not in shell.err


def test_what_was_given_up_is_not_waited_for(shell: Shell) -> None:
    shell.control.is_quick = False
    shell.control.problems["crash"] = ("crash.1: non-zero exit (1)",)
    shell.control.given_up["crash"] = 1
    began = shell.world.clock.time
    assert shell.skep("service create --name crash -- false") == 1
    assert (
        "skep: error: crash: gave up after its last restart: crash.1: non-zero exit (1)\n"
    ) in shell.err
    assert "skep service update --force crash   tries again" in shell.err
    assert shell.world.clock.time - began < 3
    assert shell.skep("service ls") == 0
    assert shell.out.splitlines()[1].endswith("Failed: crash.1: non-zero exit (1)")
    assert shell.rows("service ls")[0]["failed"] is True


def test_how_far_a_change_is_is_marked_in_the_list(shell: Shell) -> None:
    shell.skep("service create --name web -- serve")
    shell.control.is_quick = False
    shell.skep("service update web -d -- other")

    def status() -> str:
        assert shell.skep("service ls") == 0
        return columns(shell.out.splitlines()[1])[-1]

    assert status() == "Updating"
    shell.control.set_update("web", UpdateState.PAUSED, "update paused due to web.1")
    assert status() == "Update paused: web.1"
    shell.control.problems["web"] = ("web.2: exit code 1",)
    shell.control.set_update("web", UpdateState.ROLLBACK_PAUSED, "why")
    assert status() == "Rollback paused: why; web.2: exit code 1"
    assert shell.rows("service ls")[0]["update"] == "rollback_paused"
    shell.control.problems.clear()
    shell.control.roll_back("web", 1, "update rolled back due to web.1")
    assert status() == "Rolling back: web.1"
    shell.control.converge()
    assert status() == "Converged, rolled back"
    # Whoever has changed it since has had the last word.
    shell.control.is_quick = True
    shell.skep("service scale web=2")
    assert status() == "Converged"


def test_a_rollback_by_hand_is_as_asked(shell: Shell) -> None:
    shell.skep("service create --name web -- serve")
    shell.skep("service update web -- other")
    assert shell.skep("service rollback web --to 1") == 0
    assert shell.skep("service ls") == 0
    assert columns(shell.out.splitlines()[1])[-1] == "Converged"
    assert [row["rolled_back"] for row in shell.rows("service ls")] == [False]
    assert shell.skep("service why web") == 0
    assert len(shell.out.splitlines()) == 1
    assert "back at the spec of revision 1 for" in shell.out


def test_an_update_that_changes_nothing_says_so(shell: Shell) -> None:
    shell.skep("service create --name web -- serve")
    assert shell.skep("service update web --replicas 1") == 0
    assert "web is so already; nothing was changed" in shell.err


# ------------------------------------------------------------------------------ stacks


def test_a_stack_from_birth_to_death(shell: Shell) -> None:
    path = shell.file(STACK)
    assert shell.skep(f"stack deploy -c {path}") == 0
    assert shell.err.splitlines()[:3] == [
        "created network shop_default",
        "created shop_web",
        "created shop_clock",
    ]
    assert shell.err.endswith("verify: 2 services converged: shop_web 3/3, shop_clock 1/1\n")
    assert shell.rows("stack ls") == [
        {"id": shell.rows("stack ls")[0]["id"], "name": "shop", "services": 2, "revision": 1}
    ]
    assert len(shell.rows("stack ps shop")) == 4
    assert [row["name"] for row in shell.rows("stack services shop")] == ["shop_clock", "shop_web"]
    path = shell.file("services: {clock: {command: tick}}")
    assert shell.skep(f"stack deploy -c {path} shop") == 0
    assert "kept shop_web, which the stack no longer names; --prune removes it" in shell.err
    assert shell.skep(f"stack deploy --prune -c {path} shop") == 0
    assert "removed shop_web" in shell.err
    assert [row["name"] for row in shell.rows("service ls")] == ["shop_clock"]
    assert shell.skep("stack rm shop") == 0
    assert shell.rows("service ls") == []


def asked(shell: Shell) -> list[str]:
    """The calls that reached a manager, by method."""
    return [method.rpartition("/")[2] for _, method, _ in shell.world.transport.calls]


def test_a_wrong_stack_file_changes_nothing(shell: Shell) -> None:
    path = shell.file("services:\n  a: {command: x, cap_add: [ALL]}\n")
    assert shell.skep(f"stack deploy -c {path} s") == 2
    assert shell.err == (
        f"skep: error: engine 'process' can't do 'cap_add' ({path}:2:19): it needs a container "
        "engine; remove the key, or write 'x-engine: docker'\n"
    )
    assert asked(shell) == ["GetCluster"]
    assert shell.skep("stack deploy -c /nowhere/x.yml s") == 2
    assert shell.err == "skep: error: /nowhere/x.yml: No such file or directory\n"


def test_a_port_of_another_service_is_refused_by_the_names_in_the_file(shell: Shell) -> None:
    assert shell.skep("service create --name api -p 8080:80 -- serve") == 0
    path = shell.file(STACK)
    assert shell.skep(f"stack deploy -c {path}") == 5
    assert shell.err == (
        f"skep: error: {path}:2:3: service 'shop_web': port 8080/tcp is already published by "
        "service 'api'\n"
    )
    assert shell.skep("service create --name api2 -p 8080:80 -- serve") == 5
    assert "is already published by service 'api'" in shell.err


def test_a_variable_that_is_not_set_is_told(shell: Shell) -> None:
    path = shell.file("services: {a: {command: 'x ${SKEP_NOT_SET}'}}")
    assert shell.skep(f"stack deploy -d -c {path} s") == 0
    assert "warning" in shell.err
    assert "variable 'SKEP_NOT_SET' is not set" in shell.err
