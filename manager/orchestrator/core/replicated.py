"""Replicated services: N slots, each with one task that is wanted, or two while one hands over.

One pass looks at a service as it is and says what to change; it keeps no memory of its own. Slots
are numbered from 1. The lead of a slot (see `slots`) tells its story:

- wanted and alive: left alone, unless its node is lost, or it has to leave it (eviction);
- wanted and ended: replaced by the restart policy. Eviction is not a failure: it eats no attempts;
- given up (not wanted, ended by itself): the policy allows no further attempt. A new spec does.

A task whose node is lost is replaced at once. One that has to leave a node that lives (drained, no
longer fitting) is replaced start first: it goes on until its successor is healthy. Changes of the
revision are made by `rollout`.

A replacement waits with desired state READY until its predecessor has stopped and its delay is
over; the wait has a bound, since a node that never answers must not wedge the slot.
"""

from __future__ import annotations

from collections.abc import Mapping

from skep.domain.base import SECOND_NS, NodeId, replace
from skep.domain.objects import Task, UpdateState
from skep.domain.states import DesiredState, TaskState
from skep.manager.orchestrator.core.plan import Plan
from skep.manager.orchestrator.core.restart import may_restart, start_ns
from skep.manager.orchestrator.core.rollout import walk
from skep.manager.orchestrator.core.slots import Scene, Slot, is_running, slots_of

# A move that was given up is acted on within this time after its end, or it is a thing of the past.
STALE_NS = 60 * SECOND_NS


def reconcile(scene: Scene) -> Plan:
    """Everything that is to be changed about one service now."""
    plan = Plan()
    if scene.service.is_removing:
        for task in scene.tasks:
            if task.desired_state is not DesiredState.REMOVE:
                plan.decide().want(task, DesiredState.REMOVE, "service removed")
        return plan
    slots = slots_of(scene.tasks, scene.service.task_revision)
    kept = {number: slots[number] for number in _shrink(scene, slots, plan)}
    _fill(scene, slots, len(kept), plan)
    step = walk(scene, kept, plan)
    if plan.rollback_why is not None:
        # The next pass has another spec to keep true: nothing is worth beginning for this one.
        return Plan(update=plan.update, rollback_why=plan.rollback_why)
    moving = sum(1 for slot in kept.values() if _is_moving(scene, slot))
    for slot in kept.values():
        if slot.number not in step.taken:
            moving += _tend(scene, slot, plan, moving)
    if step.completed is not None and not plan.decisions:
        # Not before: what doesn't fit into this pass could be a slot that is to go, and comes
        # back with an old task once the change is over.
        plan.update = step.completed
    return plan


# ------------------------------------------------------------------------------- how many


def _shrink(scene: Scene, slots: Mapping[int, Slot], plan: Plan) -> list[int]:
    """The slots to keep. Those given up go first, then the ones that make the spread uneven:
    unplaced, then the n-th copy on one node, then high numbers (Swarm's order)."""
    wanted = scene.spec.replicas
    if len(slots) <= wanted:
        return list(slots)
    copies: dict[NodeId, int] = {}
    ranked: list[tuple[int, int, int, int]] = []
    by_life = sorted(slots, key=lambda number: (not slots[number].is_serving, number))
    for number in by_life:
        anchor = slots[number].anchor
        if anchor.node_id is None or anchor.is_terminal:
            ranked.append((1, 0, len(ranked), number))
            continue
        copies[anchor.node_id] = copies.get(anchor.node_id, 0) + 1
        ranked.append((0, copies[anchor.node_id], len(ranked), number))
    keep = sorted(entry[-1] for entry in sorted(ranked)[:wanted])
    for number, slot in slots.items():
        if number not in keep:
            for task in slot.tasks:
                # Oldest first and each by itself: a slot that is cut short keeps its newest task,
                # and goes in the next pass.
                plan.decide().want(task, DesiredState.REMOVE, f"scaled down to {wanted}")
    return keep


def _fill(scene: Scene, slots: Mapping[int, Slot], kept: int, plan: Plan) -> None:
    """New tasks in the lowest free slot numbers."""
    number = 0
    for _ in range(scene.spec.replicas - kept):
        number += 1
        while number in slots:
            number += 1
        plan.decide().create(scene.new_task(number, _revision_of_new(scene)), "slot is empty")


def _revision_of_new(scene: Scene) -> int:
    """What an empty slot gets. While an update is paused that is not the release it stopped at."""
    status = scene.service.update
    if status is not None and status.state is UpdateState.PAUSED:
        return scene.base_task_revision or scene.service.task_revision
    return scene.service.task_revision


# ------------------------------------------------------------------------------ one slot


def _tend(scene: Scene, slot: Slot, plan: Plan, moving: int) -> int:
    """Keep one slot going: evict, restart, hand over, or let a waiting replacement start. Returns
    how many slots more than `moving` are on the move to another node."""
    if _stay(scene, slot, plan):
        return 0
    lead = slot.lead
    if _hand_over(scene, slot, plan):
        return 0
    if lead.is_terminal:
        _after_end(scene, slot, plan)
        return 0
    if not lead.is_wanted:
        # It was stopped, and what replaced it is gone: nothing else would fill the slot.
        plan.decide().create(_successor(scene, slot), "predecessor is stopping")
        return 0
    loss = scene.loss(lead)
    if loss is not None:
        _replace_now(scene, slot, loss, plan)
        return 0
    why = scene.misplacement(lead)
    if why is not None:
        return _move(scene, slot, why, plan, moving)
    if lead.desired_state is DesiredState.READY:
        _start_when_due(scene, slot, plan)
    return 0


def _hand_over(scene: Scene, slot: Slot, plan: Plan) -> bool:
    """Stop the older tasks of a slot once the lead serves, or when they can't go on anyway.
    Returns whether one is to stop: what comes after that is for the next pass, which sees it
    stopping, and lets nothing start before it has."""
    lead, is_changed = slot.lead, False
    for old in slot.kept:
        if is_running(lead) and scene.loss(lead) is None:
            why = "its successor is healthy"
        elif old.is_terminal:
            why = f"ended: {old.status.state.value}"
        elif (loss := scene.loss(old)) is not None:
            why = loss
        elif (misplaced := scene.misplacement(old)) is not None:
            if lead.revision != old.revision:
                # A move needs a successor of its own. While an update is under way, its end will
                # tell what the slot is to be; after that, what hasn't made it goes.
                if not _is_changing(scene):
                    plan.decide().want(lead, DesiredState.SHUTDOWN, "its predecessor has to move")
                    return True
                continue
            ends_ns = _move_ends_ns(scene, slot, old)
            if scene.now_ns < ends_ns:
                plan.wake(ends_ns)
                continue
            why = f"{misplaced}, and no successor became healthy in time"
        else:
            continue
        plan.decide().want(old, DesiredState.SHUTDOWN, why)
        is_changed = True
    return is_changed


def _is_changing(scene: Scene) -> bool:
    return scene.service.update is not None and scene.service.update.state.is_active


def _after_end(scene: Scene, slot: Slot, plan: Plan) -> None:
    """The lead has ended. One that is not wanted any more was given up, or it was stopped and
    what replaced it is gone; the policy, asked anew, tells which."""
    old = slot.lead
    new = _replacement(scene, slot)
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


def _replacement(scene: Scene, slot: Slot) -> Task | None:
    """What follows a task that has ended; None where the restart policy allows no more."""
    old, policy = slot.lead, scene.spec.task.restart
    if old.status.state is TaskState.ORPHANED or (old.is_wanted and _must_go(scene, old)):
        return _successor(scene, slot, attempt=old.attempt)
    if old.status.state is TaskState.SHUTDOWN:
        # Nobody shuts itself down. Whoever does it against our will may go on doing so.
        later_ns = start_ns(policy, slot.chain, scene.now_ns) if old.is_wanted else None
        return _successor(scene, slot, attempt=old.attempt, start_at_ns=later_ns)
    if not may_restart(policy, slot.chain, scene.now_ns):
        return None
    at_ns = start_ns(policy, slot.chain, scene.now_ns)
    return _successor(scene, slot, attempt=old.attempt + 1, start_at_ns=at_ns)


def _must_go(scene: Scene, task: Task) -> bool:
    return scene.loss(task) is not None or scene.misplacement(task) is not None


def _successor(
    scene: Scene,
    slot: Slot,
    *,
    attempt: int = 0,
    start_at_ns: int | None = None,
    stopped: Task | None = None,
) -> Task:
    """The next task of a slot. It waits for its time, and for all that are to stop before it
    (`stopped` among them) to have done so. It is of the revision of what it replaces; where that
    is nothing that anybody wants, of the present one, unless that is on trial."""
    revision = slot.lead.revision if slot.lead.is_wanted else slot.target
    status = scene.service.update
    if slot.lead.revision == scene.base_task_revision and status and status.state.is_on_trial:
        revision = slot.lead.revision
    is_waiting = start_at_ns is not None or any(
        scene.is_stopping(old) or (old is stopped and scene.is_alive(old)) for old in slot.tasks
    )
    return replace(
        scene.new_task(slot.number, revision),
        desired_state=DesiredState.READY if is_waiting else DesiredState.RUNNING,
        attempt=attempt,
        start_at_ns=start_at_ns,
    )


def _start_when_due(scene: Scene, slot: Slot, plan: Plan) -> None:
    """Let a replacement run once its delay is over and its predecessors have stopped."""
    new = slot.lead
    if new.start_at_ns is not None and scene.now_ns < new.start_at_ns:
        plan.wake(new.start_at_ns)
        return
    stopping = [old for old in slot.tasks if old is not new and scene.is_stopping(old)]
    if stopping:
        give_up_ns = new.created_ns + max(scene.stop_bound_ns(old) for old in stopping)
        if scene.now_ns < give_up_ns:
            plan.wake(give_up_ns)
            return
        plan.decide().want(new, DesiredState.RUNNING, "predecessor does not stop in time")
        return
    plan.decide().want(new, DesiredState.RUNNING, "due")


# ------------------------------------------------------------------------------ eviction


def _replace_now(scene: Scene, slot: Slot, why: str, plan: Plan) -> None:
    """It can't stay where it is: no failure, so it eats no attempt, and a delay under way goes on.
    A lost node can't say that the task has stopped; waiting for it would be waiting for good."""
    old = slot.lead
    is_delayed = old.start_at_ns is not None and old.start_at_ns > scene.now_ns
    new = _successor(
        scene,
        slot,
        attempt=old.attempt,
        start_at_ns=old.start_at_ns if is_delayed else None,
        stopped=old,
    )
    decision = plan.decide()
    decision.want(old, DesiredState.SHUTDOWN, why)
    decision.create(new, f"evicted: {why}")


def _move(scene: Scene, slot: Slot, why: str, plan: Plan, moving: int) -> int:
    """Move a slot to another node, start first where there is something to lose; as many slots at
    a time as an update may change."""
    old = slot.lead
    if not is_running(old):
        _replace_now(scene, slot, why, plan)
        return 0
    if _has_failed_to_move(scene, slot, old):
        # The policy gave up on its successor. It goes on for as long as that might have taken.
        ends_ns = _move_ends_ns(scene, slot, old)
        if scene.now_ns < ends_ns:
            plan.wake(ends_ns)
        else:
            plan.decide().want(old, DesiredState.SHUTDOWN, f"{why}, and no successor came up")
        return 0
    parallelism = scene.spec.update.parallelism
    if parallelism and moving >= parallelism:
        return 0
    plan.decide().create(_successor(scene, slot, attempt=old.attempt), f"to move: {why}")
    return 1


def _is_moving(scene: Scene, slot: Slot) -> bool:
    """Whether a task of it goes on only until its successor elsewhere is healthy. One that no
    node will take holds nobody up."""
    lead = slot.lead
    has_place = lead.node_id is not None or not lead.status.error
    return has_place and any(scene.misplacement(old) is not None for old in slot.kept)


def _stay(scene: Scene, slot: Slot, plan: Plan) -> bool:
    """A task that had to leave its node may stay after all: what was to follow it is given up,
    unless it is healthy already. It could wait for good for what the old one holds."""
    lead = slot.lead
    if is_running(lead):
        return False
    for old in slot.kept:
        is_fit = scene.loss(old) is None and scene.misplacement(old) is None
        if old.revision == lead.revision and is_running(old) and is_fit:
            decision = plan.decide()
            for task in _successors(slot, old):
                # It belongs to no story any more: the next move is another one.
                decision.want(task, DesiredState.REMOVE, "its predecessor may stay")
            return True
    return False


def _has_failed_to_move(scene: Scene, slot: Slot, old: Task) -> bool:
    """Whether successors of the same revision were tried and given up."""
    return bool(_movers(scene, slot, old))


def _successors(slot: Slot, old: Task) -> list[Task]:
    after = slot.tasks[slot.tasks.index(old) + 1 :]
    return [task for task in after if task.revision == old.revision]


def _movers(scene: Scene, slot: Slot, old: Task) -> list[Task]:
    """The successors of the present move; those of an earlier one don't count."""
    past_ns = scene.now_ns - _patience_ns(scene) - STALE_NS
    return [task for task in _successors(slot, old) if task.is_wanted or task.created_ns > past_ns]


def _move_ends_ns(scene: Scene, slot: Slot, old: Task) -> int:
    """Until when a task that has to leave its node waits for its successor."""
    began_ns = [task.created_ns for task in _movers(scene, slot, old)]
    return min(began_ns, default=scene.now_ns) + _patience_ns(scene)


def _patience_ns(scene: Scene) -> int:
    return scene.start_period_ns + scene.spec.update.healthy_deadline_ns
