"""Anything that may happen to a cluster, as actions that can be taken at any time.

An action that makes no sense at the moment does nothing, so that any sequence of them is a life.
At the end everything goes well, and then everything must come to rest as the specs say.
"""

from __future__ import annotations

from contextlib import ExitStack
from unittest import mock

from skep.domain.base import NodeId, replace
from skep.domain.objects import Availability, Network, Node, NodeState, Service, Task
from skep.domain.spec import EndpointMode, NetworkSpec, PortMode, RestartCondition, ServiceSpec
from skep.domain.states import TaskState, order
from skep.env import CallError
from skep.manager.control.core.views import service_view
from tests.trace.support.stage import Stage

NAMES = ("web", "db")
# "one" and "other" have the same addresses, of which there are enough for both services at their
# most while tasks of two revisions run; "far" gets its own.
NETWORKS = {
    "one": NetworkSpec(name="one", subnet="10.9.0.0/27"),
    "other": NetworkSpec(name="other", subnet="10.9.0.0/27"),
    "far": NetworkSpec(name="far"),
}
NODES = ("n1", "n2", "n3")
GIB = 1 << 30
# Longer than any delay and any wait for a task that doesn't stop.
LONG_S = 60.0
# What workers say of a task.
REPORTS = tuple(
    state
    for state in TaskState
    if order(state) > order(TaskState.ASSIGNED) and state is not TaskState.ORPHANED
)


class Life:
    """One cluster's life. `limit`: how many changes one pass may write."""

    def __init__(self, limit: int) -> None:
        self._patches = ExitStack()
        for name in ("orchestrator", "allocator", "scheduler"):
            where = f"skep.manager.{name}.actor.PASS_CHANGES"
            self._patches.enter_context(mock.patch(where, limit))
        self.stage = Stage()
        for node in NODES[:2]:
            self.register(node)
        for network in NETWORKS:
            self.create_network(network)

    def end(self) -> None:
        """Let everything go well, check that it does, and put back what was changed."""
        try:
            self._converge()
        finally:
            self._patches.close()

    # ----------------------------------------------------------------------------- what people do

    def deploy(self, of: ServiceSpec) -> None:
        if any(port.mode is PortMode.INGRESS for port in of.ports):
            # Without a virtual address it would be refused.
            of = replace(of, endpoint_mode=EndpointMode.VIP)
        try:
            (self.stage.create if self._find(of.name) is None else self.stage.update)(of)
        except CallError:
            return  # The port is taken, or a network missing, or the service is being removed.

    def scale(self, name: str, replicas: int) -> None:
        service = self._find(name)
        if service is not None and not service.is_removing:
            self.stage.update(replace(service.spec, replicas=replicas))

    def roll_back(self, name: str, revision: int | None) -> None:
        service = self._find(name)
        if service is not None and not service.is_removing:
            try:
                self.stage.roll_back(name, revision)
            except CallError:
                return  # There is nothing to go back to, or it wants what isn't there.

    def remove(self, name: str) -> None:
        if self._find(name) is not None:
            self.stage.remove(name)

    def create_network(self, name: str) -> None:
        if self.stage.network(name) is None:
            self.stage.create_network(NETWORKS[name])

    def remove_network(self, name: str) -> None:
        network = self.stage.network(name)
        if network is not None:
            try:
                self.stage.remove_network(name)
            except CallError:
                return  # A service needs it.

    def remove_task(self, pick: int) -> None:
        task = self._any_task(pick)
        if task is not None:
            self.stage.remove_task(task.id)

    def set_availability(self, node: str, availability: Availability) -> None:
        if NodeId(node) in self.stage.workers:
            self.stage.set_availability(node, availability)

    def label(self, node: str, disk: str) -> None:
        if NodeId(node) in self.stage.workers:
            self.stage.label(node, disk=disk)

    def remove_node(self, node: str) -> None:
        row: Node | None = self.stage.store.tables.get(Node, node)
        if row is not None and row.state is NodeState.DOWN:
            self.stage.remove_node(node)

    # --------------------------------------------------------------------------- what nodes do

    def register(self, node: str) -> None:
        self.stage.register(node, memory_bytes=4 * GIB)

    def lose(self, node: str, is_dead: bool) -> None:
        if NodeId(node) in self.stage.workers:
            (self.stage.lose if is_dead else self.stage.judge_down)(node)

    def work(self) -> None:
        self.stage.work()

    def report(self, pick: int, state: TaskState, is_lost: bool) -> None:
        able = [
            task
            for task in self.stage.store.tables.all(Task)
            if task.node_id is not None
            and self.stage.can_report(task.node_id)
            and order(self.stage.status(task).state) < min(order(TaskState.COMPLETE), order(state))
        ]
        if able:
            self.stage.report(able[pick % len(able)], state, "so it is", is_lost=is_lost)

    def resend(self, node: str, place: int) -> None:
        if NodeId(node) in self.stage.workers:
            self.stage.resend(node, place)

    # ------------------------------------------------------------------------- what managers do

    def step(self, name: str) -> None:
        self.stage.step(name)

    def settle(self) -> None:
        self.stage.settle()

    def advance(self, seconds: float) -> None:
        self.stage.advance(seconds)

    def jump_wall(self, seconds: float) -> None:
        self.stage.clock.wall_offset_s += seconds

    def restart(self, name: str) -> None:
        self.stage.restart(name)

    def change_leader(self) -> None:
        self.stage.lead()

    # ------------------------------------------------------------------------------ what holds

    def _find(self, name: str) -> Service | None:
        found: Service | None = self.stage.store.tables.named(Service, name)
        return found

    def _any_task(self, pick: int) -> Task | None:
        tasks = tuple(self.stage.store.tables.all(Task))
        return tasks[pick % len(tasks)] if tasks else None

    def _converge(self) -> None:
        stage = self.stage
        for node in NODES:
            stage.register(node, memory_bytes=100 * GIB)
            stage.set_availability(node, Availability.ACTIVE)
            stage.label(node, disk="ssd")
        for _ in range(10):
            stage.run()
            stage.advance(LONG_S)
        # What is paused waits for a person, who tries again.
        for service in tuple(stage.store.tables.all(Service)):
            if not service.is_removing:
                stage.update(service.spec)
        for _ in range(10):
            stage.run()
            stage.advance(LONG_S)
        stage.run()
        before = stage.store.database.version
        stage.lead()
        stage.run()
        assert stage.store.database.version == before, "a new leader finds something to do"
        known = set()
        for service in stage.store.tables.all(Service):
            assert not service.is_removing, f"{service.name} is never gone"
            self._check_converged(service)
            known.add(service.id)
        assert {task.service_id for task in stage.store.tables.all(Task)} <= known
        for network in stage.store.tables.all(Network):
            assert not network.is_removing, f"{network.name} is never gone"
            assert network.vni is not None, network
        for node in stage.store.tables.all(Node):
            assert node.ingress_address, node
        self._empty()

    def _empty(self) -> None:
        """When everything is removed, everything is given back."""
        stage = self.stage
        for service in tuple(stage.store.tables.all(Service)):
            stage.remove(service.name)
        stage.run()
        stage.advance(LONG_S)
        for network in tuple(stage.store.tables.all(Network)):
            if not network.is_ingress:
                stage.remove_network(network.name)
        stage.run()
        assert [row.name for row in stage.store.tables.all(Network)] == ["ingress"]
        assert not tuple(stage.store.tables.all(Service))
        assert not tuple(stage.store.tables.all(Task))

    def _check_converged(self, service: Service) -> None:
        tables = self.stage.store.tables
        tasks = sorted(tables.tasks_of_service(service.id), key=lambda task: task.created_ns)
        # After a rollback it may be an older task of a slot that goes on.
        newest = list({task.slot: task for task in tasks}.values())
        wanted = {task.slot: task for task in tasks if task.is_wanted}
        newest = [wanted.get(task.slot, task) for task in newest]
        assert len(newest) == service.spec.replicas, newest
        policy = service.spec.task.restart
        given_up = [task for task in newest if task.is_terminal]
        if policy.condition is RestartCondition.ANY and policy.max_attempts is None:
            assert not given_up, given_up
        for task in tasks:
            is_right = task in newest and task.status.state is TaskState.RUNNING
            assert is_right or task.is_terminal, task
        if not given_up:
            view = service_view(tables, service)
            assert view.is_converged, view
