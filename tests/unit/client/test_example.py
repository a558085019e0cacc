"""The SDK's example runs as it stands."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path

import pytest

from skep.client import connect
from tests.unit.client.fake import ADDRESSES, seams

EXAMPLE = Path(__file__).parents[3] / "examples" / "sdk.py"


def test_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("sdk_example", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
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
