"""A Docker engine of Skep's over a real dockerd, and words for what tests do with it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

from skep.domain.attach import AttachResponse
from skep.domain.base import SECOND_NS, NetworkId, ServiceId, TaskId
from skep.domain.container import ContainerSpec
from skep.domain.objects import Attachment, Task, TaskStatus
from skep.domain.session import Assignment, FileKind, GivenFile
from skep.domain.spec import PROCESS, HealthCheck, Resources, RunSpec, ServiceSpec, TaskSpec
from skep.domain.states import TaskState
from skep.env import DiceIds, Env, LoopClock, LoopSpawn, Random
from skep.worker.engine.docker.adapters.api import Api
from skep.worker.engine.docker.adapters.docker import DockerEngine, Setting
from skep.worker.engine.docker.adapters.files import Places, let_go_of_memory
from skep.worker.engine.docker.core.create import Owner
from skep.worker.engine.network import KERNEL, TaskNetwork
from skep.worker.engine.protocol import Exit, Held, NodeFacts
from skep.worker.supplies import Supplies
from tests.support.dockerd import BUSYBOX, Dockerd

NODE = NodeFacts(node_id="n1", hostname="host-1", address="127.9.0.1", arch="x86_64")
DEADLINE_S = 30.0
ADDRESS = "10.55.0.7"


class Namespaces(TaskNetwork):
    """A network that is a namespace and nothing more, and who is in it."""

    def __init__(self, env: Env, plane: str = KERNEL) -> None:
        super().__init__(env, "", plane)
        self.prefix = f"skt-{secrets.token_hex(3)}"
        self.attached: set[str] = set()
        self.cgroup = ""

    async def attach(self, assignment: Assignment) -> AttachResponse:
        task_id = assignment.task.id
        if task_id not in self.attached:
            self._ip("netns", "add", f"{self.prefix}-{task_id}")
            self._ip("-n", f"{self.prefix}-{task_id}", "link", "set", "lo", "up")
            self._ip(
                *("-n", f"{self.prefix}-{task_id}", "addr", "add", f"{ADDRESS}/32", "dev", "lo")
            )
        self.attached.add(task_id)
        return AttachResponse(
            namespace=f"/run/netns/{self.prefix}-{task_id}",
            cgroup=self.cgroup,
            address="0.0.0.0",
            vips=(("db", "10.9.9.9"),),
        )

    async def detach(self, task_id: TaskId) -> None:
        if task_id in self.attached:
            self.attached.discard(task_id)
            self._ip("netns", "del", f"{self.prefix}-{task_id}")

    def take_over(self, live: Iterable[TaskId], engine: str = PROCESS) -> None:
        self.live = set(live)

    @staticmethod
    def _ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)


def new_env() -> Env:
    unused: Any = None
    dice = Random(1)
    return Env("n1", LoopClock(), dice, DiceIds(dice), LoopSpawn(), unused, unused)


def assignment(
    task_id: str,
    *command: str,
    image: str = BUSYBOX,
    health: HealthCheck | None = None,
    limits: Resources | None = None,
    grace_s: float = 0.2,
    on_network: bool = False,
    container: ContainerSpec | None = None,
    **run: Any,
) -> Assignment:
    """A task of the service "web"; on no network but the loopback device unless `on_network`."""
    spec = RunSpec(
        image=image,
        args=command,
        health=health,
        stop_grace_ns=int(grace_s * SECOND_NS),
        container=container or ContainerSpec(network_mode="" if on_network else "none"),
        **run,
    )
    attached = (Attachment(network_id=NetworkId("net"), address=ADDRESS),) if on_network else ()
    return Assignment(
        task=Task(
            id=TaskId(task_id),
            service_id=ServiceId("s1"),
            service_name="web",
            revision=1,
            slot=3,
            address="127.9.16.1",
            status=TaskStatus(state=TaskState.ASSIGNED),
            attachments=attached,
        ),
        spec=ServiceSpec(
            name="web",
            task=TaskSpec(run=spec, engine="docker", limits=limits or Resources()),
        ),
    )


class Bench:
    """An engine of node n1 on a folder of its own."""

    def __init__(self, root: Path, dockerd: Dockerd, plane: str = KERNEL) -> None:
        self.env = new_env()
        self.dockerd = dockerd
        # Of this bench alone: others may share the dockerd.
        self.node_id = f"n1{secrets.token_hex(4)}"
        self.places = Places(root / "containers", self.node_id)
        self.network = Namespaces(self.env, plane)
        self.supplies = Supplies()
        self.engine = self._engine()

    def _engine(self) -> DockerEngine:
        owner = Owner(self.node_id, "cluster")
        setting = Setting(owner, self.places, self.network, self.supplies)
        return DockerEngine(self.env, Api(self.env, self.dockerd.url), setting)

    async def run(self, task_id: str, *command: str, **more: Any) -> TaskId:
        """Prepare and start a task."""
        await self.engine.prepare(assignment(task_id, *command, **more), NODE)
        await self.engine.start(TaskId(task_id))
        return TaskId(task_id)

    def renew(self) -> None:
        """Another engine, over the same folder."""
        self.engine = self._engine()

    async def restart(self) -> list[Held]:
        """The agent dies and another one comes up."""
        await self.engine.close()
        self.renew()
        return list(await self.engine.held())

    def give(self, name: str, data: bytes, kind: FileKind = FileKind.CONFIG) -> None:
        """The leader sends a config or a secret; its id is its name."""
        self.supplies.give([GivenFile(id=name, name=name, kind=kind, data=data)], ())

    async def ended(self, task_id: str) -> Exit:
        """How a task ends, soon."""
        async with asyncio.timeout(DEADLINE_S):
            return await self.engine.wait(TaskId(task_id))

    def name(self, task_id: str) -> str:
        """That of a task's container."""
        return f"web.3.{task_id}"

    def output(self, task_id: str) -> str:
        """What a task's container has written, without the headers of its parts."""
        connection = self.dockerd.open()
        try:
            connection.request("GET", f"/containers/{self.name(task_id)}/logs?stdout=1&stderr=1")
            data = connection.getresponse().read()
        finally:
            connection.close()
        found = b""
        while data:
            size = int.from_bytes(data[4:8], "big")
            found += data[8 : 8 + size]
            data = data[8 + size :]
        return found.decode(errors="replace")

    async def output_has(self, task_id: str, text: str) -> str:
        """The output, once it has this."""
        await eventually(lambda: text in self.output(task_id))
        return self.output(task_id)

    def ours(self) -> list[str]:
        """The names of this node's containers."""
        return [
            each["Names"][0].lstrip("/")
            for each in self.dockerd.containers()
            if each["Labels"].get("io.skep.node") == self.node_id
        ]


@contextlib.asynccontextmanager
async def bench(root: Path, dockerd: Dockerd, **more: Any) -> AsyncIterator[Bench]:
    made = Bench(root, dockerd, **more)
    try:
        yield made
    finally:
        await made.engine.close()
        dockerd.start()
        dockerd.clear()
        for task_id in list(made.network.attached):
            await made.network.detach(TaskId(task_id))
        let_go_of_memory(made.places.secrets)


def on_bench(
    root: Path, dockerd: Dockerd, body: Callable[[Bench], Coroutine[Any, Any, None]], **more: Any
) -> None:
    """Run `body` with an engine on a loop of its own; nothing it made is left after."""

    async def whole() -> None:
        async with asyncio.timeout(DEADLINE_S * 4):
            async with bench(root, dockerd, **more) as made:
                await body(made)

    asyncio.run(whole())


async def eventually(holds: Callable[[], bool], within_s: float = DEADLINE_S) -> None:
    """Look again and again until something holds."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "it never came"
        await asyncio.sleep(0.01)
