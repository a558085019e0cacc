"""The plan of a local cluster: who is in it, where each listens, and what its processes are told.

Pure: it is given what is known and returns what is to be. The loopback plan: the block B is a
multiple of 32, node k (1 to 31) has the address 127.B.0.k, tasks have 127.B.16-255.x, and node k's
virtual addresses are in 127.(B+k).0.0/16. Every node has an address of its own, so that the ports
can be the same on each.

With the kernel's data plane each node has a network namespace of its own instead, as if it were a
machine, and node k is 172.30.B.k on a bridge that this machine is on as well.
"""

from __future__ import annotations

import enum
from collections.abc import Collection
from typing import Any, NamedTuple

import msgspec

from skep.domain.spec import PROCESS
from skep.env import Ids, Rejected

FORMAT = 1
BLOCK_STEP = 32
# 0 is left out, so that 127.0.0.x stays what everybody thinks it is.
BLOCKS = tuple(range(BLOCK_STEP, 256, BLOCK_STEP))
NODE_LIMIT = BLOCK_STEP - 1


class Role(enum.Enum):
    """What a local node is."""

    MANAGER = "manager"
    WORKER = "worker"


class Plane(enum.Enum):
    """What moves packets on the nodes."""

    RELAY = "relay"
    KERNEL = "kernel"


class Kind(enum.Enum):
    """The processes of a node, by the module that each runs."""

    MANAGER = "skep.manager.main"
    AGENT = "skep.worker.main"
    NETPROXY = "skep.netproxy.main"


class Ports(msgspec.Struct, frozen=True, kw_only=True):
    """Below the ports that the kernel hands out by itself, and away from what services publish."""

    control: int = 7410
    raft: int = 7411
    mesh: int = 7412
    manager_metrics: int = 7413
    agent_metrics: int = 7414
    netproxy_metrics: int = 7415


class LocalNode(msgspec.Struct, frozen=True, kw_only=True):
    """One node. `number` is k of the loopback plan; `raft_id` is 0 for workers."""

    name: str
    role: Role
    number: int
    node_id: str
    raft_id: int = 0


class LocalCluster(msgspec.Struct, frozen=True, kw_only=True):
    """cluster.json."""

    format: int = FORMAT
    name: str
    cluster_id: str
    block: int
    ports: Ports = Ports()
    nodes: tuple[LocalNode, ...]
    plane: Plane = Plane.RELAY
    # By what the kernel's plane has virtual addresses: see netproxy's --vip.
    vip: str = "auto"
    # What runs services that don't say it themselves, and where the nodes' Docker engine is.
    engine: str = PROCESS
    docker: str = ""

    def managers(self) -> tuple[LocalNode, ...]:
        """The managers."""
        return tuple(node for node in self.nodes if node.role is Role.MANAGER)

    def workers(self) -> tuple[LocalNode, ...]:
        """The workers."""
        return tuple(node for node in self.nodes if node.role is Role.WORKER)

    def host(self, node: LocalNode) -> str:
        """A node's own address."""
        if self.plane is Plane.KERNEL:
            return f"172.30.{self.block}.{node.number}"
        return f"127.{self.block}.0.{node.number}"

    @property
    def underlay(self) -> str:
        """The network that connects the nodes' namespaces."""
        return f"172.30.{self.block}.0/24"

    def namespace(self, node: LocalNode) -> str:
        """The name of a node's network namespace (kernel plane)."""
        return f"skep-{self.block}-{node.name}"

    def control_addresses(self) -> tuple[str, ...]:
        """Where the managers take calls."""
        return tuple(f"{self.host(node)}:{self.ports.control}" for node in self.managers())


class LocalProcess(msgspec.Struct, frozen=True, kw_only=True):
    """One process of a node: "m1", "w1.agent", "w1.netproxy"."""

    name: str
    node: LocalNode
    kind: Kind


def counted(number: int, noun: str) -> str:
    """Such as "1 manager" or "3 managers"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


class Wanted(NamedTuple):
    """What a new cluster is to have; None is the default, which an existing one may differ from."""

    managers: int | None = None
    workers: int | None = None
    plane: Plane | None = None
    vip: str = "auto"
    engine: str | None = None
    docker: str = ""


def plan_cluster(name: str, wanted: Wanted, block: int, ids: Ids) -> LocalCluster:
    """A new cluster: managers m1, m2, ... and workers w1, w2, ... Raises Rejected."""
    managers = 3 if wanted.managers is None else wanted.managers
    workers = 3 if wanted.workers is None else wanted.workers
    if managers < 1:
        raise Rejected("a cluster needs at least one manager; use --managers 1 or more")
    if workers < 0 or managers + workers > NODE_LIMIT:
        raise Rejected(
            f"{counted(managers, 'manager')} and {counted(workers, 'worker')} are not possible; "
            f"a local cluster has up to {NODE_LIMIT} nodes in all"
        )
    nodes = [
        LocalNode(
            name=f"m{number}",
            role=Role.MANAGER,
            number=number,
            node_id=ids.new_id(),
            raft_id=ids.new_raft_id(),
        )
        for number in range(1, managers + 1)
    ]
    nodes += [
        LocalNode(
            name=f"w{number}", role=Role.WORKER, number=managers + number, node_id=ids.new_id()
        )
        for number in range(1, workers + 1)
    ]
    return LocalCluster(
        name=name,
        cluster_id=ids.new_id(),
        block=block,
        nodes=tuple(nodes),
        plane=wanted.plane or Plane.RELAY,
        vip=wanted.vip,
        engine=wanted.engine or PROCESS,
        docker=wanted.docker,
    )


def choose_block(taken: Collection[int]) -> int:
    """The smallest free block. Raises Rejected when there is none."""
    for block in BLOCKS:
        if block not in taken:
            return block
    raise Rejected(
        f"all {len(BLOCKS)} loopback blocks of this machine are taken by other clusters; "
        "remove one with 'skep down --name NAME'"
    )


def read_cluster(data: bytes) -> LocalCluster:
    """cluster.json's content. Raises Rejected."""
    try:
        cluster = msgspec.json.decode(data, type=LocalCluster)
    except msgspec.DecodeError as error:
        raise Rejected(f"not a cluster file: {error}") from None
    if cluster.format > FORMAT:
        raise Rejected(
            f"written by a newer skep (format {cluster.format}, this one knows {FORMAT}); "
            "use that skep"
        )
    return cluster


def write_cluster(cluster: LocalCluster) -> bytes:
    """cluster.json for a cluster."""
    return msgspec.json.format(msgspec.json.encode(cluster), indent=2) + b"\n"


def processes(cluster: LocalCluster) -> tuple[LocalProcess, ...]:
    """All processes, managers first."""
    found = [LocalProcess(name=n.name, node=n, kind=Kind.MANAGER) for n in cluster.managers()]
    for node in cluster.workers():
        found += [
            LocalProcess(name=f"{node.name}.agent", node=node, kind=Kind.AGENT),
            LocalProcess(name=f"{node.name}.netproxy", node=node, kind=Kind.NETPROXY),
        ]
    return tuple(found)


def named(cluster: LocalCluster, names: Collection[str]) -> tuple[LocalProcess, ...]:
    """The processes that these names mean; a worker's name means both of its. Raises Rejected."""
    known = processes(cluster)
    for name in names:
        if not any(name in (process.name, process.node.name) for process in known):
            listed = ", ".join(process.name for process in known)
            raise Rejected(f"no process '{name}' in cluster '{cluster.name}'; there are {listed}")
    return tuple(p for p in known if p.name in names or p.node.name in names)


def address_of(cluster: LocalCluster, process: LocalProcess) -> str:
    """Where a process listens for others; an agent only for its metrics."""
    ports = cluster.ports
    port = {
        Kind.MANAGER: ports.control,
        Kind.AGENT: ports.agent_metrics,
        Kind.NETPROXY: ports.mesh,
    }[process.kind]
    return f"{cluster.host(process.node)}:{port}"


def metrics_of(cluster: LocalCluster, process: LocalProcess) -> str:
    """Where a process shows its metrics."""
    ports = cluster.ports
    port = {
        Kind.MANAGER: ports.manager_metrics,
        Kind.AGENT: ports.agent_metrics,
        Kind.NETPROXY: ports.netproxy_metrics,
    }[process.kind]
    return f"{cluster.host(process.node)}:{port}"


def config_of(cluster: LocalCluster, process: LocalProcess, folder: str) -> dict[str, Any]:
    """What the process's JSON file says. `folder` is the node's own, as an absolute path."""
    node, host, ports = process.node, cluster.host(process.node), cluster.ports
    config: dict[str, Any] = {
        "name": node.name,
        "node_id": node.node_id,
        "cluster_id": cluster.cluster_id,
        "metrics": metrics_of(cluster, process),
    }
    if cluster.plane is Plane.KERNEL:
        config["insecure_listen"] = [cluster.underlay]
    if process.kind is Kind.MANAGER:
        return config | {
            "raft_id": node.raft_id,
            "block": cluster.block,
            "default_engine": cluster.engine,
            "control": f"{host}:{ports.control}",
            "raft": f"{host}:{ports.raft}",
            "data_dir": f"{folder}/raft",
            "peers": {
                str(peer.raft_id): {
                    "raft": f"{cluster.host(peer)}:{ports.raft}",
                    "control": f"{cluster.host(peer)}:{ports.control}",
                    "node_id": peer.node_id,
                    "name": peer.name,
                }
                for peer in cluster.managers()
                if peer.name != node.name
            },
        }
    config |= {
        "address": host,
        "mesh": f"{host}:{ports.mesh}",
        "managers": list(cluster.control_addresses()),
        "plane": cluster.plane.value,
    }
    attach = f"unix:{folder}/attach.sock"
    if process.kind is Kind.AGENT:
        if cluster.docker:
            config |= {"docker": cluster.docker, "containers_dir": f"{folder}/containers"}
        return config | {
            "netproxy": attach,
            "data_dir": f"{folder}/agent",
            "tasks_dir": f"{folder}/tasks",
        }
    if cluster.vip != "auto":
        config["vip"] = cluster.vip
    return config | {"attach": attach, "state_dir": f"{folder}/netproxy"}


def arguments_of(
    process: LocalProcess, config: dict[str, Any], config_path: str
) -> tuple[str, ...]:
    """What follows the interpreter on the command line."""
    # -P: a folder called "skep" where the command was given is not ours.
    start = ("-P", "-m", process.kind.value)
    if process.kind is not Kind.NETPROXY:
        return (*start, "--config", config_path)
    flags: list[str] = []
    for key, value in config.items():
        text = ",".join(value) if isinstance(value, list) else str(value)
        flags += [f"--{key.replace('_', '-')}", text]
    return (*start, *flags)


def is_ours(arguments: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    """Whether a running process's command line is the one that `wanted` makes. What matters is
    the module and the value after it that no other node has: its file or its state folder."""
    mark = wanted[-1]
    return wanted[2] in arguments[:5] and mark in arguments
