"""The cluster of containers, which `make cluster-test` starts; without it there is nothing here."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.support.containers import WORKERS, Containers, container_cluster, load_image

collect_ignore_glob = [] if os.environ.get("SKEP_TEST_CLUSTER") else ["test_*.py"]


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[Containers]:
    """One cluster for all tests."""
    with container_cluster() as cluster:
        load_image(cluster)
        yield cluster


@pytest.fixture
def cluster(shared_cluster: Containers) -> Iterator[Containers]:
    """The cluster with all nodes, and without services of other tests."""
    yield shared_cluster
    shared_cluster.heal()
    shared_cluster.are_ready()
    shared_cluster.forget()


@pytest.fixture(params=["process", "docker"])
def engine(request: pytest.FixtureRequest, cluster: Containers) -> str:
    """What runs the tasks of a test."""
    nodes = cluster.nodes()
    name = str(request.param)
    lacking = [node for node in WORKERS if name not in nodes[node].description.engines]
    if lacking:
        pytest.skip(f"{', '.join(lacking)} have no engine '{name}'")
    return name
