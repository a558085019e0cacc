"""Rows as these tests need them."""

from __future__ import annotations

from typing import Any

from skep.domain.base import NodeId, ServiceId, TaskId, replace
from skep.domain.objects import (
    Node,
    NodeDescription,
    NodeRole,
    NodeState,
    Service,
    Task,
    TaskStatus,
)
from skep.domain.spec import RunSpec, ServiceSpec, TaskSpec
from skep.domain.states import DesiredState, TaskState

GIB = 1 << 30


def service_spec(name: str = "web", **changes: Any) -> ServiceSpec:
    return ServiceSpec(name=name, task=TaskSpec(run=RunSpec(command=("serve",))), **changes)


def service(id_: str = "s1", name: str = "web", **changes: Any) -> Service:
    of = changes.pop("spec", None) or service_spec(name)
    return Service(id=ServiceId(id_), name=name, spec=of, **changes)


def task(
    id_: str = "t1",
    state: TaskState = TaskState.NEW,
    desired: DesiredState = DesiredState.RUNNING,
    **changes: Any,
) -> Task:
    row = Task(
        id=TaskId(id_),
        service_id=ServiceId("s1"),
        service_name="web",
        revision=1,
        slot=1,
        desired_state=desired,
        status=TaskStatus(state=state),
    )
    return replace(row, **changes)


def node(name: str = "n1", **changes: Any) -> Node:
    description = NodeDescription(
        hostname=name, cpu_nano=4_000_000_000, memory_bytes=4 * GIB, engines=("process",)
    )
    row = Node(
        id=NodeId(name),
        name=name,
        role=NodeRole.WORKER,
        description=description,
        state=NodeState.READY,
    )
    return replace(row, **changes)
