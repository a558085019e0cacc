"""What a pass sees: a service, its slots, and the nodes that their tasks are on.

The **lead** of a slot tells its story: its newest wanted task, else its newest one of the right
revision, else its newest one.
An older task that is wanted as well is the one that a start-first handover keeps until the lead
is healthy.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from skep.domain.base import SECOND_NS, NodeId, TaskId
from skep.domain.constraints import are_met
from skep.domain.objects import Availability, Node, NodeState, Service, Task
from skep.domain.spec import RestartCondition, ServiceSpec
from skep.domain.states import DesiredState, TaskState

# On top of the stop grace: the drain of connections, and a worker that is slow to say so.
STOP_MARGIN_NS = 30 * SECOND_NS


@dataclass(frozen=True)
class Slot:
    """One slot's tasks, the oldest first, but for those that are to be removed. `target` is the
    task revision that is right."""

    number: int
    tasks: tuple[Task, ...]
    target: int

    @property
    def anchor(self) -> Task:
        """The task that serves, where one does; else the lead."""
        return next((task for task in reversed(self.tasks) if is_running(task)), self.lead)

    @functools.cached_property
    def lead(self) -> Task:
        """The task that tells the slot's story."""
        # Of those that nobody wants, one of the right revision: what was tried and rolled back
        # after it is another story.
        of_target = [task for task in self.tasks if task.revision == self.target]
        fallback = (of_target or self.tasks)[-1]
        return next((task for task in reversed(self.tasks) if task.is_wanted), fallback)

    @property
    def kept(self) -> tuple[Task, ...]:
        """Wanted tasks older than the lead: kept until it is healthy."""
        lead = self.lead
        return tuple(task for task in self.tasks if task.is_wanted and task is not lead)

    @property
    def chain(self) -> tuple[Task, ...]:
        """The lead and the tasks right before it of the same revision, the oldest first."""
        found: list[Task] = []
        lead = self.lead
        for task in reversed(self.tasks[: self.tasks.index(lead) + 1]):
            if task.revision != lead.revision:
                break
            found.append(task)
        return tuple(reversed(found))

    @property
    def is_serving(self) -> bool:
        """Whether a wanted task of it runs and is healthy."""
        return any(is_running(task) for task in self.tasks)

    @property
    def was_ever_placed(self) -> bool:
        """Whether any of its tasks had a node, as far as they are remembered."""
        return any(task.node_id is not None for task in self.tasks)


@dataclass(frozen=True)
class Scene:
    """What one pass sees: a service, its tasks, the nodes they are on, and the time.

    `spec_of` gives the spec that tasks of a revision go by, while it is known: the scheduler's
    rule as well. `base_task_revision` are the tasks that were right before the last update.
    """

    service: Service
    tasks: Sequence[Task]
    nodes: Mapping[NodeId, Node]
    now_ns: int
    new_id: Callable[[], str]
    spec_of: Callable[[int], ServiceSpec | None]
    base_task_revision: int | None = None

    @property
    def spec(self) -> ServiceSpec:
        """The spec that is to be true."""
        return self.service.spec

    @property
    def start_period_ns(self) -> int:
        """How long a task's health check may fail before that counts."""
        health = self.spec.task.run.health
        return health.start_period_ns if health is not None else 0

    def spec_for(self, task: Task) -> ServiceSpec:
        """The spec that a task goes by."""
        return self.spec_of(task.revision) or self.spec

    def stop_bound_ns(self, task: Task) -> int:
        """How long a task may take to stop before nobody waits for it any more."""
        return self.spec_for(task).task.run.stop_grace_ns + STOP_MARGIN_NS

    def is_stopping(self, task: Task) -> bool:
        """Whether something of a task that is no longer wanted may still run where somebody can
        tell."""
        return not task.is_wanted and self.is_alive(task)

    def is_alive(self, task: Task) -> bool:
        """Whether something of it may run where somebody can tell."""
        node = self.nodes.get(task.node_id) if task.node_id is not None else None
        is_heard_of = node is not None and node.state is not NodeState.DOWN
        return not task.is_terminal and is_heard_of

    def loss(self, task: Task) -> str | None:
        """Why a task's node can't run it any more, if so: nobody can tell how it is."""
        if task.node_id is None:
            return None
        node = self.nodes.get(task.node_id)
        if node is None:
            return "node removed"
        return "node down" if node.state is NodeState.DOWN else None

    def misplacement(self, task: Task) -> str | None:
        """Why a task that may go on running for now has to leave its node, if so."""
        node = self.nodes.get(task.node_id) if task.node_id is not None else None
        if node is None:
            return None
        if node.availability is Availability.DRAIN:
            return "node drained"
        if not are_met(self.spec_for(task).task.placement.constraints, node):
            return "node no longer meets the constraints"
        if (node.id, task.slot) in self._crowded:
            return "too many replicas on the node"
        return None

    @functools.cached_property
    def _crowded(self) -> frozenset[tuple[NodeId, int]]:
        """Slots that nodes have beyond the most that they may have: the highest numbers. Each
        goes by the spec of its own task."""
        here: dict[NodeId, dict[int, int | None]] = {}
        for task in self.tasks:
            if task.is_wanted and not task.is_terminal and task.node_id is not None:
                most = self.spec_for(task).task.placement.max_replicas_per_node
                here.setdefault(task.node_id, {})[task.slot] = most
        return frozenset(
            (node_id, slot)
            for node_id, slots in here.items()
            for place, (slot, most) in enumerate(sorted(slots.items()))
            if most is not None and place >= most
        )

    def new_task(self, slot: int, revision: int) -> Task:
        """A task that is yet to be given a node."""
        return Task(
            id=TaskId(self.new_id()),
            namespace=self.service.namespace,
            service_id=self.service.id,
            service_name=self.service.name,
            revision=revision,
            slot=slot,
        )


def slots_of(tasks: Iterable[Task], target: int) -> dict[int, Slot]:
    """Tasks by slot; `target` is the right task revision. A task that is to be removed holds no
    slot."""
    by_slot: dict[int, list[Task]] = {}
    for task in tasks:
        if task.desired_state is not DesiredState.REMOVE:
            by_slot.setdefault(task.slot, []).append(task)
    for history in by_slot.values():
        history.sort(key=lambda task: (task.created_ns, task.version, task.attempt, task.id))
    return {number: Slot(number, tuple(by_slot[number]), target) for number in sorted(by_slot)}


def is_running(task: Task) -> bool:
    """Whether it runs, is healthy, and is meant to."""
    return (
        task.desired_state is DesiredState.RUNNING
        and task.status.state is TaskState.RUNNING
        and task.status.is_healthy
    )


def is_given_up(task: Task) -> bool:
    """Whether it ended, and nobody wants another try."""
    return task.is_terminal and not task.is_wanted


def is_done(scene: Scene, task: Task) -> bool:
    """Whether it was to run once, and did."""
    return (
        task.status.state is TaskState.COMPLETE
        and scene.spec.task.restart.condition is not RestartCondition.ANY
    )
