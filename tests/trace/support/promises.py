"""What holds after every commit."""

from __future__ import annotations

from collections.abc import Sequence

from skep.domain.base import ServiceId, TaskId
from skep.domain.objects import Node, NodeState, Service, Task
from skep.domain.spec import PortMode
from skep.domain.states import LEGAL_MOVES, TERMINAL, DesiredState, TaskState, Writer, order
from skep.manager.orchestrator.core.slots import STOP_MARGIN_NS
from skep.manager.scheduler.actor import task_spec
from skep.manager.store.core.command import Change
from tests.support.networks import faults
from tests.trace.support.instant import InstantStore


def check_move(old: Task, new: Task, writer: Writer) -> None:
    """Every move is its writer's to make; a worker's statuses may skip states."""
    before, after = old.status.state, new.status.state
    if before is after:
        return
    if writer is Writer.WORKER:
        assert before not in TERMINAL, (before, after)
        assert order(after) > order(before), (before, after)
    else:
        assert writer in LEGAL_MOVES.get((before, after), ()), (before, after, writer)


def check(store: InstantStore) -> None:
    """What holds after every commit."""
    tables = store.database.tables
    tables.check_invariants()
    wanted: dict[tuple[ServiceId, int], list[Task]] = {}
    addresses: dict[str, TaskId] = {}
    for task in tables.all(Task):
        if task.is_wanted:
            wanted.setdefault((task.service_id, task.slot), []).append(task)
        if task.address:
            assert addresses.setdefault(task.address, task.id) == task.id, task.address
        assert (
            order(task.status.state) < order(TaskState.ASSIGNED)
            or task.node_id
            or (task.status.state is TaskState.SHUTDOWN)
        ), task
    for slot, tasks in wanted.items():
        # One, or while it hands over two: and then the older one has served.
        assert len(tasks) <= 2, f"slot {slot} is wanted {len(tasks)} times: {tasks}"
        if len(tasks) == 2:
            older = min(tasks, key=lambda task: (task.created_ns, task.version))
            assert older.healthy_ns is not None, f"slot {slot} keeps what never served: {tasks}"
    _check_ports(store)
    _check_reservations(store)
    assert not (found := faults(tables)), found


def check_starts(store: InstantStore, changes: Sequence[Change]) -> None:
    """What a commit lets run finds nothing of its slot that still has to stop where somebody can
    tell, unless it has waited long enough. What goes on until it is healthy is another thing."""
    tables = store.database.tables
    for change in changes:
        new, old = change.row, change.old
        was_to_run = isinstance(old, Task) and old.desired_state is DesiredState.RUNNING
        if not isinstance(new, Task) or was_to_run or new.desired_state is not DesiredState.RUNNING:
            continue
        if store.database.wall_ns - new.created_ns >= STOP_MARGIN_NS:
            continue
        for other in tables.tasks_of_service(new.service_id):
            node = tables.get(Node, other.node_id or "")
            may_run = not other.is_terminal and node is not None and node.state != NodeState.DOWN
            is_to_stop = other.desired_state is DesiredState.SHUTDOWN
            is_left = other.slot == new.slot and is_to_stop and may_run
            assert not is_left, f"{new.name} is to run while {other} has not stopped"


def _check_ports(store: InstantStore) -> None:
    owners: dict[tuple[int, str], str] = {}
    for service in store.tables.all(Service):
        for port in service.ports or ():
            assert port.published is not None, service
            key = (port.published, port.protocol.value)
            if port.mode is PortMode.INGRESS:
                assert owners.setdefault(key, service.name) == service.name, key


def _check_reservations(store: InstantStore) -> None:
    tables = store.tables
    for node in tables.all(Node):
        reserved = 0
        for task in tables.tasks_of_node(node.id):
            of = task_spec(tables, task)
            if not task.is_terminal and of is not None:
                reserved += of.reservations.memory_bytes or 0
        assert reserved <= node.description.memory_bytes, f"{node.name} holds {reserved} bytes"
