"""What is lost, cut off or switched off, on nodes that are containers: everything comes right
again, nothing is doubled and nothing is lost."""

from __future__ import annotations

import contextlib

import pytest

from skep.client import ClientError
from skep.domain.objects import NodeState
from tests.support.containers import LOST_S, MANAGERS, READY_S, WORKERS, Containers
from tests.support.local_cluster import eventually

pytestmark = pytest.mark.process

REPLICAS = 6


class Steady:
    """A service that is to be as it was, whatever happens."""

    def __init__(self, cluster: Containers, engine: str) -> None:
        self.cluster = cluster
        self.engine = engine
        self.port = cluster.port()
        self.name = cluster.create(cluster.spec(engine, replicas=REPLICAS, port=self.port)).name
        cluster.is_served(self.port)
        cluster.settles(self.name, REPLICAS, engine)

    def ids(self) -> set[str]:
        """The tasks that run."""
        return {task.id for task in self.cluster.running(self.name)}

    def runs_without(self, node: str) -> None:
        """Wait until all its tasks run on other nodes, which serve it."""

        def elsewhere() -> bool:
            with contextlib.suppress(ClientError):
                nodes = self.cluster.nodes()
                tasks = self.cluster.running(self.name)
                return (
                    nodes[node].state is NodeState.DOWN
                    and len(tasks) == REPLICAS
                    and all(task.node_id != nodes[node].id for task in tasks)
                )
            return False

        eventually(elsewhere, LOST_S + READY_S, f"everything runs without {node}")
        self.cluster.is_served(self.port, by=[name for name in WORKERS if name != node])

    def is_right(self) -> None:
        """Wait until it is as it was, everywhere, and takes changes."""
        self.cluster.are_ready()
        self.cluster.settles(self.name, REPLICAS, self.engine)
        self.cluster.is_served(self.port)
        self.cluster.converged(self.cluster.sdk.services.scale(self.name, REPLICAS + 1))
        self.cluster.settles(self.name, REPLICAS + 1, self.engine)


@pytest.fixture
def steady(cluster: Containers, engine: str) -> Steady:
    return Steady(cluster, engine)


def test_a_killed_worker(cluster: Containers, steady: Steady) -> None:
    cluster.kill("w2")
    steady.runs_without("w2")
    cluster.start("w2")
    steady.is_right()


def test_a_paused_worker(cluster: Containers, steady: Steady) -> None:
    """What it runs when it wakes up has been replaced meanwhile."""
    cluster.pause("w3")
    steady.runs_without("w3")
    cluster.unpause("w3")
    steady.is_right()


def test_a_worker_without_its_cable(cluster: Containers, steady: Steady) -> None:
    held = cluster.held_by("w1")
    assert held
    cluster.unplug("w1")
    steady.runs_without("w1")
    # It can't know that it has been replaced.
    assert cluster.held_by("w1") == held
    cluster.plug("w1")
    steady.is_right()


def test_a_killed_leader(cluster: Containers, steady: Steady) -> None:
    before = steady.ids()
    leader = cluster.leader()
    cluster.kill(leader)
    cluster.converged(cluster.sdk.services.scale(steady.name, REPLICAS + 2))
    assert cluster.leader() != leader
    cluster.settles(steady.name, REPLICAS + 2, steady.engine)
    assert before < steady.ids()
    cluster.converged(cluster.sdk.services.scale(steady.name, REPLICAS))
    cluster.start(leader)
    steady.is_right()


def test_a_leader_without_its_cable(cluster: Containers, steady: Steady) -> None:
    before = steady.ids()
    leader = cluster.leader()
    cluster.unplug(leader)
    cluster.converged(cluster.sdk.services.scale(steady.name, REPLICAS + 2))
    assert before < steady.ids()
    cluster.converged(cluster.sdk.services.scale(steady.name, REPLICAS))
    cluster.plug(leader)
    steady.is_right()


def test_all_managers_killed_at_once(cluster: Containers, steady: Steady) -> None:
    """Tasks and traffic go on without them; none is started again when they are back."""
    before = steady.ids()
    cluster.kill(*MANAGERS)
    held = cluster.held()
    cluster.is_served(steady.port)
    cluster.start(*MANAGERS)
    cluster.are_ready()
    cluster.settles(steady.name, REPLICAS, steady.engine)
    assert steady.ids() == before
    assert cluster.held() == held
    steady.is_right()


def test_nodes_restarted_one_by_one(cluster: Containers, steady: Steady) -> None:
    for node in (*MANAGERS, *WORKERS):
        cluster.restart(node)
        cluster.are_ready()
        cluster.settles(steady.name, REPLICAS, steady.engine)
    steady.is_right()


def test_power_cut_of_everything(cluster: Containers, steady: Steady) -> None:
    cluster.kill(*MANAGERS, *WORKERS)
    cluster.start(*MANAGERS, *WORKERS)
    steady.is_right()


@pytest.mark.parametrize("module", ["skep.worker.main", "skep.netproxy.main"])
def test_killed_processes_of_a_worker(cluster: Containers, steady: Steady, module: str) -> None:
    """They are started again, and nobody notices."""
    before = steady.ids()
    for node in WORKERS:
        cluster.on(node, "pkill", "-KILL", "-f", module)
    cluster.is_served(steady.port)
    cluster.are_ready()
    cluster.settles(steady.name, REPLICAS, steady.engine)
    assert steady.ids() == before
    steady.is_right()


@pytest.mark.parametrize("program", ["dockerd", "containerd"])
def test_a_killed_engine(cluster: Containers, steady: Steady, program: str) -> None:
    """Containers don't need it to run."""
    before = steady.ids()
    for node in WORKERS:
        cluster.on(node, "pkill", "-KILL", "-x", program)
    cluster.is_served(steady.port)
    steady.is_right()
    assert before < steady.ids()
