"""The agent as a real process, with real tasks, over real gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from skep.domain.base import TaskId, replace
from skep.domain.session import Assignment
from skep.domain.states import DesiredState, TaskState
from skep.env import RealDisk, real_env
from skep.rpc import GrpcTransport
from tests.unit.worker.fakes import FakeLeader, assignment

# Starting a Python process with gRPC takes half a second on a quiet machine; CI is not quiet.
DEADLINE_S = 30.0
T1, T2 = TaskId("t1"), TaskId("t2")


def sleeper(task_id: str) -> Assignment:
    of = assignment(task_id)
    run = replace(of.spec.task.run, command=("sleep", "600"))
    return replace(of, spec=replace(of.spec, task=replace(of.spec.task, run=run)))


async def until(what: str, is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not is_true():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.01)


class Process:
    """`python -m skep.worker.main`, started and ended."""

    def __init__(self, folder: Path, **changes: object) -> None:
        self._config = folder / "agent.json"
        self._log = folder / "log"
        config = {
            "name": "w1",
            "node_id": "w1",
            "cluster_id": "cluster",
            "address": "127.0.0.1",
            "mesh": "127.0.0.1:1",
            "data_dir": str(folder / "agent"),
            "tasks_dir": str(folder / "tasks"),
            **changes,
        }
        self._config.write_text(json.dumps(config))
        self.running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.running = subprocess.Popen(
                [sys.executable, "-m", "skep.worker.main", "--config", str(self._config)],
                stdout=subprocess.DEVNULL,
                stderr=log,
            )

    def end(self, number: signal.Signals) -> int:
        assert self.running is not None
        self.running.send_signal(number)
        status = self.running.wait(DEADLINE_S)
        self.running = None
        return status

    def wait(self) -> int:
        assert self.running is not None
        return self.running.wait(DEADLINE_S)

    @property
    def log(self) -> str:
        return self._log.read_text()


@contextlib.contextmanager
def process(folder: Path, **changes: object) -> Iterator[Process]:
    of = Process(folder, **changes)
    try:
        yield of
    finally:
        if of.running is not None:
            of.running.kill()
            of.running.wait()


def is_alive(pid: int | None) -> bool:
    assert pid is not None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.process
def test_tasks_outlive_their_agent_and_are_adopted(tmp_path: Path) -> None:
    async def body() -> None:
        disk = RealDisk(tmp_path / "leader")
        leader = FakeLeader(real_env("m1", GrpcTransport(), disk), "127.0.0.1:0")
        leader.assignments = {T1: sleeper("t1"), T2: sleeper("t2")}
        listener = await leader.serve()
        with process(tmp_path, managers=[listener.address]) as agent:
            agent.start()
            for name in ("t1", "t2"):
                await until(name, functools.partial(leader.is_in, name, TaskState.RUNNING))
            pids = [leader.stored[T1].pid, leader.stored[T2].pid]
            assert agent.end(signal.SIGTERM) == 0
            assert is_alive(pids[0])

            os.kill(pids[1] or 0, signal.SIGKILL)
            await until("noticed", lambda: not leader.has_session)
            agent.start()
            await until("t2 failed", lambda: leader.state("t2") is TaskState.FAILED)
            assert leader.stored[T2].exit_code == 137
            assert leader.stored[T1].pid == pids[0]

            agent.end(signal.SIGKILL)
            await until("noticed", lambda: not leader.has_session)
            agent.start()
            await until("back", lambda: leader.has_session)
            await leader.want("t1", DesiredState.REMOVE)
            await until("t1 stopped", lambda: leader.state("t1") is TaskState.SHUTDOWN)
            assert not is_alive(pids[0])
            await until("removed", lambda: not (tmp_path / "tasks" / "t1").exists())
            agent.end(signal.SIGINT)
        assert "task=t1 from=running to=shutdown why=stopped" in agent.log
        assert leader.problems == []
        await listener.close()
        disk.close()

    asyncio.run(body())


@pytest.mark.process
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"managers": []}, "managers: at least one control address is needed"),
        ({"managers": ["127.0.0.1:1"], "metrics": "0.0.0.0:0"}, "a loopback address"),
        ({"managers": ["127.0.0.1:1"], "colour": "blue"}, "unknown field `colour`"),
    ],
)
def test_a_wrong_configuration_is_refused(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    with process(tmp_path, **changes) as agent:
        agent.start()
        assert agent.wait() == 2
        assert said in agent.log
