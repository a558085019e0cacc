"""What Docker Swarm's scheduler does in given situations, and Skep's does as well.

Each case names nodes, what runs there, and what waits; then who must be where, or told what; they
are numbered S01 to S19. What Swarm has and Skep hasn't (plugins, generic resources, tasks that are
given a node beforehand) is left out of the situations.
"""

from __future__ import annotations

import pytest

from skep.domain.base import NodeId, replace
from skep.domain.objects import Node, NodeDescription, NodeState, Task
from skep.domain.spec import Placement, Platform, Protocol, TaskSpec
from skep.domain.states import DesiredState, TaskState
from skep.manager.scheduler.core.filters import HostPort
from skep.manager.scheduler.core.place import is_placeable
from tests.unit.manager.build import GIB, node
from tests.unit.manager.scheduler.support import (
    PLAIN,
    counts,
    crowd,
    fails,
    in_slot,
    labelled,
    limited,
    on,
    placed_by,
    placed_under,
    scheduled,
    spread_over,
    waiting,
    wants,
)

GB = 1_000_000_000
FIVE = [node(f"n{n}") for n in range(1, 6)]


def with_memory(name: str, memory_bytes: int, **changes: object) -> Node:
    row = node(name, **changes)
    return replace(row, description=replace(row.description, memory_bytes=memory_bytes))


def of_platform(name: str, os: str, arch: str) -> Node:
    description = NodeDescription(hostname=name, os=os, arch=arch, engines=("process",))
    return node(name, description=description)


# --------------------------------------------------------------------------- spread (S01, S02)


def test_tasks_spread_by_service_first_and_by_all_tasks_then() -> None:
    first = counts(scheduled(crowd(18), FIVE, []))
    assert sorted(first.values()) == [3, 3, 4, 4, 4]
    there = [row for name, count in first.items() for row in on(name, count)]
    second = scheduled(crowd(2, "s2"), FIVE, there)
    emptiest = {name for name, count in first.items() if count == 3}
    assert set(second.values()) == emptiest
    there += [row for name in second.values() for row in on(name, 1, "s2")]
    third = counts(scheduled(crowd(3), FIVE, there))
    after = {name: first[name] + third.get(name, 0) for name in first}
    assert sorted(after.values()) == [4, 4, 4, 4, 5]
    assert all(third[name] == 1 for name in emptiest)
    there += [row for name in third for row in on(name, 1, slot=999)]
    [last] = scheduled(crowd(1, "s2", "last"), FIVE, there).values()
    assert last not in emptiest
    assert after[last] == 4


def test_an_emptied_node_is_filled_before_all_others() -> None:
    there = [*on("n2", 4), *on("n3", 4), *on("n4", 4), *on("n5", 5)]
    there += [row for name in ("n2", "n3", "n4") for row in on(name, 1, "s2")]
    placed = scheduled([*crowd(4), *crowd(2, "s2")], FIVE, there)
    assert [placed[task.id] for task in crowd(4)] == ["n1"] * 4
    assert sorted(placed[task.id] for task in crowd(2, "s2")) == ["n1", "n5"]


# ------------------------------------------------------------------- preferences (S03, S04, S05)


def test_one_preference_divides_evenly_among_zones_not_nodes() -> None:
    nodes = [labelled("n1", az="az1"), *(labelled(f"n{n}", az="az2") for n in range(2, 6))]
    placed = counts(scheduled(crowd(8), nodes, [], spread_over("az")))
    assert placed == {"n1": 4, "n2": 1, "n3": 1, "n4": 1, "n5": 1}


def test_two_preferences_and_a_zone_that_fills_up() -> None:
    memory = {0: 100_000_000, **dict.fromkeys(range(1, 7), GB)}
    places = ["11", "11", "21", "21", "21", "22", "22"]
    nodes = [
        replace(
            with_memory(f"n{n}", memory[n]),
            labels=labelled("x", az=f"az{zone_rack[0]}", rack=f"rack{zone_rack[1]}").labels,
        )
        for n, zone_rack in enumerate(places)
    ]
    spec = spread_over("az", "rack", memory_bytes=GB // 5)
    placed = counts(scheduled(crowd(12), nodes, [], spec))
    assert placed["n1"] == 5
    assert "n0" not in placed
    racks = sorted([placed[f"n{n}"] for n in group] for group in ((2, 3, 4), (5, 6)))
    assert sorted(map(sum, racks)) == [3, 4]
    assert all(max(rack) - min(rack) <= 1 for rack in racks)


def test_growing_does_not_touch_the_fullest_rack() -> None:
    nodes = [
        labelled("n11", az="dc1", rack="r1"),
        labelled("n12", az="dc1", rack="r2"),
        labelled("n21", az="dc2", rack="r1"),
    ]
    there = [*on("n11", 3), *on("n12", 1), *on("n21", 3)]
    placed = scheduled(crowd(2), nodes, there, spread_over("az", "rack"))
    assert len(placed) == 2
    assert set(placed.values()) <= {"n12", "n21"}


# ------------------------------------------------------------------------ explanations and room


def test_without_nodes_a_task_waits_and_the_first_node_takes_it() -> None:
    """S06."""
    assert scheduled(waiting("a"), [], []) == {"a": "no suitable node"}
    assert scheduled(waiting("a"), FIVE[:1], []) == {"a": "n1"}


def test_the_message_counts_nodes_by_what_refused_them() -> None:
    """S09."""
    nodes = [
        with_memory("n1", GB),
        with_memory("n2", 2 * GB, state=NodeState.UNKNOWN),
        with_memory("n3", 2 * GB, state=NodeState.UNKNOWN),
    ]
    spec = wants(memory_bytes=2 * GB)
    assert scheduled(waiting("a"), nodes, [], spec) == {
        "a": "no suitable node (2 nodes not available for new tasks; "
        "insufficient resources on 1 node)"
    }
    assert scheduled(waiting("a"), [*nodes, with_memory("n4", 8 * GB)], [], spec) == {"a": "n4"}


def test_resources_beat_spreading_and_are_never_overdrawn() -> None:
    """S10."""
    nodes = [with_memory("n1", 2 * GIB), with_memory("n2", 99 * GIB)]
    there = on("n1", 1) + on("n2", 3)
    placed = scheduled(crowd(2), nodes, there, wants(memory_bytes=GIB))
    assert counts(placed) == {"n1": 1, "n2": 1}


@pytest.mark.parametrize("ended", [TaskState.SHUTDOWN, TaskState.FAILED, TaskState.COMPLETE])
def test_a_dead_task_frees_its_room(ended: TaskState) -> None:
    """S11."""
    spec = wants(memory_bytes=800_000_000)
    nodes = [with_memory("n1", GB)]
    [running] = on("n1", 1)
    full = "no suitable node (insufficient resources on 1 node)"
    assert scheduled(waiting("a"), nodes, [running], spec) == {"a": full}
    dead = replace(running, status=replace(running.status, state=ended))
    assert scheduled(waiting("a"), nodes, [dead], spec) == {"a": "n1"}


# ----------------------------------------------------------------------------- failures (S07, S08)


def attempt(history: list[Task], revision: int = 1) -> str:
    """Where the next attempt goes; n1 runs a task, n2 is empty but for what failed there."""
    there = [in_slot(500, "n1"), *history]
    placed = scheduled(waiting("a", revision=revision), FIVE[:2], there)
    return placed["a"]


def test_after_five_failures_on_the_best_node_the_next_attempts_go_elsewhere() -> None:
    history: list[Task] = []
    chosen = []
    for number in range(8):
        chosen.append(attempt(history))
        failed = fails(1, chosen[-1])[0]
        history.append(replace(failed, id=f"{failed.id}-{number}"))
    assert chosen == ["n2"] * 5 + ["n1"] * 3


def test_a_new_revision_starts_anew() -> None:
    history: list[Task] = []
    chosen = []
    for number in range(15):
        revision = 1 if number < 6 else 2
        chosen.append(attempt(history, revision))
        failed = fails(1, chosen[-1], revision=revision)[0]
        history.append(replace(failed, id=f"{failed.id}-{number}"))
    assert chosen == ["n2"] * 5 + ["n1"] + ["n2"] * 5 + ["n1"] * 4


# ---------------------------------------------------------------------------------- platforms (S12)

LINUX = of_platform("n1", "linux", "x86_64")
WINDOWS = of_platform("n2", "windows", "amd64")
UNSAID = of_platform("n3", "", "")
ARM = of_platform("n4", "Linux", "aarch64")


@pytest.mark.parametrize(
    ("platforms", "fitting"),
    [
        ([("linux", "amd64")], {"n1"}),
        ([("linux", "arm")], set()),
        ([], {"n1", "n2", "n3", "n4"}),
        ([("linux", "")], {"n1", "n4"}),
        ([("", "amd64")], {"n1", "n2"}),
        ([("linux", "amd64"), ("windows", "x86_64")], {"n1", "n2"}),
        ([("LINUX", "ARM64")], {"n4"}),
        ([("", "")], {"n1", "n2", "n4"}),
    ],
)
def test_platforms(platforms: list[tuple[str, str]], fitting: set[str]) -> None:
    spec = placed_by(platforms=tuple(Platform(os=os, arch=arch) for os, arch in platforms))
    for there in (LINUX, WINDOWS, UNSAID, ARM):
        refused = "no suitable node (unsupported platform on 1 node)"
        expected = there.name if there.name in fitting else refused
        assert scheduled(waiting("a"), [there], [], spec) == {"a": expected}


def test_a_platform_that_nobody_has() -> None:
    spec = placed_by(platforms=(Platform(os="linux", arch="arm"),))
    assert scheduled(waiting("a"), [LINUX, WINDOWS, UNSAID], [], spec) == {
        "a": "no suitable node (unsupported platform on 3 nodes)"
    }


# ------------------------------------------------------------ what is not wanted (S13, S15, S16)


@pytest.mark.parametrize("desired", [DesiredState.SHUTDOWN, DesiredState.REMOVE])
def test_what_is_to_end_is_never_given_a_node(desired: DesiredState) -> None:
    """Swarm leaves such a task out when its scheduler starts, and places it when it was queued
    before; Skep never places it."""
    [queued] = waiting("a", desired_state=desired)
    assert not is_placeable(queued)
    assert not is_placeable(replace(queued, node_id=NodeId("n1")))


# --------------------------------------------------------------------------------- host ports (S18)

PORT = (58, Protocol.TCP)


def test_host_ports_put_tasks_on_different_nodes() -> None:
    """All three ask for one port here; Swarm's third one asks for it in UDP, which is another."""
    told = scheduled(crowd(2), [], [], ports=(PORT,))
    assert set(told.values()) == {"no suitable node"}
    placed = scheduled(crowd(3), FIVE[:2], [], ports=(PORT,))
    assert sorted(placed.values()) == [
        "n1",
        "n2",
        "no suitable node (host-mode port already in use on 2 nodes)",
    ]


def test_a_host_port_of_another_protocol_is_another_port() -> None:
    a, b = waiting("a", of="s1"), waiting("b", of="s2")
    ports: dict[str, tuple[HostPort, ...]] = {"s1": (PORT,), "s2": ((PORT[0], Protocol.UDP),)}
    assert placed_under([*a, *b], FIVE[:1], ports) == {"a": "n1", "b": "n1"}
    full = "no suitable node (host-mode port already in use on 1 node)"
    assert placed_under([*a, *b], FIVE[:1], {**ports, "s2": (PORT,)}) == {"a": "n1", "b": full}


# ------------------------------------------------------------------------------- max replicas (S19)


def test_no_more_replicas_than_a_node_may_have() -> None:
    full = "no suitable node (max replicas per node limit exceed)"
    assert set(scheduled(crowd(3), [], [], limited(1)).values()) == {"no suitable node"}
    placed = scheduled(crowd(3), FIVE[:2], [], limited(1))
    assert sorted(placed.values()) == ["n1", "n2", full]
    there = [*on("n1", 1), *on("n2", 1)]
    assert scheduled(waiting("c", slot=3), FIVE[:3], there, limited(1)) == {"c": "n3"}


def test_the_first_filter_that_refuses_is_the_one_that_is_counted() -> None:
    strangers = [replace(each, description=NodeDescription(hostname="")) for each in FIVE[:3]]
    strangers = [
        replace(each, description=replace(each.description, engines=("process",)))
        for each in strangers
    ]
    spec = limited(3, "node.hostname == node1")
    assert scheduled(waiting("a"), strangers, [], spec) == {
        "a": "no suitable node (scheduling constraints not satisfied on 3 nodes)"
    }


ORDER: list[tuple[TaskSpec, str]] = [
    (wants(memory_bytes=99 * GIB), "insufficient resources"),
    (replace(PLAIN, engine="docker"), "engine missing"),
    (placed_by(constraints=("node.id == x",)), "scheduling constraints not satisfied"),
    (placed_by(platforms=(Platform(os="plan9"),)), "unsupported platform"),
]


def test_filters_stand_in_swarms_order() -> None:
    """A task that fails all filters is told of the first; with each one lifted, of the next."""
    there = [in_slot(7, "n1")]
    for first in range(len(ORDER)):
        spec = PLAIN
        for other, _ in ORDER[first:]:
            placement = Placement(
                constraints=spec.placement.constraints + other.placement.constraints,
                platforms=spec.placement.platforms + other.placement.platforms,
                max_replicas_per_node=1,
            )
            spec = replace(
                spec,
                placement=placement,
                engine=other.engine if other.engine != PLAIN.engine else spec.engine,
                reservations=other.reservations
                if other.reservations != PLAIN.reservations
                else spec.reservations,
            )
        told = scheduled(waiting("a"), FIVE[:1], there, spec, ports=(PORT,))
        assert told == {"a": f"no suitable node ({ORDER[first][1]} on 1 node)"}
    told = scheduled(waiting("a"), FIVE[:1], there, limited(1), ports=(PORT,))
    assert told == {"a": "no suitable node (host-mode port already in use on 1 node)"}
    told = scheduled(waiting("a"), FIVE[:1], there, limited(1))
    assert told == {"a": "no suitable node (max replicas per node limit exceed)"}
