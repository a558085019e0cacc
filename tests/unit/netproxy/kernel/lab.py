"""Two networks with the same subnet, each of a client's namespace and a servers'."""

from __future__ import annotations

import json
import secrets
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

CLIENT = "10.0.1.11"
SERVERS = ("10.0.1.21", "10.0.1.22", "10.0.1.23")
ELSEWHERE = "10.99.0.1"  # routed, but on no network of a scope
PORT = 8080
DEADLINE_S = 30
_TASK = Path(__file__).with_name("task.py")


class Task:
    """A process in a namespace and in a cgroup; see task.py for what it can do."""

    def __init__(self, namespace: str, cgroup: Path | None) -> None:
        # Not `ip netns exec`, which mounts a /sys of its own, without cgroups.
        enter = ["nsenter", f"--net=/run/netns/{namespace}"]
        command = [*enter, sys.executable, "-ISE", str(_TASK)]
        self._process = subprocess.Popen(
            [*command, *([str(cgroup)] if cgroup else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def do(self, name: str, *arguments: Any) -> Any:
        """Call a function of task.py."""
        self.begin(name, *arguments)
        return self.finish()

    def begin(self, name: str, *arguments: Any) -> None:
        """Call it, and don't wait."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([name, *arguments]) + "\n")
        self._process.stdin.flush()

    def finish(self) -> Any:
        """The answer of the call that was begun."""
        assert self._process.stdout is not None
        assert select.select([self._process.stdout], [], [], DEADLINE_S)[0], "no answer"
        line = self._process.stdout.readline()
        assert line, "the task has died"
        return json.loads(line)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


class Network:
    """A client and a servers' namespace, joined by a veth pair; servers answer at PORT."""

    def __init__(self, cgroup: Path) -> None:
        prefix = f"skt-{secrets.token_hex(4)}"
        self.client_namespace, self.server_namespace = f"{prefix}-c", f"{prefix}-s"
        self._tasks: list[Task] = []
        try:
            self._fill(cgroup)
        except BaseException:
            self.close()
            raise

    def _fill(self, cgroup: Path) -> None:
        self._build()
        self.client = self.start(cgroup)
        self.servers = Task(self.server_namespace, None)
        self._tasks.append(self.servers)
        self.servers.do("serve", (*SERVERS, ELSEWHERE), PORT)
        self.cookie: int = self.client.do("cookie")

    def start(self, cgroup: Path | None) -> Task:
        """One more task in the client's namespace."""
        self._tasks.append(Task(self.client_namespace, cgroup))
        return self._tasks[-1]

    def close(self) -> None:
        """End the tasks and remove the namespaces."""
        for task in self._tasks:
            task.close()
        for namespace in (self.client_namespace, self.server_namespace):
            subprocess.run(["ip", "netns", "del", namespace], check=False)

    def _build(self) -> None:
        client, server = self.client_namespace, self.server_namespace
        _ip(f"netns add {client}", f"netns add {server}")
        _ip(f"link add eth0 netns {client} type veth peer name eth0 netns {server}")
        for namespace, addresses in ((client, (CLIENT,)), (server, SERVERS)):
            _ip(
                *(f"-n {namespace} addr add {address}/24 dev eth0" for address in addresses),
                f"-n {namespace} link set eth0 up",
                f"-n {namespace} link set lo up",
            )
        _ip(
            f"-n {server} addr add {ELSEWHERE}/32 dev lo",
            f"-n {client} route add {ELSEWHERE} via {SERVERS[0]}",
        )


def _ip(*commands: str) -> None:
    for command in commands:
        subprocess.run(["ip", *command.split()], check=True)
