"""A real agent, a real Docker engine and a registry with logins: from a pull to a task's end."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from skep.api import codec
from skep.domain.base import TaskId, replace
from skep.domain.control import LogEvent
from skep.domain.objects import TaskStatus
from skep.domain.session import (
    Assignment,
    GivenLogin,
    LeaderMessage,
    LogMessage,
    LogOrder,
    LogWanted,
)
from skep.domain.states import DesiredState, TaskState
from skep.env import RealDisk, Stream, real_env
from skep.rpc import GrpcTransport
from tests.e2e.dockerbench import assignment
from tests.support.dockerd import Dockerd, dockerd, why_not
from tests.support.images import make_image
from tests.support.registry import Registry, serving
from tests.unit.worker.fakes import FakeLeader
from tests.unit.worker.test_main import Process, process, until

pytestmark = pytest.mark.process

T1 = TaskId("t1")
SCRIPT = "echo ready; exec sleep 1000"


@pytest.fixture(scope="module")
def docker() -> Iterator[Dockerd]:
    if reason := why_not():
        pytest.skip(reason)
    with dockerd() as made:
        yield made


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def scraped(port: int) -> list[str]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return [line for line in answer.read().decode().splitlines() if line[:1] != "#"]


def assigned(of: Assignment) -> Assignment:
    return replace(of, task=replace(of.task, status=TaskStatus(state=TaskState.ASSIGNED)))


def message(leader: FakeLeader) -> str:
    status = leader.stored.get(T1)
    return status.message if status else ""


def test_from_a_login_that_is_missing_to_a_containers_figures_and_output(
    tmp_path: Path, docker: Dockerd
) -> None:
    registry = Registry(auth="token", users={"keeper": "honey"})
    image = make_image({"big": os.urandom(4_000_000)}, Cmd=["sh", "-c", SCRIPT])
    metrics = free_port()

    async def follow(leader: FakeLeader, agent: Process) -> None:
        await until("a login is missed", lambda: "needs a login: skep" in message(leader))
        assert "skep registry login 127.0.0.1:" in message(leader)
        registry.bytes_per_s = 1_000_000
        leader.logins = (GivenLogin(server=registry.server, username="keeper", password="honey"),)
        await leader.hang_up()
        await until("how far it is is told", lambda: "% of 5." in message(leader))
        await until("it runs", lambda: leader.is_in("t1", TaskState.RUNNING))
        record = json.loads((tmp_path / "agent" / "images.json").read_text())
        assert [each["id"] for each in record["images"]] == [image.id]
        lines = await asyncio.to_thread(scraped, metrics)
        labels = '{service="web",slot="3",task="t1"}'
        figures = dict(line.rsplit(" ", 1) for line in lines if labels in line)
        assert float(figures[f"skep_task_memory_bytes{labels}"]) > 0
        assert float(figures[f"skep_task_pids{labels}"]) == 1
        assert "honey" not in agent.log

    async def body() -> None:
        disk = RealDisk(tmp_path / "leader")
        leader = FakeLeader(real_env("m1", GrpcTransport(), disk), "127.0.0.1:0")
        output = bytearray()

        async def publish(stream: Stream) -> None:
            while (frame := await stream.receive()) is not None:
                page = codec.decode(LogMessage, frame).page
                for line in codec.decode(LogEvent, page.lines).lines if page else ():
                    output.extend(line.text)

        leader.extra_streams["skep.v1.Workers/PublishLogs"] = publish
        async with serving(registry):
            name = registry.put("team/web", "1", image)
            leader.assignments = {T1: assigned(assignment("t1", image=name))}
            listener = await leader.serve()
            changes = {"docker": docker.url, "metrics": f"127.0.0.1:{metrics}"}
            with process(tmp_path, managers=[listener.address], **changes) as agent:
                agent.start()
                await follow(leader, agent)
                order = LogOrder(order_id="o1", tasks=(LogWanted(task_id=T1),), is_follow=True)
                await leader.send(LeaderMessage(logs=order))
                await until("its output comes", lambda: bytes(output) == b"ready")
                await leader.want("t1", DesiredState.REMOVE)
                await until("it ends", lambda: leader.is_in("t1", TaskState.SHUTDOWN))
                await until("it is removed", lambda: docker.containers() == [])
            await listener.close()
        assert leader.problems == []
        disk.close()

    asyncio.run(body())
