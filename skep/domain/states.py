"""The life of a task: its states, and one table of who may move it where.

The states and their order are Docker Swarm's (observed state only moves forward); the `Writer`
column is Skep's own. Components check the table where they make a move; the store, which sees
coalesced statuses that skip states, checks the order only.
"""

from __future__ import annotations

import enum
import itertools


class TaskState(enum.Enum):
    """What was last reported of a task."""

    NEW = "new"
    PENDING = "pending"
    ASSIGNED = "assigned"
    ACCEPTED = "accepted"
    PREPARING = "preparing"
    READY = "ready"
    STARTING = "starting"
    RUNNING = "running"
    COMPLETE = "complete"
    SHUTDOWN = "shutdown"
    FAILED = "failed"
    REJECTED = "rejected"
    ORPHANED = "orphaned"


class DesiredState(enum.Enum):
    """What managers want of a task."""

    READY = "ready"
    RUNNING = "running"
    SHUTDOWN = "shutdown"
    REMOVE = "remove"


class Writer(enum.Enum):
    """Who makes a move."""

    ORCHESTRATOR = "orchestrator"
    ALLOCATOR = "allocator"
    SCHEDULER = "scheduler"
    DISPATCHER = "dispatcher"
    WORKER = "worker"


_ORDER = {state: number for number, state in enumerate(TaskState)}
_DESIRED_ORDER = {state: number for number, state in enumerate(DesiredState)}

TERMINAL = frozenset(
    {
        TaskState.COMPLETE,
        TaskState.SHUTDOWN,
        TaskState.FAILED,
        TaskState.REJECTED,
        TaskState.ORPHANED,
    }
)

_WORKER_CHAIN = (
    TaskState.ASSIGNED,
    TaskState.ACCEPTED,
    TaskState.PREPARING,
    TaskState.READY,
    TaskState.STARTING,
    TaskState.RUNNING,
)


def _table() -> dict[tuple[TaskState, TaskState], frozenset[Writer]]:
    moves: dict[tuple[TaskState, TaskState], set[Writer]] = {}

    def allow(old: TaskState, new: TaskState, writer: Writer) -> None:
        moves.setdefault((old, new), set()).add(writer)

    allow(TaskState.NEW, TaskState.PENDING, Writer.ALLOCATOR)
    allow(TaskState.PENDING, TaskState.ASSIGNED, Writer.SCHEDULER)
    for old, new in itertools.pairwise(_WORKER_CHAIN):
        allow(old, new, Writer.WORKER)
    for old in _WORKER_CHAIN:
        allow(old, TaskState.SHUTDOWN, Writer.WORKER)
        allow(old, TaskState.ORPHANED, Writer.DISPATCHER)
        started = order(old) >= order(TaskState.STARTING)
        allow(old, TaskState.FAILED if started else TaskState.REJECTED, Writer.WORKER)
    allow(TaskState.RUNNING, TaskState.COMPLETE, Writer.WORKER)
    # A task that never reached a node has nobody to stop it but its managers.
    for old in (TaskState.NEW, TaskState.PENDING):
        allow(old, TaskState.SHUTDOWN, Writer.ORCHESTRATOR)
    return {move: frozenset(writers) for move, writers in moves.items()}


def order(state: TaskState) -> int:
    """A number that grows along a task's life."""
    return _ORDER[state]


def desired_order(state: DesiredState) -> int:
    """A number that grows along what is wanted of a task."""
    return _DESIRED_ORDER[state]


LEGAL_MOVES = _table()
"""(old, new) -> who may make that move."""


class IllegalMove(AssertionError):
    """A programmer's error; the text tells the task's story."""


def check_move(task_id: str, old: TaskState, new: TaskState, writer: Writer) -> None:
    """Raise IllegalMove unless `writer` may move a task from `old` to `new`."""
    if writer not in LEGAL_MOVES.get((old, new), frozenset()):
        raise IllegalMove(f"task={task_id} from={old.value} to={new.value} writer={writer.value}")
