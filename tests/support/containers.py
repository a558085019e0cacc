"""The cluster of docker-compose.test.yml: each node is a container, and is treated as a machine."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
from collections.abc import Iterator, Sequence

from skep.client import ClientError, sync
from skep.domain.base import SECOND_NS, pairs
from skep.domain.objects import Node, NodeState, Service, Task
from skep.domain.spec import (
    ExposedPort,
    HealthCheck,
    NetworkUse,
    Port,
    RestartPolicy,
    RunSpec,
    ServiceSpec,
    TaskSpec,
    UpdatePolicy,
)
from skep.domain.states import TaskState
from tests.support.local_cluster import eventually, get

MANAGERS = {"m1": "172.30.250.11", "m2": "172.30.250.12", "m3": "172.30.250.13"}
WORKERS = {"w1": "172.30.250.21", "w2": "172.30.250.22", "w3": "172.30.250.23"}
ADDRESSES = {**MANAGERS, **WORKERS}
IMAGE = "busybox:test"
# Made with the nodes' image.
IMAGE_FILE = "/usr/share/skep/busybox.tar"
TARGET = 8080
# Nodes share this machine's processors, which other things use, too.
CONVERGED_S = 60.0
READY_S = 60.0
# Three heartbeats of 2 s, and as much again.
LOST_S = 12.0

# Serves its own name and the release's. The folder's name is how `held` knows it.
SERVER = (
    "mkdir -p /tmp/www.$ID && cd /tmp/www.$ID && echo $NAME $RELEASE > index.html && "
    f"exec busybox httpd -f -p {TARGET} -h /tmp/www.$ID"
)
ALIVE = f"busybox nc -w 1 127.0.0.1 {TARGET} < /dev/null"


class Containers:
    """Names and ports are given out once, so that tests don't meet."""

    def __init__(self, project: str) -> None:
        self._project = project
        self._ports = itertools.count(8100)
        self._numbers = itertools.count(1)
        self.started: list[str] = []
        self.sdk = sync.connect([f"{address}:7410" for address in MANAGERS.values()])

    # ------------------------------------------------------------------------------ machines

    def docker(self, *words: str, within_s: float = 60.0, is_checked: bool = True) -> str:
        """What a command says to the engine that has the nodes. Fails if the command does."""
        done = subprocess.run(
            ("docker", *words), capture_output=True, text=True, timeout=within_s, check=False
        )
        assert done.returncode == 0 or not is_checked, f"docker {' '.join(words)}: {done.stderr}"
        return done.stdout

    def container(self, node: str) -> str:
        """The name of a node's container."""
        # Compose has joined names with either of them.
        listed = self.docker(
            *("ps", "--all", "--format", "{{.Names}}"),
            *("--filter", f"label=com.docker.compose.project={self._project}"),
            *("--filter", f"label=com.docker.compose.service={node}"),
        )
        return listed.strip()

    def on(self, node: str, *words: str, is_checked: bool = True) -> str:
        """What a command says that runs on a node."""
        return self.docker("exec", self.container(node), *words, is_checked=is_checked)

    def kill(self, *nodes: str) -> None:
        """Cut their power."""
        self.docker("kill", *map(self.container, nodes))

    def start(self, *nodes: str) -> None:
        """Switch them on."""
        self.docker("start", *map(self.container, nodes))

    def restart(self, *nodes: str) -> None:
        """Boot them, with time to stop."""
        self.docker("restart", "--time", "10", *map(self.container, nodes))

    def pause(self, node: str) -> None:
        """Let nothing run there for now."""
        self.docker("pause", self.container(node))

    def unpause(self, node: str) -> None:
        """Let it go on as if nothing had been."""
        self.docker("unpause", self.container(node))

    def unplug(self, node: str) -> None:
        """Pull its cable."""
        self.docker("network", "disconnect", self._network(), self.container(node))

    def plug(self, node: str) -> None:
        """Put it in again."""
        flags = ("--ip", ADDRESSES[node], "--alias", node)
        self.docker("network", "connect", *flags, self._network(), self.container(node))

    def _network(self) -> str:
        return f"{self._project}_nodes"

    def heal(self) -> None:
        """Whatever a test did: all nodes run, and are connected."""
        for node in ADDRESSES:
            looked = "{{.State.Status}} {{len .NetworkSettings.Networks}}"
            state, networks = self.docker(
                "inspect", "--format", looked, self.container(node)
            ).split()
            if state == "paused":
                self.unpause(node)
            elif state != "running":
                self.start(node)
            if networks == "0":
                self.plug(node)

    # -------------------------------------------------------------------------------- making

    def name(self, stem: str = "web") -> str:
        """A name that nothing has yet."""
        return f"{stem}{next(self._numbers)}"

    def port(self) -> int:
        """A port that nothing publishes yet."""
        return next(self._ports)

    def spec(
        self,
        engine: str,
        *,
        replicas: int = 3,
        port: int | None = None,
        release: str = "one",
        on: Sequence[str] = (),
    ) -> ServiceSpec:
        """A service whose tasks say who they are, and are healthy when they do."""
        run = RunSpec(
            image=IMAGE,
            command=("sh", "-c", SERVER),
            env=pairs({"ID": "{{.Task.ID}}", "NAME": "{{.Task.Name}}", "RELEASE": release}),
            stop_grace_ns=2 * SECOND_NS,
            health=HealthCheck(
                test=("CMD-SHELL", ALIVE),
                start_period_ns=30 * SECOND_NS,
                start_interval_ns=SECOND_NS // 5,
                interval_ns=5 * SECOND_NS,
            ),
        )
        return ServiceSpec(
            name=self.name(),
            replicas=replicas,
            ports=() if port is None else (Port(target=TARGET, published=port),),
            exposed=(ExposedPort(target=TARGET),) if on else (),
            task=TaskSpec(
                run=run,
                engine=engine,
                networks=tuple(NetworkUse(network=network) for network in on),
                restart=RestartPolicy(delay_ns=0),
            ),
            update=UpdatePolicy(monitor_ns=0),
        )

    def create(self, spec: ServiceSpec) -> Service:
        """Create it, and wait until it runs."""
        self.started.append(spec.name)
        service = self.sdk.services.create(spec)
        self.converged(service)
        return service

    def converged(self, service: Service) -> None:
        """Wait until just this revision runs."""
        self.sdk.wait_converged({service.id: service.revision}, timeout_s=CONVERGED_S)

    def forget(self) -> None:
        """Remove what tests have started, and wait until nothing of it is left anywhere."""
        for name in self.started:
            with contextlib.suppress(ClientError):
                self.sdk.services.remove(name)
        self.sdk.wait_removed(self.started, timeout_s=CONVERGED_S)
        self.started.clear()
        eventually(lambda: not any(self.held().values()), CONVERGED_S, "nothing is left")

    # ------------------------------------------------------------------------------- looking

    def nodes(self) -> dict[str, Node]:
        """All nodes, by name."""
        return {node.name: node for node in self.sdk.nodes.list()}

    def are_ready(self, *names: str) -> None:
        """Wait until these nodes, or all, are heard."""
        wanted = set(names or ADDRESSES)

        def ready() -> bool:
            with contextlib.suppress(ClientError):
                nodes = self.nodes()
                return wanted <= {n for n, node in nodes.items() if node.state is NodeState.READY}
            return False

        eventually(ready, READY_S, f"{sorted(wanted)} are ready")

    def leader(self) -> str:
        """The name of the leading manager."""
        leader_id = self.sdk.info().leader_id
        return next(name for name, node in self.nodes().items() if node.id == leader_id)

    def running(self, name: str) -> list[Task]:
        """The tasks that run and are wanted, as managers see it."""
        tasks = self.sdk.tasks.list(service=name)
        return [t for t in tasks if t.is_wanted and t.status.state is TaskState.RUNNING]

    def believed(self, name: str = "") -> dict[str, set[str]]:
        """By node: the ids of tasks that run there, as managers see it."""
        names = {node.id: node.name for node in self.nodes().values()}
        tasks = self.sdk.tasks.list(service=name) if name else self.sdk.tasks.list()
        found: dict[str, set[str]] = {node: set() for node in WORKERS}
        for task in tasks:
            if task.node_id and task.status.state is TaskState.RUNNING and not task.is_terminal:
                found[names[task.node_id]].add(task.id)
        return found

    def held(self) -> dict[str, list[str]]:
        """By node: the ids of tasks whose programs really run there, each as often as it does."""
        return {node: self.held_by(node) for node in WORKERS}

    def held_by(self, node: str) -> list[str]:
        """What runs on one node. Containers' processes are seen among its own."""
        listed = self.on(node, "pgrep", "-a", "-f", "^busybox httpd", is_checked=False)
        return sorted(line.rpartition("/tmp/www.")[2] for line in listed.splitlines())

    def containers_of(self, node: str) -> list[str]:
        """The ids of tasks that have a running container in a node's own engine."""
        label = '{{.Label "com.docker.swarm.task.id"}}'
        listed = self.on(node, "docker", "ps", "--no-trunc", "--format", label)
        return sorted(line for line in listed.splitlines() if line)

    def answers(self, node: str, port: int) -> str:
        """What comes of a request to a node's published port; "" for nothing."""
        with contextlib.suppress(OSError):
            status, body = get(WORKERS[node], port, timeout_s=2.0)
            return body.strip() if status == 200 else ""
        return ""

    def is_right(self, name: str, replicas: int, engine: str) -> str:
        """What is wrong with a service: too many, too few, or others than managers think. ""
        where nothing is."""
        tasks = self.running(name)
        if len(tasks) != replicas:
            return f"{len(tasks)} tasks of {name} run, of {replicas}"
        if len({task.slot for task in tasks}) != replicas:
            return f"two tasks have one slot: {[task.name for task in tasks]}"
        wanted = {node: sorted(ids) for node, ids in self.believed().items()}
        held = self.held()
        if held != wanted:
            return f"nodes run {held}, managers want {wanted}"
        if engine == "docker" and (has := {n: self.containers_of(n) for n in WORKERS}) != wanted:
            return f"engines have {has}, managers want {wanted}"
        return ""

    def settles(self, name: str, replicas: int, engine: str, within_s: float = READY_S) -> None:
        """Wait until a service is as it should be, everywhere, and nothing else runs."""
        wrong = ["not looked at"]

        def right() -> bool:
            with contextlib.suppress(ClientError):
                wrong[:] = [self.is_right(name, replicas, engine)]
                return not wrong[0]
            return False

        try:
            eventually(right, within_s)
        except AssertionError:
            raise AssertionError(f"not within {within_s} s: {wrong[0]}") from None

    def is_served(self, port: int, *, by: Sequence[str] = tuple(WORKERS)) -> None:
        """Wait until each of these nodes leads to a task."""
        eventually(
            lambda: all(self.answers(node, port) for node in by), READY_S, f"{by} serve {port}"
        )


@contextlib.contextmanager
def container_cluster() -> Iterator[Containers]:
    """What deploy/test-cluster has started."""
    cluster = Containers(os.environ["SKEP_TEST_CLUSTER"])
    try:
        cluster.are_ready()
        yield cluster
    finally:
        cluster.sdk.close()


def load_image(cluster: Containers) -> None:
    """Give each worker's engine the image, as no registry would."""
    for node in WORKERS:
        if not cluster.on(node, "docker", "images", "--quiet", IMAGE).strip():
            cluster.on(node, "docker", "import", IMAGE_FILE, IMAGE)
