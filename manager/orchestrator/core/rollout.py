"""Updates and rollbacks: bringing slots to another task revision, a few at a time.

A pass judges each slot as it is, and from that alone says which slots change next, whether too
many have failed, and whether the change is complete. What must outlive the rows it is read from
(who failed) is kept in the service's update status.

While a change is under way, or paused, slots that it has not reached keep the revision they have,
also when their task is replaced for another reason: what is not proven yet spreads no faster than
the policy says.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from skep.domain.base import replace
from skep.domain.objects import Task, UpdateState, UpdateStatus
from skep.domain.spec import (
    FailureAction,
    PortMode,
    RestartCondition,
    UpdateOrder,
    UpdatePolicy,
)
from skep.domain.states import DesiredState, TaskState
from skep.manager.orchestrator.core.plan import Decision, Plan
from skep.manager.orchestrator.core.slots import Scene, Slot, is_done, is_given_up, is_running

# Slots that a message names; the status has them all.
NAMED_LIMIT = 5


class Verdict(enum.Enum):
    """How far one slot is."""

    OUTDATED = "outdated"  # Its lead is of another revision.
    RETURNABLE = "returnable"  # The same, but a task of the right one still runs.
    IN_FLIGHT = "in flight"  # It is on its way to be healthy.
    UNPLACED = "unplaced"  # No node would take it, and none had one of its tasks before either.
    DONE = "done"  # It is healthy, or was to run once and did.
    FAILED = "failed"  # Under this change; it is not waited for.


@dataclass(frozen=True)
class Sight:
    """One slot as this pass judges it. `until_ns`: when time alone changes that. `is_busy`: it
    takes up one of the places that the policy's parallelism gives."""

    slot: Slot
    verdict: Verdict
    is_busy: bool = False
    until_ns: int | None = None
    why: str = ""


@dataclass(frozen=True)
class Step:
    """What one pass did for a change. `taken` are slots that nobody else should touch in this
    pass: those that were changed, and those that wait for it with nothing that anybody wants.
    `completed` is the status of a change that is over, if nothing else is left to write."""

    taken: frozenset[int] = frozenset()
    completed: UpdateStatus | None = None


def walk(scene: Scene, slots: Mapping[int, Slot], plan: Plan) -> Step:
    """Take the service's change of revision one step further."""
    status = scene.service.update
    if status is None or not status.state.is_active:
        return Step()
    sights = [_judge(scene, slot, status) for slot in slots.values()]
    status = _with_failures(status, sights)
    if _is_tripped(scene, status):
        plan.update, plan.rollback_why = _tripped(scene, status, sights)
        return Step()
    changed = _change_next(scene, status, sights, plan)
    for sight in sights:
        if sight.until_ns is not None and sight.until_ns > scene.now_ns:
            plan.wake(sight.until_ns)
    if status != scene.service.update:
        plan.update = status
    is_complete = not changed and _is_complete(scene, sights)
    waiting = {
        sight.slot.number
        for sight in sights
        if sight.verdict is Verdict.OUTDATED and is_given_up(sight.slot.lead)
    }
    taken = frozenset(changed | waiting)
    return Step(taken, _completed(scene, status) if is_complete else None)


def effective_order(scene: Scene, policy: UpdatePolicy) -> UpdateOrder:
    """Start first can't be where the old task holds a port of its node: it stops first then."""
    if any(port.mode is PortMode.HOST for port in scene.spec.ports):
        return UpdateOrder.STOP_FIRST
    return policy.order


# ------------------------------------------------------------------------------- one slot


def _judge(scene: Scene, slot: Slot, status: UpdateStatus) -> Sight:
    target, lead = scene.service.task_revision, slot.lead
    if lead.revision != target:
        if any(task.revision == target and _is_live(task) for task in slot.kept):
            return Sight(slot, Verdict.RETURNABLE)
        # A slot that has failed keeps what still serves in it, or what it came to.
        verdict = Verdict.FAILED if slot.number in status.failed_slots else Verdict.OUTDATED
        return Sight(slot, verdict)
    if _is_of_the_past(slot, status):
        return Sight(slot, Verdict.OUTDATED)
    if _is_untouched(slot, status):
        return Sight(slot, Verdict.DONE)
    failure = _failure(scene, slot, status)
    if slot.number in status.failed_slots or failure:
        return Sight(slot, Verdict.FAILED, why=failure)
    if is_done(scene, lead):
        ended_ns = lead.ended_ns if lead.ended_ns is not None else scene.now_ns
        return _judge_good(scene, slot, ended_ns, status.policy.delay_ns, 0)
    # Where it is an older one that serves, that has proven itself, and only moves to another node.
    good = next((task for task in (lead, *slot.kept) if _serves(task, target)), None)
    if good is not None:
        healthy_ns = good.healthy_ns if good.healthy_ns is not None else scene.now_ns
        policy = status.policy
        return _judge_good(scene, slot, healthy_ns, policy.delay_ns, policy.monitor_ns)
    if not slot.was_ever_placed and lead.status.error:
        return Sight(slot, Verdict.UNPLACED)
    ends_ns = _deadline_ns(scene, slot, status)
    if scene.now_ns >= ends_ns:
        limit_s = status.policy.healthy_deadline_ns / 1e9
        seen = lead.status.error or lead.status.message or lead.status.state.value
        why = f"{_called(lead)} did not become healthy within {limit_s:g} s ({seen})"
        return Sight(slot, Verdict.FAILED, why=why)
    return Sight(slot, Verdict.IN_FLIGHT, is_busy=slot.was_ever_placed, until_ns=ends_ns)


def _is_of_the_past(slot: Slot, status: UpdateStatus) -> bool:
    """Whether the lead is of the right revision only because that was right before: it is over,
    and was so when this change began. A new word on a release is a new chance for it."""
    lead = slot.lead
    if not is_given_up(lead) or lead.created_ns >= status.started_ns:
        return False
    has_failed = lead.status.state in (TaskState.FAILED, TaskState.REJECTED)
    return lead is not slot.tasks[-1] or has_failed


def _is_untouched(slot: Slot, status: UpdateStatus) -> bool:
    """Whether a rollback has nothing to do with the slot: it never left the release that is
    right again, and how well it is has another reason."""
    if status.state is not UpdateState.ROLLBACK_STARTED:
        return False
    if slot.lead.created_ns < status.started_ns:
        return True
    # The lead may go on a story that was under way when the rollback began. One that was over by
    # then is another story, and so it is where something else was still there.
    alive = {task.id: task for task in slot.tasks if _was_alive(task, status.started_ns)}
    is_same_story = any(task.id in alive for task in slot.chain)
    return is_same_story and all(task.revision == slot.lead.revision for task in alive.values())


def _was_alive(task: Task, at_ns: int) -> bool:
    return task.created_ns < at_ns and (task.ended_ns is None or task.ended_ns >= at_ns)


def _judge_good(scene: Scene, slot: Slot, since_ns: int, delay_ns: int, monitor_ns: int) -> Sight:
    """A slot that is as it should be since then: it gives its place away after the delay, and is
    watched for the monitor."""
    if scene.now_ns < since_ns + delay_ns:
        return Sight(slot, Verdict.DONE, is_busy=True, until_ns=since_ns + delay_ns)
    stable_ns = since_ns + monitor_ns
    return Sight(slot, Verdict.DONE, until_ns=stable_ns if stable_ns > scene.now_ns else None)


def _failure(scene: Scene, slot: Slot, status: UpdateStatus) -> str:
    """What went wrong with the slot under this change; empty if nothing did."""
    for task in slot.tasks:
        is_right = task.revision == scene.service.task_revision
        ended_ns = task.ended_ns if task.ended_ns is not None else scene.now_ns
        if is_right and ended_ns >= status.started_ns and _ended_early(scene, task, status):
            seen = task.status.error or task.status.message or task.status.state.value
            return f"{_called(task)}: {seen}"
    lead = slot.lead
    if is_given_up(lead) and lead.status.state in (TaskState.FAILED, TaskState.REJECTED):
        return f"{_called(lead)}: {lead.status.error or lead.status.state.value}"
    return ""


def _ended_early(scene: Scene, task: Task, status: UpdateStatus) -> bool:
    """Whether it ended by itself before it was healthy, or too soon after; one that has turned
    sick is about to, and may hang at it for longer than the monitor."""
    has_ended = task.status.state in (TaskState.FAILED, TaskState.REJECTED) or (
        task.status.state is TaskState.COMPLETE
        and scene.spec.task.restart.condition is RestartCondition.ANY
    )
    is_sick = task.is_wanted and task.status.state is TaskState.RUNNING and not is_running(task)
    if not has_ended and not (is_sick and task.sick_ns is not None):
        return False
    end_ns = task.sick_ns if task.sick_ns is not None else task.ended_ns
    if task.healthy_ns is None or end_ns is None:
        return True
    return end_ns - task.healthy_ns < status.policy.monitor_ns


def _deadline_ns(scene: Scene, slot: Slot, status: UpdateStatus) -> int:
    """When a slot that isn't healthy has failed: counted from when it began to become so under
    this change, and not before its predecessor has stopped."""
    lead = slot.lead
    since_ns, stop_ns = status.started_ns, 0
    if lead.healthy_ns is not None:
        lost_ns = next((at for at in (lead.sick_ns, lead.ended_ns) if at is not None), None)
        since_ns = max(since_ns, lost_ns or lead.updated_ns)
    else:
        trying = itertools.takewhile(lambda task: task.healthy_ns is None, reversed(slot.chain))
        since_ns = max(since_ns, min(task.created_ns for task in trying))
    for task in slot.tasks:
        if task.revision != lead.revision and task.ended_ns is not None:
            since_ns = max(since_ns, task.ended_ns)
        if scene.is_stopping(task):
            stop_ns = max(stop_ns, scene.stop_bound_ns(task))
    return since_ns + stop_ns + scene.start_period_ns + status.policy.healthy_deadline_ns


def _serves(task: Task, revision: int) -> bool:
    return task.revision == revision and is_running(task)


def _is_live(task: Task) -> bool:
    return task.is_wanted and not task.is_terminal


def _called(task: Task) -> str:
    return f"task {task.name} ({task.id[:12]})"


# ---------------------------------------------------------------------------- all of them


def _with_failures(status: UpdateStatus, sights: list[Sight]) -> UpdateStatus:
    here = {sight.slot.number for sight in sights}
    failed = {sight.slot.number for sight in sights if sight.verdict is Verdict.FAILED}
    kept = tuple(sorted(failed | (set(status.failed_slots) & here)))
    return status if kept == status.failed_slots else replace(status, failed_slots=kept)


def _is_tripped(scene: Scene, status: UpdateStatus) -> bool:
    if status.policy.failure_action is FailureAction.CONTINUE:
        return False
    share = len(status.failed_slots) / max(scene.spec.replicas, 1)
    return share > status.policy.max_failure_ratio


def _tripped(
    scene: Scene, status: UpdateStatus, sights: list[Sight]
) -> tuple[UpdateStatus, str | None]:
    """The status of a change that has failed, and why to roll back, if that is to be done."""
    reasons = [sight.why for sight in sights if sight.why]
    whom = "; ".join(reasons[:NAMED_LIMIT]) or f"slots {_numbers(status)}"
    why = f"due to failure or early termination of {whom}"
    if status.state is UpdateState.ROLLBACK_STARTED:
        paused, message = UpdateState.ROLLBACK_PAUSED, f"rollback paused {why}"
    else:
        paused, message = UpdateState.PAUSED, f"update paused {why}"
        if status.policy.failure_action is FailureAction.ROLLBACK:
            return status, f"update rolled back {why}"
    return replace(status, state=paused, message=message, ended_ns=scene.now_ns), None


def _is_complete(scene: Scene, sights: list[Sight]) -> bool:
    waiting = (Verdict.OUTDATED, Verdict.RETURNABLE, Verdict.IN_FLIGHT)
    return (
        all(
            sight.verdict not in waiting and (sight.until_ns or 0) <= scene.now_ns
            for sight in sights
        )
        and len(sights) >= scene.spec.replicas
    )


def _completed(scene: Scene, status: UpdateStatus) -> UpdateStatus:
    if status.state is UpdateState.ROLLBACK_STARTED:
        state, message = UpdateState.ROLLBACK_COMPLETED, "rollback completed"
        if status.message:
            message = f"{message} ({status.message})"
    else:
        state, message = UpdateState.COMPLETED, "update completed"
    if status.failed_slots:
        message = f"{message}; slots that failed: {_numbers(status)}"
    return replace(status, state=state, message=message, ended_ns=scene.now_ns)


def _numbers(status: UpdateStatus) -> str:
    more = ", ..." if len(status.failed_slots) > NAMED_LIMIT else ""
    return ", ".join(str(number) for number in status.failed_slots[:NAMED_LIMIT]) + more


# ----------------------------------------------------------------------------- next steps


def _change_next(scene: Scene, status: UpdateStatus, sights: list[Sight], plan: Plan) -> set[int]:
    changed: set[int] = set()
    for sight in sights:
        if sight.verdict is Verdict.RETURNABLE:
            _return(scene, sight.slot, plan)
            changed.add(sight.slot.number)
    outdated = [sight.slot for sight in sights if sight.verdict is Verdict.OUTDATED]
    for slot in outdated:
        if not slot.was_ever_placed:
            # It loses nothing, and waiting for it could be waiting for the room that only the
            # change itself makes.
            _change(scene, slot, status.policy, plan)
            changed.add(slot.number)
    rest = [slot for slot in outdated if slot.number not in changed]
    room = _room(status.policy, sights)
    if status.state is UpdateState.ROLLBACK_STARTED:
        # What the failed release has brought down is down already, and waits for nobody.
        down = sum(1 for slot in rest if not slot.is_serving)
        room = None if room is None else max(room, down)
    # What doesn't serve anyway goes first.
    for slot in sorted(rest, key=lambda slot: (slot.is_serving, slot.number))[:room]:
        _change(scene, slot, status.policy, plan)
        changed.add(slot.number)
    return changed


def _room(policy: UpdatePolicy, sights: Collection[Sight]) -> int | None:
    """How many more slots may change now; None for any number."""
    if policy.parallelism == 0:
        return None
    return max(policy.parallelism - sum(1 for sight in sights if sight.is_busy), 0)


def _return(scene: Scene, slot: Slot, plan: Plan) -> None:
    """A task of the right revision still runs: give up what should have replaced it."""
    target = scene.service.task_revision
    decision = plan.decide()
    for task in slot.tasks:
        if task.is_wanted and task.revision != target:
            decision.want(task, DesiredState.SHUTDOWN, f"back to revision {target}")


def _change(scene: Scene, slot: Slot, policy: UpdatePolicy, plan: Plan) -> None:
    """Replace a slot's task by one of the right revision."""
    target = scene.service.task_revision
    decision = plan.decide()
    keeps = effective_order(scene, policy) is UpdateOrder.START_FIRST
    for task in reversed(slot.tasks):
        if not task.is_wanted:
            continue
        if keeps and is_running(task) and scene.loss(task) is None:
            # The newest one that serves goes on until its successor does.
            keeps = False
            continue
        decision.want(task, DesiredState.SHUTDOWN, f"revision {task.revision} is outdated")
    decision.create(_successor(scene, slot, decision, target), "replaces another revision")


def _successor(scene: Scene, slot: Slot, decision: Decision, revision: int) -> Task:
    is_waiting = any(scene.is_stopping(decision.updated.get(task.id, task)) for task in slot.tasks)
    return replace(
        scene.new_task(slot.number, revision),
        desired_state=DesiredState.READY if is_waiting else DesiredState.RUNNING,
    )
