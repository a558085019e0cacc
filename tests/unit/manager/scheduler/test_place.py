"""Filters and spread, on SwarmKit's own scenarios where they apply."""

from __future__ import annotations

from typing import Any

import pytest

from skep.domain.base import NodeId, ServiceId, replace
from skep.domain.objects import Availability, Node, NodeDescription, NodeState, Task
from skep.domain.spec import Placement, Resources, RunSpec, TaskSpec
from skep.domain.states import DesiredState, IllegalMove, TaskState
from skep.manager.scheduler.core.filters import NodeLoad, explain, first_refusal, loads_by_node
from skep.manager.scheduler.core.place import (
    Placement as Placed,
)
from skep.manager.scheduler.core.place import applied, count_loads, is_placeable, place
from tests.unit.manager.build import GIB, node, task

PLAIN = TaskSpec(run=RunSpec(command=("serve",)))


def wants(**reservations: Any) -> TaskSpec:
    return replace(PLAIN, reservations=Resources(**reservations))


def waiting(*ids: str, of: str = "s1", **changes: Any) -> list[Task]:
    return [
        task(id_, TaskState.PENDING, **{"service_id": ServiceId(of), "slot": n, **changes})
        for n, id_ in enumerate(ids, start=1)
    ]


def on(node_id: str, count: int, of: str = "s1", **changes: Any) -> list[Task]:
    return [
        task(
            f"{of}-{node_id}-{n}",
            TaskState.RUNNING,
            **{"service_id": ServiceId(of), "node_id": NodeId(node_id), **changes},
        )
        for n in range(count)
    ]


def scheduled(
    pending: list[Task], nodes: list[Node], there: list[Task], spec: TaskSpec = PLAIN
) -> dict[str, str]:
    """Task to node, or to the explanation."""
    loads = loads_by_node({row.id: row for row in nodes})
    count_loads(loads, there, lambda _: spec)
    return {
        placed.task.id: placed.node_id or placed.explanation
        for placed in place(pending, loads, lambda _: spec)
    }


def counts(placements: dict[str, str]) -> dict[str, int]:
    return {name: list(placements.values()).count(name) for name in set(placements.values())}


NODES = [node(f"n{n}") for n in range(1, 6)]


def test_tasks_spread_over_all_nodes_first_by_service_then_by_load() -> None:
    """SwarmKit's S01, in its four steps."""
    first = counts(scheduled(waiting(*(f"a{n}" for n in range(18))), NODES, []))
    assert first == {"n1": 4, "n2": 4, "n3": 4, "n4": 3, "n5": 3}
    there = [row for name, count in first.items() for row in on(name, count)]
    second = scheduled(waiting("b1", "b2", of="s2"), NODES, there)
    assert set(second.values()) == {"n4", "n5"}
    there += on("n4", 1, "s2") + on("n5", 1, "s2")
    third = counts(scheduled(waiting("c1", "c2", "c3"), NODES, there))
    assert third == {"n1": 1, "n4": 1, "n5": 1}


def test_an_emptied_node_is_filled_first() -> None:
    there = [row for name in ("n2", "n3", "n4", "n5") for row in on(name, 3)]
    placed = counts(scheduled(waiting("a", "b", "c"), NODES, there))
    assert placed == {"n1": 3}


def test_what_has_ended_makes_room_and_what_is_stopping_does_not() -> None:
    big = wants(memory_bytes=3 * GIB)
    stopping = on("n1", 1, desired_state=DesiredState.SHUTDOWN)
    full = "no suitable node (insufficient resources on 1 node)"
    assert scheduled(waiting("a"), NODES[:1], stopping, big) == {"a": full}
    over = [replace(row, status=replace(row.status, state=TaskState.SHUTDOWN)) for row in stopping]
    assert scheduled(waiting("a"), NODES[:1], over, big) == {"a": "n1"}


def test_resources_beat_spreading_and_are_never_overdrawn() -> None:
    """SwarmKit's S10."""
    spec = wants(memory_bytes=GIB)
    small = replace(NODES[0], description=replace(NODES[0].description, memory_bytes=2 * GIB))
    big = replace(NODES[1], description=replace(NODES[1].description, memory_bytes=99 * GIB))
    there = on("n1", 1) + on("n2", 3)
    assert counts(scheduled(waiting("a", "b"), [small, big], there, spec)) == {"n1": 1, "n2": 1}


@pytest.mark.parametrize(
    ("spec", "fits"),
    [
        (wants(memory_bytes=4 * GIB), True),
        (wants(memory_bytes=4 * GIB + 1), False),
        (wants(cpu_nano=4_000_000_000), True),
        (wants(cpu_nano=4_000_000_001), False),
        (replace(PLAIN, limits=Resources(memory_bytes=99 * GIB)), True),
    ],
)
def test_reservations_count_and_limits_do_not(spec: TaskSpec, fits: bool) -> None:
    assert (
        first_refusal(loads_by_node({NodeId("n1"): node()})[NodeId("n1")], spec) is None
    ) == fits


REFUSALS: list[tuple[Node, TaskSpec, str]] = [
    (node(state=NodeState.DOWN), PLAIN, "1 node not available for new tasks"),
    (node(state=NodeState.UNKNOWN), PLAIN, "1 node not available for new tasks"),
    (node(availability=Availability.PAUSE), PLAIN, "1 node not available for new tasks"),
    (node(availability=Availability.DRAIN), PLAIN, "1 node not available for new tasks"),
    (node(), wants(memory_bytes=9 * GIB), "insufficient resources on 1 node"),
    (node(), replace(PLAIN, engine="docker"), "engine missing on 1 node"),
    (
        node(),
        replace(PLAIN, placement=Placement(constraints=("node.labels.disk == ssd",))),
        "scheduling constraints not satisfied on 1 node",
    ),
]


@pytest.mark.parametrize(("there", "spec", "text"), REFUSALS)
def test_each_filter_says_why(there: Node, spec: TaskSpec, text: str) -> None:
    assert scheduled(waiting("a"), [there], [], spec) == {"a": f"no suitable node ({text})"}


def test_a_node_counts_against_the_first_filter_only_and_the_commonest_comes_first() -> None:
    """SwarmKit's S09."""
    nodes = [
        node("under"),
        node("away1", state=NodeState.DOWN),
        node("away2", availability=Availability.PAUSE),
    ]
    assert scheduled(waiting("a"), nodes, [], wants(memory_bytes=9 * GIB)) == {
        "a": "no suitable node (2 nodes not available for new tasks; "
        "insufficient resources on 1 node)"
    }


def test_without_any_node_there_is_nothing_to_explain() -> None:
    assert scheduled(waiting("a"), [], []) == {"a": "no suitable node"}
    assert explain({}) == "no suitable node"


def test_managers_that_run_no_tasks_are_not_even_counted() -> None:
    assert scheduled(waiting("a"), [node(runs_tasks=False)], []) == {"a": "no suitable node"}


def test_the_oldest_gets_the_last_place_and_the_outcome_does_not_depend_on_order() -> None:
    spec = wants(memory_bytes=4 * GIB)
    young, old = waiting("young", "old")
    pending = [replace(young, created_ns=2), replace(old, created_ns=1)]
    for order in (pending, pending[::-1]):
        placed = scheduled(order, NODES[:1], [], spec)
        assert placed["old"] == "n1"
        assert placed["young"].startswith("no suitable node")


def test_a_task_whose_revision_is_gone_is_passed_over() -> None:
    loads = loads_by_node({NodeId("n1"): node()})
    assert list(place(waiting("a"), loads, lambda _: None)) == []


@pytest.mark.parametrize("state", TaskState)
@pytest.mark.parametrize("desired", DesiredState)
def test_only_what_waits_and_is_wanted_is_placed(desired: DesiredState, state: TaskState) -> None:
    is_wanted = desired in (DesiredState.READY, DesiredState.RUNNING)
    assert is_placeable(task("a", state, desired)) == (is_wanted and state is TaskState.PENDING)


def test_a_decision_is_written_once() -> None:
    [pending] = waiting("a")
    assigned = applied(Placed(pending, NodeId("n1")), 7)
    assert assigned is not None
    assert (assigned.node_id, assigned.status.state, assigned.status.since_ns) == (
        "n1",
        TaskState.ASSIGNED,
        7,
    )
    told = applied(Placed(pending, None, "no suitable node"), 7)
    assert told is not None
    assert told.status == replace(pending.status, error="no suitable node")
    assert applied(Placed(told, None, "no suitable node"), 8) is None
    cleared = applied(Placed(told, NodeId("n1")), 9)
    assert cleared is not None
    assert cleared.status.error == ""


def test_a_task_that_does_not_wait_can_not_be_assigned() -> None:
    with pytest.raises(IllegalMove):
        applied(Placed(task("a", TaskState.NEW), NodeId("n1")), 1)


def test_a_node_that_says_nothing_of_itself_takes_what_asks_for_nothing() -> None:
    bare = node(description=NodeDescription(hostname="n1", engines=("process",)))
    assert scheduled(waiting("a"), [bare], []) == {"a": "n1"}


def test_a_crowd_that_fits_nowhere_costs_one_look_and_hides_nobody() -> None:
    looked: list[str] = []

    class Watched(dict[NodeId, NodeLoad]):
        def values(self) -> Any:
            looked.append("at all nodes")
            return super().values()

    loads = Watched(loads_by_node({NodeId("n1"): node()}))
    crowd = waiting(*(f"a{n}" for n in range(1000)), of="big")
    [last] = waiting("z", of="small", created_ns=9)
    specs = {"big": wants(memory_bytes=99 * GIB), "small": PLAIN}
    placed = list(place([*crowd, last], loads, lambda task: specs[task.service_id]))
    assert [each.node_id for each in placed] == [None] * 1000 + ["n1"]
    assert len(looked) == 2
