"""The plan of a local cluster."""

from __future__ import annotations

import random
from ipaddress import ip_address, ip_network

import pytest

from skep.cli.local import core
from skep.env import DiceIds, Rejected


def plan(managers: int = 3, workers: int = 3, block: int = 64) -> core.LocalCluster:
    return core.plan_cluster(
        "demo", core.Wanted(managers, workers), block, DiceIds(random.Random("x"))
    )


def test_names_numbers_and_addresses() -> None:
    cluster = plan(2, 2)
    assert [(n.name, n.role.value, cluster.host(n)) for n in cluster.nodes] == [
        ("m1", "manager", "127.64.0.1"),
        ("m2", "manager", "127.64.0.2"),
        ("w1", "worker", "127.64.0.3"),
        ("w2", "worker", "127.64.0.4"),
    ]
    assert cluster.control_addresses() == ("127.64.0.1:7410", "127.64.0.2:7410")
    assert len({n.node_id for n in cluster.nodes}) == 4
    assert all((n.raft_id > 0) == (n.role is core.Role.MANAGER) for n in cluster.nodes)


def test_no_two_listeners_share_an_address() -> None:
    cluster = plan(3, 28)
    addresses = []
    for process in core.processes(cluster):
        config = core.config_of(cluster, process, "/n")
        addresses += [config["metrics"], core.address_of(cluster, process)]
    # An agent serves nothing but its metrics.
    assert len(set(addresses)) == len(addresses) - len(cluster.workers())


@pytest.mark.parametrize("block", core.BLOCKS)
def test_every_block_keeps_to_itself(block: int) -> None:
    nodes = ip_network(f"127.{block}.0.0/16")
    virtual = [ip_network(f"127.{block + k}.0.0/16") for k in range(1, core.NODE_LIMIT + 1)]
    others = [ip_network(f"127.{other}.0.0/16") for other in core.BLOCKS if other != block]
    assert all(not net.overlaps(other) for net in (nodes, *virtual) for other in others)
    assert ip_address("127.0.0.1") not in nodes


def test_a_cluster_file_survives_the_disk() -> None:
    assert core.read_cluster(core.write_cluster(plan())) == plan()


@pytest.mark.parametrize(
    ("data", "says"),
    [(b"{", "not a cluster file"), (b"[]", "not a cluster file"), (b"\xff", "not a cluster file")],
)
def test_a_bad_cluster_file(data: bytes, says: str) -> None:
    with pytest.raises(Rejected, match=says):
        core.read_cluster(data)


def test_a_newer_cluster_file_is_left_alone() -> None:
    data = core.write_cluster(plan()).replace(b'"format": 1', b'"format": 9')
    with pytest.raises(Rejected, match="newer skep"):
        core.read_cluster(data)


@pytest.mark.parametrize(
    ("managers", "workers", "says"),
    [(0, 3, "at least one manager"), (3, 29, "up to 31 nodes"), (1, -1, "not possible")],
)
def test_impossible_sizes(managers: int, workers: int, says: str) -> None:
    with pytest.raises(Rejected, match=says):
        plan(managers, workers)


def test_blocks_are_taken_in_order_until_there_is_none() -> None:
    assert core.choose_block(()) == 32
    assert core.choose_block({32, 96}) == 64
    with pytest.raises(Rejected, match="all 7 loopback blocks"):
        core.choose_block(set(core.BLOCKS))


def test_configurations() -> None:
    cluster = plan(2, 1)
    manager, _, agent, netproxy = core.processes(cluster)
    other = cluster.nodes[1]
    assert core.config_of(cluster, manager, "/n/m1") == {
        "name": "m1",
        "node_id": manager.node.node_id,
        "cluster_id": cluster.cluster_id,
        "raft_id": manager.node.raft_id,
        "block": 64,
        "default_engine": "process",
        "control": "127.64.0.1:7410",
        "raft": "127.64.0.1:7411",
        "metrics": "127.64.0.1:7413",
        "data_dir": "/n/m1/raft",
        "peers": {
            str(other.raft_id): {
                "raft": "127.64.0.2:7411",
                "control": "127.64.0.2:7410",
                "node_id": other.node_id,
                "name": "m2",
            }
        },
    }
    shared = {
        "name": "w1",
        "node_id": agent.node.node_id,
        "cluster_id": cluster.cluster_id,
        "address": "127.64.0.3",
        "mesh": "127.64.0.3:7412",
        "managers": ["127.64.0.1:7410", "127.64.0.2:7410"],
        "plane": "relay",
    }
    assert core.config_of(cluster, agent, "/n/w1") == shared | {
        "metrics": "127.64.0.3:7414",
        "netproxy": "unix:/n/w1/attach.sock",
        "data_dir": "/n/w1/agent",
        "tasks_dir": "/n/w1/tasks",
    }
    assert core.config_of(cluster, netproxy, "/n/w1") == shared | {
        "metrics": "127.64.0.3:7415",
        "attach": "unix:/n/w1/attach.sock",
        "state_dir": "/n/w1/netproxy",
    }


def test_in_the_kernel_s_plane_nodes_are_machines_of_their_own() -> None:
    wanted = core.Wanted(1, 1, core.Plane.KERNEL)
    cluster = core.plan_cluster("demo", wanted, 64, DiceIds(random.Random("x")))
    node = cluster.workers()[0]
    assert cluster.host(node) == "172.30.64.2"
    assert cluster.namespace(node) == "skep-64-w1"
    agent = core.config_of(cluster, core.processes(cluster)[1], "/n/w1")
    assert agent["plane"] == "kernel"
    assert agent["insecure_listen"] == ["172.30.64.0/24"]


def test_with_a_docker_engine_agents_run_containers_too() -> None:
    docker = "unix:///run/docker.sock"
    wanted = core.Wanted(1, 1, core.Plane.KERNEL, engine="docker", docker=docker)
    cluster = core.plan_cluster("demo", wanted, 64, DiceIds(random.Random("x")))
    manager, agent, _ = (core.config_of(cluster, p, "/n/x") for p in core.processes(cluster))
    assert manager["default_engine"] == "docker"
    assert (agent["docker"], agent["containers_dir"]) == (docker, "/n/x/containers")
    assert core.read_cluster(core.write_cluster(cluster)) == cluster


def test_every_process_is_told_from_all_others_by_its_command_line() -> None:
    cluster = plan()
    lines = {}
    for process in core.processes(cluster):
        folder = f"/home/{process.node.name}"
        config = core.config_of(cluster, process, folder)
        path = f"{folder}/{process.kind.name}.json"
        lines[process.name] = core.arguments_of(process, config, path)
    for name, line in lines.items():
        running = ("/usr/bin/python3", *line)
        assert [other for other in lines if core.is_ours(running, lines[other])] == [name]
    assert not core.is_ours(("vim", lines["m1"][-1]), lines["m1"])


def test_names_of_processes() -> None:
    cluster = plan()
    assert [p.name for p in core.named(cluster, ["w2", "m1"])] == ["m1", "w2.agent", "w2.netproxy"]
    assert [p.name for p in core.named(cluster, ["w1.netproxy"])] == ["w1.netproxy"]
    with pytest.raises(Rejected, match="no process 'w9' in cluster 'demo'; there are m1, m2"):
        core.named(cluster, ["w9"])
