"""`netproxy --clean`, as it is run on a node: real processes, on a node of a lab."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from skep.api import codec
from skep.domain.attach import AttachRequest, AttachResponse
from skep.domain.base import ClusterId, NodeId, ServiceId, TaskId, encode
from skep.env import CallError
from skep.netproxy.core.attachments import Attached
from skep.netproxy.network import SavedAttachments
from skep.rpc import GrpcTransport
from tests.support.netns import Lab, lab, needs_namespaces

START_S = 30.0
TASK = "t1"


class Node:
    """One node, with a state folder and an id of its own."""

    def __init__(self, machine: Lab | None, folder: Path, node_id: str) -> None:
        self._machine = machine
        self._folder = folder
        self.state = folder / "netproxy"
        self.node_id = node_id
        self.socket = folder / "attach.sock"
        self.address = machine.address("n1") if machine else "127.0.0.1"

    def arguments(self, *more: str, **changed: str) -> list[str]:
        values = {
            "node-id": self.node_id,
            "cluster-id": "c1",
            "address": self.address,
            "mesh": f"{self.address}:{27412 if self._machine else 0}",
            "attach": f"unix:{self.socket}",
            # Nobody is there.
            "managers": f"{self.address}:1",
            "state-dir": str(self.state),
            "plane": "kernel" if self._machine else "relay",
            **{name.replace("_", "-"): value for name, value in changed.items()},
        }
        flags = [word for name, value in values.items() for word in (f"--{name}", value)]
        flags += ["--insecure-listen", "10.200.0.0/24", *more]
        return [sys.executable, "-P", "-m", "skep.netproxy.main", *flags]

    def clean(self, *more: str, **changed: str) -> subprocess.CompletedProcess[str]:
        words = self.arguments("--clean", *more, **changed)
        if self._machine is None:
            return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
        return self._machine.attempt(self._machine.path("n1"), *words)

    def start(self) -> subprocess.Popen[str]:
        """A netproxy that takes its worker's calls."""
        assert self._machine is not None
        process = self._machine.start(self._machine.path("n1"), *self.arguments())
        asyncio.run(asyncio.wait_for(self._is_up(process), START_S))
        return process

    async def _is_up(self, process: subprocess.Popen[str]) -> None:
        request = AttachRequest(
            task_id=TaskId(TASK), service_id=ServiceId("s"), service_name="web", hostname="web.1"
        )
        channel = GrpcTransport().channel(f"unix:{self.socket}")
        while process.poll() is None:
            try:
                data = await channel.call(
                    "skep.v1.Attach/Attach", codec.encode(request), deadline_s=5
                )
                self.attached = codec.decode(AttachResponse, data)
                await channel.close()
                return
            except CallError:
                await asyncio.sleep(0.02)
        assert process.stderr is not None
        raise AssertionError(process.stderr.read())


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with lab(1) as machine:
        made = Node(machine, tmp_path, f"{machine.name}-n1")
        try:
            yield made
        finally:
            for process in machine._processes:
                process.kill()
                process.wait()
            made.clean("--force")


@needs_namespaces()
def test_all_that_a_node_has_left_is_removed_once_it_is_idle(node: Node) -> None:
    process = node.start()
    refused = node.clean("--force")
    assert refused.returncode == 2
    assert "a netproxy of this node runs already" in refused.stderr
    # Not even another state folder makes it two.
    elsewhere = node.clean("--force", state_dir=f"{node.state}-2")
    assert elsewhere.returncode == 2
    assert f"another netproxy of node {node.node_id} runs" in elsewhere.stderr
    process.terminate()
    process.communicate(timeout=START_S)

    inside = subprocess.Popen(["nsenter", f"--net={node.attached.namespace}", "sleep", "100"])
    try:
        refused = node.clean()
        assert refused.returncode == 2
        assert f"tasks of this node run: {TASK} (pid {inside.pid})" in refused.stderr
    finally:
        inside.kill()
        inside.wait()

    looked = node.clean("--dry-run")
    assert looked.returncode == 0
    assert f"there is: network namespace of task {TASK}" in looked.stdout
    assert Path(node.attached.namespace).exists()

    done = node.clean()
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert "removed: the process that answers names" in said
    assert f"removed: network namespace of task {TASK}" in said
    assert any(line.startswith("removed: network namespace /run/skep/") for line in said)
    assert not Path("/run/skep", node.node_id).exists()

    again = node.clean()
    assert (again.returncode, again.stdout) == (0, "")


@pytest.fixture
def quiet(tmp_path: Path) -> Node:
    """A node of the relay plane, whose last netproxy has had one task attached."""
    made = Node(None, tmp_path, "n-quiet")
    request = AttachRequest(task_id=TaskId("skt-t7"), service_id=ServiceId("s"), service_name="web")
    saved = SavedAttachments(
        format=1,
        cluster_id=ClusterId("c1"),
        node_id=NodeId(made.node_id),
        attached=(Attached(request=request, set_number=0),),
    )
    made.state.mkdir()
    (made.state / "attachments").write_bytes(encode(saved))
    return made


def test_a_running_task_is_known_by_its_environment_without_namespaces(quiet: Node) -> None:
    environ = {**os.environ, "SKEP_TASK_ID": "skt-t7"}
    task = subprocess.Popen(["sleep", "100"], env=environ)
    try:
        refused = quiet.clean()
        assert refused.returncode == 2
        assert f"tasks of this node run: skt-t7 (pid {task.pid})" in refused.stderr
        assert quiet.clean("--force").returncode == 0
        assert not (quiet.state / "attachments").exists()
    finally:
        task.kill()
        task.wait()


def test_options_for_cleaning_are_for_cleaning_alone(quiet: Node) -> None:
    words = quiet.arguments("--dry-run")
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "--dry-run and --force are for --clean" in done.stderr
