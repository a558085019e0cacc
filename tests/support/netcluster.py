"""A cluster for tests of networks: services of peers (`netpeer.py`), and orders to them."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from skep.cli import diagnosis
from skep.client import NotFound, sync
from skep.domain.base import SECOND_NS, pairs, replace
from skep.domain.spec import (
    ExposedPort,
    HealthCheck,
    NetworkSpec,
    NetworkUse,
    Placement,
    Port,
    Protocol,
    RestartPolicy,
    RunSpec,
    ServiceSpec,
    TaskSpec,
)
from skep.domain.storage import Mount, MountKind
from skep.netproxy.kernel.adapters import natrules, vips
from tests.support import netns, netpeer
from tests.support.dockerd import Dockerd, dockerd
from tests.support.dockerd import why_not as no_dockerd
from tests.support.local_cluster import LocalCluster, eventually, local_cluster
from tests.support.pythonimage import PYTHON, make_python_image

PEER = Path(netpeer.__file__)
# Where peers listen, in every task.
TARGET = 7000
CONVERGED_S = 60.0
SETTLED_S = 20.0
# The table of packet filters that part nodes from each other.
CUT = "skt-cut"
PLANES = {
    "relay": (),
    "kernel": ("--plane", "kernel", "--vip", "bpf"),
    "kernel-nft": ("--plane", "kernel", "--vip", "nft"),
    # The kernel's plane with containers in it, by both kinds of virtual addresses.
    "containers": ("--plane", "kernel", "--vip", "bpf", "--engine", "docker"),
    "containers-nft": ("--plane", "kernel", "--vip", "nft", "--engine", "docker"),
}
# What the process engine tells a task of itself, and a container is told by its spec.
IDENTITY = {
    "SKEP_SERVICE_NAME": "{{.Service.Name}}",
    "SKEP_TASK_ADDRESS": "{{.Task.Address}}",
    "SKEP_TASK_SLOT": "{{.Task.Slot}}",
    "SKEP_NODE_NAME": "{{.Node.Hostname}}",
}


class Refused(OSError):
    """What a task could not do, in its own words."""


class Net:
    """Names and ports are given out once, so that tests don't meet."""

    def __init__(
        self, plane: str, cluster: LocalCluster, ready: Path, docker: Dockerd | None = None
    ) -> None:
        self.plane = plane
        self.cluster = cluster
        self.docker = docker
        self.is_kernel = plane != "relay"
        self.addresses = {str(row["name"]): str(row["address"]) for row in cluster.nodes()}
        self.workers = tuple(sorted(name for name in self.addresses if name.startswith("w")))
        managers = [f"{at}:7410" for name, at in self.addresses.items() if name.startswith("m")]
        self.sdk = sync.connect(managers)
        # As tasks of nodes with namespaces of their own see this machine.
        self.own_address = self._own_address()
        self.idle: Idle | None = None
        self._ready = ready
        self._started: set[str] = set()
        self._ports = itertools.count(8100)
        self._numbers = itertools.count(1)

    # ------------------------------------------------------------------------------ making

    def name(self, stem: str) -> str:
        """A name that nothing has yet."""
        return f"{stem}{next(self._numbers)}"

    def port(self) -> int:
        """A port that nothing publishes yet."""
        return next(self._ports)

    def network(self, stem: str = "net", **fields: Any) -> str:
        """A new network, by its name."""
        return str(self.sdk.networks.create(NetworkSpec(name=self.name(stem), **fields)).name)

    def spec(
        self,
        stem: str,
        *,
        on: Sequence[str | NetworkUse] = (),
        replicas: int = 1,
        node: str = "",
        publish: Sequence[Port] = (),
        env: dict[str, str] | None = None,
    ) -> ServiceSpec:
        """A service of peers. Its port is exposed on its networks."""
        ready = f"{self._ready}/{{{{.Task.ID}}}}"
        run = RunSpec(
            command=("python3", "-S", str(PEER), str(TARGET), ready),
            env=pairs(env or {}),
            stop_grace_ns=20 * SECOND_NS,
            health=HealthCheck(
                test=("CMD", "test", "-e", ready),
                start_period_ns=60 * SECOND_NS,
                start_interval_ns=SECOND_NS // 10,
                interval_ns=3600 * SECOND_NS,
            ),
        )
        if self.docker is not None:
            run = self._in_container(run)
        uses = tuple(NetworkUse(network=use) if isinstance(use, str) else use for use in on)
        constraints = (f"node.hostname == {node}",) if node else ()
        exposed = tuple(ExposedPort(target=TARGET, protocol=each) for each in Protocol)
        return ServiceSpec(
            name=self.name(stem),
            replicas=replicas,
            ports=tuple(publish),
            exposed=exposed if uses else (),
            task=TaskSpec(
                run=run,
                engine="process" if self.docker is None else "docker",
                networks=uses,
                placement=Placement(constraints=constraints),
                restart=RestartPolicy(delay_ns=0),
            ),
        )

    def _in_container(self, run: RunSpec) -> RunSpec:
        """The same in a container, which sees the program and the folder of ready files."""
        folders = {str(PEER.parent): True, str(self._ready): False}
        mounts = tuple(
            Mount(kind=MountKind.BIND, source=folder, target=folder, is_read_only=is_read_only)
            for folder, is_read_only in folders.items()
        )
        env = pairs({**IDENTITY, **dict(run.env)})
        return replace(run, image=PYTHON, mounts=mounts, env=env)

    def start(self, *specs: ServiceSpec) -> list[str]:
        """Create services, and wait until every node knows them; their names."""
        made = [self.sdk.services.create(spec) for spec in specs]
        self._started |= {spec.name for spec in specs}
        self.sdk.wait_converged([each.id for each in made], timeout_s=CONVERGED_S)
        self.settle()
        return [spec.name for spec in specs]

    def peers(self, stem: str, **fields: Any) -> str:
        """`start` of one `spec`."""
        (name,) = self.start(self.spec(stem, **fields))
        return name

    def peers_without(self, node: str, stem: str, **fields: Any) -> str:
        """`peers` on other nodes than this one, which isn't waited for either."""
        spec = self.spec(stem, **fields)
        placement = Placement(constraints=(f"node.hostname != {node}",))
        made = self.sdk.services.create(replace(spec, task=replace(spec.task, placement=placement)))
        self._started.add(spec.name)
        self.sdk.wait_converged([made.id], timeout_s=CONVERGED_S)
        return spec.name

    def agent(self, *on: str | NetworkUse, node: str = "") -> Agent:
        """A task on these networks that takes orders."""
        (agent,) = self.agents(on, nodes=(node,))
        return agent

    def agents(self, *groups: Sequence[str | NetworkUse], nodes: Sequence[str]) -> list[Agent]:
        """One per group, or all of one group, each on a node of its own."""
        wanted = list(zip(groups * len(nodes) if len(groups) == 1 else groups, nodes, strict=True))
        ports = [self.port() for _ in wanted]
        specs = [
            self.spec("agent", on=on, node=node, publish=[ingress(port)])
            for (on, node), port in zip(wanted, ports, strict=True)
        ]
        names = self.start(*specs)
        at = self.addresses[self.workers[0]]
        return [Agent(name, at, port) for name, port in zip(names, ports, strict=True)]

    def scale(self, name: str, replicas: int, *, is_settled: bool = True) -> None:
        """Scale, and wait until every node knows."""
        service = self.sdk.services.scale(name, replicas)
        self.sdk.wait_converged({service.id: service.revision}, timeout_s=CONVERGED_S)
        if is_settled:
            self.settle()

    def remove(self, *names: str) -> None:
        """Remove services, and wait until nothing is left of them."""
        for name in names:
            self.sdk.services.remove(name)
        self.sdk.wait_removed(names, timeout_s=CONVERGED_S)
        self._started.difference_update(names)

    def forget(self) -> None:
        """Remove the services that were started and aren't kept, without waiting for it."""
        for name in sorted(self._started):
            with contextlib.suppress(NotFound):
                self.sdk.services.remove(name)
        self._started.clear()

    def keep(self, *names: str) -> None:
        """Let `forget` not touch these services."""
        self._started.difference_update(names)

    # ----------------------------------------------------------------------------- looking

    def settle(self, within_s: float = SETTLED_S) -> None:
        """Wait until every node has put in force what the managers say now."""
        version = self.sdk.networks.diagnose().version

        def are_there() -> bool:
            answer = self.sdk.networks.diagnose()
            return not answer.silent and not diagnosis.is_behind(answer, version)

        eventually(are_there, within_s, "every node has the managers' word")

    def troubles(self) -> list[str]:
        """What `skep network doctor` complains of."""
        answer = self.sdk.networks.diagnose()
        names = {str(node.id): node.name for node in self.sdk.nodes.list()}
        found = diagnosis.report(answer, names, 0)
        return diagnosis.details(found)

    def nodes_of(self, name: str) -> set[str]:
        """The names of the nodes on which a service's tasks are to run."""
        names = {node.id: node.name for node in self.sdk.nodes.list()}
        tasks = self.sdk.tasks.list(service=name)
        return {names[task.node_id] for task in tasks if task.is_wanted and task.node_id}

    def pids(self, name: str) -> dict[str, int]:
        """The processes of a service's wanted tasks, by task name."""
        tasks = self.sdk.tasks.list(service=name)
        return {task.name: int(task.status.pid or 0) for task in tasks if task.is_wanted}

    def on(self, node: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command on a node."""
        entering: tuple[str, ...] = ()
        if self.is_kernel:
            entering = ("nsenter", f"--net={self.namespace(node)}", "--")
        return subprocess.run(
            (*entering, *words), capture_output=True, text=True, timeout=30.0, check=False
        )

    def peer_on(self, node: str, call: str) -> Any:
        """The value of an expression of `netpeer`'s functions, in a process on a node."""
        program = f"import json; from netpeer import *; print(json.dumps({call}))"
        done = self.on(
            *(node, "env", f"PYTHONPATH={PEER.parent}", sys.executable, "-S", "-c", program)
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def processes_of(self, node: str) -> list[int]:
        """The pids of all that runs for a node: its own processes, shims, and tasks."""
        mark = f"{self.cluster.home}/default/nodes/{node}/"
        found, parents = set(), {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int(
                    (entry / "stat").read_text().rpartition(")")[2].split()[1]
                )
                if mark.encode() in (entry / "cmdline").read_bytes():
                    found.add(int(entry.name))
        if self.docker is not None:
            found |= {pid for pid in self._containers_of(node) if pid}
        while more := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= more
        return sorted(found)

    def _containers_of(self, node: str) -> list[int]:
        """The first processes of a node's containers."""
        assert self.docker is not None
        ids = {each.name: each.id for each in self.sdk.nodes.list(is_stale=True)}
        return [
            int(self.docker.inspect(each["Id"])["State"]["Pid"])
            for each in self.docker.containers()
            if each["Labels"].get("io.skep.node") == ids[node]
        ]

    def lose(self, node: str) -> None:
        """The node dies with everything on it, as if its power was cut."""
        if self.is_kernel:
            self.plug(node, is_in=False)
        for pid in self.processes_of(node):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def plug(self, node: str, *, is_in: bool) -> None:
        """Pull a node's cable, or put it in again (kernel plane)."""
        port, state = f"skep{self.block}-{node}", "up" if is_in else "down"
        subprocess.run(("ip", "link", "set", port, state), check=True, timeout=30.0)

    def part(self, node: str, *others: str) -> None:
        """Let no packet through between a node and others until `heal` (kernel plane)."""
        addresses = ", ".join(self.addresses[other] for other in others)
        chains = (("in", "input", "saddr"), ("out", "output", "daddr"))
        rules = "".join(
            f"add chain ip {CUT} {name} {{ type filter hook {hook} priority -300; }}\n"
            f"add rule ip {CUT} {name} ip {which} {{ {addresses} }} drop\n"
            for name, hook, which in chains
        )
        rules = f"add table ip {CUT}\n{rules}"
        done = self.on(node, "nft", rules)
        assert done.returncode == 0, done.stderr

    def heal(self, node: str) -> None:
        """Undo `part`."""
        done = self.on(node, "nft", f"delete table ip {CUT}")
        assert done.returncode == 0, done.stderr

    @property
    def block(self) -> str:
        """The second or third number of all its addresses."""
        return next(iter(self.addresses.values())).split(".")[2 if self.is_kernel else 1]

    def namespace(self, node: str) -> Path:
        """The file of a node's network namespace (kernel plane)."""
        return netns.FOLDER / f"skep-{self.block}-{node}"

    def _own_address(self) -> str:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((self.addresses[self.workers[0]], 9))
            return str(probe.getsockname()[0])

    def close(self) -> None:
        """Leave the managers."""
        self.sdk.close()


class Idle:
    """Connections that nothing is said on: through a node without the replica, and by its virtual
    address, both between nodes."""

    def __init__(self, net: Net) -> None:
        port, front = net.port(), net.network("idle")
        echo = net.spec("idle", on=[front], node="w1", publish=[ingress(port)])
        net.start(echo)
        self._agent = net.agent(front, node="w3")
        self._agent.do("hold", host=echo.name, port=TARGET, key="idle")
        self._connection, _ = netpeer.dial(net.addresses["w3"], port)
        self._connection.sendall(b"echo\n")
        self._since = time.monotonic()
        net.keep(echo.name, self._agent.name)

    @property
    def age_s(self) -> float:
        """For how long there has been silence."""
        return time.monotonic() - self._since

    def end(self) -> None:
        """Both must work as if nothing had been."""
        assert netpeer.said(self._connection, "late") == "late"
        assert self._agent.do("say", key="idle", text="late") == "late"

    def close(self) -> None:
        """Whether or not they have ended."""
        self._connection.close()


class Agent:
    """A task that does as it is told, over one connection per order."""

    def __init__(self, name: str, host: str, port: int) -> None:
        self.name = name
        self.host = host
        self.port = port

    def do(self, what: str, within_s: float = 60.0, **arguments: Any) -> Any:
        """What comes of an order; see `netpeer.Orders`. Raises Refused."""
        connection, _ = netpeer.dial(self.host, self.port, timeout_s=within_s)
        with connection:
            connection.sendall(b"order\n")
            answer = json.loads(netpeer.said(connection, json.dumps({"do": what, **arguments})))
        if "error" in answer:
            raise Refused(answer["error"])
        return answer["ok"]

    def names(self, name: str) -> list[str]:
        """The addresses that a name stands for, sorted."""
        return sorted(self.do("resolve", name=name)["addresses"])

    def is_unknown(self, name: str) -> bool:
        """Whether there is no such name."""
        return bool(self.do("resolve", name=name)["rcode"] == 3)

    def greeted(self, host: str, count: int = 1, port: int = TARGET) -> list[str]:
        """The names of those who answer, one for each new connection."""
        return [words[0] for words in self.do("greet", host=host, port=port, count=count)]


def ingress(published: int, protocol: Protocol = Protocol.TCP, **fields: Any) -> Port:
    """A published port that leads to a peer."""
    return Port(target=TARGET, published=published, protocol=protocol, **fields)


def has_containers(plane: str) -> bool:
    """Whether tasks are containers there."""
    return plane.startswith("containers")


def why_not(plane: str) -> str:
    """Why this machine can't have this plane; "" where it can."""
    if plane == "relay":
        return ""
    if reason := netns.why_not():
        return reason
    if has_containers(plane) and (reason := no_dockerd()):
        return reason
    by_what = (natrules if plane.endswith("-nft") else vips).supported()
    return f"no virtual addresses of this kind here: {by_what}" if by_what else ""


@contextlib.contextmanager
def net_cluster(plane: str, home: Path, *flags: str, prefix: tuple[str, ...] = ()) -> Iterator[Net]:
    """Three managers and three workers, unless `flags` of `skep up` say otherwise."""
    ready = home / "ready"
    ready.mkdir()
    # Tasks write there, whoever they are.
    ready.chmod(0o777)
    with contextlib.ExitStack() as stack:
        docker = None
        if has_containers(plane):
            docker = stack.enter_context(dockerd())
            make_python_image(docker)
            flags = (*flags, "--docker-host", docker.url)
        cluster = stack.enter_context(
            local_cluster(home / "skep", *PLANES[plane], *flags, stack=None, prefix=prefix)
        )
        net = Net(plane, cluster, ready, docker)
        stack.callback(net.close)
        yield net
