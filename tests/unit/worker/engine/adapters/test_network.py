"""Tasks of the process engine and the netproxy that connects them. The netproxy is a stand-in that
speaks the real protocol on a real socket; namespaces and mounts are the kernel's."""

from __future__ import annotations

import asyncio
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from skep.api import codec
from skep.domain.attach import (
    AttachDone,
    AttachRequest,
    AttachResponse,
    DetachRequest,
    HoldRequest,
)
from skep.domain.base import NetworkId, NodeId, TaskId, replace
from skep.domain.objects import Attachment
from skep.domain.session import Assignment
from skep.domain.spec import HealthCheck
from skep.env import CallError, Code, RealDisk, Rejected, Retryable, Service, real_env
from skep.rpc import GrpcTransport
from skep.worker.engine.adapters.process import ProcessEngine
from skep.worker.engine.network import TaskNetwork
from tests.unit.worker.engine.adapters.workbench import GROUP, NODE, assignment

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and mounts need root")


class Netproxy:
    """What it was asked, and what it says."""

    def __init__(self) -> None:
        self.answer = AttachResponse()
        self.refusal: CallError | None = None
        self.said: list[object] = []
        self.news = asyncio.Condition()

    def service(self) -> Service:
        async def attach(data: bytes) -> bytes:
            if self.refusal is not None:
                raise self.refusal
            self.said.append(codec.decode(AttachRequest, data))
            return codec.encode(self.answer)

        async def detach(data: bytes) -> bytes:
            if self.refusal is not None:
                raise self.refusal
            async with self.news:
                self.said.append(codec.decode(DetachRequest, data).task_id)
                self.news.notify_all()
            return codec.encode(AttachDone(node_id=NodeId("n1")))

        async def hold(data: bytes) -> bytes:
            async with self.news:
                self.said.append(codec.decode(HoldRequest, data).task_ids)
                self.news.notify_all()
            return codec.encode(AttachDone(node_id=NodeId("n1")))

        calls = {"Attach": attach, "Detach": detach, "Hold": hold}
        return Service({f"skep.v1.Attach/{name}": call for name, call in calls.items()})


def on_network(task_id: str, *command: str) -> Assignment:
    made = assignment(task_id, *command)
    attached = (Attachment(network_id=NetworkId("x"), address="10.0.0.3"),)
    return replace(made, task=replace(made.task, attachments=attached))


def in_life(tmp_path: Path, live: object, plane: str = "relay") -> None:
    """Run `live(engine, netproxy)` with an engine whose netproxy is the stand-in."""

    async def go() -> None:
        netproxy = Netproxy()
        address = f"unix:/tmp/skt-{uuid.uuid4().hex[:8]}.sock"
        listener = await GrpcTransport().listen(address, netproxy.service())
        env = real_env("n1", GrpcTransport(), RealDisk(tmp_path / "disk"))
        engine = ProcessEngine(tmp_path / "tasks", env, GROUP, TaskNetwork(env, address, plane))
        try:
            async with asyncio.timeout(20):
                await live(engine, netproxy)  # type: ignore[operator]
        finally:
            for held in await engine.held():
                await engine.stop(held.task_id)
            await engine.close()
            await listener.close()
            Path(address.removeprefix("unix:")).unlink(missing_ok=True)

    asyncio.run(go())


async def output_of(engine: ProcessEngine, tmp_path: Path, made: Assignment) -> str:
    task_id = TaskId(made.task.id)
    await engine.prepare(made, NODE)
    await engine.start(task_id)
    ended = await engine.wait(task_id)
    errors = (tmp_path / "tasks" / task_id / "stderr").read_text()
    assert ended.exit_code == 0, errors
    return (tmp_path / "tasks" / task_id / "stdout").read_text()


@needs_root
def test_a_task_has_names_of_its_own(tmp_path: Path) -> None:
    async def live(engine: ProcessEngine, netproxy: Netproxy) -> None:
        netproxy.answer = AttachResponse(
            resolv_conf="nameserver 127.33.255.0\n",
            hosts="10.0.0.3\tweb.3\n",
            dns="127.33.255.0:53",
        )
        made = on_network("t1", "sh", "-c", "cat /etc/resolv.conf /etc/hosts; echo $SKEP_DNS")
        assert await output_of(engine, tmp_path, made) == (
            "nameserver 127.33.255.0\n10.0.0.3\tweb.3\n127.33.255.0:53\n"
        )
        asked, gone = netproxy.said
        assert isinstance(asked, AttachRequest)
        assert asked.attachments == made.task.attachments
        assert asked.hostname == "web.3.t1"
        assert gone == "t1", "an ended task's address may be another's"
        assert "nameserver 127.33.255.0" not in Path("/etc/resolv.conf").read_text()

    in_life(tmp_path, live)


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"skt-{uuid.uuid4().hex[:8]}"
    subprocess.run(("ip", "netns", "add", name), check=True)
    yield f"/run/netns/{name}"
    subprocess.run(("ip", "netns", "delete", name), check=True)


@needs_root
def test_a_task_and_its_probes_run_in_its_namespace(tmp_path: Path, namespace: str) -> None:
    mine = "readlink /proc/self/ns/net"
    expected = f"net:[{Path(namespace).stat().st_ino}]"

    async def live(engine: ProcessEngine, netproxy: Netproxy) -> None:
        netproxy.answer = AttachResponse(namespace=namespace, address="0.0.0.0")
        made = assignment("t1", "sh", "-c", f"{mine}; echo $SKEP_TASK_ADDRESS; exec sleep 60")
        await engine.prepare(made, NODE)
        await engine.start(TaskId("t1"))
        test = HealthCheck(test=("CMD-SHELL", f'test "$({mine})" = "{expected}"'))
        assert await engine.probe(TaskId("t1"), test) is None
        output = tmp_path / "tasks" / "t1" / "stdout"
        while len(output.read_text().splitlines()) < 2:  # noqa: ASYNC110 - bounded by the life
            await asyncio.sleep(0.01)
        assert output.read_text().splitlines() == [expected, "0.0.0.0"]

    in_life(tmp_path, live, plane="kernel")


def test_without_networks_the_relay_plane_asks_nobody(tmp_path: Path) -> None:
    async def live(engine: ProcessEngine, netproxy: Netproxy) -> None:
        netproxy.refusal = CallError(Code.UNAVAILABLE, "nobody is to ask")
        assert await output_of(engine, tmp_path, assignment("t1", "echo", "hi")) == "hi\n"

    in_life(tmp_path, live)


def test_a_task_waits_for_a_netproxy_that_knows_its_networks(tmp_path: Path) -> None:
    async def live(engine: ProcessEngine, netproxy: Netproxy) -> None:
        netproxy.refusal = CallError(Code.UNAVAILABLE, "network x is not known on this node yet")
        with pytest.raises(Retryable, match="network x is not known"):
            await engine.prepare(on_network("t1", "echo", "hi"), NODE)
        netproxy.refusal = None
        assert await output_of(engine, tmp_path, on_network("t1", "echo", "hi")) == "hi\n"

    in_life(tmp_path, live)


def test_virtual_addresses_are_asked_for_by_name(tmp_path: Path) -> None:
    async def live(engine: ProcessEngine, netproxy: Netproxy) -> None:
        netproxy.answer = AttachResponse(vips=(("db", "127.33.0.7"),))
        made = on_network("t1", "echo", '{{vip "db"}}')
        assert await output_of(engine, tmp_path, made) == "127.33.0.7\n"
        asked = netproxy.said[0]
        assert isinstance(asked, AttachRequest)
        assert asked.names == ("db",)

    in_life(tmp_path, live)


def test_a_new_agent_says_which_tasks_there_are(tmp_path: Path) -> None:
    async def live(engine: ProcessEngine, netproxy: Netproxy) -> None:
        await engine.prepare(on_network("t1", "sleep", "60"), NODE)
        await engine.start(TaskId("t1"))
        await engine.held()
        async with netproxy.news:
            await netproxy.news.wait_for(lambda: ("t1",) in netproxy.said)

    in_life(tmp_path, live)


def test_what_could_not_be_prepared_is_detached(tmp_path: Path) -> None:
    async def live(engine: ProcessEngine, netproxy: Netproxy) -> None:
        with pytest.raises(Rejected):
            await engine.prepare(on_network("t1", "/no/such/program"), NODE)
        async with netproxy.news:
            await netproxy.news.wait_for(lambda: "t1" in netproxy.said)

    in_life(tmp_path, live)


def test_a_task_that_is_stopped_before_it_starts_is_detached(tmp_path: Path) -> None:
    async def live(engine: ProcessEngine, netproxy: Netproxy) -> None:
        await engine.prepare(on_network("t1", "sleep", "60"), NODE)
        await engine.stop(TaskId("t1"))
        assert netproxy.said[-1] == "t1"
        await engine.remove(TaskId("t1"))

    in_life(tmp_path, live)


def test_a_detach_that_was_not_heard_is_made_up_for(tmp_path: Path) -> None:
    async def live(engine: ProcessEngine, netproxy: Netproxy) -> None:
        await engine.held()
        await engine.prepare(on_network("t1", "sleep", "60"), NODE)
        netproxy.refusal = CallError(Code.UNAVAILABLE, "busy")
        await engine.stop(TaskId("t1"))
        netproxy.refusal = None
        async with netproxy.news:
            await netproxy.news.wait_for(lambda: () in netproxy.said)

    in_life(tmp_path, live)


def test_nothing_is_taken_away_before_it_is_known_which_tasks_live(tmp_path: Path) -> None:
    """An agent that has just started knows of one that has ended before it knows of the rest."""

    async def live(engine: ProcessEngine, netproxy: Netproxy) -> None:
        await engine.prepare(on_network("t1", "sleep", "60"), NODE)
        netproxy.refusal = CallError(Code.UNAVAILABLE, "busy")
        await engine.stop(TaskId("t1"))
        netproxy.refusal = None
        await engine.prepare(on_network("t2", "sleep", "60"), NODE)
        assert not [said for said in netproxy.said if isinstance(said, tuple)]
        await engine.held()
        async with netproxy.news:
            await netproxy.news.wait_for(lambda: ("t1", "t2") in netproxy.said)

    in_life(tmp_path, live)
