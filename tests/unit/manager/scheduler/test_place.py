"""Filters, ranks and what a decision makes of a task; Swarm's own scenarios are in `test_swarm`."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from skep.domain.base import NodeId, pairs, replace
from skep.domain.objects import Availability, Node, NodeDescription, NodeState, Task
from skep.domain.spec import Placement, Platform, Protocol, Resources, TaskSpec
from skep.domain.states import DesiredState, IllegalMove, TaskState
from skep.manager.scheduler.core.filters import (
    Demand,
    NodeLoad,
    explain,
    first_refusal,
    loads_by_node,
)
from skep.manager.scheduler.core.place import (
    FAILURE_WINDOW_NS,
    NO_PORT_YET,
    applied,
    is_placeable,
    place,
)
from skep.manager.scheduler.core.place import (
    Placement as Placed,
)
from skep.manager.scheduler.core.volumes import Places
from tests.unit.manager.build import GIB, node, task
from tests.unit.manager.scheduler.support import (
    NOW_NS,
    PLAIN,
    counts,
    fails,
    in_slot,
    limited,
    on,
    placed_under,
    scheduled,
    waiting,
    wants,
)

NODES = [node(f"n{n}") for n in range(1, 6)]


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
    [load] = loads_by_node({NodeId("n1"): node()}).values()
    [pending] = waiting("a")
    assert (first_refusal(load, Demand(pending, spec)) is None) == fits


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
    (
        node(),
        replace(PLAIN, placement=Placement(platforms=(Platform(os="linux"),))),
        "unsupported platform on 1 node",
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


@pytest.mark.parametrize(
    ("note", "fits"),
    [
        ("wireguard by the kernel", True),
        ("none: no WireGuard", False),
        ("none", False),
        (None, False),
    ],
)
def test_an_encrypted_network_asks_for_a_node_that_says_it_can(
    note: str | None, fits: bool
) -> None:
    of = node()
    notes = pairs({} if note is None else {"network.encryption": note})
    of = replace(of, description=replace(of.description, notes=notes))
    [load] = loads_by_node({NodeId("n1"): of}).values()
    [pending] = waiting("a")
    assert first_refusal(load, Demand(pending, PLAIN)) is None
    refusal = first_refusal(load, Demand(pending, PLAIN, is_encrypted=True))
    assert (refusal is None) is fits
    if refusal is not None:
        assert explain({refusal.name: 2}) == (
            "no suitable node (a network is encrypted, which 2 nodes can't)"
        )


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
    assert list(place(waiting("a"), loads, lambda _: None, Places((), loads))) == []


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
    demands = {id_: Demand(crowd[0], spec) for id_, spec in specs.items()}
    placed = list(
        place(
            [*crowd, last],
            loads,
            lambda task: dataclasses.replace(demands[task.service_id], task=task),
            Places((), loads),
        )
    )
    assert [each.node_id for each in placed] == [None] * 1000 + ["n1"]
    # To divide them by labels, which both have alike, and to explain.
    assert len(looked) == 2


# ------------------------------------------------------------------------ slots in a handover


def test_a_slot_may_be_handed_over_on_its_own_node_though_that_is_full_of_replicas() -> None:
    there = [in_slot(1, "n1"), in_slot(2, "n2")]
    spec = limited(1)
    assert scheduled(waiting("a", slot=2), NODES[:2], there, spec) == {"a": "n2"}
    refused = scheduled(waiting("a", slot=3), NODES[:2], there, spec)
    assert refused == {"a": "no suitable node (max replicas per node limit exceed)"}


def test_a_slot_that_fits_nowhere_does_not_hide_one_that_fits_where_it_was() -> None:
    there = [in_slot(1, "n1"), in_slot(2, "n2")]
    hopeless, handed_over = waiting("a", slot=3), waiting("b", slot=1, created_ns=9)
    placed = scheduled([*hopeless, *handed_over], NODES[:2], there, limited(1))
    assert placed["b"] == "n1"


def test_what_is_stopping_is_no_replica_any_more() -> None:
    there = [in_slot(1, "n1", desired_state=DesiredState.SHUTDOWN)]
    assert scheduled(waiting("a", slot=2), NODES[:1], there, limited(1)) == {"a": "n1"}


def test_a_slots_old_task_makes_its_node_no_worse_for_the_new_one() -> None:
    there = [in_slot(slot, f"n{slot}") for slot in (1, 2, 3)]
    placed = scheduled(waiting("a", slot=2), NODES[:3], there)
    assert placed == {"a": "n2"}


@pytest.mark.parametrize(
    "there",
    [
        pytest.param([in_slot(2, "n2"), *on("n1", 1, "s2")], id="of the service"),
        pytest.param(
            [in_slot(2, "n1"), *on("n1", 1, "s2"), *on("n2", 1, "s2")], id="at all, and the name"
        ),
        pytest.param([in_slot(2, "n2"), *on("n2", 2, "s2"), in_slot(1, "n1")], id="before all"),
    ],
)
def test_what_is_in_the_slot_counts_neither_as_of_the_service_nor_at_all(there: list[Task]) -> None:
    old = next(row for row in there if row.slot == 2)
    assert scheduled(waiting("a", slot=2), NODES[:2], there) == {"a": old.node_id}


def test_a_slot_that_was_placed_a_moment_ago_is_known_as_well() -> None:
    pending = [*waiting("a", slot=1), *waiting("b", slot=2), *waiting("c", slot=1, created_ns=1)]
    full = "no suitable node (max replicas per node limit exceed)"
    assert scheduled(pending, NODES[:1], [], limited(1)) == {"a": "n1", "b": full, "c": "n1"}


def test_several_slots_handed_over_at_once_keep_the_balance() -> None:
    there = [in_slot(slot, f"n{slot}") for slot in (1, 2, 3)]
    placed = scheduled(waiting("a", "b", "c"), NODES[:3], there)
    assert placed == {"a": "n1", "b": "n2", "c": "n3"}


# -------------------------------------------------------------------------------- host ports

WEB = (8080, Protocol.TCP)


def test_a_host_port_is_held_until_its_task_has_ended() -> None:
    stopping = in_slot(1, "n1", desired_state=DesiredState.SHUTDOWN)
    refused = "no suitable node (host-mode port already in use on 1 node)"
    assert scheduled(waiting("a", slot=1), NODES[:1], [stopping], ports=(WEB,)) == {"a": refused}
    ended = replace(stopping, status=replace(stopping.status, state=TaskState.SHUTDOWN))
    assert scheduled(waiting("a", slot=1), NODES[:1], [ended], ports=(WEB,)) == {"a": "n1"}


def test_a_host_port_keeps_services_apart_and_another_number_does_not() -> None:
    placed = placed_under(
        [*waiting("a", of="s1"), *waiting("b", of="s2"), *waiting("c", of="s3")],
        NODES[:1],
        {"s1": (WEB,), "s2": (WEB,), "s3": ((8081, Protocol.TCP),)},
    )
    assert placed["a"] == placed["c"] == "n1"
    assert placed["b"].endswith("(host-mode port already in use on 1 node)")


def test_a_task_whose_port_has_no_number_yet_says_so_and_waits() -> None:
    loads = loads_by_node({NodeId("n1"): node()})
    [pending] = waiting("a")
    decided = place(
        [pending], loads, lambda task: Demand(task, PLAIN, lacks_port=True), Places((), loads)
    )
    assert list(decided) == [Placed(pending, None, NO_PORT_YET)]


# ------------------------------------------------------------------------------ failing nodes


def test_a_node_where_tasks_keep_failing_comes_last_but_is_not_refused() -> None:
    there = [*fails(5, "n1"), *on("n2", 3)]
    assert scheduled(waiting("a"), NODES[:2], there) == {"a": "n2"}
    assert scheduled(waiting("a"), NODES[:1], there) == {"a": "n1"}


@pytest.mark.parametrize(
    "speaks_not",
    [
        fails(4, "n1"),
        fails(5, "n1", revision=2),
        fails(5, "n1", of="s2"),
        fails(5, "n1", ended_ns=NOW_NS - FAILURE_WINDOW_NS),
        fails(5, "n1", ended_ns=None),
        fails(5, "n1", state=TaskState.ORPHANED),
        fails(5, "n1", state=TaskState.SHUTDOWN),
    ],
    ids=("four", "other revision", "other service", "long ago", "unstamped", "lost", "stopped"),
)
def test_what_does_not_speak_against_a_node(speaks_not: list[Task]) -> None:
    assert scheduled(waiting("a"), NODES[:2], [*speaks_not, *on("n2", 1)]) == {"a": "n1"}


def test_of_two_failing_nodes_the_one_with_fewer_failures_is_taken() -> None:
    there = [*fails(6, "n1"), *fails(5, "n2", state=TaskState.REJECTED), *on("n2", 3)]
    assert scheduled(waiting("a"), NODES[:2], there) == {"a": "n2"}
