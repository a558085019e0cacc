"""Connections without a pause while what is behind an address changes: none may fail.

SKEP_NET_LONG=1     200 changes and at least 10,000 connections in each case
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from skep.domain.base import SECOND_NS, pairs, replace
from skep.domain.spec import Placement, UpdateOrder, UpdatePolicy
from tests.support import netpeer
from tests.support.local_cluster import eventually
from tests.support.netcluster import TARGET, Net, ingress

pytestmark = pytest.mark.process

IS_LONG = bool(os.environ.get("SKEP_NET_LONG"))
CHANGES, CONNECTIONS = (200, 10_000) if IS_LONG else (24, 2_000)
VERSIONS = 10 if IS_LONG else 3
IDLE_S = 20 * 60.0 if IS_LONG else 60.0
PER_S = 400.0
FEW, MANY = 2, 5
ENOUGH_S = 300.0


def play(net: Net, name: str) -> int:
    """Scale up and down, until that is enough; how many backends came or went."""
    changes = 0
    while changes < CHANGES:
        for replicas in (MANY, FEW):
            net.scale(name, replicas, is_settled=False)
            changes += MANY - FEW
    return changes


def check(what: str, report: dict[str, Any], changes: int) -> None:
    """Nothing failed, and it was enough."""
    told = f"{what}: {report['total']} connections, {report['failed']} failed, {changes} changes"
    print(told)
    assert report["failed"] == 0, (told, report["failures"])
    assert report["total"] >= CONNECTIONS, told
    assert len(report["by_name"]) >= MANY, "not all of them were used"


@pytest.mark.parametrize("net_of_plane", ["relay", "kernel", "kernel-nft"], indirect=True)
def test_no_connection_fails_while_backends_come_and_go(net: Net) -> None:
    port, front = net.port(), net.network()
    echo = net.peers("echo", on=[front], replicas=FEW, publish=[ingress(port)])
    agent = net.agent(front, node="w1")
    agent.do("load", host=echo, port=TARGET, per_s=PER_S)
    outside = netpeer.Load([(net.addresses[n], port) for n in net.workers], PER_S)
    try:
        changes = play(net, echo)
        enough(lambda: int(outside.report()["total"]))
        enough(lambda: int(agent.do("report")["total"]))
    finally:
        by_ingress = outside.stop()
        by_name = agent.do("stop")
    check(f"{net.plane}, by ingress", by_ingress, changes)
    check(f"{net.plane}, by name", by_name, changes)


def test_no_request_fails_during_updates(net: Net) -> None:
    port = net.port()
    spec = net.spec("echo", replicas=2, publish=[ingress(port)])
    elsewhere = Placement(constraints=("node.hostname != w3",))
    spec = replace(spec, task=replace(spec.task, placement=elsewhere))
    policy = UpdatePolicy(parallelism=1, order=UpdateOrder.START_FIRST, monitor_ns=SECOND_NS // 10)
    (echo,) = net.start(replace(spec, update=policy))
    load = netpeer.Load([(net.addresses["w3"], port)], PER_S)
    try:
        for version in range(1, VERSIONS + 1):
            env = pairs({**dict(spec.task.run.env), "VERSION": str(version)})
            run = replace(spec.task.run, env=env)
            task = replace(spec.task, run=run)
            service = net.sdk.services.change(
                echo,
                lambda old, task=task: replace(old, task=task),  # type: ignore[misc]
            )
            net.sdk.wait_converged({service.id: service.revision}, timeout_s=120.0)
        enough(lambda: int(load.report()["total"]), 10_000 if IS_LONG else 1_000)
    finally:
        report = load.stop()
    told = f"{net.plane}: {report['total']} connections, {report['failed']} failed"
    print(f"{told}, {VERSIONS} updates")
    assert report["failed"] == 0, (told, report["failures"])


def test_silence_ends_no_connection(net: Net) -> None:
    idle = net.idle
    assert idle is not None
    eventually(lambda: idle.age_s > IDLE_S, IDLE_S + 1.0, "time goes by")
    idle.end()


def enough(count: Callable[[], int], least: int = CONNECTIONS) -> None:
    """Wait until there were so many."""
    eventually(lambda: count() >= least, ENOUGH_S, f"{least} connections")
