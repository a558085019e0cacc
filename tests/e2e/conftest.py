"""One cluster for the tests that leave it as they found it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.local_cluster import LocalCluster, local_cluster
from tests.support.netcluster import Idle, Net, net_cluster, why_not


@pytest.fixture(scope="package")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Three managers, three workers, and the example stack."""
    with local_cluster(tmp_path_factory.mktemp("skep")) as cluster:
        yield cluster


@pytest.fixture
def cluster(shared_cluster: LocalCluster) -> LocalCluster:
    """The shared cluster, brought back to what `skep up` makes of it before each test."""
    shared_cluster.skep("up", "examples/timecheck.yaml", within_s=120.0)
    shared_cluster.skep("service", "scale", "web=3", within_s=60.0)
    return shared_cluster


@pytest.fixture(scope="package", params=["relay", "kernel", "containers"])
def net_of_plane(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Net]:
    """One cluster per data plane, for all tests of networks."""
    plane = str(request.param)
    if reason := why_not(plane):
        pytest.skip(reason)
    with net_cluster(plane, tmp_path_factory.mktemp(plane)) as net:
        # What takes a minute does so beside the tests.
        net.idle = Idle(net)
        yield net
        net.idle.close()


@pytest.fixture
def net(net_of_plane: Net) -> Iterator[Net]:
    """The plane's cluster, without the services of other tests."""
    yield net_of_plane
    net_of_plane.forget()
