"""Programs run inside containers of a real Docker engine."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from skep.domain.base import TaskId
from skep.domain.control import LogStream
from skep.domain.execution import ExecSpec, TerminalSize
from skep.env import Rejected
from skep.netproxy.kernel.adapters import cgroup
from skep.worker.engine.protocol import Execution
from tests.e2e.dockerbench import Bench, eventually, on_bench
from tests.support.dockerd import Dockerd, dockerd, why_not
from tests.support.local_cluster import is_alive

pytestmark = pytest.mark.process

T1 = TaskId("t1")
SLEEP = ("sleep", "1000")


@pytest.fixture(scope="module")
def docker() -> Iterator[Dockerd]:
    if reason := why_not():
        pytest.skip(reason)
    with dockerd() as made:
        yield made


async def whole(running: Execution) -> tuple[int | None, bytes, bytes]:
    """Exit code, stdout and stderr."""
    parts = {stream: b"" for stream in LogStream}
    while (told := await running.receive()).exit_code is None:
        assert not told.problem
        parts[told.stream] += told.data
    await running.close()
    return told.exit_code, parts[LogStream.STDOUT], parts[LogStream.STDERR]


def test_what_it_says_and_how_it_ends(tmp_path: Path, docker: Dockerd) -> None:
    async def body(bench: Bench) -> None:
        await bench.run("t1", *SLEEP, env=(("WORD", "task"),))
        line = "echo $WORD $MORE; pwd; id -u; echo oops >&2; exit 7"
        spec = ExecSpec(
            argv=("sh", "-c", line), user="65534", working_dir="/tmp", env=(("MORE", "more"),)
        )
        found = await whole(await bench.engine.exec(T1, spec))
        assert found == (7, b"task more\n/tmp\n65534\n", b"oops\n")
        code, said, _ = await whole(await bench.engine.exec(T1, ExecSpec(argv=("nope",))))
        assert code in (126, 127)
        assert b"nope" in said

    on_bench(tmp_path, docker, body)


def test_its_input_and_the_end_of_it(tmp_path: Path, docker: Dockerd) -> None:
    async def body(bench: Bench) -> None:
        await bench.run("t1", *SLEEP)
        given = os.urandom(1 << 20)
        running = await bench.engine.exec(T1, ExecSpec(argv=("cat",), has_input=True))
        reading = asyncio.ensure_future(whole(running))
        await running.send(given)
        await running.end_input()
        code, said, _ = await reading
        assert code == 0
        assert said == given

    on_bench(tmp_path, docker, body)


def test_a_terminal(tmp_path: Path, docker: Dockerd) -> None:
    async def body(bench: Bench) -> None:
        await bench.run("t1", *SLEEP)
        size = TerminalSize(rows=33, columns=77)
        spec = ExecSpec(argv=("sh",), is_tty=True, has_input=True, size=size)
        running = await bench.engine.exec(T1, spec)
        await running.send(b"stty size; exit 5\n")
        code, said, _ = await whole(running)
        assert code == 5
        assert b"33 77" in said

    on_bench(tmp_path, docker, body)


def test_who_lets_go_of_it_ends_it(tmp_path: Path, docker: Dockerd) -> None:
    async def body(bench: Bench) -> None:
        await bench.run("t1", *SLEEP)
        running = await bench.engine.exec(T1, ExecSpec(argv=("sh", "-c", "echo up; sleep 999")))
        assert (await running.receive()).data == b"up\n"
        top = docker.inspect("web.3.t1")
        pid = top["State"]["Pid"]
        before = children(pid)
        assert len(before) > 1
        await running.close()
        await eventually(lambda: len(children(pid)) < len(before))
        assert is_alive(pid)
        await running.close()

    on_bench(tmp_path, docker, body)


def test_a_task_that_doesn_t_run_runs_nothing_else(tmp_path: Path, docker: Dockerd) -> None:
    async def body(bench: Bench) -> None:
        await bench.run("t1", "true")
        await bench.ended("t1")
        with pytest.raises(Rejected, match="is not running"):
            await bench.engine.exec(T1, ExecSpec(argv=("true",)))

    on_bench(tmp_path, docker, body)


def children(pid: int) -> list[int]:
    """The processes in the pid namespace of this one."""
    own = os.readlink(f"/proc/{pid}/ns/pid")
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.readlink(entry / "ns/pid") == own:
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def test_all_that_runs_in_it_is_below_the_control_group_of_its_network(
    tmp_path: Path, docker: Dockerd
) -> None:
    root = cgroup.root()
    if root is None:
        pytest.skip("no control groups of version 2 here")
    name = f"skt-{os.getpid()}"

    async def body(bench: Bench) -> None:
        bench.network.cgroup = str(root / name / "tasks")
        await bench.run("t1", *SLEEP, on_network=True)
        pid = docker.inspect("web.3.t1")["State"]["Pid"]
        below = f"0::/{name}/containers/"
        assert below in Path(f"/proc/{pid}/cgroup").read_text()
        running = await bench.engine.exec(T1, ExecSpec(argv=("sh", "-c", "echo up; sleep 999")))
        assert (await running.receive()).data == b"up\n"
        inside = children(pid)
        assert len(inside) > 1
        for each in inside:
            # From here: inside a container, its own group is the root of all.
            assert below in Path(f"/proc/{each}/cgroup").read_text()
        await running.close()
        await bench.engine.stop(T1)
        await bench.engine.remove(T1)
        assert [path for path in Path("/sys/fs/cgroup").glob(f"**/{name}")] == []

    on_bench(tmp_path, docker, body)
