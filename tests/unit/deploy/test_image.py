"""The image of a node: what goes into it, and what its first program tells the others."""

from __future__ import annotations

import importlib.util
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
import yaml

from skep.cli.local.core import Ports
from skep.domain.address import parse_address
from skep.manager.main import ConfigFile as ManagerFile
from skep.netproxy.adapters.options import Options
from skep.worker.main import ConfigFile as AgentFile
from tests.support.containers import ADDRESSES, MANAGERS, WORKERS

ROOT = Path(__file__).resolve().parents[3]
IMAGE = ROOT / "deploy/image"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"skep_image_{name}", IMAGE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Its data classes look themselves up there.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.test.yml").read_text())[
        "services"
    ]
    return found


def node(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    for key, value in services()[name]["environment"].items():
        monkeypatch.setenv(key, str(value).replace("${SKEP_NODE_VIP:-auto}", "auto"))
    return load("entrypoint").Node()


def test_compose_and_tests_agree_on_addresses() -> None:
    placed = {
        name: service["networks"]["nodes"]["ipv4_address"]
        for name, service in services().items()
        if name != "client"
    }
    assert placed == ADDRESSES
    for name in placed:
        environment = services()[name]["environment"]
        assert environment["SKEP_NODE_NAME"] == name
        assert environment["SKEP_NODE_ADDRESS"] == placed[name]
        assert environment["SKEP_NODE_ROLE"] == ("worker" if name in WORKERS else "manager")


def test_managers_know_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        name: msgspec.convert(node(name, monkeypatch).config("manager"), ManagerFile)
        for name in MANAGERS
    }
    assert len({file.raft_id for file in files.values()}) == len(files)
    assert len({file.cluster_id for file in files.values()}) == 1
    for name, file in files.items():
        assert parse_address(file.control) == (MANAGERS[name], Ports().control)
        for other in files.values():
            if other is not file:
                peer = file.peers[str(other.raft_id)]
                assert (peer.name, peer.node_id) == (other.name, other.node_id)
                assert (peer.raft, peer.control) == (other.raft, other.control)


def test_a_worker_is_told_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = node("w1", monkeypatch)
    agent = msgspec.convert(worker.config("agent"), AgentFile)
    netproxy = msgspec.convert(worker.config("netproxy"), Options)
    assert agent.node_id == netproxy.node_id
    assert len(agent.node_id) == 25
    assert agent.netproxy == netproxy.attach
    assert agent.plane == netproxy.plane == "kernel"
    assert set(agent.managers) == {f"{address}:7410" for address in MANAGERS.values()}


def test_wheels_are_what_skep_needs_and_no_more() -> None:
    roots = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    wheels = load("wheels")
    found = wheels.needed_at_run_time((ROOT / "constraints.txt").read_text(), roots)
    # The last one is needed by grpcio.
    assert {"grpcio", "pysyncobj", "uvloop", "typing-extensions"} <= found.keys()
    assert not {"pytest", "mypy", "ruff", "setuptools", "grpcio-tools"} & found.keys()
    for name, pin in found.items():
        assert pin.startswith(f"{name}==")
        assert "--hash=sha256:" in pin


def test_a_package_that_is_not_pinned_is_told() -> None:
    with pytest.raises(SystemExit, match="lacks requests"):
        load("wheels").needed_at_run_time("grpcio==1 \\\n    --hash=sha256:00\n", ["requests>=2"])


@pytest.mark.parametrize(
    "path", sorted(p for p in (ROOT / "deploy").rglob("*") if p.is_file()), ids=lambda p: p.name
)
def test_nothing_here_names_where_packages_come_from(path: Path) -> None:
    for line in path.read_text().splitlines():
        assert "http://" not in line and "https://" not in line, line  # noqa: PT018
