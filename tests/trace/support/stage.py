"""The leader's reconcilers over a database in memory, with workers that do as they are told.

There is no Raft and no loop: a pass runs when a test says so, commits at once, and is checked at
once. Time stands still unless a test moves it. What happens is told line by line, as prose.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeVar, cast

from skep.actor import Mailbox
from skep.domain.base import SECOND_NS, NodeId, Pairs, SessionId, TaskId, pairs, replace
from skep.domain.control import (
    CreateNetworkRequest,
    CreateServiceRequest,
    RemoveRequest,
    RollbackServiceRequest,
    UpdateNodeRequest,
    UpdateServiceRequest,
    WatchAction,
)
from skep.domain.objects import (
    Availability,
    Cluster,
    Network,
    Node,
    NodeDescription,
    NodeRole,
    NodeState,
    Service,
    Task,
    TaskStatus,
)
from skep.domain.session import TaskReport
from skep.domain.spec import NetworkSpec, RunSpec, ServiceSpec, TaskSpec
from skep.domain.states import TERMINAL, DesiredState, TaskState, Writer, order
from skep.env import DiceIds, Env
from skep.manager.allocator.actor import Allocator
from skep.manager.control.core import networks, nodes, services
from skep.manager.dispatcher.core.statuses import accepted
from skep.manager.orchestrator.actor import Orchestrator, Reaper
from skep.manager.passes import Pass, hint_box
from skep.manager.scheduler.actor import Scheduler
from skep.manager.store.actor import Store
from skep.manager.store.core.command import Change
from skep.manager.store.core.transaction import Transaction
from tests.trace.support.instant import InstantClock, InstantStore
from tests.trace.support.promises import check, check_move, check_starts

T = TypeVar("T")

# Where a worker takes a task, given where a healthy one would take it; None leaves it as it is.
Behaviour = Callable[[Task, TaskState | None], TaskState | None]

# Far above what any state in these tests needs; a pass that never comes to rest runs into it.
PASSES_LIMIT = 3_000

ACTORS: dict[str, tuple[type[Pass], Writer]] = {
    "orchestrator": (Orchestrator, Writer.ORCHESTRATOR),
    "allocator": (Allocator, Writer.ALLOCATOR),
    "scheduler": (Scheduler, Writer.SCHEDULER),
    "reaper": (Reaper, Writer.ORCHESTRATOR),
}


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never really waits."""
    try:
        work.send(None)
    except StopIteration as ended:
        return cast("T", ended.value)
    raise AssertionError("it waited")


def spec(name: str = "web", **changes: Any) -> ServiceSpec:
    """A service's spec; parts of the task's and the run's are given by their own names."""
    run = {k: changes.pop(k) for k in RunSpec.__struct_fields__ if k in changes}
    task = {k: changes.pop(k) for k in TaskSpec.__struct_fields__ if k in changes}
    return ServiceSpec(
        name=name,
        task=TaskSpec(run=RunSpec(**{"command": ("serve",), **run}), **task),
        **changes,
    )


@dataclass
class Worker:
    """One node's worker: what it holds, and how far that is."""

    is_alive: bool = True
    statuses: dict[TaskId, TaskStatus] = field(default_factory=dict)
    sent: list[TaskReport] = field(default_factory=list)


class Stage:
    """A cluster whose every step is a test's."""

    def __init__(self, seed: int = 0) -> None:
        dice = Random(seed)
        self.clock = InstantClock()
        self.store = InstantStore(self.clock)
        self.store.on_commit = self._committed
        self.env = Env(
            node="m1",
            clock=self.clock,
            dice=dice,
            ids=DiceIds(dice),
            tasks=cast("Any", None),
            transport=cast("Any", None),
            disk=cast("Any", None),
        )
        self.workers: dict[NodeId, Worker] = {}
        self.actors: dict[str, Pass] = {}
        self.term = 0
        self.passes = 0
        self._boxes: dict[str, Mailbox[Any]] = {}
        self._lines: list[str] = []
        self._names: dict[TaskId, str] = {}
        self._attempts: dict[str, int] = {}
        self._writer = Writer.DISPATCHER
        self.store.commit(lambda tx: tx.create(Cluster(id="c1")))
        self.lead()

    # ------------------------------------------------------------------------------ the leader

    def lead(self) -> None:
        """A new leader's reconcilers, who know nothing but the database."""
        for actor in self.actors.values():
            at_once(actor.stopped())
        self.actors = {}
        self.term += 1
        self._boxes = {name: hint_box(name) for name in ACTORS}
        for name in ACTORS:
            self.restart(name)

    def restart(self, name: str) -> None:
        """One reconciler dies, and another one takes over its mailbox."""
        if name in self.actors:
            at_once(self.actors[name].stopped())
        kind = ACTORS[name][0]
        store = cast("Store", self.store)
        self.actors[name] = kind(self.env, self._boxes[name], store, self.term)
        at_once(self.actors[name].started())

    def step(self, name: str) -> bool:
        """One pass of one reconciler; False if it has nothing to look at."""
        if not len(self._boxes[name]):
            return False
        self.passes += 1
        self._writer = ACTORS[name][1]
        try:
            at_once(self.actors[name].look(at_once(self._boxes[name].take())))
        finally:
            self._writer = Writer.DISPATCHER
        return True

    def settle(self) -> int:
        """Passes until nobody has anything to look at; returns how many."""
        before = self.passes
        while any([self.step(name) for name in ACTORS]):
            assert self.passes - before < PASSES_LIMIT, "the reconcilers never come to rest"
        return self.passes - before

    def advance(self, seconds: float) -> None:
        """Time goes by, and a little more than asked for; what was appointed is done."""
        self.clock.advance(seconds + 0.001)
        self.settle()

    def run(self) -> None:
        """Reconcilers and workers, until both are at rest. Time stands still."""
        for _ in range(PASSES_LIMIT):
            self.settle()
            if not self.work():
                return
        raise AssertionError("workers and reconcilers never come to rest")

    # --------------------------------------------------------------------------------- people

    def create(self, of: ServiceSpec) -> Service:
        request = CreateServiceRequest(request_id="r", spec=of)
        new_id = self.env.ids.new_id
        return self.store.commit(lambda tx: services.create_service(tx, request, new_id))

    def update(self, of: ServiceSpec) -> Service:
        request = UpdateServiceRequest(request_id="r", ref=of.name, spec=of)
        return self.store.commit(lambda tx: services.update_service(tx, request))

    def roll_back(self, ref: str, revision: int | None = None) -> Service:
        request = RollbackServiceRequest(request_id="r", ref=ref, revision=revision)
        return self.store.commit(lambda tx: services.rollback_service(tx, request))

    def remove(self, ref: str) -> None:
        request = RemoveRequest(request_id="r", ref=ref)
        self.store.commit(lambda tx: services.remove_service(tx, request))

    def create_network(self, of: NetworkSpec) -> Network:
        request = CreateNetworkRequest(request_id="r", spec=of)
        new_id = self.env.ids.new_id
        return self.store.commit(lambda tx: networks.create_network(tx, request, new_id))

    def remove_network(self, ref: str) -> None:
        request = RemoveRequest(request_id="r", ref=ref)
        self.store.commit(lambda tx: networks.remove_network(tx, request))

    def remove_task(self, ref: str) -> None:
        request = RemoveRequest(request_id="r", ref=ref)
        self.store.commit(lambda tx: services.remove_task(tx, request))

    def set_availability(self, node: str, availability: Availability) -> None:
        request = UpdateNodeRequest(request_id="r", ref=node, availability=availability)
        self._say(f"{node} is set to {availability.value}")
        self.store.commit(lambda tx: nodes.update_node(tx, request))

    def label(self, node: str, **labels: str) -> None:
        removed = tuple(dict(self.node(node).labels).keys() - labels.keys())
        request = UpdateNodeRequest(
            request_id="r", ref=node, labels_set=pairs(labels), labels_removed=removed
        )
        self._say(f"{node} is labelled {labels}")
        self.store.commit(lambda tx: nodes.update_node(tx, request))

    def remove_node(self, node: str) -> None:
        request = RemoveRequest(request_id="r", ref=node)
        self._say(f"{node} is removed")
        self.store.commit(lambda tx: nodes.remove_node(tx, request))
        del self.workers[NodeId(node)]

    # ---------------------------------------------------------------------------------- nodes

    def register(
        self,
        name: str,
        *,
        labels: Pairs = (),
        cpu_nano: int = 8 * SECOND_NS,
        memory_bytes: int = 8 << 30,
    ) -> None:
        """A worker opens a session: for the first time, or again."""
        description = NodeDescription(
            hostname=name,
            mesh_address=f"{name}:7946",
            cpu_nano=cpu_nano,
            memory_bytes=memory_bytes,
            engines=("process",),
        )
        node_id = NodeId(name)

        def write(tx: Transaction) -> None:
            node = tx.get(Node, node_id)
            if node is None:
                fresh = Node(
                    id=node_id,
                    name=name,
                    role=NodeRole.WORKER,
                    description=description,
                    labels=labels,
                    state=NodeState.READY,
                )
                tx.create(fresh)
            else:
                tx.update(replace(node, state=NodeState.READY, description=description))

        self.store.commit(write)
        worker = self.workers.setdefault(node_id, Worker())
        worker.is_alive = True
        held = {task.id for task in self.store.tables.tasks_of_node(node_id)}
        worker.statuses = {k: status for k, status in worker.statuses.items() if k in held}

    def judge_down(self, name: str) -> None:
        """The leader has not heard of a node for too long."""
        node = self.node(name)
        if node.state is not NodeState.DOWN:
            self._say(f"{name} is down")
            self.store.commit(lambda tx: tx.update(replace(node, state=NodeState.DOWN)))

    def lose(self, name: str) -> None:
        """A node dies, and the leader has noticed."""
        self.workers[NodeId(name)].is_alive = False
        self.workers[NodeId(name)].statuses.clear()
        self.judge_down(name)

    def node(self, name: str) -> Node:
        return cast("Node", self.store.tables.get(Node, name))

    def can_report(self, name: str) -> bool:
        worker = self.workers.get(NodeId(name))
        return worker is not None and worker.is_alive and self.node(name).state is NodeState.READY

    # -------------------------------------------------------------------------------- workers

    def work(self, behave: Behaviour | None = None) -> bool:
        """Every worker brings its tasks to where they are wanted, or to where `behave` says;
        whether anything was said."""
        is_news = False
        for task in tuple(self.store.tables.all(Task)):
            if task.node_id is not None and self.can_report(task.node_id):
                state = _wanted_state(self.status(task).state, task.desired_state)
                if behave is not None:
                    state = behave(task, state)
                if state is not None:
                    self.report(task, state, "" if state not in _BAD_ENDS else "exit 1")
                    is_news = True
                elif self.status(task).counter > task.status.counter:
                    is_news |= self.send(
                        task.node_id, TaskReport(task_id=task.id, status=self.status(task))
                    )
        return is_news

    def report(
        self, task: Task, state: TaskState, error: str = "", *, is_lost: bool = False
    ) -> None:
        """A worker says how a task is; `is_lost`: the report doesn't arrive, for now."""
        assert task.node_id is not None
        old = self.status(task)
        status = TaskStatus(
            state=state,
            error=error,
            counter=old.counter + 1,
            since_ns=self.clock.wall(),
            exit_code={TaskState.COMPLETE: 0, TaskState.FAILED: 1}.get(state),
        )
        worker = self.workers[task.node_id]
        worker.statuses[task.id] = status
        report = TaskReport(task_id=task.id, status=status)
        worker.sent.append(report)
        if not is_lost:
            self.send(task.node_id, report)

    def resend(self, node: str, place: int) -> None:
        """An old report arrives once more, or late."""
        sent = self.workers[NodeId(node)].sent
        if sent:
            self.send(NodeId(node), sent[place % len(sent)])

    def send(self, node_id: NodeId, report: TaskReport) -> bool:
        session = SessionId(f"session-{node_id}")
        writer, self._writer = self._writer, Writer.WORKER
        try:
            return bool(self.store.commit(lambda tx: accepted(tx, node_id, session, [report])))
        finally:
            self._writer = writer

    def status(self, task: Task) -> TaskStatus:
        assert task.node_id is not None
        return self.workers[task.node_id].statuses.get(task.id, task.status)

    # --------------------------------------------------------------------------- what there is

    def service(self, name: str = "web") -> Service:
        found = self.store.tables.named(Service, name)
        assert found is not None, name
        return cast("Service", found)

    def tasks(self, name: str = "web") -> list[Task]:
        """A service's tasks by slot, oldest first."""
        rows = [task for task in self.store.tables.all(Task) if task.service_name == name]
        return sorted(rows, key=lambda task: (task.slot, task.created_ns))

    def network(self, name: str) -> Network | None:
        return cast("Network | None", self.store.tables.named(Network, name))

    def task(self, name: str) -> Task:
        """The newest task of a slot, such as "web.1"."""
        service, _, slot = name.rpartition(".")
        return [task for task in self.tasks(service) if task.slot == int(slot)][-1]

    def fail(self, name: str, state: TaskState = TaskState.FAILED, error: str = "exit 1") -> None:
        self.report(self.task(name), state, "" if state is TaskState.COMPLETE else error)

    # ------------------------------------------------------------------------------- the story

    def story(self) -> str:
        """What has happened since the last time."""
        lines, self._lines = self._lines, []
        return "\n".join(lines)

    def _say(self, text: str) -> None:
        self._lines.append(f"{self.clock.at:.1f} {text}")

    def _committed(self, changes: list[Change]) -> None:
        for change in changes:
            row, old = change.row, change.old
            if isinstance(row, Task):
                self._tell(change.action, row, cast("Task | None", old))
            elif isinstance(row, Service) and change.action is WatchAction.REMOVE:
                self._say(f"{row.name} is gone")
            elif isinstance(row, Service) and row.update is not None:
                before = old.update if isinstance(old, Service) else None
                if before is None or before.state is not row.update.state:
                    text = row.update.message
                    for task_id, name in self._names.items():
                        text = text.replace(f"{name[:-1]} ({task_id[:12]})", name)
                    self._say(f"{row.name} {row.update.state.value}: {text}")
        check(self.store)
        check_starts(self.store, changes)

    def _tell(self, action: WatchAction, task: Task, old: Task | None) -> None:
        if action is WatchAction.CREATE:
            count = self._attempts[task.name] = self._attempts.get(task.name, 0) + 1
            name = self._names[task.id] = (
                f"{task.name}{'abcdefghijklmnopqrstuvwxyz'[count % 26 - 1]}"
            )
            self._say(f"{name} created, to be {task.desired_state.value}")
            return
        name = self._names[task.id]
        if action is WatchAction.REMOVE:
            self._say(f"{name} forgotten")
            return
        assert old is not None
        check_move(old, task, self._writer)
        said = []
        if task.desired_state is not old.desired_state:
            said.append(f"to {_WANTED[task.desired_state]}")
        if task.status.state is not old.status.state and task.status.state is not TaskState.PENDING:
            where = f" to {task.node_id}" if task.status.state is TaskState.ASSIGNED else ""
            said.append(f"{task.status.state.value}{where}")
        if task.status.error and task.status.error != old.status.error:
            said.append(f"({task.status.error})")
        if said:
            self._say(f"{name} {' '.join(said)}")


_BAD_ENDS = (TaskState.FAILED, TaskState.REJECTED)

_WANTED = {
    DesiredState.READY: "be ready",
    DesiredState.RUNNING: "run",
    DesiredState.SHUTDOWN: "stop",
    DesiredState.REMOVE: "be removed",
}


def _wanted_state(state: TaskState, desired: DesiredState) -> TaskState | None:
    """Where a healthy worker takes a task next; None if it is there."""
    if state in TERMINAL:
        return None
    if desired in (DesiredState.SHUTDOWN, DesiredState.REMOVE):
        return TaskState.SHUTDOWN
    goal = TaskState.READY if desired is DesiredState.READY else TaskState.RUNNING
    return goal if order(state) < order(goal) else None
