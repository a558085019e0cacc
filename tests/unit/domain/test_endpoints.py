"""Endpoints are a pure projection of the store."""

from __future__ import annotations

import itertools

import pytest

from skep.domain.base import NodeId, ServiceId, TaskId, pairs, replace
from skep.domain.endpoints import (
    Endpoint,
    MeshNode,
    ServiceEndpoints,
    is_serving,
    project_node,
    project_service,
)
from skep.domain.objects import Node, NodeDescription, NodeRole, Service, Task, TaskStatus
from skep.domain.spec import Port, RunSpec, ServiceSpec, TaskSpec
from skep.domain.states import DesiredState, TaskState

PORTS = (Port(target=80, published=8080),)
WEB = Service(
    id=ServiceId("s1"),
    name="web",
    spec=ServiceSpec(name="web", task=TaskSpec(run=RunSpec(command=("web",)))),
    ports=PORTS,
)
NODE = Node(
    id=NodeId("n1"),
    name="n1",
    role=NodeRole.WORKER,
    description=NodeDescription(hostname="n1", mesh_address="127.0.0.1:9"),
)


def task(number: int, state: TaskState = TaskState.RUNNING) -> Task:
    return Task(
        id=TaskId(f"t{number}"),
        service_id=WEB.id,
        service_name="web",
        revision=1,
        slot=number,
        node_id=NODE.id,
        address=f"127.0.16.{number}",
        status=TaskStatus(state=state),
    )


def test_a_service_is_its_ports_and_its_healthy_tasks_by_id() -> None:
    assert project_service(WEB, [task(2), task(1), task(3, TaskState.STARTING)], ()) == (
        ServiceEndpoints(
            service_id=WEB.id,
            name="web",
            ports=PORTS,
            endpoints=(
                Endpoint(task_id=TaskId("t1"), node_id=NODE.id, address="127.0.16.1", name="web.1"),
                Endpoint(task_id=TaskId("t2"), node_id=NODE.id, address="127.0.16.2", name="web.2"),
            ),
        )
    )


def test_a_service_without_healthy_tasks_is_there_but_empty() -> None:
    projected = project_service(WEB, [], ())
    assert projected is not None
    assert projected.endpoints == ()


@pytest.mark.parametrize(
    "service",
    [replace(WEB, ports=None), replace(WEB, ports=()), replace(WEB, is_removing=True)],
    ids=["ports not allocated", "no ports", "being removed"],
)
def test_a_service_that_is_not_to_be_reached_is_absent(service: Service) -> None:
    assert project_service(service, [task(1)], ()) is None


@pytest.mark.parametrize(("desired", "state"), list(itertools.product(DesiredState, TaskState)))
def test_only_what_runs_and_is_to_run_serves(desired: DesiredState, state: TaskState) -> None:
    one = replace(task(1, state), desired_state=desired)
    wanted = (desired, state) == (DesiredState.RUNNING, TaskState.RUNNING)
    assert is_serving(one) is wanted


def test_a_task_that_is_sick_or_nowhere_does_not_serve() -> None:
    one = task(1)
    assert is_serving(one)
    assert not is_serving(replace(one, status=replace(one.status, is_healthy=False)))
    assert not is_serving(replace(one, node_id=None))


def test_a_node_is_where_its_netproxy_takes_connections() -> None:
    assert project_node(NODE) == MeshNode(node_id=NODE.id, mesh_address="127.0.0.1:9", name="n1")
    notes = pairs({"network.encryption": "wireguard", "network.wireguard-key": "abc="})
    noting = replace(NODE, description=replace(NODE.description, notes=notes))
    projected = project_node(noting)
    assert projected is not None
    assert projected.wireguard_key == "abc="
    description = replace(NODE.description, mesh_address="")
    assert project_node(replace(NODE, description=description)) is None
