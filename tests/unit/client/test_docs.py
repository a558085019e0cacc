"""What docs/client.md shows runs as it stands, as one session, against managers in memory.

SKEP_DOCS_MANAGERS=HOST:PORT,... runs it against a real cluster instead.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pool, json_format, message_factory

from skep import client
from skep.api import codec, control_pb2
from skep.client import adapter_real
from skep.domain.control import (
    LogEvent,
    LogLine,
    LogsRequest,
    LogStream,
    ServiceView,
    WatchAction,
    WatchEvent,
    WatchRequest,
)
from skep.domain.objects import Service, Task
from skep.env import Channel, Listener, Stream
from skep.env import Service as Served
from tests.unit.client.fake import FakeChannel, FakeControl, FakeNetwork, FakeSeams, seams

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "client.md"
ADDRESSES = '["127.32.0.1:7410", "127.32.0.2:7410", "127.32.0.3:7410"]'
MANAGERS = os.environ.get("SKEP_DOCS_MANAGERS", "")


def blocks(language: str) -> list[tuple[int, str]]:
    """The page's blocks of one language, each with the number of its first line."""
    text = PAGE.read_text()
    found = re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, one.start(1)) + 1, one.group(1)) for one in found]


@pytest.mark.parametrize(("line", "code"), blocks("python"))
def test_a_block_can_be_pasted_at_a_prompt(line: int, code: str) -> None:
    """There a blank line ends what is indented, and nothing else does."""
    for chunk in re.split(r"\n\s*\n", code.strip()):
        tree = compile(
            chunk, f"{PAGE.name}:{line}", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST
        )
        assert isinstance(tree, ast.Module)
        assert not any(hasattr(each, "body") for each in tree.body[:-1]), chunk


# ------------------------------------------------------------------------ managers in memory


class Cluster:
    """What a cluster does that the fake leaves to its test: it tells watchers and readers of logs,
    and it rolls back a release whose tasks fail."""

    def __init__(self) -> None:
        self.control = FakeControl()
        self.events: list[WatchEvent] = []
        self._stamp = self.control.stamped
        self._view = self.control.view
        self.control.stamped = self.stamped  # type: ignore[method-assign]
        self.control.view = self.view  # type: ignore[method-assign]

    def stamped(self, row: Any) -> Any:
        stamped = self._stamp(row)
        service = stamped if isinstance(stamped, Service) else None
        task = stamped if isinstance(stamped, Task) else None
        event = WatchEvent(
            version=stamped.version, action=WatchAction.UPDATE, service=service, task=task
        )
        self.events.append(event)
        for stream in self.control.streams:
            if isinstance(stream, Following) and stream.is_open:
                stream.tell(event)
        return stamped

    def view(self, row: Service) -> ServiceView:
        if "exit 1" in row.spec.task.run.command[-1] and row.update is not None:
            why = "update failed: guide.1: exit 1"
            self.control.roll_back(row.name, row.update.base_revision, why)
            self.control.converge()
        return self._view(self.control.services[row.id])


@dataclass
class Network:
    """The fake's network, with streams that tell something."""

    inner: FakeNetwork
    cluster: Cluster

    async def listen(self, address: str, service: Served) -> Listener:
        raise NotImplementedError

    def channel(self, address: str) -> Channel:
        return Line(FakeChannel(self.inner, address), self.cluster)


@dataclass
class Line:
    inner: FakeChannel
    cluster: Cluster

    async def call(self, method: str, request: bytes, *, deadline_s: float) -> bytes:
        return await self.inner.call(method, request, deadline_s=deadline_s)

    async def open(self, method: str, *, deadline_s: float) -> Stream:
        if method.endswith("/Watch"):
            stream = Following(self.cluster)
            self.cluster.control.streams.append(stream)  # type: ignore[arg-type]
            return stream
        return Reading(self.cluster)

    async def close(self) -> None:
        pass


class Following:
    """A watch."""

    peer = "fake"

    def __init__(self, cluster: Cluster) -> None:
        self.is_open = False
        self._cluster = cluster
        self._kinds: tuple[str, ...] = ()
        self._frames: asyncio.Queue[bytes] = asyncio.Queue()

    def tell(self, event: WatchEvent) -> None:
        if any(getattr(event, kind) is not None for kind in self._kinds):
            self._frames.put_nowait(codec.encode(event))

    async def send(self, frame: bytes) -> None:
        request = codec.decode(WatchRequest, frame)
        assert request.from_version is not None
        self.is_open, self._kinds = True, request.kinds
        for event in self._cluster.events:
            if event.version > request.from_version:
                self.tell(event)

    async def receive(self) -> bytes | None:
        return await self._frames.get()

    async def close(self) -> None:
        self.is_open = False


class Reading:
    """What tasks have written: their release."""

    peer = "fake"

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._frames: list[bytes] = []

    async def send(self, frame: bytes) -> None:
        names = codec.decode(LogsRequest, frame).services
        for task in self._cluster.control.tasks.values():
            if task.service_name in names:
                line = LogLine(time_ns=1, stream=LogStream.STDOUT, text=b"this is one")
                event = LogEvent(task_id=task.id, task_name=task.name, lines=(line,))
                self._frames.append(codec.encode(event))

    async def receive(self) -> bytes | None:
        return self._frames.pop(0) if self._frames else None

    async def close(self) -> None:
        pass


@pytest.fixture
def managers(monkeypatch: pytest.MonkeyPatch) -> None:
    if not MANAGERS:
        cluster = Cluster()
        world = seams(cluster.control)
        network: Any = Network(world.transport, cluster)
        both = FakeSeams(world.clock, world.ids, network)
        monkeypatch.setattr(adapter_real, "real_seams", lambda: both)


# ------------------------------------------------------------------------------------ python


def session(namespace: dict[str, Any], after: Callable[[int], None]) -> None:
    """Run all Python blocks as `python -m asyncio` does; `after` is told of each one's place."""

    async def go() -> None:
        for place, (line, text) in enumerate(blocks("python")):
            if MANAGERS:
                text = text.replace(ADDRESSES, repr(MANAGERS.split(",")))
            source = "\n" * (line - 1) + text
            flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
            done = eval(compile(source, str(PAGE), "exec", flags), namespace)
            if inspect.iscoroutine(done):
                await done
            after(place)

    asyncio.run(go())


@pytest.mark.usefixtures("managers")
def test_the_session(capsys: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []
    session({}, lambda place: said.append(capsys.readouterr().out))
    whole = "".join(said)
    assert re.search(r"^guide\.1 running 127\.\S+ \d+$", whole, re.MULTILINE)
    assert "was changed" in whole
    assert re.search(
        "^guide: .*; revision 4 was given up, and that of 3 runs again", whole, re.MULTILINE
    )
    assert "3 two" in whole
    assert re.search(r"^\d+ guide\.4 runs$", whole, re.MULTILINE)
    assert "this is one" in whole
    assert "spec.task.run" in whole
    assert said[-2].endswith("guide 3\n")


def test_the_page_names_all_errors() -> None:
    text = PAGE.read_text()
    kinds = [name for name in client.__all__ if name[0].isupper()]
    assert [name for name in kinds if f"`{name}`" not in text and f"client.{name}" not in text] == [
        "Cluster",
        # The cluster has no users of its own as yet.
        "PermissionDenied",
    ]


def test_all_addresses_are_replaced_for_a_real_cluster() -> None:
    for _, text in blocks("python"):
        assert "127." not in text.replace(ADDRESSES, "")


# ------------------------------------------------------------------------------------- other


def commands() -> list[list[str]]:
    lines = "".join(text for _, text in blocks("sh")).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines]


def test_the_calls_by_grpcurl_are_calls_of_the_api() -> None:
    calls = [words for words in commands() if words[0] == "grpcurl"]
    assert len(calls) == 4
    for words in calls:
        if words[-1] == "list":
            continue
        assert words[1:3] == ["-plaintext", "-d"]
        service, _, name = words[-1].partition("/")
        pool = descriptor_pool.Default()
        assert control_pb2.DESCRIPTOR.services_by_name["Control"].full_name == service
        method = pool.FindServiceByName(service).FindMethodByName(name)
        request = message_factory.GetMessageClass(method.input_type)()
        json_format.Parse(json.dumps(json.loads(words[3])), request)


def test_the_command_that_generates_code_does(tmp_path: Path) -> None:
    (words,) = [words for words in commands() if words[0] == "protoc"]
    place = words.index("--python_out=.")
    words[place] = f"--python_out={tmp_path}"
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *words[1:]], cwd=ROOT, check=True)
    assert (tmp_path / "skep/api/control_pb2.py").exists()


def test_every_block_is_of_a_language_that_is_tested() -> None:
    fences = re.findall(r"^```(.*)$", PAGE.read_text(), re.MULTILINE)
    assert set(fences[::2]) == {"python", "sh"}
    assert set(fences[1::2]) == {""}
