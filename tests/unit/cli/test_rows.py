"""Objects as rows, and rows as text."""

from __future__ import annotations

import pytest

from skep.cli import rows
from skep.cli.output import table
from skep.domain.base import NodeId, ServiceId, TaskId, replace
from skep.domain.objects import Node, NodeDescription, NodeRole, Task, TaskStatus
from skep.domain.spec import RunSpec, ServiceSpec, TaskSpec
from skep.domain.states import DesiredState, TaskState


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0 seconds"),
        (1.9, "1 second"),
        (59, "59 seconds"),
        (60, "1 minute"),
        (3599, "59 minutes"),
        (3600, "1 hour"),
        (90000, "25 hours"),
        (200000, "2 days"),
    ],
)
def test_ages(seconds: float, text: str) -> None:
    assert rows.age_text(seconds) == text


def task(slot: int, born: int, **status: object) -> Task:
    return Task(
        id=TaskId(f"{slot}-{born}"),
        service_id=ServiceId("s"),
        service_name="web",
        revision=1,
        slot=slot,
        created_ns=born,
        node_id=NodeId("n1"),
        status=TaskStatus(**status),  # type: ignore[arg-type]
    )


def test_the_newest_of_each_slot_comes_first() -> None:
    found = rows.task_rows([task(2, 5), task(1, 1), task(1, 3), task(1, 2)], {"n1": "w1"})
    assert [(row.id, row.is_current) for row in found] == [
        ("1-3", True), ("1-2", False), ("1-1", False), ("2-5", True),
    ]  # fmt: skip
    assert {row.node for row in found} == {"w1"}


def test_what_is_wanted_comes_before_what_was_tried_after_it() -> None:
    shutdown = DesiredState.SHUTDOWN
    tasks = [
        replace(task(1, 1), desired_state=shutdown),
        task(1, 2),
        replace(task(1, 3), desired_state=shutdown),
        replace(task(1, 4), desired_state=shutdown),
    ]
    found = rows.task_rows(tasks, {})
    assert [(row.id, row.is_current) for row in found] == [
        ("1-2", True), ("1-4", False), ("1-3", False), ("1-1", False),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "text"),
    [
        ({"state": TaskState.RUNNING, "since_ns": 95 * 10**9}, "Running 5 seconds ago"),
        (
            {"state": TaskState.RUNNING, "since_ns": 95 * 10**9, "is_healthy": False},
            "Running (unhealthy) 5 seconds ago",
        ),
        (
            {"state": TaskState.FAILED, "since_ns": 40 * 10**9, "exit_code": 1},
            "Failed 1 minute ago",
        ),
        ({"state": TaskState.NEW}, "New"),
    ],
)
def test_states(status: dict[str, object], text: str) -> None:
    (row,) = rows.task_rows([task(1, 0, **status)], {})
    assert rows.state_text(row, 100.0) == text


def test_ports() -> None:
    shown = [
        rows.PortRow(published=8080, target=80, protocol="tcp"),
        rows.PortRow(published=None, target=81, protocol="tcp"),
    ]
    shown.append(rows.PortRow(published=53, target=53, protocol="tcp", mode="host"))
    assert rows.ports_text(shown) == "*:8080->80/tcp, *:?->81/tcp, *:53->53/tcp (host)"


def test_whole_objects_show_their_defaults_too() -> None:
    found = rows.plain(ServiceSpec(name="a", task=TaskSpec(run=RunSpec(command=("x",)))))
    assert found["replicas"] == 1
    assert found["task"]["restart"]["condition"] == "any"
    assert found["task"]["run"]["command"] == ["x"]


def test_named_strings_are_maps() -> None:
    run = RunSpec(command=("a", "b"), env=(("A", "1"), ("B", "")))
    found = rows.plain(ServiceSpec(name="a", labels=(("x", "y"),), task=TaskSpec(run=run)))
    assert found["labels"] == {"x": "y"}
    assert found["task"]["run"]["env"] == {"A": "1", "B": ""}
    assert found["task"]["run"]["command"] == ["a", "b"]
    node = Node(
        id=NodeId("n"),
        name="w1",
        role=NodeRole.WORKER,
        description=NodeDescription(hostname="w1", notes=(("cpu", "not limited"),)),
    )
    assert rows.plain(node)["description"]["notes"] == {"cpu": "not limited"}
    assert rows.plain(node)["labels"] == {}


def test_a_table_without_rows_is_its_head() -> None:
    assert table(["A", "B"], []) == "A   B"
    assert table(["A", "B"], [["xyz", ""]]) == "A     B\nxyz"
