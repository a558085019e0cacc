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

# Where no delay leads beyond: a bigger number could not travel.
END_OF_TIME_NS = 2**63 - 1


# How soon a rejected task is tried again where the restart policy has no delay; doubled each time.
REJECTED_PAUSE_NS = SECOND_NS
REJECTED_PAUSE_LIMIT_NS = 30 * SECOND_NS


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
                plan.decide().want(task, DesiredState.REMOVE, "service removed")
        return plan
    kept = _shrink(scene, slots, plan)
    for slot in kept:
        _tend(scene, slots[slot], plan)
    _fill(scene, slots, len(kept), plan)
    _update_one(scene, [slots[slot] for slot in kept], plan)
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
                # Oldest first and each by itself: a slot that is cut short keeps its newest task,
                # and goes in the next pass.
                plan.decide().want(task, DesiredState.REMOVE, f"scaled down to {wanted}")
    return keep


def _fill(scene: Scene, slots: dict[int, list[Task]], kept: int, plan: Plan) -> None:
    """New tasks in the lowest free slot numbers."""
    slot = 0
    for _ in range(scene.spec.replicas - kept):
        slot += 1
        while slot in slots:
            slot += 1
        plan.decide().create(_task(scene, slot), "slot is empty")


def _task(scene: Scene, slot: int) -> Task:
    return Task(
        id=TaskId(scene.new_id()),
        namespace=scene.service.namespace,
        service_id=scene.service.id,
        service_name=scene.service.name,
        revision=scene.service.task_revision,
        slot=slot,
    )


# ------------------------------------------------------------------------------ one slot


def _tend(scene: Scene, history: list[Task], plan: Plan) -> None:
    """Keep one slot going: evict, restart, or let a waiting replacement start."""
    newest = history[-1]
    for old in history[:-1]:
        if old.is_wanted:
            plan.decide().want(old, DesiredState.SHUTDOWN, "superseded")
    if newest.is_terminal:
        _after_end(scene, history, plan)
        return
    if not newest.is_wanted:
        # It was stopped, and what replaced it is gone: nothing else would fill the slot.
        plan.decide().create(_successor(scene, history), "predecessor is stopping")
        return
    why = _eviction(scene, newest)
    if why is not None:
        _evict(scene, history, why, plan)
    elif newest.desired_state is DesiredState.READY:
        _start_when_due(scene, history, plan)


def _after_end(scene: Scene, history: list[Task], plan: Plan) -> None:
    """The newest task has ended. One that is not wanted any more was given up, or it was stopped
    and what replaced it is gone; the policy, asked anew, tells which."""
    old = history[-1]
    new = _replacement(scene, history)
    if not old.is_wanted and new is None:
        return
    is_restart = new is not None and new.attempt > old.attempt
    if is_restart and old.start_at_ns is not None and scene.now_ns < old.start_at_ns:
        # It failed while it was being made ready, before its own delay was over.
        plan.wake(old.start_at_ns)
        return
    decision = plan.decide()
    if old.is_wanted:
        decision.want(old, DesiredState.SHUTDOWN, f"ended: {old.status.state.value}")
    if new is None:
        decision.notes.append(f"task={old.id} slot={old.name} why=restart policy allows no more")
        return
    why = f"restart, attempt {new.attempt}" if new.attempt > old.attempt else "not a failure"
    decision.create(new, why)


def _replacement(scene: Scene, history: list[Task]) -> Task | None:
    """What follows a task that has ended; None where the restart policy allows no more."""
    old = history[-1]
    delay_ns = scene.spec.task.restart.delay_ns
    later_ns = min(scene.now_ns + delay_ns, END_OF_TIME_NS) if delay_ns else None
    if old.revision < scene.service.task_revision:
        # It is outdated anyway. Had it been given up: a new spec is a new chance.
        return _successor(scene, history)
    if old.status.state is TaskState.ORPHANED or (
        old.is_wanted and _eviction(scene, old) is not None
    ):
        return _successor(scene, history, attempt=old.attempt)
    if old.status.state is TaskState.SHUTDOWN:
        # Nobody shuts itself down. Whoever does it against our will may go on doing so.
        start_at_ns = later_ns if old.is_wanted else None
        return _successor(scene, history, attempt=old.attempt, start_at_ns=start_at_ns)
    if not _may_restart(scene, history):
        return None
    if old.status.state is TaskState.REJECTED:
        # What can't even be prepared costs next to nothing to try, and would be tried all the time.
        pause_ns = min(REJECTED_PAUSE_NS << min(old.attempt, 5), REJECTED_PAUSE_LIMIT_NS)
        later_ns = max(later_ns or 0, scene.now_ns + pause_ns)
    return _successor(scene, history, attempt=old.attempt + 1, start_at_ns=later_ns)


def _successor(
    scene: Scene, history: list[Task], *, attempt: int = 0, start_at_ns: int | None = None
) -> Task:
    """The next task of a slot. It waits for its time, and for all before it to have stopped."""
    is_waiting = start_at_ns is not None or any(_is_stopping(scene, old) for old in history)
    return replace(
        _task(scene, history[-1].slot),
        desired_state=DesiredState.READY if is_waiting else DesiredState.RUNNING,
        attempt=attempt,
        start_at_ns=start_at_ns,
    )


def _may_restart(scene: Scene, history: list[Task]) -> bool:
    """Whether the policy allows another attempt. Asked again of a task that was given up, it
    answers as it did then, unless the policy itself has changed."""
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
    # A task that was given up was last written when that was decided.
    asked_ns = scene.now_ns if old.is_wanted else old.updated_ns
    restarts: dict[int, int] = {}
    for task in history:
        if task.attempt > 0 and task.revision == old.revision:
            # An evicted task's replacement has the same number: it is no attempt of its own.
            restarts.setdefault(task.attempt, task.created_ns)
    recent = sum(1 for at_ns in restarts.values() if at_ns > asked_ns - policy.window_ns)
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


def _evict(scene: Scene, history: list[Task], why: str, plan: Plan) -> None:
    """It can't stay where it is: no failure, so it eats no attempt, and a delay under way goes on.
    A lost node can't say that the task has stopped; waiting for it would be waiting for good."""
    old = history[-1]
    is_outdated = old.revision < scene.service.task_revision
    is_delayed = old.start_at_ns is not None and old.start_at_ns > scene.now_ns
    new = _successor(
        scene,
        history,
        attempt=0 if is_outdated else old.attempt,
        start_at_ns=old.start_at_ns if is_delayed and not is_outdated else None,
    )
    decision = plan.decide()
    decision.want(old, DesiredState.SHUTDOWN, why)
    decision.create(new, f"evicted: {why}")


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
        plan.decide().want(new, DesiredState.RUNNING, "predecessor does not stop in time")
        return
    plan.decide().want(new, DesiredState.RUNNING, "due")


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
                running.append(history)
            else:
                _replace_outdated(scene, history, plan)
                touched.add(newest.slot)
    short = touched or any(
        not _is_running(history[-1])
        and not _is_given_up(history[-1])
        # A slot that never had a node was short before the update; waiting for it could be
        # waiting for the room that only the update's next step makes.
        and not _was_never_placed(history)
        for history in histories
        if history[-1].revision >= target
    )
    failed = any(
        _has_failed(scene, history[-1]) for history in histories if history[-1].revision >= target
    )
    if running and not short and not failed:
        _replace_outdated(scene, running[0], plan)


def _replace_outdated(scene: Scene, history: list[Task], plan: Plan) -> None:
    old = history[-1]
    decision = plan.decide()
    decision.want(old, DesiredState.SHUTDOWN, f"revision {old.revision} is outdated")
    decision.create(_successor(scene, history), "replaces an older revision")


def _is_running(task: Task) -> bool:
    return (
        task.desired_state is DesiredState.RUNNING
        and task.status.state is TaskState.RUNNING
        and task.status.is_healthy
    )


def _was_never_placed(history: list[Task]) -> bool:
    return all(task.node_id is None for task in history)


def _is_given_up(task: Task) -> bool:
    return task.is_terminal and not task.is_wanted


def _has_failed(scene: Scene, task: Task) -> bool:
    """Whether a slot was given up for a failure: a task that was to run once and did is none."""
    is_done = (
        task.status.state is TaskState.COMPLETE
        and scene.spec.task.restart.condition is not RestartCondition.ANY
    )
    return _is_given_up(task) and not is_done
