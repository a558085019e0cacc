"""The main job on real processes: what `skep up` promises, and what it takes to break it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import pytest

from skep.api import control_pb2, objects_pb2
from tests.support.local_cluster import (
    ROOT,
    LocalCluster,
    eventually,
    get,
    is_alive,
    kill_pid,
    local_cluster,
)

pytestmark = pytest.mark.process

# Ten times what the benchmarks aim at: a test tells whether, not how fast.
REPLACED_S = 30.0
FAILED_OVER_S = 30.0
NODE_LOST_S = 100.0
SERVED_AGAIN_S = 20.0


def addresses(cluster: LocalCluster) -> list[str]:
    return [str(node["address"]) for node in cluster.workers()]


def answers(cluster: LocalCluster, requests: int) -> Counter[str]:
    """Who answered, over all workers' addresses in turn. Every request must succeed."""
    told: Counter[str] = Counter()
    where = addresses(cluster)
    for number in range(requests):
        status, body = get(where[number % len(where)])
        assert status == 200
        found = re.search(r"web\.(\d+)", body)
        assert found, body
        told[found.group()] += 1
    return told


def test_up_ends_converged_and_every_worker_reaches_every_replica(cluster: LocalCluster) -> None:
    nodes = cluster.nodes()
    assert len(nodes) == 6
    assert {node["status"] for node in nodes} == {"ready"}
    assert sum(1 for node in nodes if node["leader"]) == 1
    for address in addresses(cluster):
        assert get(address)[0] == 200
    assert set(answers(cluster, 300)) == {"web.1", "web.2", "web.3"}


def test_a_node_without_a_replica_forwards_to_the_one_that_has_it(cluster: LocalCluster) -> None:
    cluster.skep("service", "scale", "web=1")
    assert len(answers(cluster, 30)) == 1


def test_a_killed_replica_is_replaced_and_its_end_is_told(cluster: LocalCluster) -> None:
    victim = cluster.running()[0]
    kill_pid(int(victim["pid"]))

    def replaced() -> bool:
        now = cluster.running()
        return len(now) == 3 and all(task["id"] != victim["id"] for task in now)

    eventually(replaced, REPLACED_S, "a new replica")
    old = next(task for task in cluster.tasks() if task["id"] == victim["id"])
    assert (old["state"], old["exit_code"]) == ("failed", 137)
    assert "137" in cluster.skep("service", "ps", "web")


def test_the_leading_manager_killed_costs_an_election_and_no_task(cluster: LocalCluster) -> None:
    pids = {task["id"]: task["pid"] for task in cluster.running()}
    leader = cluster.leader()
    cluster.kill(leader)
    eventually(
        lambda: cluster.run("service", "scale", "web=5").returncode == 0, FAILED_OVER_S, "scaled"
    )
    assert cluster.leader() != leader
    after = {task["id"]: task["pid"] for task in cluster.running()}
    assert len(after) == 5
    assert pids.items() <= after.items()
    cluster.start(leader)


def test_a_leader_that_is_only_stuck_costs_no_task(cluster: LocalCluster) -> None:
    """Its workers must find the new leader before that one judges who is lost."""
    before = {task["id"]: task["pid"] for task in cluster.running()}
    stuck = cluster.leader()
    pid = cluster.pid_of(stuck)
    os.kill(pid, signal.SIGSTOP)
    try:
        # The new leader judges everybody once; the stuck manager itself is down by then.
        eventually(
            lambda: any(
                node["name"] == stuck and node["status"] == "down" for node in _nodes(cluster)
            ),
            FAILED_OVER_S,
            "the stuck manager is down",
        )
    finally:
        os.kill(pid, signal.SIGCONT)
    assert {task["id"]: task["pid"] for task in cluster.running()} == before


def _nodes(cluster: LocalCluster) -> list[dict[str, Any]]:
    done = cluster.run("node", "ls", "--format", "json")
    return json.loads(done.stdout) if done.returncode == 0 else []


def test_without_any_manager_requests_go_on_and_the_cluster_comes_back(
    cluster: LocalCluster,
) -> None:
    before = {task["id"]: task["pid"] for task in cluster.running()}
    where = addresses(cluster)
    for name in ("m1", "m2", "m3"):
        cluster.kill(name)
    for address in where * 10:
        assert get(address)[0] == 200
    for name in ("m1", "m2", "m3"):
        cluster.start(name)
    eventually(lambda: cluster.run("node", "ls").returncode == 0, FAILED_OVER_S, "a leader")

    def same_again() -> bool:
        return {task["id"]: task["pid"] for task in cluster.running()} == before

    eventually(same_again, FAILED_OVER_S, "every task with its pid")


def test_a_lost_worker_is_replaced_and_returns_empty_handed(cluster: LocalCluster) -> None:
    lost = next(task for task in cluster.running())
    node = str(lost["node"])
    its_pids = [
        int(task["pid"])
        for service in ("web", "timecheck")
        for task in cluster.running(service)
        if task["node"] == node
    ]
    cluster.kill(node)
    for pid in its_pids:
        kill_pid(pid)

    def elsewhere() -> bool:
        now = cluster.running()
        return len(now) == 3 and all(task["node"] != node for task in now)

    eventually(elsewhere, NODE_LOST_S, "the tasks run elsewhere")
    cluster.start(node)
    eventually(
        lambda: next(n for n in cluster.nodes() if n["name"] == node)["status"] == "ready",
        FAILED_OVER_S,
        "the worker is back",
    )
    held = {task["id"] for task in cluster.rows("node", "ps", node) if task["state"] == "running"}
    assert lost["id"] not in held
    assert not any(is_alive(pid) for pid in its_pids)


def test_a_restarted_agent_adopts_its_tasks_and_tells_what_ended(cluster: LocalCluster) -> None:
    first, second = cluster.running()[:2]
    agent = f"{first['node']}.agent"
    cluster.kill(agent)
    kill_pid(int(first["pid"]))
    cluster.start(agent)

    def told() -> bool:
        old = next(task for task in cluster.tasks() if task["id"] == first["id"])
        return bool(old["state"] == "failed" and old["exit_code"] == 137)

    eventually(told, REPLACED_S, "the end is told")
    eventually(lambda: len(cluster.running()) == 3, REPLACED_S, "replaced")
    same = next(task for task in cluster.running() if task["id"] == second["id"])
    assert same["pid"] == second["pid"]


def test_an_agent_alone_killed_keeps_its_tasks(cluster: LocalCluster) -> None:
    task = cluster.running()[0]
    agent = f"{task['node']}.agent"
    cluster.kill(agent)
    assert is_alive(int(task["pid"]))
    cluster.start(agent)
    eventually(lambda: all(n["status"] == "ready" for n in cluster.nodes()), FAILED_OVER_S, "back")
    assert task["pid"] in {now["pid"] for now in cluster.running()}


def test_a_killed_netproxy_serves_again_and_the_others_never_stopped(
    cluster: LocalCluster,
) -> None:
    node = cluster.workers()[0]
    others = [str(other["address"]) for other in cluster.workers()[1:]]
    cluster.kill(f"{node['name']}.netproxy")
    # Tasks on that node are out of reach with its mesh port; those elsewhere answer.
    for address in others * 5:
        assert get(address)[0] == 200
    cluster.start(f"{node['name']}.netproxy")

    def serves() -> bool:
        try:
            return get(str(node["address"]))[0] == 200
        except OSError:
            return False

    eventually(serves, SERVED_AGAIN_S, "the published port answers")


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("services:\n  a: [\n", 2, ""),
        ("services:\n  a:\n    command: sleep 1\n    comand: x\n", 4, "comand"),
        (
            "services:\n  a:\n    command: sleep 1\n    deploy:\n      replicas: many\n",
            5,
            "replicas",
        ),
        ("services:\n  a:\n    command: sleep 1\n    ports: ['70000:80']\n", 4, "70000"),
        (
            "services:\n  a: {command: sleep 1, ports: ['81:80']}\n"
            "  b: {command: sleep 1, ports: ['81:80']}\n",
            3,
            "81",
        ),
    ],
)
def test_a_bad_stack_file_is_refused_whole(
    cluster: LocalCluster, tmp_path: Path, text: str, line: int, says: str
) -> None:
    before = cluster.rows("service", "ls")
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    done = cluster.run("stack", "deploy", "-f", str(file), "bad")
    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(errors) == 1, done.stderr
    assert f"bad.yaml:{line}" in errors[0]
    assert says in errors[0]
    after = cluster.rows("service", "ls")
    assert [row["id"] for row in after] == [row["id"] for row in before]


def test_sigterm_to_a_daemon_leaves_its_tasks_running(cluster: LocalCluster) -> None:
    pids = {int(task["pid"]) for task in cluster.running()}
    for name in ("w1.agent", "w1.netproxy", "m1"):
        cluster.skep("local", "stop", name)
    assert all(is_alive(pid) for pid in pids)
    for name in ("m1", "w1.agent", "w1.netproxy"):
        cluster.start(name)
    eventually(lambda: cluster.run("node", "ls").returncode == 0, FAILED_OVER_S, "a leader")


def test_the_sdk_example_runs(cluster: LocalCluster) -> None:
    control = [str(row["address"]) for row in cluster.processes() if row["name"].startswith("m")]
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "sdk.py"), *control],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "scaled to 3/3" in done.stdout
    assert done.stdout.endswith("removed\n")
    assert "sdk-example" not in {row["name"] for row in cluster.rows("service", "ls")}


def test_bad_input_through_the_api_names_its_field(cluster: LocalCluster) -> None:
    control = next(str(row["address"]) for row in cluster.processes() if row["name"] == "m1")
    request = control_pb2.CreateServiceRequest(
        request_id="e2e-bad-input",
        spec=objects_pb2.ServiceSpec(
            name="no/such", task=objects_pb2.TaskSpec(run=objects_pb2.RunSpec(args=["true"]))
        ),
    )
    with grpc.insecure_channel(control) as channel:
        create: Any = channel.unary_unary("/skep.v1.Control/CreateService")
        with pytest.raises(grpc.RpcError) as caught:
            create(request.SerializeToString(), timeout=10)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert str(caught.value.details()).startswith("spec.name:")


def test_down_leaves_nothing(tmp_path: Path) -> None:
    with local_cluster(tmp_path, "--managers", "1", "--workers", "1") as cluster:
        pids = [int(row["pid"]) for row in cluster.processes()]
        pids += [int(task["pid"]) for task in cluster.running()]
        assert all(is_alive(pid) for pid in pids)
        cluster.skep("down", within_s=60.0)
        assert not any(is_alive(pid) for pid in pids)
    left = _processes_that_name(str(tmp_path))
    assert left == []
    assert not list(tmp_path.rglob("*.sock"))
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def _processes_that_name(text: str) -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = folder.joinpath("cmdline").read_bytes().replace(b"\0", b" ").decode()
            environ = folder.joinpath("environ").read_bytes().decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if text in command or text in environ:
            found.append(command)
    return found
