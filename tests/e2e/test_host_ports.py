"""Ports in host mode on real processes: each node answers for its own task, or not at all."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from skep import client
from skep.domain.base import SECOND_NS
from skep.domain.spec import (
    HealthCheck,
    Port,
    PortMode,
    RestartPolicy,
    RunSpec,
    ServiceSpec,
    TaskSpec,
)
from tests.support.local_cluster import EXAMPLE, ROOT, LocalCluster, eventually, get, local_cluster

pytestmark = pytest.mark.process

NAME = "direct"
PUBLISHED = 8081
TARGET = 8080
CONVERGED_S = 60.0


@pytest.fixture
def two_workers(tmp_path: Path) -> Iterator[LocalCluster]:
    with local_cluster(tmp_path, "--managers", "1", "--workers", "2", stack=EXAMPLE) as cluster:
        yield cluster


def direct(replicas: int) -> ServiceSpec:
    where = "{{.Task.Address}}:" + str(TARGET)
    probe = HealthCheck(
        test=("CMD", "python3", "-S", "web.py", "--probe", where),
        start_period_ns=30 * SECOND_NS,
        start_interval_ns=SECOND_NS // 10,
    )
    return ServiceSpec(
        name=NAME,
        replicas=replicas,
        ports=(Port(target=TARGET, published=PUBLISHED, mode=PortMode.HOST),),
        task=TaskSpec(
            run=RunSpec(
                command=("python3", "web.py", where),
                working_dir=str(ROOT / "examples"),
                health=probe,
            ),
            restart=RestartPolicy(delay_ns=0),
        ),
    )


def who_answers(address: str) -> str:
    """The replica that answers at a node's address; "" where nobody listens."""
    try:
        status, body = get(address, PUBLISHED)
    except ConnectionRefusedError:
        return ""
    assert status == 200
    found = re.search(rf"{NAME}\.\d+", body)
    assert found, body
    return found.group()


def running_by_node(cluster: LocalCluster) -> dict[str, str]:
    """Node name to the replica that runs there."""
    return {str(task["node"]): str(task["name"]) for task in cluster.running(NAME)}


def test_a_host_port_answers_where_a_task_is_and_nowhere_else(two_workers: LocalCluster) -> None:
    cluster = two_workers
    workers = {str(row["name"]): str(row["address"]) for row in cluster.workers()}
    [control] = [str(row["address"]) for row in cluster.processes() if row["name"] == "m1"]

    async def create() -> None:
        async with client.connect([control]) as api:
            service = await api.services.create(direct(1))
            await api.wait_converged([service.id], timeout_s=CONVERGED_S)

    asyncio.run(create())
    [(place, only)] = running_by_node(cluster).items()
    # An ingress port is open on both; this one where the task is.
    assert {name: who_answers(address) for name, address in workers.items()} == {
        name: only if name == place else "" for name in workers
    }

    cluster.skep("service", "scale", f"{NAME}=2")
    own = running_by_node(cluster)
    assert set(own) == set(workers)
    for name, address in workers.items():
        assert {who_answers(address) for _ in range(5)} == {own[name]}

    cluster.skep("service", "scale", "--detach", f"{NAME}=3")
    full = "no suitable node (host-mode port already in use on 2 nodes)"
    eventually(lambda: any(full in str(task) for task in cluster.tasks(NAME)), 30.0, full)

    cluster.skep("service", "scale", f"{NAME}=1")
    [(place, only)] = running_by_node(cluster).items()
    assert {name: who_answers(address) for name, address in workers.items()} == {
        name: only if name == place else "" for name in workers
    }
