"""The scheduler: one pass over everything that waits for a node."""

from __future__ import annotations

import logging
from collections.abc import Hashable

from skep.domain.objects import Node, Revision, Service, Task, revision_id
from skep.domain.spec import TaskSpec
from skep.manager.passes import PASS_CHANGES, Pass
from skep.manager.scheduler.core.filters import loads_by_node
from skep.manager.scheduler.core.place import (
    Placement,
    applied,
    count_loads,
    is_placeable,
    place,
)
from skep.manager.store.core.command import Change
from skep.manager.store.core.tables import View
from skep.manager.store.core.transaction import Transaction

log = logging.getLogger(__name__)

_EVERYTHING = ("everything",)


class Scheduler(Pass):
    """Gives every pending task a node, or says on the task why none will do."""

    def all_keys(self) -> tuple[Hashable, ...]:
        """There is one pass, over all pending tasks."""
        return _EVERYTHING

    def hints_of(self, change: Change) -> tuple[Hashable, ...]:
        """A task that waits, one that made room, or a node."""
        match change.row:
            case Task() as task:
                return _EVERYTHING if is_placeable(task) or task.is_terminal else ()
            case Node() | Service():
                return _EVERYTHING
        return ()

    async def look(self, key: Hashable) -> None:
        """Place what can be placed."""
        if not any(is_placeable(task) for task in self.store.tables.all(Task)):
            return
        written = await self.store.update(self._place, term=self.term)
        if len(written) >= PASS_CHANGES:
            self.mailbox.tell(key)
        for placement in written:
            log.info(
                "task=%s slot=%s node=%s why=%s",
                placement.task.id,
                placement.task.name,
                placement.node_id,
                placement.explanation or "spread",
            )

    def _place(self, tx: Transaction) -> list[Placement]:
        """Decide about one after the other until there is as much to write as fits: those that
        can't be placed stand in nobody's way."""
        pending = [task for task in tx.all(Task) if is_placeable(task)]
        loads = loads_by_node({node.id: node for node in tx.all(Node)})

        def spec_of(task: Task) -> TaskSpec | None:
            return task_spec(tx, task)

        count_loads(loads, tx.all(Task), spec_of)
        written = []
        for placement in place(pending, loads, spec_of):
            task = applied(placement, tx.now_ns)
            if task is not None:
                tx.update(task)
                written.append(placement)
            if len(written) == PASS_CHANGES:
                break
        return written


def task_spec(view: View, task: Task) -> TaskSpec | None:
    """What a task is to run. Placement and restart policy may be changed without a new task
    revision; a task of the present one goes by the service's present spec."""
    service = view.get(Service, task.service_id)
    if service is not None and service.task_revision == task.revision:
        return service.spec.task
    revision = view.get(Revision, revision_id(task.service_id, task.revision))
    return None if revision is None else revision.spec.task
