"""Replicated services: N slots, each with at most one task that is wanted and not being replaced.

One pass looks at a service as it is and says what to change; it keeps no memory of its own. Slots
are numbered from 1. The newest task of a slot tells the slot's story:

- wanted and alive: left alone, unless its node is lost or drained or no longer fits (eviction), or
  the spec has changed (update);
- wanted and ended: replaced by the restart policy. Eviction is not a failure: it eats no attempts;
- given up (not wanted, ended by itself): the policy allows no further attempt. A new spec does.

A replacement waits with desired state READY until its predecessor has stopped and its delay is
over; the wait has a bound, since a node that never answers must not wedge the slot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from skep.domain.base import SECOND_NS, NodeId, TaskId, replace
from skep.domain.constraints import are_met
from skep.domain.objects import Availability, Node, NodeState, Service, Task
from skep.domain.spec import RestartCondition, ServiceSpec
from skep.domain.states import DesiredState, TaskState
from skep.manager.orchestrator.core.plan import Plan

# On top of the stop grace: the drain of connections, and a worker that is slow to say so.
STOP_MARGIN_NS = 30 * SECOND_NS


@dataclass(frozen=True)
class Scene:
    """What one pass sees: a service, its tasks, the nodes they are on, and the time."""

    service: Service
    tasks: Sequence[Task]
    nodes: Mapping[NodeId, Node]
    now_ns: int
    new_id: Callable[[], str]

    @property
    def spec(self) -> ServiceSpec:
        """The spec that is to be true."""
        return self.service.spec


def reconcile(scene: Scene) -> Plan:
    """Everything that is to be changed about one service now."""
    plan = Plan()
    slots = _slots(scene.tasks)
    if scene.service.is_removing:
        for task in scene.tasks:
            if task.desired_state is not DesiredState.REMOVE:
                plan.want(task, DesiredState.REMOVE, "service removed")
        return plan
    kept = _shrink(scene, slots, plan)
    for slot in kept:
        _tend(scene, slots[slot], plan)
    _update_one(scene, [slots[slot] for slot in kept], plan)
    _fill(scene, slots, len(kept), plan)
    return plan


def _slots(tasks: Iterable[Task]) -> dict[int, list[Task]]:
    """Tasks by slot, each slot's oldest first. A task that is to be removed holds no slot."""
    slots: dict[int, list[Task]] = {}
    for task in tasks:
        if task.desired_state is not DesiredState.REMOVE:
            slots.setdefault(task.slot, []).append(task)
    for history in slots.values():
        history.sort(key=lambda task: (task.created_ns, task.version, task.attempt, task.id))
    return dict(sorted(slots.items()))


# ------------------------------------------------------------------------------- how many


def _shrink(scene: Scene, slots: dict[int, list[Task]], plan: Plan) -> list[int]:
    """The slots to keep. Those given up go last, then the ones that make the spread uneven:
    unplaced, then the n-th copy on one node, then high numbers (Swarm's order)."""
    wanted = scene.spec.replicas
    if len(slots) <= wanted:
        return list(slots)
    copies: dict[NodeId, int] = {}
    ranked: list[tuple[int, int, int, int]] = []
    by_life = sorted(slots, key=lambda slot: (not _is_running(slots[slot][-1]), slot))
    for slot in by_life:
        newest = slots[slot][-1]
        if newest.node_id is None or newest.is_terminal:
            ranked.append((1, 0, len(ranked), slot))
            continue
        copies[newest.node_id] = copies.get(newest.node_id, 0) + 1
        ranked.append((0, copies[newest.node_id], len(ranked), slot))
    keep = sorted(entry[-1] for entry in sorted(ranked)[:wanted])
    for slot in slots:
        if slot not in keep:
            for task in slots[slot]:
                plan.want(task, DesiredState.REMOVE, f"scaled down to {wanted}")
    return keep


def _fill(scene: Scene, slots: dict[int, list[Task]], kept: int, plan: Plan) -> None:
    """New tasks in the lowest free slot numbers."""
    slot = 0
    for _ in range(scene.spec.replicas - kept):
        slot += 1
        while slot in slots:
            slot += 1
        plan.create(_task(scene, slot, DesiredState.RUNNING), "slot is empty")


def _task(scene: Scene, slot: int, desired: DesiredState) -> Task:
    return Task(
        id=TaskId(scene.new_id()),
        namespace=scene.service.namespace,
        service_id=scene.service.id,
        service_name=scene.service.name,
        revision=scene.service.task_revision,
        slot=slot,
        desired_state=desired,
    )


# ------------------------------------------------------------------------------ one slot


def _tend(scene: Scene, history: list[Task], plan: Plan) -> None:
    """Keep one slot going: evict, restart, or let a waiting replacement start."""
    newest = history[-1]
    if newest.is_terminal:
        if newest.is_wanted:
            _after_end(scene, history, plan)
        elif newest.revision < scene.service.task_revision:
            # It was given up; a new spec is a new chance.
            plan.create(_task(scene, newest.slot, DesiredState.RUNNING), "spec changed")
        return
    if not newest.is_wanted:
        # Stopped by an update whose replacement is gone: nothing else would fill the slot.
        successor = _task(scene, newest.slot, DesiredState.READY)
        plan.create(successor, "predecessor is stopping")
        return
    why = _eviction(scene, newest)
    if why is not None:
        _evict(scene, newest, why, plan)
    elif newest.desired_state is DesiredState.READY:
        _start_when_due(scene, history, plan)


def _after_end(scene: Scene, history: list[Task], plan: Plan) -> None:
    """The newest task ended by itself, or was ended by circumstances."""
    old = history[-1]
    lost = old.status.state is TaskState.ORPHANED
    is_outdated = old.revision < scene.service.task_revision
    plan.want(old, DesiredState.SHUTDOWN, f"ended: {old.status.state.value}")
    if lost or is_outdated or _eviction(scene, old) is not None:
        # Its node was lost or it is outdated anyway: not the task's failure.
        attempt = 0 if is_outdated else old.attempt
        new = replace(_task(scene, old.slot, DesiredState.RUNNING), attempt=attempt)
        plan.create(new, "lost" if lost else "ended while due to be replaced")
        return
    if not _may_restart(scene, history):
        plan.notes.append(f"task={old.id} slot={old.name} why=restart policy allows no more")
        return
    delay_ns = scene.spec.task.restart.delay_ns
    new = replace(
        _task(scene, old.slot, DesiredState.READY if delay_ns else DesiredState.RUNNING),
        attempt=old.attempt + 1,
        start_at_ns=scene.now_ns + delay_ns if delay_ns else None,
    )
    plan.create(new, f"restart, attempt {new.attempt}")
    if new.start_at_ns is not None:
        plan.wake(new.start_at_ns)


def _may_restart(scene: Scene, history: list[Task]) -> bool:
    policy = scene.spec.task.restart
    old = history[-1]
    if policy.condition is RestartCondition.NONE:
        return False
    if policy.condition is RestartCondition.ON_FAILURE and old.status.state is TaskState.COMPLETE:
        return False
    if not policy.max_attempts:
        return True
    if not policy.window_ns:
        return old.attempt < policy.max_attempts
    since_ns = scene.now_ns - policy.window_ns
    recent = sum(
        1
        for task in history
        if task.attempt > 0 and task.revision == old.revision and task.created_ns > since_ns
    )
    return recent < policy.max_attempts


def _eviction(scene: Scene, task: Task) -> str | None:
    """Why a task can't stay where it is, if it can't."""
    if task.node_id is None:
        return None
    node = scene.nodes.get(task.node_id)
    if node is None:
        return "node removed"
    if node.state is NodeState.DOWN:
        return "node down"
    if node.availability is Availability.DRAIN:
        return "node drained"
    if not are_met(scene.spec.task.placement.constraints, node):
        return "node no longer meets the constraints"
    return None


def _evict(scene: Scene, old: Task, why: str, plan: Plan) -> None:
    plan.want(old, DesiredState.SHUTDOWN, why)
    # A lost node can't say that the task has stopped; waiting for it would be waiting for good.
    is_lost = why in ("node removed", "node down")
    desired = DesiredState.RUNNING if is_lost else DesiredState.READY
    new = replace(_task(scene, old.slot, desired), attempt=old.attempt)
    plan.create(new, f"evicted: {why}")
    if not is_lost:
        plan.wake(scene.now_ns + _stop_bound_ns(scene))


def _start_when_due(scene: Scene, history: list[Task], plan: Plan) -> None:
    """Let a replacement run once its delay is over and its predecessors have stopped."""
    new = history[-1]
    if new.start_at_ns is not None and scene.now_ns < new.start_at_ns:
        plan.wake(new.start_at_ns)
        return
    if any(_is_stopping(scene, old) for old in history[:-1]):
        give_up_ns = new.created_ns + _stop_bound_ns(scene)
        if scene.now_ns < give_up_ns:
            plan.wake(give_up_ns)
            return
        plan.want(new, DesiredState.RUNNING, "predecessor does not stop in time")
        return
    plan.want(new, DesiredState.RUNNING, "due")


def _is_stopping(scene: Scene, task: Task) -> bool:
    """Whether something of it may still run where somebody can tell."""
    node = scene.nodes.get(task.node_id) if task.node_id is not None else None
    is_heard_of = node is not None and node.state is not NodeState.DOWN
    return not task.is_terminal and is_heard_of


def _stop_bound_ns(scene: Scene) -> int:
    return scene.spec.task.run.stop_grace_ns + STOP_MARGIN_NS


# -------------------------------------------------------------------------- new revisions


def _update_one(scene: Scene, histories: list[list[Task]], plan: Plan) -> None:
    """Replace tasks of older revisions, stop first: at once those that don't run anyway, and of
    the running ones a single one at a time, when no other slot is short of its task."""
    target = scene.service.task_revision
    touched = {task.slot for task in plan.updated.values()} | {t.slot for t in plan.created}
    running = []
    for history in histories:
        newest = history[-1]
        if newest.slot in touched or newest.revision >= target:
            continue
        if newest.is_wanted and not newest.is_terminal:
            if _is_running(newest):
                running.append(newest)
            else:
                _replace_outdated(scene, newest, plan)
                touched.add(newest.slot)
    short = touched or any(
        not _is_running(history[-1]) and not _is_given_up(history[-1])
        for history in histories
        if history[-1].revision >= target
    )
    failed = any(
        _is_given_up(history[-1]) for history in histories if history[-1].revision >= target
    )
    if running and not short and not failed:
        _replace_outdated(scene, running[0], plan)


def _replace_outdated(scene: Scene, old: Task, plan: Plan) -> None:
    plan.want(old, DesiredState.SHUTDOWN, f"revision {old.revision} is outdated")
    plan.create(_task(scene, old.slot, DesiredState.READY), "replaces an older revision")
    plan.wake(scene.now_ns + _stop_bound_ns(scene))


def _is_running(task: Task) -> bool:
    return (
        task.desired_state is DesiredState.RUNNING
        and task.status.state is TaskState.RUNNING
        and task.status.is_healthy
    )


def _is_given_up(task: Task) -> bool:
    return task.is_terminal and not task.is_wanted
