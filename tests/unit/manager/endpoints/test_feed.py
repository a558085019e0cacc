"""Whoever applies the updates, from whatever version, ends where the projection is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skep.domain.base import NetworkId, NodeId, ServiceId, TaskId, replace
from skep.domain.endpoints import (
    EndpointUpdate,
    MeshNode,
    NetworkEntry,
    NetworkPlace,
    ServiceEndpoints,
    project_network,
    project_node,
    project_service,
)
from skep.domain.objects import (
    Attachment,
    Network,
    Node,
    NodeDescription,
    Object,
    Service,
    TaskStatus,
)
from skep.domain.spec import NetworkSpec, NetworkUse, Port
from skep.domain.states import DesiredState, TaskState
from skep.manager.endpoints.core import feed as module
from skep.manager.endpoints.core.feed import EndpointFeed
from skep.manager.store.core.command import (
    Database,
    WireChange,
    encode_command,
    encode_row,
)
from tests.unit.manager.build import node, service, task

PORTS = (Port(target=80, published=8080),)
WEB = service("s1", "web", ports=PORTS)


ON_NET1 = (Attachment(network_id=NetworkId("net1"), address="10.0.0.7"),)


def network(number: int, vni: int | None) -> Network:
    name = f"net{number}"
    return Network(id=NetworkId(name), name=name, spec=NetworkSpec(name=name), vni=vni)


def on_networks(row: Service, *names: str) -> Service:
    uses = tuple(NetworkUse(network=name) for name in names)
    return replace(row, spec=replace(row.spec, task=replace(row.spec.task, networks=uses)))


def meshed(name: str, address: str) -> Node:
    return node(name, description=NodeDescription(hostname=name, mesh_address=address))


def serving(id_: str, of: str = "s1", **changes: Any) -> Object:
    return task(
        id_,
        TaskState.RUNNING,
        **{
            "service_id": ServiceId(of),
            "node_id": NodeId("n1"),
            "address": f"addr-{id_}",
            **changes,
        },
    )


Held = tuple[
    dict[ServiceId, ServiceEndpoints], dict[NodeId, MeshNode], dict[NetworkId, NetworkEntry]
]


@dataclass
class Follower:
    """A netproxy in three lines."""

    version: int = 0
    services: dict[ServiceId, ServiceEndpoints] = field(default_factory=dict)
    nodes: dict[NodeId, MeshNode] = field(default_factory=dict)
    networks: dict[NetworkId, NetworkEntry] = field(default_factory=dict)

    @property
    def held(self) -> Held:
        return self.services, self.nodes, self.networks

    def take(self, frames: list[EndpointUpdate]) -> None:
        assert [frame.is_partial for frame in frames] == [True] * (len(frames) - 1) + [False]
        assert len({(f.version, f.from_version, f.is_complete) for f in frames}) == 1
        if frames[0].is_complete:
            self.services, self.nodes, self.networks = {}, {}, {}
        else:
            assert frames[0].from_version == self.version
        for frame in frames:
            for service_id in frame.removed_services:
                self.services.pop(service_id, None)
            for node_id in frame.removed_nodes:
                self.nodes.pop(node_id, None)
            for network_id in frame.removed_networks:
                self.networks.pop(network_id, None)
            self.networks |= {each.network_id: each for each in frame.networks}
            self.services |= {each.service_id: each for each in frame.services}
            self.nodes |= {each.node_id: each for each in frame.nodes}
        self.version = frames[0].version


class Manager:
    """A database and its feed."""

    def __init__(self) -> None:
        self.database = Database()
        self.feed = EndpointFeed()
        self.feed.reset(self.database.tables, 0)

    def commit(self, *changes: Object | WireChange) -> bool:
        wires = [c if isinstance(c, WireChange) else encode_row(c) for c in changes]
        version = self.database.version + 1
        told = self.database.apply(version, encode_command(version, wires))
        return self.feed.apply(self.database.tables, told, version)

    def restart(self) -> None:
        self.feed = EndpointFeed()
        self.feed.reset(self.database.tables, self.database.version)

    def truth(self) -> Held:
        tables = self.database.tables
        ids = {row.name: row.id for row in tables.all(Network) if row.vni is not None}
        services = {}
        for row in tables.all(Service):
            places = [
                NetworkPlace(network_id=ids[use.network], aliases=use.aliases)
                for use in row.spec.task.networks
                if use.network in ids
            ]
            projected = project_service(row, tables.tasks_of_service(row.id), places)
            if projected:
                services[row.id] = projected
        nodes = {row.id: mesh for row in tables.all(Node) if (mesh := project_node(row))}
        networks = {row.id: e for row in tables.all(Network) if (e := project_network(row))}
        return services, nodes, networks


@st.composite
def changes(draw: st.DrawFn) -> Object | WireChange:
    number = draw(st.integers(1, 3))
    kind = draw(st.sampled_from(("task", "service", "node", "network")))
    if draw(st.integers(0, 4)) == 0:
        prefix = {"task": "t", "service": "s", "node": "n", "network": "net"}[kind]
        return WireChange(kind=kind, id=f"{prefix}{number}")
    if kind == "network":
        return network(number, draw(st.sampled_from((None, 4097, 4098))))
    if kind == "node":
        return meshed(f"n{number}", draw(st.sampled_from(("", "a", "b"))))
    if kind == "service":
        ports = draw(st.sampled_from((None, (), PORTS)))
        row = service(
            f"s{number}", f"web{number}", ports=ports, is_removing=draw(st.integers(0, 4)) == 0
        )
        uses = draw(st.lists(st.sampled_from(("net1", "net2")), unique=True))
        return on_networks(row, *uses)
    state = draw(st.sampled_from((TaskState.STARTING, TaskState.RUNNING, TaskState.FAILED)))
    return serving(
        f"t{draw(st.integers(1, 6))}",
        f"s{number}",
        desired_state=draw(st.sampled_from(DesiredState)),
        status=TaskStatus(state=state, is_healthy=draw(st.integers(0, 4)) > 0),
        attachments=draw(st.sampled_from(((), ON_NET1))),
    )


@settings(deadline=None)
@given(
    st.lists(st.lists(changes(), max_size=4), min_size=1, max_size=12),
    st.data(),
)
def test_a_follower_from_any_version_ends_at_the_projection(
    log: list[list[Object | WireChange]], data: st.DataObject
) -> None:
    with (
        mock.patch.object(module, "FRAME_ENDPOINTS", 2),
        mock.patch.object(module, "REMOVED_LIMIT", 1),
    ):
        manager = Manager()
        followers = [Follower() for _ in range(4)]
        for commit in log:
            manager.commit(*commit)
            if data.draw(st.integers(0, 9)) == 0:
                manager.restart()
            for follower in followers:
                # Some keep up, some fall behind and catch up in one step.
                if data.draw(st.booleans()):
                    follower.take(manager.feed.update_since(follower.version))
        for follower in [*followers, Follower(version=10_000)]:
            follower.take(manager.feed.update_since(follower.version))
            assert follower.held == manager.truth()
            assert follower.version == manager.database.version


@settings(deadline=None)
@given(st.lists(st.lists(changes(), max_size=3), min_size=1, max_size=8), st.data())
def test_a_follower_may_turn_to_another_manager_at_any_version(
    log: list[list[Object | WireChange]], data: st.DataObject
) -> None:
    """Versions are the cluster's, so what one manager told, another goes on from."""
    managers = [Manager(), Manager()]
    follower = Follower()
    for commit in log:
        for manager in managers:
            manager.commit(*commit)
            if data.draw(st.integers(0, 5)) == 0:
                manager.restart()
        follower.take(managers[data.draw(st.integers(0, 1))].feed.update_since(follower.version))
        assert follower.held == managers[0].truth()


def test_only_what_changes_endpoints_is_a_change() -> None:
    manager = Manager()
    assert manager.commit(WEB)
    assert manager.commit(serving("t1"))
    assert not manager.commit(serving("t1", status=TaskStatus(state=TaskState.RUNNING, counter=5)))
    assert not manager.commit(node("n1"))
    assert manager.commit(meshed("n1", "a"))
    assert manager.feed.changed_at(ServiceId("s1")) == 2
    assert manager.feed.version == 5


def test_an_update_with_nothing_in_it_moves_the_version() -> None:
    manager = Manager()
    manager.commit(WEB)
    manager.commit(node("n1"))
    assert manager.feed.update_since(1) == [EndpointUpdate(from_version=1, version=2)]


@pytest.mark.parametrize("version", [0, 1, 99], ids=["new", "older than known", "from the future"])
def test_who_can_not_be_brought_up_step_by_step_gets_the_whole(version: int) -> None:
    manager = Manager()
    manager.commit(WEB)
    manager.commit(serving("t1"))
    manager.restart()
    [frame] = manager.feed.update_since(version)
    assert (frame.is_complete, frame.from_version, frame.version) == (True, 0, 2)


def test_a_task_serves_until_it_is_to_stop() -> None:
    manager = Manager()
    one = task("t1", TaskState.RUNNING, node_id=NodeId("n1"), address="x")
    manager.commit(WEB, one)
    assert manager.feed.serves(one)
    manager.commit(replace(one, desired_state=DesiredState.SHUTDOWN))
    assert not manager.feed.serves(one)
    assert manager.feed.changed_at(WEB.id) == 2


def test_many_endpoints_come_in_frames_and_one_service_is_never_cut() -> None:
    manager = Manager()
    with mock.patch.object(module, "FRAME_ENDPOINTS", 10):
        for number in range(3):
            manager.commit(service(f"s{number}", f"web{number}", ports=PORTS))
            manager.commit(*(serving(f"t{number}-{n}", f"s{number}") for n in range(7)))
        manager.commit(meshed("n1", "a"))
        frames = manager.feed.update_since(0)
    assert [len(frame.services) for frame in frames] == [1, 1, 1]
    assert [len(frame.nodes) for frame in frames] == [1, 0, 0]
    follower = Follower()
    follower.take(frames)
    assert follower.held == manager.truth()


def test_a_task_id_is_where_its_service_was_told() -> None:
    manager = Manager()
    manager.commit(WEB, serving("t1"))
    [frame] = manager.feed.update_since(0)
    assert [each.task_id for each in frame.services[0].endpoints] == [TaskId("t1")]


def test_a_service_hears_of_its_network_when_that_comes_and_goes() -> None:
    manager = Manager()
    manager.commit(on_networks(WEB, "net1"))
    assert manager.feed.update_since(0)[0].services[0].networks == ()
    manager.commit(network(1, None))
    place = NetworkPlace(network_id=NetworkId("net1"))
    [frame] = manager.feed.update_since(1)
    assert (frame.services, frame.networks) == ((), ()), "it has no addresses yet"
    manager.commit(network(1, 4097))
    [frame] = manager.feed.update_since(2)
    assert [each.networks for each in frame.services] == [(place,)]
    assert [each.vni for each in frame.networks] == [4097]
    manager.commit(WireChange(kind="network", id="net1"))
    [frame] = manager.feed.update_since(3)
    assert [each.networks for each in frame.services] == [()]
    assert frame.removed_networks == ("net1",)


def test_tasks_on_networks_are_told_before_they_serve_and_until_they_end() -> None:
    manager = Manager()
    starting = serving("t1", status=TaskStatus(state=TaskState.STARTING), attachments=ON_NET1)
    manager.commit(WEB, starting)

    def told() -> tuple[list[str], list[str]]:
        [frame] = manager.feed.update_since(0)
        [web] = frame.services
        return [e.task_id for e in web.endpoints], [e.task_id for e in web.others]

    assert told() == ([], ["t1"])
    running = serving("t1", attachments=ON_NET1)
    manager.commit(running)
    assert told() == (["t1"], [])
    manager.commit(serving("t1", attachments=ON_NET1, desired_state=DesiredState.SHUTDOWN))
    assert told() == ([], ["t1"])
    manager.commit(replace(WEB, is_removing=True))
    assert told() == ([], ["t1"])
    manager.commit(serving("t1", attachments=ON_NET1, status=TaskStatus(state=TaskState.SHUTDOWN)))
    assert manager.feed.update_since(0)[0].services == ()
