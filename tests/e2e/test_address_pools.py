"""A cluster whose networks get their ranges from pools of its operator's choice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from skep.client import sync
from skep.domain.spec import NetworkSpec
from tests.support.local_cluster import eventually

pytestmark = pytest.mark.process
HOST = "127.200.0.1"
SETTLED_S = 30.0


def config_in(folder: Path, **fields: object) -> Path:
    """manager.json of a cluster of one."""
    path = folder / "manager.json"
    config = {
        "name": "m1",
        "node_id": "n1",
        "cluster_id": "c1",
        "raft_id": 1,
        "control": f"{HOST}:7410",
        "raft": f"{HOST}:7411",
        "metrics": f"{HOST}:7413",
        "peers": {},
        "data_dir": str(folder / "raft"),
        "block": 200,
    }
    path.write_text(json.dumps(config | fields))
    return path


def command(config: Path) -> list[str]:
    return [sys.executable, "-m", "skep.manager.main", "--config", str(config)]


def test_networks_come_out_of_the_pools_that_the_cluster_was_founded_with(tmp_path: Path) -> None:
    config = config_in(tmp_path, address_pools=["172.20.0.0/16"], subnet_prefix=26)
    with subprocess.Popen(command(config), stderr=subprocess.DEVNULL) as manager:
        try:
            sdk = sync.connect([f"{HOST}:7410"])
            try:
                sdk.networks.create(NetworkSpec(name="a"))

                def subnets() -> dict[str, str]:
                    return {v.network.name: v.network.subnet for v in sdk.networks.list()}

                eventually(lambda: all(subnets().values()), SETTLED_S, "the networks' ranges")
                assert subnets()["a"].startswith("172.20.")
                assert subnets()["a"].endswith("/26")
                assert subnets()["ingress"].startswith("172.20.")
            finally:
                sdk.close()
        finally:
            manager.terminate()


def test_pools_that_can_not_be_are_refused_at_the_start(tmp_path: Path) -> None:
    config = config_in(tmp_path, address_pools=["10.0.0.0/33"])
    done = subprocess.run(command(config), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"skep-manager: {config}: address_pools[0]: ")
