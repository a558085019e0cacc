"""What tests of the command share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from skep import client
from skep.client import Cluster
from tests.unit.cli.shell import Shell
from tests.unit.client import fake


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    world = fake.seams()
    real = client.connect

    def connect(addresses: Sequence[str], *, deadline_s: float) -> Cluster:
        return real(addresses, deadline_s=deadline_s, seams=world)

    monkeypatch.setattr(client, "connect", connect)
    monkeypatch.setenv("SKEP_ADDRESS", ",".join(fake.ADDRESSES))
    monkeypatch.setenv("SKEP_CONFIG", str(tmp_path / "config.json"))
    monkeypatch.delenv("SKEP_CONTEXT", raising=False)
    monkeypatch.setenv("SKEP_HOME", str(tmp_path / "home"))
    return Shell(world, tmp_path, capsys)
