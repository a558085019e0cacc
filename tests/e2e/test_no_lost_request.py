"""No request is lost to an update, a drained node or a leader's end: one connection per request,
no retries, through the published port of every node.

`SKEP_LONG=1` (or `make load-long`) sends at least 10,000 requests in each case.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from skep import client
from skep.client import Cluster
from skep.domain.base import SECOND_NS, pairs, replace
from skep.domain.objects import Availability, Service, UpdateState
from skep.domain.spec import (
    HealthCheck,
    Port,
    RunSpec,
    ServiceSpec,
    TaskSpec,
    UpdateOrder,
    UpdatePolicy,
)
from tests.support.load import Load, Report
from tests.support.local_cluster import ROOT, LocalCluster

pytestmark = pytest.mark.process

IS_LONG = os.environ.get("SKEP_LONG") == "1"
AT_LEAST = 10_000 if IS_LONG else 1_500
PER_S = 300.0
VERSIONS = {
    UpdateOrder.START_FIRST: 10,
    UpdateOrder.STOP_FIRST: 10 if IS_LONG else 4,
}

PORT = 8090
TARGET = 8080
REPLICAS = 3
MS_NS = SECOND_NS // 1000

# Ten times what one version takes on a quiet machine.
UPDATED_S = 60.0
LIMIT_S = 600.0


def play(work: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(LIMIT_S):
            await work

    asyncio.run(bounded())


def web(order: UpdateOrder, version: int = 0) -> ServiceSpec:
    """The example's server, with a health check where the order calls for one."""
    program = ("python3", "-S", "web.py")
    return ServiceSpec(
        name="steady",
        replicas=REPLICAS,
        ports=(Port(target=TARGET, published=PORT),),
        task=TaskSpec(
            run=RunSpec(
                command=program,
                args=(f"{{{{.Task.Address}}}}:{TARGET}",),
                env=(("VERSION", str(version)),),
                working_dir=str(ROOT / "examples"),
                stop_grace_ns=30 * SECOND_NS,
                health=HealthCheck(
                    test=("CMD", *program, "--probe", f"{{{{.Task.Address}}}}:{TARGET}"),
                    interval_ns=5 * SECOND_NS,
                    start_period_ns=10 * SECOND_NS,
                    start_interval_ns=100 * MS_NS,
                ),
            )
        ),
        update=UpdatePolicy(order=order, monitor_ns=200 * MS_NS),
    )


def released(spec: ServiceSpec, version: int) -> ServiceSpec:
    env = pairs({**dict(spec.task.run.env), "VERSION": str(version)})
    return replace(spec, task=replace(spec.task, run=replace(spec.task.run, env=env)))


@asynccontextmanager
async def steady(local: LocalCluster, spec: ServiceSpec) -> AsyncIterator[Cluster]:
    """A client of the cluster, in which the service runs."""
    control = [str(row["address"]) for row in local.processes() if row["name"][0] == "m"]
    async with client.connect(control) as cluster:
        await cluster.services.create(spec)
        try:
            await cluster.wait_converged([spec.name], timeout_s=UPDATED_S)
            yield cluster
        finally:
            await cluster.services.remove(spec.name)
            await cluster.wait_removed([spec.name], timeout_s=UPDATED_S)


def every_node(local: LocalCluster) -> list[str]:
    return [f"{node['address']}:{PORT}" for node in local.workers()]


async def release(cluster: Cluster, version: int) -> None:
    """Update to a version, and see it through."""
    await changed(cluster, version)
    await completed(cluster)


async def changed(cluster: Cluster, version: int) -> Service:
    """Begin the update to a version."""
    return await cluster.services.change("steady", lambda spec: released(spec, version))


async def completed(cluster: Cluster) -> None:
    """See an update through."""
    (view,) = await cluster.wait_converged(["steady"], timeout_s=UPDATED_S)
    assert view.service.update is not None
    assert view.service.update.state is UpdateState.COMPLETED
    assert view.running == REPLICAS


def rounds(load: Load, least: int = 1) -> Iterator[int]:
    """1, 2, ... for as long as there were not enough requests yet, and `least` times anyway: all of
    the load is one while something is changed."""
    number = 0
    while number < least or load.report.total < AT_LEAST:
        number += 1
        yield number


def check(report: Report, addresses: list[str], versions: int) -> None:
    """Nothing was lost, and there was something to lose."""
    print(f"{versions} updates under load: {report}")
    assert report.failures == [], str(report)
    assert report.total >= AT_LEAST
    assert report.answered_by.total() == report.total
    assert set(report.asked) == set(addresses)
    assert report.versions() == {str(version) for version in range(versions + 1)}


@pytest.mark.parametrize("order", list(VERSIONS), ids=lambda order: str(order.value))
def test_a_rolling_update_through_many_versions(cluster: LocalCluster, order: UpdateOrder) -> None:
    async def scene() -> None:
        addresses = every_node(cluster)
        async with steady(cluster, web(order)) as skep:
            async with Load(addresses, per_s=PER_S) as load:
                for version in rounds(load, VERSIONS[order]):
                    await release(skep, version)
            check(load.report, addresses, version)

    play(scene())


def test_each_node_drained_and_taken_back(cluster: LocalCluster) -> None:
    async def scene() -> None:
        addresses = every_node(cluster)
        names = [str(node["name"]) for node in cluster.workers()]
        async with steady(cluster, web(UpdateOrder.START_FIRST)) as skep:
            async with Load(addresses, per_s=PER_S) as load:
                for number in rounds(load, len(names)):
                    name = names[number % len(names)]
                    await emptied(cluster, skep, name)
                    await skep.nodes.update(name, availability=Availability.ACTIVE)
            check(load.report, addresses, 0)
            assert load.report.nodes() == set(names)

    play(scene())


def test_the_leader_killed_in_the_middle_of_an_update(cluster: LocalCluster) -> None:
    async def scene() -> None:
        addresses = every_node(cluster)
        async with steady(cluster, web(UpdateOrder.START_FIRST)) as skep:
            async with Load(addresses, per_s=PER_S) as load:
                for version in rounds(load):
                    leader = await asyncio.to_thread(cluster.leader)
                    await is_under_way(skep, await changed(skep, version))
                    await asyncio.to_thread(cluster.kill, leader)
                    await completed(skep)
                    assert await asyncio.to_thread(cluster.leader) != leader
                    await asyncio.to_thread(cluster.start, leader)
            check(load.report, addresses, version)

    play(scene())


def test_a_netproxy_restarted_in_the_middle_of_an_update(cluster: LocalCluster) -> None:
    """Its own port is closed meanwhile. The others' are not, and the tasks on its node are not
    missed there."""

    async def scene() -> None:
        name, *_ = (str(node["name"]) for node in cluster.workers())
        _, *addresses = every_node(cluster)
        async with steady(cluster, web(UpdateOrder.START_FIRST)) as skep:
            async with Load(addresses, per_s=PER_S) as load:
                for version in rounds(load):
                    await is_under_way(skep, await changed(skep, version))
                    for step in ("stop", "start"):
                        words = ("local", step, f"{name}.netproxy")
                        await asyncio.to_thread(cluster.skep, *words)
                    await completed(skep)
            check(load.report, addresses, version)

    play(scene())


async def is_under_way(skep: Cluster, service: Service) -> None:
    """Wait for the first task of the present release to serve."""
    async with asyncio.timeout(UPDATED_S):
        async for event in skep.watch(from_version=service.version, kinds=["task"]):
            task = event.task
            if task is None or task.healthy_ns is None:
                continue
            if (task.service_id, task.revision) == (service.id, service.task_revision):
                return


async def emptied(local: LocalCluster, skep: Cluster, name: str) -> None:
    """Drain a node, until nothing is on it and all runs elsewhere."""
    words = ("node", "update", "--availability", "drain", "--wait", name)
    await asyncio.to_thread(local.skep, *words)
    assert await skep.tasks.list(node=name) == ()
    (view,) = await skep.wait_converged(["steady"], timeout_s=UPDATED_S)
    assert view.running == REPLICAS
