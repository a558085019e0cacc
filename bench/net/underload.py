"""The managers' end of `bench.changes`: `python -m bench.net.underload PLAN OUTSIDE`.

As `bench.net.manager`, but the tasks are real: each is attached and has a web server in its
namespace. They come and go one after the other as a drain has it: first every netproxy says that it
sends nobody there any more, then the server is told to stop. Meanwhile clients open one connection
after the other, and wrk counts what fails.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import uvloop

from bench.net.figures import parse_wrk
from bench.net.load import JOIN, NGINX, TEXT, Programs, programs, tune, until_open
from bench.net.manager import Bench, Plan
from skep.domain.attach import AttachResponse
from skep.domain.base import ServiceId, replace
from skep.domain.objects import Service, Task
from skep.domain.spec import Port
from skep.worker.core.task import DRAIN_WINDOW_S
from tests.support.netns import run_in

SERVICE, CLIENT = ServiceId("s0"), ServiceId("s1")
CONNECTIONS = 32
# Longer than any case takes: wrk is interrupted when the changes are done.
LONGEST_S = 300
STOP_S = 10.0
BY_VIP, BY_PORT = "virtual address", "published port"


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Of one case: the connections, how many a second, and what failed in wrk's words, "" for
    nothing."""

    case: str
    changes: int
    connections: float
    per_s: float
    failed: str


@dataclass
class _Backend:
    """A task, where it is, and its server while it has one."""

    row: Task
    namespace: Path
    server: subprocess.Popen[bytes] | None = None


class UnderLoad(Bench):
    """See the module. Of the plan's two services the first one is asked, and the first task of the
    second one asks."""

    def __init__(self, plan: Plan, folder: Path, outside: Path) -> None:
        super().__init__(plan, folder)
        self._outside = outside
        self._folder = folder
        self._backends: list[_Backend] = []

    async def cases(self) -> list[Outcome]:
        """All of them, one after the other."""
        async with self.served():
            with programs(self._folder / "servers") as started:
                await self._start_backends(started)
                client = await self._attached(self._tasks(CLIENT)[0])
                tune(Path(client.namespace))
                tune(self._outside)
                (vip,) = self._service().vips
                by_vip = (f"http://{vip.address}:{self._port().target}/", client)
                _, last = self._plan.nodes[-1]
                by_port = (f"http://{last}:{self._port().published}/", None)
                return [
                    await self._case(started, BY_VIP, *by_vip),
                    await self._case(started, BY_PORT, *by_port),
                ]

    async def _start_backends(self, started: Programs) -> None:
        for row in self._tasks(SERVICE):
            made = await self._attached(row)
            backend = _Backend(row, Path(made.namespace))
            tune(backend.namespace)
            self._start(started, backend)
            self._backends.append(backend)

    async def _case(
        self, started: Programs, case: str, url: str, client: AttachResponse | None
    ) -> Outcome:
        with self._load(url, client) as load:
            changes = 0
            backends = itertools.cycle(self._backends)
            while changes < self._plan.changes:
                backend = next(backends)
                await self._set(backend, is_healthy=False)
                await asyncio.sleep(DRAIN_WINDOW_S)
                await self._stop(backend)
                self._start(started, backend)
                await self._set(backend, is_healthy=True)
                changes += 2
            load.send_signal(signal.SIGINT)
            text, _ = await asyncio.to_thread(load.communicate)
        per_s, connections, failed = parse_wrk(text.decode(errors="replace"))
        return Outcome(
            case=case, changes=changes, connections=connections, per_s=per_s, failed=failed
        )

    @contextmanager
    def _load(self, url: str, client: AttachResponse | None) -> Iterator[subprocess.Popen[bytes]]:
        words = ("wrk", "-t1", f"-c{CONNECTIONS}", f"-d{LONGEST_S}", "-H", "Connection: close", url)
        cgroup = client.cgroup if client is not None else ""
        namespace = Path(client.namespace) if client is not None else self._outside

        def start() -> subprocess.Popen[bytes]:
            command = ["sh", "-c", JOIN, cgroup, *words]
            return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

        process = run_in(namespace, start)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    async def _set(self, backend: _Backend, *, is_healthy: bool) -> None:
        """Have it that all netproxies send connections there, or none does."""
        status = replace(backend.row.status, is_healthy=is_healthy)
        backend.row = replace(backend.row, status=status)
        self._store.commit(backend.row)
        await self._all_applied()

    def _start(self, started: Programs, backend: _Backend) -> None:
        name = str(backend.row.id)
        port = self._port().target
        text = NGINX.format(
            folder=started.folder, name=name, address="0.0.0.0", port=port, text=TEXT
        )
        config = started.folder / f"{name}.conf"
        config.write_text(text)
        backend.server = started.start(backend.namespace, name, "nginx", "-c", str(config))
        until_open(backend.namespace, "127.0.0.1", port)

    async def _stop(self, backend: _Backend) -> None:
        """As nginx is told to end with its last connection."""
        assert backend.server is not None
        backend.server.send_signal(signal.SIGQUIT)
        await asyncio.to_thread(backend.server.wait, STOP_S)

    async def _attached(self, row: Task) -> AttachResponse:
        node = [node_id for node_id, _ in self._plan.nodes].index(str(row.node_id))
        return await self._attach_as(node, row.id, row.attachments)

    def _tasks(self, service_id: ServiceId) -> list[Task]:
        return sorted(self._store.tables.tasks_of_service(service_id), key=lambda task: task.slot)

    def _service(self) -> Service:
        found = self._store.tables.get(Service, SERVICE)
        assert found is not None
        return found

    def _port(self) -> Port:
        ports = self._service().ports
        assert ports is not None
        return ports[0]


def main() -> None:
    """Play all cases, and print their outcomes as JSON."""
    plan = msgspec.json.decode(sys.argv[1], type=Plan)
    with tempfile.TemporaryDirectory() as folder:

        async def run() -> list[Outcome]:
            return await UnderLoad(plan, Path(folder), Path(sys.argv[2])).cases()

        print(json.dumps(msgspec.to_builtins(uvloop.run(run()))), flush=True)


if __name__ == "__main__":
    main()
