"""Where tasks go whose volumes live on single nodes."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from skep.domain.base import NodeId, ServiceId, VolumeId, pairs, replace
from skep.domain.control import RemoveRequest
from skep.domain.objects import Availability, Node, NodeState, Object, Task, Volume, VolumePlace
from skep.domain.spec import Placement, RunSpec, ServiceSpec, TaskSpec
from skep.domain.states import TaskState
from skep.domain.storage import Mount, MountKind
from skep.domain.volumes import is_node_local
from skep.manager.control.core.nodes import remove_node
from skep.manager.scheduler.actor import place_pending
from skep.manager.store.core.tables import Tables
from skep.manager.store.core.transaction import Transaction
from tests.unit.manager.build import node, service, service_spec, task

NODES = tuple(node(f"n{number}") for number in (1, 2, 3))


def mounting(source: str = "data", **changes: Any) -> Mount:
    return Mount(kind=MountKind.VOLUME, source=source, target="/data", **changes)


def spec_of(*mounts: Mount, name: str = "web", **changes: Any) -> ServiceSpec:
    run = RunSpec(command=("serve",), mounts=mounts)
    return replace(service_spec(name), task=TaskSpec(run=run, **changes))


def placed_at(name: str, *where: tuple[str, int, str]) -> Volume:
    places = tuple(VolumePlace(service_name=s, slot=n, node_id=NodeId(at)) for s, n, at in where)
    return Volume(id=VolumeId(f"v-{name}"), name=name, places=places)


def waiting(id_: str, slot: int = 1, of: str = "web") -> Task:
    pending = task(id_, TaskState.PENDING, slot=slot)
    return replace(pending, service_id=ServiceId(f"s-{of}"), service_name=of)


class Pass:
    """One pass of the scheduler over some rows."""

    def __init__(self, *rows: Object) -> None:
        self.tables = Tables()
        for row in rows:
            self.tables.put(row)
        tx = Transaction(self.tables, 1)
        numbers = itertools.count(1)
        self.decided: dict[str, str] = {
            each.task.id: each.node_id or each.explanation
            for each in place_pending(tx, lambda: f"v{next(numbers)}")
        }
        self.volumes = {
            volume.name: [(p.service_name, p.slot, p.node_id) for p in volume.places]
            for volume in tx.all(Volume)
        }


def web(*mounts: Mount, **changes: Any) -> Object:
    return service("s-web", "web", spec=spec_of(*mounts, **changes))


def test_where_a_slot_goes_first_its_volume_is() -> None:
    seen = Pass(*NODES, web(mounting()), waiting("a"))
    home = seen.decided["a"]
    assert seen.volumes == {"data": [("web", 1, home)]}


def test_a_slot_goes_back_to_its_volume_however_full_that_node_is() -> None:
    others = [
        replace(waiting(f"o{n}", slot=9 + n, of="other"), node_id=NodeId("n2")) for n in range(5)
    ]
    busy = [replace(each, status=replace(each.status, state=TaskState.RUNNING)) for each in others]
    other = service("s-other", "other", spec=spec_of(name="other"))
    data = placed_at("data", ("web", 1, "n2"))
    seen = Pass(*NODES, web(mounting()), other, data, *busy, waiting("a"))
    assert seen.decided == {"a": "n2"}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"state": NodeState.DOWN}, "1 node not available for new tasks"),
        ({"availability": Availability.DRAIN}, "1 node not available for new tasks"),
    ],
)
def test_while_its_node_is_away_a_slot_waits_and_says_for_what(
    changes: dict[str, Any], why: str
) -> None:
    nodes = [NODES[0], replace(NODES[1], **changes), NODES[2]]
    data = placed_at("data", ("web", 1, "n2"))
    seen = Pass(*nodes, web(mounting()), data, waiting("a"))
    told = f"no suitable node (volume data of this slot is on node n2; {why})"
    assert seen.decided == {"a": told}


def test_a_constraint_against_its_node_is_told_beside_the_volume() -> None:
    data = placed_at("data", ("web", 1, "n2"))
    rule = Placement(constraints=("node.hostname != n2",))
    seen = Pass(*NODES, web(mounting(), placement=rule), data, waiting("a"))
    (told,) = seen.decided.values()
    assert "volume data of this slot is on node n2" in told
    assert "scheduling constraints not satisfied on 1 node" in told


def test_a_node_that_was_removed_holds_nobody() -> None:
    seen = Pass(NODES[0], web(mounting()), placed_at("data", ("web", 1, "n9")), waiting("a"))
    assert seen.decided == {"a": "n1"}
    assert seen.volumes == {"data": [("web", 1, "n1")]}


def test_other_slots_are_free_and_at_home_where_they_go() -> None:
    data = placed_at("data", ("web", 1, "n2"))
    seen = Pass(*NODES, web(mounting()), data, waiting("a", 1), waiting("b", 2), waiting("c", 3))
    assert seen.decided["a"] == "n2"
    assert {seen.decided["b"], seen.decided["c"]} == {"n1", "n3"}
    assert {slot for _, slot, _ in seen.volumes["data"]} == {1, 2, 3}


def test_a_volume_of_each_slot_has_its_own_name() -> None:
    mount = mounting("data-{{.Task.Slot}}")
    two = placed_at("data-2", ("web", 2, "n3"))
    seen = Pass(*NODES, web(mount), two, waiting("a", 1), waiting("b", 2))
    assert seen.decided["b"] == "n3"
    assert seen.volumes["data-1"] == [("web", 1, seen.decided["a"])]


def test_services_that_share_a_new_volume_end_up_together() -> None:
    backup = service("s-backup", "backup", spec=spec_of(mounting(), name="backup"))
    seen = Pass(*NODES, web(mounting()), backup, waiting("a"), waiting("b", of="backup"))
    assert seen.decided["a"] == seen.decided["b"] != ""
    assert len(seen.volumes["data"]) == 2


def test_who_may_move_is_held_by_nothing() -> None:
    data = placed_at("data", ("web", 1, "n2"))
    nodes = [NODES[0], replace(NODES[1], state=NodeState.DOWN)]
    seen = Pass(*nodes, web(mounting(is_movable=True)), data, waiting("a"))
    assert seen.decided == {"a": "n1"}
    assert seen.volumes == {"data": [("web", 1, "n1")]}


@pytest.mark.parametrize(
    ("mount", "is_local"),
    [
        (mounting(), True),
        (mounting(driver="local"), True),
        (mounting(driver="local", driver_options=pairs({"type": "tmpfs"})), True),
        (mounting(driver="local", driver_options=pairs({"type": "nfs"})), False),
        (mounting(driver_options=pairs({"type": "none", "o": "soft,addr=10.0.0.9"})), False),
        (mounting(driver="rexray"), False),
        (mounting(""), False),
        (Mount(kind=MountKind.BIND, source="/srv", target="/srv"), False),
    ],
)
def test_which_volumes_live_on_single_nodes(mount: Mount, is_local: bool) -> None:
    assert is_node_local(mount) is is_local


def test_with_a_node_go_the_places_on_it() -> None:
    tables = Tables()
    down = replace(NODES[1], state=NodeState.DOWN)
    for row in (NODES[0], down, placed_at("data", ("web", 1, "n2"), ("web", 2, "n1"))):
        tables.put(row)
    tx = Transaction(tables, 1)
    remove_node(tx, RemoveRequest(request_id="r", ref="n2"))
    [volume] = tx.all(Volume)
    assert [place.node_id for place in volume.places] == ["n1"]
    assert [each.name for each in tx.all(Node)] == ["n1"]
