"""What must hold of updates, rollbacks and moves: how their status goes on, and what they may take
out of service.

It is judged change by change, in the order in which they were decided, on rows that are mirrored
here; so a commit that holds several writers' work is judged as if each had come alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from skep.domain.base import NodeId, ServiceId, TaskId, replace
from skep.domain.control import RemoveResponse, WatchAction
from skep.domain.objects import (
    Node,
    NodeState,
    Object,
    Request,
    Revision,
    Service,
    Task,
    UpdateState,
    UpdateStatus,
    revision_id,
)
from skep.domain.spec import FailureAction, UpdateOrder
from skep.domain.states import DesiredState, TaskState
from skep.manager.store.core.command import Change
from skep.manager.store.core.tables import Tables
from tests.sim.releases import has_host_port

# What managers do to a status by themselves. All else is a person's.
EDGES = {
    UpdateState.UPDATING: {
        UpdateState.PAUSED,
        UpdateState.COMPLETED,
        UpdateState.ROLLBACK_STARTED,
    },
    UpdateState.ROLLBACK_STARTED: {UpdateState.ROLLBACK_PAUSED, UpdateState.ROLLBACK_COMPLETED},
}
BEGINNINGS = (UpdateState.UPDATING, UpdateState.ROLLBACK_STARTED)
PERSONS = ("UpdateService", "RollbackService", "DeployStack")


@dataclass
class _Floor:
    """What the number of serving slots of a service must not fall below. It holds from when all
    were there until something else than managers takes one away."""

    rules: object = None
    is_armed: bool = False


@dataclass
class UpdateJudge:
    """Tells `fail` what it finds. With `is_calm` nothing but the cluster itself, and its users,
    takes anything away: then the number of serving slots is judged as well."""

    fail: Callable[[str], None]
    is_calm: bool = False
    handovers: int = 0
    ends: dict[UpdateState, int] = field(default_factory=dict)
    _services: dict[str, Service] = field(default_factory=dict)
    _nodes: dict[NodeId, Node] = field(default_factory=dict)
    _tasks: dict[ServiceId, dict[TaskId, Task]] = field(default_factory=dict)
    _revisions: dict[str, Revision] = field(default_factory=dict)
    _given_up: set[str] = field(default_factory=set)
    _has_person: bool = False
    _floors: dict[ServiceId, _Floor] = field(default_factory=dict)
    _right_slots: dict[ServiceId, frozenset[int]] = field(default_factory=dict)
    _moments: dict[tuple[str, bool], int] = field(default_factory=dict)
    _now: int = 0

    def applied(self, changes: Sequence[Change], tables: Tables) -> None:
        """Judge one command."""
        requests = [change.row for change in changes if isinstance(change.row, Request)]
        self._has_person = any(_called(request) in PERSONS for request in requests)
        for request in requests:
            if _called(request) == "RemoveTask":
                answer = msgspec.msgpack.decode(request.answer, type=RemoveResponse)
                self._given_up.add(answer.id)
        touched: dict[ServiceId, None] = {}
        for change in changes:
            row = change.row
            if isinstance(row, Task):
                touched[row.service_id] = None
                self._task(change, tables)
            elif isinstance(row, Service):
                touched[row.id] = None
                self._service(row, tables)
            self._mirror(row, is_gone=change.action is WatchAction.REMOVE)
        if self.is_calm:
            for service_id in touched:
                self._check_floor(service_id)

    def was_unwanted_before(self, other: TaskId, task: TaskId) -> bool:
        """Whether one task was no longer wanted when it was decided that another is to run."""
        ended, begun = self._moments.get((other, False)), self._moments.get((task, True))
        return ended is not None and begun is not None and ended < begun

    # ------------------------------------------------------------------------------ the mirror

    def _mirror(self, row: Object, *, is_gone: bool) -> None:
        self._now += 1
        match row:
            case Task():
                tasks = self._tasks.setdefault(row.service_id, {})
                if row.desired_state is DesiredState.RUNNING:
                    self._moments.setdefault((row.id, True), self._now)
                elif not row.is_wanted:
                    self._moments.setdefault((row.id, False), self._now)
                tasks[row.id] = row
                if is_gone:
                    del tasks[row.id]
            case Service():
                self._services[row.id] = row
                if is_gone:
                    del self._services[row.id]
            case Node():
                self._nodes[row.id] = row
            case Revision():
                self._revisions[row.id] = row
                if is_gone:
                    del self._revisions[row.id]

    def _of_slot(self, task: Task) -> list[Task]:
        """The other tasks of a task's slot."""
        rows = self._tasks.get(task.service_id, {}).values()
        return [row for row in rows if row.slot == task.slot and row.id != task.id]

    def _revision(self, service: Service, number: int) -> Revision | None:
        return self._revisions.get(revision_id(service.id, number))

    # ------------------------------------------------------------------------------ the status

    def _service(self, new: Service, tables: Tables) -> None:
        old = self._services.get(new.id)
        if old is None or old.update == new.update:
            return
        before, after = old.update, new.update
        if after is None:
            self.fail(f"{new.name} has lost its update status")
            return
        story = f"{new.name} {before.state.value if before else 'none'} to {after.state.value}"
        if after.started_ns > new.updated_ns:
            self.fail(f"{story}: begun in the future")
        if before is not None and self._is_step(old, new, before, after):
            if after.state is not before.state:
                self.ends[after.state] = self.ends.get(after.state, 0) + 1
            self._check_step(old, new, tables, story)
        elif not self._has_person:
            self.fail(f"{story}: nobody asked for that")
        elif after.state not in BEGINNINGS and (before is None or after.state is not before.state):
            self.fail(f"{story}: that is no beginning")
        is_new = before is None or after.started_ns != before.started_ns
        if is_new:
            self._right_slots[new.id] = self._right_before(new, after)
        if is_new and after.state is UpdateState.ROLLBACK_STARTED:
            self._check_rollback(new, after, story)

    def _right_before(self, new: Service, status: UpdateStatus) -> frozenset[int]:
        """The slots that a rollback has nothing to do with, now that it begins: they never left
        the release that is right again, also those that crash there."""
        if status.state is not UpdateState.ROLLBACK_STARTED:
            return frozenset()
        found = set()
        for slot, tasks in self._slots(new).items():
            wanted = [task for task in tasks if task.is_wanted]
            last = max(wanted, key=lambda task: task.created_ns, default=None)
            if last is not None and last.revision == new.task_revision:
                found.add(slot)
        return frozenset(found)

    def _is_step(
        self, old: Service, new: Service, before: UpdateStatus, after: UpdateStatus
    ) -> bool:
        """Whether managers may have made this of a status by themselves."""
        if after.state is UpdateState.ROLLBACK_STARTED and before.state is UpdateState.UPDATING:
            is_next = new.revision == old.revision + 1 and after.revision == old.revision
            return is_next and after.base_revision == before.base_revision
        is_same = (
            new.spec == old.spec
            and new.revision == old.revision
            and after.started_ns == before.started_ns
            and after.policy == before.policy
            and (after.revision, after.base_revision) == (before.revision, before.base_revision)
        )
        return is_same and (
            after.state is before.state or after.state in EDGES.get(before.state, ())
        )

    def _check_step(self, old: Service, new: Service, tables: Tables, story: str) -> None:
        before, after = old.update, new.update
        assert before is not None, old
        assert after is not None, new
        action = before.policy.failure_action
        if after.state is UpdateState.ROLLBACK_STARTED is not before.state:
            if action is not FailureAction.ROLLBACK and not self._has_person:
                self.fail(f"{story}: the policy says {action.value}")
            return
        self._check_failed_slots(new, before, after, tables, story)
        if after.state is before.state:
            return
        if after.state in (UpdateState.PAUSED, UpdateState.ROLLBACK_PAUSED):
            share = len(after.failed_slots) / max(new.spec.replicas, 1)
            if action is FailureAction.CONTINUE or share <= before.policy.max_failure_ratio:
                self.fail(f"{story}: with {after.failed_slots} failed, by {before.policy}")
            self._check_stays(new, after, story)
        else:
            self._check_completed(new, before, story)

    def _check_failed_slots(
        self, new: Service, before: UpdateStatus, after: UpdateStatus, tables: Tables, story: str
    ) -> None:
        """Who has failed has failed, until its slot is gone."""
        for slot in set(before.failed_slots) - set(after.failed_slots):
            left = [
                task
                for task in tables.tasks_of_service(new.id)
                if task.slot == slot and task.desired_state is not DesiredState.REMOVE
            ]
            if any(task.created_ns < new.updated_ns for task in left):
                self.fail(f"{story}: slot {slot} has failed no more")

    def _check_stays(self, new: Service, status: UpdateStatus, story: str) -> None:
        """An update that could go back does not wait for a person."""
        if status.state is not UpdateState.PAUSED:
            return
        base = self._revision(new, status.base_revision)
        can_go_back = base is not None and base.task_revision != new.task_revision
        if status.policy.failure_action is FailureAction.ROLLBACK and can_go_back:
            self.fail(f"{story}: it had {status.base_revision} to go back to")

    def _check_completed(self, new: Service, status: UpdateStatus, story: str) -> None:
        """What never served in too many slots is not completed."""
        if status.policy.failure_action is FailureAction.CONTINUE:
            return
        lost = []
        for slot, tasks in self._slots(new).items():
            was_placed = any(task.node_id is not None for task in tasks)
            has_served = any(
                task.healthy_ns is not None for task in tasks if task.revision == new.task_revision
            )
            if was_placed and not has_served and slot not in self._right_slots[new.id]:
                lost.append(slot)
        if len(lost) / max(new.spec.replicas, 1) > status.policy.max_failure_ratio:
            self.fail(f"{story}: though the release has never served in slots {sorted(lost)}")

    def _check_rollback(self, new: Service, status: UpdateStatus, story: str) -> None:
        """It goes where it says, and what still runs from there is right again."""
        base = self._revision(new, status.base_revision)
        if base is None:
            self.fail(f"{story}: there is no revision {status.base_revision}")
            return
        # What was scaled during the update stays so.
        if base.spec != replace(new.spec, replicas=base.spec.replicas):
            self.fail(f"{story}: the spec is not that of revision {base.number}")
        alive = [
            task
            for task in self._tasks.get(new.id, {}).values()
            if is_serving(task) and task.revision == base.task_revision
        ]
        if alive and new.task_revision != base.task_revision:
            self.fail(f"{story}: tasks of revision {base.task_revision} run, and are not right")

    def _slots(self, service: Service) -> dict[int, list[Task]]:
        slots: dict[int, list[Task]] = {}
        for task in self._tasks.get(service.id, {}).values():
            if task.desired_state is not DesiredState.REMOVE:
                slots.setdefault(task.slot, []).append(task)
        return slots

    # ---------------------------------------------------------------------------- availability

    def _task(self, change: Change, tables: Tables) -> None:
        new = change.row
        assert isinstance(new, Task), new
        old = self._tasks.get(new.service_id, {}).get(new.id)
        service = self._services.get(new.service_id)
        if old is None or service is None or not is_serving(old) or is_serving(new):
            return
        floor = self._floors.setdefault(service.id, _Floor())
        if new.desired_state is not DesiredState.SHUTDOWN or new.id in self._given_up:
            # It ended by itself, or a person has given it up, or its slot is not wanted any more.
            floor.is_armed &= new.desired_state is DesiredState.REMOVE
            return
        if service.is_removing:
            return
        if any(is_serving(other) for other in self._of_slot(old)):
            self.handovers += 1
            return
        node = self._nodes.get(old.node_id) if old.node_id is not None else None
        if node is None or node.state is NodeState.DOWN or self._has_waited(service, old, new):
            floor.is_armed = False
            return
        self._check_stopped(service, old, tables)

    def _has_waited(self, service: Service, old: Task, new: Task) -> bool:
        """Whether a successor elsewhere was given the time it is due."""
        health = service.spec.task.run.health
        due_ns = service.spec.update.healthy_deadline_ns + (health.start_period_ns if health else 0)
        return any(
            task.created_ns > old.created_ns
            and task.revision == old.revision
            and task.created_ns + due_ns <= new.updated_ns
            for task in self._of_slot(old)
        )

    def _check_stopped(self, service: Service, old: Task, tables: Tables) -> None:
        """A slot stops serving on purpose: it must be its turn, by a policy that stops first."""
        story = f"slot {old.name} stops serving ({old.id} of revision {old.revision})"
        status = service.update
        if status is None or status.state not in BEGINNINGS:
            self.fail(f"{story}: nothing is being changed")
        elif old.revision == service.task_revision:
            self.fail(f"{story}: it is right as it is")
        elif not stops_first(service, status):
            self.fail(f"{story}: nothing else serves in it, and the policy says start first")
        else:
            now = tables.get(Service, service.id)
            failed = set(status.failed_slots)
            if now is not None and now.update is not None:
                failed |= set(now.update.failed_slots)
            changing = [
                slot
                for slot, tasks in self._slots(service).items()
                if slot not in failed | self._right_slots[service.id]
                and slot != old.slot
                and _is_changing(service, status, tasks)
            ]
            room = status.policy.parallelism
            if room and len(changing) >= room:
                self.fail(f"{story}: {sorted(changing)} change already, and {room} may")

    def _check_floor(self, service_id: ServiceId) -> None:
        service = self._services.get(service_id)
        floor = self._floors.setdefault(service_id, _Floor())
        if service is None or service.is_removing:
            floor.is_armed = False
            return
        slots = self._slots(service)
        serving = sum(1 for tasks in slots.values() if any(is_serving(task) for task in tasks))
        status, least = service.update, service.spec.replicas
        rules = (least, status and (status.state, status.policy, status.started_ns))
        # Of more slots than there are to be, those may go that serve: the spread says which.
        are_all_there = serving >= max(least, len(slots))
        floor.is_armed = are_all_there or (floor.is_armed and rules == floor.rules)
        floor.rules = rules
        if status is not None and status.state in BEGINNINGS and stops_first(service, status):
            least -= (status.policy.parallelism or least) + len(status.failed_slots)
        if floor.is_armed and serving < least:
            floor.is_armed = False
            self.fail(f"{service.name} has {serving} slots that serve, and was to keep {least}")


def _called(request: Request) -> str:
    """The call that a request was."""
    return request.method.rpartition("/")[2]


def is_serving(task: Task) -> bool:
    """Whether it is wanted, runs, and is healthy."""
    return (
        task.desired_state is DesiredState.RUNNING
        and task.status.state is TaskState.RUNNING
        and task.status.is_healthy
    )


def stops_first(service: Service, status: UpdateStatus) -> bool:
    """Whether the old task stops before the new one starts: a port of its node is held by one."""
    return status.policy.order is UpdateOrder.STOP_FIRST or has_host_port(service.spec)


def _is_changing(service: Service, status: UpdateStatus, tasks: list[Task]) -> bool:
    """Whether a slot is on its way to the right revision, and does not serve meanwhile."""
    if any(is_serving(task) for task in tasks):
        return False
    return any(
        task.is_wanted
        and task.revision == service.task_revision
        and task.created_ns >= status.started_ns
        for task in tasks
    ) and any(task.node_id is not None for task in tasks)
