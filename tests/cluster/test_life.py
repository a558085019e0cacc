"""What is done with a cluster on good days, on nodes that are containers."""

from __future__ import annotations

import pytest

from skep.domain.base import SECOND_NS, pairs, replace
from skep.domain.objects import NodeRole
from skep.domain.spec import (
    HealthCheck,
    NetworkSpec,
    ServiceSpec,
    StackSpec,
    UpdateOrder,
    UpdatePolicy,
)
from tests.support.containers import (
    ADDRESSES,
    CONVERGED_S,
    MANAGERS,
    TARGET,
    WORKERS,
    Containers,
)
from tests.support.local_cluster import eventually

pytestmark = pytest.mark.process


def test_it_has_formed(cluster: Containers) -> None:
    nodes = cluster.nodes()
    assert {name: node.description.address for name, node in nodes.items()} == ADDRESSES
    assert {n for n, node in nodes.items() if node.role is NodeRole.MANAGER} == set(MANAGERS)
    assert cluster.leader() in MANAGERS
    for name in WORKERS:
        assert nodes[name].description.plane == "kernel"


def test_the_command_works_beside_it(cluster: Containers) -> None:
    listed = cluster.docker("exec", cluster.container("client"), "skep", "node", "ls", "-q")
    assert len(listed.split()) == len(ADDRESSES)


def test_each_worker_has_an_engine_of_its_own(cluster: Containers) -> None:
    ids = {cluster.on(node, "docker", "info", "--format", "{{.ID}}") for node in WORKERS}
    assert len(ids) == len(WORKERS)


def test_a_service_is_served_by_every_node(cluster: Containers, engine: str) -> None:
    port = cluster.port()
    service = cluster.create(cluster.spec(engine, replicas=2, port=port))
    cluster.is_served(port)
    cluster.settles(service.name, 2, engine)
    seen = {node: {cluster.answers(node, port) for _ in range(20)} for node in WORKERS}
    both = {f"{task.service_name}.{task.slot}" for task in cluster.running(service.name)}
    for node, answers in seen.items():
        # What the name is followed by is how engines tell tasks of one slot apart.
        assert {answer.split(".")[0] for answer in answers} == {service.name}, node
        assert len(answers) == len(both), (node, answers)


def test_scaling(cluster: Containers, engine: str) -> None:
    service = cluster.create(cluster.spec(engine, replicas=3))
    first = {task.id for task in cluster.running(service.name)}
    for replicas in (7, 2, 5, 0, 3):
        cluster.converged(cluster.sdk.services.scale(service.name, replicas))
        cluster.settles(service.name, replicas, engine)
        if replicas == 7:
            assert first < {task.id for task in cluster.running(service.name)}


@pytest.mark.parametrize("order", list(UpdateOrder))
def test_a_rolling_update(cluster: Containers, engine: str, order: UpdateOrder) -> None:
    port = cluster.port()
    service = cluster.create(cluster.spec(engine, replicas=4, port=port))
    policy = UpdatePolicy(parallelism=1, order=order, monitor_ns=0)

    def release_two(spec: ServiceSpec) -> ServiceSpec:
        run = replace(spec.task.run, env=pairs({**dict(spec.task.run.env), "RELEASE": "two"}))
        return replace(spec, task=replace(spec.task, run=run), update=policy)

    old = {task.id for task in cluster.running(service.name)}
    cluster.converged(cluster.sdk.services.change(service.name, release_two))
    cluster.settles(service.name, 4, engine)
    assert not old & {task.id for task in cluster.running(service.name)}

    def says(node: str) -> set[str]:
        return {cluster.answers(node, port).rpartition(" ")[2] for _ in range(8)}

    eventually(
        lambda: all(says(node) == {"two"} for node in WORKERS),
        CONVERGED_S,
        "every node leads to the new release alone",
    )

    cluster.converged(cluster.sdk.services.rollback(service.name))
    cluster.settles(service.name, 4, engine)


def test_a_stack_with_a_network(cluster: Containers, engine: str) -> None:
    """Its asker is healthy only if it finds the other service by name, on whichever node."""
    network, port = cluster.name("net"), cluster.port()
    web = cluster.spec(engine, replicas=3, port=port, on=[network])
    asks = (
        f"ip=$(busybox nslookup {web.name} | awk '/^Address/ {{ a = $NF }} END {{ print a }}');"
        f" printf 'GET / HTTP/1.0\\r\\n\\r\\n' | busybox nc -w 2 $ip {TARGET} | grep {web.name}"
    )
    check = HealthCheck(
        test=("CMD-SHELL", asks),
        start_period_ns=30 * SECOND_NS,
        start_interval_ns=SECOND_NS // 2,
    )
    asker = cluster.spec(engine, replicas=3, on=[network])
    asker = replace(
        asker, task=replace(asker.task, run=replace(asker.task.run, health=check)), exposed=()
    )
    stack = StackSpec(
        name=cluster.name("stack"), services=(web, asker), networks=(NetworkSpec(name=network),)
    )
    cluster.sdk.stacks.deploy(stack)
    try:
        cluster.sdk.wait_converged([web.name, asker.name], timeout_s=CONVERGED_S)
        cluster.is_served(port)
        assert {n: sorted(ids) for n, ids in cluster.believed().items()} == cluster.held()
    finally:
        cluster.sdk.stacks.remove(stack.name)
        cluster.sdk.wait_removed([web.name, asker.name], timeout_s=CONVERGED_S)
    eventually(lambda: not any(cluster.held().values()), CONVERGED_S, "nothing is left")
