"""Networks without any privileges: the relay plane in full, by a user that is nobody."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from skep.domain.base import replace
from skep.domain.spec import EndpointMode, NetworkUse, Protocol
from tests.support import netpeer
from tests.support.local_cluster import LocalCluster
from tests.support.netcluster import Net, ingress, net_cluster

# Root's own user namespace takes all of root's privileges away, but lets its files be read.
PREFIX = ("unshare", "--user", "--map-user=1000", "--map-group=1000") if os.geteuid() == 0 else ()
WITHOUT = subprocess.run((*PREFIX, "true"), capture_output=True, text=True, check=False)

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(WITHOUT.returncode != 0, reason=f"no user namespaces: {WITHOUT.stderr}"),
]


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    home = tmp_path_factory.mktemp("rootless")
    with net_cluster("relay", home, "--managers", "1", prefix=PREFIX) as net:
        yield net


def test_names_addresses_and_ports_work_for_nobody(net: Net) -> None:
    front, port = net.network(), net.port()
    publish = [ingress(port), ingress(port, Protocol.UDP)]
    use = NetworkUse(network=front, aliases=("www",))
    direct = replace(net.spec("direct", on=[front]), endpoint_mode=EndpointMode.DNSRR)
    echo, direct_name = net.start(net.spec("echo", on=[use], replicas=2, publish=publish), direct)
    agent = net.agent(front)

    (vip,) = agent.names(echo)
    assert agent.names("www") == [vip]
    assert len(agent.names(f"tasks.{echo}")) == 2
    assert agent.names(direct_name) == agent.names(f"tasks.{direct_name}")
    assert agent.is_unknown("nobody")
    names = {f"{echo}.1", f"{echo}.2"}
    assert set(agent.greeted(echo, 6)) == names
    assert {words[0] for words in agent.do("udp", host=echo, port=7000, count=6)} == names
    for node in net.workers:
        at = net.addresses[node]
        assert {netpeer.greet(at, port)[0] for _ in range(6)} == names
        assert {netpeer.ask_udp(at, port)[0] for _ in range(6)} == names
    assert net.troubles() == []


def test_the_name_server_is_told_where_it_can_t_be_configured(net: Net) -> None:
    front = net.network()
    agent = net.agent(front)
    (pid,) = net.pids(agent.name).values()
    told = Path(f"/proc/{pid}/environ").read_text().split("\0")
    (dns,) = (each for each in told if each.startswith("SKEP_DNS="))
    assert dns.endswith(":5300")
    assert agent.names(agent.name)


def test_the_kernel_s_plane_says_what_it_needs(tmp_path: Path) -> None:
    done = LocalCluster(tmp_path, PREFIX).run("up", "--plane", "kernel")
    assert done.returncode != 0
    assert "root" in done.stderr
    assert "--plane" in done.stderr
