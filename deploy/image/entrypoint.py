#!/usr/bin/python3
"""The first program of a node's container: writes what the node's processes are told, starts them,
and starts again what ends. For clusters of tests alone: nothing is asked who it is.

The environment says which node this is:

    SKEP_NODE_ROLE      manager, worker, or client, which runs nothing by itself
    SKEP_NODE_NAME      the node's name
    SKEP_NODE_ADDRESS   its own IPv4 address
    SKEP_NODE_NETWORK   the network (CIDR) that strangers can't reach
    SKEP_NODE_CLUSTER   the cluster's name; all ids come from it, so that nobody has to be asked
    SKEP_NODE_MANAGERS  all managers: m1=10.0.0.1,m2=10.0.0.2
    SKEP_NODE_VIP       by what a worker has virtual addresses: auto, bpf, nft

A worker has an engine of its own. Whatever is told by standard output goes to the container's log,
but what the engine says, which goes to /var/log/skep.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ETC, STATE, LOGS = Path("/etc/skep"), Path("/var/lib/skep"), Path("/var/log/skep")
# On a file system of memory, as /run of a machine is: a container that starts again has booted.
ATTACH = "unix:/run/skep-attach.sock"
CONTROL, RAFT, MESH, MANAGER_METRICS, AGENT_METRICS, NETPROXY_METRICS = range(7410, 7416)
MANAGER, WORKER, CLIENT = "manager", "worker", "client"
# What ends at once, again and again, must not keep a processor busy.
RESTART_DELAY_S = 1.0
# Less than Docker waits before it kills.
STOP_GRACE_S = 8.0
CONTAINERD_FILE, DOCKERD_FILE = str(ETC / "containerd.toml"), str(ETC / "dockerd.json")
CONTAINERD_CONFIG = 'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
CGROUP = Path("/sys/fs/cgroup")
SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}
INSIDE = "--in-its-own-cgroup"


@dataclass
class Process:
    """One that is to run all the time."""

    name: str
    command: tuple[str, ...]
    has_log: bool = False
    running: subprocess.Popen[bytes] | None = None
    start_at: float = 0.0

    def start(self) -> None:
        """Start it."""
        log = None
        if self.has_log:
            LOGS.mkdir(parents=True, exist_ok=True)
            log = (LOGS / f"{self.name}.log").open("ab")
        self.running = subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            # What waits for signals here is not to be deaf to them there.
            preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS),
        )
        print(f"node: process={self.name} state=started pid={self.running.pid}", flush=True)

    def look(self, now: float) -> None:
        """Start it if it has ended, and that was a moment ago."""
        if self.running is not None and (code := self.running.poll()) is not None:
            print(f"node: process={self.name} state=ended code={code}", flush=True)
            self.running, self.start_at = None, now + RESTART_DELAY_S
        if self.running is None and now >= self.start_at:
            self.start()


@dataclass(frozen=True)
class Node:
    """What the environment says."""

    role: str = os.environ.get("SKEP_NODE_ROLE", "")
    name: str = os.environ.get("SKEP_NODE_NAME", "")
    address: str = os.environ.get("SKEP_NODE_ADDRESS", "")
    network: str = os.environ.get("SKEP_NODE_NETWORK", "")
    cluster: str = os.environ.get("SKEP_NODE_CLUSTER", "test")
    vip: str = os.environ.get("SKEP_NODE_VIP", "auto")
    managers: dict[str, str] = field(
        default_factory=lambda: dict(
            pair.split("=", 1)
            for pair in os.environ.get("SKEP_NODE_MANAGERS", "").split(",")
            if pair
        )
    )

    def id_of(self, what: str) -> str:
        """An id of 25 digits and small letters that everybody finds by themselves."""
        number, digits = self._number(what), []
        for _ in range(25):
            number, digit = divmod(number, 36)
            digits.append("0123456789abcdefghijklmnopqrstuvwxyz"[digit])
        return "".join(digits)

    def raft_id_of(self, name: str) -> int:
        """A number of 62 bits that isn't 0."""
        return self._number(f"raft {name}") % (1 << 62) + 1

    def _number(self, what: str) -> int:
        digest = hashlib.sha256(f"{self.cluster} {what}".encode()).digest()
        return int.from_bytes(digest[:16], "big")

    def config(self, kind: str) -> dict[str, Any]:
        """What one of the node's processes is told."""
        common: dict[str, Any] = {"name": self.name, "insecure_listen": [self.network]}
        common |= {"node_id": self.id_of(f"node {self.name}"), "cluster_id": self.id_of("cluster")}
        if kind == "manager":
            peers = {
                str(self.raft_id_of(name)): {
                    "raft": f"{address}:{RAFT}",
                    "control": f"{address}:{CONTROL}",
                    "node_id": self.id_of(f"node {name}"),
                    "name": name,
                }
                for name, address in self.managers.items()
                if name != self.name
            }
            return common | {
                "raft_id": self.raft_id_of(self.name),
                "block": 32,
                "control": f"{self.address}:{CONTROL}",
                "raft": f"{self.address}:{RAFT}",
                "metrics": f"{self.address}:{MANAGER_METRICS}",
                "data_dir": str(STATE / "raft"),
                "peers": peers,
            }
        common |= {
            "address": self.address,
            "mesh": f"{self.address}:{MESH}",
            "managers": [f"{address}:{CONTROL}" for address in self.managers.values()],
            "plane": "kernel",
        }
        if kind == "agent":
            return common | {
                "metrics": f"{self.address}:{AGENT_METRICS}",
                "netproxy": ATTACH,
                "data_dir": str(STATE / "agent"),
                "tasks_dir": str(STATE / "tasks"),
                "docker": "unix:///var/run/docker.sock",
            }
        flags = common | {
            "metrics": f"{self.address}:{NETPROXY_METRICS}",
            "attach": ATTACH,
            "state_dir": str(STATE / "netproxy"),
            "vip": self.vip,
        }
        return {key.replace("_", "-"): value for key, value in flags.items()}

    def processes(self) -> list[Process]:
        """What runs here, in the order in which it starts; it stops the other way round."""
        if self.role == MANAGER:
            return [self._ours("manager", "skep.manager.main")]
        return [
            Process("containerd", ("containerd", "--config", CONTAINERD_FILE), has_log=True),
            Process("dockerd", ("dockerd", "--config-file", DOCKERD_FILE), has_log=True),
            self._ours("netproxy", "skep.netproxy.main"),
            self._ours("agent", "skep.worker.main"),
        ]

    def _ours(self, name: str, module: str) -> Process:
        path = ETC / f"{name}.json"
        path.write_text(json.dumps(self.config(name), indent=2) + "\n")
        python = shutil.which("python3") or sys.executable
        return Process(name, (python, "-P", "-m", module, "--config", str(path)))


def engine_config() -> dict[str, Any]:
    """What the node's dockerd is told. It has a containerd beside it rather than below it, so that
    a killed dockerd leaves nothing that the next one trips over."""
    return {
        "containerd": "/run/containerd/containerd.sock",
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
        "live-restore": True,
        "log-driver": "json-file",
        "storage-driver": "overlay2",
    }


def prepare() -> None:
    """Folders and files that must be there before anything runs."""
    for folder in (ETC, STATE):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    Path(CONTAINERD_FILE).write_text(CONTAINERD_CONFIG)
    Path(DOCKERD_FILE).write_text(json.dumps(engine_config(), indent=2) + "\n")
    setup = ("skep", "node", "setup-docker", "--no-reload", "--daemon-file", DOCKERD_FILE)
    subprocess.run(setup, check=True, stdout=subprocess.DEVNULL)


# ------------------------------------------------------------------------------ control groups


def enter_own_cgroup() -> None:
    """Have a cgroup v2 tree whose root is this container's own, as if it were a machine.

    Beside a v1 tree Docker gives none: the container's processes are at the host's root, where what
    this node makes would outlive it. Raises OSError, CalledProcessError.
    """
    unified = CGROUP if (CGROUP / "cgroup.controllers").exists() else CGROUP / "unified"
    if unified is CGROUP:
        # Docker has seen to it; but a group with processes can't hand controllers down.
        inner = CGROUP / "init"
        inner.mkdir(exist_ok=True)
        for pid in (CGROUP / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (inner / "cgroup.procs").write_text(pid)
        names = (CGROUP / "cgroup.controllers").read_text().split()
        (CGROUP / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in names))
        return
    unified.mkdir(exist_ok=True)
    if not unified.is_mount():
        mount_cgroup2(unified)
    own = unified / f"skep-test-{os.uname().nodename}"
    for path, _, _ in os.walk(own, topdown=False):
        # What this container had before it was started again.
        with contextlib.suppress(OSError):
            os.rmdir(path)
    own.mkdir(exist_ok=True)
    (own / "cgroup.procs").write_text(str(os.getpid()))
    subprocess.run(("umount", str(unified)), check=True)
    again = (sys.executable, *sys.argv, INSIDE)
    os.execvp("unshare", ("unshare", "--cgroup", "--", *again))


def mount_cgroup2(where: Path) -> None:
    """The tree, from the process's own root of it."""
    subprocess.run(("mount", "-t", "cgroup2", "cgroup2", str(where)), check=True)


# -------------------------------------------------------------------------------- running them


def supervise(processes: Sequence[Process]) -> None:
    """Keep them running until told to stop; then stop them one by one, the last one first."""
    # Only what is blocked can be waited for; a handler makes sure that it isn't ignored.
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    while True:
        for process in processes:
            process.look(time.monotonic())
        came = signal.sigtimedwait(SIGNALS, RESTART_DELAY_S / 2)
        if came is not None and came.si_signo != signal.SIGCHLD:
            break
    ends = time.monotonic() + STOP_GRACE_S
    for process in reversed(processes):
        if process.running is not None and process.running.poll() is None:
            process.running.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.running.wait(max(0.0, ends - time.monotonic()))
            print(f"node: process={process.name} state=stopped", flush=True)


def main() -> None:
    """What this node is for."""
    node = Node()
    if node.role not in (MANAGER, WORKER, CLIENT):
        print(
            f"node: SKEP_NODE_ROLE is {node.role!r}; it is manager, worker or client",
            file=sys.stderr,
        )
        sys.exit(2)
    if node.role == CLIENT:
        os.execvp("sleep", ("sleep", "infinity"))
    if node.role == WORKER:
        if INSIDE not in sys.argv:
            enter_own_cgroup()
        elif not (CGROUP / "unified").is_mount():
            mount_cgroup2(CGROUP / "unified")
    prepare()
    supervise(node.processes())


if __name__ == "__main__":
    main()
