"""Spreading over branches: even, also where some are full, and never without a node that exists."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from skep.domain.base import NodeId, ServiceId, pairs, replace
from skep.domain.objects import Availability, Task
from skep.domain.states import DesiredState
from skep.manager.scheduler.core.filters import Demand, first_refusal, loads_by_node
from skep.manager.scheduler.core.place import count_loads, place
from skep.manager.scheduler.core.spread import rank
from skep.manager.scheduler.core.volumes import Places
from tests.unit.manager.build import GIB, node
from tests.unit.manager.scheduler.support import (
    NOW_NS,
    PLAIN,
    counts,
    crowd,
    fails,
    in_slot,
    labelled,
    on,
    placed_by,
    scheduled,
    spread_over,
    waiting,
)


def test_zones_stay_even_when_one_is_full() -> None:
    """Swarm divides 10 tasks over zones with 0, 0 and 4 as 1, 8 and 1, when there is room for one
    in the first."""
    small = labelled("n1", zone="a")
    small = replace(small, description=replace(small.description, memory_bytes=GIB))
    nodes = [small]
    for name, zone in (("n2", "b"), ("n3", "c")):
        big = labelled(name, zone=zone)
        nodes.append(replace(big, description=replace(big.description, memory_bytes=99 * GIB)))
    spec = spread_over("zone", memory_bytes=GIB)
    placed = counts(scheduled(crowd(10), nodes, on("n3", 4), spec))
    assert placed["n1"] == 1
    assert sorted((placed["n2"], placed["n3"] + 4)) == [6, 7]


def test_nodes_without_the_label_are_a_branch_of_their_own() -> None:
    nodes = [labelled("n1", zone="a"), labelled("n2"), labelled("n3", zone=""), labelled("n4")]
    placed = counts(scheduled(crowd(6), nodes, [], spread_over("zone")))
    assert placed == {"n1": 3, "n2": 1, "n3": 1, "n4": 1}


def test_label_names_are_compared_exactly_and_the_prefix_is_not() -> None:
    nodes = [labelled("n1", Zone="a"), labelled("n2", Zone="b"), labelled("n3", Zone="b")]
    exact = replace(PLAIN, placement=replace(PLAIN.placement, preferences=("NODE.Labels.Zone",)))
    assert counts(scheduled(crowd(4), nodes, [], exact))["n1"] == 2
    assert counts(scheduled(crowd(3), nodes, [], spread_over("zone"))) == {
        "n1": 1,
        "n2": 1,
        "n3": 1,
    }


def test_what_runs_on_nodes_that_take_nothing_counts_for_its_branch() -> None:
    nodes = [
        replace(labelled("n1", zone="a"), availability=Availability.PAUSE),
        labelled("n2", zone="a"),
        labelled("n3", zone="b"),
    ]
    placed = counts(scheduled(crowd(4), nodes, on("n1", 3), spread_over("zone")))
    assert placed == {"n3": 3, "n2": 1}


def test_what_is_stopping_does_not_count_for_its_branch() -> None:
    nodes = [labelled("n1", zone="a"), labelled("n2", zone="b")]
    there = [*on("n1", 3, desired_state=DesiredState.SHUTDOWN), *on("n2", 1)]
    assert scheduled(waiting("a", slot=77), nodes, there, spread_over("zone")) == {"a": "n1"}


def test_a_slot_that_is_handed_over_stays_in_its_branch() -> None:
    nodes = [labelled(f"n{n}", zone=zone) for n, zone in enumerate("aabb", start=1)]
    there = [in_slot(slot, f"n{slot}") for slot in (1, 2, 3, 4)]
    placed = scheduled(waiting("a", slot=3), nodes, there, spread_over("zone"))
    assert placed == {"a": "n3"}


def test_a_handed_over_slot_may_go_to_its_full_node_in_a_branch() -> None:
    nodes = [labelled("n1", zone="a"), labelled("n2", zone="b")]
    there = [in_slot(1, "n1"), in_slot(2, "n2")]
    spec = placed_by(max_replicas_per_node=1, preferences=("node.labels.zone",))
    placed = scheduled(
        [*waiting("x", slot=3), *waiting("a", "b", created_ns=5)], nodes, there, spec
    )
    full = "no suitable node (max replicas per node limit exceed)"
    assert placed == {"x": full, "a": "n1", "b": "n2"}


def test_single_tasks_of_many_services_do_not_all_go_to_one_branch() -> None:
    nodes = [labelled(f"n{n}", zone=zone) for n, zone in enumerate("aabb", start=1)]
    pending = [each for n in range(8) for each in waiting(f"t{n}", of=f"s{n}")]
    placed = counts(scheduled(pending, nodes, [], spread_over("zone")))
    assert placed == {"n1": 2, "n2": 2, "n3": 2, "n4": 2}


def test_two_revisions_of_one_service_count_for_each_other() -> None:
    nodes = [labelled("n1", zone="a"), labelled("n2", zone="b")]
    revisions = {"t1": 1, "t2": 1, "t3": 2, "t4": 1}
    mixed = [
        each
        for slot, (id_, revision) in enumerate(revisions.items(), start=1)
        for each in waiting(id_, slot=slot, revision=revision)
    ]
    placed = scheduled(mixed, nodes, [], spread_over("zone"))
    assert placed == {"t1": "n1", "t2": "n2", "t3": "n1", "t4": "n2"}


def test_an_evenly_used_branch_with_a_failing_node_uses_its_other_one() -> None:
    nodes = [labelled("n1", zone="a"), labelled("n2", zone="a"), labelled("n3", zone="b")]
    placed = scheduled(crowd(4), nodes, fails(5, "n1"), spread_over("zone"))
    assert counts(placed) == {"n2": 2, "n3": 2}


CLUSTERS = st.lists(
    st.tuples(st.sampled_from(("", "a", "b", "c")), st.integers(0, 4), st.integers(0, 3)),
    min_size=1,
    max_size=8,
)


@settings(deadline=None)
@given(CLUSTERS, st.integers(1, 20), st.sampled_from((None, 1, 3)))
def test_no_other_order_of_looking_would_have_found_a_better_node(
    cluster: list[tuple[str, int, int]], new: int, most: int | None
) -> None:
    """The tree against looking at every node and every zone for each task anew."""
    nodes, there = [], []
    for number, (zone, room, running) in enumerate(cluster, start=1):
        row = node(f"n{number}", labels=pairs({"zone": zone}))
        size = replace(row.description, memory_bytes=(room + running) * GIB)
        nodes.append(replace(row, description=size))
        there += on(f"n{number}", running)
    spec = spread_over("zone", memory_bytes=GIB)
    spec = replace(spec, placement=replace(spec.placement, max_replicas_per_node=most))
    # Some of the waiting tasks belong to slots that are there already, and being handed over.
    pending = crowd(new)
    pending += [
        replace(each, id=f"again-{each.id}", status=pending[0].status, node_id=None)
        for each in there[::2]
    ]

    def demand_of(task: Task) -> Demand:
        return Demand(task, spec)

    loads = loads_by_node({row.id: row for row in nodes})
    count_loads(loads, there, demand_of, NOW_NS)
    shadow = loads_by_node({row.id: row for row in nodes})
    count_loads(shadow, there, demand_of, NOW_NS)
    zones = {NodeId(row.id): dict(row.labels)["zone"] for row in nodes}
    for placed in place(pending, loads, demand_of, Places((), loads)):
        demand = demand_of(placed.task)
        slot = placed.task.slot
        fitting = [load for load in shadow.values() if first_refusal(load, demand) is None]
        assert (placed.node_id is None) == (not fitting)
        if placed.node_id is None:
            continue
        used: Counter[str] = Counter()
        for load in shadow.values():
            used[zones[load.node.id]] += load.active(ServiceId("s1")).others(slot)
        chosen = zones[placed.node_id]
        assert used[chosen] == min(used[zones[load.node.id]] for load in fitting)
        beside = [load for load in fitting if zones[load.node.id] == chosen]
        best = min(beside, key=lambda load: rank(load, ServiceId("s1"), 1, slot))
        assert best.node.id == placed.node_id
        shadow[placed.node_id].add(demand)
