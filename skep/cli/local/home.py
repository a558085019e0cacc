"""Folders of local clusters (`$SKEP_HOME/<cluster>`: cluster.json, nodes, logs) and their locks."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from skep.cli.errors import Exit, Failure
from skep.cli.local import core
from skep.env import Rejected

# Each vain attempt means that another command has just ended.
LOCK_ATTEMPTS = 100

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")


def root() -> Path:
    """`$SKEP_HOME`, or its default."""
    given = os.environ.get("SKEP_HOME")
    return Path(given).absolute() if given else Path.home() / ".local/share/skep"


def names() -> list[str]:
    """The clusters there are."""
    return sorted(path.parent.name for path in root().glob("*/cluster.json"))


class Home:
    """One cluster's folder."""

    def __init__(self, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise Failure(
                f"'{name}' can't be a cluster's name; use letters, digits, '-' and '_'", Exit.USAGE
            )
        self.name = name
        self.folder = root() / name
        self.logs = self.folder / "logs"

    def node(self, node: core.LocalNode) -> Path:
        """A node's own folder."""
        return self.folder / "nodes" / node.name

    def config_path(self, process: core.LocalProcess) -> Path:
        """Where a process's configuration is."""
        stem = process.kind.value.split(".")[1]
        names = {"manager": "manager.json", "worker": "agent.json", "netproxy": "netproxy.json"}
        return self.node(process.node) / names[stem]

    def log(self, process: core.LocalProcess) -> Path:
        """Where a process writes its log."""
        return self.logs / f"{process.name}.log"

    def load(self) -> core.LocalCluster | None:
        """The cluster, or None where there is none. Raises Failure."""
        path = self.folder / "cluster.json"
        try:
            return core.read_cluster(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except Rejected as error:
            raise Failure(f"{path}: {error}") from None

    def require(self) -> core.LocalCluster:
        """The cluster. Raises Failure when there is none."""
        cluster = self.load()
        if cluster is None:
            there = f"there are {', '.join(names())}" if names() else "there is none at all"
            raise Failure(
                f"there is no cluster '{self.name}' in {root()}; {there}; start one with "
                "'skep up', or name another's managers with --managers-address",
                Exit.USAGE,
            )
        return cluster

    def save(self, cluster: core.LocalCluster) -> None:
        """Write the cluster and what its processes are told."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for process in core.processes(cluster):
            folder = self.node(process.node)
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            _write(self.config_path(process), self.config(cluster, process))
        _replace(self.folder / "cluster.json", core.write_cluster(cluster))

    def config(self, cluster: core.LocalCluster, process: core.LocalProcess) -> dict[str, Any]:
        """What a process is told."""
        return core.config_of(cluster, process, str(self.node(process.node)))

    def arguments(self, cluster: core.LocalCluster, process: core.LocalProcess) -> tuple[str, ...]:
        """A process's command line, after the interpreter."""
        config = self.config(cluster, process)
        return core.arguments_of(process, config, str(self.config_path(process)))

    def remove(self) -> None:
        """Remove everything. Raises OSError."""
        shutil.rmtree(self.folder)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other commands from starting or stopping this cluster's processes meanwhile."""
        root().mkdir(parents=True, exist_ok=True, mode=0o700)
        path = root() / f".{self.name}.lock"
        fd = _lock(path)
        if fd is None:
            raise Failure(
                f"another skep command is starting or stopping cluster '{self.name}'; "
                "wait until it is done",
                Exit.REFUSED,
            )
        try:
            yield
        finally:
            # Only the holder removes the file, and before it lets go.
            path.unlink(missing_ok=True)
            os.close(fd)


def _lock(path: Path) -> int | None:
    """The descriptor that holds the lock, or None if somebody else does.

    Holders remove the file. Who opened it before that, and gets the lock after, holds a file that
    nobody else will ever find; so a lock counts only while the path still leads to it.
    """
    for _ in range(LOCK_ATTEMPTS):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(fd), os.stat(path)):
                return fd
        except BlockingIOError:
            os.close(fd)
            return None
        except FileNotFoundError:
            pass
        os.close(fd)
    return None


def _write(path: Path, value: dict[str, Any]) -> None:
    _replace(path, msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(path.name + ".new")
    temporary.write_bytes(data)
    temporary.chmod(0o600)
    temporary.replace(path)


# ------------------------------------------------------------------------------- blocks


def blocks_in_folders() -> set[int]:
    """The blocks of this user's clusters, running or not."""
    found = set()
    for path in root().glob("*/cluster.json"):
        with contextlib.suppress(OSError, Rejected):
            found.add(core.read_cluster(path.read_bytes()).block)
    return found


def is_listening(block: int, ports: core.Ports) -> bool:
    """Whether some cluster, of whichever user, holds addresses of this block."""
    return any(
        not _can_bind(f"127.{block}.0.{number}", port)
        for number in range(1, core.NODE_LIMIT + 1)
        for port in (ports.control, ports.mesh)
    )


@contextlib.contextmanager
def reserved(block: int) -> Iterator[bool]:
    """Hold a block against commands that look for one at the same moment; False if one of them
    already does. The name is the network namespace's own, as loopback is, and goes by itself."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as holder:
        try:
            holder.bind(f"\0skep-block-{block}")
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            yield False
        else:
            yield True


def _can_bind(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the processes themselves do: an old connection's TIME_WAIT is no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
    return True
