"""The SDK's examples run as they stand."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from skep.client import connect, sync
from skep.domain.objects import UpdateState
from skep.domain.spec import RunSpec, ServiceSpec, TaskSpec
from tests.unit.client.fake import ADDRESSES, FakeControl, seams

EXAMPLES = Path(__file__).parents[3] / "examples"
SPEC = ServiceSpec(name="web", task=TaskSpec(run=RunSpec(command=("serve",))), replicas=2)


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"{name}_example", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    return example


def test_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    example = load("sdk")
    world = seams()

    async def go() -> None:
        async with connect(ADDRESSES, seams=world) as cluster:
            await example.deploy_scale_remove(cluster)

    asyncio.run(go())
    out = capsys.readouterr().out
    assert "scaled to 3/3" in out
    assert "sdk-example.3 on w3 at 127.32.16.3" in out
    assert out.endswith("removed\n")
    assert world.transport.control.services == {}


def test_the_blocking_example(capsys: pytest.CaptureFixture[str]) -> None:
    example = load("release")
    with sync.connect(ADDRESSES, seams=seams()) as cluster:
        cluster.services.create(SPEC)
        assert example.release(cluster, "web", "web:2")
        assert cluster.services.get("web").service.spec.task.run.image == "web:2"
    out = capsys.readouterr().out
    assert out == "web: revision 2 is web:2\n  2/2 completed\nweb: web:2 runs\n"


def test_the_blocking_example_when_the_release_is_bad(capsys: pytest.CaptureFixture[str]) -> None:
    example = load("release")
    control = FakeControl(is_quick=False)
    with sync.connect(ADDRESSES, seams=seams(control)) as cluster:
        cluster.services.create(SPEC)
        control.converge()

        def tell(views: object) -> None:
            row = cluster.services.get("web").service
            if row.update is not None and row.update.state is UpdateState.UPDATING:
                control.roll_back("web", 1, "update failed: web.1: exit 1")
                control.converge()

        example.Teller = lambda: tell
        assert not example.release(cluster, "web", "web:2")
    out = capsys.readouterr().out
    assert out.startswith("web: revision 2 is web:2\nweb: update failed: web.1: exit 1; revision 2 was ")
    assert "web.1: exit 1" in out
