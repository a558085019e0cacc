"""A process engine on a folder of its own, and words for what tests do with it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from skep.domain.base import SECOND_NS, Pairs, ServiceId, TaskId
from skep.domain.objects import Task
from skep.domain.session import Assignment
from skep.domain.spec import LogPolicy, Resources, RunSpec, ServiceSpec, TaskSpec
from skep.env import DiceIds, Env, LoopClock, LoopSpawn, Random
from skep.worker.engine.adapters import files, proc
from skep.worker.engine.adapters.process import ProcessEngine
from skep.worker.engine.core.records import MainProcess
from skep.worker.engine.protocol import NodeFacts

NODE = NodeFacts(node_id="n1", hostname="host-1", address="127.9.0.1")
DEADLINE_S = 20.0
# Of this process and nobody else, so that tests can run side by side.
GROUP = f"test-{os.getpid()}"


class Unused:
    """A seam that the engine has no business with."""

    def __getattr__(self, name: str) -> NoReturn:
        raise AssertionError(f"the engine used {name}")


def new_env() -> Env:
    unused: Any = Unused()
    dice = Random(1)
    return Env("n1", LoopClock(), dice, DiceIds(dice), LoopSpawn(), unused, unused)


def assignment(
    task_id: str,
    *command: str,
    env: Pairs = (),
    user: str = "",
    working_dir: str = "",
    stop_signal: str = "SIGTERM",
    grace_s: float = 10.0,
    limits: Resources | None = None,
    log: LogPolicy | None = None,
) -> Assignment:
    run = RunSpec(
        command=command,
        env=env,
        user=user,
        working_dir=working_dir,
        stop_signal=stop_signal,
        stop_grace_ns=int(grace_s * SECOND_NS),
        log=log or LogPolicy(),
    )
    return Assignment(
        task=Task(
            id=TaskId(task_id),
            service_id=ServiceId("s1"),
            service_name="web",
            revision=1,
            slot=3,
            address="127.9.16.1",
        ),
        spec=ServiceSpec(name="web", task=TaskSpec(run=run, limits=limits or Resources())),
    )


@dataclass
class Bench:
    root: Path
    engine: ProcessEngine

    async def run(self, task_id: str, *command: str, **more: Any) -> TaskId:
        """Prepare and start a task."""
        await self.engine.prepare(assignment(task_id, *command, **more), NODE)
        await self.engine.start(TaskId(task_id))
        return TaskId(task_id)

    async def restart(self) -> None:
        """The agent dies and another one comes up over the same folder."""
        await self.engine.close()
        self.engine = ProcessEngine(self.root, new_env(), GROUP)

    def main(self, task_id: str) -> MainProcess:
        found = files.read_main(self.root / task_id)
        assert found is not None
        return found[0]

    def output(self, task_id: str, stream: str = "stdout") -> str:
        return (self.root / task_id / stream).read_text()

    def alive(self) -> list[str]:
        """The command lines of everything that any task of this bench has left running."""
        found = []
        for stat in proc.all_stats():
            with contextlib.suppress(OSError):
                environ = Path(f"/proc/{stat.pid}/environ").read_bytes()
                if stat.is_alive and f"BENCH={self.root}".encode() in environ:
                    found.append(Path(f"/proc/{stat.pid}/cmdline").read_text())
        return found


@contextlib.asynccontextmanager
async def bench(root: Path) -> AsyncIterator[Bench]:
    made = Bench(root, ProcessEngine(root, new_env(), GROUP))
    try:
        yield made
    finally:
        for held in await made.engine.held():
            if held.started is not None and held.exit is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(held.started.pid, signal.SIGKILL)
                await made.engine.wait(held.task_id)
        held_now = await made.engine.held()
        for held in held_now:
            await made.engine.remove(held.task_id)
        await made.engine.close()


def on_bench(root: Path, body: Callable[[Bench], Coroutine[Any, Any, None]]) -> None:
    """Run `body` with an engine on a loop of its own; nothing it started is left after."""

    async def whole() -> None:
        async with asyncio.timeout(DEADLINE_S * 3):
            async with bench(root) as made:
                await body(made)

    asyncio.run(whole())


async def eventually(holds: Callable[[], bool], within_s: float = DEADLINE_S) -> None:
    """Look again and again until something holds."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "it never came"
        await asyncio.sleep(0.005)
