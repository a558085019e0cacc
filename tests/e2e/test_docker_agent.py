"""An agent with a Docker engine: as a process of its own, and what it tells of the engine."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from skep.domain.base import SECOND_NS, TaskId
from skep.domain.session import FileKind, GivenFile
from skep.domain.spec import HealthCheck
from skep.domain.states import DesiredState, TaskState
from skep.domain.storage import FileUse
from skep.env import RealDisk, real_env
from skep.rpc import GrpcTransport
from skep.worker.adapters import dockernotes
from skep.worker.adapters.dockernotes import docker_notes, follow_docker
from skep.worker.engine.docker.adapters import api
from skep.worker.engine.docker.adapters.files import RUN_FOLDER, let_go_of_memory
from skep.worker.engine.docker.core.notes import DockerNotes
from tests.e2e.dockerbench import Bench, assignment, eventually, on_bench
from tests.support.dockerd import BUSYBOX, Dockerd, dockerd, why_not
from tests.unit.worker.fakes import FakeLeader
from tests.unit.worker.test_main import process, until

pytestmark = pytest.mark.process

NODE_ID = "w1dockeragent"
FAST = HealthCheck(interval_ns=SECOND_NS // 10)


@pytest.fixture(scope="module")
def docker() -> Iterator[Dockerd]:
    if reason := why_not():
        pytest.skip(reason)
    with dockerd() as made:
        check = 'HEALTHCHECK CMD ["test", "-e", "/run/secrets/pw"]'
        made.build_image("skep-test/checked:1", f"FROM {BUSYBOX}", check)
        yield made


def test_containers_outlive_their_agent_and_are_adopted(tmp_path: Path, docker: Dockerd) -> None:
    async def body() -> None:
        disk = RealDisk(tmp_path / "leader")
        leader = FakeLeader(real_env("m1", GrpcTransport(), disk), "127.0.0.1:0")
        secret = FileUse(name="pw", id="pw")
        leader.files = {"pw": GivenFile(id="pw", name="pw", kind=FileKind.SECRET, data=b"secret\n")}
        wanted = [
            assignment(
                *("t1", "sleep", "1000"),
                image="skep-test/checked:1",
                health=FAST,
                secrets=(secret,),
            ),
            assignment("t2", "sleep", "1000"),
            assignment("t3", "/nosuch"),
        ]
        leader.assignments = {each.task.id: each for each in wanted}
        listener = await leader.serve()
        settings = {"managers": [listener.address], "node_id": NODE_ID, "docker": docker.url}
        with process(tmp_path, **settings) as agent:
            agent.start()
            for name in ("t1", "t2"):
                await until(name, functools.partial(leader.is_in, name, TaskState.RUNNING))
            assert leader.stored[TaskId("t1")].message == "healthy"
            description = leader.hellos[-1].description
            assert description.engines == ("process", "docker")
            notes = dict(description.notes)
            assert notes["docker.runtime"].startswith("skep: ")
            await until("t3 failed", lambda: leader.state("t3") is TaskState.FAILED)
            status = leader.stored[TaskId("t3")]
            assert status.error == 'no program "/nosuch" in its image (exit code 127)'

            ids = [docker.inspect(f"web.3.{name}")["Id"] for name in ("t1", "t2")]
            agent.end(signal.SIGKILL)
            await until("noticed", lambda: not leader.has_session)
            agent.start()
            await until("back", lambda: leader.has_session)
            docker.call("DELETE", "/containers/web.3.t2?force=1")
            await until("t2 failed", lambda: leader.state("t2") is TaskState.FAILED)
            assert leader.stored[TaskId("t2")].exit_code == 137
            assert leader.stored[TaskId("t2")].error.startswith("task: non-zero exit (137)")
            assert docker.inspect("web.3.t1")["Id"] == ids[0]
            assert leader.state("t1") is TaskState.RUNNING

            for name in ("t1", "t2", "t3"):
                await leader.want(name, DesiredState.REMOVE)
            await until("t1 stopped", lambda: leader.state("t1") is TaskState.SHUTDOWN)
            await until("removed", lambda: docker.containers() == [])
            assert list((RUN_FOLDER / NODE_ID / "secrets").iterdir()) == []
            agent.end(signal.SIGTERM)
        assert leader.problems == []
        await listener.close()
        disk.close()

    try:
        asyncio.run(body())
    finally:
        docker.clear()
        let_go_of_memory(RUN_FOLDER / NODE_ID / "secrets")


def test_an_engine_that_stays_away_is_taken_out_until_it_is_back(
    tmp_path: Path, docker: Dockerd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dockernotes, "PERIOD_S", 0.02)
    monkeypatch.setattr(dockernotes, "AWAY_S", 0.5)
    monkeypatch.setattr(api, "LOOK_DEADLINE_S", 0.5)

    async def body(bench: Bench) -> None:
        told: list[DockerNotes] = []
        await bench.engine.held()
        first = await docker_notes(bench.engine)
        assert first.engines == ("docker",)
        following = asyncio.create_task(follow_docker(bench.env, bench.engine, first, told.append))

        def is_last(*engines: str) -> bool:
            return bool(told) and told[-1].engines == engines

        # A short absence costs nothing.
        docker.kill(signal.SIGKILL)
        docker.start()
        await eventually(lambda: bench.engine.watch.gone_since is None)
        assert told == []

        docker.kill(signal.SIGKILL)
        await eventually(is_last)
        assert "the Docker engine does not answer at unix:" in dict(told[-1].notes)["docker"]
        docker.start()
        await eventually(lambda: is_last("docker"))
        assert told[-1] == first

        # One that hangs is as good as none.
        docker.pause()
        await eventually(is_last)
        docker.resume()
        await eventually(lambda: is_last("docker"))
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following

    try:
        on_bench(tmp_path, docker, body)
    finally:
        docker.resume()
