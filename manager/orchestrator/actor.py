"""The orchestrator and the reaper: one pass per service that something happened to."""

from __future__ import annotations

import logging
from collections.abc import Hashable

from skep.domain.base import ServiceId, replace
from skep.domain.objects import Cluster, Node, Revision, Service, Task, UpdateState, revision_id
from skep.domain.spec import ServiceSpec
from skep.manager.orchestrator.core.plan import Plan
from skep.manager.orchestrator.core.reaper import reapable
from skep.manager.orchestrator.core.replicated import reconcile
from skep.manager.orchestrator.core.slots import Scene
from skep.manager.passes import PASS_CHANGES, Pass
from skep.manager.revisions import (
    base_of,
    missing_file,
    missing_network,
    newest_of,
    published_clash,
    roll_back,
    spec_of,
)
from skep.manager.store.core.command import Change
from skep.manager.store.core.tables import View
from skep.manager.store.core.transaction import Transaction

log = logging.getLogger(__name__)

# Revisions of a service kept for history, on top of those that a task still names.
REVISIONS_KEPT = 10


class ServicePass(Pass):
    """A pass whose keys are services."""

    def all_keys(self) -> tuple[Hashable, ...]:
        """Every service, and every service that only tasks still name."""
        return _all_services(self.store.tables)

    def hints_of(self, change: Change) -> tuple[Hashable, ...]:
        """A service, a task's service, or the services on a node whose fitness changed."""
        match change.row:
            case Service(id=service_id):
                return (service_id,)
            case Task(service_id=service_id):
                return (service_id,)
            case Node() as node if _fitness_changed(change):
                tasks = self.store.tables.tasks_of_node(node.id)
                return tuple(dict.fromkeys(task.service_id for task in tasks))
        return ()


class Orchestrator(ServicePass):
    """Keeps every replicated service as its spec says."""

    async def look(self, key: Hashable) -> None:
        """Bring one service nearer to its spec."""
        service_id = ServiceId(str(key))
        now_ns = self.store.wall_ns
        plan = self._plan(self.store.tables, service_id, now_ns)
        if not plan.is_empty:
            plan = await self.store.update(lambda tx: self._write(tx, service_id), term=self.term)
            for decision in plan.first(PASS_CHANGES):
                for note in decision.notes:
                    log.info("%s", note)
            if plan.rollback_why is not None:
                log.info("service=%s to=rollback why=%s", service_id, plan.rollback_why)
            elif plan.update is not None:
                status = plan.update
                log.info(
                    "service=%s update=%s failed=%d why=%s",
                    service_id,
                    status.state.value,
                    len(status.failed_slots),
                    status.message,
                )
        if plan.wake_at_ns is not None:
            self.look_again(key, (plan.wake_at_ns - self.store.wall_ns) / 1e9)

    def _plan(self, view: View, service_id: ServiceId, now_ns: int) -> Plan:
        service = view.get(Service, service_id)
        if service is None:
            return Plan()
        tasks = tuple(view.tasks_of_service(service_id))
        on = dict.fromkeys(task.node_id for task in tasks if task.node_id is not None)
        nodes = {node_id: view.get(Node, node_id) for node_id in on}
        scene = Scene(
            service=service,
            tasks=tasks,
            nodes={node_id: node for node_id, node in nodes.items() if node is not None},
            now_ns=now_ns,
            new_id=self.env.ids.new_id,
            spec_of=lambda revision: spec_of(view, service_id, revision),
            base_task_revision=_base_task_revision(view, service),
        )
        return reconcile(scene)

    def _write(self, tx: Transaction, service_id: ServiceId) -> Plan:
        plan = self._plan(tx, service_id, tx.now_ns)
        for decision in plan.first(PASS_CHANGES):
            for task in decision.updated.values():
                tx.update(task)
            for task in decision.created:
                tx.create(task)
        # What did not fit is found again by the pass that this commit hints.
        service = tx.get(Service, service_id)
        if service is not None and plan.update is not None:
            service = replace(service, update=plan.update)
            tx.update(service)
        if service is not None and plan.rollback_why is not None:
            _roll_back(tx, service, plan.rollback_why)
        return plan


class Reaper(ServicePass):
    """Deletes what is over: old history, and services whose removal is complete."""

    async def look(self, key: Hashable) -> None:
        """Forget what may be forgotten of one service."""
        service_id = ServiceId(str(key))
        if self._reap(Transaction(self.store.tables, self.store.wall_ns), service_id):
            await self.store.update(lambda tx: self._reap(tx, service_id), term=self.term)

    def _reap(self, tx: Transaction, service_id: ServiceId) -> bool:
        service = tx.get(Service, service_id)
        cluster = next(iter(tx.all(Cluster)), Cluster(id=""))
        tasks = tuple(tx.tasks_of_service(service_id))
        nodes = {node.id: node for node in tx.all(Node)}
        gone = reapable(service, tasks, nodes, cluster.task_history_limit)[:PASS_CHANGES]
        for task in gone:
            tx.remove(Task, task.id)
        left = tuple(tx.tasks_of_service(service_id))
        if service is not None and service.is_removing and not left:
            tx.remove(Service, service_id)
            service = None
        self._trim_revisions(tx, service_id, service, left)
        return not tx.is_empty

    def _trim_revisions(
        self,
        tx: Transaction,
        service_id: ServiceId,
        service: Service | None,
        left: tuple[Task, ...],
    ) -> None:
        needed = {task.revision for task in left}
        if service is not None:
            needed.add(service.task_revision)
            needed.update(range(service.revision - REVISIONS_KEPT + 1, service.revision + 1))
            if service.previous_revision is not None:
                needed.add(service.previous_revision)
            if service.update is not None:
                needed.add(service.update.base_revision)
                # Slots that an update does not reach get tasks of what was right before it.
                needed.add(_base_task_revision(tx, service) or 0)
        # What tasks are is in the first spec of their revision, where they may run in its newest.
        newest = (newest_of(tx, service_id, number) for number in tuple(needed))
        needed |= {row.number for row in newest if row is not None}
        for row in tuple(tx.revisions_of(service_id)):
            if row.number not in needed:
                tx.remove(Revision, row.id)


def _base_task_revision(view: View, service: Service) -> int | None:
    """The tasks that were right before the update."""
    if service.update is None:
        return None
    row = view.get(Revision, revision_id(service.id, service.update.base_revision))
    return None if row is None else row.task_revision


def _roll_back(tx: Transaction, service: Service, why: str) -> None:
    """Go back to the spec before the update; where that can't be, the update is paused."""
    base = base_of(tx, service)
    problem = "there is no earlier spec" if base is None else _obstacle(tx, base.spec)
    if base is not None and not problem:
        roll_back(tx, service, base, why, is_automatic=True)
        return
    assert service.update is not None, service
    paused = replace(
        service.update,
        state=UpdateState.PAUSED,
        message=f"update paused and not rolled back, since {problem}; it is {why}",
        ended_ns=tx.now_ns,
    )
    tx.update(replace(service, update=paused))


def _obstacle(tx: Transaction, spec: ServiceSpec) -> str:
    """Why a spec from before can't be taken up again; empty if it can."""
    clash = published_clash(tx, spec)
    if clash is not None:
        port = f"{clash.port.published}/{clash.port.protocol.value}"
        return f"port {port} of the spec before is published by service {clash.owner!r} now"
    missing = missing_network(tx, spec)
    if missing is not None:
        return f"{missing[1]}, which the spec before names"
    return missing_file(tx, spec)


def _all_services(view: View) -> tuple[Hashable, ...]:
    ids = dict.fromkeys(service.id for service in view.all(Service))
    ids.update(dict.fromkeys(task.service_id for task in view.all(Task)))
    return tuple(ids)


def _fitness_changed(change: Change) -> bool:
    """Whether a change of a node can matter to the tasks on it."""
    old, new = change.old, change.row
    if not isinstance(old, Node) or not isinstance(new, Node) or old is new:
        return True
    return (old.state, old.availability, old.labels, old.description) != (
        new.state,
        new.availability,
        new.labels,
        new.description,
    )
