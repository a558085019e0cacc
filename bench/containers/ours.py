"""Skep: the local cluster that `skep up` makes, three managers and three workers, and a dockerd
for each worker.

The managers run no tasks and are processes of their own; Swarm's are inside of its dockerd.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bench.containers.daemons import Daemon, Place, daemons, engine_processes, give_images
from bench.containers.docker import Docker
from bench.containers.side import (
    COMMAND,
    IMAGE,
    PARALLELISM,
    RELEASES,
    Net,
    Order,
    Seen,
    Side,
    Wish,
    image,
    until,
)
from skep.client import sync
from skep.domain.base import replace
from skep.domain.container import ContainerSpec
from skep.domain.objects import NodeState
from skep.domain.spec import (
    EndpointMode,
    NetworkSpec,
    NetworkUse,
    RestartPolicy,
    RunSpec,
    ServiceSpec,
    TaskSpec,
    UpdateOrder,
    UpdatePolicy,
)
from skep.domain.states import TaskState
from skep.worker.engine.docker.adapters import setup
from tests.support import netns
from tests.support.local_cluster import LocalCluster, local_cluster

NETWORK = "over"
WORKERS = ("w1", "w2", "w3")
ORDERS = {Order.STOP_FIRST: UpdateOrder.STOP_FIRST, Order.START_FIRST: UpdateOrder.START_FIRST}
# Containers are on Skep's networks: these daemons have none of their own to look after.
FLAGS = ("--iptables=false", "--ip6tables=false", "--bridge=none")


class Skep:
    """`Side` for Skep."""

    name = "Skep"

    def __init__(self, cluster: LocalCluster, sdk: sync.Cluster, daemons: Sequence[Daemon]) -> None:
        self.engines: tuple[Docker, ...] = tuple(each.docker for each in daemons)
        self.folders = (cluster.home, *(each.place.folder for each in daemons))
        self._cluster = cluster
        self._sdk = sdk
        self._daemons = tuple(daemons)
        # What a task runs is said by its revision alone.
        self._releases: dict[tuple[str, int], str] = {}
        self._sdk.networks.create(NetworkSpec(name=NETWORK))

    def own_processes(self) -> Mapping[str, Sequence[int]]:
        """See `Side`."""
        found: dict[str, list[int]] = engine_processes(self._daemons)
        for row in self._cluster.processes():
            kind = str(row["name"]).partition(".")[2] or "manager"
            found.setdefault(kind, []).append(int(row["pid"]))
        return found

    def create(self, wish: Wish) -> None:
        """See `Side`."""
        is_over = wish.net is Net.OVERLAY
        run = RunSpec(
            image=image(RELEASES[0]),
            command=COMMAND,
            container=ContainerSpec(network_mode="" if is_over else "host"),
        )
        task = TaskSpec(
            run=run,
            engine="docker",
            restart=RestartPolicy(delay_ns=0),
            networks=(NetworkUse(network=NETWORK),) if is_over else (),
        )
        spec = ServiceSpec(
            name=wish.name,
            task=task,
            replicas=wish.replicas,
            update=UpdatePolicy(parallelism=PARALLELISM, order=ORDERS[wish.order]),
            endpoint_mode=EndpointMode.DNSRR if is_over else EndpointMode.VIP,
        )
        made = self._sdk.services.create(spec)
        self._releases[made.id, made.revision] = RELEASES[0]

    def update(self, name: str) -> None:
        """See `Side`."""
        made = self._sdk.services.change(name, _next_release)
        self._releases[made.id, made.revision] = RELEASES[1]

    def remove(self, name: str) -> None:
        """See `Side`."""
        self._sdk.services.remove(name)

    def tasks(self, name: str) -> list[Seen]:
        """See `Side`."""
        return [
            Seen(
                task.id,
                self._releases[task.service_id, task.revision],
                task.status.state is TaskState.RUNNING,
            )
            for task in self._sdk.tasks.list(service=name)
        ]


def _next_release(spec: ServiceSpec) -> ServiceSpec:
    run = replace(spec.task.run, image=image(RELEASES[1]))
    return replace(spec, task=replace(spec.task, run=run))


@contextlib.contextmanager
def skep(folder: Path) -> Iterator[Side]:
    """A cluster whose workers run containers."""
    runtime, settings = folder / "runtime", folder / "daemon.json"
    setup.install(runtime)
    setup.configure(settings, runtime / setup.PROGRAM)
    flags = (*FLAGS, f"--config-file={settings}")
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(netns.lab(len(WORKERS)))
        places = [
            # Their containers are in namespaces that netproxies make: they must see those.
            Place(worker, folder / worker, lab.path(node), flags, is_apart=False)
            for worker, node in zip(WORKERS, lab.nodes, strict=True)
        ]
        made = stack.enter_context(daemons(places))
        give_images(made, IMAGE, RELEASES)
        yield stack.enter_context(_cluster(folder / "home", made))


@contextlib.contextmanager
def _cluster(home: Path, made: Sequence[Daemon]) -> Iterator[Skep]:
    flags = ("--workers", str(len(made)), "--plane", "kernel")
    with local_cluster(home, *flags, stack=None) as cluster:
        for daemon in made:
            _turn_to(cluster, daemon)
        rows = cluster.processes()
        managers = [str(row["address"]) for row in rows if "." not in str(row["name"])]
        with sync.connect(managers) as sdk:

            def is_whole() -> bool:
                nodes = [node for node in sdk.nodes.list() if node.name in WORKERS]
                return len(nodes) == len(made) and all(
                    node.state is NodeState.READY and "docker" in node.description.engines
                    for node in nodes
                )

            until(is_whole, "three ready nodes")
            yield Skep(cluster, sdk, made)


def _turn_to(cluster: LocalCluster, daemon: Daemon) -> None:
    """Have a worker's agent use a daemon of its own; a local cluster has one for all."""
    agent = f"{daemon.place.name}.agent"
    (path,) = cluster.home.glob(f"*/nodes/{daemon.place.name}/agent.json")
    config = json.loads(path.read_text()) | {"docker": f"unix://{daemon.place.socket}"}
    cluster.kill(agent)
    path.write_text(json.dumps(config))
    cluster.start(agent)
