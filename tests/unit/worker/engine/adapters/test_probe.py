"""Health tests as real processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path

import pytest

from skep.domain.base import SECOND_NS, TaskId
from skep.domain.spec import HealthCheck, Resources
from tests.unit.worker.engine.adapters.workbench import Bench, eventually, on_bench

pytestmark = pytest.mark.process
T1 = TaskId("t1")


def check(*test: str, timeout_s: float = 10.0) -> HealthCheck:
    return HealthCheck(test=test, timeout_ns=int(timeout_s * SECOND_NS))


async def running(bench: Bench, **more: object) -> None:
    await bench.run("t1", "sleep", "1000", env=(("BENCH", str(bench.root)),), **more)
    # Its shim and itself: an environment can't be read while a process becomes another program.
    await eventually(lambda: len(bench.alive()) == 2)


@pytest.mark.parametrize(
    ("test", "said"),
    [
        (("CMD", "true"), None),
        (("CMD", "sh", "-c", "test {{.Task.Address}} = 127.9.16.1"), None),
        (("CMD-SHELL", "echo fine; exit 0"), None),
        (("CMD-SHELL", "test $SKEP_TASK_SLOT = 3 && test $(pwd) = /usr"), None),
        (("NONE",), None),
        (("CMD", "false"), "exit code 1"),
        (("CMD-SHELL", "echo out; echo err >&2; exit 3"), "out\nerr"),
        (("CMD-SHELL", "kill -9 $$"), "it was killed by a signal"),
        (("CMD", "no-such-program"), "no-such-program: No such file or directory"),
    ],
)
def test_what_a_test_says(tmp_path: Path, test: tuple[str, ...], said: str | None) -> None:
    async def body(bench: Bench) -> None:
        await running(bench, working_dir="/usr")
        assert await bench.engine.probe(T1, check(*test)) == said

    on_bench(tmp_path, body)


def test_a_test_that_takes_too_long_is_killed_wholly(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        await running(bench)
        before = len(bench.alive())
        line = "echo wait; trap '' TERM; sleep 1000 & sleep 1000"
        began = time.monotonic()
        said = await bench.engine.probe(T1, check("CMD-SHELL", line, timeout_s=0.3))
        assert said == "no answer within 0.3 s: wait"
        assert time.monotonic() - began < 5
        await eventually(lambda: len(bench.alive()) == before)

    on_bench(tmp_path, body)


def test_a_test_that_is_given_up_is_killed(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        await running(bench)
        before = len(bench.alive())
        for turns in (0, 1, 5, 10_000):
            probing = asyncio.ensure_future(bench.engine.probe(T1, check("CMD", "sleep", "1000")))
            for _ in range(turns):
                await asyncio.sleep(0)
            probing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await probing
        await eventually(lambda: len(bench.alive()) == before)
        await bench.engine.stop(T1)
        assert await bench.engine.probe(T1, check("CMD", "true")) == "the task is not running"

    on_bench(tmp_path, body)


def test_a_test_that_talks_without_end(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        await running(bench)
        said = await bench.engine.probe(T1, check("CMD", "yes", timeout_s=0.2))
        assert said is not None
        assert said.startswith("no answer within 0.2 s: y\ny\n")
        assert len(said) < 500
        # Its output closed, it is waited for without turning the loop round and round.
        line = "exec >&- 2>&-; sleep 0.2"
        busy = time.process_time()
        assert await bench.engine.probe(T1, check("CMD-SHELL", line)) is None
        assert time.process_time() - busy < 0.15
        # A child that keeps the output open holds nothing up.
        began = time.monotonic()
        assert await bench.engine.probe(T1, check("CMD-SHELL", "sleep 1000 & exit 0")) is None
        assert time.monotonic() - began < 5

    on_bench(tmp_path, body)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run tasks as others")
def test_a_test_runs_as_the_task_does(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        limits = Resources(pids=20)
        await running(bench, user="nobody", limits=limits)
        line = "id -un; cat /proc/self/cgroup; exit 1"
        said = await bench.engine.probe(T1, check("CMD-SHELL", line))
        assert said is not None
        if "cgroup" in dict(bench.engine.notes)["process.limits"]:
            assert "/t1" in said
        line = "test $(id -un) = nobody"
        assert await bench.engine.probe(T1, check("CMD-SHELL", line)) is None

    on_bench(tmp_path, body)
