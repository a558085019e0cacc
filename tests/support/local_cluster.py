"""A real local cluster, driven by the `skep` command just as a user drives it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "timecheck.yaml"
WEB = "web"
CLOCK = "timecheck"
POLL_S = 0.02


class LocalCluster:
    """One cluster in a home of its own."""

    def __init__(self, home: Path, prefix: tuple[str, ...] = ()) -> None:
        self.home = home
        self._prefix = prefix
        self.environ = {**os.environ, "SKEP_HOME": str(home), "NO_COLOR": "1"}

    # ------------------------------------------------------------------------ the command

    def run(self, *words: str, within_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run `skep words...`, whatever comes of it."""
        return subprocess.run(
            [*self._prefix, sys.executable, "-m", "skep.cli.main", *words],
            env=self.environ,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=within_s,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    def skep(self, *words: str, within_s: float = 60.0) -> str:
        """Run `skep words...`, which must succeed; its output."""
        done = self.run(*words, within_s=within_s)
        assert done.returncode == 0, f"skep {' '.join(words)}: {done.stderr}\n{done.stdout}"
        return done.stdout

    def rows(self, *words: str) -> list[dict[str, Any]]:
        """The rows that `skep words... --format json` prints."""
        rows: list[dict[str, Any]] = json.loads(self.skep(*words, "--format", "json"))
        return rows

    # --------------------------------------------------------------------------- looking

    def nodes(self) -> list[dict[str, Any]]:
        """`skep node ls`."""
        return self.rows("node", "ls")

    def tasks(self, service: str = WEB) -> list[dict[str, Any]]:
        """`skep service ps`, ended tasks included."""
        return self.rows("service", "ps", service)

    def running(self, service: str = WEB) -> list[dict[str, Any]]:
        """The tasks that run and are wanted."""
        return [
            task
            for task in self.tasks(service)
            if task["state"] == "running" and task["desired_state"] == "running"
        ]

    def leader(self) -> str:
        """The name of the leading manager."""
        return next(str(node["name"]) for node in self.nodes() if node["leader"])

    def workers(self) -> list[dict[str, Any]]:
        """The rows of the workers."""
        return [node for node in self.nodes() if node["role"] == "worker"]

    def processes(self) -> list[dict[str, Any]]:
        """`skep local ls`."""
        return self.rows("local", "ls")

    def pid_of(self, name: str) -> int:
        """The pid of one of the cluster's own processes."""
        row = next(row for row in self.processes() if row["name"] == name)
        return int(row["pid"])

    # -------------------------------------------------------------------------- breaking

    def kill(self, name: str) -> None:
        """SIGKILL a process, or all of a node's own processes."""
        self.skep("local", "kill", name)

    def start(self, name: str) -> None:
        """Start a process, or all of a node's, again."""
        self.skep("local", "start", name)


@contextmanager
def local_cluster(
    home: Path, *flags: str, stack: Path | None = EXAMPLE, prefix: tuple[str, ...] = ()
) -> Iterator[LocalCluster]:
    """`skep up` before, `skep down` after, whatever happens in between. `prefix` is what command
    lines begin with, such as one that takes privileges away."""
    cluster = LocalCluster(home, prefix)
    try:
        cluster.skep("up", *(() if stack is None else (str(stack),)), *flags, within_s=120.0)
        yield cluster
    finally:
        cluster.run("down", within_s=120.0)


def eventually(look: Callable[[], T], within_s: float, what: str = "") -> T:
    """The first true answer of `look`; fails after `within_s`."""
    ends = time.monotonic() + within_s
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > ends:
            raise AssertionError(f"not within {within_s} s: {what or look}")
        time.sleep(POLL_S)


def get(address: str, port: int = 8080, timeout_s: float = 5.0) -> tuple[int, str]:
    """One GET over a connection of its own: status and body."""
    connection = http.client.HTTPConnection(address, port, timeout=timeout_s)
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def is_alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in ("Z", "X")


def kill_pid(pid: int) -> None:
    """SIGKILL."""
    os.kill(pid, signal.SIGKILL)
