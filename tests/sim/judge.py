"""What must always hold of a cluster, judged on what is committed and on what really runs.

Every manager's applied commands come here. The first to apply a command writes the history; all
others must repeat it. Rules about tasks are judged on each change, by the domain's own table.
"""

from __future__ import annotations

from collections.abc import Sequence

from skep.domain.base import NodeId, TaskId
from skep.domain.constraints import are_met
from skep.domain.objects import Availability, Node, NodeState, Object, Service, Task
from skep.domain.states import LEGAL_MOVES, DesiredState, TaskState, desired_order
from skep.manager.dispatcher.core.liveness import GRACE_S
from skep.manager.scheduler.actor import task_spec
from skep.manager.store.core.command import Change
from skep.manager.store.core.tables import Tables
from tests.sim.reach import Reach
from tests.sim.update_judge import UpdateJudge
from tests.sim.world import World
from tests.support.networks import faults, is_network_row

# Who leads is looked at now and then only; a pause between two looks is shorter than this.
SAMPLING_S = 0.5


def _closure() -> frozenset[tuple[TaskState, TaskState]]:
    """Every pair between which there is a way of legal moves: stored statuses may skip states."""
    ways = set(LEGAL_MOVES) | {(state, state) for state in TaskState}
    for middle in TaskState:
        ways |= {
            (old, new)
            for old in TaskState
            for new in TaskState
            if (old, middle) in ways and (middle, new) in ways
        }
    return frozenset(ways)


LEGAL_WAYS = _closure()


class Judge:
    """Notes what happens and raises Violation, by way of the world's problems."""

    def __init__(self, world: World, *, is_calm: bool = False) -> None:
        self._world = world
        self.updates = UpdateJudge(self._fail, is_calm)
        self.reach = Reach(self._fail)
        self._history: dict[int, bytes] = {}
        self._leaders: dict[int, str] = {}
        self._placed: dict[TaskId, NodeId] = {}
        self._addresses: dict[str, TaskId] = {}
        self._judged = 0
        self._newest: Tables | None = None
        self._office_since: dict[int, float] = {}
        self._proposed_in: dict[bytes, int] = {}
        self._term = 0
        self._nodes_before: dict[str, Node] = {}
        self._respecified: set[str] = set()
        self.nodes_down = 0
        self.moves: set[tuple[TaskState, TaskState]] = set()

    @property
    def last(self) -> int:
        """The last command that any manager has applied."""
        return self._judged

    def leads(self, manager: str, term: int) -> None:
        """At most one leader per term."""
        first = self._leaders.setdefault(term, manager)
        self._office_since.setdefault(term, self._world.now())
        if first != manager:
            self._fail(f"term {term} has two leaders, {first} and {manager}")

    def proposing(self, command: bytes, term: int) -> None:
        """A leader proposes a command; a later one may be the first to apply it."""
        self._proposed_in[command] = term

    def applying(self, manager: str, index: int, command: bytes) -> None:
        """All managers apply the same commands in the same places."""
        if self._history.setdefault(index, command) != command:
            self._fail(f"{manager} applies another command at {index} than others did")

    def applied(self, manager: str, index: int, changes: Sequence[Change], tables: Tables) -> None:
        """Judge a command when the first manager has applied it."""
        if index <= self._judged:
            return
        self._judged = index
        self._newest = tables
        self._term = self._proposed_in.get(self._history[index], 0)
        self._world.trace.note("store", f"{manager} applied {index} changes={len(changes)}")
        # One command holds several writers' work, each done on what those before it left.
        self._nodes_before = {c.row.id: c.old for c in changes if isinstance(c.old, Node)}
        self._respecified = {
            c.row.id
            for c in changes
            if isinstance(c.row, Service)
            and isinstance(c.old, Service)
            and c.row.spec != c.old.spec
        }
        for change in changes:
            self._judge(change, tables)
        if any(is_network_row(change.row) for change in changes):
            for fault in faults(tables):
                self._fail(fault)
        self.updates.applied(changes, tables)
        self.reach.applied(changes, tables, self._world.now(), index)

    def started(self, node_id: NodeId, task_id: TaskId) -> None:
        """A machine starts a process: it must be one that the store placed there."""
        if self._placed.get(task_id) != node_id:
            self._fail(f"{node_id} starts {task_id}, placed on {self._placed.get(task_id)}")

    def signalled(self, node_id: NodeId, task_id: TaskId, *, is_unwanted: bool) -> None:
        """A machine ends a process because (`is_unwanted`) its agent thinks that managers want
        it ended: the store must say so, too, since what is wanted only goes one way."""
        task = self._newest.get(Task, task_id) if self._newest is not None else None
        if is_unwanted and task is not None and task.is_wanted:
            self._fail(f"{node_id} ends {task_id} ({task.name}), which is still wanted")

    def is_removed(self, task_id: TaskId) -> bool:
        """Whether a task is gone from the store, or is to go."""
        task = self._newest.get(Task, task_id) if self._newest is not None else None
        return task is None or task.desired_state is DesiredState.REMOVE

    def _judge(self, change: Change, tables: Tables) -> None:
        row, old = change.row, change.old
        is_removed = tables.get(type(row), row.id) is None
        if isinstance(row, Task):
            if is_removed:
                self._task_removed(row, tables)
            else:
                self._task_written(row, old, tables)
        elif isinstance(row, Service) and not is_removed:
            self._check_ports(row, tables)
        elif isinstance(row, Node) and isinstance(old, Node) and row.state is not old.state:
            self._node_judged(row)

    def _task_written(self, new: Task, old: Object | None, tables: Tables) -> None:
        story = f"task={new.id} slot={new.name} {new.status.state.value}/{new.desired_state.value}"
        if isinstance(old, Task):
            move = (old.status.state, new.status.state)
            self.moves.add(move)
            if move not in LEGAL_WAYS:
                self._fail(f"{story}: no way leads there from {old.status.state.value}")
            if desired_order(new.desired_state) < desired_order(old.desired_state):
                self._fail(f"{story}: desired was {old.desired_state.value}")
            if old.node_id not in (None, new.node_id):
                self._fail(f"{story}: moved from {old.node_id} to {new.node_id}")
            if new.status.counter < old.status.counter:
                self._fail(f"{story}: the counter was {old.status.counter}")
        elif new.status.state is not TaskState.NEW:
            self._fail(f"{story}: created like this")
        if new.node_id is not None and new.id not in self._placed:
            self._placed[new.id] = new.node_id
            self._check_placement(new, tables, story)
        if new.address and self._addresses.setdefault(new.address, new.id) != new.id:
            self._fail(f"{story}: {new.address} is that of {self._addresses[new.address]}")
        self._check_slot(new, tables)

    def _node_judged(self, node: Node) -> None:
        """A leader gives everybody a whole grace before it judges."""
        if node.state is not NodeState.DOWN:
            return
        self.nodes_down += 1
        in_office_s = self._world.now() - self._office_since.get(self._term, 0.0)
        if in_office_s < GRACE_S - SAMPLING_S:
            self._fail(f"{node.name} is judged down {in_office_s:.2f} s after an election")

    def _task_removed(self, task: Task, tables: Tables) -> None:
        if self._addresses.get(task.address) == task.id:
            del self._addresses[task.address]
        node = tables.get(Node, task.node_id) if task.node_id is not None else None
        # One command may hold the removal, and after it the word that the node is back.
        before = None if node is None else self._nodes_before.get(node.id, node)
        states = {each.state for each in (node, before) if each is not None}
        is_heard_of = bool(states) and NodeState.DOWN not in states
        if task.status.state is TaskState.RUNNING and is_heard_of:
            self._fail(f"task={task.id} slot={task.name} forgotten while it runs")

    def _check_placement(self, task: Task, tables: Tables, story: str) -> None:
        node = tables.get(Node, task.node_id or "")
        spec = task_spec(tables, task)
        if node is None or spec is None:
            return
        before = self._nodes_before.get(node.id, node)
        if not (_is_open(node) or _is_open(before)):
            self._fail(f"{story}: placed on {node.name}, which is not open to tasks")
        # One command may hold a placement, and after it a spec that it was not made under.
        is_under_it = task.service_id not in self._respecified
        if is_under_it and not are_met(spec.placement.constraints, node):
            self._fail(f"{story}: placed on {node.name} against its constraints")
        there = [t for t in tables.tasks_of_node(node.id) if not t.is_terminal]
        used = sum(_reserved(t, tables) for t in there)
        if used > node.description.cpu_nano:
            self._fail(f"{story}: {node.name} has {used} of its CPU given away")
        most = spec.placement.max_replicas_per_node
        # One command may hold those of a later spec as well, which know no such limit.
        mine = [t for t in there if t.is_wanted and t.service_id == task.service_id]
        slots = {t.slot for t in mine if _most(t, tables) == most}
        if is_under_it and most is not None and len(slots | {task.slot}) > most:
            self._fail(f"{story}: {node.name} has slots {sorted(slots)}, {most} are allowed")

    def _check_slot(self, task: Task, tables: Tables) -> None:
        """One task of a slot is wanted, or while it hands over two: then the older one has served,
        and goes on until the newer one does."""
        wanted = [
            other
            for other in tables.tasks_of_service(task.service_id)
            if other.slot == task.slot and other.is_wanted
        ]
        if len(wanted) < 2:
            return
        wanted.sort(key=lambda other: (other.created_ns, other.version))
        if len(wanted) > 2 or wanted[0].healthy_ns is None:
            ids = ", ".join(f"{t.id}:{t.desired_state.value}" for t in wanted)
            self._fail(f"slot {task.name} has {len(wanted)} wanted tasks: {ids}")

    def _check_ports(self, service: Service, tables: Tables) -> None:
        mine = {(port.published, port.protocol) for port in service.ports or ()}
        for other in tables.all(Service):
            if other.id != service.id:
                shared = mine & {(port.published, port.protocol) for port in other.ports or ()}
                if shared:
                    text = ", ".join(f"{number}/{protocol.value}" for number, protocol in shared)
                    self._fail(f"{service.name} and {other.name} both publish {text}")

    def _fail(self, text: str) -> None:
        self._world.problem(f"violation: {text}")


def _is_open(node: Node) -> bool:
    is_usable = node.state is NodeState.READY and node.runs_tasks
    return is_usable and node.availability is Availability.ACTIVE


def _reserved(task: Task, tables: Tables) -> int:
    spec = task_spec(tables, task)
    return 0 if spec is None else spec.reservations.cpu_nano or 0


def _most(task: Task, tables: Tables) -> int | None:
    spec = task_spec(tables, task)
    return None if spec is None else spec.placement.max_replicas_per_node
